/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/record.c: see hv/qmp/record.h. */
#include "hv/qmp/record.h"

#include "hv/qmp/undo.h"

static json_t *
disk_to_json (const JobDisk *disk)
{
  json_t *entry = json_object ();
  json_object_set_new (entry, "name", jsonx_string_or_null (disk->name));
  json_object_set_new (entry, "node", jsonx_string_or_null (disk->node));
  json_object_set_new (entry, "mode", jsonx_string_or_null (backup_mode_name (disk->mode)));
  json_object_set_new (entry, "incremental", jsonx_string_or_null (disk->incremental));
  json_object_set_new (entry, "target", jsonx_string_or_null (disk->target));
  json_object_set_new (entry, "target_type",
                       jsonx_string_or_null (storage_type_name (disk->target_type)));
  json_object_set_new (entry, "format", jsonx_string_or_null (disk->format));
  json_object_set_new (entry, "backing", jsonx_string_or_null (disk->backing));
  json_object_set_new (entry, "size", json_integer ((json_int_t) disk->size));
  json_object_set_new (entry, "estimate", json_integer ((json_int_t) disk->estimate));
  json_object_set_new (entry, "job", jsonx_string_or_null (disk->job));
  json_object_set_new (entry, "done", json_integer (0));
  json_object_set_new (entry, "total", json_integer ((json_int_t) disk->estimate));
  json_object_set_new (entry, "state", json_string ("running"));
  json_object_set_new (entry, "file", jsonx_string_or_null (disk->file_node));
  json_object_set_new (entry, "image", jsonx_string_or_null (disk->format_node));
  json_object_set_new (entry, "snapshot", jsonx_string_or_null (disk->snapshot_node));
  json_object_set_new (entry, "filter", jsonx_string_or_null (disk->filter_node));
  json_object_set_new (entry, "export", jsonx_string_or_null (disk->export_name));
  json_object_set_new (entry, "exportbitmap",
                       jsonx_string_or_null (disk->export_name != NULL ? disk->bitmap : NULL));
  return entry;
}

static void
append_filters (json_t *log, const JobPlan *plan)
{
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    json_array_append_new (log, undo_node (disk->filter_node));
  }
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    json_array_append_new (
        log, undo_drive (disk->device, disk->filter_node, disk->root_node, disk->drive));
  }
}

static void
append_exports (json_t *log, const JobPlan *plan)
{
  const BackupServer *server = plan->def->server;
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    g_autofree char *window = g_strconcat (disk->snapshot_node, "w", NULL);
    g_autofree char *sink = g_strconcat (disk->snapshot_node, "n", NULL);
    g_autofree char *probe = g_strconcat (disk->snapshot_node, "p", NULL);
    json_array_append_new (log, undo_node (disk->snapshot_node));
    json_array_append_new (log, undo_node (window));
    json_array_append_new (log, undo_node (sink));
    json_array_append_new (log, undo_job (probe));
  }
  if (plan->tls != NULL)
    json_array_append_new (log, undo_secret (plan->tls));
  json_array_append_new (log, undo_server (plan->socket, server->name, server->port,
                                           plan->tls != NULL, plan->relay != NULL));
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    json_array_append_new (log, undo_export (disk->export_id, plan->socket));
  }
  if (plan->relay != NULL)
    json_array_append_new (log, undo_relay (plan->relay));
}

/* In the order in which things are made, so that its reverse is the order to take them back. */
static json_t *
undo_log (const JobPlan *plan, bool with_files, const char *pidfile)
{
  json_t *log = json_array ();
  if (plan->socket_folder != NULL)
    json_array_append_new (log, undo_folder (plan->socket_folder));
  for (guint i = 0; !plan->direct && i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (with_files && disk->target_type == STORAGE_FILE)
      json_array_append_new (log, undo_file (disk->target, 0, 0, plan->def->pull));
  }
  for (guint i = 0; !plan->direct && i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (disk->secret != NULL)
      json_array_append_new (log, undo_secret (disk->secret));
    g_autofree char *create = g_strconcat (disk->job, "-create", NULL);
    json_array_append_new (log, undo_node (disk->file_node));
    json_array_append_new (log, undo_node (disk->format_node));
    json_array_append_new (log, undo_job (create));
  }
  if (plan->def->pull && !plan->staged && !plan->direct)
    append_filters (log, plan);
  for (guint i = 0; i < plan->bitmaps->len; i++) {
    const PlanBitmap *bitmap = g_ptr_array_index (plan->bitmaps, i);
    json_array_append_new (log, undo_checkpoint (bitmap->disk, bitmap->node, bitmap->bitmap));
  }
  if (plan->def->pull && !plan->staged) {
    append_exports (log, plan);
    return log;
  }
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (disk->bitmap != NULL && !plan->staged)
      json_array_append_new (log, undo_bitmap (disk->node, disk->bitmap));
    json_array_append_new (log, undo_job (disk->job));
  }
  if (plan->staged)
    json_array_append_new (log, undo_daemon (pidfile, plan->def->server->socket));
  return log;
}

