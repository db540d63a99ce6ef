/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: configurations and manifests are written byte by byte as the goldens have them and read
 * back alike, also where names are no UTF-8 and numbers are as large as they can be; a newer format
 * is refused as such, anything else that is wrong as damage, each by the member's name. */
#include "format-case.h"

#include "format/config.h"
#include "format/jsonfmt.h"
#include "format/manifest.h"

static const RepoConfig some_config = {
  .id = { { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba,
            0xdc, 0xfe } },
  .created_us = INT64_C (1795367288123456),
  .chunk_size = 128 << 10,
  .pack_size = 64 << 20,
  .codec = CODEC_ZSTD,
  .level = 3,
};

/* ---- configuration ------------------------------------------------------------------------ */

static void
assert_config_equal (const RepoConfig *a, const RepoConfig *b)
{
  g_assert_cmpmem (&a->id, sizeof a->id, &b->id, sizeof b->id);
  g_assert_cmpint (a->created_us, ==, b->created_us);
  g_assert_cmpint (a->chunk_size, ==, b->chunk_size);
  g_assert_cmpint (a->pack_size, ==, b->pack_size);
  g_assert_cmpint (a->codec, ==, b->codec);
  g_assert_cmpint (a->level, ==, b->level);
}

static void
test_config_golden (void)
{
  g_autofree char *json = repo_config_format (&some_config);
  case_expect ("config.json", json, strlen (json));
  size_t size;
  g_autofree char *golden = (char *) case_read ("config.json", &size);
  RepoConfig back;
  TmkError *err = NULL;
  assert_ok (repo_config_parse (golden, size, &back, &err), &err);
  assert_config_equal (&back, &some_config);

  RepoConfig plain = some_config;
  plain.codec = CODEC_PLAIN;
  plain.level = 0;
  g_autofree char *other = repo_config_format (&plain);
  assert_ok (repo_config_parse (other, strlen (other), &back, &err), &err);
  assert_config_equal (&back, &plain);
}

/* The golden with the member at `path` ("a.b", "list.0.b") set to the JSON `value`; without it
 * where that is NULL. */
static char *
with_member (const char *golden, const char *path, const char *value)
{
  size_t size;
  g_autofree char *json = (char *) case_read (golden, &size);
  g_autoptr (json_t) document = json_loadb (json, size, 0, NULL);
  g_auto (GStrv) keys = g_strsplit (path, ".", -1);
  json_t *at = document;
  guint last = g_strv_length (keys) - 1;
  for (guint i = 0; i < last; i++)
    at = json_is_array (at) ? json_array_get (at, atoi (keys[i])) : json_object_get (at, keys[i]);
  g_assert_true (json_is_object (at));
  if (value == NULL)
    g_assert_cmpint (json_object_del (at, keys[last]), ==, 0);
  else
    json_object_set_new (at, keys[last], json_loads (value, JSON_DECODE_ANY, NULL));
  return jsonfmt_dump (g_steal_pointer (&document));
}

