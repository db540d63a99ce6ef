/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: errors carry code, errno, message and hint; context is prefixed; nothing is set twice. */
#include "util/error.h"

#include <errno.h>

static void
test_set (void)
{
  g_autoptr (TmkError) err = NULL;
  error_set (&err, "hv", TMK_ERR_NOT_FOUND, 0, "no disk named '%s'", "vdx");
  g_assert_cmpstr (tmk_error_message (err), ==, "no disk named 'vdx'");
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_NOT_FOUND);
  g_assert_cmpstr (tmk_error_domain (err), ==, "hv");
  g_assert_null (tmk_error_hint (err));
  error_hint (&err, "see 'tidemark disks'");
  error_prefix (&err, "cannot begin");
  g_assert_cmpstr (tmk_error_message (err), ==, "cannot begin: no disk named 'vdx'");
  g_assert_cmpstr (tmk_error_hint (err), ==, "see 'tidemark disks'");

  g_autoptr (TmkError) copy = error_copy (err);
  g_assert_cmpstr (tmk_error_message (copy), ==, tmk_error_message (err));
}

static void
test_errno (void)
{
  g_autoptr (TmkError) err = NULL;
  error_set_errno (&err, "io", ENOSPC, "cannot write '%s'", "/x");
  g_assert_cmpint (tmk_error_errno (err), ==, ENOSPC);
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_NO_SPACE);
  g_assert_cmpstr (tmk_error_message (err), ==, "cannot write '/x': No space left on device");
}

static void
test_null (void)
{
  error_set (NULL, "hv", TMK_ERR_FAILED, 0, "nobody listens");
  error_prefix (NULL, "x");
  error_hint (NULL, "x");
  g_autoptr (TmkError) err = NULL;
  error_prefix (&err, "x");
  error_propagate (&err, NULL);
  g_assert_null (err);
}

static void
test_names (void)
{
  for (int code = TMK_ERR_FAILED; code <= TMK_ERR_INTERNAL; code++) {
    const char *name = tmk_error_code_name ((TmkErrorCode) code);
    g_assert_cmpstr (name, !=, "unknown");
    g_assert_cmpint (error_code_from_name (name), ==, code);
  }
  g_assert_cmpstr (tmk_error_code_name ((TmkErrorCode) 999), ==, "unknown");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/error/set", test_set);
  g_test_add_func ("/error/errno", test_errno);
  g_test_add_func ("/error/null", test_null);
  g_test_add_func ("/error/names", test_names);
  return g_test_run ();
}
