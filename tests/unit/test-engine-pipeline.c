/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: reading a disk of zeroes, whether they have to be read or are told of, renews the lease
 * of its writer, although nothing is stored.
 */
#include "engine/pipeline.h"
#include "repo-case.h"
#include "repo/writer_priv.h"
#include "test-blk.h"

#include <fcntl.h>

#define SIZE (8u << 20)

typedef struct {
  char *folder;
  Repo *repo;
  RepoWriter *writer;
  Pipeline *pipeline;
} Fixture;

static void
set_up (Fixture *f, gconstpointer unused)
{
  g_autoptr (TmkError) err = NULL;
  RepoConfig config;
  ObjStore *store = obj_store_new_memory ();
  f->folder = make_folder ();
  repo_config_default (&config);
  g_assert_true (repo_create (store, &config, &err));
  f->repo = repo_open (store, &err);
  assert_ok (err);
  f->writer = repo_writer_new (f->repo, &err);
  assert_ok (err);
  f->pipeline = pipeline_new (f->writer, f->repo, 2, 0, &err);
  assert_ok (err);
}

static void
tear_down (Fixture *f, gconstpointer unused)
{
  pipeline_free (f->pipeline);
  repo_writer_free (f->writer);
  repo_free (f->repo);
  remove_folder (f->folder);
  g_free (f->folder);
}

/* `written`: the zeroes are data to the file system. */
static TmkBlockSource *
open_zeroes (const Fixture *f, bool written)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *path = g_build_filename (f->folder, "disk.raw", NULL);
  g_autofree char *zeroes = g_malloc0 (SIZE);
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, SIZE), ==, 0);
  if (written)
    g_assert_cmpint (write (fd, zeroes, SIZE), ==, SIZE);
  close (fd);
  TmkBlockSource *source = tmk_block_source_open_file (path, -1, &err);
  assert_ok (err);
  return source;
}

static char *
lease_of (const Fixture *f)
{
  g_autoptr (GPtrArray) leases = case_names (repo_store (f->repo), "leases");
  g_assert_cmpuint (leases->len, ==, 1);
  return g_strdup (leases->pdata[0]);
}

static void
test_lease (Fixture *f, gconstpointer written)
{
  static const ObjectId nothing;
  g_autoptr (TmkError) err = NULL;
  TmkBlockSource *source = open_zeroes (f, written != NULL);
  g_autofree char *before = lease_of (f);
  ObjectId root;
  PipelineStats stats;
  lease_make_due (f->writer->lease);
  pipeline_run (f->pipeline, source, CHUNK_SIZE_MIN, false, &nothing, NULL, NULL, &root, &stats,
                &err);
  assert_ok (err);
  tmk_block_source_free (source);
  g_assert_cmpuint (stats.zero, ==, SIZE);
  g_assert_cmpuint (stats.read, ==, written != NULL ? SIZE : 0);
  g_autofree char *after = lease_of (f);
  g_assert_cmpstr (before, !=, after);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/engine/pipeline/lease/read", Fixture, GINT_TO_POINTER (1), set_up, test_lease,
              tear_down);
  g_test_add ("/engine/pipeline/lease/told", Fixture, NULL, set_up, test_lease, tear_down);
  return g_test_run ();
}
