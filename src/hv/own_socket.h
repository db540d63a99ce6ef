/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/own_socket.h: the unix socket of a pull whose definition names no server.
 *
 * It lies in a folder of its own that only QEMU's user may enter, for over a unix socket nothing
 * else protects the disks. The folder is named after the job, and written down before it is made.
 */
#pragma once

#include "conf/backup_def.h"
#include "util/error.h"

#include <sys/types.h>

/* Where folders of sockets are made. A static string, or the environment's. */
const char *own_socket_base_folder (void);

/* Fills in the server of `def` where a pull names none, for the job called `id`. Returns the folder
 * that is to be made for it, else NULL. Free with g_free(). */
char *own_socket_choose (TmkBackupDef *def, const char *id);

/* Makes the folder, and gives it to that user of QEMU's (0: it is ours, or not known). */
bool own_socket_make_folder (const char *folder, uid_t uid, gid_t gid, TmkError **errp);
