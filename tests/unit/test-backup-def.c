/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: <domainbackup> is read, aligned and written as tidemark-domainbackup(7) says; a document
 * or an alignment that is wrong is refused with its reason and changes nothing. */
#include "conf/backup_def.h"
#include "conf/domain_def.h"
#include "xml-case.h"

static TmkBackupDef *
parse (const char *xml, unsigned flags, TmkError **errp)
{
  return tmk_backup_def_parse (xml, strlen (xml), "b.xml", flags, errp);
}

static TmkDomainDef *
domain (const char *name)
{
  g_autofree char *xml = case_read (name);
  TmkDomainDef *def = tmk_domain_def_parse (xml, strlen (xml), name, NULL);
  g_assert_nonnull (def);
  return def;
}

/* Parses, aligns and formats; then what came out must be a fixed point of all three. */
static void
test_golden (gconstpointer data)
{
  const char *name = data;
  unsigned flags = strstr (name, "internal") != NULL ? TMK_XML_INTERNAL : TMK_XML_PUBLIC;
  g_autofree char *in = g_strconcat (name, ".xml", NULL);
  g_autofree char *out = g_strconcat (name, ".aligned.xml", NULL);
  g_autofree char *xml = case_read (in);
  g_autoptr (TmkDomainDef) dom = domain ("files.xml");
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkBackupDef) def = parse (xml, flags, &err);
  if (def == NULL)
    g_error ("%s", tmk_error_message (err));
  g_assert_true (tmk_backup_def_align (def, dom, "SUF", NULL));
  g_autofree char *text = tmk_backup_def_format (def, flags);
  case_expect (out, text);

  g_autoptr (TmkBackupDef) again = parse (text, flags, &err);
  if (again == NULL)
    g_error ("%s", tmk_error_message (err));
  g_autofree char *text2 = tmk_backup_def_format (again, flags);
  g_assert_cmpstr (text2, ==, text);
  g_assert_true (tmk_backup_def_align (again, dom, "OTHER", NULL));
  g_autofree char *text3 = tmk_backup_def_format (again, flags);
  g_assert_cmpstr (text3, ==, text);
  g_autoptr (TmkBackupDef) copy = tmk_backup_def_copy (again);
  g_autofree char *text4 = tmk_backup_def_format (copy, flags);
  g_assert_cmpstr (text4, ==, text);
}

static void
test_fields (void)
{
  g_autofree char *xml = case_read ("running-internal.xml");
  g_autoptr (TmkBackupDef) def = parse (xml, TMK_XML_INTERNAL, NULL);
  g_assert_true (tmk_backup_def_is_pull (def));
  g_assert_cmpstr (def->server->name, ==, "::1");
  g_assert_cmpint (def->server->tls, ==, -1);
  g_assert_cmpstr (def->tls_alias, ==, "tls0");
  g_assert_cmpstr (def->tls_secret_alias, ==, "key0");
  g_assert_cmpuint (tmk_backup_def_n_disks (def), ==, 2);
  g_assert_cmpstr (tmk_backup_def_disk_name (def, 1), ==, "vdb");
  g_assert_false (tmk_backup_def_disk_selected (def, 1));
  const BackupDisk *vda = backup_def_find_disk (def, "vda");
  g_assert_true (vda->backup);
  g_assert_cmpint (vda->state, ==, BACKUP_DISK_STATE_CANCELLING);
  g_assert_cmpuint (vda->store->index, ==, 7);
  g_assert_null (backup_def_find_disk (def, "nope"));
  g_assert_cmpstr (backup_mode_name (BACKUP_MODE_INCREMENTAL), ==, "incremental");
  g_assert_null (backup_mode_name (BACKUP_MODE_DEFAULT));
  g_autofree char *public = tmk_backup_def_format (def, TMK_XML_PUBLIC);
  g_assert_null (strstr (public, "state"));
  g_assert_null (strstr (public, "index"));
  g_assert_null (strstr (public, "privateData"));
}

static void
test_empty (void)
{
  g_autoptr (TmkBackupDef) def = tmk_backup_def_new ();
  g_autofree char *text = tmk_backup_def_format (def, TMK_XML_INTERNAL);
  g_assert_cmpstr (text, ==, "<domainbackup mode='push'/>\n");
  tmk_backup_def_free (NULL);

  /* every file that has a medium and may be written */
  g_autoptr (TmkDomainDef) dom = domain ("files.xml");
  g_ptr_array_remove_index (dom->disks, 4); /* vdc, a block device */
  g_assert_true (tmk_backup_def_align (def, dom, "S", NULL));
  g_autofree char *aligned = tmk_backup_def_format (def, 0);
  g_assert_cmpstr (aligned, ==,
                   "<domainbackup mode='push'>\n"
                   "  <disks>\n"
                   "    <disk name='vda' backup='yes' type='file' backupmode='full'>\n"
                   "      <target file='/img/a.qcow2.S'/>\n"
                   "    </disk>\n"
                   "    <disk name='vdb' backup='yes' type='file' backupmode='full'>\n"
                   "      <target file='/img/b.S'/>\n"
                   "    </disk>\n"
                   "    <disk name='sda' backup='no'/>\n"
                   "    <disk name='sdb' backup='no'/>\n"
                   "  </disks>\n"
                   "</domainbackup>\n");
}

