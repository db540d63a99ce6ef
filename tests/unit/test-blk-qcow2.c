/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: a qcow2 sink leaves an image that QEMU's own tools find sound, without a leak, and equal
 * to what was written, whatever the size and the order; or it leaves nothing. */
#include "blk/sink.h"
#include "test-blk.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define CLUSTER (UINT64_C (64) << 10)
#define THREADS 4

/* One write: `length` is a multiple of a cluster, or up to the disk's end. */
typedef struct {
  uint64_t offset, length;
} Range;

typedef struct {
  TmkBlockSink *sink;
  int raw; /* the model: the same bytes in a raw file; -1: none */
  const Range *ranges;
  size_t n;
  int next; /* atomic: which range comes next */
} Job;

static gpointer
write_ranges (gpointer data)
{
  Job *job = data;
  size_t i;
  while ((i = (size_t) g_atomic_int_add (&job->next, 1)) < job->n) {
    const Range *range = &job->ranges[i];
    g_autofree guint8 *bytes = g_malloc (range->length);
    g_autoptr (TmkError) err = NULL;
    fill_pattern (bytes, range->offset, range->length);
    g_assert_true (tmk_block_sink_write (job->sink, range->offset, bytes, range->length, &err));
    if (job->raw >= 0)
      g_assert_cmpint (pwrite (job->raw, bytes, range->length, (off_t) range->offset), ==,
                       (gssize) range->length);
  }
  return NULL;
}

static void
shuffle (Range *ranges, size_t n)
{
  for (size_t i = n; i > 1; i--) {
    size_t k = (size_t) g_test_rand_int_range (0, (gint32) i);
    Range range = ranges[i - 1];
    ranges[i - 1] = ranges[k];
    ranges[k] = range;
  }
}

/* Asks QEMU about the image: sound, of that size, and with that many clusters of data. */
static void
assert_sound (const char *path, uint64_t size, uint64_t clusters)
{
  g_autofree char *check = g_strdup_printf ("qemu-img check --output=json -f qcow2 '%s'", path);
  g_autofree char *report = run_process (check); /* leaks and errors fail it */
  g_autofree char *allocated
      = g_strdup_printf ("\"allocated-clusters\": %" G_GUINT64_FORMAT ",", clusters);
  if (clusters > 0 && strstr (report, allocated) == NULL)
    g_error ("not %" G_GUINT64_FORMAT " clusters: %s", clusters, report);
  g_assert_null (strstr (report, "\"leaks\""));
  g_assert_null (strstr (report, "\"corruptions\""));

  g_autofree char *info = g_strdup_printf ("qemu-img info --output=json '%s'", path); /* probes */
  g_autofree char *facts = run_process (info);
  g_autofree char *virtual
      = g_strdup_printf ("\"virtual-size\": %" G_GUINT64_FORMAT ",", (size + 511) / 512 * 512);
  const char *const expected[] = { virtual,
                                   "\"format\": \"qcow2\"",
                                   "\"cluster-size\": 65536",
                                   "\"compat\": \"1.1\"",
                                   "\"lazy-refcounts\": false",
                                   "\"refcount-bits\": 16",
                                   "\"corrupt\": false" };
  for (size_t i = 0; i < G_N_ELEMENTS (expected); i++)
    if (strstr (facts, expected[i]) == NULL)
      g_error ("no %s in %s", expected[i], facts);
  g_assert_null (strstr (facts, "backing-filename"));
}

