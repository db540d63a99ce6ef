/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/image/nodes.c: images as nodes of the daemon; see hv/image/images.h.
 *
 * Each image is opened by itself, from the bottom of its chain, so that every node has a name and
 * options that are known: below the top they can be reopened for writing, which takes all of them.
 */
#include "hv/image/images.h"

#include "qmp/commands.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "hv"
#define READERS_TIMEOUT_S 5
#define MAX_CHAIN 200 /* QEMU itself gives up around there */

static char *
node_of (const char *path)
{
  g_autofree char *hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, path, -1);
  return g_strdup_printf ("img-%.16s", hash);
}

static char *
file_node_of (const char *path)
{
  g_autofree char *node = node_of (path);
  return g_strconcat (node, "-file", NULL);
}

static json_t *
query_nodes (QmpMachine *machine, TmkError **errp)
{
  return qmp_execute (machine->client, "query-named-block-nodes", json_pack ("{s:b}", "flat", 1),
                      errp);
}

/* --- opening --------------------------------------------------------------------------------- */

static json_t *
file_options (const char *node, const char *driver, const char *path, bool writable)
{
  return json_pack ("{s:s, s:s, s:s, s:b}", "driver", driver, "node-name", node, "filename", path,
                    "read-only", !writable);
}

/* Of these only QEMU knows something below; others refuse to be told that there is nothing. */
static bool
may_have_backing (const char *driver)
{
  static const char *const drivers[] = { "qcow2", "qcow", "qed", "vmdk", NULL };
  return g_strv_contains (drivers, driver);
}

/* `backing`: the node below, or NULL. `key`: see crypt_prepare(). */
static json_t *
format_options (const char *node, const char *driver, const char *file, const char *backing,
                const char *key, bool writable)
{
  json_t *options = json_pack ("{s:s, s:s, s:s, s:b}", "driver", driver, "node-name", node, "file",
                               file, "read-only", !writable);
  crypt_add_options (options, driver, key);
  if (may_have_backing (driver))
    json_object_set_new (options, "backing", jsonx_string_or_null (backing));
  return options;
}

/* QEMU's words, with what can be done about them. */
static void
explain (const QmpMachine *machine, const ImageDisk *disk, const char *path,
         TmkError *why /* stolen */, TmkError **errp)
{
  const Images *images = machine->place_data;
  const char *message = tmk_error_message (why);
  if (strstr (message, " lock") != NULL) {
    tmk_error_free (why);
    image_set_in_use (disk->target, path, images->child, errp);
    return;
  }
  if (crypt_explain (disk, path, message, errp)) {
    tmk_error_free (why);
    return;
  }
  bool wrong_format = strstr (message, " format") != NULL || strstr (message, "'driver'") != NULL;
  error_propagate (errp, why);
  error_prefix (errp, "disk '%s': cannot open the image '%s'", disk->target, path);
  if (wrong_format)
    error_hint (errp, "say what it is: --image %s=%s,format=…", disk->target, disk->path);
  else
    error_hint (errp, "'qemu-img check' tells whether it is whole");
}

/* The path of the image below, NULL without an error where there is none. Free with g_free(). */
static char *
backing_path (const ImageDisk *disk, const json_t *info, TmkError **errp)
{
  const char *path = jsonx_string (info, "full-backing-filename");
  if (path == NULL)
    path = jsonx_string (info, "backing-filename");
  if (path != NULL && g_str_has_prefix (path, "file:"))
    path += strlen ("file:");
  if (path == NULL || *path == '/')
    return g_strdup (path);
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
             "disk '%s': the backing file '%.200s' is no file or device of this host", disk->target,
             path);
  error_hint (errp, "back it up while the virtual machine runs: --qmp ADDR");
  return NULL;
}

static bool open_image (QmpMachine *machine, const ImageDisk *disk, const char *path,
                        const char *format, bool writable, unsigned depth, TmkError **errp);

