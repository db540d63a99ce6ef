/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/targets.c: see hv/qmp/targets.h. */
#include "hv/qmp/targets.h"

#include "hv/qmp/disk_batch.h"
#include "hv/qmp/image.h"
#include "hv/secrets.h"
#include "qmp/commands.h"
#include "qmp/schema.h"
#include "util/fsx.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "hv"

/* --- before anything is changed -------------------------------------------------------------- */

static bool
same_storage (const struct stat *a, const struct stat *b)
{
  if (S_ISBLK (a->st_mode) && S_ISBLK (b->st_mode))
    return a->st_rdev == b->st_rdev;
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Overwriting a disk of the domain with its own backup must be impossible. */
static bool
check_not_own (const JobDisk *push, const struct stat *st, GPtrArray *disks, TmkError **errp)
{
  for (guint i = 0; i < disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (disks, i);
    for (guint j = 0; j < disk->chain->len; j++) {
      const DiskImage *image = g_ptr_array_index (disk->chain, j);
      struct stat own;
      if (image->filename == NULL || *image->filename != '/' || stat (image->filename, &own) != 0
          || !same_storage (st, &own))
        continue;
      error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0,
                 "disk '%s': target '%s' is an image of the domain's own disk '%s'", push->name,
                 push->target, disk->name);
      error_hint (errp, "choose another <target>");
      return false;
    }
  }
  return true;
}

static bool
check_file (const JobDisk *push, GPtrArray *disks, bool reuse, TmkError **errp)
{
  struct stat st;
  bool exists = stat (push->target, &st) == 0;
  int saved = errno;
  if (exists && !check_not_own (push, &st, disks, errp))
    return false;
  if (reuse) {
    if (exists && S_ISREG (st.st_mode))
      return true;
    if (exists)
      error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0, "disk '%s': target '%s' is no regular file",
                 push->name, push->target);
    else
      error_set_errno (errp, DOMAIN, saved, "disk '%s': cannot reuse target '%s'", push->name,
                       push->target);
    error_hint (errp, "with --reuse-external every target must be there already, in its format");
    return false;
  }
  struct stat link;
  if (exists || lstat (push->target, &link) == 0) {
    error_set (errp, DOMAIN, TMK_ERR_EXISTS, EEXIST, "disk '%s': target '%s' exists already",
               push->name, push->target);
    error_hint (errp, "choose another name, remove the file, or use it as it is with"
                      " --reuse-external");
    return false;
  }
  g_autofree char *dir = g_path_get_dirname (push->target);
  if (stat (dir, &st) != 0 || !S_ISDIR (st.st_mode)) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, ENOENT, "disk '%s': there is no folder '%s'",
               push->name, dir);
    error_hint (errp, "make it first: mkdir -p '%s'", dir);
    return false;
  }
  return true;
}

static bool
check_device_size (const JobDisk *push, int fd, TmkError **errp)
{
  guint64 bytes = 0;
  if (ioctl (fd, BLKGETSIZE64, &bytes) != 0) {
    error_set_errno (errp, DOMAIN, errno, "disk '%s': cannot tell the size of '%s'", push->name,
                     push->target);
    return false;
  }
  bool raw = g_str_equal (push->format, "raw");
  guint64 needed = raw ? push->size : push->estimate;
  if (bytes >= needed)
    return true;
  error_set (errp, DOMAIN, raw ? TMK_ERR_MISMATCH : TMK_ERR_NO_SPACE, ENOSPC,
             "disk '%s': target '%s' has %" G_GUINT64_FORMAT
             " bytes, the backup may need %" G_GUINT64_FORMAT,
             push->name, push->target, bytes, needed);
  error_hint (errp, "use a larger device");
  return false;
}

