/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: the builders make exactly the JSON written here, and QEMU accepts it. */
#include "test-qmp-peers.h"

#include "qmp/commands.h"

static void
assert_json (json_t *value /* stolen */, const char *expected)
{
  char *text = json_dumps (value, JSON_COMPACT | JSON_SORT_KEYS);
  g_assert_cmpstr (text, ==, expected);
  free (text);
  json_decref (value);
}

static void
test_bitmaps (void)
{
  assert_json (qmp_action_bitmap_add ("n0", "c\"1", true, false),
               "{\"data\":{\"disabled\":false,\"name\":\"c\\\"1\",\"node\":\"n0\","
               "\"persistent\":true},\"type\":\"block-dirty-bitmap-add\"}");
  assert_json (qmp_action_bitmap_add ("n0", "t", false, true),
               "{\"data\":{\"disabled\":true,\"name\":\"t\",\"node\":\"n0\","
               "\"persistent\":false},\"type\":\"block-dirty-bitmap-add\"}");
  assert_json (qmp_action_bitmap_remove ("n0", "c1"), "{\"data\":{\"name\":\"c1\",\"node\":\"n0\"},"
                                                      "\"type\":\"block-dirty-bitmap-remove\"}");
  const char *const sources[] = { "top", "base" };
  assert_json (qmp_action_bitmap_merge ("top", "t", sources, 2, "c1"),
               "{\"data\":{\"bitmaps\":[{\"name\":\"c1\",\"node\":\"top\"},"
               "{\"name\":\"c1\",\"node\":\"base\"}],\"node\":\"top\",\"target\":\"t\"},"
               "\"type\":\"block-dirty-bitmap-merge\"}");
}

static void
test_backup (void)
{
  QmpBackup full = { .job_id = "j", .device = "d", .target = "t" };
  assert_json (qmp_action_backup (&full),
               "{\"data\":{\"auto-dismiss\":false,\"device\":\"d\",\"job-id\":\"j\","
               "\"sync\":\"full\",\"target\":\"t\"},\"type\":\"blockdev-backup\"}");
  QmpBackup all = { .job_id = "j",
                    .device = "d",
                    .target = "t",
                    .bitmap = "b",
                    .speed = G_MAXUINT64,
                    .compress = true,
                    .on_cbw_error = "break-snapshot" };
  assert_json (qmp_action_backup (&all),
               "{\"data\":{\"auto-dismiss\":false,\"bitmap\":\"b\",\"bitmap-mode\":\"never\","
               "\"compress\":true,\"device\":\"d\",\"job-id\":\"j\","
               "\"on-cbw-error\":\"break-snapshot\",\"speed\":9223372036854775807,"
               "\"sync\":\"bitmap\",\"target\":\"t\"},\"type\":\"blockdev-backup\"}");
}

/* Builders take what is not UTF-8; sending it is what fails (see test-qmp-client.c). */
static void
test_not_utf8 (void)
{
  g_autoptr (json_t) action = qmp_action_bitmap_remove ("\xff", "\xfe");
  g_assert_nonnull (json_object_get (json_object_get (action, "data"), "node"));
}

static void
create_image (QmpClient *client, const Daemon *d, const char *node)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *path = g_build_filename (d->folder, node, NULL);
  g_autofree char *file = g_strconcat (node, "-file", NULL);
  g_assert_true (qmp_blockdev_create (
      client, "create", json_pack ("{s:s,s:s,s:i}", "driver", "file", "filename", path, "size", 0),
      &err));
  g_assert_true (qmp_blockdev_add (client,
                                   json_pack ("{s:s,s:s,s:s,s:s}", "driver", "file", "node-name",
                                              file, "filename", path, "discard", "unmap"),
                                   &err));
  g_assert_true (qmp_blockdev_create (
      client, "create",
      json_pack ("{s:s,s:s,s:i}", "driver", "qcow2", "file", file, "size", 1 << 20), &err));
  g_assert_true (qmp_blockdev_add (
      client, json_pack ("{s:s,s:s,s:s}", "driver", "qcow2", "node-name", node, "file", file),
      &err));
  assert_no_error (err);
}

