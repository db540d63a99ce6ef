/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* objstore/folder_open.c: making and opening a folder as a store; see objstore/folder.c for what it
 * does then. */
#include "objstore/folder.h"

#include "util/fsx.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "objstore"
/* Nobody writes to one file for so long without a pause as long as this. */
#define TEMPORARY_MAX_AGE_US (G_TIME_SPAN_DAY * 2)

/* Removes what killed writers left in tmp/. Best effort: who may only read cannot, and need not. */
static bool
remove_old (const ObjInfo *info, void *data)
{
  FolderStore *self = data;
  int64_t now;
  if (!obj_store_now (&self->store, &now, NULL))
    return false;
  if (info->modified_us < now - TEMPORARY_MAX_AGE_US)
    (void) unlinkat (self->fd, info->name, 0);
  return true;
}

/* A new file system has lost+found in it: that is empty enough. */
static bool
is_empty (FolderStore *self, bool *empty, TmkError **errp)
{
  int fd = openat (self->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd >= 0 ? fdopendir (fd) : NULL;
  if (dir == NULL) {
    folder_fail (errp, self, errno, "cannot look into it");
    if (fd >= 0)
      close (fd);
    return false;
  }
  *empty = true;
  const struct dirent *entry;
  while (*empty && (entry = readdir (dir)) != NULL)
    *empty = g_str_equal (entry->d_name, ".") || g_str_equal (entry->d_name, "..")
             || g_str_equal (entry->d_name, "lost+found");
  closedir (dir);
  return true;
}

/* mkdir -p, and syncs the folders in which one was made. */
static bool
make_path (const char *path, TmkError **errp)
{
  if (mkdir (path, FOLDER_MODE) == 0)
    return fsx_sync_parent (path, errp);
  if (errno == EEXIST)
    return true;
  g_autofree char *above = g_path_get_dirname (path);
  if (errno != ENOENT || g_str_equal (above, path)) {
    error_set_errno (errp, DOMAIN, errno, "cannot create folder '%s'", path);
    return false;
  }
  if (!make_path (above, errp))
    return false;
  if (mkdir (path, FOLDER_MODE) != 0 && errno != EEXIST) {
    error_set_errno (errp, DOMAIN, errno, "cannot create folder '%s'", path);
    return false;
  }
  return fsx_sync_parent (path, errp);
}

ObjStore *
obj_store_open_folder (const char *path, bool create, TmkError **errp)
{
  FolderStore *self = g_new0 (FolderStore, 1);
  g_autoptr (ObjStore) store = &self->store;
  store->kind = &folder_kind;
  store->location = g_canonicalize_filename (path, NULL);
  self->fd = -1;
  self->durable = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_mutex_init (&self->lock);
  if (create && !make_path (store->location, errp))
    return NULL;
  self->fd = open (store->location, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (self->fd < 0) {
    folder_fail (errp, self, errno, "cannot open the folder");
    return NULL;
  }
  if (create) {
    bool empty;
    if (!is_empty (self, &empty, errp))
      return NULL;
    if (!empty) {
      error_set (errp, DOMAIN, TMK_ERR_EXISTS, ENOTEMPTY, "'%s' is not empty", store->location);
      error_hint (errp, "give a folder that does not exist, or is empty");
      return NULL;
    }
  } else {
    (void) folder_kind.list (store, TEMPORARY, remove_old, self, NULL); /* see remove_old() */
  }
  return g_steal_pointer (&store);
}

void
folder_store_avoid_tmpfile (ObjStore *store)
{
  ((FolderStore *) store)->no_tmpfile = true;
}
