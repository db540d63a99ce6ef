/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/server.c: see hv/qmp/server.h. */
#include "hv/qmp/server.h"

#include "qmp/schema.h"
#include "util/fsx.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DOMAIN "hv"
#define FIRST_PORT 10809 /* NBD's own, and those above */
#define PORTS 1000
#define NEGOTIATION_S 11 /* QEMU's handshake timer is 10 s */

/* --- before it is started -------------------------------------------------------------------- */

static bool
port_is_free (const char *host, unsigned port)
{
  g_autofree char *service = g_strdup_printf ("%u", port);
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
  struct addrinfo *list = NULL;
  if (getaddrinfo (host, service, &hints, &list) != 0)
    return false;
  int fd = socket (list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int one = 1;
  bool is_free = fd >= 0 && setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0
                 && bind (fd, list->ai_addr, list->ai_addrlen) == 0;
  if (fd >= 0)
    close (fd);
  freeaddrinfo (list);
  return is_free;
}

static bool
choose_port (BackupServer *server, TmkError **errp)
{
  for (unsigned port = FIRST_PORT; server->port == 0 && port < FIRST_PORT + PORTS; port++)
    if (port_is_free (server->name, port))
      server->port = port;
  if (server->port != 0)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "no free port for the NBD server on '%s'",
             server->name);
  error_hint (errp, "is that an address of this host? Name a port: <server port='…'/>");
  return false;
}

static bool
check_socket (const char *path, TmkError **errp)
{
  if (strlen (path) >= sizeof ((struct sockaddr_un *) NULL)->sun_path) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "the socket's path '%s' is too long", path);
    error_hint (errp, "a unix socket's path has at most 107 bytes");
    return false;
  }
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

bool
server_check (QmpMachine *machine, BackupServer *server, TmkError **errp)
{
  bool tls = server->tls == 1;
  if (server->transport == BACKUP_SERVER_FD) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "transport='fd' needs a caller that can pass"
               " descriptors");
    error_hint (errp, "use transport='unix' or transport='tcp'");
    return false;
  }
  if (server->transport == BACKUP_SERVER_UNIX)
    return check_socket (server->socket, errp);
  if (may_freeze (machine, tls)) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "this QEMU could freeze with its guest when an NBD server on TCP%s is stopped",
               tls ? " with TLS" : "");
    error_hint (errp, "use <server transport='unix' socket='/…'/>");
    return false;
  }
  return choose_port (server, errp);
}

/* --- starting and stopping ------------------------------------------------------------------- */

bool
server_start (QmpMachine *machine, const BackupServer *server, const char *tls, TmkError **errp)
{
  json_t *addr;
  if (server->transport == BACKUP_SERVER_UNIX) {
    addr = json_pack ("{s:s, s:{s:s}}", "type", "unix", "data", "path", server->socket);
  } else {
    g_autofree char *port = g_strdup_printf ("%u", server->port);
    addr = json_pack ("{s:s, s:{s:s, s:s}}", "type", "inet", "data", "host", server->name, "port",
                      port);
  }
  json_t *start = json_pack ("{s:o}", "addr", addr);
  if (tls != NULL)
    json_object_set_new (start, "tls-creds", json_string (tls));
  if (qmp_run (machine->client, "nbd-server-start", start, errp))
    return true;
  error_prefix (errp, "cannot start QEMU's NBD server");
  error_hint (errp, "QEMU has one NBD server: is it in use? QEMU must be able to listen there");
  return false;
}

/* How many clients are connected to the unix socket `path`, as /proc/net/unix tells: a line a
 * socket, state 03 being connected, the path last. */
static unsigned
count_clients (const char *path)
{
  size_t len;
  g_autofree char *text = fsx_read_file ("/proc/net/unix", 64 << 20, &len, NULL);
  g_auto (GStrv) lines = g_strsplit (text != NULL ? text : "", "\n", -1);
  unsigned n = 0;
  for (char **line = lines; *line != NULL; line++) {
    g_auto (GStrv) fields = g_strsplit_set (*line, " ", -1);
    guint last = g_strv_length (fields);
    if (last < 8 || !g_str_equal (fields[last - 1], path))
      continue;
    if (g_str_equal (fields[5], "03"))
      n++;
  }
  return n;
}

bool
server_stop (QmpMachine *machine, const char *socket, bool tls, TmkError **errp)
{
  if (socket != NULL) {
    if (access (socket, F_OK) != 0)
      return true;
    if (!fsx_remove (socket, errp))
      return false;
  }
  if (socket != NULL && may_freeze (machine, tls)) {
    gint64 deadline = g_get_monotonic_time () + NEGOTIATION_S * G_USEC_PER_SEC;
    while (count_clients (socket) > 0 && g_get_monotonic_time () < deadline)
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
