/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: raw files are read as they are, holes not at all; a file sink leaves a whole file or
 * none. */
#include "blk/sink.h"
#include "blk/source.h"
#include "test-blk.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

/* 5 MiB and 100 bytes: data, 2 MiB of hole, data. */
#define FILE_SIZE ((5u << 20) + 100)

static guint8 *
make_image (const char *path)
{
  guint8 *image = g_malloc0 (FILE_SIZE);
  fill_pattern (image, 0, 1 << 20);
  fill_pattern (image + (3 << 20), 3 << 20, FILE_SIZE - (3 << 20));
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  g_assert_cmpint (pwrite (fd, image, 1 << 20, 0), ==, 1 << 20);
  g_assert_cmpint (pwrite (fd, image + (3 << 20), FILE_SIZE - (3 << 20), 3 << 20), >, 0);
  close (fd);
  return image;
}

static void
test_read (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk", NULL);
  g_autofree guint8 *image = make_image (path);
  g_autofree guint8 *got = g_malloc (FILE_SIZE);
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_file (path, 0, &err);
  assert_ok (err);
  g_assert_cmpuint (tmk_block_source_size (source), ==, FILE_SIZE);
  g_assert_cmpstr (tmk_block_source_name (source), ==, path);
  g_assert_false (tmk_block_source_has_dirty (source));

  for (unsigned align = 1; align <= 65536; align *= 256) {
    TmkReadOptions options = { .align = align, .buffers = align == 1 ? 2 : 0 };
    g_assert_true (read_image (source, &options, got, &stats, &err));
    g_assert_cmpmem (got, FILE_SIZE, image, FILE_SIZE);
    g_assert_cmpuint (stats.read + stats.zero, ==, FILE_SIZE);
  }
  g_autoptr (TmkBlockExtents) extents = tmk_block_source_extents (source, 0, FILE_SIZE, &err);
  assert_ok (err);
  if (extents->n_extents == 1)
    g_test_skip ("this file system has no holes");
  else
    g_assert_cmpuint (stats.zero, ==, 2 << 20);
  remove_folder (folder);
}

static void
test_extents (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk", NULL);
  g_autofree guint8 *image = make_image (path);
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_file (path, 0, &err);
  assert_ok (err);
  const uint64_t ranges[][2]
      = { { 0, FILE_SIZE }, { 5, 10 },        { (1 << 20) - 1, 2 },
          { 2 << 20, 1 },   { FILE_SIZE, 0 }, { 1 << 20, FILE_SIZE - (1 << 20) } };
  for (size_t i = 0; i < G_N_ELEMENTS (ranges); i++) {
    g_autoptr (TmkBlockExtents) extents
        = tmk_block_source_extents (source, ranges[i][0], ranges[i][1], &err);
    assert_ok (err);
    assert_covers (extents, ranges[i][0], ranges[i][1]);
    for (size_t k = 0; k < extents->n_extents; k++) /* what is said to be zero is */
      if ((extents->extents[k].flags & TMK_EXTENT_ZERO) != 0)
        for (uint64_t b = 0; b < extents->extents[k].length; b++)
          g_assert_cmpuint (image[extents->extents[k].offset + b], ==, 0);
  }
  g_assert_null (tmk_block_source_extents (source, 1, FILE_SIZE, &err));
  assert_error (&err, TMK_ERR_USAGE, "not within");
  g_assert_null (tmk_block_source_extents (source, UINT64_MAX, 2, &err));
  assert_error (&err, TMK_ERR_USAGE, "not within");
  remove_folder (folder);
}

