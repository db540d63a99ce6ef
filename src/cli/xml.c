/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark xml: definitions without a VM: is a document valid, what does it look like, and what
 * does it mean for a domain's disks? See tidemark-xml(1).
 */
#include "util/error.h"
#include "util/fsx.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <tidemark/backup_def.h>
#include <tidemark/checkpoint_def.h>
#include <tidemark/domain_def.h>
#include <tidemark/xml.h>

int cmd_xml (int argc, char **argv);

enum { DONE = 0, FAILED = 1, USAGE = 2 };

/* More than any reader below takes, so that they are the ones to say that it is too long. */
enum { READ_MAX = 64 << 20 };

typedef struct {
  gboolean internal;
  char *domain_xml;
  char *suffix;
} Options;

static int
usage (const char *format, const char *what)
{
  g_autofree char *message = g_strdup_printf (format, what);
  fprintf (stderr, "tidemark: error: %s\nhint: see tidemark xml --help\n", message);
  return USAGE;
}

static int
failed (const TmkError *err)
{
  fprintf (stderr, "tidemark: error: %s\n", tmk_error_message (err));
  if (tmk_error_hint (err) != NULL)
    fprintf (stderr, "hint: %s\n", tmk_error_hint (err));
  return tmk_error_code (err) == TMK_ERR_USAGE ? USAGE : FAILED;
}

/* Prints the verdict on one file and stores it in `*valid`. False where it cannot be read. */
static gboolean
validate_one (const char *file, gboolean *valid, TmkError **errp)
{
  size_t len;
  g_autofree char *xml = fsx_read_file (file, READ_MAX, &len, errp);
  if (xml == NULL)
    return FALSE;
  int line;
  g_autoptr (TmkError) fault = NULL;
  *valid = tmk_xml_validate (xml, len, &line, &fault);
  if (*valid)
    printf ("%s: valid\n", file);
  else
    printf ("%s: invalid: %d: %s\n", file, line, tmk_error_message (fault));
  return TRUE;
}

static int
validate (int n, char **files)
{
  if (n == 0)
    return usage ("%s: no file is named", "xml validate");
  int rc = DONE;
  for (int i = 0; i < n; i++) {
    gboolean valid = FALSE;
    g_autoptr (TmkError) err = NULL;
    if (!validate_one (files[i], &valid, &err))
      rc = failed (err);
    else if (!valid)
      rc = FAILED;
  }
  return rc;
}

/* The document formatted (and before that aligned where `dom` is not NULL), or NULL. */
static char *
rewrite_backup (const char *xml, size_t len, const char *file, const Options *options,
                const TmkDomainDef *dom, TmkError **errp)
{
  unsigned flags = options->internal ? TMK_XML_INTERNAL : TMK_XML_PUBLIC;
  TmkBackupDef *def = tmk_backup_def_parse (xml, len, file, flags, errp);
  char *text = NULL;
  if (def != NULL && (dom == NULL || tmk_backup_def_align (def, dom, options->suffix, errp)))
    text = tmk_backup_def_format (def, flags);
  tmk_backup_def_free (def);
  return text;
}

/* A checkpoint that says when it was made exists already, and all it says is kept. */
static char *
rewrite_checkpoint (const char *xml, size_t len, const char *file, const Options *options,
                    const TmkDomainDef *dom, TmkError **errp)
{
  unsigned flags = options->internal ? TMK_XML_INTERNAL : TMK_XML_PUBLIC;
  TmkCheckpointDef *def = NULL;
  if (!options->internal)
    def = tmk_checkpoint_def_parse (xml, len, file, TMK_CHECKPOINT_REDEFINE, NULL);
  if (def == NULL)
    def = tmk_checkpoint_def_parse (xml, len, file, flags, errp);
  char *text = NULL;
  if (def != NULL && (dom == NULL || tmk_checkpoint_def_align (def, dom, errp)))
    text = tmk_checkpoint_def_format (def, flags);
  tmk_checkpoint_def_free (def);
  return text;
}

