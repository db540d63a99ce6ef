/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/repository.c: <tidemark/repository.h>: making and opening repositories, their points. See
 * repository_diff.c and repository_stats.c for the rest. One thread at a time per object.
 */
#include "repo/repository.h"

#include "repo/points.h"
#include "repo/verify.h"

#include "util/bytes.h"

#define DOMAIN "repo"

struct TmkRepository {
  Repo *repo;
  char id[2 * REPO_ID_SIZE + 1];
  char *compression;
};

Repo *
repository_repo (TmkRepository *repository)
{
  return repository->repo;
}

/* ---- making and opening ------------------------------------------------------------------- */

static bool
parse_compression (const char *text, RepoConfig *config, TmkError **errp)
{
  gint64 level = ZSTD_LEVEL_DEFAULT;
  if (g_str_equal (text, "none")) {
    config->codec = CODEC_PLAIN;
    config->level = 0;
    return true;
  }
  bool ok = g_str_equal (text, "zstd");
  if (g_str_has_prefix (text, "zstd:"))
    ok = g_ascii_string_to_signed (text + strlen ("zstd:"), 10, ZSTD_LEVEL_MIN, ZSTD_LEVEL_MAX,
                                   &level, NULL)
         && level != 0;
  if (!ok) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "'%s' is no compression", text);
    error_hint (errp, "give 'none', 'zstd' or 'zstd:LEVEL' with a level from %d to %d, not 0",
                ZSTD_LEVEL_MIN, ZSTD_LEVEL_MAX);
    return false;
  }
  config->codec = CODEC_ZSTD;
  config->level = (int) level;
  return true;
}

static bool
take_options (const TmkRepositoryOptions *options, RepoConfig *config, TmkError **errp)
{
  repo_config_default (config);
  if (options == NULL)
    return true;
  if (options->chunk_size != 0 && !chunk_size_is_valid (options->chunk_size)) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "chunks cannot have %" G_GUINT64_FORMAT " bytes",
               options->chunk_size);
    error_hint (errp, "give a power of two from 64 KiB to 4 MiB");
    return false;
  }
  if (options->chunk_size != 0)
    config->chunk_size = (uint32_t) options->chunk_size;
  return options->compression == NULL || parse_compression (options->compression, config, errp);
}

/* Takes `store`. */
static TmkRepository *
open_store (ObjStore *store, TmkError **errp)
{
  TmkError *err = NULL;
  Repo *repo = repo_open (store, &err);
  if (repo == NULL) {
    if (tmk_error_code (err) == TMK_ERR_DAMAGED && tmk_error_hint (err) == NULL)
      error_hint (&err, "put a copy of the file back in its place; it has never changed since"
                        " 'tidemark init'");
    error_propagate (errp, err);
    return NULL;
  }
  TmkRepository *repository = g_new0 (TmkRepository, 1);
  const RepoConfig *config = repo_config (repo);
  repository->repo = repo;
  bytes_to_hex (config->id.bytes, REPO_ID_SIZE, repository->id);
  repository->compression = config->codec == CODEC_PLAIN
                                ? g_strdup ("none")
                                : g_strdup_printf ("zstd:%d", config->level);
  return repository;
}

TmkRepository *
tmk_repository_init (const char *path, const TmkRepositoryOptions *options, TmkError **errp)
{
  RepoConfig config;
  if (!take_options (options, &config, errp)) /* before anything is made */
    return NULL;
  g_autoptr (ObjStore) store = obj_store_open_folder (path, true, errp);
  if (store == NULL || !repo_create (store, &config, errp))
    return NULL;
  return open_store (g_steal_pointer (&store), errp);
}

/* For tests: "N", or "N,after", is the operation of the store that fails; see objstore.h. */
static ObjStore *
make_faulty (ObjStore *store)
{
  const char *where = g_getenv ("TIDEMARK_TEST_STORE_FAILS_AT");
  if (where == NULL)
    return store;
  bool after = g_str_has_suffix (where, ",after");
  return obj_store_new_faulty (store, g_ascii_strtoull (where, NULL, 10), after, false);
}

TmkRepository *
tmk_repository_open (const char *path, TmkError **errp)
{
  TmkError *err = NULL;
  ObjStore *store = obj_store_open_folder (path, false, &err);
  if (store != NULL)
    return open_store (make_faulty (store), errp);
  if (tmk_error_errno (err) == ENOTDIR)
    error_hint (&err, "a repository is a folder: give another one");
  else if (tmk_error_code (err) == TMK_ERR_NOT_FOUND)
    error_hint (&err, "make a repository there with 'tidemark init -r %s'", path);
  error_propagate (errp, err);
  return NULL;
}

