/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark disks: what can be backed up, what could start from which checkpoint, and what the next
 * backup into a repository would do.
 */
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

/* What a backup would do with the disk, or NULL. `plan` may be NULL. */
static const TmkPointDisk *
planned (const TmkBackupResult *plan, const char *name)
{
  for (size_t i = 0; plan != NULL && i < plan->point->n_disks; i++)
    if (g_str_equal (plan->point->disks[i]->name, name))
      return plan->point->disks[i];
  return NULL;
}

static json_t *
planned_json (const TmkPointDisk *disk)
{
  if (disk == NULL)
    return json_null ();
  json_t *entry = json_object ();
  json_object_set_new (entry, "mode", jsonx_string_or_null (disk->mode));
  json_object_set_new (entry, "reason", jsonx_string_or_null (disk->reason));
  json_object_set_new (entry, "read", json_integer ((json_int_t) disk->read));
  json_object_set_new (entry, "base_point", jsonx_string_or_null (disk->base_point));
  json_object_set_new (entry, "base_checkpoint", jsonx_string_or_null (disk->base_checkpoint));
  return entry;
}

static json_t *
disk_json (const TmkDiskInfo *disk, const TmkBackupResult *plan)
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
  json_object_set_new (entry, "no_checkpoint", jsonx_string_or_null (disk->no_checkpoint));
  json_object_set_new (entry, "checkpoints", checkpoints);
  if (plan != NULL)
    json_object_set_new (entry, "auto", planned_json (planned (plan, disk->name)));
  return entry;
}

static void
print_disk (const TmkDiskInfo *disk, const TmkBackupResult *plan)
{
  g_autofree char *size = cli_size (disk->size);
  printf ("%-12s %-8s %10s  %s\n", disk->name, disk->format != NULL ? disk->format : "-",
          disk->empty ? "-" : size, disk->source != NULL ? disk->source : "-");
  if (!disk->eligible)
    printf ("  not backed up: %s\n", disk->why_not);
  if (disk->no_checkpoint != NULL)
    printf ("  no new checkpoint: %s\n", disk->no_checkpoint);
  for (size_t i = 0; i < disk->n_bitmaps; i++) {
    const TmkBitmapInfo *bitmap = disk->bitmaps[i];
    g_autofree char *dirty = cli_size (bitmap->dirty_bytes);
    if (bitmap->usable)
      printf ("  checkpoint %-12s %s changed since%s\n", bitmap->name, dirty,
              bitmap->persistent ? "" : " (lasts until QEMU ends)");
    else
      printf ("  checkpoint %-12s not usable: %s\n", bitmap->name, bitmap->why_not);
  }
  const TmkPointDisk *next = planned (plan, disk->name);
  if (next == NULL)
    return;
  g_autofree char *bytes = cli_size (next->read);
  printf ("  next backup  %s, %s to read: %s\n", next->mode, bytes, next->reason);
}

/* Plans a backup; `*plan` stays NULL where no repository is named, or nothing could be backed up.
 */
static int
plan_backup (const CliArgs *args, TmkDomain *domain, const TmkDiskList *list, const char *name,
             TmkBackupResult **plan)
{
  g_autoptr (TmkError) err = NULL;
  TmkBackupOptions options = { .dry_run = true, .domain_name = name };
  bool any = false;
  for (size_t i = 0; i < list->n_disks; i++)
    any = any || list->disks[i]->eligible;
  if (args->repository == NULL || !any)
    return EXIT_DONE;
  g_autoptr (TmkRepository) repository = tmk_repository_open (args->repository, &err);
  if (repository == NULL && args->by_env) { /* nobody asked for it here: the disks can be shown */
    cli_warn (tmk_error_message (err), NULL);
    return EXIT_DONE;
  }
  if (repository == NULL)
    return cli_fail (args, err);
  *plan = tmk_backup (domain, repository, &options, &err);
  return *plan != NULL ? EXIT_DONE : cli_fail (args, err);
}

int
cmd_disks (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_autofree char *name = NULL;
  const GOptionEntry own[] = {
    { "name", 0, 0, G_OPTION_ARG_STRING, &name, "what the repository calls the domain", "NAME" },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse_for (CLI_DOMAIN | CLI_REPOSITORY, argc, argv, "disks", NULL,
                      "Shows the domain's disks by the names that definitions use, with their"
                      " checkpoints,\nand with -r what the next backup would do with each.",
                      own, &args, 0, 0, &rc))
    return rc;
  g_autoptr (TmkDomain) domain = cli_open (&args);
  if (domain == NULL)
    return cli_open_failed (&args);
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkDiskList) list = tmk_domain_disks (domain, &err);
  if (list == NULL)
    return cli_fail (&args, err);
  g_autoptr (TmkBackupResult) plan = NULL;
  rc = plan_backup (&args, domain, list, name, &plan);
  if (rc != EXIT_DONE)
    return rc;
  json_t *disks = json_array ();
  for (size_t i = 0; i < list->n_disks; i++) {
    if (args.json)
      json_array_append_new (disks, disk_json (list->disks[i], plan));
    else
      print_disk (list->disks[i], plan);
  }
  if (args.json)
    cli_print_json (json_pack ("{s:o}", "disks", disks));
  else
    json_decref (disks);
  return EXIT_DONE;
}
