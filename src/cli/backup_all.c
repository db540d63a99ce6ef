/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cli/backup_all.c: see cli/backup_all.h. */
#include "cli/backup_all.h"

#include "util/jsonx.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS 200 /* how soon an interruption is seen, and the end of a child */

extern char **environ;

typedef enum {
  WAITING,
  RUNNING,
  ENDED,
  SKIPPED,     /* it has no disks */
  NOT_STARTED, /* because of an interruption */
} State;

typedef struct {
  const TmkDomainEntry *entry; /* borrowed */
  State state;
  pid_t pid;
  int out, err;   /* pipes, or -1 */
  GString *json;  /* what it said on stdout … */
  GString *line;  /* … and on stderr since the last line's end */
  int code;       /* its exit code; more than 128: it was killed */
  json_t *result; /* `json` understood; or NULL */
} Backup;

typedef struct {
  const CliArgs *args;
  const BackupAll *how;
  GPtrArray *backups; /* of Backup * */
  unsigned running;
  int width; /* of the longest name */
  bool told; /* all that run were told to end */
} All;

static void
close_pipe (int *fd)
{
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

static void
backup_free (gpointer data)
{
  Backup *backup = data;
  close_pipe (&backup->out);
  close_pipe (&backup->err);
  g_string_free (backup->json, TRUE);
  g_string_free (backup->line, TRUE);
  json_decref (backup->result);
  g_free (backup);
}

/* ---- starting ------------------------------------------------------------------------------ */

static GPtrArray *
build_argv (const All *all, const Backup *backup)
{
  GPtrArray *argv = g_ptr_array_new ();
  const char *const begin[] = { "tidemark", "backup", "--json", "-d", backup->entry->name };
  for (size_t i = 0; i < G_N_ELEMENTS (begin); i++)
    g_ptr_array_add (argv, (char *) begin[i]);
  for (guint i = 0; i < all->how->options->len; i++)
    g_ptr_array_add (argv, all->how->options->pdata[i]);
  g_ptr_array_add (argv, NULL);
  return argv;
}

static int
spawn (Backup *backup, char **argv, const int out[2], const int err[2])
{
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t defaults;
  posix_spawn_file_actions_init (&actions);
  posix_spawn_file_actions_addopen (&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2 (&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2 (&actions, err[1], STDERR_FILENO);
  /* A group of its own: a terminal's Ctrl-C is for us, and we pass it on, once. */
  posix_spawnattr_init (&attributes);
  sigemptyset (&defaults);
  sigaddset (&defaults, SIGINT);
  sigaddset (&defaults, SIGTERM);
  posix_spawnattr_setsigdefault (&attributes, &defaults);
  posix_spawnattr_setpgroup (&attributes, 0);
  posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  int rc = posix_spawn (&backup->pid, "/proc/self/exe", &actions, &attributes, argv, environ);
  posix_spawnattr_destroy (&attributes);
  posix_spawn_file_actions_destroy (&actions);
  return rc;
}

static void
say (const All *all, const Backup *backup, const char *text)
{
  fprintf (stderr, "%-*s  %s\n", all->width, backup->entry->name, text);
}

static void
start (All *all, Backup *backup)
{
  int out[2] = { -1, -1 }, err[2] = { -1, -1 };
  g_autoptr (GPtrArray) argv = build_argv (all, backup);
  int rc = pipe2 (out, O_CLOEXEC) == 0 && pipe2 (err, O_CLOEXEC) == 0 ? 0 : errno;
  if (rc == 0)
    rc = spawn (backup, (char **) argv->pdata, out, err);
  close_pipe (&out[1]);
  close_pipe (&err[1]);
  backup->out = out[0];
  backup->err = err[0];
  if (rc == 0) {
    backup->state = RUNNING;
    all->running++;
    return;
  }
  g_autofree char *why
      = g_strdup_printf ("tidemark: error: cannot start its backup: %s", g_strerror (rc));
  say (all, backup, why);
  backup->state = ENDED;
  backup->code = EXIT_FAILED;
  close_pipe (&backup->out);
  close_pipe (&backup->err);
}

static void
start_some (All *all)
{
  for (guint i = 0; i < all->backups->len; i++) {
    Backup *backup = all->backups->pdata[i];
    if (backup->state != WAITING)
      continue;
    if (cli_interrupted ())
      backup->state = NOT_STARTED;
    else if (all->running < all->how->jobs)
      start (all, backup);
  }
}

/* ---- while they run ------------------------------------------------------------------------ */

static void
say_lines (const All *all, Backup *backup, bool last)
{
  for (char *end; (end = strchr (backup->line->str, '\n')) != NULL;) {
    *end = '\0';
    say (all, backup, backup->line->str);
    g_string_erase (backup->line, 0, end + 1 - backup->line->str);
  }
  if (last && backup->line->len > 0)
    say (all, backup, backup->line->str);
}

/* False: it has ended. */
static bool
take (int *fd, GString *into)
{
  char buffer[4096];
  ssize_t n = read (*fd, buffer, sizeof buffer);
  if (n < 0 && errno == EINTR)
    return true;
  if (n <= 0) {
    close_pipe (fd);
    return false;
  }
  g_string_append_len (into, buffer, n);
  return true;
}

static bool
is_without_disks (const All *all, const Backup *backup)
{
  TmkDomainOptions options = { .state_dir = all->args->state_dir };
  g_autoptr (TmkDomain) domain
      = tmk_domain_open_libvirt (all->args->connect, backup->entry->name, &options, NULL);
  g_autoptr (TmkDiskList) disks = domain != NULL ? tmk_domain_disks (domain, NULL) : NULL;
  return disks != NULL && backup_all_is_diskless (disks);
}

static void
finish (All *all, Backup *backup)
{
  int status = 0;
  while (waitpid (backup->pid, &status, 0) < 0 && errno == EINTR) {
  }
  all->running--;
  backup->state = ENDED;
  backup->code = WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
  backup->result = json_loadb (backup->json->str, backup->json->len, 0, NULL);
  const json_t *error = json_object_get (backup->result, "error");
  /* "No disk to back up" may mean none that can be. */
  if (g_strcmp0 (jsonx_string (error, "code"), "not-found") == 0 && is_without_disks (all, backup))
    backup->state = SKIPPED;
  say_lines (all, backup, true);
}

static void
attend (All *all, Backup *backup, bool out_ready, bool err_ready)
{
  if (out_ready)
    (void) take (&backup->out, backup->json); /* its end shows in the descriptor */
  if (err_ready && take (&backup->err, backup->line))
    say_lines (all, backup, false);
  if (backup->out < 0 && backup->err < 0)
    finish (all, backup);
}

/* Both pipes end with the child and with what it has left running that holds them: nothing does. */
static void
wait_some (All *all)
{
  g_autofree struct pollfd *polled = g_new0 (struct pollfd, 2 * all->backups->len + 1);
  for (guint i = 0; i < all->backups->len; i++) {
    const Backup *backup = all->backups->pdata[i];
    bool runs = backup->state == RUNNING;
    polled[2 * i] = (struct pollfd){ .fd = runs ? backup->out : -1, .events = POLLIN };
    polled[2 * i + 1] = (struct pollfd){ .fd = runs ? backup->err : -1, .events = POLLIN };
  }
  if (poll (polled, 2 * all->backups->len, TICK_MS) < 0)
    return; /* a signal */
  for (guint i = 0; i < all->backups->len; i++) {
    Backup *backup = all->backups->pdata[i];
    if (backup->state == RUNNING)
      attend (all, backup, polled[2 * i].revents != 0, polled[2 * i + 1].revents != 0);
  }
}

/* They clean up, and are waited for. */
static void
tell_to_end (All *all)
{
  if (all->told || !cli_interrupted ())
    return;
  all->told = true;
  for (guint i = 0; i < all->backups->len; i++) {
    const Backup *backup = all->backups->pdata[i];
    if (backup->state == RUNNING)
      (void) kill (backup->pid, SIGTERM); /* it has not been waited for, so it is still that one */
  }
}

/* ---- the result ---------------------------------------------------------------------------- */

static const char *
error_message (const Backup *backup)
{
  const char *message = jsonx_string (json_object_get (backup->result, "error"), "message");
  if (message != NULL)
    return message;
  return backup->code > 128 && backup->code != EXIT_INTERRUPTED ? "its backup was killed"
                                                                : "its backup did not say why";
}

static bool
is_good (const Backup *backup)
{
  return backup->code == EXIT_DONE || backup->code == EXIT_WARNINGS;
}

/* "2 full, 1 incremental" */
static char *
describe_modes (const json_t *disks)
{
  unsigned full = 0, incremental = 0;
  for (size_t i = 0; i < json_array_size (disks); i++)
    if (g_strcmp0 (jsonx_string (json_array_get (disks, i), "mode"), "full") == 0)
      full++;
    else
      incremental++;
  if (full == 0)
    return g_strdup_printf ("%u incremental", incremental);
  if (incremental == 0)
    return g_strdup_printf ("%u full", full);
  return g_strdup_printf ("%u full, %u incremental", full, incremental);
}

static guint64
sum_new (const json_t *disks)
{
  guint64 sum = 0;
  for (size_t i = 0; i < json_array_size (disks); i++)
    sum += (guint64) json_integer_value (json_object_get (json_array_get (disks, i), "new"));
  return sum;
}

static void
print_row (const All *all, const Backup *backup)
{
  const char *name = backup->entry->name;
  if (backup->state == SKIPPED) {
    printf ("%-*s  skipped: it has no disks\n", all->width, name);
  } else if (backup->state == NOT_STARTED) {
    printf ("%-*s  not begun\n", all->width, name);
  } else if (!is_good (backup)) {
    printf ("%-*s  failed: %s\n", all->width, name, error_message (backup));
  } else {
    const json_t *disks = json_object_get (backup->result, "disks");
    const char *point = jsonx_string (backup->result, "point");
    double us = (double) json_integer_value (json_object_get (backup->result, "elapsed_us"));
    g_autofree char *modes = describe_modes (disks);
    g_autofree char *added = cli_size (sum_new (disks));
    printf ("%-*s  %-16s  %-22s  %10s  %6.1f s%s\n", all->width, name, point != NULL ? point : "-",
            modes, added, us / 1e6, backup->code == EXIT_WARNINGS ? "  with warnings" : "");
  }
}

static void
print_table (const All *all)
{
  printf ("%-*s  %-16s  %-22s  %10s  %8s\n", all->width, "DOMAIN", "POINT", "DISKS", "NEW", "TIME");
  for (guint i = 0; i < all->backups->len; i++)
    print_row (all, all->backups->pdata[i]);
}

static json_t *
entry_json (const Backup *backup)
{
  json_t *entry = json_pack ("{s:s}", "domain", backup->entry->name);
  json_object_set_new (entry, "uuid", jsonx_string_or_null (backup->entry->uuid));
  bool ended = backup->state == ENDED;
  json_object_set_new (entry, "exit", ended ? json_integer (backup->code) : json_null ());
  if (!ended)
    json_object_set_new (entry, "skipped",
                         json_string (backup->state == SKIPPED ? "no disks" : "interrupted"));
  else if (is_good (backup) && backup->result != NULL)
    json_object_set (entry, "result", backup->result);
  else if (json_object_get (backup->result, "error") != NULL)
    json_object_set (entry, "error", json_object_get (backup->result, "error"));
  else
    json_object_set_new (entry, "error", json_pack ("{s:s}", "message", error_message (backup)));
  return entry;
}

static void
print_json (const All *all)
{
  json_t *domains = json_array ();
  for (guint i = 0; i < all->backups->len; i++)
    json_array_append_new (domains, entry_json (all->backups->pdata[i]));
  cli_print_json (json_pack ("{s:o}", "domains", domains));
}

static int
exit_code (const All *all, bool warned)
{
  bool failed = false;
  for (guint i = 0; i < all->backups->len; i++) {
    const Backup *backup = all->backups->pdata[i];
    failed = failed || (backup->state == ENDED && !is_good (backup));
    warned = warned || (backup->state == ENDED && backup->code == EXIT_WARNINGS);
  }
  if (cli_interrupted ())
    return EXIT_INTERRUPTED;
  return failed ? EXIT_FAILED : warned ? EXIT_WARNINGS : EXIT_DONE;
}

/* ---- all of it ------------------------------------------------------------------------------ */

bool
backup_all_is_diskless (const TmkDiskList *disks)
{
  for (size_t i = 0; i < disks->n_disks; i++)
    if (!disks->disks[i]->aside)
      return false;
  return true;
}

static bool
is_excluded (const BackupAll *how, const char *name)
{
  return how->exclude != NULL && g_strv_contains (how->exclude, name);
}

static void
collect (All *all, const TmkDomainEntries *entries)
{
  for (size_t i = 0; i < entries->n_domains; i++) {
    const TmkDomainEntry *entry = entries->domains[i];
    if (is_excluded (all->how, entry->name))
      continue;
    Backup *backup = g_new0 (Backup, 1);
    backup->entry = entry;
    backup->out = backup->err = -1;
    backup->json = g_string_new (NULL);
    backup->line = g_string_new (NULL);
    g_ptr_array_add (all->backups, backup);
    all->width = MAX (all->width, (int) strlen (entry->name));
  }
}

/* One that is not there may be one that is misspelt. True: there is such. */
static bool
warn_of_strangers (const BackupAll *how, const TmkDomainEntries *entries)
{
  bool any = false;
  for (const char *const *name = how->exclude; name != NULL && *name != NULL; name++) {
    bool known = false;
    for (size_t i = 0; i < entries->n_domains; i++)
      known = known || g_str_equal (entries->domains[i]->name, *name);
    if (known)
      continue;
    fprintf (stderr, "tidemark: warning: libvirt has no domain '%s' to exclude\n", *name);
    any = true;
  }
  return any;
}

int
backup_all (const CliArgs *args, const BackupAll *how)
{
  g_autoptr (TmkError) err = NULL;
  int rc;
  /* What no backup could do without is looked at once. */
  g_autoptr (TmkRepository) repository = cli_open_repository (args, &rc);
  if (repository == NULL)
    return rc;
  TmkDomainEntries *entries = tmk_libvirt_list (args->connect, &err);
  if (entries == NULL)
    return cli_fail (args, err);
  g_autoptr (GPtrArray) backups = g_ptr_array_new_with_free_func (backup_free);
  All all = { .args = args, .how = how, .backups = backups, .width = (int) strlen ("DOMAIN") };
  bool warned = warn_of_strangers (how, entries);
  collect (&all, entries);
  cli_catch_signals ();
  for (start_some (&all); all.running > 0; start_some (&all)) {
    wait_some (&all);
    tell_to_end (&all);
  }
  if (args->json)
    print_json (&all);
  else if (backups->len > 0)
    print_table (&all);
  else if (!args->quiet)
    fprintf (stderr, "tidemark: libvirt has no domain to back up\n");
  rc = exit_code (&all, warned);
  tmk_domain_entries_free (entries);
  return rc;
}
