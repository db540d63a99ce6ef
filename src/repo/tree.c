/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/tree.c: reading trees: see repo/tree.h. */
#include "repo/tree.h"

#define DOMAIN "repo"
#define SLOT_BITS 8u

unsigned
tree_levels (uint64_t chunks)
{
  unsigned levels = 1;
  while (levels <= NODE_MAX_LEVEL && (chunks - (chunks != 0)) >> (SLOT_BITS * levels) != 0)
    levels++;
  return levels;
}

/* ---- nodes -------------------------------------------------------------------------------- */

static bool
check_level (unsigned found, unsigned level, TmkError **errp)
{
  if (found == level)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0,
             "a node of level %u stands where one of level %u belongs", found, level);
  return false;
}

static bool
read_full (RepoReader *reader, const ObjectId *id, unsigned level, Node *node, TmkError **errp)
{
  unsigned char buffer[NODE_MAX_SIZE];
  size_t length;
  return repo_reader_read (reader, id, OBJECT_NODE, buffer, sizeof buffer, &length, errp)
         && node_parse (buffer, length, node, errp) && check_level (node->level, level, errp);
}

bool
tree_read_node (RepoReader *reader, const ObjectId *id, unsigned level, Node *node,
                NodeDelta *delta, bool *is_delta, TmkError **errp)
{
  unsigned char buffer[NODE_MAX_SIZE];
  size_t length;
  ObjectKind kind;
  NodeDelta own;
  if (delta == NULL)
    delta = &own;
  if (!repo_reader_read_node (reader, id, buffer, sizeof buffer, &length, &kind, errp))
    return false;
  if (is_delta != NULL)
    *is_delta = kind == OBJECT_DELTA;
  if (kind == OBJECT_NODE)
    return node_parse (buffer, length, node, errp) && check_level (node->level, level, errp);
  if (!node_delta_parse (buffer, length, delta, errp) || !check_level (delta->level, level, errp)
      || !read_full (reader, &delta->base, level, node, errp))
    return false;
  for (unsigned i = 0; i < delta->n; i++)
    node->ids[delta->slots[i]] = delta->ids[i];
  return true;
}

/* ---- walking ------------------------------------------------------------------------------ */

typedef struct {
  RepoReader *reader;
  uint64_t first, end; /* chunks asked for */
  TreeVisit visit;
  TreeDamaged damaged;
  void *data;
  bool stopped;
  Node *nodes; /* one a level */
} Walk;

/* The part of a subtree that was asked for is unknown. Is that all right? */
static bool
walk_past (Walk *walk, const ObjectId *id, unsigned level, uint64_t begin, TmkError *err,
           TmkError **errp)
{
  if (walk->damaged == NULL || tmk_error_code (err) != TMK_ERR_DAMAGED) {
    error_propagate (errp, err);
    return false;
  }
  uint64_t first = MAX (begin, walk->first);
  uint64_t end = MIN (begin + tree_slot_span (level) * NODE_FANOUT, walk->end);
  walk->damaged (first, end - first, id, err, walk->data);
  tmk_error_free (err);
  return true;
}

/* `begin`: the first chunk of the node. */
static bool
walk_node (Walk *walk, const ObjectId *id, unsigned level, uint64_t begin, TmkError **errp)
{
  Node *node = &walk->nodes[level];
  TmkError *err = NULL;
  if (!tree_read_node (walk->reader, id, level, node, NULL, NULL, &err))
    return walk_past (walk, id, level, begin, err, errp);
  uint64_t span = tree_slot_span (level);
  for (unsigned slot = 0; slot < NODE_FANOUT && !walk->stopped; slot++) {
    uint64_t at = begin + slot * span;
    if (at >= walk->end)
      break;
    if (at + span <= walk->first || object_id_is_zero (&node->ids[slot]))
      continue;
    if (level > 0) {
      if (!walk_node (walk, &node->ids[slot], level - 1, at, errp))
        return false;
    } else if (!walk->visit (at, &node->ids[slot], walk->data, &err)) {
      walk->stopped = true;
      if (err == NULL)
        return true;
      error_propagate (errp, err);
      return false;
    }
  }
  return true;
}

