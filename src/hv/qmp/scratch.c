/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/scratch.c: see hv/qmp/scratch.h. */
#include "hv/qmp/scratch.h"

#include "hv/offspring.h"
#include "hv/qmp/record.h"
#include "hv/qmp/staging.h"
#include "hv/relay.h"
#include "qmp/commands.h"
#include "util/fsx.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DOMAIN "hv"
#define ANSWER_MS 3000

/* --- the storage ----------------------------------------------------------------------------- */

/* What the storage says of one scratch. */
typedef struct {
  int err; /* 0: it is there */
  guint64 dev, ino;
  guint64 used; /* bytes; of a file */
  guint64 room; /* bytes; of a device its size */
} Storage;

static Storage
ask_storage (const char *path)
{
  Storage found = { 0 };
  struct statx st;
  int fd = -1;
  /* Not from a cache. */
  if (statx (AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) != 0) {
    found.err = errno;
    return found;
  }
  found.dev = makedev (st.stx_dev_major, st.stx_dev_minor);
  found.ino = st.stx_ino;
  found.used = st.stx_blocks * 512;
  if (!S_ISBLK (st.stx_mode))
    (void) fsx_free_space (path, &found.room, NULL); /* 0 says that it is not known */
  else if ((fd = open (path, O_RDONLY | O_CLOEXEC)) >= 0)
    found.room = (guint64) MAX (lseek (fd, 0, SEEK_END), 0);
  if (fd >= 0)
    close (fd);
  return found;
}

static void
ask_all (const int *fds, const void *data)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (data, "disks"), i, disk) {
    const char *path = jsonx_string (disk, "target");
    Storage found = ask_storage (path != NULL ? path : "");
    if (write (fds[0], &found, sizeof found) != sizeof found)
      return;
  }
}

/* What is said of each disk, in order, until one does not answer: an array of Storage, or NULL. */
static GArray *
ask_in_time (const json_t *record, TmkError **errp)
{
  int ends[2];
  gint64 deadline = g_get_monotonic_time () + ANSWER_MS * 1000;
  size_t wanted = json_array_size (json_object_get (record, "disks"));
  if (pipe2 (ends, O_CLOEXEC) != 0 || !offspring_start (ask_all, &ends[1], 1, record)) {
    error_set_errno (errp, DOMAIN, errno, "cannot ask the scratch images' storage");
    return NULL;
  }
  close (ends[1]);
  GArray *all = g_array_new (FALSE, TRUE, sizeof (Storage));
  while (all->len < wanted) {
    Storage one;
    struct pollfd pfd = { .fd = ends[0], .events = POLLIN };
    gint64 left = MAX (deadline - g_get_monotonic_time (), 0);
    int n = poll (&pfd, 1, (int) (left / 1000));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0 || read (ends[0], &one, sizeof one) != sizeof one)
      break;
    g_array_append_val (all, one);
  }
  close (ends[0]);
  return all;
}

static void
set_does_not_answer (const json_t *record, guint number, TmkError **errp)
{
  const json_t *disk = json_array_get (json_object_get (record, "disks"), number);
  error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, 0, "disk '%s': the scratch '%s' does not answer",
             jsonx_string (disk, "name"), jsonx_string (disk, "target"));
  error_hint (errp, "see to its storage, then try again");
}

bool
scratch_answers (const json_t *record, TmkError **errp)
{
  if (!jsonx_bool (record, "pull") || jsonx_bool (record, "direct"))
    return true;
  g_autoptr (GArray) all = ask_in_time (record, errp);
  if (all == NULL)
    return false;
  if (all->len == json_array_size (json_object_get (record, "disks")))
    return true;
  set_does_not_answer (record, all->len, errp);
  return false;
}

/* --- trouble --------------------------------------------------------------------------------- */

/* The identity of the file that the job made at `path`, as its log has it. */
static const json_t *
made_file (const json_t *record, const char *path)
{
  size_t i;
  json_t *entry;
  json_array_foreach (json_object_get (record, "undo"), i, entry) {
    if (g_strcmp0 (jsonx_string (entry, "op"), "file") == 0
        && g_strcmp0 (jsonx_string (entry, "path"), path) == 0)
      return entry;
  }
  return NULL;
}

static TmkError *
lost_file (const json_t *record, const json_t *disk, const Storage *found)
{
  const char *path = jsonx_string (disk, "target");
  const json_t *made = made_file (record, path);
  TmkError *err = NULL;
  bool other
      = found->err == 0 && made != NULL
        && (found->dev != jsonx_uint (made, "dev") || found->ino != jsonx_uint (made, "ino"));
  if (found->err == 0 && !other)
    return NULL;
  error_set (&err, DOMAIN, TMK_ERR_NOT_FOUND, found->err, "disk '%s': the scratch '%s' is lost: %s",
             jsonx_string (disk, "name"), path,
             other ? "another file is in its place" : g_strerror (found->err));
  error_hint (&err, "end the job with 'tidemark end' or 'tidemark abort', and begin again");
  return err;
}

static TmkError *
broken_snapshot (const json_t *disk)
{
  TmkError *err = NULL;
  error_set (&err, DOMAIN, TMK_ERR_IO, 0,
             "disk '%s': the scratch '%s' could not take what the guest overwrote, so the snapshot"
             " is broken",
             jsonx_string (disk, "name"), jsonx_string (disk, "target"));
  error_hint (&err, "end the job with 'tidemark end', give the scratch more room, and begin again:"
                    " what was read is of no use");
  return err;
}

