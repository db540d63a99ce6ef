/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/format-case.h: what the tests of the repository's format share: goldens in
 * tests/unit/data/format, ids that are told apart, refusals.
 *
 * The goldens are format 1 for ever: later code must read them, and write them byte by byte.
 */
#pragma once

#include "format/object.h"
#include "util/bytes.h"

#include <string.h>

static inline char *
case_path (const char *name)
{
  return g_build_filename (g_getenv ("TMK_SOURCE_ROOT"), "tests/unit/data/format", name, NULL);
}

static inline unsigned char *
case_read (const char *name, size_t *size)
{
  g_autofree char *path = case_path (name);
  char *data;
  if (!g_file_get_contents (path, &data, size, NULL))
    g_error ("cannot read '%s'", path);
  return (unsigned char *) data;
}

/* `data` must be what the golden NAME holds; with TMK_REGENERATE set it becomes so. */
static inline void
case_expect (const char *name, const void *data, size_t size)
{
  g_autofree char *path = case_path (name);
  if (g_getenv ("TMK_REGENERATE") != NULL) {
    g_assert_true (g_file_set_contents (path, data, (gssize) size, NULL));
    return;
  }
  size_t was_size;
  g_autofree unsigned char *was = case_read (name, &was_size);
  g_assert_cmpmem (data, size, was, was_size);
}

/* An id whose leading bits are `n`, the others made from them. */
static inline ObjectId
case_id (uint64_t n)
{
  ObjectId id;
  uint64_t x = n;
  for (unsigned i = 0; i < OBJECT_ID_SIZE; i += 8) {
    put_le64 (id.bytes + i, i == 0 ? htobe64 (n) : x);
    x = (x ^ x >> 29) * UINT64_C (0x9e3779b97f4a7c15) + 1;
  }
  return id;
}

/* `errp`, not the error: of two arguments either may be evaluated first. */
static inline void
assert_ok (bool ok, TmkError **errp)
{
  if (!ok)
    g_error ("%s", *errp != NULL ? tmk_error_message (*errp) : "failed without an error");
  g_assert_null (*errp);
}

/* Refused as `code`, with `part` in the message. Takes the error. */
static inline void
assert_refused (bool ok, TmkError **errp, TmkErrorCode code, const char *part)
{
  g_autoptr (TmkError) err = g_steal_pointer (errp);
  g_assert_false (ok);
  g_assert_nonnull (err);
  if (strstr (tmk_error_message (err), part) == NULL)
    g_assert_cmpstr (tmk_error_message (err), ==, part); /* shows both */
  g_assert_cmpstr (tmk_error_code_name (tmk_error_code (err)), ==, tmk_error_code_name (code));
}

/* A whole record of `size` plain bytes, stored plain. Free with g_free(). */
static inline unsigned char *
case_record (ObjectKind kind, const ObjectId *id, const void *plain, uint32_t size)
{
  unsigned char *record = g_malloc (RECORD_HEADER_SIZE + size);
  memcpy (record + RECORD_HEADER_SIZE, plain, size);
  record_seal (record, &(RecordHeader){ .kind = kind, .stored = size, .plain = size, .id = *id });
  return record;
}
