/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rng-verdicts FILE SCHEMADIR: for every document in FILE (each followed by a NUL byte), does
 * tmk_xml_validate() say what libvirt's own schema in SCHEMADIR says? In one process, as 20,000
 * documents are many.
 *
 * Prints "KIND VERDICT" a document where both agree (VERDICT 0 or 1), "KIND differ OURS THEIRS WHY"
 * where they do not. Exits 0 if it could ask both about all.
 */
#include "conf/xml_doc.h"

#include <libxml/parser.h>
#include <libxml/relaxng.h>
#include <stdio.h>
#include <string.h>
#include <tidemark/xml.h>

static void
silent (void *data, xmlErrorPtr error)
{
}

static xmlRelaxNG *
load (const char *dir, const char *name)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);
  xmlRelaxNGParserCtxt *ctxt = xmlRelaxNGNewParserCtxt (path);
  xmlRelaxNGSetParserStructuredErrors (ctxt, silent, NULL);
  xmlRelaxNG *grammar = xmlRelaxNGParse (ctxt);
  xmlRelaxNGFreeParserCtxt (ctxt);
  if (grammar == NULL) {
    fprintf (stderr, "%s: cannot be loaded\n", path);
    exit (1);
  }
  return grammar;
}

/* Their verdict, with a parser called as libvirt calls it. */
static bool
theirs (xmlRelaxNG *const grammars[2], const char *xml, size_t len, const char **kind)
{
  static const char *const roots[2] = { "domainbackup", "domaincheckpoint" };
  xmlDoc *doc = xmlReadMemory (xml, (int) len, NULL, NULL,
                               XML_PARSE_NONET | XML_PARSE_NOBLANKS | XML_PARSE_NOERROR
                                   | XML_PARSE_NOWARNING);
  bool valid = false;
  *kind = "broken";
  if (doc == NULL)
    return false;
  *kind = "other";
  for (int i = 0; i < 2; i++) {
    if (!xml_is (xmlDocGetRootElement (doc), roots[i]))
      continue;
    *kind = roots[i];
    xmlRelaxNGValidCtxt *ctxt = xmlRelaxNGNewValidCtxt (grammars[i]);
    xmlRelaxNGSetValidStructuredErrors (ctxt, silent, NULL);
    valid = xmlRelaxNGValidateDoc (ctxt, doc) == 0;
    xmlRelaxNGFreeValidCtxt (ctxt);
  }
  xmlFreeDoc (doc);
  return valid;
}

int
main (int argc, char **argv)
{
  g_autofree char *documents = NULL;
  gsize size;
  if (argc != 3 || !g_file_get_contents (argv[1], &documents, &size, NULL)) {
    fprintf (stderr, "usage: rng-verdicts FILE SCHEMADIR\n");
    return 2;
  }
  xmlInitParser ();
  xmlRelaxNG *const grammars[2]
      = { load (argv[2], "domainbackup.rng"), load (argv[2], "domaincheckpoint.rng") };
  size_t at = 0;
  while (at < size) {
    const char *xml = documents + at;
    size_t len = strnlen (xml, size - at);
    at += len + 1;
    g_autoptr (TmkError) err = NULL;
    const char *kind;
    int line = -1;
    bool our_verdict = tmk_xml_validate (xml, len, &line, &err);
    bool their_verdict = theirs (grammars, xml, len, &kind);
    if (our_verdict == their_verdict)
      printf ("%s %d %d\n", kind, our_verdict, our_verdict ? 0 : line);
    else
      printf ("%s differ %d %d %s\n", kind, our_verdict, their_verdict,
              our_verdict ? "-" : tmk_error_message (err));
  }
  xmlRelaxNGFree (grammars[0]);
  xmlRelaxNGFree (grammars[1]);
  return 0;
}
