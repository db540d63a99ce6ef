/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: a bit that flipped anywhere in a repository is found and named by what it touches: the
 * point, the disk and the range, the pack or the index file; what it does not touch is called
 * sound; an index is made whole from the packs; damage is noted, and the next backup heals it. */
#include "repo-case.h"

#include "repo/repo_priv.h"
#include "repo/verify.h"
#include "util/bytes.h"

#include <stdlib.h>
#include <unistd.h>

#define A "00000000000000aa"
#define B "00000000000000bb"
#define CHUNKS 6

/* Numbers that 3 divides make chunks that compress well. */
static const unsigned first[CHUNKS] = { 3, 6, 9, 0, 12, 3 };
static const unsigned second[CHUNKS] = { 3, 6, 9, 0, 15, 3 };
static const unsigned other[CHUNKS] = { 0, 18, 18, 21, 6, 24 };
#define DISK_SIZE (5 * CASE_CHUNK + 4096)

/* ---- repositories ------------------------------------------------------------------------- */

static Repo *
open_repo (ObjStore *store)
{
  g_autoptr (TmkError) err = NULL;
  Repo *repo = repo_open (store, &err);
  case_no_error (err);
  return repo;
}

static Repo *
make_empty_repo (void)
{
  g_autoptr (TmkError) err = NULL;
  RepoConfig config;
  ObjStore *store = obj_store_new_memory ();
  repo_config_default (&config);
  repo_create (store, &config, &err);
  case_no_error (err);
  return open_repo (store);
}

/* Point A with vda (first) and vdb (other); point B, on it, with vda (second). */
static Repo *
make_repo (void)
{
  Repo *repo = make_empty_repo ();
  CaseDisk a[]
      = { { "vda", DISK_SIZE, CASE_CHUNK, first }, { "vdb", DISK_SIZE, CASE_CHUNK, other } };
  case_commit (repo, A, "vm", 1, a, 2);
  CaseDisk b[] = { { "vda", DISK_SIZE, CASE_CHUNK, second, first, a[0].root } };
  case_commit (repo, B, "vm", 2, b, 1);
  return repo;
}

static size_t
object_size (Repo *repo, const char *name)
{
  size_t size;
  g_free (case_get (repo_store (repo), name, &size));
  return size;
}

static void
copy_objects (ObjStore *from, ObjStore *to)
{
  static const char *const folders[] = { "packs", "index", "points", "leases", "damaged" };
  size_t size;
  g_autofree unsigned char *config = case_get (from, "config", &size);
  case_replace (to, "config", config, size);
  for (size_t i = 0; i < G_N_ELEMENTS (folders); i++) {
    g_autoptr (GPtrArray) names = case_names (from, folders[i]);
    for (guint j = 0; j < names->len; j++) {
      g_autofree unsigned char *data = case_get (from, names->pdata[j], &size);
      case_replace (to, names->pdata[j], data, size);
    }
  }
}

/* The same objects in a store of its own. */
static ObjStore *
copy_store (ObjStore *from)
{
  ObjStore *to = obj_store_new_memory ();
  copy_objects (from, to);
  return to;
}

/* ---- verifying ---------------------------------------------------------------------------- */

typedef struct {
  GString *text; /* of findings, a line each */
  uint64_t done, total;
  bool cancel;
} Seen;

static void
on_damage (const VerifyDamage *damage, void *data)
{
  Seen *seen = data;
  g_string_append_printf (seen->text, "%s %s %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " %s\n",
                          damage->point != NULL ? damage->point : "-",
                          damage->disk != NULL ? damage->disk : "-", damage->offset, damage->length,
                          damage->message);
}

static void
on_progress (uint64_t done, uint64_t total, void *data)
{
  Seen *seen = data;
  g_assert_cmpuint (done, >=, seen->done);
  g_assert_true (total == 0 || done <= total);
  seen->done = done;
  seen->total = total;
}

