/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/explain.c: see conf/explain.h.
 *
 * A walk over the tree that stops at the first thing it can name. It runs only on documents that
 * the schema refused already, so being wrong here costs a clear message, never a verdict; and it
 * may be simpler than the schema (an address is taken for granted, say), as libxml2's words remain.
 * Each check returns TRUE where it found the fault.
 */
#include "conf/explain.h"

#include "conf/xml_doc.h"

#include <string.h>

typedef struct {
  const xmlNode *where;
  char *why;
  gboolean pull;
} Walk;

static gboolean G_GNUC_PRINTF (3, 4)
    found (Walk *walk, const xmlNode *where, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  walk->why = g_strdup_vprintf (format, ap);
  va_end (ap);
  walk->where = where;
  return TRUE;
}

/* Is `name` one of the words of `list`, which are divided by spaces? */
static gboolean
listed (const char *list, const char *name)
{
  g_auto (GStrv) words = g_strsplit (list, " ", -1);
  return g_strv_contains ((const char *const *) words, name);
}

/* "'a', 'b' or 'c'" of "a b c". */
static char *
in_words (const char *list)
{
  g_auto (GStrv) words = g_strsplit (list, " ", -1);
  guint n = g_strv_length (words);
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < n; i++)
    g_string_append_printf (text, "%s'%s'", i == 0 ? "" : (i + 1 == n ? " or " : ", "), words[i]);
  return g_string_free (text, FALSE);
}

/* Attributes outside `allowed`; elements outside `children` or, but for those of `many`, twice;
 * text where none belongs. */
static gboolean
strangers (Walk *walk, const xmlNode *node, const char *allowed, const char *children,
           const char *many)
{
  for (const xmlAttr *attr = node->properties; attr != NULL; attr = attr->next)
    if (attr->ns != NULL || !listed (allowed, (const char *) attr->name))
      return found (walk, node, "<%s> has no attribute '%s'", node->name, attr->name);
  for (const xmlNode *child = node->children; child != NULL; child = child->next) {
    const char *name = (const char *) child->name;
    if (child->type == XML_ELEMENT_NODE) {
      if (child->ns != NULL || !listed (children, name))
        return found (walk, child, "<%s> cannot stand in <%s>", name, node->name);
      if (!listed (many, name) && xml_child (node, name) != child)
        return found (walk, child, "<%s> stands twice in <%s>", name, node->name);
    } else if ((child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE)
               && !xmlIsBlankNode (child)) {
      return found (walk, node, "<%s> cannot hold text", node->name);
    }
  }
  return FALSE;
}

/* Is the attribute there, and none of `values`? */
static gboolean
not_one_of (Walk *walk, const xmlNode *node, const char *attr, const char *values)
{
  g_autofree char *value = xml_attr (node, attr);
  if (value == NULL || listed (values, g_strstrip (value)))
    return FALSE;
  g_autofree char *words = in_words (values);
  return found (walk, node, "%s='%s' of <%s> is not %s", attr, value, node->name, words);
}

static gboolean
missing (Walk *walk, const xmlNode *node, const char *attr)
{
  g_autofree char *value = xml_attr (node, attr);
  return value == NULL && found (walk, node, "<%s> has no '%s'", node->name, attr);
}

static gboolean
not_a_path (Walk *walk, const xmlNode *node, const char *attr)
{
  g_autofree char *value = xml_attr (node, attr);
  if (value == NULL || (value[0] == '/' && value[1] != '\0' && strpbrk (value, "\r\n") == NULL)
      || (g_ascii_isalpha (value[0]) && strncmp (value + 1, ":\\", 2) == 0))
    return FALSE;
  return found (walk, node, "%s='%s' of <%s> is not an absolute path", attr, value, node->name);
}

static gboolean
is_number (const char *text, guint64 max)
{
  guint64 value;
  return text != NULL && xml_number (text, max, &value);
}

