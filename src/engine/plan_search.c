/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/plan_search.c: see engine/plan_search.h. */
#include "engine/plan_search.h"

#include <string.h>

void
plan_search_clear (PlanSearch *search)
{
  g_free (search->why_not);
  *search = (PlanSearch){ 0 };
}

bool
plan_is_own_point (const PlanInput *input, const Manifest *point)
{
  if (input->uuid != NULL && point->uuid != NULL)
    return g_ascii_strcasecmp (input->uuid, point->uuid) == 0;
  return g_strcmp0 (input->domain, point->domain) == 0;
}

const TmkBitmapInfo *
plan_find_bitmap (const TmkDiskInfo *disk, const char *name)
{
  for (size_t i = 0; i < disk->n_bitmaps; i++)
    if (g_str_equal (disk->bitmaps[i]->name, name))
      return disk->bitmaps[i];
  return NULL;
}

/* ---- is it that disk? --------------------------------------------------------------------- */

/* Where the image that was on top of `then` is in the chain now, or -1. Devices are not compared:
 * their numbers are given out anew at each start of the host. */
static int
place_in_chain (const PlanDisk *disk, const ManifestDisk *then)
{
  const ManifestImage *top = then->n_images > 0 ? &then->images[0] : NULL;
  for (size_t i = 0; top != NULL && top->path != NULL && i < disk->n_images; i++) {
    const ManifestImage *now = &disk->images[i];
    if (now->path != NULL && g_str_equal (now->path, top->path)
        && (now->inode == 0 || top->inode == 0 || now->inode == top->inode))
      return (int) i;
  }
  return -1;
}

/* Could both be one image? What is not known of either could be anything. */
static bool
could_be_same (const ManifestImage *now, const ManifestImage *then)
{
  return now->path == NULL || then->path == NULL
         || (g_str_equal (now->path, then->path)
             && (now->inode == 0 || then->inode == 0 || now->inode == then->inode));
}

/* The image now below the one at `place` that was not below it then, or NULL. A bitmap says nothing
 * of the images below its own. One that is gone is no matter: a commit or a stream has put what it
 * had into one that stayed, above or below. */
static const ManifestImage *
find_new_below (const PlanDisk *disk, int place, const ManifestDisk *then)
{
  size_t at = 1;
  for (size_t i = (size_t) place + 1; i < disk->n_images; i++) {
    while (at < then->n_images && !could_be_same (&disk->images[i], &then->images[at]))
      at++;
    if (at++ >= then->n_images)
      return &disk->images[i];
  }
  return NULL;
}

/* /dev/sdb, /dev/dm-3: names that the kernel gives out in the order in which it finds devices.
 * /dev/mapper/a, /dev/disk/by-id/b and files stay what they are. */
static bool
is_passing_name (const ManifestImage *image)
{
  return image->inode == 0 && g_str_has_prefix (image->path, "/dev/")
         && strchr (image->path + strlen ("/dev/"), '/') == NULL;
}

/* Has the point another disk with the same checkpoint and size, which this one could be? */
static bool
could_be_another (const Manifest *point, const ManifestDisk *then)
{
  for (size_t i = 0; i < point->n_disks; i++) {
    const ManifestDisk *other = &point->disks[i];
    if (other != then && other->size == then->size
        && g_strcmp0 (other->checkpoint, then->checkpoint) == 0)
      return true;
  }
  return false;
}

/* ---- is it that checkpoint? ---------------------------------------------------------------- */

/* How much earlier than the job a checkpoint is said to have been made, at most: seconds. */
#define CHECKPOINT_BEFORE_JOB 5

/* A name that was made up for the point is used once. A user's can be deleted and made again, for
 * another backup even, and what was written in between is in no bitmap of that name: only when it
 * was made tells. */
static bool
is_of_point (const PlanInput *input, const Manifest *point, const char *checkpoint)
{
  if (g_str_has_suffix (checkpoint, point->id))
    return true;
  int64_t instant = point->time_us / G_USEC_PER_SEC;
  for (size_t i = 0; input->checkpoints != NULL && i < input->checkpoints->n_checkpoints; i++) {
    const TmkCheckpointInfo *info = input->checkpoints->checkpoints[i];
    if (g_str_equal (info->name, checkpoint))
      return info->known && info->created <= instant
             && info->created >= instant - CHECKPOINT_BEFORE_JOB;
  }
  return false;
}

bool
plan_needs_checkpoints (const Manifest *const *points, size_t n_points)
{
  for (size_t i = 0; i < n_points; i++)
    for (size_t j = 0; j < points[i]->n_disks; j++) {
      const char *checkpoint = points[i]->disks[j].checkpoint;
      if (checkpoint != NULL && !g_str_has_suffix (checkpoint, points[i]->id))
        return true;
    }
  return false;
}

