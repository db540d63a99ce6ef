/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: whatever an NBD server says or fails to say, a source ends in time, with every byte or
 * with an error that names the export; a lost connection is made again within its bound. */
#include "blk/source.h"
#include "test-blk-server.h"

#include <errno.h>
#include <sys/eventfd.h>

#define SIZE (8u << 20)
#define MAX_MS 5000

static const TmkNbdOptions quick = { .request_size = 256 << 10,
                                     .connect_timeout_ms = 3000,
                                     .reply_timeout_ms = 800,
                                     .reconnect_ms = 800 };

/* Opens, reads everything, ends in time. Returns whether all bytes came. */
static bool
read_from (Server *s, const TmkNbdOptions *options, TmkReadStats *stats, TmkError **errp)
{
  gint64 begin = g_get_monotonic_time ();
  TmkBlockSource *source = tmk_block_source_open_nbd (s->uri, options, errp);
  bool ok = false;
  if (source != NULL) {
    uint64_t size = tmk_block_source_size (source);
    g_autofree guint8 *image = g_malloc (size);
    ok = read_image (source, NULL, image, stats, errp);
    for (uint64_t i = 0; ok && i < size; i++)
      if (image[i] != pattern_at (i) && image[i] != 0)
        g_error ("byte %" G_GUINT64_FORMAT " is %u", i, image[i]);
    tmk_block_source_free (source);
  }
  g_assert_cmpint ((g_get_monotonic_time () - begin) / 1000, <, MAX_MS * slowness ());
  if (!ok && errp != NULL)
    g_assert_nonnull (strstr (tmk_error_message (*errp), s->uri));
  return ok;
}

static void
assert_reads (Server *s, const TmkNbdOptions *options, TmkReadStats *stats)
{
  g_autoptr (TmkError) err = NULL;
  if (!read_from (s, options, stats, &err))
    assert_ok (err);
  g_assert_cmpuint (stats->read + stats->zero, ==, s->size);
}

static void
assert_read_fails (Answer on_read, TmkErrorCode code, const char *part)
{
  Server s = { .size = SIZE, .on_read = on_read };
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_server (&s);
  g_assert_false (read_from (&s, &quick, &stats, &err));
  assert_error (&err, code, part);
  end_server (&s);
}

/* --- honest ones */

static void
test_plain (void)
{
  Server s = { .size = SIZE };
  TmkReadStats stats;
  start_server (&s);
  assert_reads (&s, NULL, &stats);
  g_assert_cmpuint (stats.read, ==, SIZE);
  g_assert_cmpuint (s.connections, ==, 1); /* it does not say that it takes more */
  end_server (&s);
}

static void
test_no_structured (void)
{
  Server s = { .size = SIZE, .no_structured = true };
  TmkReadStats stats;
  start_server (&s);
  assert_reads (&s, NULL, &stats);
  g_assert_cmpuint (stats.read, ==, SIZE);
  g_assert_cmpuint (s.asks, ==, 0);

  /* All is data, by extents too. */
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_nbd (s.uri, NULL, &err);
  g_autoptr (TmkBlockExtents) extents = tmk_block_source_extents (source, 10, 100, &err);
  assert_ok (err);
  assert_covers (extents, 10, 100);
  g_assert_cmpuint (extents->extents[0].flags, ==, 0);
  tmk_block_source_free (g_steal_pointer (&source));

  TmkNbdOptions options = { .dirty_context = CONTEXT };
  g_assert_null (tmk_block_source_open_nbd (s.uri, &options, &err));
  assert_error (&err, TMK_ERR_NOT_FOUND, CONTEXT);
  end_server (&s);
}

static void
test_no_context (void)
{
  Server s = { .size = SIZE, .no_dirty = true };
  g_autoptr (TmkError) err = NULL;
  TmkNbdOptions options = { .dirty_context = CONTEXT };
  start_server (&s);
  g_assert_null (tmk_block_source_open_nbd (s.uri, &options, &err));
  g_assert_nonnull (tmk_error_hint (err));
  assert_error (&err, TMK_ERR_NOT_FOUND, CONTEXT);
  end_server (&s);
}

static void
test_multi_conn (void)
{
  Server s = { .size = SIZE, .multi_conn = true };
  TmkReadStats stats;
  TmkNbdOptions options = { .connections = 4, .request_size = 65536 };
  start_server (&s);
  assert_reads (&s, &options, &stats);
  g_assert_cmpuint (stats.requests, ==, SIZE / 65536);
  end_server (&s);
}