json_t *
record_new (QmpMachine *machine, const JobPlan *plan, const char *owner, bool makes_files)
{
  g_autofree char *instance = machine_instance (machine);
  g_autofree char *definition = tmk_backup_def_format (plan->def, TMK_XML_INTERNAL);
  g_autofree char *checkpoint = plan->checkpoint != NULL
                                    ? tmk_checkpoint_def_format (plan->checkpoint, TMK_XML_INTERNAL)
                                    : NULL;
  g_autofree char *pidfile = plan->staged ? state_file (machine->state, "daemon.pid") : NULL;
  json_t *record = json_object ();
  json_object_set_new (record, "format", json_integer (1));
  json_object_set_new (record, "id", json_string (plan->run));
  json_object_set_new (record, "owner", jsonx_string_or_null (owner));
  json_object_set_new (record, "phase", json_string ("starting"));
  json_object_set_new (record, "pull", json_boolean (plan->def->pull));
  json_object_set_new (record, "powered_off", json_boolean (machine->place->powered_off));
  json_object_set_new (record, "socket", jsonx_string_or_null (plan->socket));
  json_object_set_new (record, "staged", json_boolean (plan->staged));
  json_object_set_new (record, "direct", json_boolean (plan->direct));
  json_object_set_new (record, "pidfile", jsonx_string_or_null (pidfile));
  json_object_set_new (record, "address", jsonx_string_or_null (machine->address));
  json_object_set_new (record, "instance", jsonx_string_or_null (instance));
  json_object_set_new (record, "started_us", json_integer (g_get_real_time ()));
  json_object_set_new (record, "definition", jsonx_string_or_null (definition));
  json_object_set_new (record, "checkpoint", jsonx_string_or_null (checkpoint));
  json_object_set_new (
      record, "checkpoint_name",
      jsonx_string_or_null (plan->checkpoint != NULL ? plan->checkpoint->name : NULL));
  json_t *disks = json_array ();
  for (guint i = 0; i < plan->disks->len; i++)
    json_array_append_new (disks, disk_to_json (g_ptr_array_index (plan->disks, i)));
  json_object_set_new (record, "disks", disks);
  json_object_set_new (record, "undo", undo_log (plan, makes_files, pidfile));
  return record;
}

const char *
record_phase (const json_t *record)
{
  const char *phase = jsonx_string (record, "phase");
  return phase != NULL ? phase : "starting";
}

bool
record_in_phase (const json_t *record, const char *phase)
{
  return g_str_equal (record_phase (record), phase);
}

void
record_set_phase (json_t *record, const char *phase)
{
  json_object_set_new (record, "phase", json_string (phase));
}

static void
set_error (json_t *result, const TmkError *err)
{
  json_object_set_new (result, "code", json_string (tmk_error_code_name (tmk_error_code (err))));
  json_object_set_new (result, "message", jsonx_string_or_null (tmk_error_message (err)));
  json_object_set_new (result, "hint", jsonx_string_or_null (tmk_error_hint (err)));
}

void
record_set_result (json_t *record, const char *state, const TmkError *err)
{
  json_t *result = json_pack ("{s:s}", "state", state);
  if (err != NULL)
    set_error (result, err);
  json_object_set_new (record, "result", result);
  (void) json_object_del (record, "trouble"); /* there may be none */
}

void
record_set_trouble (json_t *record, const TmkError *err)
{
  json_t *trouble = json_object ();
  set_error (trouble, err);
  json_object_set_new (record, "trouble", trouble);
}

void
record_set_quiesced (json_t *record, Quiesce *quiesce, const TmkBeginOptions *options)
{
  guint64 frozen_us;
  bool quiesced = quiesce_end (quiesce, options, &frozen_us);
  if (options->agent == NULL)
    return;
  json_object_set_new (record, "quiesced", json_boolean (quiesced));
  json_object_set_new (record, "frozen_us", json_integer ((json_int_t) frozen_us));
}

static TmkError *
get_error (const json_t *result)
{
  const char *message = jsonx_string (result, "message");
  if (message == NULL)
    return NULL;
  TmkError *err = NULL;
  error_set (&err, "hv", error_code_from_name (jsonx_string (result, "code")), 0, "%s", message);
  const char *hint = jsonx_string (result, "hint");
  if (hint != NULL)
    error_hint (&err, "%s", hint);
  return err;
}

TmkError *
record_error (const json_t *record)
{
  return get_error (json_object_get (record, "result"));
}

TmkError *
record_trouble (const json_t *record)
{
  return get_error (json_object_get (record, "trouble"));
}

