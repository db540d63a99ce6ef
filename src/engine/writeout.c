/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/writeout.c: see engine/writeout.h.
 *
 * Under the run's lock: the queue, the first error, what was done and what is damaged. Each is
 * touched once a batch. No other lock is taken meanwhile.
 */
#include "engine/writeout.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "engine"
#define TICK_US (G_USEC_PER_SEC / 5)
#define BATCH 16                         /* chunks … */
#define BATCH_BYTES (1u << 20)           /* … or bytes that a worker takes at a time */
#define QUEUE 64                         /* batches */
#define ZERO_PIECE (UINT64_C (64) << 20) /* made zero at a time: so one can be cancelled */
#define PAGE 4096u

typedef struct {
  uint64_t chunk;
  ObjectId id;
} Wanted;

/* Chunks to be written, or (`zero_length` is not 0) a range to be made zero. */
typedef struct {
  unsigned n;
  Wanted chunks[BATCH];
  uint64_t zero_offset, zero_length;
} Batch;

/* Chunks that cannot be had. */
typedef struct {
  uint64_t first, count;
  char *message; /* of the first one */
} Gap;

typedef struct {
  /* fixed */
  const Writeout *job;
  uint64_t size; /* of the disk */
  uint32_t chunk_size;
  unsigned batch; /* chunks in one */
  bool zeroes;    /* what is not written has to be made zero */

  /* of the walker */
  Batch filling;
  uint64_t at; /* bytes of the sink that are settled */

  /* under the lock */
  GMutex lock;
  GCond put, taken; /* a batch was */
  GCond ended;      /* a thread has ended */
  Batch queue[QUEUE];
  uint64_t n_put, n_taken;
  bool walked; /* no more will be put */
  unsigned running;
  bool stop;
  TmkError *error;
  WriteoutResult result;
  GArray *gaps; /* of Gap, ascending, none adjacent */
} Run;

static void
stop (Run *run, TmkError *err)
{
  g_mutex_lock (&run->lock);
  if (run->error == NULL)
    run->error = err;
  else
    tmk_error_free (err);
  run->stop = true;
  g_cond_broadcast (&run->put);
  g_cond_broadcast (&run->taken);
  g_mutex_unlock (&run->lock);
}

