/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: whatever the other end does, the client ends in time with an error that says what to do;
 * replies, events and connections of a real qemu-storage-daemon are handled; no secret is shown. */
#include "test-qmp-peers.h"

#include "qmp/commands.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/stat.h>

/* For peers that are late whatever the time, and for those that must not be on a busy machine. */
static const QmpOptions quick = { .greeting_timeout_ms = 300, .reply_timeout_ms = 300 };
static const QmpOptions brisk = { .greeting_timeout_ms = 20000, .reply_timeout_ms = 1000 };
static const QmpOptions patient = { .greeting_timeout_ms = 20000, .reply_timeout_ms = 20000 };

/* --- addresses */

static void
assert_address (const char *addr, const char *expected)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *normal = qmp_address_normalize (addr, &err);
  g_assert_cmpstr (normal, ==, expected);
  g_assert_true ((normal == NULL) == (err != NULL));
  if (err != NULL)
    assert_error (&err, TMK_ERR_INVALID, "monitor address");
}

static void
test_address (void)
{
  g_autofree char *cwd = g_get_current_dir ();
  g_autofree char *relative = g_strdup_printf ("unix:%s/a/../b", cwd);
  assert_address ("/run/x", "unix:/run/x");
  assert_address ("unix:/run/x", "unix:/run/x");
  assert_address ("unix:///run/x", "unix:/run/x");
  assert_address ("a/../b", relative);
  assert_address ("unix:./a/../b", relative);
  assert_address ("tcp:localhost:4444", "tcp:localhost:4444");
  assert_address ("tcp:[::1]:4444", "tcp:[::1]:4444");
  assert_address ("tcp:[host]:04444", "tcp:host:4444");
  assert_address ("", NULL);
  assert_address ("unix:", NULL);
  assert_address ("tcp:", NULL);
  assert_address ("tcp:host", NULL);
  assert_address ("tcp::4444", NULL);
  assert_address ("tcp:host:0", NULL);
  assert_address ("tcp:host:65536", NULL);
  assert_address ("tcp:host:4444,server", NULL);
  assert_address ("tcp:::1:4444", NULL);
  assert_address ("tcp:[]:4444", NULL);
}

static void
test_nobody (void)
{
  g_autoptr (TmkError) err = NULL;
  char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "x", NULL);
  g_assert_null (qmp_client_open (path, NULL, &err));
  g_assert_nonnull (tmk_error_hint (err));
  assert_error (&err, TMK_ERR_NOT_FOUND, "there is no socket");

  g_assert_true (g_file_set_contents (path, "", 0, NULL));
  g_assert_null (qmp_client_open (path, NULL, &err));
  assert_error (&err, TMK_ERR_INVALID, "is not a socket");
  g_unlink (path);

  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un sun = { .sun_family = AF_UNIX };
  g_strlcpy (sun.sun_path, path, sizeof sun.sun_path);
  g_assert_cmpint (bind (fd, (struct sockaddr *) &sun, sizeof sun), ==, 0);
  g_assert_null (qmp_client_open (path, NULL, &err));
  g_assert_nonnull (tmk_error_hint (err));
  assert_error (&err, TMK_ERR_GONE, "nobody listens");
  close (fd);

  g_assert_null (qmp_client_open ("tcp:127.0.0.1:1", NULL, &err));
  assert_error (&err, TMK_ERR_GONE, "nobody listens at 'tcp:127.0.0.1:1'");
  remove_folder (folder);
}

/* --- peers that misbehave */

static void
assert_open_fails (void (*play) (int fd), const QmpOptions *options, TmkErrorCode code,
                   const char *part)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play, 1);
  gint64 begin = g_get_monotonic_time ();
  g_assert_null (qmp_client_open (s.socket, options, &err));
  g_assert_cmpint (g_get_monotonic_time () - begin, <, 10 * G_USEC_PER_SEC);
  assert_error (&err, code, part);
  end_script (&s);
}

static void
play_ssh (int fd)
{
  say (fd, "SSH-2.0-OpenSSH_9.2\r\n");
}

static void
play_human (int fd)
{
  say (fd, "QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ");
  g_free (hear (fd));
}

static void
play_other_json (int fd)
{
  say (fd, "{\"hello\": 1}\n");
}

static void
play_silence (int fd)
{
  g_free (hear (fd));
}

static void
play_half_greeting (int fd)
{
  say (fd, "{\"QMP\": {\"version\": ");
}

static void
play_no_negotiation (int fd)
{
  say (fd, GREETING);
  answer (fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": \"%s\"}\n");
}

