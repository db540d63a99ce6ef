/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/backup_def.c: `<domainbackup>` from and to XML. Alignment is in backup_align.c.
 *
 * The public form is validated against the schema before it is read here; the internal form is
 * not. The reader below checks every field all the same, so that it needs no schema to be safe.
 */
#include "conf/backup_def.h"
#include "conf/schema.h"
#include "conf/storage_xml.h"
#include "conf/xml_doc.h"

#include <string.h>

static const char *const mode_names[] = {
  [BACKUP_MODE_FULL] = "full",
  [BACKUP_MODE_INCREMENTAL] = "incremental",
};

static const char *const state_names[] = {
  [BACKUP_DISK_STATE_RUNNING] = "running",     [BACKUP_DISK_STATE_COMPLETE] = "complete",
  [BACKUP_DISK_STATE_FAILED] = "failed",       [BACKUP_DISK_STATE_CANCELLING] = "cancelling",
  [BACKUP_DISK_STATE_CANCELLED] = "cancelled",
};

static const char *const transport_names[] = {
  [BACKUP_SERVER_TCP] = "tcp",
  [BACKUP_SERVER_UNIX] = "unix",
  [BACKUP_SERVER_FD] = "fd",
};

const char *
backup_mode_name (BackupMode mode)
{
  return (size_t) mode < G_N_ELEMENTS (mode_names) ? mode_names[mode] : NULL;
}

/* --- lifetime --- */

static void
disk_free (gpointer data)
{
  BackupDisk *disk = data;
  g_free (disk->name);
  g_free (disk->incremental);
  g_free (disk->exportname);
  g_free (disk->exportbitmap);
  storage_def_free (disk->store);
  g_free (disk);
}

static void
server_free (BackupServer *server)
{
  if (server == NULL)
    return;
  g_free (server->name);
  g_free (server->socket);
  g_free (server->fdgroup);
  g_free (server);
}

TmkBackupDef *
tmk_backup_def_new (void)
{
  TmkBackupDef *def = g_new0 (TmkBackupDef, 1);
  def->disks = g_ptr_array_new_with_free_func (disk_free);
  return def;
}

void
tmk_backup_def_free (TmkBackupDef *def)
{
  if (def == NULL)
    return;
  g_free (def->incremental);
  server_free (def->server);
  g_ptr_array_unref (def->disks);
  g_free (def->tls_alias);
  g_free (def->tls_secret_alias);
  g_free (def);
}

BackupDisk *
backup_def_add_disk (TmkBackupDef *def, const char *name)
{
  BackupDisk *disk = g_new0 (BackupDisk, 1);
  disk->name = g_strdup (name);
  g_ptr_array_add (def->disks, disk);
  return disk;
}

TmkBackupDef *
tmk_backup_def_copy (const TmkBackupDef *def)
{
  TmkBackupDef *copy = tmk_backup_def_new ();
  copy->pull = def->pull;
  copy->incremental = g_strdup (def->incremental);
  copy->tls_alias = g_strdup (def->tls_alias);
  copy->tls_secret_alias = g_strdup (def->tls_secret_alias);
  if (def->server != NULL) {
    copy->server = g_memdup2 (def->server, sizeof *def->server);
    copy->server->name = g_strdup (def->server->name);
    copy->server->socket = g_strdup (def->server->socket);
    copy->server->fdgroup = g_strdup (def->server->fdgroup);
  }
  for (guint i = 0; i < def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (def->disks, i);
    BackupDisk *to = backup_def_add_disk (copy, disk->name);
    to->backup = disk->backup;
    to->state = disk->state;
    to->mode = disk->mode;
    to->incremental = g_strdup (disk->incremental);
    to->exportname = g_strdup (disk->exportname);
    to->exportbitmap = g_strdup (disk->exportbitmap);
    to->store = storage_def_copy (disk->store);
  }
  return copy;
}

/* --- parse --- */

/* What every step of one parse needs. */
typedef struct {
  const char *origin;
  gboolean internal;
} Parse;

/* Stores the index of the attribute's value in `names`, or leaves `*value` where it is not there.
 */
static bool
parse_enum (const Parse *p, const xmlNode *node, const char *attr, const char *const *names,
            size_t n, int *value, TmkError **errp)
{
  g_autofree char *text = xml_attr (node, attr);
  if (text == NULL)
    return true;
  int found = xml_enum (names, n, text);
  if (found < 0)
    return xml_fault (p->origin, node, errp, "%s='%s' of <%s> is not known", attr, text,
                      node->name);
  *value = found;
  return true;
}

