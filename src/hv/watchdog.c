/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/watchdog.c: see hv/watchdog.h. */
#include "hv/watchdog.h"

#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOMAIN "hv"

static void
keep_only (int fd)
{
  if (fd != 3)
    dup2 (fd, 3);
  (void) close_range (4, ~0U, 0);
  int null = open ("/dev/null", O_RDWR);
  for (int i = 0; i < 3 && null >= 0; i++)
    dup2 (null, i);
  if (null > 3)
    close (null);
}

static _Noreturn void
watch (int fd, void (*rescue) (const void *data), const void *data)
{
  char word;
  ssize_t n;
  setsid (); /* a signal to our process group is not for the watchdog */
  keep_only (fd);
  testpoint_disarm ();
  do
    n = read (3, &word, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1)
    rescue (data);
  _exit (0);
}

bool
watchdog_start (Watchdog *dog, void (*rescue) (const void *data), const void *data, TmkError **errp)
{
  int ends[2];
  *dog = (Watchdog){ .pipe = -1 };
  if (pipe2 (ends, O_CLOEXEC) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot make a pipe");
    return false;
  }
  dog->pid = fork ();
  if (dog->pid == 0) {
    close (ends[1]);
    watch (ends[0], rescue, data);
  }
  int err = errno;
  close (ends[0]);
  if (dog->pid < 0) {
    error_set_errno (errp, DOMAIN, err, "cannot start the watchdog");
    close (ends[1]);
    return false;
  }
  dog->pipe = ends[1];
  return true;
}

void
watchdog_dismiss (Watchdog *dog)
{
  (void) !write (dog->pipe, "d", 1); /* it lives: a pipe of one byte is never full */
  close (dog->pipe);
  while (waitpid (dog->pid, NULL, 0) < 0 && errno == EINTR)
    ;
}

void
watchdog_wake (Watchdog *dog)
{
  close (dog->pipe);
}
