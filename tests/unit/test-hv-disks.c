/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: disks are read as they are from what real QEMUs say (see data/hv/capture.py): chains,
 * filters, bitmaps, names, why not. What no QEMU can be made to say is made up here.
 */
#include "hv-case.h"

/* --- what real QEMUs say --------------------------------------------------------------------- */

static void
show_flag (GString *out, bool set, const char *name)
{
  if (set)
    g_string_append_printf (out, " %s", name);
}

static void
show_image (GString *out, const DiskImage *image)
{
  g_string_append_printf (out, "  image %s: %s on %s (%s)", image->node, image->driver,
                          image->file_node != NULL ? image->file_node : "itself",
                          image->file_driver);
  show_flag (out, image->read_only, "read-only");
  show_flag (out, image->can_persist, "can-persist");
  g_string_append_printf (
      out, "\n    %s, %" G_GUINT64_FORMAT " bytes, allocated %" G_GUINT64_FORMAT "\n",
      image->filename, image->size, image->allocated);
  for (guint i = 0; i < image->bitmaps->len; i++) {
    const NodeBitmap *bitmap = g_ptr_array_index (image->bitmaps, i);
    g_string_append_printf (out, "    bitmap %s: %" G_GUINT64_FORMAT " by %" G_GUINT64_FORMAT,
                            bitmap->name, bitmap->count, bitmap->granularity);
    show_flag (out, bitmap->persistent, "persistent");
    show_flag (out, bitmap->recording, "recording");
    show_flag (out, bitmap->inconsistent, "inconsistent");
    show_flag (out, bitmap->busy, "busy");
    g_string_append_c (out, '\n');
  }
}

static void
show_disk (GString *out, const QmpDisk *disk, const DiskDef *def)
{
  const char *why_not = qmp_disk_why_not (disk);
  g_string_append_printf (out, "disk %s: device %s", disk->name,
                          disk->qdev != NULL ? disk->qdev : "none");
  if (disk->drive != NULL)
    g_string_append_printf (out, ", drive %s", disk->drive);
  if (disk->qom_path != NULL)
    g_string_append_printf (out, "\n  at %s", disk->qom_path);
  g_string_append_printf (out, "\n  %s", disk->io_status != NULL ? disk->io_status : "no status");
  show_flag (out, disk->read_only, "read-only");
  show_flag (out, disk->removable, "removable");
  show_flag (out, disk->empty, "empty");
  show_flag (out, disk->temporary, "temporary");
  show_flag (out, disk->firmware, "firmware");
  g_string_append_printf (out, "\n  %s\n", why_not != NULL ? why_not : "can be backed up");
  g_string_append_printf (out, "  defined as %s:", storage_type_name (def->type));
  show_flag (out, def->readonly, "read-only");
  show_flag (out, def->empty, "empty");
  for (guint i = 0; i < def->chain->len; i++) {
    const DiskSourceDef *source = g_ptr_array_index (def->chain, i);
    g_string_append_printf (out, " %s:%s", source->format, source->path);
  }
  g_string_append_c (out, '\n');
  for (guint i = 0; i < disk->chain->len; i++)
    show_image (out, g_ptr_array_index (disk->chain, i));
  g_string_append_c (out, '\n');
}

static GPtrArray *
read_capture (const char *name)
{
  g_autofree char *file = g_strconcat (name, ".json", NULL);
  g_autofree char *path = case_path (file);
  json_error_t fault;
  g_autoptr (json_t) captured = json_load_file (path, 0, &fault);
  if (captured == NULL)
    g_error ("%s: %s", path, fault.text);
  FakeQemu qemu = { json_object_get (captured, "block"), json_object_get (captured, "blockstats"),
                    json_object_get (captured, "nodes") };
  return fake_disks (&qemu);
}

static void
test_capture (gconstpointer data)
{
  const char *name = data;
  g_autoptr (GPtrArray) disks = read_capture (name);
  g_autoptr (TmkDomainDef) def = qmp_disks_to_def (disks, "vm", NULL);
  g_assert_cmpstr (tmk_domain_def_name (def), ==, "vm");
  g_assert_null (tmk_domain_def_uuid (def));
  g_assert_cmpuint (def->disks->len, ==, disks->len);

  g_autoptr (GString) out = g_string_new (NULL);
  for (guint i = 0; i < disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (disks, i);
    const DiskDef *entry = g_ptr_array_index (def->disks, i);
    g_assert_cmpstr (entry->target, ==, disk->name);
    g_assert_true (qmp_disks_find (disks, disk->name) == disk);
    g_assert_true (domain_def_find_disk (def, disk->name) == entry);
    show_disk (out, disk, entry);
  }
  g_autofree char *golden = g_strconcat (name, ".disks", NULL);
  case_expect (golden, out->str);
}

