/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-format.c: the repository's binary structures, made of anything (libFuzzer).
 *
 * The first byte of the input says which parser gets the rest. Since checksums would keep the
 * fuzzer out, they are made right where the byte's highest bit is set. Beyond not crashing: a
 * refusal says why and is damage; what is taken is within its limits, and writing it gives the same
 * bytes again.
 */
#include "format/index.h"
#include "format/node.h"
#include "format/pack.h"
#include "util/bytes.h"

#include <xxhash.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
must_explain (bool ok, TmkError *err)
{
  g_assert (ok == (err == NULL));
  g_assert (ok || (tmk_error_message (err)[0] != '\0' && tmk_error_code (err) == TMK_ERR_DAMAGED));
  tmk_error_free (err);
}

static void
read_record (unsigned char *data, size_t size, bool mend)
{
  RecordHeader header;
  TmkError *err = NULL;
  if (mend && size >= RECORD_HEADER_SIZE)
    put_le64 (data, XXH3_64bits (data + 8, size - 8));
  bool ok = record_parse (data, size, &header, &err);
  must_explain (ok, err);
  if (!ok)
    return;
  g_assert (size == RECORD_HEADER_SIZE + (size_t) header.stored);
  g_assert (header.stored <= header.plain && header.plain <= OBJECT_MAX_PLAIN);
  g_autofree unsigned char *again = g_memdup2 (data, size);
  memset (again, 0xff, RECORD_HEADER_SIZE);
  record_seal (again, &header);
  g_assert (memcmp (again, data, size) == 0);
}

static void
read_node (const unsigned char *data, size_t size)
{
  g_autofree Node *node = g_new (Node, 1);
  unsigned char again[NODE_MAX_SIZE];
  TmkError *err = NULL;
  bool ok = node_parse (data, size, node, &err);
  must_explain (ok, err);
  g_assert (!ok || (node_format (node, again) == size && memcmp (again, data, size) == 0));
}

static void
read_delta (const unsigned char *data, size_t size)
{
  g_autofree NodeDelta *delta = g_new (NodeDelta, 1);
  unsigned char again[NODE_MAX_SIZE];
  TmkError *err = NULL;
  bool ok = node_delta_parse (data, size, delta, &err);
  must_explain (ok, err);
  g_assert (!ok || (node_delta_format (delta, again) == size && memcmp (again, data, size) == 0));
}

/* As a reader does: header, trailer, table, records. */
static void
read_pack (unsigned char *data, size_t size, bool mend)
{
  RepoId repo;
  PackTrailer trailer;
  TmkError *err = NULL;
  if (size < PACK_HEADER_SIZE + PACK_TRAILER_SIZE)
    return;
  must_explain (pack_header_parse (data, &repo, &err), err);
  unsigned char *end = data + size - PACK_TRAILER_SIZE;
  if (mend) {
    put_le64 (end + 40, size);
    put_le64 (end, XXH3_64bits (end + 8, PACK_TRAILER_SIZE - 8));
  }
  err = NULL;
  bool ok = pack_trailer_parse (end, size, &trailer, &err);
  must_explain (ok, err);
  for (uint32_t i = 0; ok && i < trailer.entries; i++) {
    PackEntry entry;
    unsigned char again[PACK_ENTRY_SIZE], *at = data + trailer.table + (size_t) i * PACK_ENTRY_SIZE;
    err = NULL;
    if (!pack_entry_parse (at, trailer.table, &entry, &err)) {
      must_explain (false, err);
      continue;
    }
    pack_entry_format (&entry, again);
    g_assert (memcmp (again, at, sizeof again) == 0);
    read_record (data + entry.offset, entry.length, mend);
  }
}

static void
read_index (unsigned char *data, size_t size, bool mend)
{
  IndexView view;
  IndexEntry entry, found;
  TmkError *err = NULL;
  if (mend && size >= INDEX_HEADER_SIZE) {
    put_le64 (data + 40, XXH3_64bits (data + INDEX_HEADER_SIZE, size - INDEX_HEADER_SIZE));
    put_le64 (data, XXH3_64bits (data + 8, INDEX_HEADER_SIZE - 8));
  }
  bool ok = index_view_init (&view, data, size, &err);
  must_explain (ok, err);
  if (!ok)
    return;
  bool sound = index_view_check (&view, &err);
  must_explain (sound, err);
  for (uint32_t i = 0; i < view.n_packs; i++)
    (void) index_view_pack (&view, i, NULL); /* reads it */
  for (uint64_t i = 0; i < view.n_entries; i++) {
    ObjectId id;
    memcpy (&id, view.entries + i * INDEX_ENTRY_SIZE, sizeof id);
    bool there = index_view_entry (&view, i, &entry);
    bool is_found = index_view_find (&view, &id, &found);
    g_assert (!is_found || (object_id_equal (&found.id, &id) && found.pack < view.n_packs));
    g_assert (!sound || (there && is_found));
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  if (size == 0)
    return 0;
  bool mend = (data[0] & 0x80) != 0;
  g_autofree unsigned char *copy = g_memdup2 (data + 1, size - 1); /* so that overruns are seen */
  if (copy == NULL)
    copy = g_malloc (1);
  switch (data[0] & 7) {
  case 0:
    read_record (copy, size - 1, mend);
    break;
  case 1:
    read_node (copy, size - 1);
    break;
  case 2:
    read_delta (copy, size - 1);
    break;
  case 3:
    read_pack (copy, size - 1, mend);
    break;
  default:
    read_index (copy, size - 1, mend);
  }
  return 0;
}
