/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cli/progress.h: how far long work is, on stderr.
 *
 * On a terminal a line for each part of the work (a disk, say), drawn over and over:
 *
 *   vda  [########............]  42%  1.2 GiB of 2.9 GiB  210.0 MiB/s  12.3 MiB new  0:08 left
 *
 * Otherwise such a line every few seconds for each part under way, without the bar; nothing where
 * the user wants quiet.
 * While lines are drawn all else goes to stderr through progress_say(), or they would be torn.
 *
 * Not thread-safe: calls come one at a time.
 */
#pragma once

#include "util/error.h"

typedef struct Progress Progress;

/* One part of the work. Zero every field that is not set. */
typedef struct {
  const char *name;    /* tells the parts apart */
  guint64 done, total; /* bytes; total 0: not known */
  const char *note;    /* more to show ("12.3 MiB new"), or NULL */
  bool finished;
} ProgressPart;

Progress *progress_new (bool quiet);

/* Leaves what was drawn last on the terminal. NULL is allowed. */
void progress_free (Progress *progress);

/* Shows `part`; often enough is soon enough: it draws no more than some times a second. */
void progress_update (Progress *progress, const ProgressPart *part);

/* A line of text (without its end) among what is drawn. `progress` may be NULL. Quiet or not. */
void progress_say (Progress *progress, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* "0:08", "1:02:03". Free with g_free(). */
char *progress_duration (guint64 seconds);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Progress, progress_free)
