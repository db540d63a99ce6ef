/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/storage_xml.c: see conf/storage_xml.h. */
#include "conf/storage_xml.h"

#include "conf/xml_doc.h"

#include <string.h>

/* The schema also knows "luks", which libvirt's parser does not: a luks image is a raw one with
 * <encryption>. */
static const char *const formats[]
    = { "raw", "dir", "bochs", "cloop", "dmg",  "iso",   "vpc", "vdi",
        "fat", "vhd", "ploop", "cow",   "qcow", "qcow2", "qed", "vmdk" };

gboolean
storage_format_is_known (const char *format)
{
  return xml_enum (formats, G_N_ELEMENTS (formats), format) >= 0;
}

/* `models`: those that labels before this one were for. */
static bool
parse_seclabel (StorageDef *def, const char *origin, const xmlNode *node, GHashTable *models,
                TmkError **errp)
{
  SeclabelDef *label = storage_def_add_seclabel (def);
  label->model = xml_attr (node, "model");
  if (label->model != NULL && !g_hash_table_add (models, label->model))
    return xml_fault (origin, node, errp, "model '%s' has two <seclabel>", label->model);
  if (!xml_attr_yes_no (origin, node, "relabel", &label->relabel, errp)
      || !xml_attr_yes_no (origin, node, "labelskip", &label->labelskip, errp))
    return false;
  label->label = xml_text (xml_child (node, "label"));
  if (label->label != NULL && label->relabel == 0)
    return xml_fault (origin, node, errp, "<seclabel relabel='no'> has a <label>");
  return true;
}

static bool
parse_secret (EncryptionDef *enc, const char *origin, const xmlNode *node, TmkError **errp)
{
  g_autofree char *type = xml_attr (node, "type");
  if (g_strcmp0 (type, "passphrase") != 0)
    return xml_fault (origin, node, errp, "type='%s' of <secret> is not 'passphrase'",
                      type != NULL ? type : "");
  g_autofree char *uuid = xml_attr (node, "uuid");
  enc->secret_usage = xml_attr (node, "usage");
  if ((uuid != NULL) == (enc->secret_usage != NULL))
    return xml_fault (origin, node, errp, "<secret> needs either 'uuid' or 'usage'");
  if (uuid != NULL) {
    enc->secret_uuid = xml_uuid (uuid);
    if (enc->secret_uuid == NULL)
      return xml_fault (origin, node, errp, "uuid='%s' of <secret> is not a uuid", uuid);
  }
  return true;
}

static bool
parse_cipher (EncryptionDef *enc, const char *origin, const xmlNode *node, TmkError **errp)
{
  const xmlNode *cipher = xml_child (node, "cipher");
  if (cipher != NULL) {
    enc->cipher_name = xml_attr (cipher, "name");
    g_autofree char *size = xml_attr (cipher, "size");
    guint64 bits;
    if (enc->cipher_name == NULL)
      return xml_fault (origin, cipher, errp, "<cipher> has no 'name'");
    if (size == NULL || !xml_number (size, G_MAXUINT, &bits))
      return xml_fault (origin, cipher, errp, "size='%s' of <cipher> is not a number of bits",
                        size != NULL ? size : "");
    enc->cipher_size = (unsigned) bits;
    enc->cipher_mode = xml_attr (cipher, "mode");
    enc->cipher_hash = xml_attr (cipher, "hash");
  }
  const xmlNode *ivgen = xml_child (node, "ivgen");
  if (ivgen != NULL) {
    if (cipher == NULL)
      return xml_fault (origin, ivgen, errp, "<ivgen> stands without <cipher>");
    enc->ivgen_name = xml_attr (ivgen, "name");
    if (enc->ivgen_name == NULL)
      return xml_fault (origin, ivgen, errp, "<ivgen> has no 'name'");
    enc->ivgen_hash = xml_attr (ivgen, "hash");
  }
  return true;
}

