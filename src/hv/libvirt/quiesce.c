/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/quiesce.c: the guest's file systems frozen by way of libvirt's agent; the rules are
 * those of hv/quiesce.h. */
#include "hv/libvirt/job.h"

#include "hv/watchdog.h"

#define AGENT_TIMEOUT_S 5

struct LvFreeze {
  Watchdog watchdog;
  gint64 since_us;
};

typedef struct {
  const char *uri, *uuid;
} Guest;

/* In a process of its own, which must not touch the connection of the one that died. */
static void
rescue (const void *data)
{
  const Guest *guest = data;
  virConnectPtr connection = virConnectOpen (guest->uri);
  virDomainPtr dom
      = connection != NULL ? virDomainLookupByUUIDString (connection, guest->uuid) : NULL;
  if (dom != NULL)
    (void) virDomainFSThaw (dom, NULL, 0, 0);
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
  /* Older ones wait as long as they like. */
  (void) virDomainAgentSetResponseTimeout (lv->dom,
                                           (int) (seconds != 0 ? seconds : AGENT_TIMEOUT_S), 0);
  bool watched = watchdog_start (&freeze->watchdog, rescue, &guest, &err);
  freeze->since_us = g_get_monotonic_time ();
  if (watched && virDomainFSFreeze (lv->dom, NULL, 0, 0) >= 0)
    return freeze;
  if (watched) {
    connection_set_error (&err, "the guest's file systems are not frozen");
    watchdog_wake (&freeze->watchdog); /* it may yet freeze them */
  }
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
  bool thawed = virDomainFSThaw (lv->dom, NULL, 0, 0) >= 0;
  *frozen_us = (guint64) (g_get_monotonic_time () - freeze->since_us);
  if (thawed) {
    watchdog_dismiss (&freeze->watchdog);
  } else {
    TmkError *err = NULL;
    connection_set_error (&err, "the guest may have thawed too early, or not yet");
    hv_warn (options, "%s", tmk_error_message (err));
    tmk_error_free (err);
    watchdog_wake (&freeze->watchdog);
  }
  g_free (freeze);
  return thawed;
}
