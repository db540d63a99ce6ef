/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves, against the servers there are (qemu-nbd, nbdkit): content is equal, extents are those
 * that nbdinfo tells, exactly what is dirty is read, errors and restarts of a server are handled,
 * over unix sockets, TCP and TLS; and what an NBD sink writes is there. */
#include "blk/sink.h"
#include "blk/source.h"
#include "test-blk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#define MIB (UINT64_C (1) << 20)

/* --- servers */

typedef struct {
  char *folder, *socket, *uri;
  GPid pid;
} Peer;

static bool
prepare (Peer *peer, const char *program)
{
  *peer = (Peer){ 0 };
  if (!have_program (program))
    return false;
  peer->folder = make_folder ();
  peer->socket = g_build_filename (peer->folder, "nbd", NULL);
  peer->uri = g_strdup_printf ("nbd+unix:///?socket=%s", peer->socket);
  return true;
}

/* `options` may have one %s, the folder, any number of times. */
static void
start_peer (Peer *peer, const char *options)
{
  g_auto (GStrv) parts = g_strsplit (options, "%s", -1);
  g_autofree char *command = g_strjoinv (peer->folder, parts);
  if (peer->pid != 0)
    end_process (peer->pid);
  g_unlink (peer->socket);
  peer->pid = start_process (command);
  wait_for_server (peer->socket);
}

static void
end_peer (Peer *peer)
{
  if (peer->pid != 0)
    end_process (peer->pid);
  remove_folder (peer->folder);
  g_free (peer->folder);
  g_free (peer->socket);
  g_free (peer->uri);
}

#define NBDKIT "nbdkit -f --exit-with-parent -U %s/nbd "

static void
run_in (Peer *peer, const char *command)
{
  g_auto (GStrv) parts = g_strsplit (command, "%s", -1);
  g_autofree char *whole = g_strjoinv (peer->folder, parts);
  g_free (run_process (whole));
}

static TmkBlockSource *
open_peer (Peer *peer, const TmkNbdOptions *options)
{
  g_autoptr (TmkError) err = NULL;
  TmkBlockSource *source = tmk_block_source_open_nbd (peer->uri, options, &err);
  /* qemu-nbd makes its socket before it listens. */
  for (int i = 0; i < 100 && source == NULL && tmk_error_code (err) == TMK_ERR_GONE; i++) {
    g_clear_pointer (&err, tmk_error_free);
    g_usleep (20000);
    source = tmk_block_source_open_nbd (peer->uri, options, &err);
  }
  assert_ok (err);
  return source;
}

/* --- maps */

/* What nbdinfo tells of a context, as extents with `bit` where its type has one of `bits`. */
static TmkBlockExtents *
ask_nbdinfo (Peer *peer, const char *context, const unsigned flags[4])
{
  g_autofree char *command = g_strdup_printf ("nbdinfo --map=%s '%s'", context, peer->uri);
  g_autofree char *text = run_process (command);
  g_auto (GStrv) lines = g_strsplit (g_strchomp (text), "\n", -1);
  GArray *array = g_array_new (FALSE, FALSE, sizeof (TmkBlockExtent));
  for (int i = 0; lines[i] != NULL; i++) {
    TmkBlockExtent e;
    unsigned type;
    g_assert_cmpint (sscanf (lines[i], "%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %u", &e.offset,
                             &e.length, &type),
                     ==, 3);
    e.flags = flags[type & 3];
    g_array_append_val (array, e);
  }
  TmkBlockExtents *extents = g_new0 (TmkBlockExtents, 1);
  extents->n_extents = array->len;
  extents->extents = (TmkBlockExtent *) g_array_free (array, FALSE);
  return extents;
}

static unsigned
flags_at (const TmkBlockExtents *extents, uint64_t offset, size_t *i)
{
  while (extents->extents[*i].offset + extents->extents[*i].length <= offset)
    ++*i;
  return extents->extents[*i].flags;
}

