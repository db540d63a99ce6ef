/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/error.h: what went wrong, and what the user can do about it.
 *
 * Every function of this library that can fail takes a `TmkError **errp` as
 * its last parameter and returns false or NULL on failure. `errp` may be NULL
 * where the caller does not care why. On failure exactly one error is stored
 * and the caller owns it; on success `*errp` is left untouched.
 *
 * An error is immutable once returned, so it may be handed between threads.
 */
#ifndef TIDEMARK_ERROR_H
#define TIDEMARK_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TmkError TmkError;

/* What kind of failure it was; stable, and shown by `--json` under the name
 * that tmk_error_code_name() gives. */
typedef enum {
  TMK_ERR_FAILED = 1,   /* nothing below fits */
  TMK_ERR_USAGE,        /* the caller asked for something that makes no sense */
  TMK_ERR_INVALID,      /* a document or a value from outside is malformed */
  TMK_ERR_NOT_FOUND,    /* a disk, checkpoint, file, job … does not exist */
  TMK_ERR_EXISTS,       /* something that must not exist does */
  TMK_ERR_UNSUPPORTED,  /* valid, but cannot be done here */
  TMK_ERR_BUSY,         /* somebody else holds it; try again later */
  TMK_ERR_DENIED,       /* permissions */
  TMK_ERR_NO_SPACE,     /* a file system or device is or would be full */
  TMK_ERR_IO,           /* reading or writing failed */
  TMK_ERR_MISMATCH,     /* sizes or identities that must agree do not */
  TMK_ERR_INCONSISTENT, /* a bitmap cannot be trusted */
  TMK_ERR_TIMEOUT,      /* no answer in time */
  TMK_ERR_GONE,         /* the other side (QEMU, a server) went away */
  TMK_ERR_CANCELLED,    /* the user or another process cancelled it */
  TMK_ERR_DAMAGED,      /* stored data is not what it should be */
  TMK_ERR_INTERNAL,     /* a bug of ours */
} TmkErrorCode;

/* Frees `err`; NULL is allowed. */
void tmk_error_free (TmkError *err);

/* One line, lower case, no full stop: the failing thing first. Owned by `err`. */
const char *tmk_error_message (const TmkError *err);

/* What the user can do, or NULL. Owned by `err`. */
const char *tmk_error_hint (const TmkError *err);

/* The part of the library that failed: "conf", "qmp", "hv", "io", … A static string. */
const char *tmk_error_domain (const TmkError *err);

TmkErrorCode tmk_error_code (const TmkError *err);

/* The errno behind the failure, or 0. */
int tmk_error_errno (const TmkError *err);

/* "invalid", "not-found", … : a static string; "unknown" for a value that is no code. */
const char *tmk_error_code_name (TmkErrorCode code);

/* Frees a string or block that a function of this library returned with
 * "free with tmk_free()". NULL is allowed. */
void tmk_free (void *ptr);

#ifdef __cplusplus
}
#endif
#endif
