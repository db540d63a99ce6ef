/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/destinations.c: see engine/destinations.h.
 *
 * A file that was made is known by a descriptor of its own, for its sink is gone once it was
 * closed: so what is removed is never somebody else's file that has taken the name meanwhile.
 */
#include "engine/destinations.h"

#include "blk/new_file.h"
#include "blk/sink.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "engine"
#define DOMAIN_XML "domain.xml"

#define QCOW2_BLOCK (64u << 10) /* its clusters */
#define RAW_BLOCK (4u << 10)    /* what file systems can leave out */

typedef struct {
  char *path;
  int fd;
} MadeFile;

static Destinations *
destinations_new (size_t n)
{
  Destinations *self = g_new0 (Destinations, 1);
  self->items = g_new0 (Destination, n);
  self->n = n;
  self->files = g_array_new (FALSE, FALSE, sizeof (MadeFile));
  self->folders = g_ptr_array_new_with_free_func (g_free);
  return self;
}

void
destinations_free (Destinations *self)
{
  if (self == NULL)
    return;
  for (size_t i = 0; i < self->n; i++) {
    tmk_block_sink_free (self->items[i].sink);
    g_free (self->items[i].name);
  }
  for (guint i = 0; i < self->files->len; i++) {
    MadeFile *file = &g_array_index (self->files, MadeFile, i);
    if (!self->finished)
      new_file_remove (file->fd, file->path);
    close (file->fd);
    g_free (file->path);
  }
  for (guint i = self->folders->len; i > 0 && !self->finished; i--)
    (void) rmdir (self->folders->pdata[i - 1]); /* somebody may have put something in it */
  g_array_free (self->files, TRUE);
  g_ptr_array_free (self->folders, TRUE);
  g_free (self->items);
  g_free (self);
}

/* Takes `fd`. */
static void
remember_file (Destinations *self, const char *path, int fd)
{
  MadeFile file = { g_strdup (path), fd };
  g_array_append_val (self->files, file);
}

/* ---- one of them ----------------------------------------------------------------------------- */

static bool
is_nbd_uri (const char *to)
{
  const char *scheme = g_uri_peek_scheme (to);
  return scheme != NULL && g_str_has_prefix (scheme, "nbd")
         && g_str_has_prefix (to + strcspn (to, ":"), "://");
}

static bool
is_device (const char *to)
{
  struct stat st;
  return stat (to, &st) == 0 && S_ISBLK (st.st_mode);
}

static bool
is_folder (const char *to)
{
  struct stat st;
  return stat (to, &st) == 0 && S_ISDIR (st.st_mode);
}

static bool
check_format (const char *format, TmkError **errp)
{
  if (format == NULL || g_str_equal (format, "qcow2") || g_str_equal (format, "raw"))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "format '%s' is not known", format);
  error_hint (errp, "use 'qcow2' or 'raw'");
  return false;
}

static bool
open_file (Destinations *self, Destination *item, const char *path, bool qcow2, TmkError **errp)
{
  item->name = g_strdup (path);
  item->block = qcow2 ? QCOW2_BLOCK : RAW_BLOCK;
  item->is_new_file = true;
  TmkError *err = NULL;
  item->sink = qcow2 ? tmk_block_sink_create_qcow2 (path, item->disk->size, &err)
                     : tmk_block_sink_create_file (path, item->disk->size, &err);
  if (item->sink == NULL) {
    if (tmk_error_code (err) == TMK_ERR_EXISTS)
      error_hint (&err, "files are never overwritten: name another place, or remove it first");
    error_propagate (errp, err);
    return false;
  }
  int fd = open (path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open '%s'", path);
    return false;
  }
  remember_file (self, path, fd);
  return true;
}

