/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: what is written is read again, damage is told apart from absence, locks exclude. */
#include "hv-case.h"

#include "hv/state.h"

#include <sys/wait.h>
#include <unistd.h>

#define UUID "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
#define UPPER "0A81F5B2-8403-7B23-C8D6-21CCC2F80D6F"
#define ADDRESS "unix:/run/vm.sock"

static char *root;

static State *
open_state (const char *key)
{
  g_autoptr (TmkError) err = NULL;
  State *state = state_open (root, key, ADDRESS, &err);
  assert_no_error (err);
  return state;
}

static char *
in_state (const char *key, const char *name)
{
  return g_build_filename (root, "domains", key, name, NULL);
}

static void
put (const char *key, const char *name, const char *text)
{
  g_autofree char *path = in_state (key, name);
  g_assert_true (g_file_set_contents (path, text, -1, NULL));
}

/* --- keys ------------------------------------------------------------------------------------ */

static void
assert_key (const char *uuid, const char *address, const char *expected)
{
  g_autofree char *key = state_key (uuid, address);
  g_assert_cmpstr (key, ==, expected);
}

static void
test_key (void)
{
  assert_key (UUID, ADDRESS, UUID);
  assert_key (UPPER, ADDRESS, UUID);
  g_autofree char *by_address = state_key (NULL, ADDRESS);
  g_assert_true (g_str_has_prefix (by_address, "at-"));
  g_assert_cmpuint (strlen (by_address), ==, 19);
  /* What a QEMU without -uuid says. */
  assert_key ("00000000-0000-0000-0000-000000000000", ADDRESS, by_address);
  assert_key ("", ADDRESS, by_address);
  g_autofree char *other = state_key (NULL, "unix:/run/other.sock");
  g_assert_cmpstr (other, !=, by_address);
  assert_key ("00000000-0000-0000-0000-000000000001", ADDRESS,
              "00000000-0000-0000-0000-000000000001");
}

static void
test_default_root (void)
{
  g_autofree char *saved = g_strdup (g_getenv ("TIDEMARK_STATE_DIR"));
  g_setenv ("TIDEMARK_STATE_DIR", "/some/where", TRUE);
  g_autofree char *named = state_default_root ();
  g_assert_cmpstr (named, ==, "/some/where");
  g_setenv ("TIDEMARK_STATE_DIR", "", TRUE); /* as good as not set */
  g_autofree char *chosen = state_default_root ();
  g_assert_true (g_path_is_absolute (chosen));
  g_assert_true (g_str_has_suffix (chosen, "/tidemark"));
  if (saved != NULL)
    g_setenv ("TIDEMARK_STATE_DIR", saved, TRUE);
  else
    g_unsetenv ("TIDEMARK_STATE_DIR");
}

/* --- addresses ------------------------------------------------------------------------------- */

static char *
address_path (const char *address)
{
  g_autofree char *hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, address, -1);
  hash[32] = '\0';
  return g_build_filename (root, "addresses", hash, NULL);
}

static void
assert_at (const char *address, const char *expected)
{
  g_autofree char *key = state_key_at_address (root, address);
  g_assert_cmpstr (key, ==, expected);
}

static void
test_address (void)
{
  g_autoptr (TmkError) err = NULL;
  assert_at ("unix:/a", NULL);
  state_free (state_open (root, "first", "unix:/a", &err));
  assert_no_error (err);
  assert_at ("unix:/a", "first");
  assert_at ("unix:/b", NULL);
  state_free (state_open (root, "second", "unix:/a", &err)); /* another machine listens there now */
  assert_at ("unix:/a", "second");
  state_free (state_open (root, "second", "unix:/b", &err)); /* or the same one elsewhere, too */
  assert_at ("unix:/a", "second");
  assert_at ("unix:/b", "second");

  /* What cannot be a key leads nowhere, and above all not out of the folder. */
  g_autofree char *path = address_path ("unix:/a");
  const char *const bad[] = { "", "\n", ".", "..", "../x", "a/b", "/etc" };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_true (g_file_set_contents (path, bad[i], -1, NULL));
    assert_at ("unix:/a", NULL);
  }
  g_assert_true (g_file_set_contents (path, " third\n", -1, NULL));
  assert_at ("unix:/a", "third");
}

static void
test_cannot_open (void)
{
  g_autofree char *file = g_build_filename (root, "file", NULL);
  g_assert_true (g_file_set_contents (file, "", -1, NULL));
  g_autoptr (TmkError) err = NULL;
  g_assert_null (state_open (file, "key", ADDRESS, &err));
  g_assert_nonnull (err);
  assert_contains (tmk_error_message (err), "cannot keep state");
  assert_contains (tmk_error_hint (err), "--state-dir");
  state_free (NULL);
}

/* --- documents ------------------------------------------------------------------------------- */

