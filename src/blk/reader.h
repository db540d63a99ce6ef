/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/reader.h: what readers of all kinds of source share: a pool of buffers, a queue of filled
 * ones, a thread, and the order of work. The public functions are in <tidemark/block_source.h>.
 *
 * A reader has one thread, which runs the engine of the source's kind. The engine takes a free
 * slot, fills it and delivers it; consumers take what was delivered and release it. Nothing is
 * allocated on the way. The engine stops when reader_should_stop() says so, and polls `wake_fd`
 * where it may have to wait.
 */
#pragma once

#include "blk/extents.h"
#include "util/error.h"

/* A buffer and what it holds. Belongs to the pool, the engine or a consumer. */
typedef struct {
  TmkBlockPiece piece;   /* first: consumers see only this */
  unsigned char *buffer; /* NULL: only for zeroes */
  unsigned index;        /* 0 …, for the engine's own array; those with a buffer first */
} ReaderSlot;

typedef struct ReaderEngine ReaderEngine;

typedef struct {
  /* Runs in the reader's thread until everything was delivered, an error was set or
   * reader_should_stop(). Returns whether all was delivered; false without an error where it was
   * told to stop. */
  bool (*run) (ReaderEngine *engine, TmkBlockReader *reader, TmkError **errp);
  void (*free) (ReaderEngine *engine);
} ReaderEngineKind;

/* The first member of each kind's own struct. */
struct ReaderEngine {
  const ReaderEngineKind *kind;
};

typedef struct {
  /* of the caller */
  const char *name;
  uint64_t size;
  bool only_dirty;
  const TmkBlockExtents *extents; /* NULL: all; borrowed until reader_new() returns */
  /* of the caller, to be raised by the kind */
  uint64_t align;
  unsigned buffers; /* 0: the kind decides */
  /* of the kind */
  unsigned request;
} ReaderSetup;

/* The order of work: which pieces are to be had next. Used by the engine only. Where the extents
 * are asked for on the way, at most two windows of them are in memory: one that is being cut into
 * pieces, and the next one. */
typedef struct {
  bool only_dirty;
  uint64_t size, align, request;
  ExtentWalk walk;      /* over `now` */
  ExtentList now, next; /* aligned */
  bool has_next;
  uint64_t wanted; /* where the window begins that is to be put next; `size`: there is none */
} ReadFeed;

/* Is there room for another window, from feed->wanted on? */
bool read_feed_wants (const ReadFeed *feed);

/* Puts the extents of [wanted, end); `end` is a multiple of `align` or the size. */
void read_feed_put (ReadFeed *feed, const ExtentList *extents, uint64_t end);

/* The next piece; false where there is none for now. */
bool read_feed_next (ReadFeed *feed, uint64_t *offset, uint64_t *length, bool *zero);

/* Was everything handed out? */
bool read_feed_is_done (const ReadFeed *feed);

/* Starts the thread. Takes `engine`, also on failure. */
TmkBlockReader *reader_new (const ReaderSetup *setup, ReaderEngine *engine, TmkError **errp);

/* --- for the engine's thread */

ReadFeed *reader_feed (TmkBlockReader *reader);
unsigned reader_slots (const TmkBlockReader *reader); /* with a buffer */
int reader_wake_fd (const TmkBlockReader *reader);

/* Was the reader cancelled (then with an error) or is it being freed? */
bool reader_should_stop (TmkBlockReader *reader, TmkError **errp);

/* A free slot, or NULL: then `wake_fd` becomes readable when there is one. `zero`: without a
 * buffer. Of those there are many, so that a disk of many small zeroes costs no wait for each. */
ReaderSlot *reader_take_slot (TmkBlockReader *reader, bool zero);

/* Clears `wake_fd`. */
void reader_acknowledge (TmkBlockReader *reader);

/* Hands a slot to the consumers. `zero`: its buffer does not count. `read`: it came from a read.
 * They may not be told before reader_announce(). */
void reader_deliver (TmkBlockReader *reader, ReaderSlot *slot, bool zero, bool read);

/* Wakes consumers for what was delivered: to be called before the engine waits or works. To wake
 * for each piece would cost more than small ones are worth. */
void reader_announce (TmkBlockReader *reader);

void reader_count_reconnect (TmkBlockReader *reader);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkBlockReader, tmk_block_reader_free)
