/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/connection.c: see hv/libvirt/connection.h; and what of <tidemark/libvirt.h> is about
 * no single domain. */
#include "hv/libvirt/connection.h"

#include "conf/domain_def.h"
#include "hv/hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <tidemark/libvirt.h>
#include <unistd.h>

#define DOMAIN "libvirt"

/* --- errors ---------------------------------------------------------------------------------- */

/* It would print every error on stderr. */
static void
ignore_error (void *data, virErrorPtr error)
{
}

static TmkErrorCode
code_of (const virError *error)
{
  switch (error->code) {
  case VIR_ERR_NO_DOMAIN:
  case VIR_ERR_NO_DOMAIN_CHECKPOINT:
  case VIR_ERR_NO_DOMAIN_BACKUP:
    return TMK_ERR_NOT_FOUND;
  case VIR_ERR_DOM_EXIST:
    return TMK_ERR_EXISTS;
  case VIR_ERR_AUTH_FAILED:
  case VIR_ERR_AUTH_CANCELLED:
  case VIR_ERR_AUTH_UNAVAILABLE:
  case VIR_ERR_ACCESS_DENIED:
  case VIR_ERR_OPERATION_DENIED:
    return TMK_ERR_DENIED;
  case VIR_ERR_CHECKPOINT_INCONSISTENT:
    return TMK_ERR_INCONSISTENT;
  case VIR_ERR_NO_SUPPORT:
  case VIR_ERR_OPERATION_UNSUPPORTED:
  case VIR_ERR_CONFIG_UNSUPPORTED:
  case VIR_ERR_NO_CONNECT:
    return TMK_ERR_UNSUPPORTED;
  case VIR_ERR_OPERATION_TIMEOUT:
  case VIR_ERR_AGENT_UNRESPONSIVE:
    return TMK_ERR_TIMEOUT;
  case VIR_ERR_RESOURCE_BUSY:
    return TMK_ERR_BUSY;
  case VIR_ERR_XML_ERROR:
  case VIR_ERR_XML_DETAIL:
  case VIR_ERR_XML_INVALID_SCHEMA:
    return TMK_ERR_INVALID;
  case VIR_ERR_RPC:
    return TMK_ERR_GONE;
  default:
    return TMK_ERR_FAILED;
  }
}

bool
connection_lost (void)
{
  const virError *error = virGetLastError ();
  return error != NULL
         && (error->domain == VIR_FROM_RPC || error->code == VIR_ERR_RPC
             || (error->domain == VIR_FROM_REMOTE && error->code == VIR_ERR_SYSTEM_ERROR)
             || error->code == VIR_ERR_INVALID_CONN);
}

/* libvirt's messages may have several lines, and its schema's complaints do. */
static char *
first_line (const char *message)
{
  return g_strndup (message, strcspn (message, "\n"));
}

void
connection_set_error (TmkError **errp, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *what = g_strdup_vprintf (format, ap);
  va_end (ap);
  const virError *error = virGetLastError ();
  if (error == NULL || error->message == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "%s: libvirt does not say why", what);
    return;
  }
  bool lost = connection_lost ();
  g_autofree char *why = first_line (error->message);
  error_set (errp, DOMAIN, lost ? TMK_ERR_GONE : code_of (error), 0, "%s: %s", what, why);
  if (lost)
    error_hint (errp, "libvirt has ended, or was restarted: try again");
  else if (code_of (error) == TMK_ERR_DENIED)
    error_hint (errp, "run tidemark as root, or as a user whom libvirt lets manage its domains");
}

/* --- connections ----------------------------------------------------------------------------- */

static bool
start_libvirt (TmkError **errp)
{
  static gsize started;
  if (!lv_api_load (errp))
    return false;
  if (g_once_init_enter (&started)) {
    virSetErrorFunc (NULL, ignore_error);
    g_once_init_leave (&started, 1);
  }
  return true;
}

/* Disks are read through a unix socket and as files: "qemu+ssh://host/system" is too far away. */
static bool
check_local (const char *uri, TmkError **errp)
{
  g_autoptr (GUri) parsed = uri != NULL ? g_uri_parse (uri, G_URI_FLAGS_NONE, NULL) : NULL;
  const char *host = parsed != NULL ? g_uri_get_host (parsed) : NULL;
  if (host == NULL || *host == '\0')
    return true;
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "'%s' is another host's libvirt", uri);
  error_hint (errp, "run tidemark on '%s'", host);
  return false;
}

virConnectPtr
connection_open (const char *uri, TmkError **errp)
{
  if (!start_libvirt (errp) || !check_local (uri, errp))
    return NULL;
  virConnectPtr connection = virConnectOpenAuth (uri, *lv_api.auth_default, 0);
  if (connection == NULL) {
    const virError *error = virGetLastError ();
    bool absent = error != NULL && error->code == VIR_ERR_SYSTEM_ERROR;
    TmkError *err = NULL;
    connection_set_error (&err, "cannot connect to libvirt%s%s%s", uri != NULL ? " at '" : "",
                          uri != NULL ? uri : "", uri != NULL ? "'" : "");
    if (absent && error->int1 == EACCES)
      error_hint (&err, "run tidemark as root, or as a user whom libvirt lets manage its domains");
    else if (absent || tmk_error_hint (err) == NULL)
      error_hint (&err, "is libvirtd (or virtqemud) running? -c names another one");
    error_propagate (errp, err);
    return NULL;
  }
  g_autofree char *type = g_strdup (virConnectGetType (connection));
  if (g_strcmp0 (type, "QEMU") == 0)
    return connection;
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "libvirt's hypervisor there is %s, not QEMU",
             type != NULL ? type : "unknown");
  error_hint (errp, "name another one with -c, like -c qemu:///system");
  virConnectClose (connection);
  return NULL;
}

