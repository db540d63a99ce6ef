/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/source.c: the public face of block sources: checks, then the kind. */
#include "blk/source.h"

#define DOMAIN "blk"

void
tmk_block_source_free (TmkBlockSource *source)
{
  if (source == NULL)
    return;
  char *name = source->name;
  source->kind->free (source);
  g_free (name);
}

uint64_t
tmk_block_source_size (const TmkBlockSource *source)
{
  return source->size;
}

const char *
tmk_block_source_name (const TmkBlockSource *source)
{
  return source->name;
}

bool
tmk_block_source_has_dirty (const TmkBlockSource *source)
{
  return source->has_dirty;
}

TmkBlockExtents *
tmk_block_source_extents (TmkBlockSource *source, uint64_t offset, uint64_t length, TmkError **errp)
{
  if (offset > source->size || length > source->size - offset) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "'%s': %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT
               " are not within its %" G_GUINT64_FORMAT " bytes",
               source->name, length, offset, source->size);
    return NULL;
  }
  ExtentList list;
  extent_list_init (&list);
  if (length > 0 && !source->kind->extents (source, offset, length, &list, errp)) {
    extent_list_clear (&list);
    return NULL;
  }
  TmkBlockExtents *extents = g_new0 (TmkBlockExtents, 1);
  extents->n_extents = list.n;
  extents->extents = list.at;
  return extents;
}

void
tmk_block_extents_free (TmkBlockExtents *extents)
{
  if (extents == NULL)
    return;
  g_free ((TmkBlockExtent *) extents->extents);
  g_free (extents);
}

static bool
options_are_sound (const TmkBlockSource *source, const TmkReadOptions *options, TmkError **errp)
{
  const TmkBlockExtents *extents = options->extents;
  if (extents != NULL && !extents_are_sound (extents->extents, extents->n_extents, source->size)) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "'%s': the extents to read are not ascending or not within its %" G_GUINT64_FORMAT
               " bytes",
               source->name, source->size);
    return false;
  }
  if (options->only_dirty && extents == NULL && !source->has_dirty) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "'%s': it is not known what is dirty", source->name);
    return false;
  }
  if ((options->align & (options->align - 1)) != 0 || options->buffers > 4096) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "'%s': %u is no power of two to align to, or %u buffers are too many", source->name,
               options->align, options->buffers);
    return false;
  }
  return true;
}

TmkBlockReader *
tmk_block_source_reader (TmkBlockSource *source, const TmkReadOptions *options, TmkError **errp)
{
  static const TmkReadOptions everything = { 0 };
  if (options == NULL)
    options = &everything;
  if (!options_are_sound (source, options, errp))
    return NULL;
  ReaderSetup setup = {
    .name = source->name,
    .size = source->size,
    .only_dirty = options->only_dirty,
    .extents = options->extents,
    .align = MAX (options->align, 1),
    .buffers = options->buffers,
  };
  ReaderEngine *engine = source->kind->engine (source, &setup, errp);
  return engine != NULL ? reader_new (&setup, engine, errp) : NULL;
}
