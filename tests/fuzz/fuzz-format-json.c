/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-format-json.c: configurations and manifests, made of anything (libFuzzer).
 *
 * Beyond not crashing: a refusal says why; what is taken is within its limits, can be written, and
 * reads back as what gives the same bytes again.
 */
#include "format/config.h"
#include "format/manifest.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
must_explain (TmkError *err)
{
  g_assert (err != NULL && tmk_error_message (err)[0] != '\0');
  g_assert (tmk_error_code (err) == TMK_ERR_DAMAGED
            || (tmk_error_code (err) == TMK_ERR_UNSUPPORTED && tmk_error_hint (err) != NULL));
  tmk_error_free (err);
}

static void
read_config (const char *json, size_t size)
{
  RepoConfig config, back;
  TmkError *err = NULL;
  if (!repo_config_parse (json, size, &config, &err)) {
    must_explain (err);
    return;
  }
  g_assert (chunk_size_is_valid (config.chunk_size) && config.pack_size > 0);
  g_autofree char *once = repo_config_format (&config);
  g_assert (repo_config_parse (once, strlen (once), &back, &err));
  g_autofree char *twice = repo_config_format (&back);
  g_assert (g_str_equal (once, twice));
}

static void
read_manifest (const char *json, size_t size)
{
  TmkError *err = NULL;
  g_autoptr (Manifest) manifest = manifest_parse (json, size, &err);
  if (manifest == NULL) {
    must_explain (err);
    return;
  }
  for (size_t i = 0; i < manifest->n_disks; i++)
    g_assert (manifest_disk (manifest, manifest->disks[i].name) == &manifest->disks[i]
              && chunk_size_is_valid (manifest->disks[i].chunk_size));
  for (size_t i = 0; i < manifest->n_files; i++) {
    const ManifestFile *file = &manifest->files[i];
    g_autofree char *there = g_canonicalize_filename (file->content.name, "/a");
    g_autofree char *expected = g_strconcat ("/a/", file->role, "/", file->name, NULL);
    g_assert (g_str_equal (there, expected)); /* down, and only down */
    g_assert (strchr (file->role, '/') == NULL && file->content.size >= file->size
              && file->content.size % MANIFEST_SECTOR == 0
              && chunk_size_is_valid (file->content.chunk_size));
  }
  g_autofree char *once = manifest_format (manifest);
  g_autoptr (Manifest) back = manifest_parse (once, strlen (once), &err);
  g_assert (back != NULL && err == NULL);
  g_autofree char *twice = manifest_format (back);
  g_assert (g_str_equal (once, twice));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autofree char *copy = g_memdup2 (data, size); /* without a NUL behind it */
  read_config (copy != NULL ? copy : "", size);
  read_manifest (copy != NULL ? copy : "", size);
  return 0;
}
