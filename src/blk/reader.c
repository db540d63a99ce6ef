/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/reader.c: see blk/reader.h.
 *
 * The reader's own thread is there so that requests stay under way while every consumer computes.
 * pthreads, not GLib's: the thread sanitizer understands those.
 */
#include "blk/reader.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define DOMAIN "blk"
#define ZERO_SLOTS 256
#define ANNOUNCE 64 /* pieces that are not kept from consumers any longer */

/* Slots that nobody has: a stack. Those used last are on top, they may still be in the cache. */
typedef struct {
  ReaderSlot **free;
  unsigned n_free, n_all;
  bool starved; /* the engine found none, and is to be woken */
} SlotPool;

struct TmkBlockReader {
  /* fixed */
  char *name;
  unsigned n_buffers, n_slots;
  ReaderSlot *slots;
  unsigned char *memory;
  size_t memory_size;
  int wake_fd;
  ReaderEngine *engine;
  pthread_t thread;
  bool started;
  /* of the engine's thread */
  ReadFeed feed;
  /* atomic */
  atomic_bool cancelled, stopping;
  /* under lock */
  pthread_mutex_t lock;
  pthread_cond_t changed; /* `ready` or `ended` */
  SlotPool pools[2];      /* with a buffer, without */
  ReaderSlot **ready;     /* a ring */
  unsigned ready_head, n_ready;
  unsigned waiting; /* consumers */
  bool ended;
  TmkError *error; /* set before `ended` */
  TmkReadStats stats;
};

/* --- the order of work */

static void
feed_take (ReadFeed *feed, const ExtentList *extents, ExtentList *to)
{
  extent_list_align (extents, feed->align, feed->size, to);
}

bool
read_feed_wants (const ReadFeed *feed)
{
  return feed->wanted < feed->size && !feed->has_next;
}

void
read_feed_put (ReadFeed *feed, const ExtentList *extents, uint64_t end)
{
  feed_take (feed, extents, &feed->next);
  feed->has_next = true;
  feed->wanted = end;
}

bool
read_feed_next (ReadFeed *feed, uint64_t *offset, uint64_t *length, bool *zero)
{
  for (;;) {
    if (extent_walk_next (&feed->walk, offset, length, zero))
      return true;
    if (!feed->has_next)
      return false;
    ExtentList spare = feed->now;
    feed->now = feed->next;
    feed->next = spare;
    feed->has_next = false;
    extent_walk_init (&feed->walk, &feed->now, feed->only_dirty, feed->request);
  }
}

bool
read_feed_is_done (const ReadFeed *feed)
{
  return feed->walk.index == feed->now.n && !feed->has_next && feed->wanted == feed->size;
}

static void
feed_init (ReadFeed *feed, const ReaderSetup *setup)
{
  *feed = (ReadFeed){ .only_dirty = setup->only_dirty,
                      .size = setup->size,
                      .align = setup->align,
                      .request = setup->request };
  extent_list_init (&feed->now);
  extent_list_init (&feed->next);
  if (setup->extents != NULL) {
    const ExtentList given
        = { .at = (TmkBlockExtent *) setup->extents->extents, .n = setup->extents->n_extents };
    feed_take (feed, &given, &feed->now);
    feed->wanted = feed->size;
  }
  extent_walk_init (&feed->walk, &feed->now, feed->only_dirty, feed->request);
}

/* --- the thread */

static void
end_reading (TmkBlockReader *reader, TmkError *error /* stolen; NULL: well */)
{
  pthread_mutex_lock (&reader->lock);
  reader->error = error;
  reader->ended = true;
  pthread_cond_broadcast (&reader->changed);
  pthread_mutex_unlock (&reader->lock);
}

static void *
run_engine (void *data)
{
  TmkBlockReader *reader = data;
  TmkError *error = NULL;
  if (!reader->engine->kind->run (reader->engine, reader, &error) && error == NULL)
    error_set (&error, DOMAIN, TMK_ERR_CANCELLED, ECANCELED, "'%s': cancelled", reader->name);
  end_reading (reader, error);
  return NULL;
}

