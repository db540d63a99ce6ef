/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-qmp-peers.h: what the QMP tests talk to. A real qemu-storage-daemon or QEMU wherever one can
 * show the behaviour; a thread that plays a script only for what they cannot be made to do.
 * Everything lives in a folder made for the test, and every process dies with the test.
 */
#pragma once

#include "qmp/client.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define GREETING                                                                                   \
  "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": 2, \"major\": 10},"                \
  " \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"

/* --- a folder */

static inline char *
make_folder (void)
{
  char *folder = g_dir_make_tmp ("tmk-qmp-XXXXXX", NULL);
  g_assert_nonnull (folder);
  return folder;
}

static inline void
remove_folder (char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (g_file_test (path, G_FILE_TEST_IS_DIR))
      remove_folder (g_strdup (path));
    else
      g_unlink (path);
  }
  g_rmdir (folder);
  g_free (folder);
}

/* --- a process */

static inline void
die_with_parent (gpointer unused)
{
  (void) unused;
  prctl (PR_SET_PDEATHSIG, SIGKILL);
}

/* NULL-terminated arguments after `program`; skips the test and returns 0 where it is not there. */
static inline GPid
start_process (const char *cwd, const char *program, ...)
{
  g_autofree char *found = g_find_program_in_path (program);
  if (found == NULL) {
    g_autofree char *why = g_strdup_printf ("%s is not installed", program);
    g_test_skip (why);
    return 0;
  }
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_ptr_array_add (argv, found);
  va_list ap;
  va_start (ap, program);
  char *arg;
  do {
    arg = va_arg (ap, char *);
    g_ptr_array_add (argv, arg);
  } while (arg != NULL);
  va_end (ap);
  GPid pid = 0;
  g_autoptr (GError) err = NULL;
  g_spawn_async (cwd, (char **) argv->pdata, NULL, G_SPAWN_DO_NOT_REAP_CHILD, die_with_parent, NULL,
                 &pid, &err);
  g_assert_no_error (err);
  return pid;
}

static inline void
end_process (GPid pid)
{
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
}

/* Waits until the process listens, and opens `addr`. */
static inline QmpClient *
open_started (const char *addr)
{
  for (int i = 0; i < 500; i++) {
    g_autoptr (TmkError) err = NULL;
    QmpClient *client = qmp_client_open (addr, NULL, &err);
    if (client != NULL)
      return client;
    TmkErrorCode code = tmk_error_code (err);
    if (code != TMK_ERR_NOT_FOUND && code != TMK_ERR_GONE)
      g_error ("%s", tmk_error_message (err));
    g_usleep (20000);
  }
  g_error ("nobody listens at %s", addr);
}

typedef struct {
  char *folder;
  char *socket;
  GPid pid;
} Daemon;

/* A qemu-storage-daemon with one monitor; false (and the test skipped) where there is none. */
static inline bool
start_daemon (Daemon *d)
{
  *d = (Daemon){ .folder = make_folder () };
  d->socket = g_build_filename (d->folder, "monitor", NULL);
  g_autofree char *chardev = g_strdup_printf ("socket,id=c,path=%s,server=on,wait=off", d->socket);
  d->pid = start_process (d->folder, "qemu-storage-daemon", "--chardev", chardev, "--monitor", "c",
                          NULL);
  return d->pid != 0;
}

static inline void
end_daemon (Daemon *d)
{
  if (d->pid != 0)
    end_process (d->pid);
  g_free (d->socket);
  remove_folder (d->folder);
}

/* --- a script */

typedef struct Script Script;
struct Script {
  char *folder;
  char *socket;
  int listener;
  GThread *thread;
  void (*play) (int fd); /* one connection; closed when it returns */
  int connections;
};

static inline void *
play_script (void *data)
{
  Script *s = data;
  for (int i = 0; i < s->connections; i++) {
    int fd = accept (s->listener, NULL, NULL);
    g_assert_cmpint (fd, >=, 0);
    s->play (fd);
    close (fd);
  }
  return NULL;
}

static inline void
start_script (Script *s, void (*play) (int fd), int connections)
{
  *s = (Script){ .folder = make_folder (), .play = play, .connections = connections };
  s->socket = g_build_filename (s->folder, "monitor", NULL);
  s->listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un sun = { .sun_family = AF_UNIX };
  g_strlcpy (sun.sun_path, s->socket, sizeof sun.sun_path);
  g_assert_cmpint (bind (s->listener, (struct sockaddr *) &sun, sizeof sun), ==, 0);
  g_assert_cmpint (listen (s->listener, 1), ==, 0);
  s->thread = g_thread_new ("script", play_script, s);
}

static inline void
end_script (Script *s)
{
  g_thread_join (s->thread);
  close (s->listener);
  g_free (s->socket);
  remove_folder (s->folder);
}

static inline void
say (int fd, const char *text)
{
  size_t len = strlen (text);
  while (len > 0) {
    ssize_t n = send (fd, text, len, MSG_NOSIGNAL);
    if (n < 0)
      return; /* the client has seen enough */
    text += n;
    len -= (size_t) n;
  }
}

/* Reads one command, and returns its id; NULL where the client left. Free with g_free(). */
static inline char *
hear (int fd)
{
  g_autoptr (GString) line = g_string_new (NULL);
  char c;
  while (recv (fd, &c, 1, 0) == 1) {
    if (c != '\n') {
      g_string_append_c (line, c);
      continue;
    }
    g_autoptr (json_t) message = json_loads (line->str, 0, NULL);
    g_assert_nonnull (message);
    return g_strdup (json_string_value (json_object_get (message, "id")));
  }
  return NULL;
}

/* Hears one command and replies; `format` has one %s for the id. */
static inline void
answer (int fd, const char *format)
{
  g_autofree char *id = hear (fd);
  if (id == NULL)
    return;
  g_auto (GStrv) parts = g_strsplit (format, "%s", 2);
  g_autofree char *text = g_strjoinv (id, parts);
  say (fd, text);
}

static inline void
greet (int fd)
{
  say (fd, GREETING);
  answer (fd, "{\"return\": {}, \"id\": \"%s\"}\r\n");
}

/* The error is of `code`, and its message holds `part`. Clears it. */
static inline void
assert_error (TmkError **err, TmkErrorCode code, const char *part)
{
  g_assert_nonnull (*err);
  g_assert_cmpstr (tmk_error_code_name (tmk_error_code (*err)), ==, tmk_error_code_name (code));
  if (strstr (tmk_error_message (*err), part) == NULL)
    g_error ("'%s' does not hold '%s'", tmk_error_message (*err), part);
  tmk_error_free (*err);
  *err = NULL;
}

static inline void
assert_no_error (TmkError *err)
{
  if (err != NULL)
    g_error ("%s", tmk_error_message (err));
}