static bool
on_cancelled (void *data)
{
  return ((Seen *) data)->cancel;
}

/* Verifies; returns the findings. `point`: that alone, or NULL. */
static char *
verify (Repo *repo, const char *point, unsigned sample, VerifyResult *result)
{
  g_autoptr (TmkError) err = NULL;
  Seen seen = { .text = g_string_new (NULL) };
  VerifyOptions options = { .sample = sample,
                            .threads = 2,
                            .damage = on_damage,
                            .progress = on_progress,
                            .cancelled = on_cancelled,
                            .data = &seen };
  g_autoptr (PointSet) points = points_load (repo, NULL, &err);
  case_no_error (err);
  const Manifest *manifest = point != NULL ? points_find (points, point, &err) : NULL;
  case_no_error (err);
  repo_verify (repo, point != NULL ? &manifest : NULL, 1, &options, result, &err);
  case_no_error (err);
  if (result->damaged == 0)
    g_assert_cmpuint (seen.done, ==, result->bytes);
  return g_string_free (seen.text, FALSE);
}

static void
assert_sound (Repo *repo, const char *point)
{
  VerifyResult result;
  g_autofree char *text = verify (repo, point, 0, &result);
  g_assert_cmpstr (text, ==, "");
  g_assert_cmpuint (result.damaged, ==, 0);
  g_assert_cmpuint (result.findings, ==, 0);
}

static void
assert_says (const char *text, const char *part)
{
  if (strstr (text, part) == NULL)
    g_error ("'%s' is not in: %s", part, text);
}

static void
test_sound (void)
{
  g_autoptr (Repo) repo = make_repo ();
  VerifyResult result;
  g_autofree char *text = verify (repo, NULL, 0, &result);
  g_assert_cmpstr (text, ==, "");
  g_assert_cmpuint (result.points, ==, 2);
  g_assert_cmpuint (result.disks, ==, 3);
  g_assert_cmpuint (result.nodes, ==, 3); /* two in full, and a delta */
  /* 3 in full and as the short last one, 6, 9, 12, 15, 18, 21, and 24 short */
  g_assert_cmpuint (result.chunks, ==, 9);
  g_autofree char *one = verify (repo, B, 0, &result);
  g_assert_cmpstr (one, ==, "");
  g_assert_cmpuint (result.points, ==, 1);
  g_assert_cmpuint (result.nodes, ==, 2); /* the delta and its base */
  g_assert_cmpuint (result.chunks, ==, 5);
  g_autofree char *some = verify (repo, NULL, 1, &result);
  g_assert_cmpstr (some, ==, "");
  g_assert_cmpuint (result.chunks, >=, 1);
  g_assert_cmpuint (result.chunks, <, 9); /* but once in 10^18 */
}

/* Finds the record of the chunk made of `value`, `size` bytes of it. */
static void
find_chunk (ObjStore *store, unsigned value, size_t size, char **pack, uint64_t *offset,
            uint32_t *length)
{
  g_autofree unsigned char *plain = g_malloc (size);
  ObjectId id;
  gsize id_size = sizeof id;
  case_fill (value, plain, size);
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_checksum_update (sum, plain, (gssize) size);
  g_checksum_get_digest (sum, id.bytes, &id_size);
  g_autoptr (GPtrArray) names = case_names (store, "packs");
  for (guint i = 0; i < names->len; i++) {
    size_t pack_size;
    g_autofree unsigned char *data = case_get (store, names->pdata[i], &pack_size);
    for (size_t at = PACK_HEADER_SIZE;; at += *length) {
      RecordHeader header;
      if (!record_parse_header (data + at, pack_size - at, &header, NULL))
        break;
      *length = RECORD_HEADER_SIZE + header.stored;
      if (object_id_equal (&header.id, &id)) {
        *pack = g_strdup (names->pdata[i]);
        *offset = at;
        return;
      }
    }
  }
  g_error ("no chunk %u", value);
}