static void
test_config_faults (void)
{
  static const struct {
    const char *path, *value;
    TmkErrorCode code;
    const char *part;
  } cases[] = {
    { "format", NULL, TMK_ERR_DAMAGED, "'format'" },
    { "format", "\"1\"", TMK_ERR_DAMAGED, "'format'" },
    { "format", "0", TMK_ERR_DAMAGED, "'format'" },
    { "format", "2", TMK_ERR_UNSUPPORTED, "has format 2, and this version knows those up to 1" },
    { "requires", "[\"magic\"]", TMK_ERR_UNSUPPORTED, "asks its readers for 'magic'" },
    { "requires", "[1]", TMK_ERR_DAMAGED, "'requires'" },
    { "requires", "{}", TMK_ERR_DAMAGED, "'requires'" },
    { "encryption", "{\"cipher\": \"x\"}", TMK_ERR_UNSUPPORTED, "'encryption'" },
    { "hash", "\"blake3\"", TMK_ERR_UNSUPPORTED, "names its objects by 'blake3'" },
    { "hash", NULL, TMK_ERR_DAMAGED, "'hash' is missing" },
    { "compression", NULL, TMK_ERR_DAMAGED, "'codec'" },
    { "compression.codec", "\"lz4\"", TMK_ERR_UNSUPPORTED, "is compressed with 'lz4'" },
    { "compression.level", NULL, TMK_ERR_DAMAGED, "'level'" },
    { "compression.level", "0", TMK_ERR_DAMAGED, "'level'" },
    { "compression.level", "23", TMK_ERR_DAMAGED, "'level'" },
    { "compression.level", "-51", TMK_ERR_DAMAGED, "'level'" },
    { "id", NULL, TMK_ERR_DAMAGED, "'id'" },
    { "id", "\"0123456789ABCDEF1032547698badcfe\"", TMK_ERR_DAMAGED, "'id'" },
    { "created", NULL, TMK_ERR_DAMAGED, "'created' is missing" },
    { "created", "\"2026-13-22T17:08:11.123456Z\"", TMK_ERR_DAMAGED, "'created' is no time" },
    { "created", "\"2026-11-22T17:08:11Z\"", TMK_ERR_DAMAGED, "'created' is no time" },
    { "chunk_size", NULL, TMK_ERR_DAMAGED, "'chunk_size' is missing" },
    { "chunk_size", "32768", TMK_ERR_DAMAGED, "'chunk_size'" },
    { "chunk_size", "8388608", TMK_ERR_DAMAGED, "'chunk_size'" },
    { "chunk_size", "65537", TMK_ERR_DAMAGED, "'chunk_size'" },
    { "chunk_size", "4294967296", TMK_ERR_DAMAGED, "'chunk_size'" },
    { "chunk_size", "-65536", TMK_ERR_DAMAGED, "'chunk_size' is no size" },
    { "chunk_size", "65536.0", TMK_ERR_DAMAGED, "'chunk_size' is no size" },
    { "pack_size", "0", TMK_ERR_DAMAGED, "'pack_size'" },
    { "pack_size", "1073741825", TMK_ERR_DAMAGED, "'pack_size'" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *json = with_member ("config.json", cases[i].path, cases[i].value);
    RepoConfig config = { .level = 77 };
    TmkError *err = NULL;
    bool ok = repo_config_parse (json, strlen (json), &config, &err);
    g_assert_true (ok || cases[i].code != TMK_ERR_UNSUPPORTED || tmk_error_hint (err) != NULL);
    assert_refused (ok, &err, cases[i].code, cases[i].part);
    g_assert_cmpint (config.level, ==, 77);
  }
}

static void
test_config_later (void)
{
  static const char *const members[] = { "later", "compression.later" };
  for (size_t i = 0; i < G_N_ELEMENTS (members); i++) {
    g_autofree char *json = with_member ("config.json", members[i], "[\"unknown\"]");
    RepoConfig config;
    TmkError *err = NULL;
    assert_ok (repo_config_parse (json, strlen (json), &config, &err), &err);
    assert_config_equal (&config, &some_config);
  }
}

/* ---- manifests ---------------------------------------------------------------------------- */

static Manifest *
some_manifest (void)
{
  Manifest *m = manifest_new (2);
  memcpy (m->id, "0123456789abcdef", sizeof m->id);
  m->time_us = INT64_C (1795367288123456);
  m->finished_us = m->time_us + 7654321;
  m->domain = g_strdup ("web \"1\"\n");
  m->uuid = g_strdup ("5e0b3b3c-0000-4000-8000-000000000001");
  m->host = g_strdup ("höst");
  m->tool = g_strdup ("tidemark 0.1.0");
  m->checkpoint = g_strdup ("tmk-01234567-1");
  m->quiesced = true;
  m->domain_xml = g_strdup ("<domain type='kvm'>\n  <name>web</name>\n</domain>\n");
  m->backup_xml = g_strdup ("<domainbackup/>");
  m->metadata = 12345;
  ManifestDisk *vda = &m->disks[0], *vdb = &m->disks[1];
  vda->name = g_strdup ("vda");
  vda->size = G_MAXINT64;
  vda->chunk_size = 64 << 10;
  vda->root = case_id (42);
  vda->mode = g_strdup ("incremental");
  vda->reason = g_strdup ("the checkpoint 'x' is usable");
  vda->base_point = g_strdup ("fedcba9876543210");
  vda->base_disk = g_strdup ("sda");
  vda->base_checkpoint = g_strdup ("tmk-01234567-0");
  vda->checkpoint = g_strdup ("tmk-01234567-1");
  vda->format = g_strdup ("qcow2");
  vda->n_images = 2;
  vda->images = g_new0 (ManifestImage, 2);
  vda->images[0] = (ManifestImage){ g_strdup ("/img/\xff\xfe top"), G_MAXUINT64, G_MAXUINT64 - 1 };
  vda->images[1] = (ManifestImage){ NULL, 0, 0 };
  vda->read = 1;
  vda->zero = 2;
  vda->changed = 3;
  vda->added = 4;
  vda->stored = 5;
  vda->used = G_MAXINT64;
  vdb->name = g_strdup ("vdb");
  vdb->chunk_size = 4 << 20;
  vdb->mode = g_strdup ("full");
  return m;
}

/* The same with files. */
static Manifest *
manifest_with_files (void)
{
  Manifest *m = some_manifest ();
  ManifestFile *file = manifest_add_file (m, "nvram", "web_VARS.fd", 540672, 64 << 10);
  file->mode = 0600;
  file->content.root = case_id (43);
  file = manifest_add_file (m, "tpm", "tpm2/\xff", 1, 128 << 10);
  file->mode = 0640;
  file->content.root = case_id (44);
  (void) manifest_add_file (m, "tpm", "empty", 0, 4 << 20);
  return m;
}

static void
assert_files_equal (const ManifestFile *a, const ManifestFile *b)
{
  g_assert_cmpstr (a->role, ==, b->role);
  g_assert_cmpstr (a->name, ==, b->name);
  g_assert_cmpuint (a->size, ==, b->size);
  g_assert_cmpuint (a->mode, ==, b->mode);
  g_assert_cmpstr (a->content.name, ==, b->content.name);
  g_assert_cmpuint (a->content.size, ==, b->content.size);
  g_assert_cmpuint (a->content.chunk_size, ==, b->content.chunk_size);
  g_assert_true (object_id_equal (&a->content.root, &b->content.root));
}

static void
assert_images_equal (const ManifestDisk *a, const ManifestDisk *b)
{
  g_assert_cmpint (a->n_images, ==, b->n_images);
  for (size_t i = 0; i < a->n_images; i++) {
    g_assert_cmpstr (a->images[i].path, ==, b->images[i].path);
    g_assert_cmpuint (a->images[i].device, ==, b->images[i].device);
    g_assert_cmpuint (a->images[i].inode, ==, b->images[i].inode);
  }
}

static void
assert_disks_equal (const ManifestDisk *a, const ManifestDisk *b)
{
  g_assert_cmpstr (a->name, ==, b->name);
  g_assert_cmpuint (a->size, ==, b->size);
  g_assert_cmpuint (a->chunk_size, ==, b->chunk_size);
  g_assert_true (object_id_equal (&a->root, &b->root));
  g_assert_cmpstr (a->mode, ==, b->mode);
  g_assert_cmpstr (a->reason, ==, b->reason);
  g_assert_cmpstr (a->base_point, ==, b->base_point);
  g_assert_cmpstr (a->base_disk, ==, b->base_disk);
  g_assert_cmpstr (a->base_checkpoint, ==, b->base_checkpoint);
  g_assert_cmpstr (a->checkpoint, ==, b->checkpoint);
  g_assert_cmpstr (a->format, ==, b->format);
  g_assert_cmpuint (a->read, ==, b->read);
  g_assert_cmpuint (a->zero, ==, b->zero);
  g_assert_cmpuint (a->changed, ==, b->changed);
  g_assert_cmpuint (a->added, ==, b->added);
  g_assert_cmpuint (a->stored, ==, b->stored);
  g_assert_cmpuint (a->used, ==, b->used);
  assert_images_equal (a, b);
}

static void
assert_manifests_equal (const Manifest *a, const Manifest *b)
{
  g_assert_cmpstr (a->id, ==, b->id);
  g_assert_cmpint (a->time_us, ==, b->time_us);
  g_assert_cmpint (a->finished_us, ==, b->finished_us);
  g_assert_cmpstr (a->domain, ==, b->domain);
  g_assert_cmpstr (a->uuid, ==, b->uuid);
  g_assert_cmpstr (a->host, ==, b->host);
  g_assert_cmpstr (a->tool, ==, b->tool);
  g_assert_cmpstr (a->checkpoint, ==, b->checkpoint);
  g_assert_cmpint (a->quiesced, ==, b->quiesced);
  g_assert_cmpstr (a->domain_xml, ==, b->domain_xml);
  g_assert_cmpstr (a->backup_xml, ==, b->backup_xml);
  g_assert_cmpstr (a->checkpoint_xml, ==, b->checkpoint_xml);
  g_assert_cmpuint (a->metadata, ==, b->metadata);
  g_assert_cmpint (a->n_disks, ==, b->n_disks);
  for (size_t i = 0; i < a->n_disks; i++)
    assert_disks_equal (&a->disks[i], &b->disks[i]);
  g_assert_cmpint (a->n_files, ==, b->n_files);
  for (size_t i = 0; i < a->n_files; i++)
    assert_files_equal (&a->files[i], &b->files[i]);
}

static void
test_manifest_golden (void)
{
  g_autoptr (Manifest) manifest = some_manifest ();
  g_autofree char *json = manifest_format (manifest);
  case_expect ("manifest.json", json, strlen (json));
  size_t size;
  g_autofree char *golden = (char *) case_read ("manifest.json", &size);
  TmkError *err = NULL;
  g_autoptr (Manifest) back = manifest_parse (golden, size, &err);
  assert_ok (back != NULL, &err);
  assert_manifests_equal (back, manifest);
  g_assert_true (manifest_disk (back, "vdb") == &back->disks[1]);
  g_assert_null (manifest_disk (back, "vdc"));
  manifest_free (NULL);
}

static void
test_manifest_files (void)
{
  static const char *const bad[][2] = {
    { "nvram", "" },     { "nvram", "/x" },   { "nvram", "../x" }, { "nvram", "x/../../y" },
    { "nvram", "x/.." }, { "nvram", "x//y" }, { "nvram", "x/" },   { "nvram", "." },
    { "nvram", "./x" },  { "", "x" },         { "..", "x" },       { "a/b", "x" },
    { "-a", "x" },       { "TPM", "x" },      { "tpm", "empty" },
  };
  g_autoptr (Manifest) manifest = manifest_with_files ();
  g_autofree char *json = manifest_format (manifest);
  case_expect ("manifest-files.json", json, strlen (json));
  size_t size;
  g_autofree char *golden = (char *) case_read ("manifest-files.json", &size);
  TmkError *err = NULL;
  g_autoptr (Manifest) back = manifest_parse (golden, size, &err);
  assert_ok (back != NULL, &err);
  assert_manifests_equal (back, manifest);
  g_assert_cmpuint (back->files[0].content.size, ==, 540672);
  g_assert_cmpuint (back->files[1].content.size, ==, 512);
  g_assert_cmpuint (back->files[2].content.size, ==, 0);
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++)
    g_assert_null (manifest_add_file (back, bad[i][0], bad[i][1], 0, 0));
  g_assert_null (manifest_add_file (back, "tpm", "huge", G_MAXINT64, 0));
  g_assert_nonnull (manifest_add_file (back, "tpm", "..x", 0, 0));
  for (size_t i = back->n_files; i < MANIFEST_FILES_MAX; i++) {
    g_autofree char *name = g_strdup_printf ("%zu", i);
    g_assert_nonnull (manifest_add_file (back, "more", name, i, 0));
  }
  g_assert_null (manifest_add_file (back, "more", "x", 0, 0));
}

