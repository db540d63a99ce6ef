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
  json_t *record;
} Begin;

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
