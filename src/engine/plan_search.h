/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/plan_search.h: one disk looked for among the points of a repository. Pure. The rules are
 * at engine/plan.h.
 */
#pragma once

#include "engine/plan.h"

/* What was found; all but `why_not` is borrowed. */
typedef struct {
  const Manifest *base; /* the point to add to, or NULL … */
  const ManifestDisk *base_disk;
  const TmkBitmapInfo *bitmap;  /* … and what has changed since */
  char *why_not;                /* if there is none: why, as a clause, … */
  TmkErrorCode code;            /* … and as an error */
  bool expected;                /* an earlier point of the disk had a checkpoint */
  const ManifestDisk *previous; /* the disk at the newest point at which it had the same size */
} PlanSearch;

/* Looks for the newest point to add to, or, with `checkpoint`, for one that was made at it. */
void plan_search (const PlanInput *input, const PlanDisk *disk, const char *checkpoint,
                  PlanSearch *search);
void plan_search_clear (PlanSearch *search);

/* Is `point` one of this domain: by its uuid, where both have one, else by name? */
bool plan_is_own_point (const PlanInput *input, const Manifest *point);

/* Checkpoints of this disk, made for points of the repository, of which its bitmaps tell nothing:
 * the newest few, up to one that is there. Adds borrowed names to `names`, the newest first. */
void plan_search_untold (const PlanInput *input, const PlanDisk *disk, GPtrArray *names);

const TmkBitmapInfo *plan_find_bitmap (const TmkDiskInfo *disk, const char *name);

/* The digits by which a point is called in a message. */
#define PLAN_ID_FORMAT "%.8s"

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (PlanSearch, plan_search_clear)
