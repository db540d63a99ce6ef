/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/plan.c: see hv/qmp/plan.h. */
#include "hv/qmp/plan.h"

#include "hv/qmp/bitmaps.h"
#include "qmp/commands.h"

#include <string.h>

#define DOMAIN "hv"
#define MAX_BITMAP_NAME 1023 /* qcow2's limit */

static void
job_disk_free (gpointer data)
{
  JobDisk *disk = data;
  g_free (disk->name);
  g_free (disk->node);
  g_free (disk->incremental);
  g_free (disk->since_bitmap);
  g_ptr_array_unref (disk->merge_nodes);
  g_free (disk->target);
  g_free (disk->format);
  g_free (disk->backing);
  g_free (disk->backing_format);
  g_free (disk->job);
  g_free (disk->bitmap);
  g_free (disk->file_node);
  g_free (disk->format_node);
  g_free (disk->secret);
  g_free (disk->device);
  g_free (disk->root_node);
  g_free (disk->drive);
  g_free (disk->export_name);
  g_free (disk->filter_node);
  g_free (disk->snapshot_node);
  g_free (disk->export_id);
  g_free (disk);
}

static void
plan_bitmap_free (gpointer data)
{
  PlanBitmap *bitmap = data;
  g_free (bitmap->disk);
  g_free (bitmap->node);
  g_free (bitmap->bitmap);
  g_free (bitmap);
}

void
job_plan_free (JobPlan *plan)
{
  if (plan == NULL)
    return;
  g_free (plan->run);
  tmk_backup_def_free (plan->def);
  tmk_checkpoint_def_free (plan->checkpoint);
  g_clear_pointer (&plan->disks, g_ptr_array_unref);
  g_clear_pointer (&plan->bitmaps, g_ptr_array_unref);
  g_free (plan->tls);
  g_free (plan->tls_folder);
  g_free (plan->socket_folder);
  g_free (plan->socket);
  g_free (plan->relay);
  g_free (plan);
}

TmkCheckpointDef *
plan_known_checkpoint (GPtrArray *known, const char *name)
{
  for (guint i = 0; i < known->len; i++) {
    TmkCheckpointDef *def = g_ptr_array_index (known, i);
    if (g_str_equal (def->name, name))
      return def;
  }
  return NULL;
}

/* --- the new checkpoint ---------------------------------------------------------------------- */

static PlanBitmap *
plan_bitmap (const QmpDisk *disk, const CheckpointDisk *entry, TmkError **errp)
{
  const char *why_not = qmp_disk_why_not (disk);
  if (why_not != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s' cannot have a checkpoint: %s",
               disk->name, why_not);
    error_hint (errp, "leave it out: <disk name='%s' checkpoint='no'/>", disk->name);
    return NULL;
  }
  if (strlen (entry->bitmap) > MAX_BITMAP_NAME || bitmap_is_temporary (entry->bitmap)) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "disk '%s': '%.40s' cannot be a bitmap's name",
               disk->name, entry->bitmap);
    error_hint (errp, "a name has at most %d bytes and does not start with 'tmk-'",
                MAX_BITMAP_NAME);
    return NULL;
  }
  for (guint i = 0; i < disk->chain->len; i++) {
    const DiskImage *image = g_ptr_array_index (disk->chain, i);
    if (disk_image_bitmap (image, entry->bitmap) == NULL)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0, "disk '%s' has a bitmap '%s' already", disk->name,
               entry->bitmap);
    error_hint (errp, "choose another name, or delete it: tidemark checkpoint delete %s",
                entry->bitmap);
    return NULL;
  }
  const DiskImage *active = qmp_disk_active (disk);
  PlanBitmap *bitmap = g_new0 (PlanBitmap, 1);
  bitmap->disk = g_strdup (disk->name);
  bitmap->node = g_strdup (active->node);
  bitmap->bitmap = g_strdup (entry->bitmap);
  bitmap->persistent = active->can_persist;
  bitmap->capacity = active->size;
  return bitmap;
}

