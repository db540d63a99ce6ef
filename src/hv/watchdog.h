/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/watchdog.h: a process that puts right what we have upset, should we die before we do.
 *
 * It is a forked child that does nothing but wait at a pipe. It keeps no descriptor of ours open:
 * whoever is at the other end of one must see it close when we die, and who waits for the end of
 * our output must not wait for the watchdog.
 */
#pragma once

#include "util/error.h"
#include <sys/types.h>

typedef struct {
  int pipe; /* closing it without a word wakes the watchdog */
  pid_t pid;
} Watchdog;

/* From now on `rescue (data)` runs in a process of its own if this one ends. */
bool watchdog_start (Watchdog *dog, void (*rescue) (const void *data), const void *data,
                     TmkError **errp);

/* All is well: it ends. */
void watchdog_dismiss (Watchdog *dog);

/* It is to act now, and nobody waits for it. */
void watchdog_wake (Watchdog *dog);
