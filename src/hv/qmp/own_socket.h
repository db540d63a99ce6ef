/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/own_socket.h: the unix socket of a pull whose definition names no server.
 *
 * It lies in a folder of its own that only QEMU's user may enter, for over a unix socket nothing
 * else protects the disks. The folder is named after the run and in the undo log before it is made.
 */
#pragma once

#include "hv/qmp/machine.h"
#include "hv/qmp/plan.h"

/* Where folders of sockets are made. A static string, or the environment's. */
const char *own_socket_base_folder (void);

/* Fills in the definition's server, and plan->socket_folder, where it names none. */
void own_socket_choose (JobPlan *plan);

/* Makes the folder, if there is to be one. */
bool own_socket_make_folder (QmpMachine *machine, const JobPlan *plan, TmkError **errp);
