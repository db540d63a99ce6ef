/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/backup_read.c: reading disks into the repository; see engine/backup_priv.h. */
#include "engine/backup_priv.h"

#include "blk/source.h"

#define DOMAIN "engine"

bool
backup_is_cancelled (const Backup *backup)
{
  return backup->options.cancelled != NULL && backup->options.cancelled (backup->options.data);
}

typedef struct {
  Backup *backup;
  const ManifestDisk *disk;
  uint64_t total;
} Ticking;

static void
tell (const Ticking *ticking, const PipelineStats *stats, bool finished)
{
  const TmkBackupOptions *options = &ticking->backup->options;
  if (options->progress == NULL)
    return;
  TmkBackupProgress progress = {
    .disk = ticking->disk->name,
    .done = stats->looked,
    .total = MAX (ticking->total, stats->looked),
    .read = stats->read,
    .added = stats->added,
    .stored = stats->stored,
    .finished = finished,
  };
  options->progress (&progress, options->data);
}

#define POLL_US (G_USEC_PER_SEC / 2)

/* Of a domain whose jobs must be looked after while they are read. Readers of a job that has failed
 * need not notice. A poll that fails is no news of the job: its end will tell. */
static bool
job_goes_on (Backup *backup)
{
  gint64 now = g_get_monotonic_time ();
  if (!backup->domain->driver->watch_pulls || now < backup->next_poll)
    return true;
  backup->next_poll = now + POLL_US;
  g_autoptr (TmkJobStatus) status = tmk_domain_poll_job (backup->domain, NULL);
  if (status == NULL || (status->state == TMK_JOB_RUNNING && status->error == NULL))
    return true;
  const char *why = status->error;
  if (why == NULL)
    why = status->state == TMK_JOB_CANCELLED ? "the job was aborted" : "the job has ended";
  error_set (&backup->job_error, DOMAIN, TMK_ERR_FAILED, 0, "%s", why);
  error_hint (&backup->job_error, "%s", status->hint != NULL ? status->hint : "try again");
  return false;
}

static bool
tick (const PipelineStats *stats, void *data)
{
  const Ticking *ticking = data;
  tell (ticking, stats, false);
  return !backup_is_cancelled (ticking->backup) && job_goes_on (ticking->backup);
}

static void
note_stats (const PipelineStats *stats, uint64_t used_before, ManifestDisk *disk)
{
  disk->read = stats->read;
  disk->zero = stats->zero;
  disk->changed = stats->changed;
  disk->added = stats->added;
  disk->stored = stats->stored;
  disk->used = (uint64_t) ((int64_t) used_before + stats->used);
}

/* Reads `source` into a tree that begins as the plan's base, or as nothing. */
static bool
read_disk (Backup *backup, TmkBlockSource *source, const PlanDisk *plan, bool from_nothing,
           ManifestDisk *disk, TmkError **errp)
{
  static const ObjectId nothing;
  const ManifestDisk *base = plan->incremental ? plan->base_disk : plan->previous;
  if (from_nothing)
    base = NULL;
  bool only_dirty = plan->incremental && !from_nothing;
  Ticking ticking = { backup, disk, only_dirty ? plan->expected : disk->size };
  PipelineStats stats;
  if (!pipeline_run (backup->pipeline, source, disk->chunk_size, only_dirty,
                     base != NULL ? &base->root : &nothing, tick, &ticking, &disk->root, &stats,
                     errp))
    return false;
  note_stats (&stats, base != NULL ? base->used : 0, disk);
  tell (&ticking, &stats, true);
  return true;
}

/* Where one node is damaged others may be, of which the same are made now. */
static void
become_full (Backup *backup, const PlanDisk *plan, const TmkError *why, ManifestDisk *disk)
{
  repo_writer_distrust_nodes (backup->writer);
  hv_warn (&backup->options.begin,
           "disk '%s': the point before is damaged, so it is read in full: %s", disk->name,
           tmk_error_message (why));
  if (!plan->incremental)
    return;
  backup->n_fallbacks++;
  g_free (disk->mode);
  disk->mode = g_strdup ("full");
  g_free (disk->reason);
  disk->reason = g_strdup_printf ("point %s is damaged", disk->base_point);
  g_clear_pointer (&disk->base_point, g_free);
  g_clear_pointer (&disk->base_disk, g_free);
  g_clear_pointer (&disk->base_checkpoint, g_free);
}

static bool
check_source (TmkBlockSource *source, const PlanDisk *plan, const ManifestDisk *disk,
              TmkError **errp)
{
  uint64_t size = tmk_block_source_size (source);
  if (size != disk->size) {
    error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0,
               "it was resized from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
               " bytes as the backup began",
               disk->size, size);
    error_hint (errp, "try again");
    return false;
  }
  if (plan->incremental && !tmk_block_source_has_dirty (source)) {
    error_set (errp, DOMAIN, TMK_ERR_INTERNAL, 0, "the export does not tell what has changed");
    return false;
  }
  return true;
}

static bool
copy_disk (Backup *backup, const PlanDisk *plan, ManifestDisk *disk, TmkError **errp)
{
  /* A connection that is lost is a job that is lost, or a QEMU: there is nothing to come back to.
   */
  TmkNbdOptions nbd
      = { .request_size = pipeline_request_size (disk->chunk_size), .no_reconnect = true };
  g_autoptr (TmkBlockSource) source = tmk_domain_open_disk (backup->domain, disk->name, &nbd, errp);
  if (source == NULL || !check_source (source, plan, disk, errp))
    return false;
  TmkError *err = NULL;
  bool ok = read_disk (backup, source, plan, false, disk, &err);
  if (!ok && tmk_error_code (err) == TMK_ERR_DAMAGED
      && (plan->incremental || plan->previous != NULL)) {
    become_full (backup, plan, err, disk);
    tmk_error_free (g_steal_pointer (&err));
    ok = read_disk (backup, source, plan, true, disk, &err);
  }
  if (!ok && backup->job_error != NULL && !backup_is_cancelled (backup)) {
    tmk_error_free (err); /* reading was cancelled for it */
    err = g_steal_pointer (&backup->job_error);
  }
  error_propagate (errp, err);
  return ok;
}

/* Whose fault it was. What cannot be opened names its disk already. */
static void
name_disk (const ManifestDisk *disk, TmkError **errp)
{
  if (errp == NULL || *errp == NULL || tmk_error_code (*errp) == TMK_ERR_CANCELLED)
    return;
  g_autofree char *named = g_strdup_printf ("disk '%s'", disk->name);
  if (!g_str_has_prefix (tmk_error_message (*errp), named))
    error_prefix (errp, "%s", named);
}

bool
backup_copy_disks (Backup *backup, TmkError **errp)
{
  size_t n = 0;
  for (size_t i = 0; i < backup->look->plan->n_disks; i++) {
    const PlanDisk *plan = &backup->look->plan->disks[i];
    if (!plan->selected)
      continue;
    if (!copy_disk (backup, plan, &backup->manifest->disks[n], errp)) {
      name_disk (&backup->manifest->disks[n], errp);
      return false;
    }
    n++;
  }
  return pipeline_finish (backup->pipeline, errp)
         && repo_writer_publish_index (backup->writer, errp);
}
