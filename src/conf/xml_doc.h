/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/xml_doc.h: reading XML from outside into a tree, and looking around in that tree.
 *
 * A document may come from anybody: its size is bounded, nothing is fetched, and it may not
 * declare entities or default attributes, which a small document can use to become a huge one.
 */
#pragma once

#include "util/error.h"
#include <glib.h>
#include <libxml/tree.h>
#include <libxml/xmlerror.h>

/* Bytes of the longest document that is read; libvirt's own bound is 10 MiB. */
#define XML_DOC_MAX (16u << 20)

/* Between these two, libxml2 prints nothing in this thread, whatever part of it complains. */
typedef struct {
  xmlStructuredErrorFunc func;
  void *data;
} XmlQuiet;
void xml_quiet_begin (XmlQuiet *before);
void xml_quiet_end (const XmlQuiet *before);

/* Parses `len` bytes. On failure the message is the reason alone and `*line` (NULL allowed) the
 * line of the fault, from 1, or 0. The document has a root element. Free with xmlFreeDoc(). */
xmlDoc *xml_doc_read (const char *xml, size_t len, int *line, TmkError **errp);

/* As xml_doc_read(), with "origin:line: " before the reason, and the root must be called `root`
 * where that is not NULL. */
xmlDoc *xml_doc_parse (const char *xml, size_t len, const char *origin, const char *root,
                       TmkError **errp);

/* Sets "origin:line: message" (TMK_ERR_INVALID) for the line of `node`. Always false. */
bool xml_fault (const char *origin, const xmlNode *node, TmkError **errp, const char *format, ...)
    G_GNUC_PRINTF (4, 5);

/* "origin", or a word for NULL. */
const char *xml_origin (const char *origin);

/* Sets the hint that goes with every document that is not as it should be. */
void xml_hint (TmkError **errp);

/* Is it an element called `name`, in no namespace? */
gboolean xml_is (const xmlNode *node, const char *name);

/* The first child element, or the next sibling element, called `name` (NULL: any), or NULL. */
xmlNode *xml_child (const xmlNode *node, const char *name);
xmlNode *xml_next (const xmlNode *node, const char *name);

/* The value of an attribute, NULL where it is not there. Free with g_free(). */
char *xml_attr (const xmlNode *node, const char *name);

/* As xml_attr(), but NULL also where it is empty. */
char *xml_attr_full (const xmlNode *node, const char *name);

/* All the text within `node`, NULL where there is none (or no node). Free with g_free(). */
char *xml_text (const xmlNode *node);

/* A decimal number of digits alone, at most `max`. */
gboolean xml_number (const char *text, guint64 max, guint64 *value);

/* The index of `name` in `names` (whose holes are NULL), or -1. */
int xml_enum (const char *const *names, size_t n, const char *name);

/* "yes" 1, "no" 0, not there -1. False with an error for anything else. */
bool xml_attr_yes_no (const char *origin, const xmlNode *node, const char *name, int *value,
                      TmkError **errp);

/* A UUID, with or without dashes, as lower case with dashes; NULL where it is none. */
char *xml_uuid (const char *text);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (xmlDoc, xmlFreeDoc)