/* A device or an export: what is on it is lost. */
static bool
open_existing (Destination *item, const DestinationSpec *spec, TmkError **errp)
{
  uint64_t needed = item->disk->size;
  item->name = g_strdup (spec->to);
  if (spec->format != NULL && !g_str_equal (spec->format, "raw")) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "'%s' cannot be of format '%s'", spec->to,
               spec->format);
    error_hint (errp, "devices and exports hold the disk itself: leave the format out");
    return false;
  }
  TmkNbdOptions options = { .connections = spec->connections, .cancel_fd = spec->cancel_fd };
  item->sink = is_nbd_uri (spec->to) ? tmk_block_sink_open_nbd (spec->to, &options, errp)
                                     : tmk_block_sink_open_device (spec->to, errp);
  if (item->sink == NULL)
    return false;
  uint64_t there = tmk_block_sink_size (item->sink);
  if (there >= needed)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0,
             "'%s' is too small: it has %" G_GUINT64_FORMAT
             " bytes, and disk '%s' %" G_GUINT64_FORMAT,
             spec->to, there, item->disk->name, needed);
  error_hint (errp, "make it at least %" G_GUINT64_FORMAT " bytes large, or name another one",
              needed);
  return false;
}

Destinations *
destinations_open_one (const ManifestDisk *disk, const DestinationSpec *spec, TmkError **errp)
{
  g_autoptr (Destinations) self = destinations_new (1);
  Destination *item = &self->items[0];
  item->disk = disk;
  if (!check_format (spec->format, errp))
    return NULL;
  if (is_folder (spec->to)) {
    error_set (errp, DOMAIN, TMK_ERR_EXISTS, EEXIST, "'%s' is a folder", spec->to);
    error_hint (errp, "name the file that disk '%s' is to be written to", disk->name);
    return NULL;
  }
  bool qcow2 = spec->format != NULL ? g_str_equal (spec->format, "qcow2")
                                    : g_str_has_suffix (spec->to, ".qcow2");
  bool ok = is_nbd_uri (spec->to) || is_device (spec->to)
                ? open_existing (item, spec, errp)
                : open_file (self, item, spec->to, qcow2, errp);
  return ok ? g_steal_pointer (&self) : NULL;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool
make_folder (Destinations *self, const char *path, TmkError **errp)
{
  struct stat st;
  if (stat (path, &st) == 0) {
    if (S_ISDIR (st.st_mode))
      return true;
    error_set (errp, DOMAIN, TMK_ERR_EXISTS, EEXIST, "'%s' is no folder", path);
    error_hint (errp, "all disks go to a folder; to write one of them, name it: --disk NAME");
    return false;
  }
  g_autofree char *parent = g_path_get_dirname (path);
  if (!g_str_equal (parent, path) && !make_folder (self, parent, errp))
    return false;
  testpoint ("restore-mkdir");
  if (mkdir (path, 0777) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot create folder '%s'", path);
    return false;
  }
  g_ptr_array_add (self->folders, g_strdup (path));
  testpoint ("restore-mkdir-done");
  return true;
}

/* A name from a repository becomes one of a file: it must not lead anywhere else. */
static bool
check_name (const ManifestDisk *disk, TmkError **errp)
{
  const char *name = disk->name;
  if (*name != '\0' && *name != '.' && strchr (name, '/') == NULL)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "disk '%s': a file cannot be called that", name);
  error_hint (errp, "restore each disk by itself, to a file that you name: --disk NAME");
  return false;
}

static bool
write_xml (Destinations *self, const char *folder, const char *xml, TmkError **errp)
{
  g_autofree char *path = g_build_filename (folder, DOMAIN_XML, NULL);
  int fd = new_file_create (path, errp);
  if (fd < 0) {
    error_hint (errp, "files are never overwritten: name another folder, or remove it first");
    return false;
  }
  remember_file (self, path, fd);
  return new_file_write (fd, path, 0, xml, strlen (xml), errp) && new_file_sync (fd, path, errp);
}

/* Names of files go down and only down: manifest_add_file() has no others. */
static bool
open_domain_file (Destinations *self, Destination *item, const char *folder, TmkError **errp)
{
  const ManifestFile *file = item->file;
  bool beside = g_str_equal (file->role, "nvram");
  g_autofree char *path = beside ? g_build_filename (folder, file->name, NULL)
                                 : g_build_filename (folder, file->role, file->name, NULL);
  g_autofree char *parent = g_path_get_dirname (path);
  item->disk = &file->content;
  return make_folder (self, parent, errp) && open_file (self, item, path, false, errp);
}

