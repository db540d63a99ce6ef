/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/index_set.c: see repo/index_set.h. Immutable but for the counts of references. */
#include "repo/index_set.h"

#include "repo/damage.h"

#define DOMAIN "repo"
/* Somebody may merge index files while we list them. */
#define TRIES 5

typedef struct {
  PackName name;
  uint64_t size;
} StoredPack;

/* An index file in a set. */
typedef struct {
  IndexFile *file;
  bool *there; /* for each of its packs: is it in the store, as long as it should be? */
} Member;

struct IndexSet {
  gatomicrefcount refs;
  GArray *members; /* of Member; the newest first */
  GArray *packs;   /* of StoredPack; ascending, without those of files added later */
  GArray *notes;   /* of DamageNote; ascending */
  GString *skipped;
  bool packs_missing; /* of a member */
};

/* --- names of packs */

char *
pack_object_name (const PackName *pack)
{
  char hex[2 * PACK_NAME_SIZE + 1];
  pack_name_to_hex (pack, hex);
  return g_strdup_printf ("packs/%.2s/%s", hex, hex);
}

bool
pack_object_parse (const char *object, PackName *pack)
{
  const char *slash = strrchr (object, '/');
  return slash != NULL && pack_name_from_hex (slash + 1, pack);
}

/* --- files */

static void
file_unref (IndexFile *file)
{
  if (!g_atomic_ref_count_dec (&file->refs))
    return;
  obj_reader_free (file->reader);
  g_free (file->name);
  g_free (file);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IndexFile, file_unref)

static IndexFile *
file_open (ObjStore *store, const RepoId *repo, const char *name, int64_t modified_us,
           TmkError **errp)
{
  g_autoptr (IndexFile) file = g_new0 (IndexFile, 1);
  g_atomic_ref_count_init (&file->refs);
  file->name = g_strdup (name);
  file->modified_us = modified_us;
  file->reader = obj_store_open (store, name, errp);
  if (file->reader == NULL)
    return NULL;
  const void *data = obj_reader_map (file->reader, errp);
  if (data == NULL)
    return NULL;
  if (!index_view_init (&file->view, data, obj_reader_size (file->reader), errp)) {
    error_prefix (errp, "'%s' in '%s'", name, obj_store_location (store));
    return NULL;
  }
  if (memcmp (&file->view.repo, repo, sizeof *repo) != 0) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s' in '%s' is of another repository", name,
               obj_store_location (store));
    return NULL;
  }
  return g_steal_pointer (&file);
}

static void
member_clear (void *data)
{
  Member *member = data;
  file_unref (member->file);
  g_free (member->there);
}

/* --- sets */

static IndexSet *
set_new (void)
{
  IndexSet *set = g_new0 (IndexSet, 1);
  g_atomic_ref_count_init (&set->refs);
  set->members = g_array_new (FALSE, FALSE, sizeof (Member));
  g_array_set_clear_func (set->members, member_clear);
  set->packs = g_array_new (FALSE, FALSE, sizeof (StoredPack));
  set->notes = g_array_new (FALSE, FALSE, sizeof (DamageNote));
  set->skipped = g_string_new (NULL);
  return set;
}

IndexSet *
index_set_ref (IndexSet *set)
{
  g_atomic_ref_count_inc (&set->refs);
  return set;
}

void
index_set_unref (IndexSet *set)
{
  if (set == NULL || !g_atomic_ref_count_dec (&set->refs))
    return;
  g_array_unref (set->members);
  g_array_unref (set->packs);
  g_array_unref (set->notes);
  g_string_free (set->skipped, TRUE);
  g_free (set);
}

static int
compare_packs (const void *a, const void *b)
{
  return memcmp (a, b, PACK_NAME_SIZE);
}

static int
compare_notes (const void *a, const void *b)
{
  return memcmp (a, b, sizeof (DamageNote));
}

/* Takes `file`. `all_there`: nobody needs to look for its packs. */
static void
add_member (IndexSet *set, IndexFile *file, bool all_there)
{
  Member member = { .file = file, .there = g_new (bool, MAX (1, file->view.n_packs)) };
  for (uint32_t i = 0; i < file->view.n_packs; i++) {
    uint64_t expected, size;
    PackName name = index_view_pack (&file->view, i, &expected);
    member.there[i] = all_there || (index_set_has_pack (set, &name, &size) && size == expected);
    set->packs_missing = set->packs_missing || !member.there[i];
  }
  guint at = 0;
  while (at < set->members->len
         && g_array_index (set->members, Member, at).file->modified_us > file->modified_us)
    at++;
  g_array_insert_val (set->members, at, member);
}

/* --- loading */

typedef struct {
  char *name;
  int64_t modified_us;
} Listed;

