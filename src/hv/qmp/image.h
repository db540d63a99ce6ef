/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/image.h: makes empty images of targets with qemu-img, in a process of its own, where
 * QEMU's blockdev-create would harm the guest:
 *
 * - Of an encrypted one it derives the key in its main loop, and first measures for seconds how
 * fast it can: the guest stands still meanwhile (5 s measured, QEMU 7.2). Opening an image derives
 * the key again, and only QEMU itself can do that: so the derivation is kept short (QEMU's default
 * is 2 s of it). A passphrase that is hard to guess needs no slow derivation.
 * - See QUIRK_CREATE_ABORT.
 */
#pragma once

#include "hv/qmp/plan.h"

/* Is there a qemu-img? */
bool image_can_format (void);

/* Formats the target of `disk`, a file or device that is there and that nobody uses, with
 * `passphrase` (NULL: not encrypted). `backing_name` is what the image shall call disk->backing
 * (NULL: none), `compression_type` its type (NULL: QEMU's default). */
bool image_format (const JobDisk *disk, const char *backing_name, const char *compression_type,
                   GBytes *passphrase, TmkError **errp);

/* The QEMU driver of the target's top node: raw with encryption is QEMU's "luks". */
const char *image_driver_of (const JobDisk *disk);
