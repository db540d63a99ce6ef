/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* util/testpoint.c: see util/testpoint.h. Safe in any thread; the count is atomic. */
#include "util/testpoint.h"

#include <glib.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static gsize ready;
static int kill_at; /* fixed once `ready` is set; 0: never */
static bool trace;
static int count; /* atomic */

void
testpoint_disarm (void)
{
  if (g_once_init_enter (&ready))
    g_once_init_leave (&ready, 1);
  kill_at = 0;
  trace = false;
}

void
testpoint (const char *name)
{
  if (g_once_init_enter (&ready)) {
    const char *at = getenv ("TIDEMARK_TEST_KILL_AT");
    kill_at = at != NULL ? atoi (at) : 0;
    trace = getenv ("TIDEMARK_TEST_TRACE") != NULL;
    g_once_init_leave (&ready, 1);
  }
  if (G_LIKELY (kill_at == 0 && !trace))
    return;
  int n = g_atomic_int_add (&count, 1) + 1;
  if (trace)
    fprintf (stderr, "testpoint %d %s\n", n, name);
  if (n == kill_at)
    raise (SIGKILL);
}
