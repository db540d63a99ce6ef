/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-qmp.c: the QMP reader, fed with anything in pieces of any size (libFuzzer).
 *
 * The first byte of the input seeds the sizes of the pieces, the rest is the stream. Beyond not
 * crashing: the pieces make no difference, that is, the stream in one piece gives as many messages
 * and ends as well or as badly; a refusal is for good; what is returned is an object.
 */
#include "qmp/reader.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

#define LIMIT 4096 /* small, so that the limit is met */

/* Counts the messages; -1 - count where the stream was refused in the end. */
static int
drain (QmpReader *reader)
{
  g_autoptr (TmkError) err = NULL;
  int count = 0;
  json_t *message;
  while ((message = qmp_reader_next (reader, &err)) != NULL) {
    g_assert (json_is_object (message));
    json_decref (message);
    count++;
  }
  return err != NULL ? -1 - count : count;
}

static int
read_in_pieces (const uint8_t *data, size_t size, uint32_t seed)
{
  g_autoptr (QmpReader) reader = qmp_reader_new (LIMIT);
  int count = 0;
  while (size > 0) {
    seed = seed * 1664525 + 1013904223;
    size_t len = MIN (size, 1 + (seed >> 24) % 40);
    qmp_reader_feed (reader, data, len);
    int n = drain (reader);
    if (n < 0) {
      g_assert (drain (reader) == -1);
      return -1 - (count - (n + 1));
    }
    count += n;
    data += len;
    size -= len;
  }
  return count;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  if (size == 0)
    return 0;
  int pieces = read_in_pieces (data + 1, size - 1, data[0]);
  g_autoptr (QmpReader) reader = qmp_reader_new (LIMIT);
  qmp_reader_feed (reader, data + 1, size - 1);
  g_assert (drain (reader) == pieces);
  return 0;
}
