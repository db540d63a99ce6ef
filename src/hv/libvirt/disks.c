/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/disks.c: a domain's disks, as its description and its checkpoints tell of them. */
#include "hv/libvirt/lv.h"

#include "util/jsonx.h"

#include <string.h>

#define BITMAP_GRANULARITY 65536 /* QEMU's for qcow2, of which libvirt says nothing */

const char *
lv_disk_why_not (const LvDomain *lv, const DiskDef *disk)
{
  if (disk->empty)
    return "the drive is empty";
  if (g_str_equal (disk->device, "cdrom") || g_str_equal (disk->device, "floppy"))
    return "it is removable";
  if (disk->readonly)
    return "it is read-only";
  if (disk->transient)
    return "what is written to it is lost when the domain ends";
  if (disk->shareable)
    return "other domains may write to it too";
  if (disk->type == STORAGE_VHOST_USER || disk->type == STORAGE_VHOST_VDPA)
    return "its data do not pass through QEMU";
  if (!lv->active && disk->type != STORAGE_FILE && disk->type != STORAGE_BLOCK)
    return "it is no file or device, and the domain is shut off";
  const LvSecret *secret = lv_secret_of (lv, disk->target);
  return secret != NULL ? secret->why_not : NULL;
}

/* --- bitmaps down the chain ------------------------------------------------------------------- */

/* The names of the bitmaps of an image that nobody writes to; NULL where it cannot be read. */
static GHashTable *
bitmaps_of_image (const char *path, const char *format)
{
  const char *argv[] = { "qemu-img", "info", "-U", "--output=json", "-f", format, path, NULL };
  g_autofree char *out = NULL;
  int status = 0;
  if (!g_spawn_sync (NULL, (char **) argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL,
                     NULL, NULL, &out, NULL, &status, NULL)
      || !g_spawn_check_wait_status (status, NULL))
    return NULL;
  g_autoptr (json_t) info = json_loads (out, 0, NULL);
  const json_t *data = json_object_get (json_object_get (info, "format-specific"), "data");
  GHashTable *names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  size_t i;
  json_t *bitmap;
  json_array_foreach (json_object_get (data, "bitmaps"), i, bitmap)
    if (jsonx_string (bitmap, "name") != NULL)
      g_hash_table_add (names, g_strdup (jsonx_string (bitmap, "name")));
  return names;
}

/* The bitmaps of each image below the top one, in order; ends at the first that cannot tell. */
static GPtrArray *
bitmaps_below (const DiskDef *disk)
{
  GPtrArray *all = g_ptr_array_new_with_free_func ((GDestroyNotify) g_hash_table_unref);
  for (guint i = 1; i < disk->chain->len; i++) {
    const DiskSourceDef *image = g_ptr_array_index (disk->chain, i);
    bool is_path = image->type == STORAGE_FILE || image->type == STORAGE_BLOCK;
    GHashTable *names = NULL;
    if (is_path && image->path != NULL && g_strcmp0 (image->format, "qcow2") == 0)
      names = bitmaps_of_image (image->path, image->format);
    if (names == NULL)
      break;
    g_ptr_array_add (all, names);
  }
  return all;
}

/* In how many images, from the top without a gap. */
static unsigned
count_images (const GPtrArray *below, const char *bitmap)
{
  unsigned n = 1;
  for (guint i = 0; i < below->len && g_hash_table_contains (g_ptr_array_index (below, i), bitmap);
       i++)
    n++;
  return n;
}

/* --- one disk -------------------------------------------------------------------------------- */

static const TmkBitmapInfo *
show_bitmap (HvArena *arena, const CheckpointDisk *of, const char *name, const GPtrArray *below)
{
  TmkBitmapInfo *info = hv_arena_alloc (arena, sizeof *info);
  info->name = hv_arena_string (arena, name);
  info->granularity = BITMAP_GRANULARITY;
  info->persistent = true;
  info->recording = true;
  info->images = count_images (below, name);
  info->usable = of->has_size;
  info->dirty_bytes = of->has_size ? of->size : 0;
  if (!of->has_size) {
    g_autofree char *why = g_strdup_printf ("bitmap '%s' is missing or inconsistent", name);
    info->why_not = hv_arena_string (arena, why);
  }
  return info;
}

