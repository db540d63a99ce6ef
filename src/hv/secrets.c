/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/secrets.c: see hv/secrets.h. No state. */
#include "hv/secrets.h"

#include "util/fsx.h"

#include <string.h>

#define DOMAIN "secret"
#define MAX_SECRETS (1024 * 1024)

static char *
file_name_of_usage (const char *usage)
{
  GString *name = g_string_new (NULL);
  for (const char *p = usage; *p != '\0'; p++) {
    if (*p == '/')
      g_string_append (name, "%2F");
    else if (*p == '%')
      g_string_append (name, "%25");
    else
      g_string_append_c (name, *p);
  }
  return g_string_free (name, FALSE);
}

static GBytes *
from_folder (const char *source, const EncryptionDef *encryption, TmkError **errp)
{
  g_autofree char *name = encryption->secret_uuid != NULL
                              ? g_ascii_strdown (encryption->secret_uuid, -1)
                              : file_name_of_usage (encryption->secret_usage);
  if (*name == '.' || *name == '\0') {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "'%s' cannot name a secret", name);
    return NULL;
  }
  g_autofree char *path = g_build_filename (source, name, NULL);
  size_t len;
  char *text = fsx_read_file (path, MAX_SECRETS, &len, errp);
  if (text == NULL)
    return NULL;
  if (len > 0 && text[len - 1] == '\n')
    len--;
  return g_bytes_new_with_free_func (text, len, g_free, text);
}

/* The value of `line` if it is the secret that is looked for, else NULL. Borrowed from it. */
static const char *
match_line (const char *line, const EncryptionDef *encryption)
{
  bool by_uuid = encryption->secret_uuid != NULL;
  const char *keyword = by_uuid ? "uuid " : "usage ";
  const char *name = by_uuid ? encryption->secret_uuid : encryption->secret_usage;
  size_t len = strlen (name);
  if (!g_str_has_prefix (line, keyword))
    return NULL;
  line += strlen (keyword);
  bool same = by_uuid ? g_ascii_strncasecmp (line, name, len) == 0 : strncmp (line, name, len) == 0;
  return same && line[len] == ' ' ? line + len + 1 : NULL;
}

/* GLib's decoder skips what is not base64; a passphrase with a slip would be another one, and the
 * backup encrypted with it one that nobody can open. */
static GBytes *
decode (const char *text, TmkError **errp)
{
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  size_t len = strlen (text), n = strspn (text, digits), padding = strspn (text + n, "=");
  if (len % 4 != 0 || n + padding != len || padding > 2) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "it is not valid base64");
    return NULL;
  }
  gsize size;
  guchar *data = g_base64_decode (text, &size);
  return g_bytes_new_take (data, size);
}

static GBytes *
from_file (const char *source, const EncryptionDef *encryption, TmkError **errp)
{
  size_t len;
  g_autofree char *text = fsx_read_file (source, MAX_SECRETS, &len, errp);
  if (text == NULL)
    return NULL;
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  for (char **line = lines; *line != NULL; line++) {
    const char *value = match_line (*line, encryption);
    if (value == NULL)
      continue;
    if (!g_str_has_prefix (value, "base64:"))
      return g_bytes_new (value, strlen (value));
    return decode (value + strlen ("base64:"), errp);
  }
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "'%s' has no such secret", source);
  return NULL;
}

GBytes *
secret_find (const char *source, const EncryptionDef *encryption, TmkError **errp)
{
  g_autofree char *what
      = encryption->secret_uuid != NULL
            ? g_strdup_printf ("secret with uuid %s", encryption->secret_uuid)
            : g_strdup_printf ("secret with usage '%s'", encryption->secret_usage);
  GBytes *bytes = NULL;
  if (source == NULL)
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "no secrets were given");
  else if (g_file_test (source, G_FILE_TEST_IS_DIR))
    bytes = from_folder (source, encryption, errp);
  else
    bytes = from_file (source, encryption, errp);

  if (bytes != NULL && g_bytes_get_size (bytes) == 0) {
    g_clear_pointer (&bytes, g_bytes_unref);
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "it is empty");
  }
  if (bytes == NULL) {
    error_prefix (errp, "%s", what);
    error_hint (errp, "name a file or folder that holds it with --secrets; see tidemark-begin(1)");
  }
  return bytes;
}
