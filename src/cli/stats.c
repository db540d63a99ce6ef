/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark stats: what there is in a repository. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>

static json_t *
stats_json (TmkRepository *repository, const TmkRepositoryStats *stats)
{
  const struct {
    const char *key;
    guint64 value;
  } numbers[] = {
    { "points", stats->points },
    { "domains", stats->domains },
    { "disks", stats->disks },
    { "files", stats->files },
    { "logical", stats->logical },
    { "objects", stats->objects },
    { "packs", stats->packs },
    { "pack_bytes", stats->pack_bytes },
    { "index_files", stats->index_files },
    { "index_bytes", stats->index_bytes },
    { "other_bytes", stats->other_bytes },
    { "bytes", stats->bytes },
  };
  json_t *out = json_pack ("{s:s, s:I, s:s}", "id", tmk_repository_id (repository), "chunk_size",
                           (json_int_t) tmk_repository_chunk_size (repository), "compression",
                           tmk_repository_compression (repository));
  json_object_set_new (out, "location",
                       jsonx_string_or_null (tmk_repository_location (repository)));
  for (size_t i = 0; i < G_N_ELEMENTS (numbers); i++)
    json_object_set_new (out, numbers[i].key, json_integer ((json_int_t) numbers[i].value));
  return out;
}

static void
print_stats (TmkRepository *repository, const TmkRepositoryStats *stats)
{
  g_autofree char *chunk_size = cli_size (tmk_repository_chunk_size (repository));
  g_autofree char *logical = cli_size (stats->logical);
  g_autofree char *packs = cli_size (stats->pack_bytes);
  g_autofree char *indexes = cli_size (stats->index_bytes);
  g_autofree char *others = cli_size (stats->other_bytes);
  g_autofree char *all = cli_size (stats->bytes);
  printf ("repository   %s, id %s\n", tmk_repository_location (repository),
          tmk_repository_id (repository));
  printf ("new disks    chunks of %s, compression %s\n", chunk_size,
          tmk_repository_compression (repository));
  printf ("points       %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " domain%s, %" G_GUINT64_FORMAT
          " disk%s",
          stats->points, stats->domains, stats->domains == 1 ? "" : "s", stats->disks,
          stats->disks == 1 ? "" : "s");
  if (stats->files > 0)
    printf (", %" G_GUINT64_FORMAT " file%s", stats->files, stats->files == 1 ? "" : "s");
  putchar ('\n');
  printf ("they hold    %s, not counting zeroes\n", logical);
  printf ("stored       %s", all);
  if (stats->logical > 0 && stats->bytes > 0)
    printf (": %.1f %% of that", 100.0 * (double) stats->bytes / (double) stats->logical);
  printf ("\n  packs      %s in %" G_GUINT64_FORMAT " with %" G_GUINT64_FORMAT " objects\n", packs,
          stats->packs, stats->objects);
  printf ("  index      %s in %" G_GUINT64_FORMAT " file%s\n", indexes, stats->index_files,
          stats->index_files == 1 ? "" : "s");
  printf ("  other      %s\n", others);
}

int
cmd_stats (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  int rc;
  if (!cli_parse_for (CLI_REPOSITORY, argc, argv, "stats", NULL,
                      "Shows how much a repository holds and takes.", NULL, &args, 0, 0, &rc))
    return rc;
  g_autoptr (TmkRepository) repository = cli_open_repository (&args, &rc);
  if (repository == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  TmkRepositoryStats stats;
  if (!tmk_repository_stats (repository, &stats, &err))
    return cli_fail (&args, err);
  if (args.json)
    cli_print_json (stats_json (repository, &stats));
  else
    print_stats (repository, &stats);
  return EXIT_DONE;
}
