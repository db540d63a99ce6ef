/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/new_file.c: see blk/new_file.h. */
#include "blk/new_file.h"

#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "blk"

int
new_file_create (const char *path, TmkError **errp)
{
  testpoint ("sink-create");
  int fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    error_set_errno (errp, DOMAIN, errno, "cannot create '%s'", path);
  else
    testpoint ("sink-created");
  return fd;
}

bool
new_file_write (int fd, const char *path, uint64_t offset, const void *data, size_t length,
                TmkError **errp)
{
  const char *p = data;
  while (length > 0) {
    ssize_t n = pwrite (fd, p, length, (off_t) offset);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      error_set_errno (errp, DOMAIN, n < 0 ? errno : EIO,
                       "'%s': cannot write %zu bytes at %" G_GUINT64_FORMAT, path, length, offset);
      return false;
    }
    p += n;
    offset += (uint64_t) n;
    length -= (size_t) n;
  }
  return true;
}

bool
new_file_sync (int fd, const char *path, TmkError **errp)
{
  testpoint ("sink-flush");
  if (fdatasync (fd) == 0)
    return true;
  error_set_errno (errp, DOMAIN, errno, "'%s': cannot flush", path);
  return false;
}

void
new_file_remove (int fd, const char *path)
{
  struct stat ours, there;
  if (fstat (fd, &ours) == 0 && lstat (path, &there) == 0 && ours.st_dev == there.st_dev
      && ours.st_ino == there.st_ino)
    (void) unlink (path); /* nothing more can be done about it */
}
