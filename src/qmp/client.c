/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/client.c: see qmp/client.h.
 *
 * Every wait has a deadline in monotonic time and goes through poll(); the socket never blocks. An
 * id begins with a number drawn for each connection: QEMU finishes the command of a client that
 * died, and its reply may come to the next client, which must not take it for its own.
 *
 * Where the stream can no longer be trusted (it ended, it is not QMP, a reply is overdue), the
 * connection is closed; what had been received by then still reaches the queue of events.
 */
#include "qmp/client.h"

#include "qmp/address.h"
#include "qmp/reader.h"
#include "util/testpoint.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DOMAIN "qmp"
#define PIECE 65536

struct QmpClient {
  /* fixed */
  char *addr;
  QmpOptions opts;
  bool trace;
  /* of the connection; fd is -1 where there is none */
  int fd;
  QmpReader *reader;
  unsigned version;
  guint32 session; /* the first part of every id */
  unsigned serial; /* the second */
  bool hide;       /* a secret was sent and its reply is awaited: QEMU may repeat it */
  int passed;      /* to go with the next command, else -1 */
  /* kept when the connection ends */
  GQueue events; /* of json_t, oldest first */
};

static void
trace_message (const QmpClient *client, char direction, json_t *message)
{
  if (!client->trace)
    return;
  if (client->hide && direction == '<') {
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

static json_t *
pop_event (QmpClient *client, const char *name, const char *key, const char *value)
{
  for (GList *link = client->events.head; link != NULL; link = link->next) {
    json_t *event = link->data;
    if (event_matches (event, name, key, value)) {
      g_queue_delete_link (&client->events, link);
      return event;
    }
  }
  return NULL;
}

static void
push_event (QmpClient *client, json_t *event /* stolen */)
{
  if (client->events.length >= QMP_EVENTS_MAX) {
    const char *name = json_string_value (json_object_get (event, "event"));
    json_t *victim = pop_event (client, name, NULL, NULL);
    json_decref (victim != NULL ? victim : g_queue_pop_head (&client->events));
  }
  g_queue_push_tail (&client->events, event);
}

/* --- the connection */

/* The next message that is whole, or NULL (an error only where the stream is not QMP). Events go to
 * the queue on the way. */
static json_t *
next_buffered (QmpClient *client, TmkError **errp)
{
  json_t *message;
  while ((message = qmp_reader_next (client->reader, errp)) != NULL) {
    trace_message (client, '<', message);
    if (!json_is_string (json_object_get (message, "event")))
      return message;
    push_event (client, message);
  }
  return NULL;
}

static void
hang_up (QmpClient *client)
{
  if (client->fd < 0)
    return;
  char buf[PIECE];
  /* What QEMU said last may tell why it went: SHUTDOWN. A bound, for a peer that never stops. */
  for (int i = 0; i < 16; i++) {
    ssize_t n = recv (client->fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n <= 0)
      break;
    qmp_reader_feed (client->reader, buf, (size_t) n);
  }
  json_t *message;
  while ((message = next_buffered (client, NULL)) != NULL)
    json_decref (message); /* a reply that nobody waits for */
  close (client->fd);
  client->fd = -1;
}

static void
lost (QmpClient *client, int err, TmkError **errp)
{
  if (err == 0 || err == ECONNRESET || err == EPIPE) {
    error_set (errp, DOMAIN, TMK_ERR_GONE, err, "QEMU closed the connection to '%s'", client->addr);
    error_hint (errp, "check whether QEMU still runs, and its log");
  } else {
    error_set_errno (errp, DOMAIN, err, "connection to '%s' failed", client->addr);
  }
  hang_up (client);
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
fill (QmpClient *client, TmkError **errp)
{
  char buf[PIECE];
  ssize_t n = recv (client->fd, buf, sizeof buf, 0);
  if (n > 0) {
    qmp_reader_feed (client->reader, buf, (size_t) n);
    return true;
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return true;
  lost (client, n < 0 ? errno : 0, errp);
  return false;
}

/* As next_buffered(); a stream that is not QMP also ends the connection. */
static json_t *
next_message (QmpClient *client, TmkError **errp)
{
  TmkError *err = NULL;
  json_t *message = next_buffered (client, &err);
  if (err != NULL) {
    error_prefix (&err, "'%s'", client->addr);
    error_hint (&err, "give the address of a QMP monitor, as in qemu -qmp unix:PATH,server=on,"
                      "wait=off");
    error_propagate (errp, err);
    hang_up (client);
  }
  return message;
}

/* Waits for bytes and reads them. False: none came before `deadline` (`*late` is set), or none will
 * (an error is). */
static bool
pump (QmpClient *client, gint64 deadline, bool *late, TmkError **errp)
{
  /* Who talks without end must not keep us for ever: some grace, to take in what is there. */
  bool babble = g_get_monotonic_time () > deadline + G_USEC_PER_SEC;
  int ready = babble ? 0 : wait_for (client->fd, POLLIN, deadline);
  *late = ready == 0;
  if (ready < 0)
    lost (client, errno, errp);
  return ready > 0 && fill (client, errp);
}

/* The next message that is no event. NULL with `*late` set where none came before `deadline`; NULL
 * with an error and the connection closed where none will come. */
static json_t *
receive (QmpClient *client, gint64 deadline, bool *late, TmkError **errp)
{
  *late = false;
  do {
    json_t *message = next_message (client, errp);
    if (message != NULL || client->fd < 0)
      return message;
  } while (pump (client, deadline, late, errp));
  return NULL;
}

/* As send(), with the descriptor that is to be passed. */
static ssize_t
send_some (QmpClient *client, const char *data, size_t len)
{
  union {
    char bytes[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control = { { 0 } };
  struct iovec vec = { .iov_base = (char *) data, .iov_len = len };
  struct msghdr message = { .msg_iov = &vec, .msg_iovlen = 1 };
  if (client->passed >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR (&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN (sizeof (int));
    memcpy (CMSG_DATA (header), &client->passed, sizeof (int));
  }
  ssize_t n = sendmsg (client->fd, &message, MSG_NOSIGNAL);
  if (n > 0)
    client->passed = -1;
  return n;
}

/* Takes in replies' bytes while it waits: QEMU may not read on before we do. Fails as pump(). */
static bool
send_all (QmpClient *client, const char *data, size_t len, gint64 deadline, bool *late,
          TmkError **errp)
{
  *late = false;
  while (len > 0) {
    ssize_t n = send_some (client, data, len);
    if (n >= 0) {
      data += n;
      len -= (size_t) n;
      continue;
    }
    if (errno == EINTR)
      continue;
    if (errno != EAGAIN) {
      lost (client, errno, errp);
      return false;
    }
    int ready = wait_for (client->fd, POLLIN | POLLOUT, deadline);
    *late = ready == 0;
    if (ready < 0)
      lost (client, errno, errp);
    if (ready <= 0)
      return false;
    if ((ready & (POLLIN | POLLHUP | POLLERR)) != 0 && !fill (client, errp))
      return false;
  }
  return true;
}

/* --- secrets */

/* The data of the secret that `command` carries, or NULL. Borrowed. */
static json_t *
find_secret (const char *command, json_t *arguments)
{
  if (!g_str_equal (command, "object-add"))
    return NULL;
  json_t *data = json_object_get (arguments, "data");
  return json_is_string (data) ? data : NULL;
}

static json_t *
hide_secret (json_t *message)
{
  json_t *arguments = json_copy (json_object_get (message, "arguments"));
  json_object_set_new (arguments, "data", json_string ("(hidden)"));
  json_t *copy = json_copy (message);
  json_object_set_new (copy, "arguments", arguments);
  return copy;
}

/* --- commands */

static json_t *
build_message (const char *command, json_t *arguments, const char *id)
{
  json_t *message = json_pack ("{s:s}", "execute", command);
  if (arguments != NULL)
    json_object_set (message, "arguments", arguments);
  json_object_set_new (message, "id", json_string (id));
  return message;
}

static bool
send_command (QmpClient *client, const char *command, json_t *arguments, const char *id,
              gint64 deadline, bool *late, TmkError **errp)
{
  *late = false;
  g_autoptr (json_t) message = build_message (command, arguments, id);
  if (client->trace) {
    g_autoptr (json_t) shown = client->hide ? hide_secret (message) : json_incref (message);
    trace_message (client, '>', shown);
  }
  char *text = json_dumps (message, JSON_COMPACT);
  if (text == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "arguments of '%s' are not UTF-8", command);
    return false;
  }
  size_t len = strlen (text);
  text[len] = '\n'; /* in place of the NUL */
  bool ok = send_all (client, text, len + 1, deadline, late, errp);
  if (client->hide)
    explicit_bzero (text, len);
  free (text);
  return ok;
}

/* Does `message` end the command `id`? An error without an id is QEMU's answer to what it could not
 * parse, and nobody else sends here. Replies of other ids are leftovers of dead clients. */
static bool
is_reply (json_t *message, const char *id)
{
  json_t *its_id = json_object_get (message, "id");
  if (its_id == NULL)
    return json_object_get (message, "error") != NULL;
  return g_strcmp0 (json_string_value (its_id), id) == 0;
}

static void
set_command_error (json_t *error, json_t *secret, TmkError **errp)
{
  const char *class = json_string_value (json_object_get (error, "class"));
  const char *desc = json_string_value (json_object_get (error, "desc"));
  TmkErrorCode code = TMK_ERR_FAILED;
  if (g_strcmp0 (class, "CommandNotFound") == 0)
    code = TMK_ERR_UNSUPPORTED;
  else if (g_strcmp0 (class, "DeviceNotFound") == 0)
    code = TMK_ERR_NOT_FOUND;
  if (desc == NULL)
    desc = "QEMU gave no reason";
  if (secret != NULL && json_string_length (secret) > 0
      && strstr (desc, json_string_value (secret)) != NULL)
    desc = "QEMU refused the secret";
  error_set (errp, DOMAIN, code, 0, "%s", desc);
}

/* The value of "return", a new reference. `secret` is not to be shown. */
static json_t *
take_result (const char *command, json_t *reply, json_t *secret, TmkError **errp)
{
  json_t *result = json_object_get (reply, "return");
  json_t *error = json_object_get (reply, "error");
  if (error != NULL)
    set_command_error (error, secret, errp);
  else if (result == NULL)
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "reply to '%s' has neither result nor error",
               command);
  else
    return json_incref (result);
  return NULL;
}

static void
set_late (QmpClient *client, const char *command, TmkError **errp)
{
  error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, ETIMEDOUT,
             "QEMU at '%s' did not answer '%s' within %g s", client->addr, command,
             client->opts.reply_timeout_ms / 1000.0);
  error_hint (errp, "see whether QEMU is stopped or hangs on its storage");
  hang_up (client);
}

static char *
new_id (QmpClient *client)
{
  return g_strdup_printf ("tidemark-%08x-%u", client->session, ++client->serial);
}

static gint64
deadline_of (const QmpClient *client)
{
  return g_get_monotonic_time () + (gint64) client->opts.reply_timeout_ms * 1000;
}

/* Waits for the reply to what was sent as `id`. */
static json_t *
await_reply (QmpClient *client, const char *command, json_t *arguments, const char *id,
             gint64 deadline, TmkError **errp)
{
  bool late;
  json_t *message;
  while ((message = receive (client, deadline, &late, errp)) != NULL) {
    bool ours = is_reply (message, id);
    json_t *result
        = ours ? take_result (command, message, find_secret (command, arguments), errp) : NULL;
    json_decref (message);
    if (ours)
      return result;
  }
  if (late)
    set_late (client, command, errp);
  return NULL;
}

static json_t *
run_command (QmpClient *client, const char *command, json_t *arguments, TmkError **errp)
{
  g_autofree char *id = new_id (client);
  gint64 deadline = deadline_of (client);
  bool late;
  if (send_command (client, command, arguments, id, deadline, &late, errp))
    return await_reply (client, command, arguments, id, deadline, errp);
  if (late)
    set_late (client, command, errp);
  return NULL;
}

static void
pass_testpoint (const char *command, const char *suffix)
{
  if (g_str_has_prefix (command, "query-") || g_str_equal (command, "qmp_capabilities"))
    return;
  g_autofree char *name = g_strconcat ("qmp:", command, suffix, NULL);
  testpoint (name);
}

static void
set_closed (const QmpClient *client, TmkError **errp)
{
  error_set (errp, DOMAIN, TMK_ERR_GONE, ENOTCONN, "there is no connection to '%s'", client->addr);
  error_hint (errp, "check whether QEMU still runs, and its log");
}

json_t *
qmp_execute (QmpClient *client, const char *command, json_t *arguments, TmkError **errp)
{
  g_autoptr (json_t) args = arguments;
  if (client->fd < 0) {
    set_closed (client, errp);
    return NULL;
  }
  pass_testpoint (command, "");
  client->hide = find_secret (command, args) != NULL;
  json_t *result = run_command (client, command, args, errp);
  client->hide = false;
  pass_testpoint (command, ":done");
  return result;
}

bool
qmp_run (QmpClient *client, const char *command, json_t *arguments, TmkError **errp)
{
  g_autoptr (json_t) result = qmp_execute (client, command, arguments, errp);
  return result != NULL;
}

/* --- many commands at once */

void
qmp_batch_add (json_t *batch, const char *command, json_t *arguments)
{
  g_assert (find_secret (command, arguments) == NULL);
  json_array_append_new (batch,
                         json_pack ("{s:s, s:o*}", "execute", command, "arguments", arguments));
}

/* Sends them all, or those before one that cannot be sent: then with an error, which is that one's.
 * The ids of those that were sent. */
static GPtrArray *
send_batch (QmpClient *client, const json_t *batch, TmkError **errp)
{
  GPtrArray *ids = g_ptr_array_new_with_free_func (g_free);
  gint64 deadline = deadline_of (client);
  size_t i;
  json_t *one;
  json_array_foreach (batch, i, one) {
    const char *command = jsonx_string (one, "execute");
    g_autofree char *id = new_id (client);
    bool late;
    pass_testpoint (command, "");
    if (!send_command (client, command, json_object_get (one, "arguments"), id, deadline, &late,
                       errp)) {
      if (late)
        set_late (client, command, errp);
      break;
    }
    g_ptr_array_add (ids, g_steal_pointer (&id));
  }
  return ids;
}

json_t *
qmp_execute_all (QmpClient *client, const json_t *batch, size_t *failed, TmkError **errp)
{
  g_autoptr (json_t) results = json_array ();
  g_autoptr (TmkError) unsent = NULL;
  g_autoptr (TmkError) first = NULL;
  size_t i, at = 0;
  if (client->fd < 0) {
    set_closed (client, errp);
    return NULL;
  }
  g_autoptr (GPtrArray) ids = send_batch (client, batch, &unsent);
  /* Also where one could not be sent: QEMU carries out those before it, and one of them may have
   * failed first. */
  for (i = 0; i < ids->len && client->fd >= 0; i++) {
    json_t *one = json_array_get (batch, i);
    const char *command = jsonx_string (one, "execute");
    g_autoptr (TmkError) err = NULL;
    json_t *result = await_reply (client, command, json_object_get (one, "arguments"),
                                  g_ptr_array_index (ids, i), deadline_of (client), &err);
    pass_testpoint (command, ":done");
    json_array_append_new (results, result != NULL ? result : json_null ());
    if (err != NULL && first == NULL) {
      first = g_steal_pointer (&err);
      at = i;
    }
  }
  if (first == NULL && unsent != NULL) {
    first = g_steal_pointer (&unsent);
    at = ids->len;
  }
  if (first == NULL)
    return g_steal_pointer (&results);
  if (failed != NULL)
    *failed = at;
  error_propagate (errp, g_steal_pointer (&first));
  return NULL;
}

bool
qmp_pass_fd (QmpClient *client, const char *name, int fd, TmkError **errp)
{
  client->passed = fd;
  bool ok = qmp_run (client, "getfd", json_pack ("{s:s}", "fdname", name), errp);
  client->passed = -1;
  return ok;
}

/* --- opening */

static bool
take_greeting (QmpClient *client, json_t *greeting, TmkError **errp)
{
  int major = -1, minor = -1, micro = -1;
  if (json_unpack (greeting, "{s:{s:{s:{s:i,s:i,s:i}}}}", "QMP", "version", "qemu", "major", &major,
                   "minor", &minor, "micro", &micro)
          != 0
      || major < 0 || major > 10000 || minor < 0 || micro < 0) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "'%s': the greeting names no version of QEMU",
               client->addr);
    return false;
  }
  client->version
      = (unsigned) major * 10000 + (unsigned) MIN (minor, 99) * 100 + (unsigned) MIN (micro, 99);
  return true;
}

/* QEMU greets only the client that it serves. */
static bool
wait_for_greeting (QmpClient *client, gint64 deadline, TmkError **errp)
{
  for (;;) {
    bool late;
    g_autoptr (json_t) message = receive (client, deadline, &late, errp);
    if (message != NULL) {
      /* A reply here was for the client before us. */
      bool leftover = json_object_get (message, "return") != NULL
                      || json_object_get (message, "error") != NULL;
      if (leftover)
        continue;
      return take_greeting (client, message, errp);
    }
    if (late) {
      error_set (errp, DOMAIN, TMK_ERR_BUSY, ETIMEDOUT,
                 "monitor busy: '%s' is held by another client", client->addr);
      error_hint (errp, "close the other client (if there is none, QEMU hangs), or give QEMU a "
                        "second -qmp socket (libvirt "
                        "holds the monitors of its own domains)");
    }
    return false;
  }
}

static bool
connect_client (QmpClient *client, TmkError **errp)
{
  gint64 deadline = g_get_monotonic_time () + (gint64) client->opts.greeting_timeout_ms * 1000;
  client->fd = qmp_address_connect (client->addr, deadline, errp);
  if (client->fd < 0)
    return false;
  qmp_reader_free (client->reader);
  client->reader = qmp_reader_new (QMP_MESSAGE_MAX);
  client->session = g_random_int ();
  client->serial = 0;
  if (wait_for_greeting (client, deadline, errp)
      && qmp_run (client, "qmp_capabilities", NULL, errp))
    return true;
  hang_up (client);
  return false;
}

QmpClient *
qmp_client_open (const char *addr, const QmpOptions *opts, TmkError **errp)
{
  g_autoptr (QmpClient) client = g_new0 (QmpClient, 1);
  client->fd = client->passed = -1;
  g_queue_init (&client->events);
  if (opts != NULL)
    client->opts = *opts;
  if (client->opts.greeting_timeout_ms == 0)
    client->opts.greeting_timeout_ms = 5000;
  if (client->opts.reply_timeout_ms == 0)
    client->opts.reply_timeout_ms = 60000;
  client->trace = g_strcmp0 (getenv ("TIDEMARK_QMP_TRACE"), "1") == 0;
  client->addr = qmp_address_normalize (addr, errp);
  if (client->addr == NULL || !connect_client (client, errp))
    return NULL;
  return g_steal_pointer (&client);
}

void
qmp_client_free (QmpClient *client)
{
  if (client == NULL)
    return;
  if (client->fd >= 0)
    close (client->fd);
  qmp_reader_free (client->reader);
  json_t *event;
  while ((event = g_queue_pop_head (&client->events)) != NULL)
    json_decref (event);
  g_free (client->addr);
  g_free (client);
}

bool
qmp_client_reconnect (QmpClient *client, TmkError **errp)
{
  hang_up (client);
  return connect_client (client, errp);
}

/* --- looking */

json_t *
qmp_client_take_event_of (QmpClient *client, const char *name, const char *key, const char *value,
                          unsigned timeout_ms, TmkError **errp)
{
  gint64 deadline = g_get_monotonic_time () + (gint64) timeout_ms * 1000;
  g_autoptr (TmkError) err = NULL;
  bool late = false;
  do {
    json_t *reply;
    while (client->fd >= 0 && (reply = next_message (client, &err)) != NULL)
      json_decref (reply); /* of a dead client */
    json_t *event = pop_event (client, name, key, value);
    if (event != NULL)
      return event; /* what is wrong, if anything is, will be told when the queue is empty */
    if (client->fd < 0 && err == NULL)
      set_closed (client, &err);
  } while (err == NULL && pump (client, deadline, &late, &err));

  /* A connection that ended may have brought it as its last word. */
  json_t *event = err != NULL ? pop_event (client, name, key, value) : NULL;
  if (event == NULL)
    error_propagate (errp, g_steal_pointer (&err));
  return event;
}

json_t *
qmp_client_take_event (QmpClient *client, const char *name, unsigned timeout_ms, TmkError **errp)
{
  return qmp_client_take_event_of (client, name, NULL, NULL, timeout_ms, errp);
}

unsigned
qmp_client_version (const QmpClient *client)
{
  return client->version;
}

const char *
qmp_client_address (const QmpClient *client)
{
  return client->addr;
}

bool
qmp_client_peer (const QmpClient *client, pid_t *pid, uid_t *uid, gid_t *gid)
{
  struct ucred cred;
  socklen_t len = sizeof cred;
  if (client->fd < 0 || !g_str_has_prefix (client->addr, "unix:")
      || getsockopt (client->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
    return false;
  *pid = cred.pid;
  *uid = cred.uid;
  *gid = cred.gid;
  return true;
}
