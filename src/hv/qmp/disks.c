/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/disks.c: see hv/qmp/disks.h.
 *
 * query-block names a device's root node; query-blockstats nests `backing` (the next image, or for
 * a filter its child) and `parent` (the protocol node); query-named-block-nodes has each node's
 * driver, file and bitmaps. A node whose `backing` and `parent` are one and the same is a filter
 * and is looked through: checkpoints live on the top *format* node.
 */
#include "hv/qmp/disks.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "hv"
#define MAX_CHAIN 200 /* QEMU itself gives up around there */

static void
node_bitmap_free (gpointer data)
{
  NodeBitmap *bitmap = data;
  g_free (bitmap->name);
  g_free (bitmap);
}

static void
disk_image_free (gpointer data)
{
  DiskImage *image = data;
  g_free (image->node);
  g_free (image->driver);
  g_free (image->file_node);
  g_free (image->file_driver);
  g_free (image->filename);
  g_ptr_array_unref (image->bitmaps);
  g_free (image);
}

static void
qmp_disk_free (gpointer data)
{
  QmpDisk *disk = data;
  g_free (disk->name);
  g_free (disk->qdev);
  g_free (disk->qom_path);
  g_free (disk->drive);
  g_free (disk->root_node);
  g_free (disk->io_status);
  g_ptr_array_unref (disk->chain);
  g_free (disk);
}

/* --- images --------------------------------------------------------------------------------- */

static GPtrArray *
read_bitmaps (const json_t *node)
{
  GPtrArray *bitmaps = g_ptr_array_new_with_free_func (node_bitmap_free);
  size_t i;
  json_t *entry;
  json_array_foreach (json_object_get (node, "dirty-bitmaps"), i, entry) {
    const char *name = jsonx_string (entry, "name");
    if (name == NULL || *name == '\0') /* of a running job */
      continue;
    NodeBitmap *bitmap = g_new0 (NodeBitmap, 1);
    bitmap->name = g_strdup (name);
    bitmap->count = jsonx_uint (entry, "count");
    bitmap->granularity = jsonx_uint (entry, "granularity");
    bitmap->persistent = jsonx_bool (entry, "persistent");
    bitmap->recording = jsonx_bool (entry, "recording");
    bitmap->inconsistent = jsonx_bool (entry, "inconsistent");
    bitmap->busy = jsonx_bool (entry, "busy");
    g_ptr_array_add (bitmaps, bitmap);
  }
  return bitmaps;
}

static bool
is_filter (const json_t *stats)
{
  const char *backing = jsonx_string (json_object_get (stats, "backing"), "node-name");
  const char *parent = jsonx_string (json_object_get (stats, "parent"), "node-name");
  return backing != NULL && g_strcmp0 (backing, parent) == 0;
}

static bool
stores_bitmaps (const json_t *node, const json_t *image)
{
  if (g_strcmp0 (jsonx_string (node, "drv"), "qcow2") != 0)
    return false;
  const json_t *data = json_object_get (json_object_get (image, "format-specific"), "data");
  return g_strcmp0 (jsonx_string (data, "compat"), "0.10") != 0;
}

static DiskImage *
read_image (const json_t *node, const char *file_node, const json_t *file)
{
  DiskImage *image = g_new0 (DiskImage, 1);
  const json_t *info = json_object_get (node, "image");

  image->node = g_strdup (jsonx_string (node, "node-name"));
  image->driver = g_strdup (jsonx_string (node, "drv"));
  image->file_node = g_strdup (file_node);
  image->file_driver = g_strdup (jsonx_string (file != NULL ? file : node, "drv"));
  image->filename = g_strdup (jsonx_string (file != NULL ? file : node, "file"));
  image->size = jsonx_uint (info, "virtual-size");
  image->allocated = jsonx_uint (info, "actual-size");
  image->read_only = jsonx_bool (node, "ro");
  image->file_read_only = file != NULL && jsonx_bool (file, "ro");
  image->can_persist = stores_bitmaps (node, info);
  image->bitmaps = read_bitmaps (node);
  return image;
}

