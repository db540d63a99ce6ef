/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/nbd_reader.c: see blk/nbd_reader.h.
 *
 * One thread, one poll(). A wire is a place for a connection; it is up, connecting, down (to be
 * connected again) or off (given up, others go on). What was under way on a wire that is lost goes
 * back to the queue and to whichever wire is free first, so that the loss of one of two costs
 * nothing. Reading ends in an error where no wire is up for the target's reconnect bound, counted
 * from the first loss after the last answer, and where a request was lost too often: a server that
 * falls over it will do so again.
 *
 * The next window of extents is asked for while the one before is being read.
 */
#include "blk/nbd_reader.h"

#include "blk/nbd_status.h"
#include "blk/spans.h"

#include <errno.h>
#include <poll.h>

#define DOMAIN "blk"
#define WINDOW (UINT64_C (16) << 30) /* a multiple of any alignment */
#define WINDOW_EXTENTS (128u << 10)  /* cut it short beyond */
#define SPARE_BUFFERS 4
#define RESENDS_MAX 8

typedef enum { WIRE_OFF, WIRE_DOWN, WIRE_CONNECTING, WIRE_UP } WireState;

typedef struct {
  WireState state;
  NbdLink *link; /* connecting and up */
  bool was_up;   /* at any time */
  unsigned in_flight;
  unsigned backoff_ms;
  gint64 when; /* down: try again then; connecting: since; up: the last sign of life */
} Wire;

typedef struct NbdReader NbdReader;

typedef enum { READ_IDLE, READ_UNDER_WAY, READ_TO_SEND } ReadState;

/* What happens to a slot's buffer. */
typedef struct {
  NbdReader *reader;
  ReaderSlot *slot;
  ReadState state;
  Wire *wire; /* under way on it; NULL: its reply came, and then the wire was lost */
  bool done;
  int err_no;
  bool repeated; /* some bytes came twice */
  uint64_t holes;
  Spans got;
  unsigned resends;
} Read;

struct NbdReader {
  ReaderEngine engine;
  NbdPool *pool; /* borrowed */
  const NbdTarget *target;
  TmkBlockReader *reader; /* while it runs */
  ReadFeed *feed;
  unsigned n_wires;
  Wire *wires;
  struct pollfd *pfds; /* one a wire, wake, cancel */
  Read *reads;         /* one a slot */
  unsigned n_reads;
  unsigned n_done; /* reads whose reply came */
  Read **to_send;  /* lost on the way */
  unsigned n_to_send;
  unsigned n_under_way;
  bool has_next; /* a piece that was cut off, and waits for a slot */
  uint64_t next_offset, next_length;
  bool next_zero;
  NbdStatus status;
  bool asking; /* status is on the way to the next window */
  unsigned status_resends;
  ExtentList merged;
  gint64 lost_at; /* the first loss since the last answer; 0: none */
  gint64 now;     /* as of this turn of the loop */
};

/* --- connections */

static Wire *
freest_wire (NbdReader *self)
{
  Wire *best = NULL;
  for (unsigned i = 0; i < self->n_wires; i++) {
    Wire *wire = &self->wires[i];
    if (wire->state == WIRE_UP && (best == NULL || wire->in_flight < best->in_flight))
      best = wire;
  }
  return best;
}

static bool
is_owed (const NbdReader *self, const Wire *wire)
{
  return wire->in_flight > 0 || self->status.link == wire->link;
}

/* Queues again what was under way on a wire. False: that happened too often, `err` is why. */
static bool
queue_again (NbdReader *self, Wire *wire, unsigned limit)
{
  bool ok = true;
  for (unsigned i = 0; i < self->n_reads; i++) {
    Read *read = &self->reads[i];
    if (read->state != READ_UNDER_WAY || read->wire != wire)
      continue;
    read->wire = NULL;
    if (read->done && read->err_no == 0)
      continue; /* in time */
    self->n_done -= read->done;
    self->n_under_way--;
    read->state = READ_TO_SEND;
    self->to_send[self->n_to_send++] = read;
    ok = ++read->resends <= limit && ok;
  }
  wire->in_flight = 0;
  if (wire->link != NULL && self->status.link == wire->link
      && !(self->status.done && self->status.err_no == 0)) {
    nbd_status_drop (&self->status);
    ok = ++self->status_resends <= limit && ok;
  }
  return ok;
}

