/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format/pack.c: see format/pack.h. Pure; any thread. */
#include "format/pack.h"

#include "util/bytes.h"

#include <xxhash.h>

#define DOMAIN "format"
#define VERSION 1u
#define MAGIC_SIZE 8
#define HEADER_MAGIC "TMKPACK\n"
#define TRAILER_MAGIC "TMKPEND\n"

void
pack_name_to_hex (const PackName *name, char hex[2 * PACK_NAME_SIZE + 1])
{
  bytes_to_hex (name->bytes, PACK_NAME_SIZE, hex);
}

bool
pack_name_from_hex (const char *hex, PackName *name)
{
  return bytes_from_hex (hex, name->bytes, PACK_NAME_SIZE);
}

static bool G_GNUC_PRINTF (2, 3) damaged (TmkError **errp, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *why = g_strdup_vprintf (format, ap);
  va_end (ap);
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "%s", why);
  return false;
}

/* ---- header ------------------------------------------------------------------------------- */

void
pack_header_format (const RepoId *repo, unsigned char out[PACK_HEADER_SIZE])
{
  memcpy (out, HEADER_MAGIC, MAGIC_SIZE);
  put_le32 (out + 8, VERSION);
  put_le32 (out + 12, 0);
  memcpy (out + 16, repo, REPO_ID_SIZE);
}

bool
pack_header_parse (const unsigned char in[PACK_HEADER_SIZE], RepoId *repo, TmkError **errp)
{
  if (memcmp (in, HEADER_MAGIC, MAGIC_SIZE) != 0)
    return damaged (errp, "the pack does not begin as one");
  if (get_le32 (in + 8) != VERSION)
    return damaged (errp, "the pack's header has an unknown version (%u)", get_le32 (in + 8));
  if (get_le32 (in + 12) != 0)
    return damaged (errp, "the pack's header has reserved bytes that are not zero");
  memcpy (repo, in + 16, REPO_ID_SIZE);
  return true;
}

/* ---- table -------------------------------------------------------------------------------- */

void
pack_entry_format (const PackEntry *entry, unsigned char out[PACK_ENTRY_SIZE])
{
  memcpy (out, &entry->id, OBJECT_ID_SIZE);
  put_le64 (out + 32, entry->offset);
  put_le32 (out + 40, entry->length);
  out[44] = entry->kind;
  out[45] = entry->codec;
  put_le16 (out + 46, 0);
}

bool
pack_entry_parse (const unsigned char in[PACK_ENTRY_SIZE], uint64_t table, PackEntry *entry,
                  TmkError **errp)
{
  PackEntry e = {
    .offset = get_le64 (in + 32),
    .length = get_le32 (in + 40),
    .kind = in[44],
    .codec = in[45],
  };
  memcpy (&e.id, in, OBJECT_ID_SIZE);
  if (object_id_is_zero (&e.id))
    return damaged (errp, "the pack's table has an entry with a zero id");
  if (!object_kind_is_packed (e.kind))
    return damaged (errp, "the pack's table has an entry of unknown kind (%u)", e.kind);
  if (e.codec != CODEC_PLAIN && e.codec != CODEC_ZSTD)
    return damaged (errp, "the pack's table has an entry of unknown codec (%u)", e.codec);
  if (get_le16 (in + 46) != 0)
    return damaged (errp, "the pack's table has an entry with reserved bytes that are not zero");
  if (e.length < RECORD_HEADER_SIZE || e.length > RECORD_MAX_SIZE)
    return damaged (errp, "the pack's table has an entry of a wrong length (%u)", e.length);
  if (e.offset < PACK_HEADER_SIZE || e.offset > table || e.length > table - e.offset)
    return damaged (errp,
                    "the pack's table has an entry at %" G_GUINT64_FORMAT
                    " that is not among the records",
                    e.offset);
  *entry = e;
  return true;
}

uint64_t
pack_table_checksum (const void *table, size_t size)
{
  return XXH3_64bits (table, size);
}

/* ---- trailer ------------------------------------------------------------------------------ */

static uint64_t
trailer_checksum (const unsigned char *trailer)
{
  return XXH3_64bits (trailer + 8, PACK_TRAILER_SIZE - 8);
}

void
pack_trailer_format (const PackTrailer *trailer, unsigned char out[PACK_TRAILER_SIZE])
{
  memcpy (out + 8, TRAILER_MAGIC, MAGIC_SIZE);
  put_le64 (out + 16, trailer->table);
  put_le32 (out + 24, trailer->entries);
  put_le32 (out + 28, VERSION);
  put_le64 (out + 32, trailer->table_checksum);
  put_le64 (out + 40, trailer->size);
  memcpy (out + 48, &trailer->repo, REPO_ID_SIZE);
  put_le64 (out, trailer_checksum (out));
}

static bool
check_trailer (const PackTrailer *trailer, uint64_t size, TmkError **errp)
{
  if (trailer->size != size)
    return damaged (errp,
                    "the pack has %" G_GUINT64_FORMAT " bytes, its trailer says %" G_GUINT64_FORMAT,
                    size, trailer->size);
  if (size > PACK_MAX_SIZE)
    return damaged (errp, "the pack is too long (%" G_GUINT64_FORMAT ")", size);
  if (trailer->entries == 0 || trailer->entries > PACK_MAX_ENTRIES)
    return damaged (errp, "the pack has a wrong number of entries (%u)", trailer->entries);
  uint64_t behind = (uint64_t) trailer->entries * PACK_ENTRY_SIZE + PACK_TRAILER_SIZE;
  if (trailer->table < PACK_HEADER_SIZE || behind > size || trailer->table != size - behind)
    return damaged (errp, "the pack's table is not where it should be (%" G_GUINT64_FORMAT ")",
                    trailer->table);
  return true;
}

bool
pack_trailer_parse (const unsigned char in[PACK_TRAILER_SIZE], uint64_t size, PackTrailer *trailer,
                    TmkError **errp)
{
  if (memcmp (in + 8, TRAILER_MAGIC, MAGIC_SIZE) != 0)
    return damaged (errp, "the pack does not end as one");
  if (get_le64 (in) != trailer_checksum (in))
    return damaged (errp, "the checksum of the pack's trailer does not match");
  if (get_le32 (in + 28) != VERSION)
    return damaged (errp, "the pack's trailer has an unknown version (%u)", get_le32 (in + 28));
  PackTrailer t = {
    .table = get_le64 (in + 16),
    .entries = get_le32 (in + 24),
    .table_checksum = get_le64 (in + 32),
    .size = get_le64 (in + 40),
  };
  memcpy (&t.repo, in + 48, REPO_ID_SIZE);
  if (!check_trailer (&t, size, errp))
    return false;
  *trailer = t;
  return true;
}
