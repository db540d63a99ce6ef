/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/secrets.h: passphrases of encrypted targets, which a definition names by uuid or usage.
 *
 * They come from a folder, where the secret of uuid U is the file U, and that of usage N is the
 * file N with each '%' and '/' written as %25 and %2F; or from a file with a line a secret:
 * `uuid UUID VALUE` or `usage NAME VALUE`, the value to the end of the line, plain or as
 * `base64:…`. In a folder's files one newline at the end is not part of the secret.
 */
#pragma once

#include "conf/storage_def.h"
#include "util/error.h"

/* The secret that `encryption` names, from `source` (NULL: none was given, an error). Free with
 * g_bytes_unref(). No message ever contains a secret. */
GBytes *secret_find (const char *source, const EncryptionDef *encryption, TmkError **errp);
