/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cli/cli.c: see cli/cli.h. */
#include "cli/cli.h"

#include "util/fsx.h"
#include "util/jsonx.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DOCUMENT (64 * 1024 * 1024)

/* --- options --------------------------------------------------------------------------------- */

void
cli_args_clear (CliArgs *args)
{
  g_free (args->qmp);
  g_strfreev (args->images);
  g_free (args->connect);
  g_free (args->domain);
  g_free (args->domain_xml);
  g_free (args->state_dir);
  g_free (args->repository);
  g_strfreev (args->rest);
  *args = (CliArgs){ 0 };
}

int
cli_usage (const char *verb, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *message = g_strdup_vprintf (format, ap);
  va_end (ap);
  fprintf (stderr, "tidemark: error: %s\nhint: see 'tidemark %s --help'\n", message, verb);
  return EXIT_USAGE;
}

#define MAX_SHARED 11

/* The options that verbs share, those that this one takes. */
static void
collect_shared (CliTakes takes, const char *parameters, CliArgs *args, GOptionEntry *out)
{
  const struct {
    CliTakes takes; /* 0: any */
    GOptionEntry entry;
  } all[] = {
    { CLI_REPOSITORY,
      { "repository", 'r', 0, G_OPTION_ARG_FILENAME, &args->repository,
        "the repository; else $TIDEMARK_REPO", "REPO" } },
    { CLI_DOMAIN,
      { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &args->qmp, "the domain: QMP socket of a running QEMU",
        "ADDR" } },
    { CLI_DOMAIN,
      { "image", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &args->images,
        "image of a powered-off disk; repeatable", "TARGET=FILE" } },
    { CLI_DOMAIN,
      { "connect", 'c', 0, G_OPTION_ARG_STRING, &args->connect,
        "libvirt's hypervisor; else as virsh picks it", "URI" } },
    { CLI_DOMAIN,
      { "domain", 'd', 0, G_OPTION_ARG_STRING, &args->domain,
        "the domain: one of libvirt's, by name or uuid", "NAME" } },
    { CLI_DOMAIN,
      { "domain-xml", 0, 0, G_OPTION_ARG_FILENAME, &args->domain_xml,
        "libvirt <domain> document that names the disks", "FILE" } },
    { CLI_DOMAIN,
      { "state-dir", 0, 0, G_OPTION_ARG_FILENAME, &args->state_dir,
        "where jobs and checkpoints are remembered", "DIR" } },
    { 0, { "json", 0, 0, G_OPTION_ARG_NONE, &args->json, "print JSON", NULL } },
    { 0, { "quiet", 'q', 0, G_OPTION_ARG_NONE, &args->quiet, "show no progress", NULL } },
    { 0, { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &args->rest, NULL, parameters } },
  };
  G_STATIC_ASSERT (G_N_ELEMENTS (all) < MAX_SHARED); /* and one that ends the list */
  size_t n = 0;
  for (size_t i = 0; i < G_N_ELEMENTS (all); i++)
    if (all[i].takes == 0 || (all[i].takes & takes) != 0)
      out[n++] = all[i].entry;
  out[n] = (GOptionEntry) G_OPTION_ENTRY_NULL;
}

