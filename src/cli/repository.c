/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cli/repository.c: what the verbs on a repository share; see cli/cli.h. */
#include "cli/cli.h"

TmkRepository *
cli_open_repository (const CliArgs *args, int *rc)
{
  if (!cli_has_repository (args, rc))
    return NULL;
  g_autoptr (TmkError) err = NULL;
  TmkRepository *repository = tmk_repository_open (args->repository, &err);
  if (repository == NULL)
    *rc = cli_fail (args, err);
  return repository;
}
