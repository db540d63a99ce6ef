/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/nbd_pool.h: the connections to one export, lent to readers and to callers that wait.
 *
 * The facts are those of the first connection; one made later must say the same. Any thread.
 */
#pragma once

#include "blk/nbd_link.h"

typedef struct NbdPool NbdPool;

/* Connects. Takes `target`, also on failure. */
NbdPool *nbd_pool_new (NbdTarget *target, TmkError **errp);

/* All links must have been given back. NULL is allowed. */
void nbd_pool_free (NbdPool *pool);

const NbdTarget *nbd_pool_target (const NbdPool *pool);
const NbdFacts *nbd_pool_facts (const NbdPool *pool);

/* An idle link that is still alive, or a new one. TMK_ERR_BUSY where the server takes one
 * connection only and it is lent out. */
NbdLink *nbd_pool_take (NbdPool *pool, TmkError **errp);

/* An idle link that is still alive, or NULL: then the caller may make one, and counts as having
 * taken it. Only for exports with several connections. */
NbdLink *nbd_pool_take_idle (NbdPool *pool);

/* Gives a link back; it is kept if it is ready and nothing is under way on it. NULL: what was taken
 * is no more. */
void nbd_pool_give (NbdPool *pool, NbdLink *link);

/* Is a new connection's export still the same one? */
bool nbd_pool_check (const NbdPool *pool, const NbdLink *link, TmkError **errp);

/* May a lost connection be made again, and its requests be sent again? */
bool nbd_pool_can_reconnect (const NbdPool *pool);

/* Is it worth while to connect again after `err`? */
bool nbd_error_is_passing (const TmkError *err);

/* Wraps the last failure to connect again, stealing it. */
void nbd_pool_set_gone (const NbdPool *pool, TmkError *last, TmkError **errp);

/* Connects again in place of a link that was lost at `since` (monotonic) because of `lost` (stolen;
 * freed by the caller's link being gone): tries until the bound. */
NbdLink *nbd_pool_reconnect (NbdPool *pool, gint64 since, TmkError *lost, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdPool, nbd_pool_free)
