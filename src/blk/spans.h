/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/spans.h: which parts of a read have arrived. A server may send them in any order; each byte
 * has to come once, or the buffer would keep what an earlier read left there. Pure.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
  uint64_t begin, end;
} Span;

/* Ascending, apart from each other. Keeps its memory when reset. */
typedef struct {
  Span *at;
  size_t n, room;
} Spans;

static inline void
spans_reset (Spans *spans)
{
  spans->n = 0;
}

static inline void
spans_clear (Spans *spans)
{
  g_free (spans->at);
  *spans = (Spans){ 0 };
}

/* False: some of it was there already, or it is empty. */
bool spans_add (Spans *spans, uint64_t begin, uint64_t end);

/* Is it exactly [0, length)? */
static inline bool
spans_are_full (const Spans *spans, uint64_t length)
{
  return spans->n == 1 && spans->at[0].begin == 0 && spans->at[0].end == length;
}