/* Every byte that a C string can hold, in every string. */
static void
test_manifest_any_bytes (void)
{
  char bytes[256];
  for (unsigned i = 0; i < 255; i++)
    bytes[i] = (char) (i + 1);
  bytes[255] = '\0';
  g_autoptr (Manifest) manifest = some_manifest ();
  g_free (manifest->domain);
  manifest->domain = g_strdup (bytes);
  manifest->checkpoint_xml = g_strdup (bytes + 100);
  g_free (manifest->disks[1].name);
  manifest->disks[1].name = g_strdup (bytes + 200);
  g_free (manifest->host);
  manifest->host = g_strdup ("{\"base64\": \"aGVsbG8=\"}"); /* looks escaped, and is not */
  manifest->disks[1].reason = g_strdup ("");
  g_autofree char *json = manifest_format (manifest);
  TmkError *err = NULL;
  g_autoptr (Manifest) back = manifest_parse (json, strlen (json), &err);
  assert_ok (back != NULL, &err);
  assert_manifests_equal (back, manifest);
}

static void
test_manifest_faults (void)
{
  static const struct {
    const char *path, *value;
    TmkErrorCode code;
    const char *part;
  } cases[] = {
    { "format", "2", TMK_ERR_UNSUPPORTED, "has format 2" },
    { "format", NULL, TMK_ERR_DAMAGED, "'format'" },
    { "id", NULL, TMK_ERR_DAMAGED, "'id'" },
    { "id", "\"0123456789abcde\"", TMK_ERR_DAMAGED, "'id'" },
    { "id", "\"0123456789abcdeF\"", TMK_ERR_DAMAGED, "'id'" },
    { "id", "\"../../../../../x\"", TMK_ERR_DAMAGED, "'id'" },
    { "time", NULL, TMK_ERR_DAMAGED, "'time' is missing" },
    { "time", "12345", TMK_ERR_DAMAGED, "'time' is no time" },
    { "finished", "\"soon\"", TMK_ERR_DAMAGED, "'finished' is no time" },
    { "domain", NULL, TMK_ERR_DAMAGED, "'domain' is missing" },
    { "domain", "null", TMK_ERR_DAMAGED, "'domain' is missing" },
    { "domain", "\"\"", TMK_ERR_DAMAGED, "'domain' is empty" },
    { "domain", "{\"base64\": \"AA==\"}", TMK_ERR_DAMAGED, "'domain' is no string" },
    { "host", "[]", TMK_ERR_DAMAGED, "'host' is no string" },
    { "domain_xml", "7", TMK_ERR_DAMAGED, "'domain_xml' is no string" },
    { "metadata", "-1", TMK_ERR_DAMAGED, "'metadata' is no size" },
    { "disks", NULL, TMK_ERR_DAMAGED, "'disks' is no list" },
    { "disks", "{}", TMK_ERR_DAMAGED, "'disks' is no list" },
    { "disks", "[7]", TMK_ERR_DAMAGED, "'disks' has something else" },
    { "disks.0.name", NULL, TMK_ERR_DAMAGED, "disk 0: 'name' is missing" },
    { "disks.1.name", "\"vda\"", TMK_ERR_DAMAGED, "disk 1: 'name' is that of another" },
    { "disks.0.size", NULL, TMK_ERR_DAMAGED, "'size' is missing" },
    { "disks.0.size", "-1", TMK_ERR_DAMAGED, "'size' is no size" },
    { "disks.0.size", "1e3", TMK_ERR_DAMAGED, "'size' is no size" },
    { "disks.0.size", "0", TMK_ERR_DAMAGED, "'root' is not zero, yet" },
    { "disks.0.chunk_size", NULL, TMK_ERR_DAMAGED, "'chunk_size' is missing" },
    { "disks.0.chunk_size", "0", TMK_ERR_DAMAGED, "'chunk_size' is no power" },
    { "disks.0.chunk_size", "4294967296", TMK_ERR_DAMAGED, "'chunk_size' is no power" },
    { "disks.0.root", NULL, TMK_ERR_DAMAGED, "'root'" },
    { "disks.0.root", "\"00\"", TMK_ERR_DAMAGED, "'root'" },
    { "disks.0.images", "7", TMK_ERR_DAMAGED, "'images' is no list" },
    { "disks.0.images", "[[]]", TMK_ERR_DAMAGED, "'images' has something else" },
    { "disks.0.images.0.path", "1", TMK_ERR_DAMAGED, "'path' is no string" },
    { "disks.0.images.0.inode", "\"0x1\"", TMK_ERR_DAMAGED, "'inode'" },
    { "disks.0.images.0.inode", "\"00000000000000001\"", TMK_ERR_DAMAGED, "'inode'" },
    { "disks.0.images.0.device", "17", TMK_ERR_DAMAGED, "'device'" },
    { "disks.0.used", "\"1\"", TMK_ERR_DAMAGED, "'used' is no size" },
    { "disks.0.mode", "{}", TMK_ERR_DAMAGED, "'mode' is no string" },
    { "files", "7", TMK_ERR_DAMAGED, "'files' is no list" },
    { "files", "[[]]", TMK_ERR_DAMAGED, "'files' has something else" },
    { "files.0.role", NULL, TMK_ERR_DAMAGED, "file 0: 'role' is missing" },
    { "files.0.role", "\"..\"", TMK_ERR_DAMAGED, "'role' is no word" },
    { "files.1.name", NULL, TMK_ERR_DAMAGED, "file 1: 'name' is missing" },
    { "files.1.name", "\"../x\"", TMK_ERR_DAMAGED, "'name' leads out" },
    { "files.1.name", "\"/etc/passwd\"", TMK_ERR_DAMAGED, "'name' leads out" },
    { "files.1.name", "{\"base64\": \"Li4veA==\"}", TMK_ERR_DAMAGED, "'name' leads out" },
    { "files.1.name", "\"empty\"", TMK_ERR_DAMAGED, "file 2: 'name' leads out of its folder, or" },
    { "files.0.size", NULL, TMK_ERR_DAMAGED, "'size' is missing" },
    { "files.0.size", "9223372036854775807", TMK_ERR_DAMAGED, "'size' is no size of a file" },
    { "files.0.mode", "4096", TMK_ERR_DAMAGED, "'mode' is no mode" },
    { "files.0.chunk_size", NULL, TMK_ERR_DAMAGED, "'chunk_size' is missing" },
    { "files.0.chunk_size", "65537", TMK_ERR_DAMAGED, "'chunk_size' is no power" },
    { "files.0.root", "\"00\"", TMK_ERR_DAMAGED, "'root'" },
    { "files.0.size", "0", TMK_ERR_DAMAGED, "'root' is not zero, yet" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    bool of_files = g_str_has_prefix (cases[i].path, "files");
    g_autofree char *json = with_member (of_files ? "manifest-files.json" : "manifest.json",
                                         cases[i].path, cases[i].value);
    TmkError *err = NULL;
    g_autoptr (Manifest) manifest = manifest_parse (json, strlen (json), &err);
    assert_refused (manifest != NULL, &err, cases[i].code, cases[i].part);
  }
  /* Too many of them. */
  g_autoptr (GString) many = g_string_new ("[{}");
  for (size_t i = 0; i < MANIFEST_FILES_MAX; i++)
    g_string_append (many, ",{}");
  g_string_append_c (many, ']');
  g_autofree char *json = with_member ("manifest.json", "files", many->str);
  TmkError *err = NULL;
  g_autoptr (Manifest) manifest = manifest_parse (json, strlen (json), &err);
  assert_refused (manifest != NULL, &err, TMK_ERR_DAMAGED, "'files' has too many");
}

static void
test_manifest_later (void)
{
  g_autoptr (Manifest) manifest = some_manifest ();
  static const char *const members[] = { "later", "disks.0.later", "disks.0.images.1.later" };
  for (size_t i = 0; i < G_N_ELEMENTS (members); i++) {
    g_autofree char *json = with_member ("manifest.json", members[i], "{\"unknown\": 1.5}");
    TmkError *err = NULL;
    g_autoptr (Manifest) back = manifest_parse (json, strlen (json), &err);
    assert_ok (back != NULL, &err);
    assert_manifests_equal (back, manifest);
  }
  /* The least that there is to a point. */
  static const char least[]
      = "{\"format\": 1, \"id\": \"00000000000000ff\", \"time\": \"2026-11-22T17:08:08.000000Z\","
        " \"domain\": \"x\", \"disks\": []}";
  TmkError *err = NULL;
  g_autoptr (Manifest) back = manifest_parse (least, strlen (least), &err);
  assert_ok (back != NULL, &err);
  g_assert_cmpint (back->n_disks, ==, 0);
  g_assert_null (back->uuid);
}

static void
test_not_json (void)
{
  static const char *const texts[] = { "",
                                       "{",
                                       "[]",
                                       "7",
                                       "{} {}",
                                       "\xff",
                                       "{\"a\": 1, \"a\": 1}",
                                       "{\"format\": 99999999999999999999}" };
  for (size_t i = 0; i < G_N_ELEMENTS (texts); i++) {
    RepoConfig config;
    TmkError *err = NULL;
    assert_refused (repo_config_parse (texts[i], strlen (texts[i]), &config, &err), &err,
                    TMK_ERR_DAMAGED, "JSON");
    g_autoptr (Manifest) manifest = manifest_parse (texts[i], strlen (texts[i]), &err);
    assert_refused (manifest != NULL, &err, TMK_ERR_DAMAGED, "JSON");
  }
}

/* ---- times -------------------------------------------------------------------------------- */

static void
test_times (void)
{
  static const struct {
    int64_t us;
    const char *text;
  } cases[] = {
    { 0, "1970-01-01T00:00:00.000000Z" },
    { -1, "1969-12-31T23:59:59.999999Z" },
    { INT64_C (1795367288123456), "2026-11-22T17:08:08.123456Z" },
    { INT64_C (951782400000000), "2000-02-29T00:00:00.000000Z" },
    { INT64_C (-62135596800000000), "0001-01-01T00:00:00.000000Z" },
    { INT64_C (253402300799999999), "9999-12-31T23:59:59.999999Z" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    char text[JSONFMT_TIME_SIZE];
    int64_t back;
    jsonfmt_time_to_string (cases[i].us, text);
    g_assert_cmpstr (text, ==, cases[i].text);
    g_assert_true (jsonfmt_time_from_string (text, &back));
    g_assert_cmpint (back, ==, cases[i].us);
  }
  static const struct {
    int64_t us;
    const char *text;
  } beyond[] = { { INT64_MIN, "0001-01-01T00:00:00.000000Z" },
                 { INT64_MAX, "9999-12-31T23:59:59.999999Z" } };
  for (size_t i = 0; i < G_N_ELEMENTS (beyond); i++) {
    char text[JSONFMT_TIME_SIZE];
    jsonfmt_time_to_string (beyond[i].us, text);
    g_assert_cmpstr (text, ==, beyond[i].text);
  }
  int64_t us;
  g_assert_false (jsonfmt_time_from_string ("2026-11-22T24:08:11.123456Z", &us));
  g_assert_false (jsonfmt_time_from_string ("2026-02-29T00:00:00.000000Z", &us));
  g_assert_false (jsonfmt_time_from_string ("2026-11-22 17:08:11.123456Z", &us));
  g_assert_false (jsonfmt_time_from_string ("2026-11-22T17:08:11.12345+Z", &us));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/format/config/golden", test_config_golden);
  g_test_add_func ("/format/config/faults", test_config_faults);
  g_test_add_func ("/format/config/later", test_config_later);
  g_test_add_func ("/format/manifest/golden", test_manifest_golden);
  g_test_add_func ("/format/manifest/files", test_manifest_files);
  g_test_add_func ("/format/manifest/any-bytes", test_manifest_any_bytes);
  g_test_add_func ("/format/manifest/faults", test_manifest_faults);
  g_test_add_func ("/format/manifest/later", test_manifest_later);
  g_test_add_func ("/format/json/not-json", test_not_json);
  g_test_add_func ("/format/json/times", test_times);
  return g_test_run ();
}