static gboolean
not_a_number (Walk *walk, const xmlNode *node, const char *attr, guint64 max)
{
  g_autofree char *value = xml_attr (node, attr);
  return value != NULL && !is_number (value, max)
         && found (walk, node, "%s='%s' of <%s> is not a number", attr, value, node->name);
}

static gboolean
is_target (const char *name)
{
  static const char *const kinds[] = { "fd", "hd", "sd", "vd", "xvd", "ubd" };
  if (g_str_has_prefix (name, "ioemu:"))
    name += strlen ("ioemu:");
  for (size_t i = 0; i < G_N_ELEMENTS (kinds); i++) {
    if (!g_str_has_prefix (name, kinds[i]))
      continue;
    const char *rest = name + strlen (kinds[i]);
    while (g_ascii_isalnum (*rest) || *rest == '_')
      rest++;
    return *rest == '\0' && rest > name + strlen (kinds[i]);
  }
  return FALSE;
}

/* --- images --- */

static gboolean
bad_secret (Walk *walk, const xmlNode *node)
{
  if (strangers (walk, node, "type uuid usage", "", "") || missing (walk, node, "type")
      || not_one_of (walk, node, "type", "passphrase"))
    return TRUE;
  g_autofree char *uuid = xml_attr (node, "uuid"), *usage = xml_attr (node, "usage");
  if ((uuid == NULL) == (usage == NULL))
    return found (walk, node, "<secret> needs either 'uuid' or 'usage'");
  g_autofree char *normal = uuid != NULL ? xml_uuid (uuid) : NULL;
  return uuid != NULL && normal == NULL
         && found (walk, node, "uuid='%s' of <secret> is not a uuid", uuid);
}

static gboolean
bad_encryption (Walk *walk, const xmlNode *node)
{
  if (strangers (walk, node, "format engine", "secret cipher ivgen", "")
      || missing (walk, node, "format") || not_one_of (walk, node, "format", "luks")
      || not_one_of (walk, node, "engine", "qemu"))
    return TRUE;
  const xmlNode *secret = xml_child (node, "secret"), *cipher = xml_child (node, "cipher");
  const xmlNode *ivgen = xml_child (node, "ivgen");
  if (secret == NULL)
    return found (walk, node, "<encryption> has no <secret>");
  if (bad_secret (walk, secret))
    return TRUE;
  if ((cipher == NULL) != (ivgen == NULL))
    return found (walk, node, "<cipher> and <ivgen> come only together");
  if (cipher == NULL)
    return FALSE;
  if (strangers (walk, cipher, "name size mode hash", "", "") || missing (walk, cipher, "name")
      || missing (walk, cipher, "size") || not_a_number (walk, cipher, "size", G_MAXUINT32))
    return TRUE;
  if (xmlHasProp (cipher, BAD_CAST "mode") == NULL && xmlHasProp (cipher, BAD_CAST "hash") != NULL)
    return found (walk, cipher, "<cipher> has 'hash' but no 'mode'");
  if (xmlHasProp (cipher, BAD_CAST "mode") != NULL && xmlHasProp (cipher, BAD_CAST "hash") == NULL)
    return found (walk, cipher, "<cipher> has 'mode' but no 'hash'");
  return strangers (walk, ivgen, "name hash", "", "") || missing (walk, ivgen, "name");
}

static gboolean
bad_seclabel (Walk *walk, const xmlNode *node)
{
  if (strangers (walk, node, "model relabel labelskip", "label", "label")
      || not_one_of (walk, node, "relabel", "yes no")
      || not_one_of (walk, node, "labelskip", "yes"))
    return TRUE;
  g_autofree char *relabel = xml_attr (node, "relabel"), *skip = xml_attr (node, "labelskip");
  gboolean off = relabel != NULL && strcmp (relabel, "no") == 0;
  gboolean label = xml_child (node, "label") != NULL;
  if (skip != NULL && relabel != NULL)
    return found (walk, node, "<seclabel> has both 'relabel' and 'labelskip'");
  if ((off || skip != NULL) && label)
    return found (walk, node, "<seclabel> that does not label has a <label>");
  return !off && skip == NULL && !label
         && found (walk, node, "<seclabel> has no <label> and does not say relabel='no'");
}

