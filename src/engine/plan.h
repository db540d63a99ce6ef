/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/plan.h: which disk is full, which incremental, since what, and why. Pure.
 *
 * A disk is known again by its images: a point's disk and a disk of the domain are the same where
 * the image that was on top then is in the chain now, by its path and, where both are known, its
 * inode. A checkpoint's bitmap travels with an image, but two disks of one point have bitmaps of
 * the same name: without this a swap of two disks would go unnoticed, and an incremental would be
 * added to the wrong tree. For the same reason the checkpoint must have been made on that very
 * image (the lowest that holds its bitmap), a name that a user gave it must still be that of the
 * same checkpoint, and a name like /dev/sdb, which may be another device
 * after a restart, is no proof where the point has another disk that it could be.
 *
 * Points are looked through from the newest to the oldest, so that as little as possible is read.
 * The search ends where the disk had another size: what was cut off in between and came back as
 * zeroes no bitmap has recorded.
 */
#pragma once

#include "repo/points.h"
#include <tidemark/backup.h>

typedef struct {
  const TmkDiskInfo *disk;     /* borrowed */
  const ManifestImage *images; /* its chain, top first; borrowed */
  size_t n_images;
  bool selected;
  bool incremental;
  bool fallback;        /* full, though there was something to be incremental to */
  char *reason;         /* of the mode; or why it is not selected */
  const Manifest *base; /* incremental: the point to add to; borrowed */
  const ManifestDisk *base_disk;
  const char *checkpoint; /* … the bitmap since which to read; borrowed */
  /* full: the disk as it was at an earlier point, for comparison only; may be NULL */
  const ManifestDisk *previous;
  /* The newest checkpoint that an incremental could start from, whatever the mode; or NULL. */
  const char *newest;
  uint64_t expected; /* bytes that will have to be read, at most */
} PlanDisk;

typedef struct {
  PlanDisk *disks; /* all of the domain's, in its order */
  size_t n_disks;
  GPtrArray *skipped;      /* of char *: "vdb: why it cannot be backed up" */
  GPtrArray *missed;       /* those of them that are not aside; borrowed */
  GHashTable *checkpoints; /* a set: all that the points tell of; borrowed */
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
  const char *prefix;        /* of its checkpoints: plan_checkpoint_prefix(); or NULL */
  /* The domain's checkpoints; may be NULL unless plan_needs_checkpoints(). */
  const TmkCheckpointList *checkpoints;
  /* There may be bitmaps of which the domain was not told, and will not be: HvDriver.adopts. */
  bool untold;
} PlanInput;

/* Has some point a checkpoint that the user gave a name? Then it takes more than the name to know
 * that it is still the same. */
bool plan_needs_checkpoints (const Manifest *const *points, size_t n_points);

/* TMK_ERR_NOT_FOUND for a disk that is named but not there, TMK_ERR_UNSUPPORTED for one that cannot
 * be backed up; for TMK_BACKUP_INCREMENTAL, TMK_ERR_INCONSISTENT and the like where a disk cannot
 * be. `options`: mode, include, exclude, definition. What `input` points to must outlive the plan.
 */
Plan *plan_new (const PlanInput *input, const TmkBackupOptions *options, TmkError **errp);
void plan_free (Plan *plan);

/* ---- checkpoints that no backup will start from -------------------------------------------- */

/* How the names of the checkpoints begin that backups into a repository make up; the rest is the
 * id of the point. `short_id`: repo_short_id(). Free with g_free(). */
char *plan_checkpoint_prefix (const char *short_id);

/* Bitmaps of one name on one disk; borrowed from the plan's disks. */
typedef struct {
  const char *disk, *checkpoint;
} PlanStale;

typedef struct {
  const char *prefix;
  const PointSet *points;
} PlanRepository;

/* Those of no point: what killed backups left, or points that were forgotten. They may go before
 * the job. That of a point which cannot be read is not among them. Only names that begin with the
 * prefix: all others are somebody else's. An array of PlanStale, freed with it. */
GPtrArray *plan_orphans (const Plan *plan, const PlanRepository *repository);

/* Those that may go once the new point is durable: with `checkpoint`, which it has made (or NULL),
 * all older ones of the disks that it has; of each other disk those older than the newest from
 * which an incremental could start. */
GPtrArray *plan_superseded (const Plan *plan, const char *prefix, const char *checkpoint);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Plan, plan_free)
