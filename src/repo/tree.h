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

/* What one node, full or delta, comes to. Follows one delta; more are TMK_ERR_DAMAGED, as is
 * another level than `level`. `id` is not zero. */
bool tree_read_node (RepoReader *reader, const ObjectId *id, unsigned level, Node *node,
                     TmkError **errp);

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
 * quickest when ascending. Nodes are read when they are first touched, and written when they are
 * complete or too many are in memory, by a packer of the builder's own. Any thread. `writer` is
 * borrowed. */
TreeBuilder *tree_builder_new (RepoWriter *writer, Repo *repo, const ObjectId *base,
                               uint64_t chunks, TmkError **errp);
void tree_builder_free (TreeBuilder *builder);

/* What is there now. */
bool tree_builder_get (TreeBuilder *builder, uint64_t chunk, ObjectId *id, TmkError **errp);

/* Sets a chunk; the zero id makes it zero. `*changed` (may be NULL): was it something else? */
bool tree_builder_set (TreeBuilder *builder, uint64_t chunk, const ObjectId *id, bool *changed,
                       TmkError **errp);

/* Makes [first, first + count) zero, whole subtrees at once. `*changed` (may be NULL): how many
 * chunks were not zero. */
bool tree_builder_set_zero (TreeBuilder *builder, uint64_t first, uint64_t count, uint64_t *changed,
                            TmkError **errp);

/* Writes what is left, and finishes the builder's packer. */
bool tree_builder_finish (TreeBuilder *builder, ObjectId *root, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TreeBuilder, tree_builder_free)
