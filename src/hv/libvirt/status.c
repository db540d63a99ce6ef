/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/status.c: what is told of a job, and how its disks are read, and how it is ended. */
#include "hv/libvirt/job.h"

#include "hv/export_uri.h"

#include <string.h>

#define DOMAIN "libvirt"

/* --- telling --------------------------------------------------------------------------------- */

/* A job that has ended by itself has a result before it is put away. */
static TmkJobState
state_of (const json_t *record)
{
  const char *state = jsonx_string (json_object_get (record, "result"), "state");
  if (record_in_phase (record, "starting")
      || (record_in_phase (record, "copying") && !lv_job_is_copying (record)))
    return TMK_JOB_INTERRUPTED;
  if (state == NULL)
    return TMK_JOB_RUNNING;
  if (g_str_equal (state, "done"))
    return TMK_JOB_DONE;
  return g_str_equal (state, "failed") ? TMK_JOB_FAILED : TMK_JOB_CANCELLED;
}

static TmkJobStatus *
show (const json_t *record)
{
  TmkJobStatus *status = record_to_status (record);
  status->clients = -1; /* libvirt does not tell */
  if (record != NULL)
    status->state = state_of (record);
  return status;
}

/* The job that is there, or the last one; NULL without an error where there was none. */
static json_t *
read_any (LvDomain *lv, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  json_t *record = lv_job_read (lv, &err);
  if (record == NULL && err == NULL)
    record = state_read (lv->state, "libvirt-last", &err);
  error_propagate (errp, g_steal_pointer (&err));
  return record;
}

TmkJobStatus *
live_job_status (LvDomain *lv, bool act, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (json_t) record = read_any (lv, &err);
  if (err != NULL) {
    error_propagate (errp, err);
    return NULL;
  }
  if (record != NULL && record_in_phase (record, "running")) {
    if (!lv_job_look (lv, record, errp))
      return NULL;
    if (act)
      lv_job_watch (lv, record);
    if (act && lv_job_has_result (record) && !lv_job_settle (lv, record, errp))
      return NULL;
  } else if (record != NULL && lv_job_is_copying (record)) {
    if (!lv_job_look (lv, record, errp))
      return NULL;
    lv_job_clear_result (record); /* that is for who copies to find out */
  }
  TmkJobStatus *status = show (record);
  job_seen_note (&lv->seen, status);
  return status;
}

char *
live_job_xml (LvDomain *lv, unsigned flags, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (json_t) record = read_any (lv, &err);
  const char *xml = record != NULL ? jsonx_string (record, "definition") : NULL;
  if (xml == NULL) {
    if (err == NULL) {
      error_set (&err, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no job");
      error_hint (&err, "start one with 'tidemark begin'");
    }
    error_propagate (errp, err);
    return NULL;
  }
  g_autoptr (TmkBackupDef) def
      = tmk_backup_def_parse (xml, strlen (xml), "the job's record", TMK_XML_INTERNAL, errp);
  return def != NULL ? tmk_backup_def_format (def, flags) : NULL;
}

/* --- reading --------------------------------------------------------------------------------- */

static void
set_copying_error (TmkError **errp)
{
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "the disks are still being copied");
  error_hint (errp,
              "wait until 'tidemark begin' returns; 'tidemark status' shows how far it is, and"
              " 'tidemark abort' ends it");
}

TmkBlockSource *
live_open_disk (LvDomain *lv, const char *name, const TmkNbdOptions *options, TmkError **errp)
{
  g_autoptr (json_t) record = lv_job_read (lv, NULL);
  const json_t *disk = jsonx_find (json_object_get (record, "disks"), "name", name);
  const char *xml = jsonx_string (record, "definition"),
             *export_name = jsonx_string (disk, "export");
  bool runs = record != NULL && export_name != NULL && xml != NULL;
  if (record != NULL && lv_job_is_copying (record)) {
    set_copying_error (errp);
    return NULL;
  }
  if (runs && !lv_job_is_there (lv, record, &runs, errp))
    return NULL;
  if (!runs) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0,
               "no pull job runs in which disk '%s' could be read", name);
    error_hint (errp, "start one with 'tidemark begin'");
    return NULL;
  }
  g_autoptr (TmkBackupDef) def
      = tmk_backup_def_parse (xml, strlen (xml), "the job's record", TMK_XML_INTERNAL, errp);
  if (def == NULL)
    return NULL;
  const char *bitmap = jsonx_string (disk, "exportbitmap");
  g_autofree char *context = NULL;
  if (jsonx_bool (disk, "depth"))
    context = g_strdup ("qemu:allocation-depth");
  else if (bitmap != NULL)
    context = g_strconcat ("qemu:dirty-bitmap:", bitmap, NULL);
  g_autofree char *uri = hv_export_uri (def->server, export_name);
  TmkNbdOptions own = *options;
  own.dirty_context = context;
  TmkBlockSource *source = tmk_block_source_open_nbd (uri, &own, errp);
  if (source == NULL)
    error_prefix (errp, "disk '%s'", name);
  return source;
}

