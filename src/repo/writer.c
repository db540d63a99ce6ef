/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/writer.c: a session of adding to a repository, see repo/writer.h: its lease, who stores
 * what, the index of what was stored, and the commit.
 *
 * The lease is taken before the index is looked at: what is found there cannot be given back any
 * more. An object that one packer has claimed counts as stored for all others at once, so if it
 * then is not, the writer is broken for good, and commits nothing.
 */
#include "repo/writer_priv.h"

#include "repo/record.h"

#define DOMAIN "repo"

RepoWriter *
repo_writer_new (Repo *repo, TmkError **errp)
{
  g_autoptr (RepoWriter) writer = g_new0 (RepoWriter, 1);
  writer->repo = repo;
  writer->publish_entries = PUBLISH_ENTRIES;
  g_mutex_init (&writer->publishing);
  g_mutex_init (&writer->lock);
  writer->packs = g_array_new (FALSE, FALSE, sizeof (IndexPack));
  writer->entries = g_array_new (FALSE, FALSE, sizeof (IndexEntry));
  writer->lease = lease_new (repo_store (repo), errp);
  if (writer->lease == NULL || !repo_refresh (repo, errp))
    return NULL;
  return g_steal_pointer (&writer);
}

void
repo_writer_free (RepoWriter *writer)
{
  if (writer == NULL)
    return;
  lease_free (writer->lease);
  id_set_clear (&writer->claims);
  g_array_unref (writer->packs);
  g_array_unref (writer->entries);
  tmk_error_free (writer->why);
  g_mutex_clear (&writer->publishing);
  g_mutex_clear (&writer->lock);
  g_free (writer);
}

void
repo_writer_touch (RepoWriter *writer)
{
  lease_touch (writer->lease);
}

void
repo_writer_stats (RepoWriter *writer, RepoWriterStats *stats)
{
  g_mutex_lock (&writer->lock);
  *stats = writer->stats;
  g_mutex_unlock (&writer->lock);
}

/* --- for packers */

bool
writer_check (RepoWriter *writer, TmkError **errp)
{
  if (!atomic_load_explicit (&writer->broken, memory_order_relaxed))
    return true;
  g_mutex_lock (&writer->lock);
  TmkError *why = writer->why != NULL ? error_copy (writer->why) : NULL;
  g_mutex_unlock (&writer->lock);
  if (why != NULL) {
    error_propagate (errp, why);
    return false;
  }
  error_set (errp, DOMAIN, TMK_ERR_FAILED, 0,
             "'%s': something could not be stored earlier in this backup",
             repo_location (writer->repo));
  error_hint (errp, "run the backup again");
  return false;
}

void
writer_break (RepoWriter *writer, const TmkError *why)
{
  g_mutex_lock (&writer->lock);
  if (writer->why == NULL && why != NULL)
    writer->why = error_copy (why);
  g_mutex_unlock (&writer->lock);
  atomic_store (&writer->broken, true);
}

bool
writer_claim (RepoWriter *writer, const ObjectId *id, bool *mine, TmkError **errp)
{
  for (;;) {
    unsigned generation = atomic_load (&writer->generation);
    bool found;
    if (!repo_has (writer->repo, id, &found, errp))
      return false;
    if (found) {
      *mine = false;
      return true;
    }
    /* What is published leaves the claims after it has come into the index: where that happened in
     * between, it may be in neither as we saw them. */
    g_mutex_lock (&writer->lock);
    bool same = generation == atomic_load (&writer->generation);
    if (same)
      *mine = id_set_add (&writer->claims, id);
    g_mutex_unlock (&writer->lock);
    if (same)
      return true;
  }
}

void
writer_count (RepoWriter *writer, ObjectKind kind, size_t plain, uint32_t stored)
{
  g_mutex_lock (&writer->lock);
  if (kind == OBJECT_NODE || kind == OBJECT_DELTA) {
    writer->stats.nodes++;
    writer->stats.metadata += stored;
  } else {
    writer->stats.objects++;
    writer->stats.plain += plain;
    writer->stats.stored += stored;
  }
  g_mutex_unlock (&writer->lock);
}

void
writer_pack_begun (RepoWriter *writer)
{
  g_mutex_lock (&writer->lock);
  writer->open_packs++;
  g_mutex_unlock (&writer->lock);
}

void
writer_pack_joined (RepoWriter *writer)
{
  g_mutex_lock (&writer->lock);
  writer->open_packs--;
  g_mutex_unlock (&writer->lock);
}

void
writer_pack_given_up (RepoWriter *writer)
{
  atomic_store (&writer->broken, true);
  g_mutex_lock (&writer->lock);
  writer->open_packs--;
  g_mutex_unlock (&writer->lock);
}

bool
writer_pack_finished (RepoWriter *writer, const IndexPack *pack, const unsigned char *table,
                      uint32_t n, TmkError **errp)
{
  g_mutex_lock (&writer->lock);
  uint32_t number = writer->packs->len;
  g_array_append_vals (writer->packs, pack, 1);
  for (uint32_t i = 0; i < n; i++) {
    PackEntry from;
    bool ok = pack_entry_parse (table + (size_t) i * PACK_ENTRY_SIZE, pack->size, &from, NULL);
    g_assert (ok); /* it is our own */
    IndexEntry entry = {
      .id = from.id, .pack = number, .length = from.length, .offset = from.offset, .kind = from.kind
    };
    g_array_append_val (writer->entries, entry);
  }
  writer->open_packs--;
  writer->stats.packs++;
  writer->stats.framing += PACK_HEADER_SIZE + PACK_TRAILER_SIZE + (uint64_t) n * PACK_ENTRY_SIZE;
  bool many = writer->entries->len >= writer->publish_entries;
  g_mutex_unlock (&writer->lock);
  return !many || repo_writer_publish_index (writer, errp);
}

