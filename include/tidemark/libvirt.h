/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/libvirt.h: domains that libvirt manages.
 *
 * `uri` names the hypervisor as virsh does ("qemu:///system"); NULL: as virsh picks it. The
 * hypervisor must be on this host, for disks are read through a socket and as files. Where the
 * library was built without libvirt every function fails with TMK_ERR_UNSUPPORTED.
 */
#ifndef TIDEMARK_LIBVIRT_H
#define TIDEMARK_LIBVIRT_H

#include <tidemark/domain.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Opens a domain by its name, uuid or number; it may be running or shut off, and that may change
 * from call to call. Running, libvirt's own backup jobs and checkpoints are used, so virsh sees
 * them; shut off, its images are, as tmk_domain_open_images() does it. `options->domain` must be
 * NULL. TMK_ERR_NOT_FOUND where there is no such domain, TMK_ERR_GONE where libvirt does not
 * answer, TMK_ERR_DENIED where it does not let us in. */
TmkDomain *tmk_domain_open_libvirt (const char *uri, const char *name,
                                    const TmkDomainOptions *options, TmkError **errp);

/* One domain of a hypervisor. */
typedef struct {
  const char *name, *uuid;
  bool running;
  bool persistent; /* it is still there when it has been shut off */
} TmkDomainEntry;

typedef struct {
  size_t n_domains;
  const TmkDomainEntry *const *domains; /* by name */
} TmkDomainEntries;

/* All domains, running or not. */
TmkDomainEntries *tmk_libvirt_list (const char *uri, TmkError **errp);
void tmk_domain_entries_free (TmkDomainEntries *entries);

/* Defines a domain from a `<domain>` document. TMK_ERR_EXISTS where one of that name or uuid is
 * there already. `*name` (if not NULL) gets its name, free with tmk_free(). */
bool tmk_libvirt_define (const char *uri, const char *xml, char **name, TmkError **errp);

#ifdef __cplusplus
}
#endif
#endif
