/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: index files are written byte by byte as the golden has them and read back alike; every
 * entry is found and nothing else, however the ids are spread, within a bounded number of steps;
 * the filter errs as rarely as it should; a bit that flipped anywhere is noticed by the check, and
 * makes a look-up miss at worst. */
#include "format-case.h"

#include "format/index.h"

#include <xxhash.h>

static const RepoId repo = { "a repository's." };

static int
compare_ids (const void *a, const void *b)
{
  return memcmp (a, b, OBJECT_ID_SIZE);
}

/* An index file of `n` ids over two packs, at an address with room for the filter's blocks. */
static unsigned char *
make_index (ObjectId *ids, uint64_t n, uint64_t *size)
{
  const PackName names[] = { { "pack number one" }, { "pack number two" } };
  *size = index_file_size (2, n);
  unsigned char *out = g_malloc0 (*size);
  unsigned char *filter = out + index_filter_offset (2, n);
  qsort (ids, n, sizeof *ids, compare_ids);
  index_pack_format (&names[0], 1 << 26, out + INDEX_HEADER_SIZE);
  index_pack_format (&names[1], 1 << 27, out + INDEX_HEADER_SIZE + INDEX_PACK_SIZE);
  unsigned char *at = out + INDEX_HEADER_SIZE + 2 * INDEX_PACK_SIZE;
  for (uint64_t i = 0; i < n; i++) {
    IndexEntry entry = { ids[i], i % 2, 100 + (uint32_t) i % 1000, 32 + i, OBJECT_CHUNK + i % 4 };
    index_entry_format (&entry, at + i * INDEX_ENTRY_SIZE);
    index_filter_add (filter, index_blocks_for (n), &ids[i]);
  }
  IndexView view = { .n_packs = 2,
                     .n_entries = n,
                     .n_blocks = index_blocks_for (n),
                     .checksum = XXH3_64bits (out + INDEX_HEADER_SIZE, *size - INDEX_HEADER_SIZE),
                     .repo = repo };
  index_header_format (&view, out);
  return out;
}

static ObjectId *
make_ids (uint64_t n)
{
  ObjectId *ids = g_new (ObjectId, n);
  for (uint64_t i = 0; i < n; i++)
    ids[i] = case_id ((i + 1) * UINT64_C (0x9e3779b97f4a7c15));
  return ids;
}

static void
test_golden (void)
{
  uint64_t size;
  g_autofree ObjectId *ids = make_ids (45);
  g_autofree unsigned char *made = make_index (ids, 45, &size);
  case_expect ("index.bin", made, size);
  size_t golden_size;
  g_autofree unsigned char *golden = case_read ("index.bin", &golden_size);
  g_assert_cmpint (golden_size % 64, ==, 0);
  IndexView view;
  TmkError *err = NULL;
  assert_ok (index_view_init (&view, golden, golden_size, &err), &err);
  assert_ok (index_view_check (&view, &err), &err);
  g_assert_cmpint (view.n_packs, ==, 2);
  g_assert_cmpint (view.n_entries, ==, 45);
  g_assert_cmpint (view.n_blocks, ==, 2);
  g_assert_cmpmem (&view.repo, sizeof view.repo, &repo, sizeof repo);
  uint64_t pack_size;
  PackName name = index_view_pack (&view, 1, &pack_size);
  g_assert_cmpstr ((const char *) name.bytes, ==, "pack number two");
  g_assert_cmpuint (pack_size, ==, 1 << 27);
  for (uint64_t i = 0; i < 45; i++) {
    IndexEntry entry, found;
    g_assert_true (index_view_entry (&view, i, &entry));
    g_assert_true (index_view_find (&view, &ids[i], &found));
    g_assert_true (object_id_equal (&entry.id, &ids[i]));
    g_assert_true (object_id_equal (&found.id, &ids[i]));
    g_assert_cmpint (found.pack, ==, i % 2);
    g_assert_cmpint (found.offset, ==, 32 + i);
    g_assert_cmpint (found.length, ==, 100 + i);
    g_assert_cmpint (found.kind, ==, OBJECT_CHUNK + i % 4);
  }
  IndexEntry entry;
  g_assert_false (index_view_entry (&view, 45, &entry));
}