static char *
rewrite (const char *file, const Options *options, const TmkDomainDef *dom, TmkError **errp)
{
  size_t len;
  TmkXmlKind kind;
  g_autofree char *xml = fsx_read_file (file, READ_MAX, &len, errp);
  if (xml == NULL || !tmk_xml_kind (xml, len, file, &kind, errp))
    return NULL;
  if (kind == TMK_XML_KIND_BACKUP)
    return rewrite_backup (xml, len, file, options, dom, errp);
  if (kind == TMK_XML_KIND_CHECKPOINT)
    return rewrite_checkpoint (xml, len, file, options, dom, errp);
  error_set (errp, "cli", TMK_ERR_INVALID, 0,
             "%s: the document is neither a <domainbackup> nor a <domaincheckpoint>", file);
  return NULL;
}

static TmkDomainDef *
read_domain (const char *file, TmkError **errp)
{
  size_t len;
  g_autofree char *xml = fsx_read_file (file, READ_MAX, &len, errp);
  return xml != NULL ? tmk_domain_def_parse (xml, len, file, errp) : NULL;
}

static int
format_or_align (gboolean align, int n, char **files, Options *options)
{
  const char *verb = align ? "xml align" : "xml format";
  if (n != 1)
    return usage ("%s: name one file", verb);
  if (align && options->domain_xml == NULL)
    return usage ("%s: --domain-xml is missing", verb);
  if (!align && (options->domain_xml != NULL || options->suffix != NULL))
    return usage ("%s: --domain-xml and --suffix are for xml align", verb);
  if (align && strcmp (files[0], "-") == 0 && strcmp (options->domain_xml, "-") == 0)
    return usage ("%s: standard input cannot be both documents", verb);
  if (options->suffix == NULL) /* as libvirt makes it up */
    options->suffix = g_strdup_printf ("%" G_GINT64_FORMAT, g_get_real_time () / G_USEC_PER_SEC);

  g_autoptr (TmkError) err = NULL;
  TmkDomainDef *dom = align ? read_domain (options->domain_xml, &err) : NULL;
  char *text = !align || dom != NULL ? rewrite (files[0], options, dom, &err) : NULL;
  tmk_domain_def_free (dom);
  if (text == NULL)
    return failed (err);
  fputs (text, stdout);
  tmk_free (text);
  return DONE;
}

int
cmd_xml (int argc, char **argv)
{
  g_autofree char *domain_xml = NULL, *suffix = NULL;
  gboolean internal = FALSE;
  const GOptionEntry entries[] = {
    { "domain-xml", 0, 0, G_OPTION_ARG_FILENAME, &domain_xml,
      "the <domain> whose disks are meant (align)", "FILE" },
    { "suffix", 0, 0, G_OPTION_ARG_STRING, &suffix,
      "ends the names of generated files (align; default: seconds since the epoch)", "S" },
    { "internal", 0, 0, G_OPTION_ARG_NONE, &internal,
      "read and write the form in which a running job is kept", NULL },
    { NULL },
  };
  g_autoptr (GOptionContext) context
      = g_option_context_new ("validate FILE... | format FILE | align FILE --domain-xml DOM.xml");
  g_option_context_set_summary (context, "Work on a <domainbackup> or <domaincheckpoint> document; "
                                         "'-' is standard input.");
  g_option_context_add_main_entries (context, entries, NULL);
  g_autoptr (GError) error = NULL;
  if (!g_option_context_parse (context, &argc, &argv, &error))
    return usage ("xml: %s", error->message);

  Options options = { internal, domain_xml, suffix };
  int rc;
  if (argc < 2)
    rc = usage ("%s: say validate, format or align", "xml");
  else if (strcmp (argv[1], "validate") == 0)
    rc = validate (argc - 2, argv + 2);
  else if (strcmp (argv[1], "format") == 0 || strcmp (argv[1], "align") == 0)
    rc = format_or_align (argv[1][0] == 'a', argc - 2, argv + 2, &options);
  else
    rc = usage ("xml: '%s' is neither validate, format nor align", argv[1]);
  suffix = options.suffix; /* may have been made up */
  return rc;
}
