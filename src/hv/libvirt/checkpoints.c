/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/checkpoints.c: checkpoints of a domain that runs, which are libvirt's own.
 *
 * What libvirt has not is made up from what it has: it gives no size for a bitmap that is missing,
 * not in every image down to the one where it began, or inconsistent, so a size is what makes one
 * usable (seen on 9.0, qemuCheckpointGetXMLDesc). It cannot delete from some disks only, so a
 * checkpoint is split: described anew as that of those disks, deleted, described as that of the
 * others. To describe one anew with REDEFINE_VALIDATE is to ask whether its bitmaps are there.
 */
#include "hv/libvirt/lv.h"

#include "util/jsonx.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "libvirt"

G_DEFINE_AUTO_CLEANUP_FREE_FUNC (virDomainCheckpointPtr, virDomainCheckpointFree, NULL)

/* --- descriptions ---------------------------------------------------------------------------- */

static TmkCheckpointDef *
read_def (virDomainCheckpointPtr checkpoint, bool with_size)
{
  unsigned flags = VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN;
  char *xml = with_size ? virDomainCheckpointGetXMLDesc (checkpoint,
                                                         flags | VIR_DOMAIN_CHECKPOINT_XML_SIZE)
                        : NULL;
  if (xml == NULL) /* of one that is shut off no size can be told */
    xml = virDomainCheckpointGetXMLDesc (checkpoint, flags);
  if (xml == NULL)
    return NULL;
  TmkCheckpointDef *def = tmk_checkpoint_def_parse (
      xml, strlen (xml), "libvirt's checkpoint",
      TMK_XML_INTERNAL | TMK_CHECKPOINT_REDEFINE | TMK_CHECKPOINT_SIZE, NULL);
  free (xml); /* libvirt's, from malloc */
  return def;
}

static virDomainCheckpointPtr
look_up (LvDomain *lv, const char *name)
{
  return virDomainCheckpointLookupByName (lv->dom, name, 0);
}

/* Of those disks of `from` (all: NULL) that `disks` names, or with `others` does not name. */
static TmkCheckpointDef *
part_of (const TmkCheckpointDef *from, const char *const *disks, bool others)
{
  TmkCheckpointDef *part = tmk_checkpoint_def_copy (from);
  g_clear_pointer (&part->domain_xml, g_free);
  for (guint i = 0; i < part->disks->len; i++) {
    CheckpointDisk *disk = g_ptr_array_index (part->disks, i);
    disk->has_size = FALSE;
    if (disks != NULL && g_strv_contains (disks, disk->name) == others)
      disk->covered = FALSE;
    if (!disk->covered)
      g_clear_pointer (&disk->bitmap, g_free);
  }
  return part;
}

static unsigned
count_covered (const TmkCheckpointDef *def)
{
  unsigned n = 0;
  for (guint i = 0; i < def->disks->len; i++)
    n += ((const CheckpointDisk *) g_ptr_array_index (def->disks, i))->covered ? 1 : 0;
  return n;
}

/* Disks that the domain does not have any more would be refused. */
static void
drop_missing_disks (LvDomain *lv, TmkCheckpointDef *def)
{
  for (guint i = def->disks->len; i-- > 0;) {
    const CheckpointDisk *disk = g_ptr_array_index (def->disks, i);
    if (lv_disk_by_name (lv, disk->name) == NULL)
      g_ptr_array_remove_index (def->disks, i);
  }
}

/* Describes it anew; `validate`: only if its bitmaps are there and can be used. */
static bool
redefine (LvDomain *lv, TmkCheckpointDef *def, bool validate)
{
  unsigned flags = VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
                   | (validate ? VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE : 0);
  g_auto (virDomainCheckpointPtr) parent = def->parent != NULL ? look_up (lv, def->parent) : NULL;
  if (parent == NULL)
    g_clear_pointer (&def->parent, g_free);
  drop_missing_disks (lv, def);
  if (count_covered (def) == 0)
    return false;
  char *xml = tmk_checkpoint_def_format (def, TMK_CHECKPOINT_NO_DOMAIN);
  g_auto (virDomainCheckpointPtr) made = virDomainCheckpointCreateXML (lv->dom, xml, flags);
  tmk_free (xml);
  return made != NULL;
}

