/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: a job's record names everything in the order in which it is made, results and status come
 * out as they went in, and what is taken back on the host is ours and nothing else. QEMU's side of
 * taking back is proven by tests/functional.
 */
#include "hv-case.h"

#include "hv/qmp/job.h"
#include "hv/qmp/undo.h"

/* --- a plan ---------------------------------------------------------------------------------- */

/* Full into a file, incremental into a file, encrypted into a device; a checkpoint of two. */
static JobPlan *
make_plan (bool with_checkpoint)
{
  g_autoptr (TmkError) err = NULL;
  g_auto (FakeQemu) qemu;
  fake_init (&qemu);
  fake_disk (&qemu, "vda", 1, "qcow2", 8 * MIB);
  fake_disk (&qemu, "vdb", 2, "qcow2", 4 * MIB);
  fake_disk (&qemu, "vdc", 1, "raw", 2 * MIB);
  fake_bitmap (&qemu, "vdb", "c1", MIB);
  g_autoptr (GPtrArray) disks = fake_disks (&qemu);
  g_autoptr (TmkDomainDef) domain = qmp_disks_to_def (disks, "vm", NULL);
  g_autoptr (GPtrArray) known = g_ptr_array_new ();
  const char *xml
      = "<domainbackup><disks><disk name='vda' type='file'><target file='/b/vda'/></disk>"
        "<disk name='vdb' type='file' incremental='c1'><target file='/b/vdb'/></disk>"
        "<disk name='vdc' type='block'><driver type='raw'/><target dev='/dev/b'>"
        "<encryption format='luks'><secret type='passphrase' usage='u'/></encryption></target>"
        "</disk></disks></domainbackup>";
  const char *text = "<domaincheckpoint><name>c2</name><disks><disk name='vda'/>"
                     "<disk name='vdb'/></disks></domaincheckpoint>";
  g_autoptr (TmkBackupDef) def = tmk_backup_def_parse (xml, strlen (xml), "b.xml", 0, &err);
  assert_no_error (err);
  g_autoptr (TmkCheckpointDef) checkpoint
      = tmk_checkpoint_def_parse (text, strlen (text), "c.xml", 0, &err);
  assert_no_error (err);
  JobPlanInput input = { .run = "0a1b2c3d",
                         .suffix = "later",
                         .disks = disks,
                         .domain = domain,
                         .def = def,
                         .checkpoint = with_checkpoint ? checkpoint : NULL,
                         .known = known };
  JobPlan *plan = job_plan_new (&input, &err);
  assert_no_error (err);
  return plan;
}

static json_t *
make_record (bool with_checkpoint, bool makes_files)
{
  static const QmpPlace place;
  QmpMachine machine = { .address = (char *) "unix:/run/vm", .place = &place };
  g_autoptr (JobPlan) plan = make_plan (with_checkpoint);
  return record_new (&machine, plan, NULL, makes_files);
}

/* --- the record ------------------------------------------------------------------------------ */

static void
test_new (void)
{
  gint64 before = g_get_real_time ();
  g_autoptr (json_t) record = make_record (true, true);
  guint64 started = jsonx_uint (record, "started_us");
  g_assert_cmpint ((gint64) started, >=, before);
  g_assert_cmpint ((gint64) started, <=, g_get_real_time ());
  json_object_del (record, "started_us");
  case_expect_json ("record.json", record);

  /* The definition in it is one, and its own alignment again. */
  g_autoptr (TmkError) err = NULL;
  const char *xml = jsonx_string (record, "definition");
  g_autoptr (TmkBackupDef) def
      = tmk_backup_def_parse (xml, strlen (xml), "job", TMK_XML_INTERNAL, &err);
  assert_no_error (err);
  g_autofree char *again = tmk_backup_def_format (def, TMK_XML_INTERNAL);
  g_assert_cmpstr (again, ==, xml);
}

