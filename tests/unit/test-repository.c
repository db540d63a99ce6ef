/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: the public repository makes, opens and describes what is there; a diff of two points,
 * applied to the older disk, gives the newer one, whatever their sizes and chunks, and names
 * nothing that did not change where the chunks are alike; statistics are those of the files. */
#include "repo-case.h"

#include "repo/repository.h"

#include <ftw.h>
#include <glib/gstdio.h>

typedef struct {
  char *path;
  TmkRepository *repository;
  Repo *repo;
} Fixture;

static int
remove_entry (const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
  return remove (path);
}

static void
fixture_init (Fixture *fixture)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *folder = g_dir_make_tmp ("tmk-repository-XXXXXX", NULL);
  fixture->path = g_build_filename (folder, "new", NULL);
  fixture->repository = tmk_repository_init (fixture->path, NULL, &err);
  case_no_error (err);
  fixture->repo = repository_repo (fixture->repository);
}

static void
fixture_clear (Fixture *fixture)
{
  g_autofree char *folder = g_path_get_dirname (fixture->path);
  tmk_repository_free (fixture->repository);
  g_assert_cmpint (nftw (folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), ==, 0);
  g_free (fixture->path);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Fixture, fixture_clear)

static void
assert_refused (TmkError **err, TmkErrorCode code, const char *part)
{
  g_assert_nonnull (*err);
  if (strstr (tmk_error_message (*err), part) == NULL || tmk_error_code (*err) != code)
    g_error ("%s: %s", tmk_error_code_name (tmk_error_code (*err)), tmk_error_message (*err));
  g_clear_pointer (err, tmk_error_free);
}

static void
test_init (void)
{
  g_auto (Fixture) fixture = { 0 };
  TmkError *err = NULL;
  fixture_init (&fixture);
  g_assert_cmpint (strlen (tmk_repository_id (fixture.repository)), ==, 32);
  g_assert_cmpuint (tmk_repository_chunk_size (fixture.repository), ==, 64 << 10);
  g_assert_cmpstr (tmk_repository_compression (fixture.repository), ==, "zstd:1");
  g_assert_cmpstr (tmk_repository_location (fixture.repository), ==, fixture.path);
  g_assert_null (tmk_repository_init (fixture.path, NULL, &err));
  assert_refused (&err, TMK_ERR_EXISTS, fixture.path);
  TmkRepository *again = tmk_repository_open (fixture.path, &err);
  case_no_error (err);
  g_assert_cmpstr (tmk_repository_id (again), ==, tmk_repository_id (fixture.repository));
  tmk_repository_free (again);

  g_autofree char *none = g_strconcat (fixture.path, "-not", NULL);
  g_assert_null (tmk_repository_open (none, &err));
  assert_refused (&err, TMK_ERR_NOT_FOUND, none);
  static const char *const wrong[] = { "lz4", "zstd:0", "zstd:23", "zstd:", "zstd:1x", "none:1" };
  for (size_t i = 0; i < G_N_ELEMENTS (wrong); i++) {
    TmkRepositoryOptions options = { .compression = wrong[i] };
    g_assert_null (tmk_repository_init (none, &options, &err));
    assert_refused (&err, TMK_ERR_USAGE, wrong[i]);
  }
  static const uint64_t sizes[]
      = { 1, 65537, 32 << 10, 8 << 20, (UINT64_C (1) << 32) + (64 << 10) };
  for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
    TmkRepositoryOptions options = { .chunk_size = sizes[i] };
    g_assert_null (tmk_repository_init (none, &options, &err));
    assert_refused (&err, TMK_ERR_USAGE, "chunks cannot have");
  }
  g_assert_false (g_file_test (none, G_FILE_TEST_EXISTS));
  TmkRepositoryOptions options = { .chunk_size = 4 << 20, .compression = "none" };
  TmkRepository *other = tmk_repository_init (none, &options, &err);
  case_no_error (err);
  g_assert_cmpuint (tmk_repository_chunk_size (other), ==, 4 << 20);
  g_assert_cmpstr (tmk_repository_compression (other), ==, "none");
  tmk_repository_free (other);
  tmk_repository_free (NULL);
}

/* ---- diff --------------------------------------------------------------------------------- */

typedef struct {
  const CaseDisk *from, *to;
  unsigned char *image; /* what the older disk becomes */
  uint64_t end, ranges, bytes;
} Applied;

static void
fill_image (const CaseDisk *disk, unsigned char *image)
{
  for (uint64_t i = 0; i < tree_chunks (disk->size, disk->chunk_size); i++)
    case_fill (disk->values[i], image + i * disk->chunk_size, case_chunk_length (disk, i));
}

