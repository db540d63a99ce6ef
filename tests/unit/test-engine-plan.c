/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: what is incremental, since what, and why not, follows from the disks, their bitmaps and
 * the points alone; an incremental is never added to the tree of another disk, size or checkpoint;
 * and no checkpoint that is still of use is given up.
 */
#include "engine/plan_search.h"
#include "hv/hv.h"

#include <string.h>

#define MIB (1u << 20)
#define CHUNK (64u << 10)
#define PREFIX "tidemark-0a0b0c0d-"
/* Of a point by its one digit. */
#define ID(n) n n n n n n n n n n n n n n n n
#define C(n) PREFIX ID (n)

/* ---- a case ------------------------------------------------------------------------------- */

typedef struct {
  HvArena *arena;
  GPtrArray *disks, *images, *manifests, *damaged;
  GArray *n_images;
  TmkBackupOptions options;
  TmkBackupDef *def;
  TmkCheckpointInfo *infos[8];
  TmkCheckpointList list;
  const char *uuid;
  Plan *plan;
  TmkError *err;
} Case;

static void
case_init (Case *c)
{
  *c = (Case){ 0 };
  c->arena = hv_arena_new ();
  c->disks = g_ptr_array_new ();
  c->images = g_ptr_array_new ();
  c->n_images = g_array_new (FALSE, FALSE, sizeof (size_t));
  c->manifests = g_ptr_array_new_with_free_func ((GDestroyNotify) manifest_free);
  c->damaged = g_ptr_array_new ();
  c->list.checkpoints = (const TmkCheckpointInfo *const *) c->infos;
}

static void
case_clear (Case *c)
{
  plan_free (c->plan);
  tmk_error_free (c->err);
  tmk_backup_def_free (c->def);
  g_ptr_array_unref (c->disks);
  g_ptr_array_unref (c->images);
  g_array_unref (c->n_images);
  g_ptr_array_unref (c->manifests);
  g_ptr_array_unref (c->damaged);
  hv_arena_free (c->arena);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Case, case_clear)

/* "/a#7 /b - /c" → images; '#' and the inode may be missing, "-" has no path. */
static ManifestImage *
parse_images (const char *text, size_t *n)
{
  g_auto (GStrv) words = g_strsplit (text, " ", -1);
  *n = *text != '\0' ? g_strv_length (words) : 0;
  ManifestImage *images = g_new0 (ManifestImage, *n + 1);
  for (size_t i = 0; i < *n; i++) {
    char *inode = strchr (words[i], '#');
    if (inode != NULL) {
      *inode = '\0';
      images[i].inode = g_ascii_strtoull (inode + 1, NULL, 10);
      images[i].device = 5;
    }
    images[i].path = g_str_equal (words[i], "-") ? NULL : g_strdup (words[i]);
  }
  return images;
}

static TmkDiskInfo *
add_disk (Case *c, const char *name, guint64 size, const char *images)
{
  TmkDiskInfo *disk = hv_arena_alloc (c->arena, sizeof *disk);
  disk->name = name;
  disk->size = size;
  disk->eligible = true;
  disk->bitmaps = hv_arena_alloc (c->arena, 8 * sizeof *disk->bitmaps);
  size_t n;
  ManifestImage *parsed = parse_images (images, &n);
  ManifestImage *kept = hv_arena_alloc (c->arena, (n + 1) * sizeof *kept);
  for (size_t i = 0; i < n; i++) {
    kept[i] = parsed[i];
    kept[i].path = (char *) hv_arena_string (c->arena, parsed[i].path);
    g_free (parsed[i].path);
  }
  g_free (parsed);
  g_ptr_array_add (c->disks, disk);
  g_ptr_array_add (c->images, kept);
  g_array_append_val (c->n_images, n);
  return disk;
}

static TmkDiskInfo *
add_odd_disk (Case *c, const char *name, const char *why_not)
{
  TmkDiskInfo *disk = add_disk (c, name, MIB, "/odd");
  disk->eligible = false;
  disk->why_not = why_not;
  return disk;
}

static TmkBitmapInfo *
add_bitmap (Case *c, TmkDiskInfo *disk, const char *name, guint64 dirty, unsigned images)
{
  TmkBitmapInfo *bitmap = hv_arena_alloc (c->arena, sizeof *bitmap);
  bitmap->name = name;
  bitmap->dirty_bytes = dirty;
  bitmap->usable = true;
  bitmap->images = images;
  ((const TmkBitmapInfo **) disk->bitmaps)[disk->n_bitmaps++] = bitmap;
  return bitmap;
}

/* A point of domain "vm" with `n` disks, made at `id`'s own checkpoint, one minute after the one
 * before. */
static Manifest *
add_point (Case *c, const char *id, size_t n)
{
  Manifest *point = manifest_new (n);
  g_strlcpy (point->id, id, sizeof point->id);
  point->domain = g_strdup ("vm");
  point->checkpoint = g_strconcat (PREFIX, id, NULL);
  point->time_us = (1000 + 60 * (int64_t) c->manifests->len) * G_USEC_PER_SEC;
  g_ptr_array_add (c->manifests, point);
  return point;
}