static bool
allocate (TmkBlockReader *reader, unsigned request, TmkError **errp)
{
  size_t room = ((size_t) request + 4095) & ~(size_t) 4095;
  reader->memory_size = room * reader->n_buffers;
  reader->memory = mmap (NULL, reader->memory_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reader->memory == MAP_FAILED) {
    reader->memory = NULL;
    error_set_errno (errp, DOMAIN, errno, "cannot allocate %u buffers", reader->n_buffers);
    return false;
  }
  reader->slots = g_new0 (ReaderSlot, reader->n_slots);
  reader->ready = g_new0 (ReaderSlot *, reader->n_slots);
  for (int kind = 0; kind < 2; kind++)
    reader->pools[kind].free = g_new0 (ReaderSlot *, reader->n_slots);
  for (unsigned i = reader->n_slots; i-- > 0;) {
    ReaderSlot *slot = &reader->slots[i];
    slot->index = i;
    if (i < reader->n_buffers)
      slot->buffer = reader->memory + i * room;
    SlotPool *pool = &reader->pools[slot->buffer == NULL];
    pool->free[pool->n_free++] = slot;
    pool->n_all++;
  }
  return true;
}

TmkBlockReader *
reader_new (const ReaderSetup *setup, ReaderEngine *engine, TmkError **errp)
{
  g_autoptr (TmkBlockReader) reader = g_new0 (TmkBlockReader, 1);
  reader->engine = engine;
  reader->name = g_strdup (setup->name);
  reader->n_buffers = MAX (setup->buffers, 2);
  reader->n_slots = reader->n_buffers + ZERO_SLOTS;
  pthread_mutex_init (&reader->lock, NULL);
  pthread_cond_init (&reader->changed, NULL);
  reader->wake_fd = -1;
  feed_init (&reader->feed, setup);
  if (setup->align > setup->request) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "'%s': cannot align to %" G_GUINT64_FORMAT " bytes with requests of %u",
               reader->name, setup->align, setup->request);
    return NULL;
  }
  reader->wake_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (reader->wake_fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot make an eventfd");
    return NULL;
  }
  if (!allocate (reader, setup->request, errp))
    return NULL;
  int err = pthread_create (&reader->thread, NULL, run_engine, reader);
  if (err != 0) {
    error_set_errno (errp, DOMAIN, err, "cannot start a thread");
    return NULL;
  }
  reader->started = true;
  return g_steal_pointer (&reader);
}

static void
wake (TmkBlockReader *reader)
{
  uint64_t one = 1;
  /* It fails only where the counter is full, and then it is readable. */
  ssize_t n = write (reader->wake_fd, &one, sizeof one);
  (void) n;
}

void
tmk_block_reader_free (TmkBlockReader *reader)
{
  if (reader == NULL)
    return;
  if (reader->started) {
    atomic_store (&reader->stopping, true);
    wake (reader);
    pthread_join (reader->thread, NULL);
  }
  reader->engine->kind->free (reader->engine);
  extent_list_clear (&reader->feed.now);
  extent_list_clear (&reader->feed.next);
  if (reader->memory != NULL)
    munmap (reader->memory, reader->memory_size);
  if (reader->wake_fd >= 0)
    close (reader->wake_fd);
  pthread_cond_destroy (&reader->changed);
  pthread_mutex_destroy (&reader->lock);
  tmk_error_free (reader->error);
  g_free (reader->slots);
  for (int kind = 0; kind < 2; kind++)
    g_free (reader->pools[kind].free);
  g_free (reader->ready);
  g_free (reader->name);
  g_free (reader);
}

/* --- for the engine */

ReadFeed *
reader_feed (TmkBlockReader *reader)
{
  return &reader->feed;
}

unsigned
reader_slots (const TmkBlockReader *reader)
{
  return reader->n_buffers;
}

int
reader_wake_fd (const TmkBlockReader *reader)
{
  return reader->wake_fd;
}

bool
reader_should_stop (TmkBlockReader *reader, TmkError **errp)
{
  if (atomic_load (&reader->cancelled)) {
    error_set (errp, DOMAIN, TMK_ERR_CANCELLED, ECANCELED, "'%s': cancelled", reader->name);
    return true;
  }
  return atomic_load (&reader->stopping);
}

ReaderSlot *
reader_take_slot (TmkBlockReader *reader, bool zero)
{
  SlotPool *pool = &reader->pools[zero];
  pthread_mutex_lock (&reader->lock);
  ReaderSlot *slot = pool->n_free > 0 ? pool->free[--pool->n_free] : NULL;
  pool->starved = slot == NULL;
  pthread_mutex_unlock (&reader->lock);
  return slot;
}

