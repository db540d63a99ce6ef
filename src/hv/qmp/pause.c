/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/pause.c: see hv/qmp/pause.h. */
#include "hv/qmp/pause.h"

#include "qmp/commands.h"

#include <fcntl.h>
#include <unistd.h>

#define RESCUE_S 300 /* storage that hangs holds QEMU up, and with it what lets the guest go on */
#define RESCUE_ALONE 60 /* times that nobody is at the monitor's address: QEMU has ended */

void
pause_sync_images (const QmpMachine *machine)
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

/* In the watchdog. */
static void
resume_guest (const void *data)
{
  const char *address = data;
  QmpOptions options = { .greeting_timeout_ms = 500 };
  gint64 deadline = g_get_monotonic_time () + RESCUE_S * G_USEC_PER_SEC;
  int alone = 0;
  while (alone < RESCUE_ALONE && g_get_monotonic_time () < deadline) {
    g_autoptr (TmkError) err = NULL;
    g_autoptr (QmpClient) client = qmp_client_open (address, &options, &err);
    alone += client == NULL && tmk_error_code (err) != TMK_ERR_BUSY;
    bool running = false;
    g_autofree char *status = NULL;
    if (client != NULL && qmp_query_status (client, &running, &status, NULL)
        && (running || g_strcmp0 (status, "paused") != 0 || qmp_run (client, "cont", NULL, NULL)))
      return;
    g_usleep (20000);
  }
}

/* May QEMU still do what it was asked for? Not where it answered. */
static bool
may_come_yet (const TmkError *err)
{
  TmkErrorCode code = tmk_error_code (err);
  return code == TMK_ERR_TIMEOUT || code == TMK_ERR_GONE || code == TMK_ERR_INVALID;
}

bool
pause_begin (QmpMachine *machine, Pause *pause, TmkError **errp)
{
  *pause = (Pause){ .stopped = false };
  bool running = false;
  if (!qmp_query_status (machine->client, &running, NULL, errp))
    return false;
  if (!running)
    return true;
  pause_sync_images (machine);
  if (!watchdog_start (&pause->watchdog, resume_guest, machine->address, errp))
    return false;
  pause->since_us = g_get_monotonic_time ();
  TmkError *err = NULL;
  if (!qmp_run (machine->client, "stop", NULL, &err)) {
    if (may_come_yet (err))
      watchdog_wake (&pause->watchdog);
    else
      watchdog_dismiss (&pause->watchdog);
    error_prefix (&err, "cannot hold the guest still");
    error_propagate (errp, err);
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
    watchdog_dismiss (&pause->watchdog);
  else
    watchdog_wake (&pause->watchdog); /* it gets to QEMU once our connection is closed */
  pause->stopped = false;
  return ok;
}