static void
test_documents (void)
{
  g_autoptr (State) state = open_state ("documents");
  g_autoptr (TmkError) err = NULL;
  g_assert_null (state_read (state, "job", &err));
  assert_no_error (err);
  g_assert_true (state_remove (state, "job", &err)); /* nothing to do is no error */
  for (int i = 0; i < 2; i++) {
    g_autoptr (json_t) value = json_pack ("{s:i, s:s}", "n", i, "s", "ü\n\"");
    g_assert_true (state_write (state, "job", value, &err));
    g_autoptr (json_t) back = state_read (state, "job", &err);
    g_assert_true (json_equal (value, back));
  }
  g_assert_null (state_read (state, "last", &err)); /* each has its own */
  g_autofree char *path = in_state ("documents", "job.json");
  GStatBuf st;
  g_assert_cmpint (g_stat (path, &st), ==, 0);
  g_assert_cmpint (st.st_mode & 0777, ==, 0600); /* it may name what is nobody's business */
  g_autoptr (State) again = open_state ("documents");
  g_autoptr (json_t) survived = state_read (again, "job", &err);
  g_assert_nonnull (survived);
  g_assert_true (state_remove (state, "job", &err));
  g_assert_null (state_read (state, "job", &err));
  assert_no_error (err);
}

static void
test_damaged (void)
{
  g_autoptr (State) state = open_state ("damaged");
  const char *const bad[]
      = { "", "{", "{\"a\": 1", "{}x", "nonsense", "{\"a\":1, \"a\":2}", "{\"a\": \"\xff\"}" };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    put ("damaged", "job.json", bad[i]);
    g_autoptr (TmkError) err = NULL;
    g_assert_null (state_read (state, "job", &err));
    assert_refused (err, TMK_ERR_DAMAGED, "job.json' line");
  }
}

/* Something is there and cannot be read: that is not "no job". */
static void
test_unreadable (void)
{
  g_autoptr (State) state = open_state ("unreadable");
  g_autofree char *path = in_state ("unreadable", "job.json");
  g_assert_cmpint (g_mkdir (path, 0700), ==, 0);
  g_autoptr (TmkError) err = NULL;
  g_assert_null (state_read (state, "job", &err));
  g_assert_nonnull (err);
  assert_contains (tmk_error_message (err), "job.json");
}

/* --- checkpoints ----------------------------------------------------------------------------- */

static TmkCheckpointDef *
checkpoint (const char *name, const char *parent)
{
  TmkCheckpointDef *def = tmk_checkpoint_def_new (name, NULL);
  g_assert_nonnull (def);
  def->creation_time = 1525889631;
  def->parent = g_strdup (parent);
  CheckpointDisk *disk = checkpoint_def_add_disk (def, "vda");
  disk->covered = TRUE;
  disk->bitmap = g_strdup (name);
  disk->capacity = 64 * MIB;
  disk->target = g_strdup ("/b/<1>");
  disk->target_format = g_strdup ("qcow2");
  return def;
}

static const TmkCheckpointDef *
find (GPtrArray *defs, const char *name)
{
  for (guint i = 0; i < defs->len; i++) {
    const TmkCheckpointDef *def = g_ptr_array_index (defs, i);
    if (g_str_equal (def->name, name))
      return def;
  }
  return NULL;
}

static void
test_checkpoints (void)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (State) state = open_state ("checkpoints");
  g_autoptr (GPtrArray) none = state_checkpoints (state, &err);
  g_assert_cmpuint (none->len, ==, 0);

  g_autoptr (TmkCheckpointDef) c1 = checkpoint ("c1", NULL);
  g_autoptr (TmkCheckpointDef) c2 = checkpoint ("c2", "c1");
  g_assert_true (state_write_checkpoint (state, c1, &err));
  g_assert_true (state_write_checkpoint (state, c2, &err));
  g_assert_true (state_write_checkpoint (state, c2, &err)); /* again: the same one */

  put ("checkpoints", "checkpoints/broken.xml", "<domaincheckpoint>");
  put ("checkpoints", "checkpoints/empty.xml", "");
  put ("checkpoints", "checkpoints/other.xml", "<domainbackup/>");
  put ("checkpoints", "checkpoints/c3.xml.abcdef", "half written");
  g_autofree char *folder = in_state ("checkpoints", "checkpoints/folder.xml");
  g_assert_cmpint (g_mkdir (folder, 0700), ==, 0);

  g_autoptr (GPtrArray) two = state_checkpoints (state, &err);
  assert_no_error (err);
  g_assert_cmpuint (two->len, ==, 2);
  const TmkCheckpointDef *back = find (two, "c2");
  g_assert_cmpstr (back->parent, ==, "c1");
  g_assert_cmpint (back->creation_time, ==, 1525889631);
  const CheckpointDisk *disk = checkpoint_def_find_disk (back, "vda");
  g_assert_true (disk->covered);
  g_assert_cmpstr (disk->bitmap, ==, "c2");
  g_assert_cmpuint (disk->capacity, ==, 64 * MIB);
  g_assert_cmpstr (disk->target, ==, "/b/<1>");
  g_assert_cmpstr (disk->target_format, ==, "qcow2");
  g_assert_null (find (two, "c1")->parent);

  g_assert_true (state_remove_checkpoint (state, "c1", &err));
  g_assert_true (state_remove_checkpoint (state, "c1", &err));
  g_autoptr (GPtrArray) one = state_checkpoints (state, &err);
  g_assert_cmpuint (one->len, ==, 1);
  assert_no_error (err);
}