/* Is what clients reach still there, where that is a process of ours? */
static TmkError *
lost_process (const json_t *record)
{
  TmkError *err = NULL;
  const char *pidfile = jsonx_string (record, "pidfile");
  const json_t *relay = jsonx_find (json_object_get (record, "undo"), "op", "relay");
  const char *lock = jsonx_string (relay, "lock");
  bool daemon_lost = pidfile != NULL && !staging_daemon_lives (pidfile);
  if (!daemon_lost && (lock == NULL || relay_lives (lock)))
    return NULL;
  error_set (&err, DOMAIN, TMK_ERR_GONE, 0,
             daemon_lost ? "the 'qemu-storage-daemon' that exports the copies has ended"
                         : "the process that serves clients on TCP has ended");
  error_hint (&err, "nothing can be read any more: end the job with 'tidemark end' or 'tidemark"
                    " abort'");
  return err;
}

/* --- looking --------------------------------------------------------------------------------- */

static void
set_bytes (json_t *disk, const char *key, guint64 bytes)
{
  json_object_set_new (disk, key, json_integer ((json_int_t) MIN (bytes, G_MAXINT64)));
}

/* What QEMU shows of the filter of `disk`, or NULL: the device may be gone. */
static const json_t *
filter_of (const json_t *block, const json_t *disk)
{
  const char *name = jsonx_string (disk, "filter");
  size_t i;
  json_t *entry;
  json_array_foreach (block, i, entry) {
    const json_t *inserted = json_object_get (entry, "inserted");
    if (name != NULL && g_strcmp0 (jsonx_string (inserted, "node-name"), name) == 0)
      return inserted;
  }
  return NULL;
}

/* The bitmaps of a copy-before-write filter have no names, and come newest first: what may be read
 * of the snapshot, what was saved, and since QEMU 8 or so what was not. */
static bool
saved_by (const json_t *filter, guint64 *bytes)
{
  size_t i, unnamed = 0;
  json_t *bitmap;
  json_array_foreach (json_object_get (filter, "dirty-bitmaps"), i, bitmap) {
    if (jsonx_string (bitmap, "name") == NULL && unnamed++ == 1) {
      *bytes = jsonx_uint (bitmap, "count");
      return true;
    }
  }
  return false;
}

/* Is the disk's snapshot whole, as far as that shows? */
static bool
look_at_filter (const json_t *filter, json_t *disk)
{
  const json_t *written = jsonx_find (json_object_get (filter, "dirty-bitmaps"), "name",
                                      jsonx_string (disk, "filter"));
  guint64 dirty = jsonx_uint (written, "count"), saved;
  set_bytes (disk, "dirty", dirty);
  return written == NULL || !saved_by (filter, &saved) || dirty <= saved;
}

/* How far a scratch on a device has been written: its size tells nothing. */
static void
look_at_device (QmpMachine *machine, json_t *disk, guint64 size)
{
  g_autoptr (json_t) nodes = qmp_execute (machine->client, "query-blockstats",
                                          json_pack ("{s:b}", "query-nodes", 1), NULL);
  const json_t *node = jsonx_find (nodes, "node-name", jsonx_string (disk, "file"));
  guint64 used = jsonx_uint (json_object_get (node, "stats"), "wr_highest_offset");
  set_bytes (disk, "done", used);
  set_bytes (disk, "room", size > used ? size - used : 0);
}

static TmkError *
look_at_storage (QmpMachine *machine, const json_t *record, json_t *disk, const Storage *found)
{
  if (found->err != 0)
    return lost_file (record, disk, found);
  if (g_strcmp0 (jsonx_string (disk, "target_type"), "block") == 0) {
    look_at_device (machine, disk, found->room);
    return NULL;
  }
  set_bytes (disk, "done", found->used);
  set_bytes (disk, "room", found->room);
  return lost_file (record, disk, found);
}

/* Does QEMU have the job's nodes, though not where they are expected? */
static bool
has_image (QmpMachine *machine, const json_t *disk)
{
  g_autoptr (json_t) nodes = qmp_execute (machine->client, "query-named-block-nodes",
                                          json_pack ("{s:b}", "flat", 1), NULL);
  return jsonx_find (nodes, "node-name", jsonx_string (disk, "image")) != NULL;
}

static void
note (json_t *record, json_t *disk, TmkError *err /* stolen, may be NULL */)
{
  if (err == NULL)
    return;
  if (json_object_get (record, "trouble") == NULL)
    record_set_trouble (record, err);
  if (disk != NULL) {
    json_object_set_new (disk, "state", json_string ("failed"));
    json_object_set_new (disk, "error", json_string (tmk_error_message (err)));
  }
  tmk_error_free (err);
}

bool
scratch_look (QmpMachine *machine, json_t *record, unsigned *missing, TmkError **errp)
{
  bool staged = jsonx_bool (record, "staged");
  g_autoptr (GArray) storage = ask_in_time (record, errp);
  g_autoptr (json_t) block
      = qmp_execute (machine->client, "query-block", NULL, storage != NULL ? errp : NULL);
  size_t i;
  json_t *disk;
  *missing = 0;
  if (storage == NULL || block == NULL)
    return false;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    const json_t *filter = filter_of (block, disk);
    TmkError *err = NULL;
    if (i < storage->len)
      err = look_at_storage (machine, record, disk, &g_array_index (storage, Storage, i));
    else
      set_does_not_answer (record, storage->len, &err);
    if (filter != NULL && !look_at_filter (filter, disk)) {
      g_clear_pointer (&err, tmk_error_free);
      err = broken_snapshot (disk);
    }
    *missing += !staged && filter == NULL && i < storage->len && !has_image (machine, disk);
    note (record, disk, err);
  }
  if (*missing == 0)
    note (record, NULL, lost_process (record));
  return true;
}
