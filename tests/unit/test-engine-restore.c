/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: a restored disk is the one that was stored, whatever its size, its chunks, where it goes
 * and by how many threads, as QEMU's own tools see it; what is there already is never touched, too
 * small or damaged ends before or without a result, and what was made is removed again.
 */
#include "repo/points.h"
#include "repo/repository.h"
#include "repo/tree.h"
#include "test-blk.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <tidemark/restore.h>

#define KIB UINT64_C (1024)
#define MIB (1024 * KIB)

/* ---- a repository with a point ----------------------------------------------------------------
 */

typedef struct {
  const char *name;
  uint64_t size;
  uint32_t chunk_size;
  const ObjectId *fake_id; /* chunk 1 is stored under this id */
} DiskSpec;

typedef struct {
  char *folder;
  TmkRepository *repository;
  Repo *repo; /* the same */
  const DiskSpec *specs;
  size_t n;
  char *point;
} Fixture;

/* Two disks of odd sizes, one without anything on it, and one of large chunks. */
static const DiskSpec usual[] = {
  { "vda", 20 * MIB + 64 * KIB + 512, 64 * KIB, NULL },
  { "vdb", 9 * MIB + 77 * KIB, MIB, NULL },
  { "empty", 3 * MIB, 64 * KIB, NULL },
  { "tiny", 512, 64 * KIB, NULL },
};

static char *
in_folder (const Fixture *f, const char *name)
{
  return g_build_filename (f->folder, name, NULL);
}

static char *
model_path (const Fixture *f, const char *disk)
{
  g_autofree char *name = g_strdup_printf ("model-%s.raw", disk);
  g_strdelimit (name, "/", '-');
  return in_folder (f, name);
}

/* What a chunk is: holes, zeroes, noise, text, and noise with zero blocks in it. */
static void
fill_chunk (guint8 *data, size_t length, uint64_t chunk, const char *disk)
{
  memset (data, 0, length);
  if (g_str_equal (disk, "empty") || chunk % 7 == 3)
    return;
  if (chunk % 7 == 5) { /* text */
    fill_pattern (data, chunk, MIN (length, 3000));
    return;
  }
  guint64 noise = 1 + (guint64) g_test_rand_int_range (0, G_MAXINT32);
  for (size_t i = 0; i + 8 <= length; i += 8) { /* half of it, or zstd would leave it plain */
    guint64 n = i / 8 % 2 == 0 ? noise : 1;
    noise ^= noise << 13;
    noise ^= noise >> 7;
    noise ^= noise << 17;
    memcpy (data + i, &n, 8);
  }
  if (chunk % 7 == 6) /* blocks of zeroes, in the middle and at the end */
    for (size_t at = 0; at + 12 * KIB <= length; at += 20 * KIB)
      memset (data + at + 4 * KIB, 0, 8 * KIB);
}

static void
store_disk (Fixture *f, RepoWriter *writer, const DiskSpec *spec, ManifestDisk *disk)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *path = model_path (f, spec->name);
  g_autofree guint8 *data = g_malloc (spec->chunk_size);
  static const ObjectId nothing;
  uint64_t chunks = tree_chunks (spec->size, spec->chunk_size);
  int model = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  g_assert_cmpint (ftruncate (model, (off_t) spec->size), ==, 0);
  {
    g_autoptr (RepoPacker) packer = repo_packer_new (writer, &err);
    assert_ok (err);
    g_autoptr (TreeBuilder) builder = tree_builder_new (f->repo, writer, packer, &nothing, chunks);
    for (uint64_t i = 0; i < chunks; i++) {
      uint64_t offset = i * spec->chunk_size;
      size_t length = MIN (spec->chunk_size, spec->size - offset);
      ObjectId id, before;
      uint32_t stored;
      fill_chunk (data, length, i, spec->name);
      repo_packer_hash (packer, OBJECT_CHUNK, data, length, &id);
      if (object_id_is_zero (&id))
        continue;
      if (i == 1 && spec->fake_id != NULL)
        id = *spec->fake_id;
      g_assert_true (repo_packer_store (packer, OBJECT_CHUNK, &id, data, length, &stored, &err));
      g_assert_true (tree_builder_exchange (builder, i, &id, &before, &err));
      g_assert_cmpint (pwrite (model, data, length, (off_t) offset), ==, (gssize) length);
      disk->used += length;
    }
    g_assert_true (tree_builder_finish (builder, &disk->root, &err));
    g_assert_true (repo_packer_finish (packer, &err));
  }
  close (model);
  disk->name = g_strdup (spec->name);
  disk->size = spec->size;
  disk->chunk_size = spec->chunk_size;
  disk->mode = g_strdup ("full");
  disk->reason = g_strdup ("a test");
}