static bool
parse_encryption (StorageDef *def, const char *origin, const xmlNode *node, TmkError **errp)
{
  EncryptionDef *enc = def->encryption = g_new0 (EncryptionDef, 1);
  enc->format = xml_attr (node, "format");
  if (g_strcmp0 (enc->format, "luks") != 0)
    return xml_fault (origin, node, errp, "format='%s' of <encryption> is not 'luks'",
                      enc->format != NULL ? enc->format : "");
  enc->engine = xml_attr (node, "engine");
  if (enc->engine != NULL && strcmp (enc->engine, "qemu") != 0)
    return xml_fault (origin, node, errp, "engine='%s' of <encryption> is not 'qemu'", enc->engine);
  const xmlNode *secret = xml_child (node, "secret");
  if (secret == NULL || xml_next (secret, "secret") != NULL)
    return xml_fault (origin, node, errp, "<encryption> needs exactly one <secret>");
  return parse_secret (enc, origin, secret, errp) && parse_cipher (enc, origin, node, errp);
}

bool
storage_def_parse (StorageDef *def, const char *origin, const xmlNode *node, TmkError **errp)
{
  def->path = xml_attr_full (node, def->type == STORAGE_BLOCK ? "dev" : "file");
  g_autoptr (GHashTable) models = g_hash_table_new (g_str_hash, g_str_equal);
  const xmlNode *label = xml_child (node, "seclabel");
  for (; label != NULL; label = xml_next (label, "seclabel"))
    if (!parse_seclabel (def, origin, label, models, errp))
      return false;
  const xmlNode *encryption = xml_child (node, "encryption");
  return encryption == NULL || parse_encryption (def, origin, encryption, errp);
}

static void
format_seclabel (const SeclabelDef *label, XmlWriter *w)
{
  xml_start (w, "seclabel");
  xml_put_attr (w, "model", label->model);
  if (label->labelskip == 1)
    xml_put_attr (w, "labelskip", "yes");
  else
    xml_put_attr (w, "relabel", label->relabel == 0 ? "no" : "yes");
  if (label->label == NULL) {
    xml_end_empty (w);
    return;
  }
  xml_open (w);
  xml_put_text (w, "label", label->label);
  xml_close (w, "seclabel");
}

static void
format_encryption (const EncryptionDef *enc, XmlWriter *w)
{
  xml_start (w, "encryption");
  xml_put_attr (w, "format", enc->format);
  xml_put_attr (w, "engine", enc->engine);
  xml_open (w);
  xml_start (w, "secret");
  xml_put_attr (w, "type", "passphrase");
  xml_put_attr (w, "uuid", enc->secret_uuid);
  xml_put_attr (w, "usage", enc->secret_usage);
  xml_end_empty (w);
  if (enc->cipher_name != NULL) {
    xml_start (w, "cipher");
    xml_put_attr (w, "name", enc->cipher_name);
    xml_put_attr_uint (w, "size", enc->cipher_size);
    xml_put_attr (w, "mode", enc->cipher_mode);
    xml_put_attr (w, "hash", enc->cipher_hash);
    xml_end_empty (w);
  }
  if (enc->cipher_name != NULL && enc->ivgen_name != NULL) {
    xml_start (w, "ivgen");
    xml_put_attr (w, "name", enc->ivgen_name);
    xml_put_attr (w, "hash", enc->ivgen_hash);
    xml_end_empty (w);
  }
  xml_close (w, "encryption");
}

void
storage_def_format (const StorageDef *def, const char *name, XmlWriter *w)
{
  gboolean children = def->encryption != NULL || def->seclabels != NULL;
  if (def->path == NULL && !children)
    return;
  xml_start (w, name);
  xml_put_attr (w, def->type == STORAGE_BLOCK ? "dev" : "file", def->path);
  if (!children) {
    xml_end_empty (w);
    return;
  }
  xml_open (w);
  for (guint i = 0; def->seclabels != NULL && i < def->seclabels->len; i++)
    format_seclabel (g_ptr_array_index (def->seclabels, i), w);
  if (def->encryption != NULL)
    format_encryption (def->encryption, w);
  xml_close (w, name);
}
