/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/driver.c: opening a domain of libvirt's, looking at it, and the way from each
 * operation to the part that does it; see hv/libvirt/lv.h. */
#include "hv/libvirt/lv.h"

#include "util/fsx.h"

#include <stdlib.h>
#include <string.h>
#include <tidemark/libvirt.h>

#define DOMAIN "libvirt"
#define LOCK_TIMEOUT_MS 30000
#define RESTART_US (10 * G_USEC_PER_SEC)
#define RESTART_LOOK_US 100000

/* --- looking --------------------------------------------------------------------------------- */

static void
disconnect (LvDomain *lv)
{
  g_clear_pointer (&lv->dom, virDomainFree);
  g_clear_pointer (&lv->connection, virConnectClose);
}

/* libvirt may have been restarted since. */
static bool
connect_again (LvDomain *lv, TmkError **errp)
{
  if (lv->connection != NULL && virConnectIsAlive (lv->connection) != 1)
    disconnect (lv);
  if (lv->connection == NULL)
    lv->connection = connection_open (lv->uri, errp);
  if (lv->connection == NULL)
    return false;
  if (lv->dom == NULL)
    lv->dom = connection_find (lv->connection, lv->uuid != NULL ? lv->uuid : lv->named, errp);
  return lv->dom != NULL;
}

static bool
read_xml (LvDomain *lv, TmkError **errp)
{
  char *xml = virDomainGetXMLDesc (lv->dom, lv->active ? 0 : VIR_DOMAIN_XML_INACTIVE);
  if (xml == NULL) {
    connection_set_error (errp, "domain '%s': cannot get its description", lv->named);
    return false;
  }
  g_free (lv->xml);
  lv->xml = g_strdup (xml);
  free (xml); /* libvirt's, from malloc */
  g_autofree char *origin = g_strdup_printf ("domain '%s'", lv->named);
  TmkDomainDef *def = tmk_domain_def_parse (lv->xml, strlen (lv->xml), origin, errp);
  if (def == NULL)
    return false;
  tmk_domain_def_free (lv->def);
  lv->def = def;
  return true;
}

/* What is open of its images belongs to a time when it was shut off. */
static void
leave_images (LvDomain *lv)
{
  g_clear_pointer (&lv->images, tmk_domain_free);
  lv_forget_secrets (lv);
}

static bool
look_once (LvDomain *lv, TmkError **errp)
{
  if (!connect_again (lv, errp))
    return false;
  int active = virDomainIsActive (lv->dom);
  if (active < 0) {
    connection_set_error (errp, "domain '%s': cannot tell whether it is running", lv->named);
    return false;
  }
  bool was_active = lv->active;
  lv->active = active == 1;
  if (!read_xml (lv, errp))
    return false;
  if (lv->active || was_active)
    leave_images (lv);
  if (!lv->active && lv->secrets == NULL)
    lv_learn_secrets (lv);
  return true;
}

/* libvirt's daemon can be restarted at any time, while domains and their jobs go on; so one that
 * was there is waited for, once. */
bool
lv_look (LvDomain *lv, TmkError **errp)
{
  gint64 deadline = g_get_monotonic_time () + RESTART_US;
  TmkError *err = NULL;
  while (!look_once (lv, &err)) {
    bool gone = lv->state != NULL && tmk_error_code (err) == TMK_ERR_GONE;
    if (!gone || lv->lost || g_get_monotonic_time () >= deadline) {
      lv->lost = gone;
      if (tmk_error_code (err) == TMK_ERR_NOT_FOUND && tmk_error_hint (err) == NULL)
        error_hint (&err, "it has ended, and libvirt knows it no more: begin again when it runs");
      error_propagate (errp, err);
      return false;
    }
    g_clear_pointer (&err, tmk_error_free);
    disconnect (lv);
    g_usleep (RESTART_LOOK_US);
  }
  lv->lost = false;
  return true;
}

bool
lv_enter (LvDomain *lv, TmkError **errp)
{
  return state_lock (lv->state, LOCK_TIMEOUT_MS, errp);
}

void
lv_leave (LvDomain *lv)
{
  state_unlock (lv->state);
}

const DiskDef *
lv_disk_by_name (const LvDomain *lv, const char *name)
{
  return domain_def_find_disk (lv->def, name);
}

/* --- the way to the parts -------------------------------------------------------------------- */

/* Behind an operation that was done with the lock: `ok` is its result. */
static bool
left (LvDomain *lv, bool ok)
{
  lv_leave (lv);
  return ok;
}

static const TmkDomainDef *
lv_def (TmkDomain *domain)
{
  return ((LvDomain *) domain)->def;
}

static int
lv_reserve (TmkDomain *domain, TmkError **errp)
{
  return state_reserve (((LvDomain *) domain)->state, errp);
}