static ManifestDisk *
set_disk (Manifest *point, size_t i, const char *name, guint64 size, const char *images)
{
  ManifestDisk *disk = &point->disks[i];
  disk->name = g_strdup (name);
  disk->size = size;
  disk->chunk_size = CHUNK;
  disk->checkpoint = g_strdup (point->checkpoint);
  disk->images = parse_images (images, &disk->n_images);
  return disk;
}

/* A point of one disk. */
static ManifestDisk *
add_point_of (Case *c, const char *id, const char *name, guint64 size, const char *images)
{
  return set_disk (add_point (c, id, 1), 0, name, size, images);
}

static void
replace (char **at, const char *text)
{
  g_free (*at);
  *at = g_strdup (text);
}

static void
define (Case *c, const char *xml)
{
  c->def = tmk_backup_def_parse (xml, strlen (xml), "test", TMK_XML_INTERNAL, &c->err);
  g_assert_null (c->err);
  c->options.definition = c->def;
}

static void
make_plan (Case *c)
{
  PlanInput input = {
    .disks = (const TmkDiskInfo *const *) c->disks->pdata,
    .images = (const ManifestImage *const *) c->images->pdata,
    .n_images = (const size_t *) c->n_images->data,
    .n_disks = c->disks->len,
    .points = (const Manifest *const *) c->manifests->pdata,
    .n_points = c->manifests->len,
    .domain = "vm",
    .uuid = c->uuid,
    .chunk_size = CHUNK,
    .prefix = PREFIX,
    .checkpoints = c->list.n_checkpoints > 0 ? &c->list : NULL,
  };
  plan_free (c->plan);
  c->plan = plan_new (&input, &c->options, &c->err);
}

/* A line a disk: "vda full!  [after 11111111/vda]: reason", "vda incremental 11111111/vda
 * 'checkpoint' N: reason", "vda -: reason"; then what was skipped. '!': it fell back. */
static char *
describe (const Case *c)
{
  GString *text = g_string_new (NULL);
  for (size_t i = 0; i < c->plan->n_disks; i++) {
    const PlanDisk *disk = &c->plan->disks[i];
    g_string_append_printf (text, "%s ", disk->disk->name);
    if (!disk->selected) {
      g_assert_false (disk->incremental || disk->fallback);
      g_string_append (text, "-");
    } else if (disk->incremental) {
      g_assert_false (disk->fallback);
      g_assert_null (disk->previous);
      g_assert_cmpstr (disk->checkpoint, ==, disk->base_disk->checkpoint);
      g_string_append_printf (text, "incremental %.8s/%s %" G_GUINT64_FORMAT, disk->base->id,
                              disk->base_disk->name, disk->expected);
    } else {
      g_assert_null (disk->base);
      g_assert_cmpuint (disk->expected, ==, disk->disk->size);
      g_string_append_printf (text, "full%s", disk->fallback ? "!" : "");
      for (guint j = 0; disk->previous != NULL && j < c->manifests->len; j++) {
        const Manifest *point = g_ptr_array_index (c->manifests, j);
        if (disk->previous >= point->disks && disk->previous < point->disks + point->n_disks)
          g_string_append_printf (text, " after %.8s/%s", point->id, disk->previous->name);
      }
    }
    g_string_append_printf (text, ": %s\n", disk->reason);
  }
  for (guint i = 0; i < c->plan->skipped->len; i++)
    g_string_append_printf (text, "skipped %s\n",
                            (const char *) g_ptr_array_index (c->plan->skipped, i));
  return g_string_free (text, FALSE);
}

#define expect(c, text)                                                                            \
  G_STMT_START                                                                                     \
  {                                                                                                \
    make_plan (c);                                                                                 \
    g_assert_cmpstr ((c)->err != NULL ? tmk_error_message ((c)->err) : NULL, ==, NULL);            \
    g_autofree char *said = describe (c);                                                          \
    g_assert_cmpstr (said, ==, text);                                                              \
  }                                                                                                \
  G_STMT_END

#define expect_error(c, expected_code, message, hint)                                              \
  G_STMT_START                                                                                     \
  {                                                                                                \
    make_plan (c);                                                                                 \
    g_assert_null ((c)->plan);                                                                     \
    g_assert_cmpstr (tmk_error_message ((c)->err), ==, message);                                   \
    g_assert_cmpint (tmk_error_code ((c)->err), ==, expected_code);                                \
    g_assert_cmpstr (tmk_error_hint ((c)->err), ==, hint);                                         \
    g_clear_pointer (&(c)->err, tmk_error_free);                                                   \
  }                                                                                                \
  G_STMT_END

static char *
list_stale (GPtrArray *stale)
{
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < stale->len; i++) {
    const PlanStale *entry = g_ptr_array_index (stale, i);
    const char *name = entry->checkpoint;
    g_string_append_printf (text, "%s%s:%s", i > 0 ? " " : "", entry->disk, name + strlen (PREFIX));
  }
  g_ptr_array_unref (stale);
  return g_string_free (text, FALSE);
}

