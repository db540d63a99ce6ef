/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/job.c: see hv/libvirt/job.h. */
#include "hv/libvirt/job.h"

#include "hv/qmp/machine.h"
#include "hv/staging_daemon.h"
#include "util/fsx.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DOMAIN "libvirt"

json_t *
lv_job_read (LvDomain *lv, TmkError **errp)
{
  return state_read (lv->state, "libvirt-job", errp);
}

bool
lv_job_write (LvDomain *lv, json_t *record, TmkError **errp)
{
  return state_write (lv->state, "libvirt-job", record, errp);
}

bool
lv_has_record (LvDomain *lv)
{
  g_autoptr (json_t) record = lv_job_read (lv, NULL);
  return record != NULL;
}

/* --- is it there? ---------------------------------------------------------------------------- */

TmkBackupDef *
lv_job_definition (LvDomain *lv, TmkError **errp)
{
  char *xml = lv->active ? virDomainBackupGetXMLDesc (lv->dom, 0) : NULL;
  TmkBackupDef *def = NULL;
  if (xml != NULL)
    def = tmk_backup_def_parse (xml, strlen (xml), "libvirt's job", TMK_XML_INTERNAL, errp);
  free (xml); /* libvirt's, from malloc */
  return def;
}

/* A domain has one job at a time, and each writes to files of its own. */
static bool
is_of (const TmkBackupDef *def, const json_t *record)
{
  const json_t *first = json_array_get (json_object_get (record, "disks"), 0);
  const BackupDisk *disk = backup_def_find_disk (def, jsonx_string (first, "name"));
  return disk != NULL && disk->store != NULL
         && g_strcmp0 (disk->store->path, jsonx_string (first, "target")) == 0;
}

bool
lv_job_is_libvirts (LvDomain *lv, const json_t *record)
{
  g_autoptr (TmkBackupDef) def = lv_job_definition (lv, NULL);
  return def != NULL && record != NULL && is_of (def, record);
}

bool
lv_job_is_staged (const json_t *record)
{
  return jsonx_bool (record, "staged");
}

bool
lv_job_is_copying (const json_t *record)
{
  return record_in_phase (record, "copying") && !lv_job_has_result (record)
         && machine_instance_lives (jsonx_string (record, "process"));
}

void
lv_job_set_copying (json_t *record)
{
  g_autofree char *self = machine_process (getpid ());
  record_set_phase (record, "copying");
  json_object_set_new (record, "process", jsonx_string_or_null (self));
}

static bool
is_exported (const json_t *record)
{
  const char *pidfile = jsonx_string (record, "pidfile");
  return lv_job_is_staged (record) && pidfile != NULL && staging_daemon_lives (pidfile);
}

bool
lv_job_is_there (LvDomain *lv, const json_t *record)
{
  return jsonx_bool (record, "exported") ? is_exported (record) : lv_job_is_libvirts (lv, record);
}

bool
lv_job_is_stranger (LvDomain *lv, const json_t *record)
{
  g_autoptr (TmkBackupDef) def = lv_job_definition (lv, NULL);
  return def != NULL && (record == NULL || !is_of (def, record));
}

/* --- how it ended ---------------------------------------------------------------------------- */

static void
set_disk_states (json_t *record, const char *state)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk)
    json_object_set_new (disk, "state", json_string (state));
}

void
lv_job_set_result (json_t *record, const char *state, const TmkError *err)
{
  record_set_result (record, state, err);
  set_disk_states (record, g_str_equal (state, "done") ? "complete" : state);
}

void
lv_job_clear_result (json_t *record)
{
  json_object_del (record, "result");
  set_disk_states (record, "running");
}

bool
lv_job_has_result (const json_t *record)
{
  return json_object_get (record, "result") != NULL;
}

TmkError *
lv_job_error (const json_t *record)
{
  TmkError *err = record_error (record);
  const char *state = jsonx_string (json_object_get (record, "result"), "state");
  if (err == NULL && g_strcmp0 (state, "done") != 0)
    error_set (&err, DOMAIN, TMK_ERR_CANCELLED, 0, "the job was aborted");
  return err;
}