static bool
inspect (TmkDomain *domain, HvFacts *facts, TmkError **errp)
{
  return lv_inspect ((LvDomain *) domain, facts, errp);
}

static TmkDomainDescription *
describe (TmkDomain *domain, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  return lv_look (lv, errp) ? lv_describe (lv, errp) : NULL;
}

static TmkDiskList *
disks (TmkDomain *domain, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return NULL;
  if (lv->active) {
    if (!lv_enter (lv, errp))
      return NULL;
    TmkDiskList *list = live_disks (lv, errp);
    lv_leave (lv);
    return list;
  }
  TmkError *err = NULL;
  TmkDomain *images = lv_images (lv, &err);
  if (images == NULL && tmk_error_code (err) != TMK_ERR_NOT_FOUND) {
    error_propagate (errp, err);
    return NULL;
  }
  tmk_error_free (err);
  TmkDiskList *list = images != NULL ? tmk_domain_disks (images, errp) : NULL;
  return list != NULL || images == NULL ? lv_complete_disks (lv, list) : NULL;
}

static bool
begin (TmkDomain *domain, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
       const TmkBeginOptions *options, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return false;
  if (lv->active)
    return lv_enter (lv, errp) && left (lv, live_begin (lv, def, checkpoint, options, errp));
  if (!lv_enter (lv, errp) || !left (lv, lv_job_put_away_left (lv, errp)))
    return false;
  return lv_begin_images (lv, def, checkpoint, options, errp);
}

/* A job of the images is over when the domain runs; one that was begun while it ran, when it does
 * not. But there may be something left of it. */
static bool
is_live_job (LvDomain *lv)
{
  return lv->active || lv_has_record (lv);
}

static char *
job_xml (TmkDomain *domain, unsigned flags, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return NULL;
  if (is_live_job (lv))
    return live_job_xml (lv, flags, errp);
  TmkDomain *images = lv_images (lv, errp);
  return images != NULL ? tmk_domain_job_xml (images, flags, errp) : NULL;
}

static TmkJobStatus *
job_status (TmkDomain *domain, bool act, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return NULL;
  if (is_live_job (lv)) {
    if (act && !lv_enter (lv, errp))
      return NULL;
    TmkJobStatus *status = live_job_status (lv, act, errp);
    if (act)
      lv_leave (lv);
    return status;
  }
  TmkError *err = NULL;
  TmkDomain *images = lv_images (lv, &err);
  if (images == NULL && tmk_error_code (err) == TMK_ERR_NOT_FOUND) {
    tmk_error_free (err);
    return live_job_status (lv, false, errp);
  }
  if (images == NULL) {
    error_propagate (errp, err);
    return NULL;
  }
  if (!act)
    return tmk_domain_job_status (images, errp);
  TmkJobStatus *status = tmk_domain_poll_job (images, errp);
  if (status != NULL && status->state == TMK_JOB_DONE && status->checkpoint != NULL)
    lv_tell_libvirt (lv, status->checkpoint, NULL);
  return status;
}

static TmkBlockSource *
open_disk (TmkDomain *domain, const char *disk, const TmkNbdOptions *options, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return NULL;
  if (lv->active)
    return live_open_disk (lv, disk, options, errp);
  TmkDomain *images = lv_images (lv, errp);
  return images != NULL ? tmk_domain_open_disk (images, disk, options, errp) : NULL;
}

static bool
end (TmkDomain *domain, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return false;
  if (is_live_job (lv))
    return lv_enter (lv, errp) && left (lv, live_end (lv, errp));
  TmkDomain *images = lv_images (lv, errp);
  if (images == NULL || !tmk_domain_end (images, errp))
    return false;
  TmkJobStatus *status = tmk_domain_job_status (images, NULL);
  if (status != NULL && status->checkpoint != NULL)
    lv_tell_libvirt (lv, status->checkpoint, NULL);
  tmk_job_status_free (status);
  return true;
}

static bool
abort_job (TmkDomain *domain, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  TmkError *err = NULL;
  if (!lv_look (lv, &err)) {
    bool gone = tmk_error_code (err) == TMK_ERR_NOT_FOUND && lv_has_record (lv);
    error_propagate (gone ? NULL : errp, err);
    return gone && lv_enter (lv, errp) && left (lv, lv_job_settle_gone (lv, errp));
  }
  if (is_live_job (lv))
    return lv_enter (lv, errp) && left (lv, live_abort (lv, errp));
  TmkDomain *images = lv_images (lv, errp);
  return images != NULL && tmk_domain_abort (images, errp);
}

