/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/explain.h: says in words what is wrong with a document that the schema refused. */
#pragma once

#include <libxml/tree.h>

/* The first fault of a refused <domainbackup> or <domaincheckpoint>, in the document's order, and
 * the element it is in; or NULL where nothing stands out. Never a verdict. Free with g_free(). */
char *explain_fault (const xmlNode *root, const xmlNode **where);