bool
tree_walk (RepoReader *reader, const ObjectId *root, uint64_t chunks, uint64_t first,
           uint64_t count, TreeVisit visit, TreeDamaged damaged, void *data, TmkError **errp)
{
  if (object_id_is_zero (root) || count == 0 || first >= chunks)
    return true;
  unsigned levels = tree_levels (chunks);
  g_autofree Node *nodes = g_new (Node, levels);
  Walk walk = {
    .reader = reader,
    .first = first,
    .end = count < chunks - first ? first + count : chunks,
    .visit = visit,
    .damaged = damaged,
    .data = data,
    .nodes = nodes,
  };
  return walk_node (&walk, root, levels - 1, 0, errp);
}

typedef struct {
  RepoReader *reader;
  TreeVisitNode visit;
  void *data;
  bool stopped;
  Node *nodes;
} NodeWalk;

static bool
tell_node (NodeWalk *walk, const ObjectId *id, ObjectKind kind, TmkError **errp)
{
  TmkError *err = NULL;
  if (walk->visit (id, kind, walk->data, &err))
    return true;
  walk->stopped = true;
  if (err == NULL)
    return true;
  error_propagate (errp, err);
  return false;
}

static bool
walk_nodes (NodeWalk *walk, const ObjectId *id, unsigned level, TmkError **errp)
{
  Node *node = &walk->nodes[level];
  NodeDelta delta;
  bool is_delta;
  if (!tree_read_node (walk->reader, id, level, node, &delta, &is_delta, errp)
      || !tell_node (walk, id, is_delta ? OBJECT_DELTA : OBJECT_NODE, errp))
    return false;
  if (is_delta && !walk->stopped && !tell_node (walk, &delta.base, OBJECT_NODE, errp))
    return false;
  for (unsigned slot = 0; level > 0 && slot < NODE_FANOUT && !walk->stopped; slot++)
    if (!object_id_is_zero (&node->ids[slot])
        && !walk_nodes (walk, &node->ids[slot], level - 1, errp))
      return false;
  return true;
}

bool
tree_walk_nodes (RepoReader *reader, const ObjectId *root, uint64_t chunks, TreeVisitNode visit,
                 void *data, TmkError **errp)
{
  if (object_id_is_zero (root))
    return true;
  unsigned levels = tree_levels (chunks);
  g_autofree Node *nodes = g_new (Node, levels);
  NodeWalk walk = { .reader = reader, .visit = visit, .data = data, .nodes = nodes };
  return walk_nodes (&walk, root, levels - 1, errp);
}

/* ---- comparing ---------------------------------------------------------------------------- */

typedef struct {
  RepoReader *reader;
  uint64_t chunks;
  TreeVisitDifference visit;
  void *data;
  bool stopped;
  Node *nodes; /* two a level */
} Diff;

static bool
read_or_empty (RepoReader *reader, const ObjectId *id, unsigned level, Node *node, TmkError **errp)
{
  if (!object_id_is_zero (id))
    return tree_read_node (reader, id, level, node, NULL, NULL, errp);
  *node = (Node){ .level = level };
  return true;
}

static bool
diff_nodes (Diff *diff, const ObjectId *a, const ObjectId *b, unsigned level, uint64_t begin,
            TmkError **errp)
{
  Node *one = &diff->nodes[2 * level], *two = one + 1;
  TmkError *err = NULL;
  if (object_id_equal (a, b))
    return true;
  if (!read_or_empty (diff->reader, a, level, one, errp)
      || !read_or_empty (diff->reader, b, level, two, errp))
    return false;
  for (unsigned slot = 0; slot < NODE_FANOUT && !diff->stopped; slot++) {
    uint64_t at = begin + slot * tree_slot_span (level);
    if (at >= diff->chunks)
      break;
    if (level > 0) {
      if (!diff_nodes (diff, &one->ids[slot], &two->ids[slot], level - 1, at, errp))
        return false;
    } else if (!object_id_equal (&one->ids[slot], &two->ids[slot])
               && !diff->visit (at, &one->ids[slot], &two->ids[slot], diff->data, &err)) {
      diff->stopped = true;
      if (err == NULL)
        return true;
      error_propagate (errp, err);
      return false;
    }
  }
  return true;
}

bool
tree_diff (RepoReader *reader, const ObjectId *a, const ObjectId *b, uint64_t chunks,
           TreeVisitDifference visit, void *data, TmkError **errp)
{
  unsigned levels = tree_levels (chunks);
  g_autofree Node *nodes = g_new (Node, 2 * levels);
  Diff diff = { .reader = reader, .chunks = chunks, .visit = visit, .data = data, .nodes = nodes };
  return diff_nodes (&diff, a, b, levels - 1, 0, errp);
}