static gboolean
bad_image (Walk *walk, const xmlNode *node, const char *attr)
{
  const char *other = strcmp (attr, "file") == 0 ? "dev" : "file";
  if (xmlHasProp (node, (const xmlChar *) other) != NULL)
    return found (walk, node, "<%s> of a disk of type '%s' has '%s' instead of '%s'", node->name,
                  strcmp (attr, "file") == 0 ? "file" : "block", other, attr);
  if (strangers (walk, node, attr, "seclabel encryption", "seclabel") || missing (walk, node, attr)
      || not_a_path (walk, node, attr))
    return TRUE;
  for (const xmlNode *child = xml_child (node, NULL); child != NULL; child = xml_next (child, NULL))
    if (xml_is (child, "seclabel") ? bad_seclabel (walk, child) : bad_encryption (walk, child))
      return TRUE;
  return FALSE;
}

/* --- <domainbackup> --- */

/* What is right elsewhere, but not in this kind of document. */
static gboolean
misplaced (Walk *walk, const xmlNode *disk)
{
  static const char *const internal[] = { "state", "index" };
  static const char *const exports[] = { "exportname", "exportbitmap" };
  for (size_t i = 0; i < 2; i++) {
    if (xmlHasProp (disk, (const xmlChar *) internal[i]) != NULL)
      return found (walk, disk, "'%s' belongs to the internal form of a running job", internal[i]);
    if (!walk->pull && xmlHasProp (disk, (const xmlChar *) exports[i]) != NULL)
      return found (walk, disk, "'%s' is for pull backups", exports[i]);
  }
  const xmlNode *image = xml_child (disk, walk->pull ? "target" : "scratch");
  if (image == NULL)
    return FALSE;
  return walk->pull ? found (walk, image, "<target> is for push backups; pull has <scratch>")
                    : found (walk, image, "<scratch> is for pull backups; push has <target>");
}

static gboolean
bad_disk_store (Walk *walk, const xmlNode *disk, const char *name)
{
  const char *element = walk->pull ? "scratch" : "target";
  g_autofree char *type = xml_attr (disk, "type"), *backup = xml_attr (disk, "backup");
  const xmlNode *image = xml_child (disk, element), *driver = xml_child (disk, "driver");
  if (type == NULL && !walk->pull && (image != NULL || driver != NULL))
    return found (walk, disk, "disk '%s' has <%s> but no 'type'", name,
                  image != NULL ? element : "driver");
  if (type == NULL && walk->pull && backup != NULL)
    return found (walk, disk, "disk '%s' of a pull backup says backup='yes' but no 'type'", name);
  gboolean block = type != NULL && strcmp (type, "block") == 0;
  if (walk->pull && image == NULL && (block || driver != NULL))
    return found (walk, disk, "disk '%s' has no <scratch>", name);
  if (image != NULL && bad_image (walk, image, block ? "dev" : "file"))
    return TRUE;
  return driver != NULL
         && (strangers (walk, driver, "type", "", "") || missing (walk, driver, "type")
             || not_one_of (walk, driver, "type",
                            walk->pull ? "qcow2"
                                       : "qcow2 raw qcow qed vmdk vdi vpc vhd luks cow bochs "
                                         "cloop dmg iso fat dir ploop"));
}

