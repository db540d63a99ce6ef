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
 *   {"op": "secret", "id": ID}                         always
 *   {"op": "node", "name": N}                          always
 *   {"op": "checkpoint", "disk": D, "node": N, "name": B}   failure; outlives QEMU
 *   {"op": "bitmap", "node": N, "name": B}             always
 *   {"op": "job", "id": ID}                            always
 */
#pragma once

#include "hv/qmp/machine.h"

json_t *undo_file (const char *path, guint64 dev, guint64 ino);
json_t *undo_secret (const char *id);
json_t *undo_node (const char *name);
json_t *undo_checkpoint (const char *disk, const char *node, const char *name);
json_t *undo_bitmap (const char *node, const char *name);
json_t *undo_job (const char *id);

/* Takes back what `log` names: everything for `failed`, else only what goes in any case. `machine`
 * is entered; with QEMU gone only files are. All entries are tried; where some fail the first
 * error is returned. `*rest` gets the entries (a new array, in order) that are still to be undone
 * when QEMU is there again: checkpoints. */
bool undo_run (QmpMachine *machine, const json_t *log, bool failed, json_t **rest, TmkError **errp);
