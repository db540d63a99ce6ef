/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/commands.c: see qmp/commands.h. No state; a client's thread.
 *
 * Strings go into JSON unchecked, so that a builder cannot fail: what is not UTF-8 (a file name may
 * be anything) is refused by qmp_execute(), which can say so.
 */
#include "qmp/commands.h"

#include <string.h>

#define DOMAIN "qmp"

static json_t *
str (const char *text)
{
  return json_string_nocheck (text);
}

static json_t *
action (const char *type, json_t *data)
{
  return json_pack ("{s:s,s:o}", "type", type, "data", data);
}

json_t *
qmp_action_bitmap_add (const char *node, const char *name, bool persistent, bool disabled)
{
  return action ("block-dirty-bitmap-add",
                 json_pack ("{s:o,s:o,s:b,s:b}", "node", str (node), "name", str (name),
                            "persistent", (int) persistent, "disabled", (int) disabled));
}

json_t *
qmp_action_bitmap_merge (const char *node, const char *target, const char *const *sources, size_t n,
                         const char *name)
{
  json_t *bitmaps = json_array ();
  for (size_t i = 0; i < n; i++)
    json_array_append_new (bitmaps,
                           json_pack ("{s:o,s:o}", "node", str (sources[i]), "name", str (name)));
  return action (
      "block-dirty-bitmap-merge",
      json_pack ("{s:o,s:o,s:o}", "node", str (node), "target", str (target), "bitmaps", bitmaps));
}

static json_t *
bitmap_name (const char *node, const char *name)
{
  return json_pack ("{s:o,s:o}", "node", str (node), "name", str (name));
}

json_t *
qmp_action_bitmap_remove (const char *node, const char *name)
{
  return action ("block-dirty-bitmap-remove", bitmap_name (node, name));
}

json_t *
qmp_action_backup (const QmpBackup *backup)
{
  json_t *data = json_pack ("{s:o,s:o,s:o,s:s,s:b}", "job-id", str (backup->job_id), "device",
                            str (backup->device), "target", str (backup->target), "sync",
                            backup->bitmap != NULL ? "bitmap" : "full", "auto-dismiss", 0);
  if (backup->bitmap != NULL) {
    json_object_set_new (data, "bitmap", str (backup->bitmap));
    json_object_set_new (data, "bitmap-mode", json_string ("never"));
  }
  if (backup->speed > 0)
    json_object_set_new (data, "speed",
                         json_integer ((json_int_t) MIN (backup->speed, G_MAXINT64)));
  if (backup->compress)
    json_object_set_new (data, "compress", json_true ());
  if (backup->on_cbw_error != NULL)
    json_object_set_new (data, "on-cbw-error", str (backup->on_cbw_error));
  return action ("blockdev-backup", data);
}

bool
qmp_transaction (QmpClient *client, json_t *actions, TmkError **errp)
{
  return qmp_run (client, "transaction", json_pack ("{s:o}", "actions", actions), errp);
}

bool
qmp_blockdev_add (QmpClient *client, json_t *options, TmkError **errp)
{
  return qmp_run (client, "blockdev-add", options, errp);
}

bool
qmp_blockdev_del (QmpClient *client, const char *node, TmkError **errp)
{
  return qmp_run (client, "blockdev-del", json_pack ("{s:o}", "node-name", str (node)), errp);
}

bool
qmp_bitmap_remove (QmpClient *client, const char *node, const char *name, TmkError **errp)
{
  return qmp_run (client, "block-dirty-bitmap-remove", bitmap_name (node, name), errp);
}

/* --- jobs */

bool
qmp_job_cancel (QmpClient *client, const char *id, TmkError **errp)
{
  return qmp_run (client, "job-cancel", json_pack ("{s:o}", "id", str (id)), errp);
}

bool
qmp_job_dismiss (QmpClient *client, const char *id, TmkError **errp)
{
  return qmp_run (client, "job-dismiss", json_pack ("{s:o}", "id", str (id)), errp);
}

json_t *
qmp_query_jobs (QmpClient *client, TmkError **errp)
{
  g_autoptr (json_t) jobs = qmp_execute (client, "query-jobs", NULL, errp);
  if (jobs != NULL && !json_is_array (jobs)) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "query-jobs: the reply is no list");
    return NULL;
  }
  return g_steal_pointer (&jobs);
}

static bool
has_concluded (const json_t *job)
{
  return g_strcmp0 (json_string_value (json_object_get (job, "status")), "concluded") == 0;
}

