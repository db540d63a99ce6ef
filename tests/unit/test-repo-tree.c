/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: a tree built in any order, with few leaves in memory, reads back as an array of ids that
 * went through the same changes; so do walks of parts and differences of two; an unchanged tree is
 * the same object; a few changes cost a few deltas, which never chain; huge disks cost what is
 * touched; no tree is made of nodes that are known to be damaged.
 */
#include "repo-case.h"
#include "repo/repo_priv.h"
#include "util/bytes.h"

static TmkError *check_error;
#define CHECK_ERRP (&check_error)
#define check_ok(ok)                                                                               \
  do {                                                                                             \
    if (!(ok))                                                                                     \
      g_error ("%s: %s", #ok, tmk_error_message (check_error));                                    \
  } while (0)
#define check_got(expression)                                                                      \
  ({                                                                                               \
    __typeof__ (expression) got_ = (expression);                                                   \
    check_ok (got_ != NULL);                                                                       \
    got_;                                                                                          \
  })

typedef struct {
  Repo *repo;
  RepoWriter *writer;
  RepoPacker *packer;
} Fixture;

/* One that has stored nothing yet. */
static void
new_session (Fixture *f)
{
  repo_packer_free (f->packer);
  repo_writer_free (f->writer);
  f->writer = check_got (repo_writer_new (f->repo, CHECK_ERRP));
  f->packer = check_got (repo_packer_new (f->writer, CHECK_ERRP));
}

static void
set_up (Fixture *f, gconstpointer unused)
{
  RepoConfig config;
  ObjStore *store = obj_store_new_memory ();
  repo_config_default (&config);
  check_ok (repo_create (store, &config, CHECK_ERRP));
  f->repo = check_got (repo_open (store, CHECK_ERRP));
  new_session (f);
}

static void
tear_down (Fixture *f, gconstpointer unused)
{
  repo_packer_free (f->packer);
  repo_writer_free (f->writer);
  repo_free (f->repo);
}

static void
publish (Fixture *f)
{
  check_ok (repo_packer_finish (f->packer, CHECK_ERRP));
  check_ok (repo_writer_publish_index (f->writer, CHECK_ERRP));
}

static ObjectId
random_id (GRand *rand)
{
  ObjectId id;
  for (size_t i = 0; i < sizeof id.bytes; i += 4)
    put_le32 (id.bytes + i, g_rand_int (rand));
  return id;
}

/* ---- reading back --------------------------------------------------------------------------- */

typedef struct {
  const ObjectId *model;
  uint64_t next, end;
} Expect;

static bool
expect_chunk (uint64_t chunk, const ObjectId *id, void *data, TmkError **errp)
{
  Expect *expect = data;
  for (; expect->next < chunk; expect->next++)
    g_assert_true (object_id_is_zero (&expect->model[expect->next]));
  g_assert_cmpuint (chunk, <, expect->end);
  g_assert_cmpmem (id, sizeof *id, &expect->model[chunk], sizeof *id);
  expect->next = chunk + 1;
  return true;
}

static void
check_range (Fixture *f, const ObjectId *root, const ObjectId *model, uint64_t chunks,
             uint64_t first, uint64_t count)
{
  g_autoptr (RepoReader) reader = repo_reader_new (f->repo, true);
  Expect expect = { model, first, first + count };
  check_ok (
      tree_walk (reader, root, chunks, first, count, expect_chunk, NULL, &expect, CHECK_ERRP));
  for (; expect.next < first + count; expect.next++)
    g_assert_true (object_id_is_zero (&model[expect.next]));
}

typedef struct {
  const ObjectId *a, *b; /* the models */
  uint64_t n;            /* differences told so far */
} Difference;

static bool
expect_difference (uint64_t chunk, const ObjectId *a, const ObjectId *b, void *data,
                   TmkError **errp)
{
  Difference *expect = data;
  g_assert_cmpmem (a, sizeof *a, &expect->a[chunk], sizeof *a);
  g_assert_cmpmem (b, sizeof *b, &expect->b[chunk], sizeof *b);
  g_assert_false (object_id_equal (a, b));
  expect->n++;
  return true;
}

static void
check_diff (Fixture *f, const ObjectId *a, const ObjectId *model_a, const ObjectId *b,
            const ObjectId *model_b, uint64_t chunks)
{
  g_autoptr (RepoReader) reader = repo_reader_new (f->repo, true);
  Difference expect = { model_a, model_b, 0 };
  uint64_t n = 0;
  check_ok (tree_diff (reader, a, b, chunks, expect_difference, &expect, CHECK_ERRP));
  for (uint64_t i = 0; i < chunks; i++)
    n += !object_id_equal (&model_a[i], &model_b[i]);
  g_assert_cmpuint (expect.n, ==, n);
}

static bool
no_chain (const ObjectId *id, ObjectKind kind, void *data, TmkError **errp)
{
  unsigned *n = data;
  n[kind == OBJECT_DELTA]++;
  return true;
}

/* ---- damage --------------------------------------------------------------------------------- */

typedef struct {
  Fixture *f;
  GArray *ids; /* or NULL */
} Nodes;

static bool
visit_node (const ObjectId *id, ObjectKind kind, void *data, TmkError **errp)
{
  Nodes *nodes = data;
  bool found = false;
  check_ok (repo_has (nodes->f->repo, id, &found, CHECK_ERRP));
  g_assert_true (found);
  if (nodes->ids != NULL)
    g_array_append_vals (nodes->ids, id, 1);
  return true;
}

/* Every node of the tree counts. `ids` (may be NULL): all of them, those of leaves behind the root.
 */
static void
check_nodes (Fixture *f, const ObjectId *root, uint64_t chunks, GArray *ids)
{
  g_autoptr (RepoReader) reader = repo_reader_new (f->repo, true);
  Nodes nodes = { f, ids };
  if (ids != NULL)
    g_array_set_size (ids, 0);
  check_ok (tree_walk_nodes (reader, root, chunks, visit_node, &nodes, CHECK_ERRP));
}

static void
damage_node (Fixture *f, const ObjectId *id)
{
  g_autoptr (IndexSet) set = repo_index (f->repo, NULL);
  ObjectPlace places[MAX_PLACES];
  g_assert_cmpuint (index_set_find (set, id, places), ==, 1);
  g_autofree char *pack = pack_object_name (&places[0].pack);
  case_flip (repo_store (f->repo), pack, places[0].offset + RECORD_HEADER_SIZE + 50, 3);
}

static void
note_node (Fixture *f, const ObjectId *id)
{
  bool found = true;
  check_ok (repo_note_damage (f->repo, id, 1, CHECK_ERRP));
  check_ok (repo_has (f->repo, id, &found, CHECK_ERRP));
  g_assert_false (found);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void
change_chunk (TreeBuilder *builder, ObjectId *model, uint64_t chunk, const ObjectId *id)
{
  ObjectId before;
  check_ok (tree_builder_exchange (builder, chunk, id, &before, CHECK_ERRP));
  g_assert_cmpmem (&before, sizeof before, &model[chunk], sizeof before);
  model[chunk] = *id;
}

static void
change_zero (TreeBuilder *builder, ObjectId *model, uint64_t first, uint64_t count)
{
  uint64_t changed, expected = 0;
  for (uint64_t i = first; i < first + count; i++) {
    expected += !object_id_is_zero (&model[i]);
    memset (&model[i], 0, sizeof model[i]);
  }
  check_ok (tree_builder_set_zero (builder, first, count, &changed, CHECK_ERRP));
  g_assert_cmpuint (changed, ==, expected);
}

static void
change_at_random (GRand *rand, TreeBuilder *builder, ObjectId *model, uint64_t chunks,
                  unsigned changes)
{
  static const ObjectId zero;
  uint64_t at = 0;
  for (unsigned i = 0; i < changes; i++) {
    switch (g_rand_int_range (rand, 0, 12)) {
    case 0: {
      uint64_t first = (uint64_t) (g_rand_double (rand) * (double) chunks);
      uint64_t count = (uint64_t) (g_rand_double (rand) * (double) (chunks - first + 1));
      if (i % 3 != 0)
        count = MIN (count, 700);
      change_zero (builder, model, first, count);
      break;
    }
    case 1:
      change_chunk (builder, model, g_rand_int_range (rand, 0, (gint32) chunks), &zero);
      break;
    case 2:
    case 3:
    case 4:
      at = (uint64_t) g_rand_int_range (rand, 0, (gint32) chunks);
      /* fall through */
    default:
      for (unsigned n = g_rand_int_range (rand, 1, 40); n > 0; n--, at = (at + 1) % chunks) {
        ObjectId id = random_id (rand);
        change_chunk (builder, model, at, &id);
      }
    }
  }
}

static void
test_random (Fixture *f, gconstpointer data)
{
  uint64_t chunks = GPOINTER_TO_UINT (data);
  g_autoptr (GRand) rand = g_rand_new_with_seed ((guint32) chunks);
  g_autofree ObjectId *model = g_new0 (ObjectId, chunks);
  g_autofree ObjectId *before = g_new0 (ObjectId, chunks);
  ObjectId root = { { 0 } };
  for (unsigned round = 0; round < (chunks <= 5000 ? 12 : 4); round++) {
    ObjectId previous = root;
    memcpy (before, model, chunks * sizeof *model);
    g_autoptr (TreeBuilder) builder
        = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
    tree_builder_set_limit (builder, 1 + round % 4);
    change_at_random (rand, builder, model, chunks, round % 3 == 0 ? 60 : 6);
    check_ok (tree_builder_finish (builder, &root, CHECK_ERRP));
    publish (f);
    check_range (f, &root, model, chunks, 0, chunks);
    check_range (f, &previous, before, chunks, 0, chunks);
    check_range (f, &root, model, chunks, chunks / 3, chunks / 2);
    check_range (f, &root, model, chunks, chunks - 1, 1);
    check_diff (f, &previous, before, &root, model, chunks);
    check_diff (f, &root, model, &previous, before, chunks);
  }
}

static void
test_all_in_order (Fixture *f, gconstpointer unused)
{
  uint64_t chunks = 256 * 256 + 300;
  g_autoptr (GRand) rand = g_rand_new_with_seed (1);
  g_autofree ObjectId *model = g_new0 (ObjectId, chunks);
  ObjectId root = { { 0 } }, again;
  g_autoptr (TreeBuilder) builder = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
  tree_builder_set_limit (builder, 2);
  for (uint64_t i = 0; i < chunks; i++) {
    ObjectId id = random_id (rand);
    change_chunk (builder, model, i, &id);
  }
  check_ok (tree_builder_finish (builder, &root, CHECK_ERRP));
  publish (f);
  check_range (f, &root, model, chunks, 0, chunks);

  /* The same once more: nothing new. */
  RepoWriterStats stats, then;
  repo_writer_stats (f->writer, &stats);
  g_autoptr (TreeBuilder) same = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
  for (uint64_t i = 0; i < chunks; i++)
    change_chunk (same, model, i, &model[i]);
  check_ok (tree_builder_finish (same, &again, CHECK_ERRP));
  g_assert_cmpmem (&again, sizeof again, &root, sizeof root);
  repo_writer_stats (f->writer, &then);
  g_assert_cmpuint (then.nodes, ==, stats.nodes);

  /* From nothing: the same tree has the same name. */
  static const ObjectId nothing;
  g_autoptr (TreeBuilder) anew = tree_builder_new (f->repo, f->writer, f->packer, &nothing, chunks);
  g_autofree ObjectId *empty = g_new0 (ObjectId, chunks);
  for (uint64_t i = chunks; i-- > 0;)
    change_chunk (anew, empty, i, &model[i]);
  check_ok (tree_builder_finish (anew, &again, CHECK_ERRP));
  g_assert_cmpmem (&again, sizeof again, &root, sizeof root);
}

/* 16 TiB in chunks of 64 KiB, a thousand of which change. */
static void
test_huge (Fixture *f, gconstpointer unused)
{
  uint64_t chunks = 1ull << 28;
  g_autoptr (GRand) rand = g_rand_new_with_seed (2);
  ObjectId root = { { 0 } }, before, zero = { { 0 } };
  RepoWriterStats stats, then;
  for (unsigned round = 0; round < 3; round++) {
    repo_writer_stats (f->writer, &stats);
    g_autoptr (TreeBuilder) builder
        = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
    for (unsigned i = 0; i < 1000; i++) {
      ObjectId id = random_id (rand);
      uint64_t chunk = (uint64_t) (g_rand_double (rand) * (double) chunks);
      check_ok (tree_builder_exchange (builder, chunk, &id, &before, CHECK_ERRP));
    }
    check_ok (tree_builder_finish (builder, &root, CHECK_ERRP));
    publish (f);
    repo_writer_stats (f->writer, &then);
    g_test_message ("round %u: %" G_GUINT64_FORMAT " bytes", round, then.metadata - stats.metadata);
    g_assert_cmpuint (then.metadata - stats.metadata, <, 1000 * 64 + (16 * 2 << 20));
  }
  uint64_t changed;
  g_autoptr (TreeBuilder) builder = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
  check_ok (tree_builder_set_zero (builder, 0, chunks, &changed, CHECK_ERRP));
  g_assert_cmpuint (changed, >, 2990);
  g_assert_cmpuint (changed, <=, 3000);
  check_ok (tree_builder_finish (builder, &root, CHECK_ERRP));
  g_assert_cmpmem (&root, sizeof root, &zero, sizeof zero);
}

static void
test_deltas (Fixture *f, gconstpointer unused)
{
  uint64_t chunks = 256 * 20;
  g_autoptr (GRand) rand = g_rand_new_with_seed (3);
  g_autofree ObjectId *model = g_new0 (ObjectId, chunks);
  ObjectId root = { { 0 } };
  g_autoptr (TreeBuilder) builder = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
  for (uint64_t i = 0; i < chunks; i++) {
    ObjectId id = random_id (rand);
    change_chunk (builder, model, i, &id);
  }
  check_ok (tree_builder_finish (builder, &root, CHECK_ERRP));
  publish (f);
  g_autoptr (RepoReader) reader = repo_reader_new (f->repo, true);
  for (unsigned round = 0; round < 10; round++) {
    RepoWriterStats stats, then;
    repo_writer_stats (f->writer, &stats);
    g_autoptr (TreeBuilder) next = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
    for (unsigned i = 0; i < 20; i++) {
      ObjectId id = random_id (rand);
      change_chunk (next, model, i * 256 + round * 20, &id);
    }
    check_ok (tree_builder_finish (next, &root, CHECK_ERRP));
    publish (f);
    check_range (f, &root, model, chunks, 0, chunks);
    unsigned n[2] = { 0, 0 };
    check_ok (tree_walk_nodes (reader, &root, chunks, no_chain, n, CHECK_ERRP));
    g_assert_cmpuint (n[1], >=, 20); /* all leaves are deltas */
    g_assert_cmpuint (n[0], >=, 20); /* each of a full one */
    repo_writer_stats (f->writer, &then);
    g_assert_cmpuint (then.metadata - stats.metadata, <, 21 * (56 + 40 + (round + 2) * 33 * 3));
  }
}

/* Three slots of each leaf change at random, again and again: what that costs stays near the least
 * there can be, 1.4 kB a leaf and time; with deltas for as long as they may be it is 2.4 kB. */
static void
test_many_deltas (Fixture *f, gconstpointer unused)
{
  enum { LEAVES = 20, ROUNDS = 90 };
  uint64_t chunks = 256 * LEAVES;
  g_autoptr (GRand) rand = g_rand_new_with_seed (5);
  g_autofree ObjectId *model = g_new0 (ObjectId, chunks);
  ObjectId root = { { 0 } };
  RepoWriterStats stats = { 0 }, then;
  for (unsigned round = 0; round <= ROUNDS; round++) {
    g_autoptr (TreeBuilder) next = tree_builder_new (f->repo, f->writer, f->packer, &root, chunks);
    for (unsigned i = 0; i < (round == 0 ? chunks : LEAVES * 3); i++) {
      ObjectId id = random_id (rand);
      uint64_t at = round == 0 ? i : i / 3 * 256 + (unsigned) g_rand_int_range (rand, 0, 256);
      change_chunk (next, model, at, &id);
    }
    check_ok (tree_builder_finish (next, &root, CHECK_ERRP));
    publish (f);
    if (round == 0)
      repo_writer_stats (f->writer, &stats);
    if (round % 10 == 0)
      check_range (f, &root, model, chunks, 0, chunks);
  }
  repo_writer_stats (f->writer, &then);
  g_assert_cmpuint ((then.metadata - stats.metadata) / (ROUNDS * LEAVES), <, 1600);
}

/* A session that begins a tree as `root` and changes `n` chunks from `first` on; without `fresh` to
 * what they are. */
static void
change_and_publish (Fixture *f, ObjectId *root, ObjectId *model, uint64_t chunks, uint64_t first,
                    unsigned n, GRand *fresh)
{
  new_session (f);
  g_autoptr (TreeBuilder) builder = tree_builder_new (f->repo, f->writer, f->packer, root, chunks);
  for (uint64_t i = first; i < first + n; i++) {
    ObjectId id = fresh != NULL ? random_id (fresh) : model[i];
    change_chunk (builder, model, i, &id);
  }
  check_ok (tree_builder_finish (builder, root, CHECK_ERRP));
  publish (f);
}

/* Nodes noted as damaged that can be read: who meets one stores it again. */
static void
test_noted (Fixture *f, gconstpointer unused)
{
  uint64_t chunks = 256 * 3;
  g_autoptr (GRand) rand = g_rand_new_with_seed (6);
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (ObjectId));
  g_autofree ObjectId *model = g_new0 (ObjectId, chunks);
  ObjectId root = { { 0 } };
  change_and_publish (f, &root, model, chunks, 0, (unsigned) chunks, rand);
  check_nodes (f, &root, chunks, ids);
  g_assert_cmpuint (ids->len, ==, 4);

  /* The root, of a tree in which nothing changes. */
  ObjectId before = root, leaf = g_array_index (ids, ObjectId, 1);
  note_node (f, &root);
  change_and_publish (f, &root, model, chunks, 0, 0, NULL);
  g_assert_cmpmem (&root, sizeof root, &before, sizeof before);
  check_nodes (f, &root, chunks, ids);

  /* A leaf whose every chunk is what it was. */
  note_node (f, &leaf);
  change_and_publish (f, &root, model, chunks, 0, 1, NULL);
  g_assert_cmpmem (&root, sizeof root, &before, sizeof before);
  check_nodes (f, &root, chunks, ids);

  /* The base of a delta, and a delta. */
  change_and_publish (f, &root, model, chunks, 5, 1, rand);
  note_node (f, &leaf);
  change_and_publish (f, &root, model, chunks, 6, 1, rand);
  check_nodes (f, &root, chunks, ids);
  change_and_publish (f, &root, model, chunks, 300, 1, rand);
  check_nodes (f, &root, chunks, ids);
  for (guint i = 1; i < ids->len; i++) {
    note_node (f, &g_array_index (ids, ObjectId, i));
    change_and_publish (f, &root, model, chunks, 0, (unsigned) chunks, NULL);
    check_nodes (f, &root, chunks, NULL);
    check_range (f, &root, model, chunks, 0, chunks);
  }
}

/* The root of a tree in which nothing changes: it is found to be damaged all the same. */
static void
test_bad_root (Fixture *f, gconstpointer unused)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (7);
  g_autofree ObjectId *model = g_new0 (ObjectId, 300);
  g_autoptr (TmkError) err = NULL;
  ObjectId root = { { 0 } };
  change_and_publish (f, &root, model, 300, 0, 300, rand);
  damage_node (f, &root);
  g_autoptr (TreeBuilder) builder = tree_builder_new (f->repo, f->writer, f->packer, &root, 300);
  g_assert_false (tree_builder_finish (builder, &root, &err));
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_DAMAGED);
}

