/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/begin.h: a job that is being begun: what the files that do so share. */
#pragma once

#include "hv/libvirt/job.h"

typedef struct {
  LvDomain *lv;
  const TmkBeginOptions *options;
  char *id;
  TmkBackupDef *def;            /* aligned */
  TmkCheckpointDef *checkpoint; /* aligned, or NULL */
  char *folder;                 /* of our own socket, or NULL */
  bool staged;
  bool outside; /* the state's lock is not held: taking it again failed */
  json_t *record;
  bool unheard; /* libvirt was asked, and the connection lost before it answered */

  /* a socket that libvirt has from us: its name there, and the connection that keeps it; or NULL */
  char *fdgroup;
  virConnectPtr bearer;
} Begin;

/* --- hv/libvirt/begin_server.c: where a pull's NBD server listens -------------------------------
 */

/* Makes the folder of a socket of our own, for QEMU's user. */
bool begin_make_folder (const Begin *begin, TmkError **errp);

/* Listens there and passes the socket to libvirt, if it takes it: then `fdgroup` is set. */
void begin_pass_socket (Begin *begin);

/* Leaves the listening to QEMU after all. */
void begin_take_socket_back (Begin *begin);

/* The job has what it needs, or will never be. */
void begin_end_passing (Begin *begin);

/* --- hv/libvirt/begin_checks.c: may it begin? They change nothing, but for what is left over.
 * ----- */

/* Refuses what libvirt's jobs cannot do. */
bool begin_check_options (const TmkBeginOptions *options, TmkError **errp);

/* Cleans up behind a job that is over, or was cut off while it began; refuses where one runs.
 * libvirt itself would wait for half a minute. */
bool begin_make_way (LvDomain *lv, TmkError **errp);

/* Can each disk of the new checkpoint keep a bitmap? */
bool begin_check_checkpoint (const Begin *begin, TmkError **errp);

/* An export of such a disk aborts QEMU when its client leaves (QUIRK_NBD_IOTHREAD_ABORT of
 * qmp/quirks.h), under libvirt too. */
bool begin_must_be_staged (const Begin *begin);

/* The disks, their targets and the room for them. */
bool begin_check (const Begin *begin, TmkError **errp);
