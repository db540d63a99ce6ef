/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/points.h: the recovery points of a repository.
 */
#pragma once

#include "repo/repo.h"

/* Manifests, oldest first; and what could not be read. */
typedef struct {
  GPtrArray *manifests; /* of Manifest * */
  GPtrArray *damaged;   /* of char *: "ID: why" */
} PointSet;

/* All points, or those of a domain: `domain` is a name or uuid, or NULL. One whose manifest cannot
 * be read is listed in `damaged`, whatever the domain; that is no error. */
PointSet *points_load (Repo *repo, const char *domain, TmkError **errp);
void points_free (PointSet *points);

/* The point that `spec` names: an id, a prefix of one (of at least 2 digits), "DOMAIN/latest", or
 * "DOMAIN/2026-11-22T17:08": the newest whose time (local, or with Z or an offset) begins so.
 * TMK_ERR_NOT_FOUND; TMK_ERR_USAGE where several fit, with their ids in the hint; TMK_ERR_DAMAGED
 * where it is one that cannot be read. Borrowed from `points`. */
const Manifest *points_find (const PointSet *points, const char *spec, TmkError **errp);

/* A new id. */
void point_id_new (char id[POINT_ID_DIGITS + 1]);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (PointSet, points_free)