/* --- listing --------------------------------------------------------------------------------- */

static bool
has_name (const GPtrArray *defs, const char *name)
{
  for (guint i = 0; i < defs->len; i++)
    if (g_str_equal (((const TmkCheckpointDef *) g_ptr_array_index (defs, i))->name, name))
      return true;
  return false;
}

static GPtrArray *
list_defs (LvDomain *lv, TmkError **errp)
{
  virDomainCheckpointPtr *list = NULL;
  int n = virDomainListAllCheckpoints (lv->dom, &list, VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL);
  if (n < 0) {
    connection_set_error (errp, "domain '%s': cannot list its checkpoints", lv->name);
    return NULL;
  }
  GPtrArray *defs = g_ptr_array_new_with_free_func ((GDestroyNotify) tmk_checkpoint_def_free);
  for (int i = 0; i < n; i++) {
    TmkCheckpointDef *def = read_def (list[i], lv->active);
    if (def != NULL)
      g_ptr_array_add (defs, def);
    virDomainCheckpointFree (list[i]);
  }
  free (list);
  return defs;
}

/* Tries each disk by itself: one bitmap that is missing must not hide the others. */
static bool
adopt (LvDomain *lv, const TmkCheckpointDef *candidate)
{
  g_autoptr (TmkCheckpointDef) whole = part_of (candidate, NULL, false);
  if (redefine (lv, whole, true))
    return true;
  g_autoptr (GPtrArray) found = g_ptr_array_new ();
  for (guint i = 0; i < candidate->disks->len; i++) {
    const CheckpointDisk *disk = g_ptr_array_index (candidate->disks, i);
    const char *only[] = { disk->name, NULL };
    g_autoptr (TmkCheckpointDef) part = part_of (candidate, only, false);
    if (disk->covered && redefine (lv, part, true))
      g_ptr_array_add (found, disk->name);
  }
  if (found->len == 0)
    return false;
  g_ptr_array_add (found, NULL);
  g_autoptr (TmkCheckpointDef) part
      = part_of (candidate, (const char *const *) found->pdata, false);
  return redefine (lv, part, true);
}

/* What is written down of the time when the domain was shut off, or libvirt has lost. */
static bool
adopt_known (LvDomain *lv, const GPtrArray *defs)
{
  g_autoptr (GPtrArray) known = state_checkpoints (lv->state, NULL);
  bool any = false;
  for (guint i = 0; known != NULL && i < known->len; i++) {
    const TmkCheckpointDef *def = g_ptr_array_index (known, i);
    if (has_name (defs, def->name))
      continue;
    if (adopt (lv, def))
      any = true;
    else if (virGetLastErrorCode () == VIR_ERR_CHECKPOINT_INCONSISTENT)
      (void) state_remove_checkpoint (lv->state, def->name, NULL); /* of no use to anybody */
  }
  return any;
}

GPtrArray *
live_checkpoint_defs (LvDomain *lv, TmkError **errp)
{
  GPtrArray *defs = list_defs (lv, errp);
  if (defs == NULL || !lv->active || !adopt_known (lv, defs))
    return defs;
  g_ptr_array_unref (defs);
  return list_defs (lv, errp);
}

static TmkCheckpointInfo *
show (HvArena *arena, const TmkCheckpointDef *def)
{
  TmkCheckpointInfo *info = hv_arena_alloc (arena, sizeof *info);
  const char **disks = hv_arena_alloc (arena, def->disks->len * sizeof *disks);
  const char **problems = hv_arena_alloc (arena, def->disks->len * sizeof *problems);
  for (guint i = 0; i < def->disks->len; i++) {
    const CheckpointDisk *disk = g_ptr_array_index (def->disks, i);
    if (!disk->covered)
      continue;
    disks[info->n_disks] = hv_arena_string (arena, disk->name);
    problems[info->n_disks++] = disk->has_size ? NULL : "its bitmap is missing or inconsistent";
    info->size += disk->has_size ? disk->size : 0;
  }
  info->name = hv_arena_string (arena, def->name);
  info->parent = hv_arena_string (arena, def->parent);
  info->description = hv_arena_string (arena, def->description);
  info->created = def->creation_time;
  info->known = true;
  info->disks = disks;
  info->problems = problems;
  return info;
}

