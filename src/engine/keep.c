/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/keep.c: see engine/keep.h. */
#include "engine/keep.h"

#include "util/fsx.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define DOMAIN "engine"
/* Firmware variables have some hundred KiB, on ARM 64 MiB; a TPM's state some ten KiB. */
#define FILE_MAX (256u << 20)
#define READS 5
#define PAUSE_US (20 * G_TIME_SPAN_MILLISECOND)

static bool
check_regular (const char *path, guint32 *mode, TmkError **errp)
{
  struct stat st;
  if (stat (path, &st) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot look at '%s'", path);
    return false;
  }
  if (!S_ISREG (st.st_mode)) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "'%s' is no regular file", path);
    return false;
  }
  *mode = st.st_mode & 0777;
  return true;
}

/* A guest that runs may write to it at any time: it is read until two readings agree. */
static char *
read_settled (const char *path, size_t *length, TmkError **errp)
{
  g_autofree char *before = NULL;
  size_t before_length = 0;
  for (unsigned i = 0; i < READS; i++) {
    g_autofree char *now = fsx_read_file (path, FILE_MAX, length, errp);
    if (now == NULL)
      return NULL;
    if (before != NULL && *length == before_length && memcmp (now, before, *length) == 0)
      return g_steal_pointer (&now);
    if (before != NULL)
      g_usleep (PAUSE_US);
    g_free (before);
    before = g_steal_pointer (&now);
    before_length = *length;
  }
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "'%s' changed while it was read", path);
  return NULL;
}

/* What cannot be stored is the repository's trouble, and ends the backup. */
static bool
keep_file (const TmkDomainFile *file, Pipeline *pipeline, guint32 chunk_size, Manifest *manifest,
           char **why_not, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  guint32 mode;
  size_t length;
  g_autofree char *data = NULL;
  if (!check_regular (file->path, &mode, &err)
      || (data = read_settled (file->path, &length, &err)) == NULL) {
    *why_not = g_strdup (tmk_error_message (err));
    return true;
  }
  ManifestFile *kept = manifest_add_file (manifest, file->role, file->name, length, chunk_size);
  if (kept == NULL) {
    *why_not = g_strdup ("a point cannot keep a file of that name");
    return true;
  }
  kept->mode = mode;
  data = g_realloc (data, kept->content.size + 1);
  memset (data + length, 0, kept->content.size - length);
  return pipeline_store (pipeline, data, &kept->content, errp);
}

bool
keep_files (const TmkDomainDescription *description, Pipeline *pipeline, guint32 chunk_size,
            Manifest *manifest, GPtrArray *left_out, TmkError **errp)
{
  for (size_t i = 0; i < description->n_left_out; i++)
    g_ptr_array_add (left_out, g_strdup (description->left_out[i]));
  for (size_t i = 0; i < description->n_files; i++) {
    const TmkDomainFile *file = description->files[i];
    g_autofree char *why_not = NULL;
    if (!keep_file (file, pipeline, chunk_size, manifest, &why_not, errp)) {
      error_prefix (errp, "%s '%s'", file->role, file->name);
      return false;
    }
    if (why_not != NULL)
      g_ptr_array_add (left_out, g_strdup_printf ("%s '%s': %s", file->role, file->name, why_not));
  }
  return true;
}
