/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark disks: what can be backed up, and what could start from which checkpoint. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>

static json_t *
bitmap_json (const TmkBitmapInfo *bitmap)
{
  json_t *entry = json_object ();
  json_object_set_new (entry, "name", jsonx_string_or_null (bitmap->name));
  json_object_set_new (entry, "usable", json_boolean (bitmap->usable));
  json_object_set_new (entry, "why_not", jsonx_string_or_null (bitmap->why_not));
  json_object_set_new (entry, "dirty", json_integer ((json_int_t) bitmap->dirty_bytes));
  json_object_set_new (entry, "granularity", json_integer ((json_int_t) bitmap->granularity));
  json_object_set_new (entry, "persistent", json_boolean (bitmap->persistent));
  json_object_set_new (entry, "recording", json_boolean (bitmap->recording));
  json_object_set_new (entry, "inconsistent", json_boolean (bitmap->inconsistent));
  json_object_set_new (entry, "busy", json_boolean (bitmap->busy));
  json_object_set_new (entry, "images", json_integer (bitmap->images));
  return entry;
}

static json_t *
disk_json (const TmkDiskInfo *disk)
{
  json_t *checkpoints = json_array ();
  for (size_t i = 0; i < disk->n_bitmaps; i++)
    json_array_append_new (checkpoints, bitmap_json (disk->bitmaps[i]));
  json_t *entry = json_object ();
  json_object_set_new (entry, "name", jsonx_string_or_null (disk->name));
  json_object_set_new (entry, "device", jsonx_string_or_null (disk->qdev));
  json_object_set_new (entry, "node", jsonx_string_or_null (disk->node));
  json_object_set_new (entry, "format", jsonx_string_or_null (disk->format));
  json_object_set_new (entry, "source", jsonx_string_or_null (disk->source));
  json_object_set_new (entry, "size", json_integer ((json_int_t) disk->size));
  json_object_set_new (entry, "chain", json_integer (disk->chain));
  json_object_set_new (entry, "read_only", json_boolean (disk->read_only));
  json_object_set_new (entry, "removable", json_boolean (disk->removable));
  json_object_set_new (entry, "empty", json_boolean (disk->empty));
  json_object_set_new (entry, "iothread", json_boolean (disk->iothread));
  json_object_set_new (entry, "eligible", json_boolean (disk->eligible));
  json_object_set_new (entry, "why_not", jsonx_string_or_null (disk->why_not));
  json_object_set_new (entry, "checkpoints", checkpoints);
  return entry;
}

static void
print_disk (const TmkDiskInfo *disk)
{
  g_autofree char *size = cli_size (disk->size);
  printf ("%-12s %-8s %10s  %s\n", disk->name, disk->format != NULL ? disk->format : "-",
          disk->empty ? "-" : size, disk->source != NULL ? disk->source : "-");
  if (!disk->eligible)
    printf ("  not backed up: %s\n", disk->why_not);
  for (size_t i = 0; i < disk->n_bitmaps; i++) {
    const TmkBitmapInfo *bitmap = disk->bitmaps[i];
    g_autofree char *dirty = cli_size (bitmap->dirty_bytes);
    if (bitmap->usable)
      printf ("  checkpoint %-12s %s changed since%s\n", bitmap->name, dirty,
              bitmap->persistent ? "" : " (lasts until QEMU ends)");
    else
      printf ("  checkpoint %-12s not usable: %s\n", bitmap->name, bitmap->why_not);
  }
}

int
cmd_disks (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  int rc;
  if (!cli_parse (argc, argv, "disks", NULL,
                  "Shows the domain's disks by the names that definitions use, with their"
                  " checkpoints.",
                  NULL, &args, 0, 0, &rc))
    return rc;
  g_autoptr (TmkDomain) domain = cli_open (&args);
  if (domain == NULL)
    return args.qmp == NULL ? EXIT_USAGE : EXIT_FAILED;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkDiskList) list = tmk_domain_disks (domain, &err);
  if (list == NULL)
    return cli_fail (&args, err);
  json_t *disks = json_array ();
  for (size_t i = 0; i < list->n_disks; i++) {
    if (args.json)
      json_array_append_new (disks, disk_json (list->disks[i]));
    else
      print_disk (list->disks[i]);
  }
  if (args.json)
    cli_print_json (json_pack ("{s:o}", "disks", disks));
  else
    json_decref (disks);
  return EXIT_DONE;
}
