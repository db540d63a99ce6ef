/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: kinds are found, verdicts come with line and reason, hostile documents are refused
 * cheaply and silently, and many threads may ask at once. */
#include "conf/xml_doc.h"
#include "xml-case.h"

#include <tidemark/xml.h>

static void
test_kind (void)
{
  static const struct {
    const char *xml;
    TmkXmlKind kind;
  } cases[] = {
    { "<domainbackup/>", TMK_XML_KIND_BACKUP }, { "<domaincheckpoint/>", TMK_XML_KIND_CHECKPOINT },
    { "<domain/>", TMK_XML_KIND_DOMAIN },       { "<domstatus/>", TMK_XML_KIND_DOMAIN },
    { "<pool/>", TMK_XML_KIND_UNKNOWN },        { "<a:domain xmlns:a='u'/>", TMK_XML_KIND_UNKNOWN },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    TmkXmlKind kind;
    g_assert_true (tmk_xml_kind (cases[i].xml, strlen (cases[i].xml), "k", &kind, NULL));
    g_assert_cmpint (kind, ==, cases[i].kind);
  }
  TmkXmlKind kind = TMK_XML_KIND_DOMAIN;
  g_autoptr (TmkError) err = NULL;
  g_assert_false (tmk_xml_kind ("<a>\n<b></a>", 11, "k", &kind, &err));
  g_assert_cmpint (kind, ==, TMK_XML_KIND_DOMAIN);
  assert_message (err, "k:2: ");
}

#define B(inside) "<domainbackup>\n<disks>\n" inside "\n</disks>\n</domainbackup>"
#define P(inside) "<domainbackup mode='pull'>\n" inside "\n</domainbackup>"
#define I(inside)                                                                                  \
  B ("<disk name='vda' type='file'>\n<target file='/a'>\n" inside "</target></disk>")
#define E(inside) I ("<encryption format='luks'>" inside "</encryption>")
#define S "<secret type='passphrase' usage='u'/>"
#define C(inside) "<domaincheckpoint>\n" inside "\n</domaincheckpoint>"

