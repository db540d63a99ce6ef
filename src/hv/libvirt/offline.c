/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/offline.c: a domain that is shut off: its images, and what libvirt has to be told.
 *
 * libvirt keeps the descriptions of checkpoints of such a domain, and takes new ones without
 * looking, but neither makes nor deletes bitmaps. So these are the images' business, and libvirt is
 * told afterwards. Should that fail nothing is lost: when the domain runs again, what is written
 * down in the state folder is compared with what libvirt knows.
 */
#include "hv/libvirt/lv.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "libvirt"
#define BACKUPS_PREFIX "tidemark-" /* of the checkpoints that backups make; see engine/plan.h */

G_DEFINE_AUTO_CLEANUP_FREE_FUNC (virDomainCheckpointPtr, virDomainCheckpointFree, NULL)

/* When a checkpoint was made, and of what, the images do not tell. */
static void
write_down_checkpoints (LvDomain *lv)
{
  virDomainCheckpointPtr *list = NULL;
  int n = virDomainListAllCheckpoints (lv->dom, &list, 0);
  for (int i = 0; i < n; i++) {
    lv_keep_checkpoint (lv, virDomainCheckpointGetName (list[i]));
    virDomainCheckpointFree (list[i]);
  }
  free (list);
}

TmkDomain *
lv_images (LvDomain *lv, TmkError **errp)
{
  if (lv->images != NULL)
    return lv->images;
  g_autofree TmkImage *images = g_new0 (TmkImage, lv->def->disks->len + 1);
  size_t n = 0;
  for (guint i = 0; i < lv->def->disks->len; i++) {
    const DiskDef *disk = g_ptr_array_index (lv->def->disks, i);
    const DiskSourceDef *active = disk_def_active (disk);
    if (lv_disk_why_not (lv, disk) != NULL)
      continue;
    /* libvirt's default: what a guest wrote into a raw image must not decide. */
    const LvSecret *secret = lv_secret_of (lv, disk->target);
    images[n++] = (TmkImage){ .target = disk->target,
                              .path = active->path,
                              .format = disk_source_driver (active),
                              .passphrase = secret != NULL ? secret->value : NULL,
                              .passphrase_len = secret != NULL ? secret->len : 0 };
  }
  if (n == 0) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "domain '%s' has no disk to back up", lv->name);
    error_hint (errp, "'tidemark disks' shows its disks and why each cannot be backed up");
    return NULL;
  }
  if (!lv_enter (lv, errp))
    return NULL;
  write_down_checkpoints (lv);
  lv_leave (lv);
  TmkDomainOptions options = { .state_dir = lv->root, .domain = lv->def };
  lv->images = tmk_domain_open_images (images, n, &options, errp);
  return lv->images;
}

/* Is it none of the images, but a disk that cannot be backed up anyway? */
static const char *
is_beside (const LvDomain *lv, const char *name)
{
  const DiskDef *disk = lv_disk_by_name (lv, name);
  return disk != NULL ? lv_disk_why_not (lv, disk) : NULL;
}

static TmkBackupDef *
without_other_disks (const LvDomain *lv, const TmkBackupDef *def, TmkError **errp)
{
  g_autoptr (TmkBackupDef) own = tmk_backup_def_copy (def);
  for (guint i = own->disks->len; i-- > 0;) {
    const BackupDisk *disk = g_ptr_array_index (own->disks, i);
    const char *why_not = is_beside (lv, disk->name);
    if (why_not == NULL)
      continue;
    if (disk->backup) {
      error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s' cannot be backed up: %s",
                 disk->name, why_not);
      error_hint (errp, "leave it out: backup='no'");
      return NULL;
    }
    g_ptr_array_remove_index (own->disks, i);
  }
  return g_steal_pointer (&own);
}

static TmkCheckpointDef *
checkpoint_without_other_disks (const LvDomain *lv, const TmkCheckpointDef *def)
{
  TmkCheckpointDef *own = tmk_checkpoint_def_copy (def);
  for (guint i = own->disks->len; i-- > 0;) {
    const CheckpointDisk *disk = g_ptr_array_index (own->disks, i);
    if (!disk->covered && is_beside (lv, disk->name) != NULL)
      g_ptr_array_remove_index (own->disks, i);
  }
  return own;
}

bool
lv_begin_images (LvDomain *lv, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
                 const TmkBeginOptions *options, TmkError **errp)
{
  TmkDomain *images = lv_images (lv, errp);
  g_autoptr (TmkBackupDef) own = images != NULL ? without_other_disks (lv, def, errp) : NULL;
  if (own == NULL)
    return false;
  g_autoptr (TmkCheckpointDef) own_checkpoint
      = checkpoint != NULL ? checkpoint_without_other_disks (lv, checkpoint) : NULL;
  TmkBeginOptions own_options = *options;
  own_options.agent = NULL; /* there is no guest */
  return tmk_domain_begin (images, own, own_checkpoint, &own_options, errp);
}