/* Writes the ranges from several threads, and has QEMU compare the image with the model. */
static void
check_image (uint64_t size, const Range *ranges, size_t n, unsigned threads)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk.qcow2", NULL);
  g_autofree char *raw = g_build_filename (folder, "disk.raw", NULL);
  g_autoptr (TmkError) err = NULL;
  Job job = { .ranges = ranges, .n = n };
  job.sink = tmk_block_sink_create_qcow2 (path, size, &err);
  assert_ok (err);
  g_assert_true (tmk_block_sink_is_zero (job.sink));
  g_assert_cmpuint (tmk_block_sink_size (job.sink), ==, size);
  g_assert_cmpstr (tmk_block_sink_name (job.sink), ==, path);
  job.raw = open (raw, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  g_assert_cmpint (ftruncate (job.raw, (off_t) size), ==, 0);

  GThread *others[THREADS];
  for (unsigned i = 0; i < threads; i++)
    others[i] = g_thread_new ("writer", write_ranges, &job);
  for (unsigned i = 0; i < threads; i++)
    g_thread_join (others[i]);
  g_assert_true (tmk_block_sink_zero (job.sink, 0, 0, &err));
  close (job.raw);

  /* Not an image before it is closed. */
  g_autofree char *early = g_strdup_printf ("qemu-img info --output=json '%s'", path);
  g_autofree char *facts = run_process (early);
  g_assert_nonnull (strstr (facts, "\"format\": \"raw\""));
  g_assert_true (tmk_block_sink_close (job.sink, &err));
  assert_ok (err);

  uint64_t clusters = 0;
  for (size_t i = 0; i < n; i++)
    clusters += (ranges[i].length + CLUSTER - 1) / CLUSTER;
  assert_sound (path, size, clusters);
  if (size > 0) {
    g_autofree char *compare
        = g_strdup_printf ("qemu-img compare -f qcow2 -F raw '%s' '%s'", path, raw);
    g_free (run_process (compare));
  }
  struct stat st;
  g_assert_cmpint (stat (path, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 0777, ==, 0600);
  remove_folder (folder);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

/* Of each size: nothing written, everything written, only the last cluster. */
static void
test_sizes (void)
{
  if (!have_program ("qemu-img"))
    return;
  const uint64_t sizes[]
      = { 1, 511, 512, 1000, CLUSTER - 1, CLUSTER, CLUSTER + 1, (3 << 20) + 512, (5 << 20) + 77 };
  for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
    uint64_t size = sizes[i], last = (size - 1) / CLUSTER * CLUSTER;
    check_image (size, NULL, 0, 1);
    check_image (size, &(Range){ 0, size }, 1, 1);
    check_image (size, &(Range){ last, size - last }, 1, 1);
  }
  check_image (0, NULL, 0, 1);
}

/* A table of 512 MiB ends, and the disk just before, at and after that. */
static void
test_tables (void)
{
  if (!have_program ("qemu-img"))
    return;
  const uint64_t table = 512 << 20;
  for (int more = -512; more <= 512; more += 512) {
    uint64_t size = table + (uint64_t) more, last = (size - 1) / CLUSTER * CLUSTER;
    check_image (size, &(Range){ last, size - last }, 1, 1);
  }
  /* A write over the boundary, of more clusters than are placed in one go. */
  check_image (table + (64 << 20), &(Range){ table - (20 << 20), 37 << 20 }, 1, 1);
}

/* ---- order ----------------------------------------------------------------------------------- */

static void
test_random_order (void)
{
  if (!have_program ("qemu-img"))
    return;
  /* Over three tables, the clusters dense in places, the size odd. */
  const uint64_t size = (UINT64_C (1400) << 20) + 12345;
  const uint64_t clusters = size / CLUSTER + 1;
  g_autoptr (GArray) ranges = g_array_new (FALSE, FALSE, sizeof (Range));
  for (uint64_t at = 0; at < clusters && ranges->len < 600;) {
    uint64_t n = (uint64_t) g_test_rand_int_range (1, 9);
    Range range = { at * CLUSTER, MIN (n * CLUSTER, size - at * CLUSTER) };
    g_array_append_val (ranges, range);
    at += n + (g_test_rand_bit () ? 0 : (uint64_t) g_test_rand_int_range (0, 200));
  }
  Range last = { (clusters - 1) * CLUSTER, size - (clusters - 1) * CLUSTER };
  Range *end = &g_array_index (ranges, Range, ranges->len - 1);
  if (end->offset + end->length < last.offset)
    g_array_append_val (ranges, last);
  shuffle ((Range *) (void *) ranges->data, ranges->len);
  check_image (size, (Range *) (void *) ranges->data, ranges->len, THREADS);
}

/* In order: the data follow each other in the file, so the disk is read sequentially. */
static void
test_sequential (void)
{
  if (!have_program ("qemu-img"))
    return;
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk.qcow2", NULL);
  g_autoptr (TmkError) err = NULL;
  g_autofree guint8 *bytes = g_malloc (CLUSTER);
  TmkBlockSink *sink = tmk_block_sink_create_qcow2 (path, 16 << 20, &err);
  assert_ok (err);
  for (uint64_t at = 0; at < 16 << 20; at += CLUSTER) {
    fill_pattern (bytes, at, CLUSTER);
    g_assert_true (tmk_block_sink_write (sink, at, bytes, CLUSTER, &err));
  }
  g_assert_true (tmk_block_sink_flush (sink, &err));
  g_assert_true (tmk_block_sink_close (sink, &err));
  g_autofree char *map = g_strdup_printf ("qemu-img map --output=json -f qcow2 '%s'", path);
  g_autofree char *extents = run_process (map);
  g_auto (GStrv) lines = g_strsplit (g_strstrip (extents), "\n", -1);
  g_assert_cmpuint (g_strv_length (lines), ==, 1); /* one extent */
  remove_folder (folder);
}

/* ---- large ----------------------------------------------------------------------------------- */

/* 64 TiB and 1 PiB: what is written at the far end is there, and is all that there is. */
static void
test_far (void)
{
  if (!have_program ("qemu-img") || !have_program ("qemu-io"))
    return;
  const uint64_t sizes[] = { (UINT64_C (64) << 40) - 512, UINT64_C (1) << 50 };
  for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autofree char *folder = make_folder ();
    g_autofree char *path = g_build_filename (folder, "disk.qcow2", NULL);
    g_autoptr (TmkError) err = NULL;
    uint64_t size = sizes[i], last = (size - 1) / CLUSTER * CLUSTER;
    g_autofree guint8 *bytes = g_malloc (CLUSTER);
    TmkBlockSink *sink = tmk_block_sink_create_qcow2 (path, size, &err);
    assert_ok (err);
    const uint64_t places[] = { last, size / 3 / CLUSTER * CLUSTER, 0 };
    for (int k = 0; k < 3; k++) {
      memset (bytes, 0xa0 + k, CLUSTER);
      g_assert_true (
          tmk_block_sink_write (sink, places[k], bytes, MIN (CLUSTER, size - places[k]), &err));
    }
    g_assert_true (tmk_block_sink_close (sink, &err));
    assert_sound (path, size, 3);
    g_autofree char *read
        = g_strdup_printf ("qemu-io -r -f qcow2 -c 'read -P 0xa0 %" G_GUINT64_FORMAT
                           " %" G_GUINT64_FORMAT "' -c 'read -P 0xa1 %" G_GUINT64_FORMAT
                           " 64k' -c 'read -P 0xa2 0 64k' -c 'read -P 0 64k 64k' '%s'",
                           last, size - last, places[1], path);
    g_autofree char *said = run_process (read);
    g_assert_null (strstr (said, "verification failed"));
    g_assert_nonnull (strstr (said, "read 65536/65536"));
    struct stat st;
    g_assert_cmpint (stat (path, &st), ==, 0);
    g_assert_cmpuint ((guint64) st.st_blocks * 512, <=, 24 << 20); /* L1: 16 MiB for 1 PiB */
    remove_folder (folder);
  }
  g_autoptr (TmkError) err = NULL;
  g_assert_null (tmk_block_sink_create_qcow2 ("/nowhere/x", (UINT64_C (1) << 50) + 1, &err));
  assert_error (&err, TMK_ERR_USAGE, "too many");
}

