/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/storage_def.c: see conf/storage_def.h. Its XML is in storage_xml.c. */
#include "conf/storage_def.h"

#include "conf/xml_doc.h"

static const char *const type_names[] = {
  [STORAGE_FILE] = "file",
  [STORAGE_BLOCK] = "block",
  [STORAGE_DIR] = "dir",
  [STORAGE_NETWORK] = "network",
  [STORAGE_VOLUME] = "volume",
  [STORAGE_NVME] = "nvme",
  [STORAGE_VHOST_USER] = "vhostuser",
  [STORAGE_VHOST_VDPA] = "vhostvdpa",
};

const char *
storage_type_name (StorageType type)
{
  return (size_t) type < G_N_ELEMENTS (type_names) ? type_names[type] : NULL;
}

StorageType
storage_type_from_name (const char *name)
{
  int type = xml_enum (type_names, G_N_ELEMENTS (type_names), name);
  return type < 0 ? STORAGE_NONE : (StorageType) type;
}

static void
encryption_free (EncryptionDef *def)
{
  if (def == NULL)
    return;
  g_free (def->format);
  g_free (def->engine);
  g_free (def->secret_uuid);
  g_free (def->secret_usage);
  g_free (def->cipher_name);
  g_free (def->cipher_mode);
  g_free (def->cipher_hash);
  g_free (def->ivgen_name);
  g_free (def->ivgen_hash);
  g_free (def);
}

static EncryptionDef *
encryption_copy (const EncryptionDef *src)
{
  EncryptionDef *def = g_new0 (EncryptionDef, 1);
  def->format = g_strdup (src->format);
  def->engine = g_strdup (src->engine);
  def->secret_uuid = g_strdup (src->secret_uuid);
  def->secret_usage = g_strdup (src->secret_usage);
  def->cipher_name = g_strdup (src->cipher_name);
  def->cipher_mode = g_strdup (src->cipher_mode);
  def->cipher_hash = g_strdup (src->cipher_hash);
  def->cipher_size = src->cipher_size;
  def->ivgen_name = g_strdup (src->ivgen_name);
  def->ivgen_hash = g_strdup (src->ivgen_hash);
  return def;
}

static void
seclabel_free (gpointer data)
{
  SeclabelDef *label = data;
  g_free (label->model);
  g_free (label->label);
  g_free (label);
}

static gpointer
seclabel_copy (gconstpointer data, gpointer unused)
{
  const SeclabelDef *src = data;
  SeclabelDef *label = g_new0 (SeclabelDef, 1);
  label->model = g_strdup (src->model);
  label->relabel = src->relabel;
  label->labelskip = src->labelskip;
  label->label = g_strdup (src->label);
  return label;
}

StorageDef *
storage_def_new (void)
{
  return g_new0 (StorageDef, 1);
}

StorageDef *
storage_def_copy (const StorageDef *src)
{
  if (src == NULL)
    return NULL;
  StorageDef *def = storage_def_new ();
  def->type = src->type;
  def->path = g_strdup (src->path);
  def->format = g_strdup (src->format);
  def->index = src->index;
  if (src->seclabels != NULL) {
    def->seclabels = g_ptr_array_copy (src->seclabels, seclabel_copy, NULL);
    g_ptr_array_set_free_func (def->seclabels, seclabel_free);
  }
  if (src->encryption != NULL)
    def->encryption = encryption_copy (src->encryption);
  return def;
}

void
storage_def_free (StorageDef *def)
{
  if (def == NULL)
    return;
  g_free (def->path);
  g_free (def->format);
  g_clear_pointer (&def->seclabels, g_ptr_array_unref);
  encryption_free (def->encryption);
  g_free (def);
}

SeclabelDef *
storage_def_add_seclabel (StorageDef *def)
{
  if (def->seclabels == NULL)
    def->seclabels = g_ptr_array_new_with_free_func (seclabel_free);
  SeclabelDef *label = g_new0 (SeclabelDef, 1);
  label->relabel = label->labelskip = -1;
  g_ptr_array_add (def->seclabels, label);
  return label;
}