static bool
check_device (const JobDisk *push, GPtrArray *disks, TmkError **errp)
{
  struct stat st;
  if (stat (push->target, &st) != 0) {
    error_set_errno (errp, DOMAIN, errno, "disk '%s': cannot use target '%s'", push->name,
                     push->target);
    error_hint (errp, "make the device available, or use <disk type='file'>");
    return false;
  }
  if (!S_ISBLK (st.st_mode)) {
    error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0, "disk '%s': target '%s' is no block device",
               push->name, push->target);
    error_hint (errp, "use <disk type='file'> with <target file='…'/> for a file");
    return false;
  }
  if (!check_not_own (push, &st, disks, errp))
    return false;
  /* O_EXCL on a block device fails while it is mounted or part of something else. */
  int fd = open (push->target, O_RDONLY | O_EXCL | O_CLOEXEC);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "disk '%s': cannot use target '%s'", push->name,
                     push->target);
    error_hint (errp, "is it mounted, or in use by another program?");
    return false;
  }
  bool ok = check_device_size (push, fd, errp);
  close (fd);
  return ok;
}

/* qcow2 needs tables beside the data: about 1/4096 of it, and a little for each image. */
static guint64
with_metadata (guint64 estimate)
{
  return estimate + estimate / 2048 + 1024 * 1024;
}

/* Each file system must hold what all the targets on it may take. */
static bool
check_space (const JobPlan *plan, TmkError **errp)
{
  g_autoptr (GHashTable) needs
      = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, g_free);
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    g_autofree char *dir = g_path_get_dirname (disk->target);
    struct stat st;
    guint64 room = 0;
    if (disk->target_type != STORAGE_FILE || stat (dir, &st) != 0
        || !fsx_free_space (disk->target, &room, NULL))
      continue; /* then the job itself will tell */
    gint64 dev = (gint64) st.st_dev;
    guint64 *sum = g_hash_table_lookup (needs, &dev);
    if (sum == NULL) {
      sum = g_new0 (guint64, 1);
      g_hash_table_insert (needs, g_memdup2 (&dev, sizeof dev), sum);
    }
    *sum += with_metadata (disk->estimate);
    if (*sum <= room)
      continue;
    error_set (errp, DOMAIN, TMK_ERR_NO_SPACE, ENOSPC,
               "disk '%s': not enough space in '%s': the backup may need %" G_GUINT64_FORMAT
               " bytes there, %" G_GUINT64_FORMAT " are free",
               disk->name, dir, *sum, room);
    error_hint (errp, "free some space or choose another folder; --no-space-check begins all the "
                      "same");
    return false;
  }
  return true;
}

/* A reused scratch must hold nothing: before QEMU 10 it is exported as an overlay of the disk, and
 * would show what it holds in place of that. An empty qcow2 image has an L1 table (qcow2's
 * specification: l1_size at byte 36, l1_table_offset at 40, big endian) of zeroes. What is no qcow2
 * QEMU refuses later. */
static bool
check_reused_scratch (const JobDisk *disk, TmkError **errp)
{
  guint8 header[48], l1[4096];
  bool empty = true;
  int fd = open (disk->target, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || pread (fd, header, sizeof header, 0) != sizeof header
      || memcmp (header, "QFI\xfb", 4) != 0) {
    if (fd >= 0)
      close (fd);
    return true;
  }
  guint32 entries_be;
  guint64 offset_be;
  memcpy (&entries_be, header + 36, sizeof entries_be);
  memcpy (&offset_be, header + 40, sizeof offset_be);
  guint64 at = GUINT64_FROM_BE (offset_be), left = (guint64) GUINT32_FROM_BE (entries_be) * 8;
  while (left > 0 && empty) {
    ssize_t n = pread (fd, l1, MIN (left, sizeof l1), (off_t) at);
    if (n <= 0)
      break;
    for (ssize_t i = 0; i < n; i++)
      empty = empty && l1[i] == 0;
    at += (guint64) n;
    left -= (guint64) n;
  }
  close (fd);
  if (empty)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0, "disk '%s': the scratch '%s' is not empty",
             disk->name, disk->target);
  error_hint (errp,
              "make it anew, without preallocation: qemu-img create -f qcow2 '%s'"
              " %" G_GUINT64_FORMAT,
              disk->target, disk->size);
  return false;
}