static void
test_options (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk", NULL);
  g_autofree guint8 *image = make_image (path);
  g_autofree guint8 *got = g_malloc (FILE_SIZE);
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_file (path, 0, &err);
  assert_ok (err);
  g_assert_null (tmk_block_source_reader (source, &(TmkReadOptions){ .only_dirty = true }, &err));
  assert_error (&err, TMK_ERR_USAGE, "not known what is dirty");
  g_assert_null (tmk_block_source_reader (source, &(TmkReadOptions){ .align = 3 }, &err));
  assert_error (&err, TMK_ERR_USAGE, "power of two");
  g_assert_null (tmk_block_source_reader (source, &(TmkReadOptions){ .align = 1u << 30 }, &err));
  assert_error (&err, TMK_ERR_USAGE, "cannot align");
  const TmkBlockExtent beyond[] = { { FILE_SIZE - 1, 2, 0 } };
  const TmkBlockExtents bad = { 1, beyond };
  g_assert_null (tmk_block_source_reader (source, &(TmkReadOptions){ .extents = &bad }, &err));
  assert_error (&err, TMK_ERR_USAGE, "not ascending");

  /* A list of ours: a dirty one, a clean one, one that we say is zero; widened to 4 KiB. */
  const TmkBlockExtent list[] = { { 100, 50, TMK_EXTENT_DIRTY },
                                  { 65536, 65536, 0 },
                                  { 3 << 20, 8192, TMK_EXTENT_DIRTY | TMK_EXTENT_ZERO } };
  const TmkBlockExtents mine = { 3, list };
  TmkReadOptions options = { .extents = &mine, .only_dirty = true, .align = 4096 };
  TmkReadStats stats;
  g_assert_true (read_image (source, &options, got, &stats, &err));
  g_assert_cmpuint (stats.read, ==, 4096);
  g_assert_cmpuint (stats.zero, ==, 8192);
  g_assert_cmpmem (got, 4096, image, 4096);

  /* An empty list is nothing, not everything. */
  const TmkBlockExtents none = { 0, NULL };
  g_assert_true (read_image (source, &(TmkReadOptions){ .extents = &none }, got, &stats, &err));
  g_assert_cmpuint (stats.read + stats.zero, ==, 0);
  remove_folder (folder);
}

static void
test_open_errors (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "x", NULL);
  g_autoptr (TmkError) err = NULL;
  g_assert_null (tmk_block_source_open_file (path, 0, &err));
  assert_error (&err, TMK_ERR_NOT_FOUND, "cannot open");
  g_assert_null (tmk_block_source_open_file (folder, 0, &err));
  assert_error (&err, TMK_ERR_INVALID, "neither a file nor a block device");
  g_assert_cmpint (mkfifo (path, 0600), ==, 0);
  g_assert_null (tmk_block_source_open_file (path, 0, &err));
  assert_error (&err, TMK_ERR_INVALID, "neither a file nor a block device");
  g_assert_null (tmk_block_sink_open_device (path, &err));
  assert_error (&err, TMK_ERR_INVALID, "no block device");
  remove_folder (folder);
}

/* Truncated while it is read: no short result. */
static void
test_shrinks (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk", NULL);
  g_free (make_image (path));
  g_autofree guint8 *got = g_malloc (FILE_SIZE);
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_file (path, 0, &err);
  assert_ok (err);
  g_assert_cmpint (truncate (path, 1000), ==, 0);
  const TmkBlockExtent all[] = { { 0, FILE_SIZE, 0 } };
  const TmkBlockExtents list = { 1, all };
  TmkReadStats stats;
  g_assert_false (read_image (source, &(TmkReadOptions){ .extents = &list }, got, &stats, &err));
  assert_error (&err, TMK_ERR_MISMATCH, "shorter than when it was opened");
  remove_folder (folder);
}

