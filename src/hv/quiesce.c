/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/quiesce.c: see hv/quiesce.h. */
#include "hv/quiesce.h"

#include "hv/hv.h"

#define DEFAULT_TIMEOUT_MS 5000
#define THAW_TIMEOUT_MS 5000
#define RESCUE_S 300

/* In the watchdog. */
static void
thaw_guest (const void *data)
{
  const char *path = data;
  gint64 deadline = g_get_monotonic_time () + RESCUE_S * G_USEC_PER_SEC;
  while (g_get_monotonic_time () < deadline) {
    g_autoptr (TmkError) err = NULL;
    g_autoptr (Agent) agent = agent_open (path, THAW_TIMEOUT_MS, NULL);
    if (agent != NULL
        && (agent_thaw (agent, THAW_TIMEOUT_MS, &err) || tmk_error_code (err) == TMK_ERR_FAILED))
      return;
    g_usleep (100000);
  }
}

/* What the guest did not confirm may still come to pass: the watchdog goes on. */
static void
leave_to_watchdog (Quiesce *quiesce)
{
  g_clear_pointer (&quiesce->agent, agent_free); /* its channel takes one client at a time */
  watchdog_wake (&quiesce->watchdog);
}

void
quiesce_begin (Quiesce *quiesce, const TmkBeginOptions *options)
{
  *quiesce = (Quiesce){ .agent = NULL };
  if (options->agent == NULL)
    return;
  unsigned timeout_ms
      = options->agent_timeout_ms != 0 ? options->agent_timeout_ms : DEFAULT_TIMEOUT_MS;
  g_autoptr (TmkError) err = NULL;
  gint64 frozen = 0;
  g_autoptr (Agent) agent = agent_open (options->agent, timeout_ms, &err);
  if (agent != NULL && watchdog_start (&quiesce->watchdog, thaw_guest, options->agent, &err)) {
    quiesce->agent = g_steal_pointer (&agent);
    quiesce->since_us = g_get_monotonic_time ();
    if (agent_freeze (quiesce->agent, timeout_ms, &frozen, &err)) {
      quiesce->empty = frozen <= 0;
      if (!quiesce->empty)
        return;
      hv_warn (options, "the guest is not quiesced: its agent found no file system to freeze");
      return;
    }
    if (tmk_error_code (err) == TMK_ERR_FAILED) { /* nothing is frozen */
      g_clear_pointer (&quiesce->agent, agent_free);
      watchdog_dismiss (&quiesce->watchdog);
    } else {
      leave_to_watchdog (quiesce);
    }
  }
  hv_warn (options, "the guest is not quiesced, the backup is what a power cut would leave: %s",
           tmk_error_message (err));
}

bool
quiesce_end (Quiesce *quiesce, const TmkBeginOptions *options, guint64 *frozen_us)
{
  g_autoptr (TmkError) err = NULL;
  *frozen_us = 0;
  if (quiesce->agent == NULL)
    return false;
  bool thawed = agent_thaw (quiesce->agent, THAW_TIMEOUT_MS, &err);
  *frozen_us = (guint64) (g_get_monotonic_time () - quiesce->since_us);
  if (!thawed) {
    leave_to_watchdog (quiesce);
    hv_warn (options,
             "the guest did not confirm that its file systems are thawed (%s); this is"
             " tried again in the background for %d minutes",
             tmk_error_message (err), RESCUE_S / 60);
    return false;
  }
  g_clear_pointer (&quiesce->agent, agent_free);
  watchdog_dismiss (&quiesce->watchdog);
  return !quiesce->empty;
}
