/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/block_source.h: what a backup reads: a frozen disk, as an NBD export or a raw file.
 *
 * A source is opened, asked for its extents (where is data, what reads as zero, what has changed),
 * and read through a reader, which keeps a bounded number of requests under way and lends out the
 * buffers that it has filled:
 *
 *     TmkBlockReader *reader = tmk_block_source_reader (source, &options, &err);
 *     const TmkBlockPiece *piece;
 *     bool ok;
 *     while ((ok = tmk_block_reader_next (reader, &piece, &err)) && piece != NULL) {
 *       consume (piece->offset, piece->length, piece->data);
 *       tmk_block_reader_release (reader, piece);
 *     }
 *
 * All offsets and lengths are in bytes. A source must outlive its readers.
 */
#ifndef TIDEMARK_BLOCK_SOURCE_H
#define TIDEMARK_BLOCK_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- extents ------------------------------------------------------------------------------ */

/* What is known of a stretch of a disk. Without TMK_EXTENT_ZERO it has to be read. */
enum {
  TMK_EXTENT_HOLE = 1 << 0,  /* nothing is allocated (source: NBD, base:allocation) */
  TMK_EXTENT_ZERO = 1 << 1,  /* it reads as zeroes (source: NBD, base:allocation) */
  TMK_EXTENT_DIRTY = 1 << 2, /* written since the checkpoint (source: qemu:dirty-bitmap:NAME) */
};

typedef struct {
  uint64_t offset, length;
  unsigned flags; /* TMK_EXTENT_… */
} TmkBlockExtent;

/* Ascending, without gaps or overlaps, none empty, neighbours differ in their flags. */
typedef struct {
  size_t n_extents;
  const TmkBlockExtent *extents;
} TmkBlockExtents;

/* NULL is allowed. */
void tmk_block_extents_free (TmkBlockExtents *extents);

/* ---- sources ------------------------------------------------------------------------------ */

typedef struct TmkBlockSource TmkBlockSource;

/* Zero every field that is not set. Strings are borrowed during the call. */
typedef struct {
  /* The meta context whose bit 0 says 'dirty': "qemu:dirty-bitmap:NAME". NULL: none. */
  const char *dirty_context;
  /* How many connections a reader may use where the server allows more than one; 0: the default
   * (2). */
  unsigned connections;
  /* The largest read in bytes, a power of two from 4 KiB to 32 MiB; 0: the default (512 KiB).
   * Lowered to what the server takes. */
  unsigned request_size;
  /* How many reads a connection has under way; 0: the default (4). */
  unsigned depth;
  /* TLS is required where one of the next two is set, or where the URI's scheme is nbds. A folder
   * with ca-cert.pem and, for servers that want to know the client, client-cert.pem and
   * client-key.pem. The server's own certificate is checked against the host's name; over a unix
   * socket there is none, and libnbd checks nothing: there the socket's permissions protect. */
  const char *tls_certificates;
  /* A file of USERNAME:KEY lines (pre-shared keys), and which of them is ours (NULL: the login
   * name). */
  const char *tls_psk_file;
  const char *tls_user;
  /* How long a connection and its negotiation may take; 0: 10 seconds. */
  unsigned connect_timeout_ms;
  /* How long the server may stay silent while it owes a reply; 0: 2 minutes. */
  unsigned reply_timeout_ms;
  /* How long to try to reach a server again that closed a connection to a read-only export;
   * 0: 30 seconds. */
  unsigned reconnect_ms;
  bool no_reconnect; /* a connection that ends is an error at once */
  /* A descriptor (an eventfd, a pipe, a signalfd) that is only polled: once it is readable, every
   * call on the source and its readers, opening included, fails with TMK_ERR_CANCELLED. It must
   * stay open as long as the source. 0: none. */
  int cancel_fd;
} TmkNbdOptions;

/* Opens an NBD export. `uri` is an NBD URI ("nbd+unix:///EXPORT?socket=PATH", "nbd://HOST/EXPORT",
 * "nbds://…"; source: the NBD project, doc/uri.md); files named in the URI itself are refused.
 * `options` may be NULL. The size is fixed here.
 *
 * A server without base:allocation or structured replies is one whose every byte is data.
 * Errors: TMK_ERR_NOT_FOUND for a missing socket, export or dirty context; TMK_ERR_GONE where
 * nobody listens; TMK_ERR_DENIED where the server wants TLS, other credentials or none;
 * TMK_ERR_TIMEOUT; TMK_ERR_INVALID for what is no NBD URI or server; TMK_ERR_CANCELLED.
 * Free with tmk_block_source_free(). */
TmkBlockSource *tmk_block_source_open_nbd (const char *uri, const TmkNbdOptions *options,
                                           TmkError **errp);

/* Opens a raw file or a block device for reading. Its extents are those that the file system tells
 * (SEEK_HOLE); a device is all data. Nothing is ever dirty. `cancel_fd` as in TmkNbdOptions. */
