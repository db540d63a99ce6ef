/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/relay.c: see hv/relay.h.
 *
 * In the relay nothing blocks but poll(): each connection has a buffer each way, is asked for bytes
 * only while its buffer has room and for room only while there are bytes, so one that takes nothing
 * keeps nobody else. A client that has said all (half-closed) still gets its answers; when QEMU has
 * said all, the connection ends. Nothing is reported: there is nobody to report to, and both ends
 * see a connection that is gone.
 */
#include "hv/relay.h"

#include "hv/offspring.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DOMAIN "hv"
#define BUFFER (256 * 1024)
#define LOOK_MS 5000 /* how often it looks whether its lock file is still there */
#define RETRY_MS 50  /* when a connection could not be accepted or passed on */
#define END_TIMEOUT_US (10 * G_USEC_PER_SEC)

/* --- listening ------------------------------------------------------------------------------- */

static int
listen_at (const struct addrinfo *where)
{
  int one = 1;
  int fd = socket (where->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -1;
  if (setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0
      && (where->ai_family != AF_INET6
          || setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0)
      && bind (fd, where->ai_addr, where->ai_addrlen) == 0 && listen (fd, SOMAXCONN) == 0)
    return fd;
  int err = errno;
  close (fd);
  errno = err;
  return -1;
}

/* An address that this machine does not have (IPv6 may be off) is left out while another is there;
 * one that is taken is not. */
static int
listen_at_all (RelayListener *listener, const struct addrinfo *list)
{
  int err = EADDRNOTAVAIL;
  for (; list != NULL && listener->n < RELAY_ADDRESSES; list = list->ai_next) {
    int fd = listen_at (list);
    if (fd >= 0)
      listener->fds[listener->n++] = fd;
    else if (errno != EADDRNOTAVAIL && errno != EAFNOSUPPORT)
      return errno;
    else
      err = errno;
  }
  return listener->n > 0 ? 0 : err;
}

bool
relay_listen (RelayListener *listener, const char *host, unsigned port, TmkError **errp)
{
  g_autofree char *service = g_strdup_printf ("%u", port);
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
  struct addrinfo *list = NULL;
  *listener = (RelayListener){ .n = 0 };
  int failed = getaddrinfo (host, service, &hints, &list);
  int err = failed == 0 ? listen_at_all (listener, list) : 0;
  if (failed == 0)
    freeaddrinfo (list);
  if (failed == 0 && err == 0)
    return true;
  relay_listener_close (listener);
  error_set (errp, DOMAIN, err == EADDRINUSE ? TMK_ERR_BUSY : TMK_ERR_INVALID, err,
             "cannot listen on port %u of '%s': %s", port, host,
             failed != 0 ? gai_strerror (failed) : g_strerror (err));
  error_hint (errp, "is it in use, or that no address of this host? Leave the port out to get a"
                    " free one");
  return false;
}

void
relay_listener_close (RelayListener *listener)
{
  while (listener->n > 0)
    close (listener->fds[--listener->n]);
}

/* --- carrying (in the relay's process from here on) ------------------------------------------ */

/* Bytes from one socket to the other. */
typedef struct {
  char *data; /* BUFFER bytes */
  size_t start, end;
  bool eof; /* no more will come */
} Flow;

typedef struct {
  int client, qemu; /* qemu is -1 until QEMU can be reached */
  Flow in, out;     /* from the client, to the client */
} Link;

typedef struct {
  struct sockaddr_un address;
  int listeners[RELAY_ADDRESSES];
  size_t n_listeners;
  int life, lock;
  Link *links;
  size_t n_links, room;
  struct pollfd *polls; /* life, listeners, then two a link */
} Relay;

static void
link_clear (Link *link)
{
  close (link->client);
  if (link->qemu >= 0)
    close (link->qemu);
  free (link->in.data);
  free (link->out.data);
}

/* False: the receiver is gone. */
static bool
flow_send (Flow *flow, int to)
{
  while (flow->start < flow->end) {
    ssize_t n = send (to, flow->data + flow->start, flow->end - flow->start, MSG_NOSIGNAL);
    if (n < 0)
      return errno == EAGAIN || errno == EINTR;
    flow->start += (size_t) n;
  }
  flow->start = flow->end = 0;
  return true;
}

/* False: the connection has failed. */
static bool
flow_move (Flow *flow, int from, int to)
{
  if (flow->end < BUFFER && !flow->eof) {
    ssize_t n = recv (from, flow->data + flow->end, BUFFER - flow->end, 0);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
      return false;
    flow->eof = n == 0;
    flow->end += n > 0 ? (size_t) n : 0;
  }
  if (flow->start == flow->end && !flow->eof)
    return true;
  if (!flow_send (flow, to))
    return false;
  if (flow->eof && flow->end == 0)
    (void) shutdown (to, SHUT_WR); /* a peer that is gone shows at the next step */
  return true;
}

/* What a flow waits for at its source and at its destination. */
static void
flow_events (const Flow *flow, struct pollfd *from, struct pollfd *to)
{
  if (!flow->eof && flow->end < BUFFER)
    from->events |= POLLIN;
  if (flow->end > flow->start)
    to->events |= POLLOUT;
}

/* Where QEMU cannot be reached the connection is none; while its queue is full, it is not yet. */
static bool
link_connect (const Relay *relay, Link *link)
{
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0
      && connect (fd, (const struct sockaddr *) &relay->address, sizeof relay->address) == 0) {
    link->qemu = fd;
    return true;
  }
  bool later = fd >= 0 && errno == EAGAIN;
  if (fd >= 0)
    close (fd);
  return later;
}

