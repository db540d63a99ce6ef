/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/schema.h: the public schemas, compiled into the library (src/conf/schemas), and asking
 * them. Any thread: each schema is parsed once in a process, and one thread at a time asks it.
 */
#pragma once

#include "util/error.h"
#include <libxml/tree.h>

extern const char schema_domainbackup[];
extern const unsigned schema_domainbackup_len;
extern const char schema_domaincheckpoint[];
extern const unsigned schema_domaincheckpoint_len;

/* Is `doc`, by its root element, a valid <domainbackup> or <domaincheckpoint>? If not, the message
 * is the reason alone and `*line` (NULL allowed) the line of the fault, or 0. */
bool schema_validate (xmlDoc *doc, int *line, TmkError **errp);

/* The same, with "origin:line: " before the reason. */
bool schema_check (xmlDoc *doc, const char *origin, TmkError **errp);