static const struct {
  const char *xml;
  int line; /* 0: valid */
  const char *why;
} verdicts[] = {
  { "<domainbackup/>", 0, NULL },
  { "<domainbackup mode='\npull '><server name='::'/></domainbackup>", 0, NULL },
  { "<domaincheckpoint/>", 0, NULL },
  { C ("<domain><anything at='all'>x</anything></domain>"), 0, NULL },
  { C ("<disks><disk name='/p'/></disks>"), 0, NULL },
  { "<domain/>", 1, "the root element is 'domain', neither" },
  { "<domainbackup", 1, "" },
  { "<domainbackup>\n&no;</domainbackup>", 2, "entity 'no' not defined" },
  { "<domainbackup mode='both'/>", 1, "mode='both' of <domainbackup> is not 'push' or 'pull'" },
  { "<domainbackup>\n<server name='h'/></domainbackup>", 2, "<server> needs mode='pull'" },
  { "<domainbackup>\n<incremental a='b'/></domainbackup>", 2, "<incremental> holds nothing but" },
  { "<domainbackup>\n<disks/></domainbackup>", 2, "<disks> has no <disk>" },
  { "<domainbackup>text</domainbackup>", 1, "<domainbackup> cannot hold text" },
  { "<domainbackup>\n<privateData/></domainbackup>", 2, "<privateData> belongs to the internal" },
  { "<domainbackup>\n<incremental/>\n<incremental/></domainbackup>", 3, "stands twice" },
  { P ("<disks><disk name='vda'/></disks>"), 1, "a pull backup has no <server>" },
  { P ("<server/>"), 2, "<server> has no 'name'" },
  { P ("<server name='a b'/>"), 2, "name='a b' of <server> is no host name or address" },
  { P ("<server name='::x'/>"), 2, "" },
  { P ("<server name='h' port='-1'/>"), 2, "port='-1' of <server> is not a number" },
  { P ("<server transport='rdma'/>"), 2, "transport='rdma' of <server> is not 'tcp', 'unix' or" },
  { P ("<server transport='unix' socket='x'/>"), 2, "is not an absolute path" },
  { P ("<server transport='unix' name='x' socket='/x'/>"), 2, "<server> has no attribute 'name'" },
  { P ("<server transport='fd'/>"), 2, "<server> has no 'fdgroup'" },
  { P ("<server name='h'/><disks><disk name='vda' backup='yes'/></disks>"), 2, "but no 'type'" },
  { P ("<server name='h'/><disks><disk name='vda' type='block'/></disks>"), 2, "no <scratch>" },
  { P ("<server name='h'/><disks><disk name='vda' type='file'><target file='/a'/></disk></disks>"),
    2, "<target> is for push backups" },
  { P ("<server name='h'/><disks><disk name='vda' type='file'><scratch file='/a'/>"
       "<driver type='raw'/></disk></disks>"),
    2, "type='raw' of <driver> is not 'qcow2'" },
  { B ("<x/>"), 3, "<x> cannot stand in <disks>" },
  { B ("<disk/>"), 3, "<disk> has no 'name'" },
  { B ("<disk name='mmcblk0'/>"), 3, "name='mmcblk0' of <disk> is not a disk's target" },
  { B ("<disk name='vda' bogus=''/>"), 3, "<disk> has no attribute 'bogus'" },
  { B ("<disk name='vda' xml:lang='en'/>"), 3, "<disk> has no attribute 'lang'" },
  { B ("<disk name='vda' state='running'/>"), 3, "'state' belongs to the internal form" },
  { B ("<disk name='vda' exportname='x'/>"), 3, "'exportname' is for pull backups" },
  { B ("<disk name='vda' backup='maybe'/>"), 3, "backup='maybe' of <disk> is not 'yes' or 'no'" },
  { B ("<disk name='vda' backupmode='x'/>"), 3, "backupmode='x'" },
  { B ("<disk name='vda' backupmode='full' incremental='x'/>"), 3, "contradicts" },
  { B ("<disk name='vda' backup='no' type='file'/>"), 3, "so it cannot have 'type'" },
  { B ("<disk name='vda' backup='no'><target file='/a'/></disk>"), 3, "cannot have <target>" },
  { B ("<disk name='vda' type='network'/>"), 3, "type='network' of <disk> is not 'file' or" },
  { B ("<disk name='vda'><target file='/a'/></disk>"), 3, "has <target> but no 'type'" },
  { B ("<disk name='vda'><driver type='raw'/></disk>"), 3, "has <driver> but no 'type'" },
  { B ("<disk name='vda' type='file'><scratch file='/a'/></disk>"), 3, "is for pull backups" },
  { B ("<disk name='vda' type='file'><target dev='/a'/></disk>"), 3,
    "has 'dev' instead of 'file'" },
  { B ("<disk name='vda' type='block'><target file='/a'/></disk>"), 3,
    "of type 'block' has 'file'" },
  { B ("<disk name='vda' type='file'><target file='a'/></disk>"), 3,
    "file='a' of <target> is not" },
  { B ("<disk name='vda' type='file'><driver type='qcow3'/></disk>"), 3,
    "type='qcow3' of <driver>" },
  { I ("<seclabel/>"), 5, "<seclabel> has no <label>" },
  { I ("<seclabel relabel='no' labelskip='yes'/>"), 5, "both 'relabel' and 'labelskip'" },
  { I ("<seclabel relabel='no'><label/></seclabel>"), 5, "does not label has a <label>" },
  { I ("<encryption/>"), 5, "<encryption> has no 'format'" },
  { I ("<encryption format='qcow'/>"), 5, "format='qcow' of <encryption> is not 'luks'" },
  { E (""), 5, "<encryption> has no <secret>" },
  { E ("<secret type='passphrase'/>"), 5, "<secret> needs either 'uuid' or 'usage'" },
  { E ("<secret type='passphrase' uuid='x'/>"), 5, "uuid='x' of <secret> is not a uuid" },
  { E (S "<ivgen name='p'/>"), 5, "<cipher> and <ivgen> come only together" },
  { E (S "<cipher name='a' size='1' mode='m'/><ivgen name='p'/>"), 5, "'mode' but no 'hash'" },
  { E (S "<cipher name='a' size='1' hash='m'/><ivgen name='p'/>"), 5, "'hash' but no 'mode'" },
  { E (S "<cipher name='a' size='x'/><ivgen name='p'/>"), 5, "size='x' of <cipher>" },
  { C ("<x/>"), 2, "<x> cannot stand in <domaincheckpoint>" },
  { C ("<name/>"), 2, "<name> is empty" },
  { C ("<name>.a</name>"), 2, "'.a' cannot be a checkpoint's name" },
  { C ("<name><b/></name>"), 2, "<name> holds nothing but text" },
  { C ("<creationTime>-1</creationTime>"), 2, "creationTime '-1' is not a number" },
  { C ("<parent/>"), 2, "<parent> has no <name>" },
  { C ("<parent><name>a/b</name></parent>"), 2, "'a/b' cannot be a checkpoint's name" },
  { C ("<description><b/></description>"), 2, "<description> holds nothing but text" },
  { C ("<disks/>"), 2, "<disks> has no <disk>" },
  { C ("<disks><disk name='x'/></disks>"), 2, "name='x' of <disk> is neither a target" },
  { C ("<disks><disk name='vda' checkpoint='x'/></disks>"), 2, "checkpoint='x' of <disk>" },
  { C ("<disks><disk name='vda' size='x'/></disks>"), 2, "size='x' of <disk> is not a number" },
  { C ("<disks><disk name='vda' checkpoint='no' bitmap='x'/></disks>"), 2,
    "has checkpoint='no', so it cannot have 'bitmap'" },
};

