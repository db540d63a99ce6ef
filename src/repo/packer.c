/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/packer.c: filling packs, see repo/writer.h. Belongs to one thread.
 *
 * Objects are compressed straight into the buffer from which the pack is written, so that nothing
 * is allocated or copied for an object.
 *
 * Chunks are claimed from the writer, so that of one chunk there is one copy whoever meets it.
 * Nodes are not: a tree that is being made reads its nodes again, which it can only after the pack
 * they are in was finished and published, and that it can have done for its own packs only. So a
 * node may be stored twice where two disks are alike, and never by one packer.
 *
 * Nodes that it finds damaged are noted all at once, before the pack that has their new copies is
 * finished: later those would be noted, too.
 */
#include "repo/writer_priv.h"

#include "format/node.h"
#include "repo/hash.h"
#include "repo/record.h"

#include <errno.h>
#include <sys/random.h>

#define DOMAIN "repo"
#define FLUSH_SIZE (1u << 20)
#define ENTRIES_MAX                                                                                \
  (128u << 10) /* in a pack: of 64 MiB only when they compress to next to nothing */
#define OWN_MAX (64u << 10)
#define FAST_CHUNK (64u << 10)
#define FAST_HASH_LOG 12

G_STATIC_ASSERT (ENTRIES_MAX <= PACK_MAX_ENTRIES);

struct RepoPacker {
  RepoWriter *writer; /* borrowed */
  const RepoConfig *config;
  Hash hash;
  ZSTD_CCtx *zstd;
  IdSet own;          /* nodes it has stored, and that may not be published yet */
  RepoReader *reader; /* looks at nodes that are distrusted; made when it is first needed */
  GArray *damaged;    /* of ObjectId: nodes found damaged, and not noted yet */

  ObjWriter *out; /* NULL: there is no pack */
  unsigned char *buffer;
  size_t room, fill;
  uint64_t size; /* of the pack, with what is in the buffer */
  GByteArray *table;
  uint32_t entries;
};

static ZSTD_CCtx *
new_zstd (const RepoConfig *config, TmkError **errp)
{
  g_autoptr (ZSTD_CCtx) zstd = ZSTD_createCCtx ();
  bool ok
      = zstd != NULL
        && !ZSTD_isError (ZSTD_CCtx_setParameter (zstd, ZSTD_c_compressionLevel, config->level));
  /* Half the hash table that level 1 has: it stays in the L1 cache. A twelfth less time for one
   * percent more; of larger chunks it costs more. */
  if (ok && config->level == 1 && config->chunk_size <= FAST_CHUNK)
    ok = !ZSTD_isError (ZSTD_CCtx_setParameter (zstd, ZSTD_c_hashLog, FAST_HASH_LOG));
  if (ok)
    return g_steal_pointer (&zstd);
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "libzstd refuses level %d", config->level);
  return NULL;
}

RepoPacker *
repo_packer_new (RepoWriter *writer, TmkError **errp)
{
  g_autoptr (RepoPacker) packer = g_new0 (RepoPacker, 1);
  packer->writer = writer;
  packer->config = repo_config (writer->repo);
  packer->table = g_byte_array_new ();
  packer->damaged = g_array_new (FALSE, FALSE, sizeof (ObjectId));
  if (!hash_init (&packer->hash, errp))
    return NULL;
  packer->zstd = new_zstd (packer->config, errp);
  if (packer->zstd == NULL)
    return NULL;
  packer->room = FLUSH_SIZE + RECORD_HEADER_SIZE + ZSTD_compressBound (packer->config->chunk_size);
  packer->buffer = g_malloc (packer->room);
  return g_steal_pointer (&packer);
}

/* Forgets the pack that is being filled. */
static void
reset (RepoPacker *packer)
{
  g_clear_pointer (&packer->out, obj_writer_free);
  packer->fill = 0;
  packer->size = 0;
  packer->entries = 0;
  g_byte_array_set_size (packer->table, 0);
}

static void
give_up (RepoPacker *packer)
{
  if (packer->out != NULL)
    writer_pack_given_up (packer->writer);
  reset (packer);
}

void
repo_packer_free (RepoPacker *packer)
{
  if (packer == NULL)
    return;
  give_up (packer);
  hash_clear (&packer->hash);
  ZSTD_freeCCtx (packer->zstd);
  id_set_clear (&packer->own);
  repo_reader_free (packer->reader);
  g_array_unref (packer->damaged);
  g_byte_array_unref (packer->table);
  g_free (packer->buffer);
  g_free (packer);
}

void
repo_packer_hash (RepoPacker *packer, ObjectKind kind, const void *plain, size_t size, ObjectId *id)
{
  hash_object (&packer->hash, kind, plain, size, id);
}

/* --- the pack */

static bool
flush (RepoPacker *packer, TmkError **errp)
{
  bool ok = obj_writer_append (packer->out, packer->buffer, packer->fill, errp);
  packer->fill = 0;
  return ok;
}