/* Where the first record of a kind begins in a pack. */
static size_t
find_record (ObjStore *store, const char *pack, ObjectKind kind)
{
  size_t size, at = PACK_HEADER_SIZE;
  g_autofree unsigned char *data = case_get (store, pack, &size);
  RecordHeader header;
  for (; record_parse_header (data + at, size - at, &header, NULL);
       at += RECORD_HEADER_SIZE + header.stored)
    if (header.kind == kind)
      return at;
  g_error ("no record of kind %d", kind);
}

/* ---- flipped bits ------------------------------------------------------------------------- */

/* Every byte of every record's header, and some of each payload: the point and the range are
 * named. Those without it are sound. */
static void
test_chunk_flips (void)
{
  static const struct {
    unsigned value;
    size_t size;
    const char *lines[3];
    bool in_b;
  } cases[] = {
    { 3, CASE_CHUNK, { A " vda 0+65536 ", B " vda 0+65536 " }, true },
    { 3, 4096, { A " vda 327680+4096 ", B " vda 327680+4096 " }, true },
    { 6,
      CASE_CHUNK,
      { A " vda 65536+65536 ", A " vdb 262144+65536 ", B " vda 65536+65536 " },
      true },
    { 12, CASE_CHUNK, { A " vda 262144+65536 " }, false },
    { 15, CASE_CHUNK, { B " vda 262144+65536 " }, true },
    { 18, CASE_CHUNK, { A " vdb 65536+131072 " }, false },
    { 24, 4096, { A " vdb 327680+4096 " }, false },
  };
  g_autoptr (Repo) whole = make_repo ();
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *pack = NULL;
    uint64_t offset;
    uint32_t length;
    find_chunk (repo_store (whole), cases[i].value, cases[i].size, &pack, &offset, &length);
    for (uint32_t at = 0; at < length; at += at < RECORD_HEADER_SIZE ? 1 : 97) {
      g_autoptr (Repo) repo = open_repo (copy_store (repo_store (whole)));
      VerifyResult result;
      case_flip (repo_store (repo), pack, offset + at, at % 8);
      g_autofree char *text = verify (repo, NULL, 0, &result);
      g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
      guint expected = 0;
      for (; expected < 3 && cases[i].lines[expected] != NULL; expected++)
        assert_says (text, cases[i].lines[expected]);
      g_assert_cmpuint (g_strv_length (lines) - 1, ==, expected);
      g_assert_cmpuint (result.findings, ==, expected);
      g_assert_cmpuint (result.damaged, ==, 1);
      if (at == 60 && !cases[i].in_b)
        assert_sound (repo, B);
    }
  }
}

/* The nodes: what hangs on them is unknown. */
static void
test_node_flips (void)
{
  g_autoptr (Repo) whole = make_repo ();
  g_autoptr (GPtrArray) packs = case_names (repo_store (whole), "packs");
  unsigned nodes = 0;
  for (guint i = 0; i < packs->len; i++) {
    size_t size;
    g_autofree unsigned char *data = case_get (repo_store (whole), packs->pdata[i], &size);
    RecordHeader header;
    for (size_t at = PACK_HEADER_SIZE; record_parse_header (data + at, size - at, &header, NULL);
         at += RECORD_HEADER_SIZE + header.stored) {
      if (header.kind == OBJECT_CHUNK)
        continue;
      nodes++;
      for (uint32_t in = 0; in < RECORD_HEADER_SIZE + header.stored; in += 5) {
        g_autoptr (Repo) repo = open_repo (copy_store (repo_store (whole)));
        VerifyResult result;
        case_flip (repo_store (repo), packs->pdata[i], at + in, in % 8);
        g_autofree char *text = verify (repo, NULL, 0, &result);
        g_assert_cmpuint (result.damaged, ==, 1);
        assert_says (text, header.kind == OBJECT_DELTA ? B " vda 0+331776 " : A " vd");
        assert_says (text, " 0+331776 ");
        g_autoptr (GPtrArray) notes = case_names (repo_store (repo), "damaged");
        g_assert_cmpuint (notes->len, ==, 1);
      }
    }
  }
  g_assert_cmpuint (nodes, ==, 3);
}

