/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/bitmaps.h: may an incremental start from this bitmap of this disk?
 *
 * A checkpoint is a bitmap of one name on the active image and, where external snapshots were
 * taken while it recorded, on the images below it: a run from the top without a gap. Every one
 * must record, none may be inconsistent. Pure.
 */
#pragma once

#include "hv/qmp/disks.h"

typedef struct {
  unsigned images;  /* how many images of the chain hold it, from the top without a gap */
  guint64 dirty;    /* bytes, at most the disk's size: an upper bound where images > 1 */
  char *why_not;    /* a clause, or NULL where an incremental may start there */
  char *what_to_do; /* a hint; NULL where why_not is */
} BitmapChain;

/* Looks at bitmap `name` of `disk`. Free with bitmap_chain_free(). */
BitmapChain *bitmap_chain_look (const QmpDisk *disk, const char *name);
void bitmap_chain_free (BitmapChain *chain);

/* The names of all bitmaps of the chain, each once, those of the active image first. The strings
 * are borrowed from `disk`. Bitmaps of our own jobs are left out. */
GPtrArray *bitmap_names (const QmpDisk *disk);

/* Is `name` that of a temporary bitmap of a job of ours? */
bool bitmap_is_temporary (const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BitmapChain, bitmap_chain_free)