/* All nodes are damaged, and nobody knows. A tree made from nothing has the same nodes: where they
 * are distrusted, each is looked at and stored again, and the old copies are noted. */
static void
test_distrusted (Fixture *f, gconstpointer unused)
{
  static const ObjectId nothing;
  uint64_t chunks = 256 * 5;
  g_autoptr (GRand) rand = g_rand_new_with_seed (8);
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (ObjectId));
  g_autofree ObjectId *model = g_new0 (ObjectId, chunks);
  g_autofree ObjectId *empty = g_new0 (ObjectId, chunks);
  ObjectId root = { { 0 } }, again = { { 0 } };
  change_and_publish (f, &root, model, chunks, 0, (unsigned) chunks, rand);
  check_nodes (f, &root, chunks, ids);
  for (guint i = 0; i < ids->len; i++)
    if (i != 2) /* this one is well */
      damage_node (f, &g_array_index (ids, ObjectId, i));
  new_session (f);
  repo_writer_distrust_nodes (f->writer);
  g_autoptr (TreeBuilder) builder
      = tree_builder_new (f->repo, f->writer, f->packer, &nothing, chunks);
  for (uint64_t i = 0; i < chunks; i++)
    change_chunk (builder, empty, i, &model[i]);
  check_ok (tree_builder_finish (builder, &again, CHECK_ERRP));
  publish (f);
  g_assert_cmpmem (&again, sizeof again, &root, sizeof root);
  check_nodes (f, &root, chunks, NULL);
  check_range (f, &root, model, chunks, 0, chunks);
  g_autoptr (IndexSet) set = repo_index (f->repo, NULL);
  for (guint i = 0; i < ids->len; i++) {
    const ObjectId *id = &g_array_index (ids, ObjectId, i);
    ObjectPlace places[MAX_PLACES];
    g_assert_cmpuint (index_set_find (set, id, places), ==, i != 2 ? 2 : 1);
    g_assert_true (places[0].counts && index_set_is_noted (set, id) == (i != 2));
  }
  g_autoptr (GPtrArray) notes = case_names (repo_store (f->repo), "damaged");
  g_assert_cmpuint (notes->len, ==, 1); /* of all of them */
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  static const unsigned sizes[] = { 1, 2, 255, 256, 257, 5000, 65536, 70000, 200000 };
  for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autofree char *name = g_strdup_printf ("/repo/tree/random/%u", sizes[i]);
    g_test_add (name, Fixture, GUINT_TO_POINTER (sizes[i]), set_up, test_random, tear_down);
  }
  g_test_add ("/repo/tree/all-in-order", Fixture, NULL, set_up, test_all_in_order, tear_down);
  g_test_add ("/repo/tree/deltas", Fixture, NULL, set_up, test_deltas, tear_down);
  g_test_add ("/repo/tree/many-deltas", Fixture, NULL, set_up, test_many_deltas, tear_down);
  g_test_add ("/repo/tree/noted", Fixture, NULL, set_up, test_noted, tear_down);
  g_test_add ("/repo/tree/bad-root", Fixture, NULL, set_up, test_bad_root, tear_down);
  g_test_add ("/repo/tree/distrusted", Fixture, NULL, set_up, test_distrusted, tear_down);
  g_test_add ("/repo/tree/huge", Fixture, NULL, set_up, test_huge, tear_down);
  return g_test_run ();
}
