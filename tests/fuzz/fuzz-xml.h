/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/fuzz/fuzz-xml.h: what the fuzz targets of the XML model share. */
#pragma once

#include "conf/domain_def.h"
#include "util/error.h"
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* A domain with the disks that the seeds name. */
static inline TmkDomainDef *
small_domain (void)
{
  static const char *const targets[] = { "vda", "vdb", "vdc", "sda", "sdb" };
  TmkDomainDef *def = domain_def_new ();
  for (size_t i = 0; i < G_N_ELEMENTS (targets); i++) {
    g_autofree char *path = g_strconcat ("/img/", targets[i], NULL);
    DiskDef *disk = domain_def_add_disk (def, targets[i]);
    disk_def_add_source (disk, STORAGE_FILE, path, "qcow2");
    disk->readonly = targets[i][0] == 's';
  }
  return def;
}

/* A failure must say why. */
static inline void
must_explain (TmkError *err)
{
  g_assert (err != NULL && tmk_error_message (err)[0] != '\0');
  tmk_error_free (err);
}
