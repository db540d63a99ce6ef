/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/agent.c: see hv/agent.h.
 *
 * Byte 0xFF is in no JSON text. Whoever reads one drops what came before it; the agent sends one
 * ahead of its answer to guest-sync-delimited, and we ahead of that command. One thread.
 */
#include "hv/agent.h"

#include "qmp/address.h"
#include "qmp/reader.h"
#include "util/jsonx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DOMAIN "agent"
#define MESSAGE_MAX (1 << 20)
#define DELIMITER 0xff

struct Agent {
  int fd;
  bool delimited;    /* a 0xFF has come: what follows is meant for us */
  QmpReader *reader; /* of what came after the last one */
};

static gint64
deadline_in (unsigned timeout_ms)
{
  return g_get_monotonic_time () + (gint64) timeout_ms * 1000;
}

static bool
wait_for (Agent *agent, short events, gint64 deadline, TmkError **errp)
{
  for (;;) {
    gint64 left = MAX (deadline - g_get_monotonic_time (), 0);
    struct pollfd pfd = { .fd = agent->fd, .events = events };
    int n = poll (&pfd, 1, (int) MIN ((left + 999) / 1000, G_MAXINT));
    if (n > 0)
      return true;
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      error_set_errno (errp, DOMAIN, errno, "the guest agent's socket");
    else
      error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, ETIMEDOUT, "the guest agent does not answer");
    return false;
  }
}

static bool
send_all (Agent *agent, const char *data, size_t len, gint64 deadline, TmkError **errp)
{
  while (len > 0) {
    ssize_t n = send (agent->fd, data, len, MSG_NOSIGNAL);
    if (n >= 0) {
      data += n;
      len -= (size_t) n;
    } else if (errno == EAGAIN) {
      if (!wait_for (agent, POLLOUT, deadline, errp))
        return false;
    } else if (errno != EINTR) {
      error_set (errp, DOMAIN, TMK_ERR_GONE, errno, "the guest agent's socket was closed");
      return false;
    }
  }
  return true;
}

/* Hands what came to the reader, from the last delimiter on. */
static void
feed (Agent *agent, const guint8 *data, size_t len)
{
  const guint8 *last = memrchr (data, DELIMITER, len);
  if (last != NULL) {
    agent->delimited = true;
    qmp_reader_free (agent->reader);
    agent->reader = qmp_reader_new (MESSAGE_MAX);
    len -= (size_t) (last + 1 - data);
    data = last + 1;
  }
  if (agent->delimited)
    qmp_reader_feed (agent->reader, data, len);
}

/* The next message, a new reference. */
static json_t *
receive (Agent *agent, gint64 deadline, TmkError **errp)
{
  for (;;) {
    TmkError *err = NULL;
    json_t *message = qmp_reader_next (agent->reader, &err);
    if (message != NULL)
      return message;
    if (err != NULL) {
      error_propagate (errp, err);
      error_prefix (errp, "the guest agent");
      return NULL;
    }
    guint8 piece[4096];
    ssize_t n = recv (agent->fd, piece, sizeof piece, 0);
    if (n > 0) {
      feed (agent, piece, (size_t) n);
    } else if (n < 0 && errno == EAGAIN) {
      if (!wait_for (agent, POLLIN, deadline, errp))
        return NULL;
    } else if (n == 0 || errno != EINTR) {
      error_set (errp, DOMAIN, TMK_ERR_GONE, n == 0 ? 0 : errno,
                 "the guest agent's socket was closed");
      return NULL;
    }
  }
}

/* Sends a command. `prefix`: what goes ahead of it. */
static bool
command (Agent *agent, const char *prefix, json_t *message /* stolen */, gint64 deadline,
         TmkError **errp)
{
  char *text = json_dumps (message, JSON_COMPACT);
  g_autofree char *line = g_strdup_printf ("%s%s\n", prefix, text);
  free (text); /* jansson's, from malloc */
  json_decref (message);
  return send_all (agent, line, strlen (line), deadline, errp);
}

static bool
synchronize (Agent *agent, gint64 deadline, TmkError **errp)
{
  json_int_t id = (json_int_t) (g_random_int () & 0x7fffffff);
  json_t *message
      = json_pack ("{s:s, s:{s:I}}", "execute", "guest-sync-delimited", "arguments", "id", id);
  if (!command (agent, "\xff", message, deadline, errp))
    return false;
  for (;;) {
    g_autoptr (json_t) reply = receive (agent, deadline, errp);
    if (reply == NULL)
      return false;
    const json_t *value = json_object_get (reply, "return");
    if (json_is_integer (value) && json_integer_value (value) == id)
      return true; /* others are answers to clients before us */
  }
}

Agent *
agent_open (const char *path, unsigned timeout_ms, TmkError **errp)
{
  gint64 deadline = deadline_in (timeout_ms);
  g_autofree char *absolute = g_canonicalize_filename (path, NULL);
  g_autofree char *address = g_strconcat ("unix:", absolute, NULL);
  g_autoptr (Agent) agent = g_new0 (Agent, 1);
  agent->reader = qmp_reader_new (MESSAGE_MAX);
  agent->fd = qmp_address_connect (address, deadline, errp);
  return agent->fd >= 0 && synchronize (agent, deadline, errp) ? g_steal_pointer (&agent) : NULL;
}

void
agent_free (Agent *agent)
{
  if (agent == NULL)
    return;
  if (agent->fd >= 0)
    close (agent->fd);
  qmp_reader_free (agent->reader);
  g_free (agent);
}

/* Runs guest-fsfreeze-… and stores the number that it returns. */
static bool
run (Agent *agent, const char *name, unsigned timeout_ms, gint64 *number, TmkError **errp)
{
  gint64 deadline = deadline_in (timeout_ms);
  if (!command (agent, "", json_pack ("{s:s}", "execute", name), deadline, errp))
    return false;
  g_autoptr (json_t) reply = receive (agent, deadline, errp);
  if (reply == NULL)
    return false;
  const json_t *value = json_object_get (reply, "return");
  const char *desc = jsonx_string (json_object_get (reply, "error"), "desc");
  if (json_is_integer (value)) {
    *number = json_integer_value (value);
    return true;
  }
  bool refused = json_object_get (reply, "error") != NULL;
  error_set (errp, DOMAIN, refused ? TMK_ERR_FAILED : TMK_ERR_INVALID, 0,
             "the guest agent refused %s: %s", name,
             desc != NULL ? desc : "it answered something else");
  return false;
}

bool
agent_freeze (Agent *agent, unsigned timeout_ms, gint64 *frozen, TmkError **errp)
{
  testpoint ("agent:freeze");
  bool ok = run (agent, "guest-fsfreeze-freeze", timeout_ms, frozen, errp);
  testpoint ("agent:freeze:done");
  return ok;
}

bool
agent_thaw (Agent *agent, unsigned timeout_ms, TmkError **errp)
{
  gint64 thawed;
  testpoint ("agent:thaw");
  bool ok = run (agent, "guest-fsfreeze-thaw", timeout_ms, &thawed, errp);
  testpoint ("agent:thaw:done");
  return ok;
}
