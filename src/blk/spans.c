/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/spans.c: see blk/spans.h. Servers mostly send in order: then there is one span. */
#include "blk/spans.h"

#include <string.h>

bool
spans_add (Spans *spans, uint64_t begin, uint64_t end)
{
  if (begin >= end)
    return false;
  size_t i = spans->n; /* where it goes: before the first that ends behind `begin` */
  while (i > 0 && spans->at[i - 1].end > begin)
    i--;
  if (i < spans->n && spans->at[i].begin < end)
    return false;
  bool joins_left = i > 0 && spans->at[i - 1].end == begin;
  bool joins_right = i < spans->n && spans->at[i].begin == end;
  if (joins_left && joins_right) {
    spans->at[i - 1].end = spans->at[i].end;
    memmove (&spans->at[i], &spans->at[i + 1], (spans->n - i - 1) * sizeof (Span));
    spans->n--;
  } else if (joins_left) {
    spans->at[i - 1].end = end;
  } else if (joins_right) {
    spans->at[i].begin = begin;
  } else {
    if (spans->n == spans->room) {
      spans->room = MAX (16, spans->room * 2);
      spans->at = g_renew (Span, spans->at, spans->room);
    }
    memmove (&spans->at[i + 1], &spans->at[i], (spans->n - i) * sizeof (Span));
    spans->at[i] = (Span){ begin, end };
    spans->n++;
  }
  return true;
}
