/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/source.h: what the kinds of block source implement. The public functions are in
 * <tidemark/block_source.h>.
 */
#pragma once

#include "blk/extents.h"
#include "blk/reader.h"
#include "util/error.h"

/* The functions of a kind; none may be NULL. `offset` and `length` were checked against the size.
 */
typedef struct {
  /* Appends to `out`, which is empty, the extents of a range. Any thread. */
  bool (*extents) (TmkBlockSource *source, uint64_t offset, uint64_t length, ExtentList *out,
                   TmkError **errp);
  /* Makes the engine of a reader (see blk/reader.h), or NULL with an error. `*setup` comes with
   * the size and the caller's wishes; the kind fills in the rest. */
  ReaderEngine *(*engine) (TmkBlockSource *source, ReaderSetup *setup, TmkError **errp);
  void (*free) (TmkBlockSource *source);
} SourceKind;

/* The first member of each kind's own struct. Fixed once opened. */
struct TmkBlockSource {
  const SourceKind *kind;
  char *name; /* freed with the source */
  uint64_t size;
  bool has_dirty;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkBlockSource, tmk_block_source_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkBlockExtents, tmk_block_extents_free)