/* What libvirt says of the job that ended last; NULL: nothing, or that it went well. */
static char *
last_words (LvDomain *lv, bool *ended_well)
{
  virTypedParameterPtr params = NULL;
  int type = 0, n = 0, success = -1, operation = 0;
  const char *words = NULL;
  *ended_well = false;
  if (virDomainGetJobStats (lv->dom, &type, &params, &n,
                            VIR_DOMAIN_JOB_STATS_COMPLETED | VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
      != 0)
    return NULL;
  (void) virTypedParamsGetInt (params, n, VIR_DOMAIN_JOB_OPERATION, &operation);
  (void) virTypedParamsGetBoolean (params, n, VIR_DOMAIN_JOB_SUCCESS, &success);
  (void) virTypedParamsGetString (params, n, VIR_DOMAIN_JOB_ERRMSG, &words);
  bool is_backup = operation == VIR_DOMAIN_JOB_OPERATION_BACKUP;
  *ended_well = is_backup && type == VIR_DOMAIN_JOB_COMPLETED && success != 0;
  char *copy = is_backup ? g_strdup (words) : NULL;
  virTypedParamsFree (params, n);
  return copy;
}

/* Of a pull that is ended in any way libvirt says that it was cancelled, unless a disk's job had
 * failed before: then it has that one's words. */
#define WORDS_CANCELLED "Operation canceled"

static void
set_failed (const char *words, bool pull, TmkError **errp)
{
  error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "libvirt's job failed: %s", words);
  error_hint (errp, "see to the storage of the %s, and begin again",
              pull ? "scratch images" : "targets");
}

TmkError *
lv_job_late_failure (LvDomain *lv)
{
  bool ended_well = false;
  TmkError *err = NULL;
  g_autofree char *words = last_words (lv, &ended_well);
  if (words != NULL && strstr (words, WORDS_CANCELLED) == NULL)
    set_failed (words, true, &err);
  return err;
}

/* A push that is over cannot be asked any more: what its targets have is what was written. */
static void
note_written (json_t *record)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    struct stat st;
    const char *target = jsonx_string (disk, "target");
    if (target == NULL || stat (target, &st) != 0 || !S_ISREG (st.st_mode))
      continue;
    json_object_set_new (disk, "done", json_integer ((json_int_t) st.st_blocks * 512));
    json_object_set_new (disk, "total", json_integer ((json_int_t) st.st_blocks * 512));
  }
}

/* QEMU does not answer libvirt meanwhile, which waits for it, for half a minute. */
bool
lv_job_is_closed (LvDomain *lv, const json_t *record)
{
  const json_t *first = json_array_get (json_object_get (record, "disks"), 0);
  virDomainBlockInfo info;
  return virDomainGetBlockInfo (lv->dom, jsonx_string (first, "name"), &info, 0) == 0
         || virGetLastErrorCode () != VIR_ERR_OPERATION_TIMEOUT;
}

/* It is not there any more. */
static void
find_result (LvDomain *lv, json_t *record)
{
  g_autoptr (TmkError) err = NULL;
  bool ended_well = false;
  lv->active = virDomainIsActive (lv->dom) == 1; /* it may have ended just now */
  g_autofree char *words = last_words (lv, &ended_well);
  bool copies = lv_job_is_staged (record) && !jsonx_bool (record, "exported");
  bool pull = jsonx_bool (record, "pull") && !copies;
  if (!pull && ended_well) {
    if (!lv_job_is_closed (lv, record))
      return; /* the next look may tell */
    note_written (record);
    lv_job_set_result (record, "done", NULL);
    return;
  }
  if (!lv->active) {
    error_set (&err, DOMAIN, TMK_ERR_GONE, 0, "domain '%s' has ended, and the job with it",
               lv->name);
    error_hint (&err, "begin again: a domain that is shut off can be backed up too");
  } else if (words != NULL && strstr (words, WORDS_CANCELLED) != NULL) {
    error_set (&err, DOMAIN, TMK_ERR_CANCELLED, 0, "somebody ended libvirt's job");
    error_hint (&err, "begin again");
  } else if (words != NULL) {
    set_failed (words, pull, &err);
  } else {
    error_set (&err, DOMAIN, TMK_ERR_GONE, 0, "libvirt has the job no more and does not say why");
    error_hint (&err, "somebody ended it, or the domain was started anew: begin again");
  }
  lv_job_set_result (record, "failed", err);
}

/* --- looking --------------------------------------------------------------------------------- */

