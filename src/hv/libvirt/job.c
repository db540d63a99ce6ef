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

#define ASK_TIMES 3

/* A call to libvirt has failed: true where it was only restarted, and can be asked again by now. To
 * take no answer for "no" would be to tidy up behind a job that runs. */
static bool
may_ask_again (LvDomain *lv, unsigned *asked, const char *what, TmkError **errp)
{
  if (connection_lost () && ++*asked < ASK_TIMES)
    return lv_look (lv, errp);
  connection_set_error (errp, "domain '%s': cannot tell %s", lv->name, what);
  return false;
}

TmkBackupDef *
lv_job_definition (LvDomain *lv, TmkError **errp)
{
  unsigned asked = 0;
  char *xml = NULL;
  while (lv->active && (xml = virDomainBackupGetXMLDesc (lv->dom, 0)) == NULL) {
    int code = virGetLastErrorCode ();
    if (code == VIR_ERR_NO_DOMAIN_BACKUP || code == VIR_ERR_NO_DOMAIN
        || !may_ask_again (lv, &asked, "whether a backup job runs", errp))
      return NULL;
  }
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

/* Whose is the job that libvirt runs, if any? */
static bool
whose_is_it (LvDomain *lv, const json_t *record, bool *its, bool *anothers, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (TmkBackupDef) def = lv_job_definition (lv, &err);
  if (err != NULL) {
    error_propagate (errp, err);
    return false;
  }
  *its = def != NULL && record != NULL && is_of (def, record);
  *anothers = def != NULL && !*its;
  return true;
}

bool
lv_job_is_libvirts (LvDomain *lv, const json_t *record, bool *is, TmkError **errp)
{
  bool anothers;
  return whose_is_it (lv, record, is, &anothers, errp);
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
lv_job_is_there (LvDomain *lv, const json_t *record, bool *is, TmkError **errp)
{
  if (!jsonx_bool (record, "exported"))
    return lv_job_is_libvirts (lv, record, is, errp);
  *is = is_exported (record);
  return true;
}

bool
lv_job_is_stranger (LvDomain *lv, const json_t *record, bool *is, TmkError **errp)
{
  bool its;
  return whose_is_it (lv, record, &its, is, errp);
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

/* What libvirt says of the job that ended last; `*said` is NULL: nothing, or that it went well. */
static bool
last_words (LvDomain *lv, char **said, bool *ended_well, TmkError **errp)
{
  virTypedParameterPtr params = NULL;
  int type = 0, n = 0, success = -1, operation = 0;
  const char *words = NULL;
  unsigned asked = 0;
  *said = NULL;
  *ended_well = false;
  while (virDomainGetJobStats (lv->dom, &type, &params, &n,
                               VIR_DOMAIN_JOB_STATS_COMPLETED | VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
         != 0) {
    if (!connection_lost ())
      return true;
    if (!may_ask_again (lv, &asked, "how the job has ended", errp))
      return false;
  }
  (void) virTypedParamsGetInt (params, n, VIR_DOMAIN_JOB_OPERATION, &operation);
  (void) virTypedParamsGetBoolean (params, n, VIR_DOMAIN_JOB_SUCCESS, &success);
  (void) virTypedParamsGetString (params, n, VIR_DOMAIN_JOB_ERRMSG, &words);
  bool is_backup = operation == VIR_DOMAIN_JOB_OPERATION_BACKUP;
  *ended_well = is_backup && type == VIR_DOMAIN_JOB_COMPLETED && success != 0;
  *said = is_backup ? g_strdup (words) : NULL;
  virTypedParamsFree (params, n);
  return true;
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

bool
lv_job_late_failure (LvDomain *lv, TmkError **failure, TmkError **errp)
{
  bool ended_well = false;
  g_autofree char *words = NULL;
  if (!last_words (lv, &words, &ended_well, errp))
    return false;
  if (words != NULL && strstr (words, WORDS_CANCELLED) == NULL)
    set_failed (words, true, failure);
  return true;
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

/* The domain may have ended just now. */
static bool
learn_active (LvDomain *lv, TmkError **errp)
{
  unsigned asked = 0;
  int active;
  while ((active = virDomainIsActive (lv->dom)) < 0 && virGetLastErrorCode () != VIR_ERR_NO_DOMAIN)
    if (!may_ask_again (lv, &asked, "whether it is running", errp))
      return false;
  lv->active = active == 1;
  return true;
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
static bool
find_result (LvDomain *lv, json_t *record, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  bool ended_well = false;
  g_autofree char *words = NULL;
  if (!learn_active (lv, errp) || !last_words (lv, &words, &ended_well, errp))
    return false;
  bool copies = lv_job_is_staged (record) && !jsonx_bool (record, "exported");
  bool pull = jsonx_bool (record, "pull") && !copies;
  if (!pull && ended_well) {
    if (!lv_job_is_closed (lv, record))
      return true; /* the next look may tell */
    note_written (record);
    lv_job_set_result (record, "done", NULL);
    return true;
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
  return true;
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

/* Is the job there? A QEMU that was killed takes its socket along, and libvirt notices a moment
 * later. */
static bool
wait_for_verdict (LvDomain *lv, const json_t *record, bool *is_there, TmkError **errp)
{
  const char *socket = jsonx_string (record, "socket");
  bool exported = !lv_job_is_staged (record) || jsonx_bool (record, "exported");
  bool served = exported && jsonx_bool (record, "pull") && jsonx_bool (record, "served");
  gint64 deadline = g_get_monotonic_time () + VERDICT_US;
  while (lv_job_is_there (lv, record, is_there, errp)) {
    if (!*is_there || !served || lv_job_socket_is_served (socket)
        || g_get_monotonic_time () >= deadline)
      return true;
    g_usleep (VERDICT_LOOK_US);
  }
  return false;
}

bool
lv_job_look (LvDomain *lv, json_t *record, TmkError **errp)
{
  bool is_there = false;
  if (lv_job_has_result (record))
    return true;
  if (!wait_for_verdict (lv, record, &is_there, errp))
    return false;
  if (!is_there)
    return find_result (lv, record, errp);
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk)
    look_at_disk (lv, disk, jsonx_bool (record, "pull"));
  return true;
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
