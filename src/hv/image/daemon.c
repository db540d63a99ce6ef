/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/image/daemon.c: the qemu-storage-daemon of images: found, started, ended; see
 * hv/image/images.h.
 *
 * What is remembered of it ("images" in the state folder), written before it is started and looked
 * at only with the domain's lock held:
 *
 *   folder     its own, mode 0700, with its monitor "qmp" and "pid"
 *   address    of which images it is
 *   disks      the same: target and path of each
 *   writable   are they open for writing?
 *   owner      the process with which it ends ("PID:START"), null: it has a job that outlives that
 *
 * It is found by the path of its pid file on its command line, see staging_daemon_of(); a pid that
 * was written down may be another process's today.
 */
#include "hv/image/images.h"

#include "hv/own_socket.h"
#include "hv/qmp/record.h"
#include "hv/qmp/staging.h"
#include "qmp/commands.h"
#include "util/fsx.h"
#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOMAIN "hv"
#define DAEMON "qemu-storage-daemon"
#define START_TIMEOUT_S 30
/* It may have much to write; killed, it would leave bitmaps of no use. */
#define END_TIMEOUT_S 120
#define LOOKS_PER_SIGNAL 20
#define SETTLE_US 10000
#define ATTEMPTS 3
#define LOCK_TIMEOUT_MS 30000
#define FIRST_LOCK_FD 10

static char *
in_folder (const json_t *doc, const char *name)
{
  const char *folder = jsonx_string (doc, "folder");
  return folder != NULL ? g_build_filename (folder, name, NULL) : g_strdup ("/nonexistent");
}

static pid_t
process_of (const json_t *doc)
{
  g_autofree char *pidfile = in_folder (doc, "pid");
  return staging_daemon_of (pidfile);
}

/* --- ending ---------------------------------------------------------------------------------- */

static void
reap (Images *images)
{
  if (images->child != 0 && waitpid (images->child, NULL, WNOHANG) != 0)
    images->child = 0;
}

/* It stores the bitmaps and closes the images. It is told more than once: a signal that comes just
 * before the daemon waits for events does not wake it up. */
static bool
stop (QmpMachine *machine, const json_t *doc, TmkError **errp)
{
  Images *images = machine->place_data;
  gint64 deadline = g_get_monotonic_time () + END_TIMEOUT_S * G_USEC_PER_SEC;
  g_autofree char *socket = in_folder (doc, "qmp");
  g_autofree char *pidfile = in_folder (doc, "pid");
  g_autofree char *folder = in_folder (doc, "");
  unsigned looks = 0;
  for (pid_t pid = process_of (doc); pid != 0; pid = process_of (doc), looks++) {
    if (looks == 0)
      testpoint ("daemon-end");
    if (looks % LOOKS_PER_SIGNAL == 0 && kill (pid, SIGTERM) != 0 && errno != ESRCH) {
      error_set_errno (errp, DOMAIN, errno, "cannot end '%s' (process %ld)", DAEMON, (long) pid);
      return false;
    }
    if (g_get_monotonic_time () > deadline) {
      error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, 0, "'%s' (process %ld) does not end", DAEMON,
                 (long) pid);
      error_hint (errp, "does the storage of the images answer?");
      return false;
    }
    g_usleep (2000);
    reap (images);
  }
  reap (images);
  if (images->keeper >= 0)
    close (images->keeper);
  images->keeper = -1;
  (void) unlink (socket); /* it may have removed them itself */
  (void) unlink (pidfile);
  (void) rmdir (folder);
  return state_remove (machine->state, "images", errp);
}

/* --- starting -------------------------------------------------------------------------------- */

/* In the daemon, before it runs. `data`: the process that it ends with, or 0. */
static void
become_daemon (gpointer data)
{
  pid_t parent = GPOINTER_TO_INT (data);
  (void) setsid (); /* Ctrl-C is for us, who have things to tidy up */
  if (parent == 0)
    return;
  (void) prctl (PR_SET_PDEATHSIG, SIGTERM);
  if (getppid () != parent)
    _exit (1); /* it has ended already */
}