static void
test_empty (void)
{
  uint64_t size;
  ObjectId none;
  g_autofree unsigned char *data = make_index (&none, 0, &size);
  IndexView view;
  IndexEntry entry;
  TmkError *err = NULL;
  ObjectId id = case_id (1);
  assert_ok (index_view_init (&view, data, size, &err), &err);
  assert_ok (index_view_check (&view, &err), &err);
  g_assert_false (index_view_find (&view, &id, &entry));
}

static void
test_find (void)
{
  const uint64_t n = 200000;
  uint64_t size, wrongly = 0;
  g_autofree ObjectId *ids = make_ids (n);
  g_autofree unsigned char *data = make_index (ids, n, &size);
  IndexView view;
  IndexEntry entry;
  TmkError *err = NULL;
  assert_ok (index_view_init (&view, data, size, &err), &err);
  assert_ok (index_view_check (&view, &err), &err);
  for (uint64_t i = 0; i < n; i++) {
    g_assert_true (index_view_find (&view, &ids[i], &entry));
    g_assert_cmpint (entry.offset, ==, 32 + i);
    ObjectId other = case_id ((i + n + 1) * UINT64_C (0x9e3779b97f4a7c15));
    g_assert_false (index_view_find (&view, &other, &entry));
    wrongly += index_filter_has (view.filter, view.n_blocks, &other);
  }
  g_test_message ("the filter erred %" G_GUINT64_FORMAT " times of %" G_GUINT64_FORMAT, wrongly, n);
  g_assert_cmpuint (wrongly, <, n / 200); /* 12.8 bits an id in blocks of 512: about 0.3 % */
  g_assert_cmpuint (wrongly, >, 0);       /* else the test asks the wrong ids */
}

/* Ids that someone made up: all alike in their leading bits, or growing exponentially. Where a
 * search only guessed, 2^17 look-ups among 2^17 would take minutes. */
static void
test_crafted (void)
{
  const uint64_t n = 1 << 17;
  for (int shape = 0; shape < 3; shape++) {
    g_autofree ObjectId *ids = make_ids (n);
    for (uint64_t i = 0; i < n; i++) {
      uint64_t lead = shape == 0 ? UINT64_MAX / 3 : UINT64_C (1) << i * 64 / n;
      if (shape == 2) /* close together, with one far off at either end */
        lead = i == 0 ? 1 : i == n - 1 ? UINT64_MAX : UINT64_MAX / 2 + i * i;
      lead = htobe64 (lead);
      memcpy (ids[i].bytes, &lead, sizeof lead);
    }
    uint64_t size;
    g_autofree unsigned char *data = make_index (ids, n, &size);
    IndexView view;
    IndexEntry entry;
    TmkError *err = NULL;
    assert_ok (index_view_init (&view, data, size, &err), &err);
    assert_ok (index_view_check (&view, &err), &err);
    gint64 begin = g_get_monotonic_time ();
    for (uint64_t i = 0; i < n; i++) {
      g_assert_true (index_view_find (&view, &ids[i], &entry));
      g_assert_cmpint (entry.offset, ==, 32 + i);
    }
    g_assert_cmpint (g_get_monotonic_time () - begin, <, 20 * G_USEC_PER_SEC);
  }
}

static void
test_flips (void)
{
  size_t size;
  g_autofree unsigned char *data = case_read ("index.bin", &size);
  for (size_t bit = 0; bit < size * 8; bit++) {
    IndexView view;
    TmkError *err = NULL;
    data[bit / 8] ^= 1u << bit % 8;
    bool ok = index_view_init (&view, data, size, &err);
    if (ok) {
      for (uint64_t i = 0; i < 45; i++) {
        ObjectId id = case_id ((i + 1) * UINT64_C (0x9e3779b97f4a7c15));
        IndexEntry entry;
        if (index_view_find (&view, &id, &entry))
          g_assert_true (entry.pack < 2 && object_id_equal (&entry.id, &id));
      }
      ok = index_view_check (&view, &err);
    }
    assert_refused (ok, &err, TMK_ERR_DAMAGED, "index file");
    data[bit / 8] ^= 1u << bit % 8;
  }
  for (size_t cut = 0; cut < size; cut++) {
    IndexView view;
    TmkError *err = NULL;
    g_autofree unsigned char *part = g_memdup2 (data, cut);
    assert_refused (index_view_init (&view, part, cut, &err), &err, TMK_ERR_DAMAGED, "index file");
  }
}

