/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/nbd_pool.c: see blk/nbd_pool.h. */
#include "blk/nbd_pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

#define DOMAIN "blk"

struct NbdPool {
  /* fixed */
  NbdTarget *target;
  NbdFacts facts;
  /* under lock */
  pthread_mutex_t lock;
  GPtrArray *idle; /* of NbdLink */
  unsigned taken;
};

NbdPool *
nbd_pool_new (NbdTarget *target, TmkError **errp)
{
  NbdLink *link = nbd_link_open (target, errp);
  if (link == NULL) {
    nbd_target_free (target);
    return NULL;
  }
  NbdPool *pool = g_new0 (NbdPool, 1);
  pool->target = target;
  pool->facts = link->facts;
  pthread_mutex_init (&pool->lock, NULL);
  pool->idle = g_ptr_array_new_with_free_func ((GDestroyNotify) nbd_link_free);
  g_ptr_array_add (pool->idle, link);
  return pool;
}

void
nbd_pool_free (NbdPool *pool)
{
  if (pool == NULL)
    return;
  g_ptr_array_free (pool->idle, TRUE);
  pthread_mutex_destroy (&pool->lock);
  nbd_target_free (pool->target);
  g_free (pool);
}

const NbdTarget *
nbd_pool_target (const NbdPool *pool)
{
  return pool->target;
}

const NbdFacts *
nbd_pool_facts (const NbdPool *pool)
{
  return &pool->facts;
}

/* Did the server hang up while nobody looked? */
static bool
is_alive (NbdLink *link)
{
  struct pollfd pfd;
  nbd_link_pollfd (link, &pfd);
  return pfd.fd >= 0 && (poll (&pfd, 1, 0) <= 0 || nbd_link_pump (link, pfd.revents, NULL));
}

static NbdLink *
pop_idle (NbdPool *pool)
{
  pthread_mutex_lock (&pool->lock);
  NbdLink *link = NULL;
  if (pool->idle->len > 0)
    link = g_ptr_array_steal_index (pool->idle, pool->idle->len - 1);
  pthread_mutex_unlock (&pool->lock);
  return link;
}

/* One more link is lent out. False: it may not be. */
static bool
count_up (NbdPool *pool)
{
  pthread_mutex_lock (&pool->lock);
  bool may = pool->facts.multi_conn || pool->taken == 0;
  pool->taken += may;
  pthread_mutex_unlock (&pool->lock);
  return may;
}

NbdLink *
nbd_pool_take_idle (NbdPool *pool)
{
  (void) count_up (pool); /* it may: several connections */
  NbdLink *link;
  while ((link = pop_idle (pool)) != NULL && !is_alive (link))
    nbd_link_free (link);
  return link;
}

NbdLink *
nbd_pool_take (NbdPool *pool, TmkError **errp)
{
  if (!count_up (pool)) {
    error_set (errp, DOMAIN, TMK_ERR_BUSY, EBUSY, "'%s': the server's only connection is in use",
               pool->target->uri);
    return NULL;
  }
  NbdLink *link;
  bool lost = false;
  while ((link = pop_idle (pool)) != NULL && !is_alive (link)) {
    nbd_link_free (link);
    lost = true;
  }
  if (link == NULL && lost && nbd_pool_can_reconnect (pool)) {
    link = nbd_pool_reconnect (pool, g_get_monotonic_time (), NULL, errp);
  } else if (link == NULL) {
    link = nbd_link_open (pool->target, errp);
    if (link != NULL && !nbd_pool_check (pool, link, errp))
      g_clear_pointer (&link, nbd_link_free);
  }
  if (link == NULL)
    nbd_pool_give (pool, NULL);
  return link;
}

void
nbd_pool_give (NbdPool *pool, NbdLink *link)
{
  bool keep = link != NULL && nbd_link_is_idle (link);
  if (!keep)
    nbd_link_free (link);
  pthread_mutex_lock (&pool->lock);
  if (keep)
    g_ptr_array_add (pool->idle, link);
  pool->taken--;
  pthread_mutex_unlock (&pool->lock);
}

bool
nbd_pool_check (const NbdPool *pool, const NbdLink *link, TmkError **errp)
{
  const NbdFacts *then = &pool->facts, *now = &link->facts;
  if (now->size != then->size) {
    error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0,
               "'%s': it had %" G_GUINT64_FORMAT " bytes, and %" G_GUINT64_FORMAT
               " on a new connection",
               pool->target->uri, then->size, now->size);
    return false;
  }
  if (now->read_only != then->read_only || now->allocation != then->allocation
      || now->min_block > then->min_block || now->max_block < then->max_block) {
    error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0,
               "'%s': on a new connection it is another export than before", pool->target->uri);
    return false;
  }
  return true;
}

/* --- connecting again */

bool
nbd_pool_can_reconnect (const NbdPool *pool)
{
  return pool->facts.read_only && pool->target->reconnect_ms > 0;
}

bool
nbd_error_is_passing (const TmkError *err)
{
  switch (tmk_error_code (err)) {
  case TMK_ERR_GONE:
  case TMK_ERR_TIMEOUT:
  case TMK_ERR_NOT_FOUND: /* a socket or an export that comes back */
  case TMK_ERR_IO:
    return true;
  default:
    return false;
  }
}

void
nbd_pool_set_gone (const NbdPool *pool, TmkError *last, TmkError **errp)
{
  g_autoptr (TmkError) why = last;
  if (!nbd_pool_can_reconnect (pool)) {
    error_propagate (errp, g_steal_pointer (&why));
    return;
  }
  error_set (errp, DOMAIN, TMK_ERR_GONE, why != NULL ? tmk_error_errno (why) : 0,
             "%s (and no new connection in %g s)",
             why != NULL ? tmk_error_message (why) : pool->target->uri,
             pool->target->reconnect_ms / 1000.0);
  error_hint (errp, "see whether the server still runs, and run this again");
}

/* False: cancelled. */
static bool
pause_for (const NbdPool *pool, unsigned ms, TmkError **errp)
{
  struct pollfd pfd = { .fd = pool->target->cancel_fd, .events = POLLIN };
  (void) poll (&pfd, 1, (int) ms); /* a signal only makes it shorter */
  return !nbd_target_is_cancelled (pool->target, errp);
}

NbdLink *
nbd_pool_reconnect (NbdPool *pool, gint64 since, TmkError *lost, TmkError **errp)
{
  g_autoptr (TmkError) last = lost;
  gint64 bound = since + (gint64) pool->target->reconnect_ms * 1000;
  for (unsigned wait = 20;; wait = MIN (wait * 2, 1000)) {
    TmkError *err = NULL;
    g_autoptr (NbdLink) link = nbd_link_open (pool->target, &err);
    if (link != NULL && nbd_pool_check (pool, link, &err))
      return g_steal_pointer (&link);
    tmk_error_free (last);
    last = err;
    if (!nbd_error_is_passing (last)) {
      error_propagate (errp, g_steal_pointer (&last));
      return NULL;
    }
    if (g_get_monotonic_time () >= bound) {
      nbd_pool_set_gone (pool, g_steal_pointer (&last), errp);
      return NULL;
    }
    if (!pause_for (pool, wait, errp))
      return NULL;
  }
}
