/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: whatever fails while a tree is built and committed (any one operation of the store, the
 * process itself at any step, the room of the file system), the points committed before read back,
 * a point that is there reads back, and the next backup works. Two builders at once that make the
 * same nodes can each read theirs again.
 */
#include "objstore/folder.h"
#include "repo/repo_priv.h"
#include "repo/tree.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNKS 1500u

/* The ids of a disk at point `n`: many of the first, then some changes each. */
static void
make_model (unsigned n, ObjectId model[CHUNKS])
{
  memset (model, 0, CHUNKS * sizeof *model);
  for (unsigned point = 0; point <= n; point++) {
    g_autoptr (GRand) rand = g_rand_new_with_seed (point);
    unsigned changes = point == 0 ? CHUNKS : 150;
    for (unsigned i = 0; i < changes; i++) {
      unsigned chunk = (unsigned) g_rand_int_range (rand, 0, CHUNKS);
      for (unsigned k = 0; k < OBJECT_ID_SIZE; k++)
        model[chunk].bytes[k] = (unsigned char) g_rand_int (rand);
    }
  }
}

/* Builds point `n` on the point before it. */
static bool
build (Repo *repo, RepoWriter *writer, RepoPacker *packer, unsigned n, ObjectId *root,
       TmkError **errp)
{
  g_autofree ObjectId *model = g_new (ObjectId, CHUNKS);
  make_model (n, model);
  g_autoptr (TreeBuilder) builder = tree_builder_new (repo, writer, packer, root, CHUNKS);
  tree_builder_set_limit (builder, 2);
  /* In rounds, so that leaves are stored before they are complete, and read again. */
  for (unsigned round = 0; round < 3; round++)
    for (unsigned chunk = round; chunk < CHUNKS; chunk += 3) {
      ObjectId before;
      if (!tree_builder_exchange (builder, chunk, &model[chunk], &before, errp))
        return false;
    }
  return tree_builder_finish (builder, root, errp);
}

static bool
commit (RepoWriter *writer, unsigned n, const ObjectId *root, TmkError **errp)
{
  g_autoptr (Manifest) manifest = manifest_new (1);
  (void) g_snprintf (manifest->id, sizeof manifest->id, "%016x", n);
  manifest->domain = g_strdup ("vm");
  manifest->disks[0].name = g_strdup ("vda");
  manifest->disks[0].mode = g_strdup ("full");
  manifest->disks[0].size = (guint64) CHUNKS * CHUNK_SIZE_DEFAULT;
  manifest->disks[0].chunk_size = CHUNK_SIZE_DEFAULT;
  manifest->disks[0].root = *root;
  return repo_writer_commit (writer, manifest, errp);
}

/* A session; `root` in is the point before's, out this one's. */
static bool
backup (Repo *repo, unsigned n, ObjectId *root, TmkError **errp)
{
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, errp);
  g_autoptr (RepoPacker) packer = writer != NULL ? repo_packer_new (writer, errp) : NULL;
  ObjectId made = *root;
  if (packer == NULL || !build (repo, writer, packer, n, &made, errp)
      || !repo_packer_finish (packer, errp) || !commit (writer, n, &made, errp))
    return false;
  *root = made;
  return true;
}

typedef struct {
  ObjectId *model; /* what is met is zeroed */
} Expect;

static bool
expect_chunk (uint64_t chunk, const ObjectId *id, void *data, TmkError **errp)
{
  Expect *expect = data;
  g_assert_cmpmem (id, sizeof *id, &expect->model[chunk], sizeof *id);
  expect->model[chunk] = (ObjectId){ 0 };
  return true;
}

static void
assert_tree (Repo *repo, unsigned n, const ObjectId *root)
{
  g_autofree ObjectId *model = g_new (ObjectId, CHUNKS);
  make_model (n, model);
  Expect expect = { model };
  g_autoptr (RepoReader) reader = repo_reader_new (repo, true);
  g_autoptr (TmkError) err = NULL;
  if (!tree_walk (reader, root, CHUNKS, 0, CHUNKS, expect_chunk, NULL, &expect, &err))
    g_error ("point %u: %s", n, tmk_error_message (err));
  for (unsigned i = 0; i < CHUNKS; i++)
    g_assert_true (object_id_is_zero (&model[i]));
}

static bool
visit_point (const ObjInfo *info, void *data)
{
  g_ptr_array_add (data, g_strdup (info->name));
  return true;
}

