/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark show: everything about one point. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>

static void
print_line (const char *what, const char *value)
{
  if (value != NULL)
    printf ("%-12s %s\n", what, value);
}

static void
print_size (const char *what, guint64 bytes)
{
  g_autofree char *size = cli_size (bytes);
  printf ("  %-10s %s\n", what, size);
}

static void
print_disk (const TmkPointDisk *disk)
{
  printf ("disk '%s': %s", disk->name, disk->mode);
  if (disk->reason != NULL)
    printf (": %s", disk->reason);
  putchar ('\n');
  if (disk->base_point != NULL)
    printf ("  %-10s point %s\n", "added to", disk->base_point);
  if (disk->base_checkpoint != NULL)
    printf ("  %-10s checkpoint %s\n", "since", disk->base_checkpoint);
  if (disk->source != NULL)
    printf ("  %-10s %s (%s)\n", "image", disk->source,
            disk->format != NULL ? disk->format : "format not known");
  if (disk->checkpoint != NULL)
    printf ("  %-10s %s\n", "checkpoint", disk->checkpoint);
  print_size ("size", disk->size);
  print_size ("used", disk->used);
  print_size ("read", disk->read);
  print_size ("changed", disk->changed);
  print_size ("new", disk->added);
  print_size ("stored", disk->stored);
  print_size ("chunks of", disk->chunk_size);
}

static void
print_point (const TmkPoint *point)
{
  g_autofree char *time = cli_local_time (point->time_us);
  g_autofree char *finished = cli_local_time (point->finished_us);
  g_autofree char *metadata = cli_size (point->metadata);
  print_line ("point", point->id);
  print_line ("domain", point->domain);
  print_line ("uuid", point->uuid);
  print_line ("time", time);
  print_line ("finished", point->finished_us != 0 ? finished : NULL);
  print_line ("host", point->host);
  print_line ("made by", point->tool);
  print_line ("checkpoint", point->checkpoint);
  print_line ("quiesced", point->quiesced ? "yes" : "no");
  print_line ("metadata", metadata);
  for (size_t i = 0; i < point->n_disks; i++)
    print_disk (point->disks[i]);
  for (size_t i = 0; i < point->n_files; i++) {
    const TmkPointFile *file = point->files[i];
    g_autofree char *size = cli_size (file->size);
    printf ("file '%s': %s, %s\n", file->name, file->role, size);
  }
}

static void
print_json (const TmkPoint *point)
{
  json_t *out = cli_point_json (point);
  json_object_set_new (out, "domain_xml", jsonx_string_or_null (point->domain_xml));
  json_object_set_new (out, "backup_xml", jsonx_string_or_null (point->backup_xml));
  json_object_set_new (out, "checkpoint_xml", jsonx_string_or_null (point->checkpoint_xml));
  cli_print_json (out);
}

static int
print_document (const CliArgs *args, const TmkPoint *point, const char *what, const char *document)
{
  if (document == NULL) {
    g_autoptr (TmkError) err = NULL;
    error_set (&err, "cli", TMK_ERR_NOT_FOUND, 0, "point %s was made without a %s document",
               point->id, what);
    if (g_str_equal (what, "<domain>"))
      error_hint (&err, "'tidemark backup --domain-xml FILE' keeps it with each point");
    return cli_fail (args, err);
  }
  fputs (document, stdout);
  if (!g_str_has_suffix (document, "\n"))
    putchar ('\n');
  return EXIT_DONE;
}

int
cmd_show (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  gboolean domain = FALSE, backup = FALSE, checkpoint = FALSE;
  const GOptionEntry own[] = {
    { "xml", 0, 0, G_OPTION_ARG_NONE, &domain, "print the <domain> document alone", NULL },
    { "backup-xml", 0, 0, G_OPTION_ARG_NONE, &backup, "print the <domainbackup> document alone",
      NULL },
    { "checkpoint-xml", 0, 0, G_OPTION_ARG_NONE, &checkpoint,
      "print the <domaincheckpoint> document alone", NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse_for (CLI_REPOSITORY, argc, argv, "show", "POINT",
                      "Shows everything about a point.", own, &args, 1, 1, &rc))
    return rc;
  if (domain + backup + checkpoint > 1)
    return cli_usage ("show", "one document at a time");
  g_autoptr (TmkRepository) repository = cli_open_repository (&args, &rc);
  if (repository == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkPointList) list = tmk_repository_find (repository, args.rest[0], &err);
  if (list == NULL)
    return cli_fail (&args, err);
  cli_warn_damaged (list);
  const TmkPoint *point = list->points[0];
  if (domain)
    return print_document (&args, point, "<domain>", point->domain_xml);
  if (backup)
    return print_document (&args, point, "<domainbackup>", point->backup_xml);
  if (checkpoint)
    return print_document (&args, point, "<domaincheckpoint>", point->checkpoint_xml);
  if (args.json)
    print_json (point);
  else
    print_point (point);
  return EXIT_DONE;
}
