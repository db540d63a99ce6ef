/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: secrets are found by uuid and usage in folders and files, and no message shows one. */
#include "hv-case.h"

#include "hv/secrets.h"

#define UUID "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
#define UPPER "0A81F5B2-8403-7B23-C8D6-21CCC2F80D6F"
#define VALUE "hush-now-hush"

static char *folder;

static char *
in_folder (const char *name)
{
  return g_build_filename (folder, name, NULL);
}

static void
put (const char *name, const char *text, gssize len)
{
  g_autofree char *path = in_folder (name);
  g_assert_true (g_file_set_contents (path, text, len, NULL));
}

static void
assert_found (const char *source, const char *uuid, const char *usage, const void *value,
              size_t len)
{
  g_autoptr (TmkError) err = NULL;
  EncryptionDef encryption = { .secret_uuid = (char *) uuid, .secret_usage = (char *) usage };
  g_autoptr (GBytes) bytes = secret_find (source, &encryption, &err);
  assert_no_error (err);
  gsize n;
  gconstpointer data = g_bytes_get_data (bytes, &n);
  g_assert_cmpmem (data, n, value, len);
}

static void
assert_not_found (const char *source, const char *uuid, const char *usage, TmkErrorCode code,
                  const char *part)
{
  g_autoptr (TmkError) err = NULL;
  EncryptionDef encryption = { .secret_uuid = (char *) uuid, .secret_usage = (char *) usage };
  g_assert_null (secret_find (source, &encryption, &err));
  assert_refused (err, code, part);
  assert_contains (tmk_error_message (err), uuid != NULL ? uuid : usage);
  assert_contains (tmk_error_hint (err), "--secrets");
  /* A message may go to a log that many read. */
  g_assert_null (strstr (tmk_error_message (err), "hush"));
  g_assert_null (strstr (tmk_error_hint (err), "hush"));
}

static void
test_folder (void)
{
  put (UUID, VALUE "\n", -1);
  put ("db%2Fdisk 50%25", VALUE "2", -1);
  assert_found (folder, UUID, NULL, VALUE, strlen (VALUE));
  assert_found (folder, UPPER, NULL, VALUE, strlen (VALUE));
  assert_found (folder, NULL, "db/disk 50%", VALUE "2", strlen (VALUE) + 1);

  /* One newline at the end is not part of it; all else is. */
  put ("newlines", VALUE "\n\n", -1);
  assert_found (folder, NULL, "newlines", VALUE "\n", strlen (VALUE) + 1);
  put ("carriage", VALUE "\r\n", -1);
  assert_found (folder, NULL, "carriage", VALUE "\r", strlen (VALUE) + 1);
  put ("binary", "\0\xff\n\0", 4);
  assert_found (folder, NULL, "binary", "\0\xff\n\0", 4);
  put ("base64", "base64:aHVzaA==", -1); /* only files of many have that */
  assert_found (folder, NULL, "base64", "base64:aHVzaA==", strlen ("base64:aHVzaA=="));
}

static void
test_folder_refusals (void)
{
  put ("empty", "", -1);
  put ("newline", "\n", -1);
  put (".hidden", VALUE, -1);
  g_autofree char *sub = in_folder ("sub");
  g_assert_cmpint (g_mkdir (sub, 0700), ==, 0);
  assert_not_found (folder, NULL, "empty", TMK_ERR_INVALID, "empty");
  assert_not_found (folder, NULL, "newline", TMK_ERR_INVALID, "empty");
  assert_not_found (folder, NULL, "missing", TMK_ERR_NOT_FOUND, "missing");
  assert_not_found (folder, "ffffffff-8403-7b23-c8d6-21ccc2f80d6f", NULL, TMK_ERR_NOT_FOUND,
                    "ffffffff");
  assert_not_found (folder, NULL, ".hidden", TMK_ERR_INVALID, "cannot name a secret");
  assert_not_found (folder, NULL, "..", TMK_ERR_INVALID, "cannot name a secret");
  assert_not_found (folder, NULL, "", TMK_ERR_INVALID, "cannot name a secret");
  /* Nothing outside of the folder. */
  assert_not_found (sub, NULL, "../empty", TMK_ERR_INVALID, "cannot name a secret");
  assert_not_found (folder, NULL, "sub/../newlines", TMK_ERR_NOT_FOUND, "sub/../newlines");
  g_autofree char *nowhere = in_folder ("nowhere");
  assert_not_found (nowhere, UUID, NULL, TMK_ERR_NOT_FOUND, "nowhere");
  /* A folder where the secret should be. */
  g_autoptr (TmkError) err = NULL;
  EncryptionDef encryption = { .secret_usage = (char *) "sub" };
  g_assert_null (secret_find (folder, &encryption, &err));
  g_assert_nonnull (tmk_error_hint (err));
}