#define XML "<domain>\n  <name>vm</name>\n</domain>\n"

static Fixture *
fixture_new (const DiskSpec *specs, size_t n)
{
  Fixture *f = g_new0 (Fixture, 1);
  g_autoptr (TmkError) err = NULL;
  f->folder = make_folder ();
  f->specs = specs;
  f->n = n;
  g_autofree char *path = in_folder (f, "repository");
  f->repository = tmk_repository_init (path, NULL, &err);
  assert_ok (err);
  f->repo = repository_repo (f->repository);
  {
    g_autoptr (RepoWriter) writer = repo_writer_new (f->repo, &err);
    assert_ok (err);
    g_autoptr (Manifest) manifest = manifest_new (n);
    point_id_new (manifest->id);
    manifest->domain = g_strdup ("vm");
    manifest->time_us = g_get_real_time ();
    manifest->finished_us = manifest->time_us;
    manifest->domain_xml = g_strdup (XML);
    for (size_t i = 0; i < n; i++)
      store_disk (f, writer, &specs[i], &manifest->disks[i]);
    g_assert_true (repo_writer_commit (writer, manifest, &err));
    f->point = g_strdup (manifest->id);
  }
  /* Opened anew, as a restore would. */
  tmk_repository_free (f->repository);
  f->repository = tmk_repository_open (path, &err);
  assert_ok (err);
  f->repo = repository_repo (f->repository);
  return f;
}

static void
fixture_free (Fixture *f)
{
  tmk_repository_free (f->repository);
  remove_folder (f->folder);
  g_free (f->folder);
  g_free (f->point);
  g_free (f);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Fixture, fixture_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkRestoreResult, tmk_restore_result_free)

/* ---- what is compared -------------------------------------------------------------------------
 */

static void
assert_same (const Fixture *f, const char *disk, const char *path, const char *format)
{
  g_autofree char *model = model_path (f, disk);
  if (g_str_equal (format, "qcow2")) {
    g_autofree char *check = g_strdup_printf ("qemu-img check -f qcow2 '%s'", path);
    g_free (run_process (check));
  }
  g_autofree char *compare
      = g_strdup_printf ("qemu-img compare -f %s -F raw '%s' '%s'", format, path, model);
  g_free (run_process (compare));
}

static uint64_t
allocated (const char *path)
{
  struct stat st;
  g_assert_cmpint (stat (path, &st), ==, 0);
  return (uint64_t) st.st_blocks * 512;
}

static bool
there_is (const char *path)
{
  return g_file_test (path, G_FILE_TEST_EXISTS) || g_file_test (path, G_FILE_TEST_IS_SYMLINK);
}

/* Follows the progress: never backwards, no more than the total, and finished once a disk. */
typedef struct {
  char *disk;
  uint64_t done;
  unsigned finished, calls;
  GThread *thread;
  GString *damage;
  uint64_t damaged;
  unsigned cancel_after; /* calls of cancelled() */
  GPid stop;             /* a process that is stopped at the first of them */
} Watch;

static void
on_progress (const TmkRestoreProgress *progress, void *data)
{
  Watch *watch = data;
  g_assert_true (watch->thread == g_thread_self ());
  if (g_strcmp0 (watch->disk, progress->disk) != 0) {
    g_free (watch->disk);
    watch->disk = g_strdup (progress->disk);
    watch->done = 0;
  }
  g_assert_cmpuint (progress->done, >=, watch->done);
  g_assert_cmpuint (progress->done, <=, progress->total);
  g_assert_nonnull (progress->target);
  if (progress->finished)
    g_assert_cmpuint (progress->done, ==, progress->total);
  watch->done = progress->done;
  watch->finished += progress->finished;
  watch->calls++;
}

