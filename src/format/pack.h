/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format/pack.h: packs: a header, records, a table of them, a trailer (source:
 * docs/format/repository.rst). Pure.
 *
 * Header:                              Entry of the table (in the order of the records):
 *    0  8 B  magic "TMKPACK\n"            0  32 B id
 *    8  u32  version, 1                  32  u64  where the record begins in the pack
 *   12  u32  0                           40  u32  length of the record with its header
 *   16  16 B id of the repository        44  u8   kind
 *                                        45  u8   codec
 * Trailer, the last bytes:               46  u16  0
 *    0  u64  XXH3-64 of bytes 8 to 64
 *    8  8 B  magic "TMKPEND\n"
 *   16  u64  where the table begins
 *   24  u32  entries
 *   28  u32  version, 1
 *   32  u64  XXH3-64 of the table
 *   40  u64  length of the pack
 *   48  16 B id of the repository
 *
 * A pack is called after its contents: the first 16 bytes of the SHA-256 of its table, and 8 random
 * bytes, so that a name never comes twice.
 */
#pragma once

#include "format/object.h"

#define PACK_HEADER_SIZE 32u
#define PACK_ENTRY_SIZE 48u
#define PACK_TRAILER_SIZE 64u
#define PACK_NAME_SIZE 24u
#define PACK_NAME_SUM 16u /* of them, those that its contents make */
#define PACK_MAX_ENTRIES (1u << 20)
#define PACK_MAX_SIZE (1ull << 32) /* 64 MiB are usual */
#define REPO_ID_SIZE 16u

typedef struct {
  unsigned char bytes[PACK_NAME_SIZE];
} PackName;

typedef struct {
  unsigned char bytes[REPO_ID_SIZE];
} RepoId;

typedef struct {
  ObjectId id;
  uint64_t offset;
  uint32_t length;
  ObjectKind kind;
  ObjectCodec codec;
} PackEntry;

typedef struct {
  uint64_t table; /* where it begins */
  uint32_t entries;
  uint64_t table_checksum;
  uint64_t size; /* of the pack */
  RepoId repo;
} PackTrailer;

void pack_name_to_hex (const PackName *name, char hex[2 * PACK_NAME_SIZE + 1]);
bool pack_name_from_hex (const char *hex, PackName *name);

void pack_header_format (const RepoId *repo, unsigned char out[PACK_HEADER_SIZE]);
bool pack_header_parse (const unsigned char in[PACK_HEADER_SIZE], RepoId *repo, TmkError **errp);

void pack_entry_format (const PackEntry *entry, unsigned char out[PACK_ENTRY_SIZE]);
/* Checks the entry by itself and that the record lies between the header and `table`. */
bool pack_entry_parse (const unsigned char in[PACK_ENTRY_SIZE], uint64_t table, PackEntry *entry,
                       TmkError **errp);

uint64_t pack_table_checksum (const void *table, size_t size);

void pack_trailer_format (const PackTrailer *trailer, unsigned char out[PACK_TRAILER_SIZE]);
/* `size`: of the pack as the store has it. */
bool pack_trailer_parse (const unsigned char in[PACK_TRAILER_SIZE], uint64_t size,
                         PackTrailer *trailer, TmkError **errp);
