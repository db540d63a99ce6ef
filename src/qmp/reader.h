/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/reader.h: from the bytes of a QMP stream to its messages (source: QEMU,
 * docs/interop/qmp-spec, "2.1.1 General Definitions"). Pure: it does no I/O, so it can be fuzzed.
 *
 * A message is a JSON object. The end of a message is found by counting brackets, not by looking
 * for the end of a line: a monitor made with "pretty=on" spreads its messages over many lines.
 * Each byte is looked at once for that, however small the pieces are in which it comes.
 */
#pragma once

#include "qmp/client.h"

typedef struct QmpReader QmpReader;

/* The largest message taken from QEMU. The largest known, the answer to query-qmp-schema, has about
 * 200 kB; query-named-block-nodes of a thousand nodes has some megabytes. */
#define QMP_MESSAGE_MAX ((size_t) 64 << 20)

/* Messages of more than `max` bytes are refused. */
QmpReader *qmp_reader_new (size_t max);
void qmp_reader_free (QmpReader *reader);

/* Appends `len` bytes as they came. */
void qmp_reader_feed (QmpReader *reader, const void *data, size_t len);

/* Takes the next whole message, a new reference to a JSON object. NULL without an error: more bytes
 * are needed. NULL with one (TMK_ERR_INVALID): this is not QMP, and the same is said from now on.
 */
json_t *qmp_reader_next (QmpReader *reader, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpReader, qmp_reader_free)
