/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * objstore/mapping.h: a file in memory, which may stop being readable.
 *
 * Where the kernel cannot give a page of a mapped file (a bad sector, a file that was cut off or,
 * on NFS, removed by another host) it sends SIGBUS. Then all bytes of the mapping become zero, and
 * the thread that asked for them goes on. Whoever reads a mapping must bear that at any moment.
 *
 * Any thread. Not covered: a program that puts a handler of its own for SIGBUS in the place of ours
 * after the first mapping was made, or blocks that signal.
 */
#pragma once

#include <stddef.h>

typedef struct Mapping Mapping;

/* Of `size` bytes, at least one, from the file's beginning. NULL, with errno, on failure. */
Mapping *mapping_new (int fd, size_t size);
void mapping_free (Mapping *mapping);

const void *mapping_data (const Mapping *mapping);