TmkCheckpointList *
live_checkpoints (LvDomain *lv, TmkError **errp)
{
  g_autoptr (GPtrArray) defs = live_checkpoint_defs (lv, errp);
  if (defs == NULL)
    return NULL;
  HvCheckpointList *list = g_new0 (HvCheckpointList, 1);
  list->arena = hv_arena_new ();
  TmkCheckpointInfo **infos = hv_arena_alloc (list->arena, defs->len * sizeof *infos);
  TmkCheckpointInfo *newest = NULL;
  for (guint i = 0; i < defs->len; i++) {
    infos[i] = show (list->arena, g_ptr_array_index (defs, i));
    if (newest == NULL || infos[i]->created >= newest->created)
      newest = infos[i];
  }
  if (newest != NULL)
    newest->current = true;
  list->public_part.n_checkpoints = defs->len;
  list->public_part.checkpoints = (const TmkCheckpointInfo *const *) infos;
  return &list->public_part;
}

static virDomainCheckpointPtr
find (LvDomain *lv, const char *name, TmkError **errp)
{
  virDomainCheckpointPtr checkpoint = look_up (lv, name);
  if (checkpoint != NULL)
    return checkpoint;
  if (virGetLastErrorCode () != VIR_ERR_NO_DOMAIN_CHECKPOINT) {
    connection_set_error (errp, "cannot look for checkpoint '%s'", name);
    return NULL;
  }
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no checkpoint '%s'", name);
  error_hint (errp, "'tidemark checkpoint list' shows which there are");
  return NULL;
}

char *
live_checkpoint_xml (LvDomain *lv, const char *name, unsigned flags, TmkError **errp)
{
  g_auto (virDomainCheckpointPtr) checkpoint = find (lv, name, errp);
  if (checkpoint == NULL)
    return NULL;
  unsigned wanted = (flags & TMK_CHECKPOINT_SIZE) != 0 ? VIR_DOMAIN_CHECKPOINT_XML_SIZE : 0;
  if ((flags & TMK_CHECKPOINT_NO_DOMAIN) != 0)
    wanted |= VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN;
  char *xml = virDomainCheckpointGetXMLDesc (checkpoint, wanted);
  if (xml == NULL) {
    connection_set_error (errp, "checkpoint '%s': cannot get its description", name);
    return NULL;
  }
  TmkCheckpointDef *def = tmk_checkpoint_def_parse (
      xml, strlen (xml), "libvirt's checkpoint",
      TMK_XML_INTERNAL | TMK_CHECKPOINT_REDEFINE | TMK_CHECKPOINT_SIZE, errp);
  free (xml);
  char *text = def != NULL ? tmk_checkpoint_def_format (def, flags) : NULL;
  tmk_checkpoint_def_free (def);
  return text;
}

gint64
lv_keep_checkpoint (LvDomain *lv, const char *name)
{
  g_auto (virDomainCheckpointPtr) checkpoint = look_up (lv, name);
  g_autoptr (TmkCheckpointDef) def = checkpoint != NULL ? read_def (checkpoint, false) : NULL;
  if (def == NULL) /* without it the checkpoint is found by its bitmaps */
    return 0;
  (void) state_write_checkpoint (lv->state, def, NULL);
  return def->creation_time;
}

/* --- making and deleting --------------------------------------------------------------------- */

