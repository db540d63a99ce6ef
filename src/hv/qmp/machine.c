/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/machine.c: see hv/qmp/machine.h: opening, entering and leaving a bare QEMU. */
#include "hv/qmp/machine.h"

#include "hv/qmp/bitmaps.h"
#include "hv/qmp/job.h"
#include "hv/qmp/scratch.h"
#include "qmp/commands.h"
#include "util/fsx.h"

#include <stdio.h>
#include <string.h>

#define DOMAIN "hv"
#define LOCK_TIMEOUT_MS 30000

/* --- which QEMU ------------------------------------------------------------------------------ */

/* Field 22 of /proc/PID/stat, the process's start in clock ticks since boot; NULL if it is gone.
 * One that has ended and is only not yet waited for is gone. */
static char *
process_start (long pid)
{
  g_autofree char *path = g_strdup_printf ("/proc/%ld/stat", pid);
  size_t len;
  g_autofree char *text = fsx_read_file (path, 65536, &len, NULL);
  const char *tail = text != NULL ? strrchr (text, ')') : NULL; /* the name may hold anything */
  if (tail == NULL)
    return NULL;
  g_auto (GStrv) fields = g_strsplit (tail + 1, " ", 0);
  if (g_strv_length (fields) < 21 || g_str_equal (fields[1], "Z") || g_str_equal (fields[1], "X"))
    return NULL;
  return g_strdup (fields[20]);
}

char *
machine_process (long pid)
{
  g_autofree char *start = process_start (pid);
  return start != NULL ? g_strdup_printf ("%ld:%s", pid, start) : NULL;
}

char *
machine_instance (QmpMachine *machine)
{
  pid_t pid = 0;
  uid_t uid;
  gid_t gid;
  if (machine->client == NULL || !qmp_client_peer (machine->client, &pid, &uid, &gid) || pid <= 0)
    return NULL;
  return machine_process ((long) pid);
}

bool
machine_instance_lives (const char *instance)
{
  long pid;
  int end = 0;
  if (instance == NULL || sscanf (instance, "%ld:%n", &pid, &end) != 1 || end == 0)
    return false;
  g_autofree char *start = process_start (pid);
  return g_strcmp0 (start, instance + end) == 0;
}

static bool
identify (QmpMachine *machine, char **key, TmkError **errp)
{
  g_autoptr (json_t) batch = json_array ();
  qmp_batch_add (batch, "query-uuid", NULL);
  qmp_batch_add (batch, "query-name", NULL);
  g_autoptr (json_t) said = qmp_execute_all (machine->client, batch, NULL, errp);
  if (said == NULL)
    return false;
  *key = state_key (jsonx_string (json_array_get (said, 0), "UUID"), machine->address);
  g_free (machine->uuid);
  machine->uuid = g_str_has_prefix (*key, "at-") ? NULL : g_strdup (*key);
  g_free (machine->name);
  machine->name = g_strdup (jsonx_string (json_array_get (said, 1), "name"));
  return true;
}

/* --- entering -------------------------------------------------------------------------------- */

/* The disks of a virtual machine that runs. */
static GPtrArray *
running_disks (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (json_t) batch = json_array ();
  qmp_batch_add (batch, "query-block", NULL);
  qmp_batch_add (batch, "query-blockstats", NULL);
  qmp_batch_add (batch, "query-named-block-nodes", NULL);
  g_autoptr (json_t) said = qmp_execute_all (machine->client, batch, NULL, errp);
  if (said == NULL)
    return NULL;
  GPtrArray *disks = qmp_disks_new (json_array_get (said, 0), json_array_get (said, 1),
                                    json_array_get (said, 2), errp);
  if (disks != NULL && machine->given != NULL)
    qmp_disks_apply_names (disks, machine->given);
  return disks;
}

