/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/lv.h: a domain of libvirt's: the TmkDomain behind tmk_domain_open_libvirt().
 *
 * Every operation looks first: is it running, and with which disks? A running one is dealt with by
 * libvirt's own calls (live_*): it plans and undoes by itself, and its checkpoints are the truth.
 * One that is shut off has nobody but its images: they are a domain of their own (hv/image), under
 * the same uuid and so with the same state folder; what changes there is told to libvirt, which
 * keeps descriptions of checkpoints but cannot see bitmaps while nothing runs.
 *
 * Only documented calls are used, no monitor commands: those mark a domain as tainted.
 */
#pragma once

#include "conf/domain_def.h"
#include "hv/hv.h"
#include "hv/job_record.h"
#include "hv/libvirt/connection.h"
#include "hv/state.h"

typedef struct {
  TmkDomain base;

  /* fixed */
  char *uri;   /* or NULL */
  char *named; /* what the user calls it */
  char *name, *uuid;
  char *root; /* the state folder */
  State *state;

  /* known since the last look */
  virConnectPtr connection;
  virDomainPtr dom;
  bool lost; /* libvirt was waited for in vain */
  bool active;
  char *xml; /* as it runs, else as it would start */
  TmkDomainDef *def;
  TmkDomain *images;  /* of one that is shut off; NULL until they are needed */
  GPtrArray *secrets; /* of LvSecret*, of its encrypted disks; NULL while it runs */

  JobSeen seen;
} LvDomain;

/* Connects if need be, and learns how the domain is now. */
bool lv_look (LvDomain *lv, TmkError **errp);

/* The same, for an operation on one that runs: with the state's lock. */
bool lv_enter (LvDomain *lv, TmkError **errp);
void lv_leave (LvDomain *lv);

/* Why the disk cannot be backed up, or NULL. A static string. */
const char *lv_disk_why_not (const LvDomain *lv, const DiskDef *disk);

/* The disk called so, or NULL. */
const DiskDef *lv_disk_by_name (const LvDomain *lv, const char *name);

/* --- hv/libvirt/secrets.c -------------------------------------------------------------------- */

/* What libvirt keeps for an encrypted disk of a domain that is shut off. */
typedef struct {
  char *target;
  unsigned char *value; /* the passphrase; or NULL */
  size_t len;
  const char *why_not; /* there is none; a static string */
} LvSecret;

/* Asks libvirt for the passphrases of all encrypted disks. */
void lv_learn_secrets (LvDomain *lv);
void lv_forget_secrets (LvDomain *lv);

/* That of the disk called so; NULL where it is not encrypted. */
const LvSecret *lv_secret_of (const LvDomain *lv, const char *target);

/* --- hv/libvirt/inspect.c -------------------------------------------------------------------- */

bool lv_inspect (LvDomain *lv, HvFacts *facts, TmkError **errp);

/* Was libvirt connected to an agent in the guest when it was last looked at? */
HvAgent lv_find_agent (const LvDomain *lv);

/* --- hv/libvirt/disks.c ---------------------------------------------------------------------- */

TmkDiskList *live_disks (LvDomain *lv, TmkError **errp);
/* The list of the images, and behind it the disks that cannot be backed up; takes `images`. */
TmkDiskList *lv_complete_disks (LvDomain *lv, TmkDiskList *images);

/* --- hv/libvirt/checkpoints.c ---------------------------------------------------------------- */

/* Of TmkCheckpointDef*, with sizes: a disk without one has no bitmap that could be used. */
GPtrArray *live_checkpoint_defs (LvDomain *lv, TmkError **errp);
TmkCheckpointList *live_checkpoints (LvDomain *lv, TmkError **errp);
bool live_checkpoint_create (LvDomain *lv, const TmkCheckpointDef *def, unsigned flags, char **name,
                             TmkError **errp);
/* TMK_ERR_EXISTS where libvirt has one of that name. */
bool live_checkpoint_check_new (LvDomain *lv, const char *name, TmkError **errp);
char *live_checkpoint_xml (LvDomain *lv, const char *name, unsigned flags, TmkError **errp);
bool live_checkpoint_delete (LvDomain *lv, const char *name, bool children, TmkError **errp);
bool live_checkpoint_delete_from (LvDomain *lv, const char *name, const char *const *disks,
                                  TmkError **errp);
bool live_checkpoint_adopt (LvDomain *lv, const char *name, const char *const *disks,
                            TmkError **errp);

/* Removes what there is of the checkpoint, be it libvirt's or only bitmaps on the disks of `def`.
 */
bool live_checkpoint_purge (LvDomain *lv, const char *name, TmkError **errp);

/* The domain runs, so a job of its images that is still remembered was killed. What it left in
 * them, of which libvirt does not know, goes. */
void lv_drop_images_job (LvDomain *lv);

/* Writes libvirt's description of a checkpoint down, for when the domain is shut off. Returns when
 * it was made: seconds since the epoch, 0 where that is not known. */
gint64 lv_keep_checkpoint (LvDomain *lv, const char *name);

/* --- hv/libvirt/offline.c -------------------------------------------------------------------- */

/* The domain's images as a domain; borrowed. TMK_ERR_NOT_FOUND where it has none to open. */
TmkDomain *lv_images (LvDomain *lv, TmkError **errp);

/* The same as the public functions, of the images; what a definition says of disks that take no
 * part is left out. */
bool lv_begin_images (LvDomain *lv, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
                      const TmkBeginOptions *options, TmkError **errp);
bool lv_create_on_images (LvDomain *lv, const TmkCheckpointDef *def, unsigned flags, char **name,
                          TmkError **errp);

/* Tells libvirt of a checkpoint that was made, or changed, on the images, or that it has gone. */
void lv_tell_libvirt (LvDomain *lv, const char *name, const TmkBeginOptions *options);

/* --- hv/libvirt/begin.c, status.c; see hv/libvirt/job.h -------------------------------------- */

bool live_begin (LvDomain *lv, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
                 const TmkBeginOptions *options, TmkError **errp);
char *live_job_xml (LvDomain *lv, unsigned flags, TmkError **errp);
TmkJobStatus *live_job_status (LvDomain *lv, bool act, TmkError **errp);
TmkBlockSource *live_open_disk (LvDomain *lv, const char *disk, const TmkNbdOptions *options,
                                TmkError **errp);
bool live_end (LvDomain *lv, TmkError **errp);
bool live_abort (LvDomain *lv, TmkError **errp);

/* Puts away what is left of a job that was begun while the domain ran, if there is anything. With
 * the state's lock. */
bool lv_job_put_away_left (LvDomain *lv, TmkError **errp);

/* Tidies up behind a job of a domain that has ended and that libvirt does not know any more. Its
 * images are left alone: they may be in use elsewhere. With the state's lock. */
bool lv_job_settle_gone (LvDomain *lv, TmkError **errp);

/* Is there something to tell, or to clean up, of a job that was begun while the domain ran? */
bool lv_has_record (LvDomain *lv);

/* --- hv/libvirt/describe.c ------------------------------------------------------------------- */

TmkDomainDescription *lv_describe (LvDomain *lv, TmkError **errp);