/* Opens what lies below the image that `node` shows; `*below` gets its node, NULL: nothing does. */
static bool
open_backing (QmpMachine *machine, const ImageDisk *disk, const json_t *node, unsigned depth,
              char **below, TmkError **errp)
{
  const json_t *info = json_object_get (node, "image");
  TmkError *err = NULL;
  g_autofree char *path = backing_path (disk, info, &err);
  if (path == NULL) {
    error_propagate (errp, err);
    return err == NULL;
  }
  const char *format = jsonx_string (info, "backing-filename-format");
  if (format == NULL && (format = image_probe (path, errp)) == NULL) {
    error_prefix (errp, "disk '%s'", disk->target);
    return false;
  }
  if (!open_image (machine, disk, path, format, false, depth + 1, errp))
    return false;
  *below = node_of (path);
  return true;
}

static bool
add_node (QmpMachine *machine, const ImageDisk *disk, const char *path, json_t *options,
          TmkError **errp)
{
  TmkError *err = NULL;
  if (qmp_blockdev_add (machine->client, options, &err))
    return true;
  explain (machine, disk, path, err, errp);
  return false;
}

static bool
open_image (QmpMachine *machine, const ImageDisk *disk, const char *path, const char *format,
            bool writable, unsigned depth, TmkError **errp)
{
  struct stat st;
  if (depth > MAX_CHAIN) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "disk '%s': its backing chain has no end",
               disk->target);
    return false;
  }
  g_autofree char *name = node_of (path);
  g_autofree char *file = file_node_of (path);
  g_autofree char *key = NULL;
  g_autoptr (json_t) before = query_nodes (machine, errp);
  if (before == NULL || !image_check_path (disk, path, &st, errp))
    return false;
  if (jsonx_find (before, "node-name", name) != NULL)
    return true; /* a template that several disks have below them */
  if (!crypt_prepare (machine, disk, path, format, &key, errp))
    return false;
  const char *driver = S_ISBLK (st.st_mode) ? "host_device" : "file";
  if (!add_node (machine, disk, path, file_options (file, driver, path, writable), errp)
      || !add_node (machine, disk, path, format_options (name, format, file, NULL, key, false),
                    errp))
    return false;

  g_autofree char *below = NULL;
  g_autoptr (json_t) nodes = query_nodes (machine, errp);
  if (nodes == NULL
      || !open_backing (machine, disk, jsonx_find (nodes, "node-name", name), depth, &below, errp))
    return false;
  if (below == NULL && !writable)
    return true;
  return qmp_blockdev_del (machine->client, name, errp)
         && add_node (machine, disk, path,
                      format_options (name, format, file, below, key, writable), errp);
}

/* Why there can be no new checkpoint on the image, or NULL. A static string. */
static const char *
why_no_checkpoint (const char *path, const char *format)
{
  if (!g_str_equal (format, "qcow2"))
    return "an image of its format cannot keep a checkpoint while it is powered off";
  if (access (path, W_OK) != 0)
    return "its image cannot be written, so it can have no checkpoint";
  return NULL;
}

bool
nodes_open (QmpMachine *machine, const ImageDisk *disk, bool writable, TmkError **errp)
{
  bool is_of_use = why_no_checkpoint (disk->path, disk->format) == NULL;
  return open_image (machine, disk, disk->path, disk->format, writable && is_of_use, 0, errp);
}

/* --- what there is --------------------------------------------------------------------------- */

static bool
read_chain (QmpDisk *disk, const ImageDisk *given, const json_t *nodes, TmkError **errp)
{
  g_autofree char *path = g_strdup (given->path);
  while (path != NULL && disk->chain->len < MAX_CHAIN) {
    g_autofree char *name = node_of (path);
    g_autofree char *file = file_node_of (path);
    const json_t *node = jsonx_find (nodes, "node-name", name);
    if (node == NULL) {
      error_set (errp, DOMAIN, TMK_ERR_GONE, 0, "disk '%s': the image '%s' is not open",
                 given->target, path);
      error_hint (errp, "try again");
      return false;
    }
    qmp_disk_add_image (disk, node, jsonx_find (nodes, "node-name", file));
    TmkError *err = NULL;
    char *below = backing_path (given, json_object_get (node, "image"), &err);
    g_free (path);
    path = below;
    if (err != NULL) {
      error_propagate (errp, err);
      return false;
    }
  }
  return true;
}

