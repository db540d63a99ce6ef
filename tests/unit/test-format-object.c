/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: records, nodes, deltas and the parts of packs are written byte by byte as the goldens
 * have them and read back alike; every field that is wrong is refused by its own name; a bit that
 * flipped anywhere in a record, a table or a trailer is noticed. */
#include "format-case.h"

#include "format/node.h"
#include "format/pack.h"

#include <xxhash.h>

static const ObjectKind kinds[] = { OBJECT_CHUNK,  OBJECT_NODE,  OBJECT_DELTA, OBJECT_BLOB,
                                    OBJECT_CONFIG, OBJECT_POINT, OBJECT_LEASE, OBJECT_DAMAGE };

/* ---- records ------------------------------------------------------------------------------ */

static void
test_record_goldens (void)
{
  for (size_t i = 0; i < G_N_ELEMENTS (kinds); i++) {
    static const char plain[] = "the plain bytes of an object of any kind";
    ObjectId id = case_id (0x1000 + i);
    g_autofree unsigned char *record = case_record (kinds[i], &id, plain, sizeof plain);
    g_autofree char *name = g_strdup_printf ("record-%s.bin", object_kind_name (kinds[i]));
    case_expect (name, record, RECORD_HEADER_SIZE + sizeof plain);

    size_t size;
    g_autofree unsigned char *golden = case_read (name, &size);
    RecordHeader header;
    TmkError *err = NULL;
    assert_ok (record_parse (golden, size, &header, &err), &err);
    g_assert_cmpint (header.kind, ==, kinds[i]);
    g_assert_cmpint (header.codec, ==, CODEC_PLAIN);
    g_assert_cmpint (header.stored, ==, sizeof plain);
    g_assert_cmpint (header.plain, ==, sizeof plain);
    g_assert_true (object_id_equal (&header.id, &id));
    g_assert_cmpmem (golden + RECORD_HEADER_SIZE, header.stored, plain, sizeof plain);
  }
}

static void
test_record_flips (void)
{
  size_t size;
  g_autofree unsigned char *record = case_read ("record-chunk.bin", &size);
  for (size_t bit = 0; bit < size * 8; bit++) {
    RecordHeader header = { .stored = 77 };
    TmkError *err = NULL;
    record[bit / 8] ^= 1u << bit % 8;
    assert_refused (record_parse (record, size, &header, &err), &err, TMK_ERR_DAMAGED, "record");
    g_assert_cmpint (header.stored, ==, 77);
    record[bit / 8] ^= 1u << bit % 8;
  }
  for (size_t cut = 0; cut < size; cut++) {
    RecordHeader header;
    TmkError *err = NULL;
    g_autofree unsigned char *part = g_memdup2 (record, cut); /* so that ASan sees overruns */
    assert_refused (record_parse (part, cut, &header, &err), &err, TMK_ERR_DAMAGED, "record");
  }
}