static void
play_big (int fd)
{
  size_t len = (65 << 20);
  g_autofree char *text = g_malloc (len + 1);
  memset (text, 'x', len);
  memcpy (text, "{\"QMP\": \"", 9);
  text[len] = '\0';
  say (fd, text);
}

static void
test_greeting (void)
{
  assert_open_fails (play_ssh, &patient, TMK_ERR_INVALID,
                     "not a QMP message: 'SSH-2.0-OpenSSH_9.2'");
  assert_open_fails (play_human, &patient, TMK_ERR_INVALID, "not a QMP message");
  assert_open_fails (play_other_json, &patient, TMK_ERR_INVALID, "names no version");
  assert_open_fails (play_silence, &quick, TMK_ERR_BUSY, "monitor busy");
  assert_open_fails (play_half_greeting, &patient, TMK_ERR_GONE, "closed the connection");
  assert_open_fails (play_no_negotiation, &patient, TMK_ERR_FAILED, "no");
}

static void
test_oversized (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_big, 1);
  g_assert_null (qmp_client_open (s.socket, &patient, &err));
  assert_error (&err, TMK_ERR_INVALID, "more than 67108864 bytes");
  end_script (&s);
}

/* The greeting is spread over many lines and pieces; around it are replies to a dead client. */
static void
play_split (int fd)
{
  const char *text = "{\"return\": {}, \"id\": \"tidemark-1\"}\r\n{\r\n \"QMP\": {\"version\": "
                     "{\"qemu\":\r\n {\"major\": 7, \"minor\": 2, \"micro\": 22}}}\r\n}\r\n";
  for (; *text != '\0'; text++) {
    char piece[2] = { *text, '\0' };
    say (fd, piece);
  }
  answer (fd, "{\"return\": {}, \"id\": \"old\"}\r\n{\"event\": \"A\"}{\"return\": {}, \"id\": 3}"
              "{\"error\": {\"class\": \"X\", \"desc\": \"old\"}, \"id\": \"tidemark-1\"}\r\n"
              "{\"return\": {}, \"id\": \"%s\"}{\"event\": \"B\"}");
  answer (fd, "{\"event\": \"C\"}{\"return\": {\"x\": 1}, \"id\": \"%s\"}");
  answer (fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad JSON\"}, \"x\": \"%s\"}");
  answer (fd, "{\"id\": \"%s\"}");
}

static void
test_split (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_split, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  g_assert_cmpuint (qmp_client_version (client), ==, 70222);
  g_autoptr (json_t) result = qmp_execute (client, "x", NULL, &err);
  g_assert_cmpint (json_integer_value (json_object_get (result, "x")), ==, 1);
  g_assert_false (qmp_run (client, "x", NULL, &err));
  assert_error (&err, TMK_ERR_FAILED, "bad JSON");

  g_autoptr (json_t) c = qmp_client_take_event (client, "C", 0, &err);
  g_autoptr (json_t) a = qmp_client_take_event (client, NULL, 0, &err);
  g_autoptr (json_t) b = qmp_client_take_event (client, NULL, 0, &err);
  g_assert_nonnull (c);
  g_assert_cmpstr (json_string_value (json_object_get (a, "event")), ==, "A");
  g_assert_cmpstr (json_string_value (json_object_get (b, "event")), ==, "B");
  g_assert_null (qmp_client_take_event (client, NULL, 50, &err));
  assert_no_error (err);

  g_assert_false (qmp_run (client, "x", NULL, &err));
  assert_error (&err, TMK_ERR_INVALID, "neither result nor error");
  end_script (&s);
}

static void
play_no_reply (int fd)
{
  greet (fd);
  g_free (hear (fd));
  g_free (hear (fd)); /* until the client leaves */
}

static void
test_no_reply (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_no_reply, 2);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, &brisk, &err);
  assert_no_error (err);
  g_assert_false (qmp_run (client, "stop", NULL, &err));
  assert_error (&err, TMK_ERR_TIMEOUT, "did not answer 'stop' within 1 s");
  g_assert_false (qmp_run (client, "stop", NULL, &err));
  g_assert_nonnull (tmk_error_hint (err));
  assert_error (&err, TMK_ERR_GONE, "no connection");
  g_assert_null (qmp_client_take_event (client, NULL, 1000, &err));
  assert_error (&err, TMK_ERR_GONE, "no connection");

  g_assert_true (qmp_client_reconnect (client, &err));
  assert_no_error (err);
  g_assert_false (qmp_run (client, "stop", NULL, &err));
  assert_error (&err, TMK_ERR_TIMEOUT, "did not answer");
  end_script (&s);
}

