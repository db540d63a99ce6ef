/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/undo.h: the log of what a job made, by which it is taken back.
 *
 * The log is data, not closures: it is written into the job's record before the things it names are
 * made, so the next process can carry it out when this one was killed. Entries are undone in
 * reverse; each is idempotent, for nobody knows how far the other got. Some are taken back however
 * the job ends (nodes, temporary bitmaps, jobs), some only where it failed (files, checkpoint).
 *
 *   {"op": "file", "path": P, "dev": D, "ino": I}      failure; ino 0: not made yet, or just now
 *     with "always": true (a scratch)                  always
 *   {"op": "folder", "path": P}                        always: rmdir
 *   {"op": "secret", "id": ID}                         always (TLS credentials too)
 *   {"op": "node", "name": N}                          always
 *   {"op": "checkpoint", "disk": D, "node": N, "name": B}   failure; outlives QEMU
 *   {"op": "bitmap", "node": N, "name": B}             always
 *   {"op": "job", "id": ID}                            always
 *   {"op": "drive", "device": P, "filter": N, "node": N, "drive": ID or null}   always
 *   {"op": "server", "socket": P or null, "host": H or null, "port": N, "tls": BOOL}   always
 *     with "started": QEMU's run, once this job has started it
 *     with "relayed": true where clients come by way of a relay
 *   {"op": "relay", "lock": P}                         always; outlives QEMU
 *   {"op": "export", "id": ID, "socket": P or null}    always; all else only once these are gone
 *   {"op": "daemon", "pidfile": P, "socket": P or null}   always; outlives QEMU
 */
#pragma once

#include "hv/qmp/machine.h"

/* `always`: also where the job ended well. */
json_t *undo_file (const char *path, guint64 dev, guint64 ino, bool always);
json_t *undo_folder (const char *path);
json_t *undo_secret (const char *id);
json_t *undo_node (const char *name);
json_t *undo_checkpoint (const char *disk, const char *node, const char *name);
json_t *undo_bitmap (const char *node, const char *name);
json_t *undo_job (const char *id);
/* The device at `device` goes from `filter` back to what it was on: by the id of its -drive,
 * `drive`, where it had one, else `node`. */
json_t *undo_drive (const char *device, const char *filter, const char *node, const char *drive);
/* On the unix socket, or else on `host` and `port`; `tls`: with credentials; `relayed`: QEMU was
 * passed the socket and a life line. */
json_t *undo_server (const char *socket, const char *host, unsigned port, bool tls, bool relayed);
/* Found by its lock, see hv/relay.h. */
json_t *undo_relay (const char *lock);
/* `socket`: where its clients are, or NULL for TCP. */
json_t *undo_export (const char *id, const char *socket);
json_t *undo_daemon (const char *pidfile, const char *socket);

/* Takes back what `log` names: everything for `failed`, else only what goes in any case. `machine`
 * is entered; with QEMU gone only files are. All entries are tried; where some fail the first
 * error is returned. `*rest` gets the entries (a new array, in order) that are still to be undone
 * when QEMU is there again: checkpoints. */
bool undo_run (QmpMachine *machine, const json_t *log, bool failed, json_t **rest, TmkError **errp);
