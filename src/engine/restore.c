/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/restore.c: <tidemark/restore.h>.
 *
 * Find the point → open and check every destination → write out disk by disk → make all durable.
 * A disk with damage is read to its end, and so are those after it, so that the user learns of all
 * of it at once; then all is given up.
 */
#include "engine/define.h"
#include "engine/destinations.h"
#include "engine/writeout.h"
#include "repo/points.h"
#include "repo/repository.h"

#include <sys/eventfd.h>
#include <tidemark/restore.h>
#include <unistd.h>

#define DOMAIN "engine"

typedef struct {
  const TmkRestoreOptions *options;
  Repo *repo;
  const Manifest *manifest;
  const Destination *item; /* which disk is on the way */
  int cancel_fd;           /* readable once it is cancelled, or -1 */
  uint64_t written, damaged;
  unsigned ranges; /* that are damaged */
} Restore;

/* ---- what the user is told ------------------------------------------------------------------- */

static void
report (const Restore *self, uint64_t done, bool finished)
{
  const ManifestDisk *disk = self->item->disk;
  if (self->options->progress == NULL || self->item->file != NULL)
    return;
  /* What a manifest says of used bytes is not relied upon. */
  TmkRestoreProgress progress = { .disk = disk->name,
                                  .target = self->item->name,
                                  .done = done,
                                  .total = finished ? done : MAX (done, disk->used),
                                  .finished = finished };
  self->options->progress (&progress, self->options->data);
}

static bool
is_cancelled (const Restore *self)
{
  const TmkRestoreOptions *options = self->options;
  return options->cancelled != NULL && options->cancelled (options->data);
}

static bool
check_cancelled (const Restore *self, TmkError **errp)
{
  if (!is_cancelled (self))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_CANCELLED, 0, "cancelled");
  return false;
}

static bool
on_tick (uint64_t done, void *data)
{
  Restore *self = data;
  report (self, done, false);
  if (!is_cancelled (self))
    return true;
  if (self->cancel_fd >= 0)
    (void) eventfd_write (self->cancel_fd, 1); /* it can only fail if it is readable already */
  return false;
}

static void
on_damage (uint64_t offset, uint64_t length, const char *message, void *data)
{
  Restore *self = data;
  self->ranges++;
  if (self->options->damage == NULL)
    return;
  TmkDamage damage = { .point = self->manifest->id,
                       .disk = self->item->file == NULL ? self->item->disk->name : NULL,
                       .file = self->item->file != NULL ? self->item->disk->name : NULL,
                       .offset = offset,
                       .length = length,
                       .message = message };
  self->options->damage (&damage, self->options->data);
}

/* ---- the work -------------------------------------------------------------------------------- */

static bool
restore_disk (Restore *self, const Destination *item, TmkError **errp)
{
  Writeout job = { .repo = self->repo,
                   .disk = item->disk,
                   .sink = item->sink,
                   .block = item->block,
                   .verify = self->options->verify,
                   .threads = self->options->threads,
                   .tick = on_tick,
                   .damage = on_damage,
                   .data = self };
  WriteoutResult result;
  self->item = item;
  if (!check_cancelled (self, errp))
    return false;
  report (self, 0, false);
  if (!writeout_run (&job, &result, errp)) {
    error_prefix (errp, "%s '%s'", item->file != NULL ? "file" : "disk", item->disk->name);
    return false;
  }
  self->written += result.written;
  self->damaged += result.damaged;
  report (self, result.done, result.damaged == 0);
  return true;
}

static bool
check_damage (const Restore *self, const Destinations *destinations, TmkError **errp)
{
  if (self->ranges == 0)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0,
             "point '%s' is damaged: %" G_GUINT64_FORMAT " bytes in %u range%s of its disks cannot "
             "be had",
             self->manifest->id, self->damaged, self->ranges, self->ranges == 1 ? "" : "s");
  if (destinations->items[0].is_new_file)
    error_hint (errp, "nothing was restored; another point may have those ranges whole, and "
                      "'tidemark verify' makes the next backup store them anew");
  else
    error_hint (errp,
                "what is on '%s' now is worth nothing; another point may be whole, and "
                "'tidemark verify' makes the next backup store anew what is damaged",
                destinations->items[0].name);
  return false;
}

