/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/backup_def.h: `<domainbackup>`, what to back up and how.
 *
 * The document is libvirt's (formatbackup); its meaning here is in
 * tidemark-domainbackup(7). A definition says what to do and carries no
 * runtime state; an aligned definition has every default resolved against a
 * domain's disks, so that it can be shown, saved, edited and run again.
 *
 * Not thread-safe: one thread at a time per definition.
 */
#ifndef TIDEMARK_BACKUP_DEF_H
#define TIDEMARK_BACKUP_DEF_H

#include <stdbool.h>
#include <stddef.h>
#include <tidemark/domain_def.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TmkBackupDef TmkBackupDef;

/* Flags for parsing and formatting definitions. */
enum {
  TMK_XML_PUBLIC = 0,
  /* The form in which a running job is kept on disk: with `state`, `index` and
   * `<privateData>`. The public schema refuses it, so it is parsed without a schema. */
  TMK_XML_INTERNAL = 1 << 0,
};

/* Parses `len` bytes at `xml`. The public form is validated against the schema first; a
 * fault is reported as TMK_ERR_INVALID with `origin`, the line and the reason. Free with
 * tmk_backup_def_free(). */
TmkBackupDef *tmk_backup_def_parse (const char *xml, size_t len, const char *origin, unsigned flags,
                                    TmkError **errp);

/* An empty push definition, as `<domainbackup/>` gives. */
TmkBackupDef *tmk_backup_def_new (void);

TmkBackupDef *tmk_backup_def_copy (const TmkBackupDef *def);

void tmk_backup_def_free (TmkBackupDef *def);

/* Resolves every default of `def` against the disks of `dom`, in place. `suffix` ends
 * the names of generated files (`SOURCE.SUFFIX`). On failure `def` is unchanged. */
bool tmk_backup_def_align (TmkBackupDef *def, const TmkDomainDef *dom, const char *suffix,
                           TmkError **errp);

/* The document, ending in a newline. Free with tmk_free(). Never fails. */
char *tmk_backup_def_format (const TmkBackupDef *def, unsigned flags);

bool tmk_backup_def_is_pull (const TmkBackupDef *def);

size_t tmk_backup_def_n_disks (const TmkBackupDef *def);

/* The target of disk `i`, and whether it takes part (`backup='yes'`). */
const char *tmk_backup_def_disk_name (const TmkBackupDef *def, size_t i);
bool tmk_backup_def_disk_selected (const TmkBackupDef *def, size_t i);

#ifdef __cplusplus
}
#endif
#endif