/* A wire's connection ended, or could not be made. False: that is the end of it all. */
static bool
lose_wire (NbdReader *self, Wire *wire, TmkError *why /* stolen */, TmkError **errp)
{
  g_autoptr (TmkError) err = why;
  bool silent = wire->state == WIRE_UP && tmk_error_code (err) == TMK_ERR_TIMEOUT;
  /* libnbd may call back for what it drops, so the requests are looked at afterwards. */
  if (wire->link != NULL)
    nbd_link_hang_up (wire->link);
  bool again = queue_again (self, wire, silent ? 1 : RESENDS_MAX);
  nbd_link_free (g_steal_pointer (&wire->link));
  wire->state = WIRE_DOWN;
  if (!wire->was_up && freest_wire (self) != NULL) {
    wire->state = WIRE_OFF; /* the server may not want so many */
    return true;
  }
  if (!again || !nbd_pool_can_reconnect (self->pool) || !nbd_error_is_passing (err)) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  if (self->lost_at == 0)
    self->lost_at = self->now;
  gint64 bound = self->lost_at + (gint64) self->target->reconnect_ms * 1000;
  if (self->now >= bound && freest_wire (self) == NULL) {
    nbd_pool_set_gone (self->pool, g_steal_pointer (&err), errp);
    return false;
  }
  wire->when = self->now + (gint64) wire->backoff_ms * 1000;
  wire->backoff_ms = CLAMP (wire->backoff_ms * 2, 20, 1000);
  return true;
}

/* Connects, or notices that it is connected. */
static bool
tend_wire (NbdReader *self, Wire *wire, TmkError **errp)
{
  const NbdTarget *target = self->target;
  TmkError *err = NULL;
  if (wire->state == WIRE_DOWN && self->now >= wire->when) {
    wire->link = nbd_link_start (target, &err);
    if (wire->link == NULL)
      return lose_wire (self, wire, err, errp);
    wire->state = WIRE_CONNECTING;
    wire->when = self->now;
  }
  /* It may have ended, or be connected, without a wait: then poll() would not tell. */
  if (wire->link != NULL && !nbd_link_pump (wire->link, 0, &err))
    return lose_wire (self, wire, err, errp);
  if (wire->state == WIRE_CONNECTING && wire->link->ready) {
    if (!nbd_pool_check (self->pool, wire->link, &err))
      return lose_wire (self, wire, err, errp);
    if (wire->was_up)
      reader_count_reconnect (self->reader);
    wire->state = WIRE_UP;
    wire->was_up = true;
    wire->when = self->now;
  }
  unsigned patience = wire->state == WIRE_UP ? target->reply_ms : target->connect_ms;
  bool owed = wire->state == WIRE_CONNECTING || (wire->state == WIRE_UP && is_owed (self, wire));
  if (owed && self->now - wire->when > (gint64) patience * 1000) {
    error_set (&err, DOMAIN, TMK_ERR_TIMEOUT, ETIMEDOUT, "'%s': the server was silent for %g s",
               target->uri, patience / 1000.0);
    return lose_wire (self, wire, err, errp);
  }
  return true;
}

static bool
tend_wires (NbdReader *self, TmkError **errp)
{
  for (unsigned i = 0; i < self->n_wires; i++)
    if (!tend_wire (self, &self->wires[i], errp))
      return false;
  return true;
}

/* --- extents */

static void
put_window (NbdReader *self, uint64_t end)
{
  nbd_status_merge (&self->status, end, &self->merged);
  read_feed_put (self->feed, &self->merged, end);
  self->asking = false;
}