bool
machine_refresh (QmpMachine *machine, TmkError **errp)
{
  GPtrArray *disks = machine->place->disks (machine, errp);
  if (disks == NULL)
    return false;
  g_clear_pointer (&machine->disks, g_ptr_array_unref);
  machine->disks = disks;
  tmk_domain_def_free (machine->def);
  machine->def = qmp_disks_to_def (disks, machine->name, machine->uuid);
  return true;
}

/* A pull whose scratch does not answer must not be made worse, see hv/qmp/scratch.h. */
static bool
may_ask (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (json_t) record = state_read (machine->state, "job", NULL);
  return scratch_answers (record, errp);
}

static bool
connect_running (QmpMachine *machine, EnterMode mode, TmkError **errp)
{
  (void) mode; /* QEMU has its images open as it has them */
  g_autofree char *key = NULL;
  QmpOptions options = { .greeting_timeout_ms = machine->monitor_timeout_ms };
  machine->client = qmp_client_open (machine->address, &options, errp);
  if (machine->client == NULL || !identify (machine, &key, errp))
    return false;
  if (g_strcmp0 (key, machine->key) != 0) {
    if (machine->state != NULL)
      state_unlock (machine->state);
    g_clear_pointer (&machine->state, state_free);
    machine->state = state_open (machine->root, key, machine->address, errp);
    if (machine->state == NULL || !state_lock (machine->state, LOCK_TIMEOUT_MS, errp))
      return false;
    g_free (machine->key);
    machine->key = g_steal_pointer (&key);
  }
  return true;
}

static bool
enter_live (QmpMachine *machine, EnterMode mode, TmkError **errp)
{
  if (!machine->place->connect (machine, mode, errp))
    return false;
  if (mode == ENTER_LOOK)
    return true;
  if (!may_ask (machine, errp) || !machine_refresh (machine, errp))
    return false;
  /* Images that are powered off may be open read-only. */
  return (machine->place->powered_off && mode != ENTER_CHANGE) || job_do_pending (machine, errp);
}

/* The lock comes before the monitor, so that processes of ours never meet 'monitor busy'. The key
 * that tells which lock is known from the last time this address was used. */
static bool
lock_by_address (QmpMachine *machine, TmkError **errp)
{
  if (machine->state == NULL) {
    g_autofree char *key = state_key_at_address (machine->root, machine->address);
    if (key == NULL)
      return true;
    machine->state = state_open (machine->root, key, machine->address, errp);
    if (machine->state == NULL)
      return false;
    machine->key = g_steal_pointer (&key);
  }
  return state_lock (machine->state, LOCK_TIMEOUT_MS, errp);
}

bool
machine_enter (QmpMachine *machine, EnterMode mode, TmkError **errp)
{
  g_assert (!machine->entered);
  machine->entered = true;
  if (!lock_by_address (machine, errp)) {
    machine->entered = false;
    return false;
  }
  if (mode == ENTER_RECORD && machine->state != NULL)
    return true;
  g_autoptr (TmkError) err = NULL;
  if (enter_live (machine, mode == ENTER_RECORD ? ENTER_LOOK : mode, &err))
    return true;
  g_clear_pointer (&machine->client, qmp_client_free);
  bool gone = tmk_error_code (err) == TMK_ERR_GONE || tmk_error_code (err) == TMK_ERR_NOT_FOUND;
  bool may_be_gone = mode == ENTER_LOOK || (mode == ENTER_GONE_TOO && !machine->place->powered_off);
  if (may_be_gone && gone && machine->state != NULL) {
    g_clear_pointer (&machine->disks, g_ptr_array_unref);
    return true;
  }
  error_propagate (errp, g_steal_pointer (&err));
  machine_leave (machine);
  return false;
}

void
machine_leave (QmpMachine *machine)
{
  g_clear_pointer (&machine->client, qmp_client_free);
  if (machine->state != NULL)
    state_unlock (machine->state);
  machine->entered = false;
}