/* Bitmaps that others made may be called anything; no name leads out of the folder. */
static void
test_checkpoint_names (void)
{
  g_autoptr (State) state = open_state ("names");
  put ("names", "outside.xml", "stays");
  g_autofree char *outside = in_state ("names", "outside.xml");
  const char *const bad[] = { "../outside", "a/b", "", ".", "..", ".x" };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_true (state_remove_checkpoint (state, bad[i], &err));
    assert_no_error (err);
    g_autoptr (TmkCheckpointDef) def = checkpoint ("c1", NULL);
    g_free (def->name);
    def->name = g_strdup (bad[i]);
    g_assert_false (state_write_checkpoint (state, def, &err));
    assert_refused (err, TMK_ERR_INVALID, "cannot be a checkpoint's name");
  }
  g_assert_true (g_file_test (outside, G_FILE_TEST_EXISTS));
}

/* A name may be longer than a file's, and two may differ at their ends alone. */
static void
test_long_names (void)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (State) state = open_state ("long-names");
  const size_t lengths[] = { 200, 201, 250, 255, 1023 };
  for (size_t i = 0; i < G_N_ELEMENTS (lengths); i++)
    for (const char *end = "ab"; *end != '\0'; end++) {
      g_autofree char *name = g_strnfill (lengths[i], 'c');
      name[lengths[i] - 1] = *end;
      g_autoptr (TmkCheckpointDef) def = checkpoint (name, NULL);
      g_assert_true (state_write_checkpoint (state, def, &err));
    }
  g_autoptr (GPtrArray) all = state_checkpoints (state, &err);
  g_assert_cmpuint (all->len, ==, 2 * G_N_ELEMENTS (lengths));
  for (guint i = 0; i < all->len; i++) {
    const TmkCheckpointDef *def = g_ptr_array_index (all, i);
    g_assert_true (find (all, def->name) == def);
    g_assert_true (state_remove_checkpoint (state, def->name, &err));
  }
  g_autoptr (GPtrArray) none = state_checkpoints (state, &err);
  g_assert_cmpuint (none->len, ==, 0);
  assert_no_error (err);
}

/* --- the lock -------------------------------------------------------------------------------- */

static void
test_lock (void)
{
  int ready[2], done[2];
  g_assert_cmpint (pipe (ready), ==, 0);
  g_assert_cmpint (pipe (done), ==, 0);
  pid_t pid = fork ();
  if (pid == 0) {
    /* Another process holds it until it is told to end. */
    State *mine = state_open (root, "lock", ADDRESS, NULL);
    char c = mine != NULL && state_lock (mine, 0, NULL) ? 'y' : 'n';
    close (done[1]);
    if (write (ready[1], &c, 1) == 1 && read (done[0], &c, 1) == 0)
      _exit (0); /* as if killed: without unlocking */
    _exit (1);
  }
  close (done[0]);
  char c = 0;
  g_assert_cmpint (read (ready[0], &c, 1), ==, 1);
  g_assert_cmpint (c, ==, 'y');

  g_autoptr (State) state = open_state ("lock");
  g_autoptr (State) other = open_state ("other-lock");
  g_autoptr (TmkError) err = NULL;
  gint64 before = g_get_monotonic_time ();
  g_assert_false (state_lock (state, 50, &err));
  g_assert_cmpint (g_get_monotonic_time () - before, >=, 50000);
  assert_refused (err, TMK_ERR_BUSY, "locked by another process");
  g_clear_pointer (&err, tmk_error_free);
  g_assert_true (state_lock (other, 0, &err)); /* each domain has its own */
  state_unlock (state);                        /* not held: nothing happens */

  close (done[1]);
  g_assert_cmpint (waitpid (pid, NULL, 0), ==, pid);
  g_assert_true (state_lock (state, 0, &err)); /* gone with the process */
  state_unlock (state);
  g_assert_true (state_lock (state, 0, &err));
  assert_no_error (err);
  close (ready[0]);
  close (ready[1]);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  root = make_folder ();
  g_test_add_func ("/hv-state/key", test_key);
  g_test_add_func ("/hv-state/default-root", test_default_root);
  g_test_add_func ("/hv-state/address", test_address);
  g_test_add_func ("/hv-state/cannot-open", test_cannot_open);
  g_test_add_func ("/hv-state/documents", test_documents);
  g_test_add_func ("/hv-state/damaged", test_damaged);
  g_test_add_func ("/hv-state/unreadable", test_unreadable);
  g_test_add_func ("/hv-state/checkpoints", test_checkpoints);
  g_test_add_func ("/hv-state/checkpoint-names", test_checkpoint_names);
  g_test_add_func ("/hv-state/long-names", test_long_names);
  g_test_add_func ("/hv-state/lock", test_lock);
  int result = g_test_run ();
  remove_folder (root);
  return result;
}
