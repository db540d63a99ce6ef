/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: points are listed in the order of their times, by domain; one that cannot be read is told
 * and hides none; each way of naming a point finds the right one, and what fits none or several is
 * refused with something to do. */
#include "repo-case.h"

#include "repo/record.h"

#define AT_1708 (G_GINT64_CONSTANT (1795367280000000)) /* 2026-11-22T17:08:00Z */
#define HOUR (G_TIME_SPAN_HOUR)

static Repo *
make_repo (void)
{
  g_autoptr (TmkError) err = NULL;
  RepoConfig config;
  ObjStore *store = obj_store_new_memory ();
  repo_config_default (&config);
  repo_create (store, &config, &err);
  case_no_error (err);
  Repo *repo = repo_open (store, &err);
  case_no_error (err);
  return repo;
}

static void
add_point (Repo *repo, const char *id, const char *domain, const char *uuid, int64_t time_us)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (Manifest) manifest = manifest_new (0);
  g_strlcpy (manifest->id, id, sizeof manifest->id);
  manifest->domain = g_strdup (domain);
  manifest->uuid = g_strdup (uuid);
  manifest->time_us = time_us;
  g_autofree char *json = manifest_format (manifest);
  g_autofree char *name = g_strconcat ("points/", id, NULL);
  record_publish (repo_store (repo), name, OBJECT_POINT, CODEC_ZSTD, 1, json, strlen (json), &err);
  case_no_error (err);
}

static Repo *
make_points (void)
{
  Repo *repo = make_repo ();
  add_point (repo, "bbbb000000000002", "web", "6F2C1B9A-4F6E-4C58-9B0E-2F1D9C7A1E55", AT_1708);
  add_point (repo, "aaaa000000000001", "web", "6f2c1b9a-4f6e-4c58-9b0e-2f1d9c7a1e55",
             AT_1708 - HOUR);
  add_point (repo, "bbbb000000000003", "a/b", NULL, AT_1708 + HOUR);
  add_point (repo, "cccc000000000004", "a/b", NULL, AT_1708 + HOUR);
  add_point (repo, "cccc000000000005", "web", NULL, AT_1708 + 40 * G_TIME_SPAN_SECOND + 123456);
  return repo;
}

static char *
ids_of (const PointSet *points)
{
  GString *ids = g_string_new (NULL);
  for (guint i = 0; i < points->manifests->len; i++)
    g_string_append_c (ids, ((Manifest *) points->manifests->pdata[i])->id[15]);
  return g_string_free (ids, FALSE);
}

static void
assert_listed (Repo *repo, const char *domain, const char *expected)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (PointSet) points = points_load (repo, domain, &err);
  case_no_error (err);
  g_autofree char *ids = ids_of (points);
  g_assert_cmpstr (ids, ==, expected);
}

static void
test_list (void)
{
  g_autoptr (Repo) empty = make_repo ();
  assert_listed (empty, NULL, "");
  g_autoptr (Repo) repo = make_points ();
  assert_listed (repo, NULL, "12534");
  assert_listed (repo, "web", "125");
  assert_listed (repo, "a/b", "34");
  assert_listed (repo, "we", "");
  assert_listed (repo, "6f2c1b9a-4f6e-4c58-9b0e-2f1d9c7a1e55", "12");
  points_free (NULL);
}

static void
assert_found (const PointSet *points, const char *spec, char expected)
{
  g_autoptr (TmkError) err = NULL;
  const Manifest *manifest = points_find (points, spec, &err);
  if (manifest == NULL)
    g_error ("%s: %s", spec, tmk_error_message (err));
  if (manifest->id[15] != expected)
    g_error ("%s found %s", spec, manifest->id);
}

static void
assert_not_found (const PointSet *points, const char *spec, TmkErrorCode code, const char *part)
{
  g_autoptr (TmkError) err = NULL;
  g_assert_null (points_find (points, spec, &err));
  g_assert_nonnull (err);
  g_autofree char *all = g_strdup_printf ("%s (%s)", tmk_error_message (err), tmk_error_hint (err));
  if (strstr (all, part) == NULL || tmk_error_code (err) != code)
    g_error ("%s: %s: %s", spec, tmk_error_code_name (tmk_error_code (err)), all);
  g_assert_nonnull (tmk_error_hint (err));
}

static void
test_find_by_id (void)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (Repo) repo = make_points ();
  g_autoptr (PointSet) points = points_load (repo, NULL, &err);
  case_no_error (err);
  assert_found (points, "aaaa000000000001", '1');
  assert_found (points, "aa", '1');
  assert_found (points, "AAAA", '1');
  assert_found (points, "bbbb000000000003", '3');
  assert_not_found (points, "bb", TMK_ERR_USAGE, "bbbb000000000002, bbbb000000000003");
  assert_not_found (points, "cccc", TMK_ERR_USAGE, "fits 2 points");
  assert_not_found (points, "dd", TMK_ERR_NOT_FOUND, "'dd'");
  assert_not_found (points, "aaaa0000000000011", TMK_ERR_NOT_FOUND, "names no point");
  assert_not_found (points, "a", TMK_ERR_NOT_FOUND, "names no point");
  assert_not_found (points, "", TMK_ERR_NOT_FOUND, "names no point");
  assert_not_found (points, "latest", TMK_ERR_NOT_FOUND, "names no point");
}

