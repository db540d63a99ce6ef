/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/begin_checks.c: see hv/libvirt/begin.h. */
#include "hv/libvirt/begin.h"

#include "util/fsx.h"

#include <string.h>
#include <sys/stat.h>

#define DOMAIN "libvirt"
#define QEMU_WITHOUT_IOTHREAD_FAULT 10000000 /* as libvirt counts: 10.0.0 */

bool
begin_check_options (const TmkBeginOptions *options, TmkError **errp)
{
  const char *what = NULL, *instead = NULL;
  if (options->bandwidth != 0)
    what = "a limit to the bandwidth of a push", instead = "leave it out";
  else if (options->compress || options->compression_type != NULL)
    what = "compression", instead = "leave it out, or back up into a repository";
  else if (options->secrets != NULL)
    what = "a folder of secrets", instead = "give libvirt the secret, with 'virsh secret-define'";
  else if (options->tls_x509 != NULL || options->tls_psk != NULL)
    what = "other certificates", instead = "set backup_tls_x509_cert_dir in libvirt's qemu.conf";
  if (what == NULL)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "libvirt's jobs do not take %s", what);
  error_hint (errp, "%s", instead);
  return false;
}

bool
begin_make_way (LvDomain *lv, TmkError **errp)
{
  TmkError *err = NULL;
  bool runs = false, is_stranger = false;
  lv_drop_images_job (lv);
  g_autoptr (json_t) record = lv_job_read (lv, &err);
  if (err != NULL) {
    error_propagate (errp, err);
    return false;
  }
  if (record != NULL && record_in_phase (record, "running")
      && !lv_job_is_there (lv, record, &runs, errp))
    return false;
  if (runs || (record != NULL && lv_job_is_copying (record))) {
    error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "a backup job runs already");
    error_hint (errp, "end it with 'tidemark end' or 'tidemark abort', or wait for it");
    return false;
  }
  if (record != NULL && !lv_job_put_away (lv, record, errp))
    return false;
  if (!lv_job_is_stranger (lv, NULL, &is_stranger, errp))
    return false;
  if (is_stranger) {
    error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "libvirt runs a backup job that is not tidemark's");
    error_hint (errp, "wait for it, or end it with 'virsh domjobabort %s'", lv->name);
    return false;
  }
  virDomainJobInfo info;
  if (virDomainGetJobInfo (lv->dom, &info) != 0 || info.type == VIR_DOMAIN_JOB_NONE)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0,
             "libvirt is at work on the domain: it is being saved,"
             " dumped or moved");
  error_hint (errp, "try again when that has ended; see 'virsh domjobinfo %s'", lv->name);
  return false;
}

/* Asked only where it matters: libvirt may look at QEMU's program anew, which takes seconds. */
static bool
has_iothread_fault (const LvDomain *lv)
{
  unsigned long version = 0;
  return virConnectGetVersion (lv->connection, &version) != 0
         || version < QEMU_WITHOUT_IOTHREAD_FAULT;
}

bool
begin_must_be_staged (const Begin *begin)
{
  for (guint i = 0; begin->def->pull && i < begin->def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (begin->def->disks, i);
    const DiskDef *is = lv_disk_by_name (begin->lv, disk->name);
    if (disk->backup && is != NULL && is->iothread)
      return has_iothread_fault (begin->lv);
  }
  return false;
}

static bool
check_staged (const Begin *begin, TmkError **errp)
{
  const BackupServer *server = begin->def->server;
  g_autofree char *program = g_find_program_in_path ("qemu-storage-daemon");
  if (program != NULL && (server == NULL || server->tls != 1))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
             program == NULL
                 ? "a disk is in an iothread, which a QEMU older than 10.0 cannot export"
                   " itself, and there is no 'qemu-storage-daemon'"
                 : "there is no TLS where a disk is in an iothread and QEMU is older"
                   " than 10.0");
  error_hint (errp, program == NULL ? "install it (with QEMU's system packages)"
                                    : "use a unix socket without tls='yes', or push the disks");
  return false;
}

static bool
check_disks (const Begin *begin, TmkError **errp)
{
  for (guint i = 0; i < begin->def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (begin->def->disks, i);
    const DiskDef *is = lv_disk_by_name (begin->lv, disk->name);
    const char *why_not = disk->backup && is != NULL ? lv_disk_why_not (begin->lv, is) : NULL;
    if (why_not == NULL)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s' cannot be backed up: %s",
               disk->name, why_not);
    error_hint (errp, "leave it out: backup='no'");
    return false;
  }
  return !begin->staged || check_staged (begin, errp);
}

