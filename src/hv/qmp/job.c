/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/job.c: watching and ending a job.
 *
 * QEMU is asked, not listened to: the monitor is not held while a job runs, so events are missed,
 * but everything they tell can be queried too. Three things are due while a job runs: when all of
 * QEMU's jobs have concluded it is ended; when a target's file system runs full it is cancelled
 * before a guest write meets the end of it; and when that came too late and the guest was paused
 * (QEMU passes trouble with a backup's target on to the guest's own writes), the job is cancelled
 * and the guest let go on.
 */
#include "hv/qmp/job.h"

#include "hv/qmp/pull.h"
#include "hv/qmp/scratch.h"
#include "hv/qmp/server.h"
#include "hv/qmp/staging.h"
#include "hv/qmp/targets.h"
#include "hv/qmp/undo.h"
#include "qmp/commands.h"

#include <errno.h>
#include <string.h>

#define DOMAIN "hv"

/* Less room than this (or than the job may still need, if that is less) and it is cancelled. */
#define RESERVE (4 * 1024 * 1024)

/* --- ending ---------------------------------------------------------------------------------- */

static bool
keep_checkpoint (QmpMachine *machine, const json_t *record, TmkError **errp)
{
  const char *xml = jsonx_string (record, "checkpoint");
  if (xml == NULL)
    return true;
  g_autoptr (TmkCheckpointDef) def = tmk_checkpoint_def_parse (
      xml, strlen (xml), "the job's record", TMK_XML_INTERNAL | TMK_CHECKPOINT_REDEFINE, errp);
  return def != NULL && state_write_checkpoint (machine->state, def, errp);
}

/* Bitmaps that could not be removed are remembered until QEMU is there again. */
static bool
remember_rest (QmpMachine *machine, const json_t *rest, TmkError **errp)
{
  if (json_array_size (rest) == 0)
    return true;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) pending = state_read (machine->state, "pending", &err);
  if (err != NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  if (pending == NULL)
    pending = json_array ();
  json_array_extend (pending, (json_t *) rest);
  return state_write (machine->state, "pending", pending, errp);
}

bool
job_end (QmpMachine *machine, json_t *record, TmkError **errp)
{
  const json_t *result = json_object_get (record, "result");
  bool done = g_strcmp0 (jsonx_string (result, "state"), "done") == 0;
  g_autoptr (json_t) rest = NULL;

  record_set_phase (record, "ending");
  if (!state_write (machine->state, "job", record, errp))
    return false;
  if (done && !keep_checkpoint (machine, record, errp))
    return false;
  if (!undo_run (machine, json_object_get (record, "undo"), !done, &rest, errp)
      || !remember_rest (machine, rest, errp))
    return false;
  record_set_phase (record, "ended");
  json_object_set_new (record, "ended_us", json_integer (g_get_real_time ()));
  return state_write (machine->state, "last", record, errp)
         && state_remove (machine->state, "job", errp);
}

/* The disk of a record's entry, or NULL. By its node: the name it goes by may be another today, if
 * the domain was described then and is not now. */
static const QmpDisk *
job_disk (const QmpMachine *machine, const json_t *entry)
{
  return qmp_disks_find_node (machine->disks, jsonx_string (entry, "node"));
}

/* Is the guest paused by an error on one of the job's disks? */
static TmkError *
guest_in_trouble (QmpMachine *machine, const json_t *record)
{
  g_autofree char *status = NULL;
  bool running;
  TmkError *err = NULL;
  if (!qmp_query_status (machine->client, &running, &status, NULL)
      || g_strcmp0 (status, "io-error") != 0)
    return NULL;
  size_t i;
  json_t *entry;
  json_array_foreach (json_object_get (record, "disks"), i, entry) {
    const char *name = jsonx_string (entry, "name");
    const QmpDisk *disk = job_disk (machine, entry);
    if (disk == NULL || disk->io_status == NULL || g_str_equal (disk->io_status, "ok"))
      continue;
    bool full = g_str_equal (disk->io_status, "nospace");
    error_set (&err, DOMAIN, full ? TMK_ERR_NO_SPACE : TMK_ERR_IO, 0,
               "disk '%s': %s target '%s' stopped the guest, so the backup was cancelled", name,
               full ? "no space left for" : "trouble with", jsonx_string (entry, "target"));
    error_hint (&err, "see to the storage of the target, and begin again");
    return err;
  }
  return NULL;
}

