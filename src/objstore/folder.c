/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * objstore/folder.c: a folder of a local file system as a store. An object is a file.
 *
 * Publishing: the file is written without a name (O_TMPFILE), synced, given its name by linkat(),
 * which never replaces anything, and the folder is synced. Where there is no O_TMPFILE (NFS, CIFS)
 * the file has a name in tmp/ until then. Folders are made when they are needed; who publishes
 * below one syncs the folder above it first, whoever made it, for it may not be durable yet.
 *
 * Only the owner may read: what is in here is what is in the guests' disks.
 *
 * Threads: `durable` is under `lock`; everything else is fixed after opening.
 */
#include "objstore/folder.h"

#include "objstore/mapping.h"

#include "util/testpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DOMAIN "objstore"
#define FILE_MODE 0600
#define MAX_DEPTH 8

typedef struct {
  ObjWriter writer;
  int fd;
  char *temporary; /* its name in the store's folder, or NULL: it has none */
} FolderWriter;

typedef struct {
  ObjReader reader;
  int fd;
  GMutex lock;
  Mapping *map; /* under `lock` */
} FolderReader;

static FolderStore *
folder_of (const ObjWriter *writer)
{
  return (FolderStore *) writer->store;
}

void
folder_fail (TmkError **errp, const FolderStore *self, int err_no, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *what = g_strdup_vprintf (format, ap);
  va_end (ap);
  error_set_errno (errp, DOMAIN, err_no, "'%s': %s", self->store.location, what);
  if (err_no == ENOSPC || err_no == EDQUOT)
    error_hint (errp, "free space there, or %s",
                err_no == EDQUOT ? "raise the quota" : "enlarge it");
  else if (err_no == EROFS)
    error_hint (errp, "mount it writable");
  else if (err_no == EACCES || err_no == EPERM)
    error_hint (errp, "run as the user to whom it belongs");
}

static bool
write_all (int fd, const void *data, size_t size)
{
  const char *p = data;
  while (size > 0) {
    ssize_t n = write (fd, p, size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      if (n == 0)
        errno = EIO;
      return false;
    }
    p += n;
    size -= (size_t) n;
  }
  return true;
}

/* fsync of the folder `name` in the store's; "." is that itself. */
static bool
sync_folder (FolderStore *self, const char *name, TmkError **errp)
{
  int fd = openat (self->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    folder_fail (errp, self, errno, "cannot open folder '%s'", name);
    return false;
  }
  /* Some file systems cannot sync a folder and say EINVAL: then there is nothing more to do. */
  bool ok = fsync (fd) == 0 || errno == EINVAL;
  if (!ok)
    folder_fail (errp, self, errno, "cannot sync folder '%s'", name);
  close (fd);
  return ok;
}

static char *
parent_of (const char *name)
{
  const char *slash = strrchr (name, '/');
  return slash != NULL ? g_strndup (name, (size_t) (slash - name)) : g_strdup (".");
}

static bool
is_durable (FolderStore *self, const char *folder)
{
  g_mutex_lock (&self->lock);
  bool known = g_hash_table_contains (self->durable, folder);
  g_mutex_unlock (&self->lock);
  return known;
}

/* Makes `folder` and those above it where they are missing, durably. Not longer than the depth of
 * a name, which is bounded by its length. */
static bool
make_folder (FolderStore *self, const char *folder, TmkError **errp)
{
  if (g_str_equal (folder, ".") || is_durable (self, folder))
    return true;
  g_autofree char *above = parent_of (folder);
  if (!make_folder (self, above, errp))
    return false;
  if (mkdirat (self->fd, folder, FOLDER_MODE) != 0 && errno != EEXIST) {
    folder_fail (errp, self, errno, "cannot create folder '%s'", folder);
    return false;
  }
  if (!sync_folder (self, above, errp))
    return false;
  g_mutex_lock (&self->lock);
  g_hash_table_add (self->durable, g_strdup (folder));
  g_mutex_unlock (&self->lock);
  return true;
}

/* --- writing */

static bool
has_no_tmpfile (int err_no)
{
  /* EISDIR and ENOENT: from kernels, or file systems, that do not know the flag. */
  return err_no == EOPNOTSUPP || err_no == EISDIR || err_no == ENOENT || err_no == EINVAL;
}

