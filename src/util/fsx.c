/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* util/fsx.c: see util/fsx.h. No state; any thread. */
#include "util/fsx.h"

#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DOMAIN "io"

static bool
write_all (int fd, const void *data, size_t len)
{
  const char *p = data;
  while (len > 0) {
    ssize_t n = write (fd, p, len);
    if (n < 0) {
      if (errno == EINTR)
        continue;
      return false;
    }
    p += n;
    len -= (size_t) n;
  }
  return true;
}

char *
fsx_read_file (const char *path, size_t max, size_t *len, TmkError **errp)
{
  bool is_stdin = g_str_equal (path, "-");
  int fd = is_stdin ? dup (STDIN_FILENO) : open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open '%s'", path);
    return NULL;
  }

  GByteArray *bytes = g_byte_array_new ();
  char buf[65536];
  for (;;) {
    ssize_t n = read (fd, buf, sizeof buf);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      error_set_errno (errp, DOMAIN, errno, "cannot read '%s'", path);
      break;
    }
    if (n == 0) {
      close (fd);
      *len = bytes->len;
      g_byte_array_append (bytes, (const guint8 *) "", 1);
      return (char *) g_byte_array_free (bytes, FALSE);
    }
    if (bytes->len + (size_t) n > max) {
      error_set (errp, DOMAIN, TMK_ERR_INVALID, EFBIG, "'%s' is larger than %zu bytes", path, max);
      break;
    }
    g_byte_array_append (bytes, (const guint8 *) buf, (guint) n);
  }
  close (fd);
  g_byte_array_free (bytes, TRUE);
  return NULL;
}

bool
fsx_sync_parent (const char *path, TmkError **errp)
{
  g_autofree char *dir = g_path_get_dirname (path);
  int fd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open folder '%s'", dir);
    return false;
  }
  /* Some file systems cannot sync a folder and say EINVAL: then there is nothing more to do. */
  bool ok = fsync (fd) == 0 || errno == EINVAL;
  if (!ok)
    error_set_errno (errp, DOMAIN, errno, "cannot sync folder '%s'", dir);
  close (fd);
  return ok;
}

bool
fsx_publish (const char *path, const void *data, size_t len, mode_t mode, TmkError **errp)
{
  g_autofree char *tmp = g_strdup_printf ("%s" FSX_TEMPORARY "XXXXXX", path);
  testpoint ("publish");
  int fd = mkostemp (tmp, O_CLOEXEC);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot create a file beside '%s'", path);
    return false;
  }
  bool ok = fchmod (fd, mode) == 0 && write_all (fd, data, len) && fsync (fd) == 0;
  int saved = errno;
  if (close (fd) != 0 && ok) {
    ok = false;
    saved = errno;
  }
  testpoint ("publish-written");
  if (ok && rename (tmp, path) != 0) {
    ok = false;
    saved = errno;
  }
  if (!ok) {
    error_set_errno (errp, DOMAIN, saved, "cannot write '%s'", path);
    (void) unlink (tmp); /* nothing more can be done about it */
    return false;
  }
  testpoint ("publish-renamed");
  return fsx_sync_parent (path, errp);
}

bool
fsx_create_new (const char *path, mode_t mode, dev_t *dev, ino_t *ino, TmkError **errp)
{
  testpoint ("create");
  int fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot create '%s'", path);
    return false;
  }
  struct stat st;
  bool ok = fstat (fd, &st) == 0;
  if (ok) {
    *dev = st.st_dev;
    *ino = st.st_ino;
  } else {
    error_set_errno (errp, DOMAIN, errno, "cannot stat '%s'", path);
  }
  close (fd);
  testpoint ("created");
  return ok && fsx_sync_parent (path, errp);
}

bool
fsx_remove (const char *path, TmkError **errp)
{
  testpoint ("remove");
  if (unlink (path) != 0) {
    if (errno == ENOENT)
      return true;
    error_set_errno (errp, DOMAIN, errno, "cannot remove '%s'", path);
    return false;
  }
  testpoint ("removed");
  return fsx_sync_parent (path, errp);
}

bool
fsx_make_dirs (const char *path, mode_t mode, TmkError **errp)
{
  if (g_mkdir_with_parents (path, (int) mode) == 0)
    return true;
  error_set_errno (errp, DOMAIN, errno, "cannot create folder '%s'", path);
  return false;
}

bool
fsx_free_space (const char *path, uint64_t *bytes, TmkError **errp)
{
  struct statvfs vfs;
  g_autofree char *dir = g_path_get_dirname (path);
  if (statvfs (path, &vfs) != 0 && statvfs (dir, &vfs) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot tell the free space of '%s'", dir);
    return false;
  }
  *bytes = (uint64_t) vfs.f_bavail * vfs.f_frsize;
  return true;
}

int
fsx_lock (const char *path, unsigned timeout_ms, TmkError **errp)
{
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open lock '%s'", path);
    return -1;
  }
  gint64 deadline = g_get_monotonic_time () + (gint64) timeout_ms * 1000;
  while (flock (fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      error_set_errno (errp, DOMAIN, errno, "cannot lock '%s'", path);
      close (fd);
      return -1;
    }
    if (g_get_monotonic_time () >= deadline) {
      error_set (errp, DOMAIN, TMK_ERR_BUSY, EWOULDBLOCK, "'%s' is locked by another process",
                 path);
      close (fd);
      return -1;
    }
    g_usleep (2000);
  }
  return fd;
}

void
fsx_unlock (int fd)
{
  if (fd >= 0)
    close (fd);
}
