/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/secrets.c: the passphrases of encrypted disks, which libvirt keeps as secrets.
 *
 * While a domain runs its QEMU has them, and nobody else needs them. When it is shut off they are
 * needed to open its images, and libvirt gives those away that are not private; they stay in memory
 * until it runs again, or is left.
 */
#include "hv/libvirt/lv.h"

#include <stdlib.h>
#include <string.h>

G_DEFINE_AUTO_CLEANUP_FREE_FUNC (virSecretPtr, virSecretFree, NULL)

static void
secret_free (gpointer data)
{
  LvSecret *secret = data;
  if (secret->value != NULL)
    explicit_bzero (secret->value, secret->len);
  free (secret->value); /* libvirt's, from malloc */
  g_free (secret->target);
  g_free (secret);
}

static LvSecret *
ask (LvDomain *lv, const DiskDef *disk, const DiskSourceDef *active)
{
  LvSecret *secret = g_new0 (LvSecret, 1);
  secret->target = g_strdup (disk->target);
  if (active->secret_uuid == NULL && active->secret_usage == NULL) {
    secret->why_not = "it is encrypted, and its description names no secret: --image can be given"
                      " its passphrase";
    return secret;
  }
  g_auto (virSecretPtr) found
      = active->secret_uuid != NULL
            ? virSecretLookupByUUIDString (lv->connection, active->secret_uuid)
            : virSecretLookupByUsage (lv->connection, VIR_SECRET_USAGE_TYPE_VOLUME,
                                      active->secret_usage);
  if (found != NULL)
    secret->value = virSecretGetValue (found, &secret->len, 0);
  if (found == NULL)
    secret->why_not
        = "it is encrypted, and libvirt does not know its secret: 'virsh secret-define',"
          " or --image with a passphrase";
  else if (secret->value == NULL)
    secret->why_not
        = "it is encrypted, its domain is shut off, and libvirt does not give its secret"
          " away (is it private?): --image can be given its passphrase";
  return secret;
}

void
lv_learn_secrets (LvDomain *lv)
{
  lv->secrets = g_ptr_array_new_with_free_func (secret_free);
  for (guint i = 0; i < lv->def->disks->len; i++) {
    const DiskDef *disk = g_ptr_array_index (lv->def->disks, i);
    const DiskSourceDef *active = disk_def_active (disk);
    if (active != NULL && active->luks)
      g_ptr_array_add (lv->secrets, ask (lv, disk, active));
  }
}

void
lv_forget_secrets (LvDomain *lv)
{
  g_clear_pointer (&lv->secrets, g_ptr_array_unref);
}

const LvSecret *
lv_secret_of (const LvDomain *lv, const char *target)
{
  for (guint i = 0; lv->secrets != NULL && i < lv->secrets->len; i++) {
    const LvSecret *secret = g_ptr_array_index (lv->secrets, i);
    if (g_str_equal (secret->target, target))
      return secret;
  }
  return NULL;
}
