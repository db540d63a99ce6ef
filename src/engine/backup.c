/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/backup.c: <tidemark/backup.h>: one point, start to end.
 *
 * Reserve the domain → clean up behind a backup that was killed → look and plan → [begin a pull:
 * the instant] → read each disk → [end the pull: was every snapshot whole?] → publish the point →
 * remove the checkpoints that it supersedes.
 *
 * Between the instant and the publishing, what was there before is untouched: the point before, and
 * the checkpoint since then. Whatever fails takes the pull, and with it the new checkpoint, back.
 * Should this process be killed, the next backup finds either the job (its owner is OWNER) or,
 * behind its end, a checkpoint whose point does not exist; it removes both.
 */
#include "engine/backup_priv.h"
#include "engine/keep.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <unistd.h>

#define DOMAIN "engine"
#define OWNER "backup"

static void
backup_free (Backup *backup)
{
  pipeline_free (backup->pipeline);
  repo_writer_free (backup->writer);
  manifest_free (backup->manifest);
  tmk_domain_description_free (backup->description);
  g_ptr_array_unref (backup->left_out);
  look_free (backup->look);
  tmk_error_free (backup->job_error);
  if (backup->reserved >= 0)
    fsx_unlock (backup->reserved);
  g_free (backup);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Backup, backup_free)

/* ---- before ------------------------------------------------------------------------------- */

/* A job of ours, while nobody has the domain reserved, is one that a killed backup left. */
static bool
clean_up_behind (Backup *backup, TmkError **errp)
{
  TmkJobStatus *status = tmk_domain_job_status (backup->domain, errp);
  if (status == NULL)
    return false;
  bool left = g_strcmp0 (status->owner, OWNER) == 0
              && (status->state == TMK_JOB_RUNNING || status->state == TMK_JOB_INTERRUPTED);
  tmk_job_status_free (status);
  if (!left || tmk_domain_abort (backup->domain, errp))
    return true;
  error_prefix (errp, "cleaning up behind a backup that was interrupted");
  return false;
}

static void
describe_disk (Backup *backup, size_t i, ManifestDisk *disk)
{
  const Look *look = backup->look;
  const PlanDisk *plan = &look->plan->disks[i];
  disk->name = g_strdup (plan->disk->name);
  disk->size = plan->disk->size;
  disk->chunk_size = repo_config (backup->repo)->chunk_size;
  disk->mode = g_strdup (plan->incremental ? "incremental" : "full");
  disk->reason = g_strdup (plan->reason);
  if (plan->incremental) {
    disk->base_point = g_strdup (plan->base->id);
    disk->base_disk = g_strdup (plan->base_disk->name);
    disk->base_checkpoint = g_strdup (plan->checkpoint);
  }
  disk->format = g_strdup (plan->disk->format);
  disk->n_images = look->n_images[i];
  disk->images = g_new0 (ManifestImage, disk->n_images + 1);
  for (size_t j = 0; j < disk->n_images; j++) {
    disk->images[j] = look->images[i][j];
    disk->images[j].path = g_strdup (look->images[i][j].path);
  }
  disk->read = plan->expected;
}

/* What the plan says, as the point that it would become. */
static bool
describe (Backup *backup, TmkError **errp)
{
  const Look *look = backup->look;
  size_t n = 0;
  for (size_t i = 0; i < look->plan->n_disks; i++)
    n += look->plan->disks[i].selected;
  if (n == 0) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "domain '%s' has no disk to back up",
               look->domain);
    if (backup->options.exclude != NULL || backup->options.definition != NULL)
      error_hint (errp, "all were left out; 'tidemark disks' shows which there are");
    else
      error_hint (errp, "'tidemark disks' shows its disks and why each cannot be backed up");
    return false;
  }
  Manifest *manifest = backup->manifest = manifest_new (n);
  manifest->domain = g_strdup (look->domain);
  manifest->uuid = g_strdup (look->uuid);
  manifest->host = g_strdup (g_get_host_name ());
  manifest->tool = g_strdup ("tidemark " TIDEMARK_VERSION);
  manifest->domain_xml = g_strdup (backup->options.domain_xml);
  if (manifest->domain_xml == NULL && backup->description != NULL)
    manifest->domain_xml = g_strdup (backup->description->xml);
  n = 0;
  for (size_t i = 0; i < look->plan->n_disks; i++) {
    if (!look->plan->disks[i].selected)
      continue;
    describe_disk (backup, i, &manifest->disks[n++]);
    backup->n_fallbacks += look->plan->disks[i].fallback;
  }
  return true;
}

/* ---- publishing --------------------------------------------------------------------------- */

/* The pull has ended well, and the new checkpoint stands. Without its point it is of no use. */
static bool
publish (Backup *backup, TmkError **errp)
{
  Manifest *manifest = backup->manifest;
  RepoWriterStats stats;
  repo_writer_stats (backup->writer, &stats);
  manifest->metadata = stats.metadata;
  manifest->finished_us = g_get_real_time ();
  for (size_t i = 0, n = 0; i < backup->look->plan->n_disks; i++) {
    const PlanDisk *plan = &backup->look->plan->disks[i];
    if (!plan->selected)
      continue;
    manifest->disks[n++].checkpoint
        = backup_takes_checkpoint (plan) ? g_strdup (manifest->checkpoint) : NULL;
  }
  testpoint ("publish");
  if (repo_writer_commit (backup->writer, manifest, errp)) {
    testpoint ("published");
    return true;
  }
  TmkError *err = NULL;
  if (manifest->checkpoint != NULL
      && !tmk_domain_checkpoint_delete (backup->domain, manifest->checkpoint, false, &err))
    hv_warn (&backup->options.begin, "checkpoint '%s' cannot be removed: %s", manifest->checkpoint,
             tmk_error_message (err));
  tmk_error_free (err);
  return false;
}

