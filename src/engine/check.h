/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/check.h: what the parts of <tidemark/check.h> share.
 */
#pragma once

#include "engine/look.h"
#include <tidemark/check.h>

typedef struct {
  TmkDomain *domain;              /* borrowed; NULL: there is none */
  TmkRepository *repository;      /* the same */
  const TmkCheckOptions *options; /* … */
  TmkBackupOptions backup;        /* a dry run */
  TmkCheckResult result;
  HvFacts facts;
  bool inspected; /* `facts` count */
  bool job_runs;
  TmkDiskList *disks; /* where there is no repository to plan with; else … */
  Look *look;         /* … or NULL */
} Check;

/* Tells of one thing. `disk` and `hint` may be NULL. */
void check_say (Check *self, TmkCheckLevel level, const char *what, const char *disk,
                const char *hint, const char *format, ...) G_GNUC_PRINTF (6, 7);
/* What failed, with its hint. */
void check_say_error (Check *self, TmkCheckLevel level, const char *what, const char *disk,
                      const TmkError *err);

/* "3.0 MiB". Free with g_free(). */
char *check_size (uint64_t bytes);

/* Bytes that a disk's images take, at most its size. */
uint64_t check_used (const TmkDiskInfo *disk);

/* Has the disk to be copied to its scratch before it can be read? */
bool check_is_staged (const Check *self, const TmkDiskInfo *disk);

/* --- engine/check_host.c: what it runs on, and has room for ---------------------------------- */
void check_qemu (Check *self);
void check_confinement (Check *self);
void check_agent (Check *self);
void check_state (Check *self);
void check_space (Check *self);
void check_scratch (Check *self);

/* --- engine/check_trial.c: a pull that is begun, read a little, and taken back ---------------- */
void check_trial (Check *self);
