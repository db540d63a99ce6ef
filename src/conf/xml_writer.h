/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/xml_writer.h: writing XML as libvirt writes it: two spaces of indent, attributes in single
 * quotes, an element without content closed in its own tag.
 *
 * Characters are escaped as libvirt does, with one exception: a tab, newline or carriage return
 * in an attribute (and a carriage return in text) becomes a character reference. Written raw, as
 * libvirt writes it, every XML reader would turn it into a space, and a file's name into another.
 */
#pragma once

#include <glib.h>
#include <libxml/tree.h>

typedef struct {
  GString *out;
  int indent;
} XmlWriter;

/* "<name", after the indent. Attributes may follow, then one of xml_end_…. */
void xml_start (XmlWriter *w, const char *name);

/* " name='value'"; nothing for a NULL value. */
void xml_put_attr (XmlWriter *w, const char *name, const char *value);
void xml_put_attr_uint (XmlWriter *w, const char *name, guint64 value);

/* "/>": the element has no content. */
void xml_end_empty (XmlWriter *w);

/* ">": children follow, each on a line of its own, then xml_close(). */
void xml_open (XmlWriter *w);
void xml_close (XmlWriter *w, const char *name);

/* "<name>text</name>" on a line; nothing for NULL. */
void xml_put_text (XmlWriter *w, const char *name, const char *text);

/* The element `node` with all it holds. Elements with text of their own stay on one line. */
void xml_put_node (XmlWriter *w, const xmlNode *node);
