/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark checkpoint: create, list, dumpxml, delete. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>
#include <string.h>

/* --- create ---------------------------------------------------------------------------------- */

/* A name, or a file with a document. */
static TmkCheckpointDef *
definition (const CliArgs *args, const char *what, unsigned flags)
{
  g_autoptr (TmkError) err = NULL;
  TmkCheckpointDef *def = NULL;
  bool is_file = what != NULL
                 && (g_str_equal (what, "-") || strchr (what, '/') != NULL
                     || g_str_has_suffix (what, ".xml"));
  if (is_file) {
    size_t len;
    g_autofree char *xml = cli_read (args, what, &len);
    if (xml == NULL)
      return NULL;
    def = tmk_checkpoint_def_parse (xml, len, what, flags, &err);
  } else {
    def = tmk_checkpoint_def_new (what, &err);
  }
  if (def == NULL)
    cli_fail (args, err);
  return def;
}

/* A checkpoint that its disk's format cannot store does not outlive QEMU. */
static void
warn_if_volatile (TmkDomain *domain, const char *name)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkDiskList) list = tmk_domain_disks (domain, &err);
  for (size_t i = 0; list != NULL && i < list->n_disks; i++) {
    const TmkDiskInfo *disk = list->disks[i];
    for (size_t j = 0; j < disk->n_bitmaps; j++) {
      if (!g_str_equal (disk->bitmaps[j]->name, name) || disk->bitmaps[j]->persistent)
        continue;
      g_autofree char *message = g_strdup_printf (
          "disk '%s': its format cannot store bitmaps, so checkpoint '%s' lasts only until this"
          " QEMU ends",
          disk->name, name);
      cli_warn (message, NULL);
    }
  }
}

