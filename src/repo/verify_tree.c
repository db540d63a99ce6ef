/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/verify_tree.c: the trees of points: which chunks they need, and which ranges of disks damage
 * touches. See repo/verify_priv.h. Calling thread only.
 */
#include "repo/verify_priv.h"

#define DOMAIN "repo"

/* What could not be read. */
typedef struct {
  ObjectId id; /* the node, or the full one that it differs from */
  char *message;
} Fault;

static void
fault_clear (Fault *fault)
{
  g_free (fault->message);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Fault, fault_clear)

/* Takes `err`, which is about `id`. False where it is no damage: then the verification ends. */
static bool
take_fault (Fault *fault, const ObjectId *id, TmkError *err, TmkError **errp)
{
  if (tmk_error_code (err) != TMK_ERR_DAMAGED) {
    error_propagate (errp, err);
    return false;
  }
  fault->id = *id;
  fault->message = g_strdup (tmk_error_message (err));
  tmk_error_free (err);
  return true;
}

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
read_full (Verify *verify, const ObjectId *id, unsigned level, Node *node, TmkError **errp)
{
  unsigned char buffer[NODE_MAX_SIZE];
  size_t length;
  return repo_reader_read (verify->reader, id, OBJECT_NODE, buffer, sizeof buffer, &length, errp)
         && node_parse (buffer, length, node, errp) && check_level (node->level, level, errp);
}

/* What a node, full or delta, comes to. `*base`: the full one behind a delta; else zero. False with
 * an error; or without: `fault` has what is damaged. */
static bool
read_node (Verify *verify, const ObjectId *id, unsigned level, Node *node, ObjectId *base,
           Fault *fault, TmkError **errp)
{
  unsigned char buffer[NODE_MAX_SIZE];
  size_t length;
  ObjectKind kind;
  NodeDelta delta;
  TmkError *err = NULL;
  *base = (ObjectId){ 0 };
  bool ok = repo_reader_read_node (verify->reader, id, buffer, sizeof buffer, &length, &kind, &err);
  if (ok && kind == OBJECT_DELTA)
    ok = node_delta_parse (buffer, length, &delta, &err) && check_level (delta.level, level, &err);
  else if (ok)
    ok = node_parse (buffer, length, node, &err) && check_level (node->level, level, &err);
  if (!ok) {
    (void) take_fault (fault, id, err, errp); /* either way there is no node */
    return false;
  }
  if (kind != OBJECT_DELTA)
    return true;
  *base = delta.base;
  if (!read_full (verify, base, level, node, &err)) {
    (void) take_fault (fault, base, err, errp);
    return false;
  }
  for (unsigned i = 0; i < delta.n; i++)
    node->ids[delta.slots[i]] = delta.ids[i];
  return true;
}

static void
set_damaged (Verify *verify, const Fault *fault)
{
  VerifyPlace place;
  if (verify_locate (verify, &fault->id, &place))
    verify_set_bad (verify, &place, fault->message);
  else
    verify_set_missing (verify, &fault->id);
}

static void
count_node (Verify *verify, const VerifyPlace *place)
{
  if (!entry_set_add (&verify->counted, place))
    return;
  verify->result->nodes++;
  verify->result->bytes += place->entry.length;
  if (verify->result->nodes % 256 == 0)
    verify_progress (verify, verify->result->bytes, 0);
}

/* ---- marking ------------------------------------------------------------------------------ */

static void
mark_chunk (Verify *verify, const ObjectId *id)
{
  VerifyPlace place;
  if (verify_locate (verify, id, &place))
    (void) entry_set_add (&verify->needed, &place); /* once is enough */
  else
    verify_set_missing (verify, id);
}

/* `nodes`: one for each level. */
static bool
mark_node (Verify *verify, const ObjectId *id, unsigned level, Node *nodes, TmkError **errp)
{
  VerifyPlace place;
  ObjectId base;
  g_auto (Fault) fault = { 0 };
  TmkError *err = NULL;
  if (!verify_locate (verify, id, &place)) {
    verify_set_missing (verify, id);
    return true;
  }
  if (verify_is_cancelled (verify, errp))
    return false;
  if (!entry_set_add (&verify->walked, &place))
    return true;
  Node *node = &nodes[level];
  if (!read_node (verify, id, level, node, &base, &fault, &err)) {
    error_propagate (errp, err);
    if (fault.message != NULL)
      set_damaged (verify, &fault);
    return fault.message != NULL;
  }
  count_node (verify, &place);
  if (!object_id_is_zero (&base) && verify_locate (verify, &base, &place))
    count_node (verify, &place);
  for (unsigned slot = 0; slot < NODE_FANOUT; slot++) {
    if (object_id_is_zero (&node->ids[slot]))
      continue;
    if (level == 0)
      mark_chunk (verify, &node->ids[slot]);
    else if (!mark_node (verify, &node->ids[slot], level - 1, nodes, errp))
      return false;
  }
  return true;
}

static bool
mark_disk (Verify *verify, const ManifestDisk *disk, TmkError **errp)
{
  unsigned levels = tree_levels (tree_chunks (disk->size, disk->chunk_size));
  g_autofree Node *nodes = g_new (Node, levels);
  return object_id_is_zero (&disk->root)
         || mark_node (verify, &disk->root, levels - 1, nodes, errp);
}

