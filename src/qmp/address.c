/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qmp/address.c: see qmp/address.h and qmp_address_normalize(). No state; any thread. */
#include "qmp/address.h"

#include "qmp/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DOMAIN "qmp"

/* "HOST:PORT" or "[HOST]:PORT" in its parts; false where it is neither. */
static bool
split_host_port (const char *text, char **host, char **port)
{
  const char *colon = strrchr (text, ':');
  if (colon == NULL || colon == text)
    return false;
  guint64 number;
  if (!g_ascii_string_to_unsigned (colon + 1, 10, 1, 65535, &number, NULL))
    return false;
  size_t len = (size_t) (colon - text);
  if (text[0] == '[') {
    if (len < 3 || text[len - 1] != ']')
      return false;
    text++;
    len -= 2;
  } else if (memchr (text, ':', len) != NULL) {
    return false; /* an IPv6 address without brackets could be read in two ways */
  }
  *host = g_strndup (text, len);
  *port = g_strdup_printf ("%" G_GUINT64_FORMAT, number);
  return true;
}

static char *
normalize_unix (const char *path, TmkError **errp)
{
  if (path[0] == '\0') {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "monitor address '' is empty");
    return NULL;
  }
  if (path[0] != '/') {
    /* Not g_canonicalize_filename(): it takes "link/.." away, which is another folder. */
    while (g_str_has_prefix (path, "./"))
      path += 2;
    g_autofree char *cwd = g_get_current_dir ();
    return g_strdup_printf ("unix:%s/%s", g_str_equal (cwd, "/") ? "" : cwd, path);
  }
  while (path[1] == '/')
    path++;
  return g_strdup_printf ("unix:%s", path);
}