/* What no point hangs on: the pack is named. */
static void
test_pack_flips (void)
{
  g_autoptr (Repo) whole = make_repo ();
  g_autoptr (GPtrArray) packs = case_names (repo_store (whole), "packs");
  g_assert_cmpuint (packs->len, >=, 2);
  for (guint i = 0; i < packs->len; i++) {
    size_t size;
    g_autofree unsigned char *data = case_get (repo_store (whole), packs->pdata[i], &size);
    uint64_t table = get_le64 (data + size - PACK_TRAILER_SIZE + 16);
    for (size_t at = 0; at < size; at = at == PACK_HEADER_SIZE - 1 ? table : at + 1) {
      g_autoptr (Repo) repo = open_repo (copy_store (repo_store (whole)));
      VerifyResult result;
      case_flip (repo_store (repo), packs->pdata[i], at, at % 8);
      g_autofree char *text = verify (repo, NULL, 0, &result);
      g_assert_cmpuint (result.damaged, ==, 1);
      g_assert_cmpuint (result.findings, ==, 1);
      assert_says (text, packs->pdata[i]);
      assert_sound (repo, A);
      assert_sound (repo, B);
    }
  }
}

/* Every byte of every index file: it is named, and made anew. */
static void
test_index_flips (void)
{
  g_autoptr (Repo) whole = make_repo ();
  g_autoptr (GPtrArray) files = case_names (repo_store (whole), "index");
  g_assert_cmpuint (files->len, ==, 2);
  for (guint i = 0; i < files->len; i++) {
    size_t size = object_size (whole, files->pdata[i]);
    for (size_t at = 0; at < size; at++) {
      g_autoptr (Repo) repo = open_repo (copy_store (repo_store (whole)));
      VerifyResult result;
      case_flip (repo_store (repo), files->pdata[i], at, at % 8);
      g_autofree char *text = verify (repo, NULL, 0, &result);
      assert_says (text, files->pdata[i]);
      g_assert_cmpuint (result.damaged, ==, 1);
      g_assert_cmpuint (result.findings, ==, 1);
      g_assert_cmpuint (result.chunks, ==, 9);
      g_autoptr (Repo) again = open_repo (copy_store (repo_store (repo)));
      assert_sound (again, NULL);
    }
  }
}

static void
test_index_gone (void)
{
  g_autoptr (Repo) repo = make_repo ();
  g_autoptr (GPtrArray) files = case_names (repo_store (repo), "index");
  for (guint i = 0; i < files->len; i++)
    obj_store_remove (repo_store (repo), files->pdata[i], NULL);
  g_autoptr (Repo) again = open_repo (copy_store (repo_store (repo)));
  assert_sound (again, NULL);
}

/* Index files that cannot be read any more, mapped as they are in a folder: who looks for something
 * misses it, and all is made anew. */
static void
test_index_vanished (void)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (Repo) whole = make_repo ();
  g_autofree char *dir = g_dir_make_tmp ("tmk-verify-XXXXXX", NULL);
  ObjStore *store = obj_store_open_folder (dir, true, &err);
  case_no_error (err);
  copy_objects (repo_store (whole), store);
  g_autoptr (Repo) repo = open_repo (store);
  g_autoptr (IndexSet) set = repo_index (repo, &err);
  case_no_error (err);
  g_assert_cmpuint (index_set_files (set), ==, 2);
  g_assert_null (index_set_vanished (set));
  IndexEntry entry;
  g_assert_true (index_view_entry (&index_set_file (set, 0)->view, 0, &entry));
  g_assert_true (index_set_has (set, &entry.id));
  for (size_t i = 0; i < 2; i++) {
    g_autofree char *path = g_build_filename (dir, index_set_file (set, i)->name, NULL);
    g_assert_cmpint (truncate (path, 0), ==, 0);
  }
  g_assert_false (index_set_has (set, &entry.id));
  g_assert_nonnull (index_set_vanished (set));
  VerifyResult result;
  g_autofree char *text = verify (repo, NULL, 0, &result);
  assert_says (text, "index ");
  g_assert_cmpuint (result.chunks, ==, 9);
  assert_sound (repo, NULL);
  g_autofree char *command = g_strdup_printf ("rm -rf '%s'", dir);
  g_assert_cmpint (system (command), ==, 0);
}

