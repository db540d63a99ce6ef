/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/file_source.c: a raw file or a block device as a block source. See
 * <tidemark/block_source.h>. The descriptor's position is nobody's: only SEEK_DATA and SEEK_HOLE,
 * which take an offset, and pread() are used, so that threads do not meet. */
#include "blk/source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "blk"
#define REQUEST (512u << 10)
#define BUFFERS 8
#define AHEAD (4u << 20)
#define WINDOW (UINT64_C (16) << 30)
#define WINDOW_EXTENTS (128u << 10)

typedef struct {
  TmkBlockSource source;
  int fd;
  int cancel_fd; /* -1: none */
} FileSource;

static bool
is_cancelled (const FileSource *self, TmkError **errp)
{
  struct pollfd pfd = { .fd = self->cancel_fd, .events = POLLIN };
  if (self->cancel_fd < 0 || poll (&pfd, 1, 0) <= 0)
    return false;
  error_set (errp, DOMAIN, TMK_ERR_CANCELLED, ECANCELED, "'%s': cancelled", self->source.name);
  return true;
}

/* Appends the extents from `offset` to `end`, or fewer once there are `max`. `*known` is how far.
 */
static bool
seek_extents (FileSource *self, uint64_t offset, uint64_t end, size_t max, ExtentList *out,
              uint64_t *known, TmkError **errp)
{
  while (offset < end && out->n < max) {
    off_t data = lseek (self->fd, (off_t) offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
      data = (off_t) end; /* a hole up to the end of the file */
    else if (data < 0 && errno == EINVAL)
      data = (off_t) offset; /* it cannot tell: all is data */
    uint64_t begin = MIN (MAX ((uint64_t) data, offset), end);
    if (data < 0) {
      error_set_errno (errp, DOMAIN, errno, "'%s': cannot seek", self->source.name);
      return false;
    }
    extent_list_append (out, offset, begin - offset, TMK_EXTENT_HOLE | TMK_EXTENT_ZERO);
    offset = begin;
    if (offset == end)
      break;
    off_t hole = lseek (self->fd, data, SEEK_HOLE);
    uint64_t stop = hole > data ? MIN ((uint64_t) hole, end) : end;
    extent_list_append (out, offset, stop - offset, 0);
    offset = stop;
    if (is_cancelled (self, errp))
      return false;
  }
  *known = offset;
  return true;
}

static bool
file_extents (TmkBlockSource *source, uint64_t offset, uint64_t length, ExtentList *out,
              TmkError **errp)
{
  FileSource *self = (FileSource *) source;
  uint64_t known;
  return !is_cancelled (self, errp)
         && seek_extents (self, offset, offset + length, SIZE_MAX, out, &known, errp);
}

/* --- reading */

typedef struct {
  ReaderEngine engine;
  FileSource *file; /* borrowed */
  ExtentList window;
} FileReader;

static bool
put_window (FileReader *self, ReadFeed *feed, TmkError **errp)
{
  uint64_t begin = feed->wanted, known;
  uint64_t end = feed->size - begin > WINDOW ? begin + WINDOW : feed->size;
  extent_list_reset (&self->window);
  size_t max = WINDOW_EXTENTS;
  do { /* until it ends at a multiple of the alignment */
    uint64_t from = extent_list_end (&self->window, begin);
    if (!seek_extents (self->file, from, end, max, &self->window, &known, errp))
      return false;
    if (known < end && (known & (feed->align - 1)) != 0)
      end = MIN (end, (known | (feed->align - 1)) + 1);
    max = SIZE_MAX;
  } while (known < end && (known & (feed->align - 1)) != 0);
  read_feed_put (feed, &self->window, known);
  return true;
}

static bool
fill (FileReader *self, ReaderSlot *slot, TmkError **errp)
{
  uint64_t done = 0, length = slot->piece.length, offset = slot->piece.offset;
  (void) posix_fadvise (self->file->fd, (off_t) (offset + length), AHEAD, POSIX_FADV_WILLNEED);
  while (done < length) {
    ssize_t n = pread (self->file->fd, slot->buffer + done, length - done, (off_t) (offset + done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      error_set_errno (errp, DOMAIN, errno,
                       "'%s': cannot read %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT,
                       self->file->source.name, length, offset);
      return false;
    }
    if (n == 0) {
      error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0, "'%s': it is shorter than when it was opened",
                 self->file->source.name);
      return false;
    }
    done += (uint64_t) n;
  }
  return true;
}

/* Waits for a free slot. NULL: stopped, cancelled (with an error). */
static ReaderSlot *
wait_for_slot (FileReader *self, TmkBlockReader *reader, bool zero, TmkError **errp)
{
  for (;;) {
    if (reader_should_stop (reader, errp) || is_cancelled (self->file, errp))
      return NULL;
    ReaderSlot *slot = reader_take_slot (reader, zero);
    if (slot == NULL || !zero)
      reader_announce (reader);
    if (slot != NULL)
      return slot;
    struct pollfd pfds[2] = { { .fd = reader_wake_fd (reader), .events = POLLIN },
                              { .fd = self->file->cancel_fd, .events = POLLIN } };
    (void) poll (pfds, 2, -1); /* it fails for a signal, and then we look again */
    reader_acknowledge (reader);
  }
}

static bool
run (ReaderEngine *engine, TmkBlockReader *reader, TmkError **errp)
{
  FileReader *self = (FileReader *) engine;
  ReadFeed *feed = reader_feed (reader);
  for (;;) {
    uint64_t offset, length;
    bool zero;
    if (!read_feed_next (feed, &offset, &length, &zero)) {
      if (read_feed_is_done (feed))
        return true;
      if (!put_window (self, feed, errp))
        return false;
      continue;
    }
    ReaderSlot *slot = wait_for_slot (self, reader, zero, errp);
    if (slot == NULL)
      return false;
    slot->piece.offset = offset;
    slot->piece.length = length;
    if (!zero && !fill (self, slot, errp))
      return false;
    reader_deliver (reader, slot, zero, !zero);
  }
}

static void
engine_free (ReaderEngine *engine)
{
  FileReader *self = (FileReader *) engine;
  extent_list_clear (&self->window);
  g_free (self);
}

static const ReaderEngineKind engine_kind = { .run = run, .free = engine_free };

static ReaderEngine *
file_engine (TmkBlockSource *source, ReaderSetup *setup, TmkError **errp)
{
  FileReader *self = g_new0 (FileReader, 1);
  self->engine.kind = &engine_kind;
  self->file = (FileSource *) source;
  setup->request = REQUEST;
  if (setup->buffers == 0)
    setup->buffers = BUFFERS;
  return &self->engine;
}

/* --- opening */

static void
file_free (TmkBlockSource *source)
{
  FileSource *self = (FileSource *) source;
  if (self->fd >= 0)
    close (self->fd);
  g_free (self);
}

static const SourceKind kind
    = { .extents = file_extents, .engine = file_engine, .free = file_free };

static bool
find_size (FileSource *self, TmkError **errp)
{
  struct stat st;
  if (fstat (self->fd, &st) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot stat '%s'", self->source.name);
    return false;
  }
  if (S_ISREG (st.st_mode)) {
    self->source.size = (uint64_t) st.st_size;
    return true;
  }
  if (!S_ISBLK (st.st_mode)) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "'%s' is neither a file nor a block device",
               self->source.name);
    return false;
  }
  if (ioctl (self->fd, BLKGETSIZE64, &self->source.size) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot tell the size of '%s'", self->source.name);
    return false;
  }
  return true;
}

TmkBlockSource *
tmk_block_source_open_file (const char *path, int cancel_fd, TmkError **errp)
{
  FileSource *self = g_new0 (FileSource, 1);
  g_autoptr (TmkBlockSource) source = &self->source;
  source->kind = &kind;
  source->name = g_strdup (path);
  self->cancel_fd = cancel_fd > 0 ? cancel_fd : -1;
  /* O_NONBLOCK: a FIFO would wait for its writer. It means nothing to files and block devices. */
  self->fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (self->fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open '%s'", path);
    return NULL;
  }
  if (is_cancelled (self, errp) || !find_size (self, errp))
    return NULL;
  return g_steal_pointer (&source);
}