/* Is the guest still held for the instant of a begin that failed? */
static bool
guest_is_held (QmpMachine *machine, const json_t *record)
{
  g_autofree char *status = NULL;
  bool running;
  return jsonx_bool (record, "held") && qmp_query_status (machine->client, &running, &status, NULL)
         && g_strcmp0 (status, "paused") == 0;
}

/* Lets the guest go on if we hold it, or if an error on one of the job's disks has paused it: the
 * job is gone, so its write will pass now. It may have met the full target just when the job was
 * being cancelled. */
static bool
resume_guest (QmpMachine *machine, const json_t *record, TmkError **errp)
{
  if (machine->client == NULL)
    return true;
  if (!machine_refresh (machine, errp))
    return false;
  g_autoptr (TmkError) trouble = guest_in_trouble (machine, record);
  return (trouble == NULL && !guest_is_held (machine, record))
         || qmp_run (machine->client, "cont", NULL, errp);
}

bool
job_fail (QmpMachine *machine, json_t *record, const char *state, const TmkError *why,
          TmkError **errp)
{
  record_set_result (record, state, why);
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    if (g_strcmp0 (jsonx_string (disk, "state"), "failed") != 0)
      json_object_set_new (disk, "state", json_string ("cancelled"));
  }
  bool ended = job_end (machine, record, errp);
  return resume_guest (machine, record, ended ? errp : NULL) && ended;
}

/* --- looking --------------------------------------------------------------------------------- */

/* Brings one disk of the record up to date with QEMU's job. */
static void
look_at_disk (json_t *disk, const json_t *jobs, JobCounts *counts)
{
  const json_t *job = jsonx_find (jobs, "id", jsonx_string (disk, "job"));
  if (job == NULL) {
    counts->missing++;
    return;
  }
  const char *error = jsonx_string (job, "error");
  bool concluded = g_strcmp0 (jsonx_string (job, "status"), "concluded") == 0;
  json_object_set_new (disk, "done",
                       json_integer ((json_int_t) jsonx_uint (job, "current-progress")));
  json_object_set_new (disk, "total",
                       json_integer ((json_int_t) jsonx_uint (job, "total-progress")));
  if (!concluded) {
    counts->running++;
  } else if (error != NULL) {
    counts->failed++;
    json_object_set_new (disk, "state", json_string ("failed"));
    json_object_set_new (disk, "error", json_string (error));
  } else {
    counts->complete++;
    json_object_set_new (disk, "state", json_string ("complete"));
  }
}

/* A pull whose disks are exported has no jobs of QEMU's any more. */
bool
job_is_exported (const json_t *record)
{
  return jsonx_bool (record, "pull")
         && (!jsonx_bool (record, "staged") || jsonx_bool (record, "exported"));
}

/* How full the scratch images of a pull are, and who reads. */
static bool
look_at_exported (QmpMachine *machine, json_t *record, JobCounts *counts, TmkError **errp)
{
  const char *socket = jsonx_string (record, "socket");
  json_object_set_new (record, "clients", json_integer (server_clients (machine, socket)));
  bool direct = jsonx_bool (record, "direct");
  if (direct ? !pull_look_direct (machine, record, &counts->missing, errp)
             : !scratch_look (machine, record, &counts->missing, errp))
    return false;
  counts->running = (unsigned) json_array_size (json_object_get (record, "disks"));
  counts->running -= MIN (counts->missing, counts->running);
  return true;
}

