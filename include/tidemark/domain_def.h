/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/domain_def.h: the disks of a virtual machine, as a libvirt
 * `<domain>` document or a running QEMU describes them.
 *
 * Only what a backup needs is kept: name, uuid and the disks. Everything else
 * in a document is ignored (source: libvirt's docs/formatdomain).
 */
#ifndef TIDEMARK_DOMAIN_DEF_H
#define TIDEMARK_DOMAIN_DEF_H

#include <stdbool.h>
#include <stddef.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TmkDomainDef TmkDomainDef;

/* Parses `len` bytes of a `<domain>` document (also one wrapped in `<domstatus>`).
 * `origin` names the document in messages (a file name). Free with tmk_domain_def_free(). */
TmkDomainDef *tmk_domain_def_parse (const char *xml, size_t len, const char *origin,
                                    TmkError **errp);

void tmk_domain_def_free (TmkDomainDef *def);

/* The domain's name and uuid; NULL where the document has none. Owned by `def`. */
const char *tmk_domain_def_name (const TmkDomainDef *def);
const char *tmk_domain_def_uuid (const TmkDomainDef *def);

size_t tmk_domain_def_n_disks (const TmkDomainDef *def);

/* The target (`vda`) of disk `i`, which must be below tmk_domain_def_n_disks(). */
const char *tmk_domain_def_disk_name (const TmkDomainDef *def, size_t i);

#ifdef __cplusplus
}
#endif
#endif
