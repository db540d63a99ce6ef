/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/extents.c: see blk/extents.h. Ends of extents do not overflow: who appends has checked. */
#include "blk/extents.h"

#define WHOLE (TMK_EXTENT_HOLE | TMK_EXTENT_ZERO) /* flags that hold for all of a cell or not */

void
extent_list_init (ExtentList *list)
{
  *list = (ExtentList){ 0 };
}

void
extent_list_clear (ExtentList *list)
{
  g_free (list->at);
  extent_list_init (list);
}

void
extent_list_reset (ExtentList *list)
{
  list->n = 0;
}

uint64_t
extent_list_end (const ExtentList *list, uint64_t empty)
{
  if (list->n == 0)
    return empty;
  const TmkBlockExtent *last = &list->at[list->n - 1];
  return last->offset + last->length;
}

void
extent_list_append (ExtentList *list, uint64_t offset, uint64_t length, unsigned flags)
{
  if (length == 0)
    return;
  if (list->n > 0) {
    TmkBlockExtent *last = &list->at[list->n - 1];
    g_assert (offset >= last->offset + last->length);
    if (last->flags == flags && last->offset + last->length == offset) {
      last->length += length;
      return;
    }
  }
  if (list->n == list->room) {
    list->room = MAX (64, list->room * 2);
    list->at = g_renew (TmkBlockExtent, list->at, list->room);
  }
  list->at[list->n++] = (TmkBlockExtent){ offset, length, flags };
}

/* The flags of `list` at `offset`, and in `*until` (only ever lowered) how far they hold. `*i` is
 * moved to the first extent that ends after `offset`. */
static unsigned
flags_at (const ExtentList *list, size_t *i, uint64_t offset, uint64_t *until)
{
  while (*i < list->n && list->at[*i].offset + list->at[*i].length <= offset)
    ++*i;
  if (*i == list->n)
    return 0;
  const TmkBlockExtent *extent = &list->at[*i];
  if (extent->offset > offset) {
    *until = MIN (*until, extent->offset);
    return 0;
  }
  *until = MIN (*until, extent->offset + extent->length);
  return extent->flags;
}

void
extent_list_merge (const ExtentList *a, const ExtentList *b, uint64_t begin, uint64_t end,
                   ExtentList *out)
{
  extent_list_reset (out);
  size_t i = 0, j = 0;
  while (begin < end) {
    uint64_t until = end;
    unsigned flags = flags_at (a, &i, begin, &until) | flags_at (b, &j, begin, &until);
    extent_list_append (out, begin, until - begin, flags);
    begin = until;
  }
}

/* A cell that is being put together from several extents. */
typedef struct {
  uint64_t begin, covered;
  unsigned whole, any;
} Cell;

static void
cell_flush (Cell *cell, uint64_t align, uint64_t limit, ExtentList *out)
{
  if (cell->covered == 0)
    return;
  uint64_t length = MIN (align, limit - cell->begin);
  unsigned whole = cell->covered == length ? cell->whole : 0;
  extent_list_append (out, cell->begin, length, whole | cell->any);
  cell->covered = 0;
}

static void
cell_add (Cell *cell, uint64_t begin, uint64_t length, unsigned flags)
{
  if (cell->covered == 0)
    *cell = (Cell){ .begin = begin, .whole = WHOLE };
  cell->covered += length;
  cell->whole &= flags;
  cell->any |= flags & ~(unsigned) WHOLE;
}

void
extent_list_align (const ExtentList *in, uint64_t align, uint64_t limit, ExtentList *out)
{
  extent_list_reset (out);
  Cell cell = { 0 };
  for (size_t i = 0; i < in->n; i++) {
    uint64_t at = in->at[i].offset, end = at + in->at[i].length;
    unsigned flags = in->at[i].flags;
    while (at < end) {
      uint64_t begin = at & ~(align - 1);
      if (cell.covered > 0 && cell.begin != begin)
        cell_flush (&cell, align, limit, out);
      uint64_t step;
      if (at == begin && end - at >= align) {
        step = (end - at) & ~(align - 1); /* whole cells */
        extent_list_append (out, at, step, flags);
      } else {
        step = MIN (align - (at - begin), end - at);
        cell_add (&cell, begin, step, flags);
      }
      at += step;
    }
  }
  cell_flush (&cell, align, limit, out);
}

bool
extents_are_sound (const TmkBlockExtent *extents, size_t n, uint64_t limit)
{
  uint64_t end = 0;
  for (size_t i = 0; i < n; i++) {
    if (extents[i].offset < end || extents[i].length == 0 || extents[i].offset > limit
        || extents[i].length > limit - extents[i].offset)
      return false;
    end = extents[i].offset + extents[i].length;
  }
  return true;
}

void
extent_walk_init (ExtentWalk *walk, const ExtentList *list, bool only_dirty, uint64_t request)
{
  *walk = (ExtentWalk){ .list = list, .only_dirty = only_dirty, .request = request };
}

/* The extent to go on with, or NULL at the end. */
static const TmkBlockExtent *
walk_extent (ExtentWalk *walk)
{
  for (; walk->index < walk->list->n; walk->index++, walk->done = 0) {
    const TmkBlockExtent *extent = &walk->list->at[walk->index];
    if (walk->done < extent->length
        && (!walk->only_dirty || (extent->flags & TMK_EXTENT_DIRTY) != 0))
      return extent;
  }
  return NULL;
}

bool
extent_walk_next (ExtentWalk *walk, uint64_t *offset, uint64_t *length, bool *zero)
{
  const TmkBlockExtent *extent = walk_extent (walk);
  if (extent == NULL)
    return false;
  uint64_t begin = extent->offset + walk->done, end = begin;
  bool is_zero = (extent->flags & TMK_EXTENT_ZERO) != 0;
  uint64_t bound = is_zero ? UINT64_MAX : (begin / walk->request + 1) * walk->request;
  do {
    uint64_t step = MIN (bound - end, extent->length - walk->done);
    walk->done += step;
    end += step;
    extent = walk_extent (walk);
  } while (extent != NULL && end < bound && extent->offset + walk->done == end
           && ((extent->flags & TMK_EXTENT_ZERO) != 0) == is_zero);
  *offset = begin;
  *length = end - begin;
  *zero = is_zero;
  return true;
}
