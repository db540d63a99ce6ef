/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/disks.h: the disks of a running QEMU, as its own queries describe them.
 *
 * Pure: made from the return values of query-block, query-blockstats and query-named-block-nodes,
 * so that tests need no QEMU.
 */
#pragma once

#include "conf/domain_def.h"
#include "util/error.h"
#include "util/jsonx.h"

typedef struct {
  char *name;
  guint64 count;       /* dirty bytes */
  guint64 granularity; /* bytes */
  bool persistent, recording, inconsistent, busy;
} NodeBitmap;

/* One image of a backing chain. */
typedef struct {
  char *node;        /* the format node */
  char *driver;      /* "qcow2", "raw", "file" … */
  char *file_node;   /* its protocol node, or NULL where the format node is one itself */
  char *file_driver; /* "file", "host_device", … */
  char *filename;    /* path for file and host_device, else QEMU's description */
  guint64 size;      /* virtual size in bytes; 0 where unknown (backing images may be) */
  guint64 allocated; /* bytes it takes on its storage; 0 where unknown */
  bool read_only, file_read_only;
  bool can_persist;   /* bitmaps can be stored in it (qcow2 v3) */
  GPtrArray *bitmaps; /* of NodeBitmap* */
} DiskImage;

typedef struct {
  char *name;      /* what definitions call it */
  char *qdev;      /* as query-block says, or NULL */
  char *qom_path;  /* of the device, or NULL */
  char *drive;     /* id of the -drive, or NULL */
  char *root_node; /* what the device is on: the active image, or a filter above it; or NULL */
  char *io_status; /* "ok", "nospace", "failed", or NULL */
  bool read_only, removable, empty, temporary, firmware, iothread, shared;
  bool powered_off;          /* there is no device, and it may be open read-only */
  const char *no_checkpoint; /* why it can have none, as a clause; static, or NULL */
  GPtrArray *chain;          /* of DiskImage*, active image first; empty for an empty drive */
} QmpDisk;

/* All disks in QEMU's order, each with a name of its own. Free with g_ptr_array_unref(). */
GPtrArray *qmp_disks_new (json_t *block, json_t *blockstats, json_t *nodes, TmkError **errp);

/* A disk that is powered off, its chain still empty. To be freed with an array of
 * qmp_disks_array_new(). */
QmpDisk *qmp_disk_new_powered_off (const char *name);
/* Appends the image that is `node` on the protocol node `file`, rows of query-named-block-nodes. */
DiskImage *qmp_disk_add_image (QmpDisk *disk, const json_t *node, const json_t *file);
GPtrArray *qmp_disks_array_new (void);

/* Gives the disks the targets that `domain` has for them, found by device id (alias) and then by
 * the active image's path. Names stay unique. */
void qmp_disks_apply_names (GPtrArray *disks, const TmkDomainDef *domain);

QmpDisk *qmp_disks_find (GPtrArray *disks, const char *name);

/* The disk that has `node` in its chain, or NULL. */
QmpDisk *qmp_disks_find_node (GPtrArray *disks, const char *node);

/* Why the disk cannot be backed up, as a clause ("it is read-only"), or NULL. A static string. */
const char *qmp_disk_why_not (const QmpDisk *disk);

DiskImage *qmp_disk_active (const QmpDisk *disk); /* NULL for an empty drive */
NodeBitmap *disk_image_bitmap (const DiskImage *image, const char *name);

/* The same as a domain description, for alignment. */
TmkDomainDef *qmp_disks_to_def (GPtrArray *disks, const char *name, const char *uuid);

/* "virtio-disk0" → "vda", "scsi0-0-0-1" → "sdb", … : the target that libvirt would have made the
 * device's alias from, or NULL. Free with g_free(). */
char *qmp_disk_target_of_alias (const char *alias);