/* More than 2 GiB of file take a second refcount block. What was written is punched out again as
 * soon as it is there, where no table is among it: its place is what is counted. */
static void
test_refcount_blocks (void)
{
  if (!have_program ("qemu-img"))
    return;
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk.qcow2", NULL);
  g_autoptr (TmkError) err = NULL;
  const uint64_t piece = 16 << 20, size = (UINT64_C (2) << 30) + (UINT64_C (48) << 20);
  g_autofree guint8 *bytes = g_malloc0 (piece);
  TmkBlockSink *sink = tmk_block_sink_create_qcow2 (path, size, &err);
  assert_ok (err);
  int fd = open (path, O_RDWR | O_CLOEXEC);
  g_assert_cmpint (fd, >=, 0);
  bool punched = true;
  for (uint64_t at = 0; at < size && punched; at += piece) {
    struct stat st;
    g_assert_cmpint (fstat (fd, &st), ==, 0);
    g_assert_true (tmk_block_sink_write (sink, at, bytes, piece, &err));
    if (at % (512 << 20) != 0)
      punched
          = fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st.st_size, (off_t) piece)
            == 0;
  }
  close (fd);
  if (punched) {
    g_assert_true (tmk_block_sink_close (sink, &err));
    assert_sound (path, size, size / CLUSTER);
  } else {
    tmk_block_sink_free (sink);
    g_test_skip ("this file system cannot punch holes");
  }
  remove_folder (folder);
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static void
test_refused (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "x", NULL);
  g_autoptr (TmkError) err = NULL;
  g_autofree guint8 *bytes = g_malloc0 (2 * CLUSTER);
  TmkBlockSink *sink = tmk_block_sink_create_qcow2 (path, 2 * CLUSTER + 512, &err);
  assert_ok (err);
  const Range bad[] = { { 512, CLUSTER },
                        { 0, 512 },
                        { 0, CLUSTER + 512 },
                        { CLUSTER, 2 * CLUSTER },
                        { 2 * CLUSTER, 511 } };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_false (tmk_block_sink_write (sink, bad[i].offset, bytes, bad[i].length, &err));
    assert_error (&err, TMK_ERR_USAGE, "");
  }
  g_assert_null (tmk_block_sink_create_qcow2 (path, 512, &err));
  assert_error (&err, TMK_ERR_EXISTS, "cannot create");
  tmk_block_sink_free (sink);
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));

  /* Somebody else's file of that name stays. */
  g_autofree char *moved = g_build_filename (folder, "moved", NULL);
  sink = tmk_block_sink_create_qcow2 (path, 512, &err);
  assert_ok (err);
  g_assert_cmpint (rename (path, moved), ==, 0);
  g_assert_true (g_file_set_contents (path, "x", 1, NULL));
  tmk_block_sink_free (sink);
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS));
  remove_folder (folder);
}

