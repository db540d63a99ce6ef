/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/tree_builder.c: making trees: see repo/tree.h.
 *
 * The nodes on the way to what has been touched are in memory, each with its open children. Of
 * leaves, of which there are many, the least recently used is closed where there are too many, and
 * so is one whose every slot has been set: closing stores the node if it changed, and puts its id
 * in its parent. A closed one that is touched again is read again; where it lies in a pack that
 * nobody can read yet, that pack is finished and made known first. Inner nodes stay open: they are
 * one in 256.
 *
 * An open node knows which slots differ from the full node that it came from, so that it can be
 * stored as a delta to that one; of a node that was a delta, to that delta's base, so that deltas
 * never chain.
 *
 * A node that can be read, but from a copy that does not count, is stored again, in full: no tree
 * that is made may rely on one that was noted as damaged.
 */
#include "repo/tree.h"

#define SLOT_BITS 8u
#define LEAVES_MAX 1024u

typedef struct {
  uint64_t bits[NODE_FANOUT / 64];
  unsigned n;
} SlotSet;

typedef struct OpenNode OpenNode;
struct OpenNode {
  Node node;
  OpenNode *parent; /* NULL: the root */
  unsigned slot;    /* in the parent */
  bool changed;     /* to be stored */
  ObjectId id;      /* as it was read; zero: it is new */
  ObjectId base;    /* the full node that `touched` compares with; zero: none */
  SlotSet touched;
  SlotSet renewed;     /* changed since it was read */
  SlotSet set;         /* by the user: all of them, and nothing more is to come */
  OpenNode **children; /* NODE_FANOUT; NULL for a leaf */
  GList link;          /* of a leaf, in `leaves` */
};

struct TreeBuilder {
  /* fixed */
  Repo *repo;
  ObjectId base; /* what the tree began as */
  uint64_t chunks;
  unsigned levels, max_leaves;

  /* under the lock */
  GMutex lock;
  RepoReader *reader;
  RepoWriter *writer;
  RepoPacker *packer;
  bool unpublished; /* nodes were stored since the packer was last finished here */
  OpenNode *root;
  ObjectId root_id; /* where `root` is NULL */
  GQueue leaves;    /* most recently used first */
};

static void
slot_set_add (SlotSet *set, unsigned slot)
{
  uint64_t bit = 1ull << (slot % 64);
  set->n += (set->bits[slot / 64] & bit) == 0;
  set->bits[slot / 64] |= bit;
}

static bool
slot_set_has (const SlotSet *set, unsigned slot)
{
  return set->bits[slot / 64] >> (slot % 64) & 1;
}

static unsigned
slot_of (uint64_t chunk, unsigned level)
{
  return chunk >> (SLOT_BITS * level) & (NODE_FANOUT - 1);
}

static ObjectId *
id_of (TreeBuilder *builder, OpenNode *parent, unsigned slot)
{
  return parent != NULL ? &parent->node.ids[slot] : &builder->root_id;
}

/* ---- opening ------------------------------------------------------------------------------ */

static void
open_node_free (TreeBuilder *builder, OpenNode *open)
{
  if (open == NULL)
    return;
  if (open->children != NULL)
    for (unsigned i = 0; i < NODE_FANOUT; i++)
      open_node_free (builder, open->children[i]);
  else
    g_queue_unlink (&builder->leaves, &open->link);
  if (open->parent != NULL)
    open->parent->children[open->slot] = NULL;
  else
    builder->root = NULL;
  g_free (open->children);
  g_free (open);
}

/* As tree_read_node(), also for what this builder has stored. */
static bool
load_node (TreeBuilder *builder, const ObjectId *id, unsigned level, Node *node, NodeDelta *delta,
           bool *is_delta, TmkError **errp)
{
  TmkError *err = NULL;
  if (tree_read_node (builder->reader, id, level, node, delta, is_delta, &err))
    return true;
  if (tmk_error_code (err) != TMK_ERR_DAMAGED || !builder->unpublished) {
    error_propagate (errp, err);
    return false;
  }
  tmk_error_free (err);
  if (!repo_packer_finish (builder->packer, errp)
      || !repo_writer_publish_index (builder->writer, errp))
    return false;
  builder->unpublished = false;
  return tree_read_node (builder->reader, id, level, node, delta, is_delta, errp);
}

