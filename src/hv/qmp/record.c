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
record_set_held (json_t *record, bool held)
{
  if (held)
    json_object_set_new (record, "held", json_true ());
  else
    json_object_del (record, "held");
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