bool
connection_is_since (virConnectPtr connection, unsigned long release)
{
  unsigned long version = 0;
  return virConnectGetLibVersion (connection, &version) == 0 && version >= release;
}

/* Root's session libvirt takes for the system's. */
bool
connection_is_session (virConnectPtr connection)
{
  char *uri = geteuid () != 0 ? virConnectGetURI (connection) : NULL;
  g_autoptr (GUri) parsed = uri != NULL ? g_uri_parse (uri, G_URI_FLAGS_NONE, NULL) : NULL;
  free (uri); /* libvirt's, from malloc */
  return parsed != NULL && g_str_equal (g_uri_get_path (parsed), "/session");
}

virDomainPtr
connection_find (virConnectPtr connection, const char *name, TmkError **errp)
{
  virDomainPtr domain = virDomainLookupByName (connection, name);
  if (domain == NULL)
    domain = virDomainLookupByUUIDString (connection, name);
  char *end;
  unsigned long number = strtoul (name, &end, 10);
  if (domain == NULL && *name != '\0' && *end == '\0' && number <= G_MAXINT)
    domain = virDomainLookupByID (connection, (int) number);
  if (domain != NULL)
    return domain;
  if (connection_lost ()) {
    connection_set_error (errp, "cannot look for domain '%s'", name);
    return NULL;
  }
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "libvirt has no domain '%s'", name);
  error_hint (errp, "'virsh list --all' shows which there are; -c names another hypervisor");
  return NULL;
}

/* --- all domains ----------------------------------------------------------------------------- */

typedef struct {
  TmkDomainEntries public_part;
  HvArena *arena;
} Entries;

static gint
compare_entries (gconstpointer a, gconstpointer b)
{
  const TmkDomainEntry *const *one = a, *const *two = b;
  return strcmp ((*one)->name, (*two)->name);
}

static TmkDomainEntry *
describe_entry (virDomainPtr domain, HvArena *arena)
{
  char uuid[VIR_UUID_STRING_BUFLEN] = "";
  TmkDomainEntry *entry = hv_arena_alloc (arena, sizeof *entry);
  entry->name = hv_arena_string (arena, virDomainGetName (domain));
  if (virDomainGetUUIDString (domain, uuid) == 0)
    entry->uuid = hv_arena_string (arena, uuid);
  entry->running = virDomainIsActive (domain) == 1;
  entry->persistent = virDomainIsPersistent (domain) == 1;
  return entry;
}

TmkDomainEntries *
tmk_libvirt_list (const char *uri, TmkError **errp)
{
  g_auto (virConnectPtr) connection = connection_open (uri, errp);
  virDomainPtr *domains = NULL;
  if (connection == NULL)
    return NULL;
  int n = virConnectListAllDomains (connection, &domains, 0);
  if (n < 0) {
    connection_set_error (errp, "cannot list libvirt's domains");
    return NULL;
  }
  Entries *entries = g_new0 (Entries, 1);
  entries->arena = hv_arena_new ();
  TmkDomainEntry **list = hv_arena_alloc (entries->arena, sizeof *list * (size_t) (n + 1));
  for (int i = 0; i < n; i++) {
    list[i] = describe_entry (domains[i], entries->arena);
    virDomainFree (domains[i]);
  }
  free (domains); /* libvirt's, from malloc */
  if (n > 1)
    qsort (list, (size_t) n, sizeof *list, compare_entries);
  entries->public_part.n_domains = (size_t) n;
  entries->public_part.domains = (const TmkDomainEntry *const *) list;
  return &entries->public_part;
}

void
tmk_domain_entries_free (TmkDomainEntries *entries)
{
  if (entries == NULL)
    return;
  hv_arena_free (((Entries *) entries)->arena);
  g_free (entries);
}

/* --- defining -------------------------------------------------------------------------------- */

/* To define a domain once more would change it. */
static bool
check_new (virConnectPtr connection, const char *xml, TmkError **errp)
{
  g_autoptr (TmkDomainDef) def = tmk_domain_def_parse (xml, strlen (xml), "the domain", errp);
  if (def == NULL)
    return false;
  const char *name = tmk_domain_def_name (def), *uuid = tmk_domain_def_uuid (def);
  g_auto (virDomainPtr) other = name != NULL ? virDomainLookupByName (connection, name) : NULL;
  if (other == NULL && uuid != NULL)
    other = virDomainLookupByUUIDString (connection, uuid);
  if (other == NULL)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0, "libvirt has a domain '%s' of that name or uuid",
             virDomainGetName (other));
  error_hint (errp, "undefine it, or change name and uuid in the document");
  return false;
}

bool
tmk_libvirt_define (const char *uri, const char *xml, char **name, TmkError **errp)
{
  g_auto (virConnectPtr) connection = connection_open (uri, errp);
  if (connection == NULL || !check_new (connection, xml, errp))
    return false;
  /* Validated: what this libvirt does not know it would silently leave out. */
  g_auto (virDomainPtr) domain
      = virDomainDefineXMLFlags (connection, xml, VIR_DOMAIN_DEFINE_VALIDATE);
  if (domain == NULL) {
    connection_set_error (errp, "libvirt does not define the domain");
    return false;
  }
  if (name != NULL)
    *name = g_strdup (virDomainGetName (domain));
  return true;
}
