/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: files of a domain come back from a point as they were, whatever their length, with their
 * modes, and only below the folder; what cannot be read is named and no error; damage is named by
 * the file that it touches.
 */
#include "engine/keep.h"
#include "repo/points.h"
#include "repo/repository.h"
#include "test-blk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <tidemark/restore.h>
#include <unistd.h>

typedef struct {
  const char *role, *name, *path;
  size_t size;
  unsigned mode;
} Spec;

/* 33 bytes are as many as those of which a node's id is made. */
static const Spec usual[] = {
  { "nvram", "vm_VARS.fd", NULL, 540672, 0600 },  { "tpm", "tpm2/tpm2-00.permall", NULL, 33, 0640 },
  { "tpm", "tpm2/empty", NULL, 0, 0600 },         { "tpm", "tpm2/one", NULL, 1, 0400 },
  { "tpm", "long", NULL, 2 * 65536 + 511, 0600 }, { "later-role", "x", NULL, 512, 0755 },
};

typedef struct {
  char *folder;
  TmkRepository *repository;
  char point[POINT_ID_DIGITS + 1];
  GPtrArray *left_out;
} Fixture;

static char *
in_folder (const Fixture *f, const char *name)
{
  return g_build_filename (f->folder, name, NULL);
}

static char *
source_path (const Fixture *f, size_t i)
{
  g_autofree char *name = g_strdup_printf ("source-%zu", i);
  return in_folder (f, name);
}

/* Numbers with a page of zeroes in the middle; a variable store is mostly 0xff. */
static void
write_source (const Fixture *f, size_t i, const Spec *spec)
{
  g_autofree char *path = source_path (f, i);
  g_autofree guint8 *data = g_malloc (spec->size + 1);
  for (size_t at = 0; at < spec->size; at++)
    data[at] = at / 4096 == 1 ? 0 : at / 4096 > 20 ? 0xff : (guint8) (1 + (at + i) % 251);
  int fd = open (path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  g_assert_cmpint (write (fd, data, spec->size), ==, (gssize) spec->size);
  g_assert_cmpint (fchmod (fd, spec->mode), ==, 0);
  close (fd);
}

/* A point without disks, with these files; those with a path are there already, or are not. */
static Fixture *
fixture_new (const Spec *specs, size_t n, const char *left_out)
{
  Fixture *f = g_new0 (Fixture, 1);
  g_autoptr (TmkError) err = NULL;
  f->folder = make_folder ();
  f->left_out = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *path = in_folder (f, "repository");
  f->repository = tmk_repository_init (path, NULL, &err);
  assert_ok (err);
  HvDescription *description = hv_description_new ();
  g_autoptr (TmkDomainDescription) shown = &description->public_part;
  const TmkDomainFile **files = hv_arena_alloc (description->arena, (n + 1) * sizeof *files);
  const char **out = hv_arena_alloc (description->arena, sizeof *out);
  for (size_t i = 0; i < n; i++) {
    if (specs[i].path == NULL)
      write_source (f, i, &specs[i]);
    g_autofree char *source = source_path (f, i);
    TmkDomainFile *file = hv_arena_alloc (description->arena, sizeof *file);
    file->role = specs[i].role;
    file->name = specs[i].name;
    file->path
        = hv_arena_string (description->arena, specs[i].path != NULL ? specs[i].path : source);
    files[i] = file;
  }
  out[0] = left_out;
  shown->files = files;
  shown->n_files = n;
  shown->left_out = out;
  shown->n_left_out = left_out != NULL;

  Repo *repo = repository_repo (f->repository);
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, &err);
  assert_ok (err);
  g_autoptr (Pipeline) pipeline = pipeline_new (writer, repo, 1, 0, &err);
  assert_ok (err);
  g_autoptr (Manifest) manifest = manifest_new (0);
  point_id_new (manifest->id);
  memcpy (f->point, manifest->id, sizeof f->point);
  manifest->domain = g_strdup ("vm");
  manifest->time_us = g_get_real_time ();
  g_assert_true (keep_files (shown, pipeline, CHUNK_SIZE_MIN, manifest, f->left_out, &err));
  g_assert_true (pipeline_finish (pipeline, &err));
  g_assert_true (repo_writer_commit (writer, manifest, &err));
  return f;
}