static void
test_find_by_time (void)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (Repo) repo = make_points ();
  g_autoptr (PointSet) points = points_load (repo, NULL, &err);
  case_no_error (err);
  assert_found (points, "web/latest", '5');
  assert_found (points, "a/b/latest", '4');
  assert_found (points, "6f2c1b9a-4f6e-4c58-9b0e-2f1d9c7a1e55/latest", '2');
  assert_found (points, "web/2026", '5');
  assert_found (points, "web/2026-11-22T17:08Z", '5');
  assert_found (points, "web/2026-11-22T17:08:00Z", '2');
  assert_found (points, "web/2026-11-22T17:08:40.12Z", '5');
  assert_found (points, "web/2026-11-22T16Z", '1');
  assert_found (points, "web/2026-11-22T18:08:00+01:00", '2');
  assert_found (points, "web/2026-11-22T11:38:00-05:30", '2');
  /* The test's own zone is two hours ahead. */
  assert_found (points, "web/2026-11-22T19:08:00", '2');
  assert_found (points, "web/2026-11-22T18", '1');
  assert_found (points, "a/b/2026-11-22T20", '4');
  assert_not_found (points, "web/2026-11-22T17:08", TMK_ERR_NOT_FOUND, "no point of 'web' is of");
  assert_not_found (points, "web/2025", TMK_ERR_NOT_FOUND, "no point of 'web' is of");
  assert_not_found (points, "web/yesterday", TMK_ERR_USAGE, "'yesterday' is no time");
  assert_not_found (points, "web/", TMK_ERR_USAGE, "is no time");
  assert_not_found (points, "web/2026-11-22T17:08+1:00", TMK_ERR_USAGE, "is no time");
  assert_not_found (points, "a/latest", TMK_ERR_NOT_FOUND, "domain 'a'");
}

/* A point that is damaged in any way is listed as that, and the others as if nothing were. */
static void
test_damaged (void)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (Repo) repo = make_points ();
  ObjStore *store = repo_store (repo);
  size_t size;
  g_autofree unsigned char *other = case_get (store, "points/bbbb000000000002", &size);
  case_flip (store, "points/aaaa000000000001", 100, 3);
  obj_store_put_if_absent (store, "points/dddd000000000006", other, size, &err);
  case_no_error (err);
  static const char later[] = "{\"format\": 2}";
  record_publish (store, "points/eeee000000000007", OBJECT_POINT, CODEC_PLAIN, 0, later,
                  strlen (later), &err);
  case_no_error (err);
  obj_store_put_if_absent (store, "points/no-point", "", 0, &err);
  case_no_error (err);

  g_autoptr (PointSet) points = points_load (repo, "a/b", &err);
  case_no_error (err);
  g_autofree char *ids = ids_of (points);
  g_assert_cmpstr (ids, ==, "34");
  g_assert_cmpint (points->damaged->len, ==, 3);
  g_assert_true (g_str_has_prefix (points->damaged->pdata[0], "aaaa000000000001: "));
  g_assert_nonnull (strstr (points->damaged->pdata[0], "checksum"));
  g_assert_nonnull (strstr (points->damaged->pdata[1], "manifest of point 'bbbb000000000002'"));
  g_assert_nonnull (strstr (points->damaged->pdata[2], "format 2"));
  assert_not_found (points, "aa", TMK_ERR_DAMAGED, "aaaa000000000001: ");
  assert_not_found (points, "eeee000000000007", TMK_ERR_DAMAGED, "format 2");
}

/* A point whose manifest lies on a bad sector hides no other. */
static void
test_bad_sector (void)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (Repo) whole = make_points ();
  ObjStore *store = obj_store_new_faulty (obj_store_share_memory (repo_store (whole)), 0, 0, 0);
  g_autoptr (Repo) repo = repo_open (store, &err);
  case_no_error (err);
  obj_store_faulty_spoil (store, "aaaa000000000001", 0, UINT64_MAX);
  assert_listed (repo, "web", "25");
  g_autoptr (PointSet) points = points_load (repo, NULL, &err);
  case_no_error (err);
  g_assert_cmpint (points->damaged->len, ==, 1);
  assert_found (points, "bbbb000000000002", '2');
  assert_found (points, "web/latest", '5');
  assert_not_found (points, "aa", TMK_ERR_DAMAGED, "aaaa000000000001: ");
}

static void
test_ids (void)
{
  char a[POINT_ID_DIGITS + 1], b[POINT_ID_DIGITS + 1];
  point_id_new (a);
  point_id_new (b);
  g_assert_cmpint (strlen (a), ==, POINT_ID_DIGITS);
  g_assert_cmpint (strspn (a, "0123456789abcdef"), ==, POINT_ID_DIGITS);
  g_assert_cmpstr (a, !=, b);
}

int
main (int argc, char **argv)
{
  g_setenv ("TZ", "TEST-2", TRUE); /* POSIX counts westward */
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/repo/points/list", test_list);
  g_test_add_func ("/repo/points/find-by-id", test_find_by_id);
  g_test_add_func ("/repo/points/find-by-time", test_find_by_time);
  g_test_add_func ("/repo/points/damaged", test_damaged);
  g_test_add_func ("/repo/points/bad-sector", test_bad_sector);
  g_test_add_func ("/repo/points/ids", test_ids);
  return g_test_run ();
}
