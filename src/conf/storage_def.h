/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/storage_def.h: where an image lies: the `<target>` and `<scratch>` of a backup, the
 * `<source>` of a disk. Plain data, no I/O.
 */
#pragma once

#include <glib.h>
#include <libxml/tree.h>

typedef enum {
  STORAGE_NONE = 0, /* not said */
  STORAGE_FILE,
  STORAGE_BLOCK,
  STORAGE_DIR,
  STORAGE_NETWORK,
  STORAGE_VOLUME,
  STORAGE_NVME,
  STORAGE_VHOST_USER,
  STORAGE_VHOST_VDPA,
} StorageType;

/* `<encryption format='luks'>` of a backup image. Strings are owned; NULL where not said. */
typedef struct {
  char *format;      /* "luks" */
  char *engine;      /* "qemu" or NULL */
  char *secret_uuid; /* exactly one of these two is set */
  char *secret_usage;
  char *cipher_name, *cipher_mode, *cipher_hash; /* with cipher_size: `<cipher>` */
  unsigned cipher_size;                          /* bits; 0 where there is no `<cipher>` */
  char *ivgen_name, *ivgen_hash;                 /* `<ivgen>` */
} EncryptionDef;

/* `<seclabel>` of an image: kept and formatted, never applied. */
typedef struct {
  char *model;   /* or NULL */
  int relabel;   /* -1 not said, 0 no, 1 yes */
  int labelskip; /* the same */
  char *label;   /* or NULL */
} SeclabelDef;

typedef struct {
  StorageType type;
  char *path;                /* file or device; NULL where the store is not named */
  char *format;              /* "qcow2", …; NULL where not said */
  unsigned index;            /* internal form; 0: none */
  GPtrArray *seclabels;      /* of SeclabelDef*, in document order; NULL: none */
  EncryptionDef *encryption; /* or NULL */
} StorageDef;

const char *storage_type_name (StorageType type);      /* "file"; NULL for NONE */
StorageType storage_type_from_name (const char *name); /* NONE where unknown */

StorageDef *storage_def_new (void);
StorageDef *storage_def_copy (const StorageDef *src);
void storage_def_free (StorageDef *def);

/* Appends a seclabel that says nothing yet; owned by `def`. */
SeclabelDef *storage_def_add_seclabel (StorageDef *def);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (StorageDef, storage_def_free)
