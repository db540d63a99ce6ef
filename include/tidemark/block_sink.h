/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/block_sink.h: what a restore writes: a raw file, a qcow2 image, a block device or an NBD
 * export.
 *
 * Writes may come from several threads at once, in any order, each byte at most once; ranges are
 * in bytes and within the sink's size (TMK_ERR_USAGE beyond). Only tmk_block_sink_close() makes a
 * promise about a crash; what was not closed is not finished.
 */
#ifndef TIDEMARK_BLOCK_SINK_H
#define TIDEMARK_BLOCK_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tidemark/block_source.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TmkBlockSink TmkBlockSink;

/* Creates the sparse raw file `path` of `size` bytes, mode 0600 less umask. TMK_ERR_EXISTS where
 * there is anything of that name. */
TmkBlockSink *tmk_block_sink_create_file (const char *path, uint64_t size, TmkError **errp);

/* Creates the qcow2 image `path` of a disk of `size` bytes (up to 1 PiB), mode 0600 less umask:
 * version 3, clusters of 64 KiB, no backing file; what is never written takes no room. The disk
 * that it shows ends at a whole sector of 512 bytes. Until it is closed the file is no qcow2 image.
 *
 * Only whole clusters can be written: each range begins at a multiple of 64 KiB, and ends at one or
 * at the disk's end; else TMK_ERR_USAGE. TMK_ERR_EXISTS where there is anything of that name. */
TmkBlockSink *tmk_block_sink_create_qcow2 (const char *path, uint64_t size, TmkError **errp);

/* Opens a block device for writing, alone: TMK_ERR_BUSY where it is mounted or in use, by QEMU,
 * say; TMK_ERR_INVALID where it is no block device. */
TmkBlockSink *tmk_block_sink_open_device (const char *path, TmkError **errp);

/* Opens a writable NBD export; see tmk_block_source_open_nbd(). TMK_ERR_DENIED where it is
 * read-only. A connection that ends is an error: writes are never sent twice. */
TmkBlockSink *tmk_block_sink_open_nbd (const char *uri, const TmkNbdOptions *options,
                                       TmkError **errp);

uint64_t tmk_block_sink_size (const TmkBlockSink *sink);

/* The path or URI. Owned by `sink`. */
const char *tmk_block_sink_name (const TmkBlockSink *sink);

/* Is all of it known to read as zero until it is written? Then zeroes need not be written. */
bool tmk_block_sink_is_zero (const TmkBlockSink *sink);

bool tmk_block_sink_write (TmkBlockSink *sink, uint64_t offset, const void *data, size_t length,
                           TmkError **errp);

/* Makes a range read as zero, without allocating it where that can be had. */
bool tmk_block_sink_zero (TmkBlockSink *sink, uint64_t offset, uint64_t length, TmkError **errp);

/* Returns once everything written so far is on stable storage. */
bool tmk_block_sink_flush (TmkBlockSink *sink, TmkError **errp);

/* Flushes, for a new file also its folder, and frees `sink` whether that worked or not. A new file
 * that could not be flushed is removed. */
bool tmk_block_sink_close (TmkBlockSink *sink, TmkError **errp);

/* Gives up: nothing is flushed, and a new file is removed. NULL is allowed. */
void tmk_block_sink_free (TmkBlockSink *sink);

#ifdef __cplusplus
}
#endif
#endif
