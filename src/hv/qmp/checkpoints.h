/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/checkpoints.h: checkpoints by themselves: order, making, listing, deleting.
 *
 * The bitmaps on the disks are the truth: a checkpoint without a description is made up from them
 * ("rebuilt"), and one without bitmaps is listed with what is wrong. Order is only in the
 * descriptions; rebuilt ones are put in order by how much they hold, for an older one has seen at
 * least all that a younger one has.
 */
#pragma once

#include "hv/qmp/machine.h"

/* All checkpoints: TmkCheckpointDef*, parents before children, freed with the array. Where
 * `rebuilt` is not NULL it gets the set of names without a description (strings borrowed from the
 * array's elements), to be freed with g_hash_table_unref(). `machine` is entered and live. */
GPtrArray *checkpoints_collect (QmpMachine *machine, GHashTable **rebuilt, TmkError **errp);

/* The name of the newest: the last one without children. Borrowed; NULL where there is none. */
const char *checkpoints_current (GPtrArray *checkpoints);

/* --- for hv/qmp/delete.c -------------------------------------------------------------------- */

/* The bitmap by which `def` is kept on `disk`, or NULL where it does not cover it. */
const char *checkpoint_bitmap_on (const TmkCheckpointDef *def, const char *disk);

/* `name` among `all`, or an error. */
TmkCheckpointDef *checkpoints_must_find (GPtrArray *all, const char *name, TmkError **errp);

/* False with TMK_ERR_BUSY where a job runs. What a begin that was cut off left is cleaned up. */
bool checkpoints_refuse_running_job (QmpMachine *machine, TmkError **errp);