/* ---- can it be added to? ------------------------------------------------------------------- */

static bool G_GNUC_PRINTF (3, 4)
    refuse (PlanSearch *search, TmkErrorCode code, const char *format, ...)
{
  if (search->why_not != NULL)
    return false; /* the newest candidate's reason tells most */
  va_list ap;
  va_start (ap, format);
  search->why_not = g_strdup_vprintf (format, ap);
  va_end (ap);
  search->code = code;
  return false;
}

/* Can what the disk's bitmaps tell be added to `then` of `point`? `place`: where its top image is
 * in the chain. */
static bool
can_add (const PlanInput *input, const PlanDisk *disk, const Manifest *point,
         const ManifestDisk *then, int place, PlanSearch *search)
{
  if (then->checkpoint == NULL)
    return refuse (search, TMK_ERR_NOT_FOUND, "no checkpoint was kept at point " PLAN_ID_FORMAT,
                   point->id);
  if (then->chunk_size != input->chunk_size)
    return refuse (search, TMK_ERR_MISMATCH,
                   "point " PLAN_ID_FORMAT " has chunks of %u bytes, the repository now of %u",
                   point->id, then->chunk_size, input->chunk_size);
  const TmkBitmapInfo *bitmap = plan_find_bitmap (disk->disk, then->checkpoint);
  if (bitmap == NULL && input->untold)
    return refuse (search, TMK_ERR_NOT_FOUND,
                   "checkpoint '%s' is not known here; a backup looks for its bitmap in the image",
                   then->checkpoint);
  if (bitmap == NULL)
    return refuse (search, TMK_ERR_NOT_FOUND, "bitmap '%s' is gone", then->checkpoint);
  if (!bitmap->usable)
    return refuse (search, TMK_ERR_INCONSISTENT, "%s",
                   bitmap->why_not != NULL ? bitmap->why_not : "its bitmap cannot be used");
  if (!is_of_point (input, point, bitmap->name))
    return refuse (search, TMK_ERR_MISMATCH,
                   "checkpoint '%s' is not the one that was made at point " PLAN_ID_FORMAT
                   ", or its description is lost",
                   bitmap->name, point->id);
  if (bitmap->images != (unsigned) place + 1)
    return refuse (search, TMK_ERR_MISMATCH,
                   "bitmap '%s' begins at another image than point " PLAN_ID_FORMAT " had",
                   bitmap->name, point->id);
  if (is_passing_name (&disk->images[place]) && could_be_another (point, then))
    return refuse (search, TMK_ERR_MISMATCH,
                   "'%s' may be another device than at point " PLAN_ID_FORMAT
                   ": give QEMU a name that lasts (/dev/disk/by-id/…)",
                   disk->images[place].path, point->id);
  const ManifestImage *other = find_new_below (disk, place, then);
  if (other != NULL)
    return refuse (search, TMK_ERR_MISMATCH,
                   "the image below, '%s', is another one than at point " PLAN_ID_FORMAT,
                   other->path != NULL ? other->path : "(unknown)", point->id);
  search->base = point;
  search->base_disk = then;
  search->bitmap = bitmap;
  return true;
}

/* More than the newest, for that one may have been made while the image was elsewhere. */
#define UNTOLD_MAX 3

void
plan_search_untold (const PlanInput *input, const PlanDisk *disk, GPtrArray *names)
{
  for (size_t i = input->n_points; i-- > 0;) {
    const Manifest *point = input->points[i];
    for (size_t j = 0; j < point->n_disks; j++) {
      const ManifestDisk *then = &point->disks[j];
      /* A user's name says too little of which checkpoint it is; see is_of_point(). */
      if (then->checkpoint == NULL || !g_str_has_suffix (then->checkpoint, point->id)
          || place_in_chain (disk, then) < 0)
        continue;
      if (names->len == UNTOLD_MAX || then->size != disk->disk->size
          || plan_find_bitmap (disk->disk, then->checkpoint) != NULL)
        return;
      if (!g_ptr_array_find_with_equal_func (names, then->checkpoint, g_str_equal, NULL))
        g_ptr_array_add (names, then->checkpoint);
    }
  }
}

/* ---- searching ---------------------------------------------------------------------------- */

#define BY_NAME G_MAXINT /* a place behind all in the chain */

typedef struct {
  const char *checkpoint;  /* wanted, or NULL */
  const Manifest *by_name; /* the newest point with a disk of that name, which is another one */
  int previous_place;
  int resized_place; /* the highest image, in points seen so far, of a disk of another size */
} Walk;

