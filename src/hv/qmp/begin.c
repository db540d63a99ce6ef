/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/begin.c: beginning a job.
 *
 * Look (plan, targets) → write down what will be made → make files → write down which → give them
 * to QEMU → the instant (a push's transaction here, a pull's in pull.c) → write down that it runs.
 * Whatever fails on the way is taken back by the same log that a later process would use.
 */
#include "hv/own_socket.h"
#include "hv/qmp/checkpoints.h"
#include "hv/qmp/job.h"
#include "hv/qmp/image.h"
#include "hv/qmp/pull.h"
#include "hv/qmp/server.h"
#include "hv/qmp/staging.h"
#include "hv/qmp/strangers.h"
#include "hv/qmp/targets.h"
#include "hv/qmp/tls.h"
#include "hv/qmp/undo.h"
#include "qmp/commands.h"
#include "qmp/schema.h"

#include <string.h>
#include <unistd.h>

#define DOMAIN "hv"

static char *
new_run_id (void)
{
  return g_strdup_printf ("%08x", g_random_int ());
}

/* A job of ours that no record knows: the state folder was lost. */
static bool
check_no_strangers (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (json_t) log = strangers_log (machine, errp);
  if (log == NULL)
    return false;
  if (json_array_size (log) == 0)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0,
             "there is something of a backup job that is not remembered here: %s",
             strangers_describe (json_array_get (log, json_array_size (log) - 1)));
  error_hint (errp, "if it is no other user's, end it with 'tidemark abort'");
  return false;
}

static void
warn_about_shared (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options)
{
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    const QmpDisk *its = qmp_disks_find (machine->disks, disk->name);
    if (its != NULL && machine_is_shared (machine, its->qom_path))
      hv_warn (options,
               "disk '%s': another machine may write to it too (share-rw=on), which neither the"
               " backup nor a checkpoint sees",
               disk->name);
  }
}

static void
warn_about (const JobPlan *plan, const TmkBeginOptions *options)
{
  if (plan->staged)
    hv_warn (options,
             "a disk is in an iothread, which this QEMU cannot export safely: the disks are"
             " copied to their scratch images first, and those exported");
  for (guint i = 0; i < plan->def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (plan->def->disks, i);
    if (disk->backup && disk->store != NULL && disk->store->seclabels != NULL
        && disk->store->seclabels->len > 0)
      hv_warn (options, "disk '%s': <seclabel> is kept in the definition but not applied",
               disk->name);
  }
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (!plan->def->pull && disk->mode == BACKUP_MODE_INCREMENTAL && disk->backing == NULL
        && !options->reuse_external)
      hv_warn (options,
               "disk '%s': which image holds checkpoint '%s' is not known, so '%s' names no backing"
               " file; add it with: qemu-img rebase -u -b PREVIOUS -F qcow2 '%s'",
               disk->name, disk->incremental, disk->target, disk->target);
    if (disk->backing != NULL && access (disk->backing, F_OK) != 0)
      hv_warn (
          options,
          "disk '%s': the image '%s' of checkpoint '%s', which '%s' names as its backing file, is"
          " not there; name where it is now with: qemu-img rebase -u -b PREVIOUS -F %s '%s'",
          disk->name, disk->backing, disk->incremental, disk->target, disk->backing_format,
          disk->target);
  }
  if (plan->tls != NULL && !tls_has_dh_params (plan))
    hv_warn (options,
             "QEMU, and with it the guest, may stand still for a second or two while it makes what"
             " '%s/dh-params.pem' could hold; see 'man tidemark-begin'",
             plan->tls_folder);
  for (guint i = 0; i < plan->bitmaps->len; i++) {
    const PlanBitmap *bitmap = g_ptr_array_index (plan->bitmaps, i);
    if (!bitmap->persistent)
      hv_warn (
          options,
          "disk '%s': its format cannot store bitmaps, so checkpoint '%s' lasts only until this"
          " QEMU ends",
          bitmap->disk, bitmap->bitmap);
  }
}

/* The description gets what only now is known: when, after which other, how large the disks are
 * and which image holds them as of then. */
static void
complete_checkpoint (JobPlan *plan, GPtrArray *known)
{
  TmkCheckpointDef *def = plan->checkpoint;
  if (def == NULL)
    return;
  if (def->creation_time == 0)
    def->creation_time = g_get_real_time () / G_USEC_PER_SEC;
  g_free (def->parent);
  def->parent = g_strdup (checkpoints_current (known));
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    CheckpointDisk *entry = checkpoint_def_find_disk (def, disk->name);
    if (plan->def->pull || entry == NULL || !entry->covered || disk->target_type != STORAGE_FILE)
      continue;
    entry->target = g_strdup (disk->target);
    entry->target_format = g_strdup (image_driver_of (disk)); /* what opens it as a backing file */
  }
}

static bool
make_files (QmpMachine *machine, const JobPlan *plan, json_t *record, TmkError **errp)
{
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    guint64 dev, ino;
    if (disk->target_type != STORAGE_FILE)
      continue;
    if (!target_make_file (machine, disk, &dev, &ino, errp))
      return false;
    record_set_file (record, disk->target, dev, ino);
  }
  return state_write (machine->state, "job", record, errp);
}

static bool
run_transaction (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
                 json_t *record, TmkError **errp)
{
  g_autoptr (QmpSchema) schema = qmp_schema_read (machine->client, errp);
  if (schema == NULL)
    return false;
  bool on_cbw_error = qmp_schema_has_argument (schema, "blockdev-backup", "on-cbw-error");
  json_t *actions = job_plan_actions (plan, options, on_cbw_error);

  Quiesce quiesce;
  quiesce_begin (&quiesce, options);
  gint64 before = g_get_monotonic_time ();
  bool ok = qmp_transaction (machine->client, actions, errp);
  gint64 held = g_get_monotonic_time () - before;
  json_object_set_new (record, "pause_us", json_integer (held));
  record_set_quiesced (record, &quiesce, options);
  return ok;
}

