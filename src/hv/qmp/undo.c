/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/undo.c: see hv/qmp/undo.h. */
#include "hv/qmp/undo.h"

#include "hv/qmp/server.h"
#include "hv/qmp/staging.h"
#include "hv/relay.h"
#include "qmp/commands.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "hv"
#define CANCEL_TIMEOUT_S 60

json_t *
undo_file (const char *path, guint64 dev, guint64 ino, bool always)
{
  return json_pack ("{s:s, s:s, s:I, s:I, s:b}", "op", "file", "path", path, "dev",
                    (json_int_t) dev, "ino", (json_int_t) ino, "always", always);
}

json_t *
undo_folder (const char *path)
{
  return json_pack ("{s:s, s:s}", "op", "folder", "path", path);
}

json_t *
undo_secret (const char *id)
{
  return json_pack ("{s:s, s:s}", "op", "secret", "id", id);
}

json_t *
undo_node (const char *name)
{
  return json_pack ("{s:s, s:s}", "op", "node", "name", name);
}

json_t *
undo_checkpoint (const char *disk, const char *node, const char *name)
{
  return json_pack ("{s:s, s:s, s:s, s:s}", "op", "checkpoint", "disk", disk, "node", node, "name",
                    name);
}

json_t *
undo_bitmap (const char *node, const char *name)
{
  return json_pack ("{s:s, s:s, s:s}", "op", "bitmap", "node", node, "name", name);
}

json_t *
undo_job (const char *id)
{
  return json_pack ("{s:s, s:s}", "op", "job", "id", id);
}

json_t *
undo_drive (const char *device, const char *filter, const char *node, const char *drive)
{
  return json_pack ("{s:s, s:s, s:s, s:s, s:s?}", "op", "drive", "device", device, "filter", filter,
                    "node", node, "drive", drive);
}

json_t *
undo_server (const char *socket, const char *host, unsigned port, bool tls, bool relayed)
{
  return json_pack ("{s:s, s:s?, s:s?, s:i, s:b, s:b}", "op", "server", "socket", socket, "host",
                    host, "port", (int) port, "tls", tls, "relayed", relayed);
}

json_t *
undo_relay (const char *lock)
{
  return json_pack ("{s:s, s:s}", "op", "relay", "lock", lock);
}

json_t *
undo_export (const char *id, const char *socket)
{
  return json_pack ("{s:s, s:s, s:s?}", "op", "export", "id", id, "socket", socket);
}

json_t *
undo_daemon (const char *pidfile, const char *socket)
{
  return json_pack ("{s:s, s:s, s:s?}", "op", "daemon", "pidfile", pidfile, "socket", socket);
}

/* --- what is there --------------------------------------------------------------------------- */

static bool
node_has_bitmap (const json_t *nodes, const char *name, const char *bitmap)
{
  const json_t *node = jsonx_find (nodes, "node-name", name);
  return jsonx_find (json_object_get (node, "dirty-bitmaps"), "name", bitmap) != NULL;
}

/* The status of job `id` ("running", "concluded"), or NULL where there is none; free it. */
static char *
job_status (QmpClient *client, const char *id, TmkError **errp)
{
  g_autoptr (json_t) jobs = qmp_query_jobs (client, errp);
  return g_strdup (jsonx_string (jsonx_find (jobs, "id", id), "status"));
}

/* --- taking back ----------------------------------------------------------------------------- */

static bool
remove_file (const json_t *entry, TmkError **errp)
{
  const char *path = jsonx_string (entry, "path");
  guint64 ino = jsonx_uint (entry, "ino");
  struct stat st;
  if (path == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the job's record names a file without a path");
    return false;
  }
  if (lstat (path, &st) != 0) {
    if (errno == ENOENT)
      return true;
    error_set_errno (errp, DOMAIN, errno, "cannot look at '%s'", path);
    return false;
  }
  /* Only what we made ourselves: the very inode, or the empty file of a begin that was cut off
   * right behind making it. */
  bool ours = ino != 0 ? st.st_ino == ino && st.st_dev == jsonx_uint (entry, "dev")
                       : S_ISREG (st.st_mode) && st.st_size == 0;
  return !ours || fsx_remove (path, errp);
}