static void
listed_clear (void *data)
{
  g_free (((Listed *) data)->name);
}

static bool
visit_index (const ObjInfo *info, void *data)
{
  Listed listed = { g_strdup (info->name), info->modified_us };
  g_array_append_val ((GArray *) data, listed);
  return true;
}

static bool
visit_pack (const ObjInfo *info, void *data)
{
  StoredPack pack = { .size = info->size };
  if (pack_object_parse (info->name, &pack.name))
    g_array_append_val ((GArray *) data, pack);
  return true;
}

static IndexFile *
find_open (const IndexSet *old, const char *name)
{
  for (guint i = 0; old != NULL && i < old->members->len; i++) {
    IndexFile *file = g_array_index (old->members, Member, i).file;
    if (g_str_equal (file->name, name) && index_view_is_there (&file->view)) {
      g_atomic_ref_count_inc (&file->refs);
      return file;
    }
  }
  return NULL;
}

/* Opens what was listed. One that makes no sense, or cannot be read, is left out: what it knows
 * counts as missing, and is stored again. `*vanished`: one is gone by now. */
static bool
open_files (IndexSet *set, GPtrArray *files, const GArray *listing, ObjStore *store,
            const RepoId *repo, const IndexSet *old, bool *vanished, TmkError **errp)
{
  for (guint i = 0; i < listing->len; i++) {
    const Listed *listed = &g_array_index (listing, Listed, i);
    g_autoptr (TmkError) err = NULL;
    IndexFile *file = find_open (old, listed->name);
    if (file == NULL)
      file = file_open (store, repo, listed->name, listed->modified_us, &err);
    if (file != NULL) {
      g_ptr_array_add (files, file);
    } else if (tmk_error_code (err) == TMK_ERR_NOT_FOUND) {
      *vanished = true;
      return true;
    } else if (is_damage (err)) {
      g_string_append_printf (set->skipped, "%s%s", set->skipped->len > 0 ? "; " : "",
                              tmk_error_message (err));
    } else {
      error_propagate (errp, g_steal_pointer (&err));
      return false;
    }
  }
  return true;
}

/* The order matters: packs are published before the index that names them, so with the packs
 * listed last none is missed; and index files before those are removed whose contents they take
 * over, so one that vanished means that there is a newer one. */
static bool
load_once (IndexSet *set, ObjStore *store, const RepoId *repo, const IndexSet *old, bool *vanished,
           TmkError **errp)
{
  g_autoptr (GArray) listing = g_array_new (FALSE, FALSE, sizeof (Listed));
  g_array_set_clear_func (listing, listed_clear);
  g_autoptr (GPtrArray) files = g_ptr_array_new_with_free_func ((GDestroyNotify) file_unref);
  if (!obj_store_list (store, "index", visit_index, listing, errp)
      || !open_files (set, files, listing, store, repo, old, vanished, errp))
    return false;
  if (*vanished)
    return true;
  if (!damage_load (store, set->notes, errp)
      || !obj_store_list (store, "packs", visit_pack, set->packs, errp))
    return false;
  g_array_sort (set->notes, compare_notes);
  g_array_sort (set->packs, compare_packs);
  while (files->len > 0)
    add_member (set, g_ptr_array_steal_index (files, files->len - 1), false);
  return true;
}

IndexSet *
index_set_load (ObjStore *store, const RepoId *repo, IndexSet *old, TmkError **errp)
{
  for (unsigned try = 0; try < TRIES; try++) {
    g_autoptr (IndexSet) set = set_new ();
    bool vanished = false;
    if (!load_once (set, store, repo, old, &vanished, errp))
      return NULL;
    if (!vanished)
      return g_steal_pointer (&set);
  }
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "'%s': its index files change all the time",
             obj_store_location (store));
  error_hint (errp, "try again when fewer backups are running");
  return NULL;
}

/* --- the next set */

/* A copy of `old`, in which the notes and packs may be replaced. */
static IndexSet *
set_copy (const IndexSet *old)
{
  IndexSet *set = g_new0 (IndexSet, 1);
  g_atomic_ref_count_init (&set->refs);
  set->members = g_array_new (FALSE, FALSE, sizeof (Member));
  g_array_set_clear_func (set->members, member_clear);
  set->packs = g_array_ref (old->packs);
  set->notes = g_array_ref (old->notes);
  set->skipped = g_string_new (old->skipped->str);
  set->packs_missing = old->packs_missing;
  for (guint i = 0; i < old->members->len; i++) {
    const Member *from = &g_array_index (old->members, Member, i);
    size_t n = MAX (1, from->file->view.n_packs);
    Member member = { from->file, g_memdup2 (from->there, n * sizeof (bool)) };
    g_atomic_ref_count_inc (&member.file->refs);
    g_array_append_val (set->members, member);
  }
  return set;
}

