/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/driver.c */
#include "util/error.h"

#include <tidemark/libvirt.h>

TmkDomain *
tmk_domain_open_libvirt (const char *uri, const char *name, const TmkDomainOptions *options,
                         TmkError **errp)
{
  error_set (errp, "libvirt", TMK_ERR_UNSUPPORTED, 0, "not yet");
  return NULL;
}
