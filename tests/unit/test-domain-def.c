/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: every kind of disk is read, odd domains are refused with a reason, look-ups find. */
#include "conf/domain_def.h"
#include "xml-case.h"

static TmkDomainDef *
parse (const char *xml, TmkError **errp)
{
  return tmk_domain_def_parse (xml, strlen (xml), "d.xml", errp);
}

static const DiskSourceDef *
image (const TmkDomainDef *def, const char *target, guint i)
{
  const DiskDef *disk = domain_def_find_disk (def, target);
  g_assert_nonnull (disk);
  g_assert_cmpuint (i, <, disk->chain->len);
  return g_ptr_array_index (disk->chain, i);
}

static void
check_facts (const TmkDomainDef *def)
{
  static const struct {
    const char *target, *path;
    StorageType type;
    gboolean empty, readonly;
  } disks[] = {
    { "vda", "/img/root.snap2", STORAGE_FILE, FALSE, FALSE },
    { "vdb", "/dev/vg/data", STORAGE_BLOCK, FALSE, FALSE },
    { "vdc", "rbd://mon1:6789/pool/image", STORAGE_NETWORK, FALSE, FALSE },
    { "vdd", "default/v1", STORAGE_VOLUME, FALSE, FALSE },
    { "vde", "nvme://0000:01:00.0/1", STORAGE_NVME, FALSE, FALSE },
    { "fda", "/boot", STORAGE_DIR, FALSE, TRUE },
    { "vdf", "/run/vhost.sock", STORAGE_VHOST_USER, FALSE, FALSE },
    { "vdg", "/dev/vhost-vdpa-0", STORAGE_VHOST_VDPA, FALSE, FALSE },
    { "sda", NULL, STORAGE_FILE, TRUE, TRUE },
    { "sdb", "/iso/a.iso", STORAGE_FILE, FALSE, TRUE },
    { "fdb", NULL, STORAGE_BLOCK, TRUE, FALSE },
    { "vdh", "/img/scratch", STORAGE_FILE, FALSE, FALSE },
  };
  g_assert_cmpstr (tmk_domain_def_name (def), ==, "mail & files");
  g_assert_cmpstr (tmk_domain_def_uuid (def), ==, "5c8e1f2a-0b1d-4a51-9d6e-2f6f0c6f3b77");
  g_assert_cmpuint (tmk_domain_def_n_disks (def), ==, G_N_ELEMENTS (disks));
  for (size_t i = 0; i < G_N_ELEMENTS (disks); i++) {
    const DiskDef *disk = g_ptr_array_index (def->disks, i);
    g_assert_cmpstr (tmk_domain_def_disk_name (def, i), ==, disks[i].target);
    g_assert_cmpint (disk->type, ==, disks[i].type);
    g_assert_cmpint (disk->empty, ==, disks[i].empty);
    g_assert_cmpint (disk->readonly, ==, disks[i].readonly);
    const DiskSourceDef *active = disk_def_active (disk);
    g_assert_cmpstr (active != NULL ? active->path : NULL, ==, disks[i].path);
  }
  const DiskDef *vda = domain_def_find_disk (def, "vda");
  g_assert_cmpstr (vda->bus, ==, "virtio");
  g_assert_cmpstr (vda->device, ==, "disk");
  g_assert_cmpstr (vda->alias, ==, "virtio-disk0");
  g_assert_cmpstr (vda->serial, ==, "WD-1");
  g_assert_cmpuint (vda->chain->len, ==, 3);
  g_assert_cmpuint (image (def, "vda", 0)->index, ==, 4);
  g_assert_cmpstr (image (def, "vda", 0)->format, ==, "qcow2");
  g_assert_null (image (def, "vda", 0)->data_store_path);
  g_assert_cmpstr (image (def, "vda", 1)->data_store_path, ==, "/img/root.data");
  g_assert_cmpint (image (def, "vda", 2)->type, ==, STORAGE_BLOCK);
  g_assert_cmpstr (image (def, "vda", 2)->path, ==, "/dev/vg/root");
  g_assert_true (domain_def_find_disk (def, "vdb")->shareable);
  g_assert_true (domain_def_find_disk (def, "vdh")->transient);
}