static TmkCheckpointList *
checkpoints (TmkDomain *domain, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return NULL;
  if (lv->active)
    return live_checkpoints (lv, errp);
  TmkDomain *images = lv_images (lv, errp);
  return images != NULL ? tmk_domain_checkpoints (images, errp) : NULL;
}

static bool
checkpoint_create (TmkDomain *domain, const TmkCheckpointDef *def, unsigned flags, char **name,
                   TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return false;
  if (lv->active)
    return lv_enter (lv, errp) && left (lv, live_checkpoint_create (lv, def, flags, name, errp));
  char *made = NULL;
  if (!lv_create_on_images (lv, def, flags, &made, errp))
    return false;
  lv_tell_libvirt (lv, made, NULL);
  if (name != NULL)
    *name = g_steal_pointer (&made);
  tmk_free (made);
  return true;
}

static char *
checkpoint_xml (TmkDomain *domain, const char *name, unsigned flags, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return NULL;
  if (lv->active)
    return live_checkpoint_xml (lv, name, flags, errp);
  TmkDomain *images = lv_images (lv, errp);
  return images != NULL ? tmk_domain_checkpoint_xml (images, name, flags, errp) : NULL;
}

static bool
checkpoint_delete (TmkDomain *domain, const char *name, bool children, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return false;
  if (lv->active)
    return lv_enter (lv, errp) && left (lv, live_checkpoint_delete (lv, name, children, errp));
  TmkDomain *images = lv_images (lv, errp);
  if (images == NULL || !tmk_domain_checkpoint_delete (images, name, children, errp))
    return false;
  lv_tell_libvirt (lv, children ? NULL : name, NULL);
  return true;
}

static bool
checkpoint_delete_from (TmkDomain *domain, const char *name, const char *const *from,
                        TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return false;
  if (lv->active)
    return lv_enter (lv, errp) && left (lv, live_checkpoint_delete_from (lv, name, from, errp));
  TmkDomain *images = lv_images (lv, errp);
  if (images == NULL || !tmk_domain_checkpoint_delete_from (images, name, from, errp))
    return false;
  lv_tell_libvirt (lv, name, NULL);
  return true;
}

static bool
checkpoint_adopt (TmkDomain *domain, const char *name, const char *const *on, TmkError **errp)
{
  LvDomain *lv = (LvDomain *) domain;
  if (!lv_look (lv, errp))
    return false;
  if (!lv->active)
    return true; /* the images show what they have */
  return lv_enter (lv, errp) && left (lv, live_checkpoint_adopt (lv, name, on, errp));
}

/* --- opening --------------------------------------------------------------------------------- */

static void
lv_free (TmkDomain *domain)
{
  LvDomain *lv = (LvDomain *) domain;
  leave_images (lv);
  disconnect (lv);
  state_free (lv->state);
  tmk_domain_def_free (lv->def);
  g_free (lv->xml);
  g_free (lv->uri);
  g_free (lv->named);
  g_free (lv->name);
  g_free (lv->uuid);
  g_free (lv->root);
  g_free (lv);
}

static const HvDriver libvirt_driver = {
  .name = "libvirt",
  .watch_pulls = true,
  .adopts = true,
  .free = lv_free,
  .reserve = lv_reserve,
  .def = lv_def,
  .describe = describe,
  .inspect = inspect,
  .disks = disks,
  .begin = begin,
  .job_xml = job_xml,
  .job_status = job_status,
  .open_disk = open_disk,
  .end = end,
  .abort = abort_job,
  .checkpoints = checkpoints,
  .checkpoint_create = checkpoint_create,
  .checkpoint_xml = checkpoint_xml,
  .checkpoint_delete = checkpoint_delete,
  .checkpoint_delete_from = checkpoint_delete_from,
  .checkpoint_adopt = checkpoint_adopt,
};

TmkDomain *
tmk_domain_open_libvirt (const char *uri, const char *name, const TmkDomainOptions *options,
                         TmkError **errp)
{
  LvDomain *lv = g_new0 (LvDomain, 1);
  lv->base.driver = &libvirt_driver;
  g_autoptr (TmkDomain) domain = &lv->base;
  lv->uri = g_strdup (uri);
  lv->named = g_strdup (name);
  if (options != NULL && options->state_dir != NULL)
    lv->root = g_strdup (options->state_dir);
  else
    lv->root = state_default_root ();
  if (!lv_look (lv, errp))
    return NULL;
  lv->name = g_strdup (lv->def->name);
  lv->uuid = g_strdup (lv->def->uuid);
  g_autofree char *key = state_key (lv->uuid, lv->named);
  g_autofree char *address = g_strconcat ("libvirt:", lv->uuid, NULL);
  lv->state = state_open (lv->root, key, address, errp);
  return lv->state != NULL ? g_steal_pointer (&domain) : NULL;
}