static void
end_thread (Run *run)
{
  g_mutex_lock (&run->lock);
  run->running--;
  g_cond_signal (&run->ended);
  g_mutex_unlock (&run->lock);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void
clear_gap (gpointer data)
{
  g_free (((Gap *) data)->message);
}

/* Workers come about in order, so the place is near the end. */
static void
add_gap (Run *run, uint64_t first, uint64_t count, const char *message)
{
  g_mutex_lock (&run->lock);
  uint64_t bytes = MIN (count * run->chunk_size, run->size - first * run->chunk_size);
  run->result.damaged += bytes;
  guint i = run->gaps->len;
  while (i > 0 && g_array_index (run->gaps, Gap, i - 1).first > first)
    i--;
  Gap gap = { first, count, g_strdup (message) };
  g_array_insert_val (run->gaps, i, gap);
  for (guint k = i + 1; k >= MAX (i, 1); k--) { /* with the one behind it, then the one before */
    if (k >= run->gaps->len)
      continue;
    Gap *before = &g_array_index (run->gaps, Gap, k - 1), *now = before + 1;
    if (before->first + before->count != now->first)
      continue;
    before->count += now->count;
    g_array_remove_index (run->gaps, k);
  }
  g_mutex_unlock (&run->lock);
}

static void
tell_damage (const Run *run)
{
  const Writeout *job = run->job;
  for (guint i = 0; i < run->gaps->len && job->damage != NULL; i++) {
    const Gap *gap = &g_array_index (run->gaps, Gap, i);
    uint64_t offset = gap->first * run->chunk_size;
    job->damage (offset, MIN (gap->count * run->chunk_size, run->size - offset), gap->message,
                 job->data);
  }
}

/* ---- the walker ------------------------------------------------------------------------------ */

/* Puts what is being filled in the queue. False where the run is to stop. */
static bool
put_batch (Run *run)
{
  g_mutex_lock (&run->lock);
  while (!run->stop && run->n_put - run->n_taken == QUEUE)
    g_cond_wait (&run->taken, &run->lock);
  bool go_on = !run->stop;
  if (go_on) {
    run->queue[run->n_put++ % QUEUE] = run->filling;
    g_cond_signal (&run->put);
  }
  g_mutex_unlock (&run->lock);
  run->filling.n = 0;
  run->filling.zero_length = 0;
  return go_on;
}

/* Everything up to `end` that is not settled is to be made zero. */
static bool
put_zeroes (Run *run, uint64_t end)
{
  while (run->zeroes && run->at < end) {
    if (run->filling.n > 0 && !put_batch (run))
      return false;
    run->filling.zero_offset = run->at;
    run->filling.zero_length = MIN (end - run->at, ZERO_PIECE - run->at % ZERO_PIECE);
    run->at += run->filling.zero_length;
    if (!put_batch (run))
      return false;
  }
  return true;
}

/* How many bytes the chunk has. */
static size_t
chunk_length (const Run *run, uint64_t chunk)
{
  return (size_t) MIN (run->chunk_size, run->size - chunk * run->chunk_size);
}

/* How many are written: a larger sink gets zeroes behind the disk's end up to a page, for it may be
 * unable to write or to make zero less than that. */
static size_t
padded_length (const Run *run, uint64_t chunk, size_t length)
{
  uint64_t room = tmk_block_sink_size (run->job->sink) - chunk * run->chunk_size;
  return (size_t) MIN (room, (length + PAGE - 1) / PAGE * PAGE);
}

static bool
want_chunk (uint64_t chunk, const ObjectId *id, void *data, TmkError **errp)
{
  Run *run = data;
  uint64_t offset = chunk * run->chunk_size;
  if (!put_zeroes (run, offset))
    return false;
  run->at = offset + padded_length (run, chunk, chunk_length (run, chunk));
  run->filling.chunks[run->filling.n++] = (Wanted){ chunk, *id };
  return run->filling.n < run->batch || put_batch (run);
}

static void
miss_chunks (uint64_t chunk, uint64_t count, const ObjectId *node, const TmkError *err, void *data)
{
  add_gap (data, chunk, count, tmk_error_message (err));
}

static gpointer
walk (gpointer data)
{
  Run *run = data;
  const ManifestDisk *disk = run->job->disk;
  uint64_t chunks = tree_chunks (run->size, run->chunk_size);
  g_autoptr (RepoReader) reader = repo_reader_new (run->job->repo, run->job->verify);
  TmkError *err = NULL;
  if (!tree_walk (reader, &disk->root, chunks, 0, chunks, want_chunk, miss_chunks, run, &err))
    stop (run, err);
  else if (put_zeroes (run, tmk_block_sink_size (run->job->sink)) && run->filling.n > 0)
    put_batch (run);
  g_mutex_lock (&run->lock);
  run->walked = true;
  g_cond_broadcast (&run->put);
  g_mutex_unlock (&run->lock);
  end_thread (run);
  return NULL;
}

/* ---- workers --------------------------------------------------------------------------------- */

/* Adds what was done, and takes the next batch. False where there is none or the run is to stop.
 * `*dry`: only look, do not write. */
static bool
take_batch (Run *run, const WriteoutResult *done, Batch *batch, bool *dry)
{
  g_mutex_lock (&run->lock);
  run->result.done += done->done;
  run->result.written += done->written;
  while (!run->stop && !run->walked && run->n_put == run->n_taken)
    g_cond_wait (&run->put, &run->lock);
  bool taken = !run->stop && run->n_put != run->n_taken;
  if (taken) {
    const Batch *next = &run->queue[run->n_taken++ % QUEUE];
    batch->n = next->n;
    memcpy (batch->chunks, next->chunks, next->n * sizeof *next->chunks);
    batch->zero_offset = next->zero_offset;
    batch->zero_length = next->zero_length;
    *dry = run->gaps->len > 0;
    g_cond_signal (&run->taken);
  }
  g_mutex_unlock (&run->lock);
  return taken;
}

static bool
is_zero (const unsigned char *data, size_t length)
{
  return data[0] == 0 && memcmp (data, data + 1, length - 1) == 0;
}

/* Writes what is not zero, in runs of blocks. */
static bool
write_sparsely (Run *run, uint64_t offset, const unsigned char *data, size_t length,
                uint64_t *written, TmkError **errp)
{
  const size_t block = run->job->block;
  size_t from = 0;
  while (from < length) {
    size_t to = from;
    while (to < length && !is_zero (data + to, MIN (block, length - to)))
      to = MIN (length, to + block);
    if (to > from
        && !tmk_block_sink_write (run->job->sink, offset + from, data + from, to - from, errp))
      return false;
    *written += to - from;
    from = to + block; /* the block at `to` is zero, or there is none */
  }
  return true;
}

static bool
write_chunk (Run *run, uint64_t chunk, unsigned char *data, size_t length, uint64_t *written,
             TmkError **errp)
{
  uint64_t offset = chunk * run->chunk_size;
  if (run->job->block != 0)
    return write_sparsely (run, offset, data, length, written, errp);
  size_t padded = padded_length (run, chunk, length);
  if (padded > length)
    memset (data + length, 0, padded - length);
  *written += length;
  return tmk_block_sink_write (run->job->sink, offset, data, padded, errp);
}

/* Reads and writes a chunk; damage is noted and no error. */
static bool
do_chunk (Run *run, RepoReader *reader, const Wanted *wanted, unsigned char *buffer, bool dry,
          WriteoutResult *done, TmkError **errp)
{
  size_t expected = chunk_length (run, wanted->chunk), length = 0;
  TmkError *err = NULL;
  if (repo_reader_read (reader, &wanted->id, OBJECT_CHUNK, buffer, run->chunk_size, &length, &err)
      && length != expected) {
    char hex[2 * OBJECT_ID_SIZE + 1];
    object_id_to_hex (&wanted->id, hex);
    error_set (&err, DOMAIN, TMK_ERR_DAMAGED, 0, "chunk '%s' has %zu bytes instead of %zu", hex,
               length, expected);
  }
  if (err == NULL) {
    done->done += length;
    return dry || write_chunk (run, wanted->chunk, buffer, length, &done->written, errp);
  }
  if (tmk_error_code (err) != TMK_ERR_DAMAGED) {
    error_propagate (errp, err);
    return false;
  }
  add_gap (run, wanted->chunk, 1, tmk_error_message (err));
  tmk_error_free (err);
  return true;
}

static bool
do_batch (Run *run, RepoReader *reader, const Batch *batch, unsigned char *buffer, bool dry,
          WriteoutResult *done, TmkError **errp)
{
  if (batch->zero_length > 0 && !dry
      && !tmk_block_sink_zero (run->job->sink, batch->zero_offset, batch->zero_length, errp))
    return false;
  for (unsigned i = 0; i < batch->n; i++)
    if (!do_chunk (run, reader, &batch->chunks[i], buffer, dry, done, errp))
      return false;
  return true;
}

static gpointer
work (gpointer data)
{
  Run *run = data;
  g_autoptr (RepoReader) reader = repo_reader_new (run->job->repo, run->job->verify);
  g_autofree unsigned char *room = g_malloc (run->chunk_size + 2 * PAGE); /* padded, aligned */
  unsigned char *buffer
      = (unsigned char *) (((uintptr_t) room + PAGE - 1) & ~(uintptr_t) (PAGE - 1));
  WriteoutResult done = { 0 };
  Batch batch;
  bool dry;
  while (take_batch (run, &done, &batch, &dry)) {
    TmkError *err = NULL;
    done = (WriteoutResult){ 0 };
    if (!do_batch (run, reader, &batch, buffer, dry, &done, &err)) {
      stop (run, err);
      break;
    }
  }
  end_thread (run);
  return NULL;
}

/* ---- the caller ------------------------------------------------------------------------------ */

/* Waits for the threads, looking up some times a second. */
static void
oversee (Run *run)
{
  const Writeout *job = run->job;
  g_mutex_lock (&run->lock);
  gint64 next = g_get_monotonic_time () + TICK_US;
  while (run->running > 0) {
    if (g_cond_wait_until (&run->ended, &run->lock, next))
      continue;
    next = g_get_monotonic_time () + TICK_US;
    if (job->tick == NULL || run->stop)
      continue;
    uint64_t done = run->result.done;
    g_mutex_unlock (&run->lock);
    if (!job->tick (done, job->data)) {
      TmkError *err = NULL;
      error_set (&err, DOMAIN, TMK_ERR_CANCELLED, 0, "cancelled");
      stop (run, err);
    }
    g_mutex_lock (&run->lock);
  }
  g_mutex_unlock (&run->lock);
}

static void
run_threads (Run *run)
{
  unsigned n = run->job->threads != 0 ? run->job->threads : g_get_num_processors ();
  g_autofree GThread **threads = g_new0 (GThread *, n + 1);
  run->running = n + 1;
  threads[n] = g_thread_new ("tmk-walker", walk, run);
  for (unsigned i = 0; i < n; i++)
    threads[i] = g_thread_new ("tmk-worker", work, run);
  oversee (run);
  for (unsigned i = 0; i <= n; i++)
    g_thread_join (threads[i]);
}

bool
writeout_run (const Writeout *job, WriteoutResult *result, TmkError **errp)
{
  g_autofree Run *run = g_new0 (Run, 1);
  run->job = job;
  run->size = job->disk->size;
  run->chunk_size = job->disk->chunk_size;
  run->batch = CLAMP (BATCH_BYTES / run->chunk_size, 1, BATCH);
  run->zeroes = !tmk_block_sink_is_zero (job->sink);
  run->gaps = g_array_new (FALSE, FALSE, sizeof (Gap));
  g_array_set_clear_func (run->gaps, clear_gap);
  g_mutex_init (&run->lock);
  g_cond_init (&run->put);
  g_cond_init (&run->taken);
  g_cond_init (&run->ended);
  run_threads (run);
  bool ok = run->error == NULL;
  if (ok) {
    tell_damage (run);
    *result = run->result;
  } else {
    error_propagate (errp, g_steal_pointer (&run->error));
  }
  g_array_free (run->gaps, TRUE);
  g_mutex_clear (&run->lock);
  g_cond_clear (&run->put);
  g_cond_clear (&run->taken);
  g_cond_clear (&run->ended);
  return ok;
}