GPtrArray *
nodes_disks (QmpMachine *machine, TmkError **errp)
{
  const Images *images = machine->place_data;
  g_autoptr (GPtrArray) disks = qmp_disks_array_new ();
  g_autoptr (json_t) nodes = query_nodes (machine, errp);
  if (nodes == NULL)
    return NULL;
  for (guint i = 0; i < images->disks->len; i++) {
    const ImageDisk *given = g_ptr_array_index (images->disks, i);
    QmpDisk *disk = qmp_disk_new_powered_off (given->target);
    g_ptr_array_add (disks, disk);
    if (!read_chain (disk, given, nodes, errp))
      return NULL;
    const DiskImage *active = qmp_disk_active (disk);
    disk->no_checkpoint = why_no_checkpoint (given->path, active->driver);
    if (disk->no_checkpoint == NULL && !active->can_persist)
      disk->no_checkpoint = "its image is qcow2 of version 2, which cannot keep a checkpoint";
  }
  return g_steal_pointer (&disks);
}

static const ImageDisk *
given_disk (const QmpMachine *machine, const char *target)
{
  const Images *images = machine->place_data;
  for (guint i = 0; i < images->disks->len; i++) {
    const ImageDisk *given = g_ptr_array_index (images->disks, i);
    if (g_str_equal (given->target, target))
      return given;
  }
  return NULL;
}

void
nodes_reopen (QmpMachine *machine, const QmpDisk *disk, const DiskImage *image, bool writable)
{
  const ImageDisk *given = given_disk (machine, disk->name);
  guint place = 0;
  if (given == NULL || !g_ptr_array_find (disk->chain, image, &place))
    return;
  g_autofree char *key = crypt_key_name (given, image->filename, image->driver);
  const DiskImage *below
      = place + 1 < disk->chain->len ? g_ptr_array_index (disk->chain, place + 1) : NULL;
  json_t *file = file_options (image->file_node, image->file_driver, image->filename, writable);
  json_t *format = format_options (image->node, image->driver, image->file_node,
                                   below != NULL ? below->node : NULL, key, writable);
  json_t *options
      = writable ? json_pack ("[o, o]", file, format) : json_pack ("[o, o]", format, file);
  (void) qmp_run (machine->client, "blockdev-reopen", json_pack ("{s:o}", "options", options),
                  NULL);
}

/* True: they were so already, or cannot be asked for. */
static bool
set_writable (QmpMachine *machine, bool writable)
{
  bool done = true;
  g_autoptr (GPtrArray) disks = nodes_disks (machine, NULL);
  for (guint i = 0; disks != NULL && i < disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (disks, i);
    const DiskImage *active = qmp_disk_active (disk);
    if (disk->no_checkpoint != NULL || active->read_only != writable)
      continue;
    done = false;
    nodes_reopen (machine, disk, active, writable);
  }
  return done;
}

void
nodes_set_writable (QmpMachine *machine, bool writable)
{
  /* Whoever looks at an image that is open read-only, as 'qemu-img info' does, keeps it from being
   * opened for writing. */
  gint64 patience = writable ? READERS_TIMEOUT_S * G_USEC_PER_SEC : 0;
  gint64 deadline = g_get_monotonic_time () + patience;
  for (unsigned i = 0; !set_writable (machine, writable); i++) {
    if (g_get_monotonic_time () > deadline)
      return;
    if (i > 0)
      g_usleep (50000);
  }
}
