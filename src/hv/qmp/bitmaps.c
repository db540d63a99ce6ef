/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/bitmaps.c: see hv/qmp/bitmaps.h. */
#include "hv/qmp/bitmaps.h"

#include <string.h>

bool
bitmap_is_temporary (const char *name)
{
  return g_str_has_prefix (name, "tmk-");
}

static void
refuse (BitmapChain *chain, char *why, char *what_to_do)
{
  chain->why_not = why;
  chain->what_to_do = what_to_do;
}

static char *
full_instead (const QmpDisk *disk)
{
  return g_strdup_printf ("back this disk up in full: <disk name='%s' backupmode='full'/>",
                          disk->name);
}

/* The lowest image that holds the bitmap, as an index, or -1. */
static int
lowest_holder (const QmpDisk *disk, const char *name)
{
  for (int i = (int) disk->chain->len - 1; i >= 0; i--)
    if (disk_image_bitmap (g_ptr_array_index (disk->chain, i), name) != NULL)
      return i;
  return -1;
}

static void
look_at_image (BitmapChain *chain, const QmpDisk *disk, const DiskImage *image, const char *name,
               bool active)
{
  const NodeBitmap *bitmap = disk_image_bitmap (image, name);
  const char *where = image->filename != NULL ? image->filename : image->node;
  if (bitmap == NULL && active) {
    refuse (
        chain,
        g_strdup_printf ("the active image '%s' has no bitmap '%s' though an image below it has:"
                         " writes since the snapshot were not recorded",
                         where, name),
        full_instead (disk));
  } else if (bitmap == NULL) {
    refuse (chain,
            g_strdup_printf ("bitmap '%s' has a gap: image '%s' of the backing chain lacks it",
                             name, where),
            full_instead (disk));
  } else if (bitmap->inconsistent) {
    refuse (chain,
            g_strdup_printf ("bitmap '%s' of image '%s' is inconsistent: QEMU did not end cleanly",
                             name, where),
            g_strdup_printf ("back this disk up in full (backupmode='full'), and delete the"
                             " checkpoint: tidemark checkpoint delete %s",
                             name));
  } else if (!bitmap->recording) {
    refuse (chain,
            g_strdup_printf ("bitmap '%s' of image '%s' is not recording, so writes are missing",
                             name, where),
            full_instead (disk));
  }
}

BitmapChain *
bitmap_chain_look (const QmpDisk *disk, const char *name)
{
  BitmapChain *chain = g_new0 (BitmapChain, 1);
  const DiskImage *active = qmp_disk_active (disk);
  int lowest = lowest_holder (disk, name);
  if (lowest < 0) {
    refuse (chain, g_strdup_printf ("there is no bitmap '%s' on it", name), full_instead (disk));
    return chain;
  }
  for (int i = 0; i <= lowest && chain->why_not == NULL; i++)
    look_at_image (chain, disk, g_ptr_array_index (disk->chain, i), name, i == 0);
  for (int i = 0; i <= lowest; i++) {
    const DiskImage *image = g_ptr_array_index (disk->chain, i);
    const NodeBitmap *bitmap = disk_image_bitmap (image, name);
    if (bitmap == NULL)
      break;
    chain->images++;
    chain->dirty += bitmap->count;
    if (chain->why_not == NULL && image->size != active->size && image->size != 0)
      refuse (chain,
              g_strdup_printf ("image '%s' of the backing chain has another size than the disk, so"
                               " QEMU cannot join their bitmaps '%s'",
                               image->filename != NULL ? image->filename : image->node, name),
              full_instead (disk));
  }
  chain->dirty = MIN (chain->dirty, active->size);
  return chain;
}

void
bitmap_chain_free (BitmapChain *chain)
{
  if (chain == NULL)
    return;
  g_free (chain->why_not);
  g_free (chain->what_to_do);
  g_free (chain);
}

GPtrArray *
bitmap_names (const QmpDisk *disk)
{
  GPtrArray *names = g_ptr_array_new ();
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < disk->chain->len; i++) {
    const DiskImage *image = g_ptr_array_index (disk->chain, i);
    for (guint j = 0; j < image->bitmaps->len; j++) {
      NodeBitmap *bitmap = g_ptr_array_index (image->bitmaps, j);
      if (!bitmap_is_temporary (bitmap->name) && g_hash_table_add (seen, bitmap->name))
        g_ptr_array_add (names, bitmap->name);
    }
  }
  return names;
}