bool
targets_check (const JobPlan *plan, GPtrArray *disks, const TmkBeginOptions *options,
               TmkError **errp)
{
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    if (disk->target_type == STORAGE_BLOCK
            ? !check_device (disk, disks, errp)
            : !check_file (disk, disks, options->reuse_external, errp))
      return false;
    if (plan->def->pull && options->reuse_external && !check_reused_scratch (disk, errp))
      return false;
  }
  return options->reuse_external || options->no_space_check || check_space (plan, errp);
}

guint64
target_room (const char *path, bool is_device)
{
  guint64 room = 0;
  if (is_device || !fsx_free_space (path, &room, NULL))
    return G_MAXUINT64;
  return room;
}

/* --- making and opening ---------------------------------------------------------------------- */

/* The numbers behind `field` ("\nUid:") of /proc/PID/status: real, effective, saved, file system.
 */
static bool
status_id (const char *status, const char *field, guint *id)
{
  const char *at = strstr (status, field);
  guint real, effective, saved;
  return at != NULL
         && sscanf (at + strlen (field), "%u %u %u %u", &real, &effective, &saved, id) == 4;
}

/* Who opens files in QEMU. The socket tells who listened on it, which may have been root before
 * QEMU dropped its privileges (-runas), so the process is asked first. */
bool
target_user (QmpMachine *machine, uid_t *uid, gid_t *gid)
{
  pid_t pid;
  if (!qmp_client_peer (machine->client, &pid, uid, gid))
    return false;
  g_autofree char *path = g_strdup_printf ("/proc/%ld/status", (long) pid);
  size_t len;
  g_autofree char *status = fsx_read_file (path, 65536, &len, NULL);
  guint fs_uid, fs_gid;
  if (status != NULL && status_id (status, "\nUid:", &fs_uid)
      && status_id (status, "\nGid:", &fs_gid)) {
    *uid = fs_uid;
    *gid = fs_gid;
  }
  return true;
}

bool
target_make_file (QmpMachine *machine, const JobDisk *disk, guint64 *dev, guint64 *ino,
                  TmkError **errp)
{
  dev_t made_dev;
  ino_t made_ino;
  if (!fsx_create_new (disk->target, 0600, &made_dev, &made_ino, errp)) {
    error_prefix (errp, "disk '%s'", disk->name);
    return false;
  }
  *dev = made_dev;
  *ino = made_ino;
  uid_t uid;
  gid_t gid;
  if (geteuid () == 0 && target_user (machine, &uid, &gid) && uid != 0
      && chown (disk->target, uid, gid) != 0) {
    error_set_errno (errp, DOMAIN, errno, "disk '%s': cannot give '%s' to QEMU's user", disk->name,
                     disk->target);
    return false;
  }
  return true;
}

/* An image in the same folder is named by itself, so that the folder can be moved as a whole. */
static char *
backing_name (const JobDisk *disk)
{
  g_autofree char *dir = g_path_get_dirname (disk->target);
  g_autofree char *backing_dir = g_path_get_dirname (disk->backing);
  if (!g_str_equal (dir, backing_dir))
    return g_strdup (disk->backing);
  g_autofree char *base = g_path_get_basename (disk->backing);
  /* QEMU takes what is before a colon for a protocol. */
  return strchr (base, ':') != NULL ? g_strconcat ("./", base, NULL) : g_steal_pointer (&base);
}

static json_t *
create_options (const JobDisk *disk, const TmkBeginOptions *options)
{
  const char *driver = image_driver_of (disk);
  json_t *create = json_pack ("{s:s, s:s, s:I}", "driver", driver, "file", disk->file_node, "size",
                              (json_int_t) disk->size);
  if (g_str_equal (driver, "vpc"))
    json_object_set_new (create, "force-size", json_true ());
  if (!g_str_equal (driver, "qcow2"))
    return create;
  if (disk->backing != NULL) {
    g_autofree char *name = backing_name (disk);
    json_object_set_new (create, "backing-file", json_string (name));
    json_object_set_new (create, "backing-fmt", json_string (disk->backing_format));
  }
  if (options->compression_type != NULL)
    json_object_set_new (create, "compression-type", json_string (options->compression_type));
  return create;
}

