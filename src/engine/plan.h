/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/plan.h: which disk is full, which incremental, since what, and why. Pure.
 *
 * A disk is known again by its images: a point's disk and a disk of the domain are the same where
 * an image of the chain has the same path and, where both are known, the same inode. A checkpoint's
 * bitmap travels with an image, but two disks of one point have bitmaps of the same name: without
 * this a swap of two disks would go unnoticed, and an incremental would be added to the wrong tree.
 */
#pragma once

#include "format/manifest.h"
#include <tidemark/backup.h>

typedef struct {
  const TmkDiskInfo *disk;     /* borrowed */
  const ManifestImage *images; /* its chain, top first; borrowed */
  size_t n_images;
  bool selected;
  bool incremental;
  bool fallback; /* full, though there was something to be incremental to */
  char *reason;
  const Manifest *base; /* incremental: the point to add to; borrowed */
  const ManifestDisk *base_disk;
  const char *checkpoint; /* … the bitmap since which to read; borrowed */
  /* full: the disk as it was at an earlier point, for comparison only; may be NULL */
  const ManifestDisk *previous;
  uint64_t expected; /* bytes that will have to be read, at most */
} PlanDisk;

typedef struct {
  PlanDisk *disks; /* all of the domain's, in its order */
  size_t n_disks;
  GPtrArray *skipped; /* of char *: "vdb: why it cannot be backed up" */
} Plan;

typedef struct {
  const TmkDiskInfo *const *disks;
  const ManifestImage *const *images; /* a chain for each disk … */
  const size_t *n_images;
  size_t n_disks;
  const Manifest *const *points; /* the repository's, oldest first */
  size_t n_points;
  const char *domain, *uuid; /* this domain's; uuid may be NULL */
  uint32_t chunk_size;       /* of the repository */
} PlanInput;

/* TMK_ERR_USAGE for a disk that is named but not there; for TMK_BACKUP_INCREMENTAL,
 * TMK_ERR_INCONSISTENT and the like where a disk cannot be. `options`: mode, include, exclude,
 * definition. */
Plan *plan_new (const PlanInput *input, const TmkBackupOptions *options, TmkError **errp);
void plan_free (Plan *plan);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Plan, plan_free)