/* A field changed and the checksum made to match: the field itself is refused. */
static void
test_record_fields (void)
{
  static const struct {
    size_t at, width;
    uint32_t value;
    const char *part;
  } cases[] = {
    { 8, 4, 0x12345678, "magic" },
    { 12, 1, 0, "kind is unknown (0)" },
    { 12, 1, 5, "kind is unknown (5)" },
    { 12, 1, 20, "kind is unknown (20)" },
    { 13, 1, 2, "codec is unknown (2)" },
    { 14, 1, 1, "seal is unknown (1)" },
    { 15, 1, 1, "reserved byte" },
    { 16, 4, 40, "payload is plain, yet" },
    { 16, 4, 42, "longer than what it holds" },
    { 16, 4, 0xffffffff, "longer than what it holds" },
    { 20, 4, OBJECT_MAX_PLAIN + 1, "too large" },
    { 20, 4, 0xffffffff, "too large" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    size_t size;
    g_autofree unsigned char *record = case_read ("record-chunk.bin", &size);
    g_assert_cmpint (size, ==, RECORD_HEADER_SIZE + 41);
    if (cases[i].width == 4)
      put_le32 (record + cases[i].at, cases[i].value);
    else
      record[cases[i].at] = (unsigned char) cases[i].value;
    put_le64 (record, XXH3_64bits (record + 8, size - 8));
    RecordHeader header;
    TmkError *err = NULL;
    assert_refused (record_parse (record, size, &header, &err), &err, TMK_ERR_DAMAGED,
                    cases[i].part);
    err = NULL;
    assert_refused (record_parse_header (record, size, &header, &err), &err, TMK_ERR_DAMAGED,
                    cases[i].part);
  }
  size_t size;
  g_autofree unsigned char *record = case_read ("record-chunk.bin", &size);
  RecordHeader header;
  TmkError *err = NULL;
  record[13] = CODEC_ZSTD;
  assert_ok (record_parse_header (record, RECORD_HEADER_SIZE, &header, &err), &err);
  put_le32 (record + 16, 0);
  assert_refused (record_parse_header (record, size, &header, &err), &err, TMK_ERR_DAMAGED,
                  "empty");
}

static void
test_hex (void)
{
  ObjectId id = case_id (0x0123456789abcdef), back;
  char hex[2 * OBJECT_ID_SIZE + 1];
  object_id_to_hex (&id, hex);
  g_assert_cmpint (strlen (hex), ==, 64);
  g_assert_true (g_str_has_prefix (hex, "0123456789abcdef"));
  g_assert_true (object_id_from_hex (hex, &back));
  g_assert_true (object_id_equal (&id, &back));
  hex[1] = 'A'; /* a name has one spelling */
  g_assert_false (object_id_from_hex (hex, &back));
  g_assert_false (object_id_from_hex ("", &back));
  hex[1] = '1';
  hex[63] = '\0';
  g_assert_false (object_id_from_hex (hex, &back));
  g_autofree char *longer = g_strconcat (hex, "00", NULL);
  g_assert_false (object_id_from_hex (longer, &back));

  PackName name = { { 0xab, 0xcd } }, name_back;
  char name_hex[2 * PACK_NAME_SIZE + 1];
  pack_name_to_hex (&name, name_hex);
  g_assert_true (g_str_has_prefix (name_hex, "abcd0000"));
  g_assert_true (pack_name_from_hex (name_hex, &name_back));
  g_assert_cmpmem (&name, sizeof name, &name_back, sizeof name_back);
}

/* ---- nodes -------------------------------------------------------------------------------- */

static void
test_node_goldens (void)
{
  g_autofree Node *node = g_new0 (Node, 1), *back = g_new0 (Node, 1);
  unsigned char out[NODE_MAX_SIZE];
  TmkError *err = NULL;
  static const unsigned slots[] = { 0, 1, 7, 8, 100, 255 };
  node->level = 2;
  for (size_t i = 0; i < G_N_ELEMENTS (slots); i++)
    node->ids[slots[i]] = case_id (slots[i] + 1);
  size_t size = node_format (node, out);
  g_assert_cmpint (size, ==, 40 + 6 * 32);
  case_expect ("node.bin", out, size);
  g_autofree unsigned char *golden = case_read ("node.bin", &size);
  assert_ok (node_parse (golden, size, back, &err), &err);
  g_assert_cmpmem (node, sizeof *node, back, sizeof *back);

  for (unsigned slot = 0; slot < NODE_FANOUT; slot++)
    node->ids[slot] = case_id (slot + 1);
  size = node_format (node, out);
  g_assert_cmpint (size, ==, NODE_MAX_SIZE);
  assert_ok (node_parse (out, size, back, &err), &err);
  g_assert_cmpmem (node, sizeof *node, back, sizeof *back);
}

static void
test_delta_goldens (void)
{
  g_autofree NodeDelta *delta = g_new0 (NodeDelta, 1), *back = g_new0 (NodeDelta, 1);
  unsigned char out[NODE_MAX_SIZE];
  TmkError *err = NULL;
  delta->level = 1;
  delta->n = 3;
  delta->base = case_id (99);
  static const unsigned char slots[] = { 2, 3, 255 };
  memcpy (delta->slots, slots, sizeof slots);
  delta->ids[0] = case_id (2);
  delta->ids[2] = case_id (255); /* slot 3 is emptied */
  size_t size = node_delta_format (delta, out);
  g_assert_cmpint (size, ==, 40 + 3 * 33);
  case_expect ("delta.bin", out, size);
  g_autofree unsigned char *golden = case_read ("delta.bin", &size);
  assert_ok (node_delta_parse (golden, size, back, &err), &err);
  g_assert_cmpmem (delta, sizeof *delta, back, sizeof *back);

  delta->n = DELTA_MAX_SLOTS;
  for (unsigned i = 0; i < DELTA_MAX_SLOTS; i++) {
    delta->slots[i] = (unsigned char) (i * 2 + 1);
    delta->ids[i] = case_id (i);
  }
  size = node_delta_format (delta, out);
  assert_ok (node_delta_parse (out, size, back, &err), &err);
  g_assert_cmpmem (delta, sizeof *delta, back, sizeof *back);
}

static void
test_node_faults (void)
{
  static const struct {
    const char *golden;
    size_t at;
    unsigned char value;
    const char *part;
  } cases[] = {
    { "node.bin", 0, NODE_MAX_LEVEL + 1, "level" },
    { "node.bin", 1, 1, "reserved" },
    { "node.bin", 7, 1, "reserved" },
    { "node.bin", 2, 0, "number of ids (0)" },
    { "node.bin", 3, 2, "number of ids (518)" },
    { "node.bin", 2, 7, "node of 7 ids has 232 bytes" },
    { "node.bin", 8, 1, "its bit map" },
    { "delta.bin", 0, 255, "level" },
    { "delta.bin", 1, 1, "reserved" },
    { "delta.bin", 4, 1, "reserved" },
    { "delta.bin", 2, 0, "number of ids (0)" },
    { "delta.bin", 2, DELTA_MAX_SLOTS + 1, "number of ids (129)" },
    { "delta.bin", 2, 2, "node of 2 ids has 139 bytes" },
    { "delta.bin", 40, 3, "not in order" },
    { "delta.bin", 41, 255, "not in order" },
  };
  g_autofree Node *node = g_new0 (Node, 1);
  g_autofree NodeDelta *delta = g_new0 (NodeDelta, 1);
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    size_t size;
    g_autofree unsigned char *data = case_read (cases[i].golden, &size);
    data[cases[i].at] = cases[i].value;
    TmkError *err = NULL;
    bool ok = cases[i].golden[0] == 'n' ? node_parse (data, size, node, &err)
                                        : node_delta_parse (data, size, delta, &err);
    assert_refused (ok, &err, TMK_ERR_DAMAGED, cases[i].part);
  }
  for (size_t cut = 0; cut < 40 + 6 * 32; cut++) {
    size_t size;
    g_autofree unsigned char *data = case_read ("node.bin", &size);
    g_autofree unsigned char *part = g_memdup2 (data, cut);
    TmkError *err = NULL;
    assert_refused (node_parse (part, cut, node, &err), &err, TMK_ERR_DAMAGED, "node");
  }
}

