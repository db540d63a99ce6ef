/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format/node.h: nodes of a disk's tree of chunk ids (source: docs/format/repository.rst). Pure.
 *
 * A tree has NODE_FANOUT slots a node; the ids in a node of level 0 are those of chunks, above
 * those of nodes. A node is stored in full or as a delta: the id of a full node of the same level,
 * and the slots that differ from it.
 *
 * Full (OBJECT_NODE):              Delta (OBJECT_DELTA):
 *    0  u8   level                    0  u8   level
 *    1  u8   0                        1  u8   0
 *    2  u16  n, ids present           2  u16  n, slots that differ, at least 1
 *    4  u32  0                        4  u32  0
 *    8  32 B bit map of the slots     8  32 B id of the full node
 *   40  n × 32 B ids in order        40  n × u8 slots, ascending
 *                                   40+n  n × 32 B ids (zeroes: the slot is empty)
 */
#pragma once

#include "format/object.h"

#define NODE_FANOUT 256u
#define NODE_MAX_LEVEL 6u /* 256^7 chunks: more than any disk has */
/* The most slots of a delta: beyond, a full node is hardly larger, and quicker to read. */
#define DELTA_MAX_SLOTS (NODE_FANOUT / 2)
#define NODE_MAX_SIZE (40u + NODE_FANOUT * OBJECT_ID_SIZE)

typedef struct {
  unsigned level;
  ObjectId ids[NODE_FANOUT]; /* zero: the slot is empty */
} Node;

typedef struct {
  unsigned level;
  unsigned n;
  ObjectId base;
  unsigned char slots[DELTA_MAX_SLOTS];
  ObjectId ids[DELTA_MAX_SLOTS];
} NodeDelta;

/* Writes a node, which has an id at least, to `out`; returns the length. */
size_t node_format (const Node *node, unsigned char out[NODE_MAX_SIZE]);
size_t node_delta_format (const NodeDelta *delta, unsigned char out[NODE_MAX_SIZE]);

/* TMK_ERR_DAMAGED; outputs are then undefined. */
bool node_parse (const void *data, size_t size, Node *node, TmkError **errp);
bool node_delta_parse (const void *data, size_t size, NodeDelta *delta, TmkError **errp);
