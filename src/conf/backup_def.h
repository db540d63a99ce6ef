/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/backup_def.h: the inside of <tidemark/backup_def.h>, for the floors above that run a
 * definition. Fields are owned by their struct; NULL or 0 means "not said".
 */
#pragma once

#include "conf/storage_def.h"
#include <tidemark/backup_def.h>

typedef enum {
  BACKUP_MODE_DEFAULT = 0,
  BACKUP_MODE_FULL,
  BACKUP_MODE_INCREMENTAL,
} BackupMode;

/* `state` of a disk in the internal form. */
typedef enum {
  BACKUP_DISK_STATE_NONE = 0,
  BACKUP_DISK_STATE_RUNNING,
  BACKUP_DISK_STATE_COMPLETE,
  BACKUP_DISK_STATE_FAILED,
  BACKUP_DISK_STATE_CANCELLING,
  BACKUP_DISK_STATE_CANCELLED,
} BackupDiskState;

typedef enum { BACKUP_SERVER_TCP, BACKUP_SERVER_UNIX, BACKUP_SERVER_FD } BackupTransport;

typedef struct {
  BackupTransport transport;
  int tls; /* -1 not said, 0 no, 1 yes */
  char *name;
  unsigned port;
  char *socket;
  char *fdgroup;
} BackupServer;

typedef struct {
  char *name;
  gboolean backup; /* takes part */
  BackupDiskState state;
  BackupMode mode;
  char *incremental;
  char *exportname, *exportbitmap;
  StorageDef *store; /* push: target, pull: scratch; NULL only before alignment or without backup */
} BackupDisk;

struct TmkBackupDef {
  gboolean pull;
  char *incremental;
  BackupServer *server;               /* pull only; NULL where not said */
  GPtrArray *disks;                   /* of BackupDisk*, in document order */
  char *tls_alias, *tls_secret_alias; /* internal form */
};

const char *backup_mode_name (BackupMode mode); /* "full", "incremental"; NULL for DEFAULT */

/* Appends a disk of that name that takes no part yet; owned by `def`. */
BackupDisk *backup_def_add_disk (TmkBackupDef *def, const char *name);

BackupDisk *backup_def_find_disk (const TmkBackupDef *def, const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkBackupDef, tmk_backup_def_free)
