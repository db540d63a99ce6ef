/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/check.c: <tidemark/check.h>: in the order in which a backup would stumble. */
#include "engine/check.h"

#include "qmp/schema.h"
#include "repo/repository.h"
#include "repo/writer.h"

#include <stdio.h>
#include <sys/stat.h>

#define DOMAIN "engine"

/* ---- telling ------------------------------------------------------------------------------ */

const char *
tmk_check_level_name (TmkCheckLevel level)
{
  return level == TMK_CHECK_OK ? "ok" : level == TMK_CHECK_WARNING ? "warning" : "problem";
}

static void
report (Check *self, const TmkCheck *check)
{
  unsigned *count = check->level == TMK_CHECK_OK        ? &self->result.good
                    : check->level == TMK_CHECK_WARNING ? &self->result.warnings
                                                        : &self->result.problems;
  ++*count;
  if (self->options->report != NULL)
    self->options->report (check, self->options->data);
}

void
check_say (Check *self, TmkCheckLevel level, const char *what, const char *disk, const char *hint,
           const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *message = g_strdup_vprintf (format, ap);
  va_end (ap);
  report (self, &(TmkCheck){ level, what, disk, message, hint });
}

void
check_say_error (Check *self, TmkCheckLevel level, const char *what, const char *disk,
                 const TmkError *err)
{
  check_say (self, level, what, disk, tmk_error_hint (err), "%s", tmk_error_message (err));
}

char *
check_size (uint64_t bytes)
{
  GString *text = g_string_new (NULL);
  g_autofree char *size = g_format_size_full (bytes, G_FORMAT_SIZE_IEC_UNITS);
  g_string_append (text, size);
  g_string_replace (text, "\u00a0", " ", 0);
  return g_string_free (text, FALSE);
}

/* ---- the domain --------------------------------------------------------------------------- */

static char *
version_text (unsigned version)
{
  return g_strdup_printf ("%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
}

static void
say_domain (Check *self)
{
  const TmkDomainDef *def = tmk_domain_def (self->domain);
  const char *name = tmk_domain_def_name (def);
  g_autofree char *version = version_text (self->facts.version);
  if (name == NULL)
    name = tmk_domain_def_uuid (def);
  if (!self->facts.running)
    check_say (self, TMK_CHECK_OK, "domain", NULL, NULL, "'%s' can be reached, and is shut off",
               name != NULL ? name : "it");
  else
    check_say (self, TMK_CHECK_OK, "domain", NULL, NULL, "'%s' can be reached, and runs%s%s",
               name != NULL ? name : "", self->facts.version != 0 ? " on QEMU " : "",
               self->facts.version != 0 ? version : "");
}

/* False: there is no more to look at. */
static bool
check_domain (Check *self)
{
  g_autoptr (TmkError) err = NULL;
  if (self->domain == NULL) {
    if (self->options->domain_error != NULL)
      check_say_error (self, TMK_CHECK_PROBLEM, "domain", NULL, self->options->domain_error);
    return false;
  }
  self->disks = tmk_domain_disks (self->domain, &err);
  if (self->disks == NULL || !self->domain->driver->inspect (self->domain, &self->facts, &err)) {
    check_say_error (self, TMK_CHECK_PROBLEM, "domain", NULL, err);
    return false;
  }
  self->inspected = true;
  say_domain (self);
  return true;
}

static void
check_job (Check *self)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkJobStatus) status = tmk_domain_job_status (self->domain, &err);
  if (status == NULL) {
    check_say_error (self, TMK_CHECK_PROBLEM, "domain", NULL, err);
    self->job_runs = true;
  } else if (status->state == TMK_JOB_RUNNING) {
    check_say (self, TMK_CHECK_PROBLEM, "domain", NULL,
               "wait for its end; see 'tidemark status', and 'tidemark abort' for one that is"
               " not wanted",
               "a job runs, and a domain has one at a time");
    self->job_runs = true;
  } else if (status->state == TMK_JOB_INTERRUPTED) {
    check_say (self, TMK_CHECK_WARNING, "domain", NULL, "'tidemark abort' does so at once",
               "a job was cut off; the next one cleans up behind it");
    self->job_runs = true;
  }
}

/* ---- the repository ------------------------------------------------------------------------ */

/* A writer's lease is published and removed again: nothing less tells that it can be written to. */
static bool
check_writing (Check *self)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (RepoWriter) writer = repo_writer_new (repository_repo (self->repository), &err);
  if (writer == NULL)
    check_say_error (self, TMK_CHECK_PROBLEM, "repository", NULL, err);
  return writer != NULL;
}

static void
check_repository (Check *self)
{
  if (self->repository == NULL) {
    if (self->options->repository_error != NULL)
      check_say_error (self, TMK_CHECK_PROBLEM, "repository", NULL,
                       self->options->repository_error);
    return;
  }
  if (check_writing (self))
    check_say (self, TMK_CHECK_OK, "repository", NULL, NULL, "'%s' is there, and can be written to",
               tmk_repository_location (self->repository));
}

/* ---- disks --------------------------------------------------------------------------------- */