/* The first connection is served, others never greeted: they must not be waited for. */
static bool
only_first (Request *r)
{
  char byte;
  return r->serial == 1 || get (r->fd, &byte, 1);
}

static void
test_no_second (void)
{
  Server s = { .size = SIZE, .multi_conn = true, .on_connect = only_first };
  TmkReadStats stats;
  start_server (&s);
  assert_reads (&s, &quick, &stats);
  end_server (&s);
}

static bool
backwards (Request *r)
{
  uint32_t half = r->length / 2, quarter = r->length / 4;
  return put_hole (r, r->offset + half, quarter, false)
         && put_data (r, r->offset + half + quarter, r->length - half - quarter, false)
         && put_data (r, r->offset, half, false) && put_nothing (r);
}

static void
test_chunks (void)
{
  Server s = { .size = SIZE, .on_read = backwards };
  TmkReadStats stats;
  start_server (&s);
  assert_reads (&s, NULL, &stats);
  g_assert_cmpuint (stats.read, ==, SIZE);
  end_server (&s);
}

static bool
only_holes (Request *r)
{
  return put_hole (r, r->offset, r->length / 2, false)
         && put_hole (r, r->offset + r->length / 2, r->length - r->length / 2, true);
}

static void
test_holes (void)
{
  Server s = { .size = SIZE, .on_read = only_holes };
  TmkReadStats stats;
  start_server (&s);
  assert_reads (&s, NULL, &stats);
  g_assert_cmpuint (stats.zero, ==, SIZE);
  end_server (&s);
}

static void
test_empty (void)
{
  Server s = { .size = 0 };
  TmkReadStats stats;
  start_server (&s);
  assert_reads (&s, NULL, &stats);
  end_server (&s);
}

/* --- reads that lie */

static bool
with_gap (Request *r)
{
  return put_data (r, r->offset, r->length - 512, true);
}

/* As many bytes as asked for, but some twice: the buffer would keep old bytes in the gap. */
static bool
with_repeat (Request *r)
{
  return put_data (r, r->offset, r->length / 2, false)
         && put_data (r, r->offset, r->length / 2, true);
}

static bool
out_of_bounds (Request *r)
{
  return put_data (r, r->offset + 512, r->length, true);
}

static bool
read_nothing (Request *r)
{
  return put_nothing (r);
}

static bool
wrong_cookie (Request *r)
{
  r->cookie ^= 1 << 20;
  return answer_honestly (r);
}

static bool
garbage (Request *r)
{
  static const char text[64] = "HTTP/1.1 400 Bad Request\r\n\r\n";
  return put (r->fd, text, sizeof text);
}

static bool
io_error (Request *r)
{
  return r->offset < SIZE / 2 ? answer_honestly (r) : put_error (r, EIO);
}

static bool
silence (Request *r)
{
  return true;
}

static bool
hang_up (Request *r)
{
  return false;
}

static void
test_bad_reads (void)
{
  assert_read_fails (with_gap, TMK_ERR_INVALID, "not at all");
  assert_read_fails (with_repeat, TMK_ERR_INVALID, "twice");
  assert_read_fails (out_of_bounds, TMK_ERR_INVALID, "");
  assert_read_fails (read_nothing, TMK_ERR_INVALID, "not at all");
  assert_read_fails (wrong_cookie, TMK_ERR_INVALID, "");
  assert_read_fails (garbage, TMK_ERR_INVALID, "");
  assert_read_fails (io_error, TMK_ERR_IO, "refused to read 262144 bytes at 4");
}

static void
test_silence (void)
{
  assert_read_fails (silence, TMK_ERR_TIMEOUT, "silent");
}

/* --- block status that lies */

static bool
status_empty_extent (Request *r)
{
  const uint32_t entries[] = { 65536, 0, 0, 3, r->length - 65536, 0 };
  return put_status (r, 1, entries, 3, r->contexts == 1)
         && (r->contexts == 1 || put_status (r, 2, entries, 3, true));
}

static bool
status_beyond (Request *r)
{
  const uint32_t entries[] = { r->length + 65536, 0 };
  return put_status (r, 1, entries, 1, false) && put_status (r, 2, entries, 1, true);
}

static bool
status_one_context (Request *r)
{
  const uint32_t entries[] = { r->length, 0 };
  return put_status (r, 1, entries, 1, true);
}

