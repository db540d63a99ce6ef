/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/job.h: what the files that begin, watch and end jobs share. */
#pragma once

#include "hv/qmp/record.h"

/* Ends the job of `record` as its result says: takes back what has to be, keeps or drops the
 * checkpoint, and makes it the last job. Idempotent, so that it can be gone on with after a kill.
 * `record` changes. */
bool job_end (QmpMachine *machine, json_t *record, TmkError **errp);

/* Cleans up behind a begin that was cut off, an end that was, and bitmaps that could not be removed
 * while QEMU was gone. To be called, with the machine entered and QEMU alive, before anything new
 * is begun. Stores in `*running` (a new reference or NULL) the record of a job that runs. */
bool job_recover (QmpMachine *machine, json_t **running, TmkError **errp);
