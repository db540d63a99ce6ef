/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/hv-case.h: what the tests of hv share: expected output in tests/unit/data/hv, and made
 * up QEMUs, which answer the three queries that disks are read from.
 */
#pragma once

#include "hv/qmp/disks.h"

#include <glib/gstdio.h>
#include <string.h>

#define MIB ((guint64) 1 << 20)

/* --- files ----------------------------------------------------------------------------------- */

static inline char *
case_path (const char *name)
{
  return g_build_filename (g_getenv ("TMK_SOURCE_ROOT"), "tests/unit/data/hv", name, NULL);
}

/* `actual` must be what the file NAME holds; with TMK_REGENERATE set it becomes so. */
static inline void
case_expect (const char *name, const char *actual)
{
  g_autofree char *path = case_path (name);
  if (g_getenv ("TMK_REGENERATE") != NULL) {
    g_assert_true (g_file_set_contents (path, actual, -1, NULL));
    return;
  }
  g_autofree char *expected = NULL;
  g_assert_true (g_file_get_contents (path, &expected, NULL, NULL));
  g_auto (GStrv) was = g_strsplit (expected, "\n", -1);
  g_auto (GStrv) is = g_strsplit (actual, "\n", -1);
  guint line = 0; /* the first one that differs says more than two whole documents */
  while (was[line] != NULL && g_strcmp0 (was[line], is[line]) == 0)
    line++;
  if (g_strcmp0 (was[line], is[line]) != 0)
    g_error ("%s:%u: expected '%s', got '%s'", path, line + 1, was[line] != NULL ? was[line] : "",
             is[line] != NULL ? is[line] : "");
}

static inline void
case_expect_json (const char *name, const json_t *actual)
{
  char *text = json_dumps (actual, JSON_INDENT (1) | JSON_SORT_KEYS);
  g_autofree char *with_newline = g_strconcat (text, "\n", NULL);
  case_expect (name, with_newline);
  free (text); /* jansson's, from malloc */
}

static inline char *
make_folder (void)
{
  char *folder = g_dir_make_tmp ("tmk-hv-XXXXXX", NULL);
  g_assert_nonnull (folder);
  return folder;
}

/* Frees `folder` too. */
static inline void
remove_folder (char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (g_file_test (path, G_FILE_TEST_IS_DIR) && !g_file_test (path, G_FILE_TEST_IS_SYMLINK))
      remove_folder (g_strdup (path));
    else
      g_unlink (path);
  }
  g_rmdir (folder);
  g_free (folder);
}

/* --- errors ---------------------------------------------------------------------------------- */

static inline void
assert_contains (const char *text, const char *part)
{
  if (text == NULL || strstr (text, part) == NULL)
    g_assert_cmpstr (text, ==, part); /* shows both */
}

static inline void
assert_no_error (const TmkError *err)
{
  if (err != NULL)
    g_error ("%s", tmk_error_message (err));
}

/* A refusal: of this code, with this in its message, and with something for the user to do. */
static inline void
assert_refused (const TmkError *err, TmkErrorCode code, const char *part)
{
  g_assert_nonnull (err);
  assert_contains (tmk_error_message (err), part);
  g_assert_cmpstr (tmk_error_code_name (tmk_error_code (err)), ==, tmk_error_code_name (code));
  g_assert_nonnull (tmk_error_hint (err));
  g_assert_cmpint (*tmk_error_hint (err), !=, '\0');
}

/* --- a made up QEMU -------------------------------------------------------------------------- */

typedef struct {
  json_t *block, *blockstats, *nodes;
} FakeQemu;

static inline void
fake_init (FakeQemu *qemu)
{
  qemu->block = json_array ();
  qemu->blockstats = json_array ();
  qemu->nodes = json_array ();
}

static inline void
fake_clear (FakeQemu *qemu)
{
  json_decref (qemu->block);
  json_decref (qemu->blockstats);
  json_decref (qemu->nodes);
}

static inline json_t *
fake_find_node (FakeQemu *qemu, const char *name)
{
  size_t i;
  json_t *node;
  json_array_foreach (qemu->nodes, i, node) {
    if (g_strcmp0 (jsonx_string (node, "node-name"), name) == 0)
      return node;
  }
  g_error ("no node '%s'", name);
}

/* The file /images/NODE.DRIVER in `driver`, with its two nodes; its part of blockstats. */
static inline json_t *
fake_image (FakeQemu *qemu, const char *node, const char *driver, guint64 size)
{
  g_autofree char *file = g_strconcat (node, "-file", NULL);
  g_autofree char *path = g_strdup_printf ("/images/%s.%s", node, driver);
  json_array_append_new (qemu->nodes,
                         json_pack ("{s:s, s:s, s:b, s:s, s:{s:I, s:I}, s:[]}", "node-name", node,
                                    "drv", driver, "ro", 0, "file", path, "image", "virtual-size",
                                    (json_int_t) size, "actual-size", (json_int_t) (size / 4),
                                    "dirty-bitmaps"));
  json_array_append_new (qemu->nodes, json_pack ("{s:s, s:s, s:b, s:s}", "node-name", file, "drv",
                                                 "file", "ro", 0, "file", path));
  return json_pack ("{s:s, s:{s:s}}", "node-name", node, "parent", "node-name", file);
}

/* A virtio disk with id `id`. Its images from the active one down are ID, ID-1, … of format
 * `driver`, `size` bytes large. Returns its entry of query-block, borrowed. */
static inline json_t *
fake_disk (FakeQemu *qemu, const char *id, unsigned images, const char *driver, guint64 size)
{
  json_t *stats = NULL;
  for (unsigned i = images; i-- > 0;) {
    g_autofree char *node = i == 0 ? g_strdup (id) : g_strdup_printf ("%s-%u", id, i);
    json_t *top = fake_image (qemu, node, driver, size);
    if (stats != NULL)
      json_object_set_new (top, "backing", stats);
    stats = top;
  }
  g_autofree char *qdev = g_strdup_printf ("/machine/peripheral/%s/virtio-backend", id);
  json_object_set_new (stats, "device", json_string (""));
  json_object_set_new (stats, "qdev", json_string (qdev));
  json_array_append_new (qemu->blockstats, stats);
  json_t *block = json_pack ("{s:s, s:s, s:b, s:{s:s, s:b}}", "device", "", "qdev", qdev,
                             "removable", 0, "inserted", "node-name", id, "ro", 0);
  json_array_append_new (qemu->block, block);
  return block;
}

/* A persistent bitmap that records, of `count` dirty bytes; returns its entry, borrowed. */
static inline json_t *
fake_bitmap (FakeQemu *qemu, const char *node, const char *name, guint64 count)
{
  json_t *bitmap
      = json_pack ("{s:s, s:I, s:i, s:b, s:b, s:b}", "name", name, "count", (json_int_t) count,
                   "granularity", 65536, "persistent", 1, "recording", 1, "busy", 0);
  json_array_append_new (json_object_get (fake_find_node (qemu, node), "dirty-bitmaps"), bitmap);
  return bitmap;
}

static inline GPtrArray *
fake_disks (FakeQemu *qemu)
{
  g_autoptr (TmkError) err = NULL;
  GPtrArray *disks = qmp_disks_new (qemu->block, qemu->blockstats, qemu->nodes, &err);
  assert_no_error (err);
  g_assert_nonnull (disks);
  return disks;
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (FakeQemu, fake_clear)
