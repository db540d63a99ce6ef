/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/server.c: see hv/qmp/server.h. */
#include "hv/qmp/server.h"

#include "hv/relay.h"
#include "qmp/schema.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define DOMAIN "hv"
#define FIRST_PORT 10809 /* NBD's own, and those above */
#define PORTS 1000
/* QEMU has one NBD server, so these are of use only once. */
#define SOCKET_FD "tmk-nbd"
#define LIFE_FD "tmk-nbd-life"
#define NEGOTIATION_S 11 /* QEMU's handshake timer is 10 s */

/* --- before it is started -------------------------------------------------------------------- */

static bool
port_is_free (const char *host, unsigned port, TmkError **errp)
{
  RelayListener listener;
  if (!relay_listen (&listener, host, port, errp))
    return false;
  relay_listener_close (&listener);
  return true;
}

static bool
check_port (BackupServer *server, TmkError **errp)
{
  if (server->port != 0)
    return port_is_free (server->name, server->port, errp);
  for (unsigned port = FIRST_PORT; port < FIRST_PORT + PORTS; port++) {
    g_autoptr (TmkError) err = NULL;
    if (port_is_free (server->name, port, &err)) {
      server->port = port;
      return true;
    }
    if (tmk_error_code (err) != TMK_ERR_BUSY) {
      error_propagate (errp, g_steal_pointer (&err));
      return false;
    }
  }
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "no free port for the NBD server on '%s'",
             server->name);
  error_hint (errp, "name a port: <server port='…'/>");
  return false;
}

static bool
check_length (const char *path, TmkError **errp)
{
  if (strlen (path) < sizeof ((struct sockaddr_un *) NULL)->sun_path)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "the socket's path '%s' is too long", path);
  error_hint (errp, "a unix socket's path has at most 107 bytes");
  return false;
}

static bool
check_socket (const char *path, TmkError **errp)
{
  if (!check_length (path, errp))
    return false;
  if (access (path, F_OK) == 0) {
    error_set (errp, DOMAIN, TMK_ERR_EXISTS, EEXIST, "the socket '%s' exists already", path);
    error_hint (errp, "remove it if nothing listens there, or choose another path");
    return false;
  }
  return true;
}

/* Could stopping the server freeze QEMU, should a client not have negotiated? */
static bool
may_freeze (const QmpMachine *machine, bool tls)
{
  unsigned version = qmp_client_version (machine->client);
  return qmp_has_quirk (version, QUIRK_NBD_STOP_FREEZE)
         || (tls && qmp_has_quirk (version, QUIRK_NBD_TLS_STOP_FREEZE));
}

/* QEMU is passed a socket of ours to listen on, which takes a monitor on a unix socket. */
static bool
plan_relay (QmpMachine *machine, JobPlan *plan, TmkError **errp)
{
  pid_t pid;
  uid_t uid;
  gid_t gid;
  bool tls = plan->tls != NULL;
  if (qmp_client_peer (machine->client, &pid, &uid, &gid)) {
    plan->socket = state_file (machine->state, "nbd");
    plan->relay = state_file (machine->state, "relay");
    return check_length (plan->socket, errp);
  }
  if (!may_freeze (machine, tls))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
             "this QEMU could freeze with its guest when an NBD server on TCP%s is stopped",
             tls ? " with TLS" : "");
  error_hint (errp, "reach the monitor by a unix socket (--qmp /…), or use <server"
                    " transport='unix' socket='/…'/>");
  return false;
}

bool
server_check (QmpMachine *machine, JobPlan *plan, TmkError **errp)
{
  BackupServer *server = plan->def->server;
  if (server->transport == BACKUP_SERVER_FD) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "transport='fd' needs a caller that can pass"
               " descriptors");
    error_hint (errp, "use transport='unix' or transport='tcp'");
    return false;
  }
  if (server->transport == BACKUP_SERVER_UNIX) {
    plan->socket = g_strdup (server->socket);
    return check_socket (server->socket, errp);
  }
  return (plan->staged || plan->direct || plan_relay (machine, plan, errp))
         && check_port (server, errp);
}

/* --- starting and stopping ------------------------------------------------------------------- */

