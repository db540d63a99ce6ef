/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/commands.h: typed builders for the QMP commands and transaction actions that are used here
 * (source: QEMU, qapi/block-core.json and friends). Builders of arguments and actions are pure and
 * return new references; they never fail.
 */
#pragma once

#include "qmp/client.h"

/* --- transaction actions: {"type": …, "data": …} */
json_t *qmp_action_bitmap_add (const char *node, const char *name, bool persistent, bool disabled);
/* Merges bitmap `name` of each of the `n` nodes `sources` into `target` of `node`. */
json_t *qmp_action_bitmap_merge (const char *node, const char *target, const char *const *sources,
                                 size_t n, const char *name);
json_t *qmp_action_bitmap_remove (const char *node, const char *name);

typedef struct {
  const char *job_id, *device, *target;
  const char *bitmap; /* NULL: sync=full; else sync=bitmap, bitmap-mode=never */
  guint64 speed;      /* bytes/s, 0: unlimited */
  bool compress;
  const char *on_cbw_error; /* NULL unless the schema knows it: "break-snapshot" */
} QmpBackup;
/* auto-dismiss is always false: a job's result must survive us. */
json_t *qmp_action_backup (const QmpBackup *backup);

/* `actions` (an array; stolen) in one transaction. */
bool qmp_transaction (QmpClient *client, json_t *actions, TmkError **errp);

/* --- single commands */
bool qmp_blockdev_add (QmpClient *client, json_t *options /* stolen */, TmkError **errp);
bool qmp_blockdev_del (QmpClient *client, const char *node, TmkError **errp);
/* Runs blockdev-create as job `job_id` to its end, however long that takes, and dismisses it, also
 * where it failed (TMK_ERR_FAILED with QEMU's own text). Where the connection ends meanwhile the
 * job stays. `options` is stolen. */
bool qmp_blockdev_create (QmpClient *client, const char *job_id, json_t *options, TmkError **errp);
/* Waits until all the jobs of `ids` (an array of strings), which are not dismissed by themselves,
 * have concluded, however long that takes: what query-jobs says of each, in the order of `ids`. */
json_t *qmp_jobs_wait (QmpClient *client, const json_t *ids, TmkError **errp);
/* Dismisses them all. */
bool qmp_jobs_dismiss (QmpClient *client, const json_t *ids, TmkError **errp);
bool qmp_bitmap_remove (QmpClient *client, const char *node, const char *name, TmkError **errp);
bool qmp_job_cancel (QmpClient *client, const char *id, TmkError **errp);
bool qmp_job_dismiss (QmpClient *client, const char *id, TmkError **errp);
bool qmp_object_add_secret (QmpClient *client, const char *id, const void *data, size_t len,
                            TmkError **errp); /* sent in base64 */
bool qmp_object_del (QmpClient *client, const char *id, TmkError **errp);
/* query-jobs: an array. */
json_t *qmp_query_jobs (QmpClient *client, TmkError **errp);

/* --- query-status */
/* `*status` (if not NULL) gets QEMU's word ("running", "paused", "io-error"), free with g_free().
 */
bool qmp_query_status (QmpClient *client, bool *running, char **status, TmkError **errp);
