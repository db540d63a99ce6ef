/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format/manifest.c: see format/manifest.h. Pure; any thread. */
#include "format/manifest.h"

#include "format/config.h"
#include "format/jsonfmt.h"
#include "util/bytes.h"

#define DOMAIN "format"
#define VERSION 1
#define WHAT "manifest"

static void
disk_clear (ManifestDisk *disk)
{
  g_free (disk->name);
  g_free (disk->mode);
  g_free (disk->reason);
  g_free (disk->base_point);
  g_free (disk->base_disk);
  g_free (disk->base_checkpoint);
  g_free (disk->checkpoint);
  g_free (disk->format);
  for (size_t i = 0; i < disk->n_images; i++)
    g_free (disk->images[i].path);
  g_free (disk->images);
}

static void
file_clear (ManifestFile *file)
{
  g_free (file->role);
  g_free (file->name);
  disk_clear (&file->content);
}

Manifest *
manifest_new (size_t n_disks)
{
  Manifest *manifest = g_new0 (Manifest, 1);
  manifest->disks = g_new0 (ManifestDisk, n_disks);
  manifest->n_disks = n_disks;
  return manifest;
}

void
manifest_free (Manifest *manifest)
{
  if (manifest == NULL)
    return;
  g_free (manifest->domain);
  g_free (manifest->uuid);
  g_free (manifest->host);
  g_free (manifest->tool);
  g_free (manifest->checkpoint);
  g_free (manifest->domain_xml);
  g_free (manifest->backup_xml);
  g_free (manifest->checkpoint_xml);
  for (size_t i = 0; i < manifest->n_disks; i++)
    disk_clear (&manifest->disks[i]);
  g_free (manifest->disks);
  for (size_t i = 0; i < manifest->n_files; i++)
    file_clear (&manifest->files[i]);
  g_free (manifest->files);
  g_free (manifest);
}

/* ---- files -------------------------------------------------------------------------------- */

static bool
role_is_valid (const char *role)
{
  for (const char *p = role; *p != '\0'; p++)
    if (!g_ascii_islower (*p) && !g_ascii_isdigit (*p) && (*p != '-' || p == role))
      return false;
  return *role != '\0';
}

/* A relative path that goes down, and only down: "tpm2/tpm2-00.permall". */
static bool
file_name_is_valid (const char *name)
{
  g_auto (GStrv) words = g_strsplit (name, "/", -1);
  for (char **word = words; *word != NULL; word++)
    if (**word == '\0' || g_str_equal (*word, ".") || g_str_equal (*word, ".."))
      return false;
  return *name != '\0';
}

ManifestFile *
manifest_add_file (Manifest *manifest, const char *role, const char *name, guint64 size,
                   guint32 chunk_size)
{
  if (!role_is_valid (role) || !file_name_is_valid (name) || size > G_MAXINT64 - MANIFEST_SECTOR
      || manifest->n_files >= MANIFEST_FILES_MAX)
    return NULL;
  for (size_t i = 0; i < manifest->n_files; i++)
    if (g_str_equal (manifest->files[i].role, role) && g_str_equal (manifest->files[i].name, name))
      return NULL;
  manifest->files = g_renew (ManifestFile, manifest->files, manifest->n_files + 1);
  ManifestFile *file = &manifest->files[manifest->n_files++];
  *file = (ManifestFile){ .role = g_strdup (role), .name = g_strdup (name), .size = size };
  file->content.name = g_strconcat (role, "/", name, NULL);
  file->content.size = (size + MANIFEST_SECTOR - 1) / MANIFEST_SECTOR * MANIFEST_SECTOR;
  file->content.chunk_size = chunk_size;
  return file;
}

const ManifestDisk *
manifest_disk (const Manifest *manifest, const char *name)
{
  for (size_t i = 0; i < manifest->n_disks; i++)
    if (g_strcmp0 (manifest->disks[i].name, name) == 0)
      return &manifest->disks[i];
  return NULL;
}

/* ---- formatting --------------------------------------------------------------------------- */

/* 64 bits of any value, which JSON's integers have no room for. */
static json_t *
format_number (guint64 n)
{
  char text[17];
  (void) g_snprintf (text, sizeof text, "%" G_GINT64_MODIFIER "x", n);
  return json_string (text);
}

