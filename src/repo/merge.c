/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/merge.c: one index file out of many small ones, so that look-ups stay quick. See
 * repo_merge_index() of repo/repo_priv.h. No state; any thread.
 *
 * The new file is published before the old ones are removed, so what they know is known at any
 * time; two who merge at once leave two files that say the same. Entries of packs that are not
 * there are kept: a pack that is gone today may be a folder that is not mounted. Of an object's
 * copies one that counts is kept, the newest of them; without one, the newest.
 */
#include "repo/repo_priv.h"

#include "repo/index_write.h"

#define DOMAIN "repo"
#define FILES_MAX 16
#define FILES_KEPT 8 /* of the larger ones, at most, when there are more than FILES_MAX */

typedef struct {
  size_t number; /* in the set */
  const IndexView *view;
  uint64_t at;
  bool ended;
  IndexEntry entry;
  uint32_t *packs; /* its packs' numbers in the new file */
} Input;

typedef struct {
  IndexSource source;
  const IndexSet *set; /* borrowed */
  Input *inputs;       /* the newest first */
  size_t n;
} Merge;

/* Goes to the input's next entry that makes sense. */
static void
advance (Input *input)
{
  while (input->at < input->view->n_entries)
    if (index_view_entry (input->view, input->at++, &input->entry))
      return;
  input->ended = true;
}

static void
merge_rewind (IndexSource *source)
{
  Merge *merge = (Merge *) source;
  for (size_t i = 0; i < merge->n; i++) {
    merge->inputs[i].at = 0;
    merge->inputs[i].ended = false;
    advance (&merge->inputs[i]);
  }
}

/* There are few inputs, so looking at each is as quick as a heap. */
static bool
take_least (Merge *merge, IndexEntry *entry)
{
  const Input *least = NULL;
  for (size_t i = 0; i < merge->n; i++) {
    const Input *input = &merge->inputs[i];
    if (!input->ended
        && (least == NULL || memcmp (&input->entry.id, &least->entry.id, sizeof (ObjectId)) < 0))
      least = input;
  }
  if (least == NULL)
    return false;
  ObjectId id = least->entry.id;
  bool chosen = false, counts = false;
  for (size_t i = 0; i < merge->n; i++) {
    Input *input = &merge->inputs[i];
    if (input->ended || !object_id_equal (&input->entry.id, &id))
      continue;
    bool better = !counts && index_set_counts (merge->set, input->number, &input->entry);
    if (!chosen || better) {
      *entry = input->entry;
      entry->pack = input->packs[input->entry.pack];
      chosen = true;
      counts = better;
    }
    advance (input);
  }
  return true;
}

static bool
merge_next (IndexSource *source, IndexEntry *entry)
{
  return take_least ((Merge *) source, entry);
}

/* --- what to merge */

static int
compare_sizes (const void *a, const void *b, void *data)
{
  const IndexSet *set = data;
  uint64_t x = index_set_file (set, *(const size_t *) a)->view.n_entries;
  uint64_t y = index_set_file (set, *(const size_t *) b)->view.n_entries;
  return x < y ? -1 : x > y;
}

/* The smallest files: so many that few are left, and further ones as long as they are not much
 * larger than what has come together: so an entry is written again and again only as often as the
 * whole doubles. Numbers in the set, ascending. */
static GArray *
choose (const IndexSet *set)
{
  size_t n = index_set_files (set);
  GArray *numbers = g_array_new (FALSE, FALSE, sizeof (size_t));
  for (size_t i = 0; i < n; i++)
    g_array_append_val (numbers, i);
  g_array_sort_with_data (numbers, compare_sizes, (void *) set);
  uint64_t total = 0;
  guint taken = 0;
  for (; taken < n; taken++) {
    uint64_t size = index_set_file (set, g_array_index (numbers, size_t, taken))->view.n_entries;
    if (taken >= n - FILES_KEPT && size > total)
      break;
    total += size;
  }
  g_array_set_size (numbers, taken);
  return numbers;
}

static int
compare_numbers (const void *a, const void *b)
{
  size_t x = *(const size_t *) a, y = *(const size_t *) b;
  return x < y ? -1 : x > y;
}

