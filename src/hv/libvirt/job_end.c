/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/job_end.c: ending a job of libvirt's, and tidying up behind it; see hv/libvirt/job.h.
 */
#include "hv/libvirt/job.h"

#include "hv/staging_daemon.h"
#include "util/fsx.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DOMAIN "libvirt"
#define STOP_TIMEOUT_US (60 * G_USEC_PER_SEC)
#define STOP_LOOK_US 5000

/* --- stopping it ----------------------------------------------------------------------------- */

static bool
stop_daemon (const json_t *record, TmkError **errp)
{
  const char *pidfile = jsonx_string (record, "pidfile");
  return !lv_job_is_staged (record) || pidfile == NULL
         || staging_daemon_end (pidfile, jsonx_string (record, "socket"), errp);
}

/* A libvirt that was restarted meanwhile may not have heard: where the job is still there it is
 * asked again. */
static bool
stop_libvirt (LvDomain *lv, const json_t *record, TmkError **errp)
{
  gint64 deadline = g_get_monotonic_time () + STOP_TIMEOUT_US;
  g_autoptr (TmkError) refused = NULL;
  bool is_there = false, heard = false;
  while (lv_job_is_libvirts (lv, record, &is_there, errp)) {
    if (!is_there)
      return true;
    if (refused != NULL) {
      error_propagate (errp, g_steal_pointer (&refused));
      return false;
    }
    if (g_get_monotonic_time () > deadline) {
      error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, 0, "domain '%s': libvirt's job does not end",
                 lv->name);
      error_hint (errp, "does the storage of its images answer?");
      return false;
    }
    if (heard)
      g_usleep (STOP_LOOK_US);
    else if (virDomainAbortJob (lv->dom) == 0)
      heard = true;
    else if (!connection_lost ())
      connection_set_error (&refused, "domain '%s': libvirt does not end the job", lv->name);
  }
  return false;
}

bool
lv_job_stop (LvDomain *lv, const json_t *record, TmkError **errp)
{
  return stop_libvirt (lv, record, errp) && stop_daemon (record, errp);
}

/* --- behind it ------------------------------------------------------------------------------- */

/* libvirt does so at the end of a job, but not where QEMU was killed. */
static void
remove_dead_socket (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  struct stat st;
  if (path == NULL || strlen (path) >= sizeof address.sun_path || lstat (path, &st) != 0
      || !S_ISSOCK (st.st_mode))
    return;
  strcpy (address.sun_path, path);
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect (fd, (struct sockaddr *) &address, sizeof address) != 0
      && errno == ECONNREFUSED)
    (void) unlink (path);
  if (fd >= 0)
    close (fd);
}

static void
remove_folder (const json_t *record)
{
  const char *folder = jsonx_string (record, "folder");
  remove_dead_socket (jsonx_string (record, "socket"));
  if (folder == NULL)
    return;
  g_autofree char *socket = g_build_filename (folder, "nbd", NULL);
  (void) unlink (socket); /* QEMU may have done so */
  (void) rmdir (folder);
}

/* Half a target is no use, and would be in the way. */
static bool
remove_targets (const json_t *record, TmkError **errp)
{
  size_t i;
  json_t *disk;
  json_array_foreach (json_object_get (record, "disks"), i, disk)
    if (jsonx_bool (disk, "made") && !fsx_remove (jsonx_string (disk, "target"), errp))
      return false;
  return true;
}

/* The images' lock is the state's. */
static bool
drop_from_images (LvDomain *lv, const char *name, TmkError **errp)
{
  lv_leave (lv);
  TmkError *err = NULL;
  TmkDomain *images = lv_images (lv, &err);
  bool ok = images != NULL && tmk_domain_checkpoint_delete (images, name, false, &err);
  if (!ok && (tmk_error_code (err) == TMK_ERR_NOT_FOUND)) {
    tmk_error_free (g_steal_pointer (&err));
    ok = true;
  }
  if (ok && images != NULL)
    lv_tell_libvirt (lv, name, NULL);
  if (!lv_enter (lv, ok ? errp : NULL))
    ok = false;
  error_propagate (errp, err);
  return ok;
}

static bool
drop_checkpoint (LvDomain *lv, const json_t *record, TmkError **errp)
{
  const char *name = jsonx_string (record, "checkpoint_name");
  if (name == NULL)
    return true;
  return lv->active ? live_checkpoint_purge (lv, name, errp) : drop_from_images (lv, name, errp);
}

static bool
is_done (const json_t *record)
{
  const char *state = jsonx_string (json_object_get (record, "result"), "state");
  return g_strcmp0 (state, "done") == 0;
}

/* What there is of it in files goes, and the record becomes the last one. */
static bool
make_last (LvDomain *lv, json_t *record, TmkError **errp)
{
  if ((!is_done (record) || lv_job_is_staged (record)) && !remove_targets (record, errp))
    return false;
  remove_folder (record);
  record_set_phase (record, "ended");
  json_object_set_new (record, "ended_us", json_integer (g_get_real_time ()));
  return state_write (lv->state, "libvirt-last", record, errp)
         && state_remove (lv->state, "libvirt-job", errp);
}

bool
lv_job_settle (LvDomain *lv, json_t *record, TmkError **errp)
{
  bool done = is_done (record);
  if (!lv_job_write (lv, record, errp))
    return false;
  if (!done && !drop_checkpoint (lv, record, errp))
    return false;
  return make_last (lv, record, errp);
}

bool
lv_job_settle_gone (LvDomain *lv, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (json_t) record = lv_job_read (lv, &err);
  error_propagate (errp, err);
  if (record == NULL)
    return err == NULL;
  if (!stop_daemon (record, errp))
    return false;
  error_set (&err, DOMAIN, TMK_ERR_GONE, 0, "domain '%s' has ended, and libvirt knows it no more",
             lv->name);
  error_hint (&err, "begin again when it runs");
  if (!lv_job_has_result (record))
    lv_job_set_result (record, "failed", err);
  tmk_error_free (err);
  return lv_job_write (lv, record, errp) && make_last (lv, record, errp);
}

bool
lv_job_cancel (LvDomain *lv, json_t *record, TmkError **errp)
{
  if (!lv_job_stop (lv, record, errp))
    return false;
  if (!lv_job_has_result (record))
    lv_job_set_result (record, "cancelled", NULL);
  return lv_job_settle (lv, record, errp);
}

bool
lv_job_put_away (LvDomain *lv, json_t *record, TmkError **errp)
{
  bool is_there = false;
  if (!lv_job_look (lv, record, errp)
      || (!lv_job_has_result (record) && !lv_job_is_there (lv, record, &is_there, errp)))
    return false;
  if (!lv_job_has_result (record) && !is_there) {
    error_set (errp, DOMAIN, TMK_ERR_BUSY, 0,
               "domain '%s': QEMU still writes what its last job made", lv->name);
    error_hint (errp, "try again when the storage has taken it all");
    return false;
  }
  if (lv_job_is_staged (record) && !jsonx_bool (record, "exported") && is_done (record))
    lv_job_clear_result (record); /* copies that nobody could read */
  return lv_job_cancel (lv, record, errp);
}

bool
lv_job_put_away_left (LvDomain *lv, TmkError **errp)
{
  TmkError *err = NULL;
  g_autoptr (json_t) record = lv_job_read (lv, &err);
  error_propagate (errp, err);
  return record != NULL ? lv_job_put_away (lv, record, errp) : err == NULL;
}