QmpDisk *
machine_disk (QmpMachine *machine, const char *name, TmkError **errp)
{
  QmpDisk *disk = qmp_disks_find (machine->disks, name);
  if (disk == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "no disk named '%s'", name);
    error_hint (errp, "'tidemark disks' shows the names of the disks");
    return NULL;
  }
  const char *why_not = qmp_disk_why_not (disk);
  if (why_not != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "disk '%s' cannot be backed up: %s", name,
               why_not);
    error_hint (errp, "leave it out: <disk name='%s' backup='no'/>", name);
    return NULL;
  }
  return disk;
}

/* --- the list of disks ----------------------------------------------------------------------- */

/* The property is on the device or on its controller. */
bool
machine_in_iothread (QmpMachine *machine, const char *qom_path)
{
  if (qom_path == NULL)
    return false;
  g_autofree char *path = g_strdup (qom_path);
  for (int level = 0; level < 2; level++) {
    g_autoptr (json_t) iothread
        = qmp_execute (machine->client, "qom-get",
                       json_pack ("{s:s, s:s}", "path", path, "property", "iothread"), NULL);
    if (iothread != NULL) {
      const char *value = json_string_value (iothread);
      return value != NULL && *value != '\0';
    }
    g_autoptr (json_t) bus
        = qmp_execute (machine->client, "qom-get",
                       json_pack ("{s:s, s:s}", "path", path, "property", "parent_bus"), NULL);
    const char *bus_path = json_string_value (bus);
    const char *slash = bus_path != NULL ? strrchr (bus_path, '/') : NULL;
    if (slash == NULL || slash == bus_path)
      return false;
    char *up = g_strndup (bus_path, (gsize) (slash - bus_path));
    g_free (path);
    path = up;
  }
  return false;
}

bool
machine_is_shared (QmpMachine *machine, const char *qom_path)
{
  if (qom_path == NULL)
    return false;
  g_autoptr (json_t) shared
      = qmp_execute (machine->client, "qom-get",
                     json_pack ("{s:s, s:s}", "path", qom_path, "property", "share-rw"), NULL);
  return json_is_true (shared);
}

static const TmkBitmapInfo *
show_bitmap (HvArena *arena, const QmpDisk *disk, const char *name)
{
  g_autoptr (BitmapChain) chain = bitmap_chain_look (disk, name);
  const NodeBitmap *bitmap = NULL;
  for (guint i = 0; bitmap == NULL && i < disk->chain->len; i++)
    bitmap = disk_image_bitmap (g_ptr_array_index (disk->chain, i), name);
  TmkBitmapInfo *info = hv_arena_alloc (arena, sizeof *info);
  info->name = hv_arena_string (arena, name);
  info->dirty_bytes = chain->dirty;
  info->granularity = bitmap->granularity;
  info->persistent = bitmap->persistent;
  info->recording = bitmap->recording;
  info->inconsistent = bitmap->inconsistent;
  info->busy = bitmap->busy;
  info->images = chain->images;
  info->usable = chain->why_not == NULL;
  info->why_not = hv_arena_string (arena, chain->why_not);
  return info;
}

/* QEMU's folder, by which it takes relative names; NULL where that cannot be told. */
static char *
working_folder (QmpMachine *machine)
{
  g_autofree char *instance = machine_instance (machine);
  if (instance == NULL)
    return NULL;
  g_autofree char *link
      = g_strdup_printf ("/proc/%ld/cwd", (long) g_ascii_strtoll (instance, NULL, 10));
  return g_file_read_link (link, NULL);
}

/* One that may not be what it seems is worse than none: a disk is known again by its images. */
static char *
image_path (const DiskImage *image, const char *folder)
{
  bool has_path = g_strcmp0 (image->file_driver, "file") == 0
                  || g_strcmp0 (image->file_driver, "host_device") == 0;
  if (!has_path || image->filename == NULL || *image->filename == '\0')
    return NULL;
  if (*image->filename == '/')
    return g_strdup (image->filename);
  return folder != NULL ? g_canonicalize_filename (image->filename, folder) : NULL;
}

