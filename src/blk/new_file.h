/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/new_file.h: a file that a sink makes: it is new, and it is there in the end or it is not.
 *
 * What messages call it is its path. No state but the descriptor; any thread.
 */
#pragma once

#include "util/error.h"

#include <stddef.h>
#include <stdint.h>

/* Creates `path`, mode 0600 less umask. TMK_ERR_EXISTS where there is anything of that name.
 * Returns a descriptor, or -1. */
int new_file_create (const char *path, TmkError **errp);

/* Writes all of it. */
bool new_file_write (int fd, const char *path, uint64_t offset, const void *data, size_t length,
                     TmkError **errp);

/* Returns once the content is on stable storage; its name needs fsx_sync_parent(). */
bool new_file_sync (int fd, const char *path, TmkError **errp);

/* Removes the file, unless another one has taken its place. */
void new_file_remove (int fd, const char *path);
