/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: a domain's document points to what was restored and to nothing of the kind that it had
 * before; a new domain shares nothing that two cannot have; all else stays; what is lost is said.
 */
#include "conf/domain_def.h"
#include "conf/domain_rewrite.h"
#include "xml-case.h"

static const DomainRewriteDisk disks[] = {
  { "sda", "/to/sda.qcow2", "qcow2" },
  { "vdb", "/to/a b & 'c'/vdb.raw", "raw" },
  { "vdc", "/to/vdc.qcow2", "qcow2" },
  { "vdz", "/to/vdz.qcow2", "qcow2" },
};

/* The document, and behind it the notes as comments. */
static char *
run (const char *xml, const DomainRewrite *how)
{
  g_autoptr (GPtrArray) notes = g_ptr_array_new_with_free_func (g_free);
  TmkError *err = NULL;
  g_autofree char *out = domain_rewrite (xml, strlen (xml), "d.xml", how, notes, &err);
  g_assert_null (err);
  GString *text = g_string_new (out);
  for (guint i = 0; i < notes->len; i++)
    g_string_append_printf (text, "<!-- %s -->\n", (char *) notes->pdata[i]);
  return g_string_free (text, FALSE);
}

static void
expect (const char *golden, const DomainRewrite *how)
{
  g_autofree char *xml = case_read ("rewrite.xml");
  g_autofree char *out = run (xml, how);
  case_expect (golden, out);
  /* Done once more, it is the same. */
  DomainRewrite again = *how;
  g_autofree char *twice = run (out, &again);
  g_assert_true (g_str_has_prefix (out, "<domain"));
  g_assert_cmpint (strncmp (out, twice, (size_t) (strstr (out, "</domain>") - out)), ==, 0);
  g_autoptr (TmkDomainDef) def = tmk_domain_def_parse (out, strlen (out), "out", NULL);
  for (size_t i = 0; i < how->n_disks; i++) {
    const DiskDef *disk = domain_def_find_disk (def, how->disks[i].target);
    if (disk == NULL)
      continue;
    g_assert_cmpuint (disk->chain->len, ==, 1);
    g_assert_cmpstr (disk_def_active (disk)->path, ==, how->disks[i].path);
    g_assert_cmpstr (disk_def_active (disk)->format, ==, how->disks[i].format);
  }
}

static void
test_in_place (void)
{
  DomainRewrite how = {
    .disks = disks, .n_disks = G_N_ELEMENTS (disks), .nvram = "/to/web_VARS.fd", .tpm = "/to/tpm"
  };
  expect ("rewrite.in-place.xml", &how);
}

static void
test_beside (void)
{
  DomainRewrite how = { .name = "web <2>",
                        .disks = disks,
                        .n_disks = G_N_ELEMENTS (disks),
                        .nvram = "/to/web_VARS.fd",
                        .tpm = "/to/tpm" };
  expect ("rewrite.beside.xml", &how);
}

/* Only disks were restored. */
static void
test_disks_alone (void)
{
  DomainRewrite how = { .disks = disks, .n_disks = 1 };
  expect ("rewrite.disks-alone.xml", &how);
  how.name = "two";
  expect ("rewrite.disks-alone-beside.xml", &how);
}

static void
test_little (void)
{
  static const DomainRewriteDisk one = { "vda", "/a", "raw" };
  DomainRewrite how = { .name = "n", .disks = &one, .n_disks = 1, .nvram = "/v" };
  g_autofree char *out = run ("<domain><os/><devices><disk><target dev='ioemu:vda'/></disk>"
                              "</devices></domain>",
                              &how);
  g_assert_cmpstr (out, ==,
                   "<domain>\n  <os>\n    <nvram>/v</nvram>\n  </os>\n  <devices>\n"
                   "    <disk type='file'>\n      <target dev='ioemu:vda'/>\n"
                   "      <driver name='qemu' type='raw'/>\n      <source file='/a'/>\n"
                   "    </disk>\n  </devices>\n  <name>n</name>\n</domain>\n");
  g_autofree char *none = run ("<domain/>", &how);
  g_assert_true (g_str_has_prefix (none, "<domain>\n  <name>n</name>\n</domain>\n"));
  g_assert_nonnull (strstr (none, "disk 'vda' is not in the domain's document"));
}

static void
test_refused (void)
{
  static const char *const texts[] = { "", "<domain>", "<disk/>", "x" };
  DomainRewrite how = { 0 };
  for (size_t i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GPtrArray) notes = g_ptr_array_new ();
    g_autoptr (TmkError) err = NULL;
    g_assert_null (domain_rewrite (texts[i], strlen (texts[i]), "d.xml", &how, notes, &err));
    g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_INVALID);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/domain-rewrite/in-place", test_in_place);
  g_test_add_func ("/domain-rewrite/beside", test_beside);
  g_test_add_func ("/domain-rewrite/disks-alone", test_disks_alone);
  g_test_add_func ("/domain-rewrite/little", test_little);
  g_test_add_func ("/domain-rewrite/refused", test_refused);
  return g_test_run ();
}
