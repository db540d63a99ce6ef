/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format/index.c: see format/index.h. Pure; any thread. */
#include "format/index.h"

#include "util/bytes.h"

#include <xxhash.h>

#define DOMAIN "format"
#define VERSION 1u
#define MAGIC "TMKINDX\n"
#define MAGIC_SIZE 8
#define AT_ID 0
#define AT_PACK 32
#define AT_LENGTH 36
#define AT_OFFSET 40 /* and the kind in its highest byte */
#define OFFSET_BITS 56
#define BLOCK_BITS 512u
/* Guesses before a search goes on by halving: with ids as they are (hashes) the third or fourth
 * hits, and ids made up by an enemy cost that much more than halving alone. */
#define GUESSES 8

/* ---- sizes -------------------------------------------------------------------------------- */

uint64_t
index_blocks_for (uint64_t entries)
{
  return MAX (1, (entries + INDEX_BLOCK_IDS - 1) / INDEX_BLOCK_IDS);
}

uint64_t
index_filter_offset (uint32_t packs, uint64_t entries)
{
  uint64_t end
      = INDEX_HEADER_SIZE + (uint64_t) packs * INDEX_PACK_SIZE + entries * INDEX_ENTRY_SIZE;
  return (end + INDEX_BLOCK_SIZE - 1) / INDEX_BLOCK_SIZE * INDEX_BLOCK_SIZE;
}

uint64_t
index_file_size (uint32_t packs, uint64_t entries)
{
  return index_filter_offset (packs, entries) + index_blocks_for (entries) * INDEX_BLOCK_SIZE;
}

/* ---- the filter --------------------------------------------------------------------------- */

/* Where the block of an id begins. */
static uint64_t
block_of (uint64_t blocks, const ObjectId *id)
{
  unsigned __int128 product = (unsigned __int128) get_le64 (id->bytes + 8) * blocks;
  return (uint64_t) (product >> 64) * INDEX_BLOCK_SIZE;
}

/* The `i`-th of its 8 bits. */
static unsigned
bit_of (const ObjectId *id, unsigned i)
{
  uint64_t number = i < 7 ? get_le64 (id->bytes + 16) >> 9 * i : get_le64 (id->bytes + 24);
  return number & (BLOCK_BITS - 1);
}

void
index_filter_add (unsigned char *filter, uint64_t blocks, const ObjectId *id)
{
  unsigned char *block = filter + block_of (blocks, id);
  for (unsigned i = 0; i < 8; i++) {
    unsigned bit = bit_of (id, i);
    block[bit / 8] |= (unsigned char) (1u << bit % 8);
  }
}

bool
index_filter_has (const unsigned char *filter, uint64_t blocks, const ObjectId *id)
{
  if (blocks == 0)
    return false;
  const unsigned char *block = filter + block_of (blocks, id);
  for (unsigned i = 0; i < 8; i++) {
    unsigned bit = bit_of (id, i);
    if ((block[bit / 8] & 1u << bit % 8) == 0)
      return false;
  }
  return true;
}

/* ---- writing ------------------------------------------------------------------------------ */

static uint64_t
header_checksum (const unsigned char *header)
{
  return XXH3_64bits (header + 8, INDEX_HEADER_SIZE - 8);
}

void
index_header_format (const IndexView *view, unsigned char out[INDEX_HEADER_SIZE])
{
  memcpy (out + 8, MAGIC, MAGIC_SIZE);
  put_le32 (out + 16, VERSION);
  put_le32 (out + 20, view->n_packs);
  put_le64 (out + 24, view->n_entries);
  put_le64 (out + 32, view->n_blocks);
  put_le64 (out + 40, view->checksum);
  memcpy (out + 48, &view->repo, REPO_ID_SIZE);
  put_le64 (out, header_checksum (out));
}

void
index_pack_format (const PackName *name, uint64_t size, unsigned char out[INDEX_PACK_SIZE])
{
  memcpy (out, name, PACK_NAME_SIZE);
  put_le64 (out + PACK_NAME_SIZE, size);
}

