/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/points.c: see repo/points.h. A set belongs to one thread. */
#include "repo/points.h"

#include "repo/damage.h"
#include "repo/record.h"

#include "util/bytes.h"

#include <sys/random.h>

#define DOMAIN "repo"
#define FOLDER "points"
#define PREFIX_MIN 2
#define SHOWN_MAX 8 /* ids in a hint */

/* ---- loading ------------------------------------------------------------------------------ */

static bool
is_point_id (const char *text)
{
  unsigned char bytes[POINT_ID_DIGITS / 2];
  return bytes_from_hex (text, bytes, sizeof bytes);
}

static bool
visit_name (const ObjInfo *info, void *data)
{
  const char *slash = strrchr (info->name, '/');
  if (slash != NULL && is_point_id (slash + 1))
    g_ptr_array_add (data, g_strdup (slash + 1));
  return true;
}

static Manifest *
load_manifest (Repo *repo, const char *id, TmkError **errp)
{
  g_autofree char *name = g_strconcat (FOLDER, "/", id, NULL);
  size_t size;
  g_autofree unsigned char *json = record_load (repo_store (repo), name, OBJECT_POINT, &size, errp);
  if (json == NULL)
    return NULL;
  g_autoptr (Manifest) manifest = manifest_parse ((const char *) json, size, errp);
  if (manifest == NULL)
    return NULL;
  if (!g_str_equal (manifest->id, id)) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "it is the manifest of point '%s'", manifest->id);
    return NULL;
  }
  return g_steal_pointer (&manifest);
}

static bool
is_of_domain (const Manifest *manifest, const char *domain)
{
  return domain == NULL || g_str_equal (manifest->domain, domain)
         || (manifest->uuid != NULL && g_ascii_strcasecmp (manifest->uuid, domain) == 0);
}

/* One that cannot be read is told; one that vanished meanwhile was removed. */
static bool
load_one (Repo *repo, const char *id, const char *domain, PointSet *points, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (Manifest) manifest = load_manifest (repo, id, &err);
  if (manifest != NULL) {
    if (is_of_domain (manifest, domain))
      g_ptr_array_add (points->manifests, g_steal_pointer (&manifest));
    return true;
  }
  if (tmk_error_code (err) == TMK_ERR_NOT_FOUND)
    return true;
  if (!is_damage (err) && tmk_error_code (err) != TMK_ERR_UNSUPPORTED) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  g_ptr_array_add (points->damaged, g_strdup_printf ("%s: %s", id, tmk_error_message (err)));
  return true;
}

static int
compare_manifests (const void *a, const void *b)
{
  const Manifest *one = *(Manifest *const *) a, *two = *(Manifest *const *) b;
  if (one->time_us != two->time_us)
    return one->time_us < two->time_us ? -1 : 1;
  return strcmp (one->id, two->id);
}

static int
compare_names (const void *a, const void *b)
{
  return strcmp (*(char *const *) a, *(char *const *) b);
}

PointSet *
points_load (Repo *repo, const char *domain, TmkError **errp)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  if (!obj_store_list (repo_store (repo), FOLDER, visit_name, names, errp))
    return NULL;
  g_ptr_array_sort (names, compare_names);
  g_autoptr (PointSet) points = g_new0 (PointSet, 1);
  points->manifests = g_ptr_array_new_with_free_func ((GDestroyNotify) manifest_free);
  points->damaged = g_ptr_array_new_with_free_func (g_free);
  for (guint i = 0; i < names->len; i++)
    if (!load_one (repo, names->pdata[i], domain, points, errp))
      return NULL;
  g_ptr_array_sort (points->manifests, compare_manifests);
  return g_steal_pointer (&points);
}

void
points_free (PointSet *points)
{
  if (points == NULL)
    return;
  g_ptr_array_unref (points->manifests);
  g_ptr_array_unref (points->damaged);
  g_free (points);
}

/* ---- by time ------------------------------------------------------------------------------ */

/* Splits "2026-11-22T17:08+01:00" into what the time begins with, which is cut off in place, and
 * the zone in which it is meant: the local one where none is said. NULL: that is no zone. */
static GTimeZone *
split_zone (char *when)
{
  size_t len = strlen (when);
  if (g_str_has_suffix (when, "Z")) {
    when[len - 1] = '\0';
    return g_time_zone_new_utc ();
  }
  const char *clock = strchr (when, 'T'); /* a '-' before it belongs to the date */
  char *offset = len > 6 ? when + len - 6 : NULL;
  if (clock == NULL || offset == NULL || offset < clock || (*offset != '+' && *offset != '-'))
    return g_time_zone_new_local ();
  GTimeZone *zone = g_time_zone_new_identifier (offset);
  *offset = '\0';
  return zone;
}