static void
on_damage (const TmkDamage *damage, void *data)
{
  Watch *watch = data;
  g_assert_nonnull (damage->point);
  g_assert_nonnull (damage->message);
  watch->damaged += damage->length;
  g_string_append_printf (watch->damage, "%s:%" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " ",
                          damage->disk, damage->offset, damage->length);
}

static bool
on_cancelled (void *data)
{
  Watch *watch = data;
  if (watch->stop != 0)
    kill (watch->stop, SIGSTOP);
  return watch->cancel_after != 0 && --watch->cancel_after == 0;
}

static TmkRestoreResult *
restore (Fixture *f, TmkRestoreOptions *options, Watch *watch, TmkError **errp)
{
  Watch own = { 0 };
  if (watch == NULL)
    watch = &own;
  watch->thread = g_thread_self ();
  watch->damage = g_string_new (NULL);
  options->progress = on_progress;
  options->damage = on_damage;
  options->cancelled = on_cancelled;
  options->data = watch;
  TmkRestoreResult *result = tmk_restore (f->repository, f->point, options, errp);
  g_clear_pointer (&watch->disk, g_free);
  if (watch == &own)
    g_string_free (own.damage, TRUE);
  return result;
}

/* ---- all disks ------------------------------------------------------------------------------- */

static void
check_all (Fixture *f, const char *format, unsigned threads, bool verify)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *to = in_folder (f, "a/b/c");
  g_autofree char *slashes = g_strconcat (to, "//", NULL);
  Watch watch = { 0 };
  TmkRestoreOptions options
      = { .to = slashes, .format = format, .threads = threads, .verify = verify };
  g_autoptr (TmkRestoreResult) result = restore (f, &options, &watch, &err);
  assert_ok (err);
  g_string_free (watch.damage, TRUE);
  if (format == NULL)
    format = "qcow2";
  uint64_t size = 0;
  g_assert_cmpuint (result->n_targets, ==, f->n);
  g_assert_cmpuint (watch.finished, ==, f->n);
  for (size_t i = 0; i < f->n; i++) {
    g_autofree char *name = g_strdup_printf ("%s.%s", f->specs[i].name, format);
    g_autofree char *path = g_build_filename (to, name, NULL);
    g_autofree char *model = model_path (f, f->specs[i].name);
    g_assert_cmpstr (result->disks[i], ==, f->specs[i].name);
    g_assert_cmpstr (result->targets[i], ==, path);
    assert_same (f, f->specs[i].name, path, format);
    size += f->specs[i].size;
    /* Sparse: no more than was stored in whole blocks, and tables. */
    g_assert_cmpuint (allocated (path), <=, allocated (model) + 7 * 64 * KIB);
    if (g_str_equal (format, "raw"))
      g_assert_cmpuint (allocated (path), <=, allocated (model));
  }
  g_assert_cmpuint (result->size, ==, size);
  g_assert_cmpuint (result->written, >, size / 3);
  g_assert_cmpuint (result->written, <, size);
  g_autofree char *path = g_build_filename (to, "domain.xml", NULL);
  g_autofree char *xml = NULL;
  g_assert_true (g_file_get_contents (path, &xml, NULL, NULL));
  g_assert_cmpstr (xml, ==, XML);
  g_autofree char *a = in_folder (f, "a");
  remove_folder (a);
}

static void
test_all (void)
{
  if (!have_program ("qemu-img"))
    return;
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  check_all (f, NULL, 0, false);
  check_all (f, "qcow2", 1, true);
  check_all (f, "raw", 3, true);
  check_all (f, "raw", 8, false);
}

/* The folder may be there, with other things in it; two points of view of the same point. */
static void
test_spec (void)
{
  if (!have_program ("qemu-img"))
    return;
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  g_autoptr (TmkError) err = NULL;
  g_autofree char *to = in_folder (f, "tiny.qcow2");
  TmkRestoreOptions options = { .disk = "tiny", .to = to };
  g_autoptr (TmkRestoreResult) result
      = tmk_restore (f->repository, "vm/latest", &options, &err); /* no callbacks at all */
  assert_ok (err);
  g_assert_cmpuint (result->n_targets, ==, 1);
  assert_same (f, "tiny", to, "qcow2");
  g_assert_null (tmk_restore (f->repository, "other/latest", &options, &err));
  assert_error (&err, TMK_ERR_NOT_FOUND, "other");
}

