/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: what was committed is read back byte by byte, by the next process too; an object is
 * stored once; a copy that is gone or damaged does not count, and is stored again; a failure at any
 * one operation is reported, and never makes a point of what is not there. */
#include "repo/repo_priv.h"
#include "repo/writer_priv.h"

#include "repo/index_write.h"
#include "repo/record.h"

#define CHUNK (64u << 10)

static Repo *
new_repo (RepoConfig *config, ObjStore *store)
{
  RepoConfig standard;
  repo_config_default (&standard);
  standard.pack_size = 1u << 20;
  g_autoptr (TmkError) err = NULL;
  if (config == NULL)
    config = &standard;
  g_assert_true (repo_create (store, config, &err));
  Repo *repo = repo_open (store, &err);
  g_assert_nonnull (repo);
  return repo;
}

/* Chunk number `n`: `n` % 3 says how well it compresses. */
static void
fill_chunk (unsigned n, unsigned char *chunk)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (n);
  for (unsigned i = 0; i < CHUNK; i += 4) {
    guint32 word = g_rand_int (rand);
    if (n % 3 == 1)
      word &= 0x01010101;
    if (n % 3 == 2)
      word = n;
    memcpy (chunk + i, &word, 4);
  }
}

/* Stores chunks [first, first + n); the number of those that were new. */
static bool
store_chunks (RepoPacker *packer, unsigned first, unsigned n, unsigned *new_ones, TmkError **errp)
{
  g_autofree unsigned char *chunk = g_malloc (CHUNK);
  *new_ones = 0;
  for (unsigned i = first; i < first + n; i++) {
    ObjectId id;
    uint32_t stored;
    fill_chunk (i, chunk);
    repo_packer_hash (packer, OBJECT_CHUNK, chunk, CHUNK, &id);
    if (!repo_packer_store (packer, OBJECT_CHUNK, &id, chunk, CHUNK, &stored, errp))
      return false;
    *new_ones += stored > 0;
  }
  return true;
}

static void
chunk_id (unsigned n, ObjectId *id)
{
  g_autofree unsigned char *chunk = g_malloc (CHUNK);
  fill_chunk (n, chunk);
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256); /* not our own way */
  g_checksum_update (sum, chunk, CHUNK);
  gsize length = sizeof id->bytes;
  g_checksum_get_digest (sum, id->bytes, &length);
}

static bool
read_chunk (RepoReader *reader, unsigned n, TmkError **errp)
{
  g_autofree unsigned char *expected = g_malloc (CHUNK), *chunk = g_malloc (CHUNK);
  ObjectId id;
  size_t length;
  chunk_id (n, &id);
  if (!repo_reader_read (reader, &id, OBJECT_CHUNK, chunk, CHUNK, &length, errp))
    return false;
  fill_chunk (n, expected);
  g_assert_cmpmem (chunk, length, expected, CHUNK);
  return true;
}

static void
assert_reads (Repo *repo, unsigned first, unsigned n)
{
  g_autoptr (RepoReader) reader = repo_reader_new (repo, true);
  for (unsigned i = first; i < first + n; i++) {
    g_autoptr (TmkError) err = NULL;
    if (!read_chunk (reader, i, &err))
      g_error ("chunk %u: %s", i, tmk_error_message (err));
  }
}

static void
assert_code (TmkError **err, TmkErrorCode code)
{
  g_assert_nonnull (*err);
  g_assert_cmpint (tmk_error_code (*err), ==, code);
  g_clear_pointer (err, tmk_error_free);
}

static Manifest *
new_manifest (const char *id)
{
  Manifest *manifest = manifest_new (0);
  g_strlcpy (manifest->id, id, sizeof manifest->id);
  manifest->domain = g_strdup ("vm");
  return manifest;
}

/* A whole session: chunks [first, first + n), and the point `id`. */
static bool
backup (Repo *repo, const char *id, unsigned first, unsigned n, unsigned *new_ones,
        RepoWriterStats *stats, TmkError **errp)
{
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, errp);
  g_autoptr (RepoPacker) packer = writer != NULL ? repo_packer_new (writer, errp) : NULL;
  g_autoptr (Manifest) manifest = new_manifest (id);
  if (packer == NULL || !store_chunks (packer, first, n, new_ones, errp)
      || !repo_packer_finish (packer, errp) || !repo_writer_commit (writer, manifest, errp))
    return false;
  if (stats != NULL)
    repo_writer_stats (writer, stats);
  return true;
}

typedef struct {
  GPtrArray *names;
  uint64_t bytes;
} Names;

static bool
visit_name (const ObjInfo *info, void *data)
{
  Names *names = data;
  g_ptr_array_add (names->names, g_strdup (info->name));
  names->bytes += info->size;
  return true;
}

static GPtrArray *
names_in (ObjStore *store, const char *folder, uint64_t *bytes)
{
  Names names = { .names = g_ptr_array_new_with_free_func (g_free) };
  g_assert_true (obj_store_list (store, folder, visit_name, &names, NULL));
  if (bytes != NULL)
    *bytes = names.bytes;
  return names.names;
}

static guint
count_in (ObjStore *store, const char *folder)
{
  g_autoptr (GPtrArray) names = names_in (store, folder, NULL);
  return names->len;
}

static size_t
size_of (ObjStore *store, const char *name)
{
  g_autoptr (ObjReader) reader = obj_store_open (store, name, NULL);
  return (size_t) obj_reader_size (reader);
}

/* Puts other bytes in the place of an object: `at` is turned over; SIZE_MAX: it is cut in half. */
static void
damage (ObjStore *store, const char *name, size_t at)
{
  size_t size;
  g_autofree unsigned char *data = obj_store_get (store, name, 1u << 30, &size, NULL);
  g_assert_nonnull (data);
  if (at == SIZE_MAX)
    size /= 2;
  else
    data[at] ^= 0x40;
  g_assert_true (obj_store_remove (store, name, NULL));
  g_assert_true (obj_store_put_if_absent (store, name, data, size, NULL));
}

/* --- tests */

