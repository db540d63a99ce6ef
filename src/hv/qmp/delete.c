/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/delete.c: deleting checkpoints, of all disks or of some.
 *
 * Bitmaps go first, then the description: a kill in between leaves one that can be deleted again.
 */
#include "hv/qmp/checkpoints.h"
#include "hv/qmp/plan.h"
#include "qmp/commands.h"

#include <string.h>

/* An image below the active one is open read-only: it is opened for writing for a moment. If it
 * stays writable, nothing is lost: nobody writes to it. */
static bool
remove_below (QmpMachine *machine, const QmpDisk *disk, const DiskImage *image, const char *name,
              TmkError **errp)
{
  machine->place->reopen (machine, disk, image, true);
  bool ok = qmp_bitmap_remove (machine->client, image->node, name, errp);
  machine->place->reopen (machine, disk, image, false);
  return ok;
}

static bool
remove_bitmap (QmpMachine *machine, const QmpDisk *disk, const char *name, TmkError **errp)
{
  for (guint i = 0; i < disk->chain->len; i++) {
    const DiskImage *image = g_ptr_array_index (disk->chain, i);
    if (disk_image_bitmap (image, name) == NULL)
      continue;
    bool ok = image->read_only && i > 0
                  ? remove_below (machine, disk, image, name, errp)
                  : qmp_bitmap_remove (machine->client, image->node, name, errp);
    if (!ok) {
      error_prefix (errp, "disk '%s': cannot remove bitmap '%s' from '%s'", disk->name, name,
                    image->filename != NULL ? image->filename : image->node);
      error_hint (errp, "the checkpoint stays listed: try again when nothing uses the bitmap");
      return false;
    }
  }
  return true;
}

static bool
remove_bitmaps (QmpMachine *machine, const TmkCheckpointDef *def, TmkError **errp)
{
  for (guint i = 0; i < machine->disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (machine->disks, i);
    const char *name = checkpoint_bitmap_on (def, disk->name);
    if (name != NULL && !remove_bitmap (machine, disk, name, errp))
      return false;
  }
  return true;
}

/* The children of a deleted checkpoint become its parent's. */
static bool
hand_over_children (QmpMachine *machine, const TmkCheckpointDef *gone, TmkError **errp)
{
  g_autoptr (GPtrArray) known = state_checkpoints (machine->state, errp);
  if (known == NULL)
    return false;
  for (guint i = 0; i < known->len; i++) {
    TmkCheckpointDef *child = g_ptr_array_index (known, i);
    if (g_strcmp0 (child->parent, gone->name) != 0)
      continue;
    g_free (child->parent);
    child->parent = g_strdup (gone->parent);
    if (!state_write_checkpoint (machine->state, child, errp))
      return false;
  }
  return true;
}

static bool
delete_one (QmpMachine *machine, const TmkCheckpointDef *def, TmkError **errp)
{
  return remove_bitmaps (machine, def, errp) && hand_over_children (machine, def, errp)
         && state_remove_checkpoint (machine->state, def->name, errp);
}

static bool
delete_entered (QmpMachine *machine, const char *name, bool children, TmkError **errp)
{
  if (!checkpoints_refuse_running_job (machine, errp))
    return false;
  g_autoptr (GPtrArray) all = checkpoints_collect (machine, NULL, errp);
  TmkCheckpointDef *def = all != NULL ? checkpoints_must_find (all, name, errp) : NULL;
  if (def == NULL)
    return false;
  if (!children)
    return delete_one (machine, def, errp);

  g_autoptr (GHashTable) family = g_hash_table_new (g_str_hash, g_str_equal);
  g_hash_table_add (family, def->name);
  for (guint i = 0; i < all->len; i++) { /* parents come first */
    TmkCheckpointDef *other = g_ptr_array_index (all, i);
    if (other->parent != NULL && g_hash_table_contains (family, other->parent))
      g_hash_table_add (family, other->name);
  }
  for (guint i = all->len; i-- > 0;) {
    TmkCheckpointDef *other = g_ptr_array_index (all, i);
    if (g_hash_table_contains (family, other->name) && !delete_one (machine, other, errp))
      return false;
  }
  return true;
}

bool
machine_checkpoint_delete (TmkDomain *domain, const char *name, bool children, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_CHANGE, errp))
    return false;
  bool ok = delete_entered (machine, name, children, errp);
  machine_leave (machine);
  return ok;
}

/* Does some disk but those in `disks` have the checkpoint? One that is away just now counts, for it
 * may come back. */
static bool
is_left (QmpMachine *machine, const TmkCheckpointDef *def, const char *const *disks)
{
  for (guint i = 0; i < def->disks->len; i++) {
    const CheckpointDisk *entry = g_ptr_array_index (def->disks, i);
    const QmpDisk *disk = qmp_disks_find (machine->disks, entry->name);
    if (!entry->covered || g_strv_contains (disks, entry->name))
      continue;
    for (guint j = 0; disk != NULL && j < disk->chain->len; j++)
      if (disk_image_bitmap (g_ptr_array_index (disk->chain, j), entry->bitmap) != NULL)
        return true;
    if (disk == NULL || disk->empty)
      return true;
  }
  return false;
}

static bool
delete_from_entered (QmpMachine *machine, const char *name, const char *const *disks,
                     TmkError **errp)
{
  if (!checkpoints_refuse_running_job (machine, errp))
    return false;
  g_autoptr (GHashTable) rebuilt = NULL;
  g_autoptr (GPtrArray) all = checkpoints_collect (machine, &rebuilt, errp);
  if (all == NULL)
    return false;
  TmkCheckpointDef *def = plan_known_checkpoint (all, name);
  for (const char *const *disk = disks; *disk != NULL; disk++) {
    const QmpDisk *found = qmp_disks_find (machine->disks, *disk);
    const char *bitmap = def != NULL ? checkpoint_bitmap_on (def, *disk) : NULL;
    /* Where the description does not cover the disk it may have a bitmap of that name all the same:
     * a kill may have come between making it and describing it. */
    if (found != NULL && !remove_bitmap (machine, found, bitmap != NULL ? bitmap : name, errp))
      return false;
  }
  if (def == NULL)
    return true;
  if (!is_left (machine, def, disks))
    return hand_over_children (machine, def, errp)
           && state_remove_checkpoint (machine->state, def->name, errp);
  if (g_hash_table_contains (rebuilt, def->name))
    return true;
  for (const char *const *disk = disks; *disk != NULL; disk++) {
    CheckpointDisk *entry = checkpoint_def_find_disk (def, *disk);
    if (entry != NULL)
      entry->covered = FALSE;
  }
  return state_write_checkpoint (machine->state, def, errp);
}

bool
machine_checkpoint_delete_from (TmkDomain *domain, const char *name, const char *const *disks,
                                TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_CHANGE, errp))
    return false;
  bool ok = delete_from_entered (machine, name, disks, errp);
  machine_leave (machine);
  return ok;
}
