/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/reader.c: reading objects, see repo/repo.h. Belongs to one thread.
 *
 * A record is read in one piece, for the index knows its length, and is never believed: checksum,
 * id, kind and lengths have to be those expected. Copies that do not count (see repo/index_set.h)
 * are tried last, and their ids always computed: better a copy that somebody found damaged, and
 * that was not, than none.
 */
#include "repo/repo_priv.h"

#include "repo/damage.h"
#include "repo/hash.h"
#include "repo/record.h"

#define DOMAIN "repo"
#define OPEN_PACKS 16
#define BAD_COPIES_MAX 100000
#define REFRESH_US (10 * G_TIME_SPAN_SECOND)

typedef struct {
  PackName name;
  ObjReader *reader; /* NULL: free */
  uint64_t used;     /* when, by `clock` */
} OpenPack;

struct RepoReader {
  Repo *repo; /* borrowed */
  bool verify;
  Hash hash; /* made when it is first needed */
  ZSTD_DCtx *zstd;
  unsigned char *record;
  size_t room;
  OpenPack packs[OPEN_PACKS];
  uint64_t clock;
  int64_t refresh_after; /* monotonic */
  GArray *bad_copies;    /* of BadCopy; or NULL */
};

RepoReader *
repo_reader_new (Repo *repo, bool verify)
{
  RepoReader *reader = g_new0 (RepoReader, 1);
  reader->repo = repo;
  reader->verify = verify;
  reader->zstd = ZSTD_createDCtx ();
  return reader;
}

void
repo_reader_free (RepoReader *reader)
{
  if (reader == NULL)
    return;
  for (size_t i = 0; i < OPEN_PACKS; i++)
    obj_reader_free (reader->packs[i].reader);
  hash_clear (&reader->hash);
  ZSTD_freeDCtx (reader->zstd);
  g_free (reader->record);
  g_clear_pointer (&reader->bad_copies, g_array_unref);
  g_free (reader);
}

/* The pack, opened if it is not among the last ones used. */
static ObjReader *
open_pack (RepoReader *reader, const PackName *name, TmkError **errp)
{
  OpenPack *oldest = &reader->packs[0];
  for (size_t i = 0; i < OPEN_PACKS; i++) {
    OpenPack *pack = &reader->packs[i];
    if (pack->reader != NULL && memcmp (&pack->name, name, sizeof *name) == 0) {
      pack->used = ++reader->clock;
      return pack->reader;
    }
    if (pack->reader == NULL || (oldest->reader != NULL && pack->used < oldest->used))
      oldest = pack;
  }
  g_autofree char *object = pack_object_name (name);
  ObjReader *opened = obj_store_open (repo_store (reader->repo), object, errp);
  if (opened == NULL)
    return NULL;
  obj_reader_free (oldest->reader);
  *oldest = (OpenPack){ *name, opened, ++reader->clock };
  return opened;
}

/* What is asked for. `kinds` has bit k for each kind k that it may be. */
typedef struct {
  const ObjectId *id;
  unsigned kinds;
  void *buffer;
  size_t room;
} Wanted;

#define KIND_BIT(kind) (1u << (kind))

/* As messages call it: "chunk", or for either form of a node "node". */
static const char *
kind_name (const Wanted *wanted)
{
  return object_kind_name ((ObjectKind) __builtin_ctz (wanted->kinds));
}

static bool
check_id (RepoReader *reader, const ObjectId *id, ObjectKind kind, const void *plain, size_t size,
          TmkError **errp)
{
  ObjectId found;
  if (reader->hash.md == NULL && !hash_init (&reader->hash, errp))
    return false;
  hash_object (&reader->hash, kind, plain, size, &found);
  if (object_id_equal (&found, id))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "its contents are not what its id says");
  return false;
}

static bool
check_header (const RecordHeader *header, const Wanted *wanted, TmkError **errp)
{
  if (!object_id_equal (&header->id, wanted->id)) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "there is another object in its place");
    return false;
  }
  if ((wanted->kinds & KIND_BIT (header->kind)) == 0) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "it is a %s, not a %s",
               object_kind_name (header->kind), kind_name (wanted));
    return false;
  }
  return true;
}

static bool
read_place (RepoReader *reader, const ObjectPlace *place, const Wanted *wanted,
            RecordHeader *header, TmkError **errp)
{
  if (reader->room < place->length) {
    g_free (reader->record);
    reader->room = place->length;
    reader->record = g_malloc (reader->room);
  }
  ObjReader *pack = open_pack (reader, &place->pack, errp);
  return pack != NULL && obj_reader_read (pack, place->offset, reader->record, place->length, errp)
         && record_unpack (reader->zstd, reader->record, place->length, header, wanted->buffer,
                           wanted->room, errp)
         && check_header (header, wanted, errp)
         && ((!reader->verify && place->counts)
             || check_id (reader, wanted->id, header->kind, wanted->buffer, header->plain, errp));
}

static void
say_missing (RepoReader *reader, const IndexSet *set, const Wanted *wanted, TmkError **errp)
{
  char hex[2 * OBJECT_ID_SIZE + 1];
  object_id_to_hex (wanted->id, hex);
  const char *skipped = index_set_skipped (set);
  if (skipped == NULL)
    skipped = index_set_vanished (set);
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s': %s '%s' is missing%s%s",
             repo_location (reader->repo), kind_name (wanted), hex,
             skipped != NULL ? ", and not all index files can be read: " : "",
             skipped != NULL ? skipped : "");
}

