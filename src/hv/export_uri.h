/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/export_uri.h: where a client finds an export of a pull. */
#pragma once

#include "conf/backup_def.h"

/* The NBD URI of that export (source: the NBD project, doc/uri.md). `server` is an aligned
 * definition's, on a unix socket or TCP. Free with g_free(). */
char *hv_export_uri (const BackupServer *server, const char *export_name);