/* Takes in a reply, if one came. */
static bool
settle_status (NbdReader *self, TmkError **errp)
{
  NbdStatus *status = &self->status;
  if (status->link == NULL || !status->done)
    return true;
  if (!nbd_status_check (status, errp))
    return false;
  self->lost_at = 0;
  self->status_resends = 0;
  uint64_t known = nbd_status_known (status);
  if (known < status->end && status->allocation.n + status->dirty.n >= WINDOW_EXTENTS) {
    uint64_t cut = known & ~(self->feed->align - 1);
    if (cut > status->begin)
      known = status->end = cut;
  }
  if (known == status->end)
    put_window (self, known);
  return true;
}

static bool
ask_status (NbdReader *self, TmkError **errp)
{
  NbdStatus *status = &self->status;
  if (!self->asking && read_feed_wants (self->feed)) {
    uint64_t begin = self->feed->wanted, size = self->feed->size;
    self->asking = true;
    nbd_status_set_range (status, begin, size - begin > WINDOW ? begin + WINDOW : size);
    if (!status->facts.allocation && !status->facts.dirty)
      put_window (self, status->end); /* there is nobody to ask */
  }
  Wire *wire = freest_wire (self);
  if (!self->asking || status->link != NULL || wire == NULL)
    return true;
  TmkError *err = NULL;
  if (!is_owed (self, wire))
    wire->when = self->now;
  return nbd_status_send (status, wire->link, &err) || lose_wire (self, wire, err, errp);
}

/* --- reads */

static int
on_chunk (void *data, const void *bytes, size_t count, uint64_t offset, unsigned status, int *error)
{
  Read *read = data;
  if (status != LIBNBD_READ_DATA && status != LIBNBD_READ_HOLE)
    return 0;                                         /* an error: `error` has it */
  uint64_t begin = offset - read->slot->piece.offset; /* within: libnbd has checked */
  if (!spans_add (&read->got, begin, begin + count))
    read->repeated = true;
  if (status == LIBNBD_READ_HOLE)
    read->holes += count;
  return 0;
}

static int
on_read (void *data, int *error)
{
  Read *read = data;
  read->err_no = *error;
  read->done = true;
  read->reader->n_done++;
  return 1; /* libnbd forgets the command */
}

/* Where the next read comes from: what was lost, else what is next. Zeroes are delivered at once.
 * NULL: there is none for now. */
static Read *
next_read (NbdReader *self)
{
  if (self->n_to_send > 0)
    return self->to_send[--self->n_to_send];
  for (;;) {
    if (!self->has_next)
      self->has_next
          = read_feed_next (self->feed, &self->next_offset, &self->next_length, &self->next_zero);
    ReaderSlot *slot = self->has_next ? reader_take_slot (self->reader, self->next_zero) : NULL;
    if (slot == NULL)
      return NULL;
    self->has_next = false;
    slot->piece.offset = self->next_offset;
    slot->piece.length = self->next_length;
    if (!self->next_zero) {
      Read *read = &self->reads[slot->index];
      read->slot = slot;
      read->resends = 0;
      return read;
    }
    reader_deliver (self->reader, slot, true, false);
  }
}

static bool
send_reads (NbdReader *self, TmkError **errp)
{
  Wire *wire;
  while ((wire = freest_wire (self)) != NULL && wire->in_flight < self->target->depth) {
    Read *read = next_read (self);
    if (read == NULL)
      return true;
    if (!is_owed (self, wire))
      wire->when = self->now;
    read->state = READ_UNDER_WAY;
    read->wire = wire;
    read->done = read->repeated = false;
    read->err_no = 0;
    read->holes = 0;
    spans_reset (&read->got);
    wire->in_flight++;
    self->n_under_way++;
    nbd_chunk_callback chunk = { .callback = on_chunk, .user_data = read };
    nbd_completion_callback done = { .callback = on_read, .user_data = read };
    if (nbd_aio_pread_structured (wire->link->nbd, read->slot->buffer, read->slot->piece.length,
                                  read->slot->piece.offset, chunk, done, 0)
        < 0) {
      TmkError *err = NULL;
      nbd_link_set_error (wire->link, "cannot read", &err);
      if (!lose_wire (self, wire, err, errp))
        return false;
    }
  }
  return true;
}