/* `ours` is the union of the others, which nbdinfo told. */
static void
assert_maps_equal (const TmkBlockExtents *ours, const TmkBlockExtents *a, const TmkBlockExtents *b,
                   uint64_t size)
{
  size_t i = 0, j = 0, k = 0;
  assert_covers (ours, 0, size);
  for (uint64_t at = 0; at < size; at += 512) {
    unsigned flags = flags_at (a, at, &j) | (b != NULL ? flags_at (b, at, &k) : 0);
    if (flags_at (ours, at, &i) != flags)
      g_error ("at %" G_GUINT64_FORMAT ": %u is not %u", at, flags_at (ours, at, &i), flags);
  }
}

static const unsigned allocation_flags[]
    = { 0, TMK_EXTENT_HOLE, TMK_EXTENT_ZERO, TMK_EXTENT_HOLE | TMK_EXTENT_ZERO };
static const unsigned dirty_flags[] = { 0, TMK_EXTENT_DIRTY, 0, TMK_EXTENT_DIRTY };

/* --- content */

/* A 64 MiB qcow2 with data, zeroes and holes, bitmap b, and then changes of all kinds. */
static void
make_disk (Peer *peer)
{
  run_in (peer, "qemu-img create -q -f qcow2 %s/disk 64M");
  run_in (peer,
          "qemu-io -f qcow2 -c 'write -P 1 0 9M' -c 'write -P 2 20M 333k' -c 'write -z 3M 1M' "
          "-c 'write -P 3 63M 1M' %s/disk");
  run_in (peer, "qemu-img bitmap --add -f qcow2 %s/disk b");
  run_in (peer, "qemu-io -f qcow2 -c 'write -P 4 1M 5k' -c 'write -z 5M 128k' -c 'discard 7M 1M' "
                "-c 'write -P 5 40000k 1' -c 'write -P 6 63M 64k' %s/disk");
  run_in (peer, "qemu-img convert -f qcow2 -O raw %s/disk %s/raw");
}

static guint8 *
load (Peer *peer, const char *name, uint64_t size)
{
  g_autofree char *path = g_build_filename (peer->folder, name, NULL);
  char *bytes;
  gsize length;
  g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
  g_assert_cmpuint (length, ==, size);
  return (guint8 *) bytes;
}

static void
test_qemu_nbd (void)
{
  Peer peer;
  if (!have_program ("qemu-img") || !have_program ("nbdinfo") || !prepare (&peer, "qemu-nbd"))
    return;
  const uint64_t size = 64 * MIB;
  const TmkNbdOptions options = { .dirty_context = "qemu:dirty-bitmap:b" };
  g_autoptr (TmkError) err = NULL;
  make_disk (&peer);
  g_autofree guint8 *raw = load (&peer, "raw", size);
  g_autofree guint8 *got = g_malloc (size);
  start_peer (&peer, "qemu-nbd -r -t -e 8 -f qcow2 -B b -k %s/nbd %s/disk");
  TmkBlockSource *source = open_peer (&peer, &options);
  g_assert_cmpuint (tmk_block_source_size (source), ==, size);

  g_autoptr (TmkBlockExtents) extents = tmk_block_source_extents (source, 0, size, &err);
  assert_ok (err);
  g_autoptr (TmkBlockExtents) allocation = ask_nbdinfo (&peer, "base:allocation", allocation_flags);
  g_autoptr (TmkBlockExtents) dirty = ask_nbdinfo (&peer, options.dirty_context, dirty_flags);
  assert_maps_equal (extents, allocation, dirty, size);

  TmkReadStats stats;
  uint64_t dirty_bytes = 0, data_bytes = 0;
  for (size_t i = 0; i < extents->n_extents; i++) {
    const TmkBlockExtent *e = &extents->extents[i];
    dirty_bytes += (e->flags & TMK_EXTENT_DIRTY) != 0 ? e->length : 0;
    data_bytes += (e->flags & TMK_EXTENT_ZERO) == 0 ? e->length : 0;
  }
  g_assert_true (read_image (source, NULL, got, &stats, &err));
  g_assert_cmpmem (got, size, raw, size);
  g_assert_cmpuint (stats.read, ==, data_bytes);

  /* What is dirty, no byte more; the same from a list. */
  for (int listed = 0; listed < 2; listed++) {
    TmkReadOptions only = { .only_dirty = true, .extents = listed ? extents : NULL };
    g_assert_true (read_image (source, &only, got, &stats, &err));
    g_assert_cmpuint (stats.read + stats.zero, ==, dirty_bytes);
    for (size_t i = 0; i < extents->n_extents; i++) {
      const TmkBlockExtent *e = &extents->extents[i];
      if ((e->flags & TMK_EXTENT_DIRTY) != 0)
        g_assert_cmpmem (got + e->offset, e->length, raw + e->offset, e->length);
      else
        g_assert_cmpuint (got[e->offset], ==, 0xee);
    }
  }

  /* In larger and smaller pieces. */
  for (unsigned request = 4096; request <= 8 << 20; request *= 64) {
    tmk_block_source_free (source);
    source = open_peer (&peer, &(TmkNbdOptions){ .request_size = request, .connections = 3 });
    TmkReadOptions aligned = { .align = request, .buffers = 3 };
    g_assert_true (read_image (source, &aligned, got, &stats, &err));
    g_assert_cmpmem (got, size, raw, size);
  }
  tmk_block_source_free (source);

  /* A server for one client. */
  start_peer (&peer, "qemu-nbd -r -t -f qcow2 -k %s/nbd %s/disk");
  source = open_peer (&peer, NULL);
  g_assert_true (read_image (source, NULL, got, &stats, &err));
  g_assert_cmpmem (got, size, raw, size);
  tmk_block_source_free (source);
  end_peer (&peer);
}

