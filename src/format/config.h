/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format/config.h: the repository's configuration, a record of kind OBJECT_CONFIG with JSON in it
 * (source: docs/format/repository.rst). Pure.
 *
 *   {"format": 1, "requires": [], "id": 32 hex digits, "created": RFC 3339, "hash": "sha-256",
 *    "chunk_size": bytes, "pack_size": bytes, "compression": {"codec": "zstd", "level": 1},
 *    "encryption": null}
 *
 * A reader refuses another format, and any word in "requires" that it does not know.
 */
#pragma once

#include "format/pack.h"

#define FORMAT_VERSION 1
#define CHUNK_SIZE_MIN (64u << 10)
#define CHUNK_SIZE_MAX (4u << 20)
#define CHUNK_SIZE_DEFAULT (64u << 10)
#define PACK_SIZE_DEFAULT (64u << 20)
#define PACK_SIZE_MAX (1u << 30)
#define ZSTD_LEVEL_DEFAULT 1
#define ZSTD_LEVEL_MIN (-50) /* not 0 */
#define ZSTD_LEVEL_MAX 22

/* A power of two in the bounds? */
static inline bool
chunk_size_is_valid (uint64_t size)
{
  return size >= CHUNK_SIZE_MIN && size <= CHUNK_SIZE_MAX && (size & (size - 1)) == 0;
}

typedef struct {
  RepoId id;
  int64_t created_us;
  uint32_t chunk_size; /* of new disks; a power of two */
  uint32_t pack_size;  /* about how long packs get */
  ObjectCodec codec;
  int level;
} RepoConfig;

/* JSON, ending in a newline. Free with g_free(). */
char *repo_config_format (const RepoConfig *config);
/* TMK_ERR_UNSUPPORTED for a newer format, with a hint; TMK_ERR_DAMAGED for nonsense. */
bool repo_config_parse (const char *json, size_t len, RepoConfig *config, TmkError **errp);