/* Its length and mode are those that it had. */
static bool
finish_domain_file (const Destination *item, const MadeFile *made, TmkError **errp)
{
  g_autofree char *self = g_strdup_printf ("/proc/self/fd/%d", made->fd);
  int fd
      = open (self, O_WRONLY | O_CLOEXEC); /* the file that was made, whatever is called so now */
  bool ok = fd >= 0 && ftruncate (fd, (off_t) item->file->size) == 0
            && fchmod (fd, item->file->mode & 0777) == 0 && fsync (fd) == 0;
  if (!ok)
    error_set_errno (errp, DOMAIN, errno, "cannot complete '%s'", item->name);
  if (fd >= 0)
    close (fd);
  return ok;
}

/* A name that looks like an image's, of which a folder would be made. */
static bool
looks_like_file (const char *to)
{
  return (g_str_has_suffix (to, ".qcow2") || g_str_has_suffix (to, ".raw")
          || g_str_has_suffix (to, ".img"))
         && !is_folder (to);
}

Destinations *
destinations_open_all (const Manifest *manifest, const DestinationSpec *spec, TmkError **errp)
{
  g_autoptr (Destinations) self = destinations_new (manifest->n_disks + manifest->n_files);
  if (!check_format (spec->format, errp))
    return NULL;
  if (is_nbd_uri (spec->to) || is_device (spec->to) || looks_like_file (spec->to)) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "'%s' is for one disk, and no folder", spec->to);
    error_hint (errp, "say which disk is to be restored to it: --disk %s",
                manifest->n_disks > 0 ? manifest->disks[0].name : "NAME");
    return NULL;
  }
  for (size_t i = 0; i < manifest->n_disks; i++)
    if (!check_name (&manifest->disks[i], errp))
      return NULL;
  g_autofree char *folder = g_strdup (spec->to);
  for (size_t n = strlen (folder); n > 1 && folder[n - 1] == '/'; n--)
    folder[n - 1] = '\0';
  if (!make_folder (self, folder, errp))
    return NULL;
  bool qcow2 = spec->format == NULL || g_str_equal (spec->format, "qcow2");
  for (size_t i = 0; i < manifest->n_disks; i++) {
    self->items[i].disk = &manifest->disks[i];
    g_autofree char *name = g_strconcat (manifest->disks[i].name, qcow2 ? ".qcow2" : ".raw", NULL);
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (!open_file (self, &self->items[i], path, qcow2, errp))
      return NULL;
  }
  if (manifest->domain_xml != NULL && !write_xml (self, folder, manifest->domain_xml, errp))
    return NULL;
  for (size_t i = 0; i < manifest->n_files; i++) {
    Destination *item = &self->items[manifest->n_disks + i];
    item->file = &manifest->files[i];
    if (!open_domain_file (self, item, folder, errp))
      return NULL;
  }
  return g_steal_pointer (&self);
}

static const MadeFile *
find_made (const Destinations *self, const char *path)
{
  for (guint i = 0; i < self->files->len; i++) {
    const MadeFile *file = &g_array_index (self->files, MadeFile, i);
    if (g_str_equal (file->path, path))
      return file;
  }
  return NULL;
}

bool
destinations_finish (Destinations *self, TmkError **errp)
{
  for (size_t i = 0; i < self->n; i++)
    if (!tmk_block_sink_close (g_steal_pointer (&self->items[i].sink), errp))
      return false;
  for (size_t i = 0; i < self->n; i++)
    if (self->items[i].file != NULL
        && !finish_domain_file (&self->items[i], find_made (self, self->items[i].name), errp))
      return false;
  for (guint i = 0; i < self->files->len; i++) /* domain.xml, which has no sink, and once more */
    if (!fsx_sync_parent (g_array_index (self->files, MadeFile, i).path, errp))
      return false;
  for (guint i = 0; i < self->folders->len; i++)
    if (!fsx_sync_parent (self->folders->pdata[i], errp))
      return false;
  self->finished = true;
  testpoint ("restore-finished");
  return true;
}