static json_t *
open_options (const JobDisk *disk)
{
  const char *driver = image_driver_of (disk);
  json_t *open_ = json_pack ("{s:s, s:s, s:s}", "driver", driver, "node-name", disk->format_node,
                             "file", disk->file_node);
  if (g_str_equal (driver, "qcow2")) {
    /* A scratch lies over the disk; of a target the backing file is only named, never opened: it
     * may be anything by now. */
    json_object_set_new (open_, "backing", jsonx_string_or_null (disk->root_node));
    if (disk->encryption != NULL)
      json_object_set_new (open_, "encrypt",
                           json_pack ("{s:s, s:s}", "format", "luks", "key-secret", disk->secret));
  } else if (g_str_equal (driver, "luks")) {
    json_object_set_new (open_, "key-secret", json_string (disk->secret));
  } else if (g_str_equal (driver, "raw") && disk->target_type == STORAGE_BLOCK) {
    /* A device may be larger than the disk. */
    json_object_set_new (open_, "size", json_integer ((json_int_t) disk->size));
  }
  return open_;
}

/* Gives QEMU the secret of an encrypted target, and formats that unless it is reused. */
static bool
prepare_encrypted (QmpMachine *machine, const JobDisk *disk, const TmkBeginOptions *options,
                   TmkError **errp)
{
  GBytes *bytes = secret_find (options->secrets, disk->encryption, errp);
  if (bytes == NULL)
    return false;
  gsize len;
  gconstpointer data = g_bytes_get_data (bytes, &len);
  bool ok = qmp_object_add_secret (machine->client, disk->secret, data, len, errp);
  if (ok && !options->reuse_external) {
    g_autofree char *name = disk->backing != NULL ? backing_name (disk) : NULL;
    ok = image_format (disk, name, NULL, bytes, errp);
  }
  g_bytes_unref (bytes);
  return ok;
}

/* Those files that need no format get their size. */
static bool
size_raw_file (const JobDisk *disk, TmkError **errp)
{
  if (truncate (disk->target, (off_t) disk->size) == 0)
    return true;
  error_set_errno (errp, DOMAIN, errno, "cannot make '%s' %" G_GUINT64_FORMAT " bytes large",
                   disk->target, disk->size);
  return false;
}

/* Must it be there before QEMU has a node for it? Encrypted ones are formatted with their secret.
 */
static bool
is_formatted_outside (QmpMachine *machine, const JobDisk *disk)
{
  return disk->secret == NULL && g_str_equal (disk->format, "qcow2")
         && qmp_has_quirk (qmp_client_version (machine->client), QUIRK_CREATE_ABORT)
         && image_can_format ();
}

static bool
format_outside (const JobDisk *disk, const TmkBeginOptions *options, TmkError **errp)
{
  g_autofree char *name = disk->backing != NULL ? backing_name (disk) : NULL;
  return image_format (disk, name, options->compression_type, NULL, errp);
}

/* Must QEMU format it? */
static bool
needs_format (QmpMachine *machine, const JobDisk *disk, const TmkBeginOptions *options)
{
  return !options->reuse_external && disk->secret == NULL
         && !g_str_equal (image_driver_of (disk), "raw") && !is_formatted_outside (machine, disk);
}

