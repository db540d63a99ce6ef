/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark check: would a backup work? */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>

typedef struct {
  const CliArgs *args;
  json_t *checks; /* with --json; else they are printed as they come */
} Showing;

static void
on_check (const TmkCheck *check, void *data)
{
  const Showing *showing = data;
  if (!showing->args->json) {
    if (showing->args->quiet && check->level == TMK_CHECK_OK)
      return;
    printf ("%s: %s%s%s\n", tmk_check_level_name (check->level), check->message,
            check->hint != NULL ? " — " : "", check->hint != NULL ? check->hint : "");
    (void) fflush (stdout); /* some of it takes long; a result that is lost shows in the end */
    return;
  }
  json_t *entry = json_object ();
  json_object_set_new (entry, "level", json_string (tmk_check_level_name (check->level)));
  json_object_set_new (entry, "what", jsonx_string_or_null (check->what));
  json_object_set_new (entry, "disk", jsonx_string_or_null (check->disk));
  json_object_set_new (entry, "message", jsonx_string_or_null (check->message));
  json_object_set_new (entry, "hint", jsonx_string_or_null (check->hint));
  json_array_append_new (showing->checks, entry);
}

static bool
on_cancelled (void *unused)
{
  (void) unused;
  return cli_interrupted ();
}

static int
finish (const Showing *showing, const TmkCheckResult *result)
{
  if (showing->args->json)
    cli_print_json (json_pack ("{s:O, s:i, s:i, s:i}", "checks", showing->checks, "ok",
                               (int) result->good, "warnings", (int) result->warnings, "problems",
                               (int) result->problems));
  return result->problems > 0 ? EXIT_FAILED : result->warnings > 0 ? EXIT_WARNINGS : EXIT_DONE;
}

static int
run (const CliArgs *args, TmkCheckOptions *options)
{
  g_autoptr (TmkError) err = NULL, domain_error = NULL, repository_error = NULL;
  g_autoptr (json_t) checks = json_array ();
  Showing showing = { .args = args, .checks = checks };
  TmkCheckResult result;
  cli_catch_signals ();
  /* What cannot be opened is a finding. */
  g_autoptr (TmkRepository) repository = tmk_repository_open (args->repository, &repository_error);
  g_autoptr (TmkDomain) domain = cli_try_open (args, &domain_error);
  options->state_dir = args->state_dir;
  options->domain_error = domain_error;
  options->repository_error = repository_error;
  options->report = on_check;
  options->cancelled = on_cancelled;
  options->data = &showing;
  if (!tmk_check (domain, repository, options, &result, &err)) {
    (void) cli_fail (args, err);
    return EXIT_INTERRUPTED;
  }
  return finish (&showing, &result);
}

int
cmd_check (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_auto (GStrv) include = NULL, exclude = NULL;
  g_autofree char *agent = NULL, *scratch_dir = NULL, *name = NULL, *secrets = NULL;
  gboolean no_trial = FALSE, quiesce = FALSE;
  const GOptionEntry own[] = {
    { "no-trial", 0, 0, G_OPTION_ARG_NONE, &no_trial, "begin nothing, not even to take it back",
      NULL },
    { "include", 0, 0, G_OPTION_ARG_STRING_ARRAY, &include, "only this disk; repeatable", "DISK" },
    { "exclude", 0, 0, G_OPTION_ARG_STRING_ARRAY, &exclude, "not this disk; repeatable", "DISK" },
    { "quiesce", 0, 0, G_OPTION_ARG_NONE, &quiesce,
      "does the guest's agent answer? With --qmp needs --agent", NULL },
    { "agent", 0, 0, G_OPTION_ARG_FILENAME, &agent, "unix socket of the guest's agent", "SOCKET" },
    { "scratch-dir", 0, 0, G_OPTION_ARG_FILENAME, &scratch_dir,
      "for scratch images; otherwise beside each disk's image", "DIR" },
    { "secrets", 0, 0, G_OPTION_ARG_FILENAME, &secrets,
      "file or folder with the passphrases of encrypted scratch images", "PATH" },
    { "name", 0, 0, G_OPTION_ARG_STRING, &name, "what the repository calls the domain", "NAME" },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse_for (CLI_DOMAIN | CLI_REPOSITORY, argc, argv, "check", NULL,
                      "Tells whether a backup would work, and what to do where it would not: looks"
                      " at all that one\nneeds, begins one, reads a little of each disk, and takes"
                      " it back. Nothing is changed.",
                      own, &args, 0, 0, &rc)
      || !cli_has_repository (&args, &rc) || !cli_names_domain (&args, &rc)
      || !cli_choose_agent (&args, "check", quiesce, &agent, &rc))
    return rc;
  TmkBackupOptions backup = { .include = (const char *const *) include,
                              .exclude = (const char *const *) exclude,
                              .scratch_dir = scratch_dir,
                              .domain_name = name,
                              .begin = { .agent = agent, .secrets = secrets } };
  TmkCheckOptions options = { .backup = &backup, .no_trial = no_trial };
  return run (&args, &options);
}