/* The two that were captured differ in numbers that QEMU makes up, and in nothing else. */
static void
test_versions_agree (void)
{
  const char *const layouts[] = { "blockdev", "drive", "libvirt" };
  for (size_t i = 0; i < G_N_ELEMENTS (layouts); i++) {
    g_autofree char *seven = g_strconcat ("qemu7-", layouts[i], NULL);
    g_autofree char *ten = g_strconcat ("qemu10-", layouts[i], NULL);
    g_autoptr (GPtrArray) a = read_capture (seven);
    g_autoptr (GPtrArray) b = read_capture (ten);
    g_assert_cmpuint (a->len, ==, b->len);
    for (guint j = 0; j < a->len; j++) {
      const QmpDisk *x = g_ptr_array_index (a, j), *y = g_ptr_array_index (b, j);
      g_assert_cmpstr (qmp_disk_why_not (x), ==, qmp_disk_why_not (y));
      g_assert_cmpuint (x->chain->len, ==, y->chain->len);
      if (!g_str_has_prefix (x->name, "#block"))
        g_assert_cmpstr (x->name, ==, y->name);
    }
  }
}

/* The points that matter most, said a second time and not by a golden. */
static void
test_filters_and_chains (void)
{
  g_autoptr (GPtrArray) disks = read_capture ("qemu7-blockdev");

  const QmpDisk *vda = qmp_disks_find (disks, "vda");
  g_assert_cmpuint (vda->chain->len, ==, 3);
  g_assert_cmpstr (qmp_disk_active (vda)->node, ==, "top");
  g_assert_cmpstr (qmp_disk_active (vda)->filename, ==, "/images/top.qcow2");
  g_assert_cmpstr (((DiskImage *) g_ptr_array_index (vda->chain, 2))->node, ==, "base");
  g_assert_false (disk_image_bitmap (qmp_disk_active (vda), "c2")->recording);
  g_assert_false (disk_image_bitmap (qmp_disk_active (vda), "volatile")->persistent);
  g_assert_null (disk_image_bitmap (qmp_disk_active (vda), "old"));

  /* A throttle filter of the user's, and the filter of a running backup. */
  const QmpDisk *sd = qmp_disks_find (disks, "sd");
  g_assert_cmpuint (sd->chain->len, ==, 1);
  g_assert_cmpstr (qmp_disk_active (sd)->node, ==, "inner");
  g_assert_nonnull (disk_image_bitmap (qmp_disk_active (sd), "c1"));
  const QmpDisk *busy = qmp_disks_find (disks, "busy");
  g_assert_cmpuint (busy->chain->len, ==, 1);
  g_assert_cmpstr (qmp_disk_active (busy)->node, ==, "job");
  g_assert_cmpuint (qmp_disk_active (busy)->bitmaps->len, ==, 2); /* not those without a name */
  g_assert_true (disk_image_bitmap (qmp_disk_active (busy), "tmk-0-b0")->busy);

  g_assert_false (qmp_disk_active (qmp_disks_find (disks, "v2"))->can_persist);
  g_assert_false (qmp_disk_active (qmp_disks_find (disks, "plain"))->can_persist);
  const DiskImage *bare = qmp_disk_active (qmp_disks_find (disks, "bare"));
  g_assert_cmpstr (bare->driver, ==, "file");
  g_assert_null (bare->file_node);
  g_assert_null (qmp_disk_active (qmp_disks_find (disks, "tray")));
  g_assert_null (qmp_disks_find (disks, "target")); /* a node that no device uses is no disk */
}

/* --- what they do not ------------------------------------------------------------------------ */