static void
test_create (void)
{
  TmkError *err = NULL;
  RepoConfig config;
  repo_config_default (&config);
  static const uint32_t wrong[] = { 0, 32u << 10, 96u << 10, 8u << 20 };
  for (size_t i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_autoptr (ObjStore) store = obj_store_new_memory ();
    config.chunk_size = wrong[i];
    g_assert_false (repo_create (store, &config, &err));
    assert_code (&err, TMK_ERR_USAGE);
    g_assert_cmpuint (count_in (store, "packs"), ==, 0);
  }
  repo_config_default (&config);
  config.level = 0;
  g_autoptr (ObjStore) other = obj_store_new_memory ();
  g_assert_false (repo_create (other, &config, &err));
  assert_code (&err, TMK_ERR_USAGE);

  g_assert_null (repo_open (obj_store_new_memory (), &err));
  assert_code (&err, TMK_ERR_NOT_FOUND);

  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_assert_cmpuint (strlen (repo_short_id (repo)), ==, 8);
  g_assert_cmpuint (repo_config (repo)->chunk_size, ==, CHUNK_SIZE_DEFAULT);
  repo_config_default (&config);
  g_assert_false (repo_create (repo_store (repo), &config, &err));
  assert_code (&err, TMK_ERR_EXISTS);
  /* Nor where the config of one was lost. */
  unsigned n;
  g_assert_true (backup (repo, "00000000000000aa", 0, 3, &n, NULL, NULL));
  g_assert_true (obj_store_remove (repo_store (repo), "config", NULL));
  g_assert_false (repo_create (repo_store (repo), &config, &err));
  assert_code (&err, TMK_ERR_EXISTS);
}

static void
test_round_trip (gconstpointer codec)
{
  RepoConfig config;
  repo_config_default (&config);
  config.pack_size = 1u << 20;
  config.codec = (ObjectCodec) GPOINTER_TO_INT (codec);
  g_autoptr (Repo) repo = new_repo (&config, obj_store_new_memory ());
  RepoWriterStats stats;
  unsigned n;
  g_assert_true (backup (repo, "0000000000000001", 0, 100, &n, &stats, NULL));
  g_assert_cmpuint (n, ==, 100);
  g_assert_cmpuint (stats.objects, ==, 100);
  g_assert_cmpuint (stats.plain, ==, 100 * CHUNK);
  g_assert_cmpuint (stats.packs, >, 1);
  uint64_t packs, index;
  g_ptr_array_unref (names_in (repo_store (repo), "packs", &packs));
  g_ptr_array_unref (names_in (repo_store (repo), "index", &index));
  g_assert_cmpuint (stats.stored + stats.metadata + stats.framing, ==, packs + index);
  if (config.codec == CODEC_PLAIN)
    g_assert_cmpuint (stats.stored, ==, 100 * (CHUNK + RECORD_HEADER_SIZE));
  else
    g_assert_cmpuint (stats.stored, <, 60 * CHUNK);
  assert_reads (repo, 0, 100);
  g_assert_cmpuint (count_in (repo_store (repo), "leases"), ==, 0);
  g_assert_cmpuint (count_in (repo_store (repo), "points"), ==, 1);

  /* Again: nothing is new. Then some. */
  g_assert_true (backup (repo, "0000000000000002", 0, 100, &n, &stats, NULL));
  g_assert_cmpuint (n, ==, 0);
  g_assert_cmpuint (stats.packs, ==, 0);
  g_assert_true (backup (repo, "0000000000000003", 90, 20, &n, &stats, NULL));
  g_assert_cmpuint (n, ==, 10);
  assert_reads (repo, 0, 110);
  /* The same point twice cannot be. */
  TmkError *err = NULL;
  g_assert_false (backup (repo, "0000000000000003", 0, 1, &n, NULL, &err));
  assert_code (&err, TMK_ERR_EXISTS);
}

/* All kinds, zeroes, and sizes up to the largest. */
static void
test_objects (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  g_autoptr (RepoPacker) packer = repo_packer_new (writer, NULL);
  static const size_t sizes[] = { 1, 15, 16, 17, 1000, CHUNK, (4u << 20) + 1, OBJECT_MAX_PLAIN };
  g_autofree unsigned char *data = g_malloc0 (OBJECT_MAX_PLAIN),
                           *back = g_malloc (OBJECT_MAX_PLAIN);
  ObjectId ids[3][G_N_ELEMENTS (sizes)], zero;
  uint32_t stored = 1;
  repo_packer_hash (packer, OBJECT_CHUNK, data, CHUNK, &zero);
  g_assert_true (object_id_is_zero (&zero));
  g_assert_true (repo_packer_store (packer, OBJECT_CHUNK, &zero, data, CHUNK, &stored, NULL));
  g_assert_cmpuint (stored, ==, 0);
  data[CHUNK - 1] = 1;
  repo_packer_hash (packer, OBJECT_CHUNK, data, CHUNK, &zero);
  g_assert_false (object_id_is_zero (&zero));
  g_autoptr (GRand) rand = g_rand_new_with_seed (5);
  for (size_t i = 0; i < OBJECT_MAX_PLAIN / 2; i++)
    data[i] = (unsigned char) g_rand_int (rand);
  for (int kind = 1; kind <= 3; kind++)
    for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
      ObjectId *id = &ids[kind - 1][i];
      repo_packer_hash (packer, (ObjectKind) kind, data, sizes[i], id);
      g_assert_true (
          repo_packer_store (packer, (ObjectKind) kind, id, data, sizes[i], &stored, NULL));
      g_assert_cmpuint (stored, >=, RECORD_HEADER_SIZE);
      g_assert_cmpuint (stored, <=, RECORD_HEADER_SIZE + sizes[i]);
      g_assert_true (
          repo_packer_store (packer, (ObjectKind) kind, id, data, sizes[i], &stored, NULL));
      g_assert_cmpuint (stored, ==, 0);
    }
  g_assert_true (repo_packer_finish (packer, NULL));
  g_assert_true (repo_writer_publish_index (writer, NULL));
  g_autoptr (RepoReader) reader = repo_reader_new (repo, true);
  for (int kind = 1; kind <= 3; kind++)
    for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
      TmkError *err = NULL;
      size_t length;
      const ObjectId *id = &ids[kind - 1][i];
      g_assert_true (
          repo_reader_read (reader, id, (ObjectKind) kind, back, sizes[i], &length, &err));
      g_assert_cmpmem (back, length, data, sizes[i]);
      g_assert_false (
          repo_reader_read (reader, id, (ObjectKind) kind, back, sizes[i] - 1, &length, &err));
      assert_code (&err, TMK_ERR_DAMAGED);
      g_assert_false (repo_reader_read (reader, id, (ObjectKind) (kind % 3 + 1), back, sizes[i],
                                        &length, &err));
      assert_code (&err, TMK_ERR_DAMAGED);
    }
}

