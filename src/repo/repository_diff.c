/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/repository_diff.c: what differs between two points: tmk_repository_diff().
 *
 * Two trees of one shape are compared as trees, and what they share is not read. Where a disk was
 * resized, or is cut into chunks of another size, both are walked side by side in windows, so that
 * memory does not grow with the disk.
 */
#include "repo/points.h"
#include "repo/repository.h"
#include "repo/tree.h"

#define WINDOW (UINT64_C (1) << 32) /* bytes; a multiple of any chunk size */

typedef struct {
  TmkDiffVisit visit;
  void *data;
  bool stopped;
  /* of the disk at hand */
  const ManifestDisk *disk;
  uint64_t begin, end; /* the range found last, not told yet; equal: none */
  bool zero;
} Diff;

static void
tell (Diff *diff)
{
  if (diff->begin == diff->end || diff->stopped)
    return;
  uint64_t end = MIN (diff->end, diff->disk->size);
  if (!diff->visit (diff->disk->name, diff->begin, end - diff->begin, diff->zero, diff->data))
    diff->stopped = true;
  diff->begin = diff->end;
}

/* A chunk differs. Joins it to the range before where it goes on from there. */
static bool
add_chunk (Diff *diff, uint64_t chunk, bool zero)
{
  uint64_t at = chunk * diff->disk->chunk_size;
  if (diff->begin != diff->end && (diff->end != at || diff->zero != zero))
    tell (diff);
  if (diff->begin == diff->end) {
    diff->begin = at;
    diff->zero = zero;
  }
  diff->end = at + diff->disk->chunk_size;
  return !diff->stopped;
}

static bool
visit_difference (uint64_t chunk, const ObjectId *a, const ObjectId *b, void *data, TmkError **errp)
{
  return add_chunk (data, chunk, object_id_is_zero (b));
}

/* ---- trees of different shapes ------------------------------------------------------------ */

/* The ids of the chunks in one window of a disk. */
typedef struct {
  const ManifestDisk *disk;
  ObjectId *ids;
  uint64_t first;
} Window;

static bool
visit_chunk (uint64_t chunk, const ObjectId *id, void *data, TmkError **errp)
{
  Window *window = data;
  window->ids[chunk - window->first] = *id;
  return true;
}

static bool
load_window (Window *window, RepoReader *reader, uint64_t begin, TmkError **errp)
{
  const ManifestDisk *disk = window->disk;
  uint64_t count = WINDOW / disk->chunk_size;
  memset (window->ids, 0, count * sizeof (ObjectId));
  window->first = begin / disk->chunk_size;
  return tree_walk (reader, &disk->root, tree_chunks (disk->size, disk->chunk_size), window->first,
                    count, visit_chunk, NULL, window, errp);
}

/* Is anything of [at, at + length) other than zero? */
static bool
has_data (const Window *window, uint64_t at, uint64_t length)
{
  uint32_t size = window->disk->chunk_size;
  uint64_t last = (at + length - 1) / size;
  for (uint64_t i = at / size; i <= last; i++)
    if (!object_id_is_zero (&window->ids[i - window->first]))
      return true;
  return false;
}

static bool
differs (const Window *a, const Window *b, uint64_t chunk)
{
  const ObjectId *id = &b->ids[chunk - b->first];
  uint32_t size = b->disk->chunk_size;
  if (a->disk->chunk_size == size)
    return !object_id_equal (id, &a->ids[chunk - a->first]);
  return !object_id_is_zero (id) || has_data (a, chunk * size, size);
}

static bool
diff_windows (Diff *diff, RepoReader *reader, Window *a, Window *b, TmkError **errp)
{
  uint64_t chunks = tree_chunks (b->disk->size, b->disk->chunk_size);
  for (uint64_t begin = 0; begin < b->disk->size && !diff->stopped; begin += WINDOW) {
    if (!load_window (a, reader, begin, errp) || !load_window (b, reader, begin, errp))
      return false;
    uint64_t end = MIN (b->first + WINDOW / b->disk->chunk_size, chunks);
    for (uint64_t chunk = b->first; chunk < end; chunk++)
      if (differs (a, b, chunk)
          && !add_chunk (diff, chunk, object_id_is_zero (&b->ids[chunk - b->first])))
        break;
  }
  return true;
}

static bool
diff_shapes (Diff *diff, RepoReader *reader, const ManifestDisk *a, const ManifestDisk *b,
             TmkError **errp)
{
  g_autofree ObjectId *ids = g_new (ObjectId, WINDOW / a->chunk_size);
  g_autofree ObjectId *ids_too = g_new (ObjectId, WINDOW / b->chunk_size);
  Window one = { .disk = a, .ids = ids }, two = { .disk = b, .ids = ids_too };
  return diff_windows (diff, reader, &one, &two, errp);
}

/* ---- a new disk --------------------------------------------------------------------------- */

static bool
visit_data (uint64_t chunk, const ObjectId *id, void *data, TmkError **errp)
{
  return add_chunk (data, chunk, false);
}

/* ---- points ------------------------------------------------------------------------------- */

static bool
diff_disk (Diff *diff, RepoReader *reader, const ManifestDisk *a, const ManifestDisk *b,
           TmkError **errp)
{
  diff->disk = b;
  diff->begin = diff->end = 0;
  uint64_t chunks = tree_chunks (b->size, b->chunk_size);
  bool ok;
  if (a == NULL)
    ok = tree_walk (reader, &b->root, chunks, 0, chunks, visit_data, NULL, diff, errp);
  else if (a->size == b->size && a->chunk_size == b->chunk_size)
    ok = tree_diff (reader, &a->root, &b->root, chunks, visit_difference, diff, errp);
  else
    ok = diff_shapes (diff, reader, a, b, errp);
  if (!ok) {
    error_prefix (errp, "disk '%s'", b->name);
    return false;
  }
  tell (diff);
  return true;
}

bool
tmk_repository_diff (TmkRepository *repository, const char *a, const char *b, TmkDiffVisit visit,
                     void *data, TmkError **errp)
{
  Repo *repo = repository_repo (repository);
  g_autoptr (PointSet) points = points_load (repo, NULL, errp);
  const Manifest *one = points != NULL ? points_find (points, a, errp) : NULL;
  const Manifest *two = one != NULL ? points_find (points, b, errp) : NULL;
  if (two == NULL)
    return false;
  g_autoptr (RepoReader) reader = repo_reader_new (repo, false);
  Diff diff = { .visit = visit, .data = data };
  for (size_t i = 0; i < two->n_disks && !diff.stopped; i++) {
    const ManifestDisk *disk = &two->disks[i];
    if (!diff_disk (&diff, reader, manifest_disk (one, disk->name), disk, errp))
      return false;
  }
  return true;
}
