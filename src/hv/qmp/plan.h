/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/plan.h: from an aligned definition and the disks to exactly what a job will do.
 *
 * Pure: no QEMU, no files. Everything a job makes in QEMU carries the prefix "tmk-" and the run's
 * id, so that whoever comes later can tell ours from others'. Disks are numbered there: node names
 * are at most 31 bytes, and a job's id takes letters, digits and "-._" only (QEMU's limits), while
 * a disk may be called "#block123".
 */
#pragma once

#include "conf/backup_def.h"
#include "conf/checkpoint_def.h"
#include "hv/qmp/disks.h"
#include <tidemark/domain.h>

typedef struct {
  char *name;       /* of the disk */
  char *node;       /* the disk's top format node */
  guint64 size;     /* bytes the guest sees */
  guint64 estimate; /* bytes the target may take: an upper bound for sane sources */
  BackupMode mode;
  char *incremental;      /* checkpoint it starts from, or NULL */
  char *since_bitmap;     /* its bitmap on this disk, nearly always of the same name */
  guint64 granularity;    /* bytes: of that bitmap, the finest in the chain */
  GPtrArray *merge_nodes; /* char*: the nodes whose bitmaps `since_bitmap` are joined */

  StorageType target_type; /* STORAGE_FILE or STORAGE_BLOCK */
  char *target;
  char *format;                   /* "qcow2", "raw", … */
  EncryptionDef *encryption;      /* borrowed from the definition, or NULL */
  char *backing, *backing_format; /* named as backing file in a new qcow2; or NULL */

  char *job, *bitmap, *file_node, *format_node, *secret; /* ours; bitmap and secret may be NULL */

  /* Pull only: the image is the scratch, and its node holds the bitmap that is exported. */
  char *device;    /* QOM path of the disk's device */
  char *root_node; /* what the device is on */
  char *drive;     /* id of its -drive, by which it is given back; or NULL */
  char *export_name;
  char *filter_node, *snapshot_node, *export_id; /* ours */
} JobDisk;

typedef struct {
  char *disk, *node, *bitmap;
  bool persistent;
  guint64 capacity;
} PlanBitmap; /* one bitmap of the new checkpoint */

typedef struct {
  char *run;                    /* eight hex digits */
  TmkBackupDef *def;            /* aligned */
  TmkCheckpointDef *checkpoint; /* aligned, or NULL */
  GPtrArray *disks;             /* of JobDisk*: those that take part */
  GPtrArray *bitmaps;           /* of PlanBitmap*: the new checkpoint's */
  bool staged;                  /* see hv/qmp/staging.h */
  bool direct;                  /* a pull of disks that are powered off: there is no scratch */
  /* Pull, see hv/qmp/tls.h: the id of the credentials and where QEMU reads them. NULL: plain. */
  char *tls, *tls_folder;
  bool tls_psk;             /* pre-shared keys, not certificates */
  unsigned scratch_timeout; /* pull: seconds */
  char *socket_folder;      /* pull: made for its socket, see hv/own_socket.h; or NULL */
  /* Pull, see server_check(): the unix socket on which QEMU's server listens (NULL: TCP), and the
   * lock of the relay that stands before it (NULL: none does). */
  char *socket, *relay;
} JobPlan;

/* What the plan is made from; all borrowed. */
typedef struct {
  const char *run;
  const char *suffix; /* of generated target names */
  GPtrArray *disks;   /* of QmpDisk* */
  const TmkDomainDef *domain;
  const TmkBackupDef *def;            /* aligned or not */
  const TmkCheckpointDef *checkpoint; /* or NULL */
  GPtrArray *known;                   /* of TmkCheckpointDef*: checkpoints described in the state */
  bool reuse_external, compress;
  bool powered_off;
} JobPlanInput;

/* Makes a plan. The copied definition in it shows all that was chosen. */
JobPlan *job_plan_new (const JobPlanInput *input, TmkError **errp);
void job_plan_free (JobPlan *plan);

/* The transaction's actions, an array: the new checkpoint, then for each incremental disk a
 * temporary bitmap joined from its chain, then the jobs.
 *
 * One instant comes of their order, without the guest being stopped. QEMU drains a disk when it
 * comes to the disk's job and keeps it so until all actions are done, so the state of all disks is
 * that of the moment when the last was drained. What the guest writes to a disk between the actions
 * before its drain is in the backup and must be in its bitmap: that is why the temporary bitmap
 * records from its first moment on, until the job takes it. The new checkpoint has recorded it
 * too, which the next incremental copies once more for nothing.
 *
 * (Stopping the guest for the transaction is no alternative: QEMU 7.2 aborts when it goes on with
 * jobs that were begun on disks of iothreads meanwhile.) */
json_t *job_plan_actions (const JobPlan *plan, const TmkBeginOptions *options,
                          bool has_on_cbw_error);

/* The actions of a pull's transaction, which is run while the guest is held still: the new
 * checkpoint, and on each incremental disk's scratch the bitmap to export, joined from its chain.
 */
json_t *job_plan_pull_actions (const JobPlan *plan, bool persistent);

/* The bitmaps of checkpoint `def` (aligned) on `disks`; errors where a disk cannot have one or has
 * a bitmap of that name already. Array of PlanBitmap*. */
GPtrArray *plan_checkpoint_bitmaps (GPtrArray *disks, TmkCheckpointDef *def, GPtrArray *known,
                                    TmkError **errp);

/* The description called `name` among `known`, or NULL. */
TmkCheckpointDef *plan_known_checkpoint (GPtrArray *known, const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (JobPlan, job_plan_free)
