/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/targets.h: the images that a push job writes: looked at, made, opened in QEMU.
 *
 * Files are made by us, empty and exclusively, so that "it exists already" is known without a race
 * and only files of ours are ever removed; QEMU then formats them itself (blockdev-create), which
 * knows every format that it can write; only where that would harm the guest it is qemu-img that
 * does (see hv/qmp/image.h). They are handed to QEMU's user where that is another.
 */
#pragma once

#include "hv/qmp/machine.h"
#include "hv/qmp/plan.h"

/* Changes nothing: targets are absent (or, to be reused, there), none is an image of the domain
 * itself, and each file system has room for all that goes there. */
bool targets_check (const JobPlan *plan, GPtrArray *disks, const TmkBeginOptions *options,
                    TmkError **errp);

/* Who opens files in QEMU. */
bool target_user (QmpMachine *machine, uid_t *uid, gid_t *gid);

/* Makes the file of `disk` and stores its identity. */
bool target_make_file (QmpMachine *machine, const JobDisk *disk, guint64 *dev, guint64 *ino,
                       TmkError **errp);

/* Gives QEMU what all disks' targets need: secret, protocol node, format (unless reused), format
 * node. What was made by then where something fails is in the job's log. */
bool targets_open (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
                   TmkError **errp);

/* Bytes that may still be written to where `path` lies; UINT64_MAX for a device or on failure. */
guint64 target_room (const char *path, bool is_device);
