/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/check.h: would a backup of this domain into this repository work?
 *
 * What a backup does is looked at, up to a pull that is begun, read a little, and taken back;
 * nothing remains changed, but that this pull is the last job that the domain tells of.
 */
#ifndef TIDEMARK_CHECK_H
#define TIDEMARK_CHECK_H

#include <stdbool.h>
#include <tidemark/backup.h>
#include <tidemark/domain.h>
#include <tidemark/repository.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  TMK_CHECK_OK = 0,
  TMK_CHECK_WARNING, /* a backup works, but less well than it could */
  TMK_CHECK_PROBLEM, /* a backup fails, or soon will */
} TmkCheckLevel;

/* One thing that was looked at. */
typedef struct {
  TmkCheckLevel level;
  /* "domain", "qemu", "confinement", "agent", "state", "repository", "space", "disk", "checkpoint",
   * "scratch", "trial" */
  const char *what;
  const char *disk;    /* that it is about, or NULL */
  const char *message; /* one line, whatever the level */
  const char *hint;    /* what the user can do, or NULL */
} TmkCheck;

/* Zero every field that is not set. */
typedef struct {
  const TmkBackupOptions *backup; /* what the backup would be given; NULL: nothing */
  const char *state_dir;          /* as in TmkDomainOptions */
  bool no_trial;                  /* begin nothing */
  /* Why there is no domain or no repository, where they could not be opened; borrowed. */
  const TmkError *domain_error, *repository_error;
  void (*report) (const TmkCheck *check, void *data); /* each as soon as it is known */
  bool (*cancelled) (void *data);
  void *data;
} TmkCheckOptions;

typedef struct {
  unsigned good, warnings, problems;
} TmkCheckResult;

/* Looks at everything that can be looked at: what fails is a check, no error. `domain` and
 * `repository` may be NULL: that is a problem, unless it has no reason. False with
 * TMK_ERR_CANCELLED alone. */
bool tmk_check (TmkDomain *domain, TmkRepository *repository, const TmkCheckOptions *options,
                TmkCheckResult *result, TmkError **errp);

const char *tmk_check_level_name (TmkCheckLevel level); /* "ok", "warning", "problem" */

#ifdef __cplusplus
}
#endif
#endif
