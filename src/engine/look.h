/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/look.h: what a backup finds before it changes anything: the domain's disks and their
 * images, the repository's points, and the plan that follows from them.
 */
#pragma once

#include "engine/plan.h"
#include "hv/hv.h"
#include "repo/points.h"

typedef struct {
  char *domain; /* name in the repository; never NULL */
  char *uuid;   /* or NULL */
  TmkDiskList *disks;
  ManifestImage **images; /* of each disk, top first … */
  size_t *n_images;       /* … how many */
  PointSet *points;
  TmkCheckpointList *checkpoints; /* the domain's, where the plan needs them; or NULL */
  char *prefix;                   /* of checkpoints that backups make */
  Plan *plan;
} Look;

Look *look_new (TmkDomain *domain, Repo *repo, const TmkBackupOptions *options, TmkError **errp);
void look_free (Look *look);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Look, look_free)