static char *
describe (RepoReader *reader, const ObjectPlace *place, const Wanted *wanted, const TmkError *why)
{
  char hex[2 * OBJECT_ID_SIZE + 1], pack[2 * PACK_NAME_SIZE + 1];
  object_id_to_hex (wanted->id, hex);
  pack_name_to_hex (&place->pack, pack);
  return g_strdup_printf ("'%s': %s '%s' in pack '%s': %s", repo_location (reader->repo),
                          kind_name (wanted), hex, pack, tmk_error_message (why));
}

static void
say_damaged (RepoReader *reader, const ObjectPlace *place, const Wanted *wanted,
             const TmkError *why, TmkError **errp)
{
  g_autofree char *message = describe (reader, place, wanted, why);
  error_set (errp, DOMAIN, is_damage (why) ? TMK_ERR_DAMAGED : tmk_error_code (why),
             tmk_error_errno (why), "%s", message);
}

static void
bad_copy_clear (void *data)
{
  g_free (((BadCopy *) data)->message);
}

/* Remembers that this copy failed, though another one did not. A pack that went meanwhile is no
 * damage. */
static void
add_bad_copy (RepoReader *reader, const ObjectPlace *place, const Wanted *wanted,
              const TmkError *why)
{
  if (!reader->verify || !place->counts || !is_damage (why)
      || tmk_error_code (why) == TMK_ERR_NOT_FOUND)
    return;
  if (reader->bad_copies == NULL) {
    reader->bad_copies = g_array_new (FALSE, FALSE, sizeof (BadCopy));
    g_array_set_clear_func (reader->bad_copies, bad_copy_clear);
  }
  if (reader->bad_copies->len == BAD_COPIES_MAX)
    return;
  BadCopy copy = { { *wanted->id, place->pack }, describe (reader, place, wanted, why) };
  g_array_append_val (reader->bad_copies, copy);
}

GArray *
repo_reader_take_bad_copies (RepoReader *reader)
{
  return g_steal_pointer (&reader->bad_copies);
}

/* Tries one copy after the other, at most MAX_PLACES; `errors` has why those before the one that
 * could be read could not. Returns how many failed. */
static size_t
try_places (RepoReader *reader, const ObjectPlace *places, size_t n, const Wanted *wanted,
            RecordHeader *header, TmkError **errors)
{
  for (size_t i = 0; i < n; i++)
    if (read_place (reader, &places[i], wanted, header, &errors[i]))
      return i;
  return n;
}

/* The error is about the first copy, the best, unless another may be well and only cannot be read
 * now: then that is it, for nothing is known to be damaged. */
static bool
read_any (RepoReader *reader, const Wanted *wanted, RecordHeader *header, TmkError **errp)
{
  g_autoptr (IndexSet) set = repo_index (reader->repo, errp);
  if (set == NULL)
    return false;
  ObjectPlace places[MAX_PLACES];
  TmkError *errors[MAX_PLACES] = { NULL };
  size_t n = index_set_find (set, wanted->id, places), told = 0;
  if (n == 0) {
    say_missing (reader, set, wanted, errp);
    return false;
  }
  size_t failed = try_places (reader, places, n, wanted, header, errors);
  for (size_t i = 0; i < failed && failed < n; i++)
    add_bad_copy (reader, &places[i], wanted, errors[i]);
  for (size_t i = 0; i < n && failed == n; i++)
    if (is_damage (errors[told]) && !is_damage (errors[i]))
      told = i;
  if (failed == n)
    say_damaged (reader, &places[told], wanted, errors[told], errp);
  for (size_t i = 0; i < failed; i++)
    tmk_error_free (errors[i]);
  return failed < n;
}

static bool
read_wanted (RepoReader *reader, const Wanted *wanted, RecordHeader *header, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  if (read_any (reader, wanted, header, &err))
    return true;
  /* Perhaps it came, or was moved, after we looked. Not again and again: where much is missing
   * listing the store each time would take for ever. */
  int64_t now = g_get_monotonic_time ();
  if (tmk_error_code (err) == TMK_ERR_DAMAGED && now >= reader->refresh_after) {
    if (!repo_refresh (reader->repo, errp))
      return false;
    reader->refresh_after = g_get_monotonic_time () + REFRESH_US;
    return read_any (reader, wanted, header, errp);
  }
  error_propagate (errp, g_steal_pointer (&err));
  return false;
}

bool
repo_reader_read (RepoReader *reader, const ObjectId *id, ObjectKind kind, void *buffer,
                  size_t room, size_t *length, TmkError **errp)
{
  Wanted wanted = { id, KIND_BIT (kind), buffer, room };
  RecordHeader header;
  if (!read_wanted (reader, &wanted, &header, errp))
    return false;
  *length = header.plain;
  return true;
}

bool
repo_reader_read_node (RepoReader *reader, const ObjectId *id, void *buffer, size_t room,
                       size_t *length, ObjectKind *kind, TmkError **errp)
{
  Wanted wanted = { id, KIND_BIT (OBJECT_NODE) | KIND_BIT (OBJECT_DELTA), buffer, room };
  RecordHeader header;
  if (!read_wanted (reader, &wanted, &header, errp))
    return false;
  *length = header.plain;
  *kind = header.kind;
  return true;
}
