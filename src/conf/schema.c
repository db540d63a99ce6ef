/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/schema.c: see conf/schema.h.
 *
 * The verdict is the schema's alone. Its reasons are another matter: where a choice fails, libxml2
 * reports whatever the last alternative lacked. So a document that is not valid is looked over
 * again by explain.c, which knows the format, and libxml2's words are used only where that finds
 * nothing to name.
 */
#include "conf/schema.h"

#include "conf/explain.h"
#include "conf/xml_doc.h"

#include <libxml/relaxng.h>
#include <string.h>

typedef struct {
  GMutex lock; /* libxml2 promises nothing about one grammar in two threads */
  xmlRelaxNG *grammar;
} Schema;

static void
silent (void *data, xmlErrorPtr error)
{
}

/* Called with libxml2 quiet. */
static void
load (Schema *schema, const char *text, unsigned len)
{
  xmlRelaxNGParserCtxt *ctxt = xmlRelaxNGNewMemParserCtxt (text, (int) len);
  xmlRelaxNGSetParserStructuredErrors (ctxt, silent, NULL);
  schema->grammar = xmlRelaxNGParse (ctxt);
  xmlRelaxNGFreeParserCtxt (ctxt);
  g_assert (schema->grammar != NULL); /* our own text, tested at every build */
}

static Schema *
backup_schema (void)
{
  static Schema schema;
  static gsize ready;
  if (g_once_init_enter (&ready)) {
    load (&schema, schema_domainbackup, schema_domainbackup_len);
    g_once_init_leave (&ready, 1);
  }
  return &schema;
}

static Schema *
checkpoint_schema (void)
{
  static Schema schema;
  static gsize ready;
  if (g_once_init_enter (&ready)) {
    load (&schema, schema_domaincheckpoint, schema_domaincheckpoint_len);
    g_once_init_leave (&ready, 1);
  }
  return &schema;
}

/* The most telling of libxml2's complaints: the first that is about something in particular. */
typedef struct {
  char *reason;
  int line;
  gboolean vague;
} Complaint;

static void
on_complaint (void *data, xmlErrorPtr error)
{
  Complaint *complaint = data;
  gboolean vague
      = error->code == XML_RELAXNG_ERR_CONTENTVALID || error->code == XML_RELAXNG_ERR_EXTRACONTENT
        || error->code == XML_RELAXNG_ERR_INTERSEQ || error->code == XML_RELAXNG_ERR_INTEREXTRA;
  if (complaint->reason != NULL && (vague || !complaint->vague))
    return;
  g_free (complaint->reason);
  complaint->reason = g_strdup (error->message != NULL ? error->message : "not valid");
  g_strdelimit (g_strchomp (complaint->reason), "\n", ' ');
  complaint->reason[0] = g_ascii_tolower (complaint->reason[0]);
  const xmlNode *node = error->node; /* may be an attribute, which has no line */
  while (node != NULL && node->type != XML_ELEMENT_NODE)
    node = node->parent;
  complaint->line = node != NULL ? (int) xmlGetLineNo (node) : error->line;
  complaint->vague = vague;
}

/* libxml2 takes time with the square of how often an element is repeated: a second or two for this
 * many, half an hour for as many as the longest document can hold. */
enum { ELEMENTS_MAX = 1 << 16 };

static gboolean
is_too_long (const xmlNode *root)
{
  unsigned n = 0;
  for (const xmlNode *node = root; node != NULL && n <= ELEMENTS_MAX;) {
    n += node->type == XML_ELEMENT_NODE;
    if (node->type == XML_ELEMENT_NODE && node->children != NULL) {
      node = node->children;
      continue;
    }
    while (node != root && node->next == NULL)
      node = node->parent;
    node = node != root ? node->next : NULL;
  }
  return n > ELEMENTS_MAX;
}

bool
schema_validate (xmlDoc *doc, int *line, TmkError **errp)
{
  const xmlNode *root = xmlDocGetRootElement (doc);
  if (line != NULL)
    *line = (int) xmlGetLineNo (root);
  gboolean backup = xml_is (root, "domainbackup");
  if (!backup && !xml_is (root, "domaincheckpoint")) {
    error_set (errp, "conf", TMK_ERR_INVALID, 0,
               "the root element is '%s', neither 'domainbackup' nor 'domaincheckpoint'",
               root->name);
    return false;
  }

  if (is_too_long (root)) {
    error_set (errp, "conf", TMK_ERR_INVALID, 0, "the document has more than %d elements",
               ELEMENTS_MAX);
    return false;
  }

  XmlQuiet before;
  xml_quiet_begin (&before);
  Schema *schema = backup ? backup_schema () : checkpoint_schema ();
  Complaint complaint = { 0 };
  g_mutex_lock (&schema->lock);
  xmlRelaxNGValidCtxt *ctxt = xmlRelaxNGNewValidCtxt (schema->grammar);
  xmlRelaxNGSetValidStructuredErrors (ctxt, on_complaint, &complaint);
  int rc = xmlRelaxNGValidateDoc (ctxt, doc);
  xmlRelaxNGFreeValidCtxt (ctxt);
  g_mutex_unlock (&schema->lock);
  xml_quiet_end (&before);

  if (rc != 0) {
    const xmlNode *where = NULL;
    g_autofree char *why = explain_fault (root, &where);
    if (why == NULL)
      why = g_strdup (complaint.reason != NULL ? complaint.reason : "not valid");
    error_set (errp, "conf", TMK_ERR_INVALID, 0, "%s", why);
    if (line != NULL)
      *line = where != NULL ? (int) xmlGetLineNo (where) : MAX (complaint.line, *line);
  }
  g_free (complaint.reason);
  return rc == 0;
}

bool
schema_check (xmlDoc *doc, const char *origin, TmkError **errp)
{
  int line;
  if (schema_validate (doc, &line, errp))
    return true;
  error_prefix (errp, "%s:%d", xml_origin (origin), line);
  xml_hint (errp);
  return false;
}
