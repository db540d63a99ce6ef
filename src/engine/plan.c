/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/plan.c: see engine/plan.h. */
#include "engine/plan.h"

#include "conf/backup_def.h"
#include "engine/plan_search.h"

#include <string.h>

#define DOMAIN "engine"

void
plan_free (Plan *plan)
{
  if (plan == NULL)
    return;
  for (size_t i = 0; i < plan->n_disks; i++)
    g_free (plan->disks[i].reason);
  g_free (plan->disks);
  g_ptr_array_unref (plan->missed);
  g_ptr_array_unref (plan->skipped);
  g_hash_table_unref (plan->checkpoints);
  g_free (plan);
}

/* ---- which disks -------------------------------------------------------------------------- */

static bool
is_listed (const char *const *names, const char *name)
{
  return names != NULL && g_strv_contains (names, name);
}

static bool
check_name (const PlanInput *input, const char *name, TmkError **errp)
{
  g_autoptr (GString) all = g_string_new (NULL);
  for (size_t i = 0; i < input->n_disks; i++) {
    if (g_str_equal (input->disks[i]->name, name))
      return true;
    g_string_append_printf (all, "%s%s", i > 0 ? ", " : "", input->disks[i]->name);
  }
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "disk '%s': the domain has no such disk", name);
  error_hint (errp, "the domain's disks are: %s", all->str);
  return false;
}

/* A disk that is named must be there, and, if it is to be backed up, possible to back up. */
static bool
check_names (const PlanInput *input, const TmkBackupOptions *options, TmkError **errp)
{
  static const char *const none[] = { NULL };
  const char *const *include = options->include != NULL ? options->include : none;
  const char *const *exclude = options->exclude != NULL ? options->exclude : none;
  for (; *include != NULL; include++) {
    if (is_listed (exclude, *include)) {
      error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "disk '%s' is both included and excluded",
                 *include);
      error_hint (errp, "leave --include %s or --exclude %s out", *include, *include);
      return false;
    }
    if (!check_name (input, *include, errp))
      return false;
  }
  for (; *exclude != NULL; exclude++)
    if (!check_name (input, *exclude, errp))
      return false;
  const GPtrArray *listed = options->definition != NULL ? options->definition->disks : NULL;
  for (guint i = 0; listed != NULL && i < listed->len; i++)
    if (!check_name (input, ((const BackupDisk *) listed->pdata[i])->name, errp))
      return false;
  return true;
}

/* Was the disk asked for by its name? */
static bool
is_named (const TmkBackupOptions *options, const char *name)
{
  if (options->definition == NULL)
    return is_listed (options->include, name) && !is_listed (options->exclude, name);
  const BackupDisk *disk = backup_def_find_disk (options->definition, name);
  return disk != NULL && disk->backup;
}

/* Was it left out? */
static bool
is_left_out (const TmkBackupOptions *options, const char *name)
{
  if (options->definition != NULL)
    return options->definition->disks->len > 0 && !is_named (options, name);
  return (options->include != NULL && !is_listed (options->include, name))
         || is_listed (options->exclude, name);
}

static bool
select_disk (Plan *plan, PlanDisk *disk, const TmkBackupOptions *options, TmkError **errp)
{
  const char *name = disk->disk->name;
  const char *why_not = disk->disk->why_not != NULL ? disk->disk->why_not : "it is not supported";
  bool left_out = is_left_out (options, name);
  disk->selected = disk->disk->eligible && !left_out;
  if (left_out) {
    disk->reason
        = g_strdup (options->definition != NULL ? "the definition leaves it out" : "left out");
    return true;
  }
  if (disk->selected)
    return true;
  disk->reason = g_strdup (why_not);
  if (!is_named (options, name)) {
    char *text = g_strdup_printf ("%s: %s", name, why_not);
    g_ptr_array_add (plan->skipped, text);
    if (!disk->disk->aside)
      g_ptr_array_add (plan->missed, text);
    return true;
  }
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s' cannot be backed up: %s", name,
             why_not);
  error_hint (errp,
              options->definition != NULL ? "say <disk name='%s' backup='no'/>"
                                          : "do not name it: leave --include %s out",
              name);
  return false;
}

/* ---- full or incremental ------------------------------------------------------------------ */

static char *
describe_base (const PlanInput *input, const PlanDisk *disk)
{
  GString *text = g_string_new (NULL);
  g_string_append_printf (text, "checkpoint '%s' of point " PLAN_ID_FORMAT, disk->checkpoint,
                          disk->base->id);
  if (!g_str_equal (disk->base_disk->name, disk->disk->name))
    g_string_append_printf (text, ", there disk '%s'", disk->base_disk->name);
  if (!plan_is_own_point (input, disk->base))
    g_string_append_printf (text, ", of domain '%s'", disk->base->domain);
  return g_string_free (text, FALSE);
}

