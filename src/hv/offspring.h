/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/offspring.h: a process of ours that outlives whoever started it, and that nobody waits for.
 *
 * It has a session of its own, so no signal to our process group is meant for it, and keeps no
 * descriptor open but those it was given: whoever is at the other end of one of ours sees it close
 * when we die, and who waits for the end of our output does not wait for it. Test points are none
 * in it. It is forked, so in a program with threads it must not rely on their locks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define OFFSPRING_FDS 16

/* Runs `run` there, with `n` descriptors that stand for those of `fds`. False with errno. */
bool offspring_start (void (*run) (const int *fds, const void *data), const int *fds, size_t n,
                      const void *data);