/* Reads back all points that are there; returns how many. `*root`: of the last one. */
static unsigned
assert_points (Repo *repo, ObjectId *root)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_assert_true (obj_store_list (repo_store (repo), "points", visit_point, names, NULL));
  *root = (ObjectId){ 0 };
  for (unsigned n = 0; n < names->len; n++) {
    g_autofree char *name = g_strdup_printf ("points/%016x", n);
    size_t size, plain;
    g_autofree unsigned char *record
        = obj_store_get (repo_store (repo), name, RECORD_MAX_SIZE, &size, NULL);
    RecordHeader header;
    g_assert_true (record_parse (record, size, &header, NULL));
    plain = header.plain;
    g_autofree char *json = g_malloc (plain);
    g_assert_cmpint (header.codec, ==, CODEC_PLAIN);
    memcpy (json, record + RECORD_HEADER_SIZE, plain);
    g_autoptr (Manifest) manifest = manifest_parse (json, plain, NULL);
    g_assert_nonnull (manifest);
    *root = manifest->disks[0].root;
    assert_tree (repo, n, root);
  }
  return names->len;
}

static Repo *
create (ObjStore *store)
{
  RepoConfig config;
  repo_config_default (&config);
  config.pack_size = 64u << 10;
  config.codec = CODEC_PLAIN;
  g_assert_true (repo_create (store, &config, NULL));
  Repo *repo = repo_open (store, NULL);
  g_assert_nonnull (repo);
  return repo;
}

/* --- one operation fails */

/* False: there are not so many operations. */
static bool
fail_at (uint64_t at, bool after, bool sticky)
{
  ObjStore *memory = obj_store_new_memory ();
  ObjStore *faulty = obj_store_new_faulty (memory, 0, after, sticky);
  g_autoptr (Repo) repo = create (faulty);
  ObjectId root = { 0 };
  g_assert_true (backup (repo, 0, &root, NULL));
  ObjectId first = root;
  uint64_t before = obj_store_faulty_count (faulty);
  obj_store_faulty_arm (faulty, at);
  g_autoptr (TmkError) err = NULL;
  bool ok = backup (repo, 1, &root, &err);
  g_assert_true (ok == (err == NULL));
  bool reached = obj_store_faulty_count (faulty) >= before + at;
  obj_store_faulty_arm (faulty, 0);
  g_assert_true (ok || reached);
  g_assert_true (ok || object_id_equal (&root, &first));

  g_autoptr (Repo) other = repo_open (obj_store_share_memory (memory), NULL);
  unsigned points = assert_points (other, &root);
  g_assert_true (points == 2 || (points == 1 && !ok));
  g_assert_true (ok || points == 1 || after);
  g_assert_true (backup (other, points, &root, NULL));
  assert_tree (other, points, &root);
  return reached;
}

static void
test_failures (gconstpointer data)
{
  unsigned how = GPOINTER_TO_UINT (data);
  uint64_t at = 1;
  /* All of the first and some of the rest, for there are many, all alike. */
  while (fail_at (at, (how & 1) != 0, (how & 2) != 0))
    at += at < 60 ? 1 : 7;
  g_assert_cmpuint (at, >, 60);
}

/* --- the process is killed */

static char *dir;

/* In memory where there is such a file system: a process that is killed leaves what it wrote,
 * synced or not, and thousands of syncs take long on a busy disk. */
static void
make_dir (void)
{
  dir = g_strdup ("/dev/shm/tmk-repo-XXXXXX");
  if (g_mkdtemp (dir) != NULL)
    return;
  g_free (dir);
  dir = g_dir_make_tmp ("tmk-repo-XXXXXX", NULL);
  g_assert_nonnull (dir);
}

/* In a process of its own, for test points are counted from its beginning; returns its status. */
static int
in_child (void (*call) (unsigned n), unsigned n, unsigned kill_at)
{
  fflush (stdout);
  pid_t pid = fork ();
  if (pid == 0) {
    if (kill_at > 0) {
      g_autofree char *text = g_strdup_printf ("%u", kill_at);
      g_setenv ("TIDEMARK_TEST_KILL_AT", text, TRUE);
    }
    call (n);
    _exit (0);
  }
  int status = -1;
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  return status;
}

static Repo *
open_dir (unsigned how)
{
  ObjStore *store = obj_store_open_folder (dir, false, NULL);
  g_assert_nonnull (store);
  if (how & 1)
    folder_store_avoid_tmpfile (store);
  Repo *repo = repo_open (store, NULL);
  g_assert_nonnull (repo);
  return repo;
}

static void
create_dir (unsigned how)
{
  g_autoptr (Repo) repo = create (obj_store_open_folder (dir, true, NULL));
  ObjectId root = { 0 };
  g_assert_true (backup (repo, 0, &root, NULL));
}

static void
add_point (unsigned how)
{
  g_autoptr (Repo) repo = open_dir (how);
  ObjectId root;
  unsigned points = assert_points (repo, &root);
  g_assert_true (backup (repo, points, &root, NULL));
}

static void
check_dir (unsigned how)
{
  g_autoptr (Repo) repo = open_dir (how);
  ObjectId root;
  unsigned points = assert_points (repo, &root);
  g_assert_cmpuint (points, >=, 1);
  g_assert_true (backup (repo, points, &root, NULL));
  g_assert_cmpuint (assert_points (repo, &root), ==, points + 1);
}

