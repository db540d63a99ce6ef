/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/relay.h: a process that takes connections on TCP and carries them to a unix socket.
 *
 * QEMU's own NBD server on TCP cannot be stopped safely while clients are connected that have not
 * negotiated (see QUIRK_NBD_STOP_FREEZE), and nobody can count them or put them out. So QEMU
 * listens where only we can come, and the relay stands before it: it carries bytes both ways and
 * understands none of them, so TLS passes from end to end. When it ends, all its clients are out.
 *
 * The relay lives as long as somebody holds the other end of its life line, a pipe: whoever began
 * it at first, then QEMU, to which that end is passed. It holds a lock on a file while it lives, by
 * which it is found: the kernel says which process holds it, so no other process is ever taken for
 * it. Where that file is removed it ends too. It keeps no other descriptor of its parent's open.
 */
#pragma once

#include "util/error.h"
#include <stdbool.h>
#include <stddef.h>

#define RELAY_ADDRESSES 8

/* Where it listens: all addresses of one name. */
typedef struct {
  int fds[RELAY_ADDRESSES];
  size_t n;
} RelayListener;

/* TMK_ERR_BUSY where the port is taken, TMK_ERR_INVALID where `host` is no address of this
 * machine. */
bool relay_listen (RelayListener *listener, const char *host, unsigned port, TmkError **errp);
void relay_listener_close (RelayListener *listener);

/* Starts the relay from `listener` to the unix socket `path`; it holds the lock on `lock_path`.
 * Returns the end of the life line to hold (close it to end the relay), or -1. */
int relay_start (const RelayListener *listener, const char *path, const char *lock_path,
                 TmkError **errp);

/* Does a relay hold the lock on `lock_path`? */
bool relay_lives (const char *lock_path);

/* Ends the relay that holds the lock on `lock_path`, if there is one, and removes that file. */
bool relay_end (const char *lock_path, TmkError **errp);