static void
look_at_disk (LvDomain *lv, json_t *disk, bool pull)
{
  const char *target = jsonx_string (disk, "target");
  virDomainBlockJobInfo info = { 0 };
  struct stat st;
  guint64 room = 0;
  if (pull) {
    json_object_set_new (disk, "total", json_integer ((json_int_t) jsonx_uint (disk, "size")));
    if (target != NULL && stat (target, &st) == 0)
      json_object_set_new (disk, "done", json_integer ((json_int_t) st.st_blocks * 512));
  } else if (virDomainGetBlockJobInfo (lv->dom, jsonx_string (disk, "name"), &info, 0) == 1) {
    json_object_set_new (disk, "done", json_integer ((json_int_t) info.cur));
    json_object_set_new (disk, "total", json_integer ((json_int_t) info.end));
  }
  if (target != NULL && !jsonx_bool (disk, "block") && fsx_free_space (target, &room, NULL))
    json_object_set_new (disk, "room", json_integer ((json_int_t) room));
}

bool
lv_job_socket_is_served (const char *socket)
{
  size_t len;
  g_autofree char *text = fsx_read_file ("/proc/net/unix", 64 << 20, &len, NULL);
  g_autofree char *end_of_line = g_strconcat (" ", socket, "\n", NULL);
  return text == NULL || strstr (text, end_of_line) != NULL;
}

#define VERDICT_US (3 * G_USEC_PER_SEC)
#define VERDICT_LOOK_US 5000

/* A QEMU that was killed takes its socket along, and libvirt notices a moment later. */
static void
wait_for_verdict (LvDomain *lv, const json_t *record)
{
  const char *socket = jsonx_string (record, "socket");
  gint64 deadline = g_get_monotonic_time () + VERDICT_US;
  while (jsonx_bool (record, "served") && lv_job_is_there (lv, record)
         && !lv_job_socket_is_served (socket) && g_get_monotonic_time () < deadline)
    g_usleep (VERDICT_LOOK_US);
}

void
lv_job_look (LvDomain *lv, json_t *record)
{
  if (lv_job_has_result (record))
    return;
  bool exported = !lv_job_is_staged (record) || jsonx_bool (record, "exported");
  if (exported && jsonx_bool (record, "pull"))
    wait_for_verdict (lv, record);
  if (!lv_job_is_there (lv, record)) {
    find_result (lv, record);
    return;
  }
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk)
    look_at_disk (lv, disk, jsonx_bool (record, "pull"));
}

/* --- watching -------------------------------------------------------------------------------- */

/* On a small file system the reserve is a part of it. */
static guint64
reserve_of (const char *path)
{
  struct statvfs fs;
  if (statvfs (path, &fs) != 0)
    return JOB_RESERVE;
  return MIN (JOB_RESERVE, (guint64) fs.f_blocks * fs.f_frsize / 8);
}

/* The first disk whose scratch or target can hardly grow any more, though it may have to. */
static TmkError *
running_full (const json_t *record)
{
  size_t i;
  json_t *disk;
  TmkError *err = NULL;
  json_array_foreach (json_object_get (record, "disks"), i, disk) {
    const char *target = jsonx_string (disk, "target");
    const json_t *room = json_object_get (disk, "room");
    guint64 done = jsonx_uint (disk, "done"), size = jsonx_uint (disk, "size");
    guint64 needed = size > done ? size - done : 0;
    if (room == NULL || target == NULL
        || jsonx_uint (disk, "room") >= MIN (needed, reserve_of (target)))
      continue;
    error_set (&err, DOMAIN, TMK_ERR_NO_SPACE, 0,
               "disk '%s': no space left for '%s', so the job was cancelled before the guest"
               " noticed",
               jsonx_string (disk, "name"), target);
    error_hint (&err, "free some space in its folder or choose another, and begin again");
    return err;
  }
  return NULL;
}

/* QEMU passes trouble with a scratch or target on to the guest's own writes. */
static void
resume_guest (LvDomain *lv)
{
  int state = 0, reason = 0;
  if (virDomainGetState (lv->dom, &state, &reason, 0) == 0 && state == VIR_DOMAIN_PAUSED
      && reason == VIR_DOMAIN_PAUSED_IOERROR)
    (void) virDomainResume (lv->dom);
}

void
lv_job_watch (LvDomain *lv, json_t *record)
{
  if (lv_job_has_result (record) || !lv->active)
    return;
  g_autoptr (TmkError) err = jsonx_bool (record, "exported") ? NULL : running_full (record);
  if (err == NULL || !lv_job_stop (lv, record, NULL))
    return;
  lv_job_set_result (record, "failed", err);
  resume_guest (lv);
}
