/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util/fsx.h: files, durably. Every function that changes something passes test points
 * (util/testpoint.h). Paths are byte strings as the kernel takes them.
 */
#pragma once

#include "util/error.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The whole file, NUL-terminated, at most `max` bytes (TMK_ERR_INVALID beyond). "-" is standard
 * input. Free with g_free(). */
char *fsx_read_file (const char *path, size_t max, size_t *len, TmkError **errp);

/* What stands between the name of a file that is being published and six characters more in the
 * name of its temporary file, which only a kill leaves behind. */
#define FSX_TEMPORARY ".tmp-"

/* Replaces `path` by `len` bytes at `data`: written to a temporary file in the same folder, fsync,
 * rename, fsync of the folder. After a crash either the old or the new content is there. */
bool fsx_publish (const char *path, const void *data, size_t len, mode_t mode, TmkError **errp);

/* Creates an empty file that must not exist (TMK_ERR_EXISTS), durably. Stores its identity. */
bool fsx_create_new (const char *path, mode_t mode, dev_t *dev, ino_t *ino, TmkError **errp);

/* Removes `path` and syncs its folder. A file that is not there is no error. */
bool fsx_remove (const char *path, TmkError **errp);

/* mkdir -p; folders made get `mode`. */
bool fsx_make_dirs (const char *path, mode_t mode, TmkError **errp);

/* fsync of the folder that holds `path`. */
bool fsx_sync_parent (const char *path, TmkError **errp);

/* Bytes that an unprivileged process may still write to the file system of `path` (or, where that
 * does not exist, of its folder). */
bool fsx_free_space (const char *path, uint64_t *bytes, TmkError **errp);

/* An exclusive lock on the file `path` (made where missing), held until fsx_unlock() or the end of
 * the process. Waits up to `timeout_ms`, then TMK_ERR_BUSY. Returns a descriptor, or -1. */
int fsx_lock (const char *path, unsigned timeout_ms, TmkError **errp);
void fsx_unlock (int fd);