bool
repo_writer_is_damaged (RepoWriter *writer, const ObjectId *id)
{
  g_autoptr (IndexSet) set = repo_index (writer->repo, NULL);
  if (set == NULL) /* nothing is known to be well */
    return true;
  bool in_doubt = !index_set_is_whole (set) || index_set_is_noted (set, id);
  return in_doubt && !index_set_has (set, id);
}

void
repo_writer_distrust_nodes (RepoWriter *writer)
{
  atomic_store (&writer->distrusts_nodes, true);
}

/* --- the index */

/* Puts back what could not be published, before what has come since. Under `lock`. */
static void
put_back (RepoWriter *writer, GArray *packs, GArray *entries)
{
  for (guint i = 0; i < writer->entries->len; i++) {
    IndexEntry *entry = &g_array_index (writer->entries, IndexEntry, i);
    entry->pack += packs->len;
    g_array_append_val (entries, *entry);
  }
  g_array_append_vals (packs, writer->packs->data, writer->packs->len);
  g_array_unref (writer->packs);
  g_array_unref (writer->entries);
  writer->packs = packs;
  writer->entries = entries;
}

/* Under `publishing`. */
static bool
publish (RepoWriter *writer, GArray *packs, GArray *entries, TmkError **errp)
{
  uint64_t size;
  g_autofree char *name = NULL;
  if (!index_write_array (repo_store (writer->repo), &repo_config (writer->repo)->id,
                          (IndexPack *) (void *) packs->data, packs->len,
                          (IndexEntry *) (void *) entries->data, entries->len, &name, &size, errp)
      || !repo_index_add (writer->repo, name, errp))
    return false;
  g_mutex_lock (&writer->lock);
  atomic_fetch_add (&writer->generation, 1);
  writer->stats.framing += size;
  for (guint i = 0; i < entries->len; i++)
    (void) id_set_remove (&writer->claims, &g_array_index (entries, IndexEntry, i).id);
  g_mutex_unlock (&writer->lock);
  return true;
}

bool
repo_writer_publish_index (RepoWriter *writer, TmkError **errp)
{
  lease_touch (writer->lease);
  g_mutex_lock (&writer->publishing);
  g_mutex_lock (&writer->lock);
  GArray *packs = g_steal_pointer (&writer->packs), *entries = g_steal_pointer (&writer->entries);
  writer->packs = g_array_new (FALSE, FALSE, sizeof (IndexPack));
  writer->entries = g_array_new (FALSE, FALSE, sizeof (IndexEntry));
  g_mutex_unlock (&writer->lock);

  bool ok = packs->len == 0 || publish (writer, packs, entries, errp);
  if (ok) {
    g_array_unref (packs);
    g_array_unref (entries);
  } else {
    g_mutex_lock (&writer->lock);
    put_back (writer, packs, entries);
    g_mutex_unlock (&writer->lock);
  }
  g_mutex_unlock (&writer->publishing);
  return ok;
}

/* --- the commit */

static bool
check_tree (RepoWriter *writer, const char *what, const ManifestDisk *disk, TmkError **errp)
{
  bool found = object_id_is_zero (&disk->root);
  if (!found && !repo_has (writer->repo, &disk->root, &found, errp))
    return false;
  if (!found)
    error_set (errp, DOMAIN, TMK_ERR_INTERNAL, 0, "the tree of %s '%s' was not stored", what,
               disk->name);
  return found;
}

/* Bugs of ours that would make a point which cannot be restored. */
static bool
check_sound (RepoWriter *writer, const Manifest *manifest, TmkError **errp)
{
  g_mutex_lock (&writer->lock);
  unsigned open_packs = writer->open_packs;
  g_mutex_unlock (&writer->lock);
  if (open_packs > 0) {
    error_set (errp, DOMAIN, TMK_ERR_INTERNAL, 0, "%u packs of this backup are not finished",
               open_packs);
    return false;
  }
  for (size_t i = 0; i < manifest->n_disks; i++)
    if (!check_tree (writer, "disk", &manifest->disks[i], errp))
      return false;
  for (size_t i = 0; i < manifest->n_files; i++)
    if (!check_tree (writer, "file", &manifest->files[i].content, errp))
      return false;
  return true;
}

bool
repo_writer_commit (RepoWriter *writer, const Manifest *manifest, TmkError **errp)
{
  const RepoConfig *config = repo_config (writer->repo);
  g_autofree char *name = g_strconcat ("points/", manifest->id, NULL);
  g_autofree char *json = manifest_format (manifest);
  /* A point that nobody could read would be worse than none. */
  g_autoptr (TmkError) unreadable = NULL;
  g_autoptr (Manifest) again = manifest_parse (json, strlen (json), &unreadable);
  if (again == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_INTERNAL, 0, "the new point would be unreadable: %s",
               tmk_error_message (unreadable));
    return false;
  }
  if (!writer_check (writer, errp) || !repo_writer_publish_index (writer, errp)
      || !check_sound (writer, manifest, errp) || !lease_check (writer->lease, errp)
      || !record_publish (repo_store (writer->repo), name, OBJECT_POINT, config->codec,
                          config->level, json, strlen (json), errp))
    return false;
  /* The point is there; if this does not succeed, the next backup will do it. */
  (void) repo_merge_index (writer->repo, NULL);
  return true;
}