/* Waits until job `id` is said to have concluded, or a while, for events can be lost. */
static bool
wait_for_word (QmpClient *client, const char *id, TmkError **errp)
{
  for (;;) {
    TmkError *err = NULL;
    g_autoptr (json_t) event
        = qmp_client_take_event_of (client, "JOB_STATUS_CHANGE", "id", id, 500, &err);
    if (err != NULL) {
      error_propagate (errp, err);
      return false;
    }
    if (event == NULL || has_concluded (json_object_get (event, "data")))
      return true;
  }
}

json_t *
qmp_jobs_wait (QmpClient *client, const json_t *ids, TmkError **errp)
{
  for (;;) {
    g_autoptr (json_t) jobs = qmp_query_jobs (client, errp);
    if (jobs == NULL)
      return NULL;
    g_autoptr (json_t) found = json_array ();
    bool all = true;
    size_t i;
    json_t *id;
    json_array_foreach (ids, i, id) {
      json_t *job = jsonx_find (jobs, "id", json_string_value (id));
      if (job == NULL) {
        error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "job '%s' was taken away by somebody else",
                   json_string_value (id));
        return NULL;
      }
      json_array_append (found, job);
      if (has_concluded (job))
        continue;
      all = false;
      if (!wait_for_word (client, json_string_value (id), errp))
        return NULL;
    }
    if (all)
      return g_steal_pointer (&found);
  }
}

static void
forget_job_events (QmpClient *client, const char *id)
{
  json_t *event;
  while ((event = qmp_client_take_event_of (client, "JOB_STATUS_CHANGE", "id", id, 0, NULL))
         != NULL)
    json_decref (event);
}

bool
qmp_jobs_dismiss (QmpClient *client, const json_t *ids, TmkError **errp)
{
  g_autoptr (json_t) batch = json_array ();
  size_t i;
  json_t *id;
  json_array_foreach (ids, i, id)
    qmp_batch_add (batch, "job-dismiss", json_pack ("{s:O}", "id", id));
  g_autoptr (json_t) results = qmp_execute_all (client, batch, NULL, errp);
  json_array_foreach (ids, i, id)
    forget_job_events (client, json_string_value (id));
  return results != NULL;
}

bool
qmp_blockdev_create (QmpClient *client, const char *job_id, json_t *options, TmkError **errp)
{
  if (!qmp_run (client, "blockdev-create",
                json_pack ("{s:o,s:o}", "job-id", str (job_id), "options", options), errp))
    return false; /* QEMU made no job */
  g_autoptr (json_t) ids = json_pack ("[o]", str (job_id));
  g_autoptr (json_t) jobs = qmp_jobs_wait (client, ids, errp);
  if (jobs == NULL)
    return false;
  const char *why = jsonx_string (json_array_get (jobs, 0), "error");
  if (why != NULL)
    error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "%s", why);
  /* Where the job failed, that is the error to tell. */
  bool ok = qmp_jobs_dismiss (client, ids, why == NULL ? errp : NULL);
  return ok && why == NULL;
}

/* --- objects */

bool
qmp_object_add_secret (QmpClient *client, const char *id, const void *data, size_t len,
                       TmkError **errp)
{
  char *base64 = g_base64_encode (data, len);
  json_t *text = json_string (base64);
  /* The client hides "data" of object-add in traces and messages. */
  bool ok = qmp_run (client, "object-add",
                     json_pack ("{s:s,s:o,s:s,s:O}", "qom-type", "secret", "id", str (id), "format",
                                "base64", "data", text),
                     errp);
  /* jansson keeps its own copy, and has no way to wipe it but this. */
  explicit_bzero ((char *) json_string_value (text), json_string_length (text));
  json_decref (text);
  explicit_bzero (base64, strlen (base64));
  g_free (base64);
  return ok;
}

bool
qmp_object_del (QmpClient *client, const char *id, TmkError **errp)
{
  return qmp_run (client, "object-del", json_pack ("{s:o}", "id", str (id)), errp);
}

/* --- query-status */

bool
qmp_query_status (QmpClient *client, bool *running, char **status, TmkError **errp)
{
  g_autoptr (json_t) reply = qmp_execute (client, "query-status", NULL, errp);
  if (reply == NULL)
    return false;
  int is_running;
  const char *word;
  if (json_unpack (reply, "{s:b,s:s}", "running", &is_running, "status", &word) != 0) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "query-status: the reply names no status");
    return false;
  }
  if (running != NULL)
    *running = is_running != 0;
  if (status != NULL)
    *status = g_strdup (word);
  return true;
}
