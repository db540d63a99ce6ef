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