static void
test_node_zero_ids (void)
{
  size_t size;
  g_autofree Node *node = g_new0 (Node, 1);
  g_autofree NodeDelta *delta = g_new0 (NodeDelta, 1);
  g_autofree unsigned char *full = case_read ("node.bin", &size);
  memset (full + 40 + 32, 0, 32);
  TmkError *err = NULL;
  assert_refused (node_parse (full, size, node, &err), &err, TMK_ERR_DAMAGED, "zero id in slot 1");
  err = NULL;
  g_autofree unsigned char *changed = case_read ("delta.bin", &size);
  memset (changed + 8, 0, 32);
  assert_refused (node_delta_parse (changed, size, delta, &err), &err, TMK_ERR_DAMAGED,
                  "no node that it differs from");
}

/* ---- packs -------------------------------------------------------------------------------- */

#define PACK_RECORDS 3
static const RepoId repo = { "a repository's." };

/* Header, a record of each of three kinds, table, trailer. */
static unsigned char *
make_pack (size_t *size)
{
  static const char plain[] = "some bytes of a disk";
  GByteArray *pack = g_byte_array_new (), *table = g_byte_array_new ();
  unsigned char header[PACK_HEADER_SIZE], trailer[PACK_TRAILER_SIZE], entry[PACK_ENTRY_SIZE];
  pack_header_format (&repo, header);
  g_byte_array_append (pack, header, sizeof header);
  for (unsigned i = 0; i < PACK_RECORDS; i++) {
    ObjectId id = case_id (i + 1);
    g_autofree unsigned char *record = case_record (kinds[i], &id, plain, sizeof plain - i);
    PackEntry e = { id, pack->len, RECORD_HEADER_SIZE + sizeof plain - i, kinds[i], CODEC_PLAIN };
    g_byte_array_append (pack, record, e.length);
    pack_entry_format (&e, entry);
    g_byte_array_append (table, entry, sizeof entry);
  }
  PackTrailer t = { .table = pack->len,
                    .entries = PACK_RECORDS,
                    .table_checksum = pack_table_checksum (table->data, table->len),
                    .size = pack->len + table->len + sizeof trailer,
                    .repo = repo };
  pack_trailer_format (&t, trailer);
  g_byte_array_append (pack, table->data, table->len);
  g_byte_array_append (pack, trailer, sizeof trailer);
  g_byte_array_free (table, TRUE);
  *size = pack->len;
  return g_byte_array_free (pack, FALSE);
}

