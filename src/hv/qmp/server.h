/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/server.h: QEMU's NBD server, on which the disks of a pull are exported.
 *
 * QEMU has one. QEMU before 10 freezes the guest and the monitor when it is stopped while a client
 * is connected that has not negotiated (QUIRK_NBD_STOP_FREEZE), so there it listens on a unix
 * socket only, and before it is stopped nobody new can come (the socket is unlinked) and whoever is
 * connected has had the time that QEMU grants for negotiating. With TLS that goes for every QEMU
 * (QUIRK_NBD_TLS_STOP_FREEZE).
 */
#pragma once

#include "conf/backup_def.h"
#include "hv/qmp/machine.h"

/* Fills in what `server` leaves open (port), and refuses what this QEMU cannot do. Changes nothing
 * outside. */
bool server_check (QmpMachine *machine, BackupServer *server, TmkError **errp);

/* `tls`: the id of its credentials; NULL: plain text. */
bool server_start (QmpMachine *machine, const BackupServer *server, const char *tls,
                   TmkError **errp);

/* Stops the server on the unix socket `socket` (NULL: on TCP). `tls`: it has credentials. Nothing
 * where it does not run. */
bool server_stop (QmpMachine *machine, const char *socket, bool tls, TmkError **errp);