static void
test_manifest_and_config_flips (void)
{
  g_autoptr (Repo) whole = make_repo ();
  size_t size = object_size (whole, "points/" A);
  for (size_t at = 0; at < size; at++) {
    g_autoptr (Repo) repo = open_repo (copy_store (repo_store (whole)));
    VerifyResult result;
    case_flip (repo_store (repo), "points/" A, at, at % 8);
    g_autofree char *text = verify (repo, NULL, 0, &result);
    g_assert_true (g_str_has_prefix (text, A " - 0+0 "));
    g_assert_cmpuint (result.damaged, ==, 1);
    g_assert_cmpuint (result.points, ==, 1);
    assert_sound (repo, B);
  }
  size = object_size (whole, "config");
  for (size_t at = 0; at < size; at++) {
    ObjStore *store = copy_store (repo_store (whole));
    g_autoptr (TmkError) err = NULL;
    case_flip (store, "config", at, at % 8);
    g_assert_null (repo_open (store, &err));
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_DAMAGED);
  }
}

/* ---- what is lost ------------------------------------------------------------------------- */

static void
test_pack_gone (void)
{
  g_autoptr (Repo) repo = make_repo ();
  g_autofree char *pack = NULL;
  uint64_t offset;
  uint32_t length;
  VerifyResult result;
  find_chunk (repo_store (repo), 15, CASE_CHUNK, &pack, &offset, &length);
  obj_store_remove (repo_store (repo), pack, NULL);
  g_autofree char *text = verify (repo, NULL, 0, &result);
  /* It held B's delta, too: all of that disk is unknown. */
  assert_says (text, B " vda 0+331776 ");
  g_assert_cmpuint (result.findings, ==, 1);
  assert_sound (repo, A);
}

static void
test_pack_short (void)
{
  g_autoptr (Repo) repo = make_repo ();
  g_autofree char *pack = NULL;
  uint64_t offset;
  uint32_t length;
  size_t size;
  VerifyResult result;
  find_chunk (repo_store (repo), 18, CASE_CHUNK, &pack, &offset, &length);
  g_autofree unsigned char *data = case_get (repo_store (repo), pack, &size);
  case_replace (repo_store (repo), pack, data, offset + 10);
  g_autofree char *text = verify (repo, NULL, 0, &result);
  assert_says (text, pack);
  assert_says (text, A " vdb ");
  assert_sound (repo, B);
}

/* The damage is noted; who stores the disk again makes all of it sound. */
static void
test_healing (void)
{
  g_autoptr (Repo) repo = make_repo ();
  g_autofree char *pack = NULL;
  uint64_t offset;
  uint32_t length;
  VerifyResult result;
  find_chunk (repo_store (repo), 9, CASE_CHUNK, &pack, &offset, &length);
  case_flip (repo_store (repo), pack, offset + 100, 0);
  g_autofree char *text = verify (repo, NULL, 0, &result);
  assert_says (text, A " vda 131072+65536 ");
  assert_says (text, B " vda 131072+65536 ");
  g_autoptr (GPtrArray) notes = case_names (repo_store (repo), "damaged");
  g_assert_cmpuint (notes->len, ==, 1);
  g_autofree char *again = verify (repo, NULL, 0, &result);
  g_assert_cmpstr (again, ==, text);
  g_autoptr (GPtrArray) same = case_names (repo_store (repo), "damaged");
  g_assert_cmpuint (same->len, ==, 1); /* not once more */

  g_autoptr (Repo) next = open_repo (copy_store (repo_store (repo)));
  CaseDisk disk = { "vda", DISK_SIZE, CASE_CHUNK, second };
  case_commit (next, "00000000000000cc", "vm", 3, &disk, 1);
  assert_sound (next, NULL);
}