static void
remove_dir (void)
{
  g_autofree char *command = g_strdup_printf ("rm -rf '%s'", dir);
  g_assert_cmpint (system (command), ==, 0);
}

static void
test_killed (gconstpointer data)
{
  unsigned how = GPOINTER_TO_UINT (data), kills = 0;
  for (unsigned at = 1;; at += at < 40 ? 1 : 5) {
    make_dir ();
    g_assert_cmpint (in_child (create_dir, how, 0), ==, 0);
    int status = in_child (add_point, how, at);
    g_assert_true (status == 0 || (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL));
    kills += status != 0;
    g_assert_cmpint (in_child (check_dir, how, 0), ==, 0);
    remove_dir ();
    g_clear_pointer (&dir, g_free);
    if (status == 0)
      break;
  }
  g_assert_cmpuint (kills, >, 30);
}

/* --- no room */

#define SKIPPED 77

/* `n`: KiB of the file system, in which there is room for the first point. */
static void
fill_up (unsigned n)
{
  if (unshare (CLONE_NEWNS) != 0 && unshare (CLONE_NEWUSER | CLONE_NEWNS) != 0)
    _exit (SKIPPED);
  g_autofree char *options = g_strdup_printf ("size=%uk", n);
  if (mount (NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
      || mount ("tmpfs", dir, "tmpfs", 0, options) != 0)
    _exit (SKIPPED);
  create_dir (0);
  unsigned failures = 0;
  for (;;) { /* packs that nobody needs stay, so in the end there is no room for a lease */
    g_autoptr (Repo) repo = open_dir (0);
    g_autoptr (TmkError) err = NULL;
    ObjectId root;
    unsigned points = assert_points (repo, &root);
    g_assert_cmpuint (points, >=, 1);
    if (backup (repo, points, &root, &err))
      continue;
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_NO_SPACE);
    g_assert_nonnull (tmk_error_hint (err));
    g_assert_cmpuint (assert_points (repo, &root), ==, points);
    if (++failures == 5)
      break;
  }
}

static void
test_no_space (void)
{
  make_dir ();
  int status = 0;
  for (unsigned n = 600; n < 1200 && status == 0; n += 52)
    status = in_child (fill_up, n, 0);
  remove_dir ();
  g_clear_pointer (&dir, g_free);
  if (WIFEXITED (status) && WEXITSTATUS (status) == SKIPPED)
    g_test_skip ("no file system can be mounted here");
  else
    g_assert_cmpint (status, ==, 0);
}

/* --- two at once */

static void
test_two_builders (void)
{
  g_autoptr (Repo) repo = create (obj_store_new_memory ());
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, NULL);
  RepoPacker *packers[2];
  TreeBuilder *builders[2];
  g_autofree ObjectId *model = g_new (ObjectId, CHUNKS);
  make_model (0, model);
  ObjectId zero = { 0 }, roots[2], before;
  for (int i = 0; i < 2; i++) {
    packers[i] = repo_packer_new (writer, NULL);
    builders[i] = tree_builder_new (repo, writer, packers[i], &zero, CHUNKS);
    tree_builder_set_limit (builders[i], 1);
  }
  /* The first stores leaves before they are complete, in a pack that stays open; the second stores
   * the same ones, and reads them again; then the first goes on. */
  for (int turn = 0; turn < 3; turn++)
    for (unsigned round = turn == 2; round < (turn == 0 ? 1 : 3); round++)
      for (unsigned chunk = round; chunk < CHUNKS; chunk += 3)
        g_assert_true (
            tree_builder_exchange (builders[turn % 2], chunk, &model[chunk], &before, NULL));
  for (int i = 0; i < 2; i++) {
    g_assert_true (tree_builder_finish (builders[i], &roots[i], NULL));
    g_assert_true (repo_packer_finish (packers[i], NULL));
  }
  g_assert_true (repo_writer_publish_index (writer, NULL));
  assert_tree (repo, 0, &roots[0]);
  assert_tree (repo, 0, &roots[1]);
  for (int i = 0; i < 2; i++) {
    tree_builder_free (builders[i]);
    repo_packer_free (packers[i]);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/repo/killed/tmpfile", GUINT_TO_POINTER (0), test_killed);
  g_test_add_data_func ("/repo/killed/no-tmpfile", GUINT_TO_POINTER (1), test_killed);
  g_test_add_func ("/repo/no-space", test_no_space);
  g_test_add_func ("/repo/two-builders", test_two_builders);
  g_test_add_data_func ("/repo/tree-failures/before", GUINT_TO_POINTER (0), test_failures);
  g_test_add_data_func ("/repo/tree-failures/after", GUINT_TO_POINTER (1), test_failures);
  g_test_add_data_func ("/repo/tree-failures/sticky", GUINT_TO_POINTER (2), test_failures);
  g_test_add_data_func ("/repo/tree-failures/after-sticky", GUINT_TO_POINTER (3), test_failures);
  return g_test_run ();
}