GPtrArray *
plan_checkpoint_bitmaps (GPtrArray *disks, TmkCheckpointDef *def, GPtrArray *known, TmkError **errp)
{
  g_autoptr (GPtrArray) bitmaps = g_ptr_array_new_with_free_func (plan_bitmap_free);
  if (plan_known_checkpoint (known, def->name) != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0, "checkpoint '%s' exists already", def->name);
    error_hint (errp, "choose another name, or delete it: tidemark checkpoint delete %s",
                def->name);
    return NULL;
  }
  const QmpDisk *left_out = NULL;
  for (guint i = 0; i < def->disks->len; i++) {
    CheckpointDisk *entry = g_ptr_array_index (def->disks, i);
    if (!entry->covered)
      continue;
    QmpDisk *disk = qmp_disks_find (disks, entry->name);
    g_assert (disk != NULL); /* aligned with the same disks */
    if (disk->no_checkpoint != NULL) {
      entry->covered = FALSE;
      left_out = disk;
      continue;
    }
    PlanBitmap *bitmap = plan_bitmap (disk, entry, errp);
    if (bitmap == NULL)
      return NULL;
    entry->capacity = bitmap->capacity;
    g_ptr_array_add (bitmaps, bitmap);
  }
  if (bitmaps->len == 0) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "checkpoint '%s' covers no disk", def->name);
    if (left_out != NULL)
      error_prefix (errp, "disk '%s': %s", left_out->name, left_out->no_checkpoint);
    error_hint (errp, "leave the checkpoint out, or let it cover a disk");
    return NULL;
  }
  return g_steal_pointer (&bitmaps);
}

/* --- one disk -------------------------------------------------------------------------------- */

static guint64
chain_allocated (const QmpDisk *disk)
{
  guint64 sum = 0;
  for (guint i = 0; i < disk->chain->len; i++)
    sum += ((const DiskImage *) g_ptr_array_index (disk->chain, i))->allocated;
  guint64 size = qmp_disk_active (disk)->size;
  return sum == 0 || sum > size ? size : sum;
}

/* What the previous push left at checkpoint `name`, to be named as backing file. */
static void
find_backing (JobDisk *push, GPtrArray *known)
{
  TmkCheckpointDef *def = plan_known_checkpoint (known, push->incremental);
  CheckpointDisk *entry = def != NULL ? checkpoint_def_find_disk (def, push->name) : NULL;
  if (entry == NULL || entry->target == NULL || g_strcmp0 (entry->target, push->target) == 0)
    return;
  push->backing = g_strdup (entry->target);
  push->backing_format = g_strdup (entry->target_format);
}

/* The least that `disk` had since the checkpoint that `entry` is of: what was cut off in between
 * and came back as zeroes no bitmap recorded. Later checkpoints tell, for `known` is in order. */
static guint64
least_size_since (const JobDisk *push, const TmkCheckpointDef *def, GPtrArray *known)
{
  guint64 least = push->size;
  bool later = false;
  for (guint i = 0; i < known->len; i++) {
    const TmkCheckpointDef *other = g_ptr_array_index (known, i);
    const CheckpointDisk *entry = later ? checkpoint_def_find_disk (other, push->name) : NULL;
    if (entry != NULL && entry->capacity != 0)
      least = MIN (least, entry->capacity);
    later = later || other == def;
  }
  return least;
}

static bool
plan_incremental (JobDisk *push, const QmpDisk *disk, const char *name, GPtrArray *known,
                  TmkError **errp)
{
  /* A checkpoint may name its bitmap on this disk otherwise (<disk bitmap='…'>). */
  TmkCheckpointDef *def = plan_known_checkpoint (known, name);
  CheckpointDisk *entry = def != NULL ? checkpoint_def_find_disk (def, disk->name) : NULL;
  const char *bitmap = entry != NULL && entry->covered ? entry->bitmap : name;

  g_autoptr (BitmapChain) chain = bitmap_chain_look (disk, bitmap);
  if (chain->why_not != NULL) {
    bool missing = chain->images == 0;
    error_set (errp, DOMAIN, missing ? TMK_ERR_NOT_FOUND : TMK_ERR_INCONSISTENT, 0,
               "disk '%s' cannot be incremental since checkpoint '%s': %s", disk->name, name,
               chain->why_not);
    error_hint (errp, "%s", chain->what_to_do);
    return false;
  }
  guint64 least = entry != NULL ? least_size_since (push, def, known) : push->size;
  if (entry != NULL && entry->capacity > least) {
    error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0,
               "disk '%s' has shrunk from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
               " bytes since checkpoint '%s', and no bitmap records what was cut off",
               disk->name, entry->capacity, least, name);
    error_hint (errp, "back this disk up in full: <disk name='%s' backupmode='full'/>", disk->name);
    return false;
  }
  push->mode = BACKUP_MODE_INCREMENTAL;
  push->incremental = g_strdup (name);
  push->since_bitmap = g_strdup (bitmap);
  for (guint i = 0; i < chain->images; i++) {
    const DiskImage *image = g_ptr_array_index (disk->chain, i);
    const NodeBitmap *part = disk_image_bitmap (image, bitmap);
    g_ptr_array_add (push->merge_nodes, g_strdup (image->node));
    if (part != NULL && (push->granularity == 0 || part->granularity < push->granularity))
      push->granularity = part->granularity;
  }
  /* What was discarded is dirty as well, and takes no room but for tables: after an fstrim that may
   * be most of the disk. */
  push->estimate = MIN (chain->dirty, push->estimate + chain->dirty / 2048);
  return true;
}

