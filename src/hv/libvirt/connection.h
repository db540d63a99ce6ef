/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/connection.h: a hypervisor of libvirt's, and libvirt's errors as ours.
 *
 * libvirt keeps the last error a thread; each function here that fails takes it at once.
 */
#pragma once

#include "hv/libvirt/api.h"

/* Connects; `uri` as in <tidemark/libvirt.h>. Release with virConnectClose(). */
virConnectPtr connection_open (const char *uri, TmkError **errp);

/* Is libvirt there (not the library here) of that release or a later one? As libvirt counts them:
 * 11004000 is 11.4.0. */
bool connection_is_since (virConnectPtr connection, unsigned long release);

/* Is it the user's own libvirt, which keeps everything below his home? Else it is the system's. */
bool connection_is_session (virConnectPtr connection);

/* Turns libvirt's last error into one of ours. `format` says what could not be done. */
void connection_set_error (TmkError **errp, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Did the last call fail because libvirt, or the domain, has gone in the meantime? */
bool connection_lost (void);

/* The domain of that name, uuid or number. Release with virDomainFree(). */
virDomainPtr connection_find (virConnectPtr connection, const char *name, TmkError **errp);

G_DEFINE_AUTO_CLEANUP_FREE_FUNC (virConnectPtr, virConnectClose, NULL)
G_DEFINE_AUTO_CLEANUP_FREE_FUNC (virDomainPtr, virDomainFree, NULL)