/* Several packers, the same chunks: each is stored once. The index is published many times. */
typedef struct {
  RepoWriter *writer;
  unsigned first, n, new_ones;
} Worker;

static void *
work (void *data)
{
  Worker *worker = data;
  g_autoptr (RepoPacker) packer = repo_packer_new (worker->writer, NULL);
  g_assert_true (store_chunks (packer, worker->first, worker->n, &worker->new_ones, NULL));
  g_assert_true (repo_packer_finish (packer, NULL));
  return NULL;
}

static void
test_threads (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  writer->publish_entries = 20;
  Worker workers[4];
  GThread *threads[4];
  for (unsigned i = 0; i < 4; i++) {
    workers[i] = (Worker){ writer, i * 25, 100, 0 };
    threads[i] = g_thread_new ("worker", work, &workers[i]);
  }
  unsigned new_ones = 0;
  for (unsigned i = 0; i < 4; i++) {
    g_thread_join (threads[i]);
    new_ones += workers[i].new_ones;
  }
  g_assert_cmpuint (new_ones, ==, 175);
  g_autoptr (Manifest) manifest = new_manifest ("0000000000000001");
  g_assert_true (repo_writer_commit (writer, manifest, NULL));
  g_assert_cmpuint (writer->claims.n, ==, 0);
  g_assert_cmpuint (count_in (repo_store (repo), "index"), >, 2);
  assert_reads (repo, 0, 175);
}

/* An object stays claimed while another packer's pack is open, however often the index is
 * published. */
static void
test_claims (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  g_autoptr (RepoPacker) a = repo_packer_new (writer, NULL), b = repo_packer_new (writer, NULL);
  unsigned n;
  g_assert_true (store_chunks (a, 0, 5, &n, NULL));
  g_assert_true (store_chunks (b, 0, 10, &n, NULL));
  g_assert_cmpuint (n, ==, 5);
  g_assert_true (repo_packer_finish (b, NULL));
  g_assert_true (repo_writer_publish_index (writer, NULL));
  g_assert_cmpuint (writer->claims.n, ==, 5);
  g_assert_true (store_chunks (b, 0, 10, &n, NULL));
  g_assert_cmpuint (n, ==, 0);
  /* Not while it is open … */
  g_autoptr (Manifest) manifest = new_manifest ("0000000000000001");
  TmkError *err = NULL;
  g_assert_false (repo_writer_commit (writer, manifest, &err));
  assert_code (&err, TMK_ERR_INTERNAL);
  /* … and not after it was given up. */
  g_clear_pointer (&a, repo_packer_free);
  g_assert_false (repo_writer_commit (writer, manifest, &err));
  assert_code (&err, TMK_ERR_FAILED);
  g_assert_false (store_chunks (b, 20, 1, &n, &err));
  assert_code (&err, TMK_ERR_FAILED);
  g_assert_cmpuint (count_in (repo_store (repo), "points"), ==, 0);
}

/* What a reader would refuse is not published. */
static void
test_unreadable_point (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  g_autoptr (Manifest) manifest = new_manifest ("0000000000000001");
  g_free (manifest->domain);
  manifest->domain = g_strdup ("");
  TmkError *err = NULL;
  g_assert_false (repo_writer_commit (writer, manifest, &err));
  assert_code (&err, TMK_ERR_INTERNAL);
  g_assert_cmpuint (count_in (repo_store (repo), "points"), ==, 0);
}

/* Small packs are finished as one, large ones as they are; everything is found, and what the packs
 * say of themselves suffices to find it again. */
static void
test_finish_all (void)
{
  enum { N = 4, BIG = 60 };
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  RepoPacker *packers[N];
  unsigned n, packs = 0;
  for (unsigned i = 0; i < N; i++)
    packers[i] = repo_packer_new (writer, NULL);
  for (unsigned round = 0; round < 3; round++) {
    /* The second one has nothing in the first round; in the last one the third has more than a
     * buffer, and so have the small ones together. */
    unsigned at = round * 200;
    g_assert_true (store_chunks (packers[0], at, round == 2 ? 20 : 5, &n, NULL));
    if (round > 0)
      g_assert_true (store_chunks (packers[1], at + 50, round == 2 ? 20 : 5, &n, NULL));
    g_assert_true (store_chunks (packers[2], at + 100, round == 2 ? BIG : 1, &n, NULL));
    g_assert_true (store_chunks (packers[3], at + 50, 7, &n, NULL));
    g_assert_true (repo_packer_finish_all (packers, N, NULL));
    packs += round == 2 ? 2 : 1;
    g_assert_cmpuint (count_in (repo_store (repo), "packs"), ==, packs);
    g_assert_cmpuint (writer->open_packs, ==, 0);
  }
  g_autoptr (Manifest) manifest = new_manifest ("0000000000000001");
  g_assert_true (repo_writer_commit (writer, manifest, NULL));
  for (unsigned i = 0; i < N; i++)
    repo_packer_free (packers[i]);
  /* Once by the index, once by the packs' own tables, in another process's eyes. */
  for (unsigned again = 0; again < 2; again++) {
    g_autoptr (Repo) other = repo_open (obj_store_share_memory (repo_store (repo)), NULL);
    g_autoptr (GPtrArray) index = names_in (repo_store (repo), "index", NULL);
    for (guint i = 0; again == 1 && i < index->len; i++)
      damage (repo_store (repo), index->pdata[i], 20);
    g_assert_true (repo_rebuild_index (other, NULL, NULL));
    assert_reads (other, 0, 5);
    assert_reads (other, 50, 7);
    assert_reads (other, 200, 5);
    assert_reads (other, 250, 7);
    assert_reads (other, 400, 20);
    assert_reads (other, 450, 20);
    assert_reads (other, 500, BIG);
  }
}

