/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/image/crypt.c: images that are encrypted, and their passphrases; see hv/image/images.h.
 *
 * A passphrase goes from its file to the daemon by the monitor and nowhere else.
 */
#include "hv/image/images.h"

#include "qmp/commands.h"
#include "util/fsx.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define DOMAIN "hv"
#define MAX_PASSPHRASE (1024 * 1024)

/* Source: QEMU, docs/interop/qcow2.txt, header: crypt_method. */
#define QCOW2_CRYPT_OFFSET 32
enum { QCOW2_PLAIN = 0, QCOW2_LUKS = 2 };

/* In the format's terms; a file that cannot be read is the opener's business. */
static guint32
crypt_method (const char *path, const char *format)
{
  guint32 field = 0; /* big-endian */
  if (g_str_equal (format, "luks"))
    return QCOW2_LUKS;
  if (!g_str_equal (format, "qcow2"))
    return QCOW2_PLAIN;
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  bool ok = fd >= 0 && pread (fd, &field, sizeof field, QCOW2_CRYPT_OFFSET) == sizeof field;
  if (fd >= 0)
    close (fd);
  return ok ? GUINT32_FROM_BE (field) : QCOW2_PLAIN;
}

char *
crypt_key_name (const ImageDisk *disk, const char *path, const char *format)
{
  if (crypt_method (path, format) == QCOW2_PLAIN)
    return NULL;
  g_autofree char *hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, disk->path, -1);
  return g_strdup_printf ("img-key-%.16s", hash);
}

static bool
daemon_has (QmpMachine *machine, const char *id)
{
  g_autoptr (json_t) objects
      = qmp_execute (machine->client, "qom-list", json_pack ("{s:s}", "path", "/objects"), NULL);
  return jsonx_find (objects, "name", id) != NULL;
}

static bool
give_file (QmpMachine *machine, const ImageDisk *disk, const char *id, TmkError **errp)
{
  size_t len;
  char *text = fsx_read_file (disk->secret, MAX_PASSPHRASE, &len, errp);
  if (text == NULL) {
    error_prefix (errp, "disk '%s': passphrase", disk->target);
    error_hint (errp, "name the file that holds it, and see that it can be read");
    return false;
  }
  size_t used = len > 0 && text[len - 1] == '\n' ? len - 1 : len;
  bool ok = used > 0 && qmp_object_add_secret (machine->client, id, text, used, errp);
  if (used == 0) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "disk '%s': the passphrase file '%s' is empty",
               disk->target, disk->secret);
    error_hint (errp, "name the file that holds it");
  }
  explicit_bzero (text, len);
  g_free (text);
  return ok;
}

static bool
give_passphrase (QmpMachine *machine, const ImageDisk *disk, const char *id, TmkError **errp)
{
  if (disk->passphrase == NULL)
    return give_file (machine, disk, id, errp);
  return qmp_object_add_secret (machine->client, id, disk->passphrase, disk->passphrase_len, errp);
}

bool
crypt_prepare (QmpMachine *machine, const ImageDisk *disk, const char *path, const char *format,
               char **key, TmkError **errp)
{
  g_autofree char *id = crypt_key_name (disk, path, format);
  if (id != NULL && crypt_method (path, format) != QCOW2_LUKS) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "disk '%s': the image '%s' is encrypted in the old way (AES), not with LUKS",
               disk->target, path);
    error_hint (errp, "convert it with 'qemu-img convert'");
    return false;
  }
  if (id != NULL && disk->secret == NULL && disk->passphrase == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_DENIED, 0, "disk '%s': the image '%s' is encrypted",
               disk->target, path);
    error_hint (errp, "name the file that holds its passphrase: --image %s=%s,secret=FILE",
                disk->target, disk->path);
    return false;
  }
  if (id != NULL && !daemon_has (machine, id) && !give_passphrase (machine, disk, id, errp))
    return false;
  *key = g_steal_pointer (&id);
  return true;
}

void
crypt_add_options (json_t *options, const char *driver, const char *key)
{
  if (key == NULL)
    return;
  if (g_str_equal (driver, "luks"))
    json_object_set_new (options, "key-secret", json_string (key));
  else
    json_object_set_new (options, "encrypt",
                         json_pack ("{s:s, s:s}", "format", "luks", "key-secret", key));
}

bool
crypt_explain (const ImageDisk *disk, const char *path, const char *said, TmkError **errp)
{
  if (strstr (said, "Invalid password") == NULL)
    return false;
  if (disk->passphrase != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_DENIED, 0,
               "disk '%s': its passphrase does not open the image '%s'", disk->target, path);
    error_hint (errp,
                "is it another image's? That of a domain of libvirt's is a secret, which 'virsh"
                " secret-set-value' changes");
    return true;
  }
  if (disk->secret == NULL)
    return false;
  error_set (errp, DOMAIN, TMK_ERR_DENIED, 0,
             "disk '%s': the passphrase in '%s' does not open the image '%s'", disk->target,
             disk->secret, path);
  error_hint (errp, "name the file that holds the image's own passphrase, with at most one newline"
                    " behind it");
  return true;
}
