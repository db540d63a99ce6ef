/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/id_set.c: see repo/id_set.h. Removing shifts what follows back, so that no marks of removed
 * ids slow down later searches. */
#include "repo/id_set.h"

#include "util/bytes.h"

#define SLOTS_MIN 1024

void
id_set_clear (IdSet *set)
{
  g_free (set->slots);
  *set = (IdSet){ 0 };
}

/* Ids are hashes: any of their bits will do. */
static size_t
home_of (const IdSet *set, const ObjectId *id)
{
  return (size_t) get_le64 (id->bytes) & (set->n_slots - 1);
}

/* Where it is, or the free place where it would be. */
static size_t
find (const IdSet *set, const ObjectId *id)
{
  size_t at = home_of (set, id);
  while (!object_id_is_zero (&set->slots[at]) && !object_id_equal (&set->slots[at], id))
    at = (at + 1) & (set->n_slots - 1);
  return at;
}

static void
grow (IdSet *set)
{
  IdSet larger = { .n_slots = MAX (SLOTS_MIN, set->n_slots * 2), .n = set->n };
  larger.slots = g_new0 (ObjectId, larger.n_slots);
  for (size_t i = 0; i < set->n_slots; i++)
    if (!object_id_is_zero (&set->slots[i]))
      larger.slots[find (&larger, &set->slots[i])] = set->slots[i];
  id_set_clear (set);
  *set = larger;
}

bool
id_set_add (IdSet *set, const ObjectId *id)
{
  if (set->n >= set->n_slots - set->n_slots / 4)
    grow (set);
  size_t at = find (set, id);
  if (!object_id_is_zero (&set->slots[at]))
    return false;
  set->slots[at] = *id;
  set->n++;
  return true;
}

bool
id_set_has (const IdSet *set, const ObjectId *id)
{
  return set->n > 0 && !object_id_is_zero (&set->slots[find (set, id)]);
}

bool
id_set_remove (IdSet *set, const ObjectId *id)
{
  if (!id_set_has (set, id))
    return false;
  size_t mask = set->n_slots - 1, hole = find (set, id);
  for (size_t at = (hole + 1) & mask; !object_id_is_zero (&set->slots[at]); at = (at + 1) & mask) {
    /* May it move to the hole, or would that be before its home? */
    size_t from_home = (at - home_of (set, &set->slots[at])) & mask;
    if (from_home >= ((at - hole) & mask)) {
      set->slots[hole] = set->slots[at];
      hole = at;
    }
  }
  set->slots[hole] = (ObjectId){ 0 };
  set->n--;
  return true;
}