/* May a tree rely on what is stored of a node? */
static bool
check_counts (TreeBuilder *builder, const ObjectId *id, const NodeDelta *delta, bool *counts,
              TmkError **errp)
{
  return repo_has (builder->repo, id, counts, errp)
         && (delta == NULL || !*counts || repo_has (builder->repo, &delta->base, counts, errp));
}

static bool
read_node (TreeBuilder *builder, OpenNode *open, unsigned level, TmkError **errp)
{
  NodeDelta delta;
  bool is_delta, counts;
  open->node.level = level;
  if (object_id_is_zero (&open->id))
    return true;
  if (!load_node (builder, &open->id, level, &open->node, &delta, &is_delta, errp)
      || !check_counts (builder, &open->id, is_delta ? &delta : NULL, &counts, errp))
    return false;
  if (!counts) {
    open->changed = true; /* and it has no base */
    return true;
  }
  open->base = is_delta ? delta.base : open->id;
  for (unsigned i = 0; is_delta && i < delta.n; i++)
    slot_set_add (&open->touched, delta.slots[i]);
  return true;
}

/* The node at a place; opens it where it is not open. */
static OpenNode *
open_node (TreeBuilder *builder, OpenNode *parent, unsigned slot, unsigned level, TmkError **errp)
{
  OpenNode *open = parent != NULL ? parent->children[slot] : builder->root;
  if (open != NULL)
    return open;
  open = g_new0 (OpenNode, 1);
  open->id = *id_of (builder, parent, slot);
  if (!read_node (builder, open, level, errp)) {
    g_free (open);
    return NULL;
  }
  open->parent = parent;
  open->slot = slot;
  if (parent != NULL)
    parent->children[slot] = open;
  else
    builder->root = open;
  if (level > 0)
    open->children = g_new0 (OpenNode *, NODE_FANOUT);
  else {
    open->link.data = open;
    g_queue_push_head_link (&builder->leaves, &open->link);
  }
  return open;
}

static OpenNode *
open_leaf (TreeBuilder *builder, uint64_t chunk, TmkError **errp)
{
  OpenNode *open = NULL;
  for (unsigned level = builder->levels; level-- > 0;) {
    open = open_node (builder, open, slot_of (chunk, level + 1), level, errp);
    if (open == NULL)
      return NULL;
  }
  g_queue_unlink (&builder->leaves, &open->link);
  g_queue_push_head_link (&builder->leaves, &open->link);
  return open;
}

static void
put_id (OpenNode *open, unsigned slot, const ObjectId *id)
{
  if (object_id_equal (&open->node.ids[slot], id))
    return;
  open->node.ids[slot] = *id;
  slot_set_add (&open->touched, slot);
  slot_set_add (&open->renewed, slot);
  open->changed = true;
}

/* ---- storing ------------------------------------------------------------------------------ */

static bool
is_empty (const Node *node)
{
  for (unsigned i = 0; i < NODE_FANOUT; i++)
    if (!object_id_is_zero (&node->ids[i]))
      return false;
  return true;
}

static size_t
format_delta (const OpenNode *open, unsigned char *out)
{
  NodeDelta delta = { .level = open->node.level, .base = open->base };
  for (unsigned i = 0; i < NODE_FANOUT; i++)
    if (slot_set_has (&open->touched, i)) {
      delta.slots[delta.n] = (unsigned char) i;
      delta.ids[delta.n++] = open->node.ids[i];
    }
  return node_delta_format (&delta, out);
}

/* Is a delta what costs least in the long run? Every further delta repeats the ones before: where d
 * slots change each time, the n-th has n d of them. Storing the node in full after n times costs, a
 * time, 256 ids / n + d n / 2 of them, least where (n d)^2 = 512 d. */
static bool
is_worth_a_delta (const OpenNode *open)
{
  unsigned differ = open->touched.n;
  return !object_id_is_zero (&open->base) && differ <= DELTA_MAX_SLOTS
         && differ * differ <= 2 * NODE_FANOUT * open->renewed.n;
}

