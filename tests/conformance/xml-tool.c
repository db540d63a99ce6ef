/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xml-tool: the model from a script, many documents in one process.
 *
 *   xml-tool backup IN DOMAIN SUFFIX [internal]   parse, align, format
 *   xml-tool checkpoint IN [redefine]             parse, format
 *   xml-tool domains FILE…                        for each: "FILE<TAB>ok<TAB>TARGET…" or
 *                                                 "FILE<TAB>refused<TAB>WHY"
 */
#include "util/error.h"
#include "util/fsx.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <tidemark/backup_def.h>
#include <tidemark/checkpoint_def.h>
#include <tidemark/domain_def.h>

static int
fail (const TmkError *err)
{
  fprintf (stderr, "%s\n", tmk_error_message (err));
  return 1;
}

static int
backup (const char *in, const char *domain, const char *suffix, unsigned flags)
{
  size_t len, dom_len;
  g_autoptr (TmkError) err = NULL;
  g_autofree char *xml = fsx_read_file (in, 1 << 24, &len, NULL);
  g_autofree char *dom_xml = fsx_read_file (domain, 1 << 24, &dom_len, NULL);
  TmkDomainDef *dom = tmk_domain_def_parse (dom_xml, dom_len, domain, &err);
  TmkBackupDef *def = dom != NULL ? tmk_backup_def_parse (xml, len, in, flags, &err) : NULL;
  if (def == NULL || !tmk_backup_def_align (def, dom, suffix, &err))
    return fail (err);
  char *text = tmk_backup_def_format (def, flags);
  fputs (text, stdout);
  tmk_free (text);
  tmk_backup_def_free (def);
  tmk_domain_def_free (dom);
  return 0;
}

static int
checkpoint (const char *in, unsigned flags)
{
  size_t len;
  g_autoptr (TmkError) err = NULL;
  g_autofree char *xml = fsx_read_file (in, 1 << 24, &len, NULL);
  TmkCheckpointDef *def = tmk_checkpoint_def_parse (xml, len, in, flags, &err);
  if (def == NULL)
    return fail (err);
  char *text = tmk_checkpoint_def_format (def, 0);
  fputs (text, stdout);
  tmk_free (text);
  tmk_checkpoint_def_free (def);
  return 0;
}

static int
domains (int n, char **files)
{
  for (int i = 0; i < n; i++) {
    size_t len;
    g_autoptr (TmkError) err = NULL;
    g_autofree char *xml = fsx_read_file (files[i], 1 << 24, &len, &err);
    TmkDomainDef *def = xml != NULL ? tmk_domain_def_parse (xml, len, "", &err) : NULL;
    printf ("%s\t%s", files[i], def != NULL ? "ok" : "refused");
    if (def == NULL)
      printf ("\t%s", tmk_error_message (err));
    for (size_t j = 0; def != NULL && j < tmk_domain_def_n_disks (def); j++)
      printf ("\t%s", tmk_domain_def_disk_name (def, j));
    putchar ('\n');
    tmk_domain_def_free (def);
  }
  return 0;
}

int
main (int argc, char **argv)
{
  const char *verb = argc > 2 ? argv[1] : "";
  if (strcmp (verb, "backup") == 0 && argc >= 5)
    return backup (argv[2], argv[3], argv[4], argc > 5 ? TMK_XML_INTERNAL : TMK_XML_PUBLIC);
  if (strcmp (verb, "checkpoint") == 0)
    return checkpoint (argv[2], argc > 3 ? TMK_CHECKPOINT_REDEFINE : 0);
  if (strcmp (verb, "domains") == 0)
    return domains (argc - 2, argv + 2);
  fprintf (stderr, "usage: see the source\n");
  return 2;
}
