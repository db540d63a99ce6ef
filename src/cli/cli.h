/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cli/cli.h: what the verbs share: options, opening a domain or a repository, errors and output.
 *
 * Results go to stdout, everything else to stderr. Exit codes are a contract with scripts.
 */
#pragma once

#include "util/error.h"

#include <glib.h>
#include <jansson.h>
#include <tidemark/tidemark.h>

enum {
  EXIT_DONE = 0,
  EXIT_FAILED = 1, /* nothing was lost */
  EXIT_USAGE = 2,
  EXIT_WARNINGS = 3,
  EXIT_DAMAGE = 4,
  EXIT_INTERRUPTED = 130, /* cleaned up */
};

/* One verb. `run` gets argv[0] = the verb's name and returns an exit code. */
typedef struct {
  const char *name;
  const char *summary;
  int (*run) (int argc, char **argv);
} Command;

int cmd_abort (int argc, char **argv);
int cmd_backup (int argc, char **argv);
int cmd_begin (int argc, char **argv);
int cmd_check (int argc, char **argv);
int cmd_checkpoint (int argc, char **argv);
int cmd_diff (int argc, char **argv);
int cmd_disks (int argc, char **argv);
int cmd_dumpxml (int argc, char **argv);
int cmd_end (int argc, char **argv);
int cmd_init (int argc, char **argv);
int cmd_list (int argc, char **argv);
int cmd_restore (int argc, char **argv);
int cmd_show (int argc, char **argv);
int cmd_stats (int argc, char **argv);
int cmd_status (int argc, char **argv);
int cmd_verify (int argc, char **argv);
int cmd_wait (int argc, char **argv);
int cmd_xml (int argc, char **argv);

/* What a verb works on, and so which of the shared options it takes. */
typedef enum {
  CLI_DOMAIN = 1 << 0,     /* --qmp, --image, -c, -d, --domain-xml, --state-dir */
  CLI_REPOSITORY = 1 << 1, /* -r */
} CliTakes;

/* What every verb takes, and those on a domain or a repository. Strings are owned; clear with
 * cli_args_clear(). */
typedef struct {
  char *qmp;
  char *connect, *domain; /* libvirt's: -c, -d */
  char **images;          /* TARGET=FILE[,format=FORMAT] each, or NULL */
  char *domain_xml;
  char *state_dir;
  char *repository; /* -r, else $TIDEMARK_REPO, else NULL */
  bool by_env;      /* it is of $TIDEMARK_REPO */
  gboolean json, quiet;
  char **rest; /* what is left of the command line; NULL-terminated, never NULL after parsing */
} CliArgs;

void cli_args_clear (CliArgs *args);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (CliArgs, cli_args_clear)

/* Parses the options of a verb: the shared ones that it `takes` and `own` (may be NULL). Everything
 * that is no option ends in args->rest, which must have `min` to `max` elements. False where the
 * verb is to return `*rc` at once (help was shown, or the usage was wrong and has been said). */
bool cli_parse_for (CliTakes takes, int argc, char **argv, const char *verb, const char *parameters,
                    const char *summary, const GOptionEntry *own, CliArgs *args, guint min,
                    guint max, int *rc);
/* The same for a verb on a domain alone. */
bool cli_parse (int argc, char **argv, const char *verb, const char *parameters,
                const char *summary, const GOptionEntry *own, CliArgs *args, guint min, guint max,
                int *rc);

/* For shell completion. Asked by an option that no help shows, a verb describes itself instead of
 * doing something: a line of JSON with its options, and for a verb with verbs of its own the same
 * for each. scripts/gen-completions.py reads that. */
#define CLI_DESCRIBE "--describe"
bool cli_is_describe (int argc, char **argv);
void cli_describe_options (const char *verb, const char *parameters, const GOptionEntry *shared,
                           const GOptionEntry *own);
/* A line with each verb's summary, and what it says of itself. `prefix` is "" or "checkpoint ". */
int cli_describe_verbs (const char *prefix, const Command *verbs, size_t n);

/* "vda=/img/root.qcow2,format=qcow2,secret=/key", in `text`, which is cut into its parts. It has an
 * '='. */
TmkImage cli_split_image (char *text);

/* Opens the domain that `args` name; NULL after saying why, the exit code then being that of
 * cli_open_failed(). */
TmkDomain *cli_open (const CliArgs *args);
int cli_open_failed (const CliArgs *args);
/* The same without a word. */
TmkDomain *cli_try_open (const CliArgs *args, TmkError **errp);
/* False, with `*rc` set, after saying that none is named, or more than one. */
bool cli_names_domain (const CliArgs *args, int *rc);

/* Do --quiesce and --agent go together? A domain of libvirt's has its agent with libvirt: there
 * `*agent` becomes "". Else says so, with the exit code in `*rc`. */
bool cli_choose_agent (const CliArgs *args, const char *verb, bool quiesce, char **agent, int *rc);

/* Opens the repository that `args` name; NULL with an exit code in `*rc` after saying why. */
TmkRepository *cli_open_repository (const CliArgs *args, int *rc);
/* False, with `*rc` set, after saying that none is named. */
bool cli_has_repository (const CliArgs *args, int *rc);

/* A point as JSON: every field but the documents. */
json_t *cli_point_json (const TmkPoint *point);
/* Says on stderr which points cannot be read. True: there are any. */
bool cli_warn_damaged (const TmkPointList *list);

/* "64K", "1.5M", "2GiB", "4096": bytes. False where it is none of these. */
bool cli_parse_size (const char *text, guint64 *bytes);

/* Says what failed and gives the exit code for it. Frees nothing. */
int cli_fail (const CliArgs *args, const TmkError *err);

/* What is in the "error" of a JSON document. */
json_t *cli_error_json (const TmkError *err);

/* A usage error: "tidemark: error: …" and where to find help. Returns EXIT_USAGE. */
int cli_usage (const char *verb, const char *format, ...) G_GNUC_PRINTF (2, 3);

void cli_warn (const char *message, void *unused);

/* Reads a whole file or standard input ("-"); NULL after saying why. Free with g_free(). */
char *cli_read (const CliArgs *args, const char *file, size_t *len);
/* The same for a <domainbackup>. */
TmkBackupDef *cli_read_backup (const CliArgs *args, const char *file);

/* "12.0 MiB". Free with g_free(). */
char *cli_size (guint64 bytes);

/* "2026-11-22T17:08:00Z", from microseconds since the epoch. Free with g_free(). */
char *cli_time (gint64 us);

/* "2026-11-22T18:08:00+01:00": the same for people where they are, and good as the name of a point
 * behind its DOMAIN/. Free with g_free(). */
char *cli_local_time (gint64 us);

/* Prints `value` (stolen) on stdout with a newline. */
void cli_print_json (json_t *value);

/* From now on SIGINT and SIGTERM only set a flag, which cli_interrupted() reads. */
void cli_catch_signals (void);
bool cli_interrupted (void);

/* How a job ended, as text or JSON on stdout; gives the exit code. */
int cli_report_job (const CliArgs *args, const TmkJobStatus *status);
json_t *cli_job_json (const TmkJobStatus *status);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkDomain, tmk_domain_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkDomainDef, tmk_domain_def_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkBackupDef, tmk_backup_def_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkCheckpointDef, tmk_checkpoint_def_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkJobStatus, tmk_job_status_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkDiskList, tmk_disk_list_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkCheckpointList, tmk_checkpoint_list_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkRepository, tmk_repository_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkPointList, tmk_point_list_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkBackupResult, tmk_backup_result_free)
