/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark init: makes an empty repository. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>

static int
init (const CliArgs *args, const TmkRepositoryOptions *options)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkRepository) repository = tmk_repository_init (args->repository, options, &err);
  if (repository == NULL)
    return cli_fail (args, err);
  const char *id = tmk_repository_id (repository);
  const char *compression = tmk_repository_compression (repository);
  guint64 chunk_size = tmk_repository_chunk_size (repository);
  if (args->json) {
    json_t *out = json_pack ("{s:s, s:I, s:s}", "id", id, "chunk_size", (json_int_t) chunk_size,
                             "compression", compression);
    json_object_set_new (out, "location",
                         jsonx_string_or_null (tmk_repository_location (repository)));
    cli_print_json (out);
  } else if (!args->quiet) {
    g_autofree char *size = cli_size (chunk_size);
    printf ("repository '%s': id %s, chunks of %s, compression %s\n",
            tmk_repository_location (repository), id, size, compression);
  }
  return EXIT_DONE;
}

int
cmd_init (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_autofree char *chunk_size = NULL;
  g_autofree char *compression = NULL;
  const GOptionEntry own[] = {
    { "chunk-size", 0, 0, G_OPTION_ARG_STRING, &chunk_size,
      "what disks are cut into: a power of two, 64K to 4M", "SIZE" },
    { "compression", 0, 0, G_OPTION_ARG_STRING, &compression, "zstd, zstd:LEVEL or none", "HOW" },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse_for (CLI_REPOSITORY, argc, argv, "init", NULL,
                      "Makes an empty repository in a folder that is empty or not there yet.", own,
                      &args, 0, 0, &rc)
      || !cli_has_repository (&args, &rc))
    return rc;
  TmkRepositoryOptions options = { .compression = compression };
  if (chunk_size != NULL
      && (!cli_parse_size (chunk_size, &options.chunk_size) || options.chunk_size == 0))
    return cli_usage ("init", "'%s' is no size", chunk_size);
  return init (&args, &options);
}