static void
expect_orphans (const Case *c, const char *expected)
{
  PointSet points = { .manifests = c->manifests, .damaged = c->damaged };
  PlanRepository repository = { .prefix = PREFIX, .points = &points };
  g_autofree char *said = list_stale (plan_orphans (c->plan, &repository));
  g_assert_cmpstr (said, ==, expected);
}

static void
expect_superseded (const Case *c, const char *checkpoint, const char *expected)
{
  g_autofree char *said = list_stale (plan_superseded (c->plan, PREFIX, checkpoint));
  g_assert_cmpstr (said, ==, expected);
}

/* A disk with one point, to add to. */
static TmkDiskInfo *
init_with_point (Case *c)
{
  case_init (c);
  TmkDiskInfo *disk = add_disk (c, "vda", 8 * MIB, "/vda#7");
  add_bitmap (c, disk, C ("1"), 3 * CHUNK, 1);
  add_point_of (c, ID ("1"), "vda", 8 * MIB, "/vda#7");
  return disk;
}

/* ---- which disks -------------------------------------------------------------------------- */

static void
test_selection (void)
{
  static const char *const vda[] = { "vda", NULL }, *const vdb[] = { "vdb", NULL };
  static const char *const odd[] = { "vda", "cd", NULL }, *const no[] = { "vdz", NULL };
  g_auto (Case) c;
  case_init (&c);
  add_disk (&c, "vda", MIB, "/vda");
  add_disk (&c, "vdb", MIB, "/vdb");
  add_odd_disk (&c, "cd", "the drive is empty");
  expect (&c, "vda full: new disk\nvdb full: new disk\ncd -: the drive is empty\n"
              "skipped cd: the drive is empty\n");
  c.options.include = vda;
  expect (&c, "vda full: new disk\nvdb -: left out\ncd -: left out\n");
  c.options.exclude = vda;
  expect_error (&c, TMK_ERR_USAGE, "disk 'vda' is both included and excluded",
                "leave --include vda or --exclude vda out");
  c.options.include = NULL;
  c.options.exclude = odd;
  expect (&c, "vda -: left out\nvdb full: new disk\ncd -: left out\n");
  c.options.exclude = vdb;
  expect (&c, "vda full: new disk\nvdb -: left out\ncd -: the drive is empty\n"
              "skipped cd: the drive is empty\n");
  c.options.include = odd;
  expect_error (&c, TMK_ERR_UNSUPPORTED, "disk 'cd' cannot be backed up: the drive is empty",
                "do not name it: leave --include cd out");
  c.options.exclude = no;
  expect_error (&c, TMK_ERR_NOT_FOUND, "disk 'vdz': the domain has no such disk",
                "the domain's disks are: vda, vdb, cd");
  c.options.include = no;
  c.options.exclude = NULL;
  expect_error (&c, TMK_ERR_NOT_FOUND, "disk 'vdz': the domain has no such disk",
                "the domain's disks are: vda, vdb, cd");
}

/* ---- automatic modes ---------------------------------------------------------------------- */

static void
test_incremental (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  expect (&c, "vda incremental 11111111/vda 196608: checkpoint '" C ("1") "' of point 11111111\n");
  /* The newest that serves, not the first. */
  add_point_of (&c, ID ("2"), "vda", 8 * MIB, "/vda#7");
  add_bitmap (&c, disk, C ("2"), CHUNK, 1);
  expect (&c, "vda incremental 22222222/vda 65536: checkpoint '" C ("2") "' of point 22222222\n");
  g_assert_cmpstr (c.plan->disks[0].newest, ==, C ("2"));
  /* A point without a checkpoint hides none. */
  g_clear_pointer (&add_point_of (&c, ID ("3"), "vda", 8 * MIB, "/vda#7")->checkpoint, g_free);
  expect (&c, "vda incremental 22222222/vda 65536: checkpoint '" C ("2") "' of point 22222222\n");
  c.options.mode = TMK_BACKUP_INCREMENTAL;
  expect (&c, "vda incremental 22222222/vda 65536: checkpoint '" C ("2") "' of point 22222222\n");
  c.options.mode = TMK_BACKUP_FULL;
  expect (&c, "vda full after 33333333/vda: asked for\n");
  g_assert_cmpstr (c.plan->disks[0].newest, ==, C ("2"));
}

