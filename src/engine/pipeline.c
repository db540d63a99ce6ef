/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/pipeline.c: see engine/pipeline.h.
 *
 * Workers share, under the run's lock: the first error, the statistics (added up once a piece) and
 * the allowance of the bandwidth limit. The tree builder and the writer have locks of their own; no
 * two are ever held at once.
 */
#include "engine/pipeline.h"

#include <unistd.h>

#define DOMAIN "engine"
#define TICK_US (G_USEC_PER_SEC / 5)
#define REQUEST_SIZE (512u << 10)

struct Pipeline {
  RepoWriter *writer;
  Repo *repo;
  uint64_t bandwidth;
  unsigned n_workers;
  RepoPacker **packers; /* one a worker, and behind them … */
  RepoPacker *nodes;    /* … the one for the trees */
};

typedef struct {
  /* fixed */
  Pipeline *pipeline;
  TmkBlockReader *reader;
  TreeBuilder *builder;
  uint64_t size;
  uint32_t chunk_size;

  /* under the lock */
  GMutex lock;
  GCond ended; /* a worker has ended */
  GCond hurry; /* stop waiting for the bandwidth limit */
  unsigned running;
  bool stop;
  TmkError *error;
  PipelineStats stats;
  gint64 free_at; /* monotonic: when the next byte may be read under the limit */
} Run;

typedef struct {
  Run *run;
  RepoPacker *packer;
} Worker;

static void
fail (Run *run, TmkError *err)
{
  g_mutex_lock (&run->lock);
  if (run->error == NULL)
    run->error = err;
  else
    tmk_error_free (err);
  run->stop = true;
  g_cond_broadcast (&run->hurry);
  g_mutex_unlock (&run->lock);
  tmk_block_reader_cancel (run->reader);
}

/* Waits until `length` more bytes may have been read. */
static void
keep_to_bandwidth (Run *run, uint64_t length)
{
  uint64_t bandwidth = run->pipeline->bandwidth;
  if (bandwidth == 0 || length == 0)
    return;
  g_mutex_lock (&run->lock);
  gint64 now = g_get_monotonic_time ();
  run->free_at = MAX (run->free_at, now) + (gint64) ((double) length * G_USEC_PER_SEC / bandwidth);
  gint64 until = run->free_at;
  while (!run->stop && g_get_monotonic_time () < until)
    g_cond_wait_until (&run->hurry, &run->lock, until);
  g_mutex_unlock (&run->lock);
}

/* One chunk that has data, maybe zeroes. */
static bool
take_chunk (Worker *worker, uint64_t chunk, const unsigned char *data, size_t length,
            PipelineStats *stats, TmkError **errp)
{
  Run *run = worker->run;
  RepoWriter *writer = run->pipeline->writer;
  ObjectId id, before;
  uint32_t stored = 0;

  repo_packer_hash (worker->packer, OBJECT_CHUNK, data, length, &id);
  if (!tree_builder_exchange (run->builder, chunk, &id, &before, errp))
    return false;
  bool zero = object_id_is_zero (&id), was_zero = object_id_is_zero (&before);
  bool changed = !object_id_equal (&id, &before);
  if (zero)
    stats->zero += length;
  else if ((changed || repo_writer_is_damaged (writer, &id))
           && !repo_packer_store (worker->packer, OBJECT_CHUNK, &id, data, length, &stored, errp))
    return false;
  stats->changed += changed ? length : 0;
  stats->added += stored != 0 ? length : 0;
  stats->stored += stored;
  stats->used += zero == was_zero ? 0 : zero ? -(int64_t) length : (int64_t) length;
  return true;
}

static bool
take_zeroes (Run *run, const TmkBlockPiece *piece, PipelineStats *stats, TmkError **errp)
{
  uint64_t first = piece->offset / run->chunk_size, changed;
  uint64_t count = tree_chunks (piece->length, run->chunk_size);
  if (!tree_builder_set_zero (run->builder, first, count, &changed, errp))
    return false;
  uint64_t bytes = MIN (changed * run->chunk_size, piece->length);
  stats->zero += piece->length;
  stats->changed += bytes;
  stats->used -= (int64_t) bytes;
  return true;
}