/* --- merging */

/* One that could not be read on is not in the new file, or not all of it. */
static bool
check_still_there (const Merge *merge, TmkError **errp)
{
  for (size_t i = 0; i < merge->n; i++)
    if (!index_view_is_there (merge->inputs[i].view)) {
      error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s' cannot be read any more",
                 index_set_file (merge->set, merge->inputs[i].number)->name);
      return false;
    }
  return true;
}

/* A damaged file must not be spread over a new one with a checksum that matches. */
static bool
check_inputs (const Merge *merge, TmkError **errp)
{
  for (size_t i = 0; i < merge->n; i++)
    if (!index_view_check (merge->inputs[i].view, errp)) {
      error_prefix (errp, "'%s'", index_set_file (merge->set, merge->inputs[i].number)->name);
      return false;
    }
  return true;
}

static guint
pack_hash (const void *pack)
{
  guint hash;
  memcpy (&hash, pack, sizeof hash);
  return hash;
}

static gboolean
pack_equal (const void *a, const void *b)
{
  return memcmp (a, b, PACK_NAME_SIZE) == 0;
}

/* All packs of the inputs, each once; and their numbers for each input. */
static GArray *
collect_packs (Merge *merge)
{
  GArray *packs = g_array_new (FALSE, FALSE, sizeof (IndexPack));
  g_autoptr (GHashTable) numbers = g_hash_table_new_full (pack_hash, pack_equal, g_free, NULL);
  for (size_t i = 0; i < merge->n; i++) {
    Input *input = &merge->inputs[i];
    input->packs = g_new (uint32_t, MAX (1, input->view->n_packs));
    for (uint32_t p = 0; p < input->view->n_packs; p++) {
      IndexPack pack;
      pack.name = index_view_pack (input->view, p, &pack.size);
      void *number;
      if (!g_hash_table_lookup_extended (numbers, &pack.name, NULL, &number)) {
        number = GUINT_TO_POINTER (packs->len);
        g_hash_table_insert (numbers, g_memdup2 (&pack.name, sizeof pack.name), number);
        g_array_append_val (packs, pack);
      }
      input->packs[p] = GPOINTER_TO_UINT (number);
    }
  }
  return packs;
}

static bool
write_merged (Repo *repo, Merge *merge, TmkError **errp)
{
  g_autoptr (GArray) packs = collect_packs (merge);
  uint64_t most = 0, size;
  for (size_t i = 0; i < merge->n; i++)
    most += merge->inputs[i].view->n_entries;
  g_autofree char *name = NULL;
  return index_write (repo_store (repo), &repo_config (repo)->id,
                      (const IndexPack *) (void *) packs->data, packs->len, &merge->source, most,
                      &name, &size, errp);
}

static bool
merge_files (Repo *repo, const IndexSet *set, const GArray *numbers, TmkError **errp)
{
  Merge merge = { .source = { merge_rewind, merge_next }, .set = set, .n = numbers->len };
  merge.inputs = g_new0 (Input, merge.n);
  for (size_t i = 0; i < merge.n; i++) {
    merge.inputs[i].number = g_array_index (numbers, size_t, i);
    merge.inputs[i].view = &index_set_file (set, merge.inputs[i].number)->view;
  }
  bool ok = check_inputs (&merge, errp) && write_merged (repo, &merge, errp)
            && check_still_there (&merge, errp);
  for (size_t i = 0; i < merge.n; i++) {
    if (ok)
      ok = obj_store_remove (repo_store (repo), index_set_file (set, merge.inputs[i].number)->name,
                             errp);
    g_free (merge.inputs[i].packs);
  }
  g_free (merge.inputs);
  return ok;
}

bool
repo_merge_index (Repo *repo, TmkError **errp)
{
  g_autoptr (IndexSet) set = repo_index (repo, errp);
  if (set == NULL)
    return false;
  if (index_set_files (set) <= FILES_MAX)
    return true;
  g_autoptr (GArray) numbers = choose (set);
  g_array_sort (numbers, compare_numbers); /* the newest first again */
  return merge_files (repo, set, numbers, errp) && repo_refresh (repo, errp);
}
