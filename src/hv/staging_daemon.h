/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/staging_daemon.h: the qemu-storage-daemon that exports the copies of a staged pull (see
 * hv/qmp/staging.h). It outlives the process that starts it, and is known by its pid file.
 */
#pragma once

#include "conf/backup_def.h"

#include <jansson.h>
#include <sys/types.h>

/* Starts the daemon that `record` ("pidfile", "disks") describes, which exports the copies at
 * `server`. Of a disk that says "depth" it tells which clusters were written (the context
 * qemu:allocation-depth) instead of a bitmap. */
bool staging_daemon_start (const json_t *record, const BackupServer *server, TmkError **errp);

/* The process of the daemon that was told to write `pidfile`, 0: there is none. */
pid_t staging_daemon_of (const char *pidfile);

/* Is the daemon there that was told to write `pidfile`? */
bool staging_daemon_lives (const char *pidfile);

/* The unix socket that it listens on, or NULL: TCP, or there is none. Free with g_free(). */
char *staging_daemon_socket (const char *pidfile);

/* Ends the daemon that was told to write `pidfile`, if it is there, and removes its socket (NULL:
 * TCP). */
bool staging_daemon_end (const char *pidfile, const char *socket, TmkError **errp);