/* A root that was not stored makes no point. */
static void
test_root_missing (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  g_autoptr (Manifest) manifest = manifest_new (1);
  g_strlcpy (manifest->id, "0000000000000001", sizeof manifest->id);
  manifest->domain = g_strdup ("vm");
  manifest->disks[0].name = g_strdup ("vda");
  manifest->disks[0].size = manifest->disks[0].chunk_size = CHUNK;
  manifest->disks[0].mode = g_strdup ("full");
  manifest->disks[0].root.bytes[0] = 1;
  TmkError *err = NULL;
  g_assert_false (repo_writer_commit (writer, manifest, &err));
  assert_code (&err, TMK_ERR_INTERNAL);
}

static void
test_lease (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  ObjStore *store = repo_store (repo);
  TmkError *err = NULL;
  for (int how = 0; how < 3; how++) {
    g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
    g_autoptr (GPtrArray) leases = names_in (store, "leases", NULL);
    g_assert_cmpuint (leases->len, ==, 1);
    size_t size;
    g_autofree unsigned char *json
        = record_load (store, leases->pdata[0], OBJECT_LEASE, &size, NULL);
    g_assert_nonnull (strstr ((char *) json, "\"expires\""));
    g_autoptr (Manifest) manifest = new_manifest ("0000000000000001");
    if (how == 0) /* somebody removed it */
      g_assert_true (obj_store_remove (store, leases->pdata[0], NULL));
    if (how == 1) /* it has ended */
      obj_store_memory_advance (store, LEASE_US + 1);
    if (how < 2) {
      g_assert_false (repo_writer_commit (writer, manifest, &err));
      assert_code (&err, TMK_ERR_GONE);
      g_assert_cmpuint (count_in (store, "points"), ==, 0);
    } else {
      obj_store_memory_advance (store, LEASE_US - G_TIME_SPAN_SECOND * 10);
      g_assert_true (repo_writer_commit (writer, manifest, &err));
    }
  }
  g_assert_cmpuint (count_in (store, "leases"), ==, 0);
}

/* Copies that are gone or damaged. */
static void
test_damage (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  ObjStore *store = repo_store (repo);
  unsigned n;
  g_assert_true (backup (repo, "0000000000000001", 0, 9, &n, NULL, NULL));
  g_autoptr (GPtrArray) packs = names_in (store, "packs", NULL);
  g_assert_cmpuint (packs->len, ==, 1);
  damage (store, packs->pdata[0], PACK_HEADER_SIZE + RECORD_HEADER_SIZE + 1000); /* chunk 0 */

  TmkError *err = NULL;
  g_autoptr (RepoReader) reader = repo_reader_new (repo, false);
  g_assert_false (read_chunk (reader, 0, &err));
  g_assert_nonnull (strstr (tmk_error_message (err), strrchr (packs->pdata[0], '/') + 1));
  assert_code (&err, TMK_ERR_DAMAGED);
  g_assert_true (read_chunk (reader, 1, &err));

  ObjectId ids[2];
  bool found;
  chunk_id (0, &ids[0]);
  chunk_id (77, &ids[1]); /* never was there */
  g_assert_true (repo_has (repo, &ids[0], &found, NULL) && found);
  g_assert_true (repo_note_damage (repo, ids, 2, NULL));
  g_assert_true (repo_has (repo, &ids[0], &found, NULL) && !found);
  g_assert_cmpuint (count_in (store, "damaged"), ==, 1);
  g_assert_true (repo_note_damage (repo, ids, 2, NULL)); /* known by now */
  g_assert_cmpuint (count_in (store, "damaged"), ==, 1);
  g_assert_true (repo_refresh (repo, NULL));
  g_assert_true (repo_has (repo, &ids[0], &found, NULL) && !found);
  {
    g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
    ObjectId well;
    chunk_id (1, &well);
    g_assert_true (repo_writer_is_damaged (writer, &ids[0]));
    g_assert_true (repo_writer_is_damaged (writer, &ids[1]));
    g_assert_false (repo_writer_is_damaged (writer, &well));
  }
  /* The next backup heals it. */
  g_assert_true (backup (repo, "0000000000000002", 0, 9, &n, NULL, NULL));
  g_assert_cmpuint (n, ==, 1);
  assert_reads (repo, 0, 9);
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  g_assert_false (repo_writer_is_damaged (writer, &ids[0]));
  g_assert_true (repo_has (repo, &ids[0], &found, NULL) && found);

  /* Noted without need: still read, by its id. */
  chunk_id (5, &ids[0]);
  g_assert_true (repo_note_damage (repo, ids, 1, NULL));
  g_assert_true (repo_has (repo, &ids[0], &found, NULL) && !found);
  g_assert_true (read_chunk (reader, 5, NULL));
}

/* A record that is sound, but of something else than its id says: who verifies finds it, and once
 * it is noted everybody does. */
static void
test_wrong_id (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  g_autoptr (RepoPacker) packer = repo_packer_new (writer, NULL);
  g_autofree unsigned char *chunk = g_malloc (CHUNK);
  ObjectId id;
  uint32_t stored;
  size_t length;
  TmkError *err = NULL;
  fill_chunk (1, chunk);
  chunk_id (2, &id);
  g_assert_true (repo_packer_store (packer, OBJECT_CHUNK, &id, chunk, CHUNK, &stored, NULL));
  g_assert_true (repo_packer_finish (packer, NULL));
  g_assert_true (repo_writer_publish_index (writer, NULL));
  g_autoptr (RepoReader) believing = repo_reader_new (repo, false);
  g_autoptr (RepoReader) verifying = repo_reader_new (repo, true);
  g_assert_true (repo_reader_read (believing, &id, OBJECT_CHUNK, chunk, CHUNK, &length, NULL));
  g_assert_false (repo_reader_read (verifying, &id, OBJECT_CHUNK, chunk, CHUNK, &length, &err));
  assert_code (&err, TMK_ERR_DAMAGED);
  g_assert_true (repo_note_damage (repo, &id, 1, NULL));
  g_assert_false (repo_reader_read (believing, &id, OBJECT_CHUNK, chunk, CHUNK, &length, &err));
  assert_code (&err, TMK_ERR_DAMAGED);
}