static bool
set_read_error (NbdReader *self, const Read *read, TmkError **errp)
{
  const TmkBlockPiece *piece = &read->slot->piece;
  g_autofree char *what = g_strdup_printf (
      "to read %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT, piece->length, piece->offset);
  if (read->err_no != 0)
    nbd_link_set_reply_error (self->target, read->err_no, what, errp);
  else
    error_set (errp, DOMAIN, TMK_ERR_INVALID, EPROTO, "'%s': asked %s, the server sent some %s",
               self->target->uri, what, read->repeated ? "twice" : "not at all");
  return false;
}

static bool
settle_read (NbdReader *self, Read *read, TmkError **errp)
{
  if (read->err_no == ESHUTDOWN && read->wire != NULL) {
    TmkError *err = NULL;
    error_set (&err, DOMAIN, TMK_ERR_GONE, ESHUTDOWN, "'%s': the server is shutting down",
               self->target->uri);
    return lose_wire (self, read->wire, err, errp);
  }
  uint64_t length = read->slot->piece.length;
  if (read->err_no != 0 || read->repeated || !spans_are_full (&read->got, length))
    return set_read_error (self, read, errp);
  if (read->wire != NULL) {
    read->wire->in_flight--;
    read->wire->when = self->now;
    read->wire->backoff_ms = 0;
  }
  read->state = READ_IDLE;
  self->n_done--;
  self->n_under_way--;
  self->lost_at = 0;
  reader_deliver (self->reader, read->slot, read->holes == length, true);
  return true;
}

static bool
settle_reads (NbdReader *self, TmkError **errp)
{
  for (unsigned i = 0; i < self->n_reads && self->n_done > 0; i++) {
    Read *read = &self->reads[i];
    if (read->state == READ_UNDER_WAY && read->done && !settle_read (self, read, errp))
      return false;
  }
  return true;
}

/* --- the loop */

static int
poll_timeout (const NbdReader *self)
{
  for (unsigned i = 0; i < self->n_wires; i++)
    if (self->wires[i].state == WIRE_DOWN || self->wires[i].state == WIRE_CONNECTING)
      return 10;
  return (int) MIN (self->target->reply_ms / 4 + 1, 1000);
}

/* Waits until something happens, and lets libnbd handle it. */
static bool
wait_and_pump (NbdReader *self, TmkError **errp)
{
  for (unsigned i = 0; i < self->n_wires; i++) {
    Wire *wire = &self->wires[i];
    TmkError *err = NULL;
    self->pfds[i] = (struct pollfd){ .fd = -1 };
    /* Again: it may have ended when something was sent. */
    if (wire->link != NULL && !nbd_link_pump (wire->link, 0, &err)) {
      if (!lose_wire (self, wire, err, errp))
        return false;
    } else if (wire->link != NULL) {
      nbd_link_pollfd (wire->link, &self->pfds[i]);
    }
  }
  reader_announce (self->reader);
  struct pollfd *wake = &self->pfds[self->n_wires], *cancel = wake + 1;
  *wake = (struct pollfd){ .fd = reader_wake_fd (self->reader), .events = POLLIN };
  *cancel = (struct pollfd){ .fd = self->target->cancel_fd, .events = POLLIN };
  int n = poll (self->pfds, self->n_wires + 2, poll_timeout (self));
  self->now = g_get_monotonic_time ();
  if (n < 0 && errno != EINTR) {
    error_set_errno (errp, DOMAIN, errno, "'%s': poll", self->target->uri);
    return false;
  }
  if (n <= 0)
    return true;
  if (wake->revents != 0)
    reader_acknowledge (self->reader);
  if (cancel->revents != 0 && nbd_target_is_cancelled (self->target, errp))
    return false;
  for (unsigned i = 0; i < self->n_wires; i++) {
    Wire *wire = &self->wires[i];
    TmkError *err = NULL;
    if (self->pfds[i].revents == 0)
      continue;
    if (wire->state == WIRE_UP)
      wire->when = self->now;
    if (!nbd_link_pump (wire->link, self->pfds[i].revents, &err)
        && !lose_wire (self, wire, err, errp))
      return false;
  }
  return true;
}

static bool
run (ReaderEngine *engine, TmkBlockReader *reader, TmkError **errp)
{
  NbdReader *self = (NbdReader *) engine;
  self->reader = reader;
  self->feed = reader_feed (reader);
  self->n_reads = reader_slots (reader);
  self->reads = g_new0 (Read, self->n_reads);
  self->to_send = g_new0 (Read *, self->n_reads);
  for (unsigned i = 0; i < self->n_reads; i++)
    self->reads[i].reader = self;
  self->now = g_get_monotonic_time ();
  for (;;) {
    if (reader_should_stop (reader, errp) || !tend_wires (self, errp) || !settle_status (self, errp)
        || !settle_reads (self, errp) || !ask_status (self, errp) || !send_reads (self, errp))
      return false;
    if (self->n_done > 0 || (!self->asking && read_feed_wants (self->feed)))
      continue; /* answered while it was sent; the next window was begun */
    if (self->n_under_way == 0 && self->n_to_send == 0 && !self->asking && !self->has_next
        && read_feed_is_done (self->feed))
      return true;
    if (!wait_and_pump (self, errp))
      return false;
  }
}

static void
engine_free (ReaderEngine *engine)
{
  NbdReader *self = (NbdReader *) engine;
  for (unsigned i = 0; i < self->n_wires; i++)
    nbd_pool_give (self->pool, self->wires[i].link);
  for (unsigned i = 0; self->reads != NULL && i < self->n_reads; i++)
    spans_clear (&self->reads[i].got);
  nbd_status_clear (&self->status);
  extent_list_clear (&self->merged);
  g_free (self->wires);
  g_free (self->pfds);
  g_free (self->reads);
  g_free (self->to_send);
  g_free (self);
}

static const ReaderEngineKind kind = { .run = run, .free = engine_free };

static unsigned
round_down (unsigned n)
{
  unsigned power = 1;
  while (power <= n / 2)
    power *= 2;
  return power;
}

ReaderEngine *
nbd_reader_new (NbdPool *pool, ReaderSetup *setup, TmkError **errp)
{
  NbdLink *link = nbd_pool_take (pool, errp);
  if (link == NULL)
    return NULL;
  const NbdTarget *target = nbd_pool_target (pool);
  const NbdFacts *facts = nbd_pool_facts (pool);
  NbdReader *self = g_new0 (NbdReader, 1);
  self->engine.kind = &kind;
  self->pool = pool;
  self->target = target;
  self->n_wires = facts->multi_conn ? target->connections : 1;
  self->wires = g_new0 (Wire, self->n_wires);
  self->pfds = g_new0 (struct pollfd, self->n_wires + 2);
  for (unsigned i = 0; i < self->n_wires; i++) {
    Wire *wire = &self->wires[i];
    wire->link = i == 0 ? link : nbd_pool_take_idle (pool);
    wire->was_up = wire->link != NULL;
    wire->state = wire->was_up ? WIRE_UP : WIRE_DOWN;
  }
  nbd_status_init (&self->status, target, facts);
  extent_list_init (&self->merged);
  setup->align = MAX (setup->align, facts->min_block);
  setup->request = MIN (target->request_size, round_down (facts->max_block));
  if (setup->buffers == 0)
    setup->buffers = self->n_wires * target->depth + SPARE_BUFFERS;
  return &self->engine;
}
