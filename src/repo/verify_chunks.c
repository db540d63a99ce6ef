/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/verify_chunks.c: reading chunks, all that are marked or a sample, and computing their ids
 * anew. See repo/verify_priv.h.
 *
 * Index files are sorted by id, packs are not: so the entries are taken in batches of packs, which
 * are sorted by place. A batch is as long as memory is to be.
 *
 * Threads: the batch is fixed while workers run; `next` is atomic; what workers find is under
 * `lock`, and told by the calling thread, which waits for them.
 */
#include "repo/verify_priv.h"

#include <stdatomic.h>

#define BATCH_MAX (UINT64_C (1) << 20)
#define TAKE 4 /* items a worker takes at once */
#define WAKE_US (G_TIME_SPAN_MILLISECOND * 100)

typedef struct {
  uint64_t number; /* of the entry */
  uint64_t offset;
  uint32_t pack;
  uint32_t length;
} Item;

typedef struct {
  Item item;
  char *message;
} Bad;

typedef struct {
  /* fixed */
  Verify *verify;
  uint64_t total; /* bytes of all chunks to be read, and of the nodes that were */
  size_t file;
  GArray *items; /* of Item */
  /* atomic */
  atomic_size_t next;
  atomic_uint_fast64_t done;
  atomic_bool stop;
  /* under the lock */
  GMutex lock;
  GCond changed;
  unsigned running;
  GArray *bad;       /* of Bad */
  GPtrArray *copies; /* of GArray of BadCopy */
  TmkError *err;
} Batch;

/* ---- workers ------------------------------------------------------------------------------ */

/* False: the verification cannot go on. */
static bool
read_item (Batch *batch, RepoReader *reader, const Item *item, unsigned char *buffer)
{
  const IndexView *view = &index_set_file (batch->verify->set, batch->file)->view;
  IndexEntry entry;
  size_t length;
  g_autoptr (TmkError) err = NULL;
  if (!index_view_entry (view, item->number, &entry)
      || repo_reader_read (reader, &entry.id, OBJECT_CHUNK, buffer, CHUNK_SIZE_MAX, &length, &err))
    return true;
  g_mutex_lock (&batch->lock);
  bool damaged = tmk_error_code (err) == TMK_ERR_DAMAGED;
  if (damaged) {
    Bad bad = { *item, g_strdup (tmk_error_message (err)) };
    g_array_append_val (batch->bad, bad);
  } else if (batch->err == NULL) {
    batch->err = g_steal_pointer (&err);
  }
  g_mutex_unlock (&batch->lock);
  return damaged;
}

static void *
work (void *data)
{
  Batch *batch = data;
  g_autofree unsigned char *buffer = g_malloc (CHUNK_SIZE_MAX);
  g_autoptr (RepoReader) reader = repo_reader_new (batch->verify->repo, true);
  while (!atomic_load (&batch->stop)) {
    size_t first = atomic_fetch_add (&batch->next, TAKE);
    for (size_t i = first; i < MIN (first + TAKE, batch->items->len); i++) {
      const Item *item = &g_array_index (batch->items, Item, i);
      if (!read_item (batch, reader, item, buffer))
        atomic_store (&batch->stop, true);
      atomic_fetch_add (&batch->done, item->length);
    }
    if (first >= batch->items->len)
      break;
  }
  GArray *copies = repo_reader_take_bad_copies (reader);
  g_mutex_lock (&batch->lock);
  if (copies != NULL)
    g_ptr_array_add (batch->copies, copies);
  batch->running--;
  g_cond_signal (&batch->changed);
  g_mutex_unlock (&batch->lock);
  return NULL;
}

/* ---- a batch ------------------------------------------------------------------------------ */

static void
wait_for_workers (Batch *batch, uint64_t before)
{
  const Verify *verify = batch->verify;
  g_mutex_lock (&batch->lock);
  while (batch->running > 0) {
    g_cond_wait_until (&batch->changed, &batch->lock, g_get_monotonic_time () + WAKE_US);
    g_mutex_unlock (&batch->lock);
    verify_progress (verify, before + atomic_load (&batch->done), batch->total);
    TmkError *err = NULL;
    if (!atomic_load (&batch->stop) && verify_is_cancelled (verify, &err))
      atomic_store (&batch->stop, true);
    g_mutex_lock (&batch->lock);
    if (err != NULL && batch->err == NULL)
      batch->err = g_steal_pointer (&err);
    tmk_error_free (err);
  }
  g_mutex_unlock (&batch->lock);
}

static void
take_bad (Batch *batch)
{
  for (guint i = 0; i < batch->bad->len; i++) {
    Bad *bad = &g_array_index (batch->bad, Bad, i);
    VerifyPlace place = { .file = batch->file, .number = bad->item.number };
    const IndexView *view = &index_set_file (batch->verify->set, batch->file)->view;
    if (index_view_entry (view, place.number, &place.entry))
      verify_set_bad (batch->verify, &place, bad->message);
    g_free (bad->message);
  }
  for (guint i = 0; i < batch->copies->len; i++)
    verify_add_copies (batch->verify, batch->copies->pdata[i]);
  g_ptr_array_set_size (batch->copies, 0);
  g_array_set_size (batch->bad, 0);
}

static int
compare_items (const void *a, const void *b)
{
  const Item *one = a, *two = b;
  if (one->pack != two->pack)
    return one->pack < two->pack ? -1 : 1;
  return one->offset < two->offset ? -1 : one->offset > two->offset;
}

