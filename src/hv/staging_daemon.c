/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/staging_daemon.c: see hv/staging_daemon.h. */
#include "hv/staging_daemon.h"

#include "util/fsx.h"
#include "util/jsonx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DOMAIN "hv"
#define DAEMON "qemu-storage-daemon"
#define END_TIMEOUT_US (10 * G_USEC_PER_SEC)

/* --- its start ------------------------------------------------------------------------------- */

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
staging_daemon_start (const json_t *record, const BackupServer *server, TmkError **errp)
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
staging_daemon_end (const char *pidfile, const char *socket, TmkError **errp)
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
