/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/channel.h: a connection to a QMP monitor as a stream of messages, without what they mean.
 *
 * Every wait has a deadline in monotonic time and goes through poll(); the socket never blocks.
 * Where the stream can no longer be trusted (it ended, it is not QMP), the connection is closed;
 * what had been received by then still reaches the queue of events.
 */
#pragma once

#include "qmp/reader.h"

typedef struct {
  char *addr; /* normalized; see qmp/address.h */
  bool trace; /* show all messages on stderr */
  bool hide;  /* … but not what comes: a secret was sent, and QEMU may repeat it */
  int fd;     /* -1: there is no connection */
  int passed; /* a descriptor to go with what is sent next, else -1. Borrowed */
  QmpReader *reader;
  GQueue events; /* of json_t, oldest first; kept when the connection ends */
} QmpChannel;

/* A channel to `addr` that is closed; `addr` becomes the channel's. */
void qmp_channel_init (QmpChannel *channel, char *addr);
void qmp_channel_clear (QmpChannel *channel);

/* Connects the closed channel. */
bool qmp_channel_connect (QmpChannel *channel, gint64 deadline, TmkError **errp);

/* Closes the connection, if there is one. */
void qmp_channel_hang_up (QmpChannel *channel);

/* Shows a message where that is wished for; `direction` is '<' or '>'. */
void qmp_channel_trace (const QmpChannel *channel, char direction, json_t *message);

/* Sends `len` bytes. Takes in what comes while it waits: QEMU may not read on before we do. Fails
 * as qmp_channel_wait(). */
bool qmp_channel_send (QmpChannel *channel, const char *data, size_t len, gint64 deadline,
                       bool *late, TmkError **errp);

/* The next message that is no event. NULL with `*late` set where none came before `deadline`; NULL
 * with an error and the connection closed where none will come. */
json_t *qmp_channel_receive (QmpChannel *channel, gint64 deadline, bool *late, TmkError **errp);

/* The same of what has come already; NULL without an error where that is not a whole message. */
json_t *qmp_channel_next (QmpChannel *channel, TmkError **errp);

/* Waits for bytes and takes them in. False: none came before `deadline` (`*late` is set), or none
 * will (an error is, and the connection is closed). */
bool qmp_channel_wait (QmpChannel *channel, gint64 deadline, bool *late, TmkError **errp);

/* Takes the oldest event of that `name` (NULL: any) whose data have `value` as `key` (NULL:
 * whatever they are) out of the queue. NULL where there is none. */
json_t *qmp_channel_take_event (QmpChannel *channel, const char *name, const char *key,
                                const char *value);