bool
cli_parse_for (CliTakes takes, int argc, char **argv, const char *verb, const char *parameters,
               const char *summary, const GOptionEntry *own, CliArgs *args, guint min, guint max,
               int *rc)
{
  GOptionEntry shared[MAX_SHARED];
  collect_shared (takes, parameters, args, shared);
  if (cli_is_describe (argc, argv)) {
    cli_describe_options (verb, parameters, shared, own);
    *rc = EXIT_DONE;
    return false;
  }
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  /* What is needed stands first in the help. */
  g_autofree char *program
      = g_strconcat ("tidemark ", verb, (takes & CLI_DOMAIN) != 0 ? " DOMAIN" : "",
                     (takes & CLI_REPOSITORY) != 0 ? " [-r REPO]" : "", NULL);
  g_set_prgname (program);
  g_option_context_set_summary (context, summary);
  g_autofree char *more = g_strdup_printf ("'man tidemark-%.*s' has the rest, with examples.",
                                           (int) strcspn (verb, " "), verb);
  g_option_context_set_description (context, more);
  g_option_context_add_main_entries (context, shared, NULL);
  if (own != NULL)
    g_option_context_add_main_entries (context, own, NULL);

  /* GOption moves what it does not know about: give it a copy of the vector. */
  g_auto (GStrv) copy = g_new0 (char *, argc + 1);
  for (int i = 0; i < argc; i++)
    copy[i] = g_strdup (argv[i]);
  g_autoptr (GError) gerror = NULL;
  if (!g_option_context_parse_strv (context, &copy, &gerror)) {
    *rc = cli_usage (verb, "%s", gerror->message);
    return false;
  }
  if (args->rest == NULL)
    args->rest = g_new0 (char *, 1);
  const char *named = g_getenv ("TIDEMARK_REPO");
  if ((takes & CLI_REPOSITORY) != 0 && args->repository == NULL && named != NULL
      && *named != '\0') {
    args->repository = g_strdup (named);
    args->by_env = true;
  }
  if (args->repository != NULL && *args->repository == '\0') {
    *rc = cli_usage (verb, "-r names no folder");
    return false;
  }
  for (char **image = args->images; image != NULL && *image != NULL; image++) {
    const char *equals = strchr (*image, '=');
    if (equals == NULL || equals == *image || equals[1] == '\0') {
      *rc = cli_usage (verb, "'%s' is no image of a disk: write it as in vda=/img/root.qcow2",
                       *image);
      return false;
    }
  }
  guint n = g_strv_length (args->rest);
  if (n < min || n > max) {
    *rc = n < min ? cli_usage (verb, "too few arguments: %s", parameters)
                  : cli_usage (verb, "too many arguments: '%s'", args->rest[max]);
    return false;
  }
  return true;
}

bool
cli_parse (int argc, char **argv, const char *verb, const char *parameters, const char *summary,
           const GOptionEntry *own, CliArgs *args, guint min, guint max, int *rc)
{
  return cli_parse_for (CLI_DOMAIN, argc, argv, verb, parameters, summary, own, args, min, max, rc);
}

/* --- what the verbs say of themselves --------------------------------------------------------- */

bool
cli_is_describe (int argc, char **argv)
{
  return argc == 2 && g_str_equal (argv[1], CLI_DESCRIBE);
}

static void
print_line (json_t *value)
{
  json_dumpf (value, stdout, JSON_COMPACT);
  putchar ('\n');
  json_decref (value);
}

static void
append_options (json_t *options, const GOptionEntry *entries)
{
  for (; entries != NULL && entries->long_name != NULL; entries++) {
    bool is_option = *entries->long_name != '\0'; /* else what is left of the command line */
    if (!is_option || (entries->flags & G_OPTION_FLAG_HIDDEN) != 0)
      continue;
    char short_name[] = { entries->short_name, '\0' };
    json_t *option = json_pack ("{s:s, s:s}", "long", entries->long_name, "short", short_name);
    json_object_set_new (option, "argument", jsonx_string_or_null (entries->arg_description));
    json_object_set_new (option, "description", jsonx_string_or_null (entries->description));
    json_array_append_new (options, option);
  }
}

void
cli_describe_options (const char *verb, const char *parameters, const GOptionEntry *shared,
                      const GOptionEntry *own)
{
  json_t *options = json_array ();
  append_options (options, own);
  append_options (options, shared);
  json_t *line = json_pack ("{s:s, s:o}", "verb", verb, "options", options);
  json_object_set_new (line, "parameters", jsonx_string_or_null (parameters));
  print_line (line);
}

int
cli_describe_verbs (const char *prefix, const Command *verbs, size_t n)
{
  int rc = EXIT_DONE;
  for (size_t i = 0; i < n && rc == EXIT_DONE; i++) {
    g_autofree char *name = g_strconcat (prefix, verbs[i].name, NULL);
    char *argv[] = { (char *) verbs[i].name, (char *) CLI_DESCRIBE, NULL };
    print_line (json_pack ("{s:s, s:s}", "verb", name, "summary", verbs[i].summary));
    rc = verbs[i].run (2, argv);
  }
  return rc;
}