static bool
parse_server (const Parse *p, const xmlNode *node, TmkBackupDef *def, TmkError **errp)
{
  if (!def->pull)
    return xml_fault (p->origin, node, errp, "<server> needs mode='pull'");
  BackupServer *server = def->server = g_new0 (BackupServer, 1);
  int transport = BACKUP_SERVER_TCP;
  g_autofree char *named = xml_attr (node, "transport");
  if (g_strcmp0 (named, "rdma") == 0)
    return xml_fault (p->origin, node, errp, "<server> over rdma is not supported");
  if (!parse_enum (p, node, "transport", transport_names, G_N_ELEMENTS (transport_names),
                   &transport, errp)
      || !xml_attr_yes_no (p->origin, node, "tls", &server->tls, errp))
    return false;
  server->transport = (BackupTransport) transport;

  g_autofree char *socket = xml_attr (node, "socket");
  if (server->transport == BACKUP_SERVER_UNIX) {
    if (socket == NULL || socket[0] != '/')
      return xml_fault (p->origin, node, errp, "socket='%s' of <server> is not an absolute path",
                        socket != NULL ? socket : "");
    server->socket = g_steal_pointer (&socket);
    return true;
  }
  if (socket != NULL)
    return xml_fault (p->origin, node, errp, "<server transport='%s'> cannot have 'socket'",
                      transport_names[transport]);
  if (server->transport == BACKUP_SERVER_FD) {
    server->fdgroup = xml_attr (node, "fdgroup");
    if (server->fdgroup == NULL || server->fdgroup[0] == '\0')
      return xml_fault (p->origin, node, errp, "<server transport='fd'> has no 'fdgroup'");
    return true;
  }
  server->name = xml_attr (node, "name");
  if (server->name == NULL)
    return xml_fault (p->origin, node, errp, "<server> has no 'name'");
  g_autofree char *port = xml_attr (node, "port");
  guint64 number = 0;
  if (port != NULL && !xml_number (port, 65535, &number))
    return xml_fault (p->origin, node, errp, "port='%s' of <server> is not a port", port);
  server->port = (unsigned) number;
  return true;
}

static bool
parse_store (const Parse *p, const xmlNode *node, gboolean pull, BackupDisk *disk, TmkError **errp)
{
  StorageDef *store = disk->store = storage_def_new ();
  store->type = STORAGE_FILE;
  g_autofree char *type = xml_attr (node, "type");
  if (type != NULL)
    store->type = storage_type_from_name (type);
  if (store->type != STORAGE_FILE && store->type != STORAGE_BLOCK)
    return xml_fault (p->origin, node, errp, "disk '%s': type='%s' is neither 'file' nor 'block'",
                      disk->name, type);

  const xmlNode *driver = xml_child (node, "driver");
  if (driver != NULL)
    store->format = xml_attr_full (driver, "type");
  if (store->format != NULL && !storage_format_is_known (store->format))
    return xml_fault (p->origin, driver, errp, "disk '%s': image format '%s' is not known",
                      disk->name, store->format);
  if (pull && store->format != NULL && strcmp (store->format, "qcow2") != 0)
    return xml_fault (p->origin, driver, errp, "disk '%s': a scratch image is always 'qcow2'",
                      disk->name);

  g_autofree char *index = p->internal ? xml_attr (node, "index") : NULL;
  guint64 number = 0;
  if (index != NULL && !xml_number (index, G_MAXUINT, &number))
    return xml_fault (p->origin, node, errp, "disk '%s': index='%s' is not a number", disk->name,
                      index);
  store->index = (unsigned) number;

  const xmlNode *image = xml_child (node, pull ? "scratch" : "target");
  return image == NULL || storage_def_parse (store, p->origin, image, errp);
}