static void
test_why_full (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  TmkBitmapInfo *bitmap = (TmkBitmapInfo *) disk->bitmaps[0];
  Manifest *point = g_ptr_array_index (c.manifests, 0);

  bitmap->usable = false;
  bitmap->why_not = "bitmap 'x' is inconsistent: QEMU did not end cleanly";
  expect (&c, "vda full! after 11111111/vda: bitmap 'x' is inconsistent: QEMU did not end"
              " cleanly\n");
  g_assert_null (c.plan->disks[0].newest);
  c.options.mode = TMK_BACKUP_INCREMENTAL;
  expect_error (&c, TMK_ERR_INCONSISTENT,
                "disk 'vda' cannot be incremental: bitmap 'x' is inconsistent: QEMU did not end"
                " cleanly",
                "let it be full, with --mode auto, or leave it out: --exclude it");
  c.options.mode = TMK_BACKUP_AUTO;
  bitmap->usable = true;

  disk->n_bitmaps = 0;
  expect (&c, "vda full! after 11111111/vda: bitmap '" C ("1") "' is gone\n");
  disk->n_bitmaps = 1;

  point->disks[0].chunk_size = 2 * CHUNK;
  expect (&c, "vda full!: point 11111111 has chunks of 131072 bytes, the repository now of 65536"
              "\n");
  point->disks[0].chunk_size = CHUNK;

  disk->size = 9 * MIB;
  expect (&c, "vda full!: resized from 8388608 to 9437184 bytes\n");
  disk->size = 8 * MIB;

  g_clear_pointer (&point->disks[0].checkpoint, g_free);
  expect (&c, "vda full after 11111111/vda: no checkpoint was kept at point 11111111\n");
}

/* The newest candidate's reason is told, though an older one has another. */
static void
test_newest_reason (void)
{
  g_auto (Case) c;
  init_with_point (&c);
  ((TmkBitmapInfo *) ((TmkDiskInfo *) c.disks->pdata[0])->bitmaps[0])->usable = false;
  add_point_of (&c, ID ("2"), "vda", 8 * MIB, "/vda#7");
  expect (&c, "vda full! after 22222222/vda: bitmap '" C ("2") "' is gone\n");
}

static void
test_forgotten_point (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  g_ptr_array_set_size (c.manifests, 0);
  expect (&c, "vda full: the repository has no point made at checkpoint '" C ("1") "'\n");
  expect_orphans (&c, "vda:" ID ("1"));
  /* Another repository's says nothing. */
  disk->n_bitmaps = 0;
  add_bitmap (&c, disk, "tidemark-99999999-" ID ("1"), 0, 1);
  expect (&c, "vda full: new disk\n");
  expect_orphans (&c, "");
}

/* ---- is it that disk? --------------------------------------------------------------------- */

/* Two disks of one point have bitmaps of one name: only the images tell them apart. */
static void
test_swapped_disks (void)
{
  g_auto (Case) c;
  case_init (&c);
  add_bitmap (&c, add_disk (&c, "vda", 8 * MIB, "/b#8"), C ("1"), CHUNK, 1);
  add_bitmap (&c, add_disk (&c, "vdb", 8 * MIB, "/a#7"), C ("1"), 2 * CHUNK, 1);
  Manifest *point = add_point (&c, ID ("1"), 2);
  set_disk (point, 0, "vda", 8 * MIB, "/a#7");
  set_disk (point, 1, "vdb", 8 * MIB, "/b#8");
  expect (&c, "vda incremental 11111111/vdb 65536: checkpoint '" C (
                  "1") "' of point 11111111, there disk 'vdb'\n"
                       "vdb incremental 11111111/vda 131072: checkpoint '" C (
                           "1") "' of point 11111111, there disk 'vda'\n");
  /* Files that were renamed into each other's place. */
  ((ManifestImage *) c.images->pdata[0])[0] = (ManifestImage){ (char *) "/a", 5, 8 };
  ((ManifestImage *) c.images->pdata[1])[0] = (ManifestImage){ (char *) "/b", 5, 7 };
  expect (&c, "vda full! after 11111111/vda: the image is another one than at point 11111111\n"
              "vdb full! after 11111111/vdb: the image is another one than at point 11111111\n");
  /* Where inodes are not known the names must do. */
  ((ManifestImage *) c.images->pdata[0])[0].inode = 0;
  make_plan (&c);
  g_assert_true (c.plan->disks[0].incremental);
  g_assert_cmpstr (c.plan->disks[0].base_disk->name, ==, "vda");
}

static void
test_names_that_pass (void)
{
  g_auto (Case) c;
  case_init (&c);
  add_bitmap (&c, add_disk (&c, "vda", 8 * MIB, "/dev/sdb"), C ("1"), CHUNK, 1);
  Manifest *point = add_point (&c, ID ("1"), 2);
  set_disk (point, 0, "vda", 8 * MIB, "/dev/sdb");
  set_disk (point, 1, "vdb", 8 * MIB, "/dev/sdc");
  expect (&c, "vda full! after 11111111/vda: '/dev/sdb' may be another device than at point"
              " 11111111: give QEMU a name that lasts (/dev/disk/by-id/…)\n");
  /* It cannot be the other one if that has another size. */
  point->disks[1].size = 4 * MIB;
  expect (&c, "vda incremental 11111111/vda 65536: checkpoint '" C ("1") "' of point 11111111\n");
  point->disks[1].size = 8 * MIB;
  ((ManifestImage *) c.images->pdata[0])[0].path = (char *) "/dev/vg/root";
  replace (&point->disks[0].images[0].path, "/dev/vg/root");
  expect (&c, "vda incremental 11111111/vda 65536: checkpoint '" C ("1") "' of point 11111111\n");
}