void
record_set_file (json_t *record, const char *path, guint64 dev, guint64 ino)
{
  json_t *log = json_object_get (record, "undo");
  size_t i;
  json_t *entry;
  json_array_foreach (log, i, entry) {
    if (g_strcmp0 (jsonx_string (entry, "op"), "file") == 0
        && g_strcmp0 (jsonx_string (entry, "path"), path) == 0) {
      json_array_set_new (log, i, undo_file (path, dev, ino, jsonx_bool (entry, "always")));
      return;
    }
  }
}

void
record_set_server_started (json_t *record)
{
  const char *instance = jsonx_string (record, "instance");
  size_t i;
  json_t *entry;
  json_array_foreach (json_object_get (record, "undo"), i, entry) {
    if (g_strcmp0 (jsonx_string (entry, "op"), "server") == 0)
      json_object_set_new (entry, "started", json_string (instance != NULL ? instance : ""));
  }
}

/* --- showing --------------------------------------------------------------------------------- */

static TmkJobState
job_state (const json_t *record)
{
  const char *result = jsonx_string (json_object_get (record, "result"), "state");
  if (record == NULL)
    return TMK_JOB_NONE;
  if (record_in_phase (record, "starting"))
    return TMK_JOB_INTERRUPTED;
  if (!record_in_phase (record, "ended"))
    return TMK_JOB_RUNNING;
  if (g_strcmp0 (result, "done") == 0)
    return TMK_JOB_DONE;
  return g_strcmp0 (result, "cancelled") == 0 ? TMK_JOB_CANCELLED : TMK_JOB_FAILED;
}

static const TmkJobDisk *
show_disk (HvArena *arena, const json_t *entry)
{
  TmkJobDisk *disk = hv_arena_alloc (arena, sizeof *disk);
  disk->name = hv_arena_string (arena, jsonx_string (entry, "name"));
  disk->mode = hv_arena_string (arena, jsonx_string (entry, "mode"));
  disk->incremental = hv_arena_string (arena, jsonx_string (entry, "incremental"));
  disk->target = hv_arena_string (arena, jsonx_string (entry, "target"));
  disk->format = hv_arena_string (arena, jsonx_string (entry, "format"));
  disk->backing = hv_arena_string (arena, jsonx_string (entry, "backing"));
  disk->state = hv_arena_string (arena, jsonx_string (entry, "state"));
  disk->done = jsonx_uint (entry, "done");
  disk->total = jsonx_uint (entry, "total");
  disk->error = hv_arena_string (arena, jsonx_string (entry, "error"));
  disk->dirty = jsonx_uint (entry, "dirty");
  disk->room = jsonx_uint (entry, "room");
  disk->export_name = hv_arena_string (arena, jsonx_string (entry, "export"));
  disk->export_bitmap = hv_arena_string (arena, jsonx_string (entry, "exportbitmap"));
  return disk;
}

TmkJobStatus *
record_to_status (const json_t *record)
{
  HvJobStatus *status = g_new0 (HvJobStatus, 1);
  HvArena *arena = hv_arena_new ();
  TmkJobStatus *shown = &status->public_part;
  status->arena = arena;
  shown->state = job_state (record);
  if (record == NULL)
    return shown;

  const json_t *result = json_object_get (record, "result");
  const json_t *entries = json_object_get (record, "disks");
  shown->id = hv_arena_string (arena, jsonx_string (record, "id"));
  shown->owner = hv_arena_string (arena, jsonx_string (record, "owner"));
  shown->pull = jsonx_bool (record, "pull");
  shown->checkpoint = hv_arena_string (arena, jsonx_string (record, "checkpoint_name"));
  shown->started_us = (int64_t) jsonx_uint (record, "started_us");
  shown->ended_us = (int64_t) jsonx_uint (record, "ended_us");
  shown->pause_us = jsonx_uint (record, "pause_us");
  shown->powered_off = jsonx_bool (record, "powered_off");
  shown->quiesced = jsonx_bool (record, "quiesced");
  shown->frozen_us = jsonx_uint (record, "frozen_us");
  shown->error = hv_arena_string (arena, jsonx_string (result, "message"));
  shown->hint = hv_arena_string (arena, jsonx_string (result, "hint"));
  if (result == NULL) {
    const json_t *trouble = json_object_get (record, "trouble");
    shown->error = hv_arena_string (arena, jsonx_string (trouble, "message"));
    shown->hint = hv_arena_string (arena, jsonx_string (trouble, "hint"));
  }
  const json_t *clients = json_object_get (record, "clients");
  shown->clients = json_is_integer (clients) ? (int) json_integer_value (clients) : -1;
  shown->n_disks = json_array_size (entries);
  const TmkJobDisk **disks = hv_arena_alloc (arena, shown->n_disks * sizeof *disks);
  for (size_t i = 0; i < shown->n_disks; i++) {
    disks[i] = show_disk (arena, json_array_get (entries, i));
    shown->done += disks[i]->done;
    shown->total += disks[i]->total;
  }
  shown->disks = disks;
  return shown;
}