static void
check_verdicts (void)
{
  for (size_t i = 0; i < G_N_ELEMENTS (verdicts); i++) {
    g_autoptr (TmkError) err = NULL;
    int line = -1;
    bool valid = tmk_xml_validate (verdicts[i].xml, strlen (verdicts[i].xml), &line, &err);
    if (valid != (verdicts[i].line == 0))
      g_error ("%s: %s", verdicts[i].xml, valid ? "valid" : tmk_error_message (err));
    if (valid)
      continue;
    if (line != verdicts[i].line)
      g_error ("%s: line %d", verdicts[i].xml, line);
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
    assert_message (err, verdicts[i].why);
    g_assert_null (strchr (tmk_error_message (err), '\n'));
    g_assert_false (tmk_xml_validate (verdicts[i].xml, strlen (verdicts[i].xml), NULL, NULL));
  }
}

static gpointer
in_thread (gpointer data)
{
  for (int i = 0; i < 20; i++)
    check_verdicts ();
  return NULL;
}

static void
test_threads (void)
{
  GThread *threads[4];
  for (size_t i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("verdicts", in_thread, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);
}

static void
assert_hostile (const char *xml, size_t len, const char *why)
{
  g_autoptr (TmkError) err = NULL;
  int line;
  gint64 start = g_get_monotonic_time ();
  g_assert_false (tmk_xml_validate (xml, len, &line, &err));
  g_assert_cmpint (g_get_monotonic_time () - start, <, 5 * G_USEC_PER_SEC);
  assert_message (err, why);
}

static void
test_hostile (void)
{
  const char *laughs = "<!DOCTYPE x [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]>\n"
                       "<domainbackup><incremental>&b;</incremental></domainbackup>";
  assert_hostile (laughs, strlen (laughs), "declare entities");
  const char *file = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>\n"
                     "<domainbackup><incremental>&a;</incremental></domainbackup>";
  assert_hostile (file, strlen (file), "declare entities");
  const char *defaults = "<!DOCTYPE x [<!ATTLIST disk exportname CDATA 'much'>]><domainbackup/>";
  assert_hostile (defaults, strlen (defaults), "declare attributes");
  g_assert_true (tmk_xml_validate ("<!DOCTYPE domainbackup><domainbackup/>", 38, NULL, NULL));

  assert_hostile ("<domainbackup/>\0x", 17, "NUL");
  assert_hostile ("\xff\xfe", 2, "");
  assert_hostile ("<domainbackup>\xc3</domainbackup>", 30, "");
  g_autofree char *huge = g_malloc (XML_DOC_MAX + 1);
  memset (huge, ' ', XML_DOC_MAX + 1);
  assert_hostile (huge, XML_DOC_MAX + 1, "the document is longer than 16 MiB");
  GString *deep = g_string_new (NULL);
  for (int i = 0; i < 100000; i++)
    g_string_append (deep, "<a>");
  assert_hostile (deep->str, deep->len, "");
  g_string_free (deep, TRUE);

  GString *many = g_string_new ("<domaincheckpoint><domain>");
  for (int i = 0; i < 65536 - 2; i++)
    g_string_append (many, i % 3 == 0 ? "<a> </a>" : "<b/>");
  g_autofree char *just = g_strconcat (many->str, "</domain></domaincheckpoint>", NULL);
  g_autofree char *over = g_strconcat (many->str, "<c/></domain></domaincheckpoint>", NULL);
  g_string_free (many, TRUE);
  g_assert_true (tmk_xml_validate (just, strlen (just), NULL, NULL));
  assert_hostile (over, strlen (over), "more than 65536 elements");

  /* a long value against every pattern */
  g_autofree char *value = g_strnfill (1 << 20, 'a');
  memcpy (value, "vd", 2);
  g_autofree char *disk
      = g_strdup_printf ("<domainbackup><disks><disk name='%s-'/></disks></domainbackup>", value);
  assert_hostile (disk, strlen (disk), "is not a disk's target");
  memset (value, ':', 1 << 20);
  g_autofree char *server
      = g_strdup_printf ("<domainbackup mode='pull'><server name='%s'/></domainbackup>", value);
  assert_hostile (server, strlen (server), "");
}

static void
test_values (void)
{
  static const char *const uuids[][2] = {
    { "0a81f5b2-8403-7B23-c8d6-21ccc2f80d6f", "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f" },
    { "0a81f5b284037B23c8d621ccc2f80d6f", "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f" },
    { "0a81f5b2-84037-b23-c8d6-21ccc2f80d6f", NULL },
    { "0a81f5b284037b23c8d621ccc2f80d6", NULL },
    { "0a81f5b284037b23c8d621ccc2f80d6ff", NULL },
    { "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6g", NULL },
    { "", NULL },
    { "----", NULL },
    { "0a81f5b2840-37b23c8d621ccc2f80d6", NULL },
    { "0a81f5b284037b23c8d621ccc2f80d6f0a81", NULL },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (uuids); i++) {
    g_autofree char *uuid = xml_uuid (uuids[i][0]);
    g_assert_cmpstr (uuid, ==, uuids[i][1]);
  }
  guint64 value = 7;
  static const char *const bad[] = { "", " 1", "1 ", "+1", "-1", "0x1", "18446744073709551616" };
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++)
    g_assert_false (xml_number (bad[i], G_MAXUINT64, &value));
  g_assert_cmpuint (value, ==, 7);
  g_assert_true (xml_number ("18446744073709551615", G_MAXUINT64, &value));
  g_assert_true (value == G_MAXUINT64);
  g_assert_false (xml_number ("8", 7, &value));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/xml/kind", test_kind);
  g_test_add_func ("/xml/verdicts", check_verdicts);
  g_test_add_func ("/xml/threads", test_threads);
  g_test_add_func ("/xml/hostile", test_hostile);
  g_test_add_func ("/xml/values", test_values);
  return g_test_run ();
}
