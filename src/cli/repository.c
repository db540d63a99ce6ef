/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cli/repository.c: what the verbs on a repository share; see cli/cli.h. */
#include "cli/cli.h"
#include "util/jsonx.h"

#include <stdio.h>
#include <string.h>

bool
cli_has_repository (const CliArgs *args, int *rc)
{
  if (args->repository != NULL)
    return true;
  g_autoptr (TmkError) err = NULL;
  error_set (&err, "cli", TMK_ERR_USAGE, 0, "no repository is named");
  error_hint (&err, "name one with -r /path/of/repository or in $TIDEMARK_REPO");
  *rc = cli_fail (args, err);
  return false;
}

TmkRepository *
cli_open_repository (const CliArgs *args, int *rc)
{
  if (!cli_has_repository (args, rc))
    return NULL;
  g_autoptr (TmkError) err = NULL;
  TmkRepository *repository = tmk_repository_open (args->repository, &err);
  if (repository == NULL)
    *rc = cli_fail (args, err);
  return repository;
}

/* --- points ---------------------------------------------------------------------------------- */

static void
set_string (json_t *object, const char *key, const char *value)
{
  json_object_set_new (object, key, jsonx_string_or_null (value));
}

static void
set_size (json_t *object, const char *key, guint64 value)
{
  json_object_set_new (object, key, json_integer ((json_int_t) value));
}

static void
set_time (json_t *object, const char *key, gint64 us)
{
  g_autofree char *text = us != 0 ? cli_time (us) : NULL;
  set_string (object, key, text);
}

static json_t *
disk_json (const TmkPointDisk *disk)
{
  json_t *entry = json_object ();
  set_string (entry, "name", disk->name);
  set_string (entry, "mode", disk->mode);
  set_string (entry, "reason", disk->reason);
  set_string (entry, "base_point", disk->base_point);
  set_string (entry, "base_disk", disk->base_disk);
  set_string (entry, "base_checkpoint", disk->base_checkpoint);
  set_string (entry, "checkpoint", disk->checkpoint);
  set_string (entry, "source", disk->source);
  set_string (entry, "format", disk->format);
  set_size (entry, "size", disk->size);
  set_size (entry, "used", disk->used);
  set_size (entry, "read", disk->read);
  set_size (entry, "changed", disk->changed);
  set_size (entry, "new", disk->added);
  set_size (entry, "stored", disk->stored);
  set_size (entry, "chunk_size", disk->chunk_size);
  return entry;
}

static json_t *
file_json (const TmkPointFile *file)
{
  json_t *entry = json_object ();
  set_string (entry, "role", file->role);
  set_string (entry, "name", file->name);
  set_size (entry, "size", file->size);
  return entry;
}

json_t *
cli_point_json (const TmkPoint *point)
{
  json_t *disks = json_array (), *files = json_array (), *entry = json_object ();
  for (size_t i = 0; i < point->n_disks; i++)
    json_array_append_new (disks, disk_json (point->disks[i]));
  for (size_t i = 0; i < point->n_files; i++)
    json_array_append_new (files, file_json (point->files[i]));
  set_string (entry, "id", point->id);
  set_string (entry, "domain", point->domain);
  set_string (entry, "uuid", point->uuid);
  set_time (entry, "time", point->time_us);
  set_time (entry, "finished", point->finished_us);
  set_string (entry, "host", point->host);
  set_string (entry, "tool", point->tool);
  set_string (entry, "checkpoint", point->checkpoint);
  json_object_set_new (entry, "quiesced", json_boolean (point->quiesced));
  set_size (entry, "metadata", point->metadata);
  json_object_set_new (entry, "disks", disks);
  json_object_set_new (entry, "files", files);
  return entry;
}

bool
cli_warn_damaged (const TmkPointList *list)
{
  for (size_t i = 0; i < list->n_damaged; i++)
    fprintf (stderr, "tidemark: warning: point %s\n", list->damaged[i]);
  return list->n_damaged > 0;
}

/* --- sizes ----------------------------------------------------------------------------------- */

bool
cli_parse_size (const char *text, guint64 *bytes)
{
  static const char units[] = "KMGTPE";
  if (!g_ascii_isdigit (*text))
    return false;
  char *end;
  double value = g_ascii_strtod (text, &end);
  const char *unit = *end != '\0' ? strchr (units, g_ascii_toupper (*end)) : NULL;
  if (unit != NULL) {
    value *= (double) (UINT64_C (1) << 10 * (unit - units + 1));
    end++;
    if (g_ascii_strcasecmp (end, "iB") == 0)
      end += 2;
  }
  if (*end != '\0' || !(value < 0x1p63) || value != (double) (guint64) value)
    return false;
  *bytes = (guint64) value;
  return true;
}
