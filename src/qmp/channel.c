/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qmp/channel.c: see qmp/channel.h. */
#include "qmp/channel.h"

#include "qmp/address.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DOMAIN "qmp"
#define PIECE 65536

void
qmp_channel_trace (const QmpChannel *channel, char direction, json_t *message)
{
  if (!channel->trace)
    return;
  if (channel->hide && direction == '<') {
    fputs ("< (hidden)\n", stderr);
    return;
  }
  char *text = json_dumps (message, JSON_COMPACT);
  fprintf (stderr, "%c %s\n", direction, text != NULL ? text : "(not UTF-8)");
  free (text);
}

/* --- the queue of events */

static json_t *
event_data_string (json_t *event, const char *key)
{
  return json_object_get (json_object_get (event, "data"), key);
}

static bool
event_matches (json_t *event, const char *name, const char *key, const char *value)
{
  if (name != NULL && g_strcmp0 (json_string_value (json_object_get (event, "event")), name) != 0)
    return false;
  return key == NULL || g_strcmp0 (json_string_value (event_data_string (event, key)), value) == 0;
}

json_t *
qmp_channel_take_event (QmpChannel *channel, const char *name, const char *key, const char *value)
{
  for (GList *link = channel->events.head; link != NULL; link = link->next) {
    json_t *event = link->data;
    if (event_matches (event, name, key, value)) {
      g_queue_delete_link (&channel->events, link);
      return event;
    }
  }
  return NULL;
}

static void
push_event (QmpChannel *channel, json_t *event /* stolen */)
{
  if (channel->events.length >= QMP_EVENTS_MAX) {
    const char *name = json_string_value (json_object_get (event, "event"));
    json_t *victim = qmp_channel_take_event (channel, name, NULL, NULL);
    json_decref (victim != NULL ? victim : g_queue_pop_head (&channel->events));
  }
  g_queue_push_tail (&channel->events, event);
}

/* --- the connection */

/* The next message that is whole, or NULL (an error only where the stream is not QMP). Events go to
 * the queue on the way. */
static json_t *
next_buffered (QmpChannel *channel, TmkError **errp)
{
  json_t *message;
  while ((message = qmp_reader_next (channel->reader, errp)) != NULL) {
    qmp_channel_trace (channel, '<', message);
    if (!json_is_string (json_object_get (message, "event")))
      return message;
    push_event (channel, message);
  }
  return NULL;
}

void
qmp_channel_hang_up (QmpChannel *channel)
{
  if (channel->fd < 0)
    return;
  char buf[PIECE];
  /* What QEMU said last may tell why it went: SHUTDOWN. A bound, for a peer that never stops. */
  for (int i = 0; i < 16; i++) {
    ssize_t n = recv (channel->fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n <= 0)
      break;
    qmp_reader_feed (channel->reader, buf, (size_t) n);
  }
  json_t *message;
  while ((message = next_buffered (channel, NULL)) != NULL)
    json_decref (message); /* a reply that nobody waits for */
  close (channel->fd);
  channel->fd = -1;
}

static void
lost (QmpChannel *channel, int err, TmkError **errp)
{
  if (err == 0 || err == ECONNRESET || err == EPIPE) {
    error_set (errp, DOMAIN, TMK_ERR_GONE, err, "QEMU closed the connection to '%s'",
               channel->addr);
    error_hint (errp, "check whether QEMU still runs, and its log");
  } else {
    error_set_errno (errp, DOMAIN, err, "connection to '%s' failed", channel->addr);
  }
  qmp_channel_hang_up (channel);
}

/* Waits for `events` until `deadline`: what came, 0 on time-out, -1 with errno. */
static int
wait_for (int fd, short events, gint64 deadline)
{
  for (;;) {
    struct pollfd pfd = { .fd = fd, .events = events };
    gint64 left = MAX (deadline - g_get_monotonic_time (), 0);
    int n = poll (&pfd, 1, (int) MIN ((left + 999) / 1000, G_MAXINT));
    if (n >= 0)
      return n == 0 ? 0 : pfd.revents;
    if (errno != EINTR)
      return -1;
  }
}