static void
read_chain (GPtrArray *chain, const json_t *stats, GHashTable *nodes)
{
  for (int depth = 0; json_is_object (stats) && depth < MAX_CHAIN; depth++) {
    const char *name = jsonx_string (stats, "node-name");
    const json_t *node = name != NULL ? g_hash_table_lookup (nodes, name) : NULL;
    const char *file_node = jsonx_string (json_object_get (stats, "parent"), "node-name");
    const json_t *file = file_node != NULL ? g_hash_table_lookup (nodes, file_node) : NULL;
    if (node != NULL && !is_filter (stats))
      g_ptr_array_add (chain, read_image (node, file_node, file));
    stats = json_object_get (stats, "backing");
  }
}

/* --- names ---------------------------------------------------------------------------------- */

/* 0 → "a", 25 → "z", 26 → "aa". */
static char *
letters (unsigned index)
{
  char buf[8];
  int pos = sizeof buf - 1;
  buf[pos] = '\0';
  for (int n = (int) index; n >= 0 && pos > 0; n = n / 26 - 1)
    buf[--pos] = (char) ('a' + n % 26);
  return g_strdup (buf + pos);
}

/* How libvirt makes aliases of numbers, and a target's index from the same: each number times its
 * weight. Every number goes from 0 to its maximum. */
static const struct {
  const char *prefix, *target;
  unsigned n, weight[4], max[4];
} aliases[] = {
  { "virtio-disk", "vd", 1, { 1 }, { 999 } },
  { "usb-disk", "sd", 1, { 1 }, { 999 } },
  /* libvirt fills a narrow controller with seven units on bus and target 0 */
  { "scsi", "sd", 4, { 7, 0, 0, 1 }, { 999, 0, 0, 6 } },
  { "scsi", "sd", 3, { 7, 0, 1 }, { 999, 0, 6 } }, /* lsilogic: has no targets */
  { "sata", "sd", 3, { 6, 0, 1 }, { 999, 0, 5 } },
  { "ide", "hd", 3, { 4, 2, 1 }, { 999, 1, 1 } },
  { "fdc", "fd", 3, { 2, 0, 1 }, { 999, 0, 1 } },
};

/* Is `text` made of `n` numbers "A-B-…" and of nothing else? (sscanf takes signs and blanks.) */
static bool
parse_numbers (const char *text, unsigned n, unsigned *numbers)
{
  for (unsigned i = 0; i < n; i++) {
    if (i > 0 && *text++ != '-')
      return false;
    size_t digits = strspn (text, "0123456789");
    if (digits < 1 || digits > 3)
      return false;
    numbers[i] = (unsigned) strtoul (text, NULL, 10);
    text += digits;
  }
  return *text == '\0';
}

char *
qmp_disk_target_of_alias (const char *alias)
{
  for (size_t row = 0; row < G_N_ELEMENTS (aliases); row++) {
    unsigned numbers[4], index = 0;
    if (!g_str_has_prefix (alias, aliases[row].prefix)
        || !parse_numbers (alias + strlen (aliases[row].prefix), aliases[row].n, numbers))
      continue;
    for (unsigned i = 0; i < aliases[row].n; i++) {
      if (numbers[i] > aliases[row].max[i])
        return NULL;
      index += numbers[i] * aliases[row].weight[i];
    }
    g_autofree char *tail = letters (index);
    return g_strconcat (aliases[row].target, tail, NULL);
  }
  return NULL;
}

/* The user's id of the device, or NULL: "sd" or "/machine/peripheral/vda/virtio-backend". */
static char *
device_id (const char *qom_path)
{
  const char *prefix = "/machine/peripheral/";
  if (qom_path == NULL || !g_str_has_prefix (qom_path, prefix))
    return NULL;
  const char *id = qom_path + strlen (prefix);
  const char *end = strchr (id, '/');
  return end != NULL ? g_strndup (id, (gsize) (end - id)) : g_strdup (id);
}

static char *
qom_path_of (const char *qdev)
{
  if (qdev == NULL)
    return NULL;
  if (*qdev != '/')
    return g_strconcat ("/machine/peripheral/", qdev, NULL);
  const char *tail = "/virtio-backend";
  gsize len = strlen (qdev);
  if (g_str_has_suffix (qdev, tail))
    len -= strlen (tail);
  return g_strndup (qdev, len);
}