static void
test_pack_golden (void)
{
  size_t size;
  g_autofree unsigned char *pack = make_pack (&size);
  case_expect ("pack.bin", pack, size);
  g_autofree unsigned char *golden = case_read ("pack.bin", &size);
  RepoId id;
  PackTrailer trailer;
  TmkError *err = NULL;
  assert_ok (pack_header_parse (golden, &id, &err), &err);
  g_assert_cmpmem (&id, sizeof id, &repo, sizeof repo);
  assert_ok (pack_trailer_parse (golden + size - PACK_TRAILER_SIZE, size, &trailer, &err), &err);
  g_assert_cmpint (trailer.entries, ==, PACK_RECORDS);
  g_assert_cmpint (trailer.size, ==, size);
  g_assert_cmpmem (&trailer.repo, sizeof trailer.repo, &repo, sizeof repo);
  const unsigned char *table = golden + trailer.table;
  g_assert_cmpuint (pack_table_checksum (table, PACK_RECORDS * PACK_ENTRY_SIZE), ==,
                    trailer.table_checksum);
  for (unsigned i = 0; i < PACK_RECORDS; i++) {
    PackEntry entry;
    RecordHeader header;
    assert_ok (pack_entry_parse (table + i * PACK_ENTRY_SIZE, trailer.table, &entry, &err), &err);
    assert_ok (record_parse (golden + entry.offset, entry.length, &header, &err), &err);
    g_assert_true (object_id_equal (&entry.id, &header.id));
    g_assert_cmpint (entry.kind, ==, kinds[i]);
  }
}

static void
test_pack_headers (void)
{
  static const struct {
    size_t at;
    const char *part;
  } cases[] = { { 0, "does not begin as one" }, { 8, "unknown version" }, { 12, "reserved" } };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    unsigned char header[PACK_HEADER_SIZE];
    RepoId id;
    TmkError *err = NULL;
    pack_header_format (&repo, header);
    header[cases[i].at] ^= 0x80;
    assert_refused (pack_header_parse (header, &id, &err), &err, TMK_ERR_DAMAGED, cases[i].part);
  }
}

static void
test_pack_entries (void)
{
  const PackEntry good = { case_id (1), 1000, 500, OBJECT_NODE, CODEC_ZSTD };
  static const struct {
    size_t at;
    unsigned width;
    uint64_t value;
    const char *part;
  } cases[] = {
    { 0, 32, 0, "zero id" },
    { 32, 8, 31, "at 31 that is not among" },
    { 32, 8, 1501, "at 1501 that is not among" },
    { 32, 8, UINT64_MAX, "that is not among" },
    { 32, 8, UINT64_MAX - 100, "that is not among" },
    { 40, 4, 55, "wrong length (55)" },
    { 40, 4, RECORD_MAX_SIZE + 1, "wrong length" },
    { 44, 1, 16, "unknown kind (16)" },
    { 44, 1, 0, "unknown kind (0)" },
    { 45, 1, 9, "unknown codec (9)" },
    { 46, 1, 1, "reserved" },
  };
  unsigned char at[PACK_ENTRY_SIZE];
  PackEntry back;
  TmkError *err = NULL;
  pack_entry_format (&good, at);
  assert_ok (pack_entry_parse (at, 1500, &back, &err), &err);
  g_assert_cmpint (back.offset, ==, 1000);
  g_assert_cmpint (back.length, ==, 500);
  g_assert_cmpint (back.codec, ==, CODEC_ZSTD);
  assert_refused (pack_entry_parse (at, 1499, &back, &err), &err, TMK_ERR_DAMAGED, "not among");
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    unsigned char value[32] = { 0 };
    put_le64 (value, cases[i].value);
    pack_entry_format (&good, at);
    memcpy (at + cases[i].at, value, cases[i].width);
    err = NULL;
    assert_refused (pack_entry_parse (at, 1500, &back, &err), &err, TMK_ERR_DAMAGED, cases[i].part);
  }
}

