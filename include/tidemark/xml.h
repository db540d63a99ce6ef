/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/xml.h: what kind of document is it, and is it valid?
 */
#ifndef TIDEMARK_XML_H
#define TIDEMARK_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  TMK_XML_KIND_UNKNOWN = 0, /* well-formed, but no root element that is known here */
  TMK_XML_KIND_BACKUP,      /* <domainbackup> */
  TMK_XML_KIND_CHECKPOINT,  /* <domaincheckpoint> */
  TMK_XML_KIND_DOMAIN,      /* <domain> */
} TmkXmlKind;

/* Stores the document's kind, found from its root element, in `*kind`. False with
 * TMK_ERR_INVALID where it is not well-formed. */
bool tmk_xml_kind (const char *xml, size_t len, const char *origin, TmkXmlKind *kind,
                   TmkError **errp);

/* Validates a <domainbackup> or <domaincheckpoint> against the public schema. On failure the
 * error is TMK_ERR_INVALID and `*line` (if not NULL) is the line of the fault, from 1, or 0
 * where none is known; tmk_error_message() is then the reason alone, without origin or line. */
bool tmk_xml_validate (const char *xml, size_t len, int *line, TmkError **errp);

#ifdef __cplusplus
}
#endif
#endif