static json_t *
format_images (const ManifestDisk *disk)
{
  json_t *images = json_array ();
  for (size_t i = 0; i < disk->n_images; i++) {
    const ManifestImage *image = &disk->images[i];
    json_array_append_new (
        images, json_pack ("{s:o, s:o, s:o}", "path", jsonfmt_string (image->path), "device",
                           format_number (image->device), "inode", format_number (image->inode)));
  }
  return images;
}

static json_t *
format_disk (const ManifestDisk *disk)
{
  char root[2 * OBJECT_ID_SIZE + 1];
  object_id_to_hex (&disk->root, root);
  json_t *out = json_object ();
  json_object_set_new (out, "name", jsonfmt_string (disk->name));
  json_object_set_new (out, "size", jsonfmt_size (disk->size));
  json_object_set_new (out, "chunk_size", json_integer (disk->chunk_size));
  json_object_set_new (out, "root", json_string (root));
  json_object_set_new (out, "mode", jsonfmt_string (disk->mode));
  json_object_set_new (out, "reason", jsonfmt_string (disk->reason));
  json_object_set_new (out, "base_point", jsonfmt_string (disk->base_point));
  json_object_set_new (out, "base_disk", jsonfmt_string (disk->base_disk));
  json_object_set_new (out, "base_checkpoint", jsonfmt_string (disk->base_checkpoint));
  json_object_set_new (out, "checkpoint", jsonfmt_string (disk->checkpoint));
  json_object_set_new (out, "format", jsonfmt_string (disk->format));
  json_object_set_new (out, "images", format_images (disk));
  json_object_set_new (out, "read", jsonfmt_size (disk->read));
  json_object_set_new (out, "zero", jsonfmt_size (disk->zero));
  json_object_set_new (out, "changed", jsonfmt_size (disk->changed));
  json_object_set_new (out, "added", jsonfmt_size (disk->added));
  json_object_set_new (out, "stored", jsonfmt_size (disk->stored));
  json_object_set_new (out, "used", jsonfmt_size (disk->used));
  return out;
}

static json_t *
format_file (const ManifestFile *file)
{
  char root[2 * OBJECT_ID_SIZE + 1];
  object_id_to_hex (&file->content.root, root);
  json_t *out = json_object ();
  json_object_set_new (out, "role", jsonfmt_string (file->role));
  json_object_set_new (out, "name", jsonfmt_string (file->name));
  json_object_set_new (out, "size", jsonfmt_size (file->size));
  json_object_set_new (out, "mode", json_integer (file->mode));
  json_object_set_new (out, "chunk_size", json_integer (file->content.chunk_size));
  json_object_set_new (out, "root", json_string (root));
  return out;
}

char *
manifest_format (const Manifest *manifest)
{
  json_t *out = json_object (), *disks = json_array (), *files = json_array ();
  for (size_t i = 0; i < manifest->n_disks; i++)
    json_array_append_new (disks, format_disk (&manifest->disks[i]));
  json_object_set_new (out, "format", json_integer (VERSION));
  json_object_set_new (out, "id", json_string (manifest->id));
  json_object_set_new (out, "time", jsonfmt_time (manifest->time_us));
  json_object_set_new (out, "finished", jsonfmt_time (manifest->finished_us));
  json_object_set_new (out, "domain", jsonfmt_string (manifest->domain));
  json_object_set_new (out, "uuid", jsonfmt_string (manifest->uuid));
  json_object_set_new (out, "host", jsonfmt_string (manifest->host));
  json_object_set_new (out, "tool", jsonfmt_string (manifest->tool));
  json_object_set_new (out, "checkpoint", jsonfmt_string (manifest->checkpoint));
  json_object_set_new (out, "quiesced", json_boolean (manifest->quiesced));
  json_object_set_new (out, "metadata", jsonfmt_size (manifest->metadata));
  json_object_set_new (out, "disks", disks);
  for (size_t i = 0; i < manifest->n_files; i++)
    json_array_append_new (files, format_file (&manifest->files[i]));
  if (manifest->n_files > 0)
    json_object_set (out, "files", files);
  json_decref (files);
  json_object_set_new (out, "domain_xml", jsonfmt_string (manifest->domain_xml));
  json_object_set_new (out, "backup_xml", jsonfmt_string (manifest->backup_xml));
  json_object_set_new (out, "checkpoint_xml", jsonfmt_string (manifest->checkpoint_xml));
  return jsonfmt_dump (out);
}

/* ---- parsing ------------------------------------------------------------------------------ */

static bool
refuse (TmkError **errp, const char *key, const char *why)
{
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s' %s", key, why);
  return false;
}