static bool
create_temporary (FolderStore *self, int *fd, char **name, TmkError **errp)
{
  if (!self->no_tmpfile) {
    *fd = openat (self->fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, FILE_MODE);
    *name = NULL;
    if (*fd >= 0)
      return true;
    if (!has_no_tmpfile (errno)) {
      folder_fail (errp, self, errno, "cannot create a file");
      return false;
    }
  }
  if (mkdirat (self->fd, TEMPORARY, FOLDER_MODE) != 0 && errno != EEXIST) {
    folder_fail (errp, self, errno, "cannot create folder '%s'", TEMPORARY);
    return false;
  }
  uint64_t random;
  if (getentropy (&random, sizeof random) != 0) {
    folder_fail (errp, self, errno, "no random numbers");
    return false;
  }
  g_autofree char *path = g_strdup_printf (TEMPORARY "/%016" G_GINT64_MODIFIER "x", random);
  *fd = openat (self->fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
  if (*fd < 0) {
    folder_fail (errp, self, errno, "cannot create '%s'", path);
    return false;
  }
  *name = g_steal_pointer (&path);
  return true;
}

static ObjWriter *
folder_put (ObjStore *store, TmkError **errp)
{
  FolderStore *self = (FolderStore *) store;
  int fd;
  char *temporary;
  testpoint ("object-create");
  if (!create_temporary (self, &fd, &temporary, errp))
    return NULL;
  FolderWriter *writer = g_new0 (FolderWriter, 1);
  writer->writer.store = store;
  writer->fd = fd;
  writer->temporary = temporary;
  return &writer->writer;
}

static bool
folder_append (ObjWriter *writer, const void *data, size_t size, TmkError **errp)
{
  FolderWriter *self = (FolderWriter *) writer;
  if (write_all (self->fd, data, size))
    return true;
  folder_fail (errp, folder_of (writer), errno, "cannot write an object");
  return false;
}

/* linkat() by descriptor: through /proc, which anybody may do; where that is not mounted, by the
 * empty path, for which one has to be root. Sets errno. */
static bool
link_unnamed (const FolderStore *self, int fd, const char *name)
{
  char path[64];
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  return linkat (AT_FDCWD, path, self->fd, name, AT_SYMLINK_FOLLOW) == 0
         || (errno == ENOENT && linkat (fd, "", self->fd, name, AT_EMPTY_PATH) == 0);
}

/* Moves without replacing: by renameat2() or, where the file system has no such rename (NFS), by
 * link() and unlink(). A link() of NFS may succeed and say EEXIST, when the reply was lost and the
 * request sent again: the number of links tells. Sets errno. */
static bool
move_named (const FolderStore *self, FolderWriter *writer, const char *name)
{
  struct stat st;
  if (renameat2 (self->fd, writer->temporary, self->fd, name, RENAME_NOREPLACE) == 0)
    return true;
  if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
    return false;
  if (linkat (self->fd, writer->temporary, self->fd, name, 0) != 0
      && !(errno == EEXIST && fstat (writer->fd, &st) == 0 && st.st_nlink == 2)) {
    return false;
  }
  (void) unlinkat (self->fd, writer->temporary, 0); /* what stays is removed when it is old */
  return true;
}

static bool
folder_commit (ObjWriter *writer, const char *name, TmkError **errp)
{
  FolderWriter *self = (FolderWriter *) writer;
  FolderStore *store = folder_of (writer);
  g_autofree char *folder = parent_of (name);
  if (!make_folder (store, folder, errp))
    return false;
  if (fsync (self->fd) != 0) {
    folder_fail (errp, store, errno, "cannot sync '%s'", name);
    return false;
  }
  testpoint ("object-written");
  if (self->temporary == NULL ? !link_unnamed (store, self->fd, name)
                              : !move_named (store, self, name)) {
    if (errno == EEXIST)
      error_set (errp, DOMAIN, TMK_ERR_EXISTS, EEXIST, "'%s' has '%s' already",
                 store->store.location, name);
    else
      folder_fail (errp, store, errno, "cannot publish '%s'", name);
    return false;
  }
  g_clear_pointer (&self->temporary, g_free);
  testpoint ("object-linked");
  if (!sync_folder (store, folder, errp))
    return false;
  testpoint ("object-published");
  return true;
}

static void
folder_writer_free (ObjWriter *writer)
{
  FolderWriter *self = (FolderWriter *) writer;
  if (self->temporary != NULL)
    (void) unlinkat (folder_of (writer)->fd, self->temporary, 0); /* else removed when it is old */
  g_free (self->temporary);
  close (self->fd);
  g_free (self);
}

/* --- reading */

static ObjReader *
folder_open (ObjStore *store, const char *name, TmkError **errp)
{
  FolderStore *self = (FolderStore *) store;
  int fd = openat (self->fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat st;
  if (fd < 0) {
    folder_fail (errp, self, errno, "cannot open '%s'", name);
    return NULL;
  }
  if (fstat (fd, &st) != 0 || !S_ISREG (st.st_mode)) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s': '%s' is no file", store->location, name);
    close (fd);
    return NULL;
  }
  FolderReader *reader = g_new0 (FolderReader, 1);
  reader->reader.store = store;
  reader->reader.name = g_strdup (name);
  reader->reader.size = (uint64_t) st.st_size;
  reader->fd = fd;
  g_mutex_init (&reader->lock);
  return &reader->reader;
}

static bool
folder_read (ObjReader *reader, uint64_t offset, void *buffer, size_t size, TmkError **errp)
{
  FolderReader *self = (FolderReader *) reader;
  char *p = buffer;
  while (size > 0) {
    ssize_t n = pread (self->fd, p, size, (off_t) offset);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      folder_fail (errp, (FolderStore *) reader->store, errno,
                   "cannot read %zu bytes at %" G_GUINT64_FORMAT " of '%s'", size, offset,
                   reader->name);
      return false;
    }
    if (n == 0) {
      error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s': '%s' is shorter than it was",
                 reader->store->location, reader->name);
      return false;
    }
    p += n;
    offset += (uint64_t) n;
    size -= (size_t) n;
  }
  return true;
}