bool
live_checkpoint_check_new (LvDomain *lv, const char *name, TmkError **errp)
{
  g_auto (virDomainCheckpointPtr) other = look_up (lv, name);
  if (other == NULL && connection_lost ()) { /* to take it for a new one is to remove it later */
    connection_set_error (errp, "cannot look for checkpoint '%s'", name);
    return false;
  }
  if (other == NULL)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0, "there is a checkpoint '%s' already", name);
  error_hint (errp, "choose another name, or delete it with 'tidemark checkpoint delete'");
  return false;
}

bool
live_checkpoint_create (LvDomain *lv, const TmkCheckpointDef *def, unsigned flags, char **name,
                        TmkError **errp)
{
  g_autoptr (TmkCheckpointDef) own = tmk_checkpoint_def_copy (def);
  bool redefined = (flags & TMK_CHECKPOINT_REDEFINE) != 0;
  if (!tmk_checkpoint_def_align (own, lv->def, errp)
      || (!redefined && !live_checkpoint_check_new (lv, own->name, errp)))
    return false;
  char *xml = tmk_checkpoint_def_format (own, TMK_CHECKPOINT_NO_DOMAIN);
  g_auto (virDomainCheckpointPtr) made = virDomainCheckpointCreateXML (
      lv->dom, xml,
      redefined
          ? VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE | VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
          : 0);
  tmk_free (xml);
  if (made == NULL) {
    connection_set_error (errp, "checkpoint '%s' cannot be made", own->name);
    return false;
  }
  lv_keep_checkpoint (lv, own->name);
  if (name != NULL)
    *name = g_strdup (own->name);
  return true;
}

/* Deletes bitmaps and description. A bitmap that is missing already is no reason to keep the
 * others: what has one is deleted disk by disk, and at last the description. */
static bool
remove_checkpoint (LvDomain *lv, const TmkCheckpointDef *def, TmkError **errp)
{
  g_auto (virDomainCheckpointPtr) checkpoint = look_up (lv, def->name);
  if (checkpoint == NULL || virDomainCheckpointDelete (checkpoint, 0) == 0)
    return true;
  if (connection_lost ()) {
    connection_set_error (errp, "checkpoint '%s' cannot be deleted", def->name);
    return false;
  }
  for (guint i = 0; i < def->disks->len; i++) {
    const CheckpointDisk *disk = g_ptr_array_index (def->disks, i);
    const char *only[] = { disk->name, NULL };
    g_autoptr (TmkCheckpointDef) part = part_of (def, only, false);
    if (!disk->covered || !redefine (lv, part, false))
      continue;
    g_auto (virDomainCheckpointPtr) single = look_up (lv, def->name);
    if (single != NULL)
      (void) virDomainCheckpointDelete (single, 0);
  }
  g_auto (virDomainCheckpointPtr) rest = look_up (lv, def->name);
  if (rest == NULL
      || virDomainCheckpointDelete (rest, VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) == 0)
    return true;
  connection_set_error (errp, "checkpoint '%s' cannot be deleted", def->name);
  return false;
}

bool
live_checkpoint_purge (LvDomain *lv, const char *name, TmkError **errp)
{
  g_auto (virDomainCheckpointPtr) checkpoint = look_up (lv, name);
  g_autoptr (TmkCheckpointDef) def = checkpoint != NULL ? read_def (checkpoint, false) : NULL;
  if (def == NULL && connection_lost ()) {
    connection_set_error (errp, "cannot look for checkpoint '%s'", name);
    return false;
  }
  if (def != NULL && !remove_checkpoint (lv, def, errp))
    return false;
  return state_remove_checkpoint (lv->state, name, errp);
}

void
lv_drop_images_job (LvDomain *lv)
{
  g_autoptr (json_t) record = state_read (lv->state, "job", NULL);
  const char *xml = jsonx_string (record, "checkpoint");
  if (record == NULL)
    return;
  g_autoptr (TmkCheckpointDef) def
      = xml != NULL ? tmk_checkpoint_def_parse (xml, strlen (xml), "the job's record",
                                                TMK_XML_INTERNAL | TMK_CHECKPOINT_REDEFINE, NULL)
                    : NULL;
  if (def != NULL && def->creation_time == 0)
    def->creation_time = g_get_real_time () / G_USEC_PER_SEC;
  if (def != NULL && redefine (lv, def, false) && !remove_checkpoint (lv, def, NULL))
    return; /* the next one tries again */
  (void) state_remove (lv->state, "job", NULL);
}

