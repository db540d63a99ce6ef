/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/pause.h: holding the guest still for an instant, and never longer.
 *
 * A pull puts a filter between each disk and its device, which QEMU does for one device at a time:
 * the guest must not write in between. (A push needs no such thing, see job_plan_actions().) Before
 * that the images are synced by us, from outside, for `stop` flushes them and would take as long as
 * their dirty pages do. While it is stopped a child process watches: should we die in between, it
 * connects to the monitor and lets the guest go on.
 */
#pragma once

#include "hv/qmp/machine.h"
#include "hv/watchdog.h"

typedef struct {
  bool stopped;
  Watchdog watchdog;
  gint64 since_us;
} Pause;

/* So that the guest, whose file systems may be frozen by then, need not wait for it. */
void pause_sync_images (const QmpMachine *machine);

/* Stops the guest if it runs. On failure it runs on, or will: where QEMU is late to stop it, a
 * process sees to it for some minutes, and afterwards who takes the job back (record_set_held()).
 */
bool pause_begin (QmpMachine *machine, Pause *pause, TmkError **errp);

/* Lets it go on, and stores how long it stood still (0 where it did not run). */
bool pause_end (QmpMachine *machine, Pause *pause, guint64 *pause_us, TmkError **errp);
