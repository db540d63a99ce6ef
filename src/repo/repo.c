/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/repo.c: making and opening a repository, and what it holds. See repo/repo.h.
 *
 * Threads: `set` is replaced, never changed. `lock` is held for a moment to take or replace it;
 * `loading`, which is taken before, while the next set is made, so that none is lost.
 */
#include "repo/repo_priv.h"

#include "repo/damage.h"
#include "repo/record.h"

#include "util/bytes.h"

#include <errno.h>
#include <sys/random.h>

#define DOMAIN "repo"
#define CONFIG "config"
#define SHORT_ID 8

struct Repo {
  ObjStore *store;
  RepoConfig config;
  char short_id[SHORT_ID + 1];
  GMutex loading;
  GMutex lock;
  IndexSet *set; /* under `lock`; NULL before it is needed */
};

/* --- making one */

void
repo_config_default (RepoConfig *config)
{
  *config = (RepoConfig){ .chunk_size = CHUNK_SIZE_DEFAULT,
                          .pack_size = PACK_SIZE_DEFAULT,
                          .codec = CODEC_ZSTD,
                          .level = ZSTD_LEVEL_DEFAULT };
}

static bool
check_config (const RepoConfig *config, TmkError **errp)
{
  if (!chunk_size_is_valid (config->chunk_size)) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "chunks cannot have %u bytes", config->chunk_size);
    error_hint (errp, "give a power of two from 64 KiB to 4 MiB");
    return false;
  }
  if (config->pack_size == 0 || config->pack_size > PACK_SIZE_MAX) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "packs cannot have %u bytes", config->pack_size);
    error_hint (errp, "give at most 1 GiB");
    return false;
  }
  bool level_ok = config->codec == CODEC_PLAIN
                  || (config->level != 0 && config->level >= ZSTD_LEVEL_MIN
                      && config->level <= ZSTD_LEVEL_MAX);
  if ((config->codec != CODEC_PLAIN && config->codec != CODEC_ZSTD) || !level_ok) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "there is no compression of codec %u, level %d",
               (unsigned) config->codec, config->level);
    error_hint (errp, "give 'none' or 'zstd:LEVEL' with a level from %d to %d, not 0",
                ZSTD_LEVEL_MIN, ZSTD_LEVEL_MAX);
    return false;
  }
  return true;
}

/* False stops. */
static bool
visit_any (const ObjInfo *info, void *data)
{
  *(bool *) data = true;
  return false;
}

/* Packs without a config are a damaged repository: a new config would make them another's. */
static bool
check_empty (ObjStore *store, TmkError **errp)
{
  static const char *const folders[] = { "packs", "index", "points" };
  for (size_t i = 0; i < G_N_ELEMENTS (folders); i++) {
    bool any = false;
    if (!obj_store_list (store, folders[i], visit_any, &any, errp))
      return false;
    if (any) {
      error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0, "'%s' is not empty: it has %s",
                 obj_store_location (store), folders[i]);
      return false;
    }
  }
  return true;
}

bool
repo_create (ObjStore *store, RepoConfig *config, TmkError **errp)
{
  RepoConfig made = *config;
  if (!check_config (&made, errp) || !check_empty (store, errp)
      || !obj_store_now (store, &made.created_us, errp))
    return false;
  if (getentropy (&made.id, sizeof made.id) != 0) {
    error_set_errno (errp, DOMAIN, errno, "no random numbers");
    return false;
  }
  g_autofree char *json = repo_config_format (&made);
  if (!record_publish (store, CONFIG, OBJECT_CONFIG, CODEC_PLAIN, 0, json, strlen (json), errp))
    return false;
  *config = made;
  return true;
}

/* --- opening */

static bool
load_config (Repo *repo, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  size_t size;
  g_autofree unsigned char *json = record_load (repo->store, CONFIG, OBJECT_CONFIG, &size, &err);
  if (json == NULL && tmk_error_code (err) == TMK_ERR_NOT_FOUND) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, ENOENT, "'%s' is no repository",
               repo_location (repo));
    error_hint (errp, "make one with 'tidemark init', or give another folder");
    return false;
  }
  if (json == NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  if (repo_config_parse ((const char *) json, size, &repo->config, errp))
    return true;
  error_prefix (errp, "'%s'", repo_location (repo));
  return false;
}

Repo *
repo_open (ObjStore *store, TmkError **errp)
{
  g_autoptr (Repo) repo = g_new0 (Repo, 1);
  repo->store = store;
  g_mutex_init (&repo->loading);
  g_mutex_init (&repo->lock);
  if (!load_config (repo, errp))
    return NULL;
  bytes_to_hex (repo->config.id.bytes, SHORT_ID / 2, repo->short_id);
  return g_steal_pointer (&repo);
}