static bool
status_foreign_context (Request *r)
{
  const uint32_t entries[] = { r->length, 0 };
  return put_status (r, 77, entries, 1, false) && put_status (r, 78, entries, 1, true);
}

static bool
status_no_context (Request *r)
{
  return put_nothing (r);
}

static bool
status_too_much (Request *r)
{
  const uint32_t entries[] = { r->length, 0, 512, 1 };
  return put_status (r, 1, entries, 2, false) && put_status (r, 2, entries, 2, true);
}

static bool
status_error (Request *r)
{
  return put_error (r, EIO);
}

static void
assert_status_fails (Answer on_status, TmkErrorCode code, const char *part)
{
  Server s = { .size = SIZE, .on_status = on_status };
  g_autoptr (TmkError) err = NULL;
  TmkNbdOptions options = quick;
  TmkReadStats stats;
  options.dirty_context = CONTEXT;
  start_server (&s);
  g_assert_false (read_from (&s, &options, &stats, &err));
  assert_error (&err, code, part);
  TmkBlockSource *source = tmk_block_source_open_nbd (s.uri, &options, &err);
  assert_ok (err);
  gint64 begin = g_get_monotonic_time ();
  g_assert_null (tmk_block_source_extents (source, 0, SIZE, &err));
  g_assert_nonnull (strstr (tmk_error_message (err), s.uri));
  assert_error (&err, code, part);
  g_assert_cmpint ((g_get_monotonic_time () - begin) / 1000, <, MAX_MS * slowness ());
  tmk_block_source_free (source);
  end_server (&s);
}

static void
test_bad_status (void)
{
  assert_status_fails (status_empty_extent, TMK_ERR_INVALID, "empty extent");
  assert_status_fails (status_beyond, TMK_ERR_INVALID, "beyond the end");
  assert_status_fails (status_too_much, TMK_ERR_INVALID, "goes on after");
  assert_status_fails (status_one_context, TMK_ERR_INVALID, "does not cover");
  assert_status_fails (status_foreign_context, TMK_ERR_INVALID, "does not cover");
  assert_status_fails (status_no_context, TMK_ERR_INVALID, "does not cover");
  assert_status_fails (status_error, TMK_ERR_IO, "block status");
}

static void
test_status_lost (void)
{
  assert_status_fails (hang_up, TMK_ERR_GONE, "");
  assert_status_fails (silence, TMK_ERR_TIMEOUT, "");
}

/* Each context tells another part, the last extent reaches beyond what was asked for: allowed. */
static bool
status_uneven (Request *r)
{
  uint64_t left = r->server->size - r->offset;
  const uint32_t allocation[] = { (uint32_t) MIN (left, 300000), 3 };
  const uint32_t dirty[]
      = { (uint32_t) MIN (left, 70000), 1, (uint32_t) MIN (left, 140000) - 70000, 0 };
  return put_status (r, 1, allocation, 1, false)
         && put_status (r, 2, dirty, r->length > 70000 ? 2 : 1, true);
}

static void
test_uneven (void)
{
  Server s = { .size = SIZE, .on_status = status_uneven };
  g_autoptr (TmkError) err = NULL;
  TmkNbdOptions options = { .dirty_context = CONTEXT };
  start_server (&s);
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_nbd (s.uri, &options, &err);
  assert_ok (err);
  g_assert_true (tmk_block_source_has_dirty (source));
  const uint64_t ranges[][2] = { { 0, SIZE }, { 100, 1000 }, { 69999, 2 }, { SIZE - 1, 1 } };
  for (size_t i = 0; i < G_N_ELEMENTS (ranges); i++) {
    g_autoptr (TmkBlockExtents) extents
        = tmk_block_source_extents (source, ranges[i][0], ranges[i][1], &err);
    assert_ok (err);
    assert_covers (extents, ranges[i][0], ranges[i][1]);
    g_assert_cmpuint (extents->extents[0].flags & TMK_EXTENT_ZERO, !=, 0);
    g_assert_cmpuint (extents->extents[0].flags & TMK_EXTENT_DIRTY, !=, 0);
  }
  TmkReadStats stats;
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  g_assert_cmpuint (stats.zero, ==, SIZE);
  g_assert_cmpuint (s.reads, ==, 0);
  tmk_block_source_free (g_steal_pointer (&source));
  end_server (&s);
}

/* --- large maps */

