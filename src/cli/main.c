/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark: the command line: a table of verbs, one file each. See tidemark(1). */
#include "cli/cli.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const Command commands[] = {
  { "disks", "show a domain's disks and their checkpoints", cmd_disks },
  { "backup", "make a point of a domain in a repository", cmd_backup },
  { "begin", "start a backup job as a <domainbackup> document describes it", cmd_begin },
  { "status", "show the backup job", cmd_status },
  { "wait", "wait until the backup job ends", cmd_wait },
  { "dumpxml", "print the backup job's definition", cmd_dumpxml },
  { "end", "finish a pull job", cmd_end },
  { "abort", "cancel the backup job; everything is as before", cmd_abort },
  { "checkpoint", "create, list, show and delete checkpoints", cmd_checkpoint },
  { "init", "make a repository", cmd_init },
  { "list", "list the points of a repository", cmd_list },
  { "show", "show everything about a point", cmd_show },
  { "diff", "show what differs between two points", cmd_diff },
  { "restore", "restore disks of a point", cmd_restore },
  { "verify", "read points back, and tell what is damaged", cmd_verify },
  { "stats", "show what a repository holds and takes", cmd_stats },
  { "xml", "validate, align and format documents", cmd_xml },
};

static void
print_help (FILE *out)
{
  fputs ("Usage: tidemark VERB [OPTION…]\n\n"
         "Incremental backup for the disks of QEMU/KVM virtual machines.\n\nVerbs:\n",
         out);
  for (size_t i = 0; i < G_N_ELEMENTS (commands); i++)
    fprintf (out, "  %-12s %s\n", commands[i].name, commands[i].summary);
  fputs ("\n'tidemark VERB --help' shows a verb's options; 'man tidemark' has the rest.\n", out);
}

int
main (int argc, char **argv)
{
  setlocale (LC_CTYPE, "");
  signal (SIGPIPE, SIG_IGN);
  if (argc < 2) {
    print_help (stderr);
    return EXIT_USAGE;
  }
  const char *verb = argv[1];
  if (g_str_equal (verb, "--help") || g_str_equal (verb, "-h") || g_str_equal (verb, "help")) {
    print_help (stdout);
    return EXIT_DONE;
  }
  if (g_str_equal (verb, "--version")) {
    puts ("tidemark " TIDEMARK_VERSION);
    return EXIT_DONE;
  }
  if (cli_is_describe (argc, argv))
    return cli_describe_verbs ("", commands, G_N_ELEMENTS (commands));
  for (size_t i = 0; i < G_N_ELEMENTS (commands); i++) {
    if (!g_str_equal (verb, commands[i].name))
      continue;
    int rc = commands[i].run (argc - 1, argv + 1);
    /* A result that could not be written was not given. */
    if (fflush (stdout) != 0 && rc == EXIT_DONE) {
      fprintf (stderr, "tidemark: error: cannot write the result\n");
      return EXIT_FAILED;
    }
    return rc;
  }
  fprintf (stderr, "tidemark: error: no verb '%s'\nhint: see 'tidemark --help'\n", verb);
  return EXIT_USAGE;
}
