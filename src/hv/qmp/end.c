/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/end.c: ending a job because the user says so: end (a pull is done), abort.
 *
 * A pull's exports go first and its snapshots are probed only then, see pull_probe().
 */
#include "hv/qmp/job.h"
#include "hv/qmp/pull.h"
#include "hv/qmp/strangers.h"
#include "hv/qmp/undo.h"
#include "qmp/commands.h"

#include <string.h>

#define DOMAIN "hv"

/* Puts all clients out, so that nobody reads any more when the snapshots are probed. */
static bool
end_exports (QmpMachine *machine, const json_t *record, TmkError **errp)
{
  g_autoptr (json_t) exports = json_array ();
  g_autoptr (json_t) rest = NULL;
  size_t i;
  json_t *entry;
  json_array_foreach (json_object_get (record, "undo"), i, entry) {
    const char *op = jsonx_string (entry, "op");
    if (g_strcmp0 (op, "export") == 0 || g_strcmp0 (op, "relay") == 0)
      json_array_append (exports, entry);
  }
  return undo_run (machine, exports, false, &rest, errp);
}

/* Of what shows without a probe only this is final: a snapshot is probed, and who served clients
 * served what was read. */
static TmkError *
lost_scratch (const json_t *record)
{
  TmkError *trouble = record_trouble (record);
  if (trouble == NULL || tmk_error_code (trouble) == TMK_ERR_NOT_FOUND)
    return trouble;
  tmk_error_free (trouble);
  return NULL;
}

/* For those who look at it later. */
static void
set_complete (json_t *record)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    json_object_set_new (disk, "state", json_string ("complete"));
    (void) json_object_del (disk, "error"); /* what seemed to be one */
  }
}

static bool
end_running_pull (QmpMachine *machine, json_t *record, TmkError **errp)
{
  JobCounts counts;
  g_autoptr (TmkError) broken = NULL;
  if (!job_look (machine, record, &counts, errp))
    return false;
  if (!job_is_exported (record)) {
    error_set (&broken, DOMAIN, TMK_ERR_CANCELLED, 0, "the copies to export were not complete");
    error_hint (&broken, "begin again");
    return job_fail (machine, record, "failed", broken, errp) && job_ended_well (record, errp);
  }
  if (counts.missing > 0)
    return job_act (machine, record, &counts, errp) && job_ended_well (record, errp);
  if (!end_exports (machine, record, errp))
    return false;
  broken = job_changed_disk (machine, record);
  if (broken == NULL)
    broken = lost_scratch (record);
  if (broken == NULL && !jsonx_bool (record, "staged") && !jsonx_bool (record, "direct")
      && !pull_probe (machine, record, &broken) && tmk_error_code (broken) != TMK_ERR_IO) {
    error_propagate (errp, g_steal_pointer (&broken));
    return false;
  }
  if (broken != NULL)
    return job_fail (machine, record, "failed", broken, errp) && job_ended_well (record, errp);
  set_complete (record);
  record_set_result (record, "done", NULL);
  return job_end (machine, record, errp);
}

static bool
end_entered (QmpMachine *machine, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (json_t) record = job_read (machine, &err);
  if (err != NULL) {
    error_propagate (errp, err);
    return false;
  }
  if (record == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no backup job");
    error_hint (errp, "start one with 'tidemark begin'");
    return false;
  }
  if (!jsonx_bool (record, "pull")) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "the job is a push job, which ends by itself");
    error_hint (errp, "wait for it with 'tidemark wait', or cancel it with 'tidemark abort'");
    return false;
  }
  if (record_in_phase (record, "ended"))
    return job_ended_well (record, errp);
  if (machine->client == NULL)
    return job_act_on_gone (machine, record, true, errp) && job_ended_well (record, errp);
  if (record_in_phase (record, "ending"))
    return job_end (machine, record, errp) && job_ended_well (record, errp);
  if (record_in_phase (record, "starting"))
    return job_end_interrupted (machine, record, errp) && job_ended_well (record, errp);
  return end_running_pull (machine, record, errp);
}

bool
machine_end (TmkDomain *domain, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_GONE_TOO, errp))
    return false;
  bool ok = end_entered (machine, errp);
  machine_leave (machine);
  return ok;
}

/* What no record knows, found by its name. */
static bool
abort_strangers (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (json_t) log = strangers_log (machine, errp);
  if (log == NULL)
    return false;
  if (json_array_size (log) == 0) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no backup job");
    return false;
  }
  g_autoptr (json_t) rest = NULL;
  return undo_run (machine, log, true, &rest, errp);
}

static bool
abort_entered (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record = state_read (machine->state, "job", &err);
  if (err != NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  if (record == NULL)
    return abort_strangers (machine, errp);
  if (machine->client == NULL)
    return job_act_on_gone (machine, record, true, errp);
  if (record_in_phase (record, "ending"))
    return job_end (machine, record, errp);
  if (record_in_phase (record, "starting"))
    return job_end_interrupted (machine, record, errp);
  error_set (&err, DOMAIN, TMK_ERR_CANCELLED, 0, "the backup was aborted");
  JobCounts counts;
  return job_look (machine, record, &counts, errp)
         && job_fail (machine, record, "cancelled", err, errp);
}

bool
machine_abort (TmkDomain *domain, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_GONE_TOO, errp))
    return false;
  bool ok = abort_entered (machine, errp);
  machine_leave (machine);
  return ok;
}
