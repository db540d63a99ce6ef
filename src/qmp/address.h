/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qmp/address.h: where a monitor listens, and a socket connected to it. */
#pragma once

#include "util/error.h"
#include <glib.h>

/* A non-blocking socket connected to `addr` (normalized, see qmp_address_normalize()), or -1. Tries
 * until `deadline` (monotonic time), also where a unix socket's queue is full, which means that
 * others already wait for the same monitor: then TMK_ERR_BUSY. The look-up of a host's name is not
 * bound by the deadline. */
int qmp_address_connect (const char *addr, gint64 deadline, TmkError **errp);