static void
make_incremental (const PlanInput *input, PlanDisk *disk, const PlanSearch *search)
{
  disk->incremental = true;
  disk->base = search->base;
  disk->base_disk = search->base_disk;
  disk->checkpoint = search->bitmap->name;
  disk->expected = search->bitmap->dirty_bytes;
  disk->reason = describe_base (input, disk);
}

static void
make_full (PlanDisk *disk, const PlanSearch *search, const char *reason)
{
  disk->previous = search->previous;
  disk->expected = disk->disk->size;
  disk->reason = g_strdup (reason);
}

/* What a definition says: full, or incremental since a checkpoint that a point was made at. */
static bool
follow_definition (const PlanInput *input, PlanDisk *disk, const TmkBackupDef *def,
                   const PlanSearch *newest, TmkError **errp)
{
  const char *name = disk->disk->name;
  const BackupDisk *entry = backup_def_find_disk (def, name);
  BackupMode mode = entry != NULL ? entry->mode : BACKUP_MODE_DEFAULT;
  const char *since
      = entry != NULL && entry->incremental != NULL ? entry->incremental : def->incremental;
  if (mode == BACKUP_MODE_FULL || (mode == BACKUP_MODE_DEFAULT && since == NULL)) {
    make_full (disk, newest, "the definition says so");
    return true;
  }
  if (since == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
               "disk '%s': backupmode='incremental', but no checkpoint is named", name);
    error_hint (errp, "name it in incremental= of the disk or in <incremental> of the backup");
    return false;
  }
  g_auto (PlanSearch) search = { 0 };
  plan_search (input, disk, since, &search);
  if (search.base != NULL) {
    make_incremental (input, disk, &search);
    return true;
  }
  error_set (errp, DOMAIN, search.code, 0,
             "disk '%s': the repository has no point made at checkpoint '%s' to add to: %s", name,
             since, search.why_not);
  if (newest->base != NULL)
    error_hint (errp, "what can be started from is checkpoint '%s'; or say backupmode='full'",
                newest->bitmap->name);
  else
    error_hint (errp, "back this disk up in full: <disk name='%s' backupmode='full'/>", name);
  return false;
}

static bool
choose_mode (const PlanInput *input, PlanDisk *disk, const TmkBackupOptions *options,
             TmkError **errp)
{
  g_auto (PlanSearch) search = { 0 };
  plan_search (input, disk, NULL, &search);
  disk->newest = search.bitmap != NULL ? search.bitmap->name : NULL;
  if (!disk->selected)
    return true;
  if (options->definition != NULL)
    return follow_definition (input, disk, options->definition, &search, errp);
  if (options->mode == TMK_BACKUP_FULL) {
    make_full (disk, &search, "asked for");
  } else if (search.base != NULL) {
    make_incremental (input, disk, &search);
  } else if (options->mode == TMK_BACKUP_INCREMENTAL) {
    error_set (errp, DOMAIN, search.code, 0, "disk '%s' cannot be incremental: %s",
               disk->disk->name, search.why_not);
    error_hint (errp, "let it be full, with --mode auto, or leave it out: %s",
                options->include != NULL ? "do not --include it" : "--exclude it");
    return false;
  } else {
    /* Where there never is a checkpoint, that it is missing is no surprise. */
    bool never = disk->disk->no_checkpoint != NULL && search.code != TMK_ERR_INCONSISTENT;
    make_full (disk, &search, never ? disk->disk->no_checkpoint : search.why_not);
    disk->fallback = search.expected && !never;
  }
  return true;
}

/* ---- the whole ---------------------------------------------------------------------------- */

static GHashTable *
all_checkpoints (const PlanInput *input)
{
  GHashTable *all = g_hash_table_new (g_str_hash, g_str_equal);
  for (size_t i = 0; i < input->n_points; i++) {
    const Manifest *point = input->points[i];
    if (point->checkpoint != NULL)
      g_hash_table_add (all, point->checkpoint);
    for (size_t j = 0; j < point->n_disks; j++)
      if (point->disks[j].checkpoint != NULL)
        g_hash_table_add (all, point->disks[j].checkpoint);
  }
  return all;
}

