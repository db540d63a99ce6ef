/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/pause.c: see hv/qmp/pause.h.
 *
 * The watchdog is a forked child that does nothing but read a pipe. It closes every descriptor it
 * inherited, the monitor's connection above all: QEMU must see that one end when we die.
 */
#include "hv/qmp/pause.h"

#include "qmp/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOMAIN "hv"
#define WATCHDOG_TRIES 60 /* of half a second each */

static void
sync_images (const QmpMachine *machine)
{
  for (guint i = 0; i < machine->disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (machine->disks, i);
    const DiskImage *active = qmp_disk_active (disk);
    if (active == NULL || active->read_only || active->filename == NULL || *active->filename != '/')
      continue;
    int fd = open (active->filename, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
      continue; /* it only shortens the pause */
    (void) fdatasync (fd);
    close (fd);
  }
}

static void
resume_guest (const char *address)
{
  QmpOptions options = { .greeting_timeout_ms = 500 };
  for (int i = 0; i < WATCHDOG_TRIES; i++) {
    g_autoptr (QmpClient) client = qmp_client_open (address, &options, NULL);
    bool running = false;
    g_autofree char *status = NULL;
    if (client != NULL && qmp_query_status (client, &running, &status, NULL)
        && (running || g_strcmp0 (status, "paused") != 0 || qmp_run (client, "cont", NULL, NULL)))
      return;
    g_usleep (20000);
  }
}

static _Noreturn void
watch (int fd, const char *address)
{
  char word = 0;
  ssize_t n;
  setsid (); /* a signal to our process group is not for the watchdog */
  if (fd > 3) {
    dup2 (fd, 3);
    fd = 3;
  }
  (void) close_range (4, ~0U, 0);
  do
    n = read (fd, &word, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1)
    resume_guest (address);
  _exit (0);
}

static bool
start_watchdog (QmpMachine *machine, Pause *pause, TmkError **errp)
{
  int ends[2];
  if (pipe2 (ends, O_CLOEXEC) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot make a pipe");
    return false;
  }
  pause->watchdog = fork ();
  if (pause->watchdog == 0) {
    close (ends[1]);
    watch (ends[0], machine->address);
  }
  close (ends[0]);
  if (pause->watchdog < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot start the watchdog");
    close (ends[1]);
    return false;
  }
  pause->pipe = ends[1];
  return true;
}

static void
end_watchdog (Pause *pause)
{
  (void) !write (pause->pipe, "d", 1); /* it lives: a pipe of one byte is never full */
  close (pause->pipe);
  while (waitpid (pause->watchdog, NULL, 0) < 0 && errno == EINTR)
    ;
}

bool
pause_begin (QmpMachine *machine, Pause *pause, TmkError **errp)
{
  *pause = (Pause){ .stopped = false, .pipe = -1 };
  bool running = false;
  if (!qmp_query_status (machine->client, &running, NULL, errp))
    return false;
  if (!running)
    return true;
  sync_images (machine);
  if (!start_watchdog (machine, pause, errp))
    return false;
  pause->since_us = g_get_monotonic_time ();
  if (!qmp_run (machine->client, "stop", NULL, errp)) {
    error_prefix (errp, "cannot hold the guest still");
    end_watchdog (pause);
    return false;
  }
  pause->stopped = true;
  return true;
}

bool
pause_end (QmpMachine *machine, Pause *pause, guint64 *pause_us, TmkError **errp)
{
  *pause_us = 0;
  if (!pause->stopped)
    return true;
  bool ok = qmp_run (machine->client, "cont", NULL, errp);
  *pause_us = (guint64) (g_get_monotonic_time () - pause->since_us);
  if (ok)
    end_watchdog (pause);
  else
    close (pause->pipe); /* the watchdog tries on its own, once our connection is closed */
  pause->stopped = false;
  return ok;
}