/* "op of", in order: the reverse is how they are taken back. */
static char *
show_log (const json_t *log)
{
  GString *out = g_string_new (NULL);
  size_t i;
  json_t *entry;
  json_array_foreach (log, i, entry) {
    const char *of = jsonx_string (entry, "path");
    if (of == NULL)
      of = jsonx_string (entry, "id");
    if (of == NULL)
      of = jsonx_string (entry, "name");
    g_string_append_printf (out, "%s%s %s", i > 0 ? ", " : "", jsonx_string (entry, "op"), of);
  }
  return g_string_free (out, FALSE);
}

#define OURS "tmk-0a1b2c3d-"

static void
test_log_order (void)
{
  g_autoptr (json_t) all = make_record (true, true);
  g_autofree char *text = show_log (json_object_get (all, "undo"));
  g_assert_cmpstr (text, ==,
                   "file /b/vda, file /b/vdb,"
                   " node " OURS "f0, node " OURS "t0, job " OURS "j0-create,"
                   " node " OURS "f1, node " OURS "t1, job " OURS "j1-create,"
                   " secret " OURS "s2, node " OURS "f2, node " OURS "t2, job " OURS "j2-create,"
                   " checkpoint c2, checkpoint c2,"
                   " job " OURS "j0, bitmap " OURS "b1, job " OURS "j1, job " OURS "j2");

  /* Files that were there before are not ours to remove. */
  g_autoptr (json_t) less = make_record (false, false);
  g_autofree char *rest = show_log (json_object_get (less, "undo"));
  g_assert_null (strstr (rest, "file"));
  g_assert_null (strstr (rest, "checkpoint"));
  g_assert_true (json_is_null (json_object_get (less, "checkpoint")));
  g_assert_true (json_is_null (json_object_get (less, "checkpoint_name")));
}

static void
test_set_file (void)
{
  g_autoptr (json_t) record = make_record (true, true);
  g_autoptr (json_t) before = json_deep_copy (record);
  record_set_file (record, "/b/unknown", 1, 2);
  g_assert_true (json_equal (record, before));
  record_set_file (record, "/b/vdb", 17, 0x7fffffffffff);
  const json_t *log = json_object_get (record, "undo");
  const json_t *entry = json_array_get (log, 1);
  g_assert_cmpstr (jsonx_string (entry, "op"), ==, "file");
  g_assert_cmpstr (jsonx_string (entry, "path"), ==, "/b/vdb");
  g_assert_cmpuint (jsonx_uint (entry, "dev"), ==, 17);
  g_assert_cmpuint (jsonx_uint (entry, "ino"), ==, 0x7fffffffffff);
  g_assert_cmpuint (jsonx_uint (json_array_get (log, 0), "ino"), ==, 0);
  g_assert_cmpuint (json_array_size (log), ==, json_array_size (json_object_get (before, "undo")));
}

static void
test_phase (void)
{
  g_autoptr (json_t) record = make_record (false, true);
  g_assert_true (record_in_phase (record, "starting"));
  record_set_phase (record, "running");
  g_assert_cmpstr (record_phase (record), ==, "running");
  g_autoptr (json_t) damaged = json_object ();
  g_assert_cmpstr (record_phase (damaged), ==, "starting"); /* the safe guess: undo all */
}

static void
test_result (void)
{
  g_autoptr (json_t) record = make_record (false, true);
  g_assert_null (record_error (record));
  record_set_result (record, "done", NULL);
  g_assert_null (record_error (record));

  for (int code = TMK_ERR_FAILED; code <= TMK_ERR_INTERNAL; code++) {
    g_autoptr (TmkError) err = NULL;
    error_set (&err, "hv", (TmkErrorCode) code, 0, "disk '%s': 100%% wrong", "vda");
    if (code % 2 == 0)
      error_hint (&err, "do %s", "%s%n");
    record_set_result (record, "failed", err);
    char *text = json_dumps (record, 0); /* by way of the file */
    g_autoptr (json_t) back = json_loads (text, 0, NULL);
    free (text);
    g_autoptr (TmkError) again = record_error (back);
    g_assert_cmpint (tmk_error_code (again), ==, code);
    g_assert_cmpstr (tmk_error_message (again), ==, tmk_error_message (err));
    g_assert_cmpstr (tmk_error_hint (again), ==, tmk_error_hint (err));
  }
}