/* False: it has ended. */
static bool
link_step (const Relay *relay, Link *link, const struct pollfd *client, const struct pollfd *qemu)
{
  if (link->qemu < 0)
    return link_connect (relay, link);
  if (client->revents == 0 && qemu->revents == 0)
    return true;
  if (((client->revents | qemu->revents) & (POLLERR | POLLNVAL)) != 0)
    return false;
  if (!flow_move (&link->in, link->client, link->qemu)
      || !flow_move (&link->out, link->qemu, link->client))
    return false;
  return !link->out.eof || link->out.end > 0;
}

/* False: no room for another one now. */
static bool
relay_add (Relay *relay, int client)
{
  int one = 1;
  if (relay->n_links == relay->room) {
    size_t room = relay->room * 2 + 16;
    Link *links = realloc (relay->links, room * sizeof *links);
    if (links != NULL)
      relay->links = links;
    struct pollfd *polls = realloc (relay->polls, (1 + RELAY_ADDRESSES + 2 * room) * sizeof *polls);
    if (polls != NULL)
      relay->polls = polls;
    if (links == NULL || polls == NULL)
      return false;
    relay->room = room;
  }
  Link link = { .client = client, .qemu = -1, { malloc (BUFFER) }, { malloc (BUFFER) } };
  if (link.in.data == NULL || link.out.data == NULL) {
    free (link.in.data);
    free (link.out.data);
    return false;
  }
  /* Answers must not wait for more of them; and who has vanished is to be noticed some time. */
  (void) setsockopt (client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  (void) setsockopt (client, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  relay->links[relay->n_links++] = link;
  return true;
}

/* False: somebody waits who could not be taken. */
static bool
relay_accept (Relay *relay, int listener)
{
  for (;;) {
    int client = accept4 (listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0)
      return errno == EAGAIN || errno == ECONNABORTED || errno == EINTR;
    if (!relay_add (relay, client)) {
      close (client);
      return false;
    }
    if (!link_connect (relay, &relay->links[relay->n_links - 1]))
      link_clear (&relay->links[--relay->n_links]);
  }
}

/* Fills in what to wait for; how many. `listening`: new ones are welcome. */
static nfds_t
relay_polls (Relay *relay, bool listening, int *timeout)
{
  struct pollfd *poll = relay->polls;
  *timeout = listening ? LOOK_MS : RETRY_MS;
  *poll++ = (struct pollfd){ .fd = relay->life };
  for (size_t i = 0; i < relay->n_listeners; i++)
    *poll++ = (struct pollfd){ .fd = listening ? relay->listeners[i] : -1, .events = POLLIN };
  for (size_t i = 0; i < relay->n_links; i++) {
    const Link *link = &relay->links[i];
    poll[0] = (struct pollfd){ .fd = link->qemu >= 0 ? link->client : -1 };
    poll[1] = (struct pollfd){ .fd = link->qemu };
    flow_events (&link->in, &poll[0], &poll[1]);
    flow_events (&link->out, &poll[1], &poll[0]);
    for (int side = 0; side < 2; side++)
      if (poll[side].events == 0)
        poll[side].fd = -1; /* else a peer that is gone would be reported over and over */
    if (link->qemu < 0)
      *timeout = RETRY_MS;
    poll += 2;
  }
  return (nfds_t) (poll - relay->polls);
}

static bool
relay_is_wanted (const Relay *relay)
{
  struct stat st;
  return relay->polls[0].revents == 0 && fstat (relay->lock, &st) == 0 && st.st_nlink > 0;
}

static void
relay_run (Relay *relay)
{
  bool listening = true;
  for (;;) {
    int timeout;
    nfds_t n = relay_polls (relay, listening, &timeout);
    if (poll (relay->polls, n, timeout) < 0 && errno != EINTR)
      return;
    if (!relay_is_wanted (relay))
      return;
    const struct pollfd *of_link = relay->polls + 1 + relay->n_listeners;
    size_t kept = 0;
    for (size_t i = 0; i < relay->n_links; i++, of_link += 2) {
      Link link = relay->links[i];
      if (link_step (relay, &link, &of_link[0], &of_link[1]))
        relay->links[kept++] = link;
      else
        link_clear (&link);
    }
    relay->n_links = kept;
    listening = true; /* and last, for a new link has no place in `polls` yet */
    for (size_t i = 0; i < relay->n_listeners; i++)
      listening = relay_accept (relay, relay->listeners[i]) && listening;
  }
}

/* --- the process ----------------------------------------------------------------------------- */

static bool
take_lock (int fd)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  return fcntl (fd, F_SETLK, &lock) == 0;
}

typedef struct {
  const RelayListener *listener;
  const char *path;
} Task;

/* `fds`: the life line, the lock, where to say that it is ready, and the listeners. */
static void
serve (const int *fds, const void *data)
{
  const Task *task = data;
  struct rlimit files;
  Relay relay = { .address.sun_family = AF_UNIX, .life = fds[0], .lock = fds[1] };
  g_strlcpy (relay.address.sun_path, task->path, sizeof relay.address.sun_path);
  relay.n_listeners = task->listener->n;
  memcpy (relay.listeners, fds + 3, relay.n_listeners * sizeof *fds);
  (void) prctl (PR_SET_NAME, "tidemark-relay");
  if (getrlimit (RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void) setrlimit (RLIMIT_NOFILE, &files); /* it only bounds the clients */
  }
  relay.polls = calloc (1 + RELAY_ADDRESSES, sizeof *relay.polls);
  /* The lock is the process's, so it is taken here; no descriptor of that file is closed after. */
  if (relay.polls != NULL && take_lock (relay.lock) && write (fds[2], "r", 1) == 1) {
    close (fds[2]);
    relay_run (&relay);
  }
}

static void
close_all (const int *fds, size_t n)
{
  for (size_t i = 0; i < n; i++)
    if (fds[i] >= 0)
      close (fds[i]);
}

/* Did the relay begin to serve? */
static bool
is_ready (int fd)
{
  char word;
  ssize_t n;
  do
    n = read (fd, &word, 1);
  while (n < 0 && errno == EINTR);
  return n == 1;
}

int
relay_start (const RelayListener *listener, const char *path, const char *lock_path,
             TmkError **errp)
{
  Task task = { listener, path };
  int life[2] = { -1, -1 }, ready[2] = { -1, -1 };
  testpoint ("relay");
  int lock = open (lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  bool ok = lock >= 0 && pipe2 (life, O_CLOEXEC) == 0 && pipe2 (ready, O_CLOEXEC) == 0;
  int fds[RELAY_ADDRESSES + 3] = { life[0], lock, ready[1] };
  memcpy (fds + 3, listener->fds, listener->n * sizeof *fds);
  ok = ok && offspring_start (serve, fds, 3 + listener->n, &task);
  int err = ok ? EAGAIN : errno;
  close_all (fds, 3);
  ok = ok && is_ready (ready[0]);
  close_all (ready, 1);
  testpoint ("relay:done");
  if (ok)
    return life[1];
  close_all (life + 1, 1);
  error_set_errno (errp, DOMAIN, err, "cannot start the process that serves TCP clients");
  return -1;
}

/* --- its end --------------------------------------------------------------------------------- */

/* The process that holds the lock, 0: nobody, -1: the kernel does not say. */
static pid_t
holder_of (const char *lock_path)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  int fd = open (lock_path, O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return errno == ENOENT ? 0 : -1;
  int failed = fcntl (fd, F_GETLK, &lock);
  close (fd);
  if (failed != 0)
    return -1;
  return lock.l_type == F_UNLCK ? 0 : lock.l_pid > 0 ? lock.l_pid : -1;
}

bool
relay_lives (const char *lock_path)
{
  return holder_of (lock_path) != 0;
}

bool
relay_end (const char *lock_path, TmkError **errp)
{
  gint64 begun = g_get_monotonic_time ();
  for (pid_t pid = holder_of (lock_path); pid != 0; pid = holder_of (lock_path)) {
    gint64 waited = g_get_monotonic_time () - begun;
    if (pid < 0 || (kill (pid, SIGKILL) != 0 && errno != ESRCH) || waited > END_TIMEOUT_US) {
      error_set (errp, DOMAIN, TMK_ERR_FAILED, 0,
                 "cannot end the process that serves TCP clients, which holds '%s'", lock_path);
      error_hint (errp, "end it: 'fuser %s' tells its number", lock_path);
      return false;
    }
    g_usleep (1000);
  }
  return fsx_remove (lock_path, errp);
}
