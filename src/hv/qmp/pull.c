/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/pull.c: see hv/qmp/pull.h. */
#include "hv/qmp/pull.h"

#include "hv/qmp/pause.h"
#include "hv/qmp/server.h"
#include "hv/qmp/tls.h"
#include "hv/qmp/undo.h"
#include "qmp/commands.h"
#include "qmp/schema.h"

#include <string.h>

#define DOMAIN "hv"
#define CBW_TIMEOUT_S 45 /* a scratch that hangs stalls a guest write at most so long */
#define PROBE_BYTES 65536
#define BITMAP_GRANULARITY 65536 /* the filter's own is no finer */

static bool
has_quirk (QmpMachine *machine, QmpQuirk quirk)
{
  return qmp_has_quirk (qmp_client_version (machine->client), quirk);
}

/* --- starting -------------------------------------------------------------------------------- */

typedef void (*AddFunction) (json_t *batch, QmpMachine *machine, const JobPlan *plan,
                             const JobDisk *disk);

/* What `add` has QEMU do for each disk, all at once. */
static bool
for_all_disks (QmpMachine *machine, const JobPlan *plan, AddFunction add, TmkError **errp)
{
  g_autoptr (json_t) batch = json_array ();
  size_t failed = 0;
  for (guint i = 0; i < plan->disks->len; i++)
    add (batch, machine, plan, g_ptr_array_index (plan->disks, i));
  g_autoptr (json_t) results = qmp_execute_all (machine->client, batch, &failed, errp);
  if (results != NULL)
    return true;
  size_t each = json_array_size (batch) / plan->disks->len;
  const JobDisk *disk = g_ptr_array_index (plan->disks, failed / each);
  error_prefix (errp, "disk '%s'", disk->name);
  return false;
}

/* With a bitmap that notes what the guest writes, for scratch_look(). It goes with the filter. */
static void
add_filter (json_t *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  qmp_batch_add (
      batch, "blockdev-add",
      json_pack ("{s:s, s:s, s:s, s:s, s:s, s:i}", "driver", "copy-before-write", "node-name",
                 disk->filter_node, "file", disk->root_node, "target", disk->format_node,
                 "on-cbw-error", "break-snapshot", "cbw-timeout",
                 plan->scratch_timeout != 0 ? (int) plan->scratch_timeout : CBW_TIMEOUT_S));
  qmp_batch_add (batch, "block-dirty-bitmap-add",
                 json_pack ("{s:s, s:s, s:i}", "node", disk->filter_node, "name", disk->filter_node,
                            "granularity", BITMAP_GRANULARITY));
}

static void
insert_filter (json_t *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  qmp_batch_add (batch, "qom-set",
                 json_pack ("{s:s, s:s, s:s}", "path", disk->device, "property", "drive", "value",
                            disk->filter_node));
}

static void
add_snapshot (json_t *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  qmp_batch_add (batch, "blockdev-add",
                 json_pack ("{s:s, s:s, s:s}", "driver", "snapshot-access", "node-name",
                            disk->snapshot_node, "file", disk->filter_node));
}

static void
add_export (json_t *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  bool overlay = has_quirk (machine, QUIRK_SNAPSHOT_ACCESS_WRONG);
  json_t *options = json_pack ("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", disk->export_id,
                               "node-name", overlay ? disk->format_node : disk->snapshot_node,
                               "name", disk->export_name, "writable", 0);
  if (disk->mode == BACKUP_MODE_INCREMENTAL)
    json_object_set_new (
        options, "bitmaps",
        json_pack ("[{s:s, s:s}]", "node", disk->format_node, "name", disk->bitmap));
  qmp_batch_add (batch, "block-export-add", options);
}

/* What must happen while the guest stands still: all filters in, and the bitmaps of the instant. */
static bool
insert_filters (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  if (!for_all_disks (machine, plan, insert_filter, errp))
    return false;
  json_t *actions = job_plan_pull_actions (plan, false);
  if (json_array_size (actions) == 0) {
    json_decref (actions);
    return true;
  }
  return qmp_transaction (machine->client, actions, errp);
}

static bool
take_instant (QmpMachine *machine, const JobPlan *plan, json_t *record, TmkError **errp)
{
  Pause pause;
  guint64 pause_us;
  if (!pause_begin (machine, &pause, errp))
    return false;
  bool ok = insert_filters (machine, plan, errp);
  /* Where both fail, why the first did tells more. */
  bool resumed = pause_end (machine, &pause, &pause_us, ok ? errp : NULL);
  json_object_set_new (record, "pause_us", json_integer ((json_int_t) pause_us));
  return ok && resumed;
}

