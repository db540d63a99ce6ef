/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/absent.c: what there is of <tidemark/libvirt.h> in a build without libvirt. */
#include "util/error.h"

#include <tidemark/libvirt.h>

static void
set_absent (TmkError **errp)
{
  error_set (errp, "libvirt", TMK_ERR_UNSUPPORTED, 0, "this build of tidemark has no libvirt");
  error_hint (errp, "install libvirt-dev and build it again with -Dlibvirt=enabled");
}

TmkDomain *
tmk_domain_open_libvirt (const char *uri, const char *name, const TmkDomainOptions *options,
                         TmkError **errp)
{
  set_absent (errp);
  return NULL;
}

TmkDomainEntries *
tmk_libvirt_list (const char *uri, TmkError **errp)
{
  set_absent (errp);
  return NULL;
}

void
tmk_domain_entries_free (TmkDomainEntries *entries)
{
}

bool
tmk_libvirt_define (const char *uri, const char *xml, char **name, TmkError **errp)
{
  set_absent (errp);
  return false;
}