/* --- domains and documents ------------------------------------------------------------------- */

char *
cli_read (const CliArgs *args, const char *file, size_t *len)
{
  g_autoptr (TmkError) err = NULL;
  char *text = fsx_read_file (file, MAX_DOCUMENT, len, &err);
  if (text == NULL)
    cli_fail (args, err);
  return text;
}

TmkBackupDef *
cli_read_backup (const CliArgs *args, const char *file)
{
  size_t len;
  g_autoptr (TmkError) err = NULL;
  g_autofree char *xml = cli_read (args, file, &len);
  if (xml == NULL)
    return NULL;
  TmkBackupDef *def = tmk_backup_def_parse (xml, len, file, TMK_XML_PUBLIC, &err);
  if (def == NULL)
    cli_fail (args, err);
  return def;
}

TmkImage
cli_split_image (char *text)
{
  static const char format[] = ",format=", secret[] = ",secret=";
  char *path = strchr (text, '=');
  *path++ = '\0';
  TmkImage image = { .target = text, .path = path };
  for (;;) {
    char *f = image.format == NULL ? g_strrstr (path, format) : NULL;
    char *s = image.secret == NULL ? g_strrstr (path, secret) : NULL;
    if (f == NULL && s == NULL)
      return image;
    if (s == NULL || (f != NULL && f > s)) {
      image.format = f + strlen (format);
      *f = '\0';
    } else {
      image.secret = s + strlen (secret);
      *s = '\0';
    }
  }
}

static TmkDomain *
open_images (const CliArgs *args, const TmkDomainOptions *options, TmkError **errp)
{
  g_auto (GStrv) texts = g_strdupv (args->images);
  guint n = g_strv_length (texts);
  g_autofree TmkImage *images = g_new0 (TmkImage, n + 1);
  for (guint i = 0; i < n; i++)
    images[i] = cli_split_image (texts[i]);
  return tmk_domain_open_images (images, n, options, errp);
}

static unsigned
count_domains (const CliArgs *args)
{
  return (args->qmp != NULL) + (args->images != NULL) + (args->domain != NULL);
}

static bool
check_domain (const CliArgs *args, TmkError **errp)
{
  unsigned n = count_domains (args);
  if (n != 1) {
    error_set (errp, "cli", TMK_ERR_USAGE, 0,
               n == 0 ? "no domain is named" : "two domains are named");
    error_hint (errp, "name a running QEMU by its monitor: --qmp /path/of/qmp.sock, powered-off"
                      " disks by their images: --image vda=/path/of/image.qcow2, or a domain of"
                      " libvirt: -d NAME");
    return false;
  }
  const char *extra = NULL;
  if (args->domain == NULL && args->connect != NULL)
    extra = "-c";
  if (args->domain != NULL && args->domain_xml != NULL)
    extra = "--domain-xml";
  if (extra == NULL)
    return true;
  error_set (errp, "cli", TMK_ERR_USAGE, 0,
             args->domain != NULL ? "%s is not for a domain of libvirt" : "%s without -d", extra);
  error_hint (errp, args->domain != NULL ? "libvirt describes the domain: leave it out"
                                         : "name the domain with -d NAME");
  return false;
}

int
cli_open_failed (const CliArgs *args)
{
  return check_domain (args, NULL) ? EXIT_FAILED : EXIT_USAGE;
}

bool
cli_names_domain (const CliArgs *args, int *rc)
{
  g_autoptr (TmkError) err = NULL;
  if (check_domain (args, &err))
    return true;
  *rc = cli_fail (args, err);
  return false;
}

TmkDomain *
cli_try_open (const CliArgs *args, TmkError **errp)
{
  g_autoptr (TmkDomainDef) def = NULL;
  if (!check_domain (args, errp))
    return NULL;
  if (args->domain_xml != NULL) {
    size_t len;
    g_autofree char *xml = fsx_read_file (args->domain_xml, MAX_DOCUMENT, &len, errp);
    def = xml != NULL ? tmk_domain_def_parse (xml, len, args->domain_xml, errp) : NULL;
    if (def == NULL)
      return NULL;
  }
  TmkDomainOptions options = { .state_dir = args->state_dir, .domain = def };
  if (args->qmp != NULL)
    return tmk_domain_open_qmp (args->qmp, &options, errp);
  if (args->images != NULL)
    return open_images (args, &options, errp);
  return tmk_domain_open_libvirt (args->connect, args->domain, &options, errp);
}