/* ---- one disk -------------------------------------------------------------------------------- */

static void
check_file (Fixture *f, const char *disk, const char *name, const char *format,
            const char *expected)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *path = in_folder (f, name);
  TmkRestoreOptions options = { .disk = disk, .to = path, .format = format };
  g_autoptr (TmkRestoreResult) result = restore (f, &options, NULL, &err);
  assert_ok (err);
  g_assert_cmpuint (result->n_targets, ==, 1);
  g_assert_cmpstr (result->targets[0], ==, path);
  assert_same (f, disk, path, expected);
  g_assert_cmpint (g_unlink (path), ==, 0);
}

static void
test_one (void)
{
  if (!have_program ("qemu-img"))
    return;
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  check_file (f, "vda", "x.qcow2", NULL, "qcow2");
  check_file (f, "vda", "x.img", NULL, "raw");
  check_file (f, "vdb", "x", NULL, "raw");
  check_file (f, "vdb", "x.qcow2", "raw", "raw");
  check_file (f, "empty", "x.img", "qcow2", "qcow2");
  check_file (f, "tiny", "tiny", "qcow2", "qcow2");
}

static void
test_nbd (void)
{
  if (!have_program ("qemu-nbd") || !have_program ("qemu-img"))
    return;
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  const uint64_t disk = usual[0].size, sizes[] = { disk, disk + 512, 40 * MIB, disk - 512 };
  for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (TmkError) err = NULL;
    g_autofree char *path = in_folder (f, "export");
    g_autofree char *socket = in_folder (f, "nbd");
    g_autofree char *uri = g_strdup_printf ("nbd+unix:///?socket=%s", socket);
    g_autofree guint8 *junk = g_malloc (sizes[i]);
    memset (junk, 0xdb, sizes[i]); /* what was there */
    g_assert_true (g_file_set_contents (path, (char *) junk, (gssize) sizes[i], NULL));
    g_autofree char *serve = g_strdup_printf ("qemu-nbd -t -e 4 -f raw -k '%s' '%s'", socket, path);
    GPid pid = start_process (serve);
    wait_for_server (socket);
    TmkRestoreOptions options = { .disk = "vda", .to = uri, .verify = true };
    g_autoptr (TmkRestoreResult) result = restore (f, &options, NULL, &err);
    end_process (pid);
    g_unlink (socket);
    if (sizes[i] < f->specs[0].size) {
      assert_error (&err, TMK_ERR_MISMATCH, "21037056 bytes, and disk 'vda' 21037568");
      g_autofree char *now = NULL;
      gsize length;
      g_assert_true (g_file_get_contents (path, &now, &length, NULL));
      g_assert_cmpmem (now, length, junk, sizes[i]);
    } else { /* qemu-img: all of what is beyond the model's end is zero */
      assert_ok (err);
      g_assert_cmpstr (result->targets[0], ==, uri);
      assert_same (f, "vda", path, "raw");
    }
  }
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void
expect_refusal (Fixture *f, const char *disk, const char *to, const char *format, TmkErrorCode code,
                const char *part, const char *hint)
{
  g_autoptr (TmkError) err = NULL;
  TmkRestoreOptions options = { .disk = disk, .to = to, .format = format };
  g_assert_null (restore (f, &options, NULL, &err));
  g_assert_nonnull (tmk_error_hint (err));
  if (strstr (tmk_error_hint (err), hint) == NULL)
    g_error ("no '%s' in hint '%s'", hint, tmk_error_hint (err));
  assert_error (&err, code, part);
}

