/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: publishing replaces whole files, creating refuses existing ones, locks exclude. */
#include "util/fsx.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *dir;

static char *
in_dir (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

static void
test_publish (void)
{
  g_autofree char *path = in_dir ("file");
  for (int i = 0; i < 2; i++) {
    const char *text = i == 0 ? "first, longer" : "second";
    g_assert_true (fsx_publish (path, text, strlen (text), 0600, NULL));
    size_t len;
    g_autofree char *back = fsx_read_file (path, 100, &len, NULL);
    g_assert_cmpstr (back, ==, text);
    g_assert_cmpuint (len, ==, strlen (text));
  }
  g_autoptr (GDir) listing = g_dir_open (dir, 0, NULL);
  int n = 0;
  while (g_dir_read_name (listing) != NULL)
    n++;
  g_assert_cmpint (n, ==, 1); /* no temporary file stays */

  g_autoptr (TmkError) err = NULL;
  size_t len;
  g_assert_null (fsx_read_file (path, 3, &len, &err));
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
  g_assert_true (fsx_remove (path, NULL));
  g_assert_true (fsx_remove (path, NULL));
}

static void
test_create_new (void)
{
  g_autofree char *path = in_dir ("new");
  dev_t dev = 0;
  ino_t ino = 0;
  g_assert_true (fsx_create_new (path, 0600, &dev, &ino, NULL));
  GStatBuf st;
  g_assert_cmpint (g_stat (path, &st), ==, 0);
  g_assert_cmpuint (st.st_ino, ==, ino);
  g_autoptr (TmkError) err = NULL;
  g_assert_false (fsx_create_new (path, 0600, &dev, &ino, &err));
  g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_EXISTS);
  g_assert_true (fsx_remove (path, NULL));
}

static void
test_lock (void)
{
  g_autofree char *path = in_dir ("lock");
  int fd = fsx_lock (path, 0, NULL);
  g_assert_cmpint (fd, >=, 0);
  pid_t pid = fork ();
  if (pid == 0) {
    TmkError *err = NULL;
    int other = fsx_lock (path, 20, &err);
    _exit (other < 0 && tmk_error_code (err) == TMK_ERR_BUSY ? 0 : 1);
  }
  int status;
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_cmpint (status, ==, 0);
  fsx_unlock (fd);
  fd = fsx_lock (path, 0, NULL);
  g_assert_cmpint (fd, >=, 0);
  fsx_unlock (fd);
  g_assert_true (fsx_remove (path, NULL));
}

static void
test_free_space (void)
{
  g_autofree char *path = in_dir ("not-there");
  uint64_t bytes = 0;
  g_assert_true (fsx_free_space (path, &bytes, NULL));
  g_assert_cmpuint (bytes, >, 0);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("tmk-fsx-XXXXXX", NULL);
  g_test_add_func ("/fsx/publish", test_publish);
  g_test_add_func ("/fsx/create-new", test_create_new);
  g_test_add_func ("/fsx/lock", test_lock);
  g_test_add_func ("/fsx/free-space", test_free_space);
  int status = g_test_run ();
  g_rmdir (dir);
  g_free (dir);
  return status;
}