/* Sees to it that a pack is there, and room in the buffer for a record of `size` plain bytes. */
static bool
prepare (RepoPacker *packer, size_t size, TmkError **errp)
{
  if (packer->out == NULL) {
    packer->out = obj_store_put (repo_store (packer->writer->repo), errp);
    if (packer->out == NULL)
      return false;
    writer_pack_begun (packer->writer);
    pack_header_format (&packer->config->id, packer->buffer);
    packer->size = packer->fill = PACK_HEADER_SIZE;
  }
  size_t needed = RECORD_HEADER_SIZE + ZSTD_compressBound (size);
  if (packer->room - packer->fill >= needed)
    return true;
  if (!flush (packer, errp))
    return false;
  if (packer->room < needed) {
    packer->room = needed;
    g_free (packer->buffer);
    packer->buffer = g_malloc (needed);
  }
  return true;
}

/* The payload, compressed where that saves a sixteenth. */
static void
put_payload (RepoPacker *packer, const void *plain, size_t size, unsigned char *out,
             RecordHeader *header)
{
  header->codec = CODEC_PLAIN;
  header->stored = header->plain = (uint32_t) size;
  if (packer->config->codec == CODEC_ZSTD) {
    /* More room than it may need is quicker for zstd than just enough. */
    size_t n = ZSTD_compress2 (packer->zstd, out, ZSTD_compressBound (size), plain, size);
    if (!ZSTD_isError (n) && n > 0 && n <= size - size / 16 && n < size) {
      header->codec = CODEC_ZSTD;
      header->stored = (uint32_t) n;
      return;
    }
  }
  memcpy (out, plain, size);
}

static bool
put (RepoPacker *packer, ObjectKind kind, const ObjectId *id, const void *plain, size_t size,
     uint32_t *stored, TmkError **errp)
{
  if (!prepare (packer, size, errp))
    return false;
  unsigned char *record = packer->buffer + packer->fill;
  RecordHeader header = { .kind = kind, .id = *id };
  put_payload (packer, plain, size, record + RECORD_HEADER_SIZE, &header);
  record_seal (record, &header);

  PackEntry entry = { .id = *id,
                      .offset = packer->size,
                      .length = RECORD_HEADER_SIZE + header.stored,
                      .kind = kind,
                      .codec = header.codec };
  unsigned char row[PACK_ENTRY_SIZE];
  pack_entry_format (&entry, row);
  g_byte_array_append (packer->table, row, sizeof row);
  packer->entries++;
  packer->fill += entry.length;
  packer->size += entry.length;
  *stored = entry.length;
  writer_count (packer->writer, kind, size, entry.length);
  return packer->fill < FLUSH_SIZE || flush (packer, errp);
}

static bool
name_pack (RepoPacker *packer, PackName *name, TmkError **errp)
{
  unsigned char hash[OBJECT_ID_SIZE];
  hash_bytes (&packer->hash, packer->table->data, packer->table->len, hash);
  memcpy (name->bytes, hash, 16);
  if (getentropy (name->bytes + 16, PACK_NAME_SIZE - 16) == 0)
    return true;
  error_set_errno (errp, DOMAIN, errno, "no random numbers");
  return false;
}

/* Table, trailer, and the name. */
static bool
publish (RepoPacker *packer, IndexPack *pack, TmkError **errp)
{
  PackTrailer trailer
      = { .table = packer->size,
          .entries = packer->entries,
          .table_checksum = pack_table_checksum (packer->table->data, packer->table->len),
          .size = packer->size + packer->table->len + PACK_TRAILER_SIZE,
          .repo = packer->config->id };
  unsigned char end[PACK_TRAILER_SIZE];
  pack_trailer_format (&trailer, end);
  pack->size = trailer.size;
  if (!name_pack (packer, &pack->name, errp))
    return false;
  g_autofree char *name = pack_object_name (&pack->name);
  return flush (packer, errp)
         && obj_writer_append (packer->out, packer->table->data, packer->table->len, errp)
         && obj_writer_append (packer->out, end, sizeof end, errp)
         && obj_writer_commit (packer->out, name, errp);
}

static bool
note_damaged (RepoPacker *packer, TmkError **errp)
{
  const GArray *ids = packer->damaged;
  if (ids->len > 0
      && !repo_note_damage (packer->writer->repo, (const ObjectId *) (void *) ids->data, ids->len,
                            errp))
    return false;
  g_array_set_size (packer->damaged, 0);
  return true;
}

bool
repo_packer_finish (RepoPacker *packer, TmkError **errp)
{
  lease_touch (packer->writer->lease);
  if (packer->out == NULL)
    return writer_check (packer->writer, errp);
  IndexPack pack;
  TmkError *err = NULL;
  if (!note_damaged (packer, &err) || !publish (packer, &pack, &err)) {
    writer_break (packer->writer, err);
    give_up (packer);
    error_propagate (errp, err);
    return false;
  }
  bool ok
      = writer_pack_finished (packer->writer, &pack, packer->table->data, packer->entries, errp);
  reset (packer);
  return ok;
}

