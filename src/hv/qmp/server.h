/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/server.h: QEMU's NBD server, on which the disks of a pull are exported.
 *
 * QEMU has one. QEMU before 10 freezes the guest and the monitor when it is stopped while a client
 * is connected that has not negotiated (QUIRK_NBD_STOP_FREEZE), with TLS every QEMU
 * (QUIRK_NBD_TLS_STOP_FREEZE). So it listens on a unix socket, and before it is stopped nobody new
 * can come (the socket is unlinked) and whoever is connected has had the time that QEMU grants for
 * negotiating. Clients on TCP come by way of a relay (hv/relay.h): QEMU is passed a socket in the
 * state folder, where nobody else can come, and the relay ends before the server is stopped, which
 * puts them all out at once. Only where the monitor itself is on TCP, QEMU listens there.
 */
#pragma once

#include "hv/qmp/machine.h"
#include "hv/qmp/plan.h"

/* Fills in what the plan and its server leave open (port, socket, relay), and refuses what this
 * QEMU (or, where the job is staged, the daemon that serves instead of it) cannot do. Changes
 * nothing outside. */
bool server_check (QmpMachine *machine, JobPlan *plan, TmkError **errp);

/* Where there is a relay it is started first: no client of it is lost. */
bool server_start (QmpMachine *machine, const JobPlan *plan, TmkError **errp);

/* How many clients are connected to the unix socket `socket`; -1 for NULL (TCP). */
int server_clients (QmpMachine *machine, const char *socket);

/* Stops the server of the log entry `entry` (see undo_server()), if it is there and this job's, and
 * removes its socket. With QEMU gone only the socket. */
bool server_stop (QmpMachine *machine, const json_t *entry, TmkError **errp);

/* Puts out those clients of the unix socket `socket` that take no answers, which QEMU waits for
 * forever though it has shut them down. Needs the right to trace QEMU, and CAP_NET_ADMIN; without
 * them nothing happens. */
void server_cut_off (QmpMachine *machine, const char *socket);