/* --- status ---------------------------------------------------------------------------------- */

static void
assert_state (const json_t *record, TmkJobState state)
{
  TmkJobStatus *status = record_to_status (record);
  g_assert_cmpstr (tmk_job_state_name (status->state), ==, tmk_job_state_name (state));
  tmk_job_status_free (status);
}

static void
test_status_states (void)
{
  assert_state (NULL, TMK_JOB_NONE);
  g_autoptr (json_t) record = make_record (true, true);
  assert_state (record, TMK_JOB_INTERRUPTED);
  record_set_phase (record, "running");
  assert_state (record, TMK_JOB_RUNNING);
  record_set_result (record, "done", NULL);
  record_set_phase (record, "ending");
  assert_state (record, TMK_JOB_RUNNING); /* not before all is settled */
  record_set_phase (record, "ended");
  assert_state (record, TMK_JOB_DONE);
  record_set_result (record, "cancelled", NULL);
  assert_state (record, TMK_JOB_CANCELLED);
  record_set_result (record, "failed", NULL);
  assert_state (record, TMK_JOB_FAILED);
  json_object_del (record, "result");
  assert_state (record, TMK_JOB_FAILED); /* nothing says that it went well */
}

static void
test_status (void)
{
  g_autoptr (json_t) record = make_record (true, true);
  json_t *disks = json_object_get (record, "disks");
  json_object_set_new (json_array_get (disks, 0), "done", json_integer (100));
  json_object_set_new (json_array_get (disks, 1), "done", json_integer (23));
  json_object_set_new (json_array_get (disks, 1), "state", json_string ("failed"));
  json_object_set_new (json_array_get (disks, 1), "error", json_string ("Input/output error"));
  json_object_set_new (record, "ended_us", json_integer (77));
  json_object_set_new (record, "pause_us", json_integer (5));
  record_set_phase (record, "ended");
  g_autoptr (TmkError) err = NULL;
  error_set (&err, "hv", TMK_ERR_IO, 0, "it failed");
  error_hint (&err, "try again");
  record_set_result (record, "failed", err);

  g_autoptr (TmkJobStatus) status = record_to_status (record);
  g_clear_pointer (&record, json_decref); /* a status stands alone */
  g_assert_cmpstr (status->id, ==, "0a1b2c3d");
  g_assert_false (status->pull);
  g_assert_cmpstr (status->checkpoint, ==, "c2");
  g_assert_cmpint (status->started_us, >, 0);
  g_assert_cmpint (status->ended_us, ==, 77);
  g_assert_cmpuint (status->pause_us, ==, 5);
  g_assert_cmpstr (status->error, ==, "it failed");
  g_assert_cmpstr (status->hint, ==, "try again");
  g_assert_cmpuint (status->n_disks, ==, 3);
  g_assert_cmpuint (status->done, ==, 123);
  g_assert_cmpuint (status->total, ==, 2 * MIB + MIB + MIB / 2); /* a quarter, dirty, a quarter */
  g_assert_cmpstr (status->disks[0]->name, ==, "vda");
  g_assert_cmpstr (status->disks[0]->mode, ==, "full");
  g_assert_cmpstr (status->disks[0]->state, ==, "running");
  g_assert_null (status->disks[0]->incremental);
  g_assert_null (status->disks[0]->error);
  g_assert_cmpstr (status->disks[1]->mode, ==, "incremental");
  g_assert_cmpstr (status->disks[1]->incremental, ==, "c1");
  g_assert_cmpstr (status->disks[1]->target, ==, "/b/vdb");
  g_assert_cmpstr (status->disks[1]->error, ==, "Input/output error");
  g_assert_cmpstr (status->disks[2]->format, ==, "raw");
}

/* A record that is not what it should be is shown as far as it goes. */
static void
test_status_damaged (void)
{
  const char *const bad[] = { "{}", "[]", "{\"disks\": 3, \"result\": []}",
                              "{\"disks\": [1, {}, null], \"phase\": 4}" };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (json_t) record = json_loads (bad[i], 0, NULL);
    g_autoptr (TmkJobStatus) status = record_to_status (record);
    g_assert_cmpint (status->state, ==, TMK_JOB_INTERRUPTED);
    g_assert_cmpuint (status->n_disks, ==, i == 3 ? 3 : 0);
  }
}