static void
test_cancel (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "disk", NULL);
  g_free (make_image (path));
  g_autoptr (TmkError) err = NULL;
  int fd = eventfd (0, EFD_CLOEXEC);
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_file (path, fd, &err);
  assert_ok (err);
  const TmkBlockPiece *piece;
  {
    /* The engine waits for a buffer, as all are lent out. */
    g_autoptr (TmkBlockReader) reader
        = tmk_block_source_reader (source, &(TmkReadOptions){ .buffers = 2 }, &err);
    g_assert_true (tmk_block_reader_next (reader, &piece, &err));
    g_assert_true (tmk_block_reader_next (reader, &piece, &err));
    tmk_block_reader_cancel (reader);
    while (tmk_block_reader_next (reader, &piece, &err))
      g_assert_nonnull (piece);
    assert_error (&err, TMK_ERR_CANCELLED, "cancelled");
  }
  {
    g_autoptr (TmkBlockReader) reader
        = tmk_block_source_reader (source, &(TmkReadOptions){ .buffers = 2 }, &err);
    g_assert_true (tmk_block_reader_next (reader, &piece, &err));
    g_assert_true (tmk_block_reader_next (reader, &piece, &err));
    g_assert_cmpint (eventfd_write (fd, 1), ==, 0);
    while (tmk_block_reader_next (reader, &piece, &err))
      g_assert_nonnull (piece);
    assert_error (&err, TMK_ERR_CANCELLED, "cancelled");
  }
  g_assert_null (tmk_block_source_extents (source, 0, FILE_SIZE, &err));
  assert_error (&err, TMK_ERR_CANCELLED, "cancelled");
  g_assert_null (tmk_block_source_open_file (path, fd, &err));
  assert_error (&err, TMK_ERR_CANCELLED, "cancelled");
  close (fd);
  remove_folder (folder);
}

static void
test_sink (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "new", NULL);
  g_autofree guint8 *image = g_malloc0 (FILE_SIZE);
  g_autofree guint8 *got = g_malloc (FILE_SIZE);
  g_autoptr (TmkError) err = NULL;
  TmkBlockSink *sink = tmk_block_sink_create_file (path, FILE_SIZE, &err);
  assert_ok (err);
  g_assert_true (tmk_block_sink_is_zero (sink));
  g_assert_cmpuint (tmk_block_sink_size (sink), ==, FILE_SIZE);
  fill_pattern (image, 0, 2 << 20);
  g_assert_true (tmk_block_sink_write (sink, 0, image, 2 << 20, &err));
  memset (image + 4097, 0, 1 << 20);
  g_assert_true (tmk_block_sink_zero (sink, 4097, 1 << 20, &err));
  fill_pattern (image + FILE_SIZE - 7, FILE_SIZE - 7, 7);
  g_assert_true (tmk_block_sink_write (sink, FILE_SIZE - 7, image + FILE_SIZE - 7, 7, &err));
  g_assert_true (tmk_block_sink_flush (sink, &err));
  g_assert_false (tmk_block_sink_write (sink, FILE_SIZE - 7, image, 8, &err));
  assert_error (&err, TMK_ERR_USAGE, "not within");
  g_assert_false (tmk_block_sink_zero (sink, 1, UINT64_MAX, &err));
  assert_error (&err, TMK_ERR_USAGE, "not within");

  g_assert_null (tmk_block_sink_create_file (path, 1, &err));
  assert_error (&err, TMK_ERR_EXISTS, "cannot create");
  g_assert_true (tmk_block_sink_close (sink, &err));
  struct stat st;
  g_assert_cmpint (stat (path, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 0777, ==, 0600);
  g_assert_cmpuint ((guint64) st.st_blocks * 512, <, 2 << 20);

  g_autoptr (TmkBlockSource) source = tmk_block_source_open_file (path, 0, &err);
  TmkReadStats stats;
  g_assert_true (read_image (source, NULL, got, &stats, &err));
  g_assert_cmpmem (got, FILE_SIZE, image, FILE_SIZE);
  remove_folder (folder);
}

static void
test_sink_given_up (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "new", NULL);
  g_autofree char *moved = g_build_filename (folder, "moved", NULL);
  g_autoptr (TmkError) err = NULL;
  tmk_block_sink_free (tmk_block_sink_create_file (path, 4096, &err));
  assert_ok (err);
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));

  /* Somebody else's file of that name stays. */
  TmkBlockSink *sink = tmk_block_sink_create_file (path, 4096, &err);
  assert_ok (err);
  g_assert_cmpint (rename (path, moved), ==, 0);
  g_assert_true (g_file_set_contents (path, "x", 1, NULL));
  tmk_block_sink_free (sink);
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS));
  g_assert_null (tmk_block_sink_create_file (path, UINT64_MAX, &err));
  assert_error (&err, TMK_ERR_USAGE, "too many");
  remove_folder (folder);
}

