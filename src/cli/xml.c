/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark xml: definitions without a VM: is a document valid, what does it look like, and what
 * does it mean for a domain's disks? See tidemark-xml(1).
 */
#include "cli/cli.h"
#include "util/fsx.h"
#include "util/jsonx.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <tidemark/backup_def.h>
#include <tidemark/checkpoint_def.h>
#include <tidemark/domain_def.h>
#include <tidemark/xml.h>

/* More than any reader below takes, so that they are the ones to say that it is too long. */
enum { READ_MAX = 64 << 20 };

typedef struct {
  gboolean internal;
  char *domain_xml;
  char *suffix;
} Options;

static const CliArgs no_args;

/* Adds the verdict on one file to `verdicts`. False where the file cannot be read. */
static bool
validate_one (const char *file, json_t *verdicts, bool *valid, TmkError **errp)
{
  size_t len;
  g_autofree char *xml = fsx_read_file (file, READ_MAX, &len, errp);
  if (xml == NULL)
    return false;
  int line = 0;
  g_autoptr (TmkError) fault = NULL;
  *valid = tmk_xml_validate (xml, len, &line, &fault);
  const char *reason = fault != NULL ? tmk_error_message (fault) : NULL;
  json_t *verdict = json_pack ("{s:b, s:i}", "valid", *valid, "line", line);
  json_object_set_new (verdict, "file", jsonx_string_or_null (file));
  json_object_set_new (verdict, "reason", jsonx_string_or_null (reason));
  json_array_append_new (verdicts, verdict);
  return true;
}

static void
print_verdicts (json_t *verdicts)
{
  size_t i;
  json_t *verdict;
  json_array_foreach (verdicts, i, verdict) {
    const char *file = jsonx_string (verdict, "file");
    if (jsonx_bool (verdict, "valid"))
      printf ("%s: valid\n", file);
    else
      printf ("%s: invalid: %d: %s\n", file, (int) jsonx_uint (verdict, "line"),
              jsonx_string (verdict, "reason"));
  }
}

static int
validate (int n, char **files, bool json)
{
  if (n == 0)
    return cli_usage ("xml", "xml validate: no file is named");
  int rc = EXIT_DONE;
  json_t *verdicts = json_array ();
  for (int i = 0; i < n; i++) {
    bool valid = false;
    g_autoptr (TmkError) err = NULL;
    if (!validate_one (files[i], verdicts, &valid, &err))
      rc = cli_fail (&no_args, err);
    else if (!valid)
      rc = EXIT_FAILED;
  }
  if (json) {
    cli_print_json (json_pack ("{s:o}", "files", verdicts));
  } else {
    print_verdicts (verdicts);
    json_decref (verdicts);
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
    return cli_usage ("xml", "%s: name one file", verb);
  if (align && options->domain_xml == NULL)
    return cli_usage ("xml", "%s: --domain-xml is missing", verb);
  if (!align && (options->domain_xml != NULL || options->suffix != NULL))
    return cli_usage ("xml", "%s: --domain-xml and --suffix are for xml align", verb);
  if (align && strcmp (files[0], "-") == 0 && strcmp (options->domain_xml, "-") == 0)
    return cli_usage ("xml", "%s: standard input cannot be both documents", verb);
  if (options->suffix == NULL) /* as libvirt makes it up */
    options->suffix = g_strdup_printf ("%" G_GINT64_FORMAT, g_get_real_time () / G_USEC_PER_SEC);

  g_autoptr (TmkError) err = NULL;
  TmkDomainDef *dom = align ? read_domain (options->domain_xml, &err) : NULL;
  char *text = !align || dom != NULL ? rewrite (files[0], options, dom, &err) : NULL;
  tmk_domain_def_free (dom);
  if (text == NULL)
    return cli_fail (&no_args, err);
  fputs (text, stdout);
  tmk_free (text);
  return EXIT_DONE;
}

int
cmd_xml (int argc, char **argv)
{
  g_autofree char *domain_xml = NULL, *suffix = NULL;
  gboolean internal = FALSE, json = FALSE;
  const GOptionEntry entries[] = {
    { "domain-xml", 0, 0, G_OPTION_ARG_FILENAME, &domain_xml,
      "the <domain> whose disks are meant (align)", "FILE" },
    { "suffix", 0, 0, G_OPTION_ARG_STRING, &suffix,
      "ends the names of generated files (align; default: seconds since the epoch)", "S" },
    { "internal", 0, 0, G_OPTION_ARG_NONE, &internal,
      "read and write the form in which a running job is kept", NULL },
    { "json", 0, 0, G_OPTION_ARG_NONE, &json, "print the verdicts as JSON (validate)", NULL },
    { NULL },
  };
  if (cli_is_describe (argc, argv)) {
    cli_describe_options ("xml validate", "FILE…", entries, NULL);
    cli_describe_options ("xml format", "FILE", entries, NULL);
    cli_describe_options ("xml align", "FILE", entries, NULL);
    return EXIT_DONE;
  }
  g_autoptr (GOptionContext) context
      = g_option_context_new ("validate FILE... | format FILE | align FILE --domain-xml DOM.xml");
  g_option_context_set_summary (context, "Work on a <domainbackup> or <domaincheckpoint> document; "
                                         "'-' is standard input.");
  g_option_context_set_description (context, "'man tidemark-xml' has the rest, with examples.");
  g_option_context_add_main_entries (context, entries, NULL);
  g_set_prgname ("tidemark xml");
  g_autoptr (GError) error = NULL;
  if (!g_option_context_parse (context, &argc, &argv, &error))
    return cli_usage ("xml", "%s", error->message);

  Options options = { internal, domain_xml, suffix };
  int rc;
  if (argc < 2)
    rc = cli_usage ("xml", "xml: say validate, format or align");
  else if (strcmp (argv[1], "validate") == 0)
    rc = validate (argc - 2, argv + 2, json);
  else if (strcmp (argv[1], "format") == 0 || strcmp (argv[1], "align") == 0)
    rc = format_or_align (argv[1][0] == 'a', argc - 2, argv + 2, &options);
  else
    rc = cli_usage ("xml", "xml: '%s' is neither validate, format nor align", argv[1]);
  suffix = options.suffix; /* may have been made up */
  return rc;
}