/* Adds to `fds` what keeps others off the image of `disk` where the daemon itself does not. */
static bool
keep_image (const ImageDisk *disk, GArray *fds, TmkError **errp)
{
  struct stat st;
  TmkError *err = NULL;
  bool is_device = stat (disk->path, &st) == 0 && S_ISBLK (st.st_mode);
  int device = is_device ? image_hold_device (disk->target, disk->path, &err) : -1;
  if (device >= 0)
    g_array_append_val (fds, device);
  bool locks = g_str_equal (disk->format, "qcow2");
  int lock = err == NULL && !locks ? image_lock (disk->target, disk->path, &err) : -1;
  if (lock >= 0)
    g_array_append_val (fds, lock);
  error_propagate (errp, err);
  return err == NULL;
}

/* The daemon inherits them. */
static bool
take_locks (const Images *images, GArray *fds, TmkError **errp)
{
  for (guint i = 0; i < images->disks->len; i++)
    if (!keep_image (g_ptr_array_index (images->disks, i), fds, errp))
      return false;
  return true;
}

static bool
spawn (Images *images, const json_t *doc, bool outlives, const GArray *locks, int log,
       TmkError **errp)
{
  g_autofree char *socket = in_folder (doc, "qmp");
  g_autofree char *pidfile = in_folder (doc, "pid");
  g_auto (GStrv) parts = g_strsplit (socket, ",", -1);
  g_autofree char *escaped = g_strjoinv (",,", parts);
  g_autofree char *chardev = g_strdup_printf ("socket,id=qmp,path=%s,server=on,wait=off", escaped);
  const char *argv[]
      = { DAEMON, "--pidfile", pidfile, "--chardev", chardev, "--monitor", "chardev=qmp", NULL };
  g_autofree int *targets = g_new0 (int, locks->len + 1);
  for (guint i = 0; i < locks->len; i++)
    targets[i] = FIRST_LOCK_FD + (int) i;
  g_autoptr (GError) gerror = NULL;
  GSpawnFlags flags = G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL;
  testpoint ("images-daemon");
  bool ok = g_spawn_async_with_pipes_and_fds ("/", argv, NULL, flags, become_daemon,
                                              GINT_TO_POINTER (outlives ? 0 : getpid ()), -1, -1,
                                              log, (const int *) locks->data, targets, locks->len,
                                              &images->child, NULL, NULL, NULL, &gerror);
  testpoint ("images-daemon:done");
  if (ok)
    return true;
  images->child = 0;
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "cannot run '%s': %s", DAEMON, gerror->message);
  error_hint (errp, "powered-off disks need it: install it (with QEMU's system packages)");
  return false;
}

/* What the daemon had to say, as an error. */
static void
set_why_it_ended (int log, TmkError **errp)
{
  char said[2048] = "";
  ssize_t n = pread (log, said, sizeof said - 1, 0);
  said[MAX (n, 0)] = '\0';
  g_strchomp (said);
  error_set (errp, DOMAIN, TMK_ERR_FAILED, 0, "'%s' did not start: %s", DAEMON, said);
}

static bool
connect_to (QmpMachine *machine, const json_t *doc, TmkError **errp)
{
  QmpOptions options = { .greeting_timeout_ms = machine->monitor_timeout_ms };
  g_autofree char *socket = in_folder (doc, "qmp");
  g_autofree char *address = g_strconcat ("unix:", socket, NULL);
  machine->client = qmp_client_open (address, &options, errp);
  return machine->client != NULL;
}

/* Waits until the daemon answers. Who connects while it is still setting its monitor up can make it
 * hang for good in accept(), deaf to signals (QEMU 7.2): two of its threads then wait for the one
 * connection. Its pid file comes behind that; a thread may be late all the same. */
static bool
wait_for (QmpMachine *machine, const json_t *doc, int log, TmkError **errp)
{
  Images *images = machine->place_data;
  gint64 deadline = g_get_monotonic_time () + START_TIMEOUT_S * G_USEC_PER_SEC;
  g_autofree char *pidfile = in_folder (doc, "pid");
  while (access (pidfile, F_OK) != 0 && g_get_monotonic_time () < deadline) {
    g_usleep (2000);
    reap (images);
    if (images->child == 0) {
      set_why_it_ended (log, errp);
      return false;
    }
  }
  g_usleep (SETTLE_US);
  if (connect_to (machine, doc, errp))
    return true;
  /* No image is open yet, so nothing can be lost. */
  if (images->child != 0)
    (void) kill (images->child, SIGKILL);
  return false;
}

