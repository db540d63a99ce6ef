/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format/jsonfmt.h: what the JSON documents of a repository have in common (source:
 * docs/format/repository.rst): times, strings that may be any bytes, and reading members that must
 * be there. Members that are not known are ignored. Pure.
 */
#pragma once

#include "util/error.h"
#include "util/jsonx.h"
#include <stdint.h>

/* Reads a document: one object, without duplicate keys. TMK_ERR_DAMAGED. */
json_t *jsonfmt_load (const char *json, size_t len, const char *what, TmkError **errp);
/* As it is stored: ending in a newline. Takes `document`. Free with g_free(). */
char *jsonfmt_dump (json_t *document);

/* "format" must be `version` at most: TMK_ERR_UNSUPPORTED with a hint. */
bool jsonfmt_check_version (const json_t *document, unsigned version, const char *what,
                            TmkError **errp);

/* RFC 3339 in UTC with microseconds, "2026-11-22T17:08:11.123456Z"; beyond the years 1 to 9999 the
 * nearest that can be written. */
#define JSONFMT_TIME_SIZE 28
void jsonfmt_time_to_string (int64_t us, char out[JSONFMT_TIME_SIZE]);
bool jsonfmt_time_from_string (const char *s, int64_t *us);

/* A string; {"base64": …} where it is not UTF-8; null for NULL. */
json_t *jsonfmt_string (const char *s);
json_t *jsonfmt_time (int64_t us);
json_t *jsonfmt_size (uint64_t n); /* at most 2^63-1 */

/* Readers of members. TMK_ERR_DAMAGED where one is of another type or beyond its bounds, or is
 * missing and `must`. What is missing or null reads as NULL and 0. */
bool jsonfmt_get_string (const json_t *object, const char *key, bool must, char **value,
                         TmkError **errp);
bool jsonfmt_get_size (const json_t *object, const char *key, bool must, uint64_t *value,
                       TmkError **errp);
bool jsonfmt_get_time (const json_t *object, const char *key, bool must, int64_t *us,
                       TmkError **errp);
