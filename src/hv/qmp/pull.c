/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/pull.c: see hv/qmp/pull.h. */
#include "hv/qmp/pull.h"

#include "hv/qmp/disk_batch.h"
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

bool
pull_check_jobs (QmpMachine *machine, TmkError **errp)
{
  static const char *const kinds[] = { "mirror", "commit", "stream", NULL };
  g_autoptr (json_t) jobs = qmp_query_jobs (machine->client, errp);
  size_t i;
  json_t *job;
  json_array_foreach (jobs, i, job) {
    const char *type = jsonx_string (job, "type");
    if (type == NULL || !g_strv_contains (kinds, type)
        || g_strcmp0 (jsonx_string (job, "status"), "concluded") == 0)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_BUSY, 0,
               "job '%s' (%s) is under way: it would lose what the guest writes during a pull",
               jsonx_string (job, "id"), type);
    error_hint (errp, "wait until it has ended, or end it, and begin again");
    return false;
  }
  return jobs != NULL;
}

/* --- starting -------------------------------------------------------------------------------- */

typedef void (*AddFunction) (DiskBatch *batch, QmpMachine *machine, const JobPlan *plan,
                             const JobDisk *disk);

/* What `add` has QEMU do for each disk, all at once. */
static bool
for_all_disks (QmpMachine *machine, const JobPlan *plan, AddFunction add, TmkError **errp)
{
  g_autoptr (DiskBatch) batch = disk_batch_new ();
  const JobDisk *failed = NULL;
  for (guint i = 0; i < plan->disks->len; i++)
    add (batch, machine, plan, g_ptr_array_index (plan->disks, i));
  if (disk_batch_run (machine, batch, &failed, errp))
    return true;
  error_prefix (errp, "disk '%s'", failed->name);
  return false;
}

/* With a bitmap that notes what the guest writes, for scratch_look(). It goes with the filter. */
static void
add_filter (DiskBatch *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  disk_batch_add (
      batch, disk, "blockdev-add",
      json_pack ("{s:s, s:s, s:s, s:s, s:s, s:i}", "driver", "copy-before-write", "node-name",
                 disk->filter_node, "file", disk->root_node, "target", disk->format_node,
                 "on-cbw-error", "break-snapshot", "cbw-timeout",
                 plan->scratch_timeout != 0 ? (int) plan->scratch_timeout : CBW_TIMEOUT_S));
  disk_batch_add (batch, disk, "block-dirty-bitmap-add",
                  json_pack ("{s:s, s:s, s:i}", "node", disk->filter_node, "name",
                             disk->filter_node, "granularity", BITMAP_GRANULARITY));
}

static void
insert_filter (DiskBatch *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  disk_batch_add (batch, disk, "qom-set",
                  json_pack ("{s:s, s:s, s:s}", "path", disk->device, "property", "drive", "value",
                             disk->filter_node));
}

static void
add_snapshot (DiskBatch *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  disk_batch_add (batch, disk, "blockdev-add",
                  json_pack ("{s:s, s:s, s:s}", "driver", "snapshot-access", "node-name",
                             disk->snapshot_node, "file", disk->filter_node));
}

static void
add_export (DiskBatch *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  bool overlay = has_quirk (machine, QUIRK_SNAPSHOT_ACCESS_WRONG);
  json_t *options = json_pack ("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", disk->export_id,
                               "node-name", overlay ? disk->format_node : disk->snapshot_node,
                               "name", disk->export_name, "writable", 0);
  if (disk->mode == BACKUP_MODE_INCREMENTAL)
    json_object_set_new (
        options, "bitmaps",
        json_pack ("[{s:s, s:s}]", "node", disk->format_node, "name", disk->bitmap));
  disk_batch_add (batch, disk, "block-export-add", options);
}

/* The new checkpoint, and what changed since the one before. */
static bool
take_bitmaps (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  json_t *actions = job_plan_pull_actions (plan, false);
  if (json_array_size (actions) > 0)
    return qmp_transaction (machine->client, actions, errp);
  json_decref (actions);
  return true;
}

