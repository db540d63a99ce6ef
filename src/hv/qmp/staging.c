/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/staging.c: see hv/qmp/staging.h. */
#include "hv/qmp/staging.h"

#include "qmp/commands.h"
#include "qmp/schema.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#define DOMAIN "hv"
#define DAEMON "qemu-storage-daemon"
#define END_TIMEOUT_US (10 * G_USEC_PER_SEC)

/* Where there is none no disk need be asked. */
static bool
has_iothreads (QmpMachine *machine)
{
  g_autoptr (json_t) iothreads = qmp_execute (machine->client, "query-iothreads", NULL, NULL);
  return iothreads == NULL || json_array_size (iothreads) > 0;
}

bool
staging_is_needed (QmpMachine *machine, const JobPlan *plan)
{
  if (!qmp_has_quirk (qmp_client_version (machine->client), QUIRK_NBD_IOTHREAD_ABORT)
      || !has_iothreads (machine))
    return false;
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (machine_in_iothread (machine, disk->device))
      return true;
  }
  return false;
}

bool
staging_check (const JobPlan *plan, TmkError **errp)
{
  g_autofree char *program = g_find_program_in_path (DAEMON);
  if (program == NULL) {
    error_set (
        errp, DOMAIN, TMK_ERR_NOT_FOUND, 0,
        "a disk is in an iothread, which this QEMU cannot export itself, and there is no '%s'",
        DAEMON);
    error_hint (errp, "install it (with QEMU's system packages), or push the disks (mode='push')");
    return false;
  }
  if (plan->tls != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "there is no TLS where a disk is in an iothread and QEMU is older than 10");
    error_hint (errp, "use a unix socket without tls='yes', or push the disks (mode='push')");
    return false;
  }
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (disk->encryption == NULL)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "disk '%s': the scratch cannot be encrypted where a disk is in an iothread and QEMU"
               " is older than 10",
               disk->name);
    error_hint (errp, "leave <encryption> out, or push the disks (mode='push')");
    return false;
  }
  return true;
}

/* --- copying --------------------------------------------------------------------------------- */

/* The jobs come first: a disk is drained from its job's action on until all are done, so that the
 * bitmaps behind them are of the very instant. */
static json_t *
actions_of (const JobPlan *plan, const TmkBeginOptions *options)
{
  json_t *actions = json_array ();
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    QmpBackup backup = {
      .job_id = disk->job,
      .device = disk->node,
      .target = disk->format_node,
      .speed = options->bandwidth,
    };
    json_array_append_new (actions, qmp_action_backup (&backup));
  }
  g_autoptr (json_t) bitmaps = job_plan_pull_actions (plan, true);
  json_array_extend (actions, bitmaps);
  return actions;
}

bool
staging_start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
               json_t *record, TmkError **errp)
{
  Quiesce quiesce;
  quiesce_begin (&quiesce, options);
  gint64 before = g_get_monotonic_time ();
  bool ok = qmp_transaction (machine->client, actions_of (plan, options), errp);
  json_object_set_new (record, "pause_us", json_integer (g_get_monotonic_time () - before));
  record_set_quiesced (record, &quiesce, options);
  return ok;
}

/* --- the daemon ------------------------------------------------------------------------------ */

static void
add_option (GPtrArray *argv, const char *option, json_t *value /* stolen */)
{
  char *text = json_dumps (value, JSON_COMPACT);
  g_ptr_array_add (argv, g_strdup (option));
  g_ptr_array_add (argv, g_strdup (text));
  free (text); /* jansson's, from malloc */
  json_decref (value);
}

static void
add_server (GPtrArray *argv, const BackupServer *server)
{
  g_autofree char *port = g_strdup_printf ("%u", server->port);
  json_t *addr
      = server->transport == BACKUP_SERVER_UNIX
            ? json_pack ("{s:s, s:s}", "type", "unix", "path", server->socket)
            : json_pack ("{s:s, s:s, s:s}", "type", "inet", "host", server->name, "port", port);
  add_option (argv, "--nbd-server", json_pack ("{s:o}", "addr", addr));
}

static void
add_disk (GPtrArray *argv, const json_t *disk, size_t number)
{
  g_autofree char *node = g_strdup_printf ("disk%zu", number);
  const char *bitmap = jsonx_string (disk, "exportbitmap");
  const char *driver
      = g_strcmp0 (jsonx_string (disk, "target_type"), "block") == 0 ? "host_device" : "file";
  add_option (argv, "--blockdev",
              json_pack ("{s:s, s:s, s:b, s:n, s:{s:s, s:s}}", "driver", "qcow2", "node-name", node,
                         "read-only", 1, "backing", "file", "driver", driver, "filename",
                         jsonx_string (disk, "target")));
  json_t *export = json_pack ("{s:s, s:s, s:s, s:s}", "type", "nbd", "id", node, "node-name", node,
                              "name", jsonx_string (disk, "export"));
  if (jsonx_bool (disk, "depth"))
    json_object_set_new (export, "allocation-depth", json_true ());
  else if (bitmap != NULL)
    json_object_set_new (export, "bitmaps", json_pack ("[s]", bitmap));
  add_option (argv, "--export", export);
}