static bool
store_node (TreeBuilder *builder, const OpenNode *open, ObjectId *id, TmkError **errp)
{
  static const ObjectId zero;
  unsigned char plain[NODE_MAX_SIZE];
  uint32_t stored;
  *id = open->changed ? zero : open->id;
  if (!open->changed || is_empty (&open->node))
    return true;
  bool as_delta = is_worth_a_delta (open);
  ObjectKind kind = as_delta ? OBJECT_DELTA : OBJECT_NODE;
  size_t size = as_delta ? format_delta (open, plain) : node_format (&open->node, plain);
  repo_packer_hash (builder->packer, kind, plain, size, id);
  builder->unpublished = true;
  return repo_packer_store (builder->packer, kind, id, plain, size, &stored, errp);
}

/* Closes a node and what is open below it. */
static bool
close_node (TreeBuilder *builder, OpenNode *open, TmkError **errp)
{
  ObjectId id;
  for (unsigned i = 0; open->children != NULL && i < NODE_FANOUT; i++)
    if (open->children[i] != NULL && !close_node (builder, open->children[i], errp))
      return false;
  if (!store_node (builder, open, &id, errp))
    return false;
  if (open->parent != NULL)
    put_id (open->parent, open->slot, &id);
  else
    builder->root_id = id;
  open_node_free (builder, open);
  return true;
}

/* Closes a leaf that needs no more, or the oldest of too many. */
static bool
close_what_is_due (TreeBuilder *builder, OpenNode *leaf, uint64_t chunk, TmkError **errp)
{
  uint64_t first = chunk - slot_of (chunk, 0);
  if (leaf->set.n == MIN (builder->chunks - first, NODE_FANOUT))
    return close_node (builder, leaf, errp);
  if (builder->leaves.length > builder->max_leaves)
    return close_node (builder, builder->leaves.tail->data, errp);
  return true;
}

/* ---- changing ----------------------------------------------------------------------------- */

static bool
exchange (TreeBuilder *builder, uint64_t chunk, const ObjectId *id, ObjectId *before,
          TmkError **errp)
{
  OpenNode *leaf = open_leaf (builder, chunk, errp);
  if (leaf == NULL)
    return false;
  unsigned slot = slot_of (chunk, 0);
  *before = leaf->node.ids[slot];
  put_id (leaf, slot, id);
  slot_set_add (&leaf->set, slot);
  return close_what_is_due (builder, leaf, chunk, errp);
}

bool
tree_builder_exchange (TreeBuilder *builder, uint64_t chunk, const ObjectId *id, ObjectId *before,
                       TmkError **errp)
{
  g_assert (chunk < builder->chunks);
  g_mutex_lock (&builder->lock);
  bool ok = exchange (builder, chunk, id, before, errp);
  g_mutex_unlock (&builder->lock);
  return ok;
}

/* How many chunks are not zero below a slot: in memory, or in the repository. */
static bool
count_used (TreeBuilder *builder, const OpenNode *open, const ObjectId *id, unsigned level,
            uint64_t *n, TmkError **errp)
{
  Node read;
  const Node *node = open != NULL ? &open->node : &read;
  if (open == NULL) {
    if (object_id_is_zero (id))
      return true;
    if (!load_node (builder, id, level, &read, NULL, NULL, errp))
      return false;
  }
  for (unsigned i = 0; i < NODE_FANOUT; i++) {
    if (level == 0)
      *n += !object_id_is_zero (&node->ids[i]);
    else if (!count_used (builder, open != NULL ? open->children[i] : NULL, &node->ids[i],
                          level - 1, n, errp))
      return false;
  }
  return true;
}

/* A slot that is to be zero as a whole. */
static bool
drop_slot (TreeBuilder *builder, OpenNode *open, unsigned slot, uint64_t *changed, TmkError **errp)
{
  static const ObjectId zero;
  unsigned level = open->node.level;
  if (level == 0) {
    *changed += !object_id_is_zero (&open->node.ids[slot]);
    slot_set_add (&open->set, slot);
  } else if (!count_used (builder, open->children[slot], &open->node.ids[slot], level - 1, changed,
                          errp))
    return false;
  if (level > 0)
    open_node_free (builder, open->children[slot]);
  put_id (open, slot, &zero);
  return true;
}

