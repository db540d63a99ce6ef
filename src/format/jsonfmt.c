/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format/jsonfmt.c: see format/jsonfmt.h. Pure; any thread. */
#include "format/jsonfmt.h"

#include <string.h>

#define DOMAIN "format"
/* 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z in seconds since the epoch. */
#define FIRST_SECOND (INT64_C (-62135596800))
#define LAST_SECOND (INT64_C (253402300799))

json_t *
jsonfmt_load (const char *json, size_t len, const char *what, TmkError **errp)
{
  json_error_t fault;
  g_autoptr (json_t) document = json_loadb (json, len, JSON_REJECT_DUPLICATES, &fault);
  if (document == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the %s is no JSON: line %d: %s", what, fault.line,
               fault.text);
    return NULL;
  }
  if (!json_is_object (document)) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the %s is no JSON object", what);
    return NULL;
  }
  return g_steal_pointer (&document);
}

char *
jsonfmt_dump (json_t *document)
{
  char *text = json_dumps (document, JSON_INDENT (1));
  g_assert (text != NULL); /* every string was looked at when it was put in */
  char *out = g_strconcat (text, "\n", NULL);
  free (text); /* jansson's, from malloc */
  json_decref (document);
  return out;
}

bool
jsonfmt_check_version (const json_t *document, unsigned version, const char *what, TmkError **errp)
{
  const json_t *value = json_object_get (document, "format");
  if (!json_is_integer (value) || json_integer_value (value) < 1) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the %s does not say which 'format' it has", what);
    return false;
  }
  if (json_integer_value (value) > (json_int_t) version) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "the %s has format %" JSON_INTEGER_FORMAT ", and this version knows those up to %u",
               what, json_integer_value (value), version);
    error_hint (errp, "use a newer version of tidemark");
    return false;
  }
  return true;
}

/* ---- times -------------------------------------------------------------------------------- */

void
jsonfmt_time_to_string (int64_t us, char out[JSONFMT_TIME_SIZE])
{
  int64_t second = us / G_USEC_PER_SEC, rest = us % G_USEC_PER_SEC;
  if (rest < 0) { /* before the epoch */
    second--;
    rest += G_USEC_PER_SEC;
  }
  if (second < FIRST_SECOND || second > LAST_SECOND) {
    rest = second < FIRST_SECOND ? 0 : G_USEC_PER_SEC - 1;
    second = CLAMP (second, FIRST_SECOND, LAST_SECOND);
  }
  g_autoptr (GDateTime) time = g_date_time_new_from_unix_utc (second);
  (void) g_snprintf (out, JSONFMT_TIME_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
                     g_date_time_get_year (time), g_date_time_get_month (time),
                     g_date_time_get_day_of_month (time), g_date_time_get_hour (time),
                     g_date_time_get_minute (time), g_date_time_get_second (time), (int) rest);
}

bool
jsonfmt_time_from_string (const char *s, int64_t *us)
{
  static const char shape[] = "0000-00-00T00:00:00.000000Z";
  if (strlen (s) != strlen (shape))
    return false;
  for (size_t i = 0; shape[i] != '\0'; i++)
    if (shape[i] == '0' ? !g_ascii_isdigit (s[i]) : s[i] != shape[i])
      return false;
  g_autoptr (GDateTime) time = g_date_time_new_utc (atoi (s), atoi (s + 5), atoi (s + 8),
                                                    atoi (s + 11), atoi (s + 14), atoi (s + 17));
  if (time == NULL)
    return false;
  *us = g_date_time_to_unix (time) * G_USEC_PER_SEC + atoi (s + 20);
  return true;
}

/* ---- values ------------------------------------------------------------------------------- */

json_t *
jsonfmt_string (const char *s)
{
  json_t *value = s != NULL ? json_string (s) : json_null ();
  if (value != NULL)
    return value;
  g_autofree char *text = g_base64_encode ((const unsigned char *) s, strlen (s));
  return json_pack ("{s:s}", "base64", text);
}

json_t *
jsonfmt_time (int64_t us)
{
  char text[JSONFMT_TIME_SIZE];
  jsonfmt_time_to_string (us, text);
  return json_string (text);
}

json_t *
jsonfmt_size (uint64_t n)
{
  return json_integer ((json_int_t) MIN (n, (uint64_t) G_MAXINT64));
}

/* ---- members ------------------------------------------------------------------------------ */

static bool
refuse (const char *key, const char *why, TmkError **errp)
{
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s' %s", key, why);
  return false;
}

/* Is it there? False with an error where it is not and must be. */
static bool
look_up (const json_t *object, const char *key, bool must, const json_t **value, TmkError **errp)
{
  *value = json_object_get (object, key);
  if (json_is_null (*value))
    *value = NULL;
  return *value != NULL || !must || refuse (key, "is missing", errp);
}

/* The bytes in a JSON value, or NULL. */
static char *
decode (const json_t *value)
{
  if (json_is_string (value))
    return g_strdup (json_string_value (value));
  const char *text = jsonx_string (value, "base64");
  if (text == NULL)
    return NULL;
  size_t len;
  g_autofree unsigned char *bytes = g_base64_decode (text, &len);
  if (memchr (bytes, '\0', len) != NULL)
    return NULL;
  return g_strndup ((const char *) bytes, len);
}

bool
jsonfmt_get_string (const json_t *object, const char *key, bool must, char **value, TmkError **errp)
{
  const json_t *member;
  if (!look_up (object, key, must, &member, errp))
    return false;
  char *s = member != NULL ? decode (member) : NULL;
  if (member != NULL && s == NULL)
    return refuse (key, "is no string", errp);
  if (must && *s == '\0') {
    g_free (s);
    return refuse (key, "is empty", errp);
  }
  *value = s;
  return true;
}

bool
jsonfmt_get_size (const json_t *object, const char *key, bool must, uint64_t *value,
                  TmkError **errp)
{
  const json_t *member;
  if (!look_up (object, key, must, &member, errp))
    return false;
  if (member != NULL && (!json_is_integer (member) || json_integer_value (member) < 0))
    return refuse (key, "is no size", errp);
  *value = member != NULL ? (uint64_t) json_integer_value (member) : 0;
  return true;
}

bool
jsonfmt_get_time (const json_t *object, const char *key, bool must, int64_t *us, TmkError **errp)
{
  const json_t *member;
  if (!look_up (object, key, must, &member, errp))
    return false;
  int64_t time = 0;
  if (member != NULL
      && (!json_is_string (member)
          || !jsonfmt_time_from_string (json_string_value (member), &time)))
    return refuse (key, "is no time", errp);
  *us = time;
  return true;
}