/* Several threads on one reader. */
typedef struct {
  TmkBlockReader *reader;
  guint8 *image;
} Share;

static void *
consume (void *data)
{
  Share *share = data;
  const TmkBlockPiece *piece;
  g_autoptr (TmkError) err = NULL;
  while (tmk_block_reader_next (share->reader, &piece, &err) && piece != NULL) {
    if (piece->data != NULL)
      memcpy (share->image + piece->offset, piece->data, piece->length);
    else
      memset (share->image + piece->offset, 0, piece->length);
    tmk_block_reader_release (share->reader, piece);
  }
  assert_ok (err);
  return NULL;
}

static void
test_threads (void)
{
  Peer peer;
  if (!have_program ("qemu-img") || !prepare (&peer, "qemu-nbd"))
    return;
  const uint64_t size = 64 * MIB;
  g_autoptr (TmkError) err = NULL;
  make_disk (&peer);
  g_autofree guint8 *raw = load (&peer, "raw", size);
  g_autofree guint8 *got = g_malloc (size);
  memset (got, 0xee, size);
  start_peer (&peer, "qemu-nbd -r -t -e 8 -f qcow2 -k %s/nbd %s/disk");
  TmkBlockSource *source = open_peer (&peer, &(TmkNbdOptions){ .request_size = 65536 });
  Share share = { tmk_block_source_reader (source, NULL, &err), got };
  assert_ok (err);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    g_assert_cmpint (pthread_create (&threads[i], NULL, consume, &share), ==, 0);
  for (int i = 0; i < 20; i++) { /* and others ask meanwhile */
    TmkBlockExtents *extents = tmk_block_source_extents (source, 0, size, &err);
    assert_ok (err);
    tmk_block_extents_free (extents);
  }
  for (int i = 0; i < 4; i++)
    pthread_join (threads[i], NULL);
  g_assert_cmpmem (got, size, raw, size);
  tmk_block_reader_free (share.reader);
  tmk_block_source_free (source);
  end_peer (&peer);
}