/* A field changed and the checksums made to match. */
static void
test_faults (void)
{
  const size_t packs = INDEX_HEADER_SIZE, entries = packs + 2 * INDEX_PACK_SIZE;
  const struct {
    size_t at;
    unsigned width;
    uint64_t value;
    const char *part;
  } cases[] = {
    { 16, 4, 2, "unknown version (2)" },
    { 20, 4, INDEX_MAX_PACKS + 1, "too many packs" },
    { 20, 4, 3, "index file of 3 packs" },
    { 24, 8, INDEX_MAX_ENTRIES + 1, "too many entries" },
    { 24, 8, 46, "46 entries" },
    { 24, 8, UINT64_MAX, "too many entries" },
    { 32, 8, 0, "0 filter blocks" },
    { 32, 8, 1, "1 filter blocks" },
    { 32, 8, UINT64_MAX, "filter blocks" },
    { entries + 32, 4, 2, "entry 0 of the index file is in a pack that there is not" },
    { entries + 36, 4, 55, "entry 0 of the index file has a wrong length" },
    { entries + 36, 4, RECORD_MAX_SIZE + 1, "has a wrong length" },
    { entries + 40, 7, 31, "does not lie in its pack" },
    { entries + 40, 7, (1 << 26) - 99, "does not lie in its pack" },
    { entries + 40, 7, UINT64_MAX, "does not lie in its pack" },
    { entries + 47, 1, 0, "is of an unknown kind" },
    { entries + 47, 1, 16, "is of an unknown kind" },
    { packs + 24, 8, 100, "does not lie in its pack" },
    { entries + INDEX_ENTRY_SIZE, 32, 0, "entry 1 of the index file has a zero id" },
    { entries, 1, 0xff, "entry 0 of the index file is not in the filter" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    size_t size;
    g_autofree unsigned char *data = case_read ("index.bin", &size);
    unsigned char value[32] = { 0 };
    put_le64 (value, cases[i].value);
    memcpy (data + cases[i].at, value, cases[i].width);
    if (i == G_N_ELEMENTS (cases) - 1) /* an id that differs where the filter looks */
      memset (data + entries + 16, 0x55, 16);
    put_le64 (data + 40, XXH3_64bits (data + INDEX_HEADER_SIZE, size - INDEX_HEADER_SIZE));
    put_le64 (data, XXH3_64bits (data + 8, INDEX_HEADER_SIZE - 8));
    IndexView view;
    TmkError *err = NULL;
    bool ok = index_view_init (&view, data, size, &err) && index_view_check (&view, &err);
    assert_refused (ok, &err, TMK_ERR_DAMAGED, cases[i].part);
  }
}

static void
test_order (void)
{
  uint64_t size;
  g_autofree ObjectId *ids = make_ids (3);
  ids[2] = ids[1];
  g_autofree unsigned char *data = make_index (ids, 3, &size);
  IndexView view;
  TmkError *err = NULL;
  assert_ok (index_view_init (&view, data, size, &err), &err);
  assert_refused (index_view_check (&view, &err), &err, TMK_ERR_DAMAGED,
                  "not behind the one before");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/format/index/golden", test_golden);
  g_test_add_func ("/format/index/empty", test_empty);
  g_test_add_func ("/format/index/find", test_find);
  g_test_add_func ("/format/index/crafted", test_crafted);
  g_test_add_func ("/format/index/flips", test_flips);
  g_test_add_func ("/format/index/faults", test_faults);
  g_test_add_func ("/format/index/order", test_order);
  return g_test_run ();
}