/* The same disk stored by two at once, so that all of it is there twice, and the copy that is
 * looked at first is damaged. Stores the names of the packs, that one first. */
static Repo *
make_copies (char *packs[2])
{
  g_autoptr (Repo) repo = make_empty_repo ();
  ObjStore *store = repo_store (repo);
  CaseDisk a = { "vda", DISK_SIZE, CASE_CHUNK, first }, b = a;
  case_commit (repo, A, "vm", 1, &a, 1);
  g_autoptr (GPtrArray) index = case_names (store, "index");
  g_autoptr (GPtrArray) names = case_names (store, "packs");
  g_assert_cmpuint (names->len, ==, 1);
  packs[0] = g_strdup (names->pdata[0]);
  size_t size;
  g_autofree unsigned char *data = case_get (store, index->pdata[0], &size);
  obj_store_remove (store, index->pdata[0], NULL);
  repo_refresh (repo, NULL);
  case_commit (repo, B, "vm", 2, &b, 1);
  obj_store_memory_advance (store, G_TIME_SPAN_SECOND);
  case_replace (store, index->pdata[0], data, size);
  g_autoptr (GPtrArray) both = case_names (store, "packs");
  g_assert_cmpuint (both->len, ==, 2);
  packs[1] = g_strdup (both->pdata[g_str_equal (both->pdata[0], packs[0])]);
  return open_repo (obj_store_share_memory (store));
}

static void
merge_index (Repo *repo)
{
  for (unsigned i = 0; i < 18; i++) {
    unsigned values[1] = { 100 + i };
    CaseDisk disk = { "vdc", CASE_CHUNK, CASE_CHUNK, values };
    g_autofree char *id = g_strdup_printf ("%016x", i + 1);
    case_commit (repo, id, "other", 3 + i, &disk, 1);
  }
  g_autoptr (GPtrArray) index = case_names (repo_store (repo), "index");
  g_assert_cmpuint (index->len, <, 18);
}

/* A copy that is damaged, where another one is whole, is told once and noted, so that it is the
 * whole one that stays when the index is merged. */
static void
test_bad_copy (void)
{
  static const ObjectKind kinds[] = { OBJECT_CHUNK, OBJECT_NODE };
  for (size_t k = 0; k < G_N_ELEMENTS (kinds); k++) {
    char *packs[2];
    VerifyResult result;
    g_autoptr (Repo) repo = make_copies (packs);
    ObjStore *store = repo_store (repo);
    case_flip (store, packs[0], find_record (store, packs[0], kinds[k]) + 60, 1);
    g_autofree char *text = verify (repo, NULL, 0, &result);
    assert_says (text, object_kind_name (kinds[k]));
    assert_says (text, strrchr (packs[0], '/') + 1);
    assert_says (text, "another copy is whole");
    g_assert_cmpuint (result.findings, ==, 1);
    g_assert_cmpuint (result.damaged, ==, 1);
    assert_sound (repo, NULL);
    merge_index (repo);
    g_autoptr (Repo) again = open_repo (copy_store (store));
    assert_sound (again, NULL);
    g_free (packs[0]);
    g_free (packs[1]);
  }
}