/* Every other 64 KiB is dirty; all of it is a hole. */
static bool
status_checkered (Request *r)
{
  unsigned n = r->length / 65536;
  g_autofree uint32_t *dirty = g_new (uint32_t, 2 * n);
  for (unsigned i = 0; i < n; i++) {
    dirty[2 * i] = 65536;
    dirty[2 * i + 1] = (i + (unsigned) (r->offset / 65536)) % 2;
  }
  const uint32_t hole[] = { r->length, 3 };
  return put_status (r, 1, hole, 1, false) && put_status (r, 2, dirty, n, true);
}

static void
test_large_map (void)
{
  const uint64_t size = UINT64_C (64) << 30; /* a million extents */
  Server s = { .size = size, .on_status = status_checkered };
  g_autoptr (TmkError) err = NULL;
  TmkNbdOptions options = { .dirty_context = CONTEXT };
  start_server (&s);
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_nbd (s.uri, &options, &err);
  assert_ok (err);
  g_autoptr (TmkBlockExtents) extents = tmk_block_source_extents (source, 0, size, &err);
  assert_ok (err);
  assert_covers (extents, 0, size);
  g_assert_cmpuint (extents->n_extents, ==, size / 65536);
  TmkReadStats stats;
  TmkReadOptions dirty = { .only_dirty = true };
  gint64 begin = g_get_monotonic_time ();
  g_assert_true (read_image (source, &dirty, NULL, &stats, &err));
  g_assert_cmpuint (stats.zero, ==, size / 2);
  /* Widened to 128 KiB everything is touched. */
  dirty.align = 131072;
  g_assert_true (read_image (source, &dirty, NULL, &stats, &err));
  g_assert_cmpuint (stats.zero, ==, size);
  /* No window is waited for: that would take a second each. */
  g_assert_cmpint ((g_get_monotonic_time () - begin) / 1000, <, 4000 * slowness ());
  tmk_block_source_free (g_steal_pointer (&source));
  end_server (&s);
}

/* --- lost connections */

/* Each connection serves some reads and hangs up. */
static bool
some_reads (Request *r)
{
  return r->server->reads % 7 != 0 && answer_honestly (r);
}

static void
test_flapping (void)
{
  for (int multi = 0; multi < 2; multi++) {
    Server s = { .size = SIZE, .on_read = some_reads, .multi_conn = multi };
    TmkReadStats stats;
    start_server (&s);
    assert_reads (&s, &quick, &stats);
    g_assert_cmpuint (stats.reconnects, >, 2);
    end_server (&s);
  }
}

static bool
only_first_reads (Request *r)
{
  return r->offset < SIZE / 2 && answer_honestly (r);
}

/* It falls over the same request every time. */
static void
test_poison (void)
{
  assert_read_fails (only_first_reads, TMK_ERR_GONE, "");
  assert_read_fails (hang_up, TMK_ERR_GONE, "");
}

static bool
first_time (Request *r)
{
  return r->serial == 1;
}

static void
test_bound (void)
{
  Server s = { .size = SIZE, .on_connect = first_time, .on_read = only_first_reads };
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_server (&s);
  g_assert_false (read_from (&s, &quick, &stats, &err));
  g_assert_nonnull (tmk_error_hint (err));
  assert_error (&err, TMK_ERR_GONE, "no new connection in 0.8 s");
  g_assert_cmpuint (s.connections, >, 2);
  end_server (&s);
}

static void
test_no_reconnect (void)
{
  for (int writable = 0; writable < 2; writable++) {
    Server s = { .size = SIZE, .writable = writable, .on_read = some_reads };
    g_autoptr (TmkError) err = NULL;
    TmkNbdOptions options = quick;
    TmkReadStats stats;
    options.no_reconnect = !writable;
    start_server (&s);
    g_assert_false (read_from (&s, &options, &stats, &err));
    assert_error (&err, TMK_ERR_GONE, "");
    g_assert_cmpuint (s.connections, ==, 1);
    end_server (&s);
  }
}

static bool
grow (Request *r)
{
  r->server->size = r->serial == 1 ? SIZE : SIZE + 512;
  return true;
}

static void
test_other_size (void)
{
  Server s = { .size = SIZE, .on_connect = grow, .on_read = some_reads };
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_server (&s);
  g_assert_false (read_from (&s, &quick, &stats, &err));
  assert_error (&err, TMK_ERR_MISMATCH, "8388608 bytes, and 8389120 on a new connection");
  end_server (&s);
}

