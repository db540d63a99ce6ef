/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-qmp.c: round trips to a real qemu-storage-daemon, and what its schema costs.
 *
 * Usage: bench-qmp [SECONDS [ADDRESS]]. Without an address it starts a qemu-storage-daemon of its
 * own and ends it again. Prints one line a measure.
 */
#include "qmp/schema.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void
die_with_parent (gpointer unused)
{
  (void) unused;
  prctl (PR_SET_PDEATHSIG, SIGKILL);
}

static GPid
start_daemon (const char *socket)
{
  g_autofree char *chardev = g_strdup_printf ("socket,id=c,path=%s,server=on,wait=off", socket);
  const char *argv[] = { "qemu-storage-daemon", "--chardev", chardev, "--monitor", "c", NULL };
  GPid pid = 0;
  g_autoptr (GError) err = NULL;
  if (!g_spawn_async (NULL, (char **) argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                      die_with_parent, NULL, &pid, &err)) {
    fprintf (stderr, "bench-qmp: %s\n", err->message);
    exit (77);
  }
  while (!g_file_test (socket, G_FILE_TEST_EXISTS))
    g_usleep (10000);
  return pid;
}

static int
compare (const void *a, const void *b)
{
  gint64 x = *(const gint64 *) a, y = *(const gint64 *) b;
  return (x > y) - (x < y);
}

static bool
measure_round_trips (QmpClient *client, double seconds, TmkError **errp)
{
  g_autoptr (GArray) times = g_array_new (FALSE, FALSE, sizeof (gint64));
  gint64 begin = g_get_monotonic_time (), last = begin, end = begin + (gint64) (seconds * 1e6);
  while (last < end) {
    if (!qmp_run (client, "query-version", NULL, errp))
      return false;
    gint64 now = g_get_monotonic_time (), took = now - last;
    g_array_append_val (times, took);
    last = now;
  }
  g_array_sort (times, compare);
  printf ("query-version: %.0f/s, p50 %" G_GINT64_FORMAT " us, p99 %" G_GINT64_FORMAT " us\n",
          times->len / ((double) (last - begin) / 1e6),
          g_array_index (times, gint64, times->len / 2),
          g_array_index (times, gint64, times->len * 99 / 100));
  return true;
}

static bool
measure_schema (QmpClient *client, TmkError **errp)
{
  gint64 begin = g_get_monotonic_time ();
  for (int i = 0; i < 50; i++) {
    g_autoptr (QmpSchema) schema = qmp_schema_read (client, errp);
    if (schema == NULL)
      return false;
  }
  printf ("query-qmp-schema: %.2f ms\n", (double) (g_get_monotonic_time () - begin) / 50 / 1000);
  return true;
}

static bool
measure_open (const char *addr, TmkError **errp)
{
  gint64 begin = g_get_monotonic_time ();
  for (int i = 0; i < 200; i++) {
    g_autoptr (QmpClient) client = qmp_client_open (addr, NULL, errp);
    if (client == NULL)
      return false;
  }
  printf ("open and close: %.2f ms\n", (double) (g_get_monotonic_time () - begin) / 200 / 1000);
  return true;
}

static bool
measure (const char *addr, double seconds, TmkError **errp)
{
  g_autoptr (QmpClient) client = qmp_client_open (addr, NULL, errp);
  if (client == NULL || !measure_round_trips (client, seconds, errp)
      || !measure_schema (client, errp))
    return false;
  qmp_client_free (g_steal_pointer (&client));
  return measure_open (addr, errp);
}

int
main (int argc, char **argv)
{
  double seconds = argc > 1 ? strtod (argv[1], NULL) : 3;
  g_autofree char *folder = NULL;
  g_autofree char *addr = argc > 2 ? g_strdup (argv[2]) : NULL;
  GPid pid = 0;
  if (addr == NULL) {
    folder = g_dir_make_tmp ("tmk-bench-XXXXXX", NULL);
    addr = g_build_filename (folder, "monitor", NULL);
    pid = start_daemon (addr);
  }
  g_autoptr (TmkError) err = NULL;
  bool ok = measure (addr, seconds, &err);
  if (!ok)
    fprintf (stderr, "bench-qmp: %s\n", tmk_error_message (err));
  if (pid != 0) {
    kill (pid, SIGKILL);
    waitpid (pid, NULL, 0);
    g_unlink (addr);
    g_rmdir (folder);
  }
  return ok ? 0 : 1;
}