static void
fixture_free (Fixture *f)
{
  tmk_repository_free (f->repository);
  remove_folder (f->folder);
  g_ptr_array_unref (f->left_out);
  g_free (f->folder);
  g_free (f);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Fixture, fixture_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkRestoreResult, tmk_restore_result_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkPointList, tmk_point_list_free)

static void
assert_same_file (const char *a, const char *b)
{
  g_autofree char *one = NULL, *two = NULL;
  gsize one_size, two_size;
  struct stat one_st, two_st;
  g_assert_true (g_file_get_contents (a, &one, &one_size, NULL));
  g_assert_true (g_file_get_contents (b, &two, &two_size, NULL));
  g_assert_cmpmem (one, one_size, two, two_size);
  g_assert_cmpint (stat (a, &one_st) | stat (b, &two_st), ==, 0);
  g_assert_cmpint (one_st.st_mode & 0777, ==, two_st.st_mode & 0777);
}

static void
on_damage (const TmkDamage *damage, void *data)
{
  g_assert_null (damage->disk);
  g_string_append_printf (data, "%s:%" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " ", damage->file,
                          damage->offset, damage->length);
}

static char *
verify (Fixture *f, uint64_t *damaged)
{
  g_autoptr (TmkError) err = NULL;
  GString *text = g_string_new (NULL);
  TmkVerifyOptions options = { .damage = on_damage, .data = text };
  TmkVerifyResult result;
  g_assert_true (tmk_repository_verify (f->repository, &options, &result, &err));
  *damaged = result.damaged;
  return g_string_free (text, FALSE);
}

static void
test_back (void)
{
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual), NULL);
  g_autoptr (TmkError) err = NULL;
  g_autofree char *to = in_folder (f, "to");
  static const char *const places[]
      = { "vm_VARS.fd",  "tpm/tpm2/tpm2-00.permall", "tpm/tpm2/empty", "tpm/tpm2/one", "tpm/long",
          "later-role/x" };
  mode_t before = umask (077);
  TmkRestoreOptions options = { .to = to, .verify = true };
  g_autoptr (TmkRestoreResult) result = tmk_restore (f->repository, f->point, &options, &err);
  umask (before);
  assert_ok (err);
  g_assert_cmpuint (result->n_targets, ==, 0);
  g_assert_cmpuint (result->n_files, ==, G_N_ELEMENTS (usual));
  for (size_t i = 0; i < G_N_ELEMENTS (usual); i++) {
    g_autofree char *source = source_path (f, i);
    g_autofree char *path = g_build_filename (to, places[i], NULL);
    g_assert_cmpstr (result->files[i], ==, path);
    assert_same_file (path, source);
  }
  uint64_t damaged;
  g_autofree char *said = verify (f, &damaged);
  g_assert_cmpstr (said, ==, "");
  g_assert_cmpuint (damaged, ==, 0);
  g_autoptr (TmkPointList) list = tmk_repository_find (f->repository, f->point, &err);
  g_assert_cmpuint (list->points[0]->n_files, ==, G_N_ELEMENTS (usual));
  g_assert_cmpuint (list->points[0]->files[1]->size, ==, 33);
  g_assert_cmpstr (list->points[0]->files[1]->name, ==, "tpm2/tpm2-00.permall");
}

/* Nothing that is there is overwritten, and then nothing is made. */
static void
test_in_the_way (void)
{
  g_autoptr (Fixture) f = fixture_new (usual, G_N_ELEMENTS (usual), NULL);
  g_autoptr (TmkError) err = NULL;
  g_autofree char *to = in_folder (f, "to");
  g_autofree char *there = g_build_filename (to, "tpm/long", NULL);
  g_autofree char *other = g_build_filename (to, "tpm/tpm2", NULL);
  g_autofree char *tpm = g_build_filename (to, "tpm", NULL);
  g_assert_cmpint (g_mkdir_with_parents (tpm, 0700), ==, 0);
  g_assert_true (g_file_set_contents (there, "mine", -1, NULL));
  TmkRestoreOptions options = { .to = to };
  g_assert_null (tmk_restore (f->repository, f->point, &options, &err));
  assert_error (&err, TMK_ERR_EXISTS, "tpm/long");
  g_autofree char *text = NULL;
  g_assert_true (g_file_get_contents (there, &text, NULL, NULL));
  g_assert_cmpstr (text, ==, "mine");
  g_assert_false (g_file_test (other, G_FILE_TEST_EXISTS));
}