static void
note_previous (const PlanInput *input, const PlanDisk *disk, const ManifestDisk *then, int place,
               Walk *walk, PlanSearch *search)
{
  if (then->size != disk->disk->size || then->chunk_size != input->chunk_size
      || (search->previous != NULL && walk->previous_place <= place))
    return;
  search->previous = then;
  walk->previous_place = place;
}

/* A point further down the chain may be one of this disk before a snapshot was taken, or one of a
 * template that many are made of. Only the first kind explains anything; but what bitmaps tell can
 * be added to either. */
static void
look_at_image (const PlanInput *input, const PlanDisk *disk, const Manifest *point,
               const ManifestDisk *then, int place, Walk *walk, PlanSearch *search)
{
  PlanSearch unused = { .why_not = NULL };
  bool tells = place == 0 || plan_is_own_point (input, point);
  search->expected = search->expected || (tells && then->checkpoint != NULL);
  if (then->size != disk->disk->size) {
    walk->resized_place = MIN (walk->resized_place, place);
    if (tells)
      refuse (search, TMK_ERR_MISMATCH,
              "resized from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " bytes", then->size,
              disk->disk->size);
    return;
  }
  /* It had another size since. That of an image below, which it left before, does not matter. */
  if (search->base != NULL || walk->resized_place <= place
      || (walk->checkpoint != NULL && g_strcmp0 (walk->checkpoint, then->checkpoint) != 0))
    return;
  can_add (input, disk, point, then, place, tells ? search : &unused);
  if (unused.base != NULL) {
    search->base = unused.base;
    search->base_disk = unused.base_disk;
    search->bitmap = unused.bitmap;
  }
  plan_search_clear (&unused);
}

static void
look_at (const PlanInput *input, const PlanDisk *disk, const Manifest *point,
         const ManifestDisk *then, Walk *walk, PlanSearch *search)
{
  int place = place_in_chain (disk, then);
  if (place >= 0) {
    note_previous (input, disk, then, place, walk, search);
    look_at_image (input, disk, point, then, place, walk, search);
  } else if (plan_is_own_point (input, point) && g_str_equal (then->name, disk->disk->name)) {
    note_previous (input, disk, then, BY_NAME, walk, search);
    search->expected = search->expected || then->checkpoint != NULL;
    if (walk->by_name == NULL)
      walk->by_name = point;
  }
}

/* A bitmap of this repository's that stands for no point. */
static const TmkBitmapInfo *
bitmap_without_point (const PlanInput *input, const PlanDisk *disk)
{
  for (size_t i = 0; input->prefix != NULL && i < disk->disk->n_bitmaps; i++) {
    const TmkBitmapInfo *bitmap = disk->disk->bitmaps[i];
    bool known = !g_str_has_prefix (bitmap->name, input->prefix);
    for (size_t j = 0; !known && j < input->n_points; j++)
      known = g_strcmp0 (input->points[j]->checkpoint, bitmap->name) == 0;
    if (!known)
      return bitmap;
  }
  return NULL;
}

/* Nothing to add to was found. */
static void
explain (const PlanInput *input, const PlanDisk *disk, const Walk *walk, PlanSearch *search)
{
  const char *image = disk->n_images > 0 ? disk->images[0].path : NULL;
  const TmkBitmapInfo *alone = bitmap_without_point (input, disk);
  if (alone != NULL && walk->resized_place > 0) {
    g_clear_pointer (&search->why_not, g_free);
    refuse (search, TMK_ERR_NOT_FOUND, "the repository has no point made at checkpoint '%s'",
            alone->name);
  }
  if (walk->by_name != NULL && image == NULL)
    refuse (search, TMK_ERR_UNSUPPORTED,
            "its image is no file or device, by which it could be known again");
  else if (walk->by_name != NULL)
    refuse (search, TMK_ERR_MISMATCH, "the image is another one than at point " PLAN_ID_FORMAT,
            walk->by_name->id);
  else if (walk->checkpoint != NULL)
    refuse (search, TMK_ERR_NOT_FOUND, "it has none of this disk");
  else
    refuse (search, TMK_ERR_NOT_FOUND, "new disk");
}

void
plan_search (const PlanInput *input, const PlanDisk *disk, const char *checkpoint,
             PlanSearch *search)
{
  Walk walk = { .checkpoint = checkpoint, .resized_place = BY_NAME };
  *search = (PlanSearch){ 0 };
  for (size_t i = input->n_points; i-- > 0;)
    for (size_t j = 0; j < input->points[i]->n_disks; j++)
      look_at (input, disk, input->points[i], &input->points[i]->disks[j], &walk, search);
  if (search->base != NULL)
    g_clear_pointer (&search->why_not, g_free);
  else
    explain (input, disk, &walk, search);
}
