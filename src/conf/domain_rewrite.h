/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/domain_rewrite.h: a `<domain>` document made to fit images that were restored. Pure.
 */
#pragma once

#include "util/error.h"
#include <glib.h>

typedef struct {
  const char *target, *path, *format;
} DomainRewriteDisk;

typedef struct {
  /* A name for the domain, which then lives beside the one that was backed up: what the two could
   * not both have (uuid, MAC addresses, disks and files that were not restored) it loses. NULL: it
   * takes the other's place. */
  const char *name;
  const DomainRewriteDisk *disks; /* that were restored */
  size_t n_disks;
  const char *nvram; /* the file with its firmware's variables; NULL: was not restored */
  const char *tpm;   /* the folder with its TPM's state; NULL: was not restored, or has no say */
} DomainRewrite;

/* The document with disks and files pointing to what was restored, laid out afresh. What the user
 * should know is added to `notes` (of char *), a line each. Free with g_free(). */
char *domain_rewrite (const char *xml, size_t len, const char *origin, const DomainRewrite *how,
                      GPtrArray *notes, TmkError **errp);
