/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark wait: looks after the job until it has ended; its result is the exit code.
 *
 * With --guard it is what begin leaves behind: silent, and not to be put off by a monitor that is
 * busy for a while. Any number of them may run at once: each look is made under the domain's lock.
 */
#include "cli/cli.h"
#include "cli/progress.h"

#include <stdio.h>

#define LOOK_FIRST_US 10000
#define LOOK_EVERY_US 150000
#define PATIENCE_US (15 * G_USEC_PER_SEC)
#define GUARD_PATIENCE_US (600 * G_USEC_PER_SEC)

static void
show_progress (Progress *progress, const TmkJobStatus *status)
{
  for (size_t i = 0; i < status->n_disks; i++) {
    const TmkJobDisk *disk = status->disks[i];
    ProgressPart part = {
      .name = disk->name,
      .done = disk->done,
      .total = disk->total,
      .finished = g_strcmp0 (disk->state, "complete") == 0,
    };
    progress_update (progress, &part);
  }
}

/* A pull lasts until somebody ends it, which whoever waits for it may not know. */
static void
explain_pull (Progress *progress, const TmkJobStatus *status)
{
  if (status->pull)
    progress_say (progress,
                  "a pull of %zu disk%s is running, and can be read; 'tidemark end' finishes it",
                  status->n_disks, status->n_disks == 1 ? "" : "s");
}

/* Errors that may pass: the monitor is held by somebody, the lock is, QEMU is about to exit. */
static bool
may_pass (const TmkError *err)
{
  TmkErrorCode code = tmk_error_code (err);
  return code == TMK_ERR_BUSY || code == TMK_ERR_TIMEOUT || code == TMK_ERR_GONE;
}

static int
wait_for_job (const CliArgs *args, TmkDomain *domain, bool guard)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkJobStatus) status = NULL;
  g_autoptr (Progress) progress = progress_new (args->quiet || guard);
  gint64 patience = guard ? GUARD_PATIENCE_US : PATIENCE_US;
  gint64 well_at = g_get_monotonic_time ();
  bool interrupted = false, shown = false;
  /* A short job is noticed soon, a long one is not looked at more than needed. */
  for (gulong pause_us = LOOK_FIRST_US;; pause_us = MIN (pause_us * 5 / 4, LOOK_EVERY_US)) {
    g_clear_pointer (&err, tmk_error_free);
    g_clear_pointer (&status, tmk_job_status_free);
    status = tmk_domain_poll_job (domain, &err);
    gint64 now = g_get_monotonic_time ();
    if (status != NULL)
      well_at = now;
    else if (!may_pass (err) || now - well_at >= patience)
      break;
    bool running = status != NULL && status->state == TMK_JOB_RUNNING;
    if (running && !shown && !args->quiet && !guard)
      explain_pull (progress, status);
    if (running || (status != NULL && shown))
      show_progress (progress, status);
    shown = shown || running;
    if (status != NULL && !running)
      break;
    interrupted = cli_interrupted ();
    if (interrupted)
      break;
    g_usleep (pause_us);
  }
  g_clear_pointer (&progress, progress_free); /* before anything is said of the end */
  if (interrupted) {
    fprintf (stderr, "tidemark: no longer waiting; the job goes on\n");
    return EXIT_INTERRUPTED;
  }
  if (status != NULL && status->state != TMK_JOB_NONE)
    return cli_report_job (args, status);
  if (status != NULL) {
    error_set (&err, "cli", TMK_ERR_NOT_FOUND, 0, "there is no backup job");
    error_hint (&err, "start one with 'tidemark begin'");
  }
  return cli_fail (args, err);
}

int
cmd_wait (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  gboolean guard = FALSE;
  const GOptionEntry own[] = {
    { "guard", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &guard, NULL, NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse (
          argc, argv, "wait", NULL,
          "Waits until the backup job has ended, showing its progress. The exit code is the"
          " job's result;\nfor a job that has ended already, too. A pull is only watched until"
          " it is ended. Ctrl-C\nstops waiting, not the job.",
          own, &args, 0, 0, &rc))
    return rc;
  g_autoptr (TmkDomain) domain = cli_open (&args);
  if (domain == NULL)
    return cli_open_failed (&args);
  if (!guard)
    cli_catch_signals ();
  return wait_for_job (&args, domain, guard);
}
