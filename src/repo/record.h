/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/record.h: records: taking one apart, and the small objects that are one record each, alone
 * in the store: config, points, leases, notes of damage.
 */
#pragma once

#include "format/config.h"
#include "objstore/objstore.h"

#include <zstd.h>

/* Takes a whole record apart into `plain` of `room` bytes: checks the checksum, decompresses; not
 * the id. TMK_ERR_DAMAGED. */
bool record_unpack (ZSTD_DCtx *zstd, const void *record, size_t size, RecordHeader *header,
                    void *plain, size_t room, TmkError **errp);

/* Publishes an object of `size` plain bytes. TMK_ERR_EXISTS; TMK_ERR_UNSUPPORTED where it is longer
 * than objects can be. */
bool record_publish (ObjStore *store, const char *name, ObjectKind kind, ObjectCodec codec,
                     int level, const void *plain, size_t size, TmkError **errp);

/* The plain bytes of such an object, and a NUL. Checks the kind and the id, too. TMK_ERR_NOT_FOUND,
 * TMK_ERR_DAMAGED. Free with g_free(). */
unsigned char *record_load (ObjStore *store, const char *name, ObjectKind kind, size_t *size,
                            TmkError **errp);

/* FOLDER/ and 32 random hex digits. */
char *record_new_name (const char *folder, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (ZSTD_DCtx, ZSTD_freeDCtx)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ZSTD_CCtx, ZSTD_freeCCtx)
