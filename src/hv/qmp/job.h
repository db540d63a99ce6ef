/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/job.h: what the files that begin, watch and end jobs share. */
#pragma once

#include "hv/qmp/record.h"

/* Ends the job of `record` as its result says: takes back what has to be, keeps or drops the
 * checkpoint, and makes it the last job. Idempotent, so that it can be gone on with after a kill.
 * `record` changes. */
bool job_end (QmpMachine *machine, json_t *record, TmkError **errp);

/* Removes the bitmaps of failed jobs that could not be removed when QEMU was gone. Part of entering
 * a machine that lives. */
bool job_do_pending (QmpMachine *machine, TmkError **errp);

/* Cleans up behind a begin that was cut off, or an end that was. To be called, with the machine
 * entered and QEMU alive, before anything new is begun. Stores in `*running` (a new reference or
 * NULL) the record of a job that runs. */
bool job_recover (QmpMachine *machine, json_t **running, TmkError **errp);

/* Looks after the copies of a staged pull until they are exported. False where that failed, the job
 * then being undone. */
bool job_wait_staged (QmpMachine *machine, json_t *record, const TmkBeginOptions *options,
                      TmkError **errp);

/* --- for hv/qmp/end.c ----------------------------------------------------------------------- */

/* QEMU's jobs (of an exported pull: its scratch images) by their state. */
typedef struct {
  unsigned running, complete, failed, missing;
} JobCounts;

/* The running job's record, or the last one's; NULL without an error where there is none. */
json_t *job_read (QmpMachine *machine, TmkError **errp);

/* Brings `record` up to date with what QEMU says. */
bool job_look (QmpMachine *machine, json_t *record, JobCounts *counts, TmkError **errp);

/* Does what is due; the job may end by it. */
bool job_act (QmpMachine *machine, json_t *record, const JobCounts *counts, TmkError **errp);

/* The same where QEMU does not answer. If it lives it may still write the targets, so they are
 * given up only where it is known to be gone, or where the user says so (`insist`) and nothing is
 * known (a monitor on TCP). */
bool job_act_on_gone (QmpMachine *machine, json_t *record, bool insist, TmkError **errp);

/* Ends the job as "failed" or "cancelled" (`state`) for the reason `why`. */
bool job_fail (QmpMachine *machine, json_t *record, const char *state, const TmkError *why,
               TmkError **errp);

/* Undoes what a begin that was cut off has made. */
bool job_end_interrupted (QmpMachine *machine, json_t *record, TmkError **errp);

/* Are the disks of a pull exported? (A staged one copies them first.) */
bool job_is_exported (const json_t *record);

/* Whether an ended job ended well; if not, why. */
bool job_ended_well (const json_t *record, TmkError **errp);

/* A disk that is not what it was when the job began, as an error; NULL where all are. */
TmkError *job_changed_disk (QmpMachine *machine, const json_t *record);
