/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: an incremental may start from exactly those bitmaps that have seen every write. */
#include "hv-case.h"

#include "hv/qmp/bitmaps.h"

/* A disk of `images` images, read when its bitmaps have been added. */
typedef struct {
  FakeQemu qemu;
  GPtrArray *disks;
  QmpDisk *disk;
  BitmapChain *chain;
} Case;

static void
case_init (Case *c, unsigned images)
{
  *c = (Case){ 0 };
  fake_init (&c->qemu);
  fake_disk (&c->qemu, "vda", images, "qcow2", MIB);
}

static void
case_look (Case *c, const char *name)
{
  c->disks = fake_disks (&c->qemu);
  c->disk = g_ptr_array_index (c->disks, 0);
  c->chain = bitmap_chain_look (c->disk, name);
}

static void
case_clear (Case *c)
{
  bitmap_chain_free (c->chain);
  g_clear_pointer (&c->disks, g_ptr_array_unref);
  fake_clear (&c->qemu);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Case, case_clear)

static void
assert_good (const Case *c, unsigned images, guint64 dirty)
{
  g_assert_cmpstr (c->chain->why_not, ==, NULL);
  g_assert_cmpstr (c->chain->what_to_do, ==, NULL);
  g_assert_cmpuint (c->chain->images, ==, images);
  g_assert_cmpuint (c->chain->dirty, ==, dirty);
}

/* Not from there: `part` says why, `image` where, and the hint what to do with this disk. */
static void
assert_bad (const Case *c, unsigned images, const char *part, const char *image)
{
  assert_contains (c->chain->why_not, part);
  assert_contains (c->chain->why_not, "'c1'");
  if (image != NULL) {
    g_autofree char *quoted = g_strdup_printf ("'/images/%s.qcow2'", image);
    assert_contains (c->chain->why_not, quoted);
  }
  assert_contains (c->chain->what_to_do, "backupmode='full'");
  g_assert_cmpuint (c->chain->images, ==, images);
}

static void
test_missing (void)
{
  g_auto (Case) c;
  case_init (&c, 3);
  fake_bitmap (&c.qemu, "vda", "other", 1);
  fake_bitmap (&c.qemu, "vda", "c10", 1);
  fake_bitmap (&c.qemu, "vda-1", "C1", 1);
  case_look (&c, "c1");
  assert_bad (&c, 0, "there is no bitmap", NULL);
  g_assert_cmpuint (c.chain->dirty, ==, 0);
  assert_contains (c.chain->what_to_do, "name='vda'");
}

static void
test_one (void)
{
  g_auto (Case) c;
  case_init (&c, 1);
  fake_bitmap (&c.qemu, "vda", "c1", 65536);
  case_look (&c, "c1");
  assert_good (&c, 1, 65536);
}

static void
test_not_persistent (void)
{
  g_auto (Case) c;
  case_init (&c, 1);
  json_object_set_new (fake_bitmap (&c.qemu, "vda", "c1", 0), "persistent", json_false ());
  case_look (&c, "c1");
  assert_good (&c, 1, 0); /* QEMU has run since it was made, so it has seen all */
}

static void
test_chain_all (void)
{
  g_auto (Case) c;
  case_init (&c, 3);
  fake_bitmap (&c.qemu, "vda", "c1", 1 << 16);
  fake_bitmap (&c.qemu, "vda-1", "c1", 2 << 16);
  fake_bitmap (&c.qemu, "vda-2", "c1", 4 << 16);
  case_look (&c, "c1");
  assert_good (&c, 3, 7 << 16);
}

/* Made after the last snapshot: what lies below does not matter. */
static void
test_chain_top (void)
{
  g_auto (Case) c;
  case_init (&c, 3);
  fake_bitmap (&c.qemu, "vda", "c1", 1 << 16);
  case_look (&c, "c1");
  assert_good (&c, 1, 1 << 16);
}

