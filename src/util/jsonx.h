/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util/jsonx.h: reading JSON from outside without surprises: a member that is missing or of
 * another type reads as its default. Strings are borrowed from the value.
 */
#pragma once

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC (json_t, json_decref)

static inline const char *
jsonx_string (const json_t *object, const char *key)
{
  return json_string_value (json_object_get (object, key));
}

static inline guint64
jsonx_uint (const json_t *object, const char *key)
{
  json_int_t n = json_integer_value (json_object_get (object, key));
  return n > 0 ? (guint64) n : 0;
}

static inline bool
jsonx_bool (const json_t *object, const char *key)
{
  return json_is_true (json_object_get (object, key));
}

/* The first object of `array` whose member `key` is the string `value`; borrowed, or NULL. */
static inline json_t *
jsonx_find (const json_t *array, const char *key, const char *value)
{
  size_t i;
  json_t *object;
  json_array_foreach (array, i, object) {
    if (g_strcmp0 (jsonx_string (object, key), value) == 0)
      return object;
  }
  return NULL;
}

/* A string, or JSON null for NULL or for bytes that are not UTF-8 (a path may be anything). */
static inline json_t *
jsonx_string_or_null (const char *s)
{
  json_t *value = s != NULL ? json_string (s) : NULL;
  return value != NULL ? value : json_null ();
}