static void
test_nonsense (void)
{
  g_autoptr (json_t) list = json_array ();
  g_autoptr (json_t) object = json_object ();
  json_t *const bad[] = { object, NULL };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++)
    for (int which = 0; which < 3; which++) {
      g_autoptr (TmkError) err = NULL;
      g_assert_null (qmp_disks_new (which == 0 ? bad[i] : list, which == 1 ? bad[i] : list,
                                    which == 2 ? bad[i] : list, &err));
      g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
    }

  /* Members that are missing or of another type make no crash and no medium. */
  g_autoptr (json_t) block = json_loads (
      "[1, null, [], {}, {\"qdev\": 3, \"inserted\": 4}, {\"qdev\": \"\", \"device\": {}},"
      " {\"qdev\": \"a\", \"inserted\": {\"node-name\": \"n\"}},"
      " {\"qdev\": \"b\", \"inserted\": {\"node-name\": \"gone\"}}]",
      0, NULL);
  g_autoptr (json_t) stats = json_loads (
      "[2, {}, {\"qdev\": \"a\", \"node-name\": \"n\", \"backing\": [1], \"parent\": 7},"
      " {\"qdev\": \"b\", \"node-name\": \"gone\", \"backing\": {\"node-name\": 1}}]",
      0, NULL);
  g_autoptr (json_t) nodes
      = json_loads ("[3, {}, {\"node-name\": \"n\", \"dirty-bitmaps\": [5, {}, {\"name\": \"\"},"
                    " {\"name\": \"x\", \"count\": -1, \"granularity\": \"y\"}],"
                    " \"image\": {\"virtual-size\": -5, \"format-specific\": []}}]",
                    0, NULL);
  g_autoptr (TmkError) err = NULL;
  g_autoptr (GPtrArray) disks = qmp_disks_new (block, stats, nodes, &err);
  assert_no_error (err);
  const QmpDisk *a = qmp_disks_find (disks, "a");
  g_assert_cmpuint (qmp_disk_active (a)->bitmaps->len, ==, 1);
  g_assert_cmpuint (qmp_disk_active (a)->size, ==, 0);
  g_assert_cmpuint (disk_image_bitmap (qmp_disk_active (a), "x")->count, ==, 0);
  g_assert_true (qmp_disks_find (disks, "b")->empty);
  g_autoptr (TmkDomainDef) def = qmp_disks_to_def (disks, NULL, "u");
  g_assert_cmpstr (tmk_domain_def_uuid (def), ==, "u");
}

/* A chain without an end must end. */
static void
test_endless (void)
{
  g_auto (FakeQemu) qemu;
  fake_init (&qemu);
  fake_disk (&qemu, "vda", 300, "qcow2", MIB);
  g_autoptr (GPtrArray) disks = fake_disks (&qemu);
  const QmpDisk *disk = g_ptr_array_index (disks, 0);
  g_assert_cmpuint (disk->chain->len, ==, 200);
}

static void
test_why_not (void)
{
  g_auto (FakeQemu) qemu;
  fake_init (&qemu);
  fake_disk (&qemu, "vda", 1, "qcow2", MIB);
  g_autoptr (GPtrArray) disks = fake_disks (&qemu);
  QmpDisk *disk = g_ptr_array_index (disks, 0);
  g_assert_null (qmp_disk_why_not (disk));
  bool *const flags[]
      = { &disk->temporary, &disk->read_only, &disk->removable, &disk->firmware, &disk->empty };
  const char *const words[] = { "snapshot=on", "read-only", "removable", "firmware", "empty" };
  for (size_t i = 0; i < G_N_ELEMENTS (flags); i++) {
    *flags[i] = true; /* the one that says most comes first */
    assert_contains (qmp_disk_why_not (disk), words[i]);
  }
  QmpDisk unused = { .chain = disk->chain };
  assert_contains (qmp_disk_why_not (&unused), "no device");
}

/* What QEMU names a temporary image may be the name of a real one, too. */
static void
test_temporary (void)
{
  char *folder = make_folder ();
  g_autofree char *real = g_build_filename (folder, "vl.abcdef", NULL);
  g_assert_true (g_file_set_contents (real, "", -1, NULL));
  const struct {
    const char *path;
    bool temporary;
  } rows[] = {
    { real, false },          { "/nowhere/vl.abcdef", true }, { "/nowhere/vl.abcde", false },
    { "/nowhere/vl", false }, { "vl.abcdef", true },          { "/nowhere/xl.abcdef", false },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_auto (FakeQemu) qemu;
    fake_init (&qemu);
    fake_disk (&qemu, "vda", 1, "qcow2", MIB);
    json_object_set_new (fake_find_node (&qemu, "vda-file"), "file", json_string (rows[i].path));
    g_autoptr (GPtrArray) disks = fake_disks (&qemu);
    g_assert_cmpint (((QmpDisk *) g_ptr_array_index (disks, 0))->temporary, ==, rows[i].temporary);
  }
  remove_folder (folder);
}