TmkDomain *
cli_open (const CliArgs *args)
{
  g_autoptr (TmkError) err = NULL;
  TmkDomain *domain = cli_try_open (args, &err);
  if (domain == NULL)
    cli_fail (args, err);
  return domain;
}

bool
cli_choose_agent (const CliArgs *args, const char *verb, bool quiesce, char **agent, int *rc)
{
  bool given = *agent != NULL, with_libvirt = args->domain != NULL;
  if (with_libvirt && given)
    *rc = cli_usage (verb, "--agent is not for a domain of libvirt, which knows its agent");
  else if (!with_libvirt && quiesce != given)
    *rc = cli_usage (verb, "--quiesce and --agent SOCKET go together");
  else {
    if (with_libvirt && quiesce)
      *agent = g_strdup ("");
    return true;
  }
  return false;
}

/* --- saying ---------------------------------------------------------------------------------- */

json_t *
cli_error_json (const TmkError *err)
{
  json_t *body = json_pack ("{s:s, s:s, s:o}", "domain", tmk_error_domain (err), "code",
                            tmk_error_code_name (tmk_error_code (err)), "message",
                            jsonx_string_or_null (tmk_error_message (err)));
  json_object_set_new (body, "hint", jsonx_string_or_null (tmk_error_hint (err)));
  return body;
}

int
cli_fail (const CliArgs *args, const TmkError *err)
{
  const char *hint = tmk_error_hint (err);
  fprintf (stderr, "tidemark: error: %s\n", tmk_error_message (err));
  if (hint != NULL)
    fprintf (stderr, "hint: %s\n", hint);
  if (args->json)
    cli_print_json (json_pack ("{s:o}", "error", cli_error_json (err)));
  switch (tmk_error_code (err)) {
  case TMK_ERR_USAGE:
    return EXIT_USAGE;
  case TMK_ERR_DAMAGED:
    return EXIT_DAMAGE;
  default:
    return EXIT_FAILED;
  }
}

void
cli_warn (const char *message, void *unused)
{
  fprintf (stderr, "tidemark: warning: %s\n", message);
}

char *
cli_size (guint64 bytes)
{
  static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
  double value = (double) bytes;
  guint unit = 0;
  while (value >= 1024 && unit < G_N_ELEMENTS (units) - 1) {
    value /= 1024;
    unit++;
  }
  return unit == 0 ? g_strdup_printf ("%" G_GUINT64_FORMAT " bytes", bytes)
                   : g_strdup_printf ("%.1f %s", value, units[unit]);
}

char *
cli_time (gint64 us)
{
  g_autoptr (GDateTime) time = g_date_time_new_from_unix_utc (us / G_USEC_PER_SEC);
  return time != NULL ? g_date_time_format (time, "%Y-%m-%dT%H:%M:%SZ") : g_strdup ("");
}

char *
cli_local_time (gint64 us)
{
  g_autoptr (GDateTime) time = g_date_time_new_from_unix_local (us / G_USEC_PER_SEC);
  return time != NULL ? g_date_time_format (time, "%Y-%m-%dT%H:%M:%S%:z") : g_strdup ("");
}

void
cli_print_json (json_t *value)
{
  json_dumpf (value, stdout, JSON_INDENT (2));
  putchar ('\n');
  json_decref (value);
}

/* --- jobs ------------------------------------------------------------------------------------ */

static json_t *
time_or_null (gint64 us)
{
  if (us == 0)
    return json_null ();
  g_autofree char *text = cli_time (us);
  return json_string (text);
}

