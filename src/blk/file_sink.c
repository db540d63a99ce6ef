/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/file_sink.c: a new raw file or a block device as a block sink. See <tidemark/block_sink.h>.
 * No state but the descriptor; any thread. */
#include "blk/sink.h"

#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "blk"

typedef struct {
  TmkBlockSink sink;
  int fd;
  bool created; /* to be removed unless it is finished */
} FileSink;

static bool
file_write (TmkBlockSink *sink, uint64_t offset, const void *data, size_t length, TmkError **errp)
{
  FileSink *self = (FileSink *) sink;
  const char *p = data;
  while (length > 0) {
    ssize_t n = pwrite (self->fd, p, length, (off_t) offset);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      error_set_errno (errp, DOMAIN, n < 0 ? errno : EIO,
                       "'%s': cannot write %zu bytes at %" G_GUINT64_FORMAT, sink->name, length,
                       offset);
      return false;
    }
    p += n;
    offset += (uint64_t) n;
    length -= (size_t) n;
  }
  return true;
}

static bool
file_zero (TmkBlockSink *sink, uint64_t offset, uint64_t length, TmkError **errp)
{
  FileSink *self = (FileSink *) sink;
  static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE };
  for (size_t i = 0; i < G_N_ELEMENTS (modes); i++) {
    int result;
    do
      result = fallocate (self->fd, modes[i], (off_t) offset, (off_t) length);
    while (result != 0 && errno == EINTR);
    if (result == 0)
      return true;
    /* EINVAL: a device wants whole blocks. */
    if (errno != EOPNOTSUPP && errno != ENODEV && errno != EINVAL) {
      error_set_errno (errp, DOMAIN, errno,
                       "'%s': cannot zero %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT,
                       sink->name, length, offset);
      return false;
    }
  }
  return false;
}

static bool
file_flush (TmkBlockSink *sink, TmkError **errp)
{
  FileSink *self = (FileSink *) sink;
  testpoint ("sink-flush");
  if (fdatasync (self->fd) == 0)
    return true;
  error_set_errno (errp, DOMAIN, errno, "'%s': cannot flush", sink->name);
  return false;
}

static bool
file_finish (TmkBlockSink *sink, TmkError **errp)
{
  FileSink *self = (FileSink *) sink;
  if (!self->created)
    return true;
  if (!fsx_sync_parent (sink->name, errp))
    return false;
  self->created = false;
  testpoint ("sink-finished");
  return true;
}

/* Removes the file that was created, unless another one has taken its place. */
static void
undo_create (FileSink *self)
{
  struct stat ours, there;
  if (fstat (self->fd, &ours) == 0 && lstat (self->sink.name, &there) == 0
      && ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
    (void) unlink (self->sink.name); /* nothing more can be done about it */
}

static void
file_free (TmkBlockSink *sink)
{
  FileSink *self = (FileSink *) sink;
  if (self->fd >= 0) {
    if (self->created)
      undo_create (self);
    close (self->fd);
  }
  g_free (self);
}

static const SinkKind kind = { .write = file_write,
                               .zero = file_zero,
                               .flush = file_flush,
                               .finish = file_finish,
                               .free = file_free };

static FileSink *
new_sink (const char *path)
{
  FileSink *self = g_new0 (FileSink, 1);
  self->sink.kind = &kind;
  self->sink.name = g_strdup (path);
  self->fd = -1;
  return self;
}

TmkBlockSink *
tmk_block_sink_create_file (const char *path, uint64_t size, TmkError **errp)
{
  FileSink *self = new_sink (path);
  g_autoptr (TmkBlockSink) sink = &self->sink;
  if (size > INT64_MAX) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, EFBIG, "'%s': %" G_GUINT64_FORMAT " bytes are too many",
               path, size);
    return NULL;
  }
  testpoint ("sink-create");
  self->fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (self->fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot create '%s'", path);
    return NULL;
  }
  self->created = true;
  sink->size = size;
  sink->is_zero = true;
  testpoint ("sink-created");
  if (ftruncate (self->fd, (off_t) size) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot make '%s' %" G_GUINT64_FORMAT " bytes long", path,
                     size);
    return NULL;
  }
  return g_steal_pointer (&sink);
}

TmkBlockSink *
tmk_block_sink_open_device (const char *path, TmkError **errp)
{
  FileSink *self = new_sink (path);
  g_autoptr (TmkBlockSink) sink = &self->sink;
  struct stat st;
  /* Looked at first: to open a FIFO or a tape may have effects of its own. */
  if (stat (path, &st) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open '%s'", path);
    return NULL;
  }
  if (!S_ISBLK (st.st_mode)) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, ENOTBLK, "'%s' is no block device", path);
    return NULL;
  }
  self->fd = open (path, O_RDWR | O_EXCL | O_CLOEXEC); /* O_EXCL: nobody else has it mounted */
  if (self->fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open '%s'", path);
    return NULL;
  }
  if (ioctl (self->fd, BLKGETSIZE64, &sink->size) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot tell the size of '%s'", path);
    return NULL;
  }
  return g_steal_pointer (&sink);
}
