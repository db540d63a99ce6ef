/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/agent.h: a connection to the guest agent (source: QEMU, docs/interop/qemu-ga-ref).
 *
 * The agent lives in the guest, so nothing it sends can be relied on, least of all that it sends
 * something. Its channel has no notion of a connection: what an earlier client did not read comes
 * to the next one. guest-sync-delimited is how both ends find a common point.
 */
#pragma once

#include "util/error.h"

typedef struct Agent Agent;

/* Connects to the unix socket at `path` and finds the agent awake, within `timeout_ms`. */
Agent *agent_open (const char *path, unsigned timeout_ms, TmkError **errp);
void agent_free (Agent *agent);

/* Freezes all file systems of the guest; `*frozen` gets how many. TMK_ERR_FAILED: it refused, and
 * nothing is frozen by us. Any other: nobody knows whether or when it will be done. */
bool agent_freeze (Agent *agent, unsigned timeout_ms, gint64 *frozen, TmkError **errp);

bool agent_thaw (Agent *agent, unsigned timeout_ms, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Agent, agent_free)
