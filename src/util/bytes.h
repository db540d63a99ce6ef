/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util/bytes.h: integers as they lie in files: little-endian, at any alignment.
 */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t
get_le16 (const void *at)
{
  uint16_t n;
  memcpy (&n, at, sizeof n);
  return le16toh (n);
}

static inline uint32_t
get_le32 (const void *at)
{
  uint32_t n;
  memcpy (&n, at, sizeof n);
  return le32toh (n);
}

static inline uint64_t
get_le64 (const void *at)
{
  uint64_t n;
  memcpy (&n, at, sizeof n);
  return le64toh (n);
}

static inline void
put_le16 (void *at, uint16_t n)
{
  n = htole16 (n);
  memcpy (at, &n, sizeof n);
}

static inline void
put_le32 (void *at, uint32_t n)
{
  n = htole32 (n);
  memcpy (at, &n, sizeof n);
}

static inline void
put_le64 (void *at, uint64_t n)
{
  n = htole64 (n);
  memcpy (at, &n, sizeof n);
}