/* What must happen while the guest stands still: all filters in, and the bitmaps of the instant. */
static bool
insert_filters (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  return for_all_disks (machine, plan, insert_filter, errp) && take_bitmaps (machine, plan, errp);
}

static bool
take_instant (QmpMachine *machine, const JobPlan *plan, json_t *record, TmkError **errp)
{
  Pause pause;
  guint64 pause_us;
  if (!pause_begin (machine, &pause, errp))
    return false;
  bool ok = pull_check_jobs (machine, errp) && insert_filters (machine, plan, errp);
  /* Where both fail, why the first did tells more. */
  bool resumed = pause_end (machine, &pause, &pause_us, ok ? errp : NULL);
  json_object_set_new (record, "pause_us", json_integer ((json_int_t) pause_us));
  return ok && resumed;
}

/* Of disks that are powered off: any moment is the instant. */
static void
add_view (DiskBatch *batch, QmpMachine *machine, const JobPlan *plan, const JobDisk *disk)
{
  disk_batch_add (batch, disk, "blockdev-add",
                  json_pack ("{s:s, s:s, s:s, s:b}", "driver", "raw", "node-name",
                             disk->snapshot_node, "file", disk->node, "read-only", 1));
}

static bool
start_direct (QmpMachine *machine, const JobPlan *plan, json_t *record, TmkError **errp)
{
  if (!tls_start (machine, plan, errp) || !for_all_disks (machine, plan, add_view, errp)
      || !take_bitmaps (machine, plan, errp) || !server_start (machine, plan, errp))
    return false;
  record_set_server_started (record);
  return for_all_disks (machine, plan, add_export, errp);
}

bool
pull_look_direct (QmpMachine *machine, json_t *record, unsigned *missing, TmkError **errp)
{
  g_autoptr (json_t) exports = qmp_execute (machine->client, "query-block-exports", NULL, errp);
  size_t i;
  json_t *disk;
  *missing = 0;
  json_array_foreach (json_object_get (record, "disks"), i, disk)
    *missing += jsonx_find (exports, "node-name", jsonx_string (disk, "snapshot")) == NULL;
  return exports != NULL;
}

