/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/repository.h: a repository of recovery points.
 *
 * A point is what one backup of one domain left: every disk, restorable as of one instant. Points
 * share what their disks have in common; each is whole by itself. Any number of processes may use a
 * repository at once. What is in it, byte by byte, is in docs/format/repository.rst.
 *
 * Not thread-safe: one thread at a time per object. Results are owned as one block: free each with
 * its own function.
 */
#ifndef TIDEMARK_REPOSITORY_H
#define TIDEMARK_REPOSITORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TmkRepository TmkRepository;

/* Zero every field that is not set. */
typedef struct {
  uint64_t chunk_size;     /* bytes: a power of two, 64 KiB to 4 MiB; 0: 64 KiB */
  const char *compression; /* "zstd", "zstd:LEVEL" or "none"; NULL: "zstd:1" */
} TmkRepositoryOptions;

/* Makes an empty repository in the folder `path`, which must not exist, or be empty. `options` may
 * be NULL. TMK_ERR_EXISTS, TMK_ERR_DENIED, TMK_ERR_USAGE. Free with tmk_repository_free(). */
TmkRepository *tmk_repository_init (const char *path, const TmkRepositoryOptions *options,
                                    TmkError **errp);

/* Opens one. TMK_ERR_NOT_FOUND where there is none; TMK_ERR_UNSUPPORTED where a newer version made
 * it; TMK_ERR_DAMAGED. */
TmkRepository *tmk_repository_open (const char *path, TmkError **errp);
void tmk_repository_free (TmkRepository *repository);

/* Owned by the repository. The id is 32 hex digits. */
const char *tmk_repository_id (const TmkRepository *repository);
const char *tmk_repository_location (const TmkRepository *repository);
uint64_t tmk_repository_chunk_size (const TmkRepository *repository);
const char *tmk_repository_compression (const TmkRepository *repository); /* "zstd:1", "none" */

/* ---- points ------------------------------------------------------------------------------- */

typedef struct {
  const char *name;
  const char *mode;            /* "full", "incremental" */
  const char *reason;          /* why */
  const char *base_point;      /* incremental: the point it was added to; else NULL */
  const char *base_disk;       /* … and the name of the disk there */
  const char *base_checkpoint; /* incremental: read was what changed since; else NULL */
  const char *checkpoint;      /* recording since this point, or NULL */
  const char *source, *format; /* the image, as QEMU named it; or NULL */
  uint64_t size;               /* bytes */
  uint64_t used;               /* bytes that are not zero, in whole chunks */
  uint64_t read;               /* bytes that were read for it */
  uint64_t changed;            /* bytes that differ from the point before */
  uint64_t added, stored;      /* bytes that the repository did not have; as they are stored */
  uint64_t chunk_size;
} TmkPointDisk;

typedef struct {
  const char *role; /* "nvram": variables of its firmware; "tpm": state of its TPM; or another */
  const char *name; /* within the role: a relative path */
  uint64_t size;    /* bytes */
  unsigned mode;    /* permissions */
} TmkPointFile;

typedef struct {
  const char *id;
  const char *domain;           /* name */
  const char *uuid;             /* or NULL */
  const char *host, *tool;      /* where it was made, and by what */
  const char *checkpoint;       /* made at the instant, or NULL */
  int64_t time_us, finished_us; /* the instant, since the epoch */
  bool quiesced;
  const char *domain_xml, *backup_xml, *checkpoint_xml; /* or NULL */
  uint64_t metadata;                                    /* bytes stored beside the disks' */
  size_t n_disks;
  const TmkPointDisk *const *disks;
  size_t n_files; /* that belong to the domain */
  const TmkPointFile *const *files;
} TmkPoint;

typedef struct {
  size_t n_points;
  const TmkPoint *const *points; /* oldest first */
  size_t n_damaged;
  const char *const *damaged; /* "ID: why": points that cannot be read */
} TmkPointList;

/* All points, or those of `domain` (a name or uuid). */
TmkPointList *tmk_repository_points (TmkRepository *repository, const char *domain,
                                     TmkError **errp);
void tmk_point_list_free (TmkPointList *list);

/* The point that `spec` names: an id, a unique prefix of one, "DOMAIN/latest" or
 * "DOMAIN/2026-11-22T17:08" (the newest whose time begins so). TMK_ERR_NOT_FOUND, TMK_ERR_USAGE
 * where several fit, TMK_ERR_DAMAGED. A list of one. */
TmkPointList *tmk_repository_find (TmkRepository *repository, const char *spec, TmkError **errp);

/* Called for each range of a disk that differs, ascending; `zero`: it is all zero in the second
 * point. False stops. */
typedef bool (*TmkDiffVisit) (const char *disk, uint64_t offset, uint64_t length, bool zero,
                              void *data);

/* What differs from point `a` to point `b` (as for tmk_repository_find()), in whole chunks of `b`.
 * Disks are matched by name. One that only `b` has, or what it has beyond the end of `a`'s, differs
 * where it is not zero; where the chunks are of other sizes, all that is not zero in either counts
 * as different. A disk that only `a` has is left out. */
bool tmk_repository_diff (TmkRepository *repository, const char *a, const char *b,
                          TmkDiffVisit visit, void *data, TmkError **errp);

/* ---- the whole ---------------------------------------------------------------------------- */

typedef struct {
  uint64_t points, domains, disks, files; /* disks, files: of all points */
  uint64_t logical; /* bytes of all points' disks, not counting zeroes, and files */
  uint64_t objects; /* different ones stored */
  uint64_t packs, pack_bytes, index_files, index_bytes, other_bytes;
  uint64_t bytes; /* all of it */
} TmkRepositoryStats;

bool tmk_repository_stats (TmkRepository *repository, TmkRepositoryStats *stats, TmkError **errp);

typedef struct {
  const char *point, *disk; /* or NULL: not of a point */
  const char *file;         /* instead of a disk: "ROLE/NAME"; or NULL */
  uint64_t offset, length;  /* bytes of either; length 0: not of a range */
  const char *message;
} TmkDamage;

/* Zero every field that is not set. */
typedef struct {
  const char *const *points; /* as for tmk_repository_find(); NULL: all */
  size_t n_points;
  unsigned sample; /* per cent of the chunks to read, 1 to 100; 0: all */
  void (*damage) (const TmkDamage *damage, void *data);
  void (*progress) (uint64_t done, uint64_t total, void *data); /* bytes */
  bool (*cancelled) (void *data);
  void *data;
} TmkVerifyOptions;

typedef struct {
  uint64_t points, disks, objects, bytes; /* looked at; each object once */
  uint64_t damaged;                       /* objects */
} TmkVerifyResult;

/* Reads points back and computes every id anew. True where that could be done, whatever it found:
 * see `result->damaged`. `options` may be NULL. Callbacks come one at a time, from any thread. */
bool tmk_repository_verify (TmkRepository *repository, const TmkVerifyOptions *options,
                            TmkVerifyResult *result, TmkError **errp);

#ifdef __cplusplus
}
#endif
#endif
