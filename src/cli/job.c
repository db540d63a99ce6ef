/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark status, dumpxml, end, abort: looking at and ending the job that runs. */
#include "cli/cli.h"

#include <stdio.h>

/* The usual start of these verbs; NULL where the verb is to return `*rc`. */
static TmkDomain *
start (int argc, char **argv, const char *summary, const GOptionEntry *own, CliArgs *args, int *rc)
{
  if (!cli_parse (argc, argv, argv[0], NULL, summary, own, args, 0, 0, rc))
    return NULL;
  TmkDomain *domain = cli_open (args);
  *rc = cli_open_failed (args);
  return domain;
}

/* A scratch that has taken so much of what it can is warned of. */
#define SCRATCH_WARN_PERCENT 80

static void
print_export (const TmkJobDisk *disk, const char *mode, bool running)
{
  g_autofree char *used = cli_size (disk->done);
  g_autofree char *room = cli_size (disk->room);
  g_autofree char *dirty = cli_size (disk->dirty);
  printf ("  %-12s %s, %s, export '%s'", disk->name, mode, disk->state, disk->export_name);
  if (disk->export_bitmap != NULL)
    printf (" with map '%s'", disk->export_bitmap);
  printf (", %s changed since; scratch '%s' %s", dirty, disk->target, used);
  if (running)
    printf (", room for %s", room);
  putchar ('\n');
  double full = (double) disk->done / ((double) disk->done + (double) disk->room + 1);
  if (running && disk->total > disk->done + disk->room && full * 100 >= SCRATCH_WARN_PERCENT)
    printf ("  %-12s ! the scratch may run full, which breaks the job\n", "");
}

static void
print_disk (const TmkJobDisk *disk, bool running)
{
  g_autofree char *done = cli_size (disk->done);
  g_autofree char *total = cli_size (disk->total);
  g_autofree char *mode = disk->incremental != NULL
                              ? g_strdup_printf ("incremental since '%s'", disk->incremental)
                              : g_strdup ("full");
  if (disk->export_name != NULL)
    print_export (disk, mode, running);
  else
    printf ("  %-12s %s, %s, %s of %s → %s\n", disk->name, mode, disk->state, done, total,
            disk->target);
  if (disk->error != NULL)
    printf ("  %-12s %s\n", "", disk->error);
}

/* Does the job run on, though nothing good will come of it? */
static bool
in_trouble (const TmkJobStatus *status)
{
  return status->state == TMK_JOB_RUNNING && status->error != NULL;
}

static int
report_trouble (const TmkJobStatus *status)
{
  if (!in_trouble (status))
    return EXIT_DONE;
  fprintf (stderr, "tidemark: error: %s\n", status->error);
  if (status->hint != NULL)
    fprintf (stderr, "hint: %s\n", status->hint);
  return EXIT_FAILED;
}

int
cmd_status (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  int rc;
  g_autoptr (TmkDomain) domain
      = start (argc, argv,
               "Shows the backup job: its state, bytes done and total a disk, speed; of a pull"
               " exports,\nclients, scratch and the room left for it. Only looks.",
               NULL, &args, &rc);
  if (domain == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkJobStatus) status = tmk_domain_job_status (domain, &err);
  if (status == NULL)
    return cli_fail (&args, err);
  if (args.json) {
    cli_print_json (cli_job_json (status));
    return report_trouble (status);
  }
  if (status->state == TMK_JOB_NONE) {
    puts ("no backup job");
    return EXIT_DONE;
  }
  g_autofree char *time = cli_time (status->started_us);
  g_autofree char *speed = cli_size (status->speed);
  printf ("%s: %s job %s of %s", tmk_job_state_name (status->state), status->pull ? "pull" : "push",
          status->id, time);
  if (status->checkpoint != NULL)
    printf (", checkpoint '%s'", status->checkpoint);
  if (status->state == TMK_JOB_RUNNING && !status->pull)
    printf (", %s/s", speed);
  if (status->state == TMK_JOB_RUNNING && status->clients >= 0)
    printf (", %d client%s", status->clients, status->clients == 1 ? "" : "s");
  if (status->pause_us > 0)
    printf (", disks held still for %.1f ms", (double) status->pause_us / 1000);
  if (status->quiesced)
    printf (", file systems frozen for %.1f ms", (double) status->frozen_us / 1000);
  putchar ('\n');
  for (size_t i = 0; i < status->n_disks; i++)
    print_disk (status->disks[i], status->state == TMK_JOB_RUNNING);
  if (status->error != NULL && !in_trouble (status))
    printf ("  %s\n", status->error);
  if (status->state == TMK_JOB_INTERRUPTED)
    puts ("  'tidemark abort' cleans up behind it");
  return report_trouble (status);
}

int
cmd_dumpxml (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  gboolean internal = FALSE;
  const GOptionEntry own[] = {
    { "internal", 0, 0, G_OPTION_ARG_NONE, &internal, "in the form in which it is kept", NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  g_autoptr (TmkDomain) domain
      = start (argc, argv, "Prints the aligned definition of the running job, or of the last one.",
               own, &args, &rc);
  if (domain == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  char *xml = tmk_domain_job_xml (domain, internal ? TMK_XML_INTERNAL : TMK_XML_PUBLIC, &err);
  if (xml == NULL)
    return cli_fail (&args, err);
  fputs (xml, stdout);
  tmk_free (xml);
  return EXIT_DONE;
}

int
cmd_abort (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  int rc;
  g_autoptr (TmkDomain) domain
      = start (argc, argv,
               "Cancels the backup job, or cleans up behind one that was cut off. What"
               " it made is removed,\nthe new checkpoint too; what was there before is"
               " untouched.",
               NULL, &args, &rc);
  if (domain == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  if (!tmk_domain_abort (domain, &err))
    return cli_fail (&args, err);
  if (args.json)
    cli_print_json (json_pack ("{s:b}", "aborted", 1));
  return EXIT_DONE;
}

int
cmd_end (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  int rc;
  g_autoptr (TmkDomain) domain
      = start (argc, argv,
               "Finishes a pull job: exports and scratch images go, the checkpoint stays. What was"
               " read is good\nonly if this succeeds. A push job ends by itself.",
               NULL, &args, &rc);
  if (domain == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  if (!tmk_domain_end (domain, &err))
    return cli_fail (&args, err);
  if (args.json)
    cli_print_json (json_pack ("{s:b}", "ended", 1));
  return EXIT_DONE;
}