/* --- taking back without QEMU ---------------------------------------------------------------- */

static char *folder;

/* A file in the folder; its path, and a log entry for it if `log` is not NULL. `ino` 0: as written
 * before it was made; 1: its own. */
static char *
make_file (const char *name, const char *text, json_t *log, int ino)
{
  char *path = g_build_filename (folder, name, NULL);
  g_assert_true (g_file_set_contents (path, text, -1, NULL));
  GStatBuf st;
  g_assert_cmpint (g_stat (path, &st), ==, 0);
  if (log != NULL)
    json_array_append_new (log, ino ? undo_file (path, st.st_dev, st.st_ino, false)
                                    : undo_file (path, 0, 0, false));
  return path;
}

static void
assert_there (const char *path, bool there)
{
  GStatBuf st;
  g_assert_cmpint (g_lstat (path, &st) == 0, ==, there);
}

static json_t *
run (const json_t *log, bool failed)
{
  g_autoptr (TmkError) err = NULL;
  QmpMachine machine = { 0 };
  json_t *rest = NULL;
  g_assert_true (undo_run (&machine, log, failed, &rest, &err));
  assert_no_error (err);
  return rest;
}

static void
test_undo_files (void)
{
  g_autoptr (json_t) log = json_array ();
  g_autofree char *ours = make_file ("ours", "data", log, 1);
  g_autofree char *cut_off = make_file ("cut-off", "", log, 0);
  g_autofree char *full = make_file ("full", "somebody's", log, 0);
  g_autofree char *replaced = make_file ("replaced", "data", log, 1);
  g_autofree char *empty = make_file ("empty", "", log, 1);

  /* Ours was removed meanwhile, and another is there now: also with the same content, or empty. */
  g_autofree char *theirs = make_file ("theirs", "data", NULL, 0);
  g_assert_cmpint (g_rename (theirs, replaced), ==, 0);
  g_autofree char *blank = make_file ("blank", "", NULL, 0);
  g_assert_cmpint (g_rename (blank, empty), ==, 0);

  /* The same number on another file system. */
  g_autofree char *elsewhere = make_file ("elsewhere", "data", NULL, 0);
  GStatBuf st;
  g_assert_cmpint (g_stat (elsewhere, &st), ==, 0);
  json_array_append_new (log, undo_file (elsewhere, st.st_dev + 1, st.st_ino, false));

  /* Never made; a folder; a link to an empty file. */
  g_autofree char *never = g_build_filename (folder, "never", NULL);
  json_array_append_new (log, undo_file (never, 0, 0, false));
  json_array_append_new (log, undo_file (never, 1, 2, false));
  g_autofree char *sub = g_build_filename (folder, "sub", NULL);
  g_assert_cmpint (g_mkdir (sub, 0700), ==, 0);
  json_array_append_new (log, undo_file (sub, 0, 0, false));
  g_autofree char *aim = make_file ("aim", "", NULL, 0);
  g_autofree char *link = g_build_filename (folder, "link", NULL);
  g_assert_cmpint (symlink (aim, link), ==, 0);
  json_array_append_new (log, undo_file (link, 0, 0, false));

  for (int twice = 0; twice < 2; twice++) { /* whoever was killed here begins again */
    g_autoptr (json_t) rest = run (log, true);
    g_assert_cmpuint (json_array_size (rest), ==, 0);
    assert_there (ours, false);
    assert_there (cut_off, false);
    assert_there (full, true);
    assert_there (replaced, true);
    assert_there (empty, true);
    assert_there (elsewhere, true);
    assert_there (sub, true);
    assert_there (aim, true);
    assert_there (link, true);
  }
}