static bool
shutting_down (Request *r)
{
  return r->serial == 1 ? put_error (r, 108) : answer_honestly (r);
}

static void
test_shutdown (void)
{
  Server s = { .size = SIZE, .on_read = shutting_down };
  TmkReadStats stats;
  start_server (&s);
  assert_reads (&s, &quick, &stats);
  g_assert_cmpuint (stats.reconnects, ==, 1);
  end_server (&s);
}

/* Hung up on between calls, with nothing under way. */
static bool
status_then_end (Request *r)
{
  (void) status_honestly (r);
  return r->serial > 1;
}

static void
test_idle_loss (void)
{
  Server s = { .size = SIZE, .on_status = status_then_end };
  g_autoptr (TmkError) err = NULL;
  start_server (&s);
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_nbd (s.uri, &quick, &err);
  assert_ok (err);
  for (int i = 0; i < 3; i++) {
    TmkBlockExtents *extents = tmk_block_source_extents (source, 0, SIZE, &err);
    assert_ok (err);
    tmk_block_extents_free (extents);
    g_usleep (20000);
  }
  TmkReadStats stats;
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  tmk_block_source_free (g_steal_pointer (&source));
  end_server (&s);
}

/* --- opening */

static bool
say_ssh (Request *r)
{
  put (r->fd, "SSH-2.0-OpenSSH_9.2\r\n", 21);
  return false;
}

static void
test_open (void)
{
  g_autoptr (TmkError) err = NULL;
  Server s = { .size = SIZE, .on_connect = say_ssh };
  start_server (&s);
  g_assert_null (tmk_block_source_open_nbd (s.uri, &quick, &err));
  g_assert_nonnull (strstr (tmk_error_message (err), s.uri));
  g_clear_pointer (&err, tmk_error_free);
  s.on_connect = silence;
  end_server (&s);

  const struct {
    const char *uri;
    TmkErrorCode code;
  } bad[] = {
    { "", TMK_ERR_INVALID },
    { "nonsense", TMK_ERR_INVALID },
    { "http://localhost/", TMK_ERR_INVALID },
    { "nbd+unix:///x", TMK_ERR_INVALID },
    { "nbd+unix:///x?socket=/nonexistent/socket", TMK_ERR_NOT_FOUND },
    { "nbd://127.0.0.1:1/", TMK_ERR_GONE },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_null (tmk_block_source_open_nbd (bad[i].uri, &quick, &err));
    g_test_message ("%s", tmk_error_message (err));
    assert_error (&err, bad[i].code, bad[i].uri);
  }
  g_assert_null (
      tmk_block_source_open_nbd ("nbd://x", &(TmkNbdOptions){ .request_size = 5000 }, &err));
  assert_error (&err, TMK_ERR_USAGE, "power of two");
  g_assert_null (
      tmk_block_source_open_nbd ("nbd://x", &(TmkNbdOptions){ .connections = 17 }, &err));
  assert_error (&err, TMK_ERR_USAGE, "17");
}

static bool
never_greet (Request *r)
{
  char byte;
  return get (r->fd, &byte, 1);
}

static void
test_not_greeted (void)
{
  Server s = { .size = SIZE, .on_connect = never_greet };
  g_autoptr (TmkError) err = NULL;
  TmkNbdOptions options = { .connect_timeout_ms = 200 };
  start_server (&s);
  g_assert_null (tmk_block_source_open_nbd (s.uri, &options, &err));
  assert_error (&err, TMK_ERR_TIMEOUT, "did not let us in");
  end_server (&s);
}

/* --- cancelling */

static void *
cancel_soon (void *data)
{
  g_usleep (100000);
  g_assert_cmpint (eventfd_write (*(int *) data, 1), ==, 0);
  return NULL;
}

