/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/begin.c: starting a job of libvirt's.
 *
 * The definition is aligned here, so that it is known what is asked for, and taken back from
 * libvirt as what it made of it. What is about to be done is written down first.
 */
#include "hv/libvirt/begin.h"

#include "hv/own_socket.h"
#include "hv/staging_daemon.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "libvirt"

static void
begin_clear (Begin *begin)
{
  g_free (begin->id);
  tmk_backup_def_free (begin->def);
  tmk_checkpoint_def_free (begin->checkpoint);
  g_free (begin->folder);
  json_decref (begin->record);
  begin_end_passing (begin);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Begin, begin_clear)

/* --- preparing ------------------------------------------------------------------------------- */

static bool
align (Begin *begin, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint, TmkError **errp)
{
  LvDomain *lv = begin->lv;
  begin->id = g_uuid_string_random ();
  begin->id[8] = '\0'; /* short: a socket's path has at most 107 bytes */
  g_autofree char *suffix
      = checkpoint != NULL
            ? g_strdup (checkpoint->name)
            : g_strdup_printf ("%" G_GINT64_FORMAT, g_get_real_time () / G_USEC_PER_SEC);
  begin->def = tmk_backup_def_copy (def);
  if (!tmk_backup_def_align (begin->def, lv->def, suffix, errp))
    return false;
  if (checkpoint == NULL)
    return true;
  begin->checkpoint = tmk_checkpoint_def_copy (checkpoint);
  if (!tmk_checkpoint_def_align (begin->checkpoint, lv->def, errp)
      || !begin_check_checkpoint (begin, errp))
    return false;
  return live_checkpoint_check_new (lv, begin->checkpoint->name, errp);
}

/* --- writing down ---------------------------------------------------------------------------- */

static json_t *
disk_record (const Begin *begin, const BackupDisk *disk)
{
  bool incremental = disk->mode == BACKUP_MODE_INCREMENTAL;
  virDomainBlockInfo info = { 0 };
  (void) virDomainGetBlockInfo (begin->lv->dom, disk->name, &info, 0);
  json_t *out = json_object ();
  json_object_set_new (out, "name", jsonx_string_or_null (disk->name));
  json_object_set_new (out, "mode", jsonx_string_or_null (backup_mode_name (disk->mode)));
  json_object_set_new (out, "incremental", jsonx_string_or_null (disk->incremental));
  json_object_set_new (out, "target", jsonx_string_or_null (disk->store->path));
  json_object_set_new (out, "block", json_boolean (disk->store->type == STORAGE_BLOCK));
  json_object_set_new (
      out, "made",
      json_boolean (disk->store->type == STORAGE_FILE && !begin->options->reuse_external));
  json_object_set_new (out, "format", jsonx_string_or_null (disk->store->format));
  json_object_set_new (out, "size", json_integer ((json_int_t) info.capacity));
  json_object_set_new (out, "state", json_string ("running"));
  if (!begin->def->pull)
    return out;
  json_object_set_new (out, "depth", json_boolean (begin->staged && incremental));
  g_autofree char *bitmap = g_strconcat ("backup-", disk->name, NULL);
  json_object_set_new (
      out, "export",
      jsonx_string_or_null (disk->exportname != NULL ? disk->exportname : disk->name));
  if (incremental)
    json_object_set_new (
        out, "exportbitmap",
        jsonx_string_or_null (disk->exportbitmap != NULL ? disk->exportbitmap : bitmap));
  return out;
}

static void
set_definition (Begin *begin, const TmkBackupDef *def)
{
  char *xml = tmk_backup_def_format (def, TMK_XML_INTERNAL);
  json_object_set_new (begin->record, "definition", jsonx_string_or_null (xml));
  tmk_free (xml);
}

