/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/xml_doc.c: see conf/xml_doc.h. Any thread; a document belongs to one thread at a time. */
#include "conf/xml_doc.h"

#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <string.h>

static void
silent (void *data, xmlErrorPtr error)
{
}

/* A parser's own handler does not hear of everything: an encoding that breaks in mid-document is
 * told to the thread's. */
void
xml_quiet_begin (XmlQuiet *before)
{
  before->func = xmlStructuredError;
  before->data = xmlStructuredErrorContext;
  xmlSetStructuredErrorFunc (NULL, silent);
}

void
xml_quiet_end (const XmlQuiet *before)
{
  xmlSetStructuredErrorFunc (before->data, before->func);
}

/* What the callbacks of one parser found. */
typedef struct {
  char *reason; /* of the first fault */
  int line;
} Faults;

static void
note_fault (Faults *faults, int line, const char *reason)
{
  if (faults->reason != NULL)
    return;
  faults->reason = g_strdup (reason);
  g_strdelimit (g_strchomp (faults->reason), "\n", ' ');
  faults->reason[0] = g_ascii_tolower (faults->reason[0]);
  faults->line = line;
}

static void
on_error (void *data, xmlErrorPtr error)
{
  xmlParserCtxt *ctxt = data;
  if (ctxt == NULL || ctxt->_private == NULL || error->level < XML_ERR_FATAL)
    return;
  note_fault (ctxt->_private, error->line,
              error->message != NULL ? error->message : "not well-formed");
}

static void
stop (xmlParserCtxt *ctxt, const char *reason)
{
  note_fault (ctxt->_private, ctxt->input != NULL ? ctxt->input->line : 0, reason);
  xmlStopParser (ctxt);
}

static void
on_entity (void *data, const xmlChar *name, int type, const xmlChar *public_id,
           const xmlChar *system_id, xmlChar *content)
{
  stop (data, "documents that declare entities are not accepted");
}

static void
on_attribute (void *data, const xmlChar *element, const xmlChar *name, int type, int def,
              const xmlChar *value, xmlEnumeration *tree)
{
  xmlFreeEnumeration (tree);
  stop (data, "documents that declare attributes are not accepted");
}

/* Is it text of one byte a unit? Then a NUL, where libxml2 would silently stop, is no part of it.
 */
static gboolean
is_bytes (const char *xml, size_t len)
{
  return len < 2
         || (xml[0] != '\0' && xml[1] != '\0' && memcmp (xml, "\xff\xfe", 2) != 0
             && memcmp (xml, "\xfe\xff", 2) != 0);
}

static bool
check_bytes (const char *xml, size_t len, int *line, TmkError **errp)
{
  if (len > XML_DOC_MAX) {
    error_set (errp, "conf", TMK_ERR_INVALID, 0, "the document is longer than %u MiB",
               XML_DOC_MAX >> 20);
    return false;
  }
  const char *nul = len > 0 && is_bytes (xml, len) ? memchr (xml, '\0', len) : NULL;
  if (nul == NULL)
    return true;
  for (const char *c = xml; line != NULL && c < nul; c++)
    *line += *c == '\n';
  if (line != NULL)
    (*line)++;
  error_set (errp, "conf", TMK_ERR_INVALID, 0, "a NUL byte stands in the document");
  return false;
}

