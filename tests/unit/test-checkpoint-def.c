/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: <domaincheckpoint> is read, aligned and written; only an existing checkpoint brings its
 * parent, time and domain; wrong documents and alignments are refused with a reason. */
#include "conf/checkpoint_def.h"
#include "xml-case.h"

static TmkCheckpointDef *
parse (const char *xml, unsigned flags, TmkError **errp)
{
  return tmk_checkpoint_def_parse (xml, strlen (xml), "c.xml", flags, errp);
}

static TmkDomainDef *
domain (void)
{
  g_autofree char *xml = case_read ("files.xml");
  return tmk_domain_def_parse (xml, strlen (xml), "files.xml", NULL);
}

static void
test_golden (void)
{
  g_autofree char *xml = case_read ("checkpoint.xml");
  g_autoptr (TmkDomainDef) dom = domain ();
  g_autoptr (TmkCheckpointDef) def = parse (xml, TMK_CHECKPOINT_REDEFINE, NULL);
  g_assert_nonnull (def);
  g_assert_true (g_str_has_prefix (def->domain_xml, "<domain type='kvm' xmlns:qemu='http"));
  g_assert_true (tmk_checkpoint_def_align (def, dom, NULL));
  g_autofree char *text = tmk_checkpoint_def_format (def, 0);
  case_expect ("checkpoint.aligned.xml", text);

  /* a fixed point, also through the internal form and a copy */
  g_autoptr (TmkCheckpointDef) again = parse (text, TMK_XML_INTERNAL, NULL);
  g_autoptr (TmkCheckpointDef) copy = tmk_checkpoint_def_copy (again);
  g_autofree char *text2 = tmk_checkpoint_def_format (copy, 0);
  g_assert_cmpstr (text2, ==, text);
  g_assert_true (tmk_checkpoint_def_align (copy, dom, NULL));
  g_autofree char *text3 = tmk_checkpoint_def_format (copy, 0);
  g_assert_cmpstr (text3, ==, text);
  g_autofree char *plain = tmk_checkpoint_def_format (def, TMK_CHECKPOINT_NO_DOMAIN);
  g_assert_null (strstr (plain, "<domain "));

  /* one yet to be made: only its name, description and disks count */
  g_autoptr (TmkCheckpointDef) fresh = parse (xml, 0, NULL);
  g_assert_cmpstr (tmk_checkpoint_def_name (fresh), ==, "c2");
  g_assert_null (tmk_checkpoint_def_parent (fresh));
  g_assert_null (fresh->domain_xml);
  g_assert_cmpint (fresh->creation_time, ==, 0);
}

static void
test_new (void)
{
  g_autoptr (TmkCheckpointDef) named = tmk_checkpoint_def_new ("c.1-x_", NULL);
  g_assert_cmpstr (tmk_checkpoint_def_name (named), ==, "c.1-x_");
  gint64 now = g_get_real_time () / G_USEC_PER_SEC;
  g_autoptr (TmkCheckpointDef) timed = tmk_checkpoint_def_new (NULL, NULL);
  g_autoptr (TmkCheckpointDef) parsed = parse ("<domaincheckpoint/>", 0, NULL);
  g_assert_cmpint (g_ascii_strtoll (timed->name, NULL, 10) - now, <=, 2);
  g_assert_cmpint (g_ascii_strtoll (parsed->name, NULL, 10) - now, <=, 2);
  static const char *const bad[] = { "", ".", ".a", "a/b", "a b", "a\n", "\xc3\xa9" };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_null (tmk_checkpoint_def_new (bad[i], &err));
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
    g_assert_nonnull (tmk_error_hint (err));
  }
  g_assert_false (checkpoint_name_is_valid (NULL));
  tmk_checkpoint_def_free (NULL);
}

static void
test_align_all (void)
{
  g_autoptr (TmkDomainDef) dom = domain ();
  g_autoptr (TmkCheckpointDef) def = tmk_checkpoint_def_new ("c1", NULL);
  g_assert_true (tmk_checkpoint_def_align (def, dom, NULL));
  g_autofree char *text = tmk_checkpoint_def_format (def, 0);
  g_assert_cmpstr (text, ==,
                   "<domaincheckpoint>\n"
                   "  <name>c1</name>\n"
                   "  <disks>\n"
                   "    <disk name='vda' checkpoint='bitmap' bitmap='c1'/>\n"
                   "    <disk name='vdb' checkpoint='bitmap' bitmap='c1'/>\n"
                   "    <disk name='sda' checkpoint='no'/>\n"
                   "    <disk name='sdb' checkpoint='no'/>\n"
                   "    <disk name='vdc' checkpoint='bitmap' bitmap='c1'/>\n"
                   "  </disks>\n"
                   "</domaincheckpoint>\n");
}

