/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: messages are found however the bytes are cut, garbage is refused at once and for good,
 * size and depth are bounded, and the cost is linear. */
#include "qmp/reader.h"

#include <string.h>

static void
feed (QmpReader *reader, const char *text)
{
  qmp_reader_feed (reader, text, strlen (text));
}

static void
assert_next (QmpReader *reader, const char *expected)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) message = qmp_reader_next (reader, &err);
  if (err != NULL)
    g_error ("%s", tmk_error_message (err));
  g_assert_nonnull (message);
  char *text = json_dumps (message, JSON_COMPACT | JSON_SORT_KEYS);
  g_assert_cmpstr (text, ==, expected);
  free (text);
}

static void
assert_more (QmpReader *reader)
{
  g_autoptr (TmkError) err = NULL;
  g_assert_null (qmp_reader_next (reader, &err));
  g_assert_null (err);
}

static void
assert_refused (const char *data, size_t len, const char *part)
{
  g_autoptr (QmpReader) reader = qmp_reader_new (QMP_MESSAGE_MAX);
  qmp_reader_feed (reader, data, len);
  for (int i = 0; i < 2; i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_null (qmp_reader_next (reader, &err));
    g_assert_nonnull (err);
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
    if (strstr (tmk_error_message (err), part) == NULL)
      g_error ("'%s' does not hold '%s'", tmk_error_message (err), part);
    feed (reader, "{\"return\": {}}\r\n"); /* too late */
  }
}

#define REFUSED(text, part) assert_refused (text, sizeof (text) - 1, part)

static void
test_messages (void)
{
  g_autoptr (QmpReader) reader = qmp_reader_new (QMP_MESSAGE_MAX);
  assert_more (reader);
  feed (reader, "{\"return\": {}}\r\n{\"event\": \"STOP\"}\r\n{\"re");
  assert_next (reader, "{\"return\":{}}");
  assert_next (reader, "{\"event\":\"STOP\"}");
  assert_more (reader);
  feed (reader, "turn\": [1, {\"a\": \"}]\\\"{\"}]}");
  assert_next (reader, "{\"return\":[1,{\"a\":\"}]\\\"{\"}]}");
  assert_more (reader);
  feed (reader, "\r\n  \t\n");
  assert_more (reader);
}

/* A monitor made with pretty=on. */
static void
test_pretty (void)
{
  g_autoptr (QmpReader) reader = qmp_reader_new (QMP_MESSAGE_MAX);
  feed (reader, "{\r\n    \"return\": {\r\n        \"a\": [\r\n        ]\r\n    }\r\n}\r\n");
  assert_next (reader, "{\"return\":{\"a\":[]}}");
  assert_more (reader);
}

static void
test_byte_by_byte (void)
{
  const char *text = "{\"a\": \"\\\\\"}\r\n{\"b\": \"\\u00e9\\\"\", \"c\": [[], {}]}\r\n";
  g_autoptr (QmpReader) reader = qmp_reader_new (QMP_MESSAGE_MAX);
  int found = 0;
  for (const char *p = text; *p != '\0'; p++) {
    qmp_reader_feed (reader, p, 1);
    g_autoptr (json_t) message = qmp_reader_next (reader, NULL);
    found += message != NULL;
  }
  g_assert_cmpint (found, ==, 2);
}

static void
test_garbage (void)
{
  REFUSED ("SSH-2.0-OpenSSH_9.2\r\n", "'SSH-2.0-OpenSSH_9.2'");
  REFUSED ("QEMU 7.2.22 monitor - type 'help' for more information\r\n", "monitor");
  REFUSED ("NBDMAGICIHAVEOPT", "not a QMP message");
  REFUSED ("\0\0\0\0", "not a QMP message");
  REFUSED ("[1]", "not a QMP message");
  REFUSED ("}", "not a QMP message");
  REFUSED ("{]", "malformed");
  REFUSED ("{\"a\": 1, \"a\": 2}", "malformed");
  REFUSED ("{\"a\": \"x\0y\"}", "malformed");
  REFUSED ("{\"a\": \"\\u0000\"}", "malformed");
  REFUSED ("{\"a\": \"\xff\"}", "malformed");
  REFUSED ("{\"a\": 99999999999999999999999}", "malformed");
}

static void
test_deep (void)
{
  g_autoptr (GString) text = g_string_new ("{\"a\": ");
  for (int i = 0; i < 100000; i++)
    g_string_append_c (text, '[');
  assert_refused (text->str, text->len, "nested too deep");
}

static void
test_oversized (void)
{
  g_autoptr (QmpReader) reader = qmp_reader_new (100);
  g_autofree char *fits = g_strdup_printf ("{\"a\":\"%*s\"}", 100 - 8, "");
  g_assert_cmpuint (strlen (fits), ==, 100);
  feed (reader, fits);
  g_autoptr (json_t) message = qmp_reader_next (reader, NULL);
  g_assert_nonnull (message);

  g_autofree char *big = g_strdup_printf ("{\"a\":\"%*s\"}", 100 - 7, "");
  feed (reader, big);
  g_autoptr (TmkError) err = NULL;
  g_assert_null (qmp_reader_next (reader, &err));
  g_assert_nonnull (strstr (tmk_error_message (err), "more than 100 bytes"));
}

/* 8 MiB in pieces of 16 bytes would take minutes if each piece looked at all before it. */
static void
test_linear (void)
{
  g_autoptr (QmpReader) reader = qmp_reader_new (QMP_MESSAGE_MAX);
  feed (reader, "{\"a\": \"");
  gint64 begin = g_get_monotonic_time ();
  for (int i = 0; i < 1 << 19; i++) {
    qmp_reader_feed (reader, "0123456789abcdef", 16);
    assert_more (reader);
  }
  feed (reader, "\"}");
  g_autoptr (json_t) message = qmp_reader_next (reader, NULL);
  g_assert_cmpuint (json_string_length (json_object_get (message, "a")), ==, 8 << 20);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, 20 * G_USEC_PER_SEC);

  /* And many messages in one piece, which are not moved to the front one by one. */
  g_autoptr (GString) many = g_string_new (NULL);
  for (int i = 0; i < 200000; i++)
    g_string_append (many, "{\"event\": \"STOP\"}\r\n");
  feed (reader, many->str);
  int found = 0;
  json_t *event;
  while ((event = qmp_reader_next (reader, NULL)) != NULL) {
    found++;
    json_decref (event);
  }
  g_assert_cmpint (found, ==, 200000);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/qmp-reader/messages", test_messages);
  g_test_add_func ("/qmp-reader/pretty", test_pretty);
  g_test_add_func ("/qmp-reader/byte-by-byte", test_byte_by_byte);
  g_test_add_func ("/qmp-reader/garbage", test_garbage);
  g_test_add_func ("/qmp-reader/deep", test_deep);
  g_test_add_func ("/qmp-reader/oversized", test_oversized);
  g_test_add_func ("/qmp-reader/linear", test_linear);
  return g_test_run ();
}
