/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/export_uri.c: see hv/export_uri.h. */
#include "hv/export_uri.h"

#include <string.h>

char *
hv_export_uri (const BackupServer *server, const char *export_name)
{
  const char *tls = server->tls == 1 ? "s" : "";
  g_autofree char *name = g_uri_escape_string (export_name, NULL, FALSE);
  if (server->transport == BACKUP_SERVER_UNIX) {
    g_autofree char *socket = g_uri_escape_string (server->socket, "/", FALSE);
    return g_strdup_printf ("nbd%s+unix:///%s?socket=%s", tls, name, socket);
  }
  bool is_ipv6 = strchr (server->name, ':') != NULL;
  return g_strdup_printf ("nbd%s://%s%s%s:%u/%s", tls, is_ipv6 ? "[" : "", server->name,
                          is_ipv6 ? "]" : "", server->port, name);
}