xmlDoc *
xml_doc_read (const char *xml, size_t len, int *line, TmkError **errp)
{
  if (line != NULL)
    *line = 0;
  if (!check_bytes (xml, len, line, errp))
    return NULL;
  static gsize ready;
  if (g_once_init_enter (&ready)) {
    xmlInitParser ();
    g_once_init_leave (&ready, 1);
  }

  xmlParserCtxt *ctxt = xmlNewParserCtxt ();
  if (ctxt == NULL)
    g_error ("out of memory"); /* as every allocation of GLib's */
  Faults faults = { 0 };
  ctxt->_private = &faults;
  ctxt->sax->serror = on_error;
  ctxt->sax->entityDecl = on_entity;
  ctxt->sax->attributeDecl = on_attribute;
  XmlQuiet before;
  xml_quiet_begin (&before);
  xmlDoc *doc
      = xmlCtxtReadMemory (ctxt, xml, (int) len, NULL, NULL,
                           XML_PARSE_NONET | XML_PARSE_NOBLANKS | XML_PARSE_BIG_LINES
                               | XML_PARSE_COMPACT | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
  xmlFreeParserCtxt (ctxt);
  xml_quiet_end (&before);

  if (faults.reason == NULL && (doc == NULL || xmlDocGetRootElement (doc) == NULL))
    note_fault (&faults, 0, len == 0 ? "the document is empty" : "not well-formed");
  if (faults.reason != NULL) {
    error_set (errp, "conf", TMK_ERR_INVALID, 0, "%s", faults.reason);
    if (line != NULL)
      *line = faults.line;
    g_free (faults.reason);
    xmlFreeDoc (doc);
    return NULL;
  }
  return doc;
}

const char *
xml_origin (const char *origin)
{
  return origin != NULL ? origin : "(document)";
}

xmlDoc *
xml_doc_parse (const char *xml, size_t len, const char *origin, const char *root, TmkError **errp)
{
  int line;
  g_autoptr (xmlDoc) doc = xml_doc_read (xml, len, &line, errp);
  if (doc == NULL) {
    error_prefix (errp, "%s:%d", xml_origin (origin), line);
    xml_hint (errp);
    return NULL;
  }
  const xmlNode *node = xmlDocGetRootElement (doc);
  if (root != NULL && !xml_is (node, root)) {
    (void) xml_fault (origin, node, errp, "the root element is '%s', not '%s'", node->name, root);
    return NULL;
  }
  return g_steal_pointer (&doc);
}

bool
xml_fault (const char *origin, const xmlNode *node, TmkError **errp, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *message = g_strdup_vprintf (format, ap);
  va_end (ap);
  error_set (errp, "conf", TMK_ERR_INVALID, 0, "%s:%ld: %s", xml_origin (origin),
             xmlGetLineNo (node), message);
  xml_hint (errp);
  return false;
}

void
xml_hint (TmkError **errp)
{
  error_hint (errp, "mend that line; tidemark-domainbackup(7) says what may stand where");
}

gboolean
xml_is (const xmlNode *node, const char *name)
{
  return node->type == XML_ELEMENT_NODE && node->ns == NULL
         && strcmp ((const char *) node->name, name) == 0;
}

static xmlNode *
from (xmlNode *node, const char *name)
{
  while (node != NULL && (name != NULL ? !xml_is (node, name) : node->type != XML_ELEMENT_NODE))
    node = node->next;
  return node;
}

xmlNode *
xml_child (const xmlNode *node, const char *name)
{
  return from (node->children, name);
}

xmlNode *
xml_next (const xmlNode *node, const char *name)
{
  return from (node->next, name);
}

static char *
take (xmlChar *text)
{
  char *copy = g_strdup ((const char *) text);
  xmlFree (text);
  return copy;
}

char *
xml_attr (const xmlNode *node, const char *name)
{
  return take (xmlGetNoNsProp (node, (const xmlChar *) name));
}

char *
xml_attr_full (const xmlNode *node, const char *name)
{
  g_autofree char *value = xml_attr (node, name);
  return value != NULL && value[0] != '\0' ? g_steal_pointer (&value) : NULL;
}

char *
xml_text (const xmlNode *node)
{
  if (node == NULL)
    return NULL;
  g_autofree char *text = take (xmlNodeGetContent (node));
  return text != NULL && text[0] != '\0' ? g_steal_pointer (&text) : NULL;
}

gboolean
xml_number (const char *text, guint64 max, guint64 *value)
{
  if (text[0] == '\0' || strspn (text, "0123456789") != strlen (text))
    return FALSE;
  return g_ascii_string_to_unsigned (text, 10, 0, max, value, NULL);
}

int
xml_enum (const char *const *names, size_t n, const char *name)
{
  for (size_t i = 0; i < n; i++)
    if (names[i] != NULL && strcmp (names[i], name) == 0)
      return (int) i;
  return -1;
}

bool
xml_attr_yes_no (const char *origin, const xmlNode *node, const char *name, int *value,
                 TmkError **errp)
{
  static const char *const names[] = { "no", "yes" };
  g_autofree char *text = xml_attr (node, name);
  *value = -1;
  if (text == NULL)
    return true;
  *value = xml_enum (names, G_N_ELEMENTS (names), text);
  if (*value < 0)
    return xml_fault (origin, node, errp, "%s='%s' of <%s> is neither 'yes' nor 'no'", name, text,
                      node->name);
  return true;
}

char *
xml_uuid (const char *text)
{
  GString *uuid = g_string_sized_new (36);
  gboolean dashes = strlen (text) == 36;
  for (const char *c = text; *c != '\0'; c++) {
    gboolean at_dash = uuid->len == 8 || uuid->len == 13 || uuid->len == 18 || uuid->len == 23;
    if (at_dash)
      g_string_append_c (uuid, '-');
    if (at_dash && dashes) {
      if (*c != '-')
        break;
      continue;
    }
    if (!g_ascii_isxdigit (*c) || uuid->len >= 36)
      break;
    g_string_append_c (uuid, g_ascii_tolower (*c));
  }
  gboolean good = uuid->len == 36 && strlen (text) == (dashes ? 36 : 32);
  return g_string_free (uuid, !good);
}