static bool
run (Backup *backup, TmkError **errp)
{
  if (!backup_begin (backup, errp))
    return false;
  if (!keep_files (backup->description, backup->pipeline, repo_config (backup->repo)->chunk_size,
                   backup->manifest, backup->left_out, errp)
      || !backup_note_job (backup, errp) || !backup_copy_disks (backup, errp)
      || !tmk_domain_end (backup->domain, errp)) {
    backup_explain_end (backup, errp);
    backup_take_back (backup);
    return false;
  }
  if (!publish (backup, errp))
    return false;
  backup_remove_checkpoints (backup, false);
  return true;
}

/* ---- the public function ------------------------------------------------------------------- */

/* Asked all the time while a begin copies disks, which can take longer than a lease lasts. */
static bool
was_cancelled (void *data)
{
  Backup *backup = data;
  if (backup->writer != NULL)
    repo_writer_touch (backup->writer);
  return backup_is_cancelled (backup);
}

static Backup *
backup_new (TmkDomain *domain, TmkRepository *repository, const TmkBackupOptions *options)
{
  Backup *backup = g_new0 (Backup, 1);
  backup->domain = domain;
  backup->repository = repository;
  backup->repo = repository_repo (repository);
  backup->began = g_get_monotonic_time ();
  backup->reserved = -1;
  backup->left_out = g_ptr_array_new_with_free_func (g_free);
  if (options != NULL)
    backup->options = *options;
  backup->options.begin.owner = OWNER;
  backup->options.begin.cancelled = was_cancelled;
  backup->options.begin.cancelled_data = backup;
  return backup;
}

typedef struct {
  TmkBackupResult public_part;
  TmkPointList *points;
  char **skipped, **missed, **left_out;
} BackupResult;

void
tmk_backup_result_free (TmkBackupResult *result)
{
  if (result == NULL)
    return;
  BackupResult *own = (BackupResult *) result;
  tmk_point_list_free (own->points);
  g_strfreev (own->skipped);
  g_strfreev (own->missed);
  g_strfreev (own->left_out);
  g_free (own);
}

static char **
copy_texts (const GPtrArray *texts)
{
  char **copy = g_new0 (char *, texts->len + 1);
  for (guint i = 0; i < texts->len; i++)
    copy[i] = g_strdup (g_ptr_array_index (texts, i));
  return copy;
}

static TmkBackupResult *
to_result (const Backup *backup)
{
  const Manifest *manifest = backup->manifest;
  BackupResult *result = g_new0 (BackupResult, 1);
  TmkBackupResult *shown = &result->public_part;
  result->points = repository_describe (&manifest, 1);
  shown->point = result->points->points[0];
  shown->powered_off = backup->powered_off;
  shown->pause_us = backup->pause_us;
  shown->elapsed_us = (uint64_t) (g_get_monotonic_time () - backup->began);
  shown->n_fallbacks = backup->n_fallbacks;
  result->skipped = copy_texts (backup->look->plan->skipped);
  shown->skipped = (const char *const *) result->skipped;
  shown->n_skipped = backup->look->plan->skipped->len;
  result->missed = copy_texts (backup->look->plan->missed);
  shown->missed = (const char *const *) result->missed;
  shown->n_missed = backup->look->plan->missed->len;
  result->left_out = copy_texts (backup->left_out);
  shown->left_out = (const char *const *) result->left_out;
  shown->n_left_out = backup->left_out->len;
  return shown;
}

/* Names that nothing may have, before anything is done. */
static bool
check_names (const TmkBackupOptions *options, TmkError **errp)
{
  if (options->domain_name != NULL && *options->domain_name == '\0') {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "the name for the domain is empty");
    error_hint (errp, "leave --name out, and its own name is used");
    return false;
  }
  if (options->checkpoint == NULL)
    return true;
  TmkCheckpointDef *def = tmk_checkpoint_def_new (options->checkpoint, errp);
  tmk_checkpoint_def_free (def);
  return def != NULL;
}

static bool
prepare (Backup *backup, TmkError **errp)
{
  if (!check_names (&backup->options, errp))
    return false;
  if (!backup->options.dry_run) {
    backup->reserved = hv_reserve (backup->domain, errp);
    if (backup->reserved < 0 || !clean_up_behind (backup, errp))
      return false;
  }
  backup->look = look_new (backup->domain, backup->repo, &backup->options, errp);
  if (backup->look == NULL)
    return false;
  if (!backup->options.dry_run) {
    backup->description = tmk_domain_describe (backup->domain, errp);
    if (backup->description == NULL)
      return false;
  }
  if (!describe (backup, errp))
    return false;
  if (backup->options.planned != NULL) {
    const Manifest *manifest = backup->manifest;
    TmkPointList *plan = repository_describe (&manifest, 1);
    backup->options.planned (plan->points[0], backup->options.data);
    tmk_point_list_free (plan);
  }
  return true;
}

TmkBackupResult *
tmk_backup (TmkDomain *domain, TmkRepository *repository, const TmkBackupOptions *options,
            TmkError **errp)
{
  g_autoptr (Backup) backup = backup_new (domain, repository, options);
  if (!prepare (backup, errp))
    return NULL;
  if (backup->options.dry_run)
    return to_result (backup);
  point_id_new (backup->manifest->id);
  backup_remove_checkpoints (backup, true);
  backup->writer = repo_writer_new (backup->repo, errp);
  if (backup->writer == NULL)
    return NULL;
  backup->pipeline = pipeline_new (backup->writer, backup->repo, backup->options.threads,
                                   backup->options.bandwidth, errp);
  if (backup->pipeline == NULL || !run (backup, errp))
    return NULL;
  return to_result (backup);
}
