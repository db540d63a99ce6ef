/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark verify: is everything there, and is it what it was? */
#include "cli/cli.h"
#include "cli/progress.h"
#include "util/jsonx.h"

#include <stdio.h>
#include <string.h>

typedef struct {
  const CliArgs *args;
  Progress *progress;
  json_t *findings; /* with --json; else they are printed as they come */
} Verify;

/* "point 3f09… disk 'vda': 131072 bytes at 65536: …" */
static void
print_finding (const TmkDamage *damage)
{
  fputs ("damaged: ", stdout);
  if (damage->point != NULL)
    printf ("point %s", damage->point);
  if (damage->disk != NULL)
    printf (", disk '%s'", damage->disk);
  if (damage->file != NULL)
    printf (", file '%s'", damage->file);
  if (damage->length > 0)
    printf (", %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT, damage->length, damage->offset);
  printf ("%s%s\n", damage->point != NULL ? ": " : "", damage->message);
}

static json_t *
finding_json (const TmkDamage *damage)
{
  bool ranged = damage->length > 0;
  json_t *entry = json_object ();
  json_object_set_new (entry, "point", jsonx_string_or_null (damage->point));
  json_object_set_new (entry, "disk", jsonx_string_or_null (damage->disk));
  json_object_set_new (entry, "file", jsonx_string_or_null (damage->file));
  json_object_set_new (entry, "offset",
                       ranged ? json_integer ((json_int_t) damage->offset) : json_null ());
  json_object_set_new (entry, "length",
                       ranged ? json_integer ((json_int_t) damage->length) : json_null ());
  json_object_set_new (entry, "message", jsonx_string_or_null (damage->message));
  return entry;
}

static void
on_damage (const TmkDamage *damage, void *data)
{
  Verify *verify = data;
  json_array_append_new (verify->findings, finding_json (damage));
  if (!verify->args->json)
    print_finding (damage);
}

static void
on_progress (uint64_t done, uint64_t total, void *data)
{
  Verify *verify = data;
  ProgressPart part
      = { .name = "verify", .done = done, .total = total, .finished = total > 0 && done >= total };
  progress_update (verify->progress, &part);
}

static bool
on_cancelled (void *data)
{
  return cli_interrupted ();
}

static void
print_result (const Verify *verify, const TmkVerifyResult *result)
{
  if (verify->args->json) {
    cli_print_json (json_pack ("{s:I, s:I, s:I, s:I, s:I, s:O}", "points",
                               (json_int_t) result->points, "disks", (json_int_t) result->disks,
                               "objects", (json_int_t) result->objects, "bytes",
                               (json_int_t) result->bytes, "damaged", (json_int_t) result->damaged,
                               "damage", verify->findings));
    return;
  }
  if (verify->args->quiet)
    return;
  g_autofree char *bytes = cli_size (result->bytes);
  printf ("%s: %" G_GUINT64_FORMAT " point%s, %" G_GUINT64_FORMAT " disk%s, %" G_GUINT64_FORMAT
          " objects of %s read",
          result->damaged == 0 ? "sound" : "damaged", result->points,
          result->points == 1 ? "" : "s", result->disks, result->disks == 1 ? "" : "s",
          result->objects, bytes);
  if (result->damaged > 0)
    printf (", %" G_GUINT64_FORMAT " damaged", result->damaged);
  putchar ('\n');
}

static int
run (const CliArgs *args, unsigned sample)
{
  int rc;
  g_autoptr (TmkRepository) repository = cli_open_repository (args, &rc);
  if (repository == NULL)
    return rc;
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) findings = json_array ();
  g_autoptr (Progress) progress = progress_new (args->quiet);
  Verify verify = { .args = args, .progress = progress, .findings = findings };
  TmkVerifyOptions options = { .points = (const char *const *) args->rest,
                               .n_points = g_strv_length (args->rest),
                               .sample = sample,
                               .damage = on_damage,
                               .progress = on_progress,
                               .cancelled = on_cancelled,
                               .data = &verify };
  TmkVerifyResult result;
  cli_catch_signals ();
  bool ok = tmk_repository_verify (repository, &options, &result, &err);
  g_clear_pointer (&progress, progress_free); /* before what is said next */
  if (!ok) {
    rc = cli_fail (args, err);
    return tmk_error_code (err) == TMK_ERR_CANCELLED ? EXIT_INTERRUPTED : rc;
  }
  print_result (&verify, &result);
  return result.damaged > 0 ? EXIT_DAMAGE : EXIT_DONE;
}

/* "10" or "10%": 1 to 100. */
static bool
parse_percent (const char *text, unsigned *percent)
{
  g_autofree char *number = g_strdup (text);
  guint64 value;
  if (g_str_has_suffix (number, "%"))
    number[strlen (number) - 1] = '\0';
  if (!g_ascii_string_to_unsigned (number, 10, 1, 100, &value, NULL))
    return false;
  *percent = (unsigned) value;
  return true;
}

int
cmd_verify (int argc, char **argv)
{
  g_auto (CliArgs) args = { 0 };
  g_autofree char *sample = NULL;
  const GOptionEntry own[] = {
    { "sample", 0, 0, G_OPTION_ARG_STRING, &sample,
      "read this part of the data only, chosen by chance", "PERCENT" },
    G_OPTION_ENTRY_NULL,
  };
  int rc;
  unsigned percent = 0;
  if (!cli_parse_for (CLI_REPOSITORY, argc, argv, "verify", "[POINT…]",
                      "Reads points back, or all there is, and tells what is damaged.", own, &args,
                      0, G_MAXINT, &rc))
    return rc;
  if (sample != NULL && !parse_percent (sample, &percent))
    return cli_usage ("verify", "'%s' is no percentage from 1 to 100", sample);
  return run (&args, percent);
}
