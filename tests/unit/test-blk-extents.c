/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: lists of extents merge, align and are cut into reads as a model does that looks at every
 * byte; spans notice every byte that came twice or not at all. */
#include "blk/extents.h"
#include "blk/spans.h"

#include <string.h>

#define SIZE 512
#define NOTHING 0xff /* the model's mark for a byte that is in no extent */

typedef struct {
  ExtentList list;
  guint8 bytes[SIZE]; /* the flags of each byte, or NOTHING */
} Model;

static void
make_random (GRand *rand, Model *m, bool gaps)
{
  extent_list_init (&m->list);
  memset (m->bytes, NOTHING, SIZE);
  unsigned at = 0;
  while (at < SIZE) {
    unsigned length = (unsigned) g_rand_int_range (rand, 1, 70);
    length = MIN (length, SIZE - at);
    if (!gaps || g_rand_boolean (rand)) {
      unsigned flags = (unsigned) g_rand_int_range (rand, 0, 8);
      extent_list_append (&m->list, at, length, flags);
      memset (m->bytes + at, (int) flags, length);
    }
    at += length;
  }
}

static void
assert_list (const ExtentList *list, const guint8 *bytes)
{
  guint8 got[SIZE];
  memset (got, NOTHING, SIZE);
  uint64_t end = 0;
  for (size_t i = 0; i < list->n; i++) {
    const TmkBlockExtent *e = &list->at[i];
    g_assert_cmpuint (e->offset, >=, end);
    g_assert_cmpuint (e->length, >, 0);
    if (i > 0 && e->offset == end)
      g_assert_cmpuint (e->flags, !=, list->at[i - 1].flags);
    end = e->offset + e->length;
    g_assert_cmpuint (end, <=, SIZE);
    memset (got + e->offset, (int) e->flags, e->length);
  }
  g_assert_cmpmem (got, SIZE, bytes, SIZE);
}

static void
test_merge (void)
{
  GRand *rand = g_rand_new_with_seed (1);
  for (int round = 0; round < 2000; round++) {
    Model a, b;
    ExtentList out;
    guint8 expected[SIZE];
    extent_list_init (&out);
    make_random (rand, &a, round % 2);
    make_random (rand, &b, round % 3 == 0);
    unsigned begin = (unsigned) g_rand_int_range (rand, 0, SIZE);
    unsigned end = (unsigned) g_rand_int_range (rand, (int) begin, SIZE + 1);
    memset (expected, NOTHING, SIZE);
    for (unsigned i = begin; i < end; i++)
      expected[i]
          = (a.bytes[i] == NOTHING ? 0 : a.bytes[i]) | (b.bytes[i] == NOTHING ? 0 : b.bytes[i]);
    extent_list_merge (&a.list, &b.list, begin, end, &out);
    assert_list (&out, expected);
    extent_list_clear (&a.list);
    extent_list_clear (&b.list);
    extent_list_clear (&out);
  }
  g_rand_free (rand);
}

static void
test_align (void)
{
  GRand *rand = g_rand_new_with_seed (2);
  for (int round = 0; round < 2000; round++) {
    Model m;
    ExtentList out;
    guint8 expected[SIZE];
    extent_list_init (&out);
    make_random (rand, &m, round % 2);
    unsigned align = 1u << g_rand_int_range (rand, 0, 7);
    unsigned limit = SIZE;
    if (extent_list_end (&m.list, 0) < SIZE)
      limit = (unsigned) g_rand_int_range (rand, (int) extent_list_end (&m.list, 0), SIZE + 1);
    memset (expected, NOTHING, SIZE);
    for (unsigned cell = 0; cell < limit; cell += align) {
      unsigned end = MIN (cell + align, limit), any = 0;
      unsigned all = TMK_EXTENT_HOLE | TMK_EXTENT_ZERO;
      bool touched = false;
      for (unsigned i = cell; i < end; i++) {
        touched |= m.bytes[i] != NOTHING;
        all &= m.bytes[i] == NOTHING ? 0 : m.bytes[i];
        any |= m.bytes[i] == NOTHING ? 0 : m.bytes[i] & TMK_EXTENT_DIRTY;
      }
      if (touched)
        memset (expected + cell, (int) (all | any), end - cell);
    }
    extent_list_align (&m.list, align, limit, &out);
    assert_list (&out, expected);
    extent_list_clear (&m.list);
    extent_list_clear (&out);
  }
  g_rand_free (rand);
}