/* --- ending ---------------------------------------------------------------------------------- */

static json_t *
read_for_ending (LvDomain *lv, TmkError **errp)
{
  TmkError *err = NULL;
  json_t *record = lv_job_read (lv, &err);
  if (record == NULL && err == NULL) {
    error_set (&err, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no job of tidemark's");
    bool is_stranger = false;
    if (lv_job_is_stranger (lv, NULL, &is_stranger, NULL) && is_stranger)
      error_hint (&err, "the one that runs is not tidemark's: 'virsh domjobabort' ends it");
  }
  error_propagate (errp, err);
  return record;
}

bool
live_abort (LvDomain *lv, TmkError **errp)
{
  g_autoptr (json_t) record = read_for_ending (lv, errp);
  return record != NULL && lv_job_cancel (lv, record, errp);
}

/* A disk whose size changed while it was copied is in no state it ever was in. `*changed` stays
 * NULL: there is none. */
static bool
find_changed_disk (LvDomain *lv, const json_t *record, TmkError **changed, TmkError **errp)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    const char *name = jsonx_string (disk, "name");
    virDomainBlockInfo info;
    bool is_there = lv_disk_by_name (lv, name) != NULL;
    bool known = is_there && virDomainGetBlockInfo (lv->dom, name, &info, 0) == 0;
    if (is_there && !known && connection_lost ()) {
      connection_set_error (errp, "disk '%s': cannot tell its size", name);
      return false;
    }
    if (!known)
      error_set (changed, DOMAIN, TMK_ERR_GONE, 0, "disk '%s' was detached during the backup",
                 name);
    else if (info.capacity != jsonx_uint (disk, "size"))
      error_set (changed, DOMAIN, TMK_ERR_MISMATCH, 0, "disk '%s' was resized during the backup",
                 name);
    else
      continue;
    error_hint (changed, "begin again");
    return true;
  }
  return true;
}

/* The same answer as before, of a job that has ended. */
static bool
answer_again (LvDomain *lv, TmkError **errp)
{
  g_autoptr (json_t) last = state_read (lv->state, "libvirt-last", NULL);
  if (last == NULL || !jsonx_bool (last, "pull"))
    return false;
  g_clear_pointer (errp, tmk_error_free);
  TmkError *err = lv_job_error (last);
  if (err == NULL)
    return true;
  error_propagate (errp, err);
  return false;
}

bool
live_end (LvDomain *lv, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (json_t) record = read_for_ending (lv, &err);
  if (record == NULL) {
    bool ok = tmk_error_code (err) == TMK_ERR_NOT_FOUND && answer_again (lv, &err);
    error_propagate (errp, err);
    return ok;
  }
  if (!jsonx_bool (record, "pull")) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "a push job ends by itself");
    error_hint (errp, "wait for it with 'tidemark wait', or cancel it with 'tidemark abort'");
    return false;
  }
  if (lv_job_is_copying (record)) {
    set_copying_error (errp);
    return false;
  }
  if (!record_in_phase (record, "running")) {
    error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "the job was cut off as it began");
    error_hint (errp, "'tidemark abort' cleans up");
    return false;
  }
  if (!lv_job_look (lv, record, errp))
    return false;
  lv_job_watch (lv, record);
  if (!lv_job_has_result (record)) {
    g_autoptr (TmkError) changed = NULL;
    if (!find_changed_disk (lv, record, &changed, errp) || !lv_job_stop (lv, record, errp))
      return false;
    if (changed == NULL && !lv_job_is_staged (record) && !lv_job_late_failure (lv, &changed, errp))
      return false;
    lv_job_set_result (record, changed != NULL ? "failed" : "done", changed);
  }
  if (!lv_job_settle (lv, record, errp))
    return false;
  error_propagate (&err, lv_job_error (record));
  bool ok = err == NULL;
  error_propagate (errp, err);
  return ok;
}
