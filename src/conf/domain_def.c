/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/domain_def.c: see conf/domain_def.h. Reading `<domain>` is in domain_parse.c. */
#include "conf/domain_def.h"

#include <string.h>

static void
source_free (gpointer data)
{
  DiskSourceDef *source = data;
  g_free (source->path);
  g_free (source->format);
  g_free (source->data_store_path);
  g_free (source->secret_uuid);
  g_free (source->secret_usage);
  g_free (source);
}

static void
disk_free (gpointer data)
{
  DiskDef *disk = data;
  g_free (disk->target);
  g_free (disk->bus);
  g_free (disk->device);
  g_free (disk->alias);
  g_free (disk->serial);
  g_ptr_array_unref (disk->chain);
  g_free (disk);
}

TmkDomainDef *
domain_def_new (void)
{
  TmkDomainDef *def = g_new0 (TmkDomainDef, 1);
  def->disks = g_ptr_array_new_with_free_func (disk_free);
  return def;
}

TmkDomainDef *
domain_def_copy (const TmkDomainDef *def)
{
  TmkDomainDef *copy = domain_def_new ();
  copy->name = g_strdup (def->name);
  copy->uuid = g_strdup (def->uuid);
  for (guint i = 0; i < def->disks->len; i++) {
    const DiskDef *disk = g_ptr_array_index (def->disks, i);
    DiskDef *to = domain_def_add_disk (copy, disk->target);
    to->bus = g_strdup (disk->bus);
    g_free (to->device);
    to->device = g_strdup (disk->device);
    to->alias = g_strdup (disk->alias);
    to->serial = g_strdup (disk->serial);
    to->type = disk->type;
    to->readonly = disk->readonly;
    to->shareable = disk->shareable;
    to->iothread = disk->iothread;
    to->transient = disk->transient;
    to->empty = disk->empty;
    for (guint j = 0; j < disk->chain->len; j++) {
      const DiskSourceDef *source = g_ptr_array_index (disk->chain, j);
      DiskSourceDef *image = disk_def_add_source (to, source->type, source->path, source->format);
      image->index = source->index;
      image->luks = source->luks;
      image->secret_uuid = g_strdup (source->secret_uuid);
      image->secret_usage = g_strdup (source->secret_usage);
      image->data_store_path = g_strdup (source->data_store_path);
    }
  }
  return copy;
}

void
tmk_domain_def_free (TmkDomainDef *def)
{
  if (def == NULL)
    return;
  g_free (def->name);
  g_free (def->uuid);
  g_ptr_array_unref (def->disks);
  g_free (def);
}

DiskDef *
domain_def_add_disk (TmkDomainDef *def, const char *target)
{
  DiskDef *disk = g_new0 (DiskDef, 1);
  disk->target = g_strdup (target);
  disk->device = g_strdup ("disk");
  disk->type = STORAGE_FILE;
  disk->chain = g_ptr_array_new_with_free_func (source_free);
  g_ptr_array_add (def->disks, disk);
  return disk;
}

DiskSourceDef *
disk_def_add_source (DiskDef *disk, StorageType type, const char *path, const char *format)
{
  DiskSourceDef *source = g_new0 (DiskSourceDef, 1);
  source->type = type;
  source->path = g_strdup (path);
  source->format = g_strdup (format);
  g_ptr_array_add (disk->chain, source);
  return source;
}

const char *
disk_source_driver (const DiskSourceDef *source)
{
  const char *format = source->format != NULL ? source->format : "raw";
  return source->luks && strcmp (format, "raw") == 0 ? "luks" : format;
}

const DiskSourceDef *
disk_def_active (const DiskDef *disk)
{
  return disk->chain->len > 0 && !disk->empty ? g_ptr_array_index (disk->chain, 0) : NULL;
}

DiskDef *
domain_def_find_disk (const TmkDomainDef *def, const char *target)
{
  for (guint i = 0; i < def->disks->len; i++) {
    DiskDef *disk = g_ptr_array_index (def->disks, i);
    if (strcmp (disk->target, target) == 0)
      return disk;
  }
  return NULL;
}

DiskDef *
domain_def_find_disk_or_path (const TmkDomainDef *def, const char *name)
{
  if (name[0] != '/')
    return domain_def_find_disk (def, name);
  DiskDef *found = NULL;
  for (guint i = 0; i < def->disks->len; i++) {
    DiskDef *disk = g_ptr_array_index (def->disks, i);
    const DiskSourceDef *source = disk_def_active (disk);
    if (source == NULL || g_strcmp0 (source->path, name) != 0)
      continue;
    if (found != NULL)
      return NULL; /* the path does not say which */
    found = disk;
  }
  return found;
}

/* A value of the index where two disks have the same path. */
static DiskDef ambiguous;

GHashTable *
domain_def_index (const TmkDomainDef *def, gboolean with_paths)
{
  GHashTable *index = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; with_paths && i < def->disks->len; i++) {
    DiskDef *disk = g_ptr_array_index (def->disks, i);
    const DiskSourceDef *source = disk_def_active (disk);
    if (source == NULL || source->path == NULL || source->path[0] != '/')
      continue;
    if (g_hash_table_contains (index, source->path))
      g_hash_table_replace (index, source->path, &ambiguous);
    else
      g_hash_table_insert (index, source->path, disk);
  }
  for (guint i = 0; i < def->disks->len; i++) {
    DiskDef *disk = g_ptr_array_index (def->disks, i);
    if (!with_paths || disk->target[0] != '/')
      g_hash_table_replace (index, disk->target, disk);
  }
  return index;
}

DiskDef *
domain_index_find (GHashTable *index, const char *name)
{
  DiskDef *disk = g_hash_table_lookup (index, name);
  return disk == &ambiguous ? NULL : disk;
}

char *
domain_def_list_targets (const TmkDomainDef *def)
{
  enum { SHOWN = 12 };
  GString *list = g_string_new (NULL);
  for (guint i = 0; i < def->disks->len && i < SHOWN; i++) {
    const DiskDef *disk = g_ptr_array_index (def->disks, i);
    g_string_append_printf (list, "%s%s", i > 0 ? ", " : "", disk->target);
  }
  if (def->disks->len > SHOWN)
    g_string_append_printf (list, " and %u more", def->disks->len - SHOWN);
  return g_string_free (list, FALSE);
}

const char *
tmk_domain_def_name (const TmkDomainDef *def)
{
  return def->name;
}

const char *
tmk_domain_def_uuid (const TmkDomainDef *def)
{
  return def->uuid;
}

size_t
tmk_domain_def_n_disks (const TmkDomainDef *def)
{
  return def->disks->len;
}

const char *
tmk_domain_def_disk_name (const TmkDomainDef *def, size_t i)
{
  g_assert (i < def->disks->len);
  const DiskDef *disk = g_ptr_array_index (def->disks, i);
  return disk->target;
}
