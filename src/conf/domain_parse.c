/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/domain_parse.c: the disks of a `<domain>` document.
 *
 * Read without a schema: a domain's schema is libvirt's business and grows with every release,
 * while a backup needs a dozen facts. What is read is checked; what is not read may be anything.
 */
#include "conf/domain_def.h"
#include "conf/xml_doc.h"
#include "conf/xml_writer.h"

#include <string.h>

/* QEMU refuses far shorter chains; the bound keeps a nonsense document cheap. */
enum { CHAIN_MAX = 1000 };

static const char *const devices[] = { "disk", "cdrom", "floppy", "lun" };

/* "nbd://host:port/name", to show. */
static char *
describe_network (const xmlNode *source)
{
  g_autofree char *protocol = xml_attr_full (source, "protocol");
  g_autofree char *name = xml_attr_full (source, "name");
  if (protocol == NULL)
    return NULL;
  GString *text = g_string_new (protocol);
  g_string_append (text, ":");
  const xmlNode *host = xml_child (source, "host");
  if (host != NULL) {
    g_autofree char *host_name = xml_attr_full (host, "name");
    g_autofree char *port = xml_attr_full (host, "port");
    g_autofree char *socket = xml_attr_full (host, "socket");
    g_string_append_printf (text, "//%s",
                            host_name != NULL ? host_name : (socket != NULL ? socket : ""));
    if (port != NULL)
      g_string_append_printf (text, ":%s", port);
  }
  if (name != NULL)
    g_string_append_printf (text, "%s%s", host != NULL && name[0] != '/' ? "/" : "", name);
  return g_string_free (text, FALSE);
}

static char *
describe_volume (const xmlNode *source)
{
  g_autofree char *pool = xml_attr_full (source, "pool");
  g_autofree char *volume = xml_attr_full (source, "volume");
  if (pool == NULL || volume == NULL)
    return NULL;
  return g_strdup_printf ("%s/%s", pool, volume);
}

static char *
describe_nvme (const xmlNode *source)
{
  static const char *const parts[] = { "domain", "bus", "slot", "function" };
  g_autofree char *namespace = xml_attr_full (source, "namespace");
  const xmlNode *address = xml_child (source, "address");
  if (namespace == NULL || address == NULL)
    return NULL;
  GString *text = g_string_new ("nvme://");
  for (size_t i = 0; i < G_N_ELEMENTS (parts); i++) {
    g_autofree char *part = xml_attr_full (address, parts[i]);
    const char *digits = part != NULL ? part : "0";
    if (g_str_has_prefix (digits, "0x"))
      digits += 2;
    g_string_append_printf (text, "%s%s", i == 0 ? "" : (i == 3 ? "." : ":"), digits);
  }
  g_string_append_printf (text, "/%s", namespace);
  return g_string_free (text, FALSE);
}

/* The path of a source of that type, or a description of what is no path. NULL: there is none. */
static char *
source_path (const xmlNode *source, StorageType type)
{
  switch (type) {
  case STORAGE_FILE:
    return xml_attr_full (source, "file");
  case STORAGE_BLOCK:
  case STORAGE_VHOST_VDPA:
    return xml_attr_full (source, "dev");
  case STORAGE_DIR:
    return xml_attr_full (source, "dir");
  case STORAGE_NETWORK:
    return describe_network (source);
  case STORAGE_VOLUME:
    return describe_volume (source);
  case STORAGE_NVME:
    return describe_nvme (source);
  case STORAGE_VHOST_USER:
    return xml_attr_full (source, "path");
  case STORAGE_NONE:
    break;
  }
  return NULL;
}

/* Only a missing path of these types means "no medium" (libvirt's virStorageSourceIsEmpty). */
static gboolean
needs_path (StorageType type)
{
  return type == STORAGE_FILE || type == STORAGE_BLOCK || type == STORAGE_DIR
         || type == STORAGE_NETWORK;
}

static bool
read_type (const xmlNode *node, const char *origin, StorageType *type, TmkError **errp)
{
  g_autofree char *name = xml_attr (node, "type");
  if (name == NULL)
    return true;
  *type = storage_type_from_name (name);
  if (*type == STORAGE_NONE)
    return xml_fault (origin, node, errp, "type='%s' of <%s> is no known kind of storage", name,
                      node->name);
  return true;
}