bool
job_look (QmpMachine *machine, json_t *record, JobCounts *counts, TmkError **errp)
{
  *counts = (JobCounts){ 0 };
  if (job_is_exported (record))
    return look_at_exported (machine, record, counts, errp);
  g_autoptr (json_t) jobs = qmp_query_jobs (machine->client, errp);
  if (jobs == NULL)
    return false;
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk)
    look_at_disk (disk, jobs, counts);
  return true;
}

/* --- what is due ----------------------------------------------------------------------------- */

/* The first disk whose job failed, as an error. */
static TmkError *
failure_of (const json_t *record)
{
  size_t i;
  json_t *disk;
  TmkError *err = NULL;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    const char *error = jsonx_string (disk, "error");
    if (error == NULL)
      continue;
    const char *target = jsonx_string (disk, "target");
    bool full = g_str_equal (error, g_strerror (ENOSPC));
    error_set (&err, DOMAIN, full ? TMK_ERR_NO_SPACE : TMK_ERR_IO, 0,
               "disk '%s': writing '%s' failed: %s", jsonx_string (disk, "name"), target, error);
    error_hint (&err, full ? "free some space in its folder or choose another, and begin again"
                           : "see to the storage of the target, and begin again");
    return err;
  }
  return NULL;
}

/* A disk whose size changed while it was copied is in no state it ever was in. One that went away
 * during a pull is refused too: nobody knows what was done to its images since. */
TmkError *
job_changed_disk (QmpMachine *machine, const json_t *record)
{
  size_t i;
  json_t *entry;
  TmkError *err = NULL;
  json_array_foreach (json_object_get (record, "disks"), i, entry) {
    const char *name = jsonx_string (entry, "name");
    const QmpDisk *disk = job_disk (machine, entry);
    if (disk == NULL && jsonx_bool (record, "pull")) {
      error_set (&err, DOMAIN, TMK_ERR_GONE, 0, "disk '%s' was detached during the backup", name);
      error_hint (&err, "begin again");
      return err;
    }
    if (disk == NULL || qmp_disk_active (disk) == NULL
        || qmp_disk_active (disk)->size == jsonx_uint (entry, "size"))
      continue;
    error_set (&err, DOMAIN, TMK_ERR_MISMATCH, 0, "disk '%s' was resized during the backup", name);
    error_hint (&err, "begin again");
    return err;
  }
  return NULL;
}

/* A target whose file system is about to run full, as an error. */
static TmkError *
target_running_full (const json_t *record)
{
  size_t i;
  json_t *disk;
  TmkError *err = NULL;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    const char *target = jsonx_string (disk, "target");
    bool device = g_strcmp0 (jsonx_string (disk, "target_type"), "block") == 0;
    if (g_strcmp0 (jsonx_string (disk, "state"), "running") != 0)
      continue;
    guint64 total = jsonx_uint (disk, "total"), done = jsonx_uint (disk, "done");
    guint64 needed = MIN (total > done ? total - done : 0, jsonx_uint (disk, "estimate"));
    guint64 room = target_room (target, device);
    if (room >= MIN (needed, RESERVE))
      continue;
    error_set (&err, DOMAIN, TMK_ERR_NO_SPACE, ENOSPC,
               "disk '%s': the storage of '%s' is full, so the backup was cancelled before a write"
               " of the guest met that",
               jsonx_string (disk, "name"), target);
    error_hint (&err, "free some space in its folder or choose another, and begin again");
    return err;
  }
  return NULL;
}