static void
test_left_out (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *fifo = g_build_filename (folder, "fifo", NULL);
  g_autofree char *none = g_build_filename (folder, "none", NULL);
  g_assert_cmpint (mkfifo (fifo, 0600), ==, 0);
  const Spec specs[] = { { "nvram", "none", none, 0, 0 },
                         { "tpm", "good", NULL, 100, 0600 },
                         { "tpm", "fifo", fifo, 0, 0 },
                         { "tpm", "../out", NULL, 100, 0600 },
                         { "tpm", "good", NULL, 100, 0600 } };
  g_autoptr (Fixture) f = fixture_new (specs, G_N_ELEMENTS (specs), "tpm 'x': it is locked");
  g_autoptr (TmkError) err = NULL;
  static const char *const begins[]
      = { "tpm 'x': it is locked", "nvram 'none': cannot look at",
          "tpm 'fifo': ", "tpm '../out': a point cannot", "tpm 'good': a point cannot" };
  g_assert_cmpuint (f->left_out->len, ==, G_N_ELEMENTS (begins));
  for (size_t i = 0; i < G_N_ELEMENTS (begins); i++)
    g_assert_true (g_str_has_prefix (f->left_out->pdata[i], begins[i]));
  g_autoptr (TmkPointList) list = tmk_repository_find (f->repository, f->point, &err);
  g_assert_cmpuint (list->points[0]->n_files, ==, 1);
  remove_folder (folder);
}

/* A file that is another one whenever it is read. */
static void
test_changing (void)
{
  const Spec specs[] = { { "nvram", "vars", "/proc/sys/kernel/random/uuid", 0, 0 } };
  g_autoptr (Fixture) f = fixture_new (specs, 1, NULL);
  g_assert_cmpuint (f->left_out->len, ==, 1);
  g_assert_true (g_str_has_suffix (f->left_out->pdata[0], "changed while it was read"));
}

/* Flips a bit in the payload of the record that has this content, which lies plain in a pack. */
static void
damage_content (const char *folder, const void *content, size_t size, unsigned *hits)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_autofree char *bytes = NULL;
    gsize length;
    if (g_file_test (path, G_FILE_TEST_IS_DIR)) {
      damage_content (path, content, size, hits);
      continue;
    }
    g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
    char *at = memmem (bytes, length, content, size);
    if (at == NULL)
      continue;
    *at ^= 4;
    g_assert_cmpint (g_chmod (path, 0600), ==, 0);
    int fd = open (path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint (pwrite (fd, bytes, length, 0), ==, (gssize) length);
    close (fd);
    ++*hits;
  }
}

static void
test_damage (void)
{
  g_autofree char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "noise", NULL);
  guint8 noise[700];
  for (size_t i = 0; i < sizeof noise; i++)
    noise[i] = (guint8) g_test_rand_int ();
  g_assert_true (g_file_set_contents (path, (char *) noise, sizeof noise, NULL));
  const Spec specs[] = { { "tpm", "good", NULL, 100, 0600 }, { "tpm", "noise", path, 0, 0 } };
  g_autoptr (Fixture) f = fixture_new (specs, 2, NULL);
  g_autoptr (TmkError) err = NULL;
  g_autofree char *packs = in_folder (f, "repository/packs"), *to = in_folder (f, "to");
  unsigned hits = 0;
  damage_content (packs, noise, 600, &hits);
  g_assert_cmpuint (hits, ==, 1);
  uint64_t damaged;
  g_autofree char *said = verify (f, &damaged);
  g_assert_cmpstr (said, ==, "tpm/noise:0+1024 ");
  g_assert_cmpuint (damaged, ==, 1);
  g_autoptr (GString) told = g_string_new (NULL);
  TmkRestoreOptions options = { .to = to, .damage = on_damage, .data = told };
  g_assert_null (tmk_restore (f->repository, f->point, &options, &err));
  assert_error (&err, TMK_ERR_DAMAGED, f->point);
  g_assert_cmpstr (told->str, ==, "tpm/noise:0+1024 ");
  g_assert_false (g_file_test (to, G_FILE_TEST_EXISTS));
  remove_folder (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/engine-keep/back", test_back);
  g_test_add_func ("/engine-keep/in-the-way", test_in_the_way);
  g_test_add_func ("/engine-keep/left-out", test_left_out);
  g_test_add_func ("/engine-keep/changing", test_changing);
  g_test_add_func ("/engine-keep/damage", test_damage);
  return g_test_run ();
}