static int
create (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  gboolean redefine = FALSE;
  const GOptionEntry own[] = {
    { "redefine", 0, 0, G_OPTION_ARG_NONE, &redefine,
      "take over the description of a checkpoint whose bitmaps exist", NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse (argc, argv, "checkpoint create", "[CHECKPOINT.xml | NAME]",
                  "Creates a checkpoint on all disks (or those that the document names) at one"
                  " instant.\nPrints its name.",
                  own, &args, 0, 1, &rc))
    return rc;
  if (redefine && args.rest[0] == NULL)
    return cli_usage ("checkpoint create", "--redefine needs a document");
  unsigned flags = redefine ? TMK_CHECKPOINT_REDEFINE : 0;
  g_autoptr (TmkCheckpointDef) def = definition (&args, args.rest[0], flags);
  if (def == NULL)
    return EXIT_FAILED;
  g_autoptr (TmkDomain) domain = cli_open (&args);
  if (domain == NULL)
    return cli_open_failed (&args);
  g_autoptr (TmkError) err = NULL;
  char *name = NULL;
  if (!tmk_domain_checkpoint_create (domain, def, flags, &name, &err))
    return cli_fail (&args, err);
  warn_if_volatile (domain, name);
  if (args.json)
    cli_print_json (json_pack ("{s:s}", "checkpoint", name));
  else
    puts (name);
  tmk_free (name);
  return EXIT_DONE;
}

/* --- list ------------------------------------------------------------------------------------ */

static json_t *
checkpoint_json (const TmkCheckpointInfo *info)
{
  json_t *disks = json_array ();
  for (size_t i = 0; i < info->n_disks; i++) {
    json_t *disk = json_object ();
    json_object_set_new (disk, "name", jsonx_string_or_null (info->disks[i]));
    json_object_set_new (disk, "usable", json_boolean (info->problems[i] == NULL));
    json_object_set_new (disk, "why_not", jsonx_string_or_null (info->problems[i]));
    json_array_append_new (disks, disk);
  }
  g_autofree char *time = info->created > 0 ? cli_time (info->created * G_USEC_PER_SEC) : NULL;
  json_t *entry = json_object ();
  json_object_set_new (entry, "name", jsonx_string_or_null (info->name));
  json_object_set_new (entry, "parent", jsonx_string_or_null (info->parent));
  json_object_set_new (entry, "created", jsonx_string_or_null (time));
  json_object_set_new (entry, "description", jsonx_string_or_null (info->description));
  json_object_set_new (entry, "known", json_boolean (info->known));
  json_object_set_new (entry, "current", json_boolean (info->current));
  json_object_set_new (entry, "size", json_integer ((json_int_t) info->size));
  json_object_set_new (entry, "disks", disks);
  return entry;
}

/* How deep `info` is below its root. */
static int
depth_of (const TmkCheckpointList *list, const TmkCheckpointInfo *info)
{
  int depth = 0;
  while (info->parent != NULL && depth < (int) list->n_checkpoints) {
    const TmkCheckpointInfo *parent = NULL;
    for (size_t i = 0; i < list->n_checkpoints; i++)
      if (g_str_equal (list->checkpoints[i]->name, info->parent))
        parent = list->checkpoints[i];
    if (parent == NULL)
      break;
    info = parent;
    depth++;
  }
  return depth;
}

static int
indent_of (const TmkCheckpointList *list, const TmkCheckpointInfo *info, bool tree)
{
  return tree ? 2 * depth_of (list, info) : 0;
}

static void
print_one (const TmkCheckpointList *list, const TmkCheckpointInfo *info, bool tree, bool size)
{
  int indent = indent_of (list, info, tree), width = 16;
  for (size_t i = 0; i < list->n_checkpoints; i++)
    width = MAX (width, indent_of (list, list->checkpoints[i], tree)
                            + (int) g_utf8_strlen (list->checkpoints[i]->name, -1));
  int padding = width - indent - (int) g_utf8_strlen (info->name, -1);
  g_autofree char *time
      = info->created > 0 ? cli_time (info->created * G_USEC_PER_SEC) : g_strdup ("-");
  g_autofree char *changed = cli_size (info->size);
  printf ("%*s%s%*s %-20s", indent, "", info->name, padding, "", time);
  if (size)
    printf (" %12s", changed);
  for (size_t i = 0; i < info->n_disks; i++)
    printf ("%s%s%s", i == 0 ? "  " : " ", info->disks[i], info->problems[i] != NULL ? "!" : "");
  printf ("%s%s\n", info->known ? "" : "  (rebuilt from the disks)",
          info->current ? "  (current)" : "");
  for (size_t i = 0; i < info->n_disks; i++)
    if (info->problems[i] != NULL)
      printf ("  ! disk '%s': %s\n", info->disks[i], info->problems[i]);
}

/* Depth first, so that a child stands right below its parent. */
static void
print_tree (const TmkCheckpointList *list, const char *parent, bool size)
{
  for (size_t i = 0; i < list->n_checkpoints; i++) {
    const TmkCheckpointInfo *info = list->checkpoints[i];
    bool is_root = depth_of (list, info) == 0;
    if (parent == NULL ? !is_root : is_root || g_strcmp0 (info->parent, parent) != 0)
      continue;
    print_one (list, info, true, size);
    print_tree (list, info->name, size);
  }
}

static int
list_all (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  gboolean tree = FALSE, size = FALSE;
  const GOptionEntry own[] = {
    { "tree", 0, 0, G_OPTION_ARG_NONE, &tree, "children below their parents", NULL },
    { "size", 0, 0, G_OPTION_ARG_NONE, &size, "show the bytes changed since", NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse (argc, argv, "checkpoint list", NULL,
                  "Lists the checkpoints: name, time, the disks covered, and what is wrong with"
                  " them.",
                  own, &args, 0, 0, &rc))
    return rc;
  g_autoptr (TmkDomain) domain = cli_open (&args);
  if (domain == NULL)
    return cli_open_failed (&args);
  g_autoptr (TmkError) err = NULL;
  g_autoptr (TmkCheckpointList) list = tmk_domain_checkpoints (domain, &err);
  if (list == NULL)
    return cli_fail (&args, err);
  if (args.json) {
    json_t *all = json_array ();
    for (size_t i = 0; i < list->n_checkpoints; i++)
      json_array_append_new (all, checkpoint_json (list->checkpoints[i]));
    cli_print_json (json_pack ("{s:o}", "checkpoints", all));
  } else if (tree) {
    print_tree (list, NULL, size);
  } else {
    for (size_t i = 0; i < list->n_checkpoints; i++)
      print_one (list, list->checkpoints[i], false, size);
  }
  return EXIT_DONE;
}

/* --- dumpxml, delete ------------------------------------------------------------------------- */

static int
dumpxml (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  gboolean size = FALSE, no_domain = FALSE;
  const GOptionEntry own[] = {
    { "size", 0, 0, G_OPTION_ARG_NONE, &size, "with the bytes changed since", NULL },
    { "no-domain", 0, 0, G_OPTION_ARG_NONE, &no_domain, "without <domain>", NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse (argc, argv, "checkpoint dumpxml", "NAME",
                  "Prints a checkpoint's description (<domaincheckpoint>).", own, &args, 1, 1, &rc))
    return rc;
  g_autoptr (TmkDomain) domain = cli_open (&args);
  if (domain == NULL)
    return cli_open_failed (&args);
  unsigned flags = (size ? TMK_CHECKPOINT_SIZE : 0) | (no_domain ? TMK_CHECKPOINT_NO_DOMAIN : 0);
  g_autoptr (TmkError) err = NULL;
  char *xml = tmk_domain_checkpoint_xml (domain, args.rest[0], flags, &err);
  if (xml == NULL)
    return cli_fail (&args, err);
  fputs (xml, stdout);
  tmk_free (xml);
  return EXIT_DONE;
}

static int
delete_one (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  gboolean children = FALSE;
  const GOptionEntry own[] = {
    { "children", 0, 0, G_OPTION_ARG_NONE, &children, "and all that came after it", NULL },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse (argc, argv, "checkpoint delete", "NAME",
                  "Deletes a checkpoint: its bitmaps on all disks and its description.", own, &args,
                  1, 1, &rc))
    return rc;
  g_autoptr (TmkDomain) domain = cli_open (&args);
  if (domain == NULL)
    return cli_open_failed (&args);
  g_autoptr (TmkError) err = NULL;
  if (!tmk_domain_checkpoint_delete (domain, args.rest[0], children, &err))
    return cli_fail (&args, err);
  if (args.json)
    cli_print_json (json_pack ("{s:s}", "deleted", args.rest[0]));
  return EXIT_DONE;
}

/* --- the verb -------------------------------------------------------------------------------- */

static const Command verbs[] = {
  { "create", "create a checkpoint", create },
  { "list", "list checkpoints", list_all },
  { "dumpxml", "print a checkpoint's description", dumpxml },
  { "delete", "delete a checkpoint", delete_one },
};

int
cmd_checkpoint (int argc, char **argv)
{
  if (cli_is_describe (argc, argv))
    return cli_describe_verbs ("checkpoint ", verbs, G_N_ELEMENTS (verbs));
  for (size_t i = 0; argc >= 2 && i < G_N_ELEMENTS (verbs); i++)
    if (g_str_equal (argv[1], verbs[i].name))
      return verbs[i].run (argc - 1, argv + 1);
  bool help = argc >= 2 && (g_str_equal (argv[1], "--help") || g_str_equal (argv[1], "-h"));
  if (argc >= 2 && !help)
    return cli_usage ("checkpoint", "checkpoint: '%s' is neither create, list, dumpxml nor delete",
                      argv[1]);
  FILE *out = help ? stdout : stderr;
  fputs ("Usage: tidemark checkpoint create|list|dumpxml|delete [OPTION…]\n\n", out);
  for (size_t i = 0; i < G_N_ELEMENTS (verbs); i++)
    fprintf (out, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
  fputs ("\n'tidemark checkpoint create --help' shows its options, and so on.\n"
         "'man tidemark-checkpoint' has the rest, with examples.\n",
         out);
  return help ? EXIT_DONE : EXIT_USAGE;
}
