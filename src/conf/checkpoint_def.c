/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/checkpoint_def.c: `<domaincheckpoint>` from and to XML, and against a domain's disks.
 *
 * As libvirt does, creationTime, parent and domain are read only of a checkpoint that exists
 * already (REDEFINE or the internal form): for one yet to be made they are not the document's to
 * say.
 */
#include "conf/checkpoint_def.h"
#include "conf/schema.h"
#include "conf/xml_doc.h"
#include "conf/xml_writer.h"

#include <string.h>

gboolean
checkpoint_name_is_valid (const char *name)
{
  if (name == NULL || name[0] == '\0' || name[0] == '.')
    return FALSE;
  for (const char *c = name; *c != '\0'; c++)
    if (!g_ascii_isalnum (*c) && strchr ("_-.", *c) == NULL)
      return FALSE;
  return TRUE;
}

/* --- lifetime --- */

static void
disk_free (gpointer data)
{
  CheckpointDisk *disk = data;
  g_free (disk->name);
  g_free (disk->bitmap);
  g_free (disk->target);
  g_free (disk->target_format);
  g_free (disk);
}

static TmkCheckpointDef *
def_new (void)
{
  TmkCheckpointDef *def = g_new0 (TmkCheckpointDef, 1);
  def->disks = g_ptr_array_new_with_free_func (disk_free);
  return def;
}

static char *
name_now (void)
{
  return g_strdup_printf ("%" G_GINT64_FORMAT, g_get_real_time () / G_USEC_PER_SEC);
}

TmkCheckpointDef *
tmk_checkpoint_def_new (const char *name, TmkError **errp)
{
  if (name != NULL && !checkpoint_name_is_valid (name)) {
    error_set (errp, "conf", TMK_ERR_INVALID, 0, "checkpoint '%s': not a valid name", name);
    error_hint (errp, "use letters, digits, '_', '-' and '.', not beginning with '.'");
    return NULL;
  }
  TmkCheckpointDef *def = def_new ();
  def->name = name != NULL ? g_strdup (name) : name_now ();
  return def;
}

void
tmk_checkpoint_def_free (TmkCheckpointDef *def)
{
  if (def == NULL)
    return;
  g_free (def->name);
  g_free (def->description);
  g_free (def->parent);
  g_ptr_array_unref (def->disks);
  g_free (def->domain_xml);
  g_free (def);
}

static CheckpointDisk *
add_disk (GPtrArray *disks, const char *name)
{
  CheckpointDisk *disk = g_new0 (CheckpointDisk, 1);
  disk->name = g_strdup (name);
  g_ptr_array_add (disks, disk);
  return disk;
}

static void
add_disk_copy (GPtrArray *disks, const CheckpointDisk *from, const char *name)
{
  CheckpointDisk *disk = add_disk (disks, name);
  disk->covered = from->covered;
  disk->bitmap = g_strdup (from->bitmap);
  disk->has_size = from->has_size;
  disk->size = from->size;
  disk->capacity = from->capacity;
  disk->target = g_strdup (from->target);
  disk->target_format = g_strdup (from->target_format);
}

TmkCheckpointDef *
tmk_checkpoint_def_copy (const TmkCheckpointDef *def)
{
  TmkCheckpointDef *copy = def_new ();
  copy->name = g_strdup (def->name);
  copy->description = g_strdup (def->description);
  copy->creation_time = def->creation_time;
  copy->parent = g_strdup (def->parent);
  copy->domain_xml = g_strdup (def->domain_xml);
  for (guint i = 0; i < def->disks->len; i++) {
    const CheckpointDisk *disk = g_ptr_array_index (def->disks, i);
    add_disk_copy (copy->disks, disk, disk->name);
  }
  return copy;
}