/* The virtual sizes of our own nodes, by which reused images are known to fit. */
static bool
check_node_sizes (QmpMachine *machine, const JobPlan *plan, const JobDisk **failed, TmkError **errp)
{
  g_autoptr (json_t) nodes = qmp_execute (machine->client, "query-named-block-nodes", NULL, errp);
  *failed = g_ptr_array_index (plan->disks, 0);
  if (nodes == NULL)
    return false;
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = *failed = g_ptr_array_index (plan->disks, i);
    const json_t *node = jsonx_find (nodes, "node-name", disk->format_node);
    guint64 size = jsonx_uint (json_object_get (node, "image"), "virtual-size");
    if (node != NULL && size == disk->size)
      continue;
    if (node == NULL) {
      error_set (errp, DOMAIN, TMK_ERR_GONE, 0, "target node '%s' went away", disk->format_node);
      return false;
    }
    error_set (errp, DOMAIN, TMK_ERR_MISMATCH, 0,
               "disk '%s' has %" G_GUINT64_FORMAT " bytes, its target '%s' %" G_GUINT64_FORMAT,
               disk->name, disk->size, disk->target, size);
    error_hint (errp, "give the image the disk's size: qemu-img resize '%s' %" G_GUINT64_FORMAT,
                disk->target, disk->size);
    return false;
  }
  return true;
}

/* What is done without QEMU, or one after the other. */
static bool
prepare_all (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
             const JobDisk **failed, TmkError **errp)
{
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = *failed = g_ptr_array_index (plan->disks, i);
    bool raw_file
        = g_str_equal (image_driver_of (disk), "raw") && disk->target_type == STORAGE_FILE;
    if ((disk->secret != NULL && !prepare_encrypted (machine, disk, options, errp))
        || (raw_file && !options->reuse_external && !size_raw_file (disk, errp))
        || (!options->reuse_external && is_formatted_outside (machine, disk)
            && !format_outside (disk, options, errp)))
      return false;
  }
  return true;
}

static bool
open_files (QmpMachine *machine, const JobPlan *plan, const JobDisk **failed, TmkError **errp)
{
  g_autoptr (DiskBatch) batch = disk_batch_new ();
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    const char *driver = disk->target_type == STORAGE_BLOCK ? "host_device" : "file";
    disk_batch_add (batch, disk, "blockdev-add",
                    json_pack ("{s:s, s:s, s:s}", "driver", driver, "node-name", disk->file_node,
                               "filename", disk->target));
  }
  return disk_batch_run (machine, batch, failed, errp);
}

/* One after the other, each to its end: QEMU 7.2 aborts when two such jobs run side by side, now
 * and then ("bdrv_do_drained_begin_quiesce: Assertion `!qemu_in_coroutine()' failed"). */
static bool
format_all (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
            const JobDisk **failed, TmkError **errp)
{
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = *failed = g_ptr_array_index (plan->disks, i);
    g_autofree char *job = g_strconcat (disk->job, "-create", NULL);
    if (needs_format (machine, disk, options)
        && !qmp_blockdev_create (machine->client, job, create_options (disk, options), errp))
      return false;
  }
  return true;
}

static bool
open_formats (QmpMachine *machine, const JobPlan *plan, const JobDisk **failed, TmkError **errp)
{
  g_autoptr (DiskBatch) batch = disk_batch_new ();
  for (guint i = 0; i < plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (plan->disks, i);
    disk_batch_add (batch, disk, "blockdev-add", open_options (disk));
    /* Its key is derived while the guest stands still: not one such after the other. */
    if (disk->secret != NULL && !disk_batch_run (machine, batch, failed, errp))
      return false;
  }
  return disk_batch_run (machine, batch, failed, errp);
}

bool
targets_open (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
              TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  const JobDisk *disk = NULL;
  if (prepare_all (machine, plan, options, &disk, &err) && open_files (machine, plan, &disk, &err)
      && format_all (machine, plan, options, &disk, &err)
      && open_formats (machine, plan, &disk, &err)
      && (!options->reuse_external || check_node_sizes (machine, plan, &disk, &err)))
    return true;
  /* QEMU's own words do not say which disk; ours do already. */
  if (strstr (tmk_error_message (err), "disk '") == NULL)
    error_prefix (&err, "disk '%s': target '%s'", disk->name, disk->target);
  if (tmk_error_hint (err) == NULL)
    error_hint (&err,
                options->reuse_external
                    ? "the image must be of format '%s', and QEMU be able to write it"
                    : "QEMU must be able to write format '%s', and to open the target",
                disk->format);
  error_propagate (errp, g_steal_pointer (&err));
  return false;
}
