/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/quiesce.c: the guest's file systems frozen by way of libvirt's agent; the rules are
 * those of hv/quiesce.h. */
#include "hv/libvirt/job.h"

#include "hv/watchdog.h"

#include <string.h>

#define AGENT_TIMEOUT_S 5
#define RESCUE_S 300
#define RESCUE_LOOK_US G_USEC_PER_SEC
/* A call of one who has died may still begin: libvirt lets it wait for others, up to half a minute
 * (source: libvirt, VIR_JOB_WAIT_TIME). */
#define UNBEGUN_S 35

struct LvFreeze {
  Watchdog watchdog;
  gint64 since_us;
  bool empty; /* there was nothing to freeze */
};

typedef struct {
  const char *uri, *uuid;
} Guest;

/* How long the agent may take to answer, whoever asks it: it is set back behind our own calls. */
static void
set_agent_timeout (virDomainPtr dom, int seconds)
{
  (void) virDomainAgentSetResponseTimeout (dom, seconds, 0); /* older ones do not wait shorter */
}

/* libvirt does not tell what it was: that is how it starts, and hardly anybody changes it. */
static void
reset_agent_timeout (virDomainPtr dom)
{
  set_agent_timeout (dom, VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK);
}

/* Before it thaws, libvirt waits for the answer to whatever the agent was asked for before: so
 * where it had nothing to thaw, or refused, no freeze is under way in the guest. With `late`, nor
 * can one still begin. True: nothing is frozen any more. */
static bool
thaw_once (const Guest *guest, bool late)
{
  g_auto (virConnectPtr) connection = virConnectOpen (guest->uri);
  g_auto (virDomainPtr) dom
      = connection != NULL ? virDomainLookupByUUIDString (connection, guest->uuid) : NULL;
  if (dom == NULL)
    return connection != NULL && virGetLastErrorCode () == VIR_ERR_NO_DOMAIN;
  set_agent_timeout (dom, AGENT_TIMEOUT_S);
  int thawed = virDomainFSThaw (dom, NULL, 0, 0);
  bool no_agent = thawed < 0 && virGetLastErrorCode () == VIR_ERR_ARGUMENT_UNSUPPORTED;
  bool refused = thawed < 0 && strstr (virGetLastErrorMessage (), "guest-fsfreeze-thaw") != NULL;
  reset_agent_timeout (dom);
  return thawed > 0 || no_agent || (late && (thawed == 0 || refused))
         || virDomainIsActive (dom) == 0;
}

/* In a process of its own, which must not touch the connection of the one that died. */
static void
rescue (const void *data)
{
  gint64 start = g_get_monotonic_time (), now = start;
  while (now < start + RESCUE_S * G_USEC_PER_SEC
         && !thaw_once (data, now > start + UNBEGUN_S * G_USEC_PER_SEC)) {
    g_usleep (RESCUE_LOOK_US);
    now = g_get_monotonic_time ();
  }
}

/* What the guest did not confirm may still come to pass: the watchdog goes on, unless libvirt has
 * had no agent to ask. */
static void
leave_to_watchdog (LvDomain *lv, LvFreeze *freeze, bool had_agent)
{
  if (had_agent || !lv_look (lv, NULL) || lv_find_agent (lv) == HV_AGENT_CONNECTED)
    watchdog_wake (&freeze->watchdog);
  else
    watchdog_dismiss (&freeze->watchdog);
}

LvFreeze *
lv_freeze (LvDomain *lv, const TmkBeginOptions *options)
{
  if (options->agent == NULL)
    return NULL;
  LvFreeze *freeze = g_new0 (LvFreeze, 1);
  TmkError *err = NULL;
  unsigned seconds = (options->agent_timeout_ms + 999) / 1000;
  Guest guest = { lv->uri, lv->uuid };
  bool had_agent = lv_find_agent (lv) == HV_AGENT_CONNECTED;
  bool watched = watchdog_start (&freeze->watchdog, rescue, &guest, &err);
  set_agent_timeout (lv->dom, (int) (seconds != 0 ? seconds : AGENT_TIMEOUT_S));
  freeze->since_us = g_get_monotonic_time ();
  int frozen = watched ? virDomainFSFreeze (lv->dom, NULL, 0, 0) : -1;
  freeze->empty = frozen == 0;
  if (freeze->empty)
    hv_warn (options, "the guest is not quiesced: its agent found no file system to freeze");
  if (frozen >= 0)
    return freeze;
  if (watched)
    connection_set_error (&err, "the guest's file systems are not frozen");
  reset_agent_timeout (lv->dom);
  if (watched)
    leave_to_watchdog (lv, freeze, had_agent);
  hv_warn (options, "%s", tmk_error_message (err));
  tmk_error_free (err);
  g_free (freeze);
  return NULL;
}

bool
lv_thaw (LvDomain *lv, LvFreeze *freeze, const TmkBeginOptions *options, guint64 *frozen_us)
{
  if (freeze == NULL)
    return false;
  int thawed = virDomainFSThaw (lv->dom, NULL, 0, 0);
  bool quiesced = thawed > 0 && !freeze->empty;
  *frozen_us = (guint64) (g_get_monotonic_time () - freeze->since_us);
  if (thawed < 0) {
    TmkError *err = NULL;
    connection_set_error (&err, "the guest may have thawed too early, or not yet");
    hv_warn (options, "%s; this is tried again in the background for %d minutes",
             tmk_error_message (err), RESCUE_S / 60);
    tmk_error_free (err);
  } else if (thawed == 0 && !freeze->empty) {
    hv_warn (options, "the guest is not quiesced: its file systems were thawed too early");
  }
  reset_agent_timeout (lv->dom);
  if (thawed < 0)
    watchdog_wake (&freeze->watchdog);
  else
    watchdog_dismiss (&freeze->watchdog);
  g_free (freeze);
  return quiesced;
}
