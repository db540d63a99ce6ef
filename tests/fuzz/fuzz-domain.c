/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves, for any bytes: a <domain> is read or refused with a reason; its disks have distinct
 * names; laying it out afresh is a fixed point and changes none of its disks. */
#include "fuzz-xml.h"

static void
check_disks (const TmkDomainDef *def)
{
  GHashTable *index = domain_def_index (def, FALSE);
  for (guint i = 0; i < def->disks->len; i++) {
    const DiskDef *disk = g_ptr_array_index (def->disks, i);
    g_assert_true (domain_index_find (index, disk->target) == disk);
    g_assert_true (disk->empty == (disk->chain->len == 0));
  }
  g_hash_table_unref (index);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  TmkError *err = NULL;
  TmkDomainDef *def = tmk_domain_def_parse ((const char *) data, size, NULL, &err);
  if (def == NULL) {
    must_explain (err);
    return 0;
  }
  check_disks (def);
  char *text = domain_xml_normalise ((const char *) data, size, NULL, &err);
  g_assert_nonnull (text);
  char *text2 = domain_xml_normalise (text, strlen (text), NULL, &err);
  if (text2 == NULL)
    g_error ("%s\n%s", tmk_error_message (err), text);
  g_assert_cmpstr (text, ==, text2);
  TmkDomainDef *again = tmk_domain_def_parse (text, strlen (text), NULL, &err);
  if (again == NULL)
    g_error ("%s\n%s", tmk_error_message (err), text);
  g_assert_cmpuint (again->disks->len, ==, def->disks->len);
  for (size_t i = 0; i < def->disks->len; i++)
    g_assert_cmpstr (tmk_domain_def_disk_name (again, i), ==, tmk_domain_def_disk_name (def, i));
  tmk_domain_def_free (again);
  tmk_domain_def_free (def);
  g_free (text);
  g_free (text2);
  return 0;
}
