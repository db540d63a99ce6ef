/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/domain_rewrite.c: see conf/domain_rewrite.h. What elements mean: libvirt,
 * docs/formatdomain. */
#include "conf/domain_rewrite.h"

#include "conf/xml_doc.h"
#include "conf/xml_writer.h"

#include <string.h>

typedef struct {
  const DomainRewrite *how;
  GPtrArray *notes;
  bool *attached; /* of each disk of `how`: the document has it */
} Rewrite;

static void G_GNUC_PRINTF (2, 3) note (const Rewrite *self, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_ptr_array_add (self->notes, g_strdup_vprintf (format, ap));
  va_end (ap);
}

/* ---- trees -------------------------------------------------------------------------------- */

static void
drop (xmlNode *node)
{
  xmlUnlinkNode (node);
  xmlFreeNode (node);
}

/* All children of `node` (NULL allowed) that are called so. */
static void
drop_children (xmlNode *node, const char *name)
{
  xmlNode *child;
  while (node != NULL && (child = xml_child (node, name)) != NULL)
    drop (child);
}

static void
drop_attr (xmlNode *node, const char *name)
{
  (void) xmlUnsetProp (node, (const xmlChar *) name); /* it need not have it */
}

static void
set_attr (xmlNode *node, const char *name, const char *value)
{
  xmlSetProp (node, (const xmlChar *) name, (const xmlChar *) value);
}

static void
drop_content (xmlNode *node)
{
  while (node->children != NULL)
    drop (node->children);
}

static void
set_text (xmlNode *node, const char *text)
{
  drop_content (node);
  xmlAddChild (node, xmlNewDocText (node->doc, (const xmlChar *) text));
}

static xmlNode *
add_child (xmlNode *parent, const char *name)
{
  return xmlNewChild (parent, NULL, (const xmlChar *) name, NULL);
}

/* ---- disks -------------------------------------------------------------------------------- */

static bool
attr_is (const xmlNode *node, const char *name, const char *value)
{
  g_autofree char *found = xml_attr (node, name);
  return g_strcmp0 (found, value) == 0;
}

/* Everything that says where its data are, and how they are stored there, goes. */
static void
attach (xmlNode *node, const DomainRewriteDisk *disk)
{
  static const char *const gone[]
      = { "source", "backingStore", "mirror", "auth", "encryption", "transient", "shareable" };
  static const char *const of_devices[] = { "sgio", "rawio" };
  for (size_t i = 0; i < G_N_ELEMENTS (gone); i++)
    drop_children (node, gone[i]);
  for (size_t i = 0; i < G_N_ELEMENTS (of_devices); i++)
    drop_attr (node, of_devices[i]);
  set_attr (node, "type", "file");
  if (attr_is (node, "device", "lun"))
    set_attr (node, "device", "disk");
  xmlNode *driver = xml_child (node, "driver");
  if (driver == NULL) {
    driver = add_child (node, "driver");
    set_attr (driver, "name", "qemu");
  }
  set_attr (driver, "type", disk->format);
  if (!g_str_equal (disk->format, "qcow2"))
    drop_children (driver, "metadata_cache");
  xmlNode *source = xmlNewDocNode (node->doc, NULL, (const xmlChar *) "source", NULL);
  set_attr (source, "file", disk->path);
  xmlAddNextSibling (driver, source);
}

/* May two domains use it at once? */
static bool
can_be_shared (const xmlNode *node)
{
  return xml_child (node, "readonly") != NULL || xml_child (node, "shareable") != NULL
         || attr_is (node, "device", "cdrom") || xml_child (node, "source") == NULL;
}

static void
rewrite_disk (Rewrite *self, xmlNode *node)
{
  const xmlNode *target = xml_child (node, "target");
  g_autofree char *name = target != NULL ? xml_attr_full (target, "dev") : NULL;
  const char *called = name != NULL ? name : "";
  if (g_str_has_prefix (called, "ioemu:"))
    called += strlen ("ioemu:");
  for (size_t i = 0; i < self->how->n_disks; i++)
    if (g_str_equal (self->how->disks[i].target, called)) {
      self->attached[i] = true;
      attach (node, &self->how->disks[i]);
      return;
    }
  if (can_be_shared (node))
    return;
  if (self->how->name == NULL) {
    note (self, "disk '%s' was not restored: the domain has it as it is now", called);
    return;
  }
  note (self, "disk '%s' was not restored: the new domain does not have it", called);
  drop (node);
}

/* ---- what else belongs to it --------------------------------------------------------------- */

