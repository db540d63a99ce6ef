/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/file_sink.c: a new raw file or a block device as a block sink. See <tidemark/block_sink.h>.
 * No state but the descriptor; any thread. */
#include "blk/new_file.h"
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
  return new_file_write (((FileSink *) sink)->fd, sink->name, offset, data, length, errp);
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
  return new_file_sync (((FileSink *) sink)->fd, sink->name, errp);
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

static void
file_free (TmkBlockSink *sink)
{
  FileSink *self = (FileSink *) sink;
  if (self->fd >= 0) {
    if (self->created)
      new_file_remove (self->fd, sink->name);
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
  self->fd = new_file_create (path, errp);
  if (self->fd < 0)
    return NULL;
  self->created = true;
  sink->size = size;
  sink->is_zero = true;
  if (ftruncate (self->fd, (off_t) size) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot make '%s' %" G_GUINT64_FORMAT " bytes long", path,
                     size);
    return NULL;
  }
  return g_steal_pointer (&sink);
}

/* QEMU does not open devices with O_EXCL. It says what it does with an image, and what others may
 * not do, by locks on single bytes from 100 and 200 on (source: QEMU, block/file-posix.c). */
#define QEMU_LOCKS 100
#define QEMU_LOCKS_LENGTH 200

/* Nobody else has the device, and, where locks can be had, nobody gets it while we do. */
static bool
keep_qemu_out (FileSink *self, TmkError **errp)
{
  struct flock lock = {
    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = QEMU_LOCKS, .l_len = QEMU_LOCKS_LENGTH
  };
  if (fcntl (self->fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_BUSY, EBUSY, "'%s' is in use by QEMU", self->sink.name);
  error_hint (errp, "shut the virtual machine down that has it, or name another device");
  return false;
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
  if (!keep_qemu_out (self, errp))
    return NULL;
  if (ioctl (self->fd, BLKGETSIZE64, &sink->size) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot tell the size of '%s'", path);
    return NULL;
  }
  return g_steal_pointer (&sink);
}