static void
test_no_path (void)
{
  g_auto (Case) c;
  case_init (&c);
  add_bitmap (&c, add_disk (&c, "vda", MIB, "-"), C ("1"), CHUNK, 1);
  expect (&c, "vda full: the repository has no point made at checkpoint '" C ("1") "'\n");
  add_point_of (&c, ID ("1"), "vda", MIB, "-");
  expect (&c, "vda full! after 11111111/vda: its image is no file or device, by which it could be"
              " known again\n");
}

static void
test_domains (void)
{
  g_auto (Case) c;
  init_with_point (&c);
  Manifest *point = g_ptr_array_index (c.manifests, 0);
  replace (&point->domain, "other");
  replace (&point->disks[0].name, "sda");
  expect (&c, "vda incremental 11111111/sda 196608: checkpoint '" C (
                  "1") "' of point 11111111, there disk 'sda', of domain 'other'\n");
  /* The uuid counts where both have one: the domain was only renamed. */
  c.uuid = "0000000A-0000-0000-0000-000000000001";
  point->uuid = g_strdup ("0000000a-0000-0000-0000-000000000001");
  expect (&c, "vda incremental 11111111/sda 196608: checkpoint '" C (
                  "1") "' of point 11111111, there disk 'sda'\n");
  /* … and tells two of one name apart, so that a disk of that name is no earlier one of this. */
  replace (&point->domain, "vm");
  replace (&point->disks[0].name, "vda");
  replace (&point->disks[0].images[0].path, "/else");
  expect (&c, "vda full! after 11111111/vda: the image is another one than at point 11111111\n");
  replace (&point->uuid, "0000000a-0000-0000-0000-00000000ffff");
  expect (&c, "vda full: new disk\n");
}

/* ---- chains ------------------------------------------------------------------------------- */

static void
test_snapshot_taken (void)
{
  g_auto (Case) c;
  case_init (&c);
  TmkDiskInfo *disk = add_disk (&c, "vda", 8 * MIB, "/over#9 /vda#7");
  TmkBitmapInfo *bitmap = add_bitmap (&c, disk, C ("1"), CHUNK, 2);
  add_point_of (&c, ID ("1"), "vda", 8 * MIB, "/vda#7");
  expect (&c, "vda incremental 11111111/vda 65536: checkpoint '" C ("1") "' of point 11111111\n");
  /* A bitmap of that name that began on the overlay does not tell what was written before. */
  bitmap->images = 1;
  expect (&c, "vda full! after 11111111/vda: bitmap '" C (
                  "1") "' begins at another image than point 11111111 had\n");
  /* One that was committed away: what it had is not known. */
  g_auto (Case) d;
  case_init (&d);
  add_bitmap (&d, add_disk (&d, "vda", 8 * MIB, "/vda#7"), C ("1"), CHUNK, 1);
  add_point_of (&d, ID ("1"), "vda", 8 * MIB, "/over#9 /vda#7");
  expect (&d, "vda full! after 11111111/vda: the image is another one than at point 11111111\n");
}

/* Of the images below no bitmap tells: they must be what they were. */
static void
test_images_below (void)
{
  static const struct {
    const char *then, *now, *other;
  } cases[] = {
    { "/a#1 /b#2 /c#3", "/a#1 /b#2 /c#3", NULL },
    { "/a#1 /b#2 /c#3", "/a#1 /b#8 /c#3", "/b" }, /* another file of that name */
    { "/a#1 /b#2", "/a#1 /d#2", "/d" },           /* qemu-img rebase -u */
    { "/a#1 /b#2 /c#3", "/a#1 /b#2 /d#4", "/d" },
    { "/a#1 /b#2", "/a#1 /b#2 /c#3", "/c" },
    { "/a#1", "/a#1 /b#2", "/b" },
    { "/a#1 /b#2 /c#3", "/a#1 /c#3 /b#2", "/b" },
    { "/a#1 /b#2 /c#3", "/a#1 /c#3", NULL }, /* committed or streamed away */
    { "/a#1 /b#2 /c#3", "/a#1", NULL },
    { "/a#1 /b", "/a#1 /b#2", NULL }, /* a device has no inode that lasts */
    { "/a#1 - /c#3", "/a#1 /b#2 /c#3", NULL },
    { "/a#1 /b#2", "/a#1 -", NULL },
    { "/a#1", "/a#1 -", "(unknown)" },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_auto (Case) c;
    case_init (&c);
    add_bitmap (&c, add_disk (&c, "vda", 8 * MIB, cases[i].now), C ("1"), CHUNK, 1);
    add_point_of (&c, ID ("1"), "vda", 8 * MIB, cases[i].then);
    g_autofree char *full = g_strdup_printf ("vda full! after 11111111/vda: the image below, '%s',"
                                             " is another one than at point 11111111\n",
                                             cases[i].other);
    expect (&c, cases[i].other != NULL ? full
                                       : "vda incremental 11111111/vda 65536: checkpoint '" C (
                                           "1") "' of point 11111111\n");
  }
}

