/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/definition.h: a plan as the `<domainbackup>` that carries it out.
 */
#pragma once

#include "conf/backup_def.h"
#include "engine/look.h"

/* A pull of the plan's disks, each in its mode. `suffix` ends the names of scratch images. Where
 * the user gave a definition its scratch images, names and server stay as they are. */
TmkBackupDef *definition_new (const Look *look, const TmkBackupOptions *options, const char *suffix,
                              TmkError **errp);