static void
play_last_words (int fd)
{
  greet (fd);
  g_free (hear (fd));
  say (fd, "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest\"}}{\"ret");
}

static void
test_last_words (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_last_words, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  g_assert_false (qmp_run (client, "stop", NULL, &err));
  assert_error (&err, TMK_ERR_GONE, "closed the connection");
  g_autoptr (json_t) event
      = qmp_client_take_event_of (client, "SHUTDOWN", "reason", "guest", 0, &err);
  g_assert_nonnull (event);
  g_assert_null (qmp_client_take_event (client, NULL, 0, &err));
  assert_error (&err, TMK_ERR_GONE, "no connection");
  end_script (&s);
}

static void
play_garbage_later (int fd)
{
  greet (fd);
  answer (fd, "{\"event\": \"A\"}{\"return\": {}, \"id\": \"%s\"}{\"event\": \"B\"}]");
}

static void
test_garbage_later (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_garbage_later, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  g_assert_true (qmp_run (client, "stop", NULL, &err));
  g_autoptr (json_t) a = qmp_client_take_event (client, NULL, 0, &err);
  g_autoptr (json_t) b = qmp_client_take_event (client, NULL, 1000, &err);
  g_assert_nonnull (a);
  g_assert_nonnull (b);
  assert_no_error (err);
  g_assert_false (qmp_run (client, "stop", NULL, &err));
  tmk_error_free (g_steal_pointer (&err));
  end_script (&s);
}

static void
play_flood (int fd)
{
  greet (fd);
  g_autofree char *id = hear (fd);
  say (fd, "{\"event\": \"RARE\"}\r\n");
  for (int i = 0; i < 2 * QMP_EVENTS_MAX; i++) {
    g_autofree char *text
        = g_strdup_printf ("{\"event\": \"OFTEN\", \"data\": {\"n\": %d}}\r\n", i);
    say (fd, text);
  }
  g_autofree char *text = g_strdup_printf ("{\"return\": {}, \"id\": \"%s\"}\r\n", id);
  say (fd, text);
}

static void
test_flood (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_flood, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  g_assert_true (qmp_run (client, "stop", NULL, &err));
  end_script (&s);

  g_autoptr (json_t) rare = qmp_client_take_event (client, "RARE", 0, NULL);
  g_assert_nonnull (rare);
  int n = QMP_EVENTS_MAX + 1; /* the oldest of those that are left */
  json_t *event;
  while ((event = qmp_client_take_event (client, "OFTEN", 0, NULL)) != NULL) {
    json_t *data = json_object_get (event, "data");
    g_assert_cmpint (json_integer_value (json_object_get (data, "n")), ==, n++);
    json_decref (event);
  }
  g_assert_cmpint (n, ==, 2 * QMP_EVENTS_MAX);
}

static void
play_babble (int fd)
{
  greet (fd);
  static const char text[] = "{\"event\": \"OFTEN\"}\r\n";
  while (send (fd, text, sizeof text - 1, MSG_NOSIGNAL) > 0)
    ;
}

static void
test_babble (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_babble, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, &brisk, &err);
  assert_no_error (err);
  g_assert_null (qmp_client_take_event (client, "RARE", 10, &err));
  assert_no_error (err);
  g_assert_false (qmp_run (client, "stop", NULL, &err));
  assert_error (&err, TMK_ERR_TIMEOUT, "did not answer 'stop'");
  end_script (&s);
}

static void
play_close (int fd)
{
  greet (fd);
}

static void
test_broken_pipe (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_close, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  end_script (&s);
  /* More than the socket's buffers hold, so that sending itself fails. */
  g_autofree char *big = g_strnfill (1 << 22, 'x');
  g_assert_false (qmp_run (client, "x", json_pack ("{s:s}", "a", big), &err));
  assert_error (&err, TMK_ERR_GONE, "closed the connection");
}

static void
play_deaf (int fd)
{
  greet (fd);
  g_usleep (2500000);
}

static void
test_deaf (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_deaf, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, &brisk, &err);
  assert_no_error (err);
  g_autofree char *big = g_strnfill (1 << 22, 'x');
  g_assert_false (qmp_run (client, "x", json_pack ("{s:s}", "a", big), &err));
  assert_error (&err, TMK_ERR_TIMEOUT, "did not answer 'x'");
  end_script (&s);
}

