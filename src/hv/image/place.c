/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/image/place.c: opening a domain that is powered off; see hv/image/images.h. */
#include "hv/image/images.h"

#include <string.h>

#define DOMAIN "hv"

static const QmpPlace powered_off_place = {
  .powered_off = true,
  .connect = images_connect,
  .disks = nodes_disks,
  .reopen = nodes_reopen,
  .set_writable = nodes_set_writable,
  .leave_for_good = images_leave_for_good,
};

static void
image_disk_free (gpointer data)
{
  ImageDisk *disk = data;
  g_free (disk->target);
  g_free (disk->path);
  g_free (disk->format);
  g_free (disk->secret);
  if (disk->passphrase != NULL)
    explicit_bzero (disk->passphrase, disk->passphrase_len);
  g_free (disk->passphrase);
  g_free (disk);
}

/* --- those of a job -------------------------------------------------------------------------- */

json_t *
images_note_disks (const Images *images)
{
  json_t *noted = json_array ();
  for (guint i = 0; i < images->disks->len; i++) {
    const ImageDisk *disk = g_ptr_array_index (images->disks, i);
    json_array_append_new (noted,
                           json_pack ("{s:s, s:s}", "target", disk->target, "path", disk->path));
  }
  return noted;
}

bool
images_use_noted (Images *images, const json_t *noted)
{
  g_autoptr (GPtrArray) disks = g_ptr_array_new_with_free_func (image_disk_free);
  size_t i;
  json_t *entry;
  json_array_foreach (noted, i, entry) {
    const char *target = jsonx_string (entry, "target"), *path = jsonx_string (entry, "path");
    if (target == NULL || path == NULL)
      return false;
    ImageDisk *disk = g_new0 (ImageDisk, 1);
    disk->target = g_strdup (target);
    disk->path = g_strdup (path);
    g_ptr_array_add (disks, disk);
  }
  if (disks->len == 0)
    return false;
  g_ptr_array_unref (images->disks);
  images->disks = g_steal_pointer (&disks);
  return true;
}

void
images_use_given (Images *images)
{
  g_ptr_array_unref (images->disks);
  images->disks = g_ptr_array_ref (images->given);
}

/* --- opening --------------------------------------------------------------------------------- */

/* Paths are kept as they are given, but for the folder: a disk is known again by its path, and in a
 * running QEMU too it is the one that was given. */
static char *
absolute (const char *path)
{
  if (*path == '/')
    return g_strdup (path);
  while (g_str_has_prefix (path, "./"))
    path += 2;
  g_autofree char *folder = g_get_current_dir ();
  return g_build_filename (folder, path, NULL);
}

static bool
add_disk (GPtrArray *disks, const TmkImage *image, TmkError **errp)
{
  if (image->target == NULL || *image->target == '\0' || image->path == NULL
      || *image->path == '\0') {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "an image needs a target and a path");
    error_hint (errp, "write it as in --image vda=/img/root.qcow2");
    return false;
  }
  ImageDisk *disk = g_new0 (ImageDisk, 1);
  disk->target = g_strdup (image->target);
  disk->path = absolute (image->path);
  disk->format = g_strdup (image->format);
  disk->secret = image->secret != NULL ? absolute (image->secret) : NULL;
  disk->passphrase = g_memdup2 (image->passphrase, image->passphrase_len);
  disk->passphrase_len = image->passphrase_len;
  for (guint i = 0; i < disks->len; i++) {
    const ImageDisk *other = g_ptr_array_index (disks, i);
    bool same_target = g_str_equal (other->target, disk->target);
    if (!same_target && !g_str_equal (other->path, disk->path))
      continue;
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               same_target ? "two images are named for disk '%s'" : "image '%s' is named twice",
               same_target ? disk->target : disk->path);
    error_hint (errp, "each disk has one --image of its own");
    image_disk_free (disk);
    return false;
  }
  g_ptr_array_add (disks, disk);
  return true;
}

static gint
compare_paths (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* The order in which images are named does not matter. */
static char *
address_of (GPtrArray *disks)
{
  g_autoptr (GPtrArray) sorted = g_ptr_array_new_with_free_func (g_free);
  for (guint i = 0; i < disks->len; i++) {
    const ImageDisk *disk = g_ptr_array_index (disks, i);
    g_ptr_array_add (sorted, g_strdup_printf ("%s=%s", disk->path, disk->target));
  }
  g_ptr_array_sort (sorted, compare_paths);
  g_ptr_array_add (sorted, NULL);
  g_autofree char *list = g_strjoinv ("\n", (char **) sorted->pdata);
  return g_strconcat ("image:", list, NULL);
}

TmkDomain *
tmk_domain_open_images (const TmkImage *given, size_t n, const TmkDomainOptions *options,
                        TmkError **errp)
{
  static const TmkDomainOptions none;
  g_autoptr (GPtrArray) disks = g_ptr_array_new_with_free_func (image_disk_free);
  for (size_t i = 0; i < n; i++)
    if (!add_disk (disks, &given[i], errp))
      return NULL;
  QmpMachine *machine
      = machine_new (&powered_off_place, address_of (disks), options != NULL ? options : &none);
  g_autoptr (TmkDomain) domain = &machine->base;
  Images *images = g_new0 (Images, 1);
  images->given = g_ptr_array_ref (disks);
  images->disks = g_steal_pointer (&disks);
  images->keeper = -1;
  machine->place_data = images;
  if (machine->given != NULL) {
    machine->name = g_strdup (machine->given->name);
    machine->uuid = g_strdup (machine->given->uuid);
  }
  machine->key = state_key (machine->uuid, machine->address);
  machine->state = state_open (machine->root, machine->key, machine->address, errp);
  return machine->state != NULL ? g_steal_pointer (&domain) : NULL;
}
