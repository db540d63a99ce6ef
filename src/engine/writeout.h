/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/writeout.h: a disk out of a repository: walk its tree → read, check, decompress → write.
 *
 * A thread walks the tree and puts chunks in a queue; workers, one a core, each with a reader of
 * their own, take some of them at a time and write them to the sink. Nothing is allocated for a
 * chunk. The thread that calls writeout_run() waits, and looks up some times a second.
 */
#pragma once

#include "repo/tree.h"
#include <tidemark/block_sink.h>

typedef struct {
  Repo *repo;
  const ManifestDisk *disk;
  /* At least as large as the disk; what is larger is made zero, as is what the disk has not. */
  TmkBlockSink *sink;
  /* Of a sink that is zero: blocks of this many bytes (a power of two) that are zero are not
   * written. 0: whole chunks are written. */
  uint32_t block;
  bool verify;      /* compute every id anew */
  unsigned threads; /* workers, 0: one a core */

  /* From the calling thread. `done`: bytes of chunks. False cancels. May be NULL. */
  bool (*tick) (uint64_t done, void *data);
  /* From the calling thread, in the end: a range of the disk that cannot be had; ascending,
   * neighbours are one. May be NULL. */
  void (*damage) (uint64_t offset, uint64_t length, const char *message, void *data);
  void *data;
} Writeout;

typedef struct {
  uint64_t done;    /* bytes in chunks that were there and in order */
  uint64_t written; /* of them, bytes that were written */
  uint64_t damaged; /* bytes that cannot be had: what was written is worth nothing then */
} WriteoutResult;

/* Writes the whole disk, without a flush. Where some of it is damaged all of it is read
 * nevertheless, but no more is written; that is no error, see `result->damaged`. */
bool writeout_run (const Writeout *job, WriteoutResult *result, TmkError **errp);
