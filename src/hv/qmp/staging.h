/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/staging.h: a pull whose disks QEMU must not export itself.
 *
 * QEMU before 10 aborts when a client leaves an NBD export of a disk in an iothread
 * (QUIRK_NBD_IOTHREAD_ABORT). There all disks of the job are pushed to their scratch images first,
 * in full, as of one instant; the map of what changed is stored in the scratch; and a
 * qemu-storage-daemon of our own exports the copies. It costs room and time, but no client can
 * harm the virtual machine. Its record says "staged", and "exported" once the daemon serves.
 */
#pragma once

#include "hv/qmp/plan.h"
#include "hv/qmp/record.h"
#include "hv/staging_daemon.h"

/* Must the job be staged? */
bool staging_is_needed (QmpMachine *machine, const JobPlan *plan);

/* Refuses what a staged job cannot do. Changes nothing. */
bool staging_check (const JobPlan *plan, TmkError **errp);

/* Starts the copies, in one transaction. */
bool staging_start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
                    json_t *record, TmkError **errp);

/* The copies are complete: takes them from QEMU and starts the daemon. `record` changes. */
bool staging_export (QmpMachine *machine, json_t *record, TmkError **errp);
