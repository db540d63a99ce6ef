/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/backup_align.c: a backup definition against a domain's disks.
 *
 * Works on a copy that replaces the definition only at the end, so a failure changes nothing.
 * Look-ups go through hash tables: a domain may have a thousand disks. The order of the checks is
 * libvirt's, so that a document with two faults gives the same complaint.
 */
#include "conf/backup_def.h"
#include "conf/domain_def.h"
#include "util/error.h"

#include <string.h>

/* `made`: the file names generated so far, each with the disk it is for. */
static bool
generate_store (BackupDisk *disk, const DiskDef *from, const char *suffix, GHashTable *made,
                TmkError **errp)
{
  const DiskSourceDef *source = disk_def_active (from);
  if (source->type != STORAGE_FILE || source->path == NULL) {
    error_set (errp, "conf", TMK_ERR_UNSUPPORTED, 0,
               "disk '%s': no name can be made up for its backup, as its source is of type '%s'",
               disk->name, storage_type_name (source->type));
    error_hint (errp, "name a <target> or <scratch> for the disk, or say backup='no'");
    return false;
  }
  if (disk->store == NULL)
    disk->store = storage_def_new ();
  disk->store->type = STORAGE_FILE;
  disk->store->path = g_strdup_printf ("%s.%s", source->path, suffix);
  const char *other = g_hash_table_lookup (made, disk->store->path);
  if (other != NULL) {
    error_set (errp, "conf", TMK_ERR_EXISTS, 0,
               "disk '%s': its backup would be the same file '%s' as that of disk '%s'", disk->name,
               disk->store->path, other);
    error_hint (errp, "name a <target> or <scratch> for one of them");
    return false;
  }
  g_hash_table_insert (made, disk->store->path, disk->name);
  return true;
}

static bool
assign_store (BackupDisk *disk, const DiskDef *from, const char *suffix, GHashTable *made,
              TmkError **errp)
{
  if (from->empty) {
    error_set (errp, "conf", TMK_ERR_UNSUPPORTED, 0, "disk '%s': the drive has no medium",
               disk->name);
    error_hint (errp, "insert a medium, or say backup='no'");
    return false;
  }
  if (disk->store != NULL && disk->store->path != NULL)
    return true;
  return generate_store (disk, from, suffix, made, errp);
}

static bool
align_listed (TmkBackupDef *def, const TmkDomainDef *dom, const char *suffix, GHashTable *listed,
              GHashTable *made, TmkError **errp)
{
  g_autoptr (GHashTable) index = domain_def_index (dom, FALSE);
  for (guint i = 0; i < def->disks->len; i++) {
    BackupDisk *disk = g_ptr_array_index (def->disks, i);
    const DiskDef *from = domain_index_find (index, disk->name);
    if (from == NULL) {
      g_autofree char *targets = domain_def_list_targets (dom);
      error_set (errp, "conf", TMK_ERR_NOT_FOUND, 0, "disk '%s': the domain has no such disk",
                 disk->name);
      error_hint (errp, "the domain's disks are: %s", targets);
      return false;
    }
    if (!g_hash_table_add (listed, disk->name)) {
      error_set (errp, "conf", TMK_ERR_INVALID, 0, "disk '%s': listed twice", disk->name);
      error_hint (errp, "remove one of its <disk> elements");
      return false;
    }
    if (disk->backup && disk->mode == BACKUP_MODE_INCREMENTAL && disk->incremental == NULL
        && def->incremental == NULL) {
      error_set (errp, "conf", TMK_ERR_INVALID, 0,
                 "disk '%s': backupmode='incremental', but no checkpoint is named", disk->name);
      error_hint (errp, "name it in incremental= of the disk or in <incremental> of the backup");
      return false;
    }
    if (disk->backup && !assign_store (disk, from, suffix, made, errp))
      return false;
  }
  return true;
}

static bool
add_unlisted (TmkBackupDef *def, const TmkDomainDef *dom, const char *suffix, GHashTable *listed,
              GHashTable *made, TmkError **errp)
{
  gboolean all = def->disks->len == 0;
  for (guint i = 0; i < dom->disks->len; i++) {
    const DiskDef *from = g_ptr_array_index (dom->disks, i);
    if (g_hash_table_contains (listed, from->target))
      continue;
    BackupDisk *disk = backup_def_add_disk (def, from->target);
    disk->backup = all && !from->empty && !from->readonly;
    if (disk->backup && !assign_store (disk, from, suffix, made, errp))
      return false;
  }
  return true;
}

static void
resolve_mode (const TmkBackupDef *def, BackupDisk *disk)
{
  if (!disk->backup)
    return;
  if (disk->mode == BACKUP_MODE_DEFAULT)
    disk->mode = def->incremental != NULL || disk->incremental != NULL ? BACKUP_MODE_INCREMENTAL
                                                                       : BACKUP_MODE_FULL;
  if (disk->mode == BACKUP_MODE_INCREMENTAL && disk->incremental == NULL)
    disk->incremental = g_strdup (def->incremental);
}

bool
tmk_backup_def_align (TmkBackupDef *def, const TmkDomainDef *dom, const char *suffix,
                      TmkError **errp)
{
  if (suffix == NULL || suffix[0] == '\0' || strchr (suffix, '/') != NULL) {
    error_set (errp, "conf", TMK_ERR_USAGE, 0, "suffix '%s' cannot end a file's name",
               suffix != NULL ? suffix : "");
    return false;
  }
  if (dom->disks->len == 0) {
    error_set (errp, "conf", TMK_ERR_UNSUPPORTED, 0, "the domain has no disks");
    return false;
  }
  g_autoptr (TmkBackupDef) copy = tmk_backup_def_copy (def);
  g_autoptr (GHashTable) listed = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GHashTable) made = g_hash_table_new (g_str_hash, g_str_equal);
  if (!align_listed (copy, dom, suffix, listed, made, errp)
      || !add_unlisted (copy, dom, suffix, listed, made, errp))
    return false;
  for (guint i = 0; i < copy->disks->len; i++)
    resolve_mode (copy, g_ptr_array_index (copy->disks, i));

  TmkBackupDef swap = *def;
  *def = *copy;
  *copy = swap; /* what was there before goes with the copy */
  return true;
}
