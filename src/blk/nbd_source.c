/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/nbd_source.c: an NBD export as a block source. See <tidemark/block_source.h>. */
#include "blk/nbd_pool.h"
#include "blk/nbd_reader.h"
#include "blk/nbd_status.h"
#include "blk/source.h"

#define LOSSES_MAX 8

typedef struct {
  TmkBlockSource source;
  NbdPool *pool;
} NbdSource;

/* One request and its reply. The link is not usable after a failure that is the connection's. */
static bool
ask_once (NbdStatus *status, NbdLink *link, TmkError **errp)
{
  return nbd_status_send (status, link, errp)
         && nbd_link_await (link, &status->done, status->target->reply_ms, errp)
         && nbd_status_check (status, errp);
}

/* Asks until all is known. `*link` is replaced when it is lost, NULL where it cannot be. */
static bool
ask_all (NbdPool *pool, NbdStatus *status, NbdLink **link, TmkError **errp)
{
  unsigned losses = 0, silences = 0;
  gint64 lost_at = 0;
  while (nbd_status_known (status) < status->end) {
    TmkError *err = NULL;
    if (ask_once (status, *link, &err)) {
      lost_at = 0;
      continue;
    }
    bool refused = nbd_aio_is_ready ((*link)->nbd) > 0; /* an answer, if not a good one */
    silences += tmk_error_code (err) == TMK_ERR_TIMEOUT;
    g_clear_pointer (link, nbd_link_free); /* before the callbacks' data are used again */
    nbd_status_drop (status);
    if (refused || ++losses > LOSSES_MAX || silences > 1 || !nbd_pool_can_reconnect (pool)
        || !nbd_error_is_passing (err)) {
      error_propagate (errp, err);
      return false;
    }
    if (lost_at == 0)
      lost_at = g_get_monotonic_time ();
    *link = nbd_pool_reconnect (pool, lost_at, err, errp);
    if (*link == NULL)
      return false;
  }
  return true;
}

static bool
nbd_extents (TmkBlockSource *source, uint64_t offset, uint64_t length, ExtentList *out,
             TmkError **errp)
{
  NbdSource *self = (NbdSource *) source;
  NbdStatus status;
  nbd_status_init (&status, nbd_pool_target (self->pool), nbd_pool_facts (self->pool));
  nbd_status_set_range (&status, offset, offset + length);
  bool ok = true;
  if (nbd_status_known (&status) < status.end) {
    NbdLink *link = nbd_pool_take (self->pool, errp);
    ok = link != NULL;
    if (ok) {
      ok = ask_all (self->pool, &status, &link, errp);
      nbd_pool_give (self->pool, link);
    }
  }
  if (ok)
    nbd_status_merge (&status, status.end, out);
  nbd_status_clear (&status);
  return ok;
}

static ReaderEngine *
nbd_engine (TmkBlockSource *source, ReaderSetup *setup, TmkError **errp)
{
  return nbd_reader_new (((NbdSource *) source)->pool, setup, errp);
}

static void
nbd_free (TmkBlockSource *source)
{
  NbdSource *self = (NbdSource *) source;
  nbd_pool_free (self->pool);
  g_free (self);
}

static const SourceKind kind = { .extents = nbd_extents, .engine = nbd_engine, .free = nbd_free };

TmkBlockSource *
tmk_block_source_open_nbd (const char *uri, const TmkNbdOptions *options, TmkError **errp)
{
  NbdTarget *target = nbd_target_new (uri, options, true, errp);
  if (target == NULL || nbd_target_is_cancelled (target, errp)) {
    nbd_target_free (target);
    return NULL;
  }
  NbdPool *pool = nbd_pool_new (target, errp);
  if (pool == NULL)
    return NULL;
  NbdSource *self = g_new0 (NbdSource, 1);
  self->pool = pool;
  self->source.kind = &kind;
  self->source.name = g_strdup (uri);
  self->source.size = nbd_pool_facts (pool)->size;
  self->source.has_dirty = nbd_pool_facts (pool)->dirty;
  return &self->source;
}
