/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/checkpoint_def.h: the inside of <tidemark/checkpoint_def.h>, for the floors above that
 * make and keep checkpoints. Fields are owned by their struct; NULL or 0 means "not said".
 */
#pragma once

#include "conf/domain_def.h"
#include <tidemark/checkpoint_def.h>

typedef struct {
  char *name;       /* target (or, before alignment, an image's path) */
  gboolean covered; /* checkpoint='bitmap' */
  char *bitmap;     /* set by alignment where covered */
  gboolean has_size;
  guint64 size;     /* bytes changed since; output only */
  guint64 capacity; /* internal form: the disk's size when the checkpoint was made; 0 unknown */
  /* Internal form: the image a push backup left for this disk at this checkpoint, which an
   * incremental since this checkpoint names as its backing file; NULL: none known. */
  char *target, *target_format;
} CheckpointDisk;

struct TmkCheckpointDef {
  char *name;
  char *description;
  gint64 creation_time; /* seconds since the epoch; 0 unknown */
  char *parent;
  GPtrArray *disks; /* of CheckpointDisk* */
  /* `<domain>` as it stood in the document or at creation, serialised with its own indent
   * starting at column 0, or NULL. */
  char *domain_xml;
};

/* Appends an empty entry for disk `name`; owned by `def`. */
CheckpointDisk *checkpoint_def_add_disk (TmkCheckpointDef *def, const char *name);

CheckpointDisk *checkpoint_def_find_disk (const TmkCheckpointDef *def, const char *name);

/* Is `name` one that a checkpoint may have (libvirt's schema: [a-zA-Z0-9_-][a-zA-Z0-9_.-]*)? */
gboolean checkpoint_name_is_valid (const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkCheckpointDef, tmk_checkpoint_def_free)