/* A full file system: the error says so, wherever it comes, and no file is left. */
static void
test_no_space (void)
{
  g_autofree char *folder = make_folder ();
  /* The mount is this thread's alone: it goes with the process, whatever happens. */
  if (unshare (CLONE_NEWNS) != 0 || mount (NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
      || mount ("tmpfs", folder, "tmpfs", 0, "size=1m") != 0) {
    g_test_skip ("cannot mount a small file system");
    remove_folder (folder);
    return;
  }
  g_autofree char *path = g_build_filename (folder, "x.qcow2", NULL);
  g_autofree guint8 *bytes = g_malloc (CLUSTER);
  memset (bytes, 1, CLUSTER);
  /* 16 clusters are there: the 15th of data does not fit, or, with fewer, what closing writes. */
  unsigned in_write = 0, in_close = 0, whole = 0;
  for (unsigned n = 8; n <= 17; n++) {
    g_autoptr (TmkError) err = NULL;
    TmkBlockSink *sink = tmk_block_sink_create_qcow2 (path, 1 << 30, &err);
    assert_ok (err);
    bool ok = true;
    for (unsigned i = 0; i < n && ok; i++)
      ok = tmk_block_sink_write (sink, i * CLUSTER, bytes, CLUSTER, &err);
    if (!ok) {
      in_write++;
      tmk_block_sink_free (sink);
    } else if (!tmk_block_sink_close (sink, &err)) {
      in_close++;
      ok = false;
    } else {
      whole++;
      g_assert_cmpint (unlink (path), ==, 0);
    }
    if (!ok)
      assert_error (&err, TMK_ERR_NO_SPACE, path);
    g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
  }
  g_assert_cmpuint (in_write, >, 0);
  g_assert_cmpuint (in_close, >, 0);
  g_assert_cmpuint (whole, >, 0);
  umount (folder);
  remove_folder (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/blk/qcow2/sizes", test_sizes);
  g_test_add_func ("/blk/qcow2/tables", test_tables);
  g_test_add_func ("/blk/qcow2/random-order", test_random_order);
  g_test_add_func ("/blk/qcow2/sequential", test_sequential);
  g_test_add_func ("/blk/qcow2/far", test_far);
  g_test_add_func ("/blk/qcow2/refcount-blocks", test_refcount_blocks);
  g_test_add_func ("/blk/qcow2/refused", test_refused);
  g_test_add_func ("/blk/qcow2/no-space", test_no_space);
  return g_test_run ();
}