static gboolean
bad_backup_disk (Walk *walk, const xmlNode *disk)
{
  if (missing (walk, disk, "name"))
    return TRUE;
  g_autofree char *name = xml_attr (disk, "name");
  if (!is_target (name))
    return found (walk, disk, "name='%s' of <disk> is not a disk's target, like 'vda'", name);
  if (misplaced (walk, disk)
      || strangers (walk, disk, "name backup type backupmode incremental exportname exportbitmap",
                    walk->pull ? "driver scratch" : "driver target", "")
      || not_one_of (walk, disk, "backup", "yes no")
      || not_one_of (walk, disk, "backupmode", "full incremental")
      || not_one_of (walk, disk, "type", "file block"))
    return TRUE;
  g_autofree char *mode = xml_attr (disk, "backupmode"), *backup = xml_attr (disk, "backup");
  if (mode != NULL && strcmp (mode, "full") == 0
      && xmlHasProp (disk, BAD_CAST "incremental") != NULL)
    return found (walk, disk, "disk '%s': 'incremental' contradicts backupmode='full'", name);
  if (backup != NULL && strcmp (backup, "no") == 0) {
    if (xmlHasProp (disk, BAD_CAST "type") != NULL)
      return found (walk, disk, "disk '%s' has backup='no', so it cannot have 'type'", name);
    const xmlNode *child = xml_child (disk, NULL);
    return child != NULL
           && found (walk, child, "disk '%s' has backup='no', so it cannot have <%s>", name,
                     child->name);
  }
  return bad_disk_store (walk, disk, name);
}

static gboolean
bad_server (Walk *walk, const xmlNode *node)
{
  g_autofree char *transport = xml_attr (node, "transport");
  if (not_one_of (walk, node, "transport", "tcp unix fd")
      || not_one_of (walk, node, "tls", "yes no"))
    return TRUE;
  if (transport != NULL && strcmp (g_strstrip (transport), "unix") == 0)
    return strangers (walk, node, "transport tls socket", "", "") || missing (walk, node, "socket")
           || not_a_path (walk, node, "socket");
  if (transport != NULL && strcmp (transport, "fd") == 0)
    return strangers (walk, node, "transport tls fdgroup", "", "")
           || missing (walk, node, "fdgroup");
  if (strangers (walk, node, "transport tls name port", "", "") || missing (walk, node, "name")
      || not_a_number (walk, node, "port", G_MAXUINT32))
    return TRUE;
  /* All else is right, so it is the name; which addresses are valid is the schema's to know. */
  g_autofree char *name = xml_attr (node, "name");
  const char *c = name;
  while (g_ascii_isalnum (*c) || *c == '.' || *c == '-')
    c++;
  return (*c != '\0' && strchr (name, ':') == NULL) || name[0] == '\0'
             ? found (walk, node, "name='%s' of <server> is no host name or address", name)
             : FALSE;
}

static gboolean
bad_backup (Walk *walk, const xmlNode *root)
{
  if (not_one_of (walk, root, "mode", "push pull"))
    return TRUE;
  g_autofree char *mode = xml_attr (root, "mode");
  walk->pull = mode != NULL && strcmp (g_strstrip (mode), "pull") == 0;
  const xmlNode *server = xml_child (root, "server"), *priv = xml_child (root, "privateData");
  if (server != NULL && !walk->pull)
    return found (walk, server, "<server> needs mode='pull'");
  if (priv != NULL)
    return found (walk, priv, "<privateData> belongs to the internal form of a running job");
  if (strangers (walk, root, "mode", "incremental server disks", ""))
    return TRUE;
  if (server == NULL && walk->pull)
    return found (walk, root, "a pull backup has no <server>");
  for (const xmlNode *part = xml_child (root, NULL); part != NULL; part = xml_next (part, NULL)) {
    if (xml_is (part, "server") && bad_server (walk, part))
      return TRUE;
    if (xml_is (part, "incremental") && (xml_child (part, NULL) != NULL || part->properties))
      return found (walk, part, "<incremental> holds nothing but a checkpoint's name");
    if (!xml_is (part, "disks"))
      continue;
    if (strangers (walk, part, "", "disk", "disk"))
      return TRUE;
    if (xml_child (part, "disk") == NULL)
      return found (walk, part, "<disks> has no <disk>");
    for (const xmlNode *disk = xml_child (part, NULL); disk != NULL; disk = xml_next (disk, NULL))
      if (bad_backup_disk (walk, disk))
        return TRUE;
  }
  return FALSE;
}

