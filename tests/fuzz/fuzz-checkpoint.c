/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves, for any bytes: a <domaincheckpoint> is read or refused with a reason, in every form; what
 * is written is read again as the same; so is what alignment makes of it. */
#include "fuzz-xml.h"

#include "conf/checkpoint_def.h"

static void
check_fixed_point (const TmkCheckpointDef *def)
{
  char *text = tmk_checkpoint_def_format (def, TMK_XML_INTERNAL);
  TmkError *err = NULL;
  TmkCheckpointDef *again
      = tmk_checkpoint_def_parse (text, strlen (text), "again", TMK_XML_INTERNAL, &err);
  if (again == NULL)
    g_error ("%s\n%s", tmk_error_message (err), text);
  char *text2 = tmk_checkpoint_def_format (again, TMK_XML_INTERNAL);
  g_assert_cmpstr (text, ==, text2);
  tmk_checkpoint_def_free (again);
  tmk_free (text);
  tmk_free (text2);
}

static void
try_flags (const char *xml, size_t len, unsigned flags)
{
  TmkError *err = NULL;
  TmkCheckpointDef *def = tmk_checkpoint_def_parse (xml, len, NULL, flags, &err);
  if (def == NULL) {
    must_explain (err);
    return;
  }
  check_fixed_point (def);
  TmkDomainDef *dom = small_domain ();
  if (tmk_checkpoint_def_align (def, dom, &err))
    check_fixed_point (def);
  else
    must_explain (err);
  tmk_domain_def_free (dom);
  tmk_checkpoint_def_free (def);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  try_flags ((const char *) data, size, TMK_XML_PUBLIC);
  try_flags ((const char *) data, size, TMK_CHECKPOINT_REDEFINE);
  try_flags ((const char *) data, size, TMK_XML_INTERNAL);
  return 0;
}
