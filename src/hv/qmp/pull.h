/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/pull.h: exporting the disks as of one instant while the guest goes on writing.
 *
 * Each disk gets a copy-before-write filter between its device and its images. Before the guest
 * overwrites something, the filter copies the old data to the scratch, and if that fails the
 * snapshot breaks, not the guest (on-cbw-error: break-snapshot, with a time limit). QEMU from 10.0
 * on exports the filter's snapshot-access node. Before, that node returns wrong data (QUIRK_
 * SNAPSHOT_ACCESS_WRONG): there the scratch itself is exported, as an overlay of the disk, and the
 * snapshot-access node only serves to ask whether the snapshot is whole.
 */
#pragma once

#include "hv/qmp/plan.h"
#include "hv/qmp/record.h"

/* Fails with TMK_ERR_BUSY where a job of somebody's has a filter of its own over a disk (a mirror,
 * a commit, a stream). Ours would go below it, for query-block does not show it, and the device
 * past both: a mirror would miss what the guest writes from then on, and lose it when it completes.
 */
bool pull_check_jobs (QmpMachine *machine, TmkError **errp);

/* From the scratch nodes (open) to the exports. */
bool pull_start (QmpMachine *machine, const JobPlan *plan, const TmkBeginOptions *options,
                 json_t *record, TmkError **errp);

/* Of a pull of disks that are powered off: how many are not exported any more. */
bool pull_look_direct (QmpMachine *machine, json_t *record, unsigned *missing, TmkError **errp);

/* Is every disk's snapshot whole? False with TMK_ERR_IO and what broke. Not while there are
 * exports: the probe changes the graph, for which QEMU waits until all requests are done, with the
 * guest standing still: a client that takes no answers would freeze both (and QEMU 10 can lock up
 * even under clients that read as they should). */
bool pull_probe (QmpMachine *machine, const json_t *record, TmkError **errp);
