/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/lease.c: see repo/lease.h.
 *
 * When to renew goes by this machine's monotonic clock, whether the lease has ended by the store's:
 * a machine that slept has a lease that ended, whatever it believes.
 */
#include "repo/lease.h"

#include "format/jsonfmt.h"
#include "repo/record.h"

#include <stdatomic.h>
#include <unistd.h>

#define DOMAIN "repo"
#define RENEW_US (LEASE_US / 3)
#define RETRY_US (G_TIME_SPAN_MINUTE)

struct Lease {
  ObjStore *store;
  _Atomic int64_t due; /* monotonic: when to renew it */
  GMutex lock;
  /* under `lock` */
  char *name;
  int64_t begun_us, expires_us; /* by the store's clock */
};

static bool
publish (Lease *lease, TmkError **errp)
{
  int64_t now;
  if (!obj_store_now (lease->store, &now, errp))
    return false;
  int64_t begun = lease->name != NULL ? lease->begun_us : now;
  json_t *document
      = json_pack ("{s:i, s:o, s:I, s:s}", "format", 1, "host", jsonfmt_string (g_get_host_name ()),
                   "pid", (json_int_t) getpid (), "tool", "tidemark");
  json_object_set_new (document, "begun", jsonfmt_time (begun));
  json_object_set_new (document, "expires", jsonfmt_time (now + LEASE_US));
  g_autofree char *json = jsonfmt_dump (document);
  g_autofree char *name = record_new_name ("leases", errp);
  if (name == NULL
      || !record_publish (lease->store, name, OBJECT_LEASE, CODEC_PLAIN, 0, json, strlen (json),
                          errp))
    return false;
  g_autofree char *old = g_steal_pointer (&lease->name);
  lease->name = g_steal_pointer (&name);
  lease->begun_us = begun;
  lease->expires_us = now + LEASE_US;
  if (old != NULL)
    (void) obj_store_remove (lease->store, old, NULL); /* one that stays ends by itself */
  return true;
}

Lease *
lease_new (ObjStore *store, TmkError **errp)
{
  Lease *lease = g_new0 (Lease, 1);
  lease->store = store;
  g_mutex_init (&lease->lock);
  atomic_init (&lease->due, g_get_monotonic_time () + RENEW_US);
  if (publish (lease, errp))
    return lease;
  lease_free (lease);
  return NULL;
}

void
lease_free (Lease *lease)
{
  if (lease == NULL)
    return;
  if (lease->name != NULL)
    (void) obj_store_remove (lease->store, lease->name, NULL); /* one that stays ends by itself */
  g_free (lease->name);
  g_mutex_clear (&lease->lock);
  g_free (lease);
}

/* Is it there, as far as one can tell, and has it not ended? Under `lock`. */
static bool
check (Lease *lease, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  int64_t now;
  if (!obj_store_now (lease->store, &now, errp))
    return false;
  g_autoptr (ObjReader) reader = obj_store_open (lease->store, lease->name, &err);
  if (reader == NULL && tmk_error_code (err) != TMK_ERR_NOT_FOUND) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  if (reader != NULL && now < lease->expires_us)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_GONE, 0, "the lease of this backup %s",
             reader == NULL ? "was removed by somebody" : "has ended: it was held up for too long");
  error_hint (errp, "run the backup again; what was stored already will be found");
  return false;
}

void
lease_touch (Lease *lease)
{
  int64_t now = g_get_monotonic_time ();
  if (G_LIKELY (now < atomic_load_explicit (&lease->due, memory_order_relaxed))
      || !g_mutex_trylock (&lease->lock)) /* another thread is at it */
    return;
  if (now >= atomic_load (&lease->due)) {
    /* One that was gone or had ended must not be renewed: in between nothing was protected. */
    bool renewed = check (lease, NULL) && publish (lease, NULL);
    atomic_store (&lease->due, g_get_monotonic_time () + (renewed ? RENEW_US : RETRY_US));
  }
  g_mutex_unlock (&lease->lock);
}

void
lease_make_due (Lease *lease)
{
  atomic_store (&lease->due, g_get_monotonic_time ());
}

bool
lease_check (Lease *lease, TmkError **errp)
{
  g_mutex_lock (&lease->lock);
  bool ok = check (lease, errp);
  g_mutex_unlock (&lease->lock);
  return ok;
}
