/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/staging.h: a pull whose disks QEMU must not export itself.
 *
 * QEMU before 10 aborts when a client leaves an NBD export of a disk in an iothread
 * (QUIRK_NBD_IOTHREAD_ABORT). There all disks of the job are pushed to their scratch images first,
 * in full, as of one instant; the map of what changed is stored in the scratch; and a
 * qemu-storage-daemon of our own exports the copies. It costs room and time, but no client can
 * harm the virtual machine. Its record says "staged", and "exported" once the daemon serves.
 */
#pragma once

#include "hv/qmp/plan.h"
#include "hv/qmp/record.h"

/* Must the job be staged? */
bool staging_is_needed (QmpMachine *machine, const JobPlan *plan);

/* Refuses what a staged job cannot do. Changes nothing. */
bool staging_check (const JobPlan *plan, TmkError **errp);

/* Starts the copies, in one transaction. */
bool staging_start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
                    json_t *record, TmkError **errp);

/* The copies are complete: takes them from QEMU and starts the daemon. `record` changes. */
bool staging_export (QmpMachine *machine, json_t *record, TmkError **errp);

/* Starts the daemon that `record` ("pidfile", "disks") describes, which exports the copies at
 * `server`. Of a disk that says "depth" it tells which clusters were written (the context
 * qemu:allocation-depth) instead of a bitmap. */
bool staging_start_daemon (const json_t *record, const BackupServer *server, TmkError **errp);

/* The process of the daemon that was told to write `pidfile`, 0: there is none. */
pid_t staging_daemon_of (const char *pidfile);

/* Is the daemon there that was told to write `pidfile`? */
bool staging_daemon_lives (const char *pidfile);

/* The unix socket that it listens on, or NULL: TCP, or there is none. Free with g_free(). */
char *staging_daemon_socket (const char *pidfile);

/* Ends the daemon that was told to write `pidfile`, if it is there, and removes its socket (NULL:
 * TCP). */
bool staging_end_daemon (const char *pidfile, const char *socket, TmkError **errp);