/* "2026-11-22T17:08:08.123456" */
static char *
time_in_zone (int64_t us, GTimeZone *zone)
{
  g_autoptr (GDateTime) utc = g_date_time_new_from_unix_utc (us / G_USEC_PER_SEC);
  g_autoptr (GDateTime) time = utc != NULL ? g_date_time_to_timezone (utc, zone) : NULL;
  if (time == NULL)
    return g_strdup ("");
  g_autofree char *seconds = g_date_time_format (time, "%Y-%m-%dT%H:%M:%S");
  return g_strdup_printf ("%s.%06d", seconds, (int) (us % G_USEC_PER_SEC));
}

static bool
looks_like_time (const char *when)
{
  return strlen (when) >= 4 && strspn (when, "0123456789-T:.") == strlen (when);
}

static const Manifest *
find_by_time (const PointSet *points, const char *spec, const char *domain, const char *when,
              TmkError **errp)
{
  bool latest = g_str_equal (when, "latest");
  g_autofree char *prefix = g_strdup (when);
  g_autoptr (GTimeZone) zone = split_zone (prefix);
  if (!latest && (zone == NULL || !looks_like_time (prefix))) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "'%s': '%s' is no time", spec, when);
    error_hint (errp, "write 'latest', or how the time begins: 2026-11-22T17:08");
    return NULL;
  }
  bool known = false;
  for (guint i = points->manifests->len; i-- > 0;) {
    const Manifest *manifest = points->manifests->pdata[i];
    if (!is_of_domain (manifest, domain))
      continue;
    known = true;
    g_autofree char *time = time_in_zone (manifest->time_us, zone);
    if (latest || g_str_has_prefix (time, prefix))
      return manifest;
  }
  if (known)
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "no point of '%s' is of %s", domain, when);
  else
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "no point is of a domain '%s'", domain);
  error_hint (errp, "'tidemark list' shows all points");
  return NULL;
}

/* ---- by id -------------------------------------------------------------------------------- */

static void
set_ambiguous (const char *spec, const GPtrArray *fits, TmkError **errp)
{
  g_autoptr (GString) ids = g_string_new (NULL);
  for (guint i = 0; i < MIN (fits->len, SHOWN_MAX); i++)
    g_string_append_printf (ids, "%s%.*s", i > 0 ? ", " : "", POINT_ID_DIGITS,
                            (const char *) fits->pdata[i]);
  error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "'%s' fits %u points", spec, fits->len);
  error_hint (errp, "name one of %s%s", ids->str, fits->len > SHOWN_MAX ? ", …" : "");
}

static const Manifest *
find_by_id (const PointSet *points, const char *spec, TmkError **errp)
{
  g_autofree char *prefix = g_ascii_strdown (spec, -1);
  g_autoptr (GPtrArray) fits = g_ptr_array_new (); /* ids, or "ID: why" */
  const Manifest *found = NULL;
  for (guint i = 0; i < points->manifests->len; i++) {
    Manifest *manifest = points->manifests->pdata[i];
    if (!g_str_has_prefix (manifest->id, prefix))
      continue;
    found = manifest;
    g_ptr_array_add (fits, manifest->id);
  }
  for (guint i = 0; i < points->damaged->len; i++)
    if (strncmp (points->damaged->pdata[i], prefix, strlen (prefix)) == 0)
      g_ptr_array_add (fits, points->damaged->pdata[i]);
  if (fits->len == 1 && found != NULL)
    return found;
  if (fits->len == 1) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "point %s", (const char *) fits->pdata[0]);
    error_hint (errp, "another point may still be whole: see 'tidemark list'");
  } else if (fits->len > 1) {
    set_ambiguous (spec, fits, errp);
  } else {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no point '%s'", spec);
    error_hint (errp, "'tidemark list' shows all points");
  }
  return NULL;
}

const Manifest *
points_find (const PointSet *points, const char *spec, TmkError **errp)
{
  const char *slash = strrchr (spec, '/');
  if (slash != NULL) {
    g_autofree char *domain = g_strndup (spec, (size_t) (slash - spec));
    return find_by_time (points, spec, domain, slash + 1, errp);
  }
  size_t len = strlen (spec);
  if (len < PREFIX_MIN || len > POINT_ID_DIGITS || strspn (spec, "0123456789abcdefABCDEF") != len) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "'%s' names no point", spec);
    error_hint (errp,
                "give at least two digits of an id, DOMAIN/latest or DOMAIN/2026-11-22T17:08");
    return NULL;
  }
  return find_by_id (points, spec, errp);
}

void
point_id_new (char id[POINT_ID_DIGITS + 1])
{
  unsigned char bytes[POINT_ID_DIGITS / 2];
  if (getentropy (bytes, sizeof bytes) != 0) /* kernels before 3.17; GLib's has a seed as good */
    for (size_t i = 0; i < sizeof bytes; i++)
      bytes[i] = (unsigned char) g_random_int ();
  bytes_to_hex (bytes, sizeof bytes, id);
}
