/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark backup: one point of a domain into a repository, start to end. */
#include "cli/backup_all.h"
#include "cli/progress.h"
#include "util/jsonx.h"

#include <stdio.h>
#include <string.h>

#define MAX_AGENT_TIMEOUT_S 3600
#define MAX_THREADS 256
#define MAX_JOBS 64
#define JOBS 2 /* at a time, with --all */

typedef struct {
  gboolean no_checkpoint, dry_run, quiesce, no_space_check, all;
  char *mode, *xml, *checkpoint, *bandwidth, *agent, *scratch_dir, *secrets, *name;
  char **include, **exclude, **exclude_domain;
  int agent_timeout, scratch_timeout; /* seconds */
  int threads, jobs;
} BackupArgs;

static void
backup_args_clear (BackupArgs *given)
{
  g_free (given->mode);
  g_free (given->xml);
  g_free (given->checkpoint);
  g_free (given->bandwidth);
  g_free (given->agent);
  g_free (given->scratch_dir);
  g_free (given->secrets);
  g_free (given->name);
  g_strfreev (given->include);
  g_strfreev (given->exclude);
  g_strfreev (given->exclude_domain);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (BackupArgs, backup_args_clear)

/* ---- while it runs ------------------------------------------------------------------------ */

typedef struct {
  bool quiet;
  Progress *progress; /* owned; from when the plan stands */
} Showing;

static void
showing_clear (Showing *showing)
{
  g_clear_pointer (&showing->progress, progress_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Showing, showing_clear)

static void
warn (const char *message, void *data)
{
  progress_say (((Showing *) data)->progress, "tidemark: warning: %s", message);
}

static bool
is_interrupted (void *unused)
{
  (void) unused;
  return cli_interrupted ();
}

/* A line a disk: what will be done, and why. */
static void
print_plan (FILE *out, const TmkPoint *plan)
{
  int width = 0;
  for (size_t i = 0; i < plan->n_disks; i++)
    width = MAX (width, (int) strlen (plan->disks[i]->name));
  for (size_t i = 0; i < plan->n_disks; i++) {
    const TmkPointDisk *disk = plan->disks[i];
    g_autofree char *bytes = cli_size (disk->read);
    fprintf (out, "%-*s  %-11s  %10s  %s\n", width, disk->name, disk->mode, bytes, disk->reason);
  }
}

static void
on_plan (const TmkPoint *plan, void *data)
{
  Showing *showing = data;
  if (!showing->quiet)
    print_plan (stderr, plan);
  showing->progress = progress_new (showing->quiet);
}

static void
on_progress (const TmkBackupProgress *now, void *data)
{
  g_autofree char *added = cli_size (now->added);
  g_autofree char *note = g_strdup_printf ("%s new", added);
  ProgressPart part = {
    .name = now->disk,
    .done = now->done,
    .total = now->total,
    .note = note,
    .finished = now->finished,
  };
  progress_update (((Showing *) data)->progress, &part);
}

/* ---- the result ---------------------------------------------------------------------------- */

/* Says what went less well than it could have. True: anything did. */
static bool
warn_about (const BackupArgs *given, const TmkBackupResult *result)
{
  for (size_t i = 0; i < result->n_missed; i++)
    fprintf (stderr, "tidemark: warning: disk %s: not backed up\n", result->missed[i]);
  for (size_t i = 0; i < result->n_left_out; i++)
    fprintf (stderr, "tidemark: warning: %s: not in the point\n", result->left_out[i]);
  if (result->n_fallbacks > 0) {
    const char *verb = given->dry_run ? "would be" : "was";
    fprintf (stderr,
             "tidemark: warning: %zu disk%s %s read in full instead of incrementally; the reason"
             " is shown with each\n",
             result->n_fallbacks, result->n_fallbacks == 1 ? "" : "s",
             result->n_fallbacks == 1 ? verb
             : given->dry_run         ? "would be"
                                      : "were");
  }
  bool unquiesced = given->quiesce && !given->dry_run && !result->point->quiesced
                    && !result->powered_off; /* which has been said */
  return result->n_missed + result->n_left_out + result->n_fallbacks > 0 || unquiesced;
}

static json_t *
result_json (const BackupArgs *given, const TmkBackupResult *result)
{
  json_t *out = json_object (), *skipped = json_array (), *left_out = json_array ();
  g_autoptr (json_t) point = cli_point_json (result->point);
  bool made = !given->dry_run && result->point->id != NULL;
  json_object_set_new (out, "point", jsonx_string_or_null (made ? result->point->id : NULL));
  json_object_del (point, "id");
  json_object_update (out, point);
  for (size_t i = 0; i < result->n_skipped; i++)
    json_array_append_new (skipped, jsonx_string_or_null (result->skipped[i]));
  json_object_set_new (out, "skipped", skipped);
  for (size_t i = 0; i < result->n_left_out; i++)
    json_array_append_new (left_out, jsonx_string_or_null (result->left_out[i]));
  json_object_set_new (out, "left_out", left_out);
  json_object_set_new (out, "fallbacks", json_integer ((json_int_t) result->n_fallbacks));
  json_object_set_new (out, "pause_us", json_integer ((json_int_t) result->pause_us));
  json_object_set_new (out, "elapsed_us", json_integer ((json_int_t) result->elapsed_us));
  json_object_set_new (out, "dry_run", json_boolean (given->dry_run));
  return out;
}

static void
print_result (const TmkBackupResult *result, bool powered_off)
{
  const TmkPoint *point = result->point;
  int width = 4;
  for (size_t i = 0; i < point->n_disks; i++)
    width = MAX (width, (int) strlen (point->disks[i]->name));
  g_autofree char *time = cli_local_time (point->time_us);
  printf ("point %s of domain '%s', %s\n", point->id, point->domain, time);
  printf ("%-*s  %-11s  %10s  %10s  %10s  %s\n", width, "DISK", "MODE", "READ", "NEW", "STORED",
          "WHY");
  for (size_t i = 0; i < point->n_disks; i++) {
    const TmkPointDisk *disk = point->disks[i];
    g_autofree char *read = cli_size (disk->read);
    g_autofree char *added = cli_size (disk->added);
    g_autofree char *stored = cli_size (disk->stored);
    printf ("%-*s  %-11s  %10s  %10s  %10s  %s\n", width, disk->name, disk->mode, read, added,
            stored, disk->reason);
  }
  if (powered_off) {
    printf ("%.1f s\n", (double) result->elapsed_us / 1e6);
    return;
  }
  printf ("%.1f s", (double) result->elapsed_us / 1e6);
  if (result->pause_us > 0) /* libvirt does not tell */
    printf (", the guest was held for %.1f ms", (double) result->pause_us / 1e3);
  puts (point->quiesced ? ", its file systems frozen" : "");
}

/* ---- running ------------------------------------------------------------------------------- */

static int
backup (const CliArgs *args, const BackupArgs *given, TmkBackupOptions *options)
{
  int rc;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkRepository) repository = cli_open_repository (args, &rc);
  if (repository == NULL)
    return rc;
  g_autoptr (TmkDomain) domain = cli_open (args);
  if (domain == NULL)
    return cli_open_failed (args);
  g_auto (Showing) showing = { .quiet = args->quiet };
  options->begin.warn = warn;
  options->begin.warn_data = &showing;
  options->planned = given->dry_run ? NULL : on_plan;
  options->progress = on_progress;
  options->cancelled = is_interrupted;
  options->data = &showing;
  cli_catch_signals ();
  g_autoptr (TmkBackupResult) result = tmk_backup (domain, repository, options, &err);
  showing_clear (&showing);
  if (result == NULL) {
    rc = cli_fail (args, err);
    return cli_interrupted () ? EXIT_INTERRUPTED : rc;
  }
  bool warned = warn_about (given, result);
  if (args->json)
    cli_print_json (result_json (given, result));
  else if (given->dry_run)
    print_plan (stdout, result->point);
  else if (args->quiet)
    printf ("%s\n", result->point->id);
  else
    print_result (result, args->images != NULL);
  return warned ? EXIT_WARNINGS : EXIT_DONE;
}

/* ---- the options --------------------------------------------------------------------------- */

static bool
parse_mode (const char *text, TmkBackupMode *mode)
{
  static const char *const names[] = {
    [TMK_BACKUP_AUTO] = "auto",
    [TMK_BACKUP_FULL] = "full",
    [TMK_BACKUP_INCREMENTAL] = "incremental",
  };
  for (size_t i = 0; i < G_N_ELEMENTS (names); i++)
    if (g_str_equal (names[i], text)) {
      *mode = (TmkBackupMode) i;
      return true;
    }
  return false;
}

/* EXIT_DONE, or EXIT_USAGE after saying what is wrong. */
static int
fill_options (const BackupArgs *given, TmkBackupOptions *options)
{
  if (given->mode != NULL && !parse_mode (given->mode, &options->mode))
    return cli_usage ("backup", "'%s' is no mode: choose auto, full or incremental", given->mode);
  if (given->xml != NULL
      && (given->mode != NULL || given->include != NULL || given->exclude != NULL))
    return cli_usage ("backup", "--xml says itself which disks are backed up, and how: leave"
                                " --mode, --include and --exclude out");
  if (given->checkpoint != NULL && given->no_checkpoint)
    return cli_usage ("backup", "--checkpoint and --no-checkpoint exclude each other");
  if (given->bandwidth != NULL
      && (!cli_parse_size (given->bandwidth, &options->bandwidth) || options->bandwidth == 0))
    return cli_usage ("backup", "'%s' is no bandwidth: write bytes a second as in 50M",
                      given->bandwidth);
  if (given->agent_timeout < 0 || given->agent_timeout > MAX_AGENT_TIMEOUT_S)
    return cli_usage ("backup", "'%d' is no time to wait for the agent: 1 to %d seconds",
                      given->agent_timeout, MAX_AGENT_TIMEOUT_S);
  if (given->scratch_timeout < 0)
    return cli_usage ("backup", "--scratch-timeout is a number of seconds");
  if (given->threads < 0 || given->threads > MAX_THREADS)
    return cli_usage ("backup", "'%d' is no number of threads: 1 to %d", given->threads,
                      MAX_THREADS);
  options->include = (const char *const *) given->include;
  options->exclude = (const char *const *) given->exclude;
  options->checkpoint = given->checkpoint;
  options->no_checkpoint = given->no_checkpoint;
  options->dry_run = given->dry_run;
  options->scratch_dir = given->scratch_dir;
  options->threads = (unsigned) given->threads;
  options->domain_name = given->name;
  options->begin.agent_timeout_ms = (unsigned) given->agent_timeout * 1000;
  options->begin.scratch_timeout = (unsigned) given->scratch_timeout;
  options->begin.no_space_check = given->no_space_check;
  options->begin.secrets = given->secrets;
  return EXIT_DONE;
}

static void
put (GPtrArray *argv, const char *option, const char *value)
{
  if (value == NULL)
    return;
  g_ptr_array_add (argv, g_strdup (option));
  g_ptr_array_add (argv, g_strdup (value));
}

static void
put_flag (GPtrArray *argv, const char *option, gboolean given)
{
  if (given)
    g_ptr_array_add (argv, g_strdup (option));
}

static void
put_number (GPtrArray *argv, const char *option, int value)
{
  g_autofree char *text = value != 0 ? g_strdup_printf ("%d", value) : NULL;
  put (argv, option, text);
}

static void
put_all (GPtrArray *argv, const char *option, char **values)
{
  for (char **value = values; value != NULL && *value != NULL; value++)
    put (argv, option, *value);
}

/* The options again, as each backup of --all gets them. */
static GPtrArray *
options_of_each (const CliArgs *args, const BackupArgs *given)
{
  GPtrArray *argv = g_ptr_array_new_with_free_func (g_free);
  put (argv, "-r", args->repository);
  put (argv, "-c", args->connect);
  put (argv, "--state-dir", args->state_dir);
  put_flag (argv, "-q", args->quiet);
  put (argv, "--mode", given->mode);
  put_all (argv, "--include", given->include);
  put_all (argv, "--exclude", given->exclude);
  put (argv, "--checkpoint", given->checkpoint);
  put_flag (argv, "--no-checkpoint", given->no_checkpoint);
  put (argv, "--bandwidth", given->bandwidth);
  put_flag (argv, "--quiesce", given->quiesce);
  put_number (argv, "--agent-timeout", given->agent_timeout);
  put (argv, "--scratch-dir", given->scratch_dir);
  put_number (argv, "--scratch-timeout", given->scratch_timeout);
  put_flag (argv, "--no-space-check", given->no_space_check);
  put (argv, "--secrets", given->secrets);
  put_flag (argv, "--dry-run", given->dry_run);
  put_number (argv, "--threads", given->threads);
  return argv;
}

static int
run_all (const CliArgs *args, const BackupArgs *given)
{
  const struct {
    const char *option;
    bool given;
  } of_one[] = {
    { "--qmp", args->qmp != NULL },      { "--image", args->images != NULL },
    { "-d", args->domain != NULL },      { "--domain-xml", args->domain_xml != NULL },
    { "--xml", given->xml != NULL },     { "--name", given->name != NULL },
    { "--agent", given->agent != NULL },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (of_one); i++)
    if (of_one[i].given)
      return cli_usage ("backup", "%s is for one domain, and --all for all of libvirt's",
                        of_one[i].option);
  if (given->jobs < 0 || given->jobs > MAX_JOBS)
    return cli_usage ("backup", "'%d' is no number of backups at a time: 1 to %d", given->jobs,
                      MAX_JOBS);
  g_autoptr (GPtrArray) options = options_of_each (args, given);
  BackupAll all = { .options = options,
                    .exclude = (const char *const *) given->exclude_domain,
                    .jobs = given->jobs != 0 ? (unsigned) given->jobs : JOBS };
  return backup_all (args, &all);
}

int
cmd_backup (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_auto (BackupArgs) given = { 0 };
  const GOptionEntry own[] = {
    { "all", 0, 0, G_OPTION_ARG_NONE, &given.all, "every domain of libvirt's", NULL },
    { "exclude-domain", 0, 0, G_OPTION_ARG_STRING_ARRAY, &given.exclude_domain,
      "with --all: not this one; repeatable", "NAME" },
    { "jobs", 0, 0, G_OPTION_ARG_INT, &given.jobs, "with --all: so many at a time (2)", "N" },
    { "mode", 0, 0, G_OPTION_ARG_STRING, &given.mode,
      "auto: incremental where that can be had, else full", "auto|full|incremental" },
    { "include", 0, 0, G_OPTION_ARG_STRING_ARRAY, &given.include, "only this disk; repeatable",
      "DISK" },
    { "exclude", 0, 0, G_OPTION_ARG_STRING_ARRAY, &given.exclude, "not this disk; repeatable",
      "DISK" },
    { "xml", 0, 0, G_OPTION_ARG_FILENAME, &given.xml,
      "a <domainbackup> that says which disks, and how", "BACKUP.xml" },
    { "checkpoint", 0, 0, G_OPTION_ARG_STRING, &given.checkpoint,
      "name of the new checkpoint; otherwise one is made up", "NAME" },
    { "no-checkpoint", 0, 0, G_OPTION_ARG_NONE, &given.no_checkpoint,
      "make none; the next backup starts where this one did", NULL },
    { "bandwidth", 0, 0, G_OPTION_ARG_STRING, &given.bandwidth,
      "read at most so many bytes a second in all (50M)", "BYTES" },
    { "quiesce", 0, 0, G_OPTION_ARG_NONE, &given.quiesce,
      "freeze the guest's file systems for the instant; with --qmp needs --agent", NULL },
    { "agent", 0, 0, G_OPTION_ARG_FILENAME, &given.agent, "unix socket of the guest's agent",
      "SOCKET" },
    { "agent-timeout", 0, 0, G_OPTION_ARG_INT, &given.agent_timeout,
      "wait so long for it to freeze them (5)", "SECONDS" },
    { "scratch-dir", 0, 0, G_OPTION_ARG_FILENAME, &given.scratch_dir,
      "for scratch images; otherwise beside each disk's image", "DIR" },
    { "scratch-timeout", 0, 0, G_OPTION_ARG_INT, &given.scratch_timeout,
      "give up when a scratch stalls a guest's write so long (45)", "SECONDS" },
    { "no-space-check", 0, 0, G_OPTION_ARG_NONE, &given.no_space_check,
      "begin even if the scratch images may not fit", NULL },
    { "secrets", 0, 0, G_OPTION_ARG_FILENAME, &given.secrets,
      "file or folder with the passphrases of encrypted scratch images", "PATH" },
    { "dry-run", 0, 0, G_OPTION_ARG_NONE, &given.dry_run, "only show what would be done", NULL },
    { "threads", 0, 0, G_OPTION_ARG_INT, &given.threads, "workers (one a core)", "N" },
    { "name", 0, 0, G_OPTION_ARG_STRING, &given.name,
      "what the repository calls the domain; otherwise its own name", "NAME" },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse_for (CLI_DOMAIN | CLI_REPOSITORY, argc, argv, "backup", NULL,
                      "Makes a point of a domain in a repository: all disks as of one"
                      " instant, each\nincrementally where that can be had.",
                      own, &args, 0, 0, &rc))
    return rc;
  TmkBackupOptions options = { .mode = TMK_BACKUP_AUTO };
  rc = fill_options (&given, &options);
  if (rc != EXIT_DONE)
    return rc;
  if (given.all)
    return run_all (&args, &given);
  if (given.exclude_domain != NULL || given.jobs != 0)
    return cli_usage ("backup", "%s is for --all", given.jobs != 0 ? "--jobs" : "--exclude-domain");
  if (!cli_choose_agent (&args, "backup", given.quiesce, &given.agent, &rc))
    return rc;
  options.begin.agent = given.agent;
  g_autoptr (TmkBackupDef) def = NULL;
  if (given.xml != NULL && (def = cli_read_backup (&args, given.xml)) == NULL)
    return EXIT_FAILED;
  options.definition = def;
  /* What names the disks is kept with the point. */
  size_t len;
  g_autofree char *domain_xml = NULL;
  if (args.domain_xml != NULL && !g_str_equal (args.domain_xml, "-")
      && (domain_xml = cli_read (&args, args.domain_xml, &len)) == NULL)
    return EXIT_FAILED;
  options.domain_xml = domain_xml;
  return backup (&args, &given, &options);
}
