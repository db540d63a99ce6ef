/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/offspring.c: see hv/offspring.h. */
#include "hv/offspring.h"

#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST 3

/* Puts `fds` at 3 and on, closes all others, and has nothing to do with our terminal. */
static void
keep_only (int *fds, size_t n)
{
  for (size_t i = 0; i < n; i++)
    fds[i] = fcntl (fds[i], F_DUPFD, FIRST + (int) n);
  for (size_t i = 0; i < n; i++)
    fds[i] = dup2 (fds[i], FIRST + (int) i);
  (void) close_range (FIRST + (unsigned) n, ~0U, 0);
  int null = open ("/dev/null", O_RDWR);
  for (int i = 0; i < FIRST && null >= 0; i++)
    dup2 (null, i);
  if (null >= FIRST)
    close (null);
}

static void
reset_signals (void)
{
  sigset_t none;
  sigemptyset (&none);
  for (int number = 1; number < NSIG; number++)
    (void) signal (number, SIG_DFL); /* some cannot be, and are so already */
  (void) sigprocmask (SIG_SETMASK, &none, NULL);
}

/* By way of a child that ends at once, so that it becomes nobody's zombie. */
bool
offspring_start (void (*run) (const int *fds, const void *data), const int *fds, size_t n,
                 const void *data)
{
  pid_t pid = fork ();
  if (pid == 0) {
    int own[OFFSPRING_FDS];
    if (n > OFFSPRING_FDS || fork () != 0)
      _exit (0);
    memcpy (own, fds, n * sizeof *fds);
    setsid ();
    keep_only (own, n);
    reset_signals ();
    testpoint_disarm ();
    (void) !chdir ("/");
    run (own, data);
    _exit (0);
  }
  while (pid > 0 && waitpid (pid, NULL, 0) < 0 && errno == EINTR)
    ;
  return pid > 0;
}