void
tmk_repository_free (TmkRepository *repository)
{
  if (repository == NULL)
    return;
  repo_free (repository->repo);
  g_free (repository->compression);
  g_free (repository);
}

const char *
tmk_repository_id (const TmkRepository *repository)
{
  return repository->id;
}

const char *
tmk_repository_location (const TmkRepository *repository)
{
  return repo_location (repository->repo);
}

uint64_t
tmk_repository_chunk_size (const TmkRepository *repository)
{
  return repo_config (repository->repo)->chunk_size;
}

const char *
tmk_repository_compression (const TmkRepository *repository)
{
  return repository->compression;
}

/* ---- points ------------------------------------------------------------------------------- */

/* A list and everything in it. */
typedef struct {
  TmkPointList list; /* first: what callers see */
  GPtrArray *blocks; /* whatever else was allocated */
} OwnedList;

static void *
alloc (OwnedList *owned, size_t size)
{
  void *block = g_malloc0 (MAX (size, 1));
  g_ptr_array_add (owned->blocks, block);
  return block;
}

static const char *
copy_string (OwnedList *owned, const char *s)
{
  if (s == NULL)
    return NULL;
  char *copy = g_strdup (s);
  g_ptr_array_add (owned->blocks, copy);
  return copy;
}

static const TmkPointDisk *
describe_disk (OwnedList *owned, const ManifestDisk *from)
{
  TmkPointDisk *disk = alloc (owned, sizeof *disk);
  disk->name = copy_string (owned, from->name);
  disk->mode = copy_string (owned, from->mode != NULL ? from->mode : "full");
  disk->reason = copy_string (owned, from->reason);
  disk->base_point = copy_string (owned, from->base_point);
  disk->base_disk = copy_string (owned, from->base_disk);
  disk->base_checkpoint = copy_string (owned, from->base_checkpoint);
  disk->checkpoint = copy_string (owned, from->checkpoint);
  disk->source = from->n_images > 0 ? copy_string (owned, from->images[0].path) : NULL;
  disk->format = copy_string (owned, from->format);
  disk->size = from->size;
  disk->used = from->used;
  disk->read = from->read;
  disk->changed = from->changed;
  disk->added = from->added;
  disk->stored = from->stored;
  disk->chunk_size = from->chunk_size;
  return disk;
}

static const TmkPointFile *
describe_file (OwnedList *owned, const ManifestFile *from)
{
  TmkPointFile *file = alloc (owned, sizeof *file);
  file->role = copy_string (owned, from->role);
  file->name = copy_string (owned, from->name);
  file->size = from->size;
  file->mode = from->mode;
  return file;
}

static const TmkPoint *
describe_point (OwnedList *owned, const Manifest *from)
{
  TmkPoint *point = alloc (owned, sizeof *point);
  const TmkPointDisk **disks = alloc (owned, from->n_disks * sizeof *disks);
  for (size_t i = 0; i < from->n_disks; i++)
    disks[i] = describe_disk (owned, &from->disks[i]);
  const TmkPointFile **files = alloc (owned, from->n_files * sizeof *files);
  for (size_t i = 0; i < from->n_files; i++)
    files[i] = describe_file (owned, &from->files[i]);
  point->id = copy_string (owned, from->id);
  point->domain = copy_string (owned, from->domain);
  point->uuid = copy_string (owned, from->uuid);
  point->host = copy_string (owned, from->host);
  point->tool = copy_string (owned, from->tool);
  point->checkpoint = copy_string (owned, from->checkpoint);
  point->time_us = from->time_us;
  point->finished_us = from->finished_us;
  point->quiesced = from->quiesced;
  point->domain_xml = copy_string (owned, from->domain_xml);
  point->backup_xml = copy_string (owned, from->backup_xml);
  point->checkpoint_xml = copy_string (owned, from->checkpoint_xml);
  point->metadata = from->metadata;
  point->n_disks = from->n_disks;
  point->disks = disks;
  point->n_files = from->n_files;
  point->files = files;
  return point;
}

