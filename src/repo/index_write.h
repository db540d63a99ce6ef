/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/index_write.h: publishing index files: from entries in memory, or out of other index files.
 * Memory is that of the entries given and of the filter (1.6 bytes an entry).
 */
#pragma once

#include "repo/index_set.h"

typedef struct {
  PackName name;
  uint64_t size;
} IndexPack;

/* Entries in ascending order, over and over again. */
typedef struct IndexSource IndexSource;
struct IndexSource {
  void (*rewind) (IndexSource *source);
  bool (*next) (IndexSource *source, IndexEntry *entry); /* false: the end */
};

/* Publishes an index file of what `source` says, `most` entries at most. Stores its name (free with
 * g_free()) and its length. TMK_ERR_DAMAGED where the source does not say the same twice. */
bool index_write (ObjStore *store, const RepoId *repo, const IndexPack *packs, uint32_t n_packs,
                  IndexSource *source, uint64_t most, char **name, uint64_t *size, TmkError **errp);

/* The same of an array, which is sorted; of entries with the same id the first one counts. */
bool index_write_array (ObjStore *store, const RepoId *repo, const IndexPack *packs,
                        uint32_t n_packs, IndexEntry *entries, size_t n, char **name,
                        uint64_t *size, TmkError **errp);