static void
test_storage_types (void)
{
  const struct {
    const char *driver;
    StorageType type;
  } rows[] = {
    { "file", STORAGE_FILE },
    { "host_device", STORAGE_BLOCK },
    { "nvme", STORAGE_NVME },
    { "nbd", STORAGE_NETWORK },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_auto (FakeQemu) qemu;
    fake_init (&qemu);
    fake_disk (&qemu, "vda", 1, "raw", MIB);
    json_object_set_new (fake_find_node (&qemu, "vda-file"), "drv", json_string (rows[i].driver));
    g_autoptr (GPtrArray) disks = fake_disks (&qemu);
    g_autoptr (TmkDomainDef) def = qmp_disks_to_def (disks, NULL, NULL);
    g_assert_cmpint (((DiskDef *) g_ptr_array_index (def->disks, 0))->type, ==, rows[i].type);
  }
}

/* --- names ----------------------------------------------------------------------------------- */

static void
test_alias (void)
{
  static const struct {
    const char *alias, *target;
  } rows[] = {
    { "virtio-disk0", "vda" },
    { "virtio-disk25", "vdz" },
    { "virtio-disk26", "vdaa" },
    { "virtio-disk701", "vdzz" },
    { "virtio-disk702", "vdaaa" },
    { "virtio-disk999", "vdall" },
    { "usb-disk1", "sdb" },
    { "scsi0-0-0-0", "sda" },
    { "scsi0-0-0-6", "sdg" },
    { "scsi1-0-0-0", "sdh" },
    { "scsi0-0-2", "sdc" }, /* lsilogic */
    { "sata0-0-5", "sdf" },
    { "sata1-0-0", "sdg" },
    { "ide0-0-1", "hdb" },
    { "ide0-1-0", "hdc" },
    { "fdc0-0-1", "fdb" },
    /* what libvirt would not make */
    { "scsi0-0-0-7", NULL },
    { "scsi0-1-0-0", NULL },
    { "scsi0-0-3-0", NULL },
    { "scsi0-0-7", NULL },
    { "scsi0-1-0", NULL },
    { "scsi0-0", NULL },
    { "scsi0-0-0-0-0", NULL },
    { "virtio-disk", NULL },
    { "virtio-diskx", NULL },
    { "virtio-disk0x", NULL },
    { "virtio-disk1234", NULL },
    { "virtio-disk4294967296", NULL },
    { "virtio-disk-1", NULL },
    { "virtio-disk+1", NULL },
    { "virtio-disk 1", NULL },
    { "scsi0-0-0- 1", NULL },
    { "ide0-0", NULL },
    { "ide0-2-0", NULL },
    { "ide0-0-2", NULL },
    { "sata0-1-0", NULL },
    { "sata0-0-6", NULL },
    { "fdc0-0-2", NULL },
    { "", NULL },
    { "vda", NULL },
    { "ua-virtio-disk0", NULL },
    { "xvirtio-disk0", NULL },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_autofree char *target = qmp_disk_target_of_alias (rows[i].alias);
    g_assert_cmpstr (target, ==, rows[i].target);
  }
}

static TmkDomainDef *
parse_domain (const char *disks)
{
  g_autoptr (TmkError) err = NULL;
  g_autofree char *xml
      = g_strdup_printf ("<domain type='kvm'><name>vm</name><devices>%s</devices></domain>", disks);
  TmkDomainDef *def = tmk_domain_def_parse (xml, strlen (xml), "vm.xml", &err);
  assert_no_error (err);
  return def;
}

#define DISK(target, path, alias)                                                                  \
  "<disk type='file' device='disk'><source file='" path "'/><target dev='" target "'/>" alias      \
  "</disk>"
#define ALIAS(name) "<alias name='" name "'/>"

static void
test_apply_names (void)
{
  g_autoptr (GPtrArray) disks = read_capture ("qemu7-blockdev");
  g_autoptr (TmkDomainDef) def = parse_domain (
      /* by alias, though the path is another disk's */
      DISK ("root", "/images/anon.qcow2", ALIAS ("vda"))
      /* by path alone, of the file below a filter and of an anonymous device */
      DISK ("slow", "/images/scsi.qcow2", "") DISK ("one", "/images/plain.raw", ALIAS ("other"))
      /* a disk that is not there */
      DISK ("gone", "/images/gone.qcow2", ALIAS ("gone")));
  qmp_disks_apply_names (disks, def);
  g_assert_cmpstr (qmp_disk_active (qmp_disks_find (disks, "root"))->node, ==, "top");
  g_assert_cmpstr (qmp_disk_active (qmp_disks_find (disks, "slow"))->node, ==, "inner");
  g_assert_cmpstr (qmp_disk_active (qmp_disks_find (disks, "one"))->node, ==, "plain");
  g_assert_null (qmp_disks_find (disks, "gone"));
  g_assert_null (qmp_disks_find (disks, "vda"));
  g_assert_nonnull (qmp_disks_find (disks, "nvme0")); /* keeps the name it had */
}