static bool
check_pull (QmpMachine *machine, JobPlan *plan, TmkError **errp)
{
  plan->staged = staging_is_needed (machine, plan);
  if (!plan->staged && !plan->direct && !pull_check_jobs (machine, errp))
    return false;
  return (!plan->staged || staging_check (plan, errp)) && server_check (machine, plan, errp);
}

/* Starts what the job is about, at its instant. */
static bool
start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options, json_t *record,
       TmkError **errp)
{
  if (plan->staged)
    return staging_start (machine, plan, options, record, errp);
  if (plan->def->pull)
    return pull_start (machine, plan, options, record, errp);
  return run_transaction (machine, plan, options, record, errp);
}

static bool
make_socket_folder (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  uid_t uid = 0;
  gid_t gid = 0;
  if (plan->socket_folder == NULL)
    return true;
  if (!target_user (machine, &uid, &gid))
    uid = 0;
  return own_socket_make_folder (plan->socket_folder, uid, gid, errp);
}

static bool
begin_steps (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
             json_t *record, TmkError **errp)
{
  if (!make_socket_folder (machine, plan, errp)
      || (!plan->direct
          && ((!options->reuse_external && !make_files (machine, plan, record, errp))
              || !targets_open (machine, plan, options, errp)))
      || !start (machine, plan, options, record, errp))
    return false;
  /* The new checkpoint is there, and until the job ends nothing is written to the images. */
  if (machine->place->set_writable != NULL)
    machine->place->set_writable (machine, false);
  record_set_held (record, false);
  record_set_phase (record, "running");
  return state_write (machine->state, "job", record, errp);
}

static bool
take_back (QmpMachine *machine, json_t *record, TmkError **errp)
{
  g_autoptr (json_t) rest = NULL;
  json_t *log = json_object_get (record, "undo");
  return undo_run (machine, log, true, &rest, errp) && state_remove (machine->state, "job", errp);
}

static JobPlan *
make_plan (QmpMachine *machine, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
           const TmkBeginOptions *options, GPtrArray *known, TmkError **errp)
{
  g_autofree char *run = new_run_id ();
  g_autofree char *suffix
      = checkpoint != NULL
            ? g_strdup (checkpoint->name)
            : g_strdup_printf ("%" G_GINT64_FORMAT, g_get_real_time () / G_USEC_PER_SEC);
  JobPlanInput input = {
    .run = run,
    .suffix = suffix,
    .disks = machine->disks,
    .domain = machine->def,
    .def = def,
    .checkpoint = checkpoint,
    .known = known,
    .reuse_external = options->reuse_external,
    .compress = options->compress,
    .powered_off = machine->place->powered_off,
  };
  return job_plan_new (&input, errp);
}

static bool
begin_entered (QmpMachine *machine, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
               const TmkBeginOptions *options, TmkError **errp)
{
  g_autoptr (json_t) running = NULL;
  if (!job_recover (machine, &running, errp))
    return false;
  if (running != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "a backup job runs already");
    error_hint (errp, "see 'tidemark status'; wait for it with 'tidemark wait' or cancel it with"
                      " 'tidemark abort'");
    return false;
  }
  if (!check_no_strangers (machine, errp))
    return false;
  g_autoptr (GPtrArray) known = checkpoints_collect (machine, NULL, errp);
  if (known == NULL)
    return false;
  g_autoptr (JobPlan) plan = make_plan (machine, def, checkpoint, options, known, errp);
  if (plan != NULL) {
    plan->scratch_timeout = options->scratch_timeout;
    plan->socket_folder = own_socket_choose (plan->def, plan->run);
  }
  if (plan == NULL || !tls_plan (plan, options, errp)
      || (plan->def->pull && !check_pull (machine, plan, errp))
      || (!plan->direct && !targets_check (plan, machine->disks, options, errp)))
    return false;
  warn_about (plan, options);
  if (!machine->place->powered_off)
    warn_about_shared (machine, plan, options);
  complete_checkpoint (plan, known);

  g_autoptr (json_t) record = record_new (machine, plan, options->owner, !options->reuse_external);
  bool runs = false;
  if (plan->def->pull && !plan->staged && !plan->direct
      && !qmp_query_status (machine->client, &runs, NULL, errp))
    return false;
  record_set_held (record, runs);
  if (!state_write (machine->state, "job", record, errp))
    return false;
  if (begin_steps (machine, plan, options, record, errp))
    return !plan->staged || job_wait_staged (machine, record, options, errp);
  TmkError *err = NULL;
  if (!take_back (machine, record, &err)) {
    error_prefix (errp, "cleaning up failed (%s) after this", tmk_error_message (err));
    error_hint (errp, "'tidemark abort' tries to clean up again");
    tmk_error_free (err);
  }
  return false;
}

bool
machine_begin (TmkDomain *domain, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
               const TmkBeginOptions *options, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (machine->place->powered_off && options->agent != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "there is no guest whose file systems could be frozen: the disks are powered off");
    error_hint (errp, "leave --quiesce and --agent out");
    return false;
  }
  machine->outlives = options->owner == NULL;
  bool ok = machine_enter (machine, checkpoint != NULL ? ENTER_CHANGE : ENTER_LIVE, errp);
  machine->outlives = false;
  if (!ok)
    return false;
  ok = begin_entered (machine, def, checkpoint, options, errp);
  machine_leave (machine);
  return ok;
}