static void
show_images (HvArena *arena, const QmpDisk *disk, const char *folder, TmkDiskInfo *info)
{
  const char **images = hv_arena_alloc (arena, disk->chain->len * sizeof *images);
  for (guint i = 0; i < disk->chain->len; i++) {
    g_autofree char *path = image_path (g_ptr_array_index (disk->chain, i), folder);
    images[i] = hv_arena_string (arena, path);
  }
  info->n_images = disk->chain->len;
  info->images = images;
}

static const TmkDiskInfo *
show_disk (HvArena *arena, const QmpDisk *disk, const char *folder)
{
  TmkDiskInfo *info = hv_arena_alloc (arena, sizeof *info);
  const DiskImage *active = qmp_disk_active (disk);
  info->name = hv_arena_string (arena, disk->name);
  info->qdev = hv_arena_string (arena, disk->qdev);
  if (active != NULL) {
    info->node = hv_arena_string (arena, active->node);
    info->format = hv_arena_string (arena, active->driver);
    info->source = hv_arena_string (arena, active->filename);
    info->size = active->size;
  }
  info->read_only = disk->read_only;
  info->removable = disk->removable;
  info->empty = disk->empty;
  info->firmware = disk->firmware;
  info->iothread = disk->iothread;
  info->why_not = qmp_disk_why_not (disk);
  info->no_checkpoint = hv_arena_string (arena, disk->no_checkpoint);
  info->eligible = info->why_not == NULL;
  info->aside = !info->eligible
                && (disk->empty || disk->read_only || disk->removable || disk->firmware
                    || disk->qdev == NULL);
  info->chain = disk->chain->len;
  show_images (arena, disk, folder, info);
  g_autoptr (GPtrArray) names = bitmap_names (disk);
  const TmkBitmapInfo **bitmaps = hv_arena_alloc (arena, names->len * sizeof *bitmaps);
  for (guint i = 0; i < names->len; i++)
    bitmaps[i] = show_bitmap (arena, disk, g_ptr_array_index (names, i));
  info->n_bitmaps = names->len;
  info->bitmaps = bitmaps;
  return info;
}

TmkDiskList *
machine_disks (TmkDomain *domain, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_LIVE, errp))
    return NULL;
  g_autofree char *folder = working_folder (machine);
  HvDiskList *list = g_new0 (HvDiskList, 1);
  list->arena = hv_arena_new ();
  guint n = machine->disks->len;
  const TmkDiskInfo **disks = hv_arena_alloc (list->arena, n * sizeof *disks);
  for (guint i = 0; i < n; i++) {
    QmpDisk *disk = g_ptr_array_index (machine->disks, i);
    disk->iothread = machine_in_iothread (machine, disk->qom_path);
    disk->shared = machine_is_shared (machine, disk->qom_path);
    disks[i] = show_disk (list->arena, disk, folder);
  }
  list->public_part.n_disks = n;
  list->public_part.disks = disks;
  machine_leave (machine);
  return &list->public_part;
}

/* --- opening --------------------------------------------------------------------------------- */

static void
machine_free (TmkDomain *domain)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (machine->entered)
    machine_leave (machine);
  if (machine->place->leave_for_good != NULL)
    machine->place->leave_for_good (machine);
  g_free (machine->address);
  g_free (machine->root);
  g_free (machine->key);
  g_free (machine->name);
  g_free (machine->uuid);
  tmk_domain_def_free (machine->given);
  tmk_domain_def_free (machine->def);
  g_clear_pointer (&machine->disks, g_ptr_array_unref);
  state_free (machine->state);
  g_free (machine);
}