/* Nothing of its pack is in the store yet: all is in the buffer. */
static bool
is_buffered (const RepoPacker *packer)
{
  return packer->out != NULL && packer->size == packer->fill;
}

/* Puts what is in the buffer of `from` behind what `to` has. */
static bool
join (RepoPacker *to, RepoPacker *from, TmkError **errp)
{
  size_t length = from->fill - PACK_HEADER_SIZE;
  if (!note_damaged (from, errp) || !prepare (to, length, errp))
    return false;
  for (uint32_t i = 0; i < from->entries; i++) {
    unsigned char *row = from->table->data + (size_t) i * PACK_ENTRY_SIZE;
    PackEntry entry;
    bool ok = pack_entry_parse (row, from->size, &entry, NULL);
    g_assert (ok); /* it is our own */
    entry.offset += to->size - PACK_HEADER_SIZE;
    pack_entry_format (&entry, row);
  }
  g_byte_array_append (to->table, from->table->data, from->table->len);
  memcpy (to->buffer + to->fill, from->buffer + PACK_HEADER_SIZE, length);
  to->entries += from->entries;
  to->fill += length;
  to->size += length;
  writer_pack_joined (from->writer);
  reset (from);
  return true;
}

bool
repo_packer_finish_all (RepoPacker *const *packers, size_t n, TmkError **errp)
{
  RepoPacker *first = NULL;
  for (size_t i = 0; i < n; i++) {
    TmkError *err = NULL;
    if (first == NULL) {
      first = packers[i]->out != NULL ? packers[i] : NULL;
    } else if (is_buffered (packers[i]) && first->entries + packers[i]->entries <= ENTRIES_MAX
               && !join (first, packers[i], &err)) {
      writer_break (first->writer, err);
      give_up (first);
      error_propagate (errp, err);
      return false;
    }
  }
  for (size_t i = 0; i < n; i++)
    if (!repo_packer_finish (packers[i], errp))
      return false;
  return true;
}

/* --- objects */

/* Is a node there, as the index says or, where that is not trusted, as its contents show? */
static bool
has_node (RepoPacker *packer, ObjectKind kind, const ObjectId *id, bool *found, TmkError **errp)
{
  unsigned char buffer[NODE_MAX_SIZE];
  size_t length;
  TmkError *err = NULL;
  if (!repo_has (packer->writer->repo, id, found, errp))
    return false;
  if (!*found || !atomic_load (&packer->writer->distrusts_nodes))
    return true;
  if (packer->reader == NULL)
    packer->reader = repo_reader_new (packer->writer->repo, true);
  if (repo_reader_read (packer->reader, id, kind, buffer, sizeof buffer, &length, &err))
    return true;
  if (tmk_error_code (err) != TMK_ERR_DAMAGED) {
    error_propagate (errp, err);
    return false;
  }
  tmk_error_free (err);
  g_array_append_vals (packer->damaged, id, 1);
  *found = false;
  return true;
}

/* Is it new, and are we to store it? */
static bool
claim (RepoPacker *packer, ObjectKind kind, const ObjectId *id, bool *mine, TmkError **errp)
{
  if (kind == OBJECT_CHUNK)
    return writer_claim (packer->writer, id, mine, errp);
  bool found = id_set_has (&packer->own, id);
  if (!found && !has_node (packer, kind, id, &found, errp))
    return false;
  *mine = !found;
  if (found)
    return true;
  if (packer->own.n >= OWN_MAX) {
    if (!repo_packer_finish (packer, errp) || !repo_writer_publish_index (packer->writer, errp))
      return false;
    id_set_clear (&packer->own);
  }
  (void) id_set_add (&packer->own, id); /* it was not there */
  return true;
}

bool
repo_packer_store (RepoPacker *packer, ObjectKind kind, const ObjectId *id, const void *plain,
                   size_t size, uint32_t *stored, TmkError **errp)
{
  g_assert (object_kind_is_packed (kind) && size <= OBJECT_MAX_PLAIN);
  bool mine = false;
  lease_touch (packer->writer->lease);
  if (!writer_check (packer->writer, errp))
    return false;
  if (!object_id_is_zero (id) && !claim (packer, kind, id, &mine, errp))
    return false;
  uint32_t length = 0;
  TmkError *err = NULL;
  if (mine && !put (packer, kind, id, plain, size, &length, &err)) {
    /* Others count on it from the moment it was claimed. */
    writer_break (packer->writer, err);
    give_up (packer);
    error_propagate (errp, err);
    return false;
  }
  if ((packer->size >= packer->config->pack_size || packer->entries >= ENTRIES_MAX)
      && !repo_packer_finish (packer, errp))
    return false;
  *stored = length;
  return true;
}
