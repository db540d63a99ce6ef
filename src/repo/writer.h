/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/writer.h: adding to a repository.
 *
 * A writer is one session: it holds a lease, renewed now and then, so that nobody gives back what
 * it counts on. Each of its threads has a packer, which fills packs of its own. Of one object only
 * the first copy that any packer meets is stored.
 *
 * Memory is bounded: once many objects are new, those in finished packs are published in an index
 * file of their own, and forgotten here.
 */
#pragma once

#include "repo/repo.h"

typedef struct RepoWriter RepoWriter;
typedef struct RepoPacker RepoPacker;

typedef struct {
  uint64_t objects;  /* new ones: chunks … */
  uint64_t plain;    /* … their bytes … */
  uint64_t stored;   /* … as stored, with the records' headers */
  uint64_t nodes;    /* the same of nodes and deltas … */
  uint64_t metadata; /* … bytes as stored */
  uint64_t framing;  /* bytes of pack headers, tables and trailers, and of index files */
  uint64_t packs;
} RepoWriterStats;

/* Takes a lease. `repo` is borrowed. */
RepoWriter *repo_writer_new (Repo *repo, TmkError **errp);

/* Gives up what was not committed (packs that were published stay as garbage), drops the lease. All
 * packers must have been freed. NULL is allowed. */
void repo_writer_free (RepoWriter *writer);

/* Renews the lease when it is time to: cheap otherwise. What stores or publishes does that by
 * itself; this is for who may work for long without. Any thread. */
void repo_writer_touch (RepoWriter *writer);

/* Any thread. */
void repo_writer_stats (RepoWriter *writer, RepoWriterStats *stats);

/* One a thread; for that thread only. */
RepoPacker *repo_packer_new (RepoWriter *writer, TmkError **errp);

/* Gives up the pack that is being filled. NULL is allowed. */
void repo_packer_free (RepoPacker *packer);

/* The id of `size` plain bytes; zero for a chunk of zeroes, which needs no storing. */
void repo_packer_hash (RepoPacker *packer, ObjectKind kind, const void *plain, size_t size,
                       ObjectId *id);

/* Stores an object unless the repository has it. `*stored`: bytes as stored, 0 if it was there. */
bool repo_packer_store (RepoPacker *packer, ObjectKind kind, const ObjectId *id, const void *plain,
                        size_t size, uint32_t *stored, TmkError **errp);

/* Is this object noted as damaged, or in a pack that is gone? A quick look while all packs are
 * there, for those who know by other means that it is in the repository (the same chunk at the same
 * place in the point before) and would not ask. */
bool repo_writer_is_damaged (RepoWriter *writer, const ObjectId *id);

/* A node was found damaged, and others may be. From now on a node that is there already is read
 * before it is counted on; one that is damaged is stored again, and noted. Any thread. */
void repo_writer_distrust_nodes (RepoWriter *writer);

/* Finishes the pack that is being filled, durably. The packer may be used further. */
bool repo_packer_finish (RepoPacker *packer, TmkError **errp);

/* The same for all packers of a session, by one thread while no other uses them. Small packs, of
 * which nothing was written yet, go into the first that there is: a small backup is not to leave a
 * pack for each of them. */
bool repo_packer_finish_all (RepoPacker *const *packers, size_t n, TmkError **errp);

/* Everything that finished packs hold is made known in the index, durably. */
bool repo_writer_publish_index (RepoWriter *writer, TmkError **errp);

/* Publishes the point: from here on it counts. All packers must be finished; the index is published
 * first. Checks that the lease is still there. */
bool repo_writer_commit (RepoWriter *writer, const Manifest *manifest, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (RepoWriter, repo_writer_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (RepoPacker, repo_packer_free)
