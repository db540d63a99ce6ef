/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/extents.h: lists of extents, and cutting them into reads. Pure: no I/O, no errors.
 *
 * A list is ascending, without overlaps, none empty. It may have gaps unless said otherwise. One
 * thread at a time per object.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <tidemark/block_source.h>

typedef struct {
  TmkBlockExtent *at;
  size_t n, room;
} ExtentList;

void extent_list_init (ExtentList *list);
void extent_list_clear (ExtentList *list);

/* Forgets the extents, keeps the memory. */
void extent_list_reset (ExtentList *list);

/* Where the last extent ends, or `empty` where there is none. */
uint64_t extent_list_end (const ExtentList *list, uint64_t empty);

/* Appends; `offset` is not before the end of the list. A neighbour with the same flags is made
 * longer. A length of 0 is ignored. */
void extent_list_append (ExtentList *list, uint64_t offset, uint64_t length, unsigned flags);

/* Puts in `out` (reset first) exactly the range [begin, end), with the flags of `a` or those of
 * `b`, whichever has them; where a list has a gap it adds none. Neighbours differ. */
void extent_list_merge (const ExtentList *a, const ExtentList *b, uint64_t begin, uint64_t end,
                        ExtentList *out);

/* Widens `in` to cells of `align` bytes (a power of two), the last one cut off at `limit`, in
 * `out` (reset first): a cell that is touched is there; it is dirty where any part is; it is zero,
 * or a hole, where it is so throughout. */
void extent_list_align (const ExtentList *in, uint64_t align, uint64_t limit, ExtentList *out);

/* Is it what TmkBlockExtents has to be for a caller's list: ascending, no overlaps, none empty,
 * nothing beyond `limit`? */
bool extents_are_sound (const TmkBlockExtent *extents, size_t n, uint64_t limit);

/* Cuts a list into pieces to read. */
typedef struct {
  const ExtentList *list; /* borrowed */
  size_t index;           /* of the next extent */
  uint64_t done;          /* bytes of it */
  bool only_dirty;
  uint64_t request; /* no read crosses a multiple of this */
} ExtentWalk;

void extent_walk_init (ExtentWalk *walk, const ExtentList *list, bool only_dirty, uint64_t request);

/* The next piece: a read of at most `request` bytes, or (`*zero`) a run of zeroes of any length.
 * False at the end. Data extents that touch are read as one. */
bool extent_walk_next (ExtentWalk *walk, uint64_t *offset, uint64_t *length, bool *zero);