static void
test_align_refused (void)
{
#define DISKS(inside) "<domainbackup><disks>" inside "</disks></domainbackup>"
  static const struct {
    const char *xml;
    TmkErrorCode code;
    const char *why, *hint;
  } cases[] = {
    { DISKS ("<disk name='vdx'/>"), TMK_ERR_NOT_FOUND, "disk 'vdx': the domain has no such disk",
      "vda, vdb, sda, sdb, vdc" },
    { DISKS ("<disk name='vda'/><disk name='vda' backup='no'/>"), TMK_ERR_INVALID,
      "disk 'vda': listed twice", "remove" },
    { DISKS ("<disk name='vda' backupmode='incremental'/>"), TMK_ERR_INVALID,
      "disk 'vda': backupmode='incremental'", "<incremental>" },
    { DISKS ("<disk name='sdb'/>"), TMK_ERR_UNSUPPORTED, "disk 'sdb': the drive has no medium",
      "backup='no'" },
    { DISKS ("<disk name='sdb' type='file'><target file='/x'/></disk>"), TMK_ERR_UNSUPPORTED,
      "disk 'sdb': the drive has no medium", "backup='no'" },
    { DISKS ("<disk name='vdb'/><disk name='vdc'/>"), TMK_ERR_UNSUPPORTED,
      "disk 'vdc': no name can be made up for its backup, as its source is of type 'block'",
      "<target>" },
    { "<domainbackup/>", TMK_ERR_UNSUPPORTED, "disk 'vdc': no name", "<target>" },
  };
  g_autoptr (TmkDomainDef) dom = domain ("files.xml");
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (TmkBackupDef) def = parse (cases[i].xml, 0, NULL);
    g_assert_nonnull (def);
    g_autofree char *before = tmk_backup_def_format (def, TMK_XML_INTERNAL);
    g_autoptr (TmkError) err = NULL;
    g_assert_false (tmk_backup_def_align (def, dom, "S", &err));
    g_assert_cmpint (tmk_error_code (err), ==, cases[i].code);
    assert_message (err, cases[i].why);
    g_assert_nonnull (strstr (tmk_error_hint (err), cases[i].hint));
    g_autofree char *after = tmk_backup_def_format (def, TMK_XML_INTERNAL);
    g_assert_cmpstr (after, ==, before);
  }
  g_autoptr (TmkBackupDef) def = tmk_backup_def_new ();
  static const char *const suffixes[] = { NULL, "", "a/b" };
  for (size_t i = 0; i < G_N_ELEMENTS (suffixes); i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_false (tmk_backup_def_align (def, dom, suffixes[i], &err));
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_USAGE);
  }
  g_autoptr (TmkDomainDef) none = domain_def_new ();
  g_autoptr (TmkError) err = NULL;
  g_assert_false (tmk_backup_def_align (def, none, "S", &err));
  assert_message (err, "the domain has no disks");
}

/* Two disks over one file would be written over each other. */
static void
test_align_same_file (void)
{
  g_autoptr (TmkDomainDef) dom = domain_def_new ();
  disk_def_add_source (domain_def_add_disk (dom, "vda"), STORAGE_FILE, "/img", "raw");
  disk_def_add_source (domain_def_add_disk (dom, "vdb"), STORAGE_FILE, "/img", "raw");
  g_autoptr (TmkBackupDef) def = tmk_backup_def_new ();
  g_autoptr (TmkError) err = NULL;
  g_assert_false (tmk_backup_def_align (def, dom, "S", &err));
  assert_message (err, "disk 'vdb': its backup would be the same file '/img.S' as that of disk");
}

