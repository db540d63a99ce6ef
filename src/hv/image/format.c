/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/image/format.c: which format an image has; see hv/image/images.h. */
#include "hv/image/images.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "hv"

static const struct {
  const char *driver, *magic;
  size_t offset, len;
} formats[] = {
  { "qcow2", "QFI\xfb\0\0\0\2", 0, 8 },
  { "qcow2", "QFI\xfb\0\0\0\3", 0, 8 },
  { "qcow", "QFI\xfb\0\0\0\1", 0, 8 },
  { "qed", "QED\0", 0, 4 },
  { "vmdk", "KDMV", 0, 4 },
  { "vmdk", "COWD", 0, 4 },
  { "vhdx", "vhdxfile", 0, 8 },
  { "vpc", "conectix", 0, 8 },
  { "vdi", "\x7f\x10\xda\xbe", 0x40, 4 },
  { "luks", "LUKS\xba\xbe", 0, 6 },
  { "parallels", "WithoutFreeSpace", 0, 16 },
};

bool
image_check_path (const ImageDisk *disk, const char *path, struct stat *st, TmkError **errp)
{
  bool ok = stat (path, st) == 0;
  if (!ok || access (path, R_OK) != 0) {
    bool denied = errno == EACCES || errno == EPERM;
    error_set_errno (errp, DOMAIN, errno, "disk '%s': cannot open the image '%s'", disk->target,
                     path);
    error_hint (errp, denied ? "run tidemark as a user that may read it and, for checkpoints, write"
                               " it: root, or the user that QEMU runs as"
                             : "name the image that the virtual machine starts with");
    return false;
  }
  if (S_ISREG (st->st_mode) || S_ISBLK (st->st_mode))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "disk '%s': '%s' is neither a file nor a device",
             disk->target, path);
  error_hint (errp, "name the image that the virtual machine starts with");
  return false;
}

const char *
image_probe (const char *path, TmkError **errp)
{
  char head[512] = { 0 };
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? pread (fd, head, sizeof head, 0) : -1;
  int saved = errno;
  if (fd >= 0)
    close (fd);
  if (n < 0) {
    error_set_errno (errp, DOMAIN, saved, "cannot read the image '%s'", path);
    return NULL;
  }
  for (size_t i = 0; i < G_N_ELEMENTS (formats); i++)
    if (memcmp (head + formats[i].offset, formats[i].magic, formats[i].len) == 0)
      return formats[i].driver;
  return "raw";
}

static const char *
described_format (const ImageDisk *disk, const TmkDomainDef *given)
{
  const DiskDef *def = given != NULL ? domain_def_find_disk (given, disk->target) : NULL;
  const DiskSourceDef *active = def != NULL ? disk_def_active (def) : NULL;
  bool said = active != NULL && (active->format != NULL || active->luks);
  return said ? disk_source_driver (active) : NULL;
}

bool
image_choose_format (ImageDisk *disk, const TmkDomainDef *given, TmkError **errp)
{
  const char *described = described_format (disk, given);
  if (disk->format == NULL)
    disk->format = g_strdup (described);
  if (disk->format != NULL)
    return true;
  const char *found = image_probe (disk->path, errp);
  if (found == NULL) {
    error_prefix (errp, "disk '%s'", disk->target);
    return false;
  }
  g_autofree char *suffix = g_strconcat (".", found, NULL);
  bool named_qcow2 = g_str_has_suffix (disk->path, ".qcow2");
  bool plain = g_str_equal (found, "raw") ? !named_qcow2 : g_str_has_suffix (disk->path, suffix);
  if (plain) {
    disk->format = g_strdup (found);
    return true;
  }
  if (named_qcow2) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "disk '%s': '%s' is no qcow2 image", disk->target,
               disk->path);
    error_hint (errp, "say what it is: --image %s=%s,format=%s", disk->target, disk->path, found);
    return false;
  }
  error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
             "disk '%s': '%s' looks like a %s image, which a guest could have made of a raw one",
             disk->target, disk->path, found);
  error_hint (errp, "say what it is: --image %s=%s,format=%s", disk->target, disk->path, found);
  return false;
}