CheckpointDisk *
checkpoint_def_find_disk (const TmkCheckpointDef *def, const char *name)
{
  for (guint i = 0; i < def->disks->len; i++) {
    CheckpointDisk *disk = g_ptr_array_index (def->disks, i);
    if (strcmp (disk->name, name) == 0)
      return disk;
  }
  return NULL;
}

/* --- parse --- */

static bool
parse_internal (CheckpointDisk *disk, const char *origin, const xmlNode *node, TmkError **errp)
{
  g_autofree char *capacity = xml_attr (node, "capacity");
  if (capacity != NULL && !xml_number (capacity, G_MAXUINT64, &disk->capacity))
    return xml_fault (origin, node, errp, "disk '%s': capacity='%s' is not a number of bytes",
                      disk->name, capacity);
  disk->target = xml_attr_full (node, "target");
  disk->target_format = xml_attr_full (node, "targetformat");
  return true;
}

static bool
parse_size (CheckpointDisk *disk, const char *origin, const xmlNode *node, TmkError **errp)
{
  g_autofree char *size = xml_attr (node, "size");
  disk->has_size = size != NULL;
  if (size != NULL && !xml_number (size, G_MAXUINT64, &disk->size))
    return xml_fault (origin, node, errp, "disk '%s': size='%s' is not a number of bytes",
                      disk->name, size);
  return true;
}

static bool
parse_disk (TmkCheckpointDef *def, const char *origin, const xmlNode *node, unsigned flags,
            TmkError **errp)
{
  static const char *const kinds[] = { "no", "bitmap" };
  if (!xml_is (node, "disk"))
    return xml_fault (origin, node, errp, "<%s> cannot stand in <disks>", node->name);
  g_autofree char *name = xml_attr_full (node, "name");
  if (name == NULL)
    return xml_fault (origin, node, errp, "a disk has no 'name'");
  CheckpointDisk *disk = add_disk (def->disks, name);
  g_autofree char *kind = xml_attr (node, "checkpoint");
  int covered = kind != NULL ? xml_enum (kinds, G_N_ELEMENTS (kinds), kind) : 1;
  if (covered < 0)
    return xml_fault (origin, node, errp, "disk '%s': checkpoint='%s' is neither 'bitmap' nor 'no'",
                      name, kind);
  disk->covered = covered;
  if (covered)
    disk->bitmap = xml_attr_full (node, "bitmap");
  if ((flags & TMK_CHECKPOINT_SIZE) != 0 && !parse_size (disk, origin, node, errp))
    return false;
  return (flags & TMK_XML_INTERNAL) == 0 || parse_internal (disk, origin, node, errp);
}

/* A name from `node` (NULL: not there, which is no error). */
static bool
parse_name (const char *origin, const xmlNode *node, char **name, TmkError **errp)
{
  if (node == NULL)
    return true;
  g_autofree char *text = xml_text (node);
  if (!checkpoint_name_is_valid (text))
    return xml_fault (origin, node, errp, "'%s' is not a valid name of a checkpoint",
                      text != NULL ? text : "");
  *name = g_steal_pointer (&text);
  return true;
}

/* What only a checkpoint that exists already has. The internal form may leave out what REDEFINE
 * insists on: a definition can be saved before its checkpoint is made. */
static bool
parse_existing (TmkCheckpointDef *def, const char *origin, const xmlNode *root, unsigned flags,
                TmkError **errp)
{
  gboolean strict = (flags & TMK_CHECKPOINT_REDEFINE) != 0;
  if (def->name == NULL)
    return xml_fault (origin, root, errp, "a checkpoint that exists already must have a <name>");
  const xmlNode *created = xml_child (root, "creationTime");
  if (created == NULL && strict)
    return xml_fault (origin, root, errp,
                      "a checkpoint that exists already must have a <creationTime>");
  g_autofree char *text = xml_text (created);
  guint64 seconds = 0;
  if (created != NULL && (text == NULL || !xml_number (text, G_MAXINT64, &seconds)))
    return xml_fault (origin, created, errp, "creationTime '%s' is not a number of seconds",
                      text != NULL ? text : "");
  def->creation_time = (gint64) seconds;

  const xmlNode *parent = xml_child (root, "parent");
  if (parent != NULL && !parse_name (origin, xml_child (parent, "name"), &def->parent, errp))
    return false;
  const xmlNode *domain = xml_child (root, "domain");
  if (domain != NULL) {
    XmlWriter w = { g_string_new (NULL), 0 };
    xml_put_node (&w, domain);
    def->domain_xml = g_string_free (w.out, FALSE);
  }
  return true;
}

