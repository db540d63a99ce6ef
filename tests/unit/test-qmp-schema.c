/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: paths are followed through members, arrays, alternates and variants; a schema that makes
 * no sense does no harm; the real ones of qemu-storage-daemon and QEMU have what we ask them for;
 * and the quirk table answers by version. */
#include "test-qmp-peers.h"

#include "qmp/schema.h"

#define SMALL                                                                                      \
  "[{'name': 'go', 'meta-type': 'command', 'arg-type': '1', 'ret-type': '0'},"                     \
  " {'name': '0', 'meta-type': 'object', 'members': []},"                                          \
  " {'name': 'STOP', 'meta-type': 'event', 'arg-type': '0'},"                                      \
  " {'name': 'int', 'meta-type': 'builtin', 'json-type': 'int'},"                                  \
  " {'name': '1', 'meta-type': 'object', 'tag': 'kind', 'members':"                                \
  "   [{'name': 'kind', 'type': 'int'}, {'name': 'list', 'type': '[2]'},"                          \
  "    {'name': 'ref', 'type': '3'}, {'name': 'lost', 'type': 'gone'},"                            \
  "    {'name': 'loop', 'type': '[4]'}],"                                                          \
  "  'variants': [{'case': 'a', 'type': '2'}, {'case': 'b', 'type': '0'}]},"                       \
  " {'name': '[2]', 'meta-type': 'array', 'element-type': '2'},"                                   \
  " {'name': '2', 'meta-type': 'object', 'members': [{'name': 'deep', 'type': 'int'}]},"           \
  " {'name': '3', 'meta-type': 'alternate', 'members': [{'type': 'int'}, {'type': '1'}]},"         \
  " {'name': '[4]', 'meta-type': 'array', 'element-type': '4'},"                                   \
  " {'name': '4', 'meta-type': 'alternate', 'members': [{'type': '[4]'}]},"                        \
  " {'name': 'x', 'meta-type': 7}, {'name': 8}, 9, null,"                                          \
  " {'name': 'bare', 'meta-type': 'command'}]"

static QmpSchema *
parse (const char *text)
{
  g_autofree char *copy = g_strdelimit (g_strdup (text), "'", '"');
  g_autoptr (json_t) root = json_loads (copy, 0, NULL);
  g_assert_nonnull (root);
  return qmp_schema_new (root, NULL);
}

static void
test_paths (void)
{
  g_autoptr (QmpSchema) schema = parse (SMALL);
  static const char *const has[]
      = { "kind",    "list", "list/deep", "ref",         "ref/ref",       "+a",
          "+a/deep", "+b",   "",          "ref/+a/deep", "ref/list/deep", "loop" };
  static const char *const lacks[]
      = { "kin",  "kinds", "kind/x", "list/x", "+c", "+",          "+b/deep",
          "deep", "lost",  "lost/x", "loop/x", "/",  "list//deep", "ref/+c" };
  for (size_t i = 0; i < G_N_ELEMENTS (has); i++)
    if (!qmp_schema_has_argument (schema, "go", has[i]))
      g_error ("'%s' is not there", has[i]);
  for (size_t i = 0; i < G_N_ELEMENTS (lacks); i++)
    if (qmp_schema_has_argument (schema, "go", lacks[i]))
      g_error ("'%s' is there", lacks[i]);
  g_assert_true (qmp_schema_has_command (schema, "go"));
  g_assert_true (qmp_schema_has_command (schema, "bare"));
  g_assert_false (qmp_schema_has_argument (schema, "bare", "x"));
  g_assert_false (qmp_schema_has_command (schema, "STOP"));
  g_assert_false (qmp_schema_has_command (schema, "1"));
  g_assert_false (qmp_schema_has_command (schema, "x"));
  g_assert_false (qmp_schema_has_command (schema, "stop"));
}

static void
test_nonsense (void)
{
  static const char *const texts[] = { "[]", "{}", "[1]", "[{'name': 1}]" };
  for (size_t i = 0; i < G_N_ELEMENTS (texts); i++)
    g_assert_null (parse (texts[i]));
  g_autoptr (json_t) number = json_integer (1);
  g_autoptr (TmkError) err = NULL;
  g_assert_null (qmp_schema_new (number, &err));
  assert_error (&err, TMK_ERR_INVALID, "lists nothing");
}