char *
qmp_address_normalize (const char *addr, TmkError **errp)
{
  if (!g_str_has_prefix (addr, "tcp:"))
    return normalize_unix (g_str_has_prefix (addr, "unix:") ? addr + 5 : addr, errp);

  g_autofree char *host = NULL, *port = NULL;
  if (!split_host_port (addr + 4, &host, &port)) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "monitor address '%s' is not tcp:HOST:PORT", addr);
    error_hint (errp, "write tcp:HOST:PORT, an IPv6 host in brackets, or the path of a socket");
    return NULL;
  }
  bool is_ipv6 = strchr (host, ':') != NULL;
  return g_strdup_printf (is_ipv6 ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

static int
remaining_ms (gint64 deadline)
{
  gint64 left = deadline - g_get_monotonic_time ();
  return left <= 0 ? 0 : (int) MIN ((left + 999) / 1000, G_MAXINT);
}

/* Waits for a connect() that is under way; 0 or an errno. */
static int
finish_connect (int fd, gint64 deadline)
{
  for (;;) {
    struct pollfd pfd = { .fd = fd, .events = POLLOUT };
    int n = poll (&pfd, 1, remaining_ms (deadline));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return errno;
    if (n == 0)
      return ETIMEDOUT;
    int err = 0;
    socklen_t len = sizeof err;
    return getsockopt (fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : errno;
  }
}

/* 0 or an errno. */
static int
try_connect (int fd, const struct sockaddr *sa, socklen_t len, gint64 deadline)
{
  for (;;) {
    if (connect (fd, sa, len) == 0)
      return 0;
    int err = errno;
    if (err == EINPROGRESS || err == EINTR)
      return finish_connect (fd, deadline);
    /* A unix socket whose queue of waiting clients is full. There is nothing to poll for. */
    if (err != EAGAIN || remaining_ms (deadline) == 0)
      return err;
    g_usleep (20000);
  }
}

static void
explain (const char *addr, int err, TmkError **errp)
{
  switch (err) {
  case EAGAIN:
    error_set (errp, DOMAIN, TMK_ERR_BUSY, err,
               "monitor busy: '%s' is held by another client, and more wait for it", addr);
    error_hint (errp, "close the other clients (if there are none, QEMU hangs), or give QEMU a "
                      "second -qmp socket (libvirt "
                      "holds the monitors of its own domains)");
    return;
  case ECONNREFUSED:
    error_set (errp, DOMAIN, TMK_ERR_GONE, err, "nobody listens at '%s'", addr);
    error_hint (errp, "check that the QEMU that made this socket still runs");
    return;
  case ENOENT:
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, err, "there is no socket '%s'", addr);
    error_hint (errp, "check the path, and that QEMU was started with -qmp unix:PATH,server=on,"
                      "wait=off");
    return;
  case EACCES:
  case EPERM:
    error_set_errno (errp, DOMAIN, err, "cannot connect to '%s'", addr);
    error_hint (errp, "run as the user that owns the socket, or as root");
    return;
  default:
    error_set_errno (errp, DOMAIN, err, "cannot connect to '%s'", addr);
  }
}

/* Fills `sun` for `path`. A path that does not fit is opened, and named by the descriptor, which is
 * stored in `*via` and must stay open until connect() is done. 0 or an errno. */
static int
unix_address (const char *path, struct sockaddr_un *sun, int *via)
{
  *sun = (struct sockaddr_un){ .sun_family = AF_UNIX };
  *via = -1;
  if (strlen (path) < sizeof sun->sun_path) {
    strcpy (sun->sun_path, path);
    return 0;
  }
  *via = open (path, O_PATH | O_CLOEXEC);
  if (*via < 0)
    return errno;
  snprintf (sun->sun_path, sizeof sun->sun_path, "/proc/self/fd/%d", *via);
  return 0;
}

static int
connect_unix (const char *addr, const char *path, gint64 deadline, TmkError **errp)
{
  struct sockaddr_un sun;
  int via;
  int err = unix_address (path, &sun, &via);
  int fd = err == 0 ? socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
  if (err == 0)
    err = fd < 0 ? errno : try_connect (fd, (struct sockaddr *) &sun, sizeof sun, deadline);
  if (via >= 0)
    close (via);
  if (err == 0)
    return fd;

  if (fd >= 0)
    close (fd);
  struct stat st;
  if (err == ECONNREFUSED && stat (path, &st) == 0 && !S_ISSOCK (st.st_mode)) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, err, "'%s' is not a socket", path);
    error_hint (errp,
                "give the socket that QEMU was started with: -qmp unix:PATH,server=on,wait=off");
  } else {
    explain (addr, err, errp);
  }
  return -1;
}

static int
connect_tcp (const char *addr, const char *host_port, gint64 deadline, TmkError **errp)
{
  g_autofree char *host = NULL, *port = NULL;
  bool ok = split_host_port (host_port, &host, &port);
  g_assert (ok); /* it was normalized */
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
  struct addrinfo *list = NULL;
  int gai = getaddrinfo (host, port, &hints, &list);
  if (gai != 0) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, gai == EAI_SYSTEM ? errno : 0,
               "cannot find host '%s': %s", host, gai_strerror (gai));
    return -1;
  }

  int err = ENOENT, fd = -1;
  for (struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next) {
    fd = socket (ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
    err = fd < 0 ? errno : try_connect (fd, ai->ai_addr, ai->ai_addrlen, deadline);
    if (err != 0 && fd >= 0) {
      close (fd);
      fd = -1;
    }
  }
  freeaddrinfo (list);
  if (fd < 0) {
    explain (addr, err, errp);
    return -1;
  }
  /* Commands are small and each is waited for. */
  (void) setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof (int));
  return fd;
}

int
qmp_address_connect (const char *addr, gint64 deadline, TmkError **errp)
{
  if (g_str_has_prefix (addr, "tcp:"))
    return connect_tcp (addr, addr + 4, deadline, errp);
  g_assert (g_str_has_prefix (addr, "unix:"));
  return connect_unix (addr, addr + 5, deadline, errp);
}