static bool
take_piece (Worker *worker, const TmkBlockPiece *piece, TmkError **errp)
{
  Run *run = worker->run;
  PipelineStats stats = { .looked = piece->length };
  /* Of zeroes nothing is stored, however long they last. */
  repo_writer_touch (run->pipeline->writer);
  if (piece->offset % run->chunk_size != 0
      || ((piece->offset + piece->length) % run->chunk_size != 0
          && piece->offset + piece->length != run->size)) {
    error_set (errp, DOMAIN, TMK_ERR_INTERNAL, 0,
               "%" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " are no whole chunks",
               piece->length, piece->offset);
    return false;
  }
  if (piece->data == NULL) {
    if (!take_zeroes (run, piece, &stats, errp))
      return false;
  } else {
    keep_to_bandwidth (run, piece->length);
    stats.read = piece->length;
    for (uint64_t done = 0; done < piece->length; done += run->chunk_size) {
      size_t length = MIN (run->chunk_size, piece->length - done);
      if (!take_chunk (worker, (piece->offset + done) / run->chunk_size,
                       (const unsigned char *) piece->data + done, length, &stats, errp))
        return false;
    }
  }
  g_mutex_lock (&run->lock);
  run->stats.looked += stats.looked;
  run->stats.read += stats.read;
  run->stats.zero += stats.zero;
  run->stats.changed += stats.changed;
  run->stats.added += stats.added;
  run->stats.stored += stats.stored;
  run->stats.used += stats.used;
  g_mutex_unlock (&run->lock);
  return true;
}

static gpointer
work (gpointer data)
{
  Worker *worker = data;
  Run *run = worker->run;
  const TmkBlockPiece *piece;
  TmkError *err = NULL;
  bool ok;

  while ((ok = tmk_block_reader_next (run->reader, &piece, &err)) && piece != NULL) {
    ok = take_piece (worker, piece, &err);
    tmk_block_reader_release (run->reader, piece);
    if (!ok)
      break;
  }
  if (!ok)
    fail (run, err);
  g_mutex_lock (&run->lock);
  run->running--;
  g_cond_signal (&run->ended);
  g_mutex_unlock (&run->lock);
  return NULL;
}

/* Waits for the workers, looking up some times a second. */
static void
oversee (Run *run, PipelineTick tick, void *data)
{
  g_mutex_lock (&run->lock);
  gint64 next = g_get_monotonic_time () + TICK_US;
  while (run->running > 0) {
    if (g_cond_wait_until (&run->ended, &run->lock, next))
      continue;
    next = g_get_monotonic_time () + TICK_US;
    if (tick == NULL || run->stop)
      continue;
    PipelineStats stats = run->stats;
    g_mutex_unlock (&run->lock);
    bool go_on = tick (&stats, data);
    if (!go_on) {
      TmkError *err = NULL;
      error_set (&err, DOMAIN, TMK_ERR_CANCELLED, 0, "cancelled");
      fail (run, err);
    }
    g_mutex_lock (&run->lock);
  }
  g_mutex_unlock (&run->lock);
}

static bool
run_workers (Run *run, PipelineTick tick, void *data, TmkError **errp)
{
  unsigned n = run->pipeline->n_workers;
  g_autofree Worker *workers = g_new0 (Worker, n);
  g_autofree GThread **threads = g_new0 (GThread *, n);
  run->running = n;
  for (unsigned i = 0; i < n; i++) {
    workers[i] = (Worker){ .run = run, .packer = run->pipeline->packers[i] };
    threads[i] = g_thread_new ("tmk-worker", work, &workers[i]);
  }
  oversee (run, tick, data);
  for (unsigned i = 0; i < n; i++)
    g_thread_join (threads[i]);
  if (run->error == NULL)
    return true;
  error_propagate (errp, g_steal_pointer (&run->error));
  return false;
}

unsigned
pipeline_request_size (uint32_t chunk_size)
{
  return MAX (chunk_size, REQUEST_SIZE);
}

