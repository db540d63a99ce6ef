/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/lease.h: a writer's lease: an object of kind OBJECT_LEASE that says until when nobody may
 * give back what the writer counts on. It ends by the store's clock. Renewing publishes a new one
 * and then removes the old one, so there is one at any time.
 *
 *   {"format": 1, "host": …, "pid": …, "tool": …, "begun": RFC 3339, "expires": RFC 3339}
 *
 * May be used by any number of threads at once.
 */
#pragma once

#include "objstore/objstore.h"

typedef struct Lease Lease;

#define LEASE_US (60 * G_TIME_SPAN_MINUTE)

Lease *lease_new (ObjStore *store, TmkError **errp);
/* Drops it. NULL is allowed. */
void lease_free (Lease *lease);

/* Renews it when it is time to: cheap otherwise. That it could not be renewed is no error as long
 * as it has not ended: it is tried again, and lease_check() has the last word. */
void lease_touch (Lease *lease);

/* Now is the time; for tests. */
void lease_make_due (Lease *lease);

/* Is it still there, and has it not ended? TMK_ERR_GONE. */
bool lease_check (Lease *lease, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Lease, lease_free)