/* 20 GiB: block status in many requests. */
static void
test_large (void)
{
  Peer peer;
  if (!have_program ("qemu-img") || !have_program ("nbdinfo") || !prepare (&peer, "qemu-nbd"))
    return;
  const uint64_t size = 20 << 10;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  run_in (&peer, "qemu-img create -q -f qcow2 %s/disk 20G");
  run_in (&peer, "qemu-io -f qcow2 -c 'write -P 1 4095M 2M' -c 'write -P 2 20479M 1M' %s/disk");
  start_peer (&peer, "qemu-nbd -r -t -e 8 -f qcow2 -k %s/nbd %s/disk");
  TmkBlockSource *source = open_peer (&peer, NULL);
  TmkBlockExtents *extents = tmk_block_source_extents (source, 0, size * MIB, &err);
  assert_ok (err);
  assert_covers (extents, 0, size * MIB);
  g_assert_cmpuint (extents->n_extents, ==, 4);
  g_assert_cmpuint (extents->extents[1].offset, ==, 4095 * MIB);
  g_assert_cmpuint (extents->extents[1].length, ==, 2 * MIB);
  tmk_block_extents_free (extents);
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  g_assert_cmpuint (stats.read, ==, 3 * MIB);
  g_assert_cmpuint (stats.zero, ==, (size - 3) * MIB);
  tmk_block_source_free (source);
  end_peer (&peer);
}

/* --- nbdkit */

static void
test_block_sizes (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_peer (&peer, NBDKIT "-r --filter=blocksize-policy sparse-random 32M percent=50 "
                            "blocksize-minimum=4096 blocksize-preferred=4096 "
                            "blocksize-maximum=128k blocksize-error-policy=error");
  TmkBlockSource *source = open_peer (&peer, NULL);
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  g_assert_cmpuint (stats.read + stats.zero, ==, 32 * MIB);
  TmkBlockExtents *extents = tmk_block_source_extents (source, 5, 100000, &err);
  assert_ok (err);
  assert_covers (extents, 5, 100000);
  tmk_block_extents_free (extents);
  tmk_block_source_free (source);
  end_peer (&peer);
}

static void
test_delay (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_peer (&peer, NBDKIT "-r --filter=delay pattern 4M rdelay=20ms delay-open=50ms");
  TmkBlockSource *source = open_peer (&peer, NULL);
  g_autofree guint8 *got = g_malloc (4 * MIB);
  g_assert_true (read_image (source, NULL, got, &stats, &err));
  for (uint64_t i = 0; i < 4 * MIB; i += 8) { /* the plugin's pattern: each offset, big-endian */
    uint64_t be;
    memcpy (&be, got + i, 8);
    g_assert_cmpuint (GUINT64_FROM_BE (be), ==, i);
  }
  tmk_block_source_free (source);
  end_peer (&peer);
}

static void
test_errors (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_peer (&peer, NBDKIT "-r --filter=error pattern 4M error=EIO error-pread-rate=100%");
  TmkBlockSource *source = open_peer (&peer, NULL);
  g_assert_false (read_image (source, NULL, NULL, &stats, &err));
  g_assert_nonnull (strstr (tmk_error_message (err), peer.uri));
  assert_error (&err, TMK_ERR_IO, "refused to read");
  tmk_block_source_free (source);
  start_peer (&peer, NBDKIT "-r --filter=error memory 4M error=EIO error-extents-rate=100%");
  source = open_peer (&peer, NULL);
  g_assert_null (tmk_block_source_extents (source, 0, 4096, &err));
  assert_error (&err, TMK_ERR_IO, "block status");
  tmk_block_source_free (source);
  g_assert_null (tmk_block_source_open_nbd (
      peer.uri, &(TmkNbdOptions){ .dirty_context = "qemu:dirty-bitmap:none" }, &err));
  assert_error (&err, TMK_ERR_NOT_FOUND, "qemu:dirty-bitmap:none");
  end_peer (&peer);
}

static void
test_old_server (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_peer (&peer, NBDKIT "-r --no-sr pattern 4M");
  TmkBlockSource *source = open_peer (&peer, NULL);
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  g_assert_cmpuint (stats.read, ==, 4 * MIB);
  tmk_block_source_free (source);
  start_peer (&peer, NBDKIT "-r -o pattern 4M");
  source = open_peer (&peer, NULL);
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  g_assert_cmpuint (stats.read, ==, 4 * MIB);
  tmk_block_source_free (source);
  end_peer (&peer);
}

