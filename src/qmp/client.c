/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/client.c: see qmp/client.h.
 *
 * An id begins with a number drawn for each connection: QEMU finishes the command of a client that
 * died, and its reply may come to the next client, which must not take it for its own. Where a
 * reply is overdue the connection is closed, for the stream can no longer be trusted.
 */
#include "qmp/client.h"

#include "qmp/address.h"
#include "qmp/channel.h"
#include "util/testpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DOMAIN "qmp"

struct QmpClient {
  QmpChannel channel;
  QmpOptions opts;
  /* of the connection */
  unsigned version;
  guint32 session; /* the first part of every id */
  unsigned serial; /* the second */
};

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
  if (client->channel.trace) {
    g_autoptr (json_t) shown = client->channel.hide ? hide_secret (message) : json_incref (message);
    qmp_channel_trace (&client->channel, '>', shown);
  }
  char *text = json_dumps (message, JSON_COMPACT);
  if (text == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "arguments of '%s' are not UTF-8", command);
    return false;
  }
  size_t len = strlen (text);
  text[len] = '\n'; /* in place of the NUL */
  bool ok = qmp_channel_send (&client->channel, text, len + 1, deadline, late, errp);
  if (client->channel.hide)
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
             "QEMU at '%s' did not answer '%s' within %g s", client->channel.addr, command,
             client->opts.reply_timeout_ms / 1000.0);
  error_hint (errp, "see whether QEMU is stopped or hangs on its storage");
  qmp_channel_hang_up (&client->channel);
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
  while ((message = qmp_channel_receive (&client->channel, deadline, &late, errp)) != NULL) {
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
  error_set (errp, DOMAIN, TMK_ERR_GONE, ENOTCONN, "there is no connection to '%s'",
             client->channel.addr);
  error_hint (errp, "check whether QEMU still runs, and its log");
}

json_t *
qmp_execute (QmpClient *client, const char *command, json_t *arguments, TmkError **errp)
{
  g_autoptr (json_t) args = arguments;
  if (client->channel.fd < 0) {
    set_closed (client, errp);
    return NULL;
  }
  pass_testpoint (command, "");
  client->channel.hide = find_secret (command, args) != NULL;
  json_t *result = run_command (client, command, args, errp);
  client->channel.hide = false;
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
  if (client->channel.fd < 0) {
    set_closed (client, errp);
    return NULL;
  }
  g_autoptr (GPtrArray) ids = send_batch (client, batch, &unsent);
  /* Also where one could not be sent: QEMU carries out those before it, and one of them may have
   * failed first. */
  for (i = 0; i < ids->len && client->channel.fd >= 0; i++) {
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
  client->channel.passed = fd;
  bool ok = qmp_run (client, "getfd", json_pack ("{s:s}", "fdname", name), errp);
  client->channel.passed = -1;
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
               client->channel.addr);
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
    g_autoptr (json_t) message = qmp_channel_receive (&client->channel, deadline, &late, errp);
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
                 "monitor busy: '%s' is held by another client", client->channel.addr);
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
  if (!qmp_channel_connect (&client->channel, deadline, errp))
    return false;
  client->session = g_random_int ();
  client->serial = 0;
  if (wait_for_greeting (client, deadline, errp)
      && qmp_run (client, "qmp_capabilities", NULL, errp))
    return true;
  qmp_channel_hang_up (&client->channel);
  return false;
}

QmpClient *
qmp_client_open (const char *addr, const QmpOptions *opts, TmkError **errp)
{
  g_autoptr (QmpClient) client = g_new0 (QmpClient, 1);
  qmp_channel_init (&client->channel, qmp_address_normalize (addr, errp));
  if (opts != NULL)
    client->opts = *opts;
  if (client->opts.greeting_timeout_ms == 0)
    client->opts.greeting_timeout_ms = 5000;
  if (client->opts.reply_timeout_ms == 0)
    client->opts.reply_timeout_ms = 60000;
  if (client->channel.addr == NULL || !connect_client (client, errp))
    return NULL;
  return g_steal_pointer (&client);
}

void
qmp_client_free (QmpClient *client)
{
  if (client == NULL)
    return;
  qmp_channel_clear (&client->channel);
  g_free (client);
}

bool
qmp_client_reconnect (QmpClient *client, TmkError **errp)
{
  qmp_channel_hang_up (&client->channel);
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
    while (client->channel.fd >= 0 && (reply = qmp_channel_next (&client->channel, &err)) != NULL)
      json_decref (reply); /* of a dead client */
    json_t *event = qmp_channel_take_event (&client->channel, name, key, value);
    if (event != NULL)
      return event; /* what is wrong, if anything is, will be told when the queue is empty */
    if (client->channel.fd < 0 && err == NULL)
      set_closed (client, &err);
  } while (err == NULL && qmp_channel_wait (&client->channel, deadline, &late, &err));

  /* A connection that ended may have brought it as its last word. */
  json_t *event = err != NULL ? qmp_channel_take_event (&client->channel, name, key, value) : NULL;
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
  return client->channel.addr;
}

bool
qmp_client_peer (const QmpClient *client, pid_t *pid, uid_t *uid, gid_t *gid)
{
  struct ucred cred;
  socklen_t len = sizeof cred;
  if (client->channel.fd < 0 || !g_str_has_prefix (client->channel.addr, "unix:")
      || getsockopt (client->channel.fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
    return false;
  *pid = cred.pid;
  *uid = cred.uid;
  *gid = cred.gid;
  return true;
}
