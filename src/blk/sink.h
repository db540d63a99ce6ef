/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/sink.h: what the kinds of block sink implement. The public functions are in
 * <tidemark/block_sink.h>.
 */
#pragma once

#include "util/error.h"
#include <tidemark/block_sink.h>

/* None may be NULL. Ranges were checked against the size and are not empty. Any thread, except
 * `finish` and `free`. */
typedef struct {
  bool (*write) (TmkBlockSink *sink, uint64_t offset, const void *data, size_t length,
                 TmkError **errp);
  /* False without an error: not to be had, write zeroes. */
  bool (*zero) (TmkBlockSink *sink, uint64_t offset, uint64_t length, TmkError **errp);
  bool (*flush) (TmkBlockSink *sink, TmkError **errp);
  /* After a flush: makes the sink one that stays. */
  bool (*finish) (TmkBlockSink *sink, TmkError **errp);
  void (*free) (TmkBlockSink *sink);
} SinkKind;

/* The first member of each kind's own struct. Fixed once opened. */
struct TmkBlockSink {
  const SinkKind *kind;
  char *name; /* freed with the sink */
  uint64_t size;
  bool is_zero;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkBlockSink, tmk_block_sink_free)