static bool
apply (const char *name, uint64_t offset, uint64_t length, bool zero, void *data)
{
  Applied *applied = data;
  if (!g_str_equal (name, applied->to->name))
    return true;
  g_autofree unsigned char *wanted = g_malloc0 (applied->to->size);
  fill_image (applied->to, wanted);
  g_assert_cmpuint (length, >, 0);
  g_assert_cmpuint (offset, >=, applied->end);
  g_assert_cmpuint (offset + length, <=, applied->to->size);
  if (zero)
    memset (applied->image + offset, 0, length);
  else
    memcpy (applied->image + offset, wanted + offset, length);
  applied->end = offset + length;
  applied->ranges++;
  applied->bytes += length;
  return true;
}

/* Applies the diff to the older disk and compares; false in `exact` where more may differ than has
 * to. `from` may be NULL. */
static void
assert_diff (Fixture *fixture, const char *a, const char *b, const CaseDisk *from,
             const CaseDisk *to, uint64_t ranges, uint64_t bytes)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree unsigned char *image = g_malloc0 (MAX (to->size, from != NULL ? from->size : 0));
  g_autofree unsigned char *wanted = g_malloc0 (to->size);
  Applied applied = { .from = from, .to = to, .image = image };
  if (from != NULL)
    fill_image (from, image);
  fill_image (to, wanted);
  tmk_repository_diff (fixture->repository, a, b, apply, &applied, &err);
  case_no_error (err);
  g_assert_cmpmem (image, to->size, wanted, to->size);
  g_assert_cmpuint (applied.ranges, ==, ranges);
  g_assert_cmpuint (applied.bytes, ==, bytes);
}

#define KIB(n) ((uint64_t) (n) << 10)

static bool
stop (const char *name, uint64_t offset, uint64_t length, bool zero, void *data)
{
  return ++*(unsigned *) data < 2;
}

static void
test_diff (void)
{
  g_auto (Fixture) fixture = { 0 };
  fixture_init (&fixture);
  static const unsigned one[] = { 1, 2, 3, 0, 0, 4, 5, 6 };
  static const unsigned two[] = { 1, 7, 8, 0, 9, 0, 0, 6 };
  static const unsigned longer[] = { 1, 2, 3, 0, 0, 4, 5, 6, 0, 10, 11 };
  static const unsigned large[] = { 21, 0, 22, 0 };
  const uint64_t size = 7 * CASE_CHUNK + 512;
  CaseDisk a[] = { { "vda", size, CASE_CHUNK, one }, { "vdz", size, CASE_CHUNK, two } };
  CaseDisk b[] = { { "vda", size, CASE_CHUNK, two }, { "new", size, CASE_CHUNK, one } };
  CaseDisk c[] = { { "vda", 10 * CASE_CHUNK + 1024, CASE_CHUNK, longer } };
  CaseDisk d[] = { { "vda", 7 * CASE_CHUNK, 2 * CASE_CHUNK, large } };
  case_commit (fixture.repo, "00000000000000aa", "vm", 1, a, 2);
  b[0].base = one;
  b[0].base_root = a[0].root;
  case_commit (fixture.repo, "00000000000000bb", "vm", 2, b, 2);
  case_commit (fixture.repo, "00000000000000cc", "vm", 3, c, 1);
  case_commit (fixture.repo, "00000000000000dd", "vm", 4, d, 1);
#define A "00000000000000aa"
#define B "00000000000000bb"
#define C "00000000000000cc"
#define D "00000000000000dd"
  /* [1,2] data, 4 data, [5,6] zero */
  assert_diff (&fixture, A, B, &a[0], &b[0], 3, 5 * CASE_CHUNK);
  assert_diff (&fixture, B, A, &b[0], &a[0], 3, 5 * CASE_CHUNK); /* [1,2] data, 4 zero, [5,6] */
  assert_diff (&fixture, A, A, &a[0], &a[0], 0, 0);
  /* a disk that is new: [0,2], [5,7] */
  assert_diff (&fixture, A, B, NULL, &b[1], 2, 5 * CASE_CHUNK + 512);
  /* grown: its last chunk was shorter, so 7 differs; 9, and 10 with 1024 bytes */
  assert_diff (&fixture, A, C, &a[0], &c[0], 2, 2 * CASE_CHUNK + 1024);
  /* shrunk: chunk 7 differs */
  assert_diff (&fixture, C, A, &c[0], &a[0], 1, 512);
  /* chunks of another size: 0 data, 1 zero, 2 data, 3 zero (of 64 KiB, where 5 to 7 were) */
  assert_diff (&fixture, A, D, &a[0], &d[0], 4, 7 * CASE_CHUNK);
  assert_diff (&fixture, D, A, &d[0], &a[0], 3, 7 * CASE_CHUNK + 512 - CASE_CHUNK);
  unsigned calls = 0;
  TmkError *err = NULL;
  g_assert_true (tmk_repository_diff (fixture.repository, A, B, stop, &calls, &err));
  g_assert_cmpint (calls, ==, 2);
  g_assert_false (tmk_repository_diff (fixture.repository, A, "ee", stop, &calls, &err));
  assert_refused (&err, TMK_ERR_NOT_FOUND, "'ee'");
}