static void
finish_job (QmpClient *client, const char *id)
{
  g_autoptr (TmkError) err = NULL;
  for (;;) {
    g_autoptr (json_t) event
        = qmp_client_take_event_of (client, "JOB_STATUS_CHANGE", "id", id, 10000, &err);
    g_assert_nonnull (event);
    json_t *status = json_object_get (json_object_get (event, "data"), "status");
    if (g_strcmp0 (json_string_value (status), "concluded") == 0)
      break;
  }
  g_autoptr (json_t) jobs = qmp_query_jobs (client, &err);
  g_assert_cmpuint (json_array_size (jobs), ==, 1);
  g_assert_null (json_object_get (json_array_get (jobs, 0), "error"));
  g_assert_true (qmp_job_dismiss (client, id, &err));
}

/* The transaction that every incremental backup is made of. */
static void
test_daemon (void)
{
  g_autoptr (TmkError) err = NULL;
  Daemon d;
  if (start_daemon (&d)) {
    g_autoptr (QmpClient) client = open_started (d.socket);
    create_image (client, &d, "disk");
    create_image (client, &d, "full");
    create_image (client, &d, "inc");

    QmpBackup full = { .job_id = "full", .device = "disk", .target = "full", .compress = true };
    g_assert_true (
        qmp_transaction (client,
                         json_pack ("[o,o]", qmp_action_bitmap_add ("disk", "c1", true, false),
                                    qmp_action_backup (&full)),
                         &err));
    assert_no_error (err);
    finish_job (client, "full");

    const char *const sources[] = { "disk" };
    QmpBackup inc
        = { .job_id = "inc", .device = "disk", .target = "inc", .bitmap = "tmp", .speed = 1 << 30 };
    g_assert_true (
        qmp_transaction (client,
                         json_pack ("[o,o,o,o]", qmp_action_bitmap_add ("disk", "c2", true, false),
                                    qmp_action_bitmap_add ("disk", "tmp", false, true),
                                    qmp_action_bitmap_merge ("disk", "tmp", sources, 1, "c1"),
                                    qmp_action_backup (&inc)),
                         &err));
    assert_no_error (err);
    finish_job (client, "inc");
    g_assert_true (qmp_bitmap_remove (client, "disk", "tmp", &err));
    g_assert_true (
        qmp_transaction (client, json_pack ("[o]", qmp_action_bitmap_remove ("disk", "c1")), &err));
    g_assert_true (qmp_run (client, "quit", NULL, &err));
    assert_no_error (err);
  }
  end_daemon (&d);
}

/* --- query-status, of a QEMU that has no machine */

static void
test_status (void)
{
  g_autoptr (TmkError) err = NULL;
  Daemon d = { .folder = make_folder () };
  d.socket = g_build_filename (d.folder, "monitor", NULL);
  g_autofree char *chardev = g_strdup_printf ("unix:%s,server=on,wait=off", d.socket);
  d.pid = start_process (d.folder, "qemu-system-x86_64", "-M", "none", "-S", "-nodefaults",
                         "-display", "none", "-qmp", chardev, NULL);
  if (d.pid != 0) {
    g_autoptr (QmpClient) client = open_started (d.socket);
    bool running = true;
    g_autofree char *status = NULL;
    g_assert_true (qmp_query_status (client, &running, &status, &err));
    g_assert_false (running);
    g_assert_cmpstr (status, ==, "prelaunch");
    g_assert_true (qmp_run (client, "cont", NULL, &err));
    g_autoptr (json_t) event = qmp_client_take_event (client, "RESUME", 5000, &err);
    g_assert_nonnull (event);
    g_assert_true (qmp_query_status (client, &running, NULL, &err));
    g_assert_true (running);
    assert_no_error (err);
  }
  end_daemon (&d);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/qmp-commands/bitmaps", test_bitmaps);
  g_test_add_func ("/qmp-commands/backup", test_backup);
  g_test_add_func ("/qmp-commands/not-utf8", test_not_utf8);
  g_test_add_func ("/qmp-commands/daemon", test_daemon);
  g_test_add_func ("/qmp-commands/status", test_status);
  return g_test_run ();
}
