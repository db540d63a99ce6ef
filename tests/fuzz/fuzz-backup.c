/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves, for any bytes: a <domainbackup> is read or refused with a reason, in both forms; what is
 * written is read again as the same; so is what alignment makes of it. */
#include "fuzz-xml.h"

#include "conf/backup_def.h"

/* Formatting, reading that and formatting again must give the same text. */
static void
check_fixed_point (const TmkBackupDef *def, unsigned flags)
{
  char *text = tmk_backup_def_format (def, flags);
  TmkError *err = NULL;
  TmkBackupDef *again = tmk_backup_def_parse (text, strlen (text), "again", TMK_XML_INTERNAL, &err);
  if (again == NULL)
    g_error ("%s\n%s", tmk_error_message (err), text);
  char *text2 = tmk_backup_def_format (again, flags);
  g_assert_cmpstr (text, ==, text2);
  tmk_backup_def_free (again);
  tmk_free (text);
  tmk_free (text2);
}

static void
try_flags (const char *xml, size_t len, unsigned flags)
{
  TmkError *err = NULL;
  TmkBackupDef *def = tmk_backup_def_parse (xml, len, NULL, flags, &err);
  if (def == NULL) {
    must_explain (err);
    return;
  }
  check_fixed_point (def, flags);
  TmkDomainDef *dom = small_domain ();
  char *before = tmk_backup_def_format (def, flags);
  if (tmk_backup_def_align (def, dom, "S", &err)) {
    check_fixed_point (def, flags);
  } else {
    must_explain (err);
    char *after = tmk_backup_def_format (def, flags);
    g_assert_cmpstr (before, ==, after);
    tmk_free (after);
  }
  tmk_free (before);
  tmk_domain_def_free (dom);
  tmk_backup_def_free (def);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  try_flags ((const char *) data, size, TMK_XML_PUBLIC);
  try_flags ((const char *) data, size, TMK_XML_INTERNAL);
  return 0;
}
