/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark restore: disks of a recovery point, back as images, on a device or to an NBD server. */
#include "cli/cli.h"
#include "cli/progress.h"
#include "util/jsonx.h"

#include <stdio.h>

#define MAX_THREADS 256

typedef struct {
  const CliArgs *args;
  Progress *progress;
  json_t *damage; /* what was told of it */
  bool warned;
} Restore;

static void
on_progress (const TmkRestoreProgress *now, void *data)
{
  ProgressPart part
      = { .name = now->disk, .done = now->done, .total = now->total, .finished = now->finished };
  progress_update (((Restore *) data)->progress, &part);
}

static void
on_damage (const TmkDamage *damage, void *data)
{
  Restore *restore = data;
  progress_say (
      restore->progress,
      "tidemark: damaged: %s '%s', %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT ": %s",
      damage->file != NULL ? "file" : "disk", damage->file != NULL ? damage->file : damage->disk,
      damage->length, damage->offset, damage->message);
  json_t *entry = json_object ();
  json_object_set_new (entry, "point", jsonx_string_or_null (damage->point));
  json_object_set_new (entry, "disk", jsonx_string_or_null (damage->disk));
  json_object_set_new (entry, "file", jsonx_string_or_null (damage->file));
  json_object_set_new (entry, "offset", json_integer ((json_int_t) damage->offset));
  json_object_set_new (entry, "length", json_integer ((json_int_t) damage->length));
  json_object_set_new (entry, "message", jsonx_string_or_null (damage->message));
  json_array_append_new (restore->damage, entry);
}

static void
on_warning (const char *message, void *data)
{
  Restore *restore = data;
  restore->warned = true;
  progress_say (restore->progress, "tidemark: warning: %s", message);
}

static bool
on_cancelled (void *data)
{
  (void) data;
  return cli_interrupted ();
}

static int
fail (Restore *restore, const TmkError *err)
{
  CliArgs text = { .json = FALSE };
  int rc = cli_fail (&text, err);
  if (restore->args->json) {
    json_t *document = json_pack ("{s:o}", "error", cli_error_json (err));
    if (json_array_size (restore->damage) > 0)
      json_object_set (document, "damage", restore->damage);
    cli_print_json (document);
  }
  return tmk_error_code (err) == TMK_ERR_CANCELLED ? EXIT_INTERRUPTED : rc;
}

static void
print_result (const CliArgs *args, const char *point, const TmkRestoreResult *result)
{
  if (args->json) {
    json_t *disks = json_array (), *files = json_array ();
    for (size_t i = 0; i < result->n_targets; i++) {
      json_t *entry = json_object ();
      json_object_set_new (entry, "name", jsonx_string_or_null (result->disks[i]));
      json_object_set_new (entry, "target", jsonx_string_or_null (result->targets[i]));
      json_array_append_new (disks, entry);
    }
    json_t *document = json_object ();
    json_object_set_new (document, "point", jsonx_string_or_null (point));
    json_object_set_new (document, "disks", disks);
    for (size_t i = 0; i < result->n_files; i++)
      json_array_append_new (files, jsonx_string_or_null (result->files[i]));
    json_object_set_new (document, "files", files);
    json_object_set_new (document, "domain", jsonx_string_or_null (result->domain));
    json_object_set_new (document, "size", json_integer ((json_int_t) result->size));
    json_object_set_new (document, "written", json_integer ((json_int_t) result->written));
    json_object_set_new (document, "elapsed_us", json_integer ((json_int_t) result->elapsed_us));
    cli_print_json (document);
    return;
  }
  for (size_t i = 0; i < result->n_targets; i++)
    printf ("%s\t%s\n", result->disks[i], result->targets[i]);
  for (size_t i = 0; i < result->n_files; i++)
    printf ("file\t%s\n", result->files[i]);
  if (result->domain != NULL)
    printf ("domain\t%s\n", result->domain);
  if (args->quiet)
    return;
  g_autofree char *written = cli_size (result->written);
  fprintf (stderr, "tidemark: restored %zu disk%s, %s written in %.1f s\n", result->n_targets,
           result->n_targets == 1 ? "" : "s", written, (double) result->elapsed_us / 1e6);
}

