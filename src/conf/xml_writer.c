/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/xml_writer.c: see conf/xml_writer.h. Pure: from values to text. */
#include "conf/xml_writer.h"

#include "conf/xml_doc.h"

static void
indent (XmlWriter *w)
{
  for (int i = 0; i < w->indent; i++)
    g_string_append (w->out, "  ");
}

static void
escape (GString *out, const char *text, gboolean attribute)
{
  for (const char *c = text; *c != '\0'; c++) {
    switch (*c) {
    case '<':
      g_string_append (out, "&lt;");
      break;
    case '>':
      g_string_append (out, "&gt;");
      break;
    case '&':
      g_string_append (out, "&amp;");
      break;
    case '"':
      g_string_append (out, "&quot;");
      break;
    case '\'':
      g_string_append (out, "&apos;");
      break;
    case '\t':
    case '\n':
    case '\r':
      if (attribute || *c == '\r')
        g_string_append_printf (out, "&#%d;", *c);
      else
        g_string_append_c (out, *c);
      break;
    default:
      if ((unsigned char) *c >= 0x20) /* the rest cannot stand in XML at all */
        g_string_append_c (out, *c);
    }
  }
}

void
xml_start (XmlWriter *w, const char *name)
{
  indent (w);
  g_string_append_printf (w->out, "<%s", name);
}

void
xml_put_attr (XmlWriter *w, const char *name, const char *value)
{
  if (value == NULL)
    return;
  g_string_append_printf (w->out, " %s='", name);
  escape (w->out, value, TRUE);
  g_string_append_c (w->out, '\'');
}

void
xml_put_attr_uint (XmlWriter *w, const char *name, guint64 value)
{
  g_string_append_printf (w->out, " %s='%" G_GUINT64_FORMAT "'", name, value);
}

void
xml_end_empty (XmlWriter *w)
{
  g_string_append (w->out, "/>\n");
}

void
xml_open (XmlWriter *w)
{
  g_string_append (w->out, ">\n");
  w->indent++;
}

void
xml_close (XmlWriter *w, const char *name)
{
  w->indent--;
  indent (w);
  g_string_append_printf (w->out, "</%s>\n", name);
}

void
xml_put_text (XmlWriter *w, const char *name, const char *text)
{
  if (text == NULL)
    return;
  indent (w);
  g_string_append_printf (w->out, "<%s>", name);
  escape (w->out, text, FALSE);
  g_string_append_printf (w->out, "</%s>\n", name);
}

/* Does the element hold text that is more than layout? Then no layout may be put into it. */
static gboolean
has_text (const xmlNode *node)
{
  for (const xmlNode *child = node->children; child != NULL; child = child->next)
    if (child->type == XML_ENTITY_REF_NODE
        || ((child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE)
            && !xmlIsBlankNode (child)))
      return TRUE;
  return FALSE;
}

static gboolean
is_shown (const xmlNode *node, gboolean text)
{
  switch (node->type) {
  case XML_ELEMENT_NODE:
    return TRUE;
  case XML_COMMENT_NODE:
    return node->content != NULL;
  case XML_TEXT_NODE: /* a reader drops most blank ones, so none is written: once more is the same
                       */
    return text && node->content != NULL && !xmlIsBlankNode (node);
  case XML_CDATA_SECTION_NODE:
    return text && node->content != NULL;
  default: /* processing instructions and unknown entities say nothing about a domain */
    return FALSE;
  }
}

static void
put_name (GString *out, const xmlNs *ns, const xmlChar *name)
{
  if (ns != NULL && ns->prefix != NULL)
    g_string_append_printf (out, "%s:", ns->prefix);
  g_string_append (out, (const char *) name);
}

static void
put_attributes (GString *out, const xmlNode *node)
{
  for (const xmlAttr *attr = node->properties; attr != NULL; attr = attr->next) {
    g_string_append_c (out, ' ');
    put_name (out, attr->ns, attr->name);
    g_string_append (out, "='");
    xmlChar *value = xmlNodeListGetString (node->doc, attr->children, 1);
    if (value != NULL)
      escape (out, (const char *) value, TRUE);
    xmlFree (value);
    g_string_append_c (out, '\'');
  }
  for (const xmlNs *ns = node->nsDef; ns != NULL; ns = ns->next) {
    g_string_append (out, " xmlns");
    if (ns->prefix != NULL)
      g_string_append_printf (out, ":%s", ns->prefix);
    g_string_append (out, "='");
    if (ns->href != NULL) {
      GString *href = g_string_new ((const char *) ns->href);
      g_string_replace (href, "&#38;", "&", 0); /* how libxml2 keeps an ampersand here */
      escape (out, href->str, TRUE);
      g_string_free (href, TRUE);
    }
    g_string_append_c (out, '\'');
  }
}

/* Depth is bounded by the parser's own limit on nesting (256). `inside`: within an element with
 * text, where every character counts. */
static void
put_node (XmlWriter *w, const xmlNode *node, gboolean inside)
{
  if (node->type == XML_CDATA_SECTION_NODE && xmlIsBlankNode (node)) {
    g_string_append_printf (w->out, "<![CDATA[%s]]>", node->content);
    return;
  }
  if (node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE) {
    escape (w->out, (const char *) node->content, FALSE);
    return;
  }
  if (!inside)
    indent (w);
  if (node->type == XML_COMMENT_NODE) {
    g_string_append_printf (w->out, "<!--%s-->%s", node->content, inside ? "" : "\n");
    return;
  }
  gboolean text = inside || has_text (node);
  const xmlNode *child = node->children;
  while (child != NULL && !is_shown (child, text))
    child = child->next;
  g_string_append_c (w->out, '<');
  put_name (w->out, node->ns, node->name);
  put_attributes (w->out, node);
  if (child == NULL) {
    g_string_append (w->out, inside ? "/>" : "/>\n");
    return;
  }
  g_string_append (w->out, text ? ">" : ">\n");
  w->indent++;
  for (; child != NULL; child = child->next)
    if (is_shown (child, text))
      put_node (w, child, text);
  w->indent--;
  if (!text)
    indent (w);
  g_string_append (w->out, "</");
  put_name (w->out, node->ns, node->name);
  g_string_append (w->out, inside ? ">" : ">\n");
}

void
xml_put_node (XmlWriter *w, const xmlNode *node)
{
  put_node (w, node, FALSE);
}