static void
test_refused (void)
{
  const DiskSpec strange[] = { { "vda", MIB, 64 * KIB, NULL }, { "../vdb", MIB, 64 * KIB, NULL } };
  g_autoptr (Fixture) f = fixture_new (usual, 2);
  g_autofree char *there = in_folder (f, "there");
  g_autofree char *folder = in_folder (f, "folder");
  g_autofree char *other = in_folder (f, "folder/vdb.qcow2");
  g_autofree char *first = in_folder (f, "folder/vda.qcow2");
  g_autofree char *name = in_folder (f, "new.qcow2");
  g_autofree char *below = in_folder (f, "there/below");
  g_autofree char *fresh = in_folder (f, "fresh");
  g_assert_true (g_file_set_contents (there, "x", 1, NULL));
  g_assert_cmpint (g_mkdir (folder, 0700), ==, 0);
  g_assert_cmpint (symlink ("/nowhere", other), ==, 0);

  expect_refusal (f, "vdc", fresh, NULL, TMK_ERR_NOT_FOUND, "no disk 'vdc'", "vda, vdb");
  expect_refusal (f, "vda", fresh, "vmdk", TMK_ERR_USAGE, "'vmdk'", "qcow2");
  expect_refusal (f, NULL, fresh, "vmdk", TMK_ERR_USAGE, "'vmdk'", "qcow2");
  expect_refusal (f, "vda", there, NULL, TMK_ERR_EXISTS, there, "never overwritten");
  expect_refusal (f, "vda", other, NULL, TMK_ERR_EXISTS, other, "never overwritten");
  expect_refusal (f, "vda", folder, NULL, TMK_ERR_EXISTS, "is a folder", "name the file");
  expect_refusal (f, NULL, there, NULL, TMK_ERR_EXISTS, "no folder", "--disk");
  expect_refusal (f, NULL, below, NULL, TMK_ERR_EXISTS, "no folder", "--disk");
  expect_refusal (f, NULL, name, NULL, TMK_ERR_USAGE, "one disk", "--disk vda");
  expect_refusal (f, NULL, "nbd://localhost:1/x", NULL, TMK_ERR_USAGE, "one disk", "--disk vda");
  expect_refusal (f, "vda", "nbd://localhost:1/x", "qcow2", TMK_ERR_USAGE, "'qcow2'", "format");
  expect_refusal (f, NULL, folder, NULL, TMK_ERR_EXISTS, other, "never overwritten");
  g_assert_false (there_is (first)); /* was made before the other was met */
  g_assert_true (there_is (other));
  g_assert_cmpint (g_unlink (other), ==, 0);
  g_autofree char *xml = g_build_filename (folder, "domain.xml", NULL);
  g_assert_true (g_file_set_contents (xml, "mine", -1, NULL));
  expect_refusal (f, NULL, folder, NULL, TMK_ERR_EXISTS, xml, "never overwritten");
  g_assert_false (there_is (first) || there_is (other));
  g_autofree char *mine = NULL;
  g_assert_true (g_file_get_contents (xml, &mine, NULL, NULL));
  g_assert_cmpstr (mine, ==, "mine");
  g_assert_false (there_is (name) || there_is (fresh));

  g_autoptr (Fixture) g = fixture_new (strange, 2);
  expect_refusal (g, NULL, fresh, NULL, TMK_ERR_INVALID, "'../vdb'", "--disk");
  g_assert_false (there_is (fresh));
}

/* ---- damage ---------------------------------------------------------------------------------- */

typedef struct {
  Fixture *f;
  size_t disk;
  uint64_t chunk;
  ObjectId id;
} FindChunk;

static bool
find_chunk (uint64_t chunk, const ObjectId *id, void *data, TmkError **errp)
{
  FindChunk *find = data;
  if (chunk == find->chunk)
    find->id = *id;
  return true;
}

/* Flips a bit of the object `id` wherever it is in the packs: of the last byte but one of its
 * record, which lies just before the next one. The record is found by its id, behind the header's
 * magic. */
static void
damage_object (const char *folder, const ObjectId *id, unsigned *hits)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_autofree char *bytes = NULL;
    gsize length;
    if (g_file_test (path, G_FILE_TEST_IS_DIR)) {
      damage_object (path, id, hits);
      continue;
    }
    g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
    char *at = memmem (bytes, length, id->bytes, sizeof id->bytes);
    if (at == NULL || (gsize) (at - bytes) < 24 || memcmp (at - 16, "TMKR", 4) != 0)
      continue;
    at[sizeof id->bytes + 20] ^= 4; /* in the payload */
    g_assert_cmpint (g_chmod (path, 0600), ==, 0);
    int fd = open (path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint (pwrite (fd, bytes, length, 0), ==, (gssize) length);
    close (fd);
    ++*hits;
  }
}