static bool
start_daemon (QmpMachine *machine, const json_t *doc, const GArray *locks, int log, TmkError **errp)
{
  Images *images = machine->place_data;
  for (unsigned attempt = 1;; attempt++) {
    g_autoptr (TmkError) err = NULL;
    if (spawn (images, doc, machine->outlives, locks, log, &err)
        && wait_for (machine, doc, log, &err))
      return true;
    bool hangs = tmk_error_code (err) == TMK_ERR_BUSY || tmk_error_code (err) == TMK_ERR_TIMEOUT;
    if (!hangs || attempt == ATTEMPTS || images->child == 0) {
      error_propagate (errp, g_steal_pointer (&err));
      return false;
    }
    (void) waitpid (images->child, NULL, 0);
    images->child = 0;
    g_autofree char *socket = in_folder (doc, "qmp");
    g_autofree char *pidfile = in_folder (doc, "pid");
    (void) unlink (socket);
    (void) unlink (pidfile);
  }
}

static bool
run_daemon (QmpMachine *machine, json_t *doc, TmkError **errp)
{
  Images *images = machine->place_data;
  bool writable = jsonx_bool (doc, "writable");
  g_autoptr (GArray) locks = g_array_new (FALSE, FALSE, sizeof (int));
  int log = memfd_create ("log", MFD_CLOEXEC);
  bool ok = take_locks (images, locks, errp) && start_daemon (machine, doc, locks, log, errp);
  for (guint i = 0; i < locks->len; i++)
    close (g_array_index (locks, int, i));
  if (log >= 0)
    close (log);
  if (ok && !machine->outlives)
    images->keeper = keeper_start (process_of (doc));
  for (guint i = 0; ok && i < images->disks->len; i++)
    ok = nodes_open (machine, g_ptr_array_index (images->disks, i), writable, errp);
  return ok;
}

/* Its first half says to which state folder it belongs. */
static char *
folder_name (const QmpMachine *machine)
{
  g_autofree char *hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, machine->root, -1);
  return g_strdup_printf ("%s/tidemark-images-%.8s-%08x", own_socket_base_folder (), hash,
                          g_random_int ());
}

static bool
start (QmpMachine *machine, bool writable, TmkError **errp)
{
  Images *images = machine->place_data;
  for (guint i = 0; i < images->disks->len; i++) {
    ImageDisk *disk = g_ptr_array_index (images->disks, i);
    struct stat st;
    if (!image_check_path (disk, disk->path, &st, errp)
        || !image_choose_format (disk, machine->given, errp))
      return false;
  }
  g_autofree char *folder = folder_name (machine);
  g_autofree char *owner = machine_process (getpid ());
  g_autoptr (json_t) doc
      = json_pack ("{s:s, s:s, s:o, s:b, s:s?}", "folder", folder, "address", machine->address,
                   "disks", images_note_disks (images), "writable", writable, "owner", owner);
  if (!state_write (machine->state, "images", doc, errp))
    return false;
  bool ok = mkdir (folder, 0700) == 0;
  if (!ok)
    error_set_errno (errp, DOMAIN, errno, "cannot make the folder '%s'", folder);
  if (ok)
    ok = run_daemon (machine, doc, errp);
  if (ok && machine->outlives) {
    json_object_set_new (doc, "owner", json_null ());
    ok = state_write (machine->state, "images", doc, errp);
  }
  if (ok) {
    g_free (images->folder);
    images->folder = g_steal_pointer (&folder);
    return true;
  }
  g_clear_pointer (&machine->client, qmp_client_free);
  (void) stop (machine, doc, NULL); /* why it failed tells more */
  return false;
}

/* --- finding --------------------------------------------------------------------------------- */