bool
verify_mark_point (Verify *verify, const Manifest *manifest, TmkError **errp)
{
  for (size_t i = 0; i < manifest->n_disks; i++)
    if (!mark_disk (verify, &manifest->disks[i], errp))
      return false;
  for (size_t i = 0; i < manifest->n_files; i++)
    if (!mark_disk (verify, &manifest->files[i].content, errp))
      return false;
  return true;
}

/* ---- mapping ------------------------------------------------------------------------------ */

typedef struct {
  Verify *verify;
  EntrySet *clean;
  const Manifest *manifest;
  const ManifestDisk *disk;
  bool is_file;
  uint64_t chunks;
  Node *nodes;
  uint64_t begin, end; /* chunks found last, not told yet; equal: none */
  uint64_t objects;    /* in there */
  char *message;       /* of the first */
} Map;

static void
tell_range (Map *map)
{
  const ManifestDisk *disk = map->disk;
  if (map->begin == map->end)
    return;
  uint64_t offset = map->begin * disk->chunk_size;
  uint64_t length = MIN (map->end, map->chunks) * disk->chunk_size;
  length = MIN (length, disk->size) - offset;
  g_autofree char *message
      = map->objects > 1
            ? g_strdup_printf ("%s, and %" G_GUINT64_FORMAT " more", map->message, map->objects - 1)
            : g_strdup (map->message);
  VerifyDamage damage = { .point = map->manifest->id,
                          .disk = map->is_file ? NULL : disk->name,
                          .file = map->is_file ? disk->name : NULL,
                          .offset = offset,
                          .length = length,
                          .message = message };
  verify_tell_damage (map->verify, &damage);
  map->begin = map->end;
}

/* The next range. */
static void
add_range (Map *map, uint64_t first, uint64_t count, const char *message)
{
  if (first >= map->chunks)
    return;
  if (map->begin == map->end || first != map->end) {
    tell_range (map);
    map->begin = first;
    map->objects = 0;
    g_free (map->message);
    map->message = g_strdup (message);
  }
  map->end = first + count;
  map->objects++;
}

static void
add_missing (Map *map, const ObjectId *id, const char *what, uint64_t first, uint64_t count)
{
  char hex[2 * OBJECT_ID_SIZE + 1];
  object_id_to_hex (id, hex);
  g_autofree char *message = g_strdup_printf ("%s '%s' is missing", what, hex);
  add_range (map, first, count, message);
}

/* True: the chunk is damaged. */
static bool
map_chunk (Map *map, const ObjectId *id, uint64_t chunk)
{
  VerifyPlace place;
  if (!verify_locate (map->verify, id, &place)) {
    add_missing (map, id, "chunk", chunk, 1);
    return true;
  }
  if (!entry_set_has (&map->verify->bad, &place))
    return false;
  const char *why = g_hash_table_lookup (map->verify->messages, id);
  add_range (map, chunk, 1, why != NULL ? why : "a chunk is damaged");
  return true;
}

/* `*damaged`: there is damage in it. */
static bool
map_node (Map *map, const ObjectId *id, unsigned level, uint64_t first, bool *damaged,
          TmkError **errp)
{
  Verify *verify = map->verify;
  uint64_t span = tree_slot_span (level);
  VerifyPlace place;
  ObjectId base;
  g_auto (Fault) fault = { 0 };
  TmkError *err = NULL;
  if (verify_is_cancelled (verify, errp))
    return false;
  bool there = verify_locate (verify, id, &place);
  if (there && entry_set_has (map->clean, &place))
    return true;
  bool here = !there;
  Node *node = &map->nodes[level];
  if (!there) {
    add_missing (map, id, "node", first, span * NODE_FANOUT);
  } else if (!read_node (verify, id, level, node, &base, &fault, &err)) {
    if (fault.message == NULL) {
      error_propagate (errp, err);
      return false;
    }
    here = true;
    set_damaged (verify, &fault);
    add_range (map, first, span * NODE_FANOUT, fault.message);
  } else {
    for (unsigned slot = 0; slot < NODE_FANOUT; slot++) {
      uint64_t at = first + slot * span;
      if (object_id_is_zero (&node->ids[slot]))
        continue;
      if (level == 0)
        here |= map_chunk (map, &node->ids[slot], at);
      else if (!map_node (map, &node->ids[slot], level - 1, at, &here, errp))
        return false;
    }
  }
  if (!here)
    (void) entry_set_add (map->clean, &place); /* the next point need not look */
  *damaged |= here;
  return true;
}

/* `map`: everything but what follows from its disk. */
static bool
map_disk (Map map, TmkError **errp)
{
  const ManifestDisk *disk = map.disk;
  map.chunks = tree_chunks (disk->size, disk->chunk_size);
  unsigned levels = tree_levels (map.chunks);
  g_autofree Node *nodes = g_new (Node, levels);
  map.nodes = nodes;
  bool damaged = false;
  bool ok = object_id_is_zero (&disk->root)
            || map_node (&map, &disk->root, levels - 1, 0, &damaged, errp);
  if (ok)
    tell_range (&map);
  g_free (map.message);
  return ok;
}

bool
verify_map_point (Verify *verify, const Manifest *manifest, EntrySet *clean, TmkError **errp)
{
  Map map = { .verify = verify, .clean = clean, .manifest = manifest };
  for (size_t i = 0; i < manifest->n_disks; i++) {
    map.disk = &manifest->disks[i];
    if (!map_disk (map, errp))
      return false;
  }
  map.is_file = true;
  for (size_t i = 0; i < manifest->n_files; i++) {
    map.disk = &manifest->files[i].content;
    if (!map_disk (map, errp))
      return false;
  }
  return true;
}
