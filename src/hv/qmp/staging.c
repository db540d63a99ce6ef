/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/staging.c: see hv/qmp/staging.h. */
#include "hv/qmp/staging.h"

#include "qmp/commands.h"
#include "qmp/schema.h"

#include <string.h>

#define DOMAIN "hv"
#define DAEMON "qemu-storage-daemon"

/* Where there is none no disk need be asked. */
static bool
has_iothreads (QmpMachine *machine)
{
  g_autoptr (json_t) iothreads = qmp_execute (machine->client, "query-iothreads", NULL, NULL);
  return iothreads == NULL || json_array_size (iothreads) > 0;
}

bool
staging_is_needed (QmpMachine *machine, const JobPlan *plan)
{
  if (!qmp_has_quirk (qmp_client_version (machine->client), QUIRK_NBD_IOTHREAD_ABORT)
      || !has_iothreads (machine))
    return false;
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (machine_in_iothread (machine, disk->device))
      return true;
  }
  return false;
}

bool
staging_check (const JobPlan *plan, TmkError **errp)
{
  g_autofree char *program = g_find_program_in_path (DAEMON);
  if (program == NULL) {
    error_set (
        errp, DOMAIN, TMK_ERR_NOT_FOUND, 0,
        "a disk is in an iothread, which this QEMU cannot export itself, and there is no '%s'",
        DAEMON);
    error_hint (errp, "install it (with QEMU's system packages), or push the disks (mode='push')");
    return false;
  }
  if (plan->tls != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "there is no TLS where a disk is in an iothread and QEMU is older than 10");
    error_hint (errp, "use a unix socket without tls='yes', or push the disks (mode='push')");
    return false;
  }
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (disk->encryption == NULL)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "disk '%s': the scratch cannot be encrypted where a disk is in an iothread and QEMU"
               " is older than 10",
               disk->name);
    error_hint (errp, "leave <encryption> out, or push the disks (mode='push')");
    return false;
  }
  return true;
}

/* --- copying --------------------------------------------------------------------------------- */

/* The jobs come first: a disk is drained from its job's action on until all are done, so that the
 * bitmaps behind them are of the very instant. */
static json_t *
actions_of (const JobPlan *plan, const TmkBeginOptions *options)
{
  json_t *actions = json_array ();
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    QmpBackup backup = {
      .job_id = disk->job,
      .device = disk->node,
      .target = disk->format_node,
      .speed = options->bandwidth,
    };
    json_array_append_new (actions, qmp_action_backup (&backup));
  }
  g_autoptr (json_t) bitmaps = job_plan_pull_actions (plan, true);
  json_array_extend (actions, bitmaps);
  return actions;
}

bool
staging_start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
               json_t *record, TmkError **errp)
{
  Quiesce quiesce;
  quiesce_begin (&quiesce, options);
  gint64 before = g_get_monotonic_time ();
  bool ok = qmp_transaction (machine->client, actions_of (plan, options), errp);
  json_object_set_new (record, "pause_us", json_integer (g_get_monotonic_time () - before));
  record_set_quiesced (record, &quiesce, options);
  return ok;
}

/* What the scratch images were while they were written; the bitmaps are stored when they go. */
static bool
take_from_qemu (QmpMachine *machine, const json_t *record, TmkError **errp)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    if (!qmp_job_dismiss (machine->client, jsonx_string (disk, "job"), errp)
        || !qmp_blockdev_del (machine->client, jsonx_string (disk, "image"), errp)
        || !qmp_blockdev_del (machine->client, jsonx_string (disk, "file"), errp))
      return false;
  }
  return true;
}

bool
staging_export (QmpMachine *machine, json_t *record, TmkError **errp)
{
  const char *xml = jsonx_string (record, "definition");
  g_autoptr (TmkBackupDef) def
      = tmk_backup_def_parse (xml, strlen (xml), "the job's record", TMK_XML_INTERNAL, errp);
  if (def == NULL)
    return false;
  if (!take_from_qemu (machine, record, errp) || !staging_daemon_start (record, def->server, errp))
    return false;
  json_object_set_new (record, "exported", json_true ());
  return state_write (machine->state, "job", record, errp);
}
