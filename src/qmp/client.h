/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/client.h: a connection to one QMP monitor (source: QEMU, docs/interop/qmp-spec).
 *
 * The client is synchronous: one command is sent, its reply is matched by id, and events that
 * come meanwhile are queued. One thread at a time per client. QEMU serves one client per
 * monitor: a second one connects but is not greeted until the first leaves, which is reported
 * as TMK_ERR_BUSY ('monitor busy') when the greeting does not come in time.
 *
 * Events are hints. At most QMP_EVENTS_MAX are kept: beyond that a new one takes the place of the
 * oldest of the same name, or of the oldest of all, so that a flood of one kind loses only its own.
 * Who waits for an event must also ask for the state now and then (query-jobs and so on).
 *
 * With TIDEMARK_QMP_TRACE=1 in the environment each message is printed to stderr, without secrets.
 */
#pragma once

#include "util/error.h"
#include "util/jsonx.h"
#include <glib.h>
#include <jansson.h>
#include <sys/types.h>

typedef struct QmpClient QmpClient;

#define QMP_EVENTS_MAX 4096

typedef struct {
  unsigned greeting_timeout_ms; /* 0: 5000; from the start of connecting to the greeting */
  unsigned reply_timeout_ms;    /* 0: 60000; a command without a reply in this time is an error
                                   and the connection is closed */
} QmpOptions;

/* The address in one normal form: "unix:/absolute/path" or "tcp:host:port". Accepts a plain path,
 * "unix:PATH" and "tcp:HOST:PORT" (IPv6 hosts in brackets). Free with g_free(). */
char *qmp_address_normalize (const char *addr, TmkError **errp);

/* Connects, waits for the greeting, negotiates. `opts` may be NULL. The path of a unix socket may
 * be longer than sun_path. TMK_ERR_NOT_FOUND: no such socket; TMK_ERR_GONE: nobody listens;
 * TMK_ERR_BUSY: see above; TMK_ERR_INVALID: what listens does not speak QMP. */
QmpClient *qmp_client_open (const char *addr, const QmpOptions *opts, TmkError **errp);

void qmp_client_free (QmpClient *client);

/* Closes and opens the same address again (events queued so far are kept). After a failure the
 * client is closed, and this may be tried again. */
bool qmp_client_reconnect (QmpClient *client, TmkError **errp);

/* Runs `command` with `arguments` (reference stolen, also on failure; NULL: none). Returns the
 * "return" value, a new reference. An error reply is TMK_ERR_FAILED (TMK_ERR_UNSUPPORTED for class
 * CommandNotFound, TMK_ERR_NOT_FOUND for DeviceNotFound) whose message is QEMU's own text;
 * TMK_ERR_GONE where the connection ends; TMK_ERR_TIMEOUT where no reply comes in time, and then it
 * is not known whether the command was or will be carried out. A command that changes something
 * passes the test points "qmp:COMMAND" and "qmp:COMMAND:done". */
json_t *qmp_execute (QmpClient *client, const char *command, json_t *arguments, TmkError **errp);

/* As qmp_execute() where the reply does not matter. */
bool qmp_run (QmpClient *client, const char *command, json_t *arguments, TmkError **errp);

/* Many commands, sent before the first is answered: a `batch` is an array of them. QEMU carries
 * them out one after the other, and goes on where one fails: of those behind it nothing is known
 * but that they were carried out, or refused. Not for commands with secrets. */
void qmp_batch_add (json_t *batch, const char *command, json_t *arguments /* stolen; or NULL */);

/* An array of their results (a new reference), or NULL where one failed: then the first error, and
 * in `*failed` (may be NULL) the number of the command that it is of. All replies have come by
 * then, unless the connection ended. Each has the time for a reply, from when the one before it
 * came. */
json_t *qmp_execute_all (QmpClient *client, const json_t *batch, size_t *failed, TmkError **errp);

/* Passes QEMU a copy of the descriptor `fd`, under `name`: until a command uses it up, or closefd.
 * Only where the monitor is on a unix socket. */
bool qmp_pass_fd (QmpClient *client, const char *name, int fd, TmkError **errp);

/* Takes the oldest queued event whose name is `name` (NULL: any), waiting up to `timeout_ms` for
 * one to come (0: only look at what is there). Returns the whole event object, a new reference, or
 * NULL: without an error on time-out, with one (TMK_ERR_GONE) where the connection ended. */
json_t *qmp_client_take_event (QmpClient *client, const char *name, unsigned timeout_ms,
                               TmkError **errp);

/* As qmp_client_take_event(), but only an event whose "data" holds the string `value` at `key`: the
 * JOB_STATUS_CHANGE of one job ("id"), the BLOCK_EXPORT_DELETED of one export. */
json_t *qmp_client_take_event_of (QmpClient *client, const char *name, const char *key,
                                  const char *value, unsigned timeout_ms, TmkError **errp);

/* QEMU's version as major*10000 + minor*100 + micro, from the greeting. */
unsigned qmp_client_version (const QmpClient *client);
/* "tcp:…" or "unix:…", normalized. Owned by the client. */
const char *qmp_client_address (const QmpClient *client);

/* The credentials of the process that called listen() at the other end (SO_PEERCRED): QEMU's own,
 * unless it was started with a socket that somebody else made (libvirt does that). False on TCP and
 * without a connection. */
bool qmp_client_peer (const QmpClient *client, pid_t *pid, uid_t *uid, gid_t *gid);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpClient, qmp_client_free)
