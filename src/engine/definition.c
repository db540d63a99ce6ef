/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/definition.c: see engine/definition.h. */
#include "engine/definition.h"

#include <sys/stat.h>

#define DOMAIN "engine"

/* Where scratch goes that can neither lie beside the disk's image nor was told a place. */
#define SCRATCH_ELSEWHERE "/var/tmp"

/* A file beside an image that is a file needs no naming: alignment does that. */
static void
name_scratch (const Look *look, size_t i, const TmkBackupOptions *options, const char *suffix,
              BackupDisk *disk)
{
  const char *folder = options->scratch_dir;
  bool is_file = look->n_images[i] > 0 && look->images[i][0].inode != 0;
  if (disk->store != NULL || (folder == NULL && is_file))
    return;
  if (folder == NULL)
    folder = SCRATCH_ELSEWHERE;
  g_autofree char *domain = g_strdelimit (g_strdup (look->domain), "/", '_');
  g_autofree char *name = g_strdelimit (g_strdup (disk->name), "/", '_');
  disk->store = storage_def_new ();
  disk->store->type = STORAGE_FILE;
  disk->store->path = g_strdup_printf ("%s/%s-%s.%s", folder, domain, name, suffix);
}

static TmkBackupDef *
start_from (const TmkBackupDef *given, TmkError **errp)
{
  if (given == NULL)
    return tmk_backup_def_new ();
  for (guint i = 0; !given->pull && i < given->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (given->disks, i);
    if (disk->store == NULL)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "disk '%s': the definition pushes to a target, but a repository is pulled into",
               disk->name);
    error_hint (errp, "remove <target>, or use mode='pull'; 'tidemark begin' runs a push");
    return NULL;
  }
  return tmk_backup_def_copy (given);
}

TmkBackupDef *
definition_new (const Look *look, const TmkBackupOptions *options, const char *suffix,
                TmkError **errp)
{
  g_autoptr (TmkBackupDef) def = start_from (options->definition, errp);
  if (def == NULL)
    return NULL;
  def->pull = TRUE;
  g_clear_pointer (&def->incremental, g_free);
  for (size_t i = 0; i < look->plan->n_disks; i++) {
    const PlanDisk *plan = &look->plan->disks[i];
    BackupDisk *disk = backup_def_find_disk (def, plan->disk->name);
    if (disk == NULL)
      disk = backup_def_add_disk (def, plan->disk->name);
    disk->backup = plan->selected;
    g_clear_pointer (&disk->incremental, g_free);
    if (!plan->selected)
      continue;
    disk->mode = plan->incremental ? BACKUP_MODE_INCREMENTAL : BACKUP_MODE_FULL;
    disk->incremental = g_strdup (plan->incremental ? plan->checkpoint : NULL);
    name_scratch (look, i, options, suffix, disk);
  }
  return g_steal_pointer (&def);
}