static bool
check_target (const JobDisk *push, const JobPlanInput *input, TmkError **errp)
{
  bool qcow2 = g_str_equal (push->format, "qcow2");
  if (input->compress && (!qcow2 || push->encryption != NULL)) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s': %s %s target cannot be compressed",
               push->name, push->encryption != NULL ? "an encrypted" : "a", push->format);
    error_hint (errp, "compress only qcow2 targets without encryption, or leave --compress out");
    return false;
  }
  if (input->compress && input->reuse_external) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "disk '%s': QEMU cannot write compressed data over what an image holds already",
               push->name);
    error_hint (errp, "compress only new targets, or leave --compress out");
    return false;
  }
  if (push->encryption != NULL && !qcow2 && !g_str_equal (push->format, "raw")) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "disk '%s': a target of format '%s' cannot be encrypted", push->name, push->format);
    error_hint (errp, "use <driver type='qcow2'/> or <driver type='raw'/>");
    return false;
  }
  if (push->mode == BACKUP_MODE_INCREMENTAL && !qcow2 && !input->reuse_external) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "disk '%s': an incremental backup into a new %s image would not tell what changed"
               " from what did not",
               push->name, push->format);
    error_hint (errp,
                "use <driver type='qcow2'/>, or with --reuse-external a %s copy of the disk as"
                " of checkpoint '%s'",
                push->format, push->incremental);
    return false;
  }
  return true;
}

/* The names by which clients find the disk are shown in the definition. */
static void
plan_export (JobDisk *job, const QmpDisk *disk, BackupDisk *entry, const JobPlanInput *input,
             guint number)
{
  if (entry->exportname == NULL)
    entry->exportname = g_strdup (disk->name);
  job->export_name = g_strdup (entry->exportname);
  if (job->mode == BACKUP_MODE_INCREMENTAL) {
    if (entry->exportbitmap == NULL)
      entry->exportbitmap = g_strdup_printf ("backup-%s", disk->name);
    g_free (job->bitmap);
    job->bitmap = g_strdup (entry->exportbitmap);
  }
  job->device = g_strdup (disk->qom_path);
  job->root_node = g_strdup (disk->root_node);
  job->drive = g_strdup (disk->drive);
  job->filter_node = g_strdup_printf ("tmk-%s-c%u", input->run, number);
  job->snapshot_node = g_strdup_printf ("tmk-%s-v%u", input->run, number);
  job->export_id = g_strdup_printf ("tmk-%s-e%u", input->run, number);
}

/* Nothing writes to the disk, so it is exported as it is, by way of a node that has nothing but the
 * map of what changed. */
static void
plan_direct (JobDisk *job)
{
  g_clear_pointer (&job->target, g_free);
  g_clear_pointer (&job->file_node, g_free);
  g_clear_pointer (&job->filter_node, g_free);
  g_clear_pointer (&job->secret, g_free);
  job->encryption = NULL;
  g_free (job->format_node);
  job->format_node = g_strdup (job->snapshot_node);
}

static bool
check_scratch (const JobDisk *job, TmkError **errp)
{
  if (g_str_equal (job->format, "qcow2"))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s': a scratch image must be qcow2",
             job->name);
  error_hint (errp, "use <driver type='qcow2'/>, or leave <driver> out");
  return false;
}