IndexSet *
index_set_add (IndexSet *old, ObjStore *store, const RepoId *repo, const char *name,
               TmkError **errp)
{
  int64_t newest = old->members->len > 0 ? g_array_index (old->members, Member, 0).file->modified_us
                                         : INT64_MIN;
  IndexFile *file = file_open (store, repo, name, newest, errp);
  if (file == NULL)
    return NULL;
  IndexSet *set = set_copy (old);
  add_member (set, file, true);
  return set;
}

IndexSet *
index_set_add_notes (IndexSet *old, const DamageNote *notes, size_t n)
{
  IndexSet *set = set_copy (old);
  g_array_unref (set->notes);
  set->notes = g_array_copy (old->notes);
  g_array_append_vals (set->notes, notes, (guint) n);
  g_array_sort (set->notes, compare_notes);
  return set;
}

/* --- looking */

bool
index_set_has_pack (const IndexSet *set, const PackName *pack, uint64_t *size)
{
  guint at;
  if (!g_array_binary_search (set->packs, pack, compare_packs, &at))
    return false;
  if (size != NULL)
    *size = g_array_index (set->packs, StoredPack, at).size;
  return true;
}

static bool
is_noted_in (const IndexSet *set, const ObjectId *id, const PackName *pack)
{
  if (set->notes->len == 0)
    return false;
  DamageNote note = { *id, *pack };
  return g_array_binary_search (set->notes, &note, compare_notes, NULL);
}

static int
compare_note_ids (const void *a, const void *b)
{
  return memcmp (a, b, sizeof (ObjectId));
}

bool
index_set_is_noted (const IndexSet *set, const ObjectId *id)
{
  return set->notes->len > 0 && g_array_binary_search (set->notes, id, compare_note_ids, NULL);
}

bool
index_set_is_whole (const IndexSet *set)
{
  return !set->packs_missing && set->skipped->len == 0;
}

static bool
member_counts (const IndexSet *set, const Member *member, const IndexEntry *entry)
{
  if (entry->pack >= member->file->view.n_packs || !member->there[entry->pack])
    return false;
  PackName pack = index_view_pack (&member->file->view, entry->pack, NULL);
  return !is_noted_in (set, &entry->id, &pack);
}

bool
index_set_counts (const IndexSet *set, size_t i, const IndexEntry *entry)
{
  return member_counts (set, &g_array_index (set->members, Member, i), entry);
}

bool
index_set_has (const IndexSet *set, const ObjectId *id)
{
  for (guint i = 0; i < set->members->len; i++) {
    const Member *member = &g_array_index (set->members, Member, i);
    IndexEntry entry;
    if (index_view_find (&member->file->view, id, &entry) && member_counts (set, member, &entry))
      return true;
  }
  return false;
}

/* Is the copy in `places` already? Another index file may know it, too. */
static bool
is_known (const ObjectPlace *places, size_t n, const ObjectPlace *place)
{
  for (size_t i = 0; i < n; i++)
    if (compare_packs (&places[i].pack, &place->pack) == 0 && places[i].offset == place->offset
        && places[i].length == place->length)
      return true;
  return false;
}

size_t
index_set_find (const IndexSet *set, const ObjectId *id, ObjectPlace places[MAX_PLACES])
{
  size_t n = 0, counting = 0;
  for (guint i = 0; i < set->members->len && n < MAX_PLACES; i++) {
    const Member *member = &g_array_index (set->members, Member, i);
    IndexEntry entry;
    if (!index_view_find (&member->file->view, id, &entry))
      continue;
    ObjectPlace place = { .offset = entry.offset,
                          .length = entry.length,
                          .kind = entry.kind,
                          .counts = member_counts (set, member, &entry) };
    place.pack = index_view_pack (&member->file->view, entry.pack, &place.pack_size);
    if (is_known (places, n, &place))
      continue;
    /* Those that count stand before the others. */
    size_t at = place.counts ? counting++ : n;
    memmove (&places[at + 1], &places[at], (n - at) * sizeof places[0]);
    places[at] = place;
    n++;
  }
  return n;
}

size_t
index_set_files (const IndexSet *set)
{
  return set->members->len;
}

const IndexFile *
index_set_file (const IndexSet *set, size_t i)
{
  return g_array_index (set->members, Member, i).file;
}

const char *
index_set_skipped (const IndexSet *set)
{
  return set->skipped->len > 0 ? set->skipped->str : NULL;
}

const char *
index_set_vanished (const IndexSet *set)
{
  for (size_t i = 0; i < index_set_files (set); i++)
    if (!index_view_is_there (&index_set_file (set, i)->view))
      return index_set_file (set, i)->name;
  return NULL;
}