/* The internal form has no schema before it, so the reader itself must refuse all of these. */
static void
test_internal_refused (void)
{
#define PULL(server) "<domainbackup mode='pull'>" server "</domainbackup>"
#define IMAGE(inside)                                                                              \
  "<domainbackup>\n<disks>\n<disk name='vda'>\n<target file='/a'>" inside                          \
  "</target></disk></disks></domainbackup>"
#define SECRET "<secret type='passphrase' usage='u'/>"
  static const char *const cases[][2] = {
    { "<domaincheckpoint/>", "b.xml:1: the root element is 'domaincheckpoint'" },
    { "<domainbackup mode='x'/>", "b.xml:1: mode='x' is neither" },
    { "<domainbackup><server name='h'/></domainbackup>", "<server> needs mode='pull'" },
    { PULL ("<server transport='rdma' name='h'/>"), "rdma is not supported" },
    { PULL ("<server transport='x'/>"), "transport='x' of <server>" },
    { PULL ("<server tls='maybe' name='h'/>"), "tls='maybe'" },
    { PULL ("<server/>"), "<server> has no 'name'" },
    { PULL ("<server name='h' port='65536'/>"), "port='65536'" },
    { PULL ("<server name='h' port='x'/>"), "port='x'" },
    { PULL ("<server name='h' socket='/s'/>"), "cannot have 'socket'" },
    { PULL ("<server transport='unix'/>"), "socket='' of <server>" },
    { PULL ("<server transport='unix' socket='s'/>"), "socket='s' of <server>" },
    { PULL ("<server transport='fd'/>"), "has no 'fdgroup'" },
    { DISKS ("<x/>"), "<x> cannot stand in <disks>" },
    { DISKS ("<disk/>"), "a disk has no 'name'" },
    { DISKS ("<disk name='vda' backup='maybe'/>"), "backup='maybe'" },
    { DISKS ("<disk name='vda' backupmode='x'/>"), "backupmode='x'" },
    { DISKS ("<disk name='vda' state='x'/>"), "state='x'" },
    { DISKS ("<disk name='vda' index='x'/>"), "index='x'" },
    { DISKS ("<disk name='vda' backupmode='full' incremental='c'/>"), "contradicts" },
    { DISKS ("<disk name='vda' type='network'/>"), "neither 'file' nor 'block'" },
    { DISKS ("<disk name='vda' type='x'/>"), "neither 'file' nor 'block'" },
    { DISKS ("<disk name='vda'><driver type='luks'/></disk>"), "image format 'luks'" },
    { PULL ("<disks><disk name='vda'><driver type='raw'/></disk></disks>"), "always 'qcow2'" },
    { IMAGE ("<seclabel relabel='x'/>"), "b.xml:4: relabel='x'" },
    { IMAGE ("<seclabel labelskip='x'/>"), "labelskip='x'" },
    { IMAGE ("<seclabel relabel='no'><label>l</label></seclabel>"), "has a <label>" },
    { IMAGE ("<seclabel model='m'/><seclabel model='m'/>"), "model 'm' has two" },
    { IMAGE ("<encryption/>"), "format='' of <encryption>" },
    { IMAGE ("<encryption format='qcow'/>"), "format='qcow' of <encryption>" },
    { IMAGE ("<encryption format='luks'/>"), "exactly one <secret>" },
    { IMAGE ("<encryption format='luks'>" SECRET SECRET "</encryption>"), "exactly one <secret>" },
    { IMAGE ("<encryption format='luks' engine='x'>" SECRET "</encryption>"), "engine='x'" },
    { IMAGE ("<encryption format='luks'><secret/></encryption>"), "type='' of <secret>" },
    { IMAGE ("<encryption format='luks'><secret type='passphrase'/></encryption>"), "either" },
    { IMAGE ("<encryption format='luks'><secret type='passphrase' uuid='1'/></encryption>"),
      "uuid='1'" },
    { IMAGE ("<encryption format='luks'>" SECRET "<cipher/></encryption>"), "no 'name'" },
    { IMAGE ("<encryption format='luks'>" SECRET "<cipher name='a'/></encryption>"), "size=''" },
    { IMAGE ("<encryption format='luks'>" SECRET "<ivgen name='p'/></encryption>"), "without" },
    { IMAGE ("<encryption format='luks'>" SECRET
             "<cipher name='a' size='1'/><ivgen/></encryption>"),
      "<ivgen> has no 'name'" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_null (parse (cases[i][0], TMK_XML_INTERNAL, &err));
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
    assert_message (err, cases[i][1]);
    g_assert_null (parse (cases[i][0], TMK_XML_PUBLIC, NULL));
  }
}

/* What the schema takes and libvirt's reader does not. */
static void
test_public_refused (void)
{
  static const char *const cases[][2] = {
    { PULL ("<server name='h' port='70000'/>"), "b.xml:1: port='70000'" },
    { DISKS ("<disk name='vda' type='file'><driver type='luks'/></disk>"), "image format 'luks'" },
    { "<domainbackup mode=' push '/>", "mode=' push '" },
    { PULL (""), "b.xml:1: a pull backup has no <server>" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (TmkError) err = NULL;
    g_assert_null (parse (cases[i][0], TMK_XML_PUBLIC, &err));
    assert_message (err, cases[i][1]);
  }
  g_autofree char *xml = case_read ("running-internal.xml");
  g_autoptr (TmkError) err = NULL;
  g_assert_null (parse (xml, TMK_XML_PUBLIC, &err));
  assert_message (err, "belongs to the internal form");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/backup-def/push", "push", test_golden);
  g_test_add_data_func ("/backup-def/pull-unix", "pull-unix", test_golden);
  g_test_add_data_func ("/backup-def/pull-fd", "pull-fd", test_golden);
  g_test_add_data_func ("/backup-def/internal", "running-internal", test_golden);
  g_test_add_func ("/backup-def/fields", test_fields);
  g_test_add_func ("/backup-def/empty", test_empty);
  g_test_add_func ("/backup-def/align-refused", test_align_refused);
  g_test_add_func ("/backup-def/align-same-file", test_align_same_file);
  g_test_add_func ("/backup-def/internal-refused", test_internal_refused);
  g_test_add_func ("/backup-def/public-refused", test_public_refused);
  return g_test_run ();
}