static void
assert_is_damaged (Repo *repo, unsigned chunk, bool expected)
{
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  ObjectId id;
  chunk_id (chunk, &id);
  g_assert_true (repo_writer_is_damaged (writer, &id) == expected);
}

static void
test_lost_pack (gconstpointer cut)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  ObjStore *store = repo_store (repo);
  unsigned n;
  g_assert_true (backup (repo, "0000000000000001", 0, 9, &n, NULL, NULL));
  g_autoptr (GPtrArray) packs = names_in (store, "packs", NULL);
  if (cut != NULL)
    damage (store, packs->pdata[0], SIZE_MAX);
  else
    g_assert_true (obj_store_remove (store, packs->pdata[0], NULL));
  g_autoptr (RepoReader) reader = repo_reader_new (repo, false);
  TmkError *err = NULL;
  g_assert_false (read_chunk (reader, 8, &err));
  assert_code (&err, TMK_ERR_DAMAGED);
  if (cut != NULL) /* what is left of it can be read */
    g_assert_true (read_chunk (reader, 0, &err));
  assert_is_damaged (repo, 8, true); /* although no note says so */
  assert_is_damaged (repo, 10, true);
  g_assert_true (backup (repo, "0000000000000002", 0, 9, &n, NULL, NULL));
  g_assert_cmpuint (n, ==, 9);
  assert_reads (repo, 0, 9);
  assert_is_damaged (repo, 8, false);
  assert_is_damaged (repo, 10, true);
}

/* An index file that cannot be read: what it knew is not relied on. */
static void
test_lost_index (void)
{
  g_autoptr (Repo) first = new_repo (NULL, obj_store_new_memory ());
  ObjStore *store = repo_store (first);
  unsigned n;
  g_assert_true (backup (first, "0000000000000001", 0, 9, &n, NULL, NULL));
  g_autoptr (GPtrArray) index = names_in (store, "index", NULL);
  g_assert_true (backup (first, "0000000000000002", 9, 9, &n, NULL, NULL));
  g_autoptr (Repo) repo = repo_open (obj_store_share_memory (store), NULL);
  assert_is_damaged (repo, 3, false);
  damage (store, index->pdata[0], 20); /* its header */
  g_autoptr (Repo) later = repo_open (obj_store_share_memory (store), NULL);
  assert_is_damaged (later, 3, true);
  assert_is_damaged (later, 12, false);
}

/* Two copies in two packs: reading finds the one that is left. */
static void
test_two_copies (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  ObjStore *store = repo_store (repo);
  unsigned n;
  /* Two sessions at once, which know nothing of each other. */
  g_autoptr (RepoWriter) a = repo_writer_new (repo, NULL), b = repo_writer_new (repo, NULL);
  g_autoptr (RepoPacker) pa = repo_packer_new (a, NULL), pb = repo_packer_new (b, NULL);
  g_assert_true (store_chunks (pa, 0, 9, &n, NULL));
  g_assert_true (store_chunks (pb, 0, 9, &n, NULL));
  g_assert_cmpuint (n, ==, 9);
  g_assert_true (repo_packer_finish (pa, NULL) && repo_packer_finish (pb, NULL));
  g_assert_true (repo_writer_publish_index (a, NULL) && repo_writer_publish_index (b, NULL));
  g_autoptr (GPtrArray) packs = names_in (store, "packs", NULL);
  g_assert_cmpuint (packs->len, ==, 2);
  for (guint i = 0; i < 2; i++) { /* chunk 0 in one, chunk 8 in the other */
    size_t size = size_of (store, packs->pdata[i]);
    damage (store, packs->pdata[i],
            i == 0 ? PACK_HEADER_SIZE + 60 : size - PACK_TRAILER_SIZE - 9 * PACK_ENTRY_SIZE - 3);
  }
  assert_reads (repo, 0, 9);
  for (guint i = 0; i < 2; i++) {
    g_assert_true (obj_store_remove (store, packs->pdata[i], NULL));
    g_autoptr (RepoReader) reader = repo_reader_new (repo, true);
    g_assert_true (read_chunk (reader, 4, NULL) == (i == 0));
  }
}

/* Many sessions: the index files are merged, and say what they said; a reader that looked before
 * copes. */
static void
test_merge (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  ObjStore *store = repo_store (repo);
  g_autoptr (RepoReader) early = repo_reader_new (repo, true);
  guint most = 0;
  for (unsigned i = 0; i < 60; i++) {
    g_autofree char *id = g_strdup_printf ("%016x", i);
    unsigned n;
    g_assert_true (backup (repo, id, i * 2, 3, &n, NULL, NULL));
    g_assert_cmpuint (n, ==, i == 0 ? 3 : 2);
    g_assert_true (read_chunk (early, i * 2, NULL));
    most = MAX (most, count_in (store, "index"));
  }
  g_assert_cmpuint (most, <=, 16);
  assert_reads (repo, 0, 121);
  g_assert_true (repo_refresh (repo, NULL));
  assert_reads (repo, 0, 121);
  g_autoptr (IndexSet) set = repo_index (repo, NULL);
  uint64_t entries = 0;
  for (size_t i = 0; i < index_set_files (set); i++) {
    g_assert_true (index_view_check (&index_set_file (set, i)->view, NULL));
    entries += index_set_file (set, i)->view.n_entries;
  }
  g_assert_cmpuint (entries, ==, 121);
}

/* Merged, a healed object is found in its new place. */
static void
test_merge_healed (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  unsigned n;
  g_assert_true (backup (repo, "00000000000000aa", 0, 2, &n, NULL, NULL));
  ObjectId id;
  chunk_id (1, &id);
  g_assert_true (repo_note_damage (repo, &id, 1, NULL));
  for (unsigned i = 0; i < 17; i++) {
    g_autofree char *name = g_strdup_printf ("%016x", i);
    g_assert_true (backup (repo, name, i, 3, &n, NULL, NULL));
  }
  g_assert_cmpuint (count_in (repo_store (repo), "index"), <, 16);
  bool found = false;
  g_assert_true (repo_has (repo, &id, &found, NULL) && found);
  assert_reads (repo, 0, 19);
}

