/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark diff: which ranges of the disks differ between two points. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>

typedef struct {
  const char *disk; /* only this one, or NULL */
  json_t *disks;    /* with --json; else lines are printed as they come */
  json_t *extents;  /* of the last of `disks`; borrowed */
  char *name;       /* of that */
} Diff;

static void
append (Diff *diff, const char *disk, uint64_t offset, uint64_t length, bool zero)
{
  if (g_strcmp0 (diff->name, disk) != 0) {
    g_free (diff->name);
    diff->name = g_strdup (disk);
    diff->extents = json_array ();
    json_t *entry = json_object ();
    json_object_set_new (entry, "name", jsonx_string_or_null (disk));
    json_object_set_new (entry, "extents", diff->extents);
    json_array_append_new (diff->disks, entry);
  }
  json_array_append_new (diff->extents, json_pack ("{s:I, s:I, s:b}", "offset", (json_int_t) offset,
                                                   "length", (json_int_t) length, "zero", zero));
}

static bool
visit (const char *disk, uint64_t offset, uint64_t length, bool zero, void *data)
{
  Diff *diff = data;
  if (diff->disk != NULL && !g_str_equal (disk, diff->disk))
    return true;
  if (diff->disks != NULL)
    append (diff, disk, offset, length, zero);
  else
    printf ("%s %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %s\n", disk, offset, length,
            zero ? "zero" : "data");
  return !ferror (stdout);
}

/* Two points that name their disks otherwise than the user does. */
static int
check_disk (const CliArgs *args, TmkRepository *repository, const char *disk)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkPointList) list = tmk_repository_find (repository, args->rest[1], &err);
  if (list == NULL)
    return cli_fail (args, err);
  const TmkPoint *point = list->points[0];
  for (size_t i = 0; i < point->n_disks; i++)
    if (disk == NULL || g_str_equal (point->disks[i]->name, disk))
      return EXIT_DONE;
  if (disk == NULL)
    return EXIT_DONE;
  error_set (&err, "cli", TMK_ERR_NOT_FOUND, 0, "point %s has no disk '%s'", point->id, disk);
  error_hint (&err, "'tidemark show %s' shows its disks", point->id);
  return cli_fail (args, err);
}

int
cmd_diff (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_autofree char *disk = NULL;
  const GOptionEntry own[] = {
    { "disk", 0, 0, G_OPTION_ARG_STRING, &disk, "this disk alone", "DISK" },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse_for (
          CLI_REPOSITORY, argc, argv, "diff", "POINT POINT",
          "Prints what differs from one point to another: a line for each range, with the"
          " disk,\nthe offset and length in bytes, and what is there in the second:"
          " 'data' or 'zero'.",
          own, &args, 2, 2, &rc))
    return rc;
  g_autoptr (TmkRepository) repository = cli_open_repository (&args, &rc);
  if (repository == NULL)
    return rc;
  if (disk != NULL && (rc = check_disk (&args, repository, disk)) != EXIT_DONE)
    return rc;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) disks = args.json ? json_array () : NULL;
  Diff diff = { .disk = disk, .disks = disks };
  bool ok = tmk_repository_diff (repository, args.rest[0], args.rest[1], visit, &diff, &err);
  g_free (diff.name);
  if (!ok)
    return cli_fail (&args, err);
  if (args.json)
    cli_print_json (json_pack ("{s:O}", "disks", disks));
  return EXIT_DONE;
}