static void
test_walk (void)
{
  GRand *rand = g_rand_new_with_seed (3);
  for (int round = 0; round < 2000; round++) {
    Model m;
    make_random (rand, &m, round % 2);
    bool only_dirty = g_rand_boolean (rand), zero;
    unsigned request = 1u << g_rand_int_range (rand, 0, 8);
    guint8 seen[SIZE] = { 0 };
    ExtentWalk walk;
    uint64_t offset, length, end = 0;
    extent_walk_init (&walk, &m.list, only_dirty, request);
    while (extent_walk_next (&walk, &offset, &length, &zero)) {
      g_assert_cmpuint (offset, >=, end);
      g_assert_cmpuint (length, >, 0);
      end = offset + length;
      g_assert_cmpuint (end, <=, SIZE);
      if (!zero)
        g_assert_cmpuint (offset / request, ==, (end - 1) / request);
      for (uint64_t i = offset; i < end; i++) {
        g_assert_cmpuint (m.bytes[i], !=, NOTHING);
        g_assert_true (((m.bytes[i] & TMK_EXTENT_ZERO) != 0) == zero);
        seen[i] = 1;
      }
    }
    g_assert_false (extent_walk_next (&walk, &offset, &length, &zero));
    for (unsigned i = 0; i < SIZE; i++)
      g_assert_true (
          seen[i]
          == (m.bytes[i] != NOTHING && (!only_dirty || (m.bytes[i] & TMK_EXTENT_DIRTY) != 0)));
    extent_list_clear (&m.list);
  }
  g_rand_free (rand);
}

/* Offsets and lengths of 64 bits: 7 EiB in few extents. */
static void
test_huge (void)
{
  const uint64_t e = UINT64_C (1) << 60;
  ExtentList a, b, out;
  extent_list_init (&a);
  extent_list_init (&b);
  extent_list_init (&out);
  extent_list_append (&a, 0, 7 * e, TMK_EXTENT_ZERO);
  extent_list_append (&b, 5 * e, 1, TMK_EXTENT_DIRTY);
  extent_list_merge (&a, &b, 0, 7 * e, &out);
  g_assert_cmpuint (out.n, ==, 3);
  g_assert_cmpuint (out.at[2].length, ==, 2 * e - 1);
  extent_list_align (&out, 65536, 7 * e, &a);
  g_assert_cmpuint (a.n, ==, 3);
  g_assert_cmpuint (a.at[1].length, ==, 65536);
  g_assert_cmpuint (a.at[1].flags, ==, TMK_EXTENT_ZERO | TMK_EXTENT_DIRTY);
  extent_list_clear (&a);
  extent_list_clear (&b);
  extent_list_clear (&out);
}

static void
test_sound (void)
{
  const TmkBlockExtent good[] = { { 0, 10, 0 }, { 10, 1, 0 }, { 90, 10, 7 } };
  const TmkBlockExtent overlap[] = { { 0, 10, 0 }, { 9, 1, 0 } };
  const TmkBlockExtent empty[] = { { 0, 0, 0 } };
  const TmkBlockExtent wraps[] = { { 10, UINT64_MAX - 5, 0 } };
  g_assert_true (extents_are_sound (good, 3, 100));
  g_assert_true (extents_are_sound (NULL, 0, 100));
  g_assert_false (extents_are_sound (good, 3, 99));
  g_assert_false (extents_are_sound (overlap, 2, 100));
  g_assert_false (extents_are_sound (empty, 1, 100));
  g_assert_false (extents_are_sound (wraps, 1, 100));
}

static void
test_spans (void)
{
  GRand *rand = g_rand_new_with_seed (4);
  Spans spans = { 0 };
  for (int round = 0; round < 2000; round++) {
    guint8 there[64] = { 0 };
    spans_reset (&spans);
    for (int i = 0; i < 200; i++) {
      unsigned begin = (unsigned) g_rand_int_range (rand, 0, 64);
      unsigned end = (unsigned) g_rand_int_range (rand, (int) begin, 65);
      end = MIN (end, begin + 6);
      bool is_new = end > begin && memchr (there + begin, 1, end - begin) == NULL;
      g_assert_true (spans_add (&spans, begin, end) == is_new);
      if (is_new)
        if (is_new)
          memset (there + begin, 1, end - begin);
      g_assert_true (spans_are_full (&spans, 64) == (memchr (there, 0, 64) == NULL));
    }
  }
  spans_clear (&spans);
  g_rand_free (rand);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/blk/extents/merge", test_merge);
  g_test_add_func ("/blk/extents/align", test_align);
  g_test_add_func ("/blk/extents/walk", test_walk);
  g_test_add_func ("/blk/extents/huge", test_huge);
  g_test_add_func ("/blk/extents/sound", test_sound);
  g_test_add_func ("/blk/spans", test_spans);
  return g_test_run ();
}