static bool
get_number (const json_t *object, const char *key, guint64 *value, TmkError **errp)
{
  const json_t *member = json_object_get (object, key);
  const char *text = json_string_value (member);
  if (text == NULL && member != NULL && !json_is_null (member))
    return refuse (errp, key, "is no hexadecimal number of 64 bits");
  *value = 0;
  for (size_t i = 0; text != NULL && text[i] != '\0'; i++) {
    int digit = bytes_hex_digit (text[i]);
    if (i >= 16 || digit < 0)
      return refuse (errp, key, "is no hexadecimal number of 64 bits");
    *value = *value << 4 | (guint64) digit;
  }
  return true;
}

/* A list of objects, or nothing. */
static bool
get_list (const json_t *object, const char *key, bool must, const json_t **list, TmkError **errp)
{
  *list = json_object_get (object, key);
  if ((*list == NULL || json_is_null (*list)) && !must) {
    *list = NULL;
    return true;
  }
  if (!json_is_array (*list))
    return refuse (errp, key, "is no list");
  size_t i;
  json_t *member;
  json_array_foreach (*list, i, member) {
    if (!json_is_object (member))
      return refuse (errp, key, "has something else than objects in it");
  }
  return true;
}

static bool
parse_images (const json_t *in, ManifestDisk *disk, TmkError **errp)
{
  const json_t *list;
  if (!get_list (in, "images", false, &list, errp))
    return false;
  disk->images = g_new0 (ManifestImage, json_array_size (list));
  for (size_t i = 0; i < json_array_size (list); i++) {
    const json_t *member = json_array_get (list, i);
    ManifestImage *image = &disk->images[disk->n_images++];
    if (!jsonfmt_get_string (member, "path", false, &image->path, errp)
        || !get_number (member, "device", &image->device, errp)
        || !get_number (member, "inode", &image->inode, errp))
      return false;
  }
  return true;
}

/* The tree of a disk, or of a file, whose size is known. */
static bool
parse_tree (const json_t *in, ManifestDisk *disk, TmkError **errp)
{
  uint64_t chunk_size;
  const char *root = jsonx_string (in, "root");
  if (!jsonfmt_get_size (in, "chunk_size", true, &chunk_size, errp))
    return false;
  if (!chunk_size_is_valid (chunk_size))
    return refuse (errp, "chunk_size", "is no power of two from 64 KiB to 4 MiB");
  disk->chunk_size = (guint32) chunk_size;
  if (root == NULL || !object_id_from_hex (root, &disk->root))
    return refuse (errp, "root", "is not 64 hexadecimal digits");
  if (disk->size == 0 && !object_id_is_zero (&disk->root))
    return refuse (errp, "root", "is not zero, yet there is nothing in it");
  return true;
}

static bool
parse_disk (const json_t *in, ManifestDisk *disk, TmkError **errp)
{
  return jsonfmt_get_string (in, "name", true, &disk->name, errp)
         && jsonfmt_get_size (in, "size", true, &disk->size, errp) && parse_tree (in, disk, errp)
         && jsonfmt_get_string (in, "mode", false, &disk->mode, errp)
         && jsonfmt_get_string (in, "reason", false, &disk->reason, errp)
         && jsonfmt_get_string (in, "base_point", false, &disk->base_point, errp)
         && jsonfmt_get_string (in, "base_disk", false, &disk->base_disk, errp)
         && jsonfmt_get_string (in, "base_checkpoint", false, &disk->base_checkpoint, errp)
         && jsonfmt_get_string (in, "checkpoint", false, &disk->checkpoint, errp)
         && jsonfmt_get_string (in, "format", false, &disk->format, errp)
         && parse_images (in, disk, errp) && jsonfmt_get_size (in, "read", false, &disk->read, errp)
         && jsonfmt_get_size (in, "zero", false, &disk->zero, errp)
         && jsonfmt_get_size (in, "changed", false, &disk->changed, errp)
         && jsonfmt_get_size (in, "added", false, &disk->added, errp)
         && jsonfmt_get_size (in, "stored", false, &disk->stored, errp)
         && jsonfmt_get_size (in, "used", false, &disk->used, errp);
}

