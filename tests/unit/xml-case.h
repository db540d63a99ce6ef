/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/unit/xml-case.h: documents and expected output in tests/unit/data/xml. */
#pragma once

#include "util/error.h"
#include <glib.h>
#include <string.h>

static inline char *
case_path (const char *name)
{
  return g_build_filename (g_getenv ("TMK_SOURCE_ROOT"), "tests/unit/data/xml", name, NULL);
}

static inline char *
case_read (const char *name)
{
  g_autofree char *path = case_path (name);
  char *text = NULL;
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  return text;
}

/* `actual` must be what NAME holds; with TMK_REGENERATE set it becomes so. */
static inline void
case_expect (const char *name, const char *actual)
{
  if (g_getenv ("TMK_REGENERATE") != NULL) {
    g_autofree char *path = case_path (name);
    g_assert_true (g_file_set_contents (path, actual, -1, NULL));
    return;
  }
  g_autofree char *expected = case_read (name);
  g_assert_cmpstr (actual, ==, expected);
}

/* The error's message has `part` in it. */
#define assert_message(err, part)                                                                  \
  do {                                                                                             \
    g_assert_nonnull (err);                                                                        \
    if (strstr (tmk_error_message (err), part) == NULL)                                            \
      g_assert_cmpstr (tmk_error_message (err), ==, part);                                         \
  } while (0)