static void
test_sizes_and_internal (void)
{
  g_autoptr (TmkDomainDef) dom = domain ();
  g_autoptr (TmkCheckpointDef) def = tmk_checkpoint_def_new ("c1", NULL);
  g_assert_true (tmk_checkpoint_def_align (def, dom, NULL));
  CheckpointDisk *vda = checkpoint_def_find_disk (def, "vda");
  vda->has_size = TRUE;
  vda->size = 0;
  vda->capacity = G_MAXUINT64;
  vda->target = g_strdup ("/backup/a'");
  vda->target_format = g_strdup ("qcow2");
  g_autofree char *sizes = tmk_checkpoint_def_format (def, TMK_CHECKPOINT_SIZE);
  g_assert_nonnull (strstr (sizes, "<disk name='vda' checkpoint='bitmap' bitmap='c1' size='0'/>"));
  g_assert_nonnull (strstr (sizes, "<disk name='vdb' checkpoint='bitmap' bitmap='c1'/>"));
  g_autofree char *text = tmk_checkpoint_def_format (def, TMK_XML_INTERNAL);
  g_assert_nonnull (strstr (text,
                            "bitmap='c1' capacity='18446744073709551615' target='/backup/a&apos;' "
                            "targetformat='qcow2'/>"));
  g_autoptr (TmkCheckpointDef) again = parse (text, TMK_XML_INTERNAL, NULL);
  g_assert_nonnull (again);
  const CheckpointDisk *back = checkpoint_def_find_disk (again, "vda");
  g_assert_cmpuint (back->capacity, ==, G_MAXUINT64);
  g_assert_cmpstr (back->target, ==, "/backup/a'");
  g_assert_cmpstr (back->target_format, ==, "qcow2");
  g_assert_null (checkpoint_def_find_disk (again, "nope"));
  g_assert_null (parse (text, TMK_CHECKPOINT_REDEFINE, NULL)); /* the public schema refuses it */
}

static void
test_refused (void)
{
#define CHECKPOINT(inside) "<domaincheckpoint>" inside "</domaincheckpoint>"
  static const struct {
    unsigned flags;
    const char *xml, *why;
  } cases[] = {
    { 0, "<domainbackup/>", "the root element is 'domainbackup'" },
    { 0, CHECKPOINT ("<name>../x</name>"), "'../x' cannot be a checkpoint's name" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name>../x</name>"), "'../x' is not a valid name" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name/>"), "'' is not a valid name" },
    { TMK_XML_INTERNAL, CHECKPOINT (""), "must have a <name>" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name>c</name><parent><name>a/</name></parent>"), "'a/'" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name>c</name><creationTime>x</creationTime>"),
      "creationTime 'x'" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name>c</name><disks><x/></disks>"), "<x> cannot stand" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name>c</name><disks><disk/></disks>"), "no 'name'" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name>c</name><disks><disk name='a' checkpoint='x'/></disks>"),
      "checkpoint='x'" },
    { TMK_XML_INTERNAL, CHECKPOINT ("<name>c</name><disks><disk name='a' capacity='x'/></disks>"),
      "capacity='x'" },
    { TMK_CHECKPOINT_REDEFINE, CHECKPOINT (""), "must have a <name>" },
    { TMK_CHECKPOINT_REDEFINE, CHECKPOINT ("<name>c</name>"), "must have a <creationTime>" },
    { TMK_CHECKPOINT_REDEFINE,
      CHECKPOINT ("<name>c</name><creationTime>18446744073709551615</creationTime>"),
      "creationTime '18446744073709551615'" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_null (parse (cases[i].xml, cases[i].flags, &err));
    assert_message (err, cases[i].why);
    assert_message (err, "c.xml:1: ");
  }
}

static void
test_align_refused (void)
{
  static const char *const cases[][2] = {
    { "<disk name='vdx'/>", "disk 'vdx': the domain has no such disk" },
    { "<disk name='/img/nope'/>", "disk '/img/nope': the domain has no such disk" },
    { "<disk name='vdb'/><disk name='/img/b'/>", "disk 'vdb': listed twice" },
    { "<disk name='sda'/>", "disk 'sda': it is read-only" },
    { "<disk name='sdb'/>", "disk 'sdb': the drive has no medium" },
  };
  g_autoptr (TmkDomainDef) dom = domain ();
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *xml = g_strdup_printf (CHECKPOINT ("<disks>%s</disks>"), cases[i][0]);
    g_autoptr (TmkCheckpointDef) def = parse (xml, 0, NULL);
    g_assert_nonnull (def);
    g_autofree char *before = tmk_checkpoint_def_format (def, 0);
    g_autoptr (TmkError) err = NULL;
    g_assert_false (tmk_checkpoint_def_align (def, dom, &err));
    assert_message (err, cases[i][1]);
    g_assert_nonnull (tmk_error_hint (err));
    g_autofree char *after = tmk_checkpoint_def_format (def, 0);
    g_assert_cmpstr (after, ==, before);
  }
  g_autoptr (TmkDomainDef) none = domain_def_new ();
  g_autoptr (TmkCheckpointDef) def = tmk_checkpoint_def_new ("c", NULL);
  g_assert_false (tmk_checkpoint_def_align (def, none, NULL));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/checkpoint-def/golden", test_golden);
  g_test_add_func ("/checkpoint-def/new", test_new);
  g_test_add_func ("/checkpoint-def/align-all", test_align_all);
  g_test_add_func ("/checkpoint-def/sizes-and-internal", test_sizes_and_internal);
  g_test_add_func ("/checkpoint-def/refused", test_refused);
  g_test_add_func ("/checkpoint-def/align-refused", test_align_refused);
  return g_test_run ();
}