/* Entries of an index file that vanishes when it has been read once. */
typedef struct {
  IndexSource source;
  unsigned reads, at;
} Vanishing;

static void
vanishing_rewind (IndexSource *source)
{
  Vanishing *self = (Vanishing *) source;
  self->reads++;
  self->at = 0;
}

static bool
vanishing_next (IndexSource *source, IndexEntry *entry)
{
  Vanishing *self = (Vanishing *) source;
  *entry = (IndexEntry){ .id.bytes[0] = (unsigned char) ++self->at,
                         .length = RECORD_HEADER_SIZE,
                         .offset = PACK_HEADER_SIZE,
                         .kind = OBJECT_CHUNK };
  return self->at <= (self->reads == 1 ? 5 : 2);
}

/* What is merged cannot be read any more: no index file comes of it. */
static void
test_merge_vanishing (void)
{
  g_autoptr (Repo) repo = new_repo (NULL, obj_store_new_memory ());
  Vanishing vanishing = { .source = { vanishing_rewind, vanishing_next } };
  IndexPack pack = { .size = 1u << 20 };
  g_autofree char *name = NULL;
  uint64_t size;
  TmkError *err = NULL;
  g_assert_false (index_write (repo_store (repo), &repo_config (repo)->id, &pack, 1,
                               &vanishing.source, 5, &name, &size, &err));
  assert_code (&err, TMK_ERR_DAMAGED);
  g_assert_cmpuint (count_in (repo_store (repo), "index"), ==, 0);
}

/* The index is lost or damaged, and packs too: all that is whole is found again. */
static void
test_rebuild (void)
{
  g_autoptr (Repo) first = new_repo (NULL, obj_store_new_memory ());
  ObjStore *store = repo_store (first);
  unsigned n;
  g_assert_true (backup (first, "0000000000000001", 0, 9, &n, NULL, NULL));
  g_assert_true (backup (first, "0000000000000002", 9, 9, &n, NULL, NULL));
  /* Another process's: this one has the index files open as they were. */
  g_autoptr (Repo) repo = repo_open (obj_store_share_memory (store), NULL);
  g_autoptr (GPtrArray) packs = names_in (store, "packs", NULL);
  g_autoptr (GPtrArray) index = names_in (store, "index", NULL);
  g_assert_cmpuint (packs->len, ==, 2);
  g_assert_cmpuint (index->len, ==, 2);
  damage (store, index->pdata[0], 20);  /* its header */
  damage (store, index->pdata[1], 150); /* its entries */
  size_t size = size_of (store, packs->pdata[0]);
  damage (store, packs->pdata[0], size - PACK_TRAILER_SIZE - 20);         /* the table */
  damage (store, packs->pdata[0], PACK_HEADER_SIZE + RECORD_HEADER_SIZE); /* its first record */

  RepoId id = repo_config (repo)->id;
  {
    g_autoptr (IndexSet) set = index_set_load (store, &id, NULL, NULL);
    g_assert_nonnull (index_set_skipped (set));
    g_assert_cmpuint (index_set_files (set), ==, 1);
  }
  g_assert_true (repo_rebuild_index (repo, NULL, NULL));
  unsigned readable = 0;
  g_autoptr (RepoReader) reader = repo_reader_new (repo, true);
  for (unsigned i = 0; i < 18; i++) {
    g_autoptr (TmkError) err = NULL;
    readable += read_chunk (reader, i, &err);
  }
  g_assert_cmpuint (readable, ==, 17);
  g_autoptr (IndexSet) set = repo_index (repo, NULL);
  g_assert_null (index_set_skipped (set));
  for (size_t i = 0; i < index_set_files (set); i++)
    g_assert_true (index_view_check (&index_set_file (set, i)->view, NULL));
  /* Again: there is nothing to do. */
  guint files = count_in (store, "index");
  g_assert_true (repo_rebuild_index (repo, NULL, NULL));
  g_assert_cmpuint (count_in (store, "index"), ==, files);
  g_assert_true (backup (repo, "0000000000000003", 0, 18, &n, NULL, NULL));
  g_assert_cmpuint (n, ==, 1);
  assert_reads (repo, 0, 18);
}

/* A repository of which bytes can be made unreadable, with the same objects as `whole`. */
static Repo *
faulty_repo (Repo *whole)
{
  ObjStore *store = obj_store_share_memory (repo_store (whole));
  Repo *repo = repo_open (obj_store_new_faulty (store, 0, false, false), NULL);
  g_assert_nonnull (repo);
  return repo;
}

/* An index file, or a note of damage, on a bad sector is as if it were not there. */
static void
test_bad_sector (void)
{
  g_autoptr (Repo) whole = new_repo (NULL, obj_store_new_memory ());
  ObjStore *memory = repo_store (whole);
  unsigned n;
  ObjectId id;
  g_assert_true (backup (whole, "0000000000000001", 0, 5, &n, NULL, NULL));
  g_assert_true (backup (whole, "0000000000000002", 5, 4, &n, NULL, NULL));
  chunk_id (0, &id);
  g_assert_true (repo_note_damage (whole, &id, 1, NULL));
  g_autoptr (GPtrArray) index = names_in (memory, "index", NULL);
  {
    g_autoptr (Repo) repo = faulty_repo (whole);
    obj_store_faulty_spoil (repo_store (repo), "damaged/", 0, 1);
    assert_reads (repo, 0, 9);
  }
  g_autoptr (Repo) repo = faulty_repo (whole);
  obj_store_faulty_spoil (repo_store (repo), index->pdata[0], 0, 1);
  {
    g_autoptr (RepoReader) reader = repo_reader_new (repo, true);
    unsigned readable = 0;
    for (unsigned i = 0; i < 9; i++) {
      g_autoptr (TmkError) err = NULL;
      bool ok = read_chunk (reader, i, &err);
      readable += ok;
      g_assert_true (ok || strstr (tmk_error_message (err), "not all index files") != NULL);
    }
    g_assert_true (readable == 4 || readable == 5);
  }
  /* It is made anew, and removed. */
  g_assert_true (repo_rebuild_index (repo, NULL, NULL));
  assert_reads (repo, 0, 9);
  g_autoptr (GPtrArray) after = names_in (memory, "index", NULL);
  g_assert_cmpuint (after->len, ==, 2);
  g_assert_false (g_ptr_array_find_with_equal_func (after, index->pdata[0], g_str_equal, NULL));
}

