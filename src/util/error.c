/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* util/error.c: see <tidemark/error.h> and util/error.h. Errors are immutable to callers. */
#include "util/error.h"

#include <errno.h>
#include <stdlib.h>

struct TmkError {
  const char *domain;
  TmkErrorCode code;
  int err_no;
  char *message;
  char *hint;
};

static const char *const code_names[] = {
  [TMK_ERR_FAILED] = "failed",       [TMK_ERR_USAGE] = "usage",
  [TMK_ERR_INVALID] = "invalid",     [TMK_ERR_NOT_FOUND] = "not-found",
  [TMK_ERR_EXISTS] = "exists",       [TMK_ERR_UNSUPPORTED] = "unsupported",
  [TMK_ERR_BUSY] = "busy",           [TMK_ERR_DENIED] = "denied",
  [TMK_ERR_NO_SPACE] = "no-space",   [TMK_ERR_IO] = "io",
  [TMK_ERR_MISMATCH] = "mismatch",   [TMK_ERR_INCONSISTENT] = "inconsistent",
  [TMK_ERR_TIMEOUT] = "timeout",     [TMK_ERR_GONE] = "gone",
  [TMK_ERR_CANCELLED] = "cancelled", [TMK_ERR_DAMAGED] = "damaged",
  [TMK_ERR_INTERNAL] = "internal",
};

void
tmk_error_free (TmkError *err)
{
  if (err == NULL)
    return;
  g_free (err->message);
  g_free (err->hint);
  g_free (err);
}

const char *
tmk_error_message (const TmkError *err)
{
  return err->message;
}

const char *
tmk_error_hint (const TmkError *err)
{
  return err->hint;
}

const char *
tmk_error_domain (const TmkError *err)
{
  return err->domain;
}

TmkErrorCode
tmk_error_code (const TmkError *err)
{
  return err->code;
}

int
tmk_error_errno (const TmkError *err)
{
  return err->err_no;
}

const char *
tmk_error_code_name (TmkErrorCode code)
{
  if ((size_t) code < G_N_ELEMENTS (code_names) && code_names[code] != NULL)
    return code_names[code];
  return "unknown";
}

TmkErrorCode
error_code_from_name (const char *name)
{
  for (size_t i = 0; i < G_N_ELEMENTS (code_names); i++)
    if (code_names[i] != NULL && g_strcmp0 (code_names[i], name) == 0)
      return (TmkErrorCode) i;
  return TMK_ERR_FAILED;
}

void
tmk_free (void *ptr)
{
  /* GLib's allocator is the C library's (since GLib 2.46), so one function frees both. */
  free (ptr);
}

static void
take (TmkError **errp, const char *domain, TmkErrorCode code, int err_no, char *message)
{
  if (errp == NULL) {
    g_free (message);
    return;
  }
  g_assert (*errp == NULL);
  TmkError *err = g_new0 (TmkError, 1);
  err->domain = domain;
  err->code = code;
  err->err_no = err_no;
  err->message = message;
  *errp = err;
}

void
error_set (TmkError **errp, const char *domain, TmkErrorCode code, int err_no, const char *format,
           ...)
{
  va_list ap;
  va_start (ap, format);
  char *message = g_strdup_vprintf (format, ap);
  va_end (ap);
  take (errp, domain, code, err_no, message);
}

static TmkErrorCode
code_from_errno (int err_no)
{
  switch (err_no) {
  case ENOENT:
  case ENOTDIR:
    return TMK_ERR_NOT_FOUND;
  case EEXIST:
    return TMK_ERR_EXISTS;
  case EACCES:
  case EPERM:
  case EROFS:
    return TMK_ERR_DENIED;
  case ENOSPC:
  case EDQUOT:
    return TMK_ERR_NO_SPACE;
  case EBUSY:
    return TMK_ERR_BUSY;
  case ETIMEDOUT:
    return TMK_ERR_TIMEOUT;
  case ECONNREFUSED:
  case ECONNRESET:
  case EPIPE:
    return TMK_ERR_GONE;
  default:
    return TMK_ERR_IO;
  }
}

void
error_set_errno (TmkError **errp, const char *domain, int err_no, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *what = g_strdup_vprintf (format, ap);
  va_end (ap);
  take (errp, domain, code_from_errno (err_no), err_no,
        g_strdup_printf ("%s: %s", what, g_strerror (err_no)));
}

void
error_prefix (TmkError **errp, const char *format, ...)
{
  if (errp == NULL || *errp == NULL)
    return;
  va_list ap;
  va_start (ap, format);
  g_autofree char *context = g_strdup_vprintf (format, ap);
  va_end (ap);
  char *message = g_strdup_printf ("%s: %s", context, (*errp)->message);
  g_free ((*errp)->message);
  (*errp)->message = message;
}

void
error_hint (TmkError **errp, const char *format, ...)
{
  if (errp == NULL || *errp == NULL)
    return;
  va_list ap;
  va_start (ap, format);
  g_free ((*errp)->hint);
  (*errp)->hint = g_strdup_vprintf (format, ap);
  va_end (ap);
}

void
error_propagate (TmkError **errp, TmkError *err)
{
  if (err == NULL)
    return;
  if (errp == NULL) {
    tmk_error_free (err);
    return;
  }
  g_assert (*errp == NULL);
  *errp = err;
}

TmkError *
error_copy (const TmkError *err)
{
  TmkError *copy = g_new0 (TmkError, 1);
  copy->domain = err->domain;
  copy->code = err->code;
  copy->err_no = err->err_no;
  copy->message = g_strdup (err->message);
  copy->hint = g_strdup (err->hint);
  return copy;
}
