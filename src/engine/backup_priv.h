/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/backup_priv.h: a backup on its way: what the files that carry it out share. Its course is
 * at engine/backup.c.
 */
#pragma once

#include "engine/definition.h"
#include "engine/pipeline.h"
#include "repo/repository.h"

typedef struct {
  TmkDomain *domain; /* borrowed, as are … */
  TmkRepository *repository;
  Repo *repo;
  TmkBackupOptions options; /* … what these point to */
  int reserved;             /* descriptor, or -1 */
  gint64 began;             /* monotonic */
  Look *look;
  Manifest *manifest;                /* of the selected disks; complete when it is published */
  TmkDomainDescription *description; /* unless it is a dry run */
  GPtrArray *left_out; /* of char *: what belongs to the domain and is not in the point */
  RepoWriter *writer;
  Pipeline *pipeline;
  bool powered_off;
  uint64_t pause_us;
  size_t n_fallbacks;
  gint64 next_poll;    /* monotonic: when to look after the job */
  TmkError *job_error; /* why reading was stopped; or NULL */
} Backup;

bool backup_is_cancelled (const Backup *backup);

/* --- engine/backup_job.c --------------------------------------------------------------------- */

/* Is there to be a new checkpoint on the disk? */
bool backup_takes_checkpoint (const PlanDisk *plan);

/* Removes checkpoints of this repository that no backup will start from: those of points that were
 * never published (`orphans`), or those that this point supersedes. A failure is a warning: the
 * next backup tries again. */
void backup_remove_checkpoints (Backup *backup, bool orphans);

/* From here on the guest's writes are kept apart. */
bool backup_begin (Backup *backup, TmkError **errp);

/* What the point keeps of the job. */
bool backup_note_job (Backup *backup, TmkError **errp);

/* Why the disks could be read no more, and what a user can do: somebody ended the job under us, or
 * QEMU, or the job itself has trouble, of which readers only notice that they fail. */
void backup_explain_end (Backup *backup, TmkError **errp);

/* Everything as before begin. */
void backup_take_back (Backup *backup);

/* --- engine/backup_read.c -------------------------------------------------------------------- */

/* Reads each disk into its tree; all that was stored is durable then. */
bool backup_copy_disks (Backup *backup, TmkError **errp);
