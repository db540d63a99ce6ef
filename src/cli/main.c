/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark: the command line: a table of verbs, one file each. See tidemark(1). */
#include "cli/cli.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* In the order in which the help shows them; `headings` stand over the first of a group. */
static const Command commands[] = {
  { "backup", "make a point of a domain, or of every one of libvirt's", cmd_backup },
  { "restore", "bring back disks of a point", cmd_restore },
  { "check", "tell whether a backup would work, and what to do where not", cmd_check },
  { "list", "list points", cmd_list },
  { "show", "show everything about a point", cmd_show },
  { "diff", "show what differs between two points", cmd_diff },
  { "verify", "read points back, and tell what is damaged", cmd_verify },
  { "stats", "show what a repository holds and takes", cmd_stats },
  { "init", "make a repository", cmd_init },
  { "disks", "show its disks, and what the next backup would do with each", cmd_disks },
  { "checkpoint", "create, list, show and delete checkpoints", cmd_checkpoint },
  { "begin", "start a push or pull job as a <domainbackup> describes it", cmd_begin },
  { "status", "show the job", cmd_status },
  { "wait", "wait until a push job ends", cmd_wait },
  { "end", "finish a pull job, and tell whether what was read is good", cmd_end },
  { "abort", "cancel the job; everything is as before", cmd_abort },
  { "dumpxml", "print the job's definition", cmd_dumpxml },
  { "xml", "validate, align and format documents", cmd_xml },
};

static const struct {
  const char *first, *heading;
} headings[] = {
  { "backup", "Points in a repository (-r REPO, or $TIDEMARK_REPO)" },
  { "disks", "A domain (--qmp ADDR, --image TARGET=FILE, or libvirt's: -d NAME)" },
  { "begin", "Jobs without a repository, as documents describe them" },
};

static void
print_help (FILE *out)
{
  fputs ("Usage: tidemark VERB [OPTION…]\n"
         "Incremental backup for the disks of QEMU/KVM virtual machines.\n\n",
         out);
  for (size_t i = 0; i < G_N_ELEMENTS (commands); i++) {
    for (size_t j = 0; j < G_N_ELEMENTS (headings); j++)
      if (g_str_equal (headings[j].first, commands[i].name))
        fprintf (out, "%s:\n", headings[j].heading);
    fprintf (out, "  %-12s %s\n", commands[i].name, commands[i].summary);
  }
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