/* What the backup engine relies on in every QEMU that is supported. */
static void
assert_block_layer (QmpClient *client)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (QmpSchema) schema = qmp_schema_read (client, &err);
  assert_no_error (err);
  g_assert_true (qmp_schema_has_command (schema, "blockdev-backup"));
  g_assert_true (qmp_schema_has_argument (schema, "blockdev-backup", "bitmap-mode"));
  g_assert_true (qmp_schema_has_argument (schema, "transaction", "actions/+blockdev-backup"));
  g_assert_true (
      qmp_schema_has_argument (schema, "transaction", "actions/+blockdev-backup/data/bitmap"));
  g_assert_true (qmp_schema_has_argument (schema, "blockdev-add", "+copy-before-write"));
  g_assert_true (
      qmp_schema_has_argument (schema, "blockdev-add", "+copy-before-write/target/+qcow2/file"));
  g_assert_true (qmp_schema_has_argument (schema, "blockdev-create", "options/+qcow2/data-file"));
  g_assert_true (qmp_schema_has_argument (schema, "block-dirty-bitmap-merge", "bitmaps/node"));
  g_assert_false (qmp_schema_has_command (schema, "make-coffee"));
  g_assert_false (qmp_schema_has_argument (schema, "blockdev-backup", "sugar"));
  g_assert_false (qmp_schema_has_argument (schema, "blockdev-add", "+coffee"));
  g_assert_false (qmp_schema_has_argument (schema, "transaction", "actions/+make-coffee"));
  if (qmp_client_version (client) >= 70200)
    g_assert_true (
        qmp_schema_has_argument (schema, "blockdev-add", "+copy-before-write/on-cbw-error"));
  if (qmp_client_version (client) < 80000)
    g_assert_false (qmp_schema_has_argument (schema, "blockdev-backup", "on-cbw-error"));
}

static void
test_daemon (void)
{
  Daemon d;
  if (start_daemon (&d)) {
    g_autoptr (QmpClient) client = open_started (d.socket);
    assert_block_layer (client);
    g_autoptr (QmpSchema) schema = qmp_schema_read (client, NULL);
    g_assert_false (qmp_schema_has_command (schema, "human-monitor-command"));
  }
  end_daemon (&d);
}

static void
test_qemu (void)
{
  Daemon d = { .folder = make_folder () };
  d.socket = g_build_filename (d.folder, "monitor", NULL);
  g_autofree char *chardev = g_strdup_printf ("unix:%s,server=on,wait=off", d.socket);
  d.pid = start_process (d.folder, "qemu-system-x86_64", "-M", "none", "-S", "-nodefaults",
                         "-display", "none", "-qmp", chardev, NULL);
  if (d.pid != 0) {
    g_autoptr (QmpClient) client = open_started (d.socket);
    assert_block_layer (client);
    g_autoptr (QmpSchema) schema = qmp_schema_read (client, NULL);
    g_assert_true (qmp_schema_has_command (schema, "human-monitor-command"));
  }
  end_daemon (&d);
}

static void
test_quirks (void)
{
  for (QmpQuirk quirk = QUIRK_NBD_IOTHREAD_ABORT; quirk <= QUIRK_REOPEN_UNDO_ABORT; quirk++) {
    g_assert_true (qmp_has_quirk (70222, quirk));
    g_assert_true (qmp_has_quirk (90299, quirk)); /* nobody tried it */
    g_assert_false (qmp_has_quirk (100000, quirk));
    g_assert_false (qmp_has_quirk (100013, quirk));
  }
  g_assert_true (qmp_has_quirk (100013, QUIRK_CBW_ERROR_REACHES_GUEST));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/qmp-schema/paths", test_paths);
  g_test_add_func ("/qmp-schema/nonsense", test_nonsense);
  g_test_add_func ("/qmp-schema/daemon", test_daemon);
  g_test_add_func ("/qmp-schema/qemu", test_qemu);
  g_test_add_func ("/qmp-schema/quirks", test_quirks);
  return g_test_run ();
}
