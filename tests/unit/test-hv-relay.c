/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: the relay carries every byte both ways, also to a client that has closed its half; one
 * that takes nothing keeps no other; and it ends with its life line, with its file, and when it is
 * told, cutting all connections. */
#include "hv/relay.h"

#include "util/fsx.h"

#include <glib/gstdio.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER (4 << 20)
#define WORDS 1000 /* not what a buffer holds */

typedef struct {
  char *dir, *path, *lock;
  int server; /* listens at path */
  int life;
  struct sockaddr_in address; /* of the relay */
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  struct sockaddr_un un = { .sun_family = AF_UNIX };
  socklen_t len = sizeof f->address;
  RelayListener listener;
  f->dir = g_dir_make_tmp ("relay-XXXXXX", NULL);
  f->path = g_build_filename (f->dir, "socket", NULL);
  f->lock = g_build_filename (f->dir, "lock", NULL);
  g_strlcpy (un.sun_path, f->path, sizeof un.sun_path);
  f->server = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (bind (f->server, (struct sockaddr *) &un, sizeof un), ==, 0);
  g_assert_cmpint (listen (f->server, 16), ==, 0);
  g_assert_true (relay_listen (&listener, "127.0.0.1", 0, NULL));
  g_assert_cmpint (getsockname (listener.fds[0], (struct sockaddr *) &f->address, &len), ==, 0);
  g_assert_false (relay_lives (f->lock));
  f->life = relay_start (&listener, f->path, f->lock, NULL);
  g_assert_cmpint (f->life, >=, 0);
  relay_listener_close (&listener);
  g_assert_true (relay_lives (f->lock));
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_assert_true (relay_end (f->lock, NULL));
  g_assert_false (g_file_test (f->lock, G_FILE_TEST_EXISTS));
  close (f->server);
  if (f->life >= 0)
    close (f->life);
  g_assert_true (fsx_remove (f->path, NULL));
  g_rmdir (f->dir);
  g_free (f->dir);
  g_free (f->path);
  g_free (f->lock);
}

/* A client of the relay, and the connection by which the server sees it. */
static void
connect_pair (Fixture *f, int *client, int *server)
{
  struct timeval limit = { .tv_sec = 20 };
  *client = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (connect (*client, (struct sockaddr *) &f->address, sizeof f->address), ==, 0);
  *server = accept4 (f->server, NULL, NULL, SOCK_CLOEXEC);
  g_assert_cmpint (*server, >=, 0);
  setsockopt (*client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt (*server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static gpointer
say_much (gpointer data)
{
  int fd = GPOINTER_TO_INT (data);
  for (int sent = 0; sent < ANSWER; sent += sizeof (gint32[WORDS])) {
    gint32 words[WORDS];
    for (int i = 0; i < WORDS; i++)
      words[i] = sent / 4 + i;
    if (send (fd, words, sizeof words, MSG_NOSIGNAL) != sizeof words)
      break;
  }
  shutdown (fd, SHUT_WR);
  return NULL;
}

/* What say_much() says, up to the end. */
static void
hear_much (int fd)
{
  gint32 words[WORDS];
  int heard = 0;
  while (recv (fd, words, sizeof words, MSG_WAITALL) == sizeof words) {
    for (int i = 0; i < WORDS; i++)
      g_assert_cmpint (words[i], ==, heard / 4 + i);
    heard += sizeof words;
  }
  g_assert_cmpint (heard, >=, ANSWER);
}

static void
test_both_ways (Fixture *f, gconstpointer data)
{
  int client, server;
  char end;
  connect_pair (f, &client, &server);
  GThread *thread = g_thread_new (NULL, say_much, GINT_TO_POINTER (client));
  hear_much (server); /* to the client's end of file: it has closed its half */
  g_thread_join (thread);
  thread = g_thread_new (NULL, say_much, GINT_TO_POINTER (server));
  hear_much (client);
  g_assert_cmpint (recv (client, &end, 1, 0), ==, 0);
  g_thread_join (thread);
  close (client);
  close (server);
}

static void
test_one_that_takes_nothing (Fixture *f, gconstpointer data)
{
  int deaf, deaf_server, client, server;
  connect_pair (f, &deaf, &deaf_server);
  GThread *stuck = g_thread_new (NULL, say_much, GINT_TO_POINTER (deaf_server));
  connect_pair (f, &client, &server);
  GThread *thread = g_thread_new (NULL, say_much, GINT_TO_POINTER (server));
  hear_much (client);
  g_thread_join (thread);
  /* And when it goes, whoever talks to it notices. */
  close (deaf);
  g_thread_join (stuck);
  close (deaf_server);
  close (client);
  close (server);
}

static void
test_server_gone (Fixture *f, gconstpointer data)
{
  char end;
  int client = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  close (f->server);
  f->server = -1;
  g_assert_cmpint (connect (client, (struct sockaddr *) &f->address, sizeof f->address), ==, 0);
  g_assert_cmpint (recv (client, &end, 1, 0), <=, 0);
  close (client);
  g_assert_true (relay_lives (f->lock));
}

static void
wait_for_its_end (int client, int server)
{
  char end;
  g_assert_cmpint (recv (client, &end, 1, 0), <=, 0);
  g_assert_cmpint (recv (server, &end, 1, 0), <=, 0);
  close (client);
  close (server);
}

static void
test_life_line (Fixture *f, gconstpointer data)
{
  int client, server;
  connect_pair (f, &client, &server);
  close (f->life);
  f->life = -1;
  wait_for_its_end (client, server);
}

static void
test_end (Fixture *f, gconstpointer data)
{
  int client, server;
  connect_pair (f, &client, &server);
  g_assert_true (relay_end (f->lock, NULL));
  wait_for_its_end (client, server);
  g_assert_false (relay_lives (f->lock));
}

static void
test_listening (void)
{
  RelayListener first, second;
  struct sockaddr_in address;
  socklen_t len = sizeof address;
  g_autoptr (TmkError) err = NULL;
  g_assert_true (relay_listen (&first, "127.0.0.1", 0, NULL));
  g_assert_cmpint (getsockname (first.fds[0], (struct sockaddr *) &address, &len), ==, 0);
  g_assert_false (relay_listen (&second, "127.0.0.1", ntohs (address.sin_port), &err));
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_BUSY);
  g_assert_cmpuint (second.n, ==, 0);
  relay_listener_close (&first);
  g_clear_pointer (&err, tmk_error_free);
  g_assert_false (relay_listen (&first, "192.0.2.1", 0, &err));
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define RELAY_TEST(name, function)                                                                 \
  g_test_add ("/relay/" name, Fixture, NULL, set_up, function, tear_down)
  RELAY_TEST ("both-ways", test_both_ways);
  RELAY_TEST ("one-that-takes-nothing", test_one_that_takes_nothing);
  RELAY_TEST ("server-gone", test_server_gone);
  RELAY_TEST ("life-line", test_life_line);
  RELAY_TEST ("end", test_end);
  g_test_add_func ("/relay/listening", test_listening);
  return g_test_run ();
}