/* --- many commands at once */

/* `n` commands without arguments: "c0", "c1" and so on. */
static json_t *
make_batch (unsigned n)
{
  json_t *batch = json_array ();
  for (unsigned i = 0; i < n; i++) {
    g_autofree char *command = g_strdup_printf ("c%u", i);
    qmp_batch_add (batch, command, NULL);
  }
  return batch;
}

/* Hears `n` commands before anything is said; their ids, which must be in order. */
static char **
hear_all (int fd, unsigned n)
{
  char **ids = g_new0 (char *, n + 1);
  unsigned last = 0;
  for (unsigned i = 0; i < n; i++) {
    ids[i] = hear (fd);
    g_assert_nonnull (ids[i]);
    unsigned serial = (unsigned) strtoul (strrchr (ids[i], '-') + 1, NULL, 10);
    g_assert_cmpuint (serial, >, last);
    last = serial;
  }
  return ids;
}

static void
say_return (int fd, const char *id, int value)
{
  g_autofree char *text = g_strdup_printf ("{\"return\": %d, \"id\": \"%s\"}\r\n", value, id);
  say (fd, text);
}

static void
say_error (int fd, const char *id, const char *desc)
{
  g_autofree char *text
      = g_strdup_printf ("{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}, \"id\": "
                         "\"%s\"}\r\n",
                         desc, id);
  say (fd, text);
}

static void
play_batch (int fd)
{
  greet (fd);
  g_auto (GStrv) good = hear_all (fd, 3);
  say_return (fd, good[0], 10);
  say (fd, "{\"event\": \"A\"}{\"return\": 99, \"id\": \"old\"}\r\n");
  say_return (fd, good[1], 11);
  say (fd, "{\"event\": \"B\"}\r\n");
  say_return (fd, good[2], 12);

  g_auto (GStrv) bad = hear_all (fd, 4);
  say_return (fd, bad[0], 20);
  say_error (fd, bad[1], "the first");
  say (fd, "{\"event\": \"C\"}\r\n");
  say_return (fd, bad[2], 22);
  say_error (fd, bad[3], "the second");

  answer (fd, "{\"return\": 30, \"id\": \"%s\"}\r\n");
}

static void
assert_next_event (QmpClient *client, const char *name)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) event = qmp_client_take_event (client, NULL, 0, &err);
  assert_no_error (err);
  g_assert_cmpstr (json_string_value (json_object_get (event, "event")), ==, name);
}

static void
test_batch (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_batch, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);

  g_autoptr (json_t) none = json_array ();
  g_autoptr (json_t) nothing = qmp_execute_all (client, none, NULL, &err);
  assert_no_error (err);
  g_assert_cmpuint (json_array_size (nothing), ==, 0);

  g_autoptr (json_t) three = make_batch (3);
  g_autoptr (json_t) results = qmp_execute_all (client, three, NULL, &err);
  assert_no_error (err);
  g_assert_cmpuint (json_array_size (results), ==, 3);
  for (size_t i = 0; i < 3; i++)
    g_assert_cmpint (json_integer_value (json_array_get (results, i)), ==, 10 + (int) i);
  assert_next_event (client, "A");
  assert_next_event (client, "B");

  g_autoptr (json_t) four = make_batch (4);
  size_t failed = 99;
  g_assert_null (qmp_execute_all (client, four, &failed, &err));
  assert_error (&err, TMK_ERR_FAILED, "the first");
  g_assert_cmpuint (failed, ==, 1);
  assert_next_event (client, "C");

  g_autoptr (json_t) after = qmp_execute (client, "x", NULL, &err);
  assert_no_error (err);
  g_assert_cmpint (json_integer_value (after), ==, 30);
  end_script (&s);
}

static void
play_batch_lost (int fd)
{
  greet (fd);
  g_auto (GStrv) ids = hear_all (fd, 3);
  say_return (fd, ids[0], 1);
  say (fd, "{\"event\": \"SHUTDOWN\"}{\"ret");
}

static void
test_batch_lost (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_batch_lost, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  g_autoptr (json_t) batch = make_batch (3);
  size_t failed = 99;
  g_assert_null (qmp_execute_all (client, batch, &failed, &err));
  assert_error (&err, TMK_ERR_GONE, "closed the connection");
  g_assert_cmpuint (failed, ==, 1);
  g_autoptr (json_t) event = qmp_client_take_event (client, "SHUTDOWN", 0, NULL);
  g_assert_nonnull (event);
  g_assert_null (qmp_execute_all (client, batch, &failed, &err));
  assert_error (&err, TMK_ERR_GONE, "no connection");
  end_script (&s);
}

