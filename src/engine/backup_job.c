/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/backup_job.c: the job that a backup reads from, and the checkpoints; see
 * engine/backup_priv.h. */
#include "engine/backup_priv.h"

#define DOMAIN "engine"

/* ---- checkpoints -------------------------------------------------------------------------- */

bool
backup_takes_checkpoint (const PlanDisk *plan)
{
  return plan->selected && plan->disk->no_checkpoint == NULL;
}

static bool
any_takes_checkpoint (const Backup *backup)
{
  for (size_t i = 0; i < backup->look->plan->n_disks; i++)
    if (backup_takes_checkpoint (&backup->look->plan->disks[i]))
      return true;
  return false;
}

/* A new one of the disks that are backed up. Its name says of which repository and point it is. */
static TmkCheckpointDef *
new_checkpoint (Backup *backup, TmkError **errp)
{
  Manifest *manifest = backup->manifest;
  if (backup->options.checkpoint != NULL)
    manifest->checkpoint = g_strdup (backup->options.checkpoint);
  else
    manifest->checkpoint = g_strconcat (backup->look->prefix, manifest->id, NULL);

  g_autoptr (GString) xml = g_string_new ("<domaincheckpoint>\n");
  g_autofree char *name = g_markup_escape_text (manifest->checkpoint, -1);
  g_string_append_printf (xml, "<name>%s</name>\n<disks>\n", name);
  for (size_t i = 0; i < backup->look->plan->n_disks; i++) {
    const PlanDisk *plan = &backup->look->plan->disks[i];
    g_autofree char *disk = g_markup_escape_text (plan->disk->name, -1);
    g_string_append_printf (xml, "<disk name='%s' checkpoint='%s'/>\n", disk,
                            backup_takes_checkpoint (plan) ? "bitmap" : "no");
  }
  g_string_append (xml, "</disks>\n</domaincheckpoint>\n");
  TmkCheckpointDef *def
      = tmk_checkpoint_def_parse (xml->str, xml->len, "the new checkpoint", TMK_XML_INTERNAL, errp);
  if (def == NULL)
    error_hint (errp, "choose another name with --checkpoint");
  return def;
}

void
backup_remove_checkpoints (Backup *backup, bool orphans)
{
  g_autoptr (GPtrArray) stale
      = orphans
            ? plan_orphans (backup->look->plan, &(PlanRepository){ .prefix = backup->look->prefix,
                                                                   .points = backup->look->points })
            : plan_superseded (backup->look->plan, backup->look->prefix,
                               backup->manifest->checkpoint);
  for (guint i = 0; i < stale->len; i++) {
    const PlanStale *entry = g_ptr_array_index (stale, i);
    const char *disks[] = { entry->disk, NULL };
    TmkError *err = NULL;
    if (tmk_domain_checkpoint_delete_from (backup->domain, entry->checkpoint, disks, &err))
      continue;
    hv_warn (&backup->options.begin, "checkpoint '%s' of disk '%s' cannot be removed: %s",
             entry->checkpoint, entry->disk, tmk_error_message (err));
    tmk_error_free (err);
  }
}

/* ---- the job ------------------------------------------------------------------------------ */

bool
backup_begin (Backup *backup, TmkError **errp)
{
  g_autoptr (TmkBackupDef) def
      = definition_new (backup->look, &backup->options, backup->manifest->id, errp);
  if (def == NULL)
    return false;
  TmkCheckpointDef *checkpoint = NULL;
  if (!backup->options.no_checkpoint && any_takes_checkpoint (backup)
      && (checkpoint = new_checkpoint (backup, errp)) == NULL)
    return false;
  bool ok = tmk_domain_begin (backup->domain, def, checkpoint, &backup->options.begin, errp);
  tmk_checkpoint_def_free (checkpoint);
  return ok;
}

bool
backup_note_job (Backup *backup, TmkError **errp)
{
  Manifest *manifest = backup->manifest;
  TmkJobStatus *status = tmk_domain_job_status (backup->domain, errp);
  if (status == NULL)
    return false;
  manifest->time_us = status->started_us;
  manifest->quiesced = status->quiesced;
  backup->powered_off = status->powered_off;
  backup->pause_us = status->pause_us;
  tmk_job_status_free (status);
  manifest->backup_xml = tmk_domain_job_xml (backup->domain, TMK_XML_PUBLIC, errp);
  if (manifest->backup_xml == NULL)
    return false;
  if (manifest->checkpoint == NULL)
    return true;
  manifest->checkpoint_xml = tmk_domain_checkpoint_xml (backup->domain, manifest->checkpoint,
                                                        TMK_CHECKPOINT_NO_DOMAIN, errp);
  return manifest->checkpoint_xml != NULL;
}

void
backup_explain_end (Backup *backup, TmkError **errp)
{
  TmkJobStatus *status = NULL;
  if (errp == NULL || backup_is_cancelled (backup)
      || (status = tmk_domain_job_status (backup->domain, NULL)) == NULL)
    return;
  if (status->started_us != backup->manifest->time_us) {
    /* It is another one, or not remembered. */
  } else if (status->state == TMK_JOB_CANCELLED || status->state == TMK_JOB_DONE) {
    g_clear_pointer (errp, tmk_error_free);
    error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "somebody ended the job that the backup read from");
    error_hint (errp, "begin again; 'tidemark end' and 'tidemark abort' are not for a backup that"
                      " runs: interrupt that instead");
  } else if (status->state == TMK_JOB_INTERRUPTED) {
    error_hint (errp, "QEMU has ended; nothing was lost, and the next backup cleans up");
  } else if (status->error != NULL && strstr (tmk_error_message (*errp), status->error) == NULL) {
    error_prefix (errp, "%s", status->error);
    error_hint (errp, "%s", status->hint != NULL ? status->hint : "try again");
  }
  tmk_job_status_free (status);
}

void
backup_take_back (Backup *backup)
{
  TmkError *err = NULL;
  if (tmk_domain_abort (backup->domain, &err))
    return;
  if (tmk_error_code (err) != TMK_ERR_NOT_FOUND)
    hv_warn (&backup->options.begin,
             "cleaning up failed: %s; the next backup, or 'tidemark abort', tries again",
             tmk_error_message (err));
  tmk_error_free (err);
}