json_t *
cli_job_json (const TmkJobStatus *status)
{
  json_t *disks = json_array ();
  for (size_t i = 0; i < status->n_disks; i++) {
    const TmkJobDisk *disk = status->disks[i];
    json_t *entry = json_object ();
    json_object_set_new (entry, "name", jsonx_string_or_null (disk->name));
    json_object_set_new (entry, "mode", jsonx_string_or_null (disk->mode));
    json_object_set_new (entry, "incremental", jsonx_string_or_null (disk->incremental));
    json_object_set_new (entry, "target", jsonx_string_or_null (disk->target));
    json_object_set_new (entry, "format", jsonx_string_or_null (disk->format));
    json_object_set_new (entry, "backing", jsonx_string_or_null (disk->backing));
    json_object_set_new (entry, "state", jsonx_string_or_null (disk->state));
    json_object_set_new (entry, "done", json_integer ((json_int_t) disk->done));
    json_object_set_new (entry, "total", json_integer ((json_int_t) disk->total));
    json_object_set_new (entry, "error", jsonx_string_or_null (disk->error));
    json_object_set_new (entry, "export", jsonx_string_or_null (disk->export_name));
    json_object_set_new (entry, "exportbitmap", jsonx_string_or_null (disk->export_bitmap));
    if (status->pull) {
      json_object_set_new (entry, "dirty", json_integer ((json_int_t) disk->dirty));
      json_object_set_new (entry, "room", json_integer ((json_int_t) disk->room));
    }
    json_array_append_new (disks, entry);
  }
  json_t *job = json_object ();
  json_object_set_new (job, "state", json_string (tmk_job_state_name (status->state)));
  json_object_set_new (job, "id", jsonx_string_or_null (status->id));
  json_object_set_new (job, "mode", json_string (status->pull ? "pull" : "push"));
  json_object_set_new (job, "checkpoint", jsonx_string_or_null (status->checkpoint));
  json_object_set_new (job, "started", time_or_null (status->started_us));
  json_object_set_new (job, "ended", time_or_null (status->ended_us));
  json_object_set_new (job, "done", json_integer ((json_int_t) status->done));
  json_object_set_new (job, "total", json_integer ((json_int_t) status->total));
  json_object_set_new (job, "speed", json_integer ((json_int_t) status->speed));
  json_object_set_new (job, "pause_us", json_integer ((json_int_t) status->pause_us));
  json_object_set_new (job, "clients",
                       status->clients >= 0 ? json_integer (status->clients) : json_null ());
  json_object_set_new (job, "quiesced", json_boolean (status->quiesced));
  json_object_set_new (job, "frozen_us", json_integer ((json_int_t) status->frozen_us));
  json_object_set_new (job, "error", jsonx_string_or_null (status->error));
  json_object_set_new (job, "hint", jsonx_string_or_null (status->hint));
  json_object_set_new (job, "disks", disks);
  return job;
}

int
cli_report_job (const CliArgs *args, const TmkJobStatus *status)
{
  bool done = status->state == TMK_JOB_DONE;
  if (args->json) {
    cli_print_json (cli_job_json (status));
  } else if (done && !args->quiet) {
    g_autofree char *bytes = cli_size (status->done);
    printf ("backup done: %zu disk%s, %s in %.1f s", status->n_disks,
            status->n_disks == 1 ? "" : "s", bytes,
            (double) (status->ended_us - status->started_us) / 1e6);
    if (status->checkpoint != NULL)
      printf (", checkpoint '%s'", status->checkpoint);
    putchar ('\n');
  }
  if (done)
    return EXIT_DONE;
  fprintf (stderr, "tidemark: error: backup %s: %s\n", tmk_job_state_name (status->state),
           status->error != NULL ? status->error : "why is not known");
  if (status->hint != NULL)
    fprintf (stderr, "hint: %s\n", status->hint);
  return EXIT_FAILED;
}

/* --- signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void
on_signal (int number)
{
  (void) number;
  interrupted = 1;
}

void
cli_catch_signals (void)
{
  struct sigaction action = { .sa_handler = on_signal };
  sigemptyset (&action.sa_mask);
  sigaction (SIGINT, &action, NULL);
  sigaction (SIGTERM, &action, NULL);
}

bool
cli_interrupted (void)
{
  return interrupted != 0;
}
