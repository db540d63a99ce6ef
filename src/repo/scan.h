/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/scan.h: what is in a pack whose table cannot be read.
 */
#pragma once

#include "format/pack.h"
#include "objstore/objstore.h"

typedef void (*ScanVisit) (const PackEntry *entry, void *data);

/* Looks for sound records, one after the other, and calls `visit` for each. What cannot be read of
 * the pack is stepped over; an error where it left nothing to be found. */
bool scan_pack (ObjReader *pack, ScanVisit visit, void *data, TmkError **errp);
