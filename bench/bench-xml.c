/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench-xml [DISKS [RUNS]]: milliseconds to read a domain and a backup of it, align and write.
 * Default: 1,000 disks, 20 runs. Time must grow with the disks, not with their square. */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <tidemark/backup_def.h>
#include <tidemark/checkpoint_def.h>

enum { DOMAIN, PARSE, ALIGN, FORMAT, CHECKPOINT, N_STEPS };
static const char *const step_names[]
    = { "parse domain", "parse (schema)", "align", "format", "checkpoint" };

static void
make_documents (int disks, GString *domain, GString *backup)
{
  g_string_assign (domain, "<domain><name>big</name><devices>\n");
  g_string_assign (backup, "<domainbackup><incremental>c1</incremental><disks>\n");
  for (int i = 0; i < disks; i++) {
    g_string_append_printf (domain,
                            "<disk type='file' device='disk'><driver type='qcow2'/>"
                            "<source file='/img/%d.qcow2'/><target dev='vd_%d'/></disk>\n",
                            i, i);
    if (i % 2 == 0) /* the others are filled in by alignment */
      g_string_append_printf (backup,
                              "<disk name='vd_%d' type='file'><driver type='qcow2'/>"
                              "<target file='/backup/%d'/></disk>\n",
                              i, i);
  }
  g_string_append (domain, "</devices></domain>");
  g_string_append (backup, "</disks></domainbackup>");
}

static void
must (bool done, const TmkError *err)
{
  if (done)
    return;
  fprintf (stderr, "%s\n", err != NULL ? tmk_error_message (err) : "failed");
  exit (1);
}

static void
run (const GString *domain, const GString *backup, gint64 *at)
{
  TmkError *err = NULL;
  at[DOMAIN] = g_get_monotonic_time ();
  TmkDomainDef *dom = tmk_domain_def_parse (domain->str, domain->len, "domain", &err);
  must (dom != NULL, err);
  at[PARSE] = g_get_monotonic_time ();
  TmkBackupDef *def = tmk_backup_def_parse (backup->str, backup->len, "backup", 0, &err);
  must (def != NULL, err);
  at[ALIGN] = g_get_monotonic_time ();
  must (tmk_backup_def_align (def, dom, "S", &err), err);
  at[FORMAT] = g_get_monotonic_time ();
  char *text = tmk_backup_def_format (def, 0);
  at[CHECKPOINT] = g_get_monotonic_time ();
  TmkCheckpointDef *checkpoint = tmk_checkpoint_def_new ("c2", &err);
  must (checkpoint != NULL && tmk_checkpoint_def_align (checkpoint, dom, &err), err);
  char *checkpoint_text = tmk_checkpoint_def_format (checkpoint, 0);
  at[N_STEPS] = g_get_monotonic_time ();
  tmk_free (text);
  tmk_free (checkpoint_text);
  tmk_checkpoint_def_free (checkpoint);
  tmk_backup_def_free (def);
  tmk_domain_def_free (dom);
}

int
main (int argc, char **argv)
{
  int disks = argc > 1 ? atoi (argv[1]) : 1000, runs = argc > 2 ? atoi (argv[2]) : 20;
  GString *domain = g_string_new (NULL), *backup = g_string_new (NULL);
  make_documents (disks, domain, backup);
  gint64 best[N_STEPS + 1], at[N_STEPS + 1];
  for (int step = 0; step <= N_STEPS; step++)
    best[step] = G_MAXINT64;
  for (int i = 0; i < runs; i++) {
    run (domain, backup, at);
    for (int step = 0; step < N_STEPS; step++)
      best[step] = MIN (best[step], at[step + 1] - at[step]);
    best[N_STEPS] = MIN (best[N_STEPS], at[N_STEPS] - at[0]);
  }
  printf ("%d disks, best of %d runs, ms:\n", disks, runs);
  for (int step = 0; step < N_STEPS; step++)
    printf ("  %-15s %7.2f\n", step_names[step], (double) best[step] / 1000);
  printf ("  %-15s %7.2f\n", "all", (double) best[N_STEPS] / 1000);
  g_string_free (domain, TRUE);
  g_string_free (backup, TRUE);
  return 0;
}