void
index_entry_format (const IndexEntry *entry, unsigned char out[INDEX_ENTRY_SIZE])
{
  g_assert (entry->offset >> OFFSET_BITS == 0);
  memcpy (out + AT_ID, &entry->id, OBJECT_ID_SIZE);
  put_le32 (out + AT_PACK, entry->pack);
  put_le32 (out + AT_LENGTH, entry->length);
  put_le64 (out + AT_OFFSET, entry->offset | (uint64_t) entry->kind << OFFSET_BITS);
}

/* ---- opening ------------------------------------------------------------------------------ */

static bool G_GNUC_PRINTF (2, 3) damaged (TmkError **errp, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *why = g_strdup_vprintf (format, ap);
  va_end (ap);
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "%s", why);
  return false;
}

bool
index_view_init (IndexView *view, const void *data, uint64_t size, TmkError **errp)
{
  const unsigned char *in = data;
  if (size < INDEX_HEADER_SIZE)
    return damaged (errp, "the index file is cut off after %" G_GUINT64_FORMAT " bytes", size);
  if (memcmp (in + 8, MAGIC, MAGIC_SIZE) != 0)
    return damaged (errp, "the index file does not begin as one");
  if (get_le64 (in) != header_checksum (in))
    return damaged (errp, "the checksum of the index file's header does not match");
  if (get_le32 (in + 16) != VERSION)
    return damaged (errp, "the index file has an unknown version (%u)", get_le32 (in + 16));
  IndexView v = {
    .n_packs = get_le32 (in + 20),
    .n_entries = get_le64 (in + 24),
    .n_blocks = get_le64 (in + 32),
    .checksum = get_le64 (in + 40),
  };
  memcpy (&v.repo, in + 48, REPO_ID_SIZE);
  if (v.n_packs > INDEX_MAX_PACKS)
    return damaged (errp, "the index file has too many packs (%u)", v.n_packs);
  if (v.n_entries > INDEX_MAX_ENTRIES)
    return damaged (errp, "the index file has too many entries (%" G_GUINT64_FORMAT ")",
                    v.n_entries);
  uint64_t filter = index_filter_offset (v.n_packs, v.n_entries);
  if (v.n_blocks == 0 || filter > size || v.n_blocks != (size - filter) / INDEX_BLOCK_SIZE
      || (size - filter) % INDEX_BLOCK_SIZE != 0)
    return damaged (errp,
                    "the index file of %u packs, %" G_GUINT64_FORMAT
                    " entries and %" G_GUINT64_FORMAT " filter blocks has %" G_GUINT64_FORMAT
                    " bytes",
                    v.n_packs, v.n_entries, v.n_blocks, size);
  v.packs = in + INDEX_HEADER_SIZE;
  v.entries = v.packs + (uint64_t) v.n_packs * INDEX_PACK_SIZE;
  v.filter = in + filter;
  *view = v;
  return true;
}

bool
index_view_is_there (const IndexView *view)
{
  return memcmp (view->packs - INDEX_HEADER_SIZE + 8, MAGIC, MAGIC_SIZE) == 0;
}

PackName
index_view_pack (const IndexView *view, uint32_t pack, uint64_t *size)
{
  const unsigned char *in = view->packs + (uint64_t) pack * INDEX_PACK_SIZE;
  PackName name;
  memcpy (&name, in, PACK_NAME_SIZE);
  if (size != NULL)
    *size = get_le64 (in + PACK_NAME_SIZE);
  return name;
}

static const unsigned char *
entry_at (const IndexView *view, uint64_t i)
{
  return view->entries + i * INDEX_ENTRY_SIZE;
}