static unsigned
workers_for (const Batch *batch)
{
  unsigned wanted = batch->verify->options->threads;
  if (wanted == 0)
    wanted = g_get_num_processors ();
  return CLAMP (batch->items->len / TAKE, 1, wanted);
}

static bool
read_batch (Batch *batch, TmkError **errp)
{
  VerifyResult *result = batch->verify->result;
  unsigned n = workers_for (batch);
  g_autofree GThread **threads = g_new (GThread *, n);
  g_array_sort (batch->items, compare_items);
  atomic_store (&batch->next, 0);
  atomic_store (&batch->done, 0);
  batch->running = n;
  for (unsigned i = 0; i < n; i++)
    threads[i] = g_thread_new ("verify", work, batch);
  wait_for_workers (batch, result->bytes);
  for (unsigned i = 0; i < n; i++)
    g_thread_join (threads[i]);
  take_bad (batch);
  if (batch->err != NULL) {
    error_propagate (errp, g_steal_pointer (&batch->err));
    return false;
  }
  result->chunks += batch->items->len;
  result->bytes += atomic_load (&batch->done);
  g_array_set_size (batch->items, 0);
  return true;
}

/* ---- an index file ------------------------------------------------------------------------ */

/* Calls `visit` for each entry marked. */
typedef void (*VisitItem) (const Item *item, void *data);

static void
for_each_needed (const Verify *verify, size_t file, VisitItem visit, void *data)
{
  const IndexView *view = &index_set_file (verify->set, file)->view;
  for (uint64_t word = 0; word <= view->n_entries / 64; word++) {
    uint64_t bits = verify->needed.bits[file][word];
    for (; bits != 0; bits &= bits - 1) {
      uint64_t number = word * 64 + (uint64_t) __builtin_ctzll (bits);
      IndexEntry entry;
      if (!index_view_entry (view, number, &entry))
        continue;
      Item item = { number, entry.offset, entry.pack, entry.length };
      visit (&item, data);
    }
  }
}

typedef struct {
  uint32_t first, end; /* packs */
  GArray *items;
} Selection;

static void
select_item (const Item *item, void *data)
{
  Selection *selection = data;
  if (item->pack >= selection->first && item->pack < selection->end)
    g_array_append_vals (selection->items, item, 1);
}

static void
count_item (const Item *item, void *data)
{
  ((uint64_t *) data)[item->pack]++;
}

static bool
read_file (Batch *batch, size_t file, TmkError **errp)
{
  const Verify *verify = batch->verify;
  uint32_t n_packs = index_set_file (verify->set, file)->view.n_packs;
  g_autofree uint64_t *counts = g_new0 (uint64_t, (size_t) n_packs + 1);
  for_each_needed (verify, file, count_item, counts);
  batch->file = file;
  for (uint32_t first = 0, end; first < n_packs; first = end) {
    uint64_t sum = counts[first];
    for (end = first + 1; end < n_packs && sum + counts[end] <= BATCH_MAX; end++)
      sum += counts[end];
    Selection selection = { first, end, batch->items };
    if (sum == 0)
      continue;
    for_each_needed (verify, file, select_item, &selection);
    if (!read_batch (batch, errp))
      return false;
  }
  return true;
}

/* ---- a sample ----------------------------------------------------------------------------- */

/* Unmarks chunks by chance, but never all. */
static void
take_sample (Verify *verify)
{
  unsigned percent = verify->options->sample;
  g_autoptr (GRand) rand = g_rand_new ();
  VerifyPlace last = { 0 };
  bool any = false, kept = false;
  for (size_t file = 0; file < verify->needed.n_files; file++)
    for (uint64_t i = 0; i < index_set_file (verify->set, file)->view.n_entries; i++) {
      VerifyPlace place = { .file = file, .number = i };
      if (!entry_set_has (&verify->needed, &place))
        continue;
      last = place;
      any = true;
      if (g_rand_int_range (rand, 0, 100) < (gint) percent)
        kept = true;
      else
        verify->needed.bits[file][i / 64] &= ~(UINT64_C (1) << i % 64);
    }
  if (any && !kept)
    (void) entry_set_add (&verify->needed, &last);
}

static void
add_length (const Item *item, void *data)
{
  *(uint64_t *) data += item->length;
}

bool
verify_chunks (Verify *verify, TmkError **errp)
{
  if (verify->options->sample > 0 && verify->options->sample < 100)
    take_sample (verify);
  Batch batch = { .verify = verify, .total = verify->result->bytes };
  for (size_t file = 0; file < verify->needed.n_files; file++)
    for_each_needed (verify, file, add_length, &batch.total);
  batch.items = g_array_new (FALSE, FALSE, sizeof (Item));
  batch.bad = g_array_new (FALSE, FALSE, sizeof (Bad));
  batch.copies = g_ptr_array_new ();
  g_mutex_init (&batch.lock);
  g_cond_init (&batch.changed);
  bool ok = true;
  for (size_t file = 0; ok && file < verify->needed.n_files; file++)
    ok = read_file (&batch, file, errp);
  if (ok)
    verify_progress (verify, verify->result->bytes, batch.total);
  g_array_unref (batch.items);
  g_array_unref (batch.bad);
  g_ptr_array_unref (batch.copies);
  g_mutex_clear (&batch.lock);
  g_cond_clear (&batch.changed);
  return ok;
}