static bool
parse_disk (const Parse *p, const xmlNode *node, TmkBackupDef *def, TmkError **errp)
{
  if (!xml_is (node, "disk"))
    return xml_fault (p->origin, node, errp, "<%s> cannot stand in <disks>", node->name);
  g_autofree char *name = xml_attr_full (node, "name");
  if (name == NULL)
    return xml_fault (p->origin, node, errp, "a disk has no 'name'");
  BackupDisk *disk = backup_def_add_disk (def, name);

  int backup, mode = BACKUP_MODE_DEFAULT, state = BACKUP_DISK_STATE_NONE;
  if (!xml_attr_yes_no (p->origin, node, "backup", &backup, errp))
    return false;
  disk->backup = backup != 0;
  if (!disk->backup)
    return true; /* nothing else about it counts */

  if (!parse_enum (p, node, "backupmode", mode_names, G_N_ELEMENTS (mode_names), &mode, errp)
      || (p->internal
          && !parse_enum (p, node, "state", state_names, G_N_ELEMENTS (state_names), &state, errp)))
    return false;
  disk->mode = (BackupMode) mode;
  disk->state = (BackupDiskState) state;
  disk->incremental = xml_attr (node, "incremental");
  if (disk->mode == BACKUP_MODE_FULL && disk->incremental != NULL)
    return xml_fault (p->origin, node, errp,
                      "disk '%s': 'incremental' contradicts backupmode='full'", name);
  if (def->pull) {
    disk->exportname = xml_attr (node, "exportname");
    disk->exportbitmap = xml_attr (node, "exportbitmap");
  }
  return parse_store (p, node, def->pull, disk, errp);
}

static void
parse_private (const xmlNode *root, TmkBackupDef *def)
{
  const xmlNode *node = xml_child (root, "privateData");
  const xmlNode *objects = node != NULL ? xml_child (node, "objects") : NULL;
  if (objects == NULL)
    return;
  const xmlNode *tls = xml_child (objects, "TLSx509");
  if (tls != NULL)
    def->tls_alias = xml_attr_full (tls, "alias");
  for (const xmlNode *secret = xml_child (objects, "secret"); secret != NULL;
       secret = xml_next (secret, "secret")) {
    g_autofree char *type = xml_attr (secret, "type");
    if (g_strcmp0 (type, "tlskey") != 0)
      continue;
    def->tls_secret_alias = xml_attr_full (secret, "alias");
    return;
  }
}

static bool
parse_root (const Parse *p, const xmlNode *root, TmkBackupDef *def, TmkError **errp)
{
  g_autofree char *mode = xml_attr (root, "mode");
  def->pull = g_strcmp0 (mode, "pull") == 0;
  if (mode != NULL && !def->pull && strcmp (mode, "push") != 0)
    return xml_fault (p->origin, root, errp, "mode='%s' is neither 'push' nor 'pull'", mode);
  def->incremental = xml_text (xml_child (root, "incremental"));
  const xmlNode *server = xml_child (root, "server");
  if (server != NULL && !parse_server (p, server, def, errp))
    return false;
  const xmlNode *disks = xml_child (root, "disks");
  for (; disks != NULL; disks = xml_next (disks, "disks"))
    for (const xmlNode *node = xml_child (disks, NULL); node != NULL; node = xml_next (node, NULL))
      if (!parse_disk (p, node, def, errp))
        return false;
  if (p->internal)
    parse_private (root, def);
  return true;
}

TmkBackupDef *
tmk_backup_def_parse (const char *xml, size_t len, const char *origin, unsigned flags,
                      TmkError **errp)
{
  Parse p = { origin, (flags & TMK_XML_INTERNAL) != 0 };
  g_autoptr (xmlDoc) doc = xml_doc_parse (xml, len, origin, "domainbackup", errp);
  if (doc == NULL || (!p.internal && !schema_check (doc, origin, errp)))
    return NULL;
  g_autoptr (TmkBackupDef) def = tmk_backup_def_new ();
  if (!parse_root (&p, xmlDocGetRootElement (doc), def, errp))
    return NULL;
  return g_steal_pointer (&def);
}

/* --- format --- */

static void
format_server (const BackupServer *server, XmlWriter *w)
{
  xml_start (w, "server");
  xml_put_attr (w, "transport", transport_names[server->transport]);
  if (server->tls >= 0)
    xml_put_attr (w, "tls", server->tls ? "yes" : "no");
  xml_put_attr (w, "name", server->name);
  if (server->port != 0)
    xml_put_attr_uint (w, "port", server->port);
  xml_put_attr (w, "socket", server->socket);
  xml_put_attr (w, "fdgroup", server->fdgroup);
  xml_end_empty (w);
}

/* Has the store anything that is shown as a child of `<disk>`? */
static gboolean
store_is_shown (const StorageDef *store)
{
  return store != NULL
         && (store->format != NULL || store->path != NULL || store->seclabels != NULL
             || store->encryption != NULL);
}