/* A listening socket at `path`, where there may be one that a killed process has left; or -1. */
static int
listen_privately (const char *path, TmkError **errp)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  if (!fsx_remove (path, errp))
    return -1;
  testpoint ("listen");
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool ok = fd >= 0 && bind (fd, (struct sockaddr *) &address, sizeof address) == 0
            && listen (fd, SOMAXCONN) == 0;
  testpoint ("listen:done");
  if (ok)
    return fd;
  error_set_errno (errp, DOMAIN, errno, "cannot listen at '%s'", path);
  if (fd >= 0)
    close (fd);
  return -1;
}

/* Gives QEMU what it listens on and the relay's life line. */
static bool
pass_socket (QmpMachine *machine, const char *path, int life, TmkError **errp)
{
  int fd = listen_privately (path, errp);
  bool ok = fd >= 0 && qmp_pass_fd (machine->client, LIFE_FD, life, errp)
            && qmp_pass_fd (machine->client, SOCKET_FD, fd, errp);
  if (fd >= 0)
    close (fd);
  return ok;
}

static bool
start_relay (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  const BackupServer *server = plan->def->server;
  RelayListener listener;
  if (!relay_listen (&listener, server->name, server->port, errp))
    return false;
  int life = relay_start (&listener, plan->socket, plan->relay, errp);
  relay_listener_close (&listener);
  bool ok = life >= 0 && pass_socket (machine, plan->socket, life, errp);
  if (life >= 0)
    close (life); /* QEMU has it now, or the relay ends */
  return ok;
}

static json_t *
address_of (const JobPlan *plan)
{
  const BackupServer *server = plan->def->server;
  if (plan->relay != NULL)
    return json_pack ("{s:s, s:{s:s}}", "type", "fd", "data", "str", SOCKET_FD);
  if (plan->socket != NULL)
    return json_pack ("{s:s, s:{s:s}}", "type", "unix", "data", "path", plan->socket);
  g_autofree char *port = g_strdup_printf ("%u", server->port);
  return json_pack ("{s:s, s:{s:s, s:s}}", "type", "inet", "data", "host", server->name, "port",
                    port);
}

bool
server_start (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  if (plan->relay != NULL && !start_relay (machine, plan, errp))
    return false;
  json_t *start = json_pack ("{s:o}", "addr", address_of (plan));
  if (plan->tls != NULL)
    json_object_set_new (start, "tls-creds", json_string (plan->tls));
  if (qmp_run (machine->client, "nbd-server-start", start, errp))
    return true;
  error_prefix (errp, "cannot start QEMU's NBD server");
  error_hint (errp, "QEMU has one NBD server: is it in use? QEMU must be able to listen there");
  return false;
}

/* A unix socket that was shut down while its peer takes nothing is not writable, and all that QEMU
 * waits for is that. A larger buffer makes it so; the write then fails, as it should have at once.
 * `inode` is the socket's. */
static void
cut_off (pid_t pid, int pidfd, const char *inode)
{
  g_autofree char *wanted = g_strdup_printf ("socket:[%s]", inode);
  g_autofree char *folder = g_strdup_printf ("/proc/%ld/fd", (long) pid);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    g_autofree char *target = g_file_read_link (path, NULL);
    if (g_strcmp0 (target, wanted) != 0)
      continue;
    int fd = (int) syscall (SYS_pidfd_getfd, pidfd, atoi (name), 0);
    int bytes = 1 << 30;
    if (fd < 0)
      continue;
    (void) setsockopt (fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    close (fd);
  }
}

void
server_cut_off (QmpMachine *machine, const char *socket)
{
  size_t len;
  g_autofree char *instance = machine_instance (machine);
  pid_t pid = instance != NULL ? (pid_t) g_ascii_strtoll (instance, NULL, 10) : 0;
  if (pid <= 0 || socket == NULL)
    return;
  g_autofree char *table = g_strdup_printf ("/proc/%ld/net/unix", (long) pid);
  g_autofree char *suffix = g_strconcat (" ", socket, NULL);
  g_autofree char *text = fsx_read_file (table, 64 << 20, &len, NULL);
  g_auto (GStrv) lines = g_strsplit (text != NULL ? text : "", "\n", -1);
  int pidfd = (int) syscall (SYS_pidfd_open, pid, 0);
  for (char **line = lines; *line != NULL && pidfd >= 0; line++) {
    char inode[32];
    if (g_str_has_suffix (*line, suffix)
        && sscanf (*line, "%*s %*s %*s %*s %*s 03 %31s", inode) == 1)
      cut_off (pid, pidfd, inode);
  }
  if (pidfd >= 0)
    close (pidfd);
}

