/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/begin_server.c: where a pull's NBD server listens.
 *
 * That is the user's choice where the definition names a place; else it is a unix socket in a
 * folder that only QEMU's user can reach. A libvirt that can pass sockets on (11.4 and later) is
 * given ours, so that QEMU needs no right to make one there; where it refuses, QEMU makes it.
 * Sources: libvirt's docs/formatbackup, and virDomainFDAssociate() of its reference.
 */
#include "hv/libvirt/begin.h"

#include "hv/own_socket.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DOMAIN "libvirt"
#define BACKLOG 64
#define SINCE_PASSED_SOCKETS 11004000 /* 11.3 knows the word, and fails */

/* --- the folder ------------------------------------------------------------------------------ */

/* QEMU's user, as the running domain's `<seclabel model='dac'>` has it; ours where there is none.
 * It is "+64055:+64055" or has names. */
static bool
qemu_user (const LvDomain *lv, uid_t *uid)
{
  g_autoptr (GRegex) regex
      = g_regex_new ("<seclabel[^>]*model='dac'[^>]*>\\s*<label>\\+?([^:<]+)", 0, 0, NULL);
  g_autoptr (GMatchInfo) match = NULL;
  if (!g_regex_match (regex, lv->xml, 0, &match))
    return false;
  g_autofree char *user = g_match_info_fetch (match, 1);
  char *end;
  unsigned long number = strtoul (user, &end, 10);
  if (*user != '\0' && *end == '\0') {
    *uid = (uid_t) number;
    return true;
  }
  const struct passwd *entry = getpwnam (user);
  if (entry != NULL)
    *uid = entry->pw_uid;
  return entry != NULL;
}

bool
begin_make_folder (const Begin *begin, TmkError **errp)
{
  uid_t uid = 0;
  if (begin->folder == NULL)
    return true;
  (void) qemu_user (begin->lv, &uid);
  return own_socket_make_folder (begin->folder, uid, (gid_t) -1, errp);
}

/* --- passing a socket on --------------------------------------------------------------------- */

static int
listen_at (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  if (strlen (path) >= sizeof address.sun_path)
    return -1;
  strcpy (address.sun_path, path);
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && bind (fd, (struct sockaddr *) &address, sizeof address) == 0
      && listen (fd, BACKLOG) == 0)
    return fd;
  if (fd >= 0)
    close (fd);
  return -1;
}

void
begin_pass_socket (Begin *begin)
{
  if (begin->folder == NULL || begin->staged || virDomainFDAssociate == NULL
      || !connection_is_since (begin->lv->connection, SINCE_PASSED_SOCKETS))
    return;
  /* libvirt keeps it for as long as the connection that brought it: one that QEMU has left must not
   * go on listening. */
  g_auto (virConnectPtr) bearer = connection_open (begin->lv->uri, NULL);
  g_auto (virDomainPtr) domain
      = bearer != NULL ? connection_find (bearer, begin->lv->uuid, NULL) : NULL;
  int fd = domain != NULL ? listen_at (begin->def->server->socket) : -1;
  if (fd < 0)
    return;
  g_autofree char *group = g_strdup_printf ("tidemark-%s", begin->id);
  if (virDomainFDAssociate (domain, group, 1, &fd, 0) == 0) {
    begin->fdgroup = g_steal_pointer (&group);
    begin->bearer = g_steal_pointer (&bearer);
  } else {
    (void) unlink (begin->def->server->socket);
  }
  close (fd);
}

void
begin_take_socket_back (Begin *begin)
{
  begin_end_passing (begin);
  (void) unlink (begin->def->server->socket); /* or QEMU could not make its own */
}

void
begin_end_passing (Begin *begin)
{
  g_clear_pointer (&begin->fdgroup, g_free);
  g_clear_pointer (&begin->bearer, virConnectClose);
}
