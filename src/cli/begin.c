/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark begin: starts a job exactly as a document describes it.
 *
 * The job outlives this process, and somebody must look after it: resume a guest that it stopped,
 * tidy up when it ends. That is a `tidemark wait --guard` in the background.
 */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_AGENT_TIMEOUT_S 3600

typedef struct {
  gboolean reuse_external, no_space_check, compress, no_guard, quiesce;
  char *compression_type, *secrets, *bandwidth, *tls_x509, *tls_psk, *agent;
  int agent_timeout, scratch_timeout; /* seconds */
} BeginArgs;

static void
begin_args_clear (BeginArgs *begin)
{
  g_free (begin->compression_type);
  g_free (begin->secrets);
  g_free (begin->bandwidth);
  g_free (begin->tls_x509);
  g_free (begin->tls_psk);
  g_free (begin->agent);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (BeginArgs, begin_args_clear)

/* "100M" → bytes. */
static bool
parse_bandwidth (const char *text, guint64 *bytes)
{
  char *end;
  if (!g_ascii_isdigit (*text))
    return false;
  guint64 value = g_ascii_strtoull (text, &end, 10);
  guint shift = 0;
  switch (g_ascii_toupper (*end)) {
  case '\0':
    break;
  case 'K':
    shift = 10;
    break;
  case 'M':
    shift = 20;
    break;
  case 'G':
    shift = 30;
    break;
  default:
    return false;
  }
  if (shift != 0 && end[1] != '\0')
    return false;
  if (value == 0 || value > ((guint64) G_MAXINT64 >> shift))
    return false;
  *bytes = value << shift;
  return true;
}

static TmkCheckpointDef *
read_checkpoint (const CliArgs *args, const char *file)
{
  size_t len;
  g_autoptr (TmkError) err = NULL;
  g_autofree char *xml = cli_read (args, file, &len);
  if (xml == NULL)
    return NULL;
  TmkCheckpointDef *def = tmk_checkpoint_def_parse (xml, len, file, TMK_XML_PUBLIC, &err);
  if (def == NULL)
    cli_fail (args, err);
  return def;
}

/* In the guard, before it runs: it belongs to no terminal and keeps no folder busy. */
static void
detach (gpointer unused)
{
  (void) unused;
  setsid ();
  (void) !chdir ("/"); /* it works in any folder */
}

/* Adds "--option=/absolute/path" to `argv`; nothing for NULL and "-". */
static void
add_path (GPtrArray *argv, const char *option, const char *path)
{
  if (path == NULL || *path == '\0' || g_str_equal (path, "-"))
    return;
  g_autofree char *absolute = g_canonicalize_filename (path, NULL);
  g_ptr_array_add (argv, g_strdup_printf ("%s=%s", option, absolute));
}

/* As the library makes it absolute, which knows disks by their paths as they are given. */
static void
append_absolute (GString *text, const char *path)
{
  g_autofree char *folder = g_get_current_dir ();
  if (*path != '/')
    g_string_append_printf (text, "%s/", folder);
  g_string_append (text, path + (g_str_has_prefix (path, "./") ? 2 : 0));
}

/* The guard runs in another folder. */
static void
add_images (GPtrArray *argv, char **images)
{
  for (; *images != NULL; images++) {
    g_autofree char *copy = g_strdup (*images);
    TmkImage image = cli_split_image (copy);
    GString *text = g_string_new ("--image=");
    g_string_append_printf (text, "%s=", image.target);
    append_absolute (text, image.path);
    if (image.format != NULL)
      g_string_append_printf (text, ",format=%s", image.format);
    if (image.secret != NULL) {
      g_string_append (text, ",secret=");
      append_absolute (text, image.secret);
    }
    g_ptr_array_add (argv, g_string_free (text, FALSE));
  }
}

static void
start_guard (const CliArgs *args)
{
  g_autoptr (GError) gerror = NULL;
  g_autofree char *self = g_file_read_link ("/proc/self/exe", NULL);
  g_autoptr (GPtrArray) argv = g_ptr_array_new_with_free_func (g_free);
  g_ptr_array_add (argv, g_strdup (self != NULL ? self : "tidemark"));
  g_ptr_array_add (argv, g_strdup ("wait"));
  g_ptr_array_add (argv, g_strdup ("--guard"));
  if (args->domain != NULL) {
    if (args->connect != NULL)
      g_ptr_array_add (argv, g_strconcat ("--connect=", args->connect, NULL));
    g_ptr_array_add (argv, g_strconcat ("--domain=", args->domain, NULL));
  } else if (args->qmp == NULL)
    add_images (argv, args->images);
  else if (g_str_has_prefix (args->qmp, "tcp:"))
    g_ptr_array_add (argv, g_strconcat ("--qmp=", args->qmp, NULL));
  else
    add_path (argv, "--qmp", args->qmp + (g_str_has_prefix (args->qmp, "unix:") ? 5 : 0));
  add_path (argv, "--domain-xml", args->domain_xml);
  add_path (argv, "--state-dir",
            args->state_dir != NULL ? args->state_dir : g_getenv ("TIDEMARK_STATE_DIR"));
  g_ptr_array_add (argv, NULL);
  /* The guard is no step of begin: a test that kills begin at a step must not kill it too. */
  g_auto (GStrv) env = g_environ_unsetenv (g_get_environ (), "TIDEMARK_TEST_KILL_AT");
  if (!g_spawn_async (NULL, (char **) argv->pdata, env,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL,
                      detach, NULL, NULL, &gerror)) {
    g_autofree char *message = g_strdup_printf (
        "nobody looks after the job (%s): run 'tidemark wait' until it ends", gerror->message);
    cli_warn (message, NULL);
  }
}

static int
print_definition (const CliArgs *args, TmkDomain *domain)
{
  g_autoptr (TmkError) err = NULL;
  char *xml = tmk_domain_job_xml (domain, TMK_XML_PUBLIC, &err);
  if (xml == NULL)
    return cli_fail (args, err);
  fputs (xml, stdout);
  tmk_free (xml);
  return EXIT_DONE;
}

static int
abort_interrupted (const CliArgs *args, TmkDomain *domain)
{
  g_autoptr (TmkError) err = NULL;
  if (!tmk_domain_abort (domain, &err) && tmk_error_code (err) != TMK_ERR_NOT_FOUND)
    return cli_fail (args, err);
  fprintf (stderr, "tidemark: interrupted: the job was cancelled\n");
  return EXIT_INTERRUPTED;
}

static bool
is_interrupted (void *unused)
{
  (void) unused;
  return cli_interrupted ();
}

static int
begin (const CliArgs *args, BeginArgs *given)
{
  TmkBeginOptions options = {
    .reuse_external = given->reuse_external,
    .no_space_check = given->no_space_check,
    .compress = given->compress,
    .compression_type = given->compression_type,
    .secrets = given->secrets,
    .tls_x509 = given->tls_x509,
    .tls_psk = given->tls_psk,
    .agent_timeout_ms = (unsigned) given->agent_timeout * 1000,
    .scratch_timeout = (unsigned) given->scratch_timeout,
    .warn = cli_warn,
    .cancelled = is_interrupted,
  };
  if (given->scratch_timeout < 0)
    return cli_usage ("begin", "--scratch-timeout is a number of seconds");
  if (given->bandwidth != NULL && !parse_bandwidth (given->bandwidth, &options.bandwidth))
    return cli_usage ("begin", "'%s' is no bandwidth: write bytes a second as in 50M",
                      given->bandwidth);
  if (given->compression_type != NULL && !g_str_equal (given->compression_type, "zlib")
      && !g_str_equal (given->compression_type, "zstd"))
    return cli_usage ("begin", "'%s' is no compression: choose zlib or zstd",
                      given->compression_type);
  if (given->compression_type != NULL)
    options.compress = true;
  int usage;
  if (!cli_choose_agent (args, "begin", given->quiesce, &given->agent, &usage))
    return usage;
  options.agent = given->agent;
  if (given->agent_timeout < 0 || given->agent_timeout > MAX_AGENT_TIMEOUT_S)
    return cli_usage ("begin", "'%d' is no time to wait for the agent: 1 to %d seconds",
                      given->agent_timeout, MAX_AGENT_TIMEOUT_S);

  g_autoptr (TmkBackupDef) def = cli_read_backup (args, args->rest[0]);
  if (def == NULL)
    return EXIT_FAILED;
  g_autoptr (TmkCheckpointDef) checkpoint = NULL;
  if (args->rest[1] != NULL) {
    checkpoint = read_checkpoint (args, args->rest[1]);
    if (checkpoint == NULL)
      return EXIT_FAILED;
  }
  g_autoptr (TmkDomain) domain = cli_open (args);
  if (domain == NULL)
    return cli_open_failed (args);
  cli_catch_signals ();
  g_autoptr (TmkError) err = NULL;
  if (!tmk_domain_begin (domain, def, checkpoint, &options, &err)) {
    int rc = cli_fail (args, err);
    return cli_interrupted () ? EXIT_INTERRUPTED : rc;
  }
  if (cli_interrupted ())
    return abort_interrupted (args, domain);
  /* A pull needs nobody: its scratch cannot hurt the guest, and the user ends it. */
  if (!given->no_guard && !tmk_backup_def_is_pull (def))
    start_guard (args);
  if (!args->json && !given->quiesce)
    return print_definition (args, domain);
  g_autoptr (TmkJobStatus) status = tmk_domain_job_status (domain, &err);
  if (status == NULL)
    return cli_fail (args, err);
  int rc = EXIT_DONE;
  if (args->json)
    cli_print_json (cli_job_json (status));
  else
    rc = print_definition (args, domain);
  bool unquiesced = given->quiesce && !status->quiesced && !status->powered_off;
  return rc == EXIT_DONE && unquiesced ? EXIT_WARNINGS : rc;
}

int
cmd_begin (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_auto (BeginArgs) given = { 0 };
  const GOptionEntry own[] = {
    { "reuse-external", 0, 0, G_OPTION_ARG_NONE, &given.reuse_external,
      "targets exist already and are used as they are", NULL },
    { "secrets", 0, 0, G_OPTION_ARG_FILENAME, &given.secrets,
      "file or folder with the passphrases of encrypted targets", "PATH" },
    { "compress", 0, 0, G_OPTION_ARG_NONE, &given.compress, "write compressed qcow2 targets",
      NULL },
    { "compression", 0, 0, G_OPTION_ARG_STRING, &given.compression_type, "how to compress them",
      "zlib|zstd" },
    { "bandwidth", 0, 0, G_OPTION_ARG_STRING, &given.bandwidth,
      "copy at most so many bytes a second and disk (50M)", "BYTES" },
    { "tls-x509", 0, 0, G_OPTION_ARG_FILENAME, &given.tls_x509,
      "folder of certificates for <server tls='yes'>", "DIR" },
    { "tls-psk", 0, 0, G_OPTION_ARG_FILENAME, &given.tls_psk,
      "keys.psk, pre-shared keys for <server tls='yes'>", "FILE" },
    { "quiesce", 0, 0, G_OPTION_ARG_NONE, &given.quiesce,
      "freeze the guest's file systems for the instant; needs --agent", NULL },
    { "agent", 0, 0, G_OPTION_ARG_FILENAME, &given.agent, "unix socket of the guest's agent",
      "SOCKET" },
    { "agent-timeout", 0, 0, G_OPTION_ARG_INT, &given.agent_timeout,
      "wait so long for it to freeze them (5)", "SECONDS" },
    { "scratch-timeout", 0, 0, G_OPTION_ARG_INT, &given.scratch_timeout,
      "give a pull up that stalls a guest's write so long (45)", "SECONDS" },
    { "no-space-check", 0, 0, G_OPTION_ARG_NONE, &given.no_space_check,
      "begin even if the targets may not fit", NULL },
    { "no-guard", 0, 0, G_OPTION_ARG_NONE, &given.no_guard,
      "leave no process behind; then keep a 'tidemark wait' running", NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse (argc, argv, "begin", "BACKUP.xml [CHECKPOINT.xml]",
                  "Starts a backup job exactly as BACKUP.xml (<domainbackup>) says, with the"
                  " checkpoint of\nCHECKPOINT.xml at the same instant. Prints the aligned"
                  " definition; returns once the job runs.",
                  own, &args, 1, 2, &rc))
    return rc;
  return begin (&args, &given);
}