static bool
write_down (Begin *begin, TmkError **errp)
{
  json_t *disks = json_array ();
  for (guint i = 0; i < begin->def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (begin->def->disks, i);
    if (disk->backup)
      json_array_append_new (disks, disk_record (begin, disk));
  }
  begin->record = json_pack ("{s:i, s:s, s:b, s:s, s:I, s:o}", "format", 1, "id", begin->id, "pull",
                             begin->def->pull, "phase", "starting", "started_us",
                             (json_int_t) g_get_real_time (), "disks", disks);
  json_object_set_new (begin->record, "owner", jsonx_string_or_null (begin->options->owner));
  if (begin->staged) {
    g_autofree char *pidfile = state_file (begin->lv->state, "libvirt-daemon.pid");
    json_object_set_new (begin->record, "staged", json_true ());
    json_object_set_new (begin->record, "pidfile", jsonx_string_or_null (pidfile));
  }
  if (begin->def->pull)
    json_object_set_new (begin->record, "socket",
                         jsonx_string_or_null (begin->def->server->socket));
  json_object_set_new (begin->record, "folder", jsonx_string_or_null (begin->folder));
  json_object_set_new (
      begin->record, "checkpoint_name",
      jsonx_string_or_null (begin->checkpoint != NULL ? begin->checkpoint->name : NULL));
  set_definition (begin, begin->def);
  return lv_job_write (begin->lv, begin->record, errp);
}

/* --- doing ----------------------------------------------------------------------------------- */

/* What libvirt is asked for: of a staged pull, to write the scratch images; of another, to serve at
 * the socket that it was given. */
static TmkBackupDef *
definition_for_libvirt (const Begin *begin)
{
  TmkBackupDef *def = tmk_backup_def_copy (begin->def);
  if (begin->fdgroup != NULL) {
    def->server->transport = BACKUP_SERVER_FD;
    def->server->fdgroup = g_strdup (begin->fdgroup);
    g_clear_pointer (&def->server->socket, g_free);
  }
  if (!begin->staged)
    return def;
  def->pull = FALSE;
  g_free (def->server->name);
  g_free (def->server->socket);
  g_free (def->server->fdgroup);
  g_clear_pointer (&def->server, g_free);
  for (guint i = 0; i < def->disks->len; i++) {
    BackupDisk *disk = g_ptr_array_index (def->disks, i);
    g_clear_pointer (&disk->exportname, g_free);
    g_clear_pointer (&disk->exportbitmap, g_free);
  }
  return def;
}

static void
set_refused (TmkError **errp)
{
  int code = virGetLastErrorCode ();
  connection_set_error (errp, "libvirt does not begin the job");
  if (code == VIR_ERR_NO_DOMAIN_CHECKPOINT || code == VIR_ERR_CHECKPOINT_INCONSISTENT)
    error_hint (errp, "'tidemark checkpoint list' shows what can be started from; or make the disk"
                      " full");
  else if (tmk_error_hint (*errp) == NULL)
    error_hint (errp, "nothing has changed; libvirt's log tells more");
}

static bool
ask_libvirt (const Begin *begin, unsigned flags)
{
  g_autoptr (TmkBackupDef) def = definition_for_libvirt (begin);
  char *xml = tmk_backup_def_format (def, TMK_XML_PUBLIC);
  char *checkpoint = begin->checkpoint != NULL
                         ? tmk_checkpoint_def_format (begin->checkpoint, TMK_CHECKPOINT_NO_DOMAIN)
                         : NULL;
  bool ok = virDomainBackupBegin (begin->lv->dom, xml, checkpoint, flags) == 0;
  tmk_free (xml);
  tmk_free (checkpoint);
  return ok;
}

/* Does libvirt's last error say that it does not understand what it was asked? It has done nothing
 * then. (An internal error is how 11.3 answers to a socket.) */
static bool
is_not_understood (void)
{
  int code = virGetLastErrorCode ();
  return code == VIR_ERR_INVALID_ARG || code == VIR_ERR_XML_ERROR
         || code == VIR_ERR_XML_INVALID_SCHEMA || code == VIR_ERR_CONFIG_UNSUPPORTED
         || code == VIR_ERR_INTERNAL_ERROR;
}

#define SINCE_PRESERVING 11010000

/* Newer releases can keep a domain whose guest shuts down until the job has ended, and take a
 * socket. One that is new enough is asked for it and may refuse; an older one is not, for it would
 * write its refusal to its log each time. */
static bool
ask_for_the_most (Begin *begin)
{
  unsigned flags = begin->options->reuse_external ? VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL : 0;
  if (connection_is_since (begin->lv->connection, SINCE_PRESERVING)) {
    if (ask_libvirt (begin, flags | LV_BACKUP_BEGIN_PRESERVE_SHUTDOWN_DOMAIN))
      return true;
    if (!is_not_understood ())
      return false;
  }
  if (ask_libvirt (begin, flags))
    return true;
  if (begin->fdgroup == NULL || !is_not_understood ())
    return false;
  begin_take_socket_back (begin);
  return ask_libvirt (begin, flags);
}

