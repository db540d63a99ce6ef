/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format/manifest.h: manifests: what a recovery point is, a record of kind OBJECT_POINT with JSON
 * in it (source: docs/format/repository.rst). Pure.
 */
#pragma once

#include "format/object.h"

#define POINT_ID_DIGITS 16

/* Where a disk's image lay; how the next backup knows it again. */
typedef struct {
  char *path;            /* as QEMU names the file, or NULL */
  guint64 device, inode; /* of that file; 0: not known, or no regular file */
} ManifestImage;

typedef struct {
  char *name;   /* target */
  guint64 size; /* bytes */
  guint32 chunk_size;
  ObjectId root;         /* of the tree; zero: the disk is all zeroes */
  char *mode;            /* "full", "incremental" */
  char *reason;          /* why, in words */
  char *base_point;      /* incremental: the point it was added to; else NULL */
  char *base_disk;       /* … the name of the disk there */
  char *base_checkpoint; /* … and the checkpoint since which was read */
  char *checkpoint;      /* recording since this point, or NULL */
  char *format;          /* of the image, e.g. "qcow2", or NULL */
  ManifestImage *images; /* the chain's, top first */
  size_t n_images;
  guint64 read, zero;    /* bytes that were read; of the bytes looked at, those that are zero */
  guint64 changed;       /* bytes that differ from the point before */
  guint64 added, stored; /* bytes the repository did not have; and as stored */
  guint64 used;          /* bytes of the disk that are not zero, in whole chunks */
} ManifestDisk;

/* A file that belongs to the domain. Its bytes are kept as those of a disk of the same length,
 * rounded up to sectors: a chunk is whole sectors, or it could pass for a node. */
typedef struct {
  char *role;           /* "nvram", "tpm": a word */
  char *name;           /* within the role: a relative path that does not lead out */
  guint64 size;         /* bytes */
  guint32 mode;         /* permissions */
  ManifestDisk content; /* called "ROLE/NAME"; only size, chunk_size, root and used count */
} ManifestFile;

#define MANIFEST_SECTOR 512u
#define MANIFEST_FILES_MAX 1024u

/* A recovery point. Strings may be NULL unless said otherwise. Owned; see manifest_free(). */
typedef struct {
  char id[POINT_ID_DIGITS + 1];
  int64_t time_us; /* the instant, since the epoch */
  int64_t finished_us;
  char *domain; /* name, never NULL */
  char *uuid;
  char *host, *tool; /* where and by what it was made */
  char *checkpoint;  /* created at the instant */
  bool quiesced;
  char *domain_xml, *backup_xml, *checkpoint_xml;
  guint64 metadata;    /* bytes of tree nodes stored */
  ManifestDisk *disks; /* the domain's order */
  size_t n_disks;
  ManifestFile *files; /* no two of one role and name */
  size_t n_files;
} Manifest;

Manifest *manifest_new (size_t n_disks);
void manifest_free (Manifest *manifest);

/* Adds a file of `size` bytes, all zero; pointers to others are not valid any more. NULL where no
 * file may be called that, one is, or there are too many. `chunk_size`: of its tree. */
ManifestFile *manifest_add_file (Manifest *manifest, const char *role, const char *name,
                                 guint64 size, guint32 chunk_size);

/* By its name, or NULL. */
const ManifestDisk *manifest_disk (const Manifest *manifest, const char *name);

/* JSON, ending in a newline. Free with g_free(). */
char *manifest_format (const Manifest *manifest);
/* TMK_ERR_UNSUPPORTED for a newer format, TMK_ERR_DAMAGED for nonsense. */
Manifest *manifest_parse (const char *json, size_t len, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Manifest, manifest_free)