static void
format_disk (const BackupDisk *disk, gboolean pull, gboolean internal, XmlWriter *w)
{
  const StorageDef *store = disk->store;
  xml_start (w, "disk");
  xml_put_attr (w, "name", disk->name);
  xml_put_attr (w, "backup", disk->backup ? "yes" : "no");
  if (!disk->backup) {
    xml_end_empty (w);
    return;
  }
  if (internal && disk->state != BACKUP_DISK_STATE_NONE)
    xml_put_attr (w, "state", state_names[disk->state]);
  xml_put_attr (w, "type", store != NULL ? storage_type_name (store->type) : NULL);
  xml_put_attr (w, "backupmode", backup_mode_name (disk->mode));
  xml_put_attr (w, "incremental", disk->incremental);
  xml_put_attr (w, "exportname", disk->exportname);
  xml_put_attr (w, "exportbitmap", disk->exportbitmap);
  if (internal && store != NULL && store->index != 0)
    xml_put_attr_uint (w, "index", store->index);
  if (!store_is_shown (store)) {
    xml_end_empty (w);
    return;
  }
  xml_open (w);
  if (store->format != NULL) {
    xml_start (w, "driver");
    xml_put_attr (w, "type", store->format);
    xml_end_empty (w);
  }
  storage_def_format (store, pull ? "scratch" : "target", w);
  xml_close (w, "disk");
}

static void
format_private (const TmkBackupDef *def, XmlWriter *w)
{
  if (def->tls_alias == NULL && def->tls_secret_alias == NULL)
    return;
  xml_start (w, "privateData");
  xml_open (w);
  xml_start (w, "objects");
  xml_open (w);
  if (def->tls_secret_alias != NULL) {
    xml_start (w, "secret");
    xml_put_attr (w, "type", "tlskey");
    xml_put_attr (w, "alias", def->tls_secret_alias);
    xml_end_empty (w);
  }
  if (def->tls_alias != NULL) {
    xml_start (w, "TLSx509");
    xml_put_attr (w, "alias", def->tls_alias);
    xml_end_empty (w);
  }
  xml_close (w, "objects");
  xml_close (w, "privateData");
}

char *
tmk_backup_def_format (const TmkBackupDef *def, unsigned flags)
{
  gboolean internal = (flags & TMK_XML_INTERNAL) != 0;
  XmlWriter w = { g_string_new (NULL), 0 };
  xml_start (&w, "domainbackup");
  xml_put_attr (&w, "mode", def->pull ? "pull" : "push");
  gboolean secrets = internal && (def->tls_alias != NULL || def->tls_secret_alias != NULL);
  if (def->incremental == NULL && def->server == NULL && def->disks->len == 0 && !secrets) {
    xml_end_empty (&w);
    return g_string_free (w.out, FALSE);
  }
  xml_open (&w);
  xml_put_text (&w, "incremental", def->incremental);
  if (def->server != NULL)
    format_server (def->server, &w);
  if (def->disks->len > 0) {
    xml_start (&w, "disks");
    xml_open (&w);
    for (guint i = 0; i < def->disks->len; i++)
      format_disk (g_ptr_array_index (def->disks, i), def->pull, internal, &w);
    xml_close (&w, "disks");
  }
  if (internal)
    format_private (def, &w);
  xml_close (&w, "domainbackup");
  return g_string_free (w.out, FALSE);
}

/* --- looking --- */

BackupDisk *
backup_def_find_disk (const TmkBackupDef *def, const char *name)
{
  for (guint i = 0; i < def->disks->len; i++) {
    BackupDisk *disk = g_ptr_array_index (def->disks, i);
    if (strcmp (disk->name, name) == 0)
      return disk;
  }
  return NULL;
}

bool
tmk_backup_def_is_pull (const TmkBackupDef *def)
{
  return def->pull;
}

size_t
tmk_backup_def_n_disks (const TmkBackupDef *def)
{
  return def->disks->len;
}

const char *
tmk_backup_def_disk_name (const TmkBackupDef *def, size_t i)
{
  g_assert (i < def->disks->len);
  const BackupDisk *disk = g_ptr_array_index (def->disks, i);
  return disk->name;
}

bool
tmk_backup_def_disk_selected (const TmkBackupDef *def, size_t i)
{
  g_assert (i < def->disks->len);
  const BackupDisk *disk = g_ptr_array_index (def->disks, i);
  return disk->backup;
}
