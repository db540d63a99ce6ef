/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format/object.h: objects of a repository: their ids, and the record in which each is stored
 * (source: docs/format/repository.rst). Pure.
 *
 * A record is a header and a payload. In a pack many follow each other; config, points, leases and
 * notes of damage are one record each, alone in an object of the store.
 *
 *    0  u64  XXH3-64 of everything from byte 8 to the end of the payload
 *    8  u32  magic "TMKR"
 *   12  u8   kind
 *   13  u8   codec of the payload
 *   14  u8   seal of the payload (0: none)
 *   15  u8   0
 *   16  u32  length of the payload as stored
 *   20  u32  length of the plain bytes
 *   24  32 B id
 *   56  the payload
 */
#pragma once

#include "util/error.h"
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define OBJECT_ID_SIZE 32

/* SHA-256. Of a chunk: of its plain bytes. Of any other kind: of those bytes' SHA-256 and a byte
 * with the kind (33 bytes, which no chunk can be: chunks are whole sectors). So a guest cannot
 * write a chunk that is taken for a node. All zeroes: a chunk of zeroes, or a tree of them. */
typedef struct {
  unsigned char bytes[OBJECT_ID_SIZE];
} ObjectId;

typedef enum {
  OBJECT_CHUNK = 1,
  OBJECT_NODE = 2,
  OBJECT_DELTA = 3,
  OBJECT_BLOB = 4,
  /* never in a pack: */
  OBJECT_CONFIG = 16,
  OBJECT_POINT = 17,
  OBJECT_LEASE = 18,
  OBJECT_DAMAGE = 19,
} ObjectKind;

typedef enum {
  CODEC_PLAIN = 0,
  CODEC_ZSTD = 1,
} ObjectCodec;

#define RECORD_HEADER_SIZE 56u
/* Of any object: 4 MiB chunks are the largest in packs, and manifests stay below it, too. */
#define OBJECT_MAX_PLAIN (16u << 20)
/* Payloads are never longer than the plain bytes: what would be is stored plain. */
#define RECORD_MAX_SIZE (RECORD_HEADER_SIZE + OBJECT_MAX_PLAIN)

typedef struct {
  ObjectKind kind;
  ObjectCodec codec;
  uint32_t stored; /* length of the payload */
  uint32_t plain;
  ObjectId id;
} RecordHeader;

static inline bool
object_id_is_zero (const ObjectId *id)
{
  static const ObjectId zero;
  return memcmp (id, &zero, sizeof zero) == 0;
}

static inline bool
object_id_equal (const ObjectId *a, const ObjectId *b)
{
  return memcmp (a, b, sizeof *a) == 0;
}

const char *object_kind_name (ObjectKind kind); /* "chunk", …; "unknown" */

/* One of the kinds that are stored in packs? */
static inline bool
object_kind_is_packed (ObjectKind kind)
{
  return kind >= OBJECT_CHUNK && kind <= OBJECT_BLOB;
}

/* 64 hex digits and a NUL. */
void object_id_to_hex (const ObjectId *id, char hex[2 * OBJECT_ID_SIZE + 1]);
bool object_id_from_hex (const char *hex, ObjectId *id);

/* Fills in the header of the payload that stands already at `record` + RECORD_HEADER_SIZE. */
void record_seal (void *record, const RecordHeader *header);

/* Reads the header at the beginning of `size` bytes. Checks everything that can be checked without
 * the payload: magic, kind, codec, lengths. TMK_ERR_DAMAGED, each fault with its own message. */
bool record_parse_header (const void *record, size_t size, RecordHeader *header, TmkError **errp);

/* As record_parse_header(), for a whole record of exactly `size` bytes; checks the checksum. */
bool record_parse (const void *record, size_t size, RecordHeader *header, TmkError **errp);
