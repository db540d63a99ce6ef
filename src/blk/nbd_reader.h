/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/nbd_reader.h: the engine of a reader of an NBD export: reads and block status requests on
 * several connections at once, each replaced when it is lost.
 */
#pragma once

#include "blk/nbd_pool.h"
#include "blk/reader.h"

/* Takes its first connection from `pool` (borrowed), the others while it runs. Fills in `setup`. */
ReaderEngine *nbd_reader_new (NbdPool *pool, ReaderSetup *setup, TmkError **errp);
