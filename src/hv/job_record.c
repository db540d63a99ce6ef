/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/job_record.c: see hv/job_record.h. */
#include "hv/job_record.h"

#include "hv/hv.h"
#include "util/jsonx.h"

#include <string.h>

const char *
record_phase (const json_t *record)
{
  const char *phase = jsonx_string (record, "phase");
  return phase != NULL ? phase : "starting";
}

bool
record_in_phase (const json_t *record, const char *phase)
{
  return g_str_equal (record_phase (record), phase);
}

void
record_set_phase (json_t *record, const char *phase)
{
  json_object_set_new (record, "phase", json_string (phase));
}

static void
set_error (json_t *result, const TmkError *err)
{
  json_object_set_new (result, "code", json_string (tmk_error_code_name (tmk_error_code (err))));
  json_object_set_new (result, "message", jsonx_string_or_null (tmk_error_message (err)));
  json_object_set_new (result, "hint", jsonx_string_or_null (tmk_error_hint (err)));
}

void
record_set_result (json_t *record, const char *state, const TmkError *err)
{
  json_t *result = json_pack ("{s:s}", "state", state);
  if (err != NULL)
    set_error (result, err);
  json_object_set_new (record, "result", result);
  (void) json_object_del (record, "trouble"); /* there may be none */
}

void
record_set_trouble (json_t *record, const TmkError *err)
{
  json_t *trouble = json_object ();
  set_error (trouble, err);
  json_object_set_new (record, "trouble", trouble);
}

void
record_set_quiesced (json_t *record, Quiesce *quiesce, const TmkBeginOptions *options)
{
  guint64 frozen_us;
  bool quiesced = quiesce_end (quiesce, options, &frozen_us);
  if (options->agent == NULL)
    return;
  json_object_set_new (record, "quiesced", json_boolean (quiesced));
  json_object_set_new (record, "frozen_us", json_integer ((json_int_t) frozen_us));
}

static TmkError *
get_error (const json_t *result)
{
  const char *message = jsonx_string (result, "message");
  if (message == NULL)
    return NULL;
  TmkError *err = NULL;
  error_set (&err, "hv", error_code_from_name (jsonx_string (result, "code")), 0, "%s", message);
  const char *hint = jsonx_string (result, "hint");
  if (hint != NULL)
    error_hint (&err, "%s", hint);
  return err;
}

TmkError *
record_error (const json_t *record)
{
  return get_error (json_object_get (record, "result"));
}

TmkError *
record_trouble (const json_t *record)
{
  return get_error (json_object_get (record, "trouble"));
}

/* --- showing --------------------------------------------------------------------------------- */

static TmkJobState
job_state (const json_t *record)
{
  const char *result = jsonx_string (json_object_get (record, "result"), "state");
  if (record == NULL)
    return TMK_JOB_NONE;
  if (record_in_phase (record, "starting"))
    return TMK_JOB_INTERRUPTED;
  if (!record_in_phase (record, "ended"))
    return TMK_JOB_RUNNING;
  if (g_strcmp0 (result, "done") == 0)
    return TMK_JOB_DONE;
  return g_strcmp0 (result, "cancelled") == 0 ? TMK_JOB_CANCELLED : TMK_JOB_FAILED;
}

static const TmkJobDisk *
show_disk (HvArena *arena, const json_t *entry)
{
  TmkJobDisk *disk = hv_arena_alloc (arena, sizeof *disk);
  disk->name = hv_arena_string (arena, jsonx_string (entry, "name"));
  disk->mode = hv_arena_string (arena, jsonx_string (entry, "mode"));
  disk->incremental = hv_arena_string (arena, jsonx_string (entry, "incremental"));
  disk->target = hv_arena_string (arena, jsonx_string (entry, "target"));
  disk->format = hv_arena_string (arena, jsonx_string (entry, "format"));
  disk->backing = hv_arena_string (arena, jsonx_string (entry, "backing"));
  disk->state = hv_arena_string (arena, jsonx_string (entry, "state"));
  disk->done = jsonx_uint (entry, "done");
  disk->total = jsonx_uint (entry, "total");
  disk->error = hv_arena_string (arena, jsonx_string (entry, "error"));
  disk->dirty = jsonx_uint (entry, "dirty");
  disk->room = jsonx_uint (entry, "room");
  disk->export_name = hv_arena_string (arena, jsonx_string (entry, "export"));
  disk->export_bitmap = hv_arena_string (arena, jsonx_string (entry, "exportbitmap"));
  return disk;
}

TmkJobStatus *
record_to_status (const json_t *record)
{
  HvJobStatus *status = g_new0 (HvJobStatus, 1);
  HvArena *arena = hv_arena_new ();
  TmkJobStatus *shown = &status->public_part;
  status->arena = arena;
  shown->state = job_state (record);
  if (record == NULL)
    return shown;

  const json_t *result = json_object_get (record, "result");
  const json_t *entries = json_object_get (record, "disks");
  shown->id = hv_arena_string (arena, jsonx_string (record, "id"));
  shown->owner = hv_arena_string (arena, jsonx_string (record, "owner"));
  shown->pull = jsonx_bool (record, "pull");
  shown->checkpoint = hv_arena_string (arena, jsonx_string (record, "checkpoint_name"));
  shown->started_us = (int64_t) jsonx_uint (record, "started_us");
  shown->ended_us = (int64_t) jsonx_uint (record, "ended_us");
  shown->pause_us = jsonx_uint (record, "pause_us");
  shown->powered_off = jsonx_bool (record, "powered_off");
  shown->quiesced = jsonx_bool (record, "quiesced");
  shown->frozen_us = jsonx_uint (record, "frozen_us");
  shown->error = hv_arena_string (arena, jsonx_string (result, "message"));
  shown->hint = hv_arena_string (arena, jsonx_string (result, "hint"));
  if (result == NULL) {
    const json_t *trouble = json_object_get (record, "trouble");
    shown->error = hv_arena_string (arena, jsonx_string (trouble, "message"));
    shown->hint = hv_arena_string (arena, jsonx_string (trouble, "hint"));
  }
  const json_t *clients = json_object_get (record, "clients");
  shown->clients = json_is_integer (clients) ? (int) json_integer_value (clients) : -1;
  shown->n_disks = json_array_size (entries);
  const TmkJobDisk **disks = hv_arena_alloc (arena, shown->n_disks * sizeof *disks);
  for (size_t i = 0; i < shown->n_disks; i++) {
    disks[i] = show_disk (arena, json_array_get (entries, i));
    shown->done += disks[i]->done;
    shown->total += disks[i]->total;
  }
  shown->disks = disks;
  return shown;
}

void
job_seen_note (JobSeen *seen, TmkJobStatus *status)
{
  gint64 now = g_get_real_time ();
  if (status->state != TMK_JOB_RUNNING)
    return;
  gint64 since = seen->at_us != 0 ? seen->at_us : status->started_us;
  guint64 before = seen->at_us != 0 ? seen->done : 0;
  if (now > since && status->done >= before)
    status->speed = (guint64) ((double) (status->done - before) * 1e6 / (double) (now - since));
  seen->at_us = now;
  seen->done = status->done;
}