bool
live_checkpoint_delete (LvDomain *lv, const char *name, bool children, TmkError **errp)
{
  g_auto (virDomainCheckpointPtr) checkpoint = find (lv, name, errp);
  if (checkpoint == NULL)
    return false;
  if (!children)
    return live_checkpoint_purge (lv, name, errp);
  virDomainCheckpointPtr *list = NULL;
  int n = virDomainCheckpointListAllChildren (checkpoint, &list,
                                              VIR_DOMAIN_CHECKPOINT_LIST_DESCENDANTS);
  if (n < 0) {
    connection_set_error (errp, "checkpoint '%s': cannot list its children", name);
    return false;
  }
  bool ok = true;
  for (int i = 0; i < n; i++) {
    ok = ok && live_checkpoint_purge (lv, virDomainCheckpointGetName (list[i]), errp);
    virDomainCheckpointFree (list[i]);
  }
  free (list);
  return ok && live_checkpoint_purge (lv, name, errp);
}

static bool
job_runs (LvDomain *lv)
{
  char *xml = virDomainBackupGetXMLDesc (lv->dom, 0);
  free (xml);
  return xml != NULL;
}

bool
live_checkpoint_delete_from (LvDomain *lv, const char *name, const char *const *disks,
                             TmkError **errp)
{
  g_auto (virDomainCheckpointPtr) checkpoint = look_up (lv, name);
  g_autoptr (TmkCheckpointDef) def = checkpoint != NULL ? read_def (checkpoint, false) : NULL;
  if (def == NULL)
    return true;
  if (job_runs (lv)) {
    error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "a backup job runs");
    error_hint (errp, "try again when it has ended");
    return false;
  }
  g_autoptr (TmkCheckpointDef) go = part_of (def, disks, false);
  g_autoptr (TmkCheckpointDef) stay = part_of (def, disks, true);
  drop_missing_disks (lv, stay);
  if (count_covered (go) == 0)
    return true;
  if (count_covered (stay) == 0)
    return live_checkpoint_purge (lv, name, errp);
  /* Should we die in between, the rest is found again by what is written down of it. */
  (void) state_write_checkpoint (lv->state, stay, NULL);
  if (!redefine (lv, go, false) || !remove_checkpoint (lv, go, errp)) {
    if (errp != NULL && *errp == NULL)
      connection_set_error (errp, "checkpoint '%s' cannot be split", name);
    return false;
  }
  if (redefine (lv, stay, false))
    return true;
  connection_set_error (errp, "checkpoint '%s' cannot be kept for its other disks", name);
  return false;
}

bool
live_checkpoint_adopt (LvDomain *lv, const char *name, const char *const *disks, TmkError **errp)
{
  if (!checkpoint_name_is_valid (name))
    return true; /* libvirt could not have it */
  g_auto (virDomainCheckpointPtr) checkpoint = look_up (lv, name);
  g_autoptr (TmkCheckpointDef) def = checkpoint != NULL ? read_def (checkpoint, true) : NULL;
  if (def == NULL)
    def = tmk_checkpoint_def_new (name, errp);
  if (def == NULL)
    return false;
  if (def->creation_time == 0)
    def->creation_time = g_get_real_time () / G_USEC_PER_SEC;
  for (size_t i = 0; disks[i] != NULL; i++) {
    CheckpointDisk *disk = checkpoint_def_find_disk (def, disks[i]);
    if (disk == NULL)
      disk = checkpoint_def_add_disk (def, disks[i]);
    if (disk->covered)
      continue;
    disk->covered = TRUE;
    g_free (disk->bitmap);
    disk->bitmap = g_strdup (name);
  }
  if (adopt (lv, def))
    lv_keep_checkpoint (lv, name);
  return true;
}