static bool
read_index (const xmlNode *node, const char *origin, unsigned *index, TmkError **errp)
{
  g_autofree char *text = xml_attr_full (node, "index");
  guint64 value = 0;
  if (text != NULL && !xml_number (text, G_MAXUINT, &value))
    return xml_fault (origin, node, errp, "index='%s' of <%s> is not a number", text, node->name);
  *index = (unsigned) value;
  return true;
}

static char *
child_attr (const xmlNode *node, const char *child, const char *name)
{
  const xmlNode *found = node != NULL ? xml_child (node, child) : NULL;
  return found != NULL ? xml_attr_full (found, name) : NULL;
}

/* `<dataStore>`: within `<source>` where libvirt writes it, or beside it within `<backingStore>`.
 */
static bool
read_data_store (const xmlNode *parent, const char *origin, DiskSourceDef *image, TmkError **errp)
{
  const xmlNode *store = xml_child (parent, "dataStore");
  if (store == NULL)
    return true;
  StorageType type = STORAGE_FILE;
  if (!read_type (store, origin, &type, errp))
    return false;
  const xmlNode *source = xml_child (store, "source");
  g_free (image->data_store_path);
  image->data_store_path = source != NULL ? source_path (source, type) : NULL;
  if (image->data_store_path == NULL)
    return xml_fault (origin, store, errp, "<dataStore> has no source");
  return true;
}

/* `<encryption format='luks'>`, within `<source>` or, as libvirt wrote it once, within `<disk>`. */
static void
read_encryption (DiskSourceDef *image, const xmlNode *disk, const xmlNode *source)
{
  const xmlNode *encryption = source != NULL ? xml_child (source, "encryption") : NULL;
  if (encryption == NULL)
    encryption = xml_child (disk, "encryption");
  g_autofree char *format = encryption != NULL ? xml_attr_full (encryption, "format") : NULL;
  image->luks = g_strcmp0 (format, "luks") == 0;
  if (!image->luks)
    return;
  image->secret_uuid = child_attr (encryption, "secret", "uuid");
  image->secret_usage = child_attr (encryption, "secret", "usage");
}

static bool
read_active (DiskDef *disk, const xmlNode *node, const char *origin, TmkError **errp)
{
  const xmlNode *source = xml_child (node, "source");
  g_autofree char *path = source != NULL ? source_path (source, disk->type) : NULL;
  if (source == NULL)
    disk->type = STORAGE_FILE;
  disk->empty = path == NULL && needs_path (disk->type);
  if (disk->empty)
    return true;
  g_autofree char *format = child_attr (node, "driver", "type");
  DiskSourceDef *image = disk_def_add_source (disk, disk->type, path, format);
  read_encryption (image, node, source);
  return read_index (source, origin, &image->index, errp)
         && read_data_store (source, origin, image, errp);
}

static bool
read_chain (DiskDef *disk, const xmlNode *node, const char *origin, TmkError **errp)
{
  const xmlNode *store = xml_child (node, "backingStore");
  for (; store != NULL; store = xml_child (store, "backingStore")) {
    g_autofree char *terminator = xml_attr (store, "type");
    const xmlNode *source = xml_child (store, "source");
    if (terminator == NULL)
      return true; /* `<backingStore/>`: the chain ends here */
    if (disk->chain->len >= CHAIN_MAX)
      return xml_fault (origin, store, errp, "disk '%s': more than %d images in the chain",
                        disk->target, CHAIN_MAX);
    StorageType type = STORAGE_FILE;
    if (!read_type (store, origin, &type, errp))
      return false;
    g_autofree char *path = source != NULL ? source_path (source, type) : NULL;
    if (source == NULL || (path == NULL && needs_path (type)))
      return xml_fault (origin, store, errp, "disk '%s': <backingStore> has no source",
                        disk->target);
    g_autofree char *format = child_attr (store, "format", "type");
    DiskSourceDef *image = disk_def_add_source (disk, type, path, format);
    if (!read_index (store, origin, &image->index, errp)
        || !read_data_store (source, origin, image, errp)
        || !read_data_store (store, origin, image, errp))
      return false;
  }
  return true;
}

