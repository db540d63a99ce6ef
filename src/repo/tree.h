/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/tree.h: the tree of a disk's chunks: walking it, comparing two, making one.
 *
 * A disk of `chunks` chunks has the fewest levels that hold them: NODE_FANOUT^levels >= chunks, at
 * least one. The root is a node of level `levels - 1`; the zero id is a tree of zeroes.
 */
#pragma once

#include "format/node.h"
#include "repo/writer.h"

unsigned tree_levels (uint64_t chunks);
static inline uint64_t
tree_chunks (uint64_t size, uint32_t chunk_size)
{
  return size / chunk_size + (size % chunk_size != 0);
}

/* How many chunks a slot of a node of this level stands for. */
static inline uint64_t
tree_slot_span (unsigned level)
{
  return 1ull << (8 * level);
}

/* What one node, full or delta, comes to. A delta's base has to be a full node: TMK_ERR_DAMAGED
 * else, and where the level is another than `level`. `id` is not zero. `delta` and `is_delta` (may
 * be NULL): how it is stored. */
bool tree_read_node (RepoReader *reader, const ObjectId *id, unsigned level, Node *node,
                     NodeDelta *delta, bool *is_delta, TmkError **errp);

/* Called for each chunk that is not zero, ascending. False stops: with an error in `*errp`, or
 * (none set) the walk ends well. */
typedef bool (*TreeVisit) (uint64_t chunk, const ObjectId *id, void *data, TmkError **errp);

/* The chunks [first, first + count) of a tree. Where a node cannot be read and `damaged` is given,
 * it is called with the range of chunks that are unknown thereby, the error is dropped, and the
 * walk goes on. */
typedef void (*TreeDamaged) (uint64_t chunk, uint64_t count, const ObjectId *node,
                             const TmkError *err, void *data);
bool tree_walk (RepoReader *reader, const ObjectId *root, uint64_t chunks, uint64_t first,
                uint64_t count, TreeVisit visit, TreeDamaged damaged, void *data, TmkError **errp);

/* Called for every node, deltas and their bases too, before what is below it. False: as above. */
typedef bool (*TreeVisitNode) (const ObjectId *id, ObjectKind kind, void *data, TmkError **errp);
bool tree_walk_nodes (RepoReader *reader, const ObjectId *root, uint64_t chunks,
                      TreeVisitNode visit, void *data, TmkError **errp);

/* Chunks that differ between two trees of the same number of chunks, ascending; what both share is
 * not read. */
typedef bool (*TreeVisitDifference) (uint64_t chunk, const ObjectId *a, const ObjectId *b,
                                     void *data, TmkError **errp);
bool tree_diff (RepoReader *reader, const ObjectId *a, const ObjectId *b, uint64_t chunks,
                TreeVisitDifference visit, void *data, TmkError **errp);

/* ---- making ------------------------------------------------------------------------------- */

typedef struct TreeBuilder TreeBuilder;

/* A tree that begins as `base` (zero: as all zeroes) and is changed chunk by chunk, in any order,
 * quickest when ascending. Nodes are read when they are first touched, and stored when they are
 * complete or too many are in memory, by `packer`: borrowed, and used by nobody else meanwhile but
 * under the builder's lock. Any thread. All are borrowed; `packer` is
 * one of `writer`'s. */
TreeBuilder *tree_builder_new (Repo *repo, RepoWriter *writer, RepoPacker *packer,
                               const ObjectId *base, uint64_t chunks);
void tree_builder_free (TreeBuilder *builder);

/* How many leaves may be in memory (1024 unless told otherwise); for tests. */
void tree_builder_set_limit (TreeBuilder *builder, unsigned leaves);

/* Sets a chunk (the zero id makes it zero), and says what was there before. */
bool tree_builder_exchange (TreeBuilder *builder, uint64_t chunk, const ObjectId *id,
                            ObjectId *before, TmkError **errp);

/* Makes [first, first + count) zero, whole subtrees at once. `*changed`: how many chunks were not.
 */
bool tree_builder_set_zero (TreeBuilder *builder, uint64_t first, uint64_t count, uint64_t *changed,
                            TmkError **errp);

/* Stores what is left. The root has been read then, even if nothing was touched: TMK_ERR_DAMAGED
 * where it cannot be. The packer is not finished by this. The builder may be used further. */
bool tree_builder_finish (TreeBuilder *builder, ObjectId *root, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TreeBuilder, tree_builder_free)
