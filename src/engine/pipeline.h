/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/pipeline.h: disks into a repository: read → zero? → hash → known? → compress → packs.
 *
 * The source's reader has a thread; workers, one a core, each take a piece of it, and each have a
 * packer of their own. Nothing is allocated for a piece. The thread that calls pipeline_run()
 * waits, and looks up now and then.
 */
#pragma once

#include "repo/tree.h"
#include <tidemark/block_source.h>

typedef struct Pipeline Pipeline;

/* What a run has done so far. */
typedef struct {
  uint64_t looked;  /* bytes of the disk that were delivered, zeroes and all */
  uint64_t read;    /* bytes of data that came from the source */
  uint64_t zero;    /* of `looked`, bytes in chunks that are zero */
  uint64_t changed; /* bytes in chunks that are not what they were in the base */
  uint64_t added;   /* bytes in chunks that the repository did not have */
  uint64_t stored;  /* the same as stored */
  int64_t used;     /* bytes in chunks that are not zero, compared with the base */
} PipelineStats;

/* Called by pipeline_run() some times a second. False cancels. */
typedef bool (*PipelineTick) (const PipelineStats *stats, void *data);

/* `threads`: workers, 0: one a core. `bandwidth`: bytes/s to be read, 0: no limit. `writer` and
 * `repo` are borrowed. */
Pipeline *pipeline_new (RepoWriter *writer, Repo *repo, unsigned threads, uint64_t bandwidth,
                        TmkError **errp);
void pipeline_free (Pipeline *pipeline);

/* The request size that a source should have for chunks of this size. */
unsigned pipeline_request_size (uint32_t chunk_size);

/* Reads `source`, all of it or (`only_dirty`) what is dirty, into a tree that begins as `base`, of
 * a disk of the source's size. All of it must have come: TMK_ERR_INTERNAL otherwise. One run at a
 * time. */
bool pipeline_run (Pipeline *pipeline, TmkBlockSource *source, uint32_t chunk_size, bool only_dirty,
                   const ObjectId *base, PipelineTick tick, void *data, ObjectId *root,
                   PipelineStats *stats, TmkError **errp);

/* Stores the `content->size` bytes at `data` as a tree of `content`, whose root it then has. While
 * nothing runs. */
bool pipeline_store (Pipeline *pipeline, const void *data, ManifestDisk *content, TmkError **errp);

/* Finishes the packers: all that was stored is durable. */
bool pipeline_finish (Pipeline *pipeline, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Pipeline, pipeline_free)