/* A template's points are no history of those made of it. */
static void
test_template (void)
{
  g_auto (Case) c;
  case_init (&c);
  TmkDiskInfo *disk = add_disk (&c, "vda", 8 * MIB, "/over#9 /template#7");
  replace (&((Manifest *) (add_point (&c, ID ("1"), 1)))->domain, "template");
  set_disk (c.manifests->pdata[0], 0, "vda", 4 * MIB, "/template#7");
  expect (&c, "vda full: new disk\n");
  add_bitmap (&c, disk, C ("2"), CHUNK, 1);
  add_point_of (&c, ID ("2"), "vda", 8 * MIB, "/over#9 /template#7");
  replace (&((Manifest *) (add_point (&c, ID ("3"), 1)))->domain, "template");
  set_disk (c.manifests->pdata[2], 0, "vda", 4 * MIB, "/template#7");
  expect (&c, "vda incremental 22222222/vda 65536: checkpoint '" C ("2") "' of point 22222222\n");
}

/* 8 → 4 → 8 MiB: what was cut off came back as zeroes, which no bitmap has. */
static void
test_resized_in_between (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  add_point_of (&c, ID ("2"), "vda", 4 * MIB, "/vda#7");
  add_bitmap (&c, disk, C ("2"), 0, 1);
  expect (&c, "vda full! after 11111111/vda: resized from 4194304 to 8388608 bytes\n");
  g_assert_null (c.plan->disks[0].newest);
  define (&c, "<domainbackup mode='pull'><incremental>" C ("1") "</incremental></domainbackup>");
  make_plan (&c);
  g_assert_null (c.plan);
  g_assert_cmpint (tmk_error_code (c.err), ==, TMK_ERR_MISMATCH);
}

/* ---- names that users gave ----------------------------------------------------------------- */

static void
test_own_names (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  Manifest *point = g_ptr_array_index (c.manifests, 0);
  TmkCheckpointInfo info = { .name = "daily", .known = true, .created = 999 };
  g_assert_false (plan_needs_checkpoints ((const Manifest *const *) c.manifests->pdata, 1));
  replace (&point->checkpoint, "daily");
  replace (&point->disks[0].checkpoint, "daily");
  g_assert_true (plan_needs_checkpoints ((const Manifest *const *) c.manifests->pdata, 1));
  disk->n_bitmaps = 0;
  add_bitmap (&c, disk, "daily", CHUNK, 1);
  const char *refused = "vda full! after 11111111/vda: checkpoint 'daily' is not the one that was"
                        " made at point 11111111, or its description is lost\n";
  expect (&c, refused);
  c.infos[0] = &info;
  c.list.n_checkpoints = 1;
  expect (&c, "vda incremental 11111111/vda 65536: checkpoint 'daily' of point 11111111\n");
  info.created = 1000;
  expect (&c, "vda incremental 11111111/vda 65536: checkpoint 'daily' of point 11111111\n");
  info.created = 1001; /* it was deleted, and made anew */
  expect (&c, refused);
  info.created = 1000;
  info.known = false;
  expect (&c, refused);
  info.known = true;
  /* Never taken away: it is the user's. */
  make_plan (&c);
  expect_superseded (&c, C ("2"), "");
  expect_orphans (&c, "");
}

/* ---- definitions -------------------------------------------------------------------------- */

static void
test_definition (void)
{
  g_auto (Case) c;
  init_with_point (&c);
  add_disk (&c, "vdb", MIB, "/vdb");
  add_odd_disk (&c, "cd", "it is removable");
  define (&c, "<domainbackup mode='pull'/>");
  expect (&c, "vda full after 11111111/vda: the definition says so\nvdb full: the definition says"
              " so\ncd -: it is removable\nskipped cd: it is removable\n");
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup mode='pull'><incremental>" C (
                  "1") "</incremental><disks><disk name='vda'/><disk name='cd' backup='no'/>"
                       "</disks></domainbackup>");
  expect (&c, "vda incremental 11111111/vda 196608: checkpoint '" C (
                  "1") "' of point 11111111\nvdb -: the definition leaves it out\n"
                       "cd -: the definition leaves it out\n");
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup mode='pull'><incremental>x</incremental><disks>"
              "<disk name='vda' backupmode='full'/><disk name='vdb' backup='no'/></disks>"
              "</domainbackup>");
  expect (&c, "vda full after 11111111/vda: the definition says so\nvdb -: the definition leaves"
              " it out\ncd -: the definition leaves it out\n");
  c.options.mode = TMK_BACKUP_FULL;
  expect_error (&c, TMK_ERR_USAGE, "a definition says itself which disks are backed up, and how",
                "leave --mode, --include and --exclude out, or --xml");
  c.options.mode = TMK_BACKUP_AUTO;
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup mode='pull'><server transport='unix' socket='/s' tls='yes'/>"
              "</domainbackup>");
  expect_error (&c, TMK_ERR_UNSUPPORTED,
                "the definition asks for TLS, but it is this process that reads the disks",
                "leave <server> out: they are read by a socket of their own");
}