#define RESTARTED NBDKIT "-r --filter=delay pattern 16M rdelay=5ms"

static void
test_restart (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  g_autofree guint8 *got = g_malloc0 (16 * MIB);
  TmkReadStats stats;
  const TmkNbdOptions options = { .request_size = 65536, .reconnect_ms = 10000 };
  start_peer (&peer, RESTARTED);
  TmkBlockSource *source = open_peer (&peer, &options);
  TmkBlockReader *reader = tmk_block_source_reader (source, NULL, &err);
  assert_ok (err);
  const TmkBlockPiece *piece;
  uint64_t sum = 0;
  for (int n = 0; tmk_block_reader_next (reader, &piece, &err) && piece != NULL; n++) {
    memcpy (got + piece->offset, piece->data, piece->length);
    sum += piece->length;
    tmk_block_reader_release (reader, piece);
    if (n == 50 || n == 150)
      start_peer (&peer, RESTARTED); /* kill -9, and another one in its place */
  }
  assert_ok (err);
  g_assert_cmpuint (sum, ==, 16 * MIB);
  tmk_block_reader_stats (reader, &stats);
  g_assert_cmpuint (stats.reconnects, >=, 2);
  for (uint64_t i = 0; i < 16 * MIB; i += 8) {
    uint64_t be;
    memcpy (&be, got + i, 8);
    g_assert_cmpuint (GUINT64_FROM_BE (be), ==, i);
  }
  tmk_block_reader_free (reader);

  /* Restarted with another size. */
  start_peer (&peer, NBDKIT "-r pattern 17M");
  g_assert_false (read_image (source, NULL, NULL, &stats, &err));
  assert_error (&err, TMK_ERR_MISMATCH, "17825792");
  tmk_block_source_free (source);
  end_peer (&peer);
}

static void
test_gone (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  start_peer (&peer, RESTARTED);
  TmkBlockSource *source = open_peer (&peer, &(TmkNbdOptions){ .reconnect_ms = 300 });
  TmkBlockReader *reader = tmk_block_source_reader (source, NULL, &err);
  end_process (peer.pid);
  peer.pid = 0;
  gint64 begin = g_get_monotonic_time ();
  g_assert_false (drain (source, reader, NULL, &stats, &err));
  assert_error (&err, TMK_ERR_GONE, peer.uri);
  g_assert_cmpint ((g_get_monotonic_time () - begin) / 1000, <, 5000 * slowness ());
  tmk_block_reader_free (reader);
  g_assert_null (tmk_block_source_extents (source, 0, 4096, &err));
  assert_error (&err, TMK_ERR_GONE, peer.uri);
  tmk_block_source_free (source);
  end_peer (&peer);
}

/* --- TCP, TLS */

static unsigned
free_port (void)
{
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t length = sizeof sin;
  g_assert_cmpint (bind (fd, (struct sockaddr *) &sin, length), ==, 0);
  g_assert_cmpint (getsockname (fd, (struct sockaddr *) &sin, &length), ==, 0);
  close (fd);
  return ntohs (sin.sin_port);
}

static void
test_tcp (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  unsigned port = free_port ();
  g_autofree char *command
      = g_strdup_printf ("nbdkit -f --exit-with-parent -r -i 127.0.0.1 -p %u pattern 16M", port);
  g_free (peer.uri);
  peer.uri = g_strdup_printf ("nbd://127.0.0.1:%u/", port);
  peer.pid = start_process (command);
  TmkBlockSource *source = open_peer (&peer, NULL);
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  g_assert_cmpuint (stats.read, ==, 16 * MIB);
  tmk_block_source_free (source);
  end_peer (&peer);
}

static bool
have_tls (void)
{
  struct nbd_handle *nbd = nbd_create ();
  bool ours = nbd_supports_tls (nbd) > 0;
  nbd_close (nbd);
  g_autofree char *config = run_process ("nbdkit --dump-config");
  bool ok = ours && strstr (config, "tls=yes") != NULL;
  if (!ok)
    g_test_skip ("libnbd or nbdkit has no TLS");
  return ok;
}