static void
rewrite_nvram (Rewrite *self, xmlNode *domain)
{
  const DomainRewrite *how = self->how;
  xmlNode *os = xml_child (domain, "os");
  xmlNode *nvram = os != NULL ? xml_child (os, "nvram") : NULL;
  if (how->nvram != NULL && os != NULL) {
    if (nvram == NULL)
      nvram = add_child (os, "nvram");
    drop_attr (nvram, "type");
    set_text (nvram, how->nvram);
  } else if (how->name != NULL && nvram != NULL) {
    drop_attr (nvram, "type");
    drop_content (nvram); /* libvirt chooses a file, and fills it from the template */
    note (self, "the variables of its firmware were not restored: the new domain begins with fresh"
                " ones");
  }
}

static void
rewrite_tpm (Rewrite *self, xmlNode *devices)
{
  for (xmlNode *tpm = xml_child (devices, "tpm"); tpm != NULL; tpm = xml_next (tpm, "tpm")) {
    xmlNode *backend = xml_child (tpm, "backend");
    if (backend == NULL || !attr_is (backend, "type", "emulator")
        || (self->how->tpm == NULL && self->how->name == NULL))
      continue;
    const xmlNode *before = xml_child (backend, "source");
    bool is_file = before != NULL && attr_is (before, "type", "file");
    g_autofree char *was = before != NULL ? xml_attr (before, "path") : NULL;
    drop_children (backend, "source");
    if (self->how->tpm == NULL)
      continue;
    g_autofree char *name = g_path_get_basename (was != NULL ? was : "");
    g_autofree char *file = g_build_filename (self->how->tpm, name, NULL);
    xmlNode *source = add_child (backend, "source");
    set_attr (source, "type", is_file ? "file" : "dir");
    set_attr (source, "path", is_file ? file : self->how->tpm);
  }
}

/* A guest that looks at it has to see that it went back in time. */
static void
renew_generation (xmlNode *domain)
{
  xmlNode *genid = xml_child (domain, "genid");
  if (genid != NULL)
    drop_content (genid);
}

/* libvirt insists that it says the same uuid. */
static void
drop_uuid_entries (xmlNode *domain)
{
  for (xmlNode *info = xml_child (domain, "sysinfo"); info != NULL;
       info = xml_next (info, "sysinfo")) {
    xmlNode *system = xml_child (info, "system");
    xmlNode *next;
    for (xmlNode *entry = system != NULL ? xml_child (system, "entry") : NULL; entry != NULL;
         entry = next) {
      next = xml_next (entry, "entry");
      if (attr_is (entry, "name", "uuid"))
        drop (entry);
    }
  }
}

static void
rename_domain (xmlNode *domain, const char *name)
{
  xmlNode *element = xml_child (domain, "name");
  if (element == NULL)
    element = add_child (domain, "name");
  set_text (element, name);
  drop_children (domain, "uuid");
  drop_uuid_entries (domain);
  for (xmlNode *devices = xml_child (domain, "devices"); devices != NULL;
       devices = xml_next (devices, "devices"))
    for (xmlNode *nic = xml_child (devices, "interface"); nic != NULL;
         nic = xml_next (nic, "interface"))
      drop_children (nic, "mac");
}

/* ---- all of it ---------------------------------------------------------------------------- */

static void
rewrite (Rewrite *self, xmlNode *domain)
{
  const DomainRewrite *how = self->how;
  drop_attr (domain, "id");
  renew_generation (domain);
  for (xmlNode *devices = xml_child (domain, "devices"); devices != NULL;
       devices = xml_next (devices, "devices")) {
    xmlNode *next;
    for (xmlNode *node = xml_child (devices, "disk"); node != NULL; node = next) {
      next = xml_next (node, "disk");
      rewrite_disk (self, node);
    }
    rewrite_tpm (self, devices);
  }
  rewrite_nvram (self, domain);
  if (how->name != NULL)
    rename_domain (domain, how->name);
  for (size_t i = 0; i < how->n_disks; i++)
    if (!self->attached[i])
      note (self, "disk '%s' is not in the domain's document: the domain does not have it",
            how->disks[i].target);
}

char *
domain_rewrite (const char *xml, size_t len, const char *origin, const DomainRewrite *how,
                GPtrArray *notes, TmkError **errp)
{
  g_autoptr (xmlDoc) doc = xml_doc_parse (xml, len, origin, "domain", errp);
  if (doc == NULL)
    return NULL;
  g_autofree bool *attached = g_new0 (bool, how->n_disks + 1);
  Rewrite self = { .how = how, .notes = notes, .attached = attached };
  rewrite (&self, xmlDocGetRootElement (doc));
  XmlWriter w = { g_string_new (NULL), 0 };
  xml_put_node (&w, xmlDocGetRootElement (doc));
  return g_string_free (w.out, FALSE);
}