/* What is wrong with an entry, or NULL. */
static const char *
parse_entry (const IndexView *view, uint64_t i, IndexEntry *entry)
{
  const unsigned char *in = entry_at (view, i);
  uint64_t place = get_le64 (in + AT_OFFSET);
  IndexEntry e = {
    .pack = get_le32 (in + AT_PACK),
    .length = get_le32 (in + AT_LENGTH),
    .offset = place & ((UINT64_C (1) << OFFSET_BITS) - 1),
    .kind = place >> OFFSET_BITS,
  };
  memcpy (&e.id, in + AT_ID, OBJECT_ID_SIZE);
  if (object_id_is_zero (&e.id))
    return "has a zero id";
  if (e.pack >= view->n_packs)
    return "is in a pack that there is not";
  if (!object_kind_is_packed (e.kind))
    return "is of an unknown kind";
  if (e.length < RECORD_HEADER_SIZE || e.length > RECORD_MAX_SIZE)
    return "has a wrong length";
  uint64_t size;
  (void) index_view_pack (view, e.pack, &size); /* only its size */
  if (e.offset < PACK_HEADER_SIZE || e.offset > size || e.length > size - e.offset)
    return "does not lie in its pack";
  *entry = e;
  return NULL;
}

bool
index_view_entry (const IndexView *view, uint64_t i, IndexEntry *entry)
{
  return i < view->n_entries && parse_entry (view, i, entry) == NULL;
}

bool
index_view_check (const IndexView *view, TmkError **errp)
{
  size_t size = (size_t) (view->filter + view->n_blocks * INDEX_BLOCK_SIZE - view->packs);
  if (XXH3_64bits (view->packs, size) != view->checksum)
    return damaged (errp, "the checksum of the index file does not match");
  for (uint64_t i = 0; i < view->n_entries; i++) {
    IndexEntry entry;
    const char *why = parse_entry (view, i, &entry);
    if (why == NULL && i > 0 && memcmp (entry_at (view, i - 1), &entry.id, OBJECT_ID_SIZE) >= 0)
      why = "is not behind the one before it";
    if (why == NULL && !index_filter_has (view->filter, view->n_blocks, &entry.id))
      why = "is not in the filter";
    if (why != NULL)
      return damaged (errp, "entry %" G_GUINT64_FORMAT " of the index file %s", i, why);
  }
  return true;
}

/* ---- finding ------------------------------------------------------------------------------ */

/* Ids are in the order of their bytes, so their leading bits are a big-endian number. */
static uint64_t
leading_bits (const void *id)
{
  uint64_t n;
  memcpy (&n, id, sizeof n);
  return be64toh (n);
}

/* Where `key` should be among the entries [low, high), were their keys, which are from `least` to
 * `most`, spread evenly. */
static uint64_t
guess (uint64_t low, uint64_t high, uint64_t least, uint64_t most, uint64_t key)
{
  if (key <= least)
    return low;
  if (key >= most)
    return high - 1;
  unsigned __int128 part = (unsigned __int128) (high - low) * (key - least);
  return low + MIN ((uint64_t) (part / (most - least)), high - low - 1);
}

/* A view whose contents are wrong can only make this miss, not read elsewhere. */
bool
index_view_find_number (const IndexView *view, const ObjectId *id, IndexEntry *entry,
                        uint64_t *number)
{
  if (!index_filter_has (view->filter, view->n_blocks, id))
    return false;
  uint64_t key = leading_bits (id);
  uint64_t low = 0, high = view->n_entries; /* it is in [low, high), if anywhere */
  uint64_t least = 0, most = UINT64_MAX;    /* keys there */
  for (unsigned step = 0; low < high; step++) {
    uint64_t i = step < GUESSES ? guess (low, high, least, most, key) : low + (high - low) / 2;
    const unsigned char *at = entry_at (view, i);
    int order = memcmp (at, id, OBJECT_ID_SIZE);
    if (order == 0) {
      *number = i;
      return index_view_entry (view, i, entry);
    }
    if (order < 0) {
      low = i + 1;
      least = leading_bits (at);
    } else {
      high = i;
      most = leading_bits (at);
    }
  }
  return false;
}

bool
index_view_find (const IndexView *view, const ObjectId *id, IndexEntry *entry)
{
  uint64_t number;
  return index_view_find_number (view, id, entry, &number);
}
