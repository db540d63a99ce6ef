/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format/index.h: index files: where the objects of some packs lie (source:
 * docs/format/repository.rst). Pure; made to be used as they lie, through mmap.
 *
 * Header:                                      Pack:
 *    0  u64  XXH3-64 of bytes 8 to 64             0  24 B name
 *    8  8 B  magic "TMKINDX\n"                   24  u64  its length
 *   16  u32  version, 1                        Entry (ascending by id):
 *   20  u32  packs                                0  32 B id
 *   24  u64  entries                             32  u32  number of the pack
 *   32  u64  blocks of the Bloom filter          36  u32  length of the record with its header
 *   40  u64  XXH3-64 of all after the header     40  u56  where the record begins in the pack
 *   48  16 B id of the repository                47  u8   kind
 * then the packs, the entries, and, at the next multiple of 64, the filter's blocks of 64 bytes.
 *
 * Filter: the block of an id is (u64 at 8 of the id) × blocks >> 64; its 8 bits are the 9-bit
 * numbers (u64 at 16) >> 0, 9, … 54 and (u64 at 24) & 511.
 */
#pragma once

#include "format/pack.h"

#define INDEX_HEADER_SIZE 64u
#define INDEX_PACK_SIZE 32u
#define INDEX_ENTRY_SIZE 48u
#define INDEX_BLOCK_SIZE 64u
#define INDEX_BLOCK_IDS 40u /* ids a block of the filter: 12.8 bits each */
#define INDEX_MAX_PACKS (1u << 28)
#define INDEX_MAX_ENTRIES (1ull << 36)

typedef struct {
  ObjectId id;
  uint32_t pack;
  uint32_t length;
  uint64_t offset;
  ObjectKind kind;
} IndexEntry;

/* An index file in memory; borrowed. */
typedef struct {
  const unsigned char *packs, *entries, *filter;
  uint32_t n_packs;
  uint64_t n_entries, n_blocks;
  uint64_t checksum; /* of all after the header, as the header has it */
  RepoId repo;
} IndexView;

/* Looks at `size` bytes that stay where they are as long as the view. Checks the header and the
 * lengths, not the contents: see index_view_check(). */
bool index_view_init (IndexView *view, const void *data, uint64_t size, TmkError **errp);

/* Reads all of it: the checksum, the order, each entry. */
bool index_view_check (const IndexView *view, TmkError **errp);

/* Are the bytes still those of an index file? Those that a store cannot give any more become zero
 * (obj_reader_map()): then nothing is found. What was found before that is sound. */
bool index_view_is_there (const IndexView *view);

PackName index_view_pack (const IndexView *view, uint32_t pack, uint64_t *size);

/* The `i`-th entry. False where it makes no sense. */
bool index_view_entry (const IndexView *view, uint64_t i, IndexEntry *entry);

/* False: not there, or its entry makes no sense. */
bool index_view_find (const IndexView *view, const ObjectId *id, IndexEntry *entry);
/* The same, with the entry's number. */
bool index_view_find_number (const IndexView *view, const ObjectId *id, IndexEntry *entry,
                             uint64_t *number);

/* Writing: everything that comes before the entries, then the entries, then the filter. */
uint64_t index_blocks_for (uint64_t entries);
uint64_t index_file_size (uint32_t packs, uint64_t entries); /* with the filter */
uint64_t index_filter_offset (uint32_t packs, uint64_t entries);
/* `view`: n_packs, n_entries, n_blocks, checksum, repo. */
void index_header_format (const IndexView *view, unsigned char out[INDEX_HEADER_SIZE]);
void index_pack_format (const PackName *name, uint64_t size, unsigned char out[INDEX_PACK_SIZE]);
void index_entry_format (const IndexEntry *entry, unsigned char out[INDEX_ENTRY_SIZE]);
void index_filter_add (unsigned char *filter, uint64_t blocks, const ObjectId *id);
bool index_filter_has (const unsigned char *filter, uint64_t blocks, const ObjectId *id);