static char *
own_name (const QmpDisk *disk)
{
  g_autofree char *id = device_id (disk->qom_path);
  if (id != NULL) {
    char *target = qmp_disk_target_of_alias (id);
    if (target != NULL)
      return target;
    if (g_str_has_prefix (id, "ua-") && id[3] != '\0') /* libvirt's mark of a user's alias */
      return g_strdup (id + 3);
    return g_steal_pointer (&id);
  }
  if (disk->drive != NULL) {
    const char *libvirt = "drive-"; /* libvirt before -blockdev: drive-virtio-disk0 */
    if (g_str_has_prefix (disk->drive, libvirt)) {
      char *target = qmp_disk_target_of_alias (disk->drive + strlen (libvirt));
      if (target != NULL)
        return target;
    }
    return g_strdup (disk->drive);
  }
  const DiskImage *active = qmp_disk_active (disk);
  if (active != NULL)
    return g_strdup (active->node);
  return g_strdup (disk->qdev != NULL ? disk->qdev : "unnamed");
}

/* What the disk is called in QEMU itself, whatever it stands for; borrowed or made into `*made`. */
static const char *
plain_name (const QmpDisk *disk, char **made)
{
  *made = device_id (disk->qom_path);
  if (*made != NULL)
    return *made;
  if (disk->drive != NULL)
    return disk->drive;
  return disk->chain->len > 0 ? qmp_disk_active (disk)->node : disk->name;
}

static void
rename_disk (QmpDisk *disk, const char *name)
{
  if (g_str_equal (disk->name, name))
    return;
  g_free (disk->name);
  disk->name = g_strdup (name);
}

/* No two disks may be called the same: the wrong one would be copied. Two aliases can stand for
 * one target (a scsi and a sata disk), and an id can be what a description calls another disk.
 * `settled` (disks, may be NULL) keep their names; others are called as in QEMU itself, and if
 * that does not help get a number. */
static void
separate_names (GPtrArray *disks, GHashTable *settled)
{
  g_autoptr (GHashTable) count = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (guint i = 0; i < disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (disks, i);
    guint n = GPOINTER_TO_UINT (g_hash_table_lookup (count, disk->name));
    g_hash_table_insert (count, g_strdup (disk->name), GUINT_TO_POINTER (n + 1));
  }
  g_autoptr (GHashTable) taken = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (guint pass = 0; pass < 2; pass++) {
    for (guint i = 0; i < disks->len; i++) {
      QmpDisk *disk = g_ptr_array_index (disks, i);
      bool is_settled = settled != NULL && g_hash_table_contains (settled, disk);
      if (is_settled != (pass == 0))
        continue;
      g_autofree char *made = NULL;
      if (!is_settled && GPOINTER_TO_UINT (g_hash_table_lookup (count, disk->name)) > 1)
        rename_disk (disk, plain_name (disk, &made));
      g_autofree char *base = g_strdup (disk->name);
      for (guint n = 2; g_hash_table_contains (taken, disk->name); n++) {
        g_autofree char *numbered = g_strdup_printf ("%s-%u", base, n);
        rename_disk (disk, numbered);
      }
      g_hash_table_add (taken, g_strdup (disk->name));
    }
  }
}

void
qmp_disks_apply_names (GPtrArray *disks, const TmkDomainDef *domain)
{
  g_autoptr (GHashTable) settled = g_hash_table_new (NULL, NULL);
  g_autoptr (GHashTable) by_id = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GHashTable) by_path = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < domain->disks->len; i++) {
    DiskDef *def = g_ptr_array_index (domain->disks, i);
    if (def->alias != NULL)
      g_hash_table_insert (by_id, def->alias, def);
    if (def->chain->len > 0) {
      DiskSourceDef *source = g_ptr_array_index (def->chain, 0);
      if (source->path != NULL)
        g_hash_table_insert (by_path, source->path, def);
    }
  }
  for (guint i = 0; i < disks->len; i++) {
    QmpDisk *disk = g_ptr_array_index (disks, i);
    g_autofree char *id = device_id (disk->qom_path);
    const DiskImage *active = qmp_disk_active (disk);
    DiskDef *def = id != NULL ? g_hash_table_lookup (by_id, id) : NULL;
    if (def == NULL && active != NULL && active->filename != NULL)
      def = g_hash_table_lookup (by_path, active->filename);
    if (def == NULL)
      continue;
    rename_disk (disk, def->target);
    g_hash_table_add (settled, disk);
  }
  separate_names (disks, settled);
}

