/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/damage.h: notes of damage: records of kind OBJECT_DAMAGE under damaged/, each of n × (32
 * bytes: id, 24 bytes: name of the pack in which the copy is damaged; zeroes: there was none).
 */
#pragma once

#include "repo/index_set.h"

#define DAMAGE_NOTE_SIZE (OBJECT_ID_SIZE + PACK_NAME_SIZE)

/* What a failure to read an object, or a copy of one, means for it. A medium that cannot be read is
 * damage; that we may not read it, say, is none. */
bool is_damage (const TmkError *err);

/* Appends all that is noted to `notes` (of DamageNote). A note that cannot be read is none: what it
 * is about will be found again by the next who reads it. */
bool damage_load (ObjStore *store, GArray *notes, TmkError **errp);

/* Publishes notes. */
bool damage_publish (ObjStore *store, const DamageNote *notes, size_t n, TmkError **errp);
