/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util/bytes.h: integers as they lie in files: little-endian, at any alignment. And bytes in hex.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
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

/* 2 × n lower-case digits and a NUL. */
static inline void
bytes_to_hex (const unsigned char *bytes, size_t n, char *hex)
{
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < n; i++) {
    hex[2 * i] = digits[bytes[i] >> 4];
    hex[2 * i + 1] = digits[bytes[i] & 15];
  }
  hex[2 * n] = '\0';
}

/* -1: not a lower-case digit. There is one way to write each name, so that none has two. */
static inline int
bytes_hex_digit (char c)
{
  if (c >= '0' && c <= '9')
    return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False, with nothing written, where `hex` is not exactly 2 × n lower-case digits. */
static inline bool
bytes_from_hex (const char *hex, unsigned char *bytes, size_t n)
{
  for (size_t i = 0; i < 2 * n; i++)
    if (bytes_hex_digit (hex[i]) < 0)
      return false;
  if (hex[2 * n] != '\0')
    return false;
  for (size_t i = 0; i < n; i++)
    bytes[i]
        = (unsigned char) (bytes_hex_digit (hex[2 * i]) << 4 | bytes_hex_digit (hex[2 * i + 1]));
  return true;
}
