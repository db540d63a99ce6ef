/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format/node.c: see format/node.h. Pure; any thread. */
#include "format/node.h"

#include "util/bytes.h"

#define DOMAIN "format"
/* Where the parts of a node are. */
#define AT_LEVEL 0
#define AT_RESERVED 1
#define AT_N 2
#define AT_RESERVED_TOO 4
#define AT_MAP 8
#define AT_BASE 8
#define NODE_HEADER 40u
#define MAP_SIZE (NODE_FANOUT / 8)

static void
format_header (unsigned level, unsigned n, unsigned char *out)
{
  g_assert (level <= NODE_MAX_LEVEL && n > 0);
  memset (out, 0, NODE_HEADER);
  out[AT_LEVEL] = (unsigned char) level;
  put_le16 (out + AT_N, (uint16_t) n);
}

size_t
node_format (const Node *node, unsigned char out[NODE_MAX_SIZE])
{
  unsigned char map[MAP_SIZE] = { 0 };
  unsigned n = 0;
  for (unsigned slot = 0; slot < NODE_FANOUT; slot++) {
    if (object_id_is_zero (&node->ids[slot]))
      continue;
    map[slot / 8] |= (unsigned char) (1u << slot % 8);
    memcpy (out + NODE_HEADER + n++ * OBJECT_ID_SIZE, &node->ids[slot], OBJECT_ID_SIZE);
  }
  format_header (node->level, n, out);
  memcpy (out + AT_MAP, map, sizeof map);
  return NODE_HEADER + n * OBJECT_ID_SIZE;
}

size_t
node_delta_format (const NodeDelta *delta, unsigned char out[NODE_MAX_SIZE])
{
  g_assert (delta->n <= DELTA_MAX_SLOTS);
  format_header (delta->level, delta->n, out);
  memcpy (out + AT_BASE, &delta->base, OBJECT_ID_SIZE);
  memcpy (out + NODE_HEADER, delta->slots, delta->n);
  memcpy (out + NODE_HEADER + delta->n, delta->ids, delta->n * OBJECT_ID_SIZE);
  return NODE_HEADER + delta->n * (1 + OBJECT_ID_SIZE);
}

/* What both have in common. `each`: bytes that an entry takes. */
static bool
parse_header (const unsigned char *in, size_t size, unsigned max, size_t each, TmkError **errp)
{
  if (size < NODE_HEADER) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the node is cut off after %zu bytes", size);
    return false;
  }
  if (in[AT_LEVEL] > NODE_MAX_LEVEL) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the node's level is too high (%u)", in[AT_LEVEL]);
    return false;
  }
  if (in[AT_RESERVED] != 0 || get_le32 (in + AT_RESERVED_TOO) != 0) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the node's reserved bytes are not zero");
    return false;
  }
  unsigned n = get_le16 (in + AT_N);
  if (n == 0 || n > max) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the node has a wrong number of ids (%u)", n);
    return false;
  }
  if (size != NODE_HEADER + n * each) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the node of %u ids has %zu bytes", n, size);
    return false;
  }
  return true;
}

bool
node_parse (const void *data, size_t size, Node *node, TmkError **errp)
{
  const unsigned char *in = data;
  if (!parse_header (in, size, NODE_FANOUT, OBJECT_ID_SIZE, errp))
    return false;
  unsigned n = get_le16 (in + AT_N), present = 0;
  for (unsigned i = 0; i < MAP_SIZE; i++)
    present += (unsigned) __builtin_popcount (in[AT_MAP + i]);
  if (present != n) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the node has %u ids, its bit map %u", n, present);
    return false;
  }
  node->level = in[AT_LEVEL];
  const unsigned char *next = in + NODE_HEADER;
  for (unsigned slot = 0; slot < NODE_FANOUT; slot++) {
    if ((in[AT_MAP + slot / 8] & 1u << slot % 8) == 0) {
      memset (&node->ids[slot], 0, OBJECT_ID_SIZE);
      continue;
    }
    memcpy (&node->ids[slot], next, OBJECT_ID_SIZE);
    next += OBJECT_ID_SIZE;
    if (object_id_is_zero (&node->ids[slot])) {
      error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the node has a zero id in slot %u", slot);
      return false;
    }
  }
  return true;
}

bool
node_delta_parse (const void *data, size_t size, NodeDelta *delta, TmkError **errp)
{
  const unsigned char *in = data;
  if (!parse_header (in, size, DELTA_MAX_SLOTS, 1 + OBJECT_ID_SIZE, errp))
    return false;
  unsigned n = get_le16 (in + AT_N);
  const unsigned char *slots = in + NODE_HEADER;
  for (unsigned i = 1; i < n; i++)
    if (slots[i - 1] >= slots[i]) {
      error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the delta's slots are not in order");
      return false;
    }
  delta->level = in[AT_LEVEL];
  delta->n = n;
  memcpy (&delta->base, in + AT_BASE, OBJECT_ID_SIZE);
  memcpy (delta->slots, slots, n);
  memcpy (delta->ids, slots + n, (size_t) n * OBJECT_ID_SIZE);
  if (object_id_is_zero (&delta->base)) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the delta has no node that it differs from");
    return false;
  }
  return true;
}