static void
test_definition_errors (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  add_disk (&c, "vdb", MIB, "/vdb");
  add_odd_disk (&c, "cd", "it is removable");
  add_bitmap (&c, disk, "x", CHUNK, 1);
  define (&c, "<domainbackup><disks><disk name='vda' incremental='x'/></disks></domainbackup>");
  expect_error (&c, TMK_ERR_NOT_FOUND,
                "disk 'vda': the repository has no point made at checkpoint 'x' to add to: it has"
                " none of this disk",
                "what can be started from is checkpoint '" C ("1") "'; or say backupmode='full'");
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup><disks><disk name='vdb' incremental='" C (
                  "1") "'/></disks></domainbackup>");
  expect_error (&c, TMK_ERR_NOT_FOUND,
                "disk 'vdb': the repository has no point made at checkpoint '" C (
                    "1") "' to add to: it has none of this disk",
                "back this disk up in full: <disk name='vdb' backupmode='full'/>");
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup><disks><disk name='vda' incremental='" C (
                  "1") "'/></disks></domainbackup>");
  ((TmkBitmapInfo *) disk->bitmaps[0])->usable = false;
  ((TmkBitmapInfo *) disk->bitmaps[0])->why_not = "it does not record";
  expect_error (&c, TMK_ERR_INCONSISTENT,
                "disk 'vda': the repository has no point made at checkpoint '" C (
                    "1") "' to add to: it does not record",
                "back this disk up in full: <disk name='vda' backupmode='full'/>");
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup><disks><disk name='vda' backupmode='incremental'/></disks>"
              "</domainbackup>");
  expect_error (&c, TMK_ERR_INVALID,
                "disk 'vda': backupmode='incremental', but no checkpoint is named",
                "name it in incremental= of the disk or in <incremental> of the backup");
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup><disks><disk name='cd'/></disks></domainbackup>");
  expect_error (&c, TMK_ERR_UNSUPPORTED, "disk 'cd' cannot be backed up: it is removable",
                "say <disk name='cd' backup='no'/>");
  tmk_backup_def_free (c.def);
  define (&c, "<domainbackup><disks><disk name='vdq'/></disks></domainbackup>");
  expect_error (&c, TMK_ERR_NOT_FOUND, "disk 'vdq': the domain has no such disk",
                "the domain's disks are: vda, vdb, cd");
}

/* ---- checkpoints that may go ---------------------------------------------------------------- */

static void
test_superseded (void)
{
  static const char *const vda[] = { "vda", NULL };
  g_auto (Case) c;
  TmkDiskInfo *a = init_with_point (&c);
  TmkDiskInfo *b = add_disk (&c, "vdb", MIB, "/vdb#8");
  Manifest *point = add_point (&c, ID ("2"), 2);
  set_disk (point, 0, "vda", 8 * MIB, "/vda#7");
  set_disk (point, 1, "vdb", MIB, "/vdb#8");
  add_point_of (&c, ID ("3"), "vdb", MIB, "/vdb#8");
  add_bitmap (&c, a, C ("2"), CHUNK, 1);
  TmkBitmapInfo *b1 = add_bitmap (&c, b, C ("1"), CHUNK, 1);
  add_bitmap (&c, b, C ("2"), CHUNK, 1);
  TmkBitmapInfo *b3 = add_bitmap (&c, b, C ("3"), CHUNK, 1);
  add_bitmap (&c, b, C ("9"), CHUNK, 1);
  add_bitmap (&c, b, "mine", CHUNK, 1);
  make_plan (&c);
  expect_orphans (&c, "vdb:" ID ("9"));
  expect_superseded (
      &c, C ("4"),
      "vda:" ID ("1") " vda:" ID ("2") " vdb:" ID ("1") " vdb:" ID ("2") " vdb:" ID ("3"));
  /* Without a new one the next backup starts where this one did. */
  expect_superseded (&c, NULL, "vda:" ID ("1") " vdb:" ID ("1") " vdb:" ID ("2"));
  /* A disk that is left out keeps its newest; a busy one stays. */
  b1->busy = true;
  c.options.include = vda;
  make_plan (&c);
  expect_superseded (&c, C ("4"), "vda:" ID ("1") " vda:" ID ("2") " vdb:" ID ("2"));
  b1->busy = false;
  b3->usable = false;
  make_plan (&c);
  expect_superseded (&c, C ("4"),
                     "vda:" ID ("1") " vda:" ID ("2") " vdb:" ID ("1") " vdb:" ID ("3"));
  /* Full because that was asked for, and without a checkpoint: what serves is kept. */
  c.options.mode = TMK_BACKUP_FULL;
  make_plan (&c);
  expect_superseded (&c, NULL, "vda:" ID ("1") " vdb:" ID ("1") " vdb:" ID ("3"));
  /* Of a disk without anything better all stays; of one that cannot be written to, too. */
  ((TmkBitmapInfo *) b->bitmaps[1])->usable = false;
  a->eligible = false;
  c.options.include = NULL;
  c.options.exclude = vda;
  make_plan (&c);
  expect_superseded (&c, NULL, "");
}