uint64_t
check_used (const TmkDiskInfo *disk)
{
  uint64_t used = 0;
  for (size_t i = 0; i < disk->n_images; i++) {
    struct stat st;
    if (disk->images[i] == NULL || stat (disk->images[i], &st) != 0 || !S_ISREG (st.st_mode))
      return disk->size;
    used += (uint64_t) st.st_blocks * 512;
  }
  return disk->n_images > 0 ? MIN (used, disk->size) : disk->size;
}

bool
check_is_staged (const Check *self, const TmkDiskInfo *disk)
{
  return self->facts.running && disk->iothread
         && qmp_has_quirk (self->facts.version, QUIRK_NBD_IOTHREAD_ABORT);
}

static void
check_bitmaps (Check *self, const TmkDiskInfo *disk)
{
  for (size_t i = 0; i < disk->n_bitmaps; i++) {
    const TmkBitmapInfo *bitmap = disk->bitmaps[i];
    if (bitmap->usable || bitmap->busy)
      continue;
    g_autofree char *hint
        = g_strdup_printf ("'tidemark checkpoint delete %s' removes it", bitmap->name);
    check_say (self, TMK_CHECK_WARNING, "checkpoint", disk->name, hint,
               "disk '%s': checkpoint '%s' cannot be used: %s", disk->name, bitmap->name,
               bitmap->why_not);
  }
}

static void
say_plan (Check *self, const PlanDisk *plan)
{
  const TmkDiskInfo *disk = plan->disk;
  g_autofree char *bytes = check_size (plan->expected);
  if (plan->incremental)
    check_say (self, TMK_CHECK_OK, "disk", disk->name, NULL,
               "disk '%s': incremental, %s to read: %s", disk->name, bytes, plan->reason);
  else
    check_say (self, plan->fallback ? TMK_CHECK_WARNING : TMK_CHECK_OK, "disk", disk->name,
               plan->fallback ? "nothing need be done: the backup after it is incremental again"
                              : NULL,
               "disk '%s': full: %s", disk->name, plan->reason);
  if (disk->no_checkpoint != NULL && !self->backup.no_checkpoint)
    check_say (self, TMK_CHECK_WARNING, "disk", disk->name,
               "it is read in full each time; a qcow2 image can keep one",
               "disk '%s': no checkpoint can be made: %s", disk->name, disk->no_checkpoint);
  if (check_is_staged (self, disk))
    check_say (self, TMK_CHECK_WARNING, "qemu", disk->name,
               "QEMU 10.0 need not do that, nor does a disk without an iothread",
               "disk '%s' is in an iothread: this QEMU copies what is to be read to the scratch"
               " image first",
               disk->name);
}

static void
check_disks (Check *self)
{
  size_t n = 0;
  for (size_t i = 0; i < self->disks->n_disks; i++) {
    const TmkDiskInfo *disk = self->disks->disks[i];
    n += disk->eligible;
    if (!disk->eligible && !disk->aside)
      check_say (self, TMK_CHECK_WARNING, "disk", disk->name,
                 "'--exclude' says that it need not be", "disk '%s' cannot be backed up: %s",
                 disk->name, disk->why_not);
    check_bitmaps (self, disk);
  }
  if (n == 0)
    check_say (self, TMK_CHECK_PROBLEM, "disk", NULL,
               "'tidemark disks' shows its disks and why each cannot be backed up",
               "the domain has no disk to back up");
}

static void
check_plan (Check *self)
{
  g_autoptr (TmkError) err = NULL;
  if (self->repository == NULL)
    return;
  self->look = look_new (self->domain, repository_repo (self->repository), &self->backup, &err);
  if (self->look == NULL) {
    check_say_error (self, TMK_CHECK_PROBLEM, "disk", NULL, err);
    return;
  }
  guint damaged = self->look->points->damaged->len;
  if (damaged > 0)
    check_say (self, TMK_CHECK_WARNING, "repository", NULL,
               "'tidemark verify' tells which, and why", "%u of its points cannot be read",
               damaged);
  for (size_t i = 0; i < self->look->plan->n_disks; i++)
    if (self->look->plan->disks[i].selected)
      say_plan (self, &self->look->plan->disks[i]);
}

/* ---- all of it ----------------------------------------------------------------------------- */

static void
check_clear (Check *self)
{
  tmk_disk_list_free (self->disks);
  look_free (self->look);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Check, check_clear)

static bool
is_cancelled (const Check *self)
{
  return self->options->cancelled != NULL && self->options->cancelled (self->options->data);
}

static void
run (Check *self)
{
  static void (*const of_domain[]) (Check *)
      = { check_job,  check_qemu,  check_confinement, check_agent, check_disks,
          check_plan, check_space, check_scratch,     check_trial };
  check_state (self);
  check_repository (self);
  if (!check_domain (self))
    return;
  for (size_t i = 0; i < G_N_ELEMENTS (of_domain) && !is_cancelled (self); i++)
    of_domain[i](self);
}

bool
tmk_check (TmkDomain *domain, TmkRepository *repository, const TmkCheckOptions *options,
           TmkCheckResult *result, TmkError **errp)
{
  g_auto (Check) self = { .domain = domain, .repository = repository, .options = options };
  if (options->backup != NULL)
    self.backup = *options->backup;
  self.backup.dry_run = true;
  run (&self);
  if (is_cancelled (&self)) {
    error_set (errp, DOMAIN, TMK_ERR_CANCELLED, 0, "cancelled");
    return false;
  }
  *result = self.result;
  return true;
}