static void
test_undo_success (void)
{
  g_autoptr (json_t) log = json_array ();
  g_autofree char *backup = make_file ("backup", "data", log, 1);
  g_autofree char *blank = make_file ("nothing", "", log, 0);
  json_array_append_new (log, undo_checkpoint ("vda", "n0", "c1"));
  g_autoptr (json_t) rest = run (log, false);
  g_assert_cmpuint (json_array_size (rest), ==, 0); /* it stays: nothing is left to do */
  assert_there (backup, true);
  assert_there (blank, true);
}

/* What only QEMU can take back ends with it, but for what is stored in the images. */
static void
test_undo_rest (void)
{
  g_autoptr (json_t) log = json_array ();
  json_array_append_new (log, undo_secret ("s"));
  json_array_append_new (log, undo_node ("n"));
  json_array_append_new (log, undo_checkpoint ("vda", "n0", "c1"));
  json_array_append_new (log, undo_checkpoint ("vdb", "n1", "c1"));
  json_array_append_new (log, undo_bitmap ("n0", "tmk-b"));
  json_array_append_new (log, undo_job ("j"));
  g_autoptr (json_t) before = json_deep_copy (log);
  g_autoptr (json_t) rest = run (log, true);
  g_assert_true (json_equal (log, before));
  g_assert_cmpuint (json_array_size (rest), ==, 2);
  g_assert_true (json_equal (json_array_get (rest, 0), json_array_get (log, 2)));
  g_assert_true (json_equal (json_array_get (rest, 1), json_array_get (log, 3)));
  g_autoptr (json_t) again = run (rest, true); /* still not there */
  g_assert_true (json_equal (again, rest));
}

/* One that fails does not keep the others from being taken back. */
static void
test_undo_failure (void)
{
  g_autoptr (json_t) log = json_array ();
  g_autofree char *first = make_file ("first", "data", log, 1);
  g_autofree char *below = g_build_filename (first, "below", NULL); /* ENOTDIR, also for root */
  json_array_append_new (log, undo_file (below, 1, 2, false));
  json_array_append_new (log, undo_checkpoint ("vda", "n0", "c1"));
  g_autofree char *last = make_file ("last", "data", log, 1);
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) rest = NULL;
  QmpMachine machine = { 0 };
  g_assert_false (undo_run (&machine, log, true, &rest, &err));
  assert_contains (tmk_error_message (err), "first/below");
  g_assert_cmpuint (json_array_size (rest), ==, 1);
  assert_there (first, false);
  assert_there (last, false);
}

/* A record from outside may hold anything. */
static void
test_undo_damaged (void)
{
  g_autoptr (json_t) log = json_loads ("[1, null, {}, {\"op\": 3}, {\"op\": \"file\"},"
                                       " {\"op\": \"file\", \"path\": 7}, {\"op\": \"node\"},"
                                       " {\"op\": \"checkpoint\"}, {\"op\": \"job\"}]",
                                       0, NULL);
  for (int failed = 0; failed < 2; failed++) {
    g_autoptr (TmkError) err = NULL;
    g_autoptr (json_t) rest = NULL;
    QmpMachine machine = { 0 };
    bool ok = undo_run (&machine, log, failed, &rest, &err);
    g_assert_cmpint (ok, ==, err == NULL);
  }
  g_autoptr (json_t) nothing = run (NULL, true);
  g_assert_cmpuint (json_array_size (nothing), ==, 0);
}

/* --- ending without QEMU --------------------------------------------------------------------- */

/* A machine whose QEMU is gone, with a record of a job that has failed and left one file. */
static json_t *
gone_machine (QmpMachine *machine, const char *key, char **left)
{
  g_autoptr (TmkError) err = NULL;
  *machine = (QmpMachine){ .address = (char *) "unix:/run/vm" };
  machine->state = state_open (folder, key, machine->address, &err);
  assert_no_error (err);
  json_t *record = make_record (true, true);
  json_t *log = json_object_get (record, "undo");
  *left = make_file (key, "data", log, 1);
  error_set (&err, "hv", TMK_ERR_GONE, 0, "QEMU went away");
  record_set_result (record, "failed", err);
  return record;
}