/* ---- points and statistics ---------------------------------------------------------------- */

static void
test_points (void)
{
  g_auto (Fixture) fixture = { 0 };
  fixture_init (&fixture);
  static const unsigned values[] = { 1, 0, 2 };
  CaseDisk disks[] = { { "vda", 3 * CASE_CHUNK, CASE_CHUNK, values } };
  case_commit (fixture.repo, "00000000000000aa", "vm", 7, disks, 1);
  case_commit (fixture.repo, "00000000000000bb", "other", 8, disks, 1);
  TmkError *err = NULL;
  TmkPointList *list = tmk_repository_points (fixture.repository, NULL, &err);
  case_no_error (err);
  g_assert_cmpint (list->n_points, ==, 2);
  g_assert_cmpint (list->n_damaged, ==, 0);
  const TmkPoint *point = list->points[0];
  g_assert_cmpstr (point->id, ==, "00000000000000aa");
  g_assert_cmpstr (point->domain, ==, "vm");
  g_assert_cmpint (point->time_us, ==, 7);
  g_assert_null (point->domain_xml);
  g_assert_cmpint (point->n_disks, ==, 1);
  g_assert_cmpstr (point->disks[0]->name, ==, "vda");
  g_assert_cmpstr (point->disks[0]->mode, ==, "full");
  g_assert_cmpuint (point->disks[0]->size, ==, 3 * CASE_CHUNK);
  g_assert_cmpuint (point->disks[0]->used, ==, 2 * CASE_CHUNK);
  tmk_point_list_free (list);
  tmk_point_list_free (NULL);

  case_flip (repo_store (fixture.repo), "points/00000000000000aa", 90, 0);
  list = tmk_repository_find (fixture.repository, "other/latest", &err);
  case_no_error (err);
  g_assert_cmpint (list->n_points, ==, 1);
  g_assert_cmpstr (list->points[0]->id, ==, "00000000000000bb");
  g_assert_cmpint (list->n_damaged, ==, 1);
  g_assert_true (g_str_has_prefix (list->damaged[0], "00000000000000aa: "));
  tmk_point_list_free (list);
  g_assert_null (tmk_repository_find (fixture.repository, "00000000000000aa", &err));
  assert_refused (&err, TMK_ERR_DAMAGED, "00000000000000aa");
}

static uint64_t file_bytes;

static int
add_size (const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
  file_bytes += flag == FTW_F ? (uint64_t) st->st_size : 0;
  return 0;
}

static void
test_stats (void)
{
  g_auto (Fixture) fixture = { 0 };
  fixture_init (&fixture);
  static const unsigned one[] = { 1, 2, 3, 0, 1 }, two[] = { 1, 2, 4, 0, 1 };
  CaseDisk a[] = { { "vda", 5 * CASE_CHUNK, CASE_CHUNK, one } };
  CaseDisk b[] = { { "vda", 5 * CASE_CHUNK, CASE_CHUNK, two } };
  case_commit (fixture.repo, "00000000000000aa", "vm", 7, a, 1);
  b[0].base = one;
  b[0].base_root = a[0].root;
  case_commit (fixture.repo, "00000000000000bb", "vm", 8, b, 1);
  case_commit (fixture.repo, "00000000000000cc", "other", 8, b, 1);
  TmkRepositoryStats stats;
  TmkError *err = NULL;
  tmk_repository_stats (fixture.repository, &stats, &err);
  case_no_error (err);
  g_assert_cmpuint (stats.points, ==, 3);
  g_assert_cmpuint (stats.domains, ==, 2);
  g_assert_cmpuint (stats.disks, ==, 3);
  g_assert_cmpuint (stats.logical, ==, 12 * CASE_CHUNK);
  g_assert_cmpuint (stats.objects, ==, 4 + 2); /* chunks 1 to 4; a leaf and a delta to it */
  g_assert_cmpuint (stats.bytes, ==, stats.pack_bytes + stats.index_bytes + stats.other_bytes);
  file_bytes = 0;
  g_assert_cmpint (nftw (fixture.path, add_size, 16, FTW_PHYS), ==, 0);
  g_assert_cmpuint (stats.bytes, ==, file_bytes);
  g_autoptr (GPtrArray) packs = case_names (repo_store (fixture.repo), "packs");
  g_autoptr (GPtrArray) indexes = case_names (repo_store (fixture.repo), "index");
  g_assert_cmpuint (stats.packs, ==, packs->len);
  g_assert_cmpuint (stats.index_files, ==, indexes->len);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/repository/init", test_init);
  g_test_add_func ("/repository/diff", test_diff);
  g_test_add_func ("/repository/points", test_points);
  g_test_add_func ("/repository/stats", test_stats);
  return g_test_run ();
}
