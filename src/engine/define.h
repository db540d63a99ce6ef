/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/define.h: a domain that was restored, made known to libvirt.
 */
#pragma once

#include "engine/destinations.h"
#include <tidemark/restore.h>

/* Can it be defined, as `options` have it? Before anything is restored. */
bool define_check (const Manifest *manifest, const TmkRestoreOptions *options, TmkError **errp);

/* Defines it, its disks and files being those in `destinations`. `*name`: what it is called; free
 * with g_free(). */
bool define_run (const Manifest *manifest, const Destinations *destinations,
                 const TmkRestoreOptions *options, char **name, TmkError **errp);