/* One that holds anything is no more only ours and stays. */
static bool
remove_folder (const json_t *entry, TmkError **errp)
{
  const char *path = jsonx_string (entry, "path");
  testpoint ("rmdir");
  if (path != NULL && rmdir (path) != 0 && errno != ENOENT) {
    error_set_errno (errp, DOMAIN, errno, "cannot remove the folder '%s'", path);
    return false;
  }
  testpoint ("rmdir:done");
  return true;
}

/* Cancels all of the log's jobs among `jobs` first, so that they end side by side. */
static void
cancel_jobs (QmpClient *client, const json_t *jobs, const json_t *log)
{
  size_t i;
  json_t *entry;
  json_array_foreach (log, i, entry) {
    if (g_strcmp0 (jsonx_string (entry, "op"), "job") != 0)
      continue;
    const char *id = jsonx_string (entry, "id");
    const char *status = jsonx_string (jsonx_find (jobs, "id", id), "status");
    /* A failure shows when the job does not conclude. */
    if (status != NULL && !g_str_equal (status, "concluded"))
      (void) qmp_job_cancel (client, id, NULL);
  }
}

static bool
end_job (QmpClient *client, const char *id, TmkError **errp)
{
  gint64 deadline = g_get_monotonic_time () + CANCEL_TIMEOUT_S * G_USEC_PER_SEC;
  for (;;) {
    g_autoptr (TmkError) err = NULL;
    g_autofree char *status = job_status (client, id, &err);
    if (err != NULL) {
      error_propagate (errp, g_steal_pointer (&err));
      return false;
    }
    if (status == NULL)
      return true;
    if (g_str_equal (status, "concluded"))
      return qmp_job_dismiss (client, id, errp);
    if (g_get_monotonic_time () > deadline) {
      error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, 0, "job '%s' does not end: it is '%s'", id, status);
      error_hint (errp, "its target may hang: see to the storage, then run 'tidemark abort' again");
      return false;
    }
    json_decref (qmp_client_take_event (client, "JOB_STATUS_CHANGE", 100, NULL));
  }
}

/* The node that has the new checkpoint's bitmap: the one that it was made on or, after QEMU was
 * started anew, an image of the disk of that name. NULL: none. */
static const char *
find_checkpoint_bitmap (const QmpMachine *machine, const json_t *nodes, const json_t *entry)
{
  const char *name = jsonx_string (entry, "name");
  const char *node = jsonx_string (entry, "node");
  if (node_has_bitmap (nodes, node, name))
    return node;
  QmpDisk *disk = qmp_disks_find (machine->disks, jsonx_string (entry, "disk"));
  for (guint i = 0; disk != NULL && i < disk->chain->len; i++) {
    const DiskImage *image = g_ptr_array_index (disk->chain, i);
    if (node_has_bitmap (nodes, image->node, name))
      return image->node;
  }
  return NULL;
}

static bool
has_object (QmpClient *client, const char *id)
{
  g_autoptr (json_t) objects
      = qmp_execute (client, "qom-list", json_pack ("{s:s}", "path", "/objects"), NULL);
  return jsonx_find (objects, "name", id) != NULL;
}

/* Is the node `name` what some device is on? */
static bool
is_in_use (const QmpMachine *machine, const char *name)
{
  for (guint i = 0; i < machine->disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (machine->disks, i);
    if (disk->qdev != NULL && g_strcmp0 (disk->root_node, name) == 0)
      return true;
  }
  return false;
}

static json_t *
set_drive (const json_t *entry, const char *value)
{
  return json_pack ("{s:s, s:s, s:s}", "path", jsonx_string (entry, "device"), "property", "drive",
                    "value", value);
}

