/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conf/xml.c: see <tidemark/xml.h>. */
#include <tidemark/xml.h>

#include "conf/schema.h"
#include "conf/xml_doc.h"

bool
tmk_xml_kind (const char *xml, size_t len, const char *origin, TmkXmlKind *kind, TmkError **errp)
{
  g_autoptr (xmlDoc) doc = xml_doc_parse (xml, len, origin, NULL, errp);
  if (doc == NULL)
    return false;
  const xmlNode *root = xmlDocGetRootElement (doc);
  *kind = xml_is (root, "domainbackup")                           ? TMK_XML_KIND_BACKUP
          : xml_is (root, "domaincheckpoint")                     ? TMK_XML_KIND_CHECKPOINT
          : xml_is (root, "domain") || xml_is (root, "domstatus") ? TMK_XML_KIND_DOMAIN
                                                                  : TMK_XML_KIND_UNKNOWN;
  return true;
}

bool
tmk_xml_validate (const char *xml, size_t len, int *line, TmkError **errp)
{
  g_autoptr (xmlDoc) doc = xml_doc_read (xml, len, line, errp);
  return doc != NULL && schema_validate (doc, line, errp);
}
