/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark wait: looks after the job until it has ended; its result is the exit code.
 *
 * With --guard it is what begin leaves behind: silent, and not to be put off by a monitor that is
 * busy for a while. Any number of them may run at once: each look is made under the domain's lock.
 */
#include "cli/cli.h"

#include <stdio.h>
#include <unistd.h>

#define LOOK_FIRST_US 10000
#define LOOK_EVERY_US 150000
#define SAY_EVERY_US (5 * G_USEC_PER_SEC)
#define PATIENCE_US (15 * G_USEC_PER_SEC)
#define GUARD_PATIENCE_US (600 * G_USEC_PER_SEC)
#define BAR 20

typedef struct {
  bool tty;
  unsigned lines; /* drawn last time */
  gint64 said_at;
} Progress;

static void
draw_disk (const TmkJobDisk *disk)
{
  char bar[BAR + 1];
  double part = disk->total > 0 ? (double) disk->done / (double) disk->total : 0;
  for (int i = 0; i < BAR; i++)
    bar[i] = i < (int) (part * BAR) ? '#' : '.';
  bar[BAR] = '\0';
  g_autofree char *done = cli_size (disk->done);
  g_autofree char *total = cli_size (disk->total);
  fprintf (stderr, "\033[K%-10s [%s] %3d%%  %s of %s\n", disk->name, bar, (int) (part * 100), done,
           total);
}

static void
show_progress (Progress *progress, const TmkJobStatus *status)
{
  gint64 now = g_get_monotonic_time ();
  g_autofree char *speed = cli_size (status->speed);
  guint64 left = status->total > status->done ? status->total - status->done : 0;
  if (progress->tty) {
    if (progress->lines > 0)
      fprintf (stderr, "\033[%uA", progress->lines);
    for (size_t i = 0; i < status->n_disks; i++)
      draw_disk (status->disks[i]);
    fprintf (stderr, "\033[K%s/s", speed);
    if (status->speed > 0)
      fprintf (stderr, ", about %" G_GUINT64_FORMAT " s left", left / status->speed);
    fputc ('\n', stderr);
    progress->lines = (unsigned) status->n_disks + 1;
  } else if (now - progress->said_at >= SAY_EVERY_US) {
    g_autofree char *done = cli_size (status->done);
    g_autofree char *total = cli_size (status->total);
    fprintf (stderr, "tidemark: %s of %s, %s/s\n", done, total, speed);
    progress->said_at = now;
  }
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
  Progress progress = { .tty = isatty (STDERR_FILENO), .said_at = g_get_monotonic_time () };
  gint64 well_at = g_get_monotonic_time ();
  /* A short job is noticed soon, a long one is not looked at more than needed. */
  for (gulong pause_us = LOOK_FIRST_US;; pause_us = MIN (pause_us * 5 / 4, LOOK_EVERY_US)) {
    g_autoptr (TmkError) err = NULL;
    g_autoptr (TmkJobStatus) status = tmk_domain_poll_job (domain, &err);
    gint64 now = g_get_monotonic_time ();
    gint64 patience = guard ? GUARD_PATIENCE_US : PATIENCE_US;
    if (status == NULL && !(may_pass (err) && now - well_at < patience))
      return cli_fail (args, err);
    if (status != NULL) {
      well_at = now;
      if (status->state == TMK_JOB_NONE) {
        error_set (&err, "cli", TMK_ERR_NOT_FOUND, 0, "there is no backup job");
        error_hint (&err, "start one with 'tidemark begin'");
        return cli_fail (args, err);
      }
      if (status->state != TMK_JOB_RUNNING) {
        if (progress.lines > 0)
          show_progress (&progress, status);
        return cli_report_job (args, status);
      }
      if (!args->quiet && !guard)
        show_progress (&progress, status);
    }
    if (cli_interrupted ()) {
      fprintf (stderr, "tidemark: no longer waiting; the job goes on\n");
      return EXIT_INTERRUPTED;
    }
    g_usleep (pause_us);
  }
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
    return args.qmp == NULL ? EXIT_USAGE : EXIT_FAILED;
  if (!guard)
    cli_catch_signals ();
  return wait_for_job (&args, domain, guard);
}
