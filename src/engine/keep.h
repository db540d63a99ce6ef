/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/keep.h: what a point keeps of its domain besides the disks: how it is defined, and the
 * files that belong to it.
 */
#pragma once

#include "engine/pipeline.h"
#include "hv/hv.h"

/* Stores the files of `description` and adds them to `manifest`. To be called as close as can be to
 * the instant. What cannot be read is no error: "nvram 'NAME': why" is added to `left_out` (of
 * char *), as is what the description leaves out. */
bool keep_files (const TmkDomainDescription *description, Pipeline *pipeline, guint32 chunk_size,
                 Manifest *manifest, GPtrArray *left_out, TmkError **errp);