static bool
give_back_drive (QmpMachine *machine, const json_t *entry, TmkError **errp)
{
  const char *const values[] = { jsonx_string (entry, "drive"), jsonx_string (entry, "node") };
  for (size_t i = 0; i < G_N_ELEMENTS (values); i++) {
    bool last = i == G_N_ELEMENTS (values) - 1;
    if (values[i] != NULL
        && qmp_run (machine->client, "qom-set", set_drive (entry, values[i]), last ? errp : NULL))
      return true;
  }
  return false;
}

/* All at once but those that may have to be called by another name. A device must not be given what
 * it is on already, which QEMU 7.2 does not survive: so nothing is tried again. */
static bool
give_back_drives (QmpMachine *machine, const json_t *entries, TmkError **errp)
{
  g_autoptr (TmkError) first = NULL;
  g_autoptr (json_t) batch = json_array ();
  size_t i;
  json_t *entry;
  json_array_foreach (entries, i, entry) {
    if (!is_in_use (machine, jsonx_string (entry, "filter")))
      continue;
    if (jsonx_string (entry, "drive") == NULL)
      qmp_batch_add (batch, "qom-set", set_drive (entry, jsonx_string (entry, "node")));
    else
      (void) give_back_drive (machine, entry, first == NULL ? &first : NULL);
  }
  json_decref (qmp_execute_all (machine->client, batch, NULL, first == NULL ? &first : NULL));
  if (first == NULL)
    return true;
  error_propagate (errp, g_steal_pointer (&first));
  return false;
}

static bool
await_export_end (QmpMachine *machine, const char *id, const char *socket, TmkError **errp)
{
  QmpClient *client = machine->client;
  json_t *gone = qmp_client_take_event_of (client, "BLOCK_EXPORT_DELETED", "id", id, 300, NULL);
  if (gone == NULL) {
    server_cut_off (machine, socket);
    gone = qmp_client_take_event_of (client, "BLOCK_EXPORT_DELETED", "id", id, 10000, NULL);
  }
  json_decref (gone);
  if (gone == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, 0,
               "export '%s' does not go: one of its clients takes no answers", id);
    error_hint (errp, "end that client, then try again");
  }
  return gone != NULL;
}

static bool
remove_exports (QmpMachine *machine, const json_t *entries, TmkError **errp)
{
  g_autoptr (json_t) batch = json_array ();
  g_autoptr (json_t) gone = json_array ();
  g_autoptr (json_t) exports = qmp_execute (machine->client, "query-block-exports", NULL, errp);
  size_t i;
  json_t *entry;
  if (exports == NULL)
    return false;
  json_array_foreach (entries, i, entry) {
    const char *id = jsonx_string (entry, "id");
    if (jsonx_find (exports, "id", id) == NULL)
      continue;
    json_array_append (gone, entry);
    qmp_batch_add (batch, "block-export-del", json_pack ("{s:s, s:s}", "id", id, "mode", "hard"));
  }
  g_autoptr (json_t) results = qmp_execute_all (machine->client, batch, NULL, errp);
  if (results == NULL)
    return false;
  json_array_foreach (gone, i, entry) {
    if (!await_export_end (machine, jsonx_string (entry, "id"), jsonx_string (entry, "socket"),
                           errp))
      return false;
  }
  return true;
}

/* What the log's entries are compared with, and those that wait to be carried out together. */
typedef struct {
  QmpMachine *machine;
  json_t *nodes, *jobs; /* as they were at first */
  json_t *batch;        /* of commands, one an entry */
} Undo;

/* Most entries are one command of QEMU's, or none. True: `entry` is such a one and is in the batch.
 */