static bool
parse_root (TmkCheckpointDef *def, const char *origin, const xmlNode *root, unsigned flags,
            TmkError **errp)
{
  if (!parse_name (origin, xml_child (root, "name"), &def->name, errp))
    return false;
  def->description = xml_text (xml_child (root, "description"));
  if (flags & (TMK_CHECKPOINT_REDEFINE | TMK_XML_INTERNAL)) {
    if (!parse_existing (def, origin, root, flags, errp))
      return false;
  } else if (def->name == NULL) {
    def->name = name_now ();
  }
  const xmlNode *disks = xml_child (root, "disks");
  for (; disks != NULL; disks = xml_next (disks, "disks"))
    for (const xmlNode *node = xml_child (disks, NULL); node != NULL; node = xml_next (node, NULL))
      if (!parse_disk (def, origin, node, flags, errp))
        return false;
  return true;
}

TmkCheckpointDef *
tmk_checkpoint_def_parse (const char *xml, size_t len, const char *origin, unsigned flags,
                          TmkError **errp)
{
  g_autoptr (xmlDoc) doc = xml_doc_parse (xml, len, origin, "domaincheckpoint", errp);
  if (doc == NULL || (!(flags & TMK_XML_INTERNAL) && !schema_check (doc, origin, errp)))
    return NULL;
  g_autoptr (TmkCheckpointDef) def = def_new ();
  if (!parse_root (def, origin, xmlDocGetRootElement (doc), flags, errp))
    return NULL;
  return g_steal_pointer (&def);
}

/* --- align --- */

/* Checks the listed disks: domain disk → definition disk into `found`. */
static bool
align_listed (const TmkCheckpointDef *def, const TmkDomainDef *dom, GHashTable *found,
              TmkError **errp)
{
  g_autoptr (GHashTable) index = domain_def_index (dom, TRUE);
  for (guint i = 0; i < def->disks->len; i++) {
    CheckpointDisk *disk = g_ptr_array_index (def->disks, i);
    DiskDef *from = domain_index_find (index, disk->name);
    if (from == NULL) {
      g_autofree char *targets = domain_def_list_targets (dom);
      error_set (errp, "conf", TMK_ERR_NOT_FOUND, 0, "disk '%s': the domain has no such disk",
                 disk->name);
      error_hint (errp, "the domain's disks are: %s", targets);
      return false;
    }
    if (!g_hash_table_insert (found, from, disk)) {
      error_set (errp, "conf", TMK_ERR_INVALID, 0, "disk '%s': listed twice", from->target);
      error_hint (errp, "remove one of its <disk> elements");
      return false;
    }
    if (disk->covered && (from->empty || from->readonly)) {
      error_set (errp, "conf", TMK_ERR_UNSUPPORTED, 0, "disk '%s': %s, so nothing can be recorded",
                 disk->name, from->empty ? "the drive has no medium" : "it is read-only");
      error_hint (errp, "say checkpoint='no' for it");
      return false;
    }
  }
  return true;
}