/* --- disks ---------------------------------------------------------------------------------- */

/* `snapshot=on` writes to an unlinked file that QEMU called vl.XXXXXX. */
static bool
is_temporary (const DiskImage *active)
{
  if (active == NULL || active->filename == NULL)
    return false;
  g_autofree char *base = g_path_get_basename (active->filename);
  return strlen (base) == 9 && g_str_has_prefix (base, "vl.")
         && !g_file_test (active->filename, G_FILE_TEST_EXISTS);
}

static QmpDisk *
read_disk (const json_t *block, const json_t *stats, GHashTable *nodes)
{
  QmpDisk *disk = g_new0 (QmpDisk, 1);
  const json_t *inserted = json_object_get (block, "inserted");
  const char *drive = jsonx_string (block, "device");

  disk->chain = g_ptr_array_new_with_free_func (disk_image_free);
  disk->qdev = g_strdup (jsonx_string (block, "qdev"));
  disk->qom_path = qom_path_of (disk->qdev);
  disk->drive = drive != NULL && *drive != '\0' ? g_strdup (drive) : NULL;
  disk->root_node = g_strdup (jsonx_string (inserted, "node-name"));
  disk->io_status = g_strdup (jsonx_string (block, "io-status"));
  disk->removable = jsonx_bool (block, "removable");
  disk->empty = inserted == NULL;
  disk->read_only = jsonx_bool (inserted, "ro");
  if (inserted != NULL && stats != NULL)
    read_chain (disk->chain, stats, nodes);
  const DiskImage *active = qmp_disk_active (disk);
  disk->empty = active == NULL;
  disk->temporary = is_temporary (active);
  disk->firmware = disk->drive != NULL && g_str_has_prefix (disk->drive, "pflash");
  if (disk->qdev != NULL && g_str_has_prefix (disk->qdev, "/machine/system.flash"))
    disk->firmware = true;
  disk->name = own_name (disk);
  return disk;
}

/* The entry of query-blockstats for the device of `block`. They share qdev and device; the root
 * node only where no device uses the drive, for between the two queries a job may have ended and
 * taken its filter away. */
static const json_t *
stats_of (const json_t *blockstats, const json_t *block)
{
  const char *node = jsonx_string (json_object_get (block, "inserted"), "node-name");
  const char *qdev = jsonx_string (block, "qdev");
  size_t i;
  json_t *stats;
  json_array_foreach (blockstats, i, stats) {
    if (g_strcmp0 (jsonx_string (stats, "qdev"), qdev) == 0
        && (qdev != NULL || g_strcmp0 (jsonx_string (stats, "node-name"), node) == 0)
        && g_strcmp0 (jsonx_string (stats, "device"), jsonx_string (block, "device")) == 0)
      return stats;
  }
  return NULL;
}

GPtrArray *
qmp_disks_array_new (void)
{
  return g_ptr_array_new_with_free_func (qmp_disk_free);
}

QmpDisk *
qmp_disk_new_powered_off (const char *name)
{
  QmpDisk *disk = g_new0 (QmpDisk, 1);
  disk->name = g_strdup (name);
  disk->chain = g_ptr_array_new_with_free_func (disk_image_free);
  disk->powered_off = true;
  return disk;
}

DiskImage *
qmp_disk_add_image (QmpDisk *disk, const json_t *node, const json_t *file)
{
  DiskImage *image = read_image (node, jsonx_string (file, "node-name"), file);
  if (disk->chain->len == 0)
    disk->root_node = g_strdup (image->node);
  g_ptr_array_add (disk->chain, image);
  return image;
}