static bool
add_command (Undo *undo, const json_t *entry)
{
  const char *op = jsonx_string (entry, "op");
  const char *name = jsonx_string (entry, "name");
  const char *node = NULL;
  if (g_str_equal (op, "node")) {
    if (jsonx_find (undo->nodes, "node-name", name) != NULL)
      qmp_batch_add (undo->batch, "blockdev-del", json_pack ("{s:s}", "node-name", name));
    return true;
  }
  if (g_str_equal (op, "job")) {
    const char *id = jsonx_string (entry, "id");
    const json_t *job = jsonx_find (undo->jobs, "id", id);
    bool concluded = g_strcmp0 (jsonx_string (job, "status"), "concluded") == 0;
    if (concluded)
      qmp_batch_add (undo->batch, "job-dismiss", json_pack ("{s:s}", "id", id));
    return concluded || job == NULL;
  }
  if (g_str_equal (op, "checkpoint"))
    node = find_checkpoint_bitmap (undo->machine, undo->nodes, entry);
  else if (!g_str_equal (op, "bitmap"))
    return false;
  else if (node_has_bitmap (undo->nodes, jsonx_string (entry, "node"), name))
    node = jsonx_string (entry, "node");
  if (node != NULL)
    qmp_batch_add (undo->batch, "block-dirty-bitmap-remove",
                   json_pack ("{s:s, s:s}", "node", node, "name", name));
  return true;
}

static bool
run_batch (Undo *undo, TmkError **errp)
{
  if (json_array_size (undo->batch) == 0)
    return true;
  g_autoptr (json_t) results = qmp_execute_all (undo->machine->client, undo->batch, NULL, errp);
  json_array_clear (undo->batch);
  return results != NULL;
}

static bool
undo_one (QmpMachine *machine, const json_t *entry, TmkError **errp)
{
  const char *op = jsonx_string (entry, "op");
  const char *id = jsonx_string (entry, "id");
  QmpClient *client = machine->client;

  if (g_str_equal (op, "file"))
    return remove_file (entry, errp);
  if (g_str_equal (op, "folder"))
    return remove_folder (entry, errp);
  if (g_str_equal (op, "daemon"))
    return staging_daemon_end (jsonx_string (entry, "pidfile"), jsonx_string (entry, "socket"),
                               errp);
  if (g_str_equal (op, "relay"))
    return relay_end (jsonx_string (entry, "lock"), errp);
  if (g_str_equal (op, "server"))
    return server_stop (machine, entry, errp);
  if (g_str_equal (op, "job"))
    return end_job (client, id, errp);
  if (g_str_equal (op, "secret"))
    return !has_object (client, id) || qmp_object_del (client, id, errp);
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the job's record has an unknown step '%s'", op);
  return false;
}

/* Is an entry of that kind gone when QEMU is? */
static bool
qemu_knows (const char *op)
{
  static const char *const kinds[]
      = { "node", "job", "checkpoint", "bitmap", "secret", "drive", "export", NULL };
  return g_strv_contains (kinds, op);
}

static bool
only_on_failure (const json_t *entry, const char *op)
{
  return (g_str_equal (op, "file") && !jsonx_bool (entry, "always"))
         || g_str_equal (op, "checkpoint");
}

/* The entries before `*end` that are of one kind `op` and follow each other, last first; `*end`
 * moves before them. */
static json_t *
take_group (const json_t *log, size_t *end, const char *op)
{
  json_t *group = json_array ();
  while (*end > 0) {
    json_t *entry = json_array_get (log, *end - 1);
    if (g_strcmp0 (jsonx_string (entry, "op"), op) != 0)
      break;
    json_array_append (group, entry);
    (*end)--;
  }
  return group;
}

static bool
look_around (Undo *undo, const json_t *log, TmkError **errp)
{
  QmpMachine *machine = undo->machine;
  if (machine->client == NULL)
    return true;
  if (!machine_refresh (machine, errp)) /* what devices are on changes under a pull */
    return false;
  g_autoptr (json_t) batch = json_array ();
  qmp_batch_add (batch, "query-jobs", NULL);
  qmp_batch_add (batch, "query-named-block-nodes", json_pack ("{s:b}", "flat", 1));
  g_autoptr (json_t) said = qmp_execute_all (machine->client, batch, NULL, errp);
  if (said == NULL)
    return false;
  undo->jobs = json_incref (json_array_get (said, 0));
  undo->nodes = json_incref (json_array_get (said, 1));
  cancel_jobs (machine->client, undo->jobs, log);
  return true;
}