static void
show_bitmaps (HvArena *arena, const DiskDef *disk, const GPtrArray *checkpoints, TmkDiskInfo *info)
{
  g_autoptr (GPtrArray) below = bitmaps_below (disk);
  const TmkBitmapInfo **bitmaps = hv_arena_alloc (arena, checkpoints->len * sizeof *bitmaps);
  for (guint i = 0; i < checkpoints->len; i++) {
    const TmkCheckpointDef *def = g_ptr_array_index (checkpoints, i);
    const CheckpointDisk *of = checkpoint_def_find_disk (def, disk->target);
    if (of == NULL || !of->covered)
      continue;
    bitmaps[info->n_bitmaps++]
        = show_bitmap (arena, of, of->bitmap != NULL ? of->bitmap : def->name, below);
  }
  info->bitmaps = bitmaps;
}

static void
show_images (HvArena *arena, const DiskDef *disk, TmkDiskInfo *info)
{
  const char **images = hv_arena_alloc (arena, disk->chain->len * sizeof *images);
  for (guint i = 0; i < disk->chain->len; i++) {
    const DiskSourceDef *image = g_ptr_array_index (disk->chain, i);
    if (image->type == STORAGE_FILE || image->type == STORAGE_BLOCK)
      images[i] = hv_arena_string (arena, image->path);
  }
  info->chain = disk->chain->len;
  info->n_images = disk->chain->len;
  info->images = images;
}

static TmkDiskInfo *
show_disk (const LvDomain *lv, HvArena *arena, const DiskDef *disk)
{
  const DiskSourceDef *active = disk_def_active (disk);
  TmkDiskInfo *info = hv_arena_alloc (arena, sizeof *info);
  info->name = hv_arena_string (arena, disk->target);
  info->qdev = hv_arena_string (arena, disk->alias);
  info->format = hv_arena_string (arena, active != NULL ? active->format : NULL);
  info->source = hv_arena_string (arena, active != NULL ? active->path : NULL);
  info->read_only = disk->readonly;
  info->removable = g_str_equal (disk->device, "cdrom") || g_str_equal (disk->device, "floppy");
  info->empty = disk->empty;
  info->iothread = disk->iothread;
  info->why_not = lv_disk_why_not (lv, disk);
  info->eligible = info->why_not == NULL;
  info->aside = !info->eligible && (info->empty || info->read_only || info->removable);
  if (active != NULL && g_strcmp0 (active->format, "qcow2") != 0)
    info->no_checkpoint = "its format cannot keep bitmaps";
  show_images (arena, disk, info);
  return info;
}

static bool
ask_size (LvDomain *lv, TmkDiskInfo *info, TmkError **errp)
{
  virDomainBlockInfo block;
  if (info->empty || !info->eligible)
    return true;
  if (virDomainGetBlockInfo (lv->dom, info->name, &block, 0) != 0) {
    connection_set_error (errp, "disk '%s': cannot tell its size", info->name);
    return false;
  }
  info->size = block.capacity;
  return true;
}

static HvDiskList *
new_list (void)
{
  HvDiskList *list = g_new0 (HvDiskList, 1);
  list->arena = hv_arena_new ();
  return list;
}

TmkDiskList *
live_disks (LvDomain *lv, TmkError **errp)
{
  g_autoptr (GPtrArray) checkpoints = live_checkpoint_defs (lv, errp);
  if (checkpoints == NULL)
    return NULL;
  HvDiskList *list = new_list ();
  g_autoptr (TmkDiskList) result = &list->public_part;
  guint n = lv->def->disks->len;
  const TmkDiskInfo **disks = hv_arena_alloc (list->arena, n * sizeof *disks);
  for (guint i = 0; i < n; i++) {
    const DiskDef *disk = g_ptr_array_index (lv->def->disks, i);
    TmkDiskInfo *info = show_disk (lv, list->arena, disk);
    if (!ask_size (lv, info, errp))
      return NULL;
    show_bitmaps (list->arena, disk, checkpoints, info);
    disks[i] = info;
  }
  result->n_disks = n;
  result->disks = disks;
  return g_steal_pointer (&result);
}

TmkDiskList *
lv_complete_disks (LvDomain *lv, TmkDiskList *images)
{
  HvDiskList *list = new_list ();
  size_t known = images != NULL ? images->n_disks : 0;
  const TmkDiskInfo **disks
      = hv_arena_alloc (list->arena, (known + lv->def->disks->len) * sizeof *disks);
  size_t n = 0;
  for (; n < known; n++)
    disks[n] = images->disks[n];
  for (guint i = 0; i < lv->def->disks->len; i++) {
    const DiskDef *disk = g_ptr_array_index (lv->def->disks, i);
    if (lv_disk_why_not (lv, disk) != NULL)
      disks[n++] = show_disk (lv, list->arena, disk);
  }
  list->inner = images;
  list->public_part.n_disks = n;
  list->public_part.disks = disks;
  return &list->public_part;
}
