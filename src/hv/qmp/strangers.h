/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/strangers.h: what a job has made that no record knows: its job.json was lost.
 *
 * It is found by the names that we give, and by what processes of ours hold in the state folder.
 */
#pragma once

#include "hv/qmp/machine.h"

/* A log (see hv/qmp/undo.h) by which all of it goes; empty where there is nothing. With QEMU gone
 * only processes are looked for. To be called where no job is remembered. */
json_t *strangers_log (QmpMachine *machine, TmkError **errp);

/* What an entry of that log is, in words; borrowed from it. */
const char *strangers_describe (const json_t *entry);