/* Two disks of one name would mean that one is backed up twice, and the other never. */
static void
test_names_differ (void)
{
  g_auto (FakeQemu) qemu;
  fake_init (&qemu);
  const char *const ids[] = { "scsi0-0-0-1", "sata0-0-1", "usb-disk1", "ua-sdb", "sdb" };
  for (size_t i = 0; i < G_N_ELEMENTS (ids); i++)
    fake_disk (&qemu, ids[i], 1, "qcow2", MIB);
  g_autoptr (GPtrArray) disks = fake_disks (&qemu);
  const char *const names[] = { "scsi0-0-0-1", "sata0-0-1", "usb-disk1", "ua-sdb", "sdb" };
  for (size_t i = 0; i < G_N_ELEMENTS (names); i++)
    g_assert_cmpstr (((QmpDisk *) g_ptr_array_index (disks, i))->name, ==, names[i]);

  /* Names from the domain's description come first. */
  g_autoptr (TmkDomainDef) def = parse_domain (DISK ("sdb", "/images/x", ALIAS ("usb-disk1")) DISK (
      "usb-disk1", "/images/y", ALIAS ("sata0-0-1")));
  qmp_disks_apply_names (disks, def);
  const char *const given[] = { "scsi0-0-0-1", "usb-disk1", "sdb", "ua-sdb", "sdb-2" };
  for (size_t i = 0; i < G_N_ELEMENTS (given); i++)
    g_assert_cmpstr (((QmpDisk *) g_ptr_array_index (disks, i))->name, ==, given[i]);

  /* Two drives of one image cannot both be the disk that has it. */
  g_auto (FakeQemu) shared;
  fake_init (&shared);
  fake_disk (&shared, "a", 1, "raw", MIB);
  fake_disk (&shared, "b", 1, "raw", MIB);
  json_object_set_new (fake_find_node (&shared, "b-file"), "file", json_string ("/images/a.raw"));
  g_autoptr (GPtrArray) twins = fake_disks (&shared);
  g_autoptr (TmkDomainDef) one = parse_domain (DISK ("vda", "/images/a.raw", ""));
  qmp_disks_apply_names (twins, one);
  g_assert_cmpstr (((QmpDisk *) g_ptr_array_index (twins, 0))->name, ==, "vda");
  g_assert_cmpstr (((QmpDisk *) g_ptr_array_index (twins, 1))->name, ==, "vda-2");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/hv-disks/qemu7-blockdev", "qemu7-blockdev", test_capture);
  g_test_add_data_func ("/hv-disks/qemu7-drive", "qemu7-drive", test_capture);
  g_test_add_data_func ("/hv-disks/qemu7-libvirt", "qemu7-libvirt", test_capture);
  g_test_add_data_func ("/hv-disks/qemu10-blockdev", "qemu10-blockdev", test_capture);
  g_test_add_data_func ("/hv-disks/qemu10-drive", "qemu10-drive", test_capture);
  g_test_add_data_func ("/hv-disks/qemu10-libvirt", "qemu10-libvirt", test_capture);
  g_test_add_func ("/hv-disks/versions-agree", test_versions_agree);
  g_test_add_func ("/hv-disks/filters-and-chains", test_filters_and_chains);
  g_test_add_func ("/hv-disks/nonsense", test_nonsense);
  g_test_add_func ("/hv-disks/endless", test_endless);
  g_test_add_func ("/hv-disks/why-not", test_why_not);
  g_test_add_func ("/hv-disks/temporary", test_temporary);
  g_test_add_func ("/hv-disks/storage-types", test_storage_types);
  g_test_add_func ("/hv-disks/alias", test_alias);
  g_test_add_func ("/hv-disks/apply-names", test_apply_names);
  g_test_add_func ("/hv-disks/names-differ", test_names_differ);
  return g_test_run ();
}