/* A device gets what is written, unless QEMU has it; and while we have it QEMU does not get it. */
static void
test_device (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "backing", NULL);
  g_autofree char *attach = g_strdup_printf ("losetup -f --show '%s'", path);
  g_autofree char *device = NULL;
  g_autofree guint8 *image = make_image (path);
  int status = 1;
  if (!g_file_set_contents (path, (char *) image, 4 << 20, NULL)
      || !g_spawn_command_line_sync (attach, &device, NULL, &status, NULL) || status != 0) {
    g_test_skip ("no loop device can be had");
    remove_folder (folder);
    return;
  }
  g_strstrip (device);
  /* Held open it is there until it is closed, whatever this test comes to. */
  g_autofree char *detach = g_strdup_printf ("losetup -d '%s'", device);
  int hold = open (device, O_RDONLY | O_CLOEXEC);
  g_free (run_process (detach));
  g_autoptr (TmkError) err = NULL;
  TmkBlockSink *sink = tmk_block_sink_open_device (device, &err);
  if (sink != NULL) {
    g_assert_cmpuint (tmk_block_sink_size (sink), ==, 4 << 20);
    g_assert_false (tmk_block_sink_is_zero (sink));
    g_assert_true (tmk_block_sink_write (sink, 16384, image, 8192, &err));
    g_assert_true (tmk_block_sink_zero (sink, 65536, 512, &err));
    g_assert_true (tmk_block_sink_zero (sink, 1 << 20, 1 << 20, &err));
    if (have_program ("qemu-io")) {
      g_autofree char *use = g_strdup_printf ("qemu-io -f raw -c 'read 0 512' '%s'", device);
      g_assert_true (g_spawn_command_line_sync (use, NULL, NULL, &status, NULL));
      g_assert_cmpint (status, !=, 0);
    }
    g_assert_true (tmk_block_sink_close (sink, &err));
    memcpy (image + 16384, image, 8192);
    memset (image + 65536, 0, 512);
    memset (image + (1 << 20), 0, 1 << 20);
    g_autoptr (TmkBlockSource) source = tmk_block_source_open_file (device, 0, &err);
    g_autofree guint8 *got = g_malloc (4 << 20);
    TmkReadStats stats;
    g_assert_true (read_image (source, NULL, got, &stats, &err));
    g_assert_cmpmem (got, 4 << 20, image, 4 << 20);
  }
  if (have_program ("qemu-nbd")) {
    g_autofree char *socket = g_build_filename (folder, "nbd", NULL);
    g_autofree char *serve = g_strdup_printf ("qemu-nbd -t -f raw -k '%s' '%s'", socket, device);
    GPid pid = start_process (serve);
    wait_for_server (socket);
    /* It listens before it has opened the device, and answers after that. */
    g_autofree char *uri = g_strdup_printf ("nbd+unix:///?socket=%s", socket);
    tmk_block_source_free (tmk_block_source_open_nbd (uri, NULL, &err));
    assert_ok (err);
    TmkError *busy = NULL;
    g_assert_null (tmk_block_sink_open_device (device, &busy));
    end_process (pid);
    assert_error (&busy, TMK_ERR_BUSY, "in use by QEMU");
  }
  close (hold);
  assert_ok (err);
  remove_folder (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/blk/file/read", test_read);
  g_test_add_func ("/blk/file/extents", test_extents);
  g_test_add_func ("/blk/file/options", test_options);
  g_test_add_func ("/blk/file/open-errors", test_open_errors);
  g_test_add_func ("/blk/file/shrinks", test_shrinks);
  g_test_add_func ("/blk/file/cancel", test_cancel);
  g_test_add_func ("/blk/file/sink", test_sink);
  g_test_add_func ("/blk/file/sink-given-up", test_sink_given_up);
  g_test_add_func ("/blk/file/device", test_device);
  return g_test_run ();
}
