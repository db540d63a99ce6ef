/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/index_write.c: see repo/index_write.h. No state; any thread.
 *
 * The header comes first and has the checksum of all that follows, and a store only appends: so the
 * source is read twice, once to count, to fill the filter and to sum, once to write.
 */
#include "repo/index_write.h"

#include "repo/record.h"

#include <xxhash.h>

#define DOMAIN "repo"
#define BUFFER (1u << 20)

typedef struct {
  XXH3_state_t *sum;
  ObjWriter *writer; /* NULL: the first time */
  unsigned char *buffer;
  size_t fill;
  unsigned char *filter;
  uint64_t blocks;
} Output;

static bool
flush (Output *out, TmkError **errp)
{
  bool ok = out->writer == NULL || obj_writer_append (out->writer, out->buffer, out->fill, errp);
  if (out->writer == NULL)
    (void) XXH3_64bits_update (out->sum, out->buffer, out->fill); /* fails for NULL only */
  out->fill = 0;
  return ok;
}

/* Room for `size` bytes, at most BUFFER; NULL on failure. */
static unsigned char *
room_for (Output *out, size_t size, TmkError **errp)
{
  if (out->fill + size > BUFFER && !flush (out, errp))
    return NULL;
  unsigned char *at = out->buffer + out->fill;
  out->fill += size;
  return at;
}

/* Packs, entries, and zeroes up to the filter. Stores how many entries there were. */
static bool
put_all (Output *out, const IndexPack *packs, uint32_t n_packs, IndexSource *source, uint64_t *n,
         TmkError **errp)
{
  for (uint32_t i = 0; i < n_packs; i++) {
    unsigned char *at = room_for (out, INDEX_PACK_SIZE, errp);
    if (at == NULL)
      return false;
    index_pack_format (&packs[i].name, packs[i].size, at);
  }
  IndexEntry entry;
  source->rewind (source);
  for (*n = 0; source->next (source, &entry); ++*n) {
    unsigned char *at = room_for (out, INDEX_ENTRY_SIZE, errp);
    if (at == NULL)
      return false;
    index_entry_format (&entry, at);
    if (out->writer == NULL)
      index_filter_add (out->filter, out->blocks, &entry.id);
  }
  uint64_t end = INDEX_HEADER_SIZE + (uint64_t) n_packs * INDEX_PACK_SIZE + *n * INDEX_ENTRY_SIZE;
  size_t gap = (size_t) (index_filter_offset (n_packs, *n) - end);
  unsigned char *at = room_for (out, gap, errp);
  if (at == NULL)
    return false;
  memset (at, 0, gap);
  return flush (out, errp);
}

/* Counts, fills the filter and sums. */
static bool
survey (Output *out, const IndexPack *packs, IndexSource *source, uint64_t most, IndexView *view,
        TmkError **errp)
{
  out->blocks = index_blocks_for (most);
  out->filter = g_malloc0 (out->blocks * INDEX_BLOCK_SIZE);
  XXH3_64bits_reset (out->sum);
  if (!put_all (out, packs, view->n_packs, source, &view->n_entries, errp))
    return false;
  (void) XXH3_64bits_update (out->sum, out->filter, out->blocks * INDEX_BLOCK_SIZE);
  view->n_blocks = out->blocks;
  view->checksum = XXH3_64bits_digest (out->sum);
  return true;
}

static bool
write_all (Output *out, const IndexPack *packs, IndexSource *source, const IndexView *view,
           TmkError **errp)
{
  unsigned char header[INDEX_HEADER_SIZE];
  index_header_format (view, header);
  if (!obj_writer_append (out->writer, header, sizeof header, errp))
    return false;
  uint64_t n;
  if (!put_all (out, packs, view->n_packs, source, &n, errp))
    return false;
  if (n != view->n_entries) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "an index file cannot be read any more");
    return false;
  }
  return obj_writer_append (out->writer, out->filter, out->blocks * INDEX_BLOCK_SIZE, errp);
}

bool
index_write (ObjStore *store, const RepoId *repo, const IndexPack *packs, uint32_t n_packs,
             IndexSource *source, uint64_t most, char **name, uint64_t *size, TmkError **errp)
{
  IndexView view = { .n_packs = n_packs, .repo = *repo };
  Output out = { .sum = XXH3_createState (), .buffer = g_malloc (BUFFER) };
  g_autoptr (ObjWriter) writer = NULL;
  g_autofree char *new_name = record_new_name ("index", errp);
  bool ok = new_name != NULL && survey (&out, packs, source, most, &view, errp)
            && (writer = out.writer = obj_store_put (store, errp)) != NULL
            && write_all (&out, packs, source, &view, errp)
            && obj_writer_commit (writer, new_name, errp);
  if (ok) {
    *size = index_filter_offset (n_packs, view.n_entries) + out.blocks * INDEX_BLOCK_SIZE;
    *name = g_steal_pointer (&new_name);
  }
  XXH3_freeState (out.sum);
  g_free (out.buffer);
  g_free (out.filter);
  return ok;
}

/* --- arrays */

typedef struct {
  IndexSource source;
  const IndexEntry *entries;
  size_t n, at;
} ArraySource;

static void
array_rewind (IndexSource *source)
{
  ((ArraySource *) source)->at = 0;
}

static bool
array_next (IndexSource *source, IndexEntry *entry)
{
  ArraySource *self = (ArraySource *) source;
  if (self->at == self->n)
    return false;
  *entry = self->entries[self->at++];
  return true;
}

static int
compare_entries (const void *a, const void *b, void *unused)
{
  return memcmp (a, b, sizeof (ObjectId));
}

/* The number that stay when of the same ids only the first is kept. GLib sorts stably. */
static size_t
sort_entries (IndexEntry *entries, size_t n)
{
  g_qsort_with_data (entries, (int) n, sizeof *entries, compare_entries, NULL);
  size_t kept = 0;
  for (size_t i = 0; i < n; i++)
    if (kept == 0 || !object_id_equal (&entries[kept - 1].id, &entries[i].id))
      entries[kept++] = entries[i];
  return kept;
}

bool
index_write_array (ObjStore *store, const RepoId *repo, const IndexPack *packs, uint32_t n_packs,
                   IndexEntry *entries, size_t n, char **name, uint64_t *size, TmkError **errp)
{
  ArraySource source = { .source = { array_rewind, array_next },
                         .entries = entries,
                         .n = sort_entries (entries, n) };
  return index_write (store, repo, packs, n_packs, &source.source, source.n, name, size, errp);
}
