/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/rebuild.c: the index anew from the packs, see repo_rebuild_index() of repo/repo_priv.h. No
 * state; any thread.
 *
 * Index files that are there stay; those that make no sense are removed in the end. Packs of which
 * no sound index file knows are read: their tables or, where a table is damaged, record by record.
 */
#include "repo/repo_priv.h"

#include "repo/index_write.h"

#define DOMAIN "repo"
#define ENTRIES_AT_ONCE (1u << 20)
#define WINDOW (4u << 20) /* read at once when looking for records */

typedef struct {
  Repo *repo;
  GArray *packs;   /* of IndexPack: found in the store, that no index file knows … */
  GArray *read;    /* … of them, those whose … */
  GArray *entries; /* … entries (of IndexEntry) are here */
} Rebuild;

static void
rebuild_clear (Rebuild *self)
{
  g_array_unref (self->packs);
  g_array_unref (self->read);
  g_array_unref (self->entries);
}

/* --- one pack */

static void
add_entry (Rebuild *self, const PackEntry *from)
{
  IndexEntry entry = { .id = from->id,
                       .pack = self->read->len, /* the one that is being read */
                       .length = from->length,
                       .offset = from->offset,
                       .kind = from->kind };
  g_array_append_val (self->entries, entry);
}

/* Its table. TMK_ERR_DAMAGED: it has none that can be believed; nothing was added then. */
static bool
read_table (Rebuild *self, ObjReader *pack, TmkError **errp)
{
  uint64_t size = obj_reader_size (pack);
  unsigned char end[PACK_TRAILER_SIZE];
  PackTrailer trailer;
  if (size < sizeof end) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the pack is too short");
    return false;
  }
  if (!obj_reader_read (pack, size - sizeof end, end, sizeof end, errp)
      || !pack_trailer_parse (end, size, &trailer, errp))
    return false;
  size_t length = (size_t) trailer.entries * PACK_ENTRY_SIZE;
  g_autofree unsigned char *table = g_malloc (length);
  if (!obj_reader_read (pack, trailer.table, table, length, errp))
    return false;
  if (pack_table_checksum (table, length) != trailer.table_checksum) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the checksum of the pack's table does not match");
    return false;
  }
  guint before = self->entries->len;
  for (uint32_t i = 0; i < trailer.entries; i++) {
    PackEntry entry;
    if (!pack_entry_parse (table + (size_t) i * PACK_ENTRY_SIZE, trailer.table, &entry, errp)) {
      g_array_set_size (self->entries, before);
      return false;
    }
    add_entry (self, &entry);
  }
  return true;
}

/* Is there a whole, sound record at `at`? `buffer` is for RECORD_MAX_SIZE. */
static bool
try_record (ObjReader *pack, uint64_t at, unsigned char *buffer, PackEntry *entry, bool *sound,
            TmkError **errp)
{
  RecordHeader header;
  uint64_t left = obj_reader_size (pack) - at;
  *sound = false;
  if (left < RECORD_HEADER_SIZE)
    return true;
  if (!obj_reader_read (pack, at, buffer, RECORD_HEADER_SIZE, errp))
    return false;
  if (!record_parse_header (buffer, RECORD_HEADER_SIZE, &header, NULL)
      || !object_kind_is_packed (header.kind) || object_id_is_zero (&header.id))
    return true;
  uint32_t length = RECORD_HEADER_SIZE + header.stored;
  if (left < length)
    return true;
  if (!obj_reader_read (pack, at, buffer, length, errp))
    return false;
  *sound = record_parse (buffer, length, &header, NULL);
  *entry = (PackEntry){
    .id = header.id, .offset = at, .length = length, .kind = header.kind, .codec = header.codec
  };
  return true;
}

/* Where the magic of a record may next be, from `at` on; the pack's end where nowhere. */
static bool
find_magic (ObjReader *pack, uint64_t at, unsigned char *buffer, uint64_t *found, TmkError **errp)
{
  static const char magic[] = "TMKR";
  static const unsigned into = 8; /* of the header */
  uint64_t size = obj_reader_size (pack);
  while (size - at >= RECORD_HEADER_SIZE) {
    size_t length = (size_t) MIN (size - at, WINDOW);
    if (!obj_reader_read (pack, at, buffer, length, errp))
      return false;
    const unsigned char *hit = memmem (buffer + into, length - into, magic, 4);
    if (hit != NULL) {
      *found = at + (uint64_t) (hit - buffer) - into;
      return true;
    }
    at += length - into - 3; /* the magic may lie across the end */
  }
  *found = size;
  return true;
}

/* Records one after the other; where there is none, the next that can be found. A record inside a
 * chunk (a guest may keep a repository, or mean ill) is met only where the chunk around it is
 * damaged, and can only add what its own id says, which reading checks. */
static bool
scan_records (Rebuild *self, ObjReader *pack, TmkError **errp)
{
  g_autofree unsigned char *buffer = g_malloc (RECORD_MAX_SIZE);
  uint64_t at = PACK_HEADER_SIZE, size = obj_reader_size (pack);
  while (at < size) {
    PackEntry entry;
    bool sound;
    if (!try_record (pack, at, buffer, &entry, &sound, errp))
      return false;
    if (sound) {
      add_entry (self, &entry);
      at += entry.length;
    } else if (!find_magic (pack, at + 1, buffer, &at, errp)) {
      return false;
    }
  }
  return true;
}

