/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/rebuild.c: the index anew from the packs, see repo_rebuild_index() of repo/repo_priv.h. No
 * state; any thread.
 *
 * Index files that are there stay; those that make no sense, or cannot be read, are removed in the
 * end, unless packs cannot be read either: of those they may be all that is known. Packs of which
 * no sound index file knows are read: their tables or, where a table is damaged, record by record.
 *
 * An index file names one copy of an object only, so another one, in a pack that is known, may be
 * in none: of the objects that are wanted they are looked for.
 */
#include "repo/repo_priv.h"

#include "repo/damage.h"
#include "repo/hash.h"
#include "repo/index_write.h"
#include "repo/scan.h"

#define DOMAIN "repo"
#define ENTRIES_AT_ONCE (1u << 20)

typedef struct {
  Repo *repo;
  const IndexSet *set;      /* borrowed */
  GHashTable *wanted;       /* of ObjectId; borrowed; or NULL */
  const PackName *searched; /* the pack of which only what is wanted is taken; or NULL */
  GArray *known;            /* of IndexPack: found in the store, that an index file knows */
  GArray *packs;            /* of IndexPack: found in the store, that no index file knows … */
  GArray *read;             /* … of them, those whose … */
  GArray *entries;          /* … entries (of IndexEntry) are here */
  TmkError *skipped;        /* why the first of the packs that cannot be read cannot; or NULL */
  guint n_skipped;
  Hash hash;
} Rebuild;

static void
rebuild_clear (Rebuild *self)
{
  g_array_unref (self->known);
  g_array_unref (self->packs);
  g_array_unref (self->read);
  g_array_unref (self->entries);
  tmk_error_free (self->skipped);
  hash_clear (&self->hash);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Rebuild, rebuild_clear)

static int
compare_names (const void *a, const void *b)
{
  return memcmp (a, b, PACK_NAME_SIZE);
}

/* --- one pack */

/* Is it a copy of what is wanted that no index file knows? */
static bool
is_lost_copy (const Rebuild *self, const ObjectId *id)
{
  if (!g_hash_table_contains (self->wanted, id))
    return false;
  ObjectPlace places[MAX_PLACES];
  size_t n = index_set_find (self->set, id, places);
  for (size_t i = 0; i < n; i++)
    if (compare_names (&places[i].pack, self->searched) == 0)
      return false;
  return true;
}

static void
add_entry (Rebuild *self, const PackEntry *from)
{
  if (self->searched != NULL && !is_lost_copy (self, &from->id))
    return;
  IndexEntry entry = { .id = from->id,
                       .pack = self->read->len, /* the one that is being read */
                       .length = from->length,
                       .offset = from->offset,
                       .kind = from->kind };
  g_array_append_val (self->entries, entry);
}

/* A pack is called after its table. Where one was cut off, its end may be the work of a guest. */
static bool
check_name (Rebuild *self, const PackName *name, const void *table, size_t size, TmkError **errp)
{
  unsigned char sum[OBJECT_ID_SIZE];
  hash_bytes (&self->hash, table, size, sum);
  if (memcmp (name, sum, PACK_NAME_SUM) == 0)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "it is not the pack of this name");
  return false;
}

/* Its table. TMK_ERR_DAMAGED: it has none that can be believed; nothing was added then. */
static bool
read_table (Rebuild *self, const PackName *name, ObjReader *pack, TmkError **errp)
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
  if (!check_name (self, name, table, length, errp))
    return false;
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

static void
visit_entry (const PackEntry *entry, void *data)
{
  add_entry (data, entry);
}

/* A pack that cannot be read must not keep the others out of the index: it is told in the end. */
static void
skip_pack (Rebuild *self, TmkError *why)
{
  self->n_skipped++;
  if (self->skipped == NULL)
    self->skipped = why;
  else
    tmk_error_free (why);
}

/* What is found counts, also where not all of the pack could be read. */
static bool
read_pack (Rebuild *self, const IndexPack *pack, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *name = pack_object_name (&pack->name);
  g_autoptr (ObjReader) reader = obj_store_open (repo_store (self->repo), name, &err);
  guint before = self->entries->len;
  bool ok = reader != NULL && read_table (self, &pack->name, reader, &err);
  if (!ok && reader != NULL && is_damage (err)) {
    g_clear_pointer (&err, tmk_error_free);
    ok = scan_pack (reader, visit_entry, self, &err);
  }
  if (self->entries->len > before) {
    IndexPack found = { pack->name, obj_reader_size (reader) };
    g_array_append_val (self->read, found);
  }
  if (ok || tmk_error_code (err) == TMK_ERR_NOT_FOUND) /* removed meanwhile */
    return true;
  if (!is_damage (err)) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  skip_pack (self, g_steal_pointer (&err));
  return true;
}