static void
test_chain_two (void)
{
  g_auto (Case) c;
  case_init (&c, 3);
  fake_bitmap (&c.qemu, "vda", "c1", 1 << 16);
  fake_bitmap (&c.qemu, "vda-1", "c1", 1 << 16);
  case_look (&c, "c1");
  assert_good (&c, 2, 2 << 16);
}

static void
test_gap (void)
{
  g_auto (Case) c;
  case_init (&c, 3);
  fake_bitmap (&c.qemu, "vda", "c1", 1 << 16);
  fake_bitmap (&c.qemu, "vda-2", "c1", 1 << 16);
  case_look (&c, "c1");
  assert_bad (&c, 1, "gap", "vda-1");
}

static void
test_only_below (void)
{
  g_auto (Case) c;
  case_init (&c, 3);
  fake_bitmap (&c.qemu, "vda-1", "c1", 1 << 16);
  fake_bitmap (&c.qemu, "vda-2", "c1", 1 << 16);
  case_look (&c, "c1");
  assert_bad (&c, 0, "the active image '/images/vda.qcow2' has no bitmap", "vda");
  g_assert_cmpuint (c.chain->dirty, ==, 0);
}

/* Any one image of the run can spoil it; one below the run cannot. */
static void
test_spoiled (void)
{
  const struct {
    const char *member;
    bool value;
    const char *why;
  } faults[]
      = { { "inconsistent", true, "inconsistent" }, { "recording", false, "not recording" } };
  const char *const nodes[] = { "vda", "vda-1", "vda-2" };
  for (size_t i = 0; i < G_N_ELEMENTS (faults); i++)
    for (size_t bad = 0; bad < G_N_ELEMENTS (nodes); bad++) {
      g_auto (Case) c;
      case_init (&c, 4);
      for (size_t j = 0; j < G_N_ELEMENTS (nodes); j++) {
        json_t *bitmap = fake_bitmap (&c.qemu, nodes[j], "c1", 1 << 16);
        if (j == bad)
          json_object_set_new (bitmap, faults[i].member, json_boolean (faults[i].value));
        json_object_set_new (fake_bitmap (&c.qemu, nodes[j], "c2", 0), "inconsistent",
                             json_true ());
      }
      case_look (&c, "c1");
      assert_bad (&c, 3, faults[i].why, nodes[bad]);
    }
}

/* An inconsistent bitmap is of no use to anyone: the hint says how to be rid of it. */
static void
test_inconsistent_hint (void)
{
  g_auto (Case) c;
  case_init (&c, 1);
  json_t *bitmap = fake_bitmap (&c.qemu, "vda", "c1", 0);
  json_object_set_new (bitmap, "inconsistent", json_true ());
  json_object_set_new (bitmap, "recording", json_false ()); /* as QEMU reports it */
  case_look (&c, "c1");
  assert_bad (&c, 1, "inconsistent", "vda");
  assert_contains (c.chain->what_to_do, "tidemark checkpoint delete c1");
}

static void
set_size (Case *c, const char *node, guint64 size)
{
  json_object_set_new (json_object_get (fake_find_node (&c->qemu, node), "image"), "virtual-size",
                       json_integer ((json_int_t) size));
}

static void
test_sizes (void)
{
  const guint64 sizes[] = { MIB / 2, MIB * 2 };
  for (size_t i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_auto (Case) c;
    case_init (&c, 3);
    for (int j = 0; j < 3; j++)
      fake_bitmap (&c.qemu, j == 0 ? "vda" : j == 1 ? "vda-1" : "vda-2", "c1", 1 << 16);
    set_size (&c, "vda-1", sizes[i]);
    case_look (&c, "c1");
    assert_bad (&c, 3, "another size", "vda-1");
  }
  /* Of a size that QEMU did not tell nothing can be said; it would refuse to merge. */
  g_auto (Case) unknown;
  case_init (&unknown, 2);
  fake_bitmap (&unknown.qemu, "vda", "c1", 1 << 16);
  fake_bitmap (&unknown.qemu, "vda-1", "c1", 1 << 16);
  set_size (&unknown, "vda-1", 0);
  case_look (&unknown, "c1");
  assert_good (&unknown, 2, 2 << 16);

  /* An image without the bitmap may have any size. */
  g_auto (Case) below;
  case_init (&below, 2);
  fake_bitmap (&below.qemu, "vda", "c1", 1 << 16);
  set_size (&below, "vda-1", MIB / 2);
  case_look (&below, "c1");
  assert_good (&below, 1, 1 << 16);
}

