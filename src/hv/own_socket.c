/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/own_socket.c: see hv/own_socket.h. */
#include "hv/own_socket.h"

#include "util/testpoint.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "hv"

/* Not the state folder: QEMU may be another user, who cannot pass through it, and a socket's path
 * has at most 107 bytes. */
const char *
own_socket_base_folder (void)
{
  const char *runtime = g_getenv ("XDG_RUNTIME_DIR");
  if (geteuid () == 0)
    return access ("/run", W_OK) == 0 ? "/run" : g_get_tmp_dir ();
  if (runtime != NULL && g_path_is_absolute (runtime) && access (runtime, W_OK | X_OK) == 0)
    return runtime;
  return g_get_tmp_dir ();
}

char *
own_socket_choose (TmkBackupDef *def, const char *id)
{
  if (!def->pull || def->server != NULL)
    return NULL;
  char *folder = g_strdup_printf ("%s/tidemark-%s", own_socket_base_folder (), id);
  BackupServer *server = g_new0 (BackupServer, 1);
  server->transport = BACKUP_SERVER_UNIX;
  server->tls = -1;
  server->socket = g_build_filename (folder, "nbd", NULL);
  def->server = server;
  return folder;
}

bool
own_socket_make_folder (const char *folder, uid_t uid, gid_t gid, TmkError **errp)
{
  testpoint ("mkdir");
  if (mkdir (folder, 0700) != 0)
    error_set_errno (errp, DOMAIN, errno, "cannot make the folder '%s' for the NBD server's socket",
                     folder);
  else if (geteuid () == 0 && uid != 0 && chown (folder, uid, gid) != 0)
    error_set_errno (errp, DOMAIN, errno, "cannot give '%s' to QEMU's user", folder);
  else {
    testpoint ("mkdir:done");
    return true;
  }
  error_hint (errp, "name a socket in the definition: <server transport='unix' socket='/…'/>");
  return false;
}
