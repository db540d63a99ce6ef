/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/checkpoint_def.h: `<domaincheckpoint>`, a named point in time since
 * which the writes to some disks of a domain are recorded.
 *
 * On each covered disk a checkpoint is one dirty bitmap, by default of the
 * checkpoint's own name (source: libvirt's formatcheckpoint).
 *
 * Not thread-safe: one thread at a time per definition.
 */
#ifndef TIDEMARK_CHECKPOINT_DEF_H
#define TIDEMARK_CHECKPOINT_DEF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tidemark/backup_def.h>
#include <tidemark/domain_def.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TmkCheckpointDef TmkCheckpointDef;

enum {
  /* Parsing: the document describes a checkpoint that exists already, so it must have a
   * name and a creationTime, and its parent and disks are kept. */
  TMK_CHECKPOINT_REDEFINE = 1 << 1,
  /* Formatting: show each disk's `size`, the bytes changed since, where known. Parsing: read it. */
  TMK_CHECKPOINT_SIZE = 1 << 2,
  /* Formatting: leave `<domain>` out. */
  TMK_CHECKPOINT_NO_DOMAIN = 1 << 3,
};

/* `flags`: TMK_XML_INTERNAL, TMK_CHECKPOINT_REDEFINE and TMK_CHECKPOINT_SIZE. See
 * tmk_backup_def_parse(). */
TmkCheckpointDef *tmk_checkpoint_def_parse (const char *xml, size_t len, const char *origin,
                                            unsigned flags, TmkError **errp);

/* A checkpoint called `name` (or, for NULL, the seconds since the epoch at the time of the
 * call) of every disk. NULL with an error where `name` is not a valid name. */
TmkCheckpointDef *tmk_checkpoint_def_new (const char *name, TmkError **errp);

TmkCheckpointDef *tmk_checkpoint_def_copy (const TmkCheckpointDef *def);

void tmk_checkpoint_def_free (TmkCheckpointDef *def);

/* Resolves every default against the disks of `dom`, in place; disks come in the domain's
 * order. On failure `def` is unchanged. */
bool tmk_checkpoint_def_align (TmkCheckpointDef *def, const TmkDomainDef *dom, TmkError **errp);

/* The document, ending in a newline. `flags`: TMK_XML_INTERNAL, TMK_CHECKPOINT_SIZE and
 * TMK_CHECKPOINT_NO_DOMAIN. Free with tmk_free(). */
char *tmk_checkpoint_def_format (const TmkCheckpointDef *def, unsigned flags);

/* Owned by `def`; the parent is NULL for a root. */
const char *tmk_checkpoint_def_name (const TmkCheckpointDef *def);
const char *tmk_checkpoint_def_parent (const TmkCheckpointDef *def);

#ifdef __cplusplus
}
#endif
#endif