bool
pull_start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
            json_t *record, TmkError **errp)
{
  if (plan->direct)
    return start_direct (machine, plan, record, errp);
  if (!tls_start (machine, plan, errp))
    return false;
  if (!for_all_disks (machine, plan, add_filter, errp))
    return false;

  Quiesce quiesce;
  if (options->agent != NULL)
    pause_sync_images (machine);
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

/* What the probe of one disk makes: a window on its snapshot, somewhere to copy that to, a job. */
typedef struct {
  char *window, *sink, *job;
} Probe;

static void
probe_clear (Probe *probe)
{
  g_free (probe->window);
  g_free (probe->sink);
  g_free (probe->job);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Probe, probe_clear)

/* By the names that are in the job's log. */
static Probe
probe_of (const json_t *disk)
{
  const char *snapshot = jsonx_string (disk, "snapshot");
  return (Probe){ g_strconcat (snapshot, "w", NULL), g_strconcat (snapshot, "n", NULL),
                  g_strconcat (snapshot, "p", NULL) };
}

/* Copies a little of each snapshot to nowhere: a broken one refuses every read. */
static bool
start_probes (QmpMachine *machine, const json_t *disks, TmkError **errp)
{
  g_autoptr (json_t) batch = json_array ();
  size_t i;
  json_t *disk;
  json_array_foreach (disks, i, disk) {
    g_auto (Probe) probe = probe_of (disk);
    guint64 bytes = MIN (jsonx_uint (disk, "size"), PROBE_BYTES);
    qmp_batch_add (batch, "blockdev-add",
                   json_pack ("{s:s, s:s, s:s, s:i, s:I}", "driver", "raw", "node-name",
                              probe.window, "file", jsonx_string (disk, "snapshot"), "offset", 0,
                              "size", (json_int_t) bytes));
    qmp_batch_add (batch, "blockdev-add",
                   json_pack ("{s:s, s:s, s:I, s:b}", "driver", "null-co", "node-name", probe.sink,
                              "size", (json_int_t) bytes, "read-zeroes", 1));
    QmpBackup backup = { .job_id = probe.job, .device = probe.window, .target = probe.sink };
    json_t *actions = json_array ();
    json_array_append_new (actions, qmp_action_backup (&backup));
    qmp_batch_add (batch, "transaction", json_pack ("{s:o}", "actions", actions));
  }
  g_autoptr (json_t) results = qmp_execute_all (machine->client, batch, NULL, errp);
  return results != NULL;
}

static bool
end_probes (QmpMachine *machine, const json_t *disks, TmkError **errp)
{
  g_autoptr (json_t) batch = json_array ();
  size_t i;
  json_t *disk;
  json_array_foreach (disks, i, disk) {
    g_auto (Probe) probe = probe_of (disk);
    qmp_batch_add (batch, "blockdev-del", json_pack ("{s:s}", "node-name", probe.sink));
    qmp_batch_add (batch, "blockdev-del", json_pack ("{s:s}", "node-name", probe.window));
  }
  g_autoptr (json_t) results = qmp_execute_all (machine->client, batch, NULL, errp);
  return results != NULL;
}

/* What somebody left who asked before and was killed over it. */
static bool
forget_probes (QmpMachine *machine, const json_t *disks, TmkError **errp)
{
  g_autoptr (json_t) rest = NULL;
  g_autoptr (json_t) log = json_array ();
  size_t i;
  json_t *disk;
  json_array_foreach (disks, i, disk) {
    g_auto (Probe) probe = probe_of (disk);
    json_array_append_new (log, undo_node (probe.window));
    json_array_append_new (log, undo_node (probe.sink));
    json_array_append_new (log, undo_job (probe.job));
  }
  return undo_run (machine, log, true, &rest, errp);
}

/* `jobs`: those of the disks, in order, as they ended. */
static bool
check_probes (const json_t *disks, const json_t *jobs, TmkError **errp)
{
  size_t i;
  json_t *disk;
  json_array_foreach (disks, i, disk) {
    if (jsonx_string (json_array_get (jobs, i), "error") == NULL)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_IO, 0,
               "disk '%s': the scratch '%s' could not take what the guest overwrote, so the"
               " snapshot is broken",
               jsonx_string (disk, "name"), jsonx_string (disk, "target"));
    error_hint (errp, "give the scratch more room, and begin again: what was read meanwhile is of"
                      " no use");
    return false;
  }
  return true;
}

bool
pull_probe (QmpMachine *machine, const json_t *record, TmkError **errp)
{
  const json_t *disks = json_object_get (record, "disks");
  g_autoptr (json_t) ids = json_array ();
  size_t i;
  json_t *disk;
  json_array_foreach (disks, i, disk) {
    g_auto (Probe) probe = probe_of (disk);
    json_array_append_new (ids, json_string (probe.job));
  }
  g_autoptr (TmkError) err = NULL;
  if (!start_probes (machine, disks, &err)) {
    bool refused = tmk_error_code (err) != TMK_ERR_GONE && tmk_error_code (err) != TMK_ERR_TIMEOUT;
    if (!refused)
      error_propagate (errp, g_steal_pointer (&err));
    if (!refused || !forget_probes (machine, disks, errp) || !start_probes (machine, disks, errp))
      return false;
  }
  g_autoptr (json_t) jobs = qmp_jobs_wait (machine->client, ids, errp);
  return jobs != NULL && qmp_jobs_dismiss (machine->client, ids, errp)
         && end_probes (machine, disks, errp) && check_probes (disks, jobs, errp);
}
