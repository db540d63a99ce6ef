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

static bool
add_filter (QmpMachine *machine, const JobPlan *plan, const JobDisk *disk, TmkError **errp)
{
  json_t *options
      = json_pack ("{s:s, s:s, s:s, s:s, s:s, s:i}", "driver", "copy-before-write", "node-name",
                   disk->filter_node, "file", disk->root_node, "target", disk->format_node,
                   "on-cbw-error", "break-snapshot", "cbw-timeout",
                   plan->scratch_timeout != 0 ? (int) plan->scratch_timeout : CBW_TIMEOUT_S);
  return qmp_blockdev_add (machine->client, options, errp);
}

/* Notes what the guest writes, for scratch_look(). It goes with the filter. */
static bool
add_bitmap (QmpMachine *machine, const JobDisk *disk, TmkError **errp)
{
  return qmp_run (machine->client, "block-dirty-bitmap-add",
                  json_pack ("{s:s, s:s, s:i}", "node", disk->filter_node, "name",
                             disk->filter_node, "granularity", BITMAP_GRANULARITY),
                  errp);
}

static bool
add_snapshot (QmpMachine *machine, const JobDisk *disk, TmkError **errp)
{
  json_t *options = json_pack ("{s:s, s:s, s:s}", "driver", "snapshot-access", "node-name",
                               disk->snapshot_node, "file", disk->filter_node);
  return qmp_blockdev_add (machine->client, options, errp);
}

static bool
set_drive (QmpMachine *machine, const char *device, const char *value, TmkError **errp)
{
  return qmp_run (
      machine->client, "qom-set",
      json_pack ("{s:s, s:s, s:s}", "path", device, "property", "drive", "value", value), errp);
}

/* What must happen while the guest stands still: all filters in, and the bitmaps of the instant. */
static bool
insert_filters (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (!set_drive (machine, disk->device, disk->filter_node, errp)) {
      error_prefix (errp, "disk '%s'", disk->name);
      return false;
    }
  }
  json_t *actions = job_plan_pull_actions (plan, false);
  if (json_array_size (actions) == 0) {
    json_decref (actions);
    return true;
  }
  return qmp_transaction (machine->client, actions, errp);
}

static bool
export_disk (QmpMachine *machine, const JobDisk *disk, TmkError **errp)
{
  bool overlay = has_quirk (machine, QUIRK_SNAPSHOT_ACCESS_WRONG);
  json_t *options = json_pack ("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", disk->export_id,
                               "node-name", overlay ? disk->format_node : disk->snapshot_node,
                               "name", disk->export_name, "writable", 0);
  if (disk->mode == BACKUP_MODE_INCREMENTAL)
    json_object_set_new (
        options, "bitmaps",
        json_pack ("[{s:s, s:s}]", "node", disk->format_node, "name", disk->bitmap));
  if (qmp_run (machine->client, "block-export-add", options, errp))
    return true;
  error_prefix (errp, "disk '%s'", disk->name);
  return false;
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
  for (guint i = 0; i < plan->disks->len; i++)
    if (!add_filter (machine, plan, g_ptr_array_index (plan->disks, i), errp)
        || !add_bitmap (machine, g_ptr_array_index (plan->disks, i), errp))
      return false;

  Quiesce quiesce;
  quiesce_begin (&quiesce, options);
  bool ok = take_instant (machine, plan, record, errp);
  record_set_quiesced (record, &quiesce, options);
  if (!ok)
    return false;

  /* Only now: the node pins the state that it finds. */
  for (guint i = 0; i < plan->disks->len; i++)
    if (!add_snapshot (machine, g_ptr_array_index (plan->disks, i), errp))
      return false;
  if (!server_start (machine, plan, errp))
    return false;
  record_set_server_started (record);
  for (guint i = 0; i < plan->disks->len; i++)
    if (!export_disk (machine, g_ptr_array_index (plan->disks, i), errp))
      return false;
  return true;
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
