/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/writer_priv.h: what writer and packers have to do with each other, see repo/writer.h.
 */
#pragma once

#include "repo/id_set.h"
#include "repo/index_write.h"
#include "repo/lease.h"
#include "repo/repo_priv.h"
#include "repo/writer.h"

#include <stdatomic.h>

/* Entries in finished packs that are kept before they are published: about 90 bytes each. */
#define PUBLISH_ENTRIES (512u << 10)

struct RepoWriter {
  Repo *repo; /* borrowed */
  Lease *lease;
  /* Something that others count on was not stored: nothing can be committed any more. */
  atomic_bool broken;
  /* Nodes that are there already are to be read before they are counted on. */
  atomic_bool distrusts_nodes;
  /* How often an index file was published: who looked before must look again. */
  atomic_uint generation;
  size_t publish_entries; /* PUBLISH_ENTRIES, or less in tests */
  GMutex publishing;      /* held while one is published; taken before `lock` */
  GMutex lock;
  /* under `lock` */
  IdSet claims;    /* chunks that are new, and not published in the index yet */
  GArray *packs;   /* of IndexPack: finished ones that are not published … */
  GArray *entries; /* of IndexEntry: … and what is in them, `pack` a number in `packs` */
  unsigned open_packs;
  RepoWriterStats stats;
  TmkError *why; /* it is broken; the first reason, or NULL */
};

/* Is this chunk new, and the caller the one to store it? */
bool writer_claim (RepoWriter *writer, const ObjectId *id, bool *mine, TmkError **errp);

/* Nothing can be committed any more, because of `why`, which everybody is told from now on. */
void writer_break (RepoWriter *writer, const TmkError *why);

/* A pack was begun; became part of another one; was given up, with what it held. */
void writer_pack_begun (RepoWriter *writer);
void writer_pack_joined (RepoWriter *writer);
void writer_pack_given_up (RepoWriter *writer);

/* A pack was published, with `n` entries in `table`, as it stands in the pack. Publishes the index
 * where many are not. */
bool writer_pack_finished (RepoWriter *writer, const IndexPack *pack, const unsigned char *table,
                           uint32_t n, TmkError **errp);

/* An object was put into a pack. */
void writer_count (RepoWriter *writer, ObjectKind kind, size_t plain, uint32_t stored);

/* Sets an error if something went wrong before. */
bool writer_check (RepoWriter *writer, TmkError **errp);
