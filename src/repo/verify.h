/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/verify.h: is everything there, and is it what it was?
 */
#pragma once

#include "repo/points.h"

/* One finding. */
typedef struct {
  const char *point, *disk; /* NULL: of no point */
  const char *file;         /* instead of a disk: "ROLE/NAME", of the point's files */
  uint64_t offset, length;  /* bytes of either; length 0: not of a range */
  const char *message;
} VerifyDamage;

typedef struct {
  unsigned sample;  /* per cent of the chunks that are read, at least one; 0: all */
  unsigned threads; /* 0: one a core */
  void (*damage) (const VerifyDamage *damage, void *data);      /* one at a time, any thread */
  void (*progress) (uint64_t done, uint64_t total, void *data); /* bytes stored; one at a time */
  bool (*cancelled) (void *data);
  void *data;
} VerifyOptions;

typedef struct {
  uint64_t points, disks, nodes, chunks, bytes; /* looked at; each object once; bytes as stored */
  uint64_t damaged;                             /* objects */
  uint64_t findings;                            /* calls of `damage` */
} VerifyResult;

/* Checks `n` points (NULL: all there are): their manifests, trees and (all or a sample of) chunks,
 * each object read once, its id computed anew; damage is told for each point and disk that it
 * touches, with neighbouring ranges joined (that of a copy, where another one is whole, of none),
 * and noted in the repository (repo_note_damage()), so that the next backup stores anew what it
 * meets. With no points given the index files and the packs' tables are checked, too. False only
 * where that could not be done (TMK_ERR_CANCELLED, TMK_ERR_IO …); see `result->damaged`. */
bool repo_verify (Repo *repo, const Manifest *const *points, size_t n, const VerifyOptions *options,
                  VerifyResult *result, TmkError **errp);
