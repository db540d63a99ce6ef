/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/record.h: a job as it is remembered between processes: `job` while it is there,
 * `last` when it has ended. A JSON object:
 *
 *   format 1, id, owner, pull, powered_off, staged, direct, exported, pidfile, socket, clients,
 *   phase, address, instance, started_us, pause_us, ended_us, quiesced, frozen_us (where that was
 *   asked for),
 *   definition (aligned, internal form), checkpoint (the same, or null), checkpoint_name,
 *   disks: [{name, node, mode, incremental, target, target_type, format, backing, size, estimate,
 *            job, done, total, state, error, file, image, snapshot, export, exportbitmap, room,
 *            dirty}],
 *   undo: see hv/qmp/undo.h,
 *   result: {state: done|failed|cancelled, code, message, hint}     once it is known
 *
 * Phases: `starting` (begin is at work: if it is not, undo), `running`, `ending` (the result is
 * known and written down; undo what goes with it), `ended` (in `last` only).
 */
#pragma once

#include "hv/qmp/machine.h"
#include "hv/qmp/plan.h"
#include "hv/quiesce.h"

/* `makes_files`: the targets are made by the job, not reused. */
json_t *record_new (QmpMachine *machine, const JobPlan *plan, const char *owner, bool makes_files);

const char *record_phase (const json_t *record);
bool record_in_phase (const json_t *record, const char *phase);
void record_set_phase (json_t *record, const char *phase);

/* Writes down how the job ended; `err` is NULL for "done". */
void record_set_result (json_t *record, const char *state, const TmkError *err);

/* Why a job that runs is not good any more, as far as is known; not kept. */
void record_set_trouble (json_t *record, const TmkError *err);
TmkError *record_trouble (const json_t *record);

/* Thaws the guest, and notes how that went. */
void record_set_quiesced (json_t *record, Quiesce *quiesce, const TmkBeginOptions *options);

/* The result as an error, or NULL where the job ended well or has not ended. */
TmkError *record_error (const json_t *record);

/* Sets the log entry for the file at `path` (see undo_file()). */
void record_set_file (json_t *record, const char *path, guint64 dev, guint64 ino);

/* QEMU's NBD server is the job's. */
void record_set_server_started (json_t *record);

/* What is shown of it. `record` may be NULL: no job. */
TmkJobStatus *record_to_status (const json_t *record);