void
reader_acknowledge (TmkBlockReader *reader)
{
  uint64_t count;
  ssize_t n = read (reader->wake_fd, &count, sizeof count);
  (void) n; /* EAGAIN: there was nothing */
}

void
reader_deliver (TmkBlockReader *reader, ReaderSlot *slot, bool zero, bool read)
{
  slot->piece.data = zero ? NULL : slot->buffer;
  pthread_mutex_lock (&reader->lock);
  if (zero)
    reader->stats.zero += slot->piece.length;
  else
    reader->stats.read += slot->piece.length;
  reader->stats.requests += read;
  reader->ready[(reader->ready_head + reader->n_ready++) % reader->n_slots] = slot;
  bool many = reader->n_ready >= ANNOUNCE;
  pthread_mutex_unlock (&reader->lock);
  if (many)
    reader_announce (reader);
}

void
reader_announce (TmkBlockReader *reader)
{
  pthread_mutex_lock (&reader->lock);
  unsigned wakes = MIN (reader->waiting, reader->n_ready);
  pthread_mutex_unlock (&reader->lock);
  if (wakes == 1)
    pthread_cond_signal (&reader->changed);
  else if (wakes > 1)
    pthread_cond_broadcast (&reader->changed);
}

void
reader_count_reconnect (TmkBlockReader *reader)
{
  pthread_mutex_lock (&reader->lock);
  reader->stats.reconnects++;
  pthread_mutex_unlock (&reader->lock);
}

/* --- for consumers */

/* Under lock: should the engine be woken? One slot at a time would make the two threads take turns,
 * so not for fewer than a quarter of them, unless somebody waits for what they will hold. */
static bool
ends_starvation (TmkBlockReader *reader)
{
  bool ends = false;
  for (int kind = 0; kind < 2; kind++) {
    SlotPool *pool = &reader->pools[kind];
    if (pool->starved && pool->n_free >= (reader->waiting > 0 ? 1 : pool->n_all / 4 + 1)) {
      pool->starved = false;
      ends = true;
    }
  }
  return ends;
}

bool
tmk_block_reader_next (TmkBlockReader *reader, const TmkBlockPiece **piece, TmkError **errp)
{
  ReaderSlot *slot = NULL;
  TmkError *error = NULL;
  pthread_mutex_lock (&reader->lock);
  while (reader->n_ready == 0 && !reader->ended) {
    reader->waiting++;
    if (ends_starvation (reader))
      wake (reader);
    pthread_cond_wait (&reader->changed, &reader->lock);
    reader->waiting--;
  }
  if (reader->error != NULL) {
    error = error_copy (reader->error);
  } else if (reader->n_ready > 0) {
    slot = reader->ready[reader->ready_head];
    reader->ready_head = (reader->ready_head + 1) % reader->n_slots;
    reader->n_ready--;
  }
  pthread_mutex_unlock (&reader->lock);
  if (error != NULL) {
    error_propagate (errp, error);
    return false;
  }
  *piece = slot != NULL ? &slot->piece : NULL;
  return true;
}

void
tmk_block_reader_release (TmkBlockReader *reader, const TmkBlockPiece *piece)
{
  /* The piece is the slot's first member, and the slot is ours to change. */
  ReaderSlot *slot = (ReaderSlot *) piece;
  pthread_mutex_lock (&reader->lock);
  SlotPool *pool = &reader->pools[slot->buffer == NULL];
  g_assert (slot == &reader->slots[slot->index] && pool->n_free < pool->n_all);
  pool->free[pool->n_free++] = slot;
  bool hungry = ends_starvation (reader);
  pthread_mutex_unlock (&reader->lock);
  if (hungry)
    wake (reader);
}

void
tmk_block_reader_cancel (TmkBlockReader *reader)
{
  int saved = errno; /* for signal handlers */
  atomic_store (&reader->cancelled, true);
  wake (reader);
  errno = saved;
}

void
tmk_block_reader_stats (TmkBlockReader *reader, TmkReadStats *stats)
{
  pthread_mutex_lock (&reader->lock);
  *stats = reader->stats;
  pthread_mutex_unlock (&reader->lock);
}