static void
test_facts (void)
{
  g_autofree char *xml = case_read ("domain.xml");
  g_autoptr (TmkDomainDef) def = parse (xml, NULL);
  g_assert_nonnull (def);
  check_facts (def);
  g_autoptr (TmkDomainDef) copy = domain_def_copy (def);
  check_facts (copy);

  g_autofree char *wrapped = g_strdup_printf ("<domstatus><x/>%s</domstatus>", xml);
  g_autoptr (TmkDomainDef) status = parse (wrapped, NULL);
  g_assert_nonnull (status);
  check_facts (status);
}

static void
test_refused (void)
{
#define DISK(inside) "<domain><devices><disk>" inside "</disk></devices></domain>"
  static const struct {
    const char *xml, *why;
  } cases[] = {
    { "", "d.xml:1: document is empty" },
    { "<domain>", "d.xml:1: " },
    { "<x/>", "d.xml:1: the root element is 'x', not 'domain'" },
    { "<domstatus/>", "not 'domain'" },
    { "<domain xmlns='urn:x'/>", "not 'domain'" },
    { "<domain>\n<uuid>1-2</uuid></domain>", "d.xml:2: '1-2' is not a uuid" },
    { DISK (""), "a disk has no <target dev=>" },
    { DISK ("<target dev=''/>"), "a disk has no <target dev=>" },
    { DISK ("<target dev='vda'/></disk><disk><target dev='vda'/>"), "two disks have the target" },
    { "<domain><devices><disk type='tape'><target dev='vda'/></disk></devices></domain>",
      "type='tape' of <disk>" },
    { "<domain><devices><disk device='tape'><target dev='vda'/></disk></devices></domain>",
      "device='tape' of disk 'vda'" },
    { DISK ("<source file='/a' index='-1'/><target dev='vda'/>"), "index='-1' of <source>" },
    { DISK ("<source file='/a'/><target dev='vda'/><backingStore type='file'/>"),
      "disk 'vda': <backingStore> has no source" },
    { DISK (
          "<source file='/a'/><target dev='vda'/><backingStore type='x'><source/></backingStore>"),
      "type='x' of <backingStore>" },
    { DISK ("<source file='/a'><dataStore type='file'/></source><target dev='vda'/>"),
      "<dataStore> has no source" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_null (parse (cases[i].xml, &err));
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
    assert_message (err, cases[i].why);
    g_assert_null (parse (cases[i].xml, NULL));
  }
}

static void
test_find (void)
{
  g_autoptr (TmkDomainDef) def = domain_def_new ();
  for (int i = 0; i < 3; i++) {
    g_autofree char *target = g_strdup_printf ("vd%c", 'a' + i);
    disk_def_add_source (domain_def_add_disk (def, target), STORAGE_FILE,
                         i == 0 ? "/only" : "/both", NULL);
  }
  domain_def_add_disk (def, "sda")->empty = TRUE;
  g_autoptr (GHashTable) index = domain_def_index (def, TRUE);
  static const char *const names[] = { "vda", "/only", "vdc", "/both", "sda", "nope", "/nope" };
  static const char *const found[] = { "vda", "vda", "vdc", NULL, "sda", NULL, NULL };
  for (size_t i = 0; i < G_N_ELEMENTS (names); i++) {
    const DiskDef *slow = domain_def_find_disk_or_path (def, names[i]);
    const DiskDef *fast = domain_index_find (index, names[i]);
    g_assert_true (slow == fast);
    g_assert_cmpstr (slow != NULL ? slow->target : NULL, ==, found[i]);
  }
  g_autoptr (GHashTable) targets = domain_def_index (def, FALSE);
  g_assert_null (domain_index_find (targets, "/only"));
  g_autofree char *list = domain_def_list_targets (def);
  g_assert_cmpstr (list, ==, "vda, vdb, vdc, sda");
  for (int i = 0; i < 20; i++) {
    g_autofree char *target = g_strdup_printf ("vdx%d", i);
    domain_def_add_disk (def, target);
  }
  g_autofree char *long_list = domain_def_list_targets (def);
  g_assert_true (g_str_has_suffix (long_list, "vdx7 and 12 more"));
}

/* A chain as deep as the parser allows, and a document nested deeper than that. */
static void
test_deep (void)
{
  for (int depth = 100; depth <= 10000; depth *= 10) {
    GString *xml = g_string_new ("<domain><devices><disk><source file='/0'/><target dev='vda'/>");
    for (int i = 1; i <= depth; i++)
      g_string_append_printf (
          xml, "<backingStore type='file'><format type='raw'/><source file='/%d'/>", i);
    for (int i = 1; i <= depth; i++)
      g_string_append (xml, "</backingStore>");
    g_string_append (xml, "</disk></devices></domain>");
    g_autoptr (TmkError) err = NULL;
    g_autoptr (TmkDomainDef) def = parse (xml->str, &err);
    g_string_free (xml, TRUE);
    if (depth > 100) {
      assert_message (err, "d.xml:1: ");
      continue;
    }
    g_assert_nonnull (def);
    g_assert_cmpstr (image (def, "vda", 100)->path, ==, "/100");
  }
}

static void
test_luks (void)
{
  static const struct {
    const char *disk, *driver;
  } cases[] = {
    { "<driver type='raw'/><source file='/i'><encryption format='luks'/></source>", "luks" },
    { "<driver type='raw'/><source file='/i'/><encryption format='luks'/>", "luks" },
    { "<source file='/i'><encryption format='luks'/></source>", "luks" },
    { "<driver type='qcow2'/><source file='/i'><encryption format='luks'/></source>", "qcow2" },
    { "<driver type='raw'/><source file='/i'><encryption format='qcow'/></source>", "raw" },
    { "<driver type='raw'/><source file='/i'/>", "raw" },
    { "<source file='/i'/>", "raw" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *xml = g_strdup_printf (
        "<domain><devices><disk type='file'>%s<target dev='vda'/></disk></devices></domain>",
        cases[i].disk);
    g_autoptr (TmkDomainDef) def = parse (xml, NULL);
    g_autoptr (TmkDomainDef) copy = domain_def_copy (def);
    g_assert_cmpstr (disk_source_driver (image (def, "vda", 0)), ==, cases[i].driver);
    g_assert_cmpstr (disk_source_driver (image (copy, "vda", 0)), ==, cases[i].driver);
  }
}

static void
test_normalise (void)
{
  const char *xml = "<domstatus><domain a=\"1\"><b>t</b>\n\n<c/></domain></domstatus>";
  g_autofree char *text = domain_xml_normalise (xml, strlen (xml), "s.xml", NULL);
  g_assert_cmpstr (text, ==, "<domain a='1'>\n  <b>t</b>\n  <c/>\n</domain>\n");
  g_autoptr (TmkError) err = NULL;
  g_assert_null (domain_xml_normalise ("<x/>", 4, "s.xml", &err));
  assert_message (err, "not 'domain'");
}

static void
test_storage_types (void)
{
  for (StorageType type = STORAGE_FILE; type <= STORAGE_VHOST_VDPA; type++)
    g_assert_cmpint (storage_type_from_name (storage_type_name (type)), ==, type);
  g_assert_null (storage_type_name (STORAGE_NONE));
  g_assert_null (storage_type_name ((StorageType) 99));
  g_assert_cmpint (storage_type_from_name ("tape"), ==, STORAGE_NONE);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/domain-def/facts", test_facts);
  g_test_add_func ("/domain-def/refused", test_refused);
  g_test_add_func ("/domain-def/find", test_find);
  g_test_add_func ("/domain-def/deep", test_deep);
  g_test_add_func ("/domain-def/luks", test_luks);
  g_test_add_func ("/domain-def/normalise", test_normalise);
  g_test_add_func ("/domain-def/storage-types", test_storage_types);
  return g_test_run ();
}
