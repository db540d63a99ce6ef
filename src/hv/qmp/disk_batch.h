/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/disk_batch.h: what QEMU is to do to many disks, asked for all at once.
 *
 * QEMU carries commands out in order and goes on behind one that fails, so a batch holds one kind
 * of step, and the log from which all is taken back must name everything in it already.
 */
#pragma once

#include "hv/qmp/machine.h"
#include "hv/qmp/plan.h"

typedef struct {
  json_t *commands;
  GPtrArray *disks; /* of const JobDisk*, borrowed: whose command each is */
} DiskBatch;

DiskBatch *disk_batch_new (void);
void disk_batch_free (DiskBatch *batch);

void disk_batch_add (DiskBatch *batch, const JobDisk *disk, const char *command,
                     json_t *arguments /* stolen */);

/* Runs it, and empties it. Where something fails, `*failed` is the disk of the command that failed
 * first. */
bool disk_batch_run (QmpMachine *machine, DiskBatch *batch, const JobDisk **failed,
                     TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (DiskBatch, disk_batch_free)
