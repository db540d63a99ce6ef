/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/nbd_link.h: one connection to an NBD export, on libnbd (source: libnbd(3)).
 *
 * libnbd's asynchronous calls only; every wait is ours, through poll(), with a deadline, and ends
 * when the target's cancel descriptor becomes readable. One thread at a time per link. Commands
 * are issued with nbd_aio_…() on `nbd`, and their callbacks run inside nbd_link_pump(),
 * nbd_link_await() and nbd_link_free().
 */
#pragma once

#include "util/error.h"
#include <glib.h>
#include <libnbd.h>
#include <poll.h>
#include <tidemark/block_source.h>

/* Where to connect, and how. Fixed once made; shared by threads. */
typedef struct {
  char *uri;
  char *dirty; /* meta context, or NULL */
  char *tls_certificates, *tls_psk_file, *tls_user;
  unsigned connect_ms, reply_ms, reconnect_ms;
  unsigned connections, depth, request_size;
  int cancel_fd; /* -1: none */
} NbdTarget;

/* Takes over `options` (may be NULL) with the defaults filled in. `dirty_context` only where the
 * export is read. TMK_ERR_USAGE for what makes no sense. */
NbdTarget *nbd_target_new (const char *uri, const TmkNbdOptions *options, bool reading,
                           TmkError **errp);
void nbd_target_free (NbdTarget *target);

/* Was the target's cancel descriptor signalled? Then sets TMK_ERR_CANCELLED. */
bool nbd_target_is_cancelled (const NbdTarget *target, TmkError **errp);

/* What a server has said of an export. */
typedef struct {
  uint64_t size;
  bool read_only, multi_conn, allocation, dirty, flush, zero;
  uint32_t min_block; /* a power of two; 1: anything goes */
  uint32_t max_block; /* the longest read or write */
} NbdFacts;

typedef struct {
  const NbdTarget *target; /* borrowed */
  struct nbd_handle *nbd;
  bool ready; /* connected and negotiated: `facts` hold */
  NbdFacts facts;
} NbdLink;

/* Begins to connect. */
NbdLink *nbd_link_start (const NbdTarget *target, TmkError **errp);

/* Connects: start, and wait for it. */
NbdLink *nbd_link_open (const NbdTarget *target, TmkError **errp);

/* Ends the connection at once; after that the link can only be freed. No callback comes later. */
void nbd_link_hang_up (NbdLink *link);

/* Closes. Tells the server so where nothing is under way, waiting shortly for it to hang up first:
 * a QEMU that is hung up on complains. NULL is allowed. */
void nbd_link_free (NbdLink *link);

/* Can it take commands, and is none under way? */
bool nbd_link_is_idle (const NbdLink *link);

/* What to poll for. */
void nbd_link_pollfd (NbdLink *link, struct pollfd *pfd);

/* Handles what poll() returned. False once the connection has ended: TMK_ERR_INVALID where the
 * server broke the protocol, else mostly TMK_ERR_GONE. */
bool nbd_link_pump (NbdLink *link, short revents, TmkError **errp);

/* Pumps until `*done`. TMK_ERR_TIMEOUT where that takes longer than `timeout_ms`. */
bool nbd_link_await (NbdLink *link, const bool *done, unsigned timeout_ms, TmkError **errp);

/* Makes an error from that of the libnbd call that has just failed in this thread. */
void nbd_link_set_error (const NbdLink *link, const char *what, TmkError **errp);

/* The error of a command that the server refused with `err_no`; `what` names it ("read of 512
 * bytes at 0"). */
void nbd_link_set_reply_error (const NbdTarget *target, int err_no, const char *what,
                               TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdTarget, nbd_target_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdLink, nbd_link_free)