bool
pipeline_run (Pipeline *pipeline, TmkBlockSource *source, uint32_t chunk_size, bool only_dirty,
              const ObjectId *base, PipelineTick tick, void *data, ObjectId *root,
              PipelineStats *stats, TmkError **errp)
{
  uint64_t size = tmk_block_source_size (source);
  g_autoptr (TreeBuilder) builder = tree_builder_new (
      pipeline->repo, pipeline->writer, pipeline->nodes, base, tree_chunks (size, chunk_size));
  TmkReadOptions options = { .only_dirty = only_dirty, .align = chunk_size };
  Run run = { .pipeline = pipeline, .builder = builder, .size = size, .chunk_size = chunk_size };
  run.reader = tmk_block_source_reader (source, &options, errp);
  if (run.reader == NULL)
    return false;
  g_mutex_init (&run.lock);
  g_cond_init (&run.ended);
  g_cond_init (&run.hurry);
  bool ok = run_workers (&run, tick, data, errp);
  tmk_block_reader_free (run.reader);
  g_mutex_clear (&run.lock);
  g_cond_clear (&run.ended);
  g_cond_clear (&run.hurry);
  if (!ok)
    return false;
  if (!only_dirty && run.stats.looked != size) {
    error_set (errp, DOMAIN, TMK_ERR_INTERNAL, 0,
               "%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " bytes of '%s' came",
               run.stats.looked, size, tmk_block_source_name (source));
    return false;
  }
  if (!tree_builder_finish (builder, root, errp))
    return false;
  *stats = run.stats;
  return true;
}

bool
pipeline_store (Pipeline *pipeline, const void *data, ManifestDisk *content, TmkError **errp)
{
  static const ObjectId nothing;
  const unsigned char *bytes = data;
  RepoPacker *packer = pipeline->nodes;
  uint64_t chunks = tree_chunks (content->size, content->chunk_size);
  g_autoptr (TreeBuilder) builder
      = tree_builder_new (pipeline->repo, pipeline->writer, packer, &nothing, chunks);
  for (uint64_t i = 0; i < chunks; i++) {
    uint64_t offset = i * content->chunk_size;
    size_t length = MIN (content->chunk_size, content->size - offset);
    ObjectId id, before;
    uint32_t stored;
    repo_packer_hash (packer, OBJECT_CHUNK, bytes + offset, length, &id);
    if (object_id_is_zero (&id))
      continue;
    if (!repo_packer_store (packer, OBJECT_CHUNK, &id, bytes + offset, length, &stored, errp)
        || !tree_builder_exchange (builder, i, &id, &before, errp))
      return false;
  }
  return tree_builder_finish (builder, &content->root, errp);
}

bool
pipeline_finish (Pipeline *pipeline, TmkError **errp)
{
  return repo_packer_finish_all (pipeline->packers, pipeline->n_workers + 1, errp);
}

Pipeline *
pipeline_new (RepoWriter *writer, Repo *repo, unsigned threads, uint64_t bandwidth, TmkError **errp)
{
  g_autoptr (Pipeline) pipeline = g_new0 (Pipeline, 1);
  pipeline->writer = writer;
  pipeline->repo = repo;
  pipeline->bandwidth = bandwidth;
  unsigned n = threads != 0 ? threads : g_get_num_processors ();
  pipeline->packers = g_new0 (RepoPacker *, n + 1);
  for (; pipeline->n_workers < n; pipeline->n_workers++) {
    pipeline->packers[pipeline->n_workers] = repo_packer_new (writer, errp);
    if (pipeline->packers[pipeline->n_workers] == NULL)
      return NULL;
  }
  pipeline->nodes = pipeline->packers[n] = repo_packer_new (writer, errp);
  return pipeline->nodes != NULL ? g_steal_pointer (&pipeline) : NULL;
}

void
pipeline_free (Pipeline *pipeline)
{
  if (pipeline == NULL)
    return;
  for (unsigned i = 0; i < pipeline->n_workers; i++)
    repo_packer_free (pipeline->packers[i]);
  repo_packer_free (pipeline->nodes);
  g_free (pipeline->packers);
  g_free (pipeline);
}