/* An error counts though the connection ends behind it. */
static void
play_batch_error_lost (int fd)
{
  greet (fd);
  g_auto (GStrv) ids = hear_all (fd, 3);
  say_error (fd, ids[0], "why it went");
}

static void
test_batch_error_lost (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_batch_error_lost, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  g_autoptr (json_t) batch = make_batch (3);
  size_t failed = 99;
  g_assert_null (qmp_execute_all (client, batch, &failed, &err));
  assert_error (&err, TMK_ERR_FAILED, "why it went");
  g_assert_cmpuint (failed, ==, 0);
  end_script (&s);
}

/* Each answer takes its time, the last for ever. */
static void
play_batch_slow (int fd)
{
  greet (fd);
  g_auto (GStrv) ids = hear_all (fd, 4);
  for (int i = 0; i < 3; i++) {
    g_usleep (500000); /* together more than the time for one */
    say_return (fd, ids[i], i);
  }
  g_free (hear (fd)); /* until the client leaves */
}

static void
test_batch_slow (void)
{
  g_autoptr (TmkError) err = NULL;
  const QmpOptions options = { .greeting_timeout_ms = 20000, .reply_timeout_ms = 1200 };
  Script s;
  start_script (&s, play_batch_slow, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, &options, &err);
  assert_no_error (err);
  g_autoptr (json_t) batch = make_batch (4);
  size_t failed = 99;
  g_assert_null (qmp_execute_all (client, batch, &failed, &err));
  assert_error (&err, TMK_ERR_TIMEOUT, "did not answer 'c3' within 1.2 s");
  g_assert_cmpuint (failed, ==, 3);
  g_assert_null (qmp_execute_all (client, batch, NULL, &err));
  assert_error (&err, TMK_ERR_GONE, "no connection");
  end_script (&s);
}

static void
play_batch_unsendable (int fd)
{
  greet (fd);
  for (int round = 0; round < 2; round++) {
    g_auto (GStrv) ids = hear_all (fd, 2);
    say_return (fd, ids[0], 1);
    if (round == 0)
      say_return (fd, ids[1], 2);
    else
      say_error (fd, ids[1], "QEMU failed first");
  }
  answer (fd, "{\"return\": 3, \"id\": \"%s\"}\r\n");
}

static void
test_batch_unsendable (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_batch_unsendable, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  g_autoptr (json_t) batch = make_batch (2);
  qmp_batch_add (batch, "c2", json_pack ("{s:o}", "file", json_string_nocheck ("\xff")));
  qmp_batch_add (batch, "c3", NULL);
  size_t failed = 99;
  g_assert_null (qmp_execute_all (client, batch, &failed, &err));
  assert_error (&err, TMK_ERR_INVALID, "arguments of 'c2' are not UTF-8");
  g_assert_cmpuint (failed, ==, 2);
  g_assert_null (qmp_execute_all (client, batch, &failed, &err));
  assert_error (&err, TMK_ERR_FAILED, "QEMU failed first");
  g_assert_cmpuint (failed, ==, 1);
  g_assert_true (qmp_run (client, "x", NULL, &err));
  assert_no_error (err);
  end_script (&s);
}

#define BATCH_BIG 8

/* Answers each command before it reads the next, and more than the buffers hold. */
static void
play_batch_big (int fd)
{
  greet (fd);
  g_autofree char *big = g_strnfill (1 << 20, 'y');
  for (int i = 0; i < BATCH_BIG; i++) {
    g_autofree char *format = g_strdup_printf (
        "{\"return\": {\"n\": %d, \"big\": \"%s\"}, \"id\": \"%%s\"}\r\n", i, big);
    answer (fd, format);
  }
}

static void
test_batch_big (void)
{
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_batch_big, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  g_autofree char *big = g_strnfill (1 << 20, 'x');
  g_autoptr (json_t) batch = json_array ();
  for (int i = 0; i < BATCH_BIG; i++)
    qmp_batch_add (batch, "c", json_pack ("{s:s}", "a", big));
  g_autoptr (json_t) results = qmp_execute_all (client, batch, NULL, &err);
  assert_no_error (err);
  g_assert_cmpuint (json_array_size (results), ==, BATCH_BIG);
  for (size_t i = 0; i < BATCH_BIG; i++)
    g_assert_cmpuint (jsonx_uint (json_array_get (results, i), "n"), ==, i);
  end_script (&s);
}

