/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/job_record.h: a job as it is remembered between processes, in the state folder: while it is
 * there, and the last one that has ended. A JSON object; what its members are is the driver's
 * (hv/qmp/record.h, hv/libvirt/job.h, and docs/format/state.rst for all), but for those here.
 *
 * Phases: `starting` (begin is at work: if it is not, undo), `running`, `ending` (the result is
 * known and written down; undo what goes with it), `ended` (of the last job only).
 */
#pragma once

#include "hv/quiesce.h"

#include <jansson.h>

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

/* What is shown of it. `record` may be NULL: no job. */
TmkJobStatus *record_to_status (const json_t *record);

/* What was seen of a running job when it was last looked at; all zero before. */
typedef struct {
  gint64 at_us; /* since the epoch */
  guint64 done;
} JobSeen;

/* Adds the speed since then (or the start), and remembers `status`. */
void job_seen_note (JobSeen *seen, TmkJobStatus *status);
