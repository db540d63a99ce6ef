/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/scan.c: see repo/scan.h. No state; any thread.
 *
 * A record is sound when its checksum matches and its contents are what its id says. The checksum
 * alone does not do: a record may lie inside a chunk, of a guest that keeps a repository or means
 * ill, and is met where the chunk around it is damaged. One whose id lies would be given to whoever
 * stores, under that id, what it is not. One whose id is true harms nobody.
 */
#include "repo/scan.h"

#include "repo/damage.h"
#include "repo/hash.h"
#include "repo/record.h"

#define WINDOW (4u << 20) /* read at once when looking for records */
#define PAGE 4096u        /* what is read alone where more cannot be read */

typedef struct {
  ObjReader *pack;
  unsigned char *buffer; /* for RECORD_MAX_SIZE */
  unsigned char *plain;  /* for OBJECT_MAX_PLAIN */
  ZSTD_DCtx *zstd;
  Hash hash;
  TmkError *unread; /* why some of it could not be read, or NULL */
} Scan;

static void
scan_clear (Scan *scan)
{
  g_free (scan->buffer);
  g_free (scan->plain);
  ZSTD_freeDCtx (scan->zstd);
  hash_clear (&scan->hash);
  tmk_error_free (scan->unread);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Scan, scan_clear)

/* Reads into `out`. True also where these bytes are damaged: then they are zeroes. */
static bool
read_or_clear (Scan *scan, uint64_t at, unsigned char *out, size_t length, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  if (obj_reader_read (scan->pack, at, out, length, &err))
    return true;
  if (tmk_error_code (err) == TMK_ERR_NOT_FOUND || !is_damage (err)) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  memset (out, 0, length);
  if (scan->unread == NULL)
    scan->unread = g_steal_pointer (&err);
  return true;
}

/* Reads into the buffer. Pages that cannot be read are zeroes, so that records which reach into
 * them are not sound, and those around them are found. */
static bool
read_around (Scan *scan, uint64_t at, size_t length, TmkError **errp)
{
  if (obj_reader_read (scan->pack, at, scan->buffer, length, NULL))
    return true;
  for (size_t done = 0, some; done < length; done += some) {
    some = MIN (length - done, PAGE - (at + done) % PAGE);
    if (!read_or_clear (scan, at + done, scan->buffer + done, some, errp))
      return false;
  }
  return true;
}

static bool
is_sound (Scan *scan, uint32_t length, RecordHeader *header)
{
  ObjectId id;
  if (!record_unpack (scan->zstd, scan->buffer, length, header, scan->plain, OBJECT_MAX_PLAIN,
                      NULL))
    return false;
  hash_object (&scan->hash, header->kind, scan->plain, header->plain, &id);
  return object_id_equal (&id, &header->id);
}

/* Is there a whole, sound record at `at`? */
static bool
try_record (Scan *scan, uint64_t at, PackEntry *entry, bool *sound, TmkError **errp)
{
  RecordHeader header;
  uint64_t left = obj_reader_size (scan->pack) - at;
  *sound = false;
  if (left < RECORD_HEADER_SIZE)
    return true;
  if (!read_around (scan, at, RECORD_HEADER_SIZE, errp))
    return false;
  if (!record_parse_header (scan->buffer, RECORD_HEADER_SIZE, &header, NULL)
      || !object_kind_is_packed (header.kind) || object_id_is_zero (&header.id))
    return true;
  uint32_t length = RECORD_HEADER_SIZE + header.stored;
  if (left < length)
    return true;
  if (!read_around (scan, at, length, errp))
    return false;
  *sound = is_sound (scan, length, &header);
  *entry = (PackEntry){
    .id = header.id, .offset = at, .length = length, .kind = header.kind, .codec = header.codec
  };
  return true;
}

/* Where the magic of a record may next be, from `at` on; the pack's end where nowhere. */
static bool
find_magic (Scan *scan, uint64_t at, uint64_t *found, TmkError **errp)
{
  static const char magic[] = "TMKR";
  static const unsigned into = 8; /* of the header */
  uint64_t size = obj_reader_size (scan->pack);
  while (size - at >= RECORD_HEADER_SIZE) {
    size_t length = (size_t) MIN (size - at, WINDOW);
    if (!read_around (scan, at, length, errp))
      return false;
    const unsigned char *hit = memmem (scan->buffer + into, length - into, magic, 4);
    if (hit != NULL) {
      *found = at + (uint64_t) (hit - scan->buffer) - into;
      return true;
    }
    at += length - into - 3; /* the magic may lie across the end */
  }
  *found = size;
  return true;
}

bool
scan_pack (ObjReader *pack, ScanVisit visit, void *data, TmkError **errp)
{
  g_auto (Scan) scan = { .pack = pack,
                         .buffer = g_malloc (RECORD_MAX_SIZE),
                         .plain = g_malloc (OBJECT_MAX_PLAIN),
                         .zstd = ZSTD_createDCtx () };
  uint64_t at = PACK_HEADER_SIZE, size = obj_reader_size (pack);
  bool any = false;
  if (!hash_init (&scan.hash, errp))
    return false;
  while (at < size) {
    PackEntry entry;
    bool sound;
    if (!try_record (&scan, at, &entry, &sound, errp))
      return false;
    if (sound) {
      visit (&entry, data);
      any = true;
      at += entry.length;
    } else if (!find_magic (&scan, at + 1, &at, errp)) {
      return false;
    }
  }
  if (any || scan.unread == NULL)
    return true;
  error_propagate (errp, g_steal_pointer (&scan.unread));
  return false;
}