void
repo_free (Repo *repo)
{
  if (repo == NULL)
    return;
  index_set_unref (repo->set);
  obj_store_free (repo->store);
  g_mutex_clear (&repo->loading);
  g_mutex_clear (&repo->lock);
  g_free (repo);
}

const RepoConfig *
repo_config (const Repo *repo)
{
  return &repo->config;
}

const char *
repo_location (const Repo *repo)
{
  return obj_store_location (repo->store);
}

ObjStore *
repo_store (Repo *repo)
{
  return repo->store;
}

const char *
repo_short_id (const Repo *repo)
{
  return repo->short_id;
}

/* --- what it holds */

/* The present set, or NULL. */
static IndexSet *
current (Repo *repo)
{
  g_mutex_lock (&repo->lock);
  IndexSet *set = repo->set != NULL ? index_set_ref (repo->set) : NULL;
  g_mutex_unlock (&repo->lock);
  return set;
}

/* Takes `set`. Under `loading`. */
static void
replace (Repo *repo, IndexSet *set)
{
  g_mutex_lock (&repo->lock);
  IndexSet *old = g_steal_pointer (&repo->set);
  repo->set = set;
  g_mutex_unlock (&repo->lock);
  index_set_unref (old);
}

/* Loads a set; under `loading`. */
static bool
load (Repo *repo, TmkError **errp)
{
  g_autoptr (IndexSet) old = current (repo);
  IndexSet *set = index_set_load (repo->store, &repo->config.id, old, errp);
  if (set == NULL)
    return false;
  replace (repo, set);
  return true;
}

bool
repo_refresh (Repo *repo, TmkError **errp)
{
  g_mutex_lock (&repo->loading);
  bool ok = load (repo, errp);
  g_mutex_unlock (&repo->loading);
  return ok;
}

IndexSet *
repo_index (Repo *repo, TmkError **errp)
{
  IndexSet *set = current (repo);
  if (set != NULL)
    return set;
  g_mutex_lock (&repo->loading);
  set = current (repo); /* another thread may have been quicker */
  if (set == NULL && load (repo, errp))
    set = current (repo);
  g_mutex_unlock (&repo->loading);
  return set;
}

bool
repo_index_add (Repo *repo, const char *name, TmkError **errp)
{
  g_autoptr (IndexSet) old = NULL;
  g_mutex_lock (&repo->loading);
  bool ok;
  if ((old = current (repo)) == NULL) {
    ok = load (repo, errp);
  } else {
    IndexSet *set = index_set_add (old, repo->store, &repo->config.id, name, errp);
    ok = set != NULL;
    if (ok)
      replace (repo, set);
  }
  g_mutex_unlock (&repo->loading);
  return ok;
}

bool
repo_has (Repo *repo, const ObjectId *id, bool *found, TmkError **errp)
{
  g_autoptr (IndexSet) set = repo_index (repo, errp);
  if (set == NULL)
    return false;
  *found = index_set_has (set, id);
  return true;
}

/* --- damage */

/* A note for each copy that counts; for an object that has none, one that says so. */
static GArray *
make_notes (const IndexSet *set, const ObjectId *ids, size_t n)
{
  GArray *notes = g_array_new (FALSE, FALSE, sizeof (DamageNote));
  for (size_t i = 0; i < n; i++) {
    ObjectPlace places[MAX_PLACES];
    size_t n_places = index_set_find (set, &ids[i], places), counting = 0;
    for (; counting < n_places && places[counting].counts; counting++) {
      DamageNote note = { ids[i], places[counting].pack };
      g_array_append_val (notes, note);
    }
    DamageNote none = { .id = ids[i] };
    if (counting == 0 && !index_set_is_noted (set, &ids[i]))
      g_array_append_val (notes, none);
  }
  return notes;
}

bool
repo_note_copies (Repo *repo, const DamageNote *notes, size_t n, TmkError **errp)
{
  g_autoptr (IndexSet) old = repo_index (repo, errp);
  if (old == NULL)
    return false;
  if (n == 0)
    return true;
  if (!damage_publish (repo->store, notes, n, errp))
    return false;
  g_mutex_lock (&repo->loading);
  g_autoptr (IndexSet) now = current (repo);
  replace (repo, index_set_add_notes (now, notes, n));
  g_mutex_unlock (&repo->loading);
  return true;
}

bool
repo_note_damage (Repo *repo, const ObjectId *ids, size_t n, TmkError **errp)
{
  g_autoptr (IndexSet) set = repo_index (repo, errp);
  if (set == NULL)
    return false;
  g_autoptr (GArray) notes = make_notes (set, ids, n);
  return repo_note_copies (repo, (const DamageNote *) (void *) notes->data, notes->len, errp);
}