static void
test_end_gone (void)
{
  QmpMachine machine;
  g_autofree char *left = NULL;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record = gone_machine (&machine, "gone", &left);
  for (int twice = 0; twice < 2; twice++) { /* as after a kill just before its end */
    g_assert_true (job_end (&machine, record, &err));
    assert_no_error (err);
    assert_there (left, false);
    g_autoptr (json_t) job = state_read (machine.state, "job", &err);
    g_assert_null (job);
    g_autoptr (json_t) last = state_read (machine.state, "last", &err);
    assert_state (last, TMK_JOB_FAILED);
    g_assert_cmpuint (jsonx_uint (last, "ended_us"), >=, jsonx_uint (last, "started_us"));
    g_autoptr (json_t) pending = state_read (machine.state, "pending", &err);
    g_autofree char *text = show_log (pending);
    g_assert_true (g_str_has_prefix (text, "checkpoint c2, checkpoint c2"));
    g_autoptr (GPtrArray) known = state_checkpoints (machine.state, &err);
    g_assert_cmpuint (known->len, ==, 0); /* a failed job leaves no checkpoint */
    assert_no_error (err);
  }
  state_free (machine.state);
}

static void
test_end_done (void)
{
  QmpMachine machine;
  g_autofree char *left = NULL;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record = gone_machine (&machine, "done", &left);
  record_set_result (record, "done", NULL);
  /* As begin completes it: a description without a time is none. */
  g_autoptr (JobPlan) plan = make_plan (true);
  plan->checkpoint->creation_time = 1525889631;
  g_autofree char *xml = tmk_checkpoint_def_format (plan->checkpoint, TMK_XML_INTERNAL);
  json_object_set_new (record, "checkpoint", json_string (xml));
  g_assert_true (job_end (&machine, record, &err));
  assert_no_error (err);
  assert_there (left, true);
  g_autoptr (GPtrArray) known = state_checkpoints (machine.state, &err);
  g_assert_cmpuint (known->len, ==, 1);
  g_assert_null (state_read (machine.state, "pending", &err));
  assert_no_error (err);
  state_free (machine.state);
}

/* What is to be taken back must not be lost, and the error is one. */
static void
test_end_damaged (void)
{
  QmpMachine machine;
  g_autofree char *left = NULL;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record = gone_machine (&machine, "damaged", &left);
  g_autofree char *path = g_build_filename (folder, "domains", "damaged", "pending.json", NULL);
  g_assert_true (g_file_set_contents (path, "{", -1, NULL));
  g_assert_false (job_end (&machine, record, &err));
  assert_refused (err, TMK_ERR_DAMAGED, "pending.json");
  g_clear_pointer (&err, tmk_error_free);
  g_autoptr (json_t) job = state_read (machine.state, "job", &err);
  g_assert_true (record_in_phase (job, "ending")); /* the next one goes on from here */
  g_assert_true (state_remove (machine.state, "pending", &err));
  g_assert_true (job_end (&machine, job, &err));
  assert_no_error (err);
  state_free (machine.state);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = make_folder ();
  g_test_add_func ("/hv-record/new", test_new);
  g_test_add_func ("/hv-record/log-order", test_log_order);
  g_test_add_func ("/hv-record/set-file", test_set_file);
  g_test_add_func ("/hv-record/phase", test_phase);
  g_test_add_func ("/hv-record/result", test_result);
  g_test_add_func ("/hv-record/status-states", test_status_states);
  g_test_add_func ("/hv-record/status", test_status);
  g_test_add_func ("/hv-record/status-damaged", test_status_damaged);
  g_test_add_func ("/hv-record/undo-files", test_undo_files);
  g_test_add_func ("/hv-record/undo-success", test_undo_success);
  g_test_add_func ("/hv-record/undo-rest", test_undo_rest);
  g_test_add_func ("/hv-record/undo-failure", test_undo_failure);
  g_test_add_func ("/hv-record/undo-damaged", test_undo_damaged);
  g_test_add_func ("/hv-record/end-gone", test_end_gone);
  g_test_add_func ("/hv-record/end-done", test_end_done);
  g_test_add_func ("/hv-record/end-damaged", test_end_damaged);
  int result = g_test_run ();
  remove_folder (folder);
  return result;
}