TmkPointList *
repository_describe (const Manifest *const *manifests, size_t n)
{
  OwnedList *owned = g_new0 (OwnedList, 1);
  owned->blocks = g_ptr_array_new_with_free_func (g_free);
  const TmkPoint **points = alloc (owned, n * sizeof *points);
  for (size_t i = 0; i < n; i++)
    points[i] = describe_point (owned, manifests[i]);
  owned->list.n_points = n;
  owned->list.points = points;
  return &owned->list;
}

static void
describe_damaged (TmkPointList *list, const PointSet *points)
{
  OwnedList *owned = (OwnedList *) list;
  const char **damaged = alloc (owned, points->damaged->len * sizeof *damaged);
  for (guint i = 0; i < points->damaged->len; i++)
    damaged[i] = copy_string (owned, points->damaged->pdata[i]);
  list->n_damaged = points->damaged->len;
  list->damaged = damaged;
}

void
tmk_point_list_free (TmkPointList *list)
{
  if (list == NULL)
    return;
  g_ptr_array_unref (((OwnedList *) list)->blocks);
  g_free (list);
}

TmkPointList *
tmk_repository_points (TmkRepository *repository, const char *domain, TmkError **errp)
{
  g_autoptr (PointSet) points = points_load (repository->repo, domain, errp);
  if (points == NULL)
    return NULL;
  TmkPointList *list = repository_describe ((const Manifest *const *) points->manifests->pdata,
                                            points->manifests->len);
  describe_damaged (list, points);
  return list;
}

TmkPointList *
tmk_repository_find (TmkRepository *repository, const char *spec, TmkError **errp)
{
  g_autoptr (PointSet) points = points_load (repository->repo, NULL, errp);
  const Manifest *manifest = points != NULL ? points_find (points, spec, errp) : NULL;
  if (manifest == NULL)
    return NULL;
  TmkPointList *list = repository_describe (&manifest, 1);
  describe_damaged (list, points);
  return list;
}

/* ---- verifying ---------------------------------------------------------------------------- */

typedef struct {
  const TmkVerifyOptions *options;
} VerifyCalls;

static void
on_damage (const VerifyDamage *damage, void *data)
{
  const VerifyCalls *calls = data;
  TmkDamage shown = { .point = damage->point,
                      .disk = damage->disk,
                      .file = damage->file,
                      .offset = damage->offset,
                      .length = damage->length,
                      .message = damage->message };
  if (calls->options->damage != NULL)
    calls->options->damage (&shown, calls->options->data);
}

static void
on_progress (uint64_t done, uint64_t total, void *data)
{
  const VerifyCalls *calls = data;
  if (calls->options->progress != NULL)
    calls->options->progress (done, total, calls->options->data);
}

static bool
on_cancelled (void *data)
{
  const VerifyCalls *calls = data;
  return calls->options->cancelled != NULL && calls->options->cancelled (calls->options->data);
}

/* The points that were named, each once. */
static GPtrArray *
find_named (const PointSet *points, const TmkVerifyOptions *options, TmkError **errp)
{
  g_autoptr (GPtrArray) named = g_ptr_array_new ();
  for (size_t i = 0; i < options->n_points; i++) {
    const Manifest *manifest = points_find (points, options->points[i], errp);
    if (manifest == NULL)
      return NULL;
    if (!g_ptr_array_find (named, manifest, NULL))
      g_ptr_array_add (named, (void *) manifest);
  }
  return g_steal_pointer (&named);
}

bool
tmk_repository_verify (TmkRepository *repository, const TmkVerifyOptions *options,
                       TmkVerifyResult *result, TmkError **errp)
{
  static const TmkVerifyOptions none;
  VerifyCalls calls = { options != NULL ? options : &none };
  VerifyOptions inner = { .sample = calls.options->sample,
                          .damage = on_damage,
                          .progress = on_progress,
                          .cancelled = on_cancelled,
                          .data = &calls };
  g_autoptr (PointSet) points = NULL;
  g_autoptr (GPtrArray) named = NULL;
  VerifyResult found;
  if (calls.options->n_points > 0) {
    points = points_load (repository->repo, NULL, errp);
    named = points != NULL ? find_named (points, calls.options, errp) : NULL;
    if (named == NULL)
      return false;
  }
  if (!repo_verify (repository->repo, named != NULL ? (const Manifest *const *) named->pdata : NULL,
                    named != NULL ? named->len : 0, &inner, &found, errp))
    return false;
  *result = (TmkVerifyResult){ .points = found.points,
                               .disks = found.disks,
                               .objects = found.nodes + found.chunks,
                               .bytes = found.bytes,
                               .damaged = found.damaged };
  return true;
}