/* Does a job run in the daemon of `doc`? */
static bool
has_job (QmpMachine *machine, const json_t *doc)
{
  g_autoptr (json_t) record = state_read (machine->state, "job", NULL);
  const char *instance = jsonx_string (record, "instance");
  pid_t pid = process_of (doc);
  g_autofree char *its = pid != 0 ? machine_process (pid) : NULL;
  return record != NULL && its != NULL && g_strcmp0 (its, instance) == 0;
}

static bool
is_doomed (const json_t *doc)
{
  const char *owner = jsonx_string (doc, "owner");
  return owner != NULL && !machine_instance_lives (owner);
}

static bool
is_of_these (const QmpMachine *machine, const json_t *doc)
{
  return g_strcmp0 (jsonx_string (doc, "address"), machine->address) == 0;
}

static bool
must_write (EnterMode mode)
{
  return mode == ENTER_CHANGE || mode == ENTER_GONE_TOO;
}

/* The images of a domain can change while a job runs, as nothing else does: who only looks at the
 * job, or ends it, does so on those that it has. */
static bool
use_those_of_job (QmpMachine *machine, const json_t *doc, EnterMode mode, TmkError **errp)
{
  bool of_job = mode == ENTER_LOOK || mode == ENTER_GONE_TOO;
  if (of_job && images_use_noted (machine->place_data, json_object_get (doc, "disks")))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "a job of this domain runs on other images");
  error_hint (errp, "end it first with 'tidemark end' or 'tidemark abort', or wait for it; or name"
                    " the same images as for the job");
  return false;
}

/* Is it what is needed? */
static bool
suits (const QmpMachine *machine, const json_t *doc, EnterMode mode)
{
  bool outlives = jsonx_string (doc, "owner") == NULL;
  return mode == ENTER_LOOK
         || ((jsonx_bool (doc, "writable") || !must_write (mode))
             && (outlives || !machine->outlives));
}

static bool
attach (QmpMachine *machine, const json_t *doc, EnterMode mode, TmkError **errp)
{
  Images *images = machine->place_data;
  if (!connect_to (machine, doc, errp))
    return false;
  if (must_write (mode) && jsonx_bool (doc, "writable"))
    nodes_set_writable (machine, true); /* they are read-only while a job reads */
  g_free (images->folder);
  images->folder = g_strdup (jsonx_string (doc, "folder"));
  return true;
}

bool
images_connect (QmpMachine *machine, EnterMode mode, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  reap (machine->place_data);
  images_use_given (machine->place_data);
  g_autoptr (json_t) doc = state_read (machine->state, "images", &err);
  if (err != NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return false;
  }
  if (doc != NULL && !is_doomed (doc) && process_of (doc) != 0) {
    bool in_use = has_job (machine, doc);
    if (in_use && !is_of_these (machine, doc) && !use_those_of_job (machine, doc, mode, errp))
      return false;
    if (in_use || (is_of_these (machine, doc) && suits (machine, doc, mode)))
      return attach (machine, doc, mode, errp);
  }
  if (mode == ENTER_LOOK) {
    error_set (errp, DOMAIN, TMK_ERR_GONE, 0, "no daemon serves the images");
    return false;
  }
  return (doc == NULL || stop (machine, doc, errp)) && start (machine, must_write (mode), errp);
}

void
images_leave_for_good (QmpMachine *machine)
{
  Images *images = machine->place_data;
  g_autofree char *self = machine_process (getpid ());
  /* A daemon that cannot be ended now ends with us. */
  if (images->folder != NULL && state_lock (machine->state, LOCK_TIMEOUT_MS, NULL)) {
    g_autoptr (json_t) doc = state_read (machine->state, "images", NULL);
    g_autoptr (json_t) record = state_read (machine->state, "job", NULL);
    const char *owner = jsonx_string (doc, "owner");
    if (doc != NULL && (owner == NULL ? record == NULL : g_strcmp0 (owner, self) == 0))
      (void) stop (machine, doc, NULL);
    state_unlock (machine->state);
  }
  reap (images);
  if (images->keeper >= 0)
    close (images->keeper);
  g_ptr_array_unref (images->given);
  g_ptr_array_unref (images->disks);
  g_free (images->folder);
  g_free (images);
}
