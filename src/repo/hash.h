/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/hash.h: computing ids. One a thread: OpenSSL's context is used over and over, so that
 * nothing is allocated for an object.
 */
#pragma once

#include "format/object.h"

#include <openssl/evp.h>

typedef struct {
  EVP_MD *md;
  EVP_MD_CTX *context;
} Hash;

bool hash_init (Hash *hash, TmkError **errp);
void hash_clear (Hash *hash); /* also one that is all zeroes */

/* SHA-256 of `size` bytes. */
void hash_bytes (Hash *hash, const void *data, size_t size, unsigned char out[OBJECT_ID_SIZE]);

/* The id of an object; zero for a chunk of zeroes. */
void hash_object (Hash *hash, ObjectKind kind, const void *plain, size_t size, ObjectId *id);

/* Nothing but zeroes? */
static inline bool
is_all_zero (const void *data, size_t size)
{
  const unsigned char *p = data;
  return size == 0 || (p[0] == 0 && memcmp (p, p + 1, size - 1) == 0);
}