/* --- secrets, traces, test points: what is written to stderr is seen from a parent */

#define SECRET "aHVudGVyMg==" /* "hunter2" */

static void
play_echo (int fd)
{
  greet (fd);
  answer (fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"cannot decode '" SECRET
              "'\"}, \"id\": \"%s\"}\n");
  answer (fd, "{\"return\": [], \"id\": \"%s\"}\n");
}

static void
test_secret_subprocess (void)
{
  g_setenv ("TIDEMARK_TEST_TRACE", "1", TRUE);
  g_setenv ("TIDEMARK_QMP_TRACE", "1", TRUE);
  g_autoptr (TmkError) err = NULL;
  Script s;
  start_script (&s, play_echo, 1);
  g_autoptr (QmpClient) client = qmp_client_open (s.socket, NULL, &err);
  assert_no_error (err);
  g_assert_false (qmp_object_add_secret (client, "s0", "hunter2", 7, &err));
  g_assert_null (strstr (tmk_error_message (err), SECRET));
  assert_error (&err, TMK_ERR_FAILED, "refused the secret");
  g_autoptr (json_t) jobs = qmp_query_jobs (client, &err);
  g_assert_nonnull (jobs);
  end_script (&s);
}

static void
test_secret (void)
{
  g_test_trap_subprocess ("/qmp-client/secret/subprocess", 0, 0);
  g_test_trap_assert_passed ();
  g_test_trap_assert_stderr ("*> {\"execute\":\"object-add\"*(hidden)*");
  g_test_trap_assert_stderr ("*testpoint 1 qmp:object-add\n*testpoint 2 qmp:object-add:done\n*");
  g_test_trap_assert_stderr ("*> {\"execute\":\"query-jobs\"*");
  g_test_trap_assert_stderr_unmatched ("*" SECRET "*");
  g_test_trap_assert_stderr_unmatched ("*qmp:query*");
  g_test_trap_assert_stderr_unmatched ("*qmp:qmp*");
}

/* --- a real qemu-storage-daemon */

static void
test_daemon_busy (void)
{
  g_autoptr (TmkError) err = NULL;
  Daemon d;
  if (start_daemon (&d)) {
    g_autoptr (QmpClient) first = open_started (d.socket);
    g_assert_null (qmp_client_open (d.socket, &quick, &err));
    g_assert_nonnull (strstr (tmk_error_hint (err), "second -qmp socket"));
    assert_error (&err, TMK_ERR_BUSY, "monitor busy");

    /* The queue of those who wait has an end. */
    int fds[64], full = 0;
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    g_strlcpy (sun.sun_path, d.socket, sizeof sun.sun_path);
    for (size_t i = 0; i < G_N_ELEMENTS (fds); i++) {
      fds[i] = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      full += connect (fds[i], (struct sockaddr *) &sun, sizeof sun) != 0 && errno == EAGAIN;
    }
    if (full > 0) {
      g_assert_null (qmp_client_open (d.socket, &quick, &err));
      assert_error (&err, TMK_ERR_BUSY, "and more wait for it");
    }
    for (size_t i = 0; i < G_N_ELEMENTS (fds); i++)
      close (fds[i]);

    g_assert_true (qmp_run (first, "query-version", NULL, &err));
    qmp_client_free (g_steal_pointer (&first));
    g_autoptr (QmpClient) second = qmp_client_open (d.socket, NULL, &err);
    assert_no_error (err);
    g_assert_true (qmp_run (second, "query-version", NULL, &err));
  }
  end_daemon (&d);
}