/* --- <domaincheckpoint> --- */

static gboolean
bad_checkpoint_disk (Walk *walk, const xmlNode *disk)
{
  if (strangers (walk, disk, "name checkpoint bitmap size", "", "") || missing (walk, disk, "name")
      || not_one_of (walk, disk, "checkpoint", "bitmap no")
      || not_a_number (walk, disk, "size", G_MAXUINT64))
    return TRUE;
  g_autofree char *name = xml_attr (disk, "name"), *kind = xml_attr (disk, "checkpoint");
  if (name[0] != '/' && !is_target (name))
    return found (walk, disk, "name='%s' of <disk> is neither a target, like 'vda', nor a path",
                  name);
  gboolean off = kind != NULL && strcmp (g_strstrip (kind), "no") == 0;
  for (const xmlAttr *attr = off ? disk->properties : NULL; attr != NULL; attr = attr->next)
    if (listed ("bitmap size", (const char *) attr->name))
      return found (walk, disk, "disk '%s' has checkpoint='no', so it cannot have '%s'", name,
                    attr->name);
  return FALSE;
}

static gboolean
bad_checkpoint_name (Walk *walk, const xmlNode *node)
{
  g_autofree char *name = xml_text (node);
  if (xml_child (node, NULL) != NULL || node->properties != NULL)
    return found (walk, node, "<name> holds nothing but text");
  for (const char *c = name; c != NULL && *c != '\0'; c++)
    if (!g_ascii_isalnum (*c) && strchr (c == name ? "_-" : "_-.", *c) == NULL)
      return found (walk, node,
                    "'%s' cannot be a checkpoint's name: it has letters, digits, '_', '-' and '.', "
                    "and does not begin with '.'",
                    name);
  return name == NULL && found (walk, node, "<name> is empty");
}

static gboolean
bad_checkpoint_part (Walk *walk, const xmlNode *part)
{
  if (xml_is (part, "name"))
    return bad_checkpoint_name (walk, part);
  if (xml_is (part, "creationTime")) {
    g_autofree char *text = xml_text (part);
    return !is_number (text, G_MAXUINT64)
           && found (walk, part, "creationTime '%s' is not a number of seconds",
                     text != NULL ? text : "");
  }
  if (xml_is (part, "parent")) {
    const xmlNode *name = xml_child (part, "name");
    return strangers (walk, part, "", "name", "")
           || (name == NULL ? found (walk, part, "<parent> has no <name>")
                            : bad_checkpoint_name (walk, name));
  }
  if (xml_is (part, "description"))
    return (xml_child (part, NULL) != NULL || part->properties != NULL)
           && found (walk, part, "<description> holds nothing but text");
  if (!xml_is (part, "disks"))
    return FALSE;
  if (strangers (walk, part, "", "disk", "disk"))
    return TRUE;
  if (xml_child (part, "disk") == NULL)
    return found (walk, part, "<disks> has no <disk>");
  for (const xmlNode *disk = xml_child (part, NULL); disk != NULL; disk = xml_next (disk, NULL))
    if (bad_checkpoint_disk (walk, disk))
      return TRUE;
  return FALSE;
}

static gboolean
bad_checkpoint (Walk *walk, const xmlNode *root)
{
  if (strangers (walk, root, "", "name description creationTime disks parent domain", ""))
    return TRUE;
  for (const xmlNode *part = xml_child (root, NULL); part != NULL; part = xml_next (part, NULL))
    if (bad_checkpoint_part (walk, part))
      return TRUE;
  return FALSE;
}

char *
explain_fault (const xmlNode *root, const xmlNode **where)
{
  Walk walk = { 0 };
  if (xml_is (root, "domainbackup"))
    (void) bad_backup (&walk, root);
  else
    (void) bad_checkpoint (&walk, root);
  *where = walk.where;
  return walk.why;
}
