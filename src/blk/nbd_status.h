/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/nbd_status.h: asking an NBD server what is allocated and what is dirty in a range
 * (source: the NBD protocol, NBD_CMD_BLOCK_STATUS).
 *
 * A reply may cover less than was asked for, each context another part; a range takes as many
 * requests as it takes, one at a time, on any link of the export. What the server says is believed
 * only as far as it makes sense.
 */
#pragma once

#include "blk/extents.h"
#include "blk/nbd_link.h"

typedef struct {
  const NbdTarget *target; /* borrowed */
  NbdFacts facts;
  uint64_t begin, end;
  ExtentList allocation, dirty; /* what is known so far; from `begin` on without gaps */
  /* of the request under way */
  bool done;     /* there is none, or its reply has come */
  NbdLink *link; /* it was sent on; borrowed; NULL: there is none */
  gint64 since;
  uint64_t asked, asked_end, known_before;
  const char *fault; /* what was wrong with the reply */
  int err_no;
} NbdStatus;

void nbd_status_init (NbdStatus *status, const NbdTarget *target, const NbdFacts *facts);
void nbd_status_clear (NbdStatus *status);

/* Begins anew with the range [begin, end), within the size. */
void nbd_status_set_range (NbdStatus *status, uint64_t begin, uint64_t end);

/* How far every context is known. */
uint64_t nbd_status_known (const NbdStatus *status);

/* Sends the next request. Not to be called while one is under way, or when all is known. False: the
 * link cannot take it. */
bool nbd_status_send (NbdStatus *status, NbdLink *link, TmkError **errp);

/* To be called once a request is `done`: was the reply any good? TMK_ERR_INVALID for nonsense,
 * TMK_ERR_IO for an error of the server's. */
bool nbd_status_check (NbdStatus *status, TmkError **errp);

/* The connection ended: the request is to be sent again. */
void nbd_status_drop (NbdStatus *status);

/* Both contexts as one list over [begin, end), `end` at most what is known. */
void nbd_status_merge (const NbdStatus *status, uint64_t end, ExtentList *out);