static bool
read_pack (Rebuild *self, const IndexPack *pack, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *name = pack_object_name (&pack->name);
  g_autoptr (ObjReader) reader = obj_store_open (repo_store (self->repo), name, &err);
  guint before = self->entries->len;
  bool ok = reader != NULL && read_table (self, reader, &err);
  if (!ok && reader != NULL && tmk_error_code (err) == TMK_ERR_DAMAGED) {
    g_clear_pointer (&err, tmk_error_free);
    ok = scan_records (self, reader, &err);
  }
  if (ok && self->entries->len > before)
    g_array_append_vals (self->read, pack, 1);
  if (!ok && tmk_error_code (err) == TMK_ERR_NOT_FOUND)
    return true; /* removed meanwhile */
  if (!ok)
    error_propagate (errp, g_steal_pointer (&err));
  return ok;
}

/* --- all of them */

static bool
visit_pack (const ObjInfo *info, void *data)
{
  IndexPack pack = { .size = info->size };
  if (pack_object_parse (info->name, &pack.name))
    g_array_append_val ((GArray *) data, pack);
  return true;
}

static int
compare_names (const void *a, const void *b)
{
  return memcmp (a, b, PACK_NAME_SIZE);
}

/* Removes from the packs those that sound index files know. */
static void
drop_known (Rebuild *self, const IndexSet *set, GPtrArray *unsound)
{
  g_array_sort (self->packs, compare_names);
  g_autofree bool *known = g_new0 (bool, MAX (1, self->packs->len));
  for (size_t i = 0; i < index_set_files (set); i++) {
    const IndexFile *file = index_set_file (set, i);
    if (!index_view_check (&file->view, NULL)) {
      g_ptr_array_add (unsound, g_strdup (file->name));
      continue;
    }
    for (uint32_t p = 0; p < file->view.n_packs; p++) {
      uint64_t size;
      PackName name = index_view_pack (&file->view, p, &size);
      guint at;
      if (g_array_binary_search (self->packs, &name, compare_names, &at)
          && g_array_index (self->packs, IndexPack, at).size == size)
        known[at] = true;
    }
  }
  guint left = 0;
  for (guint i = 0; i < self->packs->len; i++)
    if (!known[i])
      g_array_index (self->packs, IndexPack, left++) = g_array_index (self->packs, IndexPack, i);
  g_array_set_size (self->packs, left);
}

static bool
publish (Rebuild *self, TmkError **errp)
{
  if (self->read->len == 0)
    return true;
  g_autofree char *name = NULL;
  uint64_t size;
  if (!index_write_array (repo_store (self->repo), &repo_config (self->repo)->id,
                          (const IndexPack *) (void *) self->read->data, self->read->len,
                          (IndexEntry *) (void *) self->entries->data, self->entries->len, &name,
                          &size, errp))
    return false;
  g_array_set_size (self->read, 0);
  g_array_set_size (self->entries, 0);
  return true;
}

static bool
read_packs (Rebuild *self, TmkError **errp)
{
  for (guint i = 0; i < self->packs->len; i++) {
    if (!read_pack (self, &g_array_index (self->packs, IndexPack, i), errp))
      return false;
    if (self->entries->len >= ENTRIES_AT_ONCE && !publish (self, errp))
      return false;
  }
  return publish (self, errp);
}

/* Index files that could not even be opened. */
static bool
visit_index (const ObjInfo *info, void *data)
{
  g_ptr_array_add (data, g_strdup (info->name));
  return true;
}

static bool
find_unsound (Rebuild *self, const IndexSet *set, GPtrArray *unsound, TmkError **errp)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  if (index_set_skipped (set) == NULL)
    return true;
  if (!obj_store_list (repo_store (self->repo), "index", visit_index, names, errp))
    return false;
  for (guint i = 0; i < names->len; i++) {
    const char *name = names->pdata[i];
    bool open = false;
    for (size_t f = 0; f < index_set_files (set) && !open; f++)
      open = g_str_equal (index_set_file (set, f)->name, name);
    g_autoptr (ObjReader) reader
        = open ? NULL : obj_store_open (repo_store (self->repo), name, NULL);
    const void *data = reader != NULL ? obj_reader_map (reader, NULL) : NULL;
    IndexView view;
    /* Looked at once more: one that is not open may have come since. */
    if (data != NULL && !index_view_init (&view, data, obj_reader_size (reader), NULL))
      g_ptr_array_add (unsound, g_strdup (name));
  }
  return true;
}

bool
repo_rebuild_index (Repo *repo, TmkError **errp)
{
  if (!repo_refresh (repo, errp))
    return false;
  g_autoptr (IndexSet) set = repo_index (repo, errp);
  if (set == NULL)
    return false;
  Rebuild self = { .repo = repo,
                   .packs = g_array_new (FALSE, FALSE, sizeof (IndexPack)),
                   .read = g_array_new (FALSE, FALSE, sizeof (IndexPack)),
                   .entries = g_array_new (FALSE, FALSE, sizeof (IndexEntry)) };
  g_autoptr (GPtrArray) unsound = g_ptr_array_new_with_free_func (g_free);
  bool ok = obj_store_list (repo_store (repo), "packs", visit_pack, self.packs, errp);
  if (ok) {
    drop_known (&self, set, unsound);
    ok = read_packs (&self, errp) && find_unsound (&self, set, unsound, errp);
  }
  for (guint i = 0; ok && i < unsound->len; i++)
    ok = obj_store_remove (repo_store (repo), unsound->pdata[i], errp);
  rebuild_clear (&self);
  return ok && repo_refresh (repo, errp);
}
