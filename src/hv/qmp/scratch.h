/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/scratch.h: looking at the scratch images of a pull that runs, and whether they still
 * serve.
 *
 * Looking must harm nobody. QEMU looks at every image's file in its main loop when it is asked for
 * its nodes, so on a storage that hangs the question would freeze it and its guest; and a probe of
 * the snapshots changes the graph, which freezes both under clients that do not read
 * (pull_probe()). So the storage is asked by a process of its own, which alone hangs with it. And
 * whether a snapshot is whole is told by two bitmaps of its filter, which query-block shows: what
 * the filter has saved, and what the guest has written through it. Whatever is written was saved
 * before, so where more is written than saved the snapshot is broken. The other way round nothing
 * is proved: that is left to the probe.
 */
#pragma once

#include "hv/qmp/machine.h"

/* Does the storage of the scratch images of `record` (a job's; NULL: none) answer? TMK_ERR_TIMEOUT
 * where not. To be asked before QEMU is asked for its nodes. */
bool scratch_answers (const json_t *record, TmkError **errp);

/* Brings `record`, an exported pull, up to date: what each scratch takes, what is left and what the
 * guest has changed; and in its "trouble" why the job is not good any more, if that is known:
 * TMK_ERR_IO (a snapshot is broken), TMK_ERR_NOT_FOUND (a scratch is lost), TMK_ERR_TIMEOUT (one
 * does not answer) or TMK_ERR_GONE (clients cannot come). Stores how many disks QEMU knows nothing
 * of. */
bool scratch_look (QmpMachine *machine, json_t *record, unsigned *missing, TmkError **errp);