/* Without its table nothing is found: to look for records in what is known already would be to read
 * the whole repository. */
static void
search_pack (Rebuild *self, const IndexPack *pack)
{
  g_autofree char *name = pack_object_name (&pack->name);
  g_autoptr (ObjReader) reader = obj_store_open (repo_store (self->repo), name, NULL);
  guint before = self->entries->len;
  self->searched = &pack->name;
  if (reader != NULL && read_table (self, &pack->name, reader, NULL) && self->entries->len > before)
    g_array_append_vals (self->read, pack, 1);
  self->searched = NULL;
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

/* Moves those of the packs that sound index files know to the known ones. */
static void
sort_out_known (Rebuild *self, const IndexSet *set, GPtrArray *unsound)
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
  for (guint i = 0; i < self->packs->len; i++) {
    IndexPack pack = g_array_index (self->packs, IndexPack, i);
    if (known[i])
      g_array_append_val (self->known, pack);
    else
      g_array_index (self->packs, IndexPack, left++) = pack;
  }
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
  for (guint i = 0; self->wanted != NULL && i < self->known->len; i++)
    search_pack (self, &g_array_index (self->known, IndexPack, i));
  return publish (self, errp);
}

/* Can no sense be made of it? Not of one that cannot be read for another reason than damage. */
static bool
is_unsound (ObjStore *store, const char *name)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (ObjReader) reader = obj_store_open (store, name, &err);
  const void *data = reader != NULL ? obj_reader_map (reader, &err) : NULL;
  IndexView view;
  return (data != NULL && !index_view_init (&view, data, obj_reader_size (reader), &err))
         || (data == NULL && is_damage (err));
}

static bool
visit_index (const ObjInfo *info, void *data)
{
  g_ptr_array_add (data, g_strdup (info->name));
  return true;
}

/* Index files that could not even be opened. Before packs are listed: so what one that is removed
 * knows, if it came just now, is read from its packs. */
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
    /* Looked at once more: one that is not open may have come since. */
    if (!open && is_unsound (repo_store (self->repo), name))
      g_ptr_array_add (unsound, g_strdup (name));
  }
  return true;
}

static bool
tell_skipped (const Rebuild *self, TmkError **errp)
{
  if (self->skipped == NULL)
    return true;
  if (self->n_skipped == 1)
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "%s", tmk_error_message (self->skipped));
  else
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "%s, and %u packs more",
               tmk_error_message (self->skipped), self->n_skipped - 1);
  return false;
}

bool
repo_rebuild_index (Repo *repo, GHashTable *wanted, TmkError **errp)
{
  if (!repo_refresh (repo, errp))
    return false;
  g_autoptr (IndexSet) set = repo_index (repo, errp);
  if (set == NULL)
    return false;
  g_auto (Rebuild) self = { .repo = repo,
                            .set = set,
                            .wanted = wanted,
                            .known = g_array_new (FALSE, FALSE, sizeof (IndexPack)),
                            .packs = g_array_new (FALSE, FALSE, sizeof (IndexPack)),
                            .read = g_array_new (FALSE, FALSE, sizeof (IndexPack)),
                            .entries = g_array_new (FALSE, FALSE, sizeof (IndexEntry)) };
  g_autoptr (GPtrArray) unsound = g_ptr_array_new_with_free_func (g_free);
  if (!hash_init (&self.hash, errp) || !find_unsound (&self, set, unsound, errp)
      || !obj_store_list (repo_store (repo), "packs", visit_pack, self.packs, errp))
    return false;
  sort_out_known (&self, set, unsound);
  if (!read_packs (&self, errp))
    return false;
  for (guint i = 0; self.skipped == NULL && i < unsound->len; i++)
    if (!obj_store_remove (repo_store (repo), unsound->pdata[i], errp))
      return false;
  return repo_refresh (repo, errp) && tell_skipped (&self, errp);
}