static gboolean
has_iothread (const xmlNode *disk)
{
  const xmlNode *driver = xml_child (disk, "driver");
  g_autofree char *number = driver != NULL ? xml_attr_full (driver, "iothread") : NULL;
  return number != NULL || (driver != NULL && xml_child (driver, "iothreads") != NULL);
}

static bool
read_disk (TmkDomainDef *def, GHashTable *seen, const xmlNode *node, const char *origin,
           TmkError **errp)
{
  const xmlNode *target = xml_child (node, "target");
  g_autofree char *dev = target != NULL ? xml_attr_full (target, "dev") : NULL;
  if (dev == NULL)
    return xml_fault (origin, node, errp, "a disk has no <target dev=>");
  const char *name = g_str_has_prefix (dev, "ioemu:") ? dev + strlen ("ioemu:") : dev;
  if (name[0] == '\0' || !g_hash_table_add (seen, g_strdup (name)))
    return xml_fault (origin, node, errp, "two disks have the target '%s'", name);

  DiskDef *disk = domain_def_add_disk (def, name);
  disk->bus = xml_attr_full (target, "bus");
  g_autofree char *device = xml_attr_full (node, "device");
  if (device != NULL) {
    if (xml_enum (devices, G_N_ELEMENTS (devices), device) < 0)
      return xml_fault (origin, node, errp, "device='%s' of disk '%s' is not known", device, name);
    g_free (disk->device);
    disk->device = g_steal_pointer (&device);
  }
  if (!read_type (node, origin, &disk->type, errp) || !read_active (disk, node, origin, errp)
      || (!disk->empty && !read_chain (disk, node, origin, errp)))
    return false;
  disk->readonly = xml_child (node, "readonly") != NULL || strcmp (disk->device, "cdrom") == 0;
  disk->shareable = xml_child (node, "shareable") != NULL;
  disk->transient = xml_child (node, "transient") != NULL;
  disk->iothread = has_iothread (node);
  disk->alias = child_attr (node, "alias", "name");
  disk->serial = xml_text (xml_child (node, "serial"));
  return true;
}

static const xmlNode *
find_domain (const xmlDoc *doc, const char *origin, TmkError **errp)
{
  const xmlNode *root = xmlDocGetRootElement (doc);
  const xmlNode *domain = xml_is (root, "domstatus") ? xml_child (root, "domain") : root;
  if (domain == NULL || !xml_is (domain, "domain")) {
    (void) xml_fault (origin, root, errp, "the root element is '%s', not 'domain'", root->name);
    return NULL;
  }
  return domain;
}

TmkDomainDef *
tmk_domain_def_parse (const char *xml, size_t len, const char *origin, TmkError **errp)
{
  g_autoptr (xmlDoc) doc = xml_doc_parse (xml, len, origin, NULL, errp);
  const xmlNode *domain = doc != NULL ? find_domain (doc, origin, errp) : NULL;
  if (domain == NULL)
    return NULL;

  g_autoptr (TmkDomainDef) def = domain_def_new ();
  def->name = xml_text (xml_child (domain, "name"));
  g_autofree char *uuid = xml_text (xml_child (domain, "uuid"));
  if (uuid != NULL) {
    def->uuid = xml_uuid (g_strstrip (uuid));
    if (def->uuid == NULL) {
      (void) xml_fault (origin, xml_child (domain, "uuid"), errp, "'%s' is not a uuid", uuid);
      return NULL;
    }
  }
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  const xmlNode *devs = xml_child (domain, "devices");
  for (; devs != NULL; devs = xml_next (devs, "devices"))
    for (const xmlNode *node = xml_child (devs, "disk"); node != NULL;
         node = xml_next (node, "disk"))
      if (!read_disk (def, seen, node, origin, errp))
        return NULL;
  return g_steal_pointer (&def);
}

char *
domain_xml_normalise (const char *xml, size_t len, const char *origin, TmkError **errp)
{
  g_autoptr (xmlDoc) doc = xml_doc_parse (xml, len, origin, NULL, errp);
  const xmlNode *domain = doc != NULL ? find_domain (doc, origin, errp) : NULL;
  if (domain == NULL)
    return NULL;
  XmlWriter w = { g_string_new (NULL), 0 };
  xml_put_node (&w, domain);
  return g_string_free (w.out, FALSE);
}
