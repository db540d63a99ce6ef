/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util/error.h: making errors. What they mean is in <tidemark/error.h>.
 *
 * Conventions: messages are lower case, without a full stop, the failing thing first and
 * its subject in 'quotes'; a hint is an action that the user can take.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <tidemark/error.h>

/* Stores a new error in `*errp` (which may be NULL). `domain` is a static string; `err_no`
 * is an errno or 0. Setting an error twice is a bug. */
void error_set (TmkError **errp, const char *domain, TmkErrorCode code, int err_no,
                const char *format, ...) G_GNUC_PRINTF (5, 6);

/* As error_set(), but appends ": strerror" and derives the code from `err_no`. */
void error_set_errno (TmkError **errp, const char *domain, int err_no, const char *format, ...)
    G_GNUC_PRINTF (4, 5);

/* Puts "context: " before the message of `*errp`; nothing where errp or *errp is NULL. */
void error_prefix (TmkError **errp, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Sets (replaces) the hint of `*errp`; nothing where errp or *errp is NULL. */
void error_hint (TmkError **errp, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Moves `err` (may be NULL: then nothing happens) to `*errp`, or frees it where errp is NULL. */
void error_propagate (TmkError **errp, TmkError *err);

TmkError *error_copy (const TmkError *err);

/* The code named by tmk_error_code_name(), or TMK_ERR_FAILED. */
TmkErrorCode error_code_from_name (const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkError, tmk_error_free)
