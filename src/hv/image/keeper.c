/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/image/keeper.c: a process that sees to it that a daemon ends when its owner does; see
 * hv/image/images.h.
 *
 * The kernel's one signal (PR_SET_PDEATHSIG) may come just before the daemon waits for events and
 * then does not wake it up: images would stay locked though nobody has them. So it is told again.
 */
#include "hv/image/images.h"

#include "hv/offspring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define TELL_EVERY_MS 200
enum { OWNER, DAEMON_FD, N_FDS };

/* The owner's end of the pipe is closed by its end, whatever ends it. */
static void
keep (const int *fds, const void *unused)
{
  (void) unused;
  struct pollfd wait[N_FDS] = {
    [OWNER] = { .fd = fds[OWNER], .events = POLLIN },
    [DAEMON_FD] = { .fd = fds[DAEMON_FD], .events = POLLIN },
  };
  while (wait[OWNER].revents == 0) {
    if (poll (wait, N_FDS, -1) < 0 && errno != EINTR)
      return;
    if (wait[DAEMON_FD].revents != 0)
      return;
  }
  while (poll (&wait[DAEMON_FD], 1, TELL_EVERY_MS) == 0)
    (void) pidfd_send_signal (fds[DAEMON_FD], SIGTERM, NULL, 0);
}

int
keeper_start (pid_t daemon)
{
  int ends[2], fds[N_FDS];
  int pidfd = pidfd_open (daemon, 0);
  if (pidfd < 0 || pipe2 (ends, O_CLOEXEC) != 0) {
    if (pidfd >= 0)
      close (pidfd);
    return -1;
  }
  fds[OWNER] = ends[0];
  fds[DAEMON_FD] = pidfd;
  bool ok = offspring_start (keep, fds, N_FDS, NULL);
  close (ends[0]);
  close (pidfd);
  if (ok)
    return ends[1];
  close (ends[1]);
  return -1;
}