bool
pull_start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
            json_t *record, TmkError **errp)
{
  if (!tls_start (machine, plan, errp))
    return false;
  if (!for_all_disks (machine, plan, add_filter, errp))
    return false;

  Quiesce quiesce;
  quiesce_begin (&quiesce, options);
  bool ok = take_instant (machine, plan, record, errp);
  record_set_quiesced (record, &quiesce, options);
  if (!ok)
    return false;

  /* Only now: the node pins the state that it finds. */
  if (!for_all_disks (machine, plan, add_snapshot, errp) || !server_start (machine, plan, errp))
    return false;
  record_set_server_started (record);
  return for_all_disks (machine, plan, add_export, errp);
}

/* --- probing --------------------------------------------------------------------------------- */

/* Copies a little of the snapshot to nowhere: a broken one refuses every read. */
static bool
probe_with_job (QmpMachine *machine, const char *window, const char *sink, const char *job,
                char **fault, TmkError **errp)
{
  QmpBackup backup = { .job_id = job, .device = window, .target = sink };
  json_t *actions = json_array ();
  json_array_append_new (actions, qmp_action_backup (&backup));
  if (!qmp_transaction (machine->client, actions, errp))
    return false;
  for (;;) {
    g_autoptr (json_t) jobs = qmp_query_jobs (machine->client, errp);
    if (jobs == NULL)
      return false;
    const json_t *probe = jsonx_find (jobs, "id", job);
    if (g_strcmp0 (jsonx_string (probe, "status"), "concluded") == 0) {
      *fault = g_strdup (jsonx_string (probe, "error"));
      return qmp_job_dismiss (machine->client, job, errp);
    }
    json_decref (
        qmp_client_take_event_of (machine->client, "JOB_STATUS_CHANGE", "id", job, 20, NULL));
  }
}

static void
forget_probe (QmpMachine *machine, const char *window, const char *sink, const char *job)
{
  g_autoptr (json_t) rest = NULL;
  g_autoptr (json_t) log = json_array ();
  json_array_append_new (log, undo_node (window));
  json_array_append_new (log, undo_node (sink));
  json_array_append_new (log, undo_job (job));
  (void) undo_run (machine, log, true, &rest, NULL); /* what is left shows at the next attempt */
}

static bool
probe_disk (QmpMachine *machine, const json_t *disk, TmkError **errp)
{
  const char *snapshot = jsonx_string (disk, "snapshot");
  guint64 bytes = MIN (jsonx_uint (disk, "size"), PROBE_BYTES);
  g_autofree char *window = g_strconcat (snapshot, "w", NULL);
  g_autofree char *sink = g_strconcat (snapshot, "n", NULL);
  g_autofree char *job = g_strconcat (snapshot, "p", NULL);
  g_autofree char *fault = NULL;
  json_t *view = json_pack ("{s:s, s:s, s:s, s:i, s:I}", "driver", "raw", "node-name", window,
                            "file", snapshot, "offset", 0, "size", (json_int_t) bytes);
  json_incref (view);
  if (qmp_blockdev_add (machine->client, view, NULL)) {
    json_decref (view);
  } else {
    /* Somebody who asked before was killed over it. */
    forget_probe (machine, window, sink, job);
    if (!qmp_blockdev_add (machine->client, view, errp))
      return false;
  }
  bool ok = qmp_blockdev_add (machine->client,
                              json_pack ("{s:s, s:s, s:I, s:b}", "driver", "null-co", "node-name",
                                         sink, "size", (json_int_t) bytes, "read-zeroes", 1),
                              errp);
  if (ok) {
    ok = probe_with_job (machine, window, sink, job, &fault, errp);
    ok = qmp_blockdev_del (machine->client, sink, ok ? errp : NULL) && ok;
  }
  ok = qmp_blockdev_del (machine->client, window, ok ? errp : NULL) && ok;
  if (!ok || fault == NULL)
    return ok;
  error_set (errp, DOMAIN, TMK_ERR_IO, 0,
             "disk '%s': the scratch '%s' could not take what the guest overwrote, so the snapshot"
             " is broken",
             jsonx_string (disk, "name"), jsonx_string (disk, "target"));
  error_hint (errp, "give the scratch more room, and begin again: what was read meanwhile is of no"
                    " use");
  return false;
}

bool
pull_probe (QmpMachine *machine, const json_t *record, TmkError **errp)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    if (!probe_disk (machine, disk, errp))
      return false;
  }
  return true;
}