/* Keeps the first error. */
static void
note_error (TmkError **first, TmkError *err)
{
  if (*first == NULL)
    *first = err;
  else
    tmk_error_free (err);
}

/* Carries out all entries of `log` that are due, backwards. False, with its error, where it must
 * not go on. */
static bool
undo_all (Undo *undo, const json_t *log, bool failed, json_t *rest, TmkError **first,
          TmkError **errp)
{
  QmpMachine *machine = undo->machine;
  for (size_t end = json_array_size (log); end > 0;) {
    json_t *entry = json_array_get (log, end - 1);
    const char *op = jsonx_string (entry, "op");
    bool is_export = g_strcmp0 (op, "export") == 0;
    bool is_drive = g_strcmp0 (op, "drive") == 0;
    g_autoptr (json_t) group = is_export || is_drive ? take_group (log, &end, op) : NULL;
    if (group == NULL)
      end--;
    if (op == NULL || (only_on_failure (entry, op) && !failed))
      continue;
    if (machine->client == NULL && g_str_equal (op, "checkpoint"))
      json_array_insert (rest, 0, entry);
    if (machine->client != NULL ? add_command (undo, entry) : qemu_knows (op))
      continue;
    TmkError *err = NULL;
    if (!run_batch (undo, &err))
      note_error (first, g_steal_pointer (&err));
    /* With requests of a client under way whatever changes the graph would freeze the guest. */
    if (is_export && !remove_exports (machine, group, errp))
      return false;
    if (is_export)
      continue;
    if (!(is_drive ? give_back_drives (machine, group, &err) : undo_one (machine, entry, &err)))
      note_error (first, err);
  }
  TmkError *err = NULL;
  if (!run_batch (undo, &err))
    note_error (first, err);
  return true;
}

static void
make_writable (QmpMachine *machine, const json_t *log)
{
  if (machine->client != NULL && machine->place->set_writable != NULL
      && jsonx_find (log, "op", "checkpoint") != NULL)
    machine->place->set_writable (machine, true);
}

/* Was a snapshot taken over a filter of the log? Then the filter is under its image, not under a
 * device, and stays until that image is gone. */
static void
hint_at_snapshot (const Undo *undo, const json_t *log, TmkError **errp)
{
  size_t i;
  json_t *entry;
  json_array_foreach (log, i, entry) {
    const char *filter = jsonx_string (entry, "filter");
    if (filter != NULL && jsonx_find (undo->nodes, "node-name", filter) != NULL
        && !is_in_use (undo->machine, filter)) {
      error_hint (errp,
                  "if a snapshot was taken during the backup, its image is on node '%s': commit it"
                  " to that node (block-commit), remove it (blockdev-del), and try again",
                  filter);
      return;
    }
  }
}

bool
undo_run (QmpMachine *machine, const json_t *log, bool failed, json_t **rest, TmkError **errp)
{
  g_autoptr (TmkError) first = NULL;
  Undo undo = { .machine = machine, .batch = json_array () };
  *rest = json_array ();
  bool looked = look_around (&undo, log, errp);
  if (looked && failed)
    make_writable (machine, log);
  bool ok = looked && undo_all (&undo, log, failed, *rest, &first, errp);
  if (first != NULL && tmk_error_hint (first) == NULL)
    hint_at_snapshot (&undo, log, &first);
  json_decref (undo.batch);
  json_decref (undo.jobs);
  json_decref (undo.nodes);
  if (!ok || first == NULL)
    return ok;
  error_propagate (errp, g_steal_pointer (&first));
  return false;
}