bool
job_act (QmpMachine *machine, json_t *record, const JobCounts *counts, TmkError **errp)
{
  /* A pull is not probed while it is exported, see pull_probe(), and cannot stop the guest. */
  if (job_is_exported (record) && counts->missing == 0)
    return true;
  g_autoptr (TmkError) trouble = guest_in_trouble (machine, record);
  if (trouble != NULL)
    return job_fail (machine, record, "failed", trouble, errp);
  g_autoptr (TmkError) failure = failure_of (record);
  if (failure == NULL && counts->missing > 0)
    error_set (&failure, DOMAIN, TMK_ERR_GONE, 0,
               "QEMU knows nothing of the job any more: it was started anew, or somebody ended it");
  if (failure != NULL && counts->missing > 0)
    error_hint (&failure, "begin again");
  if (failure == NULL && counts->running == 0)
    failure = job_changed_disk (machine, record);
  if (failure == NULL && counts->running > 0)
    failure = target_running_full (record);
  if (failure != NULL)
    return job_fail (machine, record, "failed", failure, errp);
  if (counts->running > 0)
    return true;
  if (jsonx_bool (record, "staged")) {
    if (staging_export (machine, record, &failure))
      return true;
    return job_fail (machine, record, "failed", failure, errp);
  }
  record_set_result (record, "done", NULL);
  return job_end (machine, record, errp);
}

/* What the record of a job that has ended says: true where it ended well. */
bool
job_ended_well (const json_t *record, TmkError **errp)
{
  TmkError *err = record_error (record);
  error_propagate (errp, err);
  return err == NULL;
}

bool
job_wait_staged (QmpMachine *machine, json_t *record, const TmkBeginOptions *options,
                 TmkError **errp)
{
  g_autoptr (TmkError) cancelled = NULL;
  error_set (&cancelled, DOMAIN, TMK_ERR_CANCELLED, 0, "the backup was interrupted");
  while (record_in_phase (record, "running") && !job_is_exported (record)) {
    JobCounts counts;
    if (!machine_refresh (machine, errp) || !job_look (machine, record, &counts, errp)
        || !job_act (machine, record, &counts, errp))
      return false;
    if (options->cancelled != NULL && options->cancelled (options->cancelled_data)
        && !job_fail (machine, record, "cancelled", cancelled, errp))
      return false;
    g_usleep (20000);
  }
  return job_ended_well (record, errp);
}

/* QEMU does not answer at the job's address. If it lives it may still write the targets, so they
 * are given up only where it is known to be gone, or where the user says so (`insist`) and nothing
 * is known (a monitor on TCP). */
bool
job_act_on_gone (QmpMachine *machine, json_t *record, bool insist, TmkError **errp)
{
  g_autoptr (TmkError) gone = NULL;
  const char *instance = jsonx_string (record, "instance");
  if (instance == NULL && !insist) {
    error_set (errp, DOMAIN, TMK_ERR_GONE, 0, "nothing answers at '%s', where the job ran",
               machine->address);
    error_hint (errp, "if that QEMU has ended, clean up with 'tidemark abort'");
    return false;
  }
  if (machine_instance_lives (instance)) {
    error_set (errp, DOMAIN, TMK_ERR_GONE, 0, "the QEMU that runs the job does not answer at '%s'",
               machine->address);
    error_hint (errp, "it may be exiting: try again in a moment");
    return false;
  }
  if (record_in_phase (record, "ending"))
    return job_end (machine, record, errp);
  error_set (&gone, DOMAIN, TMK_ERR_GONE, 0, "QEMU ended during the backup");
  error_hint (&gone, "start the virtual machine and begin again");
  return job_fail (machine, record, "failed", gone, errp);
}

/* --- the public functions -------------------------------------------------------------------- */

bool
job_end_interrupted (QmpMachine *machine, json_t *record, TmkError **errp)
{
  g_autoptr (TmkError) why = NULL;
  error_set (&why, DOMAIN, TMK_ERR_CANCELLED, 0, "begin was cut off, and what it had made removed");
  return job_fail (machine, record, "cancelled", why, errp);
}

bool
job_do_pending (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) pending = state_read (machine->state, "pending", &err);
  if (err != NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  if (pending == NULL)
    return true;
  g_autoptr (json_t) rest = NULL;
  return undo_run (machine, pending, true, &rest, errp)
         && state_remove (machine->state, "pending", errp) && machine_refresh (machine, errp);
}