static void
test_psk (void)
{
  Peer peer;
  if (!have_program ("nbdkit") || !have_tls () || !prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  g_autofree char *keys = g_build_filename (peer.folder, "keys", NULL);
  g_autofree char *wrong = g_build_filename (peer.folder, "wrong", NULL);
  g_autofree char *secure = g_strdup_printf ("nbds+unix:///?socket=%s", peer.socket);
  g_file_set_contents (keys, "alice:00112233445566778899aabbccddeeff\n", -1, NULL);
  g_file_set_contents (wrong, "alice:ff112233445566778899aabbccddeeff\n", -1, NULL);
  start_peer (&peer, NBDKIT "-r --tls=require --tls-psk=%s/keys pattern 4M");

  /* The scheme of the URI does not matter once there are keys. */
  const TmkNbdOptions right = { .tls_psk_file = keys, .tls_user = "alice" };
  for (int i = 0; i < 2; i++) {
    TmkBlockSource *source = tmk_block_source_open_nbd (i == 0 ? peer.uri : secure, &right, &err);
    assert_ok (err);
    g_assert_true (read_image (source, NULL, NULL, &stats, &err));
    g_assert_cmpuint (stats.read, ==, 4 * MIB);
    tmk_block_source_free (source);
  }
  const TmkNbdOptions bad[] = { { .tls_psk_file = wrong, .tls_user = "alice" }, { 0 } };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_null (tmk_block_source_open_nbd (peer.uri, &bad[i], &err));
    g_test_message ("%s", tmk_error_message (err));
    assert_error (&err, TMK_ERR_DENIED, peer.uri);
  }

  g_assert_null (tmk_block_source_open_nbd (
      peer.uri, &(TmkNbdOptions){ .tls_psk_file = keys, .tls_user = "bob" }, &err));
  assert_error (&err, TMK_ERR_INVALID, "bob");

  /* Never in the clear with a server that has no TLS. */
  start_peer (&peer, NBDKIT "-r pattern 4M");
  g_assert_null (tmk_block_source_open_nbd (peer.uri, &right, &err));
  g_test_message ("%s", tmk_error_message (err));
  assert_error (&err, TMK_ERR_DENIED, peer.uri);
  end_peer (&peer);
}