static void
damage_id (Fixture *f, const ObjectId *id)
{
  g_autofree char *packs = in_folder (f, "repository/packs");
  unsigned hits = 0;
  damage_object (packs, id, &hits);
  g_assert_cmpuint (hits, ==, 1);
}

static void
damage_chunk (Fixture *f, size_t disk, uint64_t chunk)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (PointSet) points = points_load (f->repo, NULL, &err);
  const Manifest *manifest = points_find (points, f->point, &err);
  const ManifestDisk *d = &manifest->disks[disk];
  uint64_t chunks = tree_chunks (d->size, d->chunk_size);
  FindChunk find = { .chunk = chunk };
  g_autoptr (RepoReader) reader = repo_reader_new (f->repo, false);
  g_assert_true (tree_walk (reader, &d->root, chunks, 0, chunks, find_chunk, NULL, &find, &err));
  damage_id (f, &find.id);
}

static void
expect_damage (Fixture *f, const char *disk, const char *to, const char *expected)
{
  g_autoptr (TmkError) err = NULL;
  Watch watch = { 0 };
  TmkRestoreOptions options = { .disk = disk, .to = to, .threads = 3 };
  g_assert_null (restore (f, &options, &watch, &err));
  g_assert_cmpstr (watch.damage->str, ==, expected);
  g_autofree char *bytes = g_strdup_printf ("%" G_GUINT64_FORMAT " bytes", watch.damaged);
  assert_error (&err, TMK_ERR_DAMAGED, bytes);
  g_string_free (watch.damage, TRUE);
  g_assert_false (there_is (to));
}

static void
test_damage (void)
{
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  g_autofree char *to = in_folder (f, "to");
  damage_chunk (f, 0, 11);
  damage_chunk (f, 0, 13);  /* not 12: two ranges */
  damage_chunk (f, 0, 321); /* the last one, of 512 bytes */
  damage_chunk (f, 0, 14);
  damage_chunk (f, 1, 9); /* of the other disk, and its last one */
  const char *vda = "vda:720896+65536 vda:851968+131072 vda:21037056+512 ";
  g_autofree char *all = g_strconcat (vda, "vdb:9437184+78848 ", NULL);
  expect_damage (f, "vda", to, vda);
  expect_damage (f, NULL, to, all);
  /* A disk without damage can still be had. */
  g_autoptr (TmkError) err = NULL;
  TmkRestoreOptions options = { .disk = "tiny", .to = to };
  g_autoptr (TmkRestoreResult) result = restore (f, &options, NULL, &err);
  assert_ok (err);
  g_assert_cmpuint (result->n_targets, ==, 1);
}

/* A node that is lost takes the range below it. */
static void
test_damaged_tree (void)
{
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  g_autoptr (TmkError) err = NULL;
  g_autofree char *to = in_folder (f, "to");
  ObjectId leaf;
  {
    g_autoptr (PointSet) points = points_load (f->repo, NULL, &err);
    const Manifest *manifest = points_find (points, f->point, &err);
    g_autoptr (RepoReader) reader = repo_reader_new (f->repo, false);
    Node node;
    g_assert_true (tree_read_node (reader, &manifest->disks[0].root, 1, &node, NULL, NULL, &err));
    leaf = node.ids[1];
  }
  damage_id (f, &leaf);
  damage_chunk (f, 1, 0);
  expect_damage (f, NULL, to, "vda:16777216+4260352 vdb:0+1048576 ");
}

/* Bytes that are not what their id says, with the checksum right: only verifying shows it. */
static void
test_verify (void)
{
  const ObjectId fake = { { 1, 2, 3 } };
  const DiskSpec specs[] = { { "vda", 5 * MIB, 64 * KIB, &fake } };
  g_autoptr (Fixture) f = fixture_new (specs, 1);
  g_autoptr (TmkError) err = NULL;
  g_autofree char *to = in_folder (f, "to");
  Watch watch = { 0 };
  TmkRestoreOptions options = { .disk = "vda", .to = to, .verify = true };
  g_assert_null (restore (f, &options, &watch, &err));
  assert_error (&err, TMK_ERR_DAMAGED, f->point);
  g_assert_cmpstr (watch.damage->str, ==, "vda:65536+65536 ");
  g_string_free (watch.damage, TRUE);
  g_assert_false (there_is (to));
  options.verify = false;
  g_autoptr (TmkRestoreResult) result = restore (f, &options, NULL, &err);
  assert_ok (err);
  g_assert_cmpuint (result->n_targets, ==, 1);
}