static JobDisk *
plan_disk (const JobPlanInput *input, BackupDisk *entry, guint number, TmkError **errp)
{
  const QmpDisk *disk = qmp_disks_find (input->disks, entry->name);
  g_assert (disk != NULL); /* aligned with the same disks */
  const char *why_not = qmp_disk_why_not (disk);
  if (why_not != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s' cannot be backed up: %s",
               disk->name, why_not);
    error_hint (errp, "leave it out: <disk name='%s' backup='no'/>", disk->name);
    return NULL;
  }
  const DiskImage *active = qmp_disk_active (disk);
  JobDisk *push = g_new0 (JobDisk, 1);
  push->name = g_strdup (disk->name);
  push->node = g_strdup (active->node);
  push->size = active->size;
  push->mode = BACKUP_MODE_FULL;
  push->merge_nodes = g_ptr_array_new_with_free_func (g_free);
  push->target_type = entry->store->type;
  push->target = g_strdup (entry->store->path);
  push->format = g_strdup (entry->store->format != NULL ? entry->store->format : "qcow2");
  push->encryption = entry->store->encryption;
  push->job = g_strdup_printf ("tmk-%s-j%u", input->run, number);
  push->file_node = g_strdup_printf ("tmk-%s-f%u", input->run, number);
  push->format_node = g_strdup_printf ("tmk-%s-t%u", input->run, number);
  if (push->encryption != NULL)
    push->secret = g_strdup_printf ("tmk-%s-s%u", input->run, number);
  push->estimate = chain_allocated (disk);

  if (entry->mode == BACKUP_MODE_INCREMENTAL) {
    if (!plan_incremental (push, disk, entry->incremental, input->known, errp)) {
      job_disk_free (push);
      return NULL;
    }
    push->bitmap = g_strdup_printf ("tmk-%s-b%u", input->run, number);
    if (!input->def->pull && g_str_equal (push->format, "qcow2") && !input->reuse_external)
      find_backing (push, input->known);
  } else if (g_str_equal (push->format, "raw") && push->target_type == STORAGE_FILE) {
    push->estimate = push->size; /* QEMU allocates also what it writes as zeroes there */
  }
  if (input->def->pull)
    plan_export (push, disk, entry, input, number);
  if (input->def->pull && input->powered_off) {
    plan_direct (push);
    return push;
  }
  if (input->def->pull ? !check_scratch (push, errp) : !check_target (push, input, errp)) {
    job_disk_free (push);
    return NULL;
  }
  return push;
}

/* Two disks must not be written into one image. */
static bool
check_targets_differ (const JobPlan *plan, TmkError **errp)
{
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < plan->disks->len; i++) {
    JobDisk *disk = g_ptr_array_index (plan->disks, i);
    const JobDisk *other = g_hash_table_lookup (seen, disk->target);
    if (other != NULL) {
      error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "disks '%s' and '%s' have the same target '%s'",
                 other->name, disk->name, disk->target);
      error_hint (errp, "give each disk a <target> of its own");
      return false;
    }
    g_hash_table_insert (seen, disk->target, disk);
  }
  return true;
}

/* Two disks must not be exported by one name. */
static bool
check_exports_differ (const JobPlan *plan, TmkError **errp)
{
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < plan->disks->len; i++) {
    JobDisk *disk = g_ptr_array_index (plan->disks, i);
    const JobDisk *other = g_hash_table_lookup (seen, disk->export_name);
    if (other != NULL) {
      error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
                 "disks '%s' and '%s' have the same exportname '%s'", other->name, disk->name,
                 disk->export_name);
      error_hint (errp, "give each disk an exportname of its own");
      return false;
    }
    g_hash_table_insert (seen, disk->export_name, disk);
  }
  return true;
}

