/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/id_set.h: a set of object ids in 32 bytes each and some room: open addressing, linear
 * probing. The zero id marks a free place and cannot be in it. Not for two threads at once.
 */
#pragma once

#include "format/object.h"

typedef struct {
  ObjectId *slots; /* NULL: empty */
  size_t n_slots;  /* a power of two */
  size_t n;
} IdSet;

void id_set_clear (IdSet *set);

/* False: it was there already. */
bool id_set_add (IdSet *set, const ObjectId *id);
bool id_set_has (const IdSet *set, const ObjectId *id);
/* False: it was not there. */
bool id_set_remove (IdSet *set, const ObjectId *id);
