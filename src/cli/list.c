/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark list: the points of a repository. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>

/* "vda full, vdb incremental" */
static char *
modes_of (const TmkPoint *point)
{
  GString *modes = g_string_new (NULL);
  for (size_t i = 0; i < point->n_disks; i++)
    g_string_append_printf (modes, "%s%s %s", i > 0 ? ", " : "", point->disks[i]->name,
                            point->disks[i]->mode);
  return g_string_free (modes, FALSE);
}

static void
print_points (const TmkPointList *list)
{
  int domain_width = 6;
  for (size_t i = 0; i < list->n_points; i++)
    domain_width = MAX (domain_width, (int) g_utf8_strlen (list->points[i]->domain, -1));
  if (list->n_points > 0)
    printf ("%-16s  %-25s  %-*s  %10s  %10s  %s\n", "POINT", "TIME", domain_width, "DOMAIN", "SIZE",
            "NEW", "DISKS");
  for (size_t i = 0; i < list->n_points; i++) {
    const TmkPoint *point = list->points[i];
    guint64 size = 0, added = 0;
    for (size_t j = 0; j < point->n_disks; j++) {
      size += point->disks[j]->size;
      added += point->disks[j]->added;
    }
    g_autofree char *time = cli_local_time (point->time_us);
    g_autofree char *modes = modes_of (point);
    g_autofree char *sizes = cli_size (size);
    g_autofree char *news = cli_size (added);
    printf ("%-16s  %-25s  %-*s  %10s  %10s  %s\n", point->id, time, domain_width, point->domain,
            sizes, news, modes);
  }
}

static void
print_points_json (const TmkPointList *list)
{
  json_t *points = json_array (), *damaged = json_array ();
  for (size_t i = 0; i < list->n_points; i++)
    json_array_append_new (points, cli_point_json (list->points[i]));
  for (size_t i = 0; i < list->n_damaged; i++)
    json_array_append_new (damaged, jsonx_string_or_null (list->damaged[i]));
  cli_print_json (json_pack ("{s:o, s:o}", "points", points, "damaged", damaged));
}

int
cmd_list (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  int rc;
  if (!cli_parse_for (CLI_REPOSITORY, argc, argv, "list", "[DOMAIN]",
                      "Lists the points of a repository, or those of a domain, oldest first.", NULL,
                      &args, 0, 1, &rc))
    return rc;
  g_autoptr (TmkRepository) repository = cli_open_repository (&args, &rc);
  if (repository == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkPointList) list = tmk_repository_points (repository, args.rest[0], &err);
  if (list == NULL)
    return cli_fail (&args, err);
  if (args.json)
    print_points_json (list);
  else
    print_points (list);
  if (list->n_points == 0 && !args.quiet && !args.json) {
    if (args.rest[0] != NULL)
      fprintf (stderr, "tidemark: no points of domain '%s'\n", args.rest[0]);
    else
      fputs ("tidemark: no points yet: 'tidemark backup' makes one\n", stderr);
  }
  return cli_warn_damaged (list) ? EXIT_DAMAGE : EXIT_DONE;
}