static int
run (const CliArgs *args, TmkRestoreOptions *options)
{
  int rc;
  g_autoptr (TmkRepository) repository = cli_open_repository (args, &rc);
  if (repository == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) damage = json_array ();
  Restore restore = { .args = args, .damage = damage };
  g_autoptr (TmkPointList) found = tmk_repository_find (repository, args->rest[0], &err);
  if (found == NULL)
    return fail (&restore, err);
  const char *point = found->points[0]->id;
  options->progress = on_progress;
  options->damage = on_damage;
  options->warn = on_warning;
  options->cancelled = on_cancelled;
  options->data = &restore;
  cli_catch_signals ();
  restore.progress = progress_new (args->quiet);
  TmkRestoreResult *result = tmk_restore (repository, point, options, &err);
  progress_free (restore.progress);
  if (result == NULL)
    return fail (&restore, err);
  print_result (args, point, result);
  tmk_restore_result_free (result);
  return restore.warned ? EXIT_WARNINGS : EXIT_DONE;
}

int
cmd_restore (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_autofree char *disk = NULL, *to = NULL, *format = NULL, *connect = NULL, *name = NULL;
  gboolean verify = FALSE, define = FALSE;
  int threads = 0;
  const GOptionEntry own[] = {
    { "to", 0, 0, G_OPTION_ARG_FILENAME, &to,
      "where to: a folder; with --disk a new file, block device or nbd:// URI", "TO" },
    { "disk", 0, 0, G_OPTION_ARG_STRING, &disk, "restore this disk alone", "DISK" },
    { "format", 0, 0, G_OPTION_ARG_STRING, &format, "of images", "qcow2|raw" },
    { "verify", 0, 0, G_OPTION_ARG_NONE, &verify, "compute the id of every chunk anew", NULL },
    { "define", 0, 0, G_OPTION_ARG_NONE, &define,
      "of all disks: define the domain in libvirt, with what was restored", NULL },
    { "connect", 'c', 0, G_OPTION_ARG_STRING, &connect,
      "libvirt's hypervisor; else as virsh picks it", "URI" },
    { "name", 0, 0, G_OPTION_ARG_STRING, &name,
      "define it by this name, beside the one that was backed up", "NAME" },
    { "threads", 0, 0, G_OPTION_ARG_INT, &threads, "workers (one a core)", "N" },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  if (!cli_parse_for (CLI_REPOSITORY, argc, argv, "restore", "POINT --to TO",
                      "Writes the disks of a recovery point to images of their own in a folder, or"
                      " one of them to a\nfile, a block device or an NBD server. Files are never"
                      " overwritten; what is on a device is lost.",
                      own, &args, 1, 1, &rc))
    return rc;
  if (to == NULL || *to == '\0')
    return cli_usage ("restore", "say where to: --to FOLDER, or --disk DISK --to FILE");
  if (threads < 0 || threads > MAX_THREADS)
    return cli_usage ("restore", "'%d' is no number of threads: 1 to %d", threads, MAX_THREADS);
  if (!define && (connect != NULL || name != NULL))
    return cli_usage ("restore", "%s is for --define", connect != NULL ? "-c" : "--name");
  if (define && disk != NULL)
    return cli_usage ("restore", "--define is for all disks: leave --disk out");
  if (name != NULL && *name == '\0')
    return cli_usage ("restore", "the name for the domain is empty");
  TmkRestoreOptions options = { .disk = disk,
                                .to = to,
                                .format = format,
                                .verify = verify,
                                .threads = (unsigned) threads,
                                .define = define,
                                .connect = connect,
                                .define_name = name };
  return run (&args, &options);
}
