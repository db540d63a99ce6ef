/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/begin.c: starting a job of libvirt's.
 *
 * The definition is aligned here, so that it is known what is asked for, and taken back from
 * libvirt as what it made of it. What is about to be done is written down first.
 */
#include "hv/libvirt/begin.h"

#include "hv/qmp/own_socket.h"
#include "hv/qmp/record.h"
#include "hv/qmp/staging.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "libvirt"

static void
begin_clear (Begin *begin)
{
  g_free (begin->id);
  tmk_backup_def_free (begin->def);
  tmk_checkpoint_def_free (begin->checkpoint);
  g_free (begin->folder);
  json_decref (begin->record);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Begin, begin_clear)

/* --- preparing ------------------------------------------------------------------------------- */

/* QEMU's user, as the running domain's `<seclabel model='dac'>` has it; ours where there is none.
 * It is "+64055:+64055" or has names. */
static bool
qemu_user (const LvDomain *lv, uid_t *uid)
{
  g_autoptr (GRegex) regex
      = g_regex_new ("<seclabel[^>]*model='dac'[^>]*>\\s*<label>\\+?([^:<]+)", 0, 0, NULL);
  g_autoptr (GMatchInfo) match = NULL;
  if (!g_regex_match (regex, lv->xml, 0, &match))
    return false;
  g_autofree char *user = g_match_info_fetch (match, 1);
  char *end;
  unsigned long number = strtoul (user, &end, 10);
  if (*user != '\0' && *end == '\0') {
    *uid = (uid_t) number;
    return true;
  }
  const struct passwd *entry = getpwnam (user);
  if (entry != NULL)
    *uid = entry->pw_uid;
  return entry != NULL;
}

/* The user's own where the definition names one; else one that nobody else can reach. */
static void
choose_server (Begin *begin)
{
  if (!begin->def->pull || begin->def->server != NULL)
    return;
  begin->folder = g_strdup_printf ("%s/tidemark-%s", own_socket_base_folder (), begin->id);
  BackupServer *server = g_new0 (BackupServer, 1);
  server->transport = BACKUP_SERVER_UNIX;
  server->tls = -1;
  server->socket = g_build_filename (begin->folder, "nbd", NULL);
  begin->def->server = server;
}

static bool
make_folder (const Begin *begin, TmkError **errp)
{
  uid_t uid = 0;
  if (begin->folder == NULL)
    return true;
  if (mkdir (begin->folder, 0700) != 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot make the folder '%s' for the NBD server's socket",
                     begin->folder);
    error_hint (errp, "name a socket in the definition: <server transport='unix' socket='/…'/>");
    return false;
  }
  if (geteuid () != 0 || !qemu_user (begin->lv, &uid)
      || chown (begin->folder, uid, (gid_t) -1) == 0)
    return true;
  error_set_errno (errp, DOMAIN, errno, "cannot give '%s' to QEMU's user", begin->folder);
  error_hint (errp, "name a socket in the definition: <server transport='unix' socket='/…'/>");
  return false;
}

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

/* What libvirt is asked for: of a staged pull, to write the scratch images. */
static TmkBackupDef *
definition_for_libvirt (const Begin *begin)
{
  TmkBackupDef *def = tmk_backup_def_copy (begin->def);
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
start (Begin *begin, TmkError **errp)
{
  LvDomain *lv = begin->lv;
  g_autoptr (TmkBackupDef) def = definition_for_libvirt (begin);
  char *xml = tmk_backup_def_format (def, TMK_XML_PUBLIC);
  char *checkpoint = begin->checkpoint != NULL
                         ? tmk_checkpoint_def_format (begin->checkpoint, TMK_CHECKPOINT_NO_DOMAIN)
                         : NULL;
  unsigned flags = begin->options->reuse_external ? VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL : 0;
  guint64 frozen_us = 0;
  LvFreeze *freeze = lv_freeze (lv, begin->options);
  testpoint ("libvirt-frozen");
  bool ok = virDomainBackupBegin (lv->dom, xml, checkpoint, flags) == 0;
  TmkError *err = NULL;
  if (!ok)
    set_refused (&err);
  json_object_set_new (begin->record, "started_us", json_integer (g_get_real_time ()));
  if (lv_thaw (lv, freeze, begin->options, &frozen_us) && ok) {
    json_object_set_new (begin->record, "quiesced", json_true ());
    json_object_set_new (begin->record, "frozen_us", json_integer ((json_int_t) frozen_us));
  }
  testpoint ("libvirt-begun");
  tmk_free (xml);
  tmk_free (checkpoint);
  error_propagate (errp, err);
  return ok;
}

#define STAGING_LOOK_US 100000

/* Waits until the copies are complete. Others may look at the job, and abort it, meanwhile. */
static bool
wait_for_copies (Begin *begin, TmkError **errp)
{
  LvDomain *lv = begin->lv;
  const TmkBeginOptions *options = begin->options;
  for (;;) {
    lv_job_look (lv, begin->record);
    lv_job_watch (lv, begin->record);
    if (lv_job_has_result (begin->record))
      break;
    if (options->cancelled != NULL && options->cancelled (options->cancelled_data)) {
      error_set (errp, DOMAIN, TMK_ERR_CANCELLED, 0, "cancelled");
      return false;
    }
    lv_leave (lv);
    g_usleep (STAGING_LOOK_US);
    if (!lv_enter (lv, errp))
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
      || !staging_start_daemon (begin->record, begin->def->server, errp))
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

/* libvirt's own view of what it does, from here on. */
static bool
confirm (Begin *begin, TmkError **errp)
{
  LvDomain *lv = begin->lv;
  if (begin->staged && !export_copies (begin, errp))
    return false;
  char *xml = virDomainBackupGetXMLDesc (lv->dom, 0);
  TmkBackupDef *def = xml != NULL ? tmk_backup_def_parse (xml, strlen (xml), "libvirt's job",
                                                          TMK_XML_INTERNAL, errp)
                                  : NULL;
  bool parsed = def != NULL || xml == NULL; /* a short push has ended by now */
  free (xml);
  if (def != NULL)
    set_definition (begin, def);
  tmk_backup_def_free (def);
  const char *socket = jsonx_string (begin->record, "socket");
  if (socket != NULL
      && lv_job_socket_is_served (socket)) /* we may be in another network namespace */
    json_object_set_new (begin->record, "served", json_true ());
  record_set_phase (begin->record, "running");
  if (begin->checkpoint != NULL)
    note_instant (begin, lv_keep_checkpoint (lv, begin->checkpoint->name));
  return parsed && lv_job_write (lv, begin->record, errp);
}

/* Nothing has changed. */
static void
take_back (Begin *begin)
{
  TmkError *err = NULL;
  if (lv_job_stop (begin->lv, begin->record, &err)) {
    lv_job_set_result (begin->record, "cancelled", NULL);
    if (lv_job_settle (begin->lv, begin->record, &err)
        && state_remove (begin->lv->state, "libvirt-last", &err))
      return;
  }
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
  choose_server (&begin);
  if (!write_down (&begin, errp))
    return false;
  testpoint ("libvirt-written-down");
  if (make_folder (&begin, errp) && start (&begin, errp) && confirm (&begin, errp))
    return true;
  take_back (&begin);
  return false;
}