static void
test_dirty_capped (void)
{
  g_auto (Case) c;
  case_init (&c, 3);
  fake_bitmap (&c.qemu, "vda", "c1", MIB);
  fake_bitmap (&c.qemu, "vda-1", "c1", MIB);
  fake_bitmap (&c.qemu, "vda-2", "c1", G_MAXINT64);
  case_look (&c, "c1");
  assert_good (&c, 3, MIB);
}

static void
test_names (void)
{
  g_auto (FakeQemu) qemu;
  fake_init (&qemu);
  fake_disk (&qemu, "vda", 3, "qcow2", MIB);
  fake_disk (&qemu, "vdb", 1, "qcow2", MIB);
  fake_bitmap (&qemu, "vda", "c2", 0);
  fake_bitmap (&qemu, "vda", "tmk-0a1b2c3d-b0", 0);
  fake_bitmap (&qemu, "vda", "tmk", 0);
  fake_bitmap (&qemu, "vda-1", "c1", 0);
  fake_bitmap (&qemu, "vda-1", "c2", 0);
  fake_bitmap (&qemu, "vda-2", "", 0); /* without a name */
  fake_bitmap (&qemu, "vda-2", "tmk-", 0);
  fake_bitmap (&qemu, "vda-2", "c0", 0);
  g_autoptr (GPtrArray) disks = fake_disks (&qemu);
  g_autoptr (GPtrArray) names = bitmap_names (g_ptr_array_index (disks, 0));
  const char *const expected[] = { "c2", "tmk", "c1", "c0" };
  g_assert_cmpuint (names->len, ==, G_N_ELEMENTS (expected));
  for (size_t i = 0; i < G_N_ELEMENTS (expected); i++)
    g_assert_cmpstr (g_ptr_array_index (names, i), ==, expected[i]);
  g_autoptr (GPtrArray) none = bitmap_names (g_ptr_array_index (disks, 1));
  g_assert_cmpuint (none->len, ==, 0);
}

static void
test_empty_drive (void)
{
  GPtrArray *chain = g_ptr_array_new ();
  QmpDisk drive = { .name = (char *) "tray", .empty = true, .chain = chain };
  g_autoptr (BitmapChain) look = bitmap_chain_look (&drive, "c1");
  assert_contains (look->why_not, "there is no bitmap 'c1'");
  g_autoptr (GPtrArray) names = bitmap_names (&drive);
  g_assert_cmpuint (names->len, ==, 0);
  bitmap_chain_free (NULL);
  g_ptr_array_unref (chain);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/hv-bitmaps/missing", test_missing);
  g_test_add_func ("/hv-bitmaps/one", test_one);
  g_test_add_func ("/hv-bitmaps/not-persistent", test_not_persistent);
  g_test_add_func ("/hv-bitmaps/chain-all", test_chain_all);
  g_test_add_func ("/hv-bitmaps/chain-top", test_chain_top);
  g_test_add_func ("/hv-bitmaps/chain-two", test_chain_two);
  g_test_add_func ("/hv-bitmaps/gap", test_gap);
  g_test_add_func ("/hv-bitmaps/only-below", test_only_below);
  g_test_add_func ("/hv-bitmaps/spoiled", test_spoiled);
  g_test_add_func ("/hv-bitmaps/inconsistent-hint", test_inconsistent_hint);
  g_test_add_func ("/hv-bitmaps/sizes", test_sizes);
  g_test_add_func ("/hv-bitmaps/dirty-capped", test_dirty_capped);
  g_test_add_func ("/hv-bitmaps/names", test_names);
  g_test_add_func ("/hv-bitmaps/empty-drive", test_empty_drive);
  return g_test_run ();
}
