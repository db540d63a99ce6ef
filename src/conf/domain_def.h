/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/domain_def.h: the inside of <tidemark/domain_def.h>, for the floors above that make
 * a domain's description from what a hypervisor says.
 */
#pragma once

#include "conf/storage_def.h"
#include <tidemark/domain_def.h>

/* One image of a disk's backing chain, top first. */
typedef struct {
  StorageType type;
  char *path;            /* file or device path; for other types a description to show, or NULL */
  char *format;          /* or NULL */
  unsigned index;        /* `<source index=>`, 0: none */
  gboolean luks;         /* encrypted so; the format is then what lies within, or around */
  char *secret_uuid;     /* libvirt's secret with its passphrase, by uuid … or NULL */
  char *secret_usage;    /* … or by what it is for; or NULL */
  char *data_store_path; /* `<dataStore>`: the file holding a qcow2's data, or NULL */
} DiskSourceDef;

typedef struct {
  char *target; /* "vda": what everything calls the disk. Never NULL */
  char *bus;    /* "virtio" … or NULL */
  char *device; /* "disk", "cdrom", "floppy", "lun" */
  char *alias;  /* `<alias name=>`, the id of QEMU's device without its "ua-" or not; or NULL */
  char *serial; /* or NULL */
  StorageType type;
  gboolean readonly, shareable, transient;
  gboolean iothread; /* it is served by one or several of them */
  gboolean empty;    /* no medium: a drive without source */
  GPtrArray *chain;  /* of DiskSourceDef*: [0] is the active image; empty for an empty drive */
} DiskDef;

struct TmkDomainDef {
  char *name;       /* or NULL */
  char *uuid;       /* lower case, with dashes; or NULL */
  GPtrArray *disks; /* of DiskDef*, in document order */
};

TmkDomainDef *domain_def_new (void);
TmkDomainDef *domain_def_copy (const TmkDomainDef *def);

/* What QEMU's driver of the image is called, "raw" where nothing is said: what is encrypted with
 * LUKS and raw within is a "luks" image. A string of `source` or a static one. */
const char *disk_source_driver (const DiskSourceDef *source);

/* Appends a disk whose target is `target`; owned by `def`. */
DiskDef *domain_def_add_disk (TmkDomainDef *def, const char *target);

/* Appends an image to the chain of `disk`; strings are copied, NULL allowed. Owned by `disk`. */
DiskSourceDef *disk_def_add_source (DiskDef *disk, StorageType type, const char *path,
                                    const char *format);

/* The disk with that target, or NULL. Linear; see domain_def_index() for many look-ups. */
DiskDef *domain_def_find_disk (const TmkDomainDef *def, const char *target);

/* As find_disk, but `name` may also be the path of the active image, as a checkpoint may say. */
DiskDef *domain_def_find_disk_or_path (const TmkDomainDef *def, const char *name);

/* The active image of `disk`, or NULL for an empty drive. Owned by `disk`. */
const DiskSourceDef *disk_def_active (const DiskDef *disk);

/* For many look-ups: targets (and, if asked, paths of active images as find_disk_or_path knows
 * them) to disks, for domain_index_find(). Borrows from `def`, which must stay as it is. Free
 * with g_hash_table_unref(). */
GHashTable *domain_def_index (const TmkDomainDef *def, gboolean with_paths);
DiskDef *domain_index_find (GHashTable *index, const char *name);

/* "vda, vdb": the targets, for hints. Free with g_free(). */
char *domain_def_list_targets (const TmkDomainDef *def);

/* The `<domain>` of a document (itself one, or one within `<domstatus>`) as a checkpoint keeps it:
 * laid out afresh, its own indent starting at column 0. Free with g_free(). */
char *domain_xml_normalise (const char *xml, size_t len, const char *origin, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkDomainDef, tmk_domain_def_free)