static void
test_daemon_errors (void)
{
  g_autoptr (TmkError) err = NULL;
  Daemon d;
  if (start_daemon (&d)) {
    g_autoptr (QmpClient) client = open_started (d.socket);
    g_assert_cmpuint (qmp_client_version (client), >=, 50000);
    g_assert_false (qmp_run (client, "make-coffee", NULL, &err));
    assert_error (&err, TMK_ERR_UNSUPPORTED, "make-coffee");
    g_assert_false (qmp_query_status (client, NULL, NULL, &err));
    assert_error (&err, TMK_ERR_UNSUPPORTED, "query-status");
    g_assert_false (qmp_run (client, "block-dirty-bitmap-add",
                             json_pack ("{s:s,s:s}", "node", "no\"de", "name", "b"), &err));
    assert_error (&err, TMK_ERR_FAILED, "no\"de");
    g_assert_false (qmp_run (client, "block_resize",
                             json_pack ("{s:s,s:i}", "device", "none", "size", 0), &err));
    g_assert_nonnull (strstr (tmk_error_message (err), "none"));
    tmk_error_free (g_steal_pointer (&err));
    g_assert_false (qmp_blockdev_del (client, "\xff", &err));
    assert_error (&err, TMK_ERR_INVALID, "'blockdev-del' are not UTF-8");
    g_assert_true (qmp_run (client, "query-version", NULL, &err));

    pid_t pid;
    uid_t uid;
    gid_t gid;
    g_assert_true (qmp_client_peer (client, &pid, &uid, &gid));
    g_assert_cmpint (pid, ==, d.pid);
    g_assert_cmpint (uid, ==, geteuid ());

    end_process (d.pid);
    d.pid = 0;
    g_assert_false (qmp_run (client, "query-version", NULL, &err));
    assert_error (&err, TMK_ERR_GONE, "closed the connection");
    g_assert_false (qmp_client_peer (client, &pid, &uid, &gid));
    g_assert_false (qmp_client_reconnect (client, &err));
    assert_error (&err, TMK_ERR_GONE, "nobody listens");
  }
  end_daemon (&d);
}

static void
assert_no_jobs (QmpClient *client)
{
  g_autoptr (json_t) jobs = qmp_query_jobs (client, NULL);
  g_assert_cmpuint (json_array_size (jobs), ==, 0);
}

static void
test_daemon_jobs (void)
{
  g_autoptr (TmkError) err = NULL;
  Daemon d;
  if (start_daemon (&d)) {
    g_autoptr (QmpClient) client = open_started (d.socket);
    g_autofree char *image = g_build_filename (d.folder, "a.raw", NULL);
    g_assert_true (qmp_blockdev_create (
        client, "j0",
        json_pack ("{s:s,s:s,s:i}", "driver", "file", "filename", image, "size", 1 << 20), &err));
    assert_no_error (err);
    GStatBuf st;
    g_assert_cmpint (g_stat (image, &st), ==, 0);
    g_assert_cmpint (st.st_size, ==, 1 << 20);
    assert_no_jobs (client);
    g_assert_null (qmp_client_take_event (client, NULL, 0, &err));

    g_assert_false (qmp_blockdev_create (
        client, "j0",
        json_pack ("{s:s,s:s,s:i}", "driver", "file", "filename", "/nowhere/a", "size", 1), &err));
    assert_error (&err, TMK_ERR_FAILED, "/nowhere/a");
    g_assert_false (qmp_blockdev_create (client, "j0", json_pack ("{s:s}", "driver", "x"), &err));
    tmk_error_free (g_steal_pointer (&err));
    assert_no_jobs (client);

    /* A backup job: its events are told apart by id, and outlive a reconnect. */
    g_assert_true (qmp_blockdev_add (
        client, json_pack ("{s:s,s:s,s:s}", "driver", "file", "node-name", "a", "filename", image),
        &err));
    g_assert_true (qmp_blockdev_add (
        client, json_pack ("{s:s,s:s,s:i}", "driver", "null-co", "node-name", "n", "size", 1 << 20),
        &err));
    QmpBackup backup = { .job_id = "b0", .device = "a", .target = "n" };
    g_assert_true (qmp_transaction (client, json_pack ("[o]", qmp_action_backup (&backup)), &err));
    assert_no_error (err);
    g_assert_null (qmp_client_take_event_of (client, "JOB_STATUS_CHANGE", "id", "other", 50, &err));
    g_assert_true (qmp_client_reconnect (client, &err));
    g_autoptr (json_t) event
        = qmp_client_take_event_of (client, "JOB_STATUS_CHANGE", "id", "b0", 1000, &err);
    g_assert_nonnull (event);
    g_autoptr (json_t) jobs = qmp_query_jobs (client, &err);
    g_assert_cmpuint (json_array_size (jobs), ==, 1);
    g_assert_true (qmp_job_dismiss (client, "b0", &err));
    g_assert_false (qmp_job_cancel (client, "b0", &err));
    tmk_error_free (g_steal_pointer (&err));

    /* One transaction that fails changes nothing. */
    g_assert_false (
        qmp_transaction (client,
                         json_pack ("[o,o]", qmp_action_bitmap_add ("a", "c1", false, false),
                                    qmp_action_bitmap_add ("none", "c1", false, false)),
                         &err));
    tmk_error_free (g_steal_pointer (&err));
    g_assert_false (qmp_bitmap_remove (client, "a", "c1", &err));
    tmk_error_free (g_steal_pointer (&err));
    g_assert_true (qmp_object_add_secret (client, "s0", "hunter2", 7, &err));
    g_assert_true (qmp_object_del (client, "s0", &err));
    g_assert_true (qmp_blockdev_del (client, "a", &err));
    g_assert_true (qmp_run (client, "quit", NULL, &err));
  }
  end_daemon (&d);
}