static bool
run (Restore *self, Destinations *destinations, TmkError **errp)
{
  for (size_t i = 0; i < destinations->n; i++)
    if (!restore_disk (self, &destinations->items[i], errp))
      return false;
  return check_damage (self, destinations, errp) && check_cancelled (self, errp)
         && destinations_finish (destinations, errp);
}

static Destinations *
open_destinations (const Restore *self, TmkError **errp)
{
  const TmkRestoreOptions *options = self->options;
  DestinationSpec spec
      = { .to = options->to,
          .format = options->format,
          .connections = options->threads != 0 ? options->threads : g_get_num_processors (),
          .cancel_fd = self->cancel_fd };
  if (options->disk == NULL)
    return destinations_open_all (self->manifest, &spec, errp);
  const ManifestDisk *disk = manifest_disk (self->manifest, options->disk);
  if (disk != NULL)
    return destinations_open_one (disk, &spec, errp);
  g_autoptr (GString) names = g_string_new (NULL);
  for (size_t i = 0; i < self->manifest->n_disks; i++)
    g_string_append_printf (names, "%s%s", i > 0 ? ", " : "", self->manifest->disks[i].name);
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "point '%s' has no disk '%s'", self->manifest->id,
             options->disk);
  error_hint (errp, "its disks: %s", names->str);
  return NULL;
}

/* ---- the public face ------------------------------------------------------------------------- */

/* Takes `domain`. */
static TmkRestoreResult *
result_new (const Restore *self, const Destinations *destinations, char *domain, gint64 began)
{
  TmkRestoreResult *result = g_new0 (TmkRestoreResult, 1);
  char **disks = g_new0 (char *, destinations->n + 1);
  char **targets = g_new0 (char *, destinations->n + 1);
  char **files = g_new0 (char *, destinations->n + 1);
  for (size_t i = 0; i < destinations->n; i++) {
    const Destination *item = &destinations->items[i];
    if (item->file != NULL) {
      files[result->n_files++] = g_strdup (item->name);
      continue;
    }
    disks[result->n_targets] = g_strdup (item->disk->name);
    targets[result->n_targets++] = g_strdup (item->name);
    result->size += item->disk->size;
  }
  result->written = self->written;
  result->elapsed_us = (uint64_t) (g_get_monotonic_time () - began);
  result->disks = (const char *const *) disks;
  result->targets = (const char *const *) targets;
  result->files = (const char *const *) files;
  result->domain = domain;
  return result;
}

void
tmk_restore_result_free (TmkRestoreResult *result)
{
  if (result == NULL)
    return;
  g_strfreev ((char **) result->disks);
  g_strfreev ((char **) result->targets);
  g_strfreev ((char **) result->files);
  g_free ((char *) result->domain);
  g_free (result);
}

TmkRestoreResult *
tmk_restore (TmkRepository *repository, const char *spec, const TmkRestoreOptions *options,
             TmkError **errp)
{
  gint64 began = g_get_monotonic_time ();
  Restore self = { .options = options, .repo = repository_repo (repository), .cancel_fd = -1 };
  g_autoptr (PointSet) points = points_load (self.repo, NULL, errp);
  if (points == NULL)
    return NULL;
  self.manifest = points_find (points, spec, errp);
  if (self.manifest == NULL)
    return NULL;
  /* For an NBD server that does not answer: without it only its own time limit would end that. */
  self.cancel_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  TmkRestoreResult *result = NULL;
  {
    bool ok = !options->define || define_check (self.manifest, options, errp);
    g_autoptr (Destinations) destinations = ok ? open_destinations (&self, errp) : NULL;
    char *name = NULL;
    ok = destinations != NULL && run (&self, destinations, errp);
    if (ok && options->define)
      ok = define_run (self.manifest, destinations, options, &name, errp);
    if (ok)
      result = result_new (&self, destinations, name, began);
  }
  if (self.cancel_fd >= 0)
    close (self.cancel_fd);
  return result;
}