bool
lv_create_on_images (LvDomain *lv, const TmkCheckpointDef *def, unsigned flags, char **name,
                     TmkError **errp)
{
  TmkDomain *images = lv_images (lv, errp);
  if (images == NULL)
    return false;
  g_autoptr (TmkCheckpointDef) own = checkpoint_without_other_disks (lv, def);
  return tmk_domain_checkpoint_create (images, own, flags, name, errp);
}

static bool
is_listed (const TmkCheckpointList *list, const char *name)
{
  for (size_t i = 0; i < list->n_checkpoints; i++)
    if (g_str_equal (list->checkpoints[i]->name, name))
      return true;
  return false;
}

static void
forget (LvDomain *lv, const char *name)
{
  g_auto (virDomainCheckpointPtr) checkpoint = virDomainCheckpointLookupByName (lv->dom, name, 0);
  if (checkpoint != NULL)
    (void) virDomainCheckpointDelete (checkpoint, VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY);
}

static void
forget_all_but (LvDomain *lv, const TmkCheckpointList *list)
{
  virDomainCheckpointPtr *all = NULL;
  int n = virDomainListAllCheckpoints (lv->dom, &all, 0);
  for (int i = 0; i < n; i++) {
    if (!is_listed (list, virDomainCheckpointGetName (all[i])))
      forget (lv, virDomainCheckpointGetName (all[i]));
    virDomainCheckpointFree (all[i]);
  }
  free (all);
}

static bool
has_bitmap (const TmkDiskList *disks, const char *name)
{
  for (size_t i = 0; i < disks->n_disks; i++)
    for (size_t j = 0; j < disks->disks[i]->n_bitmaps; j++)
      if (g_str_equal (disks->disks[i]->bitmaps[j]->name, name))
        return true;
  return false;
}

/* What backups made, and no image has: a QEMU that was killed had not stored it yet. */
static void
forget_lost (LvDomain *lv)
{
  virDomainCheckpointPtr *all = NULL;
  TmkDiskList *disks = tmk_domain_disks (lv->images, NULL);
  int n = disks != NULL ? virDomainListAllCheckpoints (lv->dom, &all, 0) : 0;
  for (int i = 0; i < n; i++) {
    const char *name = virDomainCheckpointGetName (all[i]);
    if (g_str_has_prefix (name, BACKUPS_PREFIX) && !has_bitmap (disks, name)) {
      (void) virDomainCheckpointDelete (all[i], VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY);
      (void) state_remove_checkpoint (lv->state, name, NULL);
    }
    virDomainCheckpointFree (all[i]);
  }
  free (all);
  tmk_disk_list_free (disks);
}

/* As the images have it now. */
static void
describe_to_libvirt (LvDomain *lv, const char *name, const TmkBeginOptions *options)
{
  TmkError *err = NULL;
  char *text = tmk_domain_checkpoint_xml (lv->images, name, TMK_CHECKPOINT_NO_DOMAIN, &err);
  TmkCheckpointDef *def
      = text != NULL ? tmk_checkpoint_def_parse (text, strlen (text), "the checkpoint",
                                                 TMK_XML_INTERNAL | TMK_CHECKPOINT_REDEFINE, &err)
                     : NULL;
  tmk_free (text);
  if (def == NULL) {
    tmk_error_free (err);
    return;
  }
  g_auto (virDomainCheckpointPtr) parent
      = def->parent != NULL ? virDomainCheckpointLookupByName (lv->dom, def->parent, 0) : NULL;
  if (parent == NULL)
    g_clear_pointer (&def->parent, g_free);
  char *xml = tmk_checkpoint_def_format (def, TMK_CHECKPOINT_NO_DOMAIN);
  g_auto (virDomainCheckpointPtr) made
      = virDomainCheckpointCreateXML (lv->dom, xml, VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE);
  if (made == NULL && options != NULL)
    hv_warn (options, "libvirt cannot be told of checkpoint '%s' now: %s", name,
             virGetLastErrorMessage ());
  tmk_free (xml);
  tmk_checkpoint_def_free (def);
}

void
lv_tell_libvirt (LvDomain *lv, const char *name, const TmkBeginOptions *options)
{
  TmkCheckpointList *list = tmk_domain_checkpoints (lv->images, NULL);
  if (list == NULL)
    return;
  if (name == NULL)
    forget_all_but (lv, list);
  else if (is_listed (list, name))
    describe_to_libvirt (lv, name, options);
  else
    forget (lv, name);
  tmk_checkpoint_list_free (list);
  forget_lost (lv);
}
