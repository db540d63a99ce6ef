/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/image/images.h: the disks of a domain that is powered off: the place behind
 * tmk_domain_open_images().
 *
 * A qemu-storage-daemon of ours opens the images, each with its backing chain, and from there on
 * they are dealt with as those of a virtual machine. It is started when it is needed, read-only as
 * long as nothing is to be changed, and remembered in the state folder ("images"), so that other
 * processes find it: all of one domain use the same, in turn. It ends with the process that
 * started it, whatever ends that; only one with a job that is to outlive its process does not, and
 * is ended by whoever finds the job gone.
 *
 * A node is named after its image's path, so that a name means the same in every daemon.
 */
#pragma once

#include "hv/qmp/machine.h"

#include <sys/stat.h>

typedef struct {
  char *target;
  char *path;       /* absolute */
  char *format;     /* known when it is opened first; or NULL */
  char *secret;     /* the file with its passphrase; or NULL */
  char *passphrase; /* the passphrase itself; or NULL */
  size_t passphrase_len;
} ImageDisk;

typedef struct {
  GPtrArray *given; /* of ImageDisk*: as the domain was opened */
  GPtrArray *disks; /* the same, or those on which the job runs that is looked at */
  char *folder;     /* of the daemon that was used last, or NULL */
  pid_t child;      /* it, where this process started it; else 0 */
  int keeper;       /* see keeper_start(); or -1 */
} Images;

/* --- hv/image/place.c ------------------------------------------------------------------------ */

/* Which disks are open, as it is remembered. A new reference. */
json_t *images_note_disks (const Images *images);

/* Sets `disks` to those that were noted; false where none were. A passphrase is not known of them:
 * they are open already. */
bool images_use_noted (Images *images, const json_t *noted);

/* Sets `disks` to those that were given. */
void images_use_given (Images *images);

/* --- hv/image/format.c ----------------------------------------------------------------------- */

/* Is there a file or a device at `path`, for `disk`, that can be read? */
bool image_check_path (const ImageDisk *disk, const char *path, struct stat *st, TmkError **errp);

/* What the first bytes of `path` say that it is: a driver's name, "raw" where they say nothing.
 * NULL where it cannot be read. A static string. */
const char *image_probe (const char *path, TmkError **errp);

/* Sets the format of `disk`, from `given` (may be NULL) or what is plain to see. What a guest wrote
 * into a raw image must not decide. */
bool image_choose_format (ImageDisk *disk, const TmkDomainDef *given, TmkError **errp);

/* --- hv/image/holder.c ----------------------------------------------------------------------- */

/* Says that `path` is in use, and by whom where that can be found; not by `ours`, a daemon that
 * could not have it. */
void image_set_in_use (const char *target, const char *path, pid_t ours, TmkError **errp);

/* Keeps QEMU's processes from writing to `path` as long as the descriptor returned, or a copy, is
 * open. -1 with TMK_ERR_BUSY where one does; -1 without an error where there are no such locks. */
int image_lock (const char *target, const char *path, TmkError **errp);

/* Keeps the block device at `path` from being mounted, or taken otherwise, as long as the
 * descriptor returned, or a copy, is open. -1 with TMK_ERR_BUSY where it is. */
int image_hold_device (const char *target, const char *path, TmkError **errp);

/* --- hv/image/keeper.c ----------------------------------------------------------------------- */

/* Starts a process that ends `daemon` when this one has ended. A descriptor to be closed when
 * `daemon` has ended or is no more this process's affair; -1: it could not be started. */
int keeper_start (pid_t daemon);

/* --- hv/image/crypt.c ------------------------------------------------------------------------ */

/* What the daemon calls the passphrase of the image at `path`, one of those of `disk`; NULL where
 * that is not encrypted. Free with g_free(). */
char *crypt_key_name (const ImageDisk *disk, const char *path, const char *format);

/* The same in `*key`, and gives the daemon the passphrase. */
bool crypt_prepare (QmpMachine *machine, const ImageDisk *disk, const char *path,
                    const char *format, char **key, TmkError **errp);

/* Adds what opens an image of `driver` with `key` (NULL: nothing). */
void crypt_add_options (json_t *options, const char *driver, const char *key);

/* Where QEMU `said` that the passphrase is wrong: says so, and returns true. */
bool crypt_explain (const ImageDisk *disk, const char *path, const char *said, TmkError **errp);

/* --- hv/image/nodes.c ------------------------------------------------------------------------ */

/* Opens the images of `disk` in the daemon; `writable`: the top one for writing, if that is of any
 * use. */
bool nodes_open (QmpMachine *machine, const ImageDisk *disk, bool writable, TmkError **errp);

/* The place's functions; see hv/qmp/machine.h. */
GPtrArray *nodes_disks (QmpMachine *machine, TmkError **errp);
void nodes_reopen (QmpMachine *machine, const QmpDisk *disk, const DiskImage *image, bool writable);
void nodes_set_writable (QmpMachine *machine, bool writable);

/* --- hv/image/daemon.c ----------------------------------------------------------------------- */

bool images_connect (QmpMachine *machine, EnterMode mode, TmkError **errp);
void images_leave_for_good (QmpMachine *machine);
