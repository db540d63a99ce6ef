/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cli/backup_all.h: tidemark backup --all: a backup of every domain of a libvirt, some at a time.
 *
 * Each is a process of its own, this program's: what goes wrong with one is not the others'.
 */
#pragma once

#include "cli/cli.h"

typedef struct {
  const GPtrArray *options;   /* of char *: what each backup gets besides its domain */
  const char *const *exclude; /* domains, NULL-terminated; NULL: none */
  unsigned jobs;              /* how many at a time */
} BackupAll;

/* Returns the exit code. */
int backup_all (const CliArgs *args, const BackupAll *all);

/* Has it only such disks as are none to back up by their nature: empty drives, CDs, firmware? */
bool backup_all_is_diskless (const TmkDiskList *disks);