/* The index is lost, and packs have bad sectors: what lies elsewhere is found again. */
static void
test_rebuild_bad_sector (void)
{
  static const struct {
    int64_t from, end; /* negative: from the pack's end */
    unsigned readable; /* of the 9 chunks in the pack */
  } cases[] = {
    { -1, 0, 9 },                                            /* its trailer */
    { -100, 0, 9 },                                          /* its table, too */
    { PACK_HEADER_SIZE + 1000, 0, 0 },                       /* all but a page */
    { PACK_HEADER_SIZE + 1000, PACK_HEADER_SIZE + 1001, 9 }, /* the table is well */
    { 0, 0, 0 },
  };
  g_autoptr (Repo) whole = new_repo (NULL, obj_store_new_memory ());
  ObjStore *memory = repo_store (whole);
  unsigned n;
  g_assert_true (backup (whole, "0000000000000001", 0, 9, &n, NULL, NULL));
  g_autoptr (GPtrArray) packs = names_in (memory, "packs", NULL);
  g_assert_cmpuint (packs->len, ==, 1);
  int64_t size = (int64_t) size_of (memory, packs->pdata[0]);
  g_assert_true (backup (whole, "0000000000000002", 9, 9, &n, NULL, NULL));
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GPtrArray) index = names_in (memory, "index", NULL);
    for (guint k = 0; k < index->len; k++)
      g_assert_true (obj_store_remove (memory, index->pdata[k], NULL));
    g_autoptr (Repo) repo = faulty_repo (whole);
    obj_store_faulty_spoil (repo_store (repo), packs->pdata[0],
                            (uint64_t) (cases[i].from + (cases[i].from < 0 ? size : 0)),
                            (uint64_t) (cases[i].end + (cases[i].end <= 0 ? size : 0)));
    g_autoptr (TmkError) err = NULL;
    bool ok = repo_rebuild_index (repo, NULL, &err);
    g_assert_true (ok == (cases[i].readable > 0));
    g_assert_true (ok || tmk_error_code (err) == TMK_ERR_DAMAGED);
    assert_reads (repo, 9, 9);
    obj_store_faulty_spoil (repo_store (repo), "none", 0, 0);
    if (cases[i].readable == 9)
      assert_reads (repo, 0, 9);
  }
}

/* A record of kind chunk at `out`, with `text` under the id of chunk `n`. Returns its length. */
static uint32_t
forge_record (unsigned char *out, const char *text, unsigned n)
{
  uint32_t size = (uint32_t) strlen (text);
  RecordHeader header = { OBJECT_CHUNK, CODEC_PLAIN, size, size, { { 0 } } };
  chunk_id (n, &header.id);
  memcpy (out + RECORD_HEADER_SIZE, text, size);
  record_seal (out, &header);
  return RECORD_HEADER_SIZE + size;
}

/* In `chunk`, the first of its pack, a record that lies about its id and, so that a pack cut off
 * behind it ends as one, a table and a trailer. Returns where that is. */
static uint64_t
forge_chunk (const RepoId *repo, unsigned char *chunk)
{
  static const uint32_t at = 1000, table_at = 20000;
  const uint32_t before = PACK_HEADER_SIZE + RECORD_HEADER_SIZE;
  fill_chunk (0, chunk);
  PackEntry entry = { .offset = before + at, .kind = OBJECT_CHUNK, .codec = CODEC_PLAIN };
  chunk_id (77, &entry.id);
  entry.length = forge_record (chunk + at, "what chunk 77 never was", 77);
  pack_entry_format (&entry, chunk + table_at);
  PackTrailer trailer = { .table = before + table_at,
                          .entries = 1,
                          .table_checksum = pack_table_checksum (chunk + table_at, PACK_ENTRY_SIZE),
                          .size = before + table_at + PACK_ENTRY_SIZE + PACK_TRAILER_SIZE,
                          .repo = *repo };
  pack_trailer_format (&trailer, chunk + table_at + PACK_ENTRY_SIZE);
  return trailer.size;
}

/* A guest writes what looks like a record of somebody else's chunk, and the pack is cut within its
 * chunk, the index lost: nobody is made to believe it. */
static void
test_rebuild_forged (gconstpointer with_table)
{
  RepoConfig config;
  repo_config_default (&config);
  config.codec = CODEC_PLAIN;
  g_autoptr (Repo) repo = new_repo (&config, obj_store_new_memory ());
  ObjStore *store = repo_store (repo);
  g_autofree unsigned char *chunk = g_malloc (CHUNK);
  ObjectId id, lied;
  uint32_t stored;
  uint64_t end = forge_chunk (&repo_config (repo)->id, chunk);
  {
    g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
    g_autoptr (RepoPacker) packer = repo_packer_new (writer, NULL);
    repo_packer_hash (packer, OBJECT_CHUNK, chunk, CHUNK, &id);
    g_assert_true (repo_packer_store (packer, OBJECT_CHUNK, &id, chunk, CHUNK, &stored, NULL));
    g_assert_true (repo_packer_finish (packer, NULL));
  }
  g_autoptr (GPtrArray) packs = names_in (store, "packs", NULL);
  size_t size;
  g_autofree unsigned char *pack = obj_store_get (store, packs->pdata[0], 1u << 30, &size, NULL);
  g_assert_true (obj_store_remove (store, packs->pdata[0], NULL));
  g_assert_true (obj_store_put_if_absent (store, packs->pdata[0], pack,
                                          with_table != NULL ? end : end + 10, NULL));
  g_assert_true (repo_rebuild_index (repo, NULL, NULL));
  bool found = true;
  chunk_id (77, &lied);
  g_assert_true (repo_has (repo, &lied, &found, NULL) && !found);
  unsigned n;
  g_assert_true (backup (repo, "0000000000000001", 77, 1, &n, NULL, NULL));
  g_assert_cmpuint (n, ==, 1);
  assert_reads (repo, 77, 1);
}