static void
test_file (void)
{
  g_autofree char *path = in_folder ("secrets");
  put ("secrets",
       "# a comment\n"
       "\n"
       "uuid " UPPER " " VALUE "\n"
       "usage db " VALUE "1\n"
       "usage db/x%2F base64:AAEC/w==\n"
       "usage two words " VALUE " with blanks \n"
       "usage db " VALUE "later\n"
       "usage nothing \n"
       "usage nothing64 base64:\n"
       "usage short\n"
       "usage last " VALUE "L",
       -1);
  assert_found (path, UUID, NULL, VALUE, strlen (VALUE));
  assert_found (path, UPPER, NULL, VALUE, strlen (VALUE));
  assert_found (path, NULL, "db", VALUE "1", strlen (VALUE) + 1); /* the first */
  assert_found (path, NULL, "db/x%2F", "\0\1\2\xff", 4);
  assert_found (path, NULL, "two words", VALUE " with blanks ", strlen (VALUE) + 13);
  assert_found (path, NULL, "last", VALUE "L", strlen (VALUE) + 1);

  assert_not_found (path, NULL, "nothing", TMK_ERR_INVALID, "empty");
  assert_not_found (path, NULL, "nothing64", TMK_ERR_INVALID, "empty");
  assert_not_found (path, NULL, "short", TMK_ERR_NOT_FOUND, "no such secret");
  assert_not_found (path, NULL, "d", TMK_ERR_NOT_FOUND, "no such secret");
  assert_not_found (path, NULL, "DB", TMK_ERR_NOT_FOUND, "no such secret");
  assert_not_found (path, NULL, UUID, TMK_ERR_NOT_FOUND, "no such secret");
  assert_not_found (path, "db", NULL, TMK_ERR_NOT_FOUND, "no such secret");
  assert_not_found (path, "0a81f5b2", NULL, TMK_ERR_NOT_FOUND, "no such secret");
}

/* A wrong passphrase would make a backup that nobody can open. */
static void
test_bad_base64 (void)
{
  const char *const bad[] = { "hush!", "aHV", "aHVza", "aHVz=A==", "aHVz aHVz", "====", "aHVz\r" };
  g_autofree char *path = in_folder ("bad");
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autofree char *text = g_strdup_printf ("usage x base64:%s\n", bad[i]);
    put ("bad", text, -1);
    assert_not_found (path, NULL, "x", TMK_ERR_INVALID, "base64");
  }
}

static void
test_none_given (void)
{
  assert_not_found (NULL, UUID, NULL, TMK_ERR_NOT_FOUND, "no secrets were given");
  assert_not_found (NULL, NULL, "db", TMK_ERR_NOT_FOUND, "no secrets were given");
}

static void
test_too_large (void)
{
  g_autofree char *text = g_strnfill (1024 * 1024 + 1, 'x');
  put ("large", text, -1);
  assert_not_found (folder, NULL, "large", TMK_ERR_INVALID, "larger");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = make_folder ();
  g_test_add_func ("/hv-secrets/folder", test_folder);
  g_test_add_func ("/hv-secrets/folder-refusals", test_folder_refusals);
  g_test_add_func ("/hv-secrets/file", test_file);
  g_test_add_func ("/hv-secrets/bad-base64", test_bad_base64);
  g_test_add_func ("/hv-secrets/none-given", test_none_given);
  g_test_add_func ("/hv-secrets/too-large", test_too_large);
  int result = g_test_run ();
  remove_folder (folder);
  return result;
}