GPtrArray *
qmp_disks_new (json_t *block, json_t *blockstats, json_t *node_list, TmkError **errp)
{
  if (!json_is_array (block) || !json_is_array (blockstats) || !json_is_array (node_list)) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "QEMU's description of its disks is no list");
    return NULL;
  }
  g_autoptr (GHashTable) nodes = g_hash_table_new (g_str_hash, g_str_equal);
  size_t i;
  json_t *entry;
  json_array_foreach (node_list, i, entry) {
    const char *name = jsonx_string (entry, "node-name");
    if (name != NULL)
      g_hash_table_insert (nodes, (gpointer) name, entry);
  }
  GPtrArray *disks = qmp_disks_array_new ();
  json_array_foreach (block, i, entry) {
    if (jsonx_string (entry, "qdev") == NULL && json_object_get (entry, "inserted") == NULL)
      continue; /* a drive that no device uses */
    g_ptr_array_add (disks, read_disk (entry, stats_of (blockstats, entry), nodes));
  }
  separate_names (disks, NULL);
  return disks;
}

QmpDisk *
qmp_disks_find (GPtrArray *disks, const char *name)
{
  for (guint i = 0; i < disks->len; i++) {
    QmpDisk *disk = g_ptr_array_index (disks, i);
    if (g_str_equal (disk->name, name))
      return disk;
  }
  return NULL;
}

QmpDisk *
qmp_disks_find_node (GPtrArray *disks, const char *node)
{
  for (guint i = 0; i < disks->len; i++) {
    QmpDisk *disk = g_ptr_array_index (disks, i);
    for (guint j = 0; j < disk->chain->len; j++) {
      const DiskImage *image = g_ptr_array_index (disk->chain, j);
      if (g_strcmp0 (image->node, node) == 0)
        return disk;
    }
  }
  return NULL;
}

const char *
qmp_disk_why_not (const QmpDisk *disk)
{
  if (disk->powered_off)
    return NULL;
  if (disk->empty)
    return "the drive is empty";
  if (disk->firmware)
    return "it is firmware";
  if (disk->removable)
    return "it is removable";
  if (disk->read_only)
    return "it is read-only";
  if (disk->temporary)
    return "it was started with snapshot=on, so its writes are thrown away";
  if (disk->qdev == NULL)
    return "no device uses it";
  if (disk->shared)
    return "another machine may write to it too (share-rw=on), which no checkpoint would see";
  return NULL;
}

DiskImage *
qmp_disk_active (const QmpDisk *disk)
{
  return disk->chain->len > 0 ? g_ptr_array_index (disk->chain, 0) : NULL;
}

NodeBitmap *
disk_image_bitmap (const DiskImage *image, const char *name)
{
  for (guint i = 0; i < image->bitmaps->len; i++) {
    NodeBitmap *bitmap = g_ptr_array_index (image->bitmaps, i);
    if (g_str_equal (bitmap->name, name))
      return bitmap;
  }
  return NULL;
}

static StorageType
storage_type_of (const DiskImage *image)
{
  if (g_strcmp0 (image->file_driver, "file") == 0)
    return STORAGE_FILE;
  if (g_strcmp0 (image->file_driver, "host_device") == 0)
    return STORAGE_BLOCK;
  if (g_strcmp0 (image->file_driver, "nvme") == 0)
    return STORAGE_NVME;
  return STORAGE_NETWORK;
}

TmkDomainDef *
qmp_disks_to_def (GPtrArray *disks, const char *name, const char *uuid)
{
  TmkDomainDef *def = domain_def_new ();
  def->name = g_strdup (name);
  def->uuid = g_strdup (uuid);
  for (guint i = 0; i < disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (disks, i);
    DiskDef *entry = domain_def_add_disk (def, disk->name);
    entry->readonly = !disk->empty && qmp_disk_why_not (disk) != NULL;
    entry->empty = disk->empty;
    for (guint j = 0; j < disk->chain->len; j++) {
      const DiskImage *image = g_ptr_array_index (disk->chain, j);
      StorageType type = storage_type_of (image);
      if (j == 0)
        entry->type = type;
      disk_def_add_source (entry, type, image->filename, image->driver);
    }
  }
  return def;
}