static const TmkDomainDef *
machine_def (TmkDomain *domain)
{
  QmpMachine *machine = (QmpMachine *) domain;
  /* Where that fails there is nothing to tell of. */
  if (machine->def == NULL && machine_enter (machine, ENTER_LIVE, NULL))
    machine_leave (machine);
  if (machine->def == NULL)
    machine->def = domain_def_new ();
  return machine->def;
}

static int
machine_reserve (TmkDomain *domain, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_RECORD, errp))
    return -1;
  int fd = state_reserve (machine->state, errp);
  machine_leave (machine);
  return fd;
}

/* A QEMU's monitor tells nothing that could define it again. */
static TmkDomainDescription *
machine_describe (TmkDomain *domain, TmkError **errp)
{
  return &hv_description_new ()->public_part;
}

/* The bitmaps are looked at each time: there is nothing that it has to be told. */
static bool
machine_checkpoint_adopt (TmkDomain *domain, const char *name, const char *const *disks,
                          TmkError **errp)
{
  return true;
}

static const HvDriver qmp_driver = {
  .name = "qmp",
  .free = machine_free,
  .def = machine_def,
  .describe = machine_describe,
  .inspect = machine_inspect,
  .disks = machine_disks,
  .begin = machine_begin,
  .job_xml = machine_job_xml,
  .job_status = machine_job_status,
  .open_disk = machine_open_disk,
  .end = machine_end,
  .abort = machine_abort,
  .checkpoints = machine_checkpoints,
  .checkpoint_create = machine_checkpoint_create,
  .checkpoint_xml = machine_checkpoint_xml,
  .checkpoint_delete = machine_checkpoint_delete,
  .checkpoint_delete_from = machine_checkpoint_delete_from,
  .checkpoint_adopt = machine_checkpoint_adopt,
  .reserve = machine_reserve,
};

/* HMP's qemu-io changes that one option and keeps all others, of nodes too that QEMU made itself;
 * blockdev-reopen would have to be told every one anew, and they cannot be asked for. */
static void
reopen_node (QmpMachine *machine, const char *node, bool writable)
{
  g_autofree char *line
      = g_strdup_printf ("qemu-io %s \"reopen %s\"", node, writable ? "-w" : "-r");
  (void) qmp_run (machine->client, "human-monitor-command",
                  json_pack ("{s:s}", "command-line", line), NULL);
}

static void
reopen_running (QmpMachine *machine, const QmpDisk *disk, const DiskImage *image, bool writable)
{
  (void) disk;
  if (image->file_read_only && writable)
    reopen_node (machine, image->file_node, true);
  reopen_node (machine, image->node, writable);
  if (image->file_read_only && !writable)
    reopen_node (machine, image->file_node, false);
}

static const QmpPlace running_place = {
  .connect = connect_running,
  .disks = running_disks,
  .reopen = reopen_running,
};

QmpMachine *
machine_new (const QmpPlace *place, char *address, const TmkDomainOptions *options)
{
  QmpMachine *machine = g_new0 (QmpMachine, 1);
  machine->base.driver = &qmp_driver;
  machine->place = place;
  machine->address = address;
  machine->root
      = options->state_dir != NULL ? g_strdup (options->state_dir) : state_default_root ();
  machine->monitor_timeout_ms = options->monitor_timeout_ms;
  if (options->domain != NULL)
    machine->given = domain_def_copy (options->domain);
  return machine;
}

TmkDomain *
tmk_domain_open_qmp (const char *addr, const TmkDomainOptions *options, TmkError **errp)
{
  static const TmkDomainOptions none;
  char *address = qmp_address_normalize (addr, errp);
  if (address == NULL)
    return NULL;
  QmpMachine *machine = machine_new (&running_place, address, options != NULL ? options : &none);
  g_autoptr (TmkDomain) domain = &machine->base;
  if (!machine_enter (machine, ENTER_LOOK, errp))
    return NULL;
  machine_leave (machine);
  return g_steal_pointer (&domain);
}