bool
tmk_checkpoint_def_align (TmkCheckpointDef *def, const TmkDomainDef *dom, TmkError **errp)
{
  if (dom->disks->len == 0) {
    error_set (errp, "conf", TMK_ERR_UNSUPPORTED, 0, "the domain has no disks");
    return false;
  }
  g_autoptr (GHashTable) found = g_hash_table_new (NULL, NULL);
  if (!align_listed (def, dom, found, errp))
    return false;

  GPtrArray *aligned = g_ptr_array_new_with_free_func (disk_free);
  for (guint i = 0; i < dom->disks->len; i++) {
    const DiskDef *from = g_ptr_array_index (dom->disks, i);
    const CheckpointDisk *listed = g_hash_table_lookup (found, from);
    if (listed != NULL) {
      add_disk_copy (aligned, listed, from->target);
    } else {
      CheckpointDisk *disk = add_disk (aligned, from->target);
      disk->covered = def->disks->len == 0 && !from->empty && !from->readonly;
    }
    CheckpointDisk *disk = g_ptr_array_index (aligned, i);
    if (disk->covered && disk->bitmap == NULL)
      disk->bitmap = g_strdup (def->name);
  }
  g_ptr_array_unref (def->disks);
  def->disks = aligned;
  return true;
}

/* --- format --- */

static void
format_disk (const CheckpointDisk *disk, unsigned flags, XmlWriter *w)
{
  xml_start (w, "disk");
  xml_put_attr (w, "name", disk->name);
  xml_put_attr (w, "checkpoint", disk->covered ? "bitmap" : "no");
  if (disk->covered)
    xml_put_attr (w, "bitmap", disk->bitmap);
  if (disk->covered && disk->bitmap != NULL && disk->has_size && (flags & TMK_CHECKPOINT_SIZE))
    xml_put_attr_uint (w, "size", disk->size);
  if (flags & TMK_XML_INTERNAL) {
    if (disk->capacity != 0)
      xml_put_attr_uint (w, "capacity", disk->capacity);
    xml_put_attr (w, "target", disk->target);
    xml_put_attr (w, "targetformat", disk->target_format);
  }
  xml_end_empty (w);
}

/* Laid out afresh, so that a text of several lines within it keeps its own. */
static void
format_domain (const char *domain_xml, XmlWriter *w)
{
  g_autoptr (xmlDoc) doc = xml_doc_read (domain_xml, strlen (domain_xml), NULL, NULL);
  if (doc != NULL)
    xml_put_node (w, xmlDocGetRootElement (doc));
}

char *
tmk_checkpoint_def_format (const TmkCheckpointDef *def, unsigned flags)
{
  XmlWriter w = { g_string_new (NULL), 0 };
  xml_start (&w, "domaincheckpoint");
  xml_open (&w);
  xml_put_text (&w, "name", def->name);
  xml_put_text (&w, "description", def->description);
  if (def->parent != NULL) {
    xml_start (&w, "parent");
    xml_open (&w);
    xml_put_text (&w, "name", def->parent);
    xml_close (&w, "parent");
  }
  if (def->creation_time != 0) {
    g_autofree char *seconds = g_strdup_printf ("%" G_GINT64_FORMAT, def->creation_time);
    xml_put_text (&w, "creationTime", seconds);
  }
  if (def->disks->len > 0) {
    xml_start (&w, "disks");
    xml_open (&w);
    for (guint i = 0; i < def->disks->len; i++)
      format_disk (g_ptr_array_index (def->disks, i), flags, &w);
    xml_close (&w, "disks");
  }
  if (def->domain_xml != NULL && !(flags & TMK_CHECKPOINT_NO_DOMAIN))
    format_domain (def->domain_xml, &w);
  xml_close (&w, "domaincheckpoint");
  return g_string_free (w.out, FALSE);
}

const char *
tmk_checkpoint_def_name (const TmkCheckpointDef *def)
{
  return def->name;
}

const char *
tmk_checkpoint_def_parent (const TmkCheckpointDef *def)
{
  return def->parent;
}

CheckpointDisk *
checkpoint_def_add_disk (TmkCheckpointDef *def, const char *name)
{
  return add_disk (def->disks, name);
}
