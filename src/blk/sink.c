/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/sink.c: the public face of block sinks: checks, then the kind. */
#include "blk/sink.h"

#define DOMAIN "blk"

static const char zeroes[256 << 10];

static bool
is_within (const TmkBlockSink *sink, uint64_t offset, uint64_t length, TmkError **errp)
{
  if (offset <= sink->size && length <= sink->size - offset)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
             "'%s': %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT
             " are not within its %" G_GUINT64_FORMAT " bytes",
             sink->name, length, offset, sink->size);
  return false;
}

uint64_t
tmk_block_sink_size (const TmkBlockSink *sink)
{
  return sink->size;
}

const char *
tmk_block_sink_name (const TmkBlockSink *sink)
{
  return sink->name;
}

bool
tmk_block_sink_is_zero (const TmkBlockSink *sink)
{
  return sink->is_zero;
}

bool
tmk_block_sink_write (TmkBlockSink *sink, uint64_t offset, const void *data, size_t length,
                      TmkError **errp)
{
  return is_within (sink, offset, length, errp)
         && (length == 0 || sink->kind->write (sink, offset, data, length, errp));
}

bool
tmk_block_sink_zero (TmkBlockSink *sink, uint64_t offset, uint64_t length, TmkError **errp)
{
  if (!is_within (sink, offset, length, errp))
    return false;
  TmkError *err = NULL;
  if (length == 0 || sink->kind->zero (sink, offset, length, &err))
    return true;
  if (err != NULL) {
    error_propagate (errp, err);
    return false;
  }
  while (length > 0) {
    size_t n = MIN (length, sizeof zeroes);
    if (!sink->kind->write (sink, offset, zeroes, n, errp))
      return false;
    offset += n;
    length -= n;
  }
  return true;
}

bool
tmk_block_sink_flush (TmkBlockSink *sink, TmkError **errp)
{
  return sink->kind->flush (sink, errp);
}

bool
tmk_block_sink_close (TmkBlockSink *sink, TmkError **errp)
{
  bool ok = sink->kind->flush (sink, errp) && sink->kind->finish (sink, errp);
  tmk_block_sink_free (sink);
  return ok;
}

void
tmk_block_sink_free (TmkBlockSink *sink)
{
  if (sink == NULL)
    return;
  char *name = sink->name;
  sink->kind->free (sink);
  g_free (name);
}