TmkBlockSource *tmk_block_source_open_file (const char *path, int cancel_fd, TmkError **errp);

/* NULL is allowed. Its readers must be gone. */
void tmk_block_source_free (TmkBlockSource *source);

uint64_t tmk_block_source_size (const TmkBlockSource *source);

/* What messages call it: the URI or the path. Owned by `source`. */
const char *tmk_block_source_name (const TmkBlockSource *source);

/* Does it know what is dirty? If not, no extent has TMK_EXTENT_DIRTY. */
bool tmk_block_source_has_dirty (const TmkBlockSource *source);

/* What is known of `length` bytes from `offset`: exactly that range, see TmkBlockExtents. Any
 * thread, also while a reader runs; but a server that takes one connection only is TMK_ERR_BUSY
 * then. TMK_ERR_USAGE for a range beyond the end; TMK_ERR_INVALID where the server's answer breaks
 * the protocol; TMK_ERR_GONE, TMK_ERR_TIMEOUT, TMK_ERR_MISMATCH, TMK_ERR_CANCELLED as for
 * tmk_block_reader_next(). Free with tmk_block_extents_free(). */
TmkBlockExtents *tmk_block_source_extents (TmkBlockSource *source, uint64_t offset, uint64_t length,
                                           TmkError **errp);

/* ---- reading ------------------------------------------------------------------------------ */

typedef struct TmkBlockReader TmkBlockReader;

/* Zero every field that is not set. */
typedef struct {
  /* What to read: these extents (ascending, without overlaps; gaps are not read; what has
   * TMK_EXTENT_ZERO is believed and not read). Borrowed during the call. NULL: the whole source;
   * then the extents are asked for on the way, and at no time are all of them in memory. */
  const TmkBlockExtents *extents;
  /* Only what has TMK_EXTENT_DIRTY. TMK_ERR_USAGE where neither `extents` is set nor the source
   * knows. */
  bool only_dirty;
  /* Pieces begin and end at multiples of this power of two up to the request size (or at the end
   * of the source): what is asked for is widened to it, so that a consumer of chunks sees whole
   * chunks. 0: not widened, beyond what the server's own block size demands. */
  unsigned align;
  /* Buffers of the source's request size; 0: as many as reads under way and four more. A consumer
   * that holds all of them when it asks for the next piece waits for ever. */
  unsigned buffers;
} TmkReadOptions;

/* A stretch of the disk, lent to the consumer. */
typedef struct {
  uint64_t offset, length;
  /* `length` bytes, page-aligned, at most the request size; or NULL: they all are zero, and
   * `length` is as long as what is known to be zero. Bytes at `data` may also happen to be zero. */
  const void *data;
} TmkBlockPiece;

/* Starts reading, in a thread of its own. `options` may be NULL: everything. A reader of a server
 * that takes one connection only is TMK_ERR_BUSY while there is another. */
TmkBlockReader *tmk_block_source_reader (TmkBlockSource *source, const TmkReadOptions *options,
                                         TmkError **errp);

/* Waits for a piece, in no particular order; each byte asked for comes exactly once. True with
 * `*piece` set; true with NULL after the last one; false with an error, then and ever after.
 * Several threads may call it at once; an error and the end reach all of them.
 *
 * Errors: TMK_ERR_IO where the server or the disk says so; TMK_ERR_GONE where the connection ended
 * and could not be made again in time (it is only tried for read-only exports); TMK_ERR_TIMEOUT
 * where the server went silent; TMK_ERR_MISMATCH where after that the export had another size;
 * TMK_ERR_INVALID where the server broke the protocol; TMK_ERR_CANCELLED. */
bool tmk_block_reader_next (TmkBlockReader *reader, const TmkBlockPiece **piece, TmkError **errp);

/* Gives a piece back. Any thread. */
void tmk_block_reader_release (TmkBlockReader *reader, const TmkBlockPiece *piece);

/* Makes every tmk_block_reader_next() fail with TMK_ERR_CANCELLED, soon. Any thread, and signal
 * handlers. */
void tmk_block_reader_cancel (TmkBlockReader *reader);

typedef struct {
  uint64_t read;       /* bytes delivered as data */
  uint64_t zero;       /* bytes delivered as zero, read or not */
  uint64_t requests;   /* reads that were answered */
  unsigned reconnects; /* connections that were made again */
} TmkReadStats;

/* As of now; final once tmk_block_reader_next() has said the end. Any thread. */
void tmk_block_reader_stats (TmkBlockReader *reader, TmkReadStats *stats);

/* Ends reading, wherever it is. No thread may be in tmk_block_reader_next(); pieces that are still
 * lent out are gone. NULL is allowed. */
void tmk_block_reader_free (TmkBlockReader *reader);

#ifdef __cplusplus
}
#endif
#endif