static const void *
folder_map (ObjReader *reader, TmkError **errp)
{
  FolderReader *self = (FolderReader *) reader;
  if (reader->size == 0)
    return "";
  g_mutex_lock (&self->lock);
  if (self->map == NULL) {
    self->map = mapping_new (self->fd, (size_t) reader->size);
    if (self->map == NULL)
      folder_fail (errp, (FolderStore *) reader->store, errno, "cannot map '%s'", reader->name);
  }
  const void *map = self->map != NULL ? mapping_data (self->map) : NULL;
  g_mutex_unlock (&self->lock);
  return map;
}

static void
folder_reader_free (ObjReader *reader)
{
  FolderReader *self = (FolderReader *) reader;
  mapping_free (self->map);
  close (self->fd);
  g_mutex_clear (&self->lock);
  g_free (self);
}

/* --- listing */

static int64_t
modified_us (const struct stat *st)
{
  return st->st_mtim.tv_sec * G_USEC_PER_SEC + st->st_mtim.tv_nsec / 1000;
}

typedef struct {
  FolderStore *self;
  ObjVisit visit;
  void *data;
  bool stopped;
} Walk;

static bool walk_folder (Walk *walk, int above, const char *word, const char *name, int depth,
                         TmkError **errp);

/* `errno` is why `name` cannot be looked at. One bad inode must not hide all the others: what the
 * medium withholds is listed without a length. */
static bool
walk_failed (Walk *walk, const char *what, const char *name, int depth, TmkError **errp)
{
  if (depth > 0 && obj_errno_is_damage (errno)) {
    ObjInfo info = { .name = name };
    walk->stopped = !walk->visit (&info, walk->data);
    return true;
  }
  folder_fail (errp, walk->self, errno, "cannot %s '%s'", what, name);
  return false;
}