static void
test_orphans_of_damaged_points (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  add_bitmap (&c, disk, C ("2"), CHUNK, 1);
  add_bitmap (&c, disk, C ("3"), CHUNK, 1);
  add_bitmap (&c, disk, PREFIX, CHUNK, 1); /* not one that a backup makes */
  g_ptr_array_add (c.damaged, (char *) ID ("3") ": its checksum is wrong");
  make_plan (&c);
  expect_orphans (&c, "vda:" ID ("2") " vda:");
  expect_superseded (&c, C ("4"), "vda:" ID ("1"));
}

/* Names of checkpoints of which disk `i` tells nothing. */
static char *
list_untold (const Case *c, guint i)
{
  PlanInput input
      = { .points = (const Manifest *const *) c->manifests->pdata, .n_points = c->manifests->len };
  PlanDisk disk = { .disk = g_ptr_array_index (c->disks, i),
                    .images = g_ptr_array_index (c->images, i),
                    .n_images = g_array_index (c->n_images, size_t, i) };
  g_autoptr (GPtrArray) names = g_ptr_array_new ();
  plan_search_untold (&input, &disk, names);
  GString *text = g_string_new (NULL);
  for (guint j = 0; j < names->len; j++)
    g_string_append_printf (text, "%s%.1s", j > 0 ? " " : "",
                            (const char *) names->pdata[j] + strlen (PREFIX));
  return g_string_free (text, FALSE);
}

static void
expect_untold (const Case *c, guint i, const char *expected)
{
  g_autofree char *said = list_untold (c, i);
  g_assert_cmpstr (said, ==, expected);
}

/* Only newer checkpoints than those that a disk has, of that disk, at its size, made for points. */
static void
test_untold (void)
{
  g_auto (Case) c;
  TmkDiskInfo *disk = init_with_point (&c);
  add_disk (&c, "vdb", 8 * MIB, "/vdb#8");
  expect_untold (&c, 0, "");
  expect_untold (&c, 1, "");
  add_point_of (&c, ID ("2"), "vda", 8 * MIB, "/vda#7");
  expect_untold (&c, 0, "2");
  add_point_of (&c, ID ("3"), "vda", 8 * MIB, "/other#7");
  add_point_of (&c, ID ("4"), "sda", 8 * MIB, "/vda#7 /base");
  replace (&add_point_of (&c, ID ("5"), "vda", 8 * MIB, "/vda#7")->checkpoint, "monday");
  expect_untold (&c, 0, "4 2");
  expect_untold (&c, 1, "");
  disk->n_bitmaps = 0;
  expect_untold (&c, 0, "4 2 1");
  add_point_of (&c, ID ("6"), "vda", 8 * MIB, "/vda#7");
  expect_untold (&c, 0, "6 4 2"); /* the newest few */
  add_point_of (&c, ID ("7"), "vda", 4 * MIB, "/vda#7");
  expect_untold (&c, 0, "");
}

static void
test_prefix (void)
{
  g_autofree char *prefix = plan_checkpoint_prefix ("0a0b0c0d");
  g_assert_cmpstr (prefix, ==, PREFIX);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/engine-plan/selection", test_selection);
  g_test_add_func ("/engine-plan/incremental", test_incremental);
  g_test_add_func ("/engine-plan/why-full", test_why_full);
  g_test_add_func ("/engine-plan/newest-reason", test_newest_reason);
  g_test_add_func ("/engine-plan/forgotten-point", test_forgotten_point);
  g_test_add_func ("/engine-plan/swapped-disks", test_swapped_disks);
  g_test_add_func ("/engine-plan/names-that-pass", test_names_that_pass);
  g_test_add_func ("/engine-plan/no-path", test_no_path);
  g_test_add_func ("/engine-plan/domains", test_domains);
  g_test_add_func ("/engine-plan/snapshot-taken", test_snapshot_taken);
  g_test_add_func ("/engine-plan/images-below", test_images_below);
  g_test_add_func ("/engine-plan/template", test_template);
  g_test_add_func ("/engine-plan/resized-in-between", test_resized_in_between);
  g_test_add_func ("/engine-plan/own-names", test_own_names);
  g_test_add_func ("/engine-plan/definition", test_definition);
  g_test_add_func ("/engine-plan/definition-errors", test_definition_errors);
  g_test_add_func ("/engine-plan/superseded", test_superseded);
  g_test_add_func ("/engine-plan/orphans-of-damaged-points", test_orphans_of_damaged_points);
  g_test_add_func ("/engine-plan/untold", test_untold);
  g_test_add_func ("/engine-plan/prefix", test_prefix);
  return g_test_run ();
}
