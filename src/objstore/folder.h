/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * objstore/folder.h: what the files of a folder's store share, and what tests want of it; see
 * objstore/objstore.h and the head of objstore/folder.c.
 */
#pragma once

#include "objstore/objstore.h"

#define FOLDER_MODE 0700
#define TEMPORARY "tmp" /* where unfinished files with a name are */

typedef struct {
  ObjStore store;
  int fd; /* the folder */
  bool no_tmpfile;
  GMutex lock;
  GHashTable *durable; /* set of char *: folders that are there, and will be after a crash */
} FolderStore;

extern const ObjStoreKind folder_kind;

/* Sets an error about the store, with a hint where there is one. */
void folder_fail (TmkError **errp, const FolderStore *self, int err_no, const char *format, ...)
    G_GNUC_PRINTF (4, 5);

/* Does without O_TMPFILE, as on a file system that has none. */
void folder_store_avoid_tmpfile (ObjStore *store);
