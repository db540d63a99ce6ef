/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/reader.c: see qmp/reader.h.
 *
 * Invariants: start <= scan <= buf->len. Bytes before `start` are done with, those from `start` to
 * `scan` belong to an unfinished message (none where depth is 0), those from `scan` on were not
 * looked at. The bracket count only finds where a message ends; whether what lies between is JSON
 * is for jansson to say, which also refuses NUL, bad UTF-8 and duplicate keys. One thread.
 */
#include "qmp/reader.h"

#define DOMAIN "qmp"
#define DEPTH_MAX 1000 /* QEMU's own parser stops at 1024 */
#define EXCERPT 60     /* bytes of the stream shown in a message */

struct QmpReader {
  size_t max;
  GByteArray *buf;
  size_t start, scan;
  unsigned depth; /* of brackets at `scan` */
  bool in_string;
  bool escaped;   /* the byte before `scan` was a backslash in a string */
  TmkError *dead; /* what was wrong with the stream */
};

QmpReader *
qmp_reader_new (size_t max)
{
  QmpReader *reader = g_new0 (QmpReader, 1);
  reader->max = max;
  reader->buf = g_byte_array_new ();
  return reader;
}

void
qmp_reader_free (QmpReader *reader)
{
  if (reader == NULL)
    return;
  g_byte_array_unref (reader->buf);
  tmk_error_free (reader->dead);
  g_free (reader);
}

void
qmp_reader_feed (QmpReader *reader, const void *data, size_t len)
{
  if (reader->dead != NULL)
    return; /* nobody will ask for it */
  /* Move what is left to the front only where that is at most half of what was taken since the last
   * time, so that the total cost stays linear. */
  if (reader->start > 0 && reader->start >= reader->buf->len / 2) {
    g_byte_array_remove_range (reader->buf, 0, (guint) reader->start);
    reader->scan -= reader->start;
    reader->start = 0;
  }
  g_byte_array_append (reader->buf, data, (guint) len);
}

/* The stream from `from` on, made printable: up to the end of its line. Free with g_free(). */
static char *
excerpt (const QmpReader *reader, size_t from)
{
  size_t n = 0;
  const guint8 *p = reader->buf->data + from;
  while (n < EXCERPT && from + n < reader->buf->len && p[n] >= 0x20)
    n++;
  g_autofree char *raw = g_strndup ((const char *) p, n);
  return g_strescape (raw, NULL);
}

static void
give_up (QmpReader *reader, const char *what, size_t from)
{
  g_autofree char *seen = excerpt (reader, from);
  error_set (&reader->dead, DOMAIN, TMK_ERR_INVALID, 0, "%s: '%s'", what, seen);
}

static json_t *
parse (QmpReader *reader)
{
  json_error_t why;
  const char *text = (const char *) reader->buf->data + reader->start;
  json_t *message = json_loadb (text, reader->scan - reader->start, JSON_REJECT_DUPLICATES, &why);
  if (message == NULL) {
    g_autofree char *what = g_strdup_printf ("malformed message (%s)", why.text);
    give_up (reader, what, reader->start);
    return NULL;
  }
  reader->start = reader->scan;
  return message;
}

/* Advances over one byte; true where it ends a message. */
static bool
step (QmpReader *reader, guint8 c)
{
  if (reader->escaped) {
    reader->escaped = false;
  } else if (reader->in_string) {
    reader->escaped = c == '\\';
    reader->in_string = c != '"';
  } else if (c == '"') {
    reader->in_string = true;
  } else if (c == '{' || c == '[') {
    reader->depth++;
  } else if (c == '}' || c == ']') {
    reader->depth--;
  }
  reader->scan++;
  return reader->depth == 0;
}

/* Between messages: skips white space, then looks at the byte that begins the next one. */
static void
step_between (QmpReader *reader, guint8 c)
{
  if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
    reader->start = ++reader->scan;
  } else if (c == '{') {
    reader->start = reader->scan++;
    reader->depth = 1;
  } else {
    give_up (reader, "not a QMP message", reader->scan);
  }
}

json_t *
qmp_reader_next (QmpReader *reader, TmkError **errp)
{
  while (reader->dead == NULL && reader->scan < reader->buf->len) {
    guint8 c = reader->buf->data[reader->scan];
    if (reader->depth == 0) {
      step_between (reader, c);
    } else if (reader->scan - reader->start >= reader->max) {
      g_autofree char *what = g_strdup_printf ("a message of more than %zu bytes", reader->max);
      give_up (reader, what, reader->start);
    } else if (step (reader, c)) {
      json_t *message = parse (reader);
      if (message != NULL)
        return message;
    } else if (reader->depth > DEPTH_MAX) {
      give_up (reader, "a message nested too deep", reader->start);
    }
  }
  if (reader->dead != NULL)
    error_propagate (errp, error_copy (reader->dead));
  return NULL;
}
