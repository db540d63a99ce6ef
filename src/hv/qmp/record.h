/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/record.h: the record (hv/job_record.h) of a job of QEMU's:
 *
 *   format 1, id, owner, pull, powered_off, staged, direct, exported, pidfile, socket, clients,
 *   phase, address, instance, started_us, pause_us, ended_us, quiesced, frozen_us (where that was
 *   asked for), held (see record_set_held()),
 *   definition (aligned, internal form), checkpoint (the same, or null), checkpoint_name,
 *   disks: [{name, node, mode, incremental, target, target_type, format, backing, size, estimate,
 *            job, done, total, state, error, file, image, snapshot, export, exportbitmap, room,
 *            dirty}],
 *   undo: see hv/qmp/undo.h,
 *   result: {state: done|failed|cancelled, code, message, hint}     once it is known
 */
#pragma once

#include "hv/job_record.h"
#include "hv/qmp/machine.h"
#include "hv/qmp/plan.h"

/* `makes_files`: the targets are made by the job, not reused. */
json_t *record_new (QmpMachine *machine, const JobPlan *plan, const char *owner, bool makes_files);

/* Sets the log entry for the file at `path` (see undo_file()). */
void record_set_file (json_t *record, const char *path, guint64 dev, guint64 ino);

/* From the begin of a pull until it runs, where the guest ran before: if it is paused then, and
 * the begin fails, it was us. */
void record_set_held (json_t *record, bool held);

/* QEMU's NBD server is the job's. */
void record_set_server_started (json_t *record);