static bool
parse_disks (const json_t *list, Manifest *manifest, TmkError **errp)
{
  g_autoptr (GHashTable) names = g_hash_table_new (g_str_hash, g_str_equal);
  for (size_t i = 0; i < manifest->n_disks; i++) {
    ManifestDisk *disk = &manifest->disks[i];
    bool ok = parse_disk (json_array_get (list, i), disk, errp);
    if (ok && !g_hash_table_add (names, disk->name))
      ok = refuse (errp, "name", "is that of another disk, too");
    if (!ok) {
      error_prefix (errp, "disk %zu", i);
      return false;
    }
  }
  return true;
}

static bool
parse_file (const json_t *in, Manifest *manifest, TmkError **errp)
{
  g_autofree char *role = NULL, *name = NULL;
  uint64_t size, mode;
  if (!jsonfmt_get_string (in, "role", true, &role, errp)
      || !jsonfmt_get_string (in, "name", true, &name, errp)
      || !jsonfmt_get_size (in, "size", true, &size, errp)
      || !jsonfmt_get_size (in, "mode", false, &mode, errp))
    return false;
  if (!role_is_valid (role))
    return refuse (errp, "role", "is no word of a-z, 0-9 and -");
  if (size > G_MAXINT64 - MANIFEST_SECTOR)
    return refuse (errp, "size", "is no size of a file");
  if (mode > 07777)
    return refuse (errp, "mode", "is no mode of a file");
  ManifestFile *file = manifest_add_file (manifest, role, name, size, 0);
  if (file == NULL)
    return refuse (errp, "name", "leads out of its folder, or is that of another file, too");
  file->mode = (guint32) mode;
  return parse_tree (in, &file->content, errp);
}

static bool
parse_files (const json_t *in, Manifest *manifest, TmkError **errp)
{
  const json_t *list;
  if (!get_list (in, "files", false, &list, errp))
    return false;
  if (json_array_size (list) > MANIFEST_FILES_MAX)
    return refuse (errp, "files", "has too many in it");
  for (size_t i = 0; i < json_array_size (list); i++)
    if (!parse_file (json_array_get (list, i), manifest, errp)) {
      error_prefix (errp, "file %zu", i);
      return false;
    }
  return true;
}

static bool
parse_id (const json_t *in, Manifest *manifest, TmkError **errp)
{
  unsigned char bytes[POINT_ID_DIGITS / 2];
  const char *id = jsonx_string (in, "id");
  if (id == NULL || !bytes_from_hex (id, bytes, sizeof bytes))
    return refuse (errp, "id", "is not 16 hexadecimal digits");
  memcpy (manifest->id, id, sizeof manifest->id);
  return true;
}

static bool
parse (const json_t *in, const json_t *disks, Manifest *manifest, TmkError **errp)
{
  manifest->quiesced = jsonx_bool (in, "quiesced");
  return parse_id (in, manifest, errp)
         && jsonfmt_get_time (in, "time", true, &manifest->time_us, errp)
         && jsonfmt_get_time (in, "finished", false, &manifest->finished_us, errp)
         && jsonfmt_get_string (in, "domain", true, &manifest->domain, errp)
         && jsonfmt_get_string (in, "uuid", false, &manifest->uuid, errp)
         && jsonfmt_get_string (in, "host", false, &manifest->host, errp)
         && jsonfmt_get_string (in, "tool", false, &manifest->tool, errp)
         && jsonfmt_get_string (in, "checkpoint", false, &manifest->checkpoint, errp)
         && jsonfmt_get_size (in, "metadata", false, &manifest->metadata, errp)
         && jsonfmt_get_string (in, "domain_xml", false, &manifest->domain_xml, errp)
         && jsonfmt_get_string (in, "backup_xml", false, &manifest->backup_xml, errp)
         && jsonfmt_get_string (in, "checkpoint_xml", false, &manifest->checkpoint_xml, errp)
         && parse_disks (disks, manifest, errp) && parse_files (in, manifest, errp);
}

Manifest *
manifest_parse (const char *json, size_t len, TmkError **errp)
{
  g_autoptr (json_t) document = jsonfmt_load (json, len, WHAT, errp);
  const json_t *disks;
  if (document == NULL || !jsonfmt_check_version (document, VERSION, WHAT, errp))
    return NULL;
  if (!get_list (document, "disks", true, &disks, errp)) {
    error_prefix (errp, "the " WHAT);
    return NULL;
  }
  g_autoptr (Manifest) manifest = manifest_new (json_array_size (disks));
  if (!parse (document, disks, manifest, errp)) {
    error_prefix (errp, "the " WHAT);
    return NULL;
  }
  return g_steal_pointer (&manifest);
}