static void
test_cancel (void)
{
  Server s = { .size = SIZE, .on_connect = never_greet };
  g_autoptr (TmkError) err = NULL;
  int fd = eventfd (0, EFD_CLOEXEC);
  TmkNbdOptions options = { .cancel_fd = fd };
  pthread_t thread;
  TmkReadStats stats;
  gint64 begin = g_get_monotonic_time ();
  start_server (&s);
  g_assert_cmpint (pthread_create (&thread, NULL, cancel_soon, &fd), ==, 0);
  g_assert_null (tmk_block_source_open_nbd (s.uri, &options, &err)); /* while connecting */
  assert_error (&err, TMK_ERR_CANCELLED, s.uri);
  pthread_join (thread, NULL);
  end_server (&s);

  for (int stage = 0; stage < 3; stage++) { /* while asking, reading, waiting to connect again */
    eventfd_t value;
    g_assert_cmpint (eventfd_read (fd, &value), ==, 0);
    s = (Server){ .size = SIZE,
                  .on_status = stage == 0 ? silence : NULL,
                  .on_read = stage == 2 ? hang_up : silence,
                  .on_connect = stage == 2 ? first_time : NULL };
    start_server (&s);
    TmkBlockSource *source = tmk_block_source_open_nbd (s.uri, &options, &err);
    assert_ok (err);
    g_assert_cmpint (pthread_create (&thread, NULL, cancel_soon, &fd), ==, 0);
    if (stage == 0)
      g_assert_null (tmk_block_source_extents (source, 0, SIZE, &err));
    else
      g_assert_false (read_image (source, NULL, NULL, &stats, &err));
    assert_error (&err, TMK_ERR_CANCELLED, s.uri);
    pthread_join (thread, NULL);
    tmk_block_source_free (source);
    end_server (&s);
  }
  g_assert_cmpint ((g_get_monotonic_time () - begin) / 1000, <, MAX_MS * slowness ());
  close (fd);
}

static void *
cancel_reader_soon (void *reader)
{
  g_usleep (50000);
  tmk_block_reader_cancel (reader);
  return NULL;
}

static void
test_cancel_reader (void)
{
  Server s = { .size = SIZE, .on_read = silence };
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_server (&s);
  g_autoptr (TmkBlockSource) source = tmk_block_source_open_nbd (s.uri, NULL, &err);
  assert_ok (err);
  TmkBlockReader *reader = tmk_block_source_reader (source, NULL, &err);
  pthread_t thread;
  g_assert_cmpint (pthread_create (&thread, NULL, cancel_reader_soon, reader), ==, 0);
  g_assert_false (drain (source, reader, NULL, &stats, &err));
  assert_error (&err, TMK_ERR_CANCELLED, s.uri);
  pthread_join (thread, NULL);
  tmk_block_reader_free (reader);

  /* The only connection is the reader's. */
  reader = tmk_block_source_reader (source, NULL, &err);
  assert_ok (err);
  g_assert_null (tmk_block_source_extents (source, 0, SIZE, &err));
  assert_error (&err, TMK_ERR_BUSY, "in use");
  g_assert_null (tmk_block_source_reader (source, NULL, &err));
  assert_error (&err, TMK_ERR_BUSY, "in use");
  tmk_block_reader_free (reader); /* with reads under way */
  tmk_block_source_free (g_steal_pointer (&source));
  end_server (&s);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/blk/peers/plain", test_plain);
  g_test_add_func ("/blk/peers/no-structured", test_no_structured);
  g_test_add_func ("/blk/peers/no-context", test_no_context);
  g_test_add_func ("/blk/peers/multi-conn", test_multi_conn);
  g_test_add_func ("/blk/peers/no-second", test_no_second);
  g_test_add_func ("/blk/peers/chunks", test_chunks);
  g_test_add_func ("/blk/peers/holes", test_holes);
  g_test_add_func ("/blk/peers/empty", test_empty);
  g_test_add_func ("/blk/peers/bad-reads", test_bad_reads);
  g_test_add_func ("/blk/peers/silence", test_silence);
  g_test_add_func ("/blk/peers/bad-status", test_bad_status);
  g_test_add_func ("/blk/peers/status-lost", test_status_lost);
  g_test_add_func ("/blk/peers/uneven", test_uneven);
  g_test_add_func ("/blk/peers/large-map", test_large_map);
  g_test_add_func ("/blk/peers/flapping", test_flapping);
  g_test_add_func ("/blk/peers/poison", test_poison);
  g_test_add_func ("/blk/peers/bound", test_bound);
  g_test_add_func ("/blk/peers/no-reconnect", test_no_reconnect);
  g_test_add_func ("/blk/peers/other-size", test_other_size);
  g_test_add_func ("/blk/peers/shutdown", test_shutdown);
  g_test_add_func ("/blk/peers/idle-loss", test_idle_loss);
  g_test_add_func ("/blk/peers/open", test_open);
  g_test_add_func ("/blk/peers/not-greeted", test_not_greeted);
  g_test_add_func ("/blk/peers/cancel", test_cancel);
  g_test_add_func ("/blk/peers/cancel-reader", test_cancel_reader);
  return g_test_run ();
}
