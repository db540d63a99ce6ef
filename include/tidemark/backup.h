/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/backup.h: one recovery point of a domain into a repository, start to end.
 *
 * Each disk is full or incremental by itself; all are as of one instant. The new point counts once
 * it is durable; only then the checkpoint that it supersedes is removed. Whatever happens before
 * that, what was there stays valid, and the next backup cleans up.
 */
#ifndef TIDEMARK_BACKUP_H
#define TIDEMARK_BACKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tidemark/backup_def.h>
#include <tidemark/domain.h>
#include <tidemark/repository.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  TMK_BACKUP_AUTO = 0,    /* each disk: incremental where that can be had, else full */
  TMK_BACKUP_FULL,        /* all disks full */
  TMK_BACKUP_INCREMENTAL, /* all disks incremental; one that cannot be is an error */
} TmkBackupMode;

typedef struct {
  const char *disk;
  uint64_t done, total; /* bytes to be looked at */
  uint64_t read, added, stored;
  bool finished;
} TmkBackupProgress;

/* Zero every field that is not set. */
typedef struct {
  TmkBackupMode mode;
  const char *const *include, *const *exclude; /* NULL-terminated lists of disks; NULL: none */
  /* An explicit definition: which disks, and each full or incremental since which checkpoint; a
   * pull, or of no mode. With it `mode` is AUTO and the lists are NULL. Its scratch and server are
   * used. */
  const TmkBackupDef *definition;
  const char *checkpoint;  /* name of the new checkpoint; NULL: one is made up */
  bool no_checkpoint;      /* make none; the next backup starts where this one did */
  bool dry_run;            /* only plan: nothing is changed anywhere */
  uint64_t bandwidth;      /* bytes/s to be read in all; 0: no limit */
  const char *scratch_dir; /* for scratch images; NULL: beside each disk's image */
  unsigned threads;        /* workers; 0: one a core */
  TmkBeginOptions begin;   /* secrets, agent, warn, … */
  const char *domain_name; /* in the repository; NULL: the domain's own */
  const char *domain_xml;  /* kept with the point; NULL: what the domain says itself */
  /* Called some times a second from the calling thread, for each disk in turn. */
  void (*progress) (const TmkBackupProgress *progress, void *data);
  /* Called once the plan stands, before anything is changed. */
  void (*planned) (const TmkPoint *plan, void *data);
  bool (*cancelled) (void *data); /* asked some times a second */
  void *data;
} TmkBackupOptions;

typedef struct {
  /* The new point; of a dry run what it would be: no id, and `read` is what is expected. */
  const TmkPoint *point;
  bool powered_off;  /* there was no guest */
  uint64_t pause_us; /* how long the guest was held */
  uint64_t elapsed_us;
  size_t n_fallbacks;         /* disks that were incremental before and fell back to full */
  size_t n_skipped;           /* disks that cannot be backed up, … */
  const char *const *skipped; /* "vdb: why" */
  size_t n_missed;            /* those of them that are not TmkDiskInfo.aside */
  const char *const *missed;
  size_t n_left_out;           /* what belongs to the domain but is not in the point: … */
  const char *const *left_out; /* "nvram 'OVMF_VARS.fd': why" */
} TmkBackupResult;

void tmk_backup_result_free (TmkBackupResult *result);

/* Makes a point. `options` may be NULL. Errors: whatever tmk_domain_begin() and the repository
 * have; TMK_ERR_CANCELLED. On failure everything is as before, but for data in the repository that
 * no point uses. */
TmkBackupResult *tmk_backup (TmkDomain *domain, TmkRepository *repository,
                             const TmkBackupOptions *options, TmkError **errp);

#ifdef __cplusplus
}
#endif
#endif
