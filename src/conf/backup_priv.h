/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/backup_priv.h: what backup_def.c and backup_align.c share. */
#pragma once

#include "conf/backup_def.h"

/* Appends a disk of that name that takes no part yet; owned by `def`. */
BackupDisk *backup_def_add_disk (TmkBackupDef *def, const char *name);
