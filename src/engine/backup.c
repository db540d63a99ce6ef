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
#include "engine/definition.h"
#include "engine/keep.h"
#include "engine/pipeline.h"
#include "blk/source.h"
#include "repo/repository.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <unistd.h>

#define DOMAIN "engine"
#define OWNER "backup"

typedef struct {
  TmkDomain *domain; /* borrowed, as are … */
  TmkRepository *repository;
  Repo *repo;
  TmkBackupOptions options; /* … what these point to */
  int reserved;             /* descriptor, or -1 */
  gint64 began;             /* monotonic */
  Look *look;
  Manifest *manifest;                /* of the selected disks; complete when it is published */
  TmkDomainDescription *description; /* unless it is a dry run */
  GPtrArray *left_out; /* of char *: what belongs to the domain and is not in the point */
  RepoWriter *writer;
  Pipeline *pipeline;
  uint64_t pause_us;
  size_t n_fallbacks;
  gint64 next_poll;    /* monotonic: when to look after the job */
  TmkError *job_error; /* why reading was stopped; or NULL */
} Backup;

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

static bool
is_cancelled (const Backup *backup)
{
  return backup->options.cancelled != NULL && backup->options.cancelled (backup->options.data);
}

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

/* ---- checkpoints -------------------------------------------------------------------------- */

/* Is there to be a new checkpoint on the disk? */
static bool
takes_checkpoint (const PlanDisk *plan)
{
  return plan->selected && plan->disk->no_checkpoint == NULL;
}

static bool
any_takes_checkpoint (const Backup *backup)
{
  for (size_t i = 0; i < backup->look->plan->n_disks; i++)
    if (takes_checkpoint (&backup->look->plan->disks[i]))
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
                            takes_checkpoint (plan) ? "bitmap" : "no");
  }
  g_string_append (xml, "</disks>\n</domaincheckpoint>\n");
  TmkCheckpointDef *def
      = tmk_checkpoint_def_parse (xml->str, xml->len, "the new checkpoint", TMK_XML_INTERNAL, errp);
  if (def == NULL)
    error_hint (errp, "choose another name with --checkpoint");
  return def;
}

/* Removes checkpoints of this repository that no backup will start from: those of points that were
 * never published (`orphans`), or those that this point supersedes. A failure is a warning: the
 * next backup tries again. */
static void
remove_checkpoints (Backup *backup, bool orphans)
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

/* From here on the guest's writes are kept apart. */
static bool
begin (Backup *backup, TmkError **errp)
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

/* What the point keeps of the job. */
static bool
note_job (Backup *backup, TmkError **errp)
{
  Manifest *manifest = backup->manifest;
  TmkJobStatus *status = tmk_domain_job_status (backup->domain, errp);
  if (status == NULL)
    return false;
  manifest->time_us = status->started_us;
  manifest->quiesced = status->quiesced;
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

/* Why the disks could be read no more, and what a user can do: somebody ended the job under us, or
 * QEMU, or the job itself has trouble, of which readers only notice that they fail. */
static void
explain_end (Backup *backup, TmkError **errp)
{
  TmkJobStatus *status = NULL;
  if (errp == NULL || is_cancelled (backup)
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

/* Everything as before begin. */
static void
take_back (Backup *backup)
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

/* ---- reading ------------------------------------------------------------------------------ */

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
  return !is_cancelled (ticking->backup) && job_goes_on (ticking->backup);
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

static void
become_full (Backup *backup, const PlanDisk *plan, const TmkError *why, ManifestDisk *disk)
{
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
  if (!ok && backup->job_error != NULL && !is_cancelled (backup)) {
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

static bool
copy_disks (Backup *backup, TmkError **errp)
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
        = takes_checkpoint (plan) ? g_strdup (manifest->checkpoint) : NULL;
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
  if (!begin (backup, errp))
    return false;
  if (!keep_files (backup->description, backup->pipeline, repo_config (backup->repo)->chunk_size,
                   backup->manifest, backup->left_out, errp)
      || !note_job (backup, errp) || !copy_disks (backup, errp)
      || !tmk_domain_end (backup->domain, errp)) {
    explain_end (backup, errp);
    take_back (backup);
    return false;
  }
  if (!publish (backup, errp))
    return false;
  remove_checkpoints (backup, false);
  return true;
}

/* ---- the public function ------------------------------------------------------------------- */

static bool
was_cancelled (void *data)
{
  return is_cancelled (data);
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
  char **skipped, **left_out;
} BackupResult;

void
tmk_backup_result_free (TmkBackupResult *result)
{
  if (result == NULL)
    return;
  BackupResult *own = (BackupResult *) result;
  tmk_point_list_free (own->points);
  g_strfreev (own->skipped);
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
  shown->pause_us = backup->pause_us;
  shown->elapsed_us = (uint64_t) (g_get_monotonic_time () - backup->began);
  shown->n_fallbacks = backup->n_fallbacks;
  result->skipped = copy_texts (backup->look->plan->skipped);
  shown->skipped = (const char *const *) result->skipped;
  shown->n_skipped = backup->look->plan->skipped->len;
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
  remove_checkpoints (backup, true);
  backup->writer = repo_writer_new (backup->repo, errp);
  if (backup->writer == NULL)
    return NULL;
  backup->pipeline = pipeline_new (backup->writer, backup->repo, backup->options.threads,
                                   backup->options.bandwidth, errp);
  if (backup->pipeline == NULL || !run (backup, errp))
    return NULL;
  return to_result (backup);
}
