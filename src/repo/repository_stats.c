/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/repository_stats.c: what there is in a repository: tmk_repository_stats(). */
#include "repo/points.h"
#include "repo/repo_priv.h"
#include "repo/repository.h"

static void
count_points (const PointSet *points, TmkRepositoryStats *stats)
{
  g_autoptr (GHashTable) domains = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < points->manifests->len; i++) {
    const Manifest *manifest = points->manifests->pdata[i];
    g_hash_table_add (domains, manifest->uuid != NULL ? manifest->uuid : manifest->domain);
    stats->disks += manifest->n_disks;
    for (size_t j = 0; j < manifest->n_disks; j++)
      stats->logical += manifest->disks[j].used;
    stats->files += manifest->n_files;
    for (size_t j = 0; j < manifest->n_files; j++)
      stats->logical += manifest->files[j].size;
  }
  stats->points = points->manifests->len;
  stats->domains = g_hash_table_size (domains);
}

/* Entries of all index files, in the order of their ids. */
typedef struct {
  const IndexSet *set;
  size_t n;
  uint64_t *next; /* of each file */
} Merge;

/* The file whose next entry has the lowest id, or -1. Entries that make no sense are passed. */
static gssize
merge_lowest (Merge *merge, IndexEntry *lowest)
{
  gssize which = -1;
  for (size_t i = 0; i < merge->n; i++) {
    const IndexView *view = &index_set_file (merge->set, i)->view;
    IndexEntry entry;
    while (merge->next[i] < view->n_entries && !index_view_entry (view, merge->next[i], &entry))
      merge->next[i]++;
    if (merge->next[i] < view->n_entries
        && (which < 0 || memcmp (&entry.id, &lowest->id, sizeof entry.id) < 0)) {
      which = (gssize) i;
      *lowest = entry;
    }
  }
  return which;
}

/* An object may be in several index files, as a copy or because they were merged; it is one. */
static uint64_t
count_objects (const IndexSet *set)
{
  size_t n = index_set_files (set);
  g_autofree uint64_t *next = g_new0 (uint64_t, n + 1);
  Merge merge = { set, n, next };
  IndexEntry entry;
  ObjectId last = { 0 };
  uint64_t count = 0;
  for (gssize i; (i = merge_lowest (&merge, &entry)) >= 0; next[i]++) {
    if (object_id_equal (&entry.id, &last) || !index_set_counts (set, (size_t) i, &entry))
      continue;
    last = entry.id;
    count++;
  }
  return count;
}

typedef struct {
  uint64_t objects, bytes;
} Sum;

static bool
visit_sum (const ObjInfo *info, void *data)
{
  Sum *sum = data;
  sum->objects++;
  sum->bytes += info->size;
  return true;
}

static bool
sum_store (ObjStore *store, TmkRepositoryStats *stats, TmkError **errp)
{
  Sum packs = { 0 }, index = { 0 }, others = { 0 };
  if (!obj_store_list (store, "packs", visit_sum, &packs, errp)
      || !obj_store_list (store, "index", visit_sum, &index, errp)
      || !obj_store_list (store, "points", visit_sum, &others, errp)
      || !obj_store_list (store, "leases", visit_sum, &others, errp)
      || !obj_store_list (store, "damaged", visit_sum, &others, errp))
    return false;
  g_autoptr (ObjReader) config = obj_store_open (store, "config", errp);
  if (config == NULL)
    return false;
  stats->packs = packs.objects;
  stats->pack_bytes = packs.bytes;
  stats->index_files = index.objects;
  stats->index_bytes = index.bytes;
  stats->other_bytes = others.bytes + obj_reader_size (config);
  stats->bytes = stats->pack_bytes + stats->index_bytes + stats->other_bytes;
  return true;
}

bool
tmk_repository_stats (TmkRepository *repository, TmkRepositoryStats *stats, TmkError **errp)
{
  Repo *repo = repository_repo (repository);
  TmkRepositoryStats found = { 0 };
  g_autoptr (PointSet) points = points_load (repo, NULL, errp);
  if (points == NULL || !repo_refresh (repo, errp) || !sum_store (repo_store (repo), &found, errp))
    return false;
  g_autoptr (IndexSet) set = repo_index (repo, errp);
  if (set == NULL)
    return false;
  count_points (points, &found);
  found.objects = count_objects (set);
  *stats = found;
  return true;
}
