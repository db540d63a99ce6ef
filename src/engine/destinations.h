/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/destinations.h: where the disks of a restore go: new files, a block device or an NBD
 * export.
 *
 * All are opened, and checked, before anything is written, and stay open until all are complete: so
 * in the end all files are there, or none of them, nor a folder that was made for them. What names
 * say that come from a repository, nothing lands beside the folder. One thread.
 */
#pragma once

#include "format/manifest.h"
#include <tidemark/block_sink.h>

typedef struct {
  const ManifestDisk *disk; /* borrowed; of a file: its content */
  const ManifestFile *file; /* the same of a file; NULL: it is a disk */
  char *name;               /* the path or URI */
  TmkBlockSink *sink;
  uint32_t block;   /* as Writeout has it */
  bool is_new_file; /* else what is there was not ours and is overwritten */
} Destination;

typedef struct {
  Destination *items;
  size_t n;
  /* private */
  GArray *files;      /* that were made */
  GPtrArray *folders; /* of char *: the same, outermost first */
  bool finished;
} Destinations;

typedef struct {
  const char *to;
  const char *format;   /* "qcow2", "raw" or NULL */
  unsigned connections; /* to an NBD server that takes several */
  int cancel_fd;        /* as in TmkNbdOptions */
} DestinationSpec;

/* One disk: a new file, a device or an export. */
Destinations *destinations_open_one (const ManifestDisk *disk, const DestinationSpec *spec,
                                     TmkError **errp);

/* All disks: a folder with an image of each, the domain's XML where it is known, and its files:
 * "nvram" by their names, others below a folder called as their role. */
Destinations *destinations_open_all (const Manifest *manifest, const DestinationSpec *spec,
                                     TmkError **errp);

/* Makes all of them durable. Should that fail, destinations_free() removes them. */
bool destinations_finish (Destinations *self, TmkError **errp);

/* Unless they were finished, removes all files and folders that were made. NULL is allowed. */
void destinations_free (Destinations *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Destinations, destinations_free)
