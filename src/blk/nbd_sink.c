/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/nbd_sink.c: a writable NBD export as a block sink. See <tidemark/block_sink.h>.
 *
 * A call keeps a connection to itself and waits for its replies. Where the server allows several,
 * as many threads as there may be connections write at once; others wait for one. After the first
 * failure of a connection everything fails: what had been written before may be lost with it.
 */
#include "blk/nbd_pool.h"
#include "blk/sink.h"

#include <pthread.h>

#define DOMAIN "blk"
#define ZERO_MAX (UINT64_C (1) << 30)

typedef struct {
  TmkBlockSink sink;
  NbdPool *pool;
  unsigned max; /* connections at a time */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  unsigned busy;   /* under lock */
  TmkError *error; /* under lock: of the connection that was lost first */
} NbdSink;

static NbdLink *
take_link (NbdSink *self, TmkError **errp)
{
  pthread_mutex_lock (&self->lock);
  while (self->busy == self->max && self->error == NULL)
    pthread_cond_wait (&self->changed, &self->lock);
  TmkError *err = self->error != NULL ? error_copy (self->error) : NULL;
  self->busy += err == NULL;
  pthread_mutex_unlock (&self->lock);
  if (err != NULL) {
    error_propagate (errp, err);
    return NULL;
  }
  NbdLink *link = nbd_pool_take (self->pool, &err);
  if (link != NULL)
    return link;
  pthread_mutex_lock (&self->lock);
  self->busy--;
  pthread_cond_signal (&self->changed);
  pthread_mutex_unlock (&self->lock);
  error_propagate (errp, err);
  return NULL;
}

static void
give_link (NbdSink *self, NbdLink *link, const TmkError *err)
{
  bool lost = err != NULL && !nbd_link_is_idle (link);
  nbd_pool_give (self->pool, link);
  pthread_mutex_lock (&self->lock);
  self->busy--;
  if (lost && self->error == NULL)
    self->error = error_copy (err);
  pthread_cond_broadcast (&self->changed);
  pthread_mutex_unlock (&self->lock);
}

typedef struct {
  bool done;
  int err_no;
} Reply;

static int
on_reply (void *data, int *error)
{
  Reply *reply = data;
  reply->err_no = *error;
  reply->done = true;
  return 1; /* libnbd forgets the command */
}

/* Waits for the command that nbd_aio_…() has returned `cookie` for. */
static bool
finish_command (NbdLink *link, int64_t cookie, Reply *reply, const char *what, TmkError **errp)
{
  if (cookie < 0) {
    nbd_link_set_error (link, what, errp);
    return false;
  }
  if (!nbd_link_await (link, &reply->done, link->target->reply_ms, errp)) {
    /* The reply and the data are the caller's: nothing may come to them later. */
    nbd_link_hang_up (link);
    return false;
  }
  if (reply->err_no == 0)
    return true;
  nbd_link_set_reply_error (link->target, reply->err_no, what, errp);
  return false;
}

static bool
nbd_write (TmkBlockSink *sink, uint64_t offset, const void *data, size_t length, TmkError **errp)
{
  NbdSink *self = (NbdSink *) sink;
  NbdLink *link = take_link (self, errp);
  if (link == NULL)
    return false;
  const char *p = data;
  TmkError *err = NULL;
  while (length > 0 && err == NULL) {
    size_t n = MIN (length, link->facts.max_block & ~(link->facts.min_block - 1));
    Reply reply = { 0 };
    nbd_completion_callback done = { .callback = on_reply, .user_data = &reply };
    int64_t cookie = nbd_aio_pwrite (link->nbd, p, n, offset, done, 0);
    (void) finish_command (link, cookie, &reply, "to write", &err); /* `err` tells */
    p += n;
    offset += n;
    length -= n;
  }
  give_link (self, link, err);
  bool ok = err == NULL;
  error_propagate (errp, err);
  return ok;
}

static bool
nbd_zero_range (TmkBlockSink *sink, uint64_t offset, uint64_t length, TmkError **errp)
{
  NbdSink *self = (NbdSink *) sink;
  if (!nbd_pool_facts (self->pool)->zero)
    return false;
  NbdLink *link = take_link (self, errp);
  if (link == NULL)
    return false;
  TmkError *err = NULL;
  while (length > 0 && err == NULL) {
    uint64_t n = MIN (length, ZERO_MAX);
    Reply reply = { 0 };
    nbd_completion_callback done = { .callback = on_reply, .user_data = &reply };
    int64_t cookie = nbd_aio_zero (link->nbd, n, offset, done, 0);
    (void) finish_command (link, cookie, &reply, "to zero", &err); /* `err` tells */
    offset += n;
    length -= n;
  }
  give_link (self, link, err);
  bool ok = err == NULL;
  error_propagate (errp, err);
  return ok;
}

static bool
nbd_flush_all (TmkBlockSink *sink, TmkError **errp)
{
  NbdSink *self = (NbdSink *) sink;
  if (!nbd_pool_facts (self->pool)->flush)
    return true; /* a server without a flush keeps nothing back */
  NbdLink *link = take_link (self, errp);
  if (link == NULL)
    return false;
  TmkError *err = NULL;
  Reply reply = { 0 };
  nbd_completion_callback done = { .callback = on_reply, .user_data = &reply };
  int64_t cookie = nbd_aio_flush (link->nbd, done, 0);
  bool ok = finish_command (link, cookie, &reply, "to flush", &err);
  give_link (self, link, err);
  error_propagate (errp, err);
  return ok;
}

static bool
nbd_finish (TmkBlockSink *sink, TmkError **errp)
{
  return true;
}

static void
nbd_free (TmkBlockSink *sink)
{
  NbdSink *self = (NbdSink *) sink;
  nbd_pool_free (self->pool);
  pthread_cond_destroy (&self->changed);
  pthread_mutex_destroy (&self->lock);
  tmk_error_free (self->error);
  g_free (self);
}

static const SinkKind kind = { .write = nbd_write,
                               .zero = nbd_zero_range,
                               .flush = nbd_flush_all,
                               .finish = nbd_finish,
                               .free = nbd_free };

TmkBlockSink *
tmk_block_sink_open_nbd (const char *uri, const TmkNbdOptions *options, TmkError **errp)
{
  NbdTarget *target = nbd_target_new (uri, options, false, errp);
  if (target == NULL || nbd_target_is_cancelled (target, errp)) {
    nbd_target_free (target);
    return NULL;
  }
  NbdPool *pool = nbd_pool_new (target, errp);
  if (pool == NULL)
    return NULL;
  const NbdFacts *facts = nbd_pool_facts (pool);
  if (facts->read_only) {
    error_set (errp, DOMAIN, TMK_ERR_DENIED, EROFS, "'%s': the export is read-only", uri);
    nbd_pool_free (pool);
    return NULL;
  }
  NbdSink *self = g_new0 (NbdSink, 1);
  self->pool = pool;
  self->max = facts->multi_conn ? target->connections : 1;
  pthread_mutex_init (&self->lock, NULL);
  pthread_cond_init (&self->changed, NULL);
  self->sink.kind = &kind;
  self->sink.name = g_strdup (uri);
  self->sink.size = facts->size;
  return &self->sink;
}