/* The sockets bound to `path` in QEMU's network namespace, as /proc/PID/net/unix tells: a line a
 * socket, its flags (00010000: it listens) and state (03: connected) in the fourth and sixth
 * column, the path last. It stays there when the file is gone. */
typedef struct {
  unsigned clients;
  bool listens;
} SocketUse;

static SocketUse
look_at_socket (QmpMachine *machine, const char *path)
{
  size_t len;
  SocketUse use = { 0 };
  g_autofree char *instance = machine_instance (machine);
  g_autofree char *table = g_strdup_printf (
      "/proc/%u/net/unix",
      instance != NULL ? (unsigned) g_ascii_strtoull (instance, NULL, 10) : (unsigned) getpid ());
  g_autofree char *suffix = g_strconcat (" ", path, NULL);
  g_autofree char *text = fsx_read_file (table, 64 << 20, &len, NULL);
  if (text == NULL)
    text = fsx_read_file ("/proc/net/unix", 64 << 20, &len, NULL);
  g_auto (GStrv) lines = g_strsplit (text != NULL ? text : "", "\n", -1);
  for (char **line = lines; *line != NULL; line++) {
    if (!g_str_has_suffix (*line, suffix))
      continue;
    g_auto (GStrv) fields = g_strsplit_set (*line, " ", 7);
    if (g_strv_length (fields) < 7)
      continue;
    if (g_str_equal (fields[5], "03"))
      use.clients++;
    use.listens = use.listens || g_str_equal (fields[3], "00010000");
  }
  return use;
}

int
server_clients (QmpMachine *machine, const char *socket)
{
  return socket != NULL ? (int) look_at_socket (machine, socket).clients : -1;
}

/* Descriptors that no command of QEMU's has used up; that it has none of them is no failure. */
static void
forget_passed (QmpMachine *machine)
{
  (void) qmp_run (machine->client, "closefd", json_pack ("{s:s}", "fdname", LIFE_FD), NULL);
  (void) qmp_run (machine->client, "closefd", json_pack ("{s:s}", "fdname", SOCKET_FD), NULL);
}

/* Is a server there that this job has started? Where the job does not remember (whoever began it
 * was killed), what it listens on tells: QEMU's server may be somebody else's. */
static bool
is_ours (QmpMachine *machine, const json_t *entry)
{
  const char *started = jsonx_string (entry, "started");
  const char *socket = jsonx_string (entry, "socket");
  const char *host = jsonx_string (entry, "host");
  g_autofree char *instance = machine_instance (machine);
  if (started != NULL)
    return *started == '\0' || instance == NULL || g_str_equal (started, instance);
  if (jsonx_bool (entry, "relayed")) {
    forget_passed (machine); /* now the server alone would keep it open */
    return look_at_socket (machine, socket).listens;
  }
  if (socket != NULL)
    return access (socket, F_OK) == 0 || look_at_socket (machine, socket).listens;
  return host == NULL || !port_is_free (host, (unsigned) jsonx_uint (entry, "port"), NULL);
}

bool
server_stop (QmpMachine *machine, const json_t *entry, TmkError **errp)
{
  const char *socket = jsonx_string (entry, "socket");
  bool ours = machine->client != NULL && is_ours (machine, entry);
  if (ours && jsonx_bool (entry, "relayed"))
    forget_passed (machine);
  /* A QEMU that was killed leaves the socket. */
  if (socket != NULL && access (socket, F_OK) == 0 && !fsx_remove (socket, errp))
    return false;
  if (!ours)
    return true;
  if (socket != NULL && may_freeze (machine, jsonx_bool (entry, "tls"))) {
    gint64 deadline = g_get_monotonic_time () + NEGOTIATION_S * G_USEC_PER_SEC;
    while (look_at_socket (machine, socket).clients > 0 && g_get_monotonic_time () < deadline)
      g_usleep (20000);
  }
  g_autoptr (TmkError) err = NULL;
  if (!qmp_run (machine->client, "nbd-server-stop", NULL, &err)
      && strstr (tmk_error_message (err), "not running") == NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  return true;
}
