/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/schema.h: what the QEMU at hand knows (source: QEMU, docs/devel/qapi-code-gen,
 * query-qmp-schema), and the faults that no schema shows (the quirk table).
 */
#pragma once

#include "qmp/client.h"

typedef struct QmpSchema QmpSchema;

/* Reads query-qmp-schema (about 200 kB; 20 ms measured: ask once, and only where it is needed). */
QmpSchema *qmp_schema_read (QmpClient *client, TmkError **errp);
/* From the command's return value; borrowed during the call only. */
QmpSchema *qmp_schema_new (json_t *schema, TmkError **errp);
void qmp_schema_free (QmpSchema *schema);

bool qmp_schema_has_command (const QmpSchema *schema, const char *command);
/* Does `command` take the argument at `path`, its members separated by '/', where a variant of a
 * union is chosen by '+': "blockdev-backup" "on-cbw-error"; "blockdev-add" "+copy-before-write/
 * on-cbw-error"; "transaction" "actions/+blockdev-backup". Arrays and alternates are looked
 * through. */
bool qmp_schema_has_argument (const QmpSchema *schema, const char *command, const char *path);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpSchema, qmp_schema_free)

/* Faults of some versions of QEMU; see qmp/quirks.c for what each does and how it was found. */
typedef enum {
  QUIRK_NBD_IOTHREAD_ABORT,      /* A */
  QUIRK_NBD_STOP_FREEZE,         /* B */
  QUIRK_SNAPSHOT_ACCESS_WRONG,   /* C */
  QUIRK_REOPEN_UNDO_ABORT,       /* D */
  QUIRK_CBW_ERROR_REACHES_GUEST, /* E */
  QUIRK_NBD_TLS_STOP_FREEZE,
  QUIRK_CREATE_ABORT,
} QmpQuirk;

/* Has the QEMU of `version` (see qmp_client_version()) that fault? Versions that were never tried
 * count as having it. */
bool qmp_has_quirk (unsigned version, QmpQuirk quirk);