JobPlan *
job_plan_new (const JobPlanInput *input, TmkError **errp)
{
  if (input->compress && input->def->pull) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "a pull writes no target that could be compressed");
    error_hint (errp, "leave --compress out: who reads the exports may compress what is read");
    return NULL;
  }
  g_autoptr (JobPlan) plan = g_new0 (JobPlan, 1);
  plan->run = g_strdup (input->run);
  plan->def = tmk_backup_def_copy (input->def);
  plan->direct = input->powered_off && input->def->pull;
  plan->disks = g_ptr_array_new_with_free_func (job_disk_free);
  if (!tmk_backup_def_align (plan->def, input->domain, input->suffix, errp))
    return NULL;
  for (guint i = 0; i < plan->def->disks->len; i++) {
    BackupDisk *entry = g_ptr_array_index (plan->def->disks, i);
    if (!entry->backup)
      continue;
    JobDisk *disk = plan_disk (input, entry, plan->disks->len, errp);
    if (disk == NULL)
      return NULL;
    if (plan->direct) {
      g_clear_pointer (&entry->store, storage_def_free);
      g_ptr_array_add (plan->disks, disk);
      continue;
    }
    /* The store was not said to be anything: now it is known, and shown. */
    if (entry->store->format == NULL)
      entry->store->format = g_strdup (disk->format);
    g_ptr_array_add (plan->disks, disk);
  }
  if (plan->disks->len == 0) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "no disk takes part in the backup");
    error_hint (errp, "'tidemark disks' shows which disks can be backed up");
    return NULL;
  }
  if ((!plan->direct && !check_targets_differ (plan, errp))
      || (plan->def->pull && !check_exports_differ (plan, errp)))
    return NULL;
  if (input->checkpoint != NULL) {
    plan->checkpoint = tmk_checkpoint_def_copy (input->checkpoint);
    if (!tmk_checkpoint_def_align (plan->checkpoint, input->domain, errp))
      return NULL;
    plan->bitmaps = plan_checkpoint_bitmaps (input->disks, plan->checkpoint, input->known, errp);
    if (plan->bitmaps == NULL)
      return NULL;
  } else {
    plan->bitmaps = g_ptr_array_new_with_free_func (plan_bitmap_free);
  }
  return g_steal_pointer (&plan);
}

/* --- the transactions ------------------------------------------------------------------------- */

static json_t *
checkpoint_actions (const JobPlan *plan)
{
  json_t *actions = json_array ();
  for (guint i = 0; i < plan->bitmaps->len; i++) {
    const PlanBitmap *bitmap = g_ptr_array_index (plan->bitmaps, i);
    json_array_append_new (
        actions, qmp_action_bitmap_add (bitmap->node, bitmap->bitmap, bitmap->persistent, false));
  }
  return actions;
}

/* Adds a bitmap on `node`, joined from the disk's chain. */
static void
append_joined_bitmap (json_t *actions, const JobDisk *disk, const char *node, bool persistent,
                      bool disabled)
{
  json_t *add = qmp_action_bitmap_add (node, disk->bitmap, persistent, disabled);
  /* QEMU would take it from the node's clusters, and a scratch has others than the disk. */
  if (disk->granularity != 0)
    json_object_set_new (json_object_get (add, "data"), "granularity",
                         json_integer ((json_int_t) disk->granularity));
  json_array_append_new (actions, add);
  json_array_append_new (actions,
                         qmp_action_bitmap_merge (node, disk->bitmap,
                                                  (const char *const *) disk->merge_nodes->pdata,
                                                  disk->merge_nodes->len, disk->since_bitmap));
}

json_t *
job_plan_pull_actions (const JobPlan *plan, bool persistent)
{
  json_t *actions = checkpoint_actions (plan);
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (disk->mode == BACKUP_MODE_INCREMENTAL)
      append_joined_bitmap (actions, disk, disk->format_node, persistent, true);
  }
  return actions;
}

json_t *
job_plan_actions (const JobPlan *plan, const TmkBeginOptions *options, bool has_on_cbw_error)
{
  json_t *actions = checkpoint_actions (plan);
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (disk->mode == BACKUP_MODE_INCREMENTAL)
      append_joined_bitmap (actions, disk, disk->node, false, false);
  }
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    QmpBackup backup = {
      .job_id = disk->job,
      .device = disk->node,
      .target = disk->format_node,
      .bitmap = disk->bitmap,
      .speed = options->bandwidth,
      .compress = options->compress,
      .on_cbw_error = has_on_cbw_error ? "break-snapshot" : NULL,
    };
    json_array_append_new (actions, qmp_action_backup (&backup));
  }
  return actions;
}