static bool
start (Begin *begin, TmkError **errp)
{
  LvDomain *lv = begin->lv;
  guint64 frozen_us = 0;
  begin_pass_socket (begin);
  LvFreeze *freeze = lv_freeze (lv, begin->options);
  testpoint ("libvirt-frozen");
  bool ok = ask_for_the_most (begin);
  begin->unheard = !ok && connection_lost ();
  TmkError *err = NULL;
  if (!ok)
    set_refused (&err);
  json_object_set_new (begin->record, "started_us", json_integer (g_get_real_time ()));
  if (lv_thaw (lv, freeze, begin->options, &frozen_us) && ok) {
    json_object_set_new (begin->record, "quiesced", json_true ());
    json_object_set_new (begin->record, "frozen_us", json_integer ((json_int_t) frozen_us));
  }
  begin_end_passing (begin);
  testpoint ("libvirt-begun");
  error_propagate (errp, err);
  return ok;
}

#define STAGING_LOOK_US 100000

static bool
is_own (const Begin *begin, const json_t *record)
{
  return g_strcmp0 (jsonx_string (record, "id"), begin->id) == 0;
}

/* Somebody else has ended the job, and may have begun another. */
static void
set_ended (const Begin *begin, TmkError **errp)
{
  g_autoptr (json_t) last = state_read (begin->lv->state, "libvirt-last", NULL);
  TmkError *err = is_own (begin, last) ? lv_job_error (last) : NULL;
  if (err == NULL)
    error_set (&err, DOMAIN, TMK_ERR_CANCELLED, 0, "the job was aborted");
  if (tmk_error_hint (err) == NULL)
    error_hint (&err, "begin again");
  error_prefix (&err, "while the disks were copied");
  error_propagate (errp, err);
}

/* Lets others look at the job, and abort it. */
static bool
pause_copying (Begin *begin, TmkError **errp)
{
  TmkError *err = NULL;
  bool runs = true;
  lv_leave (begin->lv);
  g_usleep (STAGING_LOOK_US);
  if (lv_job_is_libvirts (begin->lv, begin->record, &runs, NULL) && !runs)
    (void) lv_job_is_closed (begin->lv, begin->record); /* waits here, where nobody waits for us */
  begin->outside = !lv_enter (begin->lv, errp);
  if (begin->outside)
    return false;
  g_autoptr (json_t) record = lv_job_read (begin->lv, &err);
  if (err == NULL && (!is_own (begin, record) || lv_job_has_result (record)))
    set_ended (begin, &err);
  bool ok = err == NULL;
  error_propagate (errp, err);
  return ok;
}

/* Waits until the copies are complete. */
static bool
wait_for_copies (Begin *begin, TmkError **errp)
{
  LvDomain *lv = begin->lv;
  const TmkBeginOptions *options = begin->options;
  lv_job_set_copying (begin->record);
  if (!lv_job_write (lv, begin->record, errp))
    return false;
  for (;;) {
    if (!lv_job_look (lv, begin->record, errp))
      return false;
    lv_job_watch (lv, begin->record);
    if (lv_job_has_result (begin->record))
      break;
    if (options->cancelled != NULL && options->cancelled (options->cancelled_data)) {
      error_set (errp, DOMAIN, TMK_ERR_CANCELLED, 0, "cancelled");
      return false;
    }
    if (!pause_copying (begin, errp))
      return false;
  }
  TmkError *err = lv_job_error (begin->record);
  if (err != NULL) {
    error_propagate (errp, err);
    return false;
  }
  lv_job_clear_result (begin->record);
  return true;
}

/* The copies, exported by a daemon of ours. */
static bool
export_copies (Begin *begin, TmkError **errp)
{
  if (!wait_for_copies (begin, errp)
      || !staging_daemon_start (begin->record, begin->def->server, errp))
    return false;
  json_object_set_new (begin->record, "exported", json_true ());
  for (guint i = 0; begin->options->owner == NULL && i < begin->def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (begin->def->disks, i);
    if (disk->backup && disk->mode == BACKUP_MODE_INCREMENTAL)
      hv_warn (begin->options,
               "disk '%s': what has changed is told by the context qemu:allocation-depth, not by"
               " a bitmap",
               disk->name);
  }
  return true;
}