/* Zeroes [first, end) of a node that begins at chunk `begin`. */
static bool
zero_range (TreeBuilder *builder, OpenNode *open, uint64_t begin, uint64_t first, uint64_t end,
            uint64_t *changed, TmkError **errp)
{
  unsigned level = open->node.level;
  uint64_t span = tree_slot_span (level);
  unsigned slot = first > begin ? (unsigned) ((first - begin) / span) : 0;
  for (; slot < NODE_FANOUT && begin + slot * span < end; slot++) {
    uint64_t at = begin + slot * span;
    /* Beyond the end of the disk there is nothing that could stay. */
    bool whole = first <= at && (end >= at + span || end == builder->chunks);
    bool empty
        = level > 0 && open->children[slot] == NULL && object_id_is_zero (&open->node.ids[slot]);
    if (empty)
      continue;
    if (whole) {
      if (!drop_slot (builder, open, slot, changed, errp))
        return false;
      continue;
    }
    OpenNode *child = open_node (builder, open, slot, level - 1, errp);
    if (child == NULL || !zero_range (builder, child, at, first, end, changed, errp))
      return false;
  }
  return true;
}

bool
tree_builder_set_zero (TreeBuilder *builder, uint64_t first, uint64_t count, uint64_t *changed,
                       TmkError **errp)
{
  g_assert (first <= builder->chunks && count <= builder->chunks - first);
  *changed = 0;
  g_mutex_lock (&builder->lock);
  bool ok = true;
  if (count > 0 && (builder->root != NULL || !object_id_is_zero (&builder->root_id))) {
    OpenNode *root = open_node (builder, NULL, 0, builder->levels - 1, errp);
    ok = root != NULL && zero_range (builder, root, 0, first, first + count, changed, errp);
    while (ok && builder->leaves.length > builder->max_leaves)
      ok = close_node (builder, builder->leaves.tail->data, errp);
  }
  g_mutex_unlock (&builder->lock);
  return ok;
}

/* Of a tree of which nothing was touched, the root is looked at nevertheless: nobody else would. */
static bool
look_at_root (TreeBuilder *builder, TmkError **errp)
{
  bool untouched = builder->root == NULL && object_id_equal (&builder->root_id, &builder->base);
  if (!untouched || object_id_is_zero (&builder->base))
    return true;
  return open_node (builder, NULL, 0, builder->levels - 1, errp) != NULL;
}

bool
tree_builder_finish (TreeBuilder *builder, ObjectId *root, TmkError **errp)
{
  g_mutex_lock (&builder->lock);
  bool ok = look_at_root (builder, errp)
            && (builder->root == NULL || close_node (builder, builder->root, errp));
  if (ok)
    *root = builder->root_id;
  g_mutex_unlock (&builder->lock);
  return ok;
}

/* ---- life --------------------------------------------------------------------------------- */

TreeBuilder *
tree_builder_new (Repo *repo, RepoWriter *writer, RepoPacker *packer, const ObjectId *base,
                  uint64_t chunks)
{
  TreeBuilder *builder = g_new0 (TreeBuilder, 1);
  g_mutex_init (&builder->lock);
  g_queue_init (&builder->leaves);
  builder->reader = repo_reader_new (repo, true);
  builder->repo = repo;
  builder->writer = writer;
  builder->packer = packer;
  builder->base = builder->root_id = *base;
  builder->chunks = chunks;
  builder->levels = tree_levels (chunks);
  builder->max_leaves = LEAVES_MAX;
  return builder;
}

void
tree_builder_set_limit (TreeBuilder *builder, unsigned leaves)
{
  builder->max_leaves = MAX (leaves, 1);
}

void
tree_builder_free (TreeBuilder *builder)
{
  if (builder == NULL)
    return;
  open_node_free (builder, builder->root);
  repo_reader_free (builder->reader);
  g_mutex_clear (&builder->lock);
  g_free (builder);
}
