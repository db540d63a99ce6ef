/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/job.h: a job that libvirt runs, as it is remembered: the document "libvirt-job" of the
 * state folder while it is there, "libvirt-last" when it has ended. A JSON object:
 *
 *   format 1, id, owner, pull, phase, started_us, ended_us, quiesced, frozen_us,
 *   staged, exported, pidfile (of a staged pull), process (that copies it), folder (of our own
 *   socket), socket, served,
 *   definition (aligned, internal form), checkpoint_name,
 *   disks: [{name, mode, incremental, target, block, made, format, size, export, exportbitmap,
 *            depth, state, done, total, room}],
 *   result: {state: done|failed|cancelled, code, message, hint}     once it is known
 *
 * Phases: `starting` (libvirt is being asked: if nobody is doing that, take it back), `copying` (of
 * a staged pull: `process` waits for the copies; if that has ended, take it back), `running`,
 * `ended` (in the last one only). The state's lock is held by whoever changes it, and not while
 * disks are copied. What is told of it has the names that hv/job_record.h shows.
 */
#pragma once

#include "hv/libvirt/lv.h"
#include "util/jsonx.h"

/* Bytes that a scratch or target must still be able to grow by. More than where QEMU is asked
 * itself: who watches asks libvirt now and then, and a full scratch pauses the guest. */
#define JOB_RESERVE (64 * 1024 * 1024)

/* The job that is remembered as there, or NULL, with or without an error. */
json_t *lv_job_read (LvDomain *lv, TmkError **errp);
bool lv_job_write (LvDomain *lv, json_t *record, TmkError **errp);

/* A staged pull is a push to its scratch images, which a qemu-storage-daemon of ours exports once
 * they are complete: that of disks in an iothread, which QEMU before 10 must not export itself (see
 * hv/qmp/staging.h). What changed is what was written to the image of an incremental one. */
bool lv_job_is_staged (const json_t *record);

/* Are its disks being copied, by a process that is there and will see to the rest? */
bool lv_job_is_copying (const json_t *record);
void lv_job_set_copying (json_t *record);

/* libvirt can be restarted at any time, so these ask again where that may help. Where it does not
 * answer they fail, and nothing is known of the job: it may well run.
 *
 * The definition of the job that libvirt runs; NULL without an error where there is none. */
TmkBackupDef *lv_job_definition (LvDomain *lv, TmkError **errp);

/* Does libvirt run that job? */
bool lv_job_is_libvirts (LvDomain *lv, const json_t *record, bool *is, TmkError **errp);

/* Does libvirt run that job, or, of a staged pull, the daemon serve it? */
bool lv_job_is_there (LvDomain *lv, const json_t *record, bool *is, TmkError **errp);

/* Has QEMU closed what the job wrote? libvirt says that it has ended before, and closing takes as
 * long as the storage needs to have it all. Waits for it, but not for ever. */
bool lv_job_is_closed (LvDomain *lv, const json_t *record);

/* Does a process listen at that unix socket? It is not connected to: a server of QEMU's is not to
 * be disturbed. */
bool lv_job_socket_is_served (const char *socket);

/* Is some other backup job there? */
bool lv_job_is_stranger (LvDomain *lv, const json_t *record, bool *is, TmkError **errp);

/* Brings a record of a job that should run up to date; a result is set where it does not. Fails
 * where libvirt does not tell. */
bool lv_job_look (LvDomain *lv, json_t *record, TmkError **errp);

/* Cancels it where what it writes to runs full, and lets a guest go on that met the end of it. */
void lv_job_watch (LvDomain *lv, json_t *record);

/* Sets how it ended; `err` is NULL for "done". */
void lv_job_set_result (json_t *record, const char *state, const TmkError *err);
bool lv_job_has_result (const json_t *record);
/* The copies of a staged pull are complete: it goes on. */
void lv_job_clear_result (json_t *record);

/* A job that was ended: had it failed just before? `*failure` stays NULL: no. */
bool lv_job_late_failure (LvDomain *lv, TmkError **failure, TmkError **errp);

/* The result as an error; NULL where it ended well. */
TmkError *lv_job_error (const json_t *record);

/* --- hv/libvirt/job_end.c -------------------------------------------------------------------- */

/* Ends libvirt's job if it is there, and waits until it is not. */
bool lv_job_stop (LvDomain *lv, const json_t *record, TmkError **errp);

/* Tidies up behind a job with a result, which is not libvirt's any more, and makes it the last one.
 */
bool lv_job_settle (LvDomain *lv, json_t *record, TmkError **errp);

/* Ends the job if it is there, and tidies up behind it; it was cancelled unless its result says
 * otherwise. */
bool lv_job_cancel (LvDomain *lv, json_t *record, TmkError **errp);

/* The same of one that may have ended by itself. */
bool lv_job_put_away (LvDomain *lv, json_t *record, TmkError **errp);

/* --- hv/libvirt/quiesce.c --------------------------------------------------------------------- */

typedef struct LvFreeze LvFreeze;

/* Freezes the guest's file systems by way of libvirt's agent, where `options` ask for that: NULL,
 * after a warning, where that cannot be done. It is thawed whatever happens to this process. */
LvFreeze *lv_freeze (LvDomain *lv, const TmkBeginOptions *options);

/* Thaws it. True where it was frozen until now; `*frozen_us` gets for how long. */
bool lv_thaw (LvDomain *lv, LvFreeze *freeze, const TmkBeginOptions *options, guint64 *frozen_us);