/* A checkpoint is known again by its time, which is shortly before the job's (engine/plan_search).
 * libvirt sets it when it begins to begin, and may take long. */
#define CHECKPOINT_BEFORE_JOB_S 4

static void
note_instant (Begin *begin, gint64 checkpoint_made)
{
  json_int_t latest = (checkpoint_made + CHECKPOINT_BEFORE_JOB_S) * G_USEC_PER_SEC;
  if (checkpoint_made > 0 && (json_int_t) jsonx_uint (begin->record, "started_us") > latest)
    json_object_set_new (begin->record, "started_us", json_integer (latest));
}

/* Of a socket that it was given libvirt knows no path. */
static void
show_own_server (const Begin *begin, TmkBackupDef *def)
{
  g_clear_pointer (&def->server->fdgroup, g_free);
  def->server->transport = BACKUP_SERVER_UNIX;
  def->server->socket = g_strdup (begin->def->server->socket);
}

/* libvirt's own view of what it does, from here on. */
static bool
confirm (Begin *begin, TmkError **errp)
{
  LvDomain *lv = begin->lv;
  if (begin->staged && !export_copies (begin, errp))
    return false;
  TmkError *err = NULL;
  g_autoptr (TmkBackupDef) def = lv_job_definition (lv, &err); /* a short push has ended by now */
  if (err != NULL) {
    error_propagate (errp, err);
    return false;
  }
  if (def != NULL && def->server != NULL && def->server->transport == BACKUP_SERVER_FD
      && begin->folder != NULL)
    show_own_server (begin, def);
  if (def != NULL)
    set_definition (begin, def);
  const char *socket = jsonx_string (begin->record, "socket");
  if (socket != NULL
      && lv_job_socket_is_served (socket)) /* we may be in another network namespace */
    json_object_set_new (begin->record, "served", json_true ());
  record_set_phase (begin->record, "running");
  (void) json_object_del (begin->record, "process"); /* there may be none */
  if (begin->checkpoint != NULL)
    note_instant (begin, lv_keep_checkpoint (lv, begin->checkpoint->name));
  return lv_job_write (lv, begin->record, errp);
}

static bool
undo (Begin *begin, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (json_t) record = lv_job_read (begin->lv, &err);
  error_propagate (errp, err);
  if (record == NULL || !is_own (begin, record))
    return err == NULL; /* what was ours, who ended it has taken back */
  if (!lv_job_stop (begin->lv, begin->record, errp))
    return false;
  lv_job_set_result (begin->record, "cancelled", NULL);
  return lv_job_settle (begin->lv, begin->record, errp)
         && state_remove (begin->lv->state, "libvirt-last", errp);
}

/* Nothing has changed. But libvirt may yet begin what it was asked for before the connection was
 * lost: so that stays written down, and who comes next finds the job, or cleans up. */
static void
take_back (Begin *begin)
{
  TmkError *err = NULL;
  bool runs = true;
  if (begin->unheard && lv_job_is_libvirts (begin->lv, begin->record, &runs, NULL) && !runs)
    return;
  if ((!begin->outside || lv_enter (begin->lv, &err)) && undo (begin, &err))
    return;
  hv_warn (begin->options, "cleaning up failed: %s; 'tidemark abort' tries again",
           tmk_error_message (err));
  tmk_error_free (err);
}

bool
live_begin (LvDomain *lv, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
            const TmkBeginOptions *options, TmkError **errp)
{
  g_auto (Begin) begin = { .lv = lv, .options = options };
  if (!begin_check_options (options, errp) || !begin_make_way (lv, errp)
      || !align (&begin, def, checkpoint, errp))
    return false;
  begin.staged = begin_must_be_staged (&begin);
  if (!begin_check (&begin, errp))
    return false;
  begin.folder = own_socket_choose (begin.def, begin.id);
  if (!write_down (&begin, errp))
    return false;
  testpoint ("libvirt-written-down");
  if (begin_make_folder (&begin, errp) && start (&begin, errp) && confirm (&begin, errp))
    return true;
  take_back (&begin);
  return false;
}
