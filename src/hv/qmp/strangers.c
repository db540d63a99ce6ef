/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/strangers.c: see hv/qmp/strangers.h. */
#include "hv/qmp/strangers.h"

#include "hv/qmp/staging.h"
#include "hv/qmp/undo.h"
#include "hv/relay.h"
#include "qmp/commands.h"
#include "qmp/schema.h"

#include <string.h>

#define PREFIX "tmk-"

static bool
is_ours (const char *name)
{
  return name != NULL && g_str_has_prefix (name, PREFIX);
}

/* The nodes called tmk-RUN-XN, X being `letter`; `helpers`: with another letter at the end. */
static void
add_nodes (json_t *log, const json_t *nodes, char letter, bool helpers)
{
  size_t i;
  json_t *node;
  json_array_foreach (nodes, i, node) {
    const char *name = jsonx_string (node, "node-name");
    if (is_ours (name) && strrchr (name, '-')[1] == letter
        && !g_ascii_isdigit (name[strlen (name) - 1]) == helpers)
      json_array_append_new (log, undo_node (name));
  }
}

static void
add_bitmaps (json_t *log, const json_t *nodes)
{
  size_t i, j;
  json_t *node, *bitmap;
  json_array_foreach (nodes, i, node) {
    const char *name = jsonx_string (node, "node-name");
    json_array_foreach (json_object_get (node, "dirty-bitmaps"), j, bitmap) {
      const char *bitmap_name = jsonx_string (bitmap, "name");
      if (name != NULL && is_ours (bitmap_name) && !is_ours (name))
        json_array_append_new (log, undo_bitmap (name, bitmap_name));
    }
  }
}

static void
add_drives (json_t *log, QmpMachine *machine)
{
  for (guint i = 0; i < machine->disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (machine->disks, i);
    if (disk->qom_path != NULL && is_ours (disk->root_node))
      json_array_append_new (log, undo_drive (disk->qom_path, disk->root_node,
                                              qmp_disk_active (disk)->node, disk->drive));
  }
}

/* The server goes where it can be stopped without danger: behind a relay, or where none is. On a
 * socket whose name nobody knows any more it stays otherwise. */
static void
add_exports (json_t *log, QmpMachine *machine, const json_t *exports)
{
  size_t i, found = 0;
  json_t *entry;
  g_autofree char *socket = state_file (machine->state, "nbd");
  bool relayed = g_file_test (socket, G_FILE_TEST_EXISTS);
  json_array_foreach (exports, i, entry)
    found += is_ours (jsonx_string (entry, "id"));
  if (found > 0
      && (relayed
          || !qmp_has_quirk (qmp_client_version (machine->client), QUIRK_NBD_STOP_FREEZE))) {
    json_t *server = undo_server (relayed ? socket : NULL, NULL, 0, relayed, relayed);
    json_object_set_new (server, "started", json_string ("")); /* what it serves is ours */
    json_array_append_new (log, server);
  }
  json_array_foreach (exports, i, entry)
    if (is_ours (jsonx_string (entry, "id")))
      json_array_append_new (log,
                             undo_export (jsonx_string (entry, "id"), relayed ? socket : NULL));
}

static void
add_processes (json_t *log, QmpMachine *machine)
{
  g_autofree char *lock = state_file (machine->state, "relay");
  g_autofree char *pidfile = state_file (machine->state, "daemon.pid");
  if (relay_lives (lock))
    json_array_append_new (log, undo_relay (lock));
  if (staging_daemon_lives (pidfile)) {
    g_autofree char *socket = staging_daemon_socket (pidfile);
    json_array_append_new (log, undo_daemon (pidfile, socket));
  }
}

static bool
add_what_qemu_has (json_t *log, QmpMachine *machine, TmkError **errp)
{
  QmpClient *client = machine->client;
  g_autoptr (json_t) jobs = qmp_query_jobs (client, errp);
  if (jobs == NULL)
    return false;
  g_autoptr (json_t) nodes
      = qmp_execute (client, "query-named-block-nodes", json_pack ("{s:b}", "flat", 1), errp);
  if (nodes == NULL)
    return false;
  g_autoptr (json_t) exports = qmp_execute (client, "query-block-exports", NULL, errp);
  if (exports == NULL)
    return false;
  size_t i;
  json_t *entry;
  /* In the order in which a job makes them. */
  add_nodes (log, nodes, 'f', false);
  add_nodes (log, nodes, 't', false);
  add_nodes (log, nodes, 'c', false);
  add_bitmaps (log, nodes);
  add_drives (log, machine);
  add_nodes (log, nodes, 'v', false);
  add_nodes (log, nodes, 'v', true);
  json_array_foreach (jobs, i, entry)
    if (is_ours (jsonx_string (entry, "id")))
      json_array_append_new (log, undo_job (jsonx_string (entry, "id")));
  add_exports (log, machine, exports);
  return true;
}

json_t *
strangers_log (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (json_t) log = json_array ();
  if (machine->client != NULL && !add_what_qemu_has (log, machine, errp))
    return NULL;
  add_processes (log, machine);
  return g_steal_pointer (&log);
}

const char *
strangers_describe (const json_t *entry)
{
  static const char *const keys[] = { "id", "name", "filter", "lock", "pidfile" };
  for (size_t i = 0; i < G_N_ELEMENTS (keys); i++)
    if (jsonx_string (entry, keys[i]) != NULL)
      return jsonx_string (entry, keys[i]);
  return "an NBD server";
}
