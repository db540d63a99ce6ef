/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * objstore/folder.h: what tests want of a folder, see objstore/objstore.h.
 */
#pragma once

#include "objstore/objstore.h"

/* Does without O_TMPFILE, as on a file system that has none. */
void folder_store_avoid_tmpfile (ObjStore *store);