/* A socket that can be bound only from inside its folder. */
static void
test_daemon_long_path (void)
{
  char *folder = make_folder ();
  g_autoptr (GString) path = g_string_new (folder);
  while (path->len < 200) {
    g_string_append (path, "/a-folder-with-a-rather-long-name");
    g_assert_cmpint (g_mkdir (path->str, 0700), ==, 0);
  }
  GPid pid = start_process (path->str, "qemu-storage-daemon", "--chardev",
                            "socket,id=c,path=monitor,server=on,wait=off", "--monitor", "c", NULL);
  if (pid != 0) {
    g_string_append (path, "/monitor");
    g_autoptr (QmpClient) client = open_started (path->str);
    g_assert_true (qmp_run (client, "query-version", NULL, NULL));
    g_assert_true (g_str_has_suffix (qmp_client_address (client), "/monitor"));
    end_process (pid);
  }
  remove_folder (folder);
}

static void
test_daemon_tcp (void)
{
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr = { htonl (INADDR_LOOPBACK) } };
  socklen_t len = sizeof sin;
  g_assert_cmpint (bind (fd, (struct sockaddr *) &sin, sizeof sin), ==, 0);
  g_assert_cmpint (getsockname (fd, (struct sockaddr *) &sin, &len), ==, 0);
  close (fd);
  g_autofree char *chardev = g_strdup_printf (
      "socket,id=c,host=127.0.0.1,port=%u,server=on,wait=off,ipv4=on", ntohs (sin.sin_port));
  g_autofree char *addr = g_strdup_printf ("tcp:localhost:%u", ntohs (sin.sin_port));
  GPid pid = start_process (NULL, "qemu-storage-daemon", "--chardev", chardev, "--monitor",
                            "chardev=c,pretty=on", NULL);
  if (pid == 0)
    return;
  g_autoptr (QmpClient) client = open_started (addr);
  g_assert_true (qmp_run (client, "query-version", NULL, NULL));
  g_assert_cmpstr (qmp_client_address (client), ==, addr);
  pid_t p;
  uid_t u;
  gid_t g;
  g_assert_false (qmp_client_peer (client, &p, &u, &g));
  end_process (pid);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/qmp-client/address", test_address);
  g_test_add_func ("/qmp-client/nobody", test_nobody);
  g_test_add_func ("/qmp-client/greeting", test_greeting);
  g_test_add_func ("/qmp-client/oversized", test_oversized);
  g_test_add_func ("/qmp-client/split", test_split);
  g_test_add_func ("/qmp-client/no-reply", test_no_reply);
  g_test_add_func ("/qmp-client/last-words", test_last_words);
  g_test_add_func ("/qmp-client/garbage-later", test_garbage_later);
  g_test_add_func ("/qmp-client/flood", test_flood);
  g_test_add_func ("/qmp-client/babble", test_babble);
  g_test_add_func ("/qmp-client/broken-pipe", test_broken_pipe);
  g_test_add_func ("/qmp-client/deaf", test_deaf);
  g_test_add_func ("/qmp-client/batch", test_batch);
  g_test_add_func ("/qmp-client/batch/lost", test_batch_lost);
  g_test_add_func ("/qmp-client/batch/error-lost", test_batch_error_lost);
  g_test_add_func ("/qmp-client/batch/slow", test_batch_slow);
  g_test_add_func ("/qmp-client/batch/unsendable", test_batch_unsendable);
  g_test_add_func ("/qmp-client/batch/big", test_batch_big);
  g_test_add_func ("/qmp-client/secret", test_secret);
  g_test_add_func ("/qmp-client/secret/subprocess", test_secret_subprocess);
  g_test_add_func ("/qmp-client/daemon/busy", test_daemon_busy);
  g_test_add_func ("/qmp-client/daemon/errors", test_daemon_errors);
  g_test_add_func ("/qmp-client/daemon/jobs", test_daemon_jobs);
  g_test_add_func ("/qmp-client/daemon/long-path", test_daemon_long_path);
  g_test_add_func ("/qmp-client/daemon/tcp", test_daemon_tcp);
  return g_test_run ();
}