/* Reads once what is there. False: the connection ended. */
static bool
fill (QmpChannel *channel, TmkError **errp)
{
  char buf[PIECE];
  ssize_t n = recv (channel->fd, buf, sizeof buf, 0);
  if (n > 0) {
    qmp_reader_feed (channel->reader, buf, (size_t) n);
    return true;
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return true;
  lost (channel, n < 0 ? errno : 0, errp);
  return false;
}

/* As next_buffered(); a stream that is not QMP also ends the connection. */
json_t *
qmp_channel_next (QmpChannel *channel, TmkError **errp)
{
  TmkError *err = NULL;
  json_t *message = next_buffered (channel, &err);
  if (err != NULL) {
    error_prefix (&err, "'%s'", channel->addr);
    error_hint (&err, "give the address of a QMP monitor, as in qemu -qmp unix:PATH,server=on,"
                      "wait=off");
    error_propagate (errp, err);
    qmp_channel_hang_up (channel);
  }
  return message;
}

bool
qmp_channel_wait (QmpChannel *channel, gint64 deadline, bool *late, TmkError **errp)
{
  /* Who talks without end must not keep us for ever: some grace, to take in what is there. */
  bool babble = g_get_monotonic_time () > deadline + G_USEC_PER_SEC;
  int ready = babble ? 0 : wait_for (channel->fd, POLLIN, deadline);
  *late = ready == 0;
  if (ready < 0)
    lost (channel, errno, errp);
  return ready > 0 && fill (channel, errp);
}

json_t *
qmp_channel_receive (QmpChannel *channel, gint64 deadline, bool *late, TmkError **errp)
{
  *late = false;
  do {
    json_t *message = qmp_channel_next (channel, errp);
    if (message != NULL || channel->fd < 0)
      return message;
  } while (qmp_channel_wait (channel, deadline, late, errp));
  return NULL;
}

/* As send(), with the descriptor that is to be passed. */
static ssize_t
send_some (QmpChannel *channel, const char *data, size_t len)
{
  union {
    char bytes[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control = { { 0 } };
  struct iovec vec = { .iov_base = (char *) data, .iov_len = len };
  struct msghdr message = { .msg_iov = &vec, .msg_iovlen = 1 };
  if (channel->passed >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR (&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN (sizeof (int));
    memcpy (CMSG_DATA (header), &channel->passed, sizeof (int));
  }
  ssize_t n = sendmsg (channel->fd, &message, MSG_NOSIGNAL);
  if (n > 0)
    channel->passed = -1;
  return n;
}

bool
qmp_channel_send (QmpChannel *channel, const char *data, size_t len, gint64 deadline, bool *late,
                  TmkError **errp)
{
  *late = false;
  while (len > 0) {
    ssize_t n = send_some (channel, data, len);
    if (n >= 0) {
      data += n;
      len -= (size_t) n;
      continue;
    }
    if (errno == EINTR)
      continue;
    if (errno != EAGAIN) {
      lost (channel, errno, errp);
      return false;
    }
    int ready = wait_for (channel->fd, POLLIN | POLLOUT, deadline);
    *late = ready == 0;
    if (ready < 0)
      lost (channel, errno, errp);
    if (ready <= 0)
      return false;
    if ((ready & (POLLIN | POLLHUP | POLLERR)) != 0 && !fill (channel, errp))
      return false;
  }
  return true;
}

/* --- its life */

void
qmp_channel_init (QmpChannel *channel, char *addr)
{
  *channel = (QmpChannel){ .addr = addr, .fd = -1, .passed = -1 };
  channel->trace = g_strcmp0 (getenv ("TIDEMARK_QMP_TRACE"), "1") == 0;
  g_queue_init (&channel->events);
}

bool
qmp_channel_connect (QmpChannel *channel, gint64 deadline, TmkError **errp)
{
  channel->fd = qmp_address_connect (channel->addr, deadline, errp);
  if (channel->fd < 0)
    return false;
  qmp_reader_free (channel->reader);
  channel->reader = qmp_reader_new (QMP_MESSAGE_MAX);
  return true;
}

void
qmp_channel_clear (QmpChannel *channel)
{
  if (channel->fd >= 0)
    close (channel->fd);
  qmp_reader_free (channel->reader);
  json_t *event;
  while ((event = g_queue_pop_head (&channel->events)) != NULL)
    json_decref (event);
  g_free (channel->addr);
}
