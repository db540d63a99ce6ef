/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/luks.h: formats encrypted targets, with qemu-img in a process of its own.
 *
 * QEMU's blockdev-create does it too, but derives the key in its main loop, and first measures for
 * seconds how fast it can: the guest stands still meanwhile (5 s measured, QEMU 7.2). Opening an
 * image derives the key again, and only QEMU itself can do that: so the derivation is kept short
 * (QEMU's default is 2 s of it). A passphrase that is hard to guess needs no slow derivation.
 */
#pragma once

#include "hv/qmp/plan.h"

/* Formats the target of `disk`, a file or device that is there and that nobody uses, with
 * `passphrase`. `backing_name` is what the image shall call disk->backing (NULL: none). */
bool luks_format (const JobDisk *disk, const char *backing_name, GBytes *passphrase,
                  TmkError **errp);

/* The QEMU driver of the target's top node: raw with encryption is QEMU's "luks". */
const char *luks_driver_of (const JobDisk *disk);