static void
test_pack_trailers (void)
{
  const uint64_t size = 32 + 1000 + 2 * PACK_ENTRY_SIZE + PACK_TRAILER_SIZE;
  const PackTrailer good = { .table = 1032, .entries = 2, .size = size, .repo = repo };
  unsigned char out[PACK_TRAILER_SIZE];
  PackTrailer back = { .entries = 77 }, bad;
  TmkError *err = NULL;
  pack_trailer_format (&good, out);
  for (unsigned bit = 0; bit < PACK_TRAILER_SIZE * 8; bit++) {
    err = NULL;
    out[bit / 8] ^= 1u << bit % 8;
    assert_refused (pack_trailer_parse (out, size, &back, &err), &err, TMK_ERR_DAMAGED, "pack");
    g_assert_cmpint (back.entries, ==, 77);
    out[bit / 8] ^= 1u << bit % 8;
  }
  err = NULL;
  assert_ok (pack_trailer_parse (out, size, &back, &err), &err);
  g_assert_cmpint (back.table, ==, 1032);
  assert_refused (pack_trailer_parse (out, size + 1, &back, &err), &err, TMK_ERR_DAMAGED,
                  "its trailer says");
#define REFUSED(field, value, part)                                                                \
  do {                                                                                             \
    err = NULL;                                                                                    \
    bad = good;                                                                                    \
    bad.field = (value);                                                                           \
    pack_trailer_format (&bad, out);                                                               \
    assert_refused (pack_trailer_parse (out, bad.size, &back, &err), &err, TMK_ERR_DAMAGED, part); \
  } while (0)
  REFUSED (entries, 0, "number of entries (0)");
  REFUSED (entries, PACK_MAX_ENTRIES + 1, "number of entries");
  REFUSED (entries, 3, "table is not where");
  REFUSED (entries, PACK_MAX_ENTRIES, "table is not where");
  REFUSED (table, 1031, "table is not where");
  REFUSED (table, UINT64_MAX, "table is not where");
  REFUSED (size, 96 + PACK_TRAILER_SIZE + 31, "table is not where");
  REFUSED (size, 0, "table is not where");
  REFUSED (size, PACK_MAX_SIZE + 1, "too long");
  bad = good;
  put_le32 (out + 28, 2);
  put_le64 (out, XXH3_64bits (out + 8, 56));
  err = NULL;
  assert_refused (pack_trailer_parse (out, bad.size, &back, &err), &err, TMK_ERR_DAMAGED,
                  "unknown version (2)");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/format/record/goldens", test_record_goldens);
  g_test_add_func ("/format/record/flips", test_record_flips);
  g_test_add_func ("/format/record/fields", test_record_fields);
  g_test_add_func ("/format/hex", test_hex);
  g_test_add_func ("/format/node/golden", test_node_goldens);
  g_test_add_func ("/format/node/delta-golden", test_delta_goldens);
  g_test_add_func ("/format/node/faults", test_node_faults);
  g_test_add_func ("/format/node/zero-ids", test_node_zero_ids);
  g_test_add_func ("/format/pack/golden", test_pack_golden);
  g_test_add_func ("/format/pack/headers", test_pack_headers);
  g_test_add_func ("/format/pack/entries", test_pack_entries);
  g_test_add_func ("/format/pack/trailers", test_pack_trailers);
  return g_test_run ();
}