/* A sector of a record and the table are bad: the records around are found. */
static void
test_rebuild_scan_around (void)
{
  g_autoptr (Repo) whole = new_repo (NULL, obj_store_new_memory ());
  ObjStore *memory = repo_store (whole);
  unsigned n, readable = 0;
  g_assert_true (backup (whole, "0000000000000001", 0, 9, &n, NULL, NULL));
  g_autoptr (GPtrArray) packs = names_in (memory, "packs", NULL);
  g_autoptr (GPtrArray) index = names_in (memory, "index", NULL);
  g_assert_true (obj_store_remove (memory, index->pdata[0], NULL));
  damage (memory, packs->pdata[0], size_of (memory, packs->pdata[0]) - 1);
  g_autoptr (Repo) repo = faulty_repo (whole);
  obj_store_faulty_spoil (repo_store (repo), "packs/", 30000, 30512); /* in chunk 0 */
  g_assert_true (repo_rebuild_index (repo, NULL, NULL));
  g_autoptr (RepoReader) reader = repo_reader_new (repo, true);
  for (unsigned i = 0; i < 9; i++) {
    g_autoptr (TmkError) err = NULL;
    readable += read_chunk (reader, i, &err);
  }
  g_assert_cmpuint (readable, ==, 8);
}

/* A failure at operation `at` of a session. Whatever happened: the call that failed says so, the
 * first point reads back, and the second either is there and reads back, or is not. False: there
 * are not so many operations. */
static bool
fail_at (uint64_t at, bool after, bool sticky)
{
  ObjStore *memory = obj_store_new_memory ();
  ObjStore *faulty = obj_store_new_faulty (memory, 0, after, sticky);
  RepoConfig config;
  repo_config_default (&config);
  config.pack_size = 256u << 10;
  g_autoptr (Repo) repo = new_repo (&config, faulty);
  unsigned n;
  g_assert_true (backup (repo, "0000000000000001", 0, 6, &n, NULL, NULL));
  uint64_t before = obj_store_faulty_count (faulty);
  obj_store_faulty_arm (faulty, at);
  g_autoptr (TmkError) err = NULL;
  bool ok = backup (repo, "0000000000000002", 3, 20, &n, NULL, &err);
  bool reached = obj_store_faulty_count (faulty) >= before + at;
  g_assert_true (ok == (err == NULL));
  g_assert_true (ok || reached);
  obj_store_faulty_arm (faulty, 0);

  bool committed = count_in (memory, "points") == 2;
  g_assert_true (!ok || committed);
  g_assert_true (ok || !committed || after); /* said to have failed, yet there */
  g_autoptr (Repo) other = repo_open (obj_store_share_memory (memory), NULL);
  assert_reads (other, 0, committed ? 23 : 6);
  g_assert_true (repo_rebuild_index (other, NULL, NULL));
  assert_reads (other, 0, committed ? 23 : 6);
  /* And it goes on: also in the process that met the failure. */
  g_assert_true (backup (repo, "0000000000000003", 3, 25, &n, NULL, NULL));
  assert_reads (repo, 0, 28);
  return reached;
}

static void
test_failures (gconstpointer data)
{
  unsigned how = GPOINTER_TO_UINT (data);
  uint64_t at = 1;
  while (fail_at (at, (how & 1) != 0, (how & 2) != 0))
    at++;
  g_assert_cmpuint (at, >, 30);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/repo/create", test_create);
  g_test_add_data_func ("/repo/round-trip/plain", GINT_TO_POINTER (CODEC_PLAIN), test_round_trip);
  g_test_add_data_func ("/repo/round-trip/zstd", GINT_TO_POINTER (CODEC_ZSTD), test_round_trip);
  g_test_add_func ("/repo/objects", test_objects);
  g_test_add_func ("/repo/threads", test_threads);
  g_test_add_func ("/repo/claims", test_claims);
  g_test_add_func ("/repo/unreadable-point", test_unreadable_point);
  g_test_add_func ("/repo/finish-all", test_finish_all);
  g_test_add_func ("/repo/root-missing", test_root_missing);
  g_test_add_func ("/repo/lease", test_lease);
  g_test_add_func ("/repo/damage", test_damage);
  g_test_add_func ("/repo/wrong-id", test_wrong_id);
  g_test_add_data_func ("/repo/lost-pack/gone", NULL, test_lost_pack);
  g_test_add_data_func ("/repo/lost-pack/cut", GINT_TO_POINTER (1), test_lost_pack);
  g_test_add_func ("/repo/lost-index", test_lost_index);
  g_test_add_func ("/repo/two-copies", test_two_copies);
  g_test_add_func ("/repo/merge", test_merge);
  g_test_add_func ("/repo/merge-healed", test_merge_healed);
  g_test_add_func ("/repo/merge-vanishing", test_merge_vanishing);
  g_test_add_func ("/repo/rebuild", test_rebuild);
  g_test_add_func ("/repo/bad-sector", test_bad_sector);
  g_test_add_func ("/repo/rebuild-bad-sector", test_rebuild_bad_sector);
  g_test_add_func ("/repo/rebuild-scan-around", test_rebuild_scan_around);
  g_test_add_data_func ("/repo/rebuild-forged/record", NULL, test_rebuild_forged);
  g_test_add_data_func ("/repo/rebuild-forged/table", GINT_TO_POINTER (1), test_rebuild_forged);
  g_test_add_data_func ("/repo/failures/before", GUINT_TO_POINTER (0), test_failures);
  g_test_add_data_func ("/repo/failures/after", GUINT_TO_POINTER (1), test_failures);
  g_test_add_data_func ("/repo/failures/sticky", GUINT_TO_POINTER (2), test_failures);
  g_test_add_data_func ("/repo/failures/after-sticky", GUINT_TO_POINTER (3), test_failures);
  return g_test_run ();
}
