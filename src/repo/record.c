/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/record.c: see repo/record.h. No state; any thread. */
#include "repo/record.h"

#include "repo/hash.h"

#include "util/bytes.h"

#include <errno.h>
#include <sys/random.h>

#define DOMAIN "repo"

bool
record_unpack (ZSTD_DCtx *zstd, const void *record, size_t size, RecordHeader *header, void *plain,
               size_t room, TmkError **errp)
{
  RecordHeader h;
  if (!record_parse (record, size, &h, errp))
    return false;
  if (h.plain > room) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "it has %u bytes, more than the %zu expected",
               h.plain, room);
    return false;
  }
  const unsigned char *payload = (const unsigned char *) record + RECORD_HEADER_SIZE;
  if (h.codec == CODEC_PLAIN) {
    memcpy (plain, payload, h.plain);
  } else {
    size_t n = ZSTD_decompressDCtx (zstd, plain, h.plain, payload, h.stored);
    if (ZSTD_isError (n) || n != h.plain) {
      error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "it cannot be decompressed: %s",
                 ZSTD_isError (n) ? ZSTD_getErrorName (n) : "too short");
      return false;
    }
  }
  *header = h;
  return true;
}

/* Compresses into `out`, of as many bytes; 0 where that saves too little. */
static size_t
compress (const void *plain, size_t size, int level, void *out)
{
  size_t n = ZSTD_compress (out, size, plain, size, level);
  return ZSTD_isError (n) || n > size - size / 16 ? 0 : n;
}

bool
record_publish (ObjStore *store, const char *name, ObjectKind kind, ObjectCodec codec, int level,
                const void *plain, size_t size, TmkError **errp)
{
  if (size > OBJECT_MAX_PLAIN) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, EFBIG,
               "'%s' would have %zu bytes, more than the %u an object can have", name, size,
               OBJECT_MAX_PLAIN);
    return false;
  }
  g_autofree unsigned char *record = g_malloc (RECORD_HEADER_SIZE + size);
  RecordHeader header
      = { .kind = kind, .codec = CODEC_PLAIN, .stored = (uint32_t) size, .plain = (uint32_t) size };
  Hash hash;
  if (!hash_init (&hash, errp))
    return false;
  hash_object (&hash, kind, plain, size, &header.id);
  hash_clear (&hash);
  size_t n = codec == CODEC_ZSTD ? compress (plain, size, level, record + RECORD_HEADER_SIZE) : 0;
  if (n > 0) {
    header.codec = CODEC_ZSTD;
    header.stored = (uint32_t) n;
  } else if (size > 0) {
    memcpy (record + RECORD_HEADER_SIZE, plain, size);
  }
  record_seal (record, &header);
  return obj_store_put_if_absent (store, name, record, RECORD_HEADER_SIZE + header.stored, errp);
}

/* `plain` is as long as the header says, so a wrong length was found before anything is allocated
 * for it. */
static unsigned char *
unpack_new (const void *record, size_t size, ObjectKind kind, size_t *length, TmkError **errp)
{
  RecordHeader header;
  if (!record_parse_header (record, size, &header, errp))
    return NULL;
  g_autofree unsigned char *plain = g_malloc ((size_t) header.plain + 1);
  g_autoptr (ZSTD_DCtx) zstd = ZSTD_createDCtx ();
  if (!record_unpack (zstd, record, size, &header, plain, header.plain, errp))
    return NULL;
  if (header.kind != kind) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "it is a %s, not a %s",
               object_kind_name (header.kind), object_kind_name (kind));
    return NULL;
  }
  Hash hash;
  ObjectId id;
  if (!hash_init (&hash, errp))
    return NULL;
  hash_object (&hash, kind, plain, header.plain, &id);
  hash_clear (&hash);
  if (!object_id_equal (&id, &header.id)) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "its contents are not what its id says");
    return NULL;
  }
  plain[header.plain] = 0;
  *length = header.plain;
  return g_steal_pointer (&plain);
}

unsigned char *
record_load (ObjStore *store, const char *name, ObjectKind kind, size_t *size, TmkError **errp)
{
  size_t stored;
  g_autofree unsigned char *record = obj_store_get (store, name, RECORD_MAX_SIZE, &stored, errp);
  if (record == NULL)
    return NULL;
  unsigned char *plain = unpack_new (record, stored, kind, size, errp);
  if (plain == NULL)
    error_prefix (errp, "'%s' in '%s'", name, obj_store_location (store));
  return plain;
}

char *
record_new_name (const char *folder, TmkError **errp)
{
  unsigned char random[16];
  char hex[2 * sizeof random + 1];
  if (getentropy (random, sizeof random) != 0) {
    error_set_errno (errp, DOMAIN, errno, "no random numbers");
    return NULL;
  }
  bytes_to_hex (random, sizeof random, hex);
  return g_strconcat (folder, "/", hex, NULL);
}
