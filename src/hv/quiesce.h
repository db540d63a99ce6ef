/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/quiesce.h: the guest's file systems frozen for the instant of a backup, and never longer.
 *
 * Without it a backup is what a power cut would leave; journals cope with that. So a guest that
 * does not play along is a warning, not an error. What must never be is a guest left frozen: before
 * it is asked to freeze a watchdog is set, which thaws it should we die, or should the guest not
 * confirm in time that it was thawed, or frozen (it may do so later).
 */
#pragma once

#include "hv/agent.h"
#include "hv/watchdog.h"
#include <tidemark/domain.h>

typedef struct {
  Agent *agent; /* NULL: nothing is frozen */
  bool empty;   /* there was nothing to freeze */
  Watchdog watchdog;
  gint64 since_us;
} Quiesce;

/* Freezes, where `options` ask for it. */
void quiesce_begin (Quiesce *quiesce, const TmkBeginOptions *options);

/* Thaws what was frozen. True where some the file systems were frozen until now and are thawed, and
 * `*frozen_us` gets for how long. */
bool quiesce_end (Quiesce *quiesce, const TmkBeginOptions *options, guint64 *frozen_us);
