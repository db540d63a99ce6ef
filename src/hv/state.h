/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/state.h: what is remembered of a domain between processes and across reboots.
 *
 *   STATE/domains/KEY/lock             held by whoever changes something
 *   STATE/domains/KEY/reserved         held by a backup as long as it takes
 *   STATE/domains/KEY/job.json         the running (or interrupted) job
 *   STATE/domains/KEY/last.json        the last job that ended
 *   STATE/domains/KEY/libvirt-job.json, libvirt-last.json   the same of jobs that libvirt runs
 *   STATE/domains/KEY/daemon.pid       of the qemu-storage-daemon that serves a staged pull
 *   STATE/domains/KEY/pending.json     bitmaps to remove when QEMU is there again
 *   STATE/domains/KEY/checkpoints/NAME.xml  descriptions of checkpoints, in the internal form
 *   STATE/addresses/HASH               the KEY of the domain last seen at an address
 *
 * KEY is the domain's uuid, or where it has none a hash of its monitor's address. The bitmaps on
 * the disks are the truth about checkpoints; the descriptions add order, time and sizes.
 * All files are published atomically and durably. Users of one State take turns by its lock.
 */
#pragma once

#include "conf/checkpoint_def.h"
#include "util/error.h"
#include "util/jsonx.h"

typedef struct State State;

/* The folder that NULL stands for in TmkDomainOptions.state_dir. Free with g_free(). */
char *state_default_root (void);

/* A key for a domain: `uuid` unless it is NULL or all zero, else made from `address`. */
char *state_key (const char *uuid, const char *address);

/* The key last seen at `address`, or NULL. */
char *state_key_at_address (const char *root, const char *address);

/* Opens (making folders where needed) the state of domain `key`, seen at `address`. */
State *state_open (const char *root, const char *key, const char *address, TmkError **errp);
void state_free (State *state);

/* Takes the domain's lock, waiting up to `timeout_ms`. Not recursive. */
bool state_lock (State *state, unsigned timeout_ms, TmkError **errp);
void state_unlock (State *state);

/* Takes what a backup holds as long as it lasts, for hv_reserve(): a descriptor for fsx_unlock(),
 * or -1, with TMK_ERR_BUSY where another process has it. */
int state_reserve (State *state, TmkError **errp);

/* A document of the domain: "job", "last" or "pending". NULL without an error where there is
 * none. */
json_t *state_read (State *state, const char *name, TmkError **errp);
bool state_write (State *state, const char *name, json_t *value, TmkError **errp);
bool state_remove (State *state, const char *name, TmkError **errp);

/* The path of a file `name` in the domain's folder, made and removed by others. */
char *state_file (State *state, const char *name);

/* All known checkpoints, unordered: TmkCheckpointDef*, freed with the array. Descriptions that
 * cannot be read are left out, for the bitmaps tell what matters. */
GPtrArray *state_checkpoints (State *state, TmkError **errp);
/* TMK_ERR_INVALID where its name is none that a checkpoint may have. */
bool state_write_checkpoint (State *state, const TmkCheckpointDef *def, TmkError **errp);
/* A description that is not there is no error, nor is a name that none can have: bitmaps that
 * others made may be called anything. */
bool state_remove_checkpoint (State *state, const char *name, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (State, state_free)