bool
job_recover (QmpMachine *machine, json_t **running, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record = state_read (machine->state, "job", &err);
  if (err != NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  *running = NULL;
  if (record != NULL && record_in_phase (record, "running")) {
    JobCounts counts;
    if (!job_look (machine, record, &counts, errp) || !job_act (machine, record, &counts, errp))
      return false;
    if (record_in_phase (record, "running")) {
      /* Whoever came to change something will not. */
      if (machine->place->set_writable != NULL)
        machine->place->set_writable (machine, false);
      *running = g_steal_pointer (&record);
      return true;
    }
  } else if (record != NULL) {
    bool ok = record_in_phase (record, "ending") ? job_end (machine, record, errp)
                                                 : job_end_interrupted (machine, record, errp);
    if (!ok)
      return false;
  }
  return record == NULL || machine_refresh (machine, errp);
}

static bool
bring_up_to_date (QmpMachine *machine, json_t *record, bool act, TmkError **errp)
{
  JobCounts counts;
  if (machine->client == NULL)
    return !act || job_act_on_gone (machine, record, false, errp);
  if (record_in_phase (record, "ending"))
    return !act || job_end (machine, record, errp);
  if (record_in_phase (record, "starting"))
    return !act || job_end_interrupted (machine, record, errp);
  /* A pull that is exported does not need QEMU's disks, see hv/qmp/scratch.h. */
  if (act && !job_is_exported (record) && !machine_refresh (machine, errp))
    return false;
  return job_look (machine, record, &counts, errp)
         && (!act || job_act (machine, record, &counts, errp));
}

json_t *
job_read (QmpMachine *machine, TmkError **errp)
{
  TmkError *err = NULL;
  json_t *record = state_read (machine->state, "job", &err);
  if (record == NULL && err == NULL)
    record = state_read (machine->state, "last", &err);
  error_propagate (errp, err);
  return record;
}

/* Of a job that is not there any more all is written down; only another needs QEMU. */
static bool
enter_for_status (QmpMachine *machine, TmkError **errp)
{
  if (!machine_enter (machine, ENTER_RECORD, errp))
    return false;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record = state_read (machine->state, "job", &err);
  if (record == NULL && err == NULL)
    return true;
  machine_leave (machine);
  return machine_enter (machine, ENTER_LOOK, errp);
}

TmkJobStatus *
machine_job_status (TmkDomain *domain, bool act, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!enter_for_status (machine, errp))
    return NULL;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkJobStatus) status = NULL;
  g_autoptr (json_t) record = job_read (machine, &err);
  if (err == NULL
      && (record == NULL || record_in_phase (record, "ended")
          || bring_up_to_date (machine, record, act, &err))) {
    status = record_to_status (record);
    if (machine->client == NULL && status->state == TMK_JOB_RUNNING)
      status->state = TMK_JOB_INTERRUPTED; /* QEMU is gone */
    job_seen_note (&machine->seen, status);
  }
  machine_leave (machine);
  error_propagate (errp, g_steal_pointer (&err));
  return g_steal_pointer (&status);
}

char *
machine_job_xml (TmkDomain *domain, unsigned flags, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_RECORD, errp))
    return NULL;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record = job_read (machine, &err);
  machine_leave (machine);
  const char *xml = jsonx_string (record, "definition");
  if (xml == NULL) {
    if (err == NULL) {
      error_set (&err, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no backup job");
      error_hint (&err, "start one with 'tidemark begin'");
    }
    error_propagate (errp, g_steal_pointer (&err));
    return NULL;
  }
  if ((flags & TMK_XML_INTERNAL) != 0)
    return g_strdup (xml);
  g_autoptr (TmkBackupDef) def
      = tmk_backup_def_parse (xml, strlen (xml), "the job's record", TMK_XML_INTERNAL, errp);
  return def != NULL ? tmk_backup_def_format (def, TMK_XML_PUBLIC) : NULL;
}
