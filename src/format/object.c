/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format/object.c: see format/object.h. Pure; any thread. */
#include "format/object.h"

#include "util/bytes.h"

#include <xxhash.h>

#define DOMAIN "format"
#define MAGIC 0x524b4d54u /* "TMKR" */
/* Where the parts of a record's header are. */
#define AT_CHECKSUM 0
#define AT_MAGIC 8
#define AT_KIND 12
#define AT_CODEC 13
#define AT_SEAL 14
#define AT_RESERVED 15
#define AT_STORED 16
#define AT_PLAIN 20
#define AT_ID 24
#define CHECKED_FROM 8 /* the checksum is of everything from here on */

const char *
object_kind_name (ObjectKind kind)
{
  switch (kind) {
  case OBJECT_CHUNK:
    return "chunk";
  case OBJECT_NODE:
    return "node";
  case OBJECT_DELTA:
    return "delta";
  case OBJECT_BLOB:
    return "blob";
  case OBJECT_CONFIG:
    return "config";
  case OBJECT_POINT:
    return "point";
  case OBJECT_LEASE:
    return "lease";
  case OBJECT_DAMAGE:
    return "damage";
  }
  return "unknown";
}

void
object_id_to_hex (const ObjectId *id, char hex[2 * OBJECT_ID_SIZE + 1])
{
  bytes_to_hex (id->bytes, OBJECT_ID_SIZE, hex);
}

bool
object_id_from_hex (const char *hex, ObjectId *id)
{
  return bytes_from_hex (hex, id->bytes, OBJECT_ID_SIZE);
}

static uint64_t
checksum_of (const unsigned char *record, uint32_t stored)
{
  return XXH3_64bits (record + CHECKED_FROM, RECORD_HEADER_SIZE - CHECKED_FROM + (size_t) stored);
}

void
record_seal (void *record, const RecordHeader *header)
{
  unsigned char *out = record;
  g_assert (header->stored <= header->plain && header->plain <= OBJECT_MAX_PLAIN);
  put_le32 (out + AT_MAGIC, MAGIC);
  out[AT_KIND] = header->kind;
  out[AT_CODEC] = header->codec;
  out[AT_SEAL] = 0;
  out[AT_RESERVED] = 0;
  put_le32 (out + AT_STORED, header->stored);
  put_le32 (out + AT_PLAIN, header->plain);
  memcpy (out + AT_ID, &header->id, OBJECT_ID_SIZE);
  put_le64 (out + AT_CHECKSUM, checksum_of (out, header->stored));
}

static bool
refuse (TmkError **errp, const char *why, unsigned what)
{
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the record's %s (%u)", why, what);
  return false;
}

/* What the fields say by themselves and about each other. */
static bool
check_header (const RecordHeader *header, TmkError **errp)
{
  if (g_str_equal (object_kind_name (header->kind), "unknown"))
    return refuse (errp, "kind is unknown", header->kind);
  if (header->codec != CODEC_PLAIN && header->codec != CODEC_ZSTD)
    return refuse (errp, "codec is unknown", header->codec);
  if (header->plain > OBJECT_MAX_PLAIN)
    return refuse (errp, "plain length is too large", header->plain);
  if (header->stored > header->plain)
    return refuse (errp, "payload is longer than what it holds", header->stored);
  if (header->codec == CODEC_PLAIN && header->stored != header->plain)
    return refuse (errp, "payload is plain, yet has another length", header->stored);
  if (header->codec != CODEC_PLAIN && header->stored == 0)
    return refuse (errp, "payload is empty, yet has a codec", header->codec);
  return true;
}

bool
record_parse_header (const void *record, size_t size, RecordHeader *header, TmkError **errp)
{
  const unsigned char *in = record;
  if (size < RECORD_HEADER_SIZE) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the record is cut off after %zu bytes", size);
    return false;
  }
  if (get_le32 (in + AT_MAGIC) != MAGIC) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "there is no record: its magic is missing");
    return false;
  }
  RecordHeader h = {
    .kind = in[AT_KIND],
    .codec = in[AT_CODEC],
    .stored = get_le32 (in + AT_STORED),
    .plain = get_le32 (in + AT_PLAIN),
  };
  memcpy (&h.id, in + AT_ID, OBJECT_ID_SIZE);
  if (in[AT_SEAL] != 0)
    return refuse (errp, "seal is unknown", in[AT_SEAL]);
  if (in[AT_RESERVED] != 0)
    return refuse (errp, "reserved byte is not zero", in[AT_RESERVED]);
  if (!check_header (&h, errp))
    return false;
  *header = h;
  return true;
}

bool
record_parse (const void *record, size_t size, RecordHeader *header, TmkError **errp)
{
  RecordHeader h;
  if (!record_parse_header (record, size, &h, errp))
    return false;
  if (size != RECORD_HEADER_SIZE + (size_t) h.stored) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0,
               "the record has %zu bytes, its header says %" G_GSIZE_FORMAT, size,
               RECORD_HEADER_SIZE + (size_t) h.stored);
    return false;
  }
  const unsigned char *in = record;
  if (get_le64 (in + AT_CHECKSUM) != checksum_of (in, h.stored)) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the record's checksum does not match");
    return false;
  }
  *header = h;
  return true;
}