/* The damaged copy was the one that stayed: the other one is found in its pack's table. */
static void
test_lost_copy (void)
{
  char *packs[2];
  VerifyResult result;
  g_autoptr (Repo) repo = make_copies (packs);
  ObjStore *store = repo_store (repo);
  case_flip (store, packs[0], find_record (store, packs[0], OBJECT_CHUNK) + 60, 1);
  merge_index (repo);
  g_autofree char *text = verify (repo, NULL, 0, &result);
  assert_says (text, strrchr (packs[0], '/') + 1);
  assert_says (text, "other copies of 1 damaged object were found");
  g_assert_cmpuint (result.damaged, ==, 1);
  assert_sound (repo, NULL);
  g_autoptr (Repo) again = open_repo (copy_store (store));
  assert_sound (again, NULL);
  /* Nothing is found where there is nothing. */
  case_flip (store, packs[1], find_record (store, packs[1], OBJECT_CHUNK) + 60, 1);
  g_autoptr (GPtrArray) before = case_names (store, "index");
  g_autofree char *lost = verify (repo, NULL, 0, &result);
  g_assert_null (strstr (lost, "other copies"));
  g_assert_cmpuint (result.damaged, ==, 1);
  g_autoptr (GPtrArray) after = case_names (store, "index");
  g_assert_cmpuint (after->len, ==, before->len);
  g_free (packs[0]);
  g_free (packs[1]);
}

static void
test_interrupted (void)
{
  g_autoptr (Repo) repo = make_repo ();
  g_autoptr (TmkError) err = NULL;
  Seen seen = { .cancel = true };
  VerifyOptions options = { .cancelled = on_cancelled, .data = &seen };
  VerifyResult result = { .points = 77 };
  g_assert_false (repo_verify (repo, NULL, 0, &options, &result, &err));
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_CANCELLED);
  g_assert_cmpuint (result.points, ==, 77);
}

/* Each operation of the store fails in turn: nobody calls that sound. */
static void
test_failures (void)
{
  g_autoptr (Repo) whole = make_repo ();
  for (uint64_t n = 1;; n++) {
    g_autoptr (TmkError) err = NULL;
    ObjStore *store = obj_store_new_faulty (copy_store (repo_store (whole)), n, false, true);
    g_autoptr (Repo) repo = repo_open (store, &err);
    if (repo == NULL)
      continue;
    Seen seen = { .text = g_string_new (NULL) };
    VerifyOptions options = { .threads = 1, .damage = on_damage, .data = &seen };
    VerifyResult result;
    bool ok = repo_verify (repo, NULL, 0, &options, &result, &err);
    g_string_free (seen.text, TRUE);
    g_assert_true (ok == (err == NULL));
    if (obj_store_faulty_count (store) < n) {
      g_assert_true (ok && result.findings == 0 && n > 20);
      break;
    }
    g_assert_true (!ok || result.findings > 0);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/repo/verify/sound", test_sound);
  g_test_add_func ("/repo/verify/chunk-flips", test_chunk_flips);
  g_test_add_func ("/repo/verify/node-flips", test_node_flips);
  g_test_add_func ("/repo/verify/pack-flips", test_pack_flips);
  g_test_add_func ("/repo/verify/index-flips", test_index_flips);
  g_test_add_func ("/repo/verify/index-gone", test_index_gone);
  g_test_add_func ("/repo/verify/index-vanished", test_index_vanished);
  g_test_add_func ("/repo/verify/manifest-and-config-flips", test_manifest_and_config_flips);
  g_test_add_func ("/repo/verify/pack-gone", test_pack_gone);
  g_test_add_func ("/repo/verify/pack-short", test_pack_short);
  g_test_add_func ("/repo/verify/healing", test_healing);
  g_test_add_func ("/repo/verify/bad-copy", test_bad_copy);
  g_test_add_func ("/repo/verify/lost-copy", test_lost_copy);
  g_test_add_func ("/repo/verify/interrupted", test_interrupted);
  g_test_add_func ("/repo/verify/failures", test_failures);
  return g_test_run ();
}