/* ---- giving up ------------------------------------------------------------------------------- */

static void
test_cancel (void)
{
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  g_autofree char *to = in_folder (f, "x/to");
  g_autofree char *above = in_folder (f, "x");
  /* Once for each disk at least, and once before all is made durable. */
  for (unsigned after = 1; after <= 5; after++) {
    g_autoptr (TmkError) err = NULL;
    Watch watch = { .cancel_after = after };
    TmkRestoreOptions options = { .to = to };
    g_assert_null (restore (f, &options, &watch, &err));
    assert_error (&err, TMK_ERR_CANCELLED, "cancelled");
    g_string_free (watch.damage, TRUE);
    g_assert_false (there_is (above));
  }
}

/* An NBD server that has stopped answering: cancelling does not wait for it. */
static void
test_cancel_nbd (void)
{
  if (!have_program ("qemu-nbd"))
    return;
  g_autoptr (Fixture) f = fixture_new (usual, 1);
  g_autoptr (TmkError) err = NULL;
  g_autofree char *path = in_folder (f, "export");
  g_autofree char *socket = in_folder (f, "nbd");
  g_autofree char *uri = g_strdup_printf ("nbd+unix:///?socket=%s", socket);
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  g_assert_cmpint (ftruncate (fd, 64 * MIB), ==, 0);
  close (fd);
  g_autofree char *serve = g_strdup_printf ("qemu-nbd -t -e 4 -f raw -k '%s' '%s'", socket, path);
  GPid pid = start_process (serve);
  wait_for_server (socket);
  Watch watch = { .cancel_after = 4, .stop = pid }; /* it has been connected to by then */
  TmkRestoreOptions options = { .disk = "vda", .to = uri };
  gint64 began = g_get_monotonic_time ();
  g_assert_null (restore (f, &options, &watch, &err));
  assert_error (&err, TMK_ERR_CANCELLED, "cancelled");
  g_assert_cmpint (g_get_monotonic_time () - began, <, 20 * G_USEC_PER_SEC * slowness ());
  g_string_free (watch.damage, TRUE);
  end_process (pid);
}

static void
test_no_space (void)
{
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual));
  g_autofree char *small = in_folder (f, "small");
  g_assert_cmpint (g_mkdir (small, 0700), ==, 0);
  /* The mount is this thread's alone, and of those it makes: it goes with the process. */
  if (unshare (CLONE_NEWNS) != 0 || mount (NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
      || mount ("tmpfs", small, "tmpfs", 0, "size=4m") != 0) {
    g_test_skip ("cannot mount a small file system");
    return;
  }
  const char *const formats[] = { "raw", "qcow2" };
  for (int i = 0; i < 2; i++) {
    g_autoptr (TmkError) err = NULL;
    g_autofree char *to = g_build_filename (small, "to", NULL);
    TmkRestoreOptions options = { .to = to, .format = formats[i] };
    g_assert_null (restore (f, &options, NULL, &err));
    assert_error (&err, TMK_ERR_NO_SPACE, "disk 'vda'");
    g_assert_false (there_is (to));
  }
  umount (small);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/engine/restore/all", test_all);
  g_test_add_func ("/engine/restore/spec", test_spec);
  g_test_add_func ("/engine/restore/one", test_one);
  g_test_add_func ("/engine/restore/nbd", test_nbd);
  g_test_add_func ("/engine/restore/refused", test_refused);
  g_test_add_func ("/engine/restore/damage", test_damage);
  g_test_add_func ("/engine/restore/damaged-tree", test_damaged_tree);
  g_test_add_func ("/engine/restore/verify", test_verify);
  g_test_add_func ("/engine/restore/cancel", test_cancel);
  g_test_add_func ("/engine/restore/cancel-nbd", test_cancel_nbd);
  g_test_add_func ("/engine/restore/no-space", test_no_space);
  return g_test_run ();
}