/* What is gone by now was not there. */
static bool
walk_entry (Walk *walk, int folder, const char *word, const char *name, int depth, TmkError **errp)
{
  struct stat st;
  if (fstatat (folder, word, &st, AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT || walk_failed (walk, "stat", name, depth + 1, errp);
  if (S_ISDIR (st.st_mode) && depth < MAX_DEPTH)
    return walk_folder (walk, folder, word, name, depth + 1, errp);
  if (S_ISREG (st.st_mode)) {
    ObjInfo info
        = { .name = name, .size = (uint64_t) st.st_size, .modified_us = modified_us (&st) };
    walk->stopped = !walk->visit (&info, walk->data);
  }
  return true;
}

static bool
walk_folder (Walk *walk, int above, const char *word, const char *name, int depth, TmkError **errp)
{
  int fd = openat (above, word, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 && errno == ENOENT)
    return true;
  DIR *dir = fd >= 0 ? fdopendir (fd) : NULL;
  if (dir == NULL) {
    bool ok = walk_failed (walk, "open folder", name, depth, errp);
    if (fd >= 0)
      close (fd);
    return ok;
  }
  bool ok = true;
  while (ok && !walk->stopped) {
    errno = 0;
    const struct dirent *entry = readdir (dir);
    if (entry == NULL) {
      ok = errno == 0 || walk_failed (walk, "list folder", name, depth, errp);
      break;
    }
    if (entry->d_name[0] == '.')
      continue;
    g_autofree char *path = g_strdup_printf ("%s/%s", name, entry->d_name);
    ok = walk_entry (walk, fd, entry->d_name, path, depth, errp);
  }
  closedir (dir);
  return ok;
}

static bool
folder_list (ObjStore *store, const char *folder, ObjVisit visit, void *data, TmkError **errp)
{
  Walk walk = { .self = (FolderStore *) store, .visit = visit, .data = data };
  return walk_folder (&walk, walk.self->fd, folder, folder, 0, errp);
}

/* --- the rest */

static bool
folder_remove (ObjStore *store, const char *name, TmkError **errp)
{
  FolderStore *self = (FolderStore *) store;
  testpoint ("object-remove");
  if (unlinkat (self->fd, name, 0) != 0) {
    if (errno == ENOENT)
      return true;
    folder_fail (errp, self, errno, "cannot remove '%s'", name);
    return false;
  }
  testpoint ("object-removed");
  g_autofree char *folder = parent_of (name);
  return sync_folder (self, folder, errp);
}

/* The clock of the file system, which may be another machine's: a new file's time. */
static bool
folder_now (ObjStore *store, int64_t *us, TmkError **errp)
{
  FolderStore *self = (FolderStore *) store;
  int fd;
  char *temporary;
  if (!create_temporary (self, &fd, &temporary, errp))
    return false;
  struct stat st;
  bool ok = write_all (fd, "", 1) && fstat (fd, &st) == 0;
  if (ok)
    *us = modified_us (&st);
  else
    folder_fail (errp, self, errno, "cannot tell the time");
  if (temporary != NULL)
    (void) unlinkat (self->fd, temporary, 0); /* removed when it is old */
  g_free (temporary);
  close (fd);
  return ok;
}

static bool
folder_room (ObjStore *store, uint64_t *bytes, TmkError **errp)
{
  FolderStore *self = (FolderStore *) store;
  struct statvfs vfs;
  if (fstatvfs (self->fd, &vfs) != 0) {
    folder_fail (errp, self, errno, "cannot tell the free space");
    return false;
  }
  *bytes = (uint64_t) vfs.f_bavail * vfs.f_frsize;
  return true;
}

static void
folder_free (ObjStore *store)
{
  FolderStore *self = (FolderStore *) store;
  if (self->fd >= 0)
    close (self->fd);
  g_hash_table_unref (self->durable);
  g_mutex_clear (&self->lock);
  g_free (self);
}

const ObjStoreKind folder_kind = { .free = folder_free,
                                   .put = folder_put,
                                   .writer_append = folder_append,
                                   .writer_commit = folder_commit,
                                   .writer_free = folder_writer_free,
                                   .open = folder_open,
                                   .reader_read = folder_read,
                                   .reader_map = folder_map,
                                   .reader_free = folder_reader_free,
                                   .list = folder_list,
                                   .remove = folder_remove,
                                   .now = folder_now,
                                   .room = folder_room };