static void
test_certificates (void)
{
  Peer peer;
  if (!have_program ("openssl") || !have_program ("nbdkit") || !have_tls ()
      || !prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  run_in (&peer, "mkdir %s/pki %s/other");
  run_in (&peer, "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -days 2 "
                 "-keyout %s/ca.key -out %s/pki/ca-cert.pem");
  run_in (&peer, "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -days 2 "
                 "-keyout %s/other.key -out %s/other/ca-cert.pem");
  run_in (&peer, "openssl req -newkey rsa:2048 -nodes -subj /CN=localhost "
                 "-keyout %s/pki/server-key.pem -out %s/server.csr");
  run_in (&peer, "openssl x509 -req -in %s/server.csr -CA %s/pki/ca-cert.pem -CAkey %s/ca.key "
                 "-CAcreateserial -days 2 -out %s/pki/server-cert.pem");
  unsigned port = free_port ();
  g_autofree char *command
      = g_strdup_printf ("nbdkit -f --exit-with-parent -r -i 127.0.0.1 -p %u --tls=require "
                         "--tls-certificates=%s/pki pattern 4M",
                         port, peer.folder);
  g_free (peer.uri);
  peer.uri = g_strdup_printf ("nbds://localhost:%u/", port);
  peer.pid = start_process (command);
  g_autofree char *good = g_build_filename (peer.folder, "pki", NULL);
  g_autofree char *other = g_build_filename (peer.folder, "other", NULL);
  TmkBlockSource *source = open_peer (&peer, &(TmkNbdOptions){ .tls_certificates = good });
  g_assert_true (read_image (source, NULL, NULL, &stats, &err));
  tmk_block_source_free (source);
  g_assert_null (
      tmk_block_source_open_nbd (peer.uri, &(TmkNbdOptions){ .tls_certificates = other }, &err));
  g_test_message ("%s", tmk_error_message (err));
  assert_error (&err, TMK_ERR_DENIED, peer.uri);
  end_peer (&peer);
}

/* --- writing */

static void
test_sink (void)
{
  Peer peer;
  if (!prepare (&peer, "nbdkit"))
    return;
  g_autoptr (TmkError) err = NULL;
  TmkReadStats stats;
  const uint64_t size = 8 * MIB;
  g_autofree guint8 *image = g_malloc0 (size);
  g_autofree guint8 *got = g_malloc (size);
  start_peer (&peer, NBDKIT "memory 8M");
  TmkBlockSink *sink = tmk_block_sink_open_nbd (peer.uri, NULL, &err);
  assert_ok (err);
  g_assert_cmpuint (tmk_block_sink_size (sink), ==, size);
  g_assert_false (tmk_block_sink_is_zero (sink));
  fill_pattern (image, 0, size);
  g_assert_true (tmk_block_sink_write (sink, 0, image, size, &err));
  memset (image + MIB + 5, 0, 2 * MIB);
  g_assert_true (tmk_block_sink_zero (sink, MIB + 5, 2 * MIB, &err));
  g_assert_false (tmk_block_sink_write (sink, size, image, 1, &err));
  assert_error (&err, TMK_ERR_USAGE, "not within");
  g_assert_true (tmk_block_sink_close (sink, &err));
  TmkBlockSource *source = open_peer (&peer, NULL);
  g_assert_true (read_image (source, NULL, got, &stats, &err));
  g_assert_cmpmem (got, size, image, size);
  tmk_block_source_free (source);

  /* No zeroing there: zeroes are written. */
  start_peer (&peer, NBDKIT "--filter=nozero memory 8M");
  sink = tmk_block_sink_open_nbd (peer.uri, NULL, &err);
  assert_ok (err);
  g_assert_true (tmk_block_sink_zero (sink, 5, 2 * MIB, &err));
  g_assert_true (tmk_block_sink_close (sink, &err));

  start_peer (&peer, NBDKIT "-r memory 8M");
  g_assert_null (tmk_block_sink_open_nbd (peer.uri, NULL, &err));
  assert_error (&err, TMK_ERR_DENIED, "read-only");

  start_peer (&peer, NBDKIT "--filter=error memory 8M error-pwrite=ENOSPC "
                            "error-pwrite-rate=100%");
  sink = tmk_block_sink_open_nbd (peer.uri, NULL, &err);
  assert_ok (err);
  g_assert_false (tmk_block_sink_write (sink, 0, image, 4096, &err));
  assert_error (&err, TMK_ERR_NO_SPACE, "refused to write");
  g_assert_true (tmk_block_sink_flush (sink, &err)); /* the connection is good still */
  end_process (peer.pid);
  peer.pid = 0;
  g_assert_false (tmk_block_sink_write (sink, 0, image, 4096, &err));
  g_clear_pointer (&err, tmk_error_free);
  g_assert_false (tmk_block_sink_close (sink, &err));
  g_clear_pointer (&err, tmk_error_free);
  end_peer (&peer);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/blk/nbd/qemu-nbd", test_qemu_nbd);
  g_test_add_func ("/blk/nbd/threads", test_threads);
  g_test_add_func ("/blk/nbd/large", test_large);
  g_test_add_func ("/blk/nbd/block-sizes", test_block_sizes);
  g_test_add_func ("/blk/nbd/delay", test_delay);
  g_test_add_func ("/blk/nbd/errors", test_errors);
  g_test_add_func ("/blk/nbd/old-server", test_old_server);
  g_test_add_func ("/blk/nbd/restart", test_restart);
  g_test_add_func ("/blk/nbd/gone", test_gone);
  g_test_add_func ("/blk/nbd/tcp", test_tcp);
  g_test_add_func ("/blk/nbd/psk", test_psk);
  g_test_add_func ("/blk/nbd/certificates", test_certificates);
  g_test_add_func ("/blk/nbd/sink", test_sink);
  return g_test_run ();
}