bool
staging_start_daemon (const json_t *record, const BackupServer *server, TmkError **errp)
{
  g_autoptr (GPtrArray) argv = g_ptr_array_new_with_free_func (g_free);
  g_ptr_array_add (argv, g_strdup (DAEMON));
  g_ptr_array_add (argv, g_strdup ("--daemonize"));
  g_ptr_array_add (argv, g_strdup ("--pidfile"));
  g_ptr_array_add (argv, g_strdup (jsonx_string (record, "pidfile")));
  add_server (argv, server);
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk)
    add_disk (argv, disk, i);
  g_ptr_array_add (argv, NULL);

  g_autoptr (GError) gerror = NULL;
  g_autofree char *said = NULL;
  int status = 0;
  testpoint ("daemon");
  if (!g_spawn_sync ("/", (char **) argv->pdata, NULL,
                     G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &said,
                     &status, &gerror)) {
    error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "cannot run '%s': %s", DAEMON, gerror->message);
    return false;
  }
  testpoint ("daemon:done");
  if (g_spawn_check_wait_status (status, NULL))
    return true;
  g_strchomp (said);
  error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "'%s' cannot export the copies: %s", DAEMON, said);
  error_hint (errp, "is the server's address free, and may it be listened on?");
  return false;
}

/* What the scratch images were while they were written; the bitmaps are stored when they go. */
static bool
take_from_qemu (QmpMachine *machine, const json_t *record, TmkError **errp)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    if (!qmp_job_dismiss (machine->client, jsonx_string (disk, "job"), errp)
        || !qmp_blockdev_del (machine->client, jsonx_string (disk, "image"), errp)
        || !qmp_blockdev_del (machine->client, jsonx_string (disk, "file"), errp))
      return false;
  }
  return true;
}

bool
staging_export (QmpMachine *machine, json_t *record, TmkError **errp)
{
  const char *xml = jsonx_string (record, "definition");
  g_autoptr (TmkBackupDef) def
      = tmk_backup_def_parse (xml, strlen (xml), "the job's record", TMK_XML_INTERNAL, errp);
  if (def == NULL)
    return false;
  if (!take_from_qemu (machine, record, errp) || !staging_start_daemon (record, def->server, errp))
    return false;
  json_object_set_new (record, "exported", json_true ());
  return state_write (machine->state, "job", record, errp);
}

/* --- its end --------------------------------------------------------------------------------- */

/* What follows `option` on the command line of process `pid`, or NULL. */
static char *
option_of (const char *pid, const char *option)
{
  size_t len;
  g_autofree char *path = g_build_filename ("/proc", pid, "cmdline", NULL);
  g_autofree char *line = fsx_read_file (path, 1 << 20, &len, NULL);
  bool named = false;
  for (const char *word = line; word != NULL && word < line + len; word += strlen (word) + 1) {
    if (named)
      return g_strdup (word);
    named = g_str_equal (word, option);
  }
  return NULL;
}

static bool
is_daemon_of (const char *pid, const char *pidfile)
{
  g_autofree char *its = option_of (pid, "--pidfile");
  return g_strcmp0 (its, pidfile) == 0;
}

/* The process of our daemon, 0: none. By its command line: a file may be lost, or name a process
 * that is another today. But where it names the right one, no other need be looked at. */
pid_t
staging_daemon_of (const char *pidfile)
{
  size_t len;
  g_autofree char *told = fsx_read_file (pidfile, 64, &len, NULL);
  if (told != NULL && g_ascii_isdigit (*g_strstrip (told)) && is_daemon_of (told, pidfile))
    return (pid_t) g_ascii_strtoll (told, NULL, 10);
  const char *name;
  g_autoptr (GDir) dir = g_dir_open ("/proc", 0, NULL);
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    if (g_ascii_isdigit (*name) && is_daemon_of (name, pidfile))
      return (pid_t) g_ascii_strtoll (name, NULL, 10);
  return 0;
}

char *
staging_daemon_socket (const char *pidfile)
{
  g_autofree char *pid = g_strdup_printf ("%ld", (long) staging_daemon_of (pidfile));
  g_autofree char *server = option_of (pid, "--nbd-server");
  g_autoptr (json_t) options = server != NULL ? json_loads (server, 0, NULL) : NULL;
  return g_strdup (jsonx_string (json_object_get (options, "addr"), "path"));
}

bool
staging_daemon_lives (const char *pidfile)
{
  return staging_daemon_of (pidfile) != 0;
}

bool
staging_end_daemon (const char *pidfile, const char *socket, TmkError **errp)
{
  gint64 begun = g_get_monotonic_time ();
  for (pid_t pid = staging_daemon_of (pidfile); pid != 0; pid = staging_daemon_of (pidfile)) {
    gint64 waited = g_get_monotonic_time () - begun;
    if (kill (pid, waited > END_TIMEOUT_US / 2 ? SIGKILL : SIGTERM) != 0 && errno != ESRCH) {
      error_set_errno (errp, DOMAIN, errno, "cannot end '%s' (process %ld)", DAEMON, (long) pid);
      return false;
    }
    if (waited > END_TIMEOUT_US) {
      error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, 0, "'%s' (process %ld) does not end", DAEMON,
                 (long) pid);
      return false;
    }
    g_usleep (10000);
  }
  struct stat st;
  if (socket != NULL && lstat (socket, &st) == 0 && S_ISSOCK (st.st_mode)
      && !fsx_remove (socket, errp))
    return false;
  return fsx_remove (pidfile, errp);
}