/* What a definition has that is of no use here, or that options contradict. */
static bool
check_definition (const TmkBackupOptions *options, TmkError **errp)
{
  const TmkBackupDef *def = options->definition;
  if (def == NULL)
    return true;
  if (def->server != NULL && def->server->tls == 1) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "the definition asks for TLS, but it is this process that reads the disks");
    error_hint (errp, "leave <server> out: they are read by a socket of their own");
    return false;
  }
  if (options->mode != TMK_BACKUP_AUTO || options->include != NULL || options->exclude != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "a definition says itself which disks are backed up, and how");
    error_hint (errp, "leave --mode, --include and --exclude out, or --xml");
    return false;
  }
  return true;
}

Plan *
plan_new (const PlanInput *input, const TmkBackupOptions *options, TmkError **errp)
{
  if (!check_definition (options, errp) || !check_names (input, options, errp))
    return NULL;
  g_autoptr (Plan) plan = g_new0 (Plan, 1);
  plan->disks = g_new0 (PlanDisk, input->n_disks + 1);
  plan->n_disks = input->n_disks;
  plan->skipped = g_ptr_array_new_with_free_func (g_free);
  plan->missed = g_ptr_array_new ();
  plan->checkpoints = all_checkpoints (input);
  for (size_t i = 0; i < input->n_disks; i++) {
    PlanDisk *disk = &plan->disks[i];
    disk->disk = input->disks[i];
    disk->images = input->images[i];
    disk->n_images = input->n_images[i];
    if (!select_disk (plan, disk, options, errp) || !choose_mode (input, disk, options, errp))
      return NULL;
  }
  return g_steal_pointer (&plan);
}

/* ---- checkpoints that no backup will start from -------------------------------------------- */

char *
plan_checkpoint_prefix (const char *short_id)
{
  return g_strdup_printf ("tidemark-%s-", short_id);
}

static void
add_stale (GPtrArray *stale, const PlanDisk *disk, const TmkBitmapInfo *bitmap)
{
  PlanStale *entry = g_new0 (PlanStale, 1);
  entry->disk = disk->disk->name;
  entry->checkpoint = bitmap->name;
  g_ptr_array_add (stale, entry);
}

/* Of a point that is there but cannot be read? Then it may be read again one day. */
static bool
is_of_damaged_point (const PlanRepository *repository, const char *checkpoint)
{
  const char *id = checkpoint + strlen (repository->prefix);
  for (guint i = 0; i < repository->points->damaged->len; i++) {
    const char *damaged = g_ptr_array_index (repository->points->damaged, i);
    if (g_str_has_prefix (damaged, id) && damaged[strlen (id)] == ':')
      return true;
  }
  return false;
}

/* What a bitmap is not removed from: where it cannot be, or while somebody uses it. */
static bool
may_remove (const PlanDisk *disk, const TmkBitmapInfo *bitmap, const char *prefix)
{
  return disk->disk->eligible && !bitmap->busy && g_str_has_prefix (bitmap->name, prefix);
}

GPtrArray *
plan_orphans (const Plan *plan, const PlanRepository *repository)
{
  GPtrArray *stale = g_ptr_array_new_with_free_func (g_free);
  for (size_t i = 0; i < plan->n_disks; i++) {
    const PlanDisk *disk = &plan->disks[i];
    for (size_t j = 0; j < disk->disk->n_bitmaps; j++) {
      const TmkBitmapInfo *bitmap = disk->disk->bitmaps[j];
      if (may_remove (disk, bitmap, repository->prefix)
          && !g_hash_table_contains (plan->checkpoints, bitmap->name)
          && !is_of_damaged_point (repository, bitmap->name))
        add_stale (stale, disk, bitmap);
    }
  }
  return stale;
}

GPtrArray *
plan_superseded (const Plan *plan, const char *prefix, const char *checkpoint)
{
  GPtrArray *stale = g_ptr_array_new_with_free_func (g_free);
  for (size_t i = 0; i < plan->n_disks; i++) {
    const PlanDisk *disk = &plan->disks[i];
    bool replaced = disk->selected && disk->disk->no_checkpoint == NULL && checkpoint != NULL;
    if (!replaced && disk->newest == NULL)
      continue; /* nothing better is there */
    for (size_t j = 0; j < disk->disk->n_bitmaps; j++) {
      const TmkBitmapInfo *bitmap = disk->disk->bitmaps[j];
      bool kept = !replaced
                  && (g_str_equal (bitmap->name, disk->newest)
                      || g_strcmp0 (bitmap->name, disk->checkpoint) == 0);
      if (!kept && may_remove (disk, bitmap, prefix)
          && g_hash_table_contains (plan->checkpoints, bitmap->name)
          && g_strcmp0 (bitmap->name, checkpoint) != 0)
        add_stale (stale, disk, bitmap);
    }
  }
  return stale;
}