/* A full one copies what the image has; an incremental one, at most the same. */
static bool
check_room (const Begin *begin, TmkError **errp)
{
  guint64 needed = 0, room = G_MAXUINT64;
  for (guint i = 0; i < begin->def->disks->len && (begin->staged || !begin->def->pull); i++) {
    const BackupDisk *disk = g_ptr_array_index (begin->def->disks, i);
    virDomainBlockInfo info;
    guint64 free_bytes;
    if (!disk->backup || disk->mode != BACKUP_MODE_FULL || disk->store->type != STORAGE_FILE
        || virDomainGetBlockInfo (begin->lv->dom, disk->name, &info, 0) != 0
        || !fsx_free_space (disk->store->path, &free_bytes, NULL))
      continue;
    needed += info.allocation;
    room = MIN (room, free_bytes);
    if (needed <= room || begin->options->no_space_check)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_NO_SPACE, 0,
               "disk '%s': '%s' may need %" G_GUINT64_FORMAT " bytes, and %" G_GUINT64_FORMAT
               " are free",
               disk->name, disk->store->path, needed, room);
    error_hint (errp, "free some space, choose another folder, or insist with --no-space-check");
    return false;
  }
  return true;
}

static bool
is_same_file (const struct stat *st, const char *path)
{
  struct stat other;
  if (path == NULL || stat (path, &other) != 0)
    return false;
  if (S_ISBLK (st->st_mode) && S_ISBLK (other.st_mode))
    return st->st_rdev == other.st_rdev;
  return st->st_dev == other.st_dev && st->st_ino == other.st_ino;
}

/* Which disk of the domain has that file or device as one of its images? */
static const DiskDef *
owner_of (const LvDomain *lv, const struct stat *st)
{
  for (guint i = 0; i < lv->def->disks->len; i++) {
    const DiskDef *disk = g_ptr_array_index (lv->def->disks, i);
    for (guint j = 0; j < disk->chain->len; j++) {
      const DiskSourceDef *image = g_ptr_array_index (disk->chain, j);
      if (is_same_file (st, image->path) || is_same_file (st, image->data_store_path))
        return disk;
    }
  }
  return NULL;
}

/* What exists (`st`, else NULL) is written over: it must be no image of the domain. Nor may it be
 * another disk's target, be it there or not. */
static bool
check_own (const Begin *begin, guint number, const struct stat *st, TmkError **errp)
{
  const BackupDisk *disk = g_ptr_array_index (begin->def->disks, number);
  const DiskDef *owner = st != NULL ? owner_of (begin->lv, st) : NULL;
  const char *other = owner != NULL ? owner->target : NULL;
  for (guint i = 0; i < number && other == NULL; i++) {
    const BackupDisk *before = g_ptr_array_index (begin->def->disks, i);
    if (before->backup && before->store != NULL
        && (g_str_equal (disk->store->path, before->store->path)
            || (st != NULL && is_same_file (st, before->store->path))))
      other = before->name;
  }
  if (other == NULL)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0, "disk '%s': '%s' is %s of disk '%s'", disk->name,
             disk->store->path, owner != NULL ? "an image" : "the target", other);
  error_hint (errp, "name another file");
  return false;
}

/* Nothing of the user's is written over. */
static bool
check_targets (const Begin *begin, TmkError **errp)
{
  for (guint i = 0; i < begin->def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (begin->def->disks, i);
    struct stat st;
    if (!disk->backup || disk->store == NULL)
      continue;
    bool exists = stat (disk->store->path, &st) == 0;
    if (!check_own (begin, i, exists ? &st : NULL, errp))
      return false;
    if (disk->store->type != STORAGE_FILE)
      continue;
    if (exists == begin->options->reuse_external)
      continue;
    error_set (errp, DOMAIN, exists ? TMK_ERR_EXISTS : TMK_ERR_NOT_FOUND, 0,
               exists ? "disk '%s': '%s' exists" : "disk '%s': there is no '%s' to be used",
               disk->name, disk->store->path);
    error_hint (errp, exists ? "move it away, choose another name, or use --reuse-external"
                             : "make it, or leave --reuse-external out");
    return false;
  }
  return true;
}

bool
begin_check_checkpoint (const Begin *begin, TmkError **errp)
{
  for (guint i = 0; i < begin->checkpoint->disks->len; i++) {
    const CheckpointDisk *disk = g_ptr_array_index (begin->checkpoint->disks, i);
    const DiskDef *is = lv_disk_by_name (begin->lv, disk->name);
    const DiskSourceDef *active = disk->covered && is != NULL ? disk_def_active (is) : NULL;
    if (active == NULL || g_strcmp0 (active->format, "qcow2") == 0)
      continue;
    error_set (
        errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
        "disk '%s': no checkpoint can be made of it, for its format (%s) cannot keep bitmaps",
        disk->name, active->format != NULL ? active->format : "raw");
    error_hint (errp, "leave it out of the checkpoint: <disk name='%s' checkpoint='no'/>",
                disk->name);
    return false;
  }
  return true;
}

bool
begin_check (const Begin *begin, TmkError **errp)
{
  return check_disks (begin, errp) && check_targets (begin, errp) && check_room (begin, errp);
}
