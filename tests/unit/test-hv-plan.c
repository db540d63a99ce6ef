/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proves: what a push job will do follows from the definition, the disks and the checkpoints alone
 * (goldens in data/hv/plan-*.json, which TMK_REGENERATE makes anew), and what cannot be done well
 * is refused with the disk's name and a way out.
 */
#include "hv-case.h"

#include "hv/qmp/plan.h"

#define RUN "0a1b2c3d"

/* --- a case ---------------------------------------------------------------------------------- */

typedef struct {
  FakeQemu qemu;
  GPtrArray *known;
  GPtrArray *disks;
  TmkDomainDef *domain;
  TmkBackupDef *def;
  TmkCheckpointDef *checkpoint;
  JobPlanInput input;
  JobPlan *plan;
  TmkError *err;
} Case;

static void
case_init (Case *c)
{
  *c = (Case){ 0 };
  fake_init (&c->qemu);
  c->known = g_ptr_array_new_with_free_func ((GDestroyNotify) tmk_checkpoint_def_free);
}

static void
case_clear (Case *c)
{
  fake_clear (&c->qemu);
  g_clear_pointer (&c->known, g_ptr_array_unref);
  g_clear_pointer (&c->disks, g_ptr_array_unref);
  tmk_domain_def_free (c->domain);
  tmk_backup_def_free (c->def);
  tmk_checkpoint_def_free (c->checkpoint);
  job_plan_free (c->plan);
  tmk_error_free (c->err);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Case, case_clear)

/* A checkpoint that is described already. */
static TmkCheckpointDef *
know (Case *c, const char *name)
{
  TmkCheckpointDef *def = tmk_checkpoint_def_new (name, NULL);
  g_ptr_array_add (c->known, def);
  return def;
}

static CheckpointDisk *
know_disk (TmkCheckpointDef *def, const char *disk, const char *bitmap, guint64 capacity,
           const char *target)
{
  CheckpointDisk *entry = checkpoint_def_add_disk (def, disk);
  entry->covered = TRUE;
  entry->bitmap = g_strdup (bitmap);
  entry->capacity = capacity;
  entry->target = g_strdup (target);
  entry->target_format = target != NULL ? g_strdup ("qcow2") : NULL;
  return entry;
}

/* Plans `<domainbackup>BACKUP`, and with it `<domaincheckpoint>CHECKPOINT` (NULL: none). */
static void
case_plan (Case *c, const char *backup, const char *checkpoint)
{
  g_autofree char *xml = g_strdup_printf ("<domainbackup>%s</domainbackup>", backup);
  c->def = tmk_backup_def_parse (xml, strlen (xml), "backup.xml", TMK_XML_PUBLIC, &c->err);
  assert_no_error (c->err);
  if (checkpoint != NULL) {
    g_autofree char *text = g_strdup_printf ("<domaincheckpoint>%s</domaincheckpoint>", checkpoint);
    c->checkpoint = tmk_checkpoint_def_parse (text, strlen (text), "c.xml", 0, &c->err);
    assert_no_error (c->err);
  }
  c->disks = fake_disks (&c->qemu);
  c->domain = qmp_disks_to_def (c->disks, "vm", NULL);
  c->input.run = RUN;
  c->input.suffix = "later";
  c->input.disks = c->disks;
  c->input.domain = c->domain;
  c->input.def = c->def;
  c->input.checkpoint = c->checkpoint;
  c->input.known = c->known;
  g_autofree char *before = tmk_backup_def_format (c->def, TMK_XML_INTERNAL);
  c->plan = job_plan_new (&c->input, &c->err);
  g_autofree char *after = tmk_backup_def_format (c->def, TMK_XML_INTERNAL);
  g_assert_cmpstr (before, ==, after); /* the caller's own stays as it is */
}

/* --- goldens --------------------------------------------------------------------------------- */

static json_t *
lines_to_json (char *text /* taken */)
{
  json_t *lines = json_array ();
  g_auto (GStrv) parts = g_strsplit (text, "\n", -1);
  for (char **part = parts; *part != NULL; part++)
    if (**part != '\0')
      json_array_append_new (lines, json_string (*part));
  g_free (text);
  return lines;
}

static json_t *
disk_to_json (const JobDisk *disk)
{
  json_t *nodes = json_array ();
  for (guint i = 0; i < disk->merge_nodes->len; i++)
    json_array_append_new (nodes, json_string (g_ptr_array_index (disk->merge_nodes, i)));
  json_t *made
      = json_pack ("{s:s, s:s?, s:s, s:s, s:s?}", "job", disk->job, "bitmap", disk->bitmap, "file",
                   disk->file_node, "format", disk->format_node, "secret", disk->secret);
  return json_pack ("{s:s, s:s, s:I, s:I, s:s, s:s?, s:s?, s:o, s:s, s:s, s:s, s:s?, s:s?, s:o}",
                    "name", disk->name, "node", disk->node, "size", (json_int_t) disk->size,
                    "estimate", (json_int_t) disk->estimate, "mode", backup_mode_name (disk->mode),
                    "incremental", disk->incremental, "since-bitmap", disk->since_bitmap,
                    "merge-nodes", nodes, "type", storage_type_name (disk->target_type), "target",
                    disk->target, "format", disk->format, "backing", disk->backing,
                    "backing-format", disk->backing_format, "ours", made);
}

static json_t *
plan_to_json (const JobPlan *plan)
{
  json_t *disks = json_array (), *bitmaps = json_array ();
  for (guint i = 0; i < plan->disks->len; i++)
    json_array_append_new (disks, disk_to_json (g_ptr_array_index (plan->disks, i)));
  for (guint i = 0; i < plan->bitmaps->len; i++) {
    const PlanBitmap *bitmap = g_ptr_array_index (plan->bitmaps, i);
    json_array_append_new (bitmaps, json_pack ("{s:s, s:s, s:s, s:b, s:I}", "disk", bitmap->disk,
                                               "node", bitmap->node, "bitmap", bitmap->bitmap,
                                               "persistent", (int) bitmap->persistent, "capacity",
                                               (json_int_t) bitmap->capacity));
  }
  json_t *all = json_pack ("{s:s, s:o, s:o, s:o}", "run", plan->run, "definition",
                           lines_to_json (tmk_backup_def_format (plan->def, TMK_XML_PUBLIC)),
                           "disks", disks, "bitmaps", bitmaps);
  if (plan->checkpoint != NULL)
    json_object_set_new (
        all, "checkpoint",
        lines_to_json (tmk_checkpoint_def_format (plan->checkpoint, TMK_XML_INTERNAL)));
  return all;
}

/* The plan and its transaction are what plan-NAME.json says. */
static void
case_golden (const Case *c, const char *name, const TmkBeginOptions *options, bool on_cbw_error)
{
  static const TmkBeginOptions none;
  assert_no_error (c->err);
  g_assert_nonnull (c->plan);
  g_autoptr (json_t) all = plan_to_json (c->plan);
  json_object_set_new (all, "transaction",
                       job_plan_actions (c->plan, options != NULL ? options : &none, on_cbw_error));
  g_autofree char *file = g_strdup_printf ("plan-%s.json", name);
  case_expect_json (file, all);
}

/* Four disks: vda with a chain of three, vdb raw, hdc empty, vdc. */
static void
four_disks (Case *c)
{
  fake_disk (&c->qemu, "vda", 3, "qcow2", 64 * MIB);
  fake_disk (&c->qemu, "vdb", 1, "raw", 8 * MIB);
  json_t *tray = fake_disk (&c->qemu, "hdc", 1, "raw", MIB);
  json_object_del (tray, "inserted");
  json_object_set_new (tray, "removable", json_true ());
  json_object_del (json_array_get (c->qemu.blockstats, 2), "node-name");
  fake_disk (&c->qemu, "vdc", 1, "qcow2", 32 * MIB);
}

/* Nothing said: every disk that can be, in full, beside its source, in qcow2. */
static void
test_default (void)
{
  g_auto (Case) c;
  case_init (&c);
  four_disks (&c);
  case_plan (&c, "", NULL);
  case_golden (&c, "default", NULL, false);
}

/* Full and incremental, chain and none, some disks not at all, at one instant. */
static void
test_mixed (void)
{
  g_auto (Case) c;
  case_init (&c);
  four_disks (&c);
  fake_bitmap (&c.qemu, "vda", "monday", 3 * MIB);
  fake_bitmap (&c.qemu, "vda-1", "monday", 2 * MIB);
  fake_bitmap (&c.qemu, "vdc", "monday", MIB);
  case_plan (&c,
             "<incremental>monday</incremental><disks>"
             "<disk name='vda' type='file'><driver type='qcow2'/><target file='/b/vda'/></disk>"
             "<disk name='vdb' type='block' backupmode='full'><driver type='raw'/>"
             "<target dev='/dev/b'/></disk>"
             "<disk name='vdc'/></disks>",
             "<name>tuesday</name>");
  case_golden (&c, "mixed", NULL, true);
}

static void
test_options (void)
{
  g_auto (Case) c;
  case_init (&c);
  four_disks (&c);
  fake_bitmap (&c.qemu, "vda", "monday", 3 * MIB);
  c.input.compress = true;
  case_plan (&c,
             "<disks><disk name='vda' incremental='monday' type='file'><target file='/b/vda'/>"
             "</disk><disk name='vdc'/></disks>",
             NULL);
  TmkBeginOptions options = { .compress = true, .bandwidth = 12345678 };
  case_golden (&c, "options", &options, true);
}

static void
test_encrypted (void)
{
  g_auto (Case) c;
  case_init (&c);
  four_disks (&c);
#define ENCRYPTED(disk, format)                                                                    \
  "<disk name='" disk "' type='file'><driver type='" format "'/><target file='/b/" disk "'>"       \
  "<encryption format='luks'><secret type='passphrase' usage='u'/></encryption></target></disk>"
  case_plan (&c,
             "<disks>" ENCRYPTED ("vda", "qcow2")
                 ENCRYPTED ("vdb", "raw") "<disk name='vdc'/></disks>",
             NULL);
  const JobDisk *first = g_ptr_array_index (c.plan->disks, 0);
  g_assert_cmpstr (first->encryption->secret_usage, ==, "u");
  case_golden (&c, "encrypted", NULL, false);
}

/* The new checkpoint need not cover what the backup does. */
static void
test_checkpoint_fewer (void)
{
  g_auto (Case) c;
  case_init (&c);
  four_disks (&c);
  case_plan (&c, "", "<name>c1</name><disks><disk name='vdc'/></disks>");
  case_golden (&c, "checkpoint-fewer", NULL, false);
}

static void
test_checkpoint_more (void)
{
  g_auto (Case) c;
  case_init (&c);
  four_disks (&c);
  case_plan (&c, "<disks><disk name='vdc'/></disks>", "<name>c1</name>");
  case_golden (&c, "checkpoint-more", NULL, false);
}

/* A checkpoint calls its bitmap on one disk otherwise: both for the new and for the old one. */
static void
test_own_bitmap_name (void)
{
  g_auto (Case) c;
  case_init (&c);
  four_disks (&c);
  fake_bitmap (&c.qemu, "vda", "mine", MIB);
  fake_bitmap (&c.qemu, "vda", "c1", 7 * MIB); /* another's: not this one */
  fake_bitmap (&c.qemu, "vdc", "c1", MIB);
  TmkCheckpointDef *old = know (&c, "c1");
  know_disk (old, "vda", "mine", 0, NULL);
  know_disk (old, "vdc", "c1", 0, NULL);
  case_plan (&c, "<incremental>c1</incremental><disks><disk name='vda'/><disk name='vdc'/></disks>",
             "<name>c2</name><disks><disk name='vda' bitmap='mine2'/><disk name='vdc'/></disks>");
  case_golden (&c, "own-bitmap-name", NULL, false);
}

/* --- backing files --------------------------------------------------------------------------- */

static const char *
backing_of (Case *c, const char *format, const char *target, const char *previous)
{
  fake_disk (&c->qemu, "vda", 1, "qcow2", MIB);
  fake_bitmap (&c->qemu, "vda", "c1", MIB);
  know (c, "c0");
  know_disk (know (c, "c1"), "vda", "c1", MIB, previous);
  g_autofree char *xml = g_strdup_printf (
      "<incremental>c1</incremental><disks><disk name='vda' type='file'><driver type='%s'/>"
      "<target file='%s'/></disk></disks>",
      format, target);
  case_plan (c, xml, NULL);
  assert_no_error (c->err);
  const JobDisk *disk = g_ptr_array_index (c->plan->disks, 0);
  g_assert_cmpstr (disk->backing_format, ==, disk->backing != NULL ? "qcow2" : NULL);
  return disk->backing;
}

static void
test_backing (void)
{
  g_auto (Case) same_folder;
  case_init (&same_folder);
  g_assert_cmpstr (backing_of (&same_folder, "qcow2", "/b/2", "/b/1"), ==, "/b/1");
  case_golden (&same_folder, "backing", NULL, false);
  g_auto (Case) other_folder;
  case_init (&other_folder);
  g_assert_cmpstr (backing_of (&other_folder, "qcow2", "/b/tue/vda", "/b/mon/vda"), ==,
                   "/b/mon/vda");
  g_auto (Case) not_known;
  case_init (&not_known);
  g_assert_null (backing_of (&not_known, "qcow2", "/b/2", NULL));
  g_auto (Case) itself;
  case_init (&itself);
  g_assert_null (backing_of (&itself, "qcow2", "/b/1", "/b/1"));
  g_auto (Case) reused;
  case_init (&reused);
  reused.input.reuse_external = true;
  g_assert_null (backing_of (&reused, "qcow2", "/b/2", "/b/1")); /* it has its own */
  g_auto (Case) raw;
  case_init (&raw);
  raw.input.reuse_external = true;
  g_assert_null (backing_of (&raw, "raw", "/b/2", "/b/1"));
}

/* --- refusals -------------------------------------------------------------------------------- */

static void
assert_plan_refused (const Case *c, TmkErrorCode code, const char *part, const char *disk)
{
  g_assert_null (c->plan);
  assert_refused (c->err, code, part);
  if (disk != NULL) {
    g_autofree char *quoted = g_strdup_printf ("'%s'", disk);
    assert_contains (tmk_error_message (c->err), quoted);
  }
}

/* All that can be wrong with one definition and nothing else. */
static void
test_refusals (void)
{
#define TARGET "<target file='/b/x'/>"
#define LUKS                                                                                       \
  "<target file='/b/x'><encryption format='luks'><secret type='passphrase' usage='u'/>"            \
  "</encryption></target>"
  static const struct {
    const char *backup, *checkpoint;
    bool compress, reuse;
    TmkErrorCode code;
    const char *part, *disk;
  } rows[] = {
    { "<disks><disk name='vdx'/></disks>", NULL, false, false, TMK_ERR_NOT_FOUND, "no such disk",
      "vdx" },
    { "<disks><disk name='hdc'/></disks>", NULL, false, false, TMK_ERR_UNSUPPORTED, "no medium",
      "hdc" },
    { "<disks><disk name='hdd'/></disks>", NULL, false, false, TMK_ERR_UNSUPPORTED, "read-only",
      "hdd" },
    { "<disks><disk name='vda' backup='no'/></disks>", NULL, false, false, TMK_ERR_INVALID,
      "no disk takes part", NULL },
    { "<incremental>c9</incremental>", NULL, false, false, TMK_ERR_NOT_FOUND,
      "there is no bitmap 'c9'", "vda" },
    { "<disks><disk name='vdc' incremental='bad'/></disks>", NULL, false, false,
      TMK_ERR_INCONSISTENT, "inconsistent", "vdc" },
    { "<disks><disk name='vdc' incremental='shrunk'/></disks>", NULL, false, false,
      TMK_ERR_MISMATCH, "has shrunk from 67108864 to 16777216 bytes", "vdc" },
    { "<disks><disk name='vdc' incremental='zigzag'/></disks>", NULL, false, false,
      TMK_ERR_MISMATCH, "has shrunk from 33554432 to 16777216 bytes", "vdc" },
    { "<disks><disk name='vda' type='file'>" TARGET "</disk>"
      "<disk name='vdc' type='file'>" TARGET "</disk></disks>",
      NULL, false, false, TMK_ERR_INVALID, "same target '/b/x'", "vda" },
    { "<disks><disk name='vdc' type='file' incremental='c1'><driver type='raw'/>" TARGET
      "</disk></disks>",
      NULL, false, false, TMK_ERR_UNSUPPORTED, "incremental backup into a new raw image", "vdc" },
    { "<disks><disk name='vdc' type='file' incremental='c1'><driver type='qed'/>" TARGET
      "</disk></disks>",
      NULL, false, false, TMK_ERR_UNSUPPORTED, "incremental backup into a new qed image", "vdc" },
    { "<disks><disk name='vdc' type='file'><driver type='raw'/>" TARGET "</disk></disks>", NULL,
      true, false, TMK_ERR_UNSUPPORTED, "a raw target cannot be compressed", "vdc" },
    { "<disks><disk name='vdc' type='file'>" LUKS "</disk></disks>", NULL, true, false,
      TMK_ERR_UNSUPPORTED, "encrypted qcow2 target cannot be compressed", "vdc" },
    { "<disks><disk name='vdc' type='file'>" TARGET "</disk></disks>", NULL, true, true,
      TMK_ERR_UNSUPPORTED, "cannot write compressed data over", "vdc" },
    { "<disks><disk name='vdc' type='file'><driver type='vmdk'/>" LUKS "</disk></disks>", NULL,
      false, false, TMK_ERR_UNSUPPORTED, "format 'vmdk' cannot be encrypted", "vdc" },
    /* the new checkpoint */
    { "", "<name>shrunk</name>", false, false, TMK_ERR_EXISTS, "checkpoint 'shrunk' exists already",
      NULL },
    { "", "<name>c1</name>", false, false, TMK_ERR_EXISTS, "has a bitmap 'c1' already", "vdc" },
    { "", "<name>old</name>", false, false, TMK_ERR_EXISTS, "has a bitmap 'old' already", "vda" },
    { "", "<name>n</name><disks><disk name='vdc' bitmap='c1'/></disks>", false, false,
      TMK_ERR_EXISTS, "has a bitmap 'c1' already", "vdc" },
    { "", "<name>tmk-1</name>", false, false, TMK_ERR_INVALID, "'tmk-1' cannot be", "vda" },
    { "", "<name>n</name><disks><disk name='vdc' bitmap='tmk-x'/></disks>", false, false,
      TMK_ERR_INVALID, "'tmk-x' cannot be", "vdc" },
    { "", "<name>n</name><disks><disk name='vdx'/></disks>", false, false, TMK_ERR_NOT_FOUND,
      "no such disk", "vdx" },
    { "", "<name>n</name><disks><disk name='hdd'/></disks>", false, false, TMK_ERR_UNSUPPORTED,
      "read-only", "hdd" },
    { "", "<name>n</name><disks><disk name='hdc'/></disks>", false, false, TMK_ERR_UNSUPPORTED,
      "no medium", "hdc" },
    { "", "<name>n</name><disks><disk name='vda' checkpoint='no'/></disks>", false, false,
      TMK_ERR_INVALID, "checkpoint 'n' covers no disk", NULL },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_auto (Case) c;
    case_init (&c);
    four_disks (&c);
    json_t *ro = fake_disk (&c.qemu, "hdd", 1, "raw", MIB);
    json_object_set_new (json_object_get (ro, "inserted"), "ro", json_true ());
    fake_bitmap (&c.qemu, "vda-1", "old", 0);
    const char *const good[] = { "c1", "shrunk", "zigzag" };
    for (size_t j = 0; j < G_N_ELEMENTS (good); j++)
      fake_bitmap (&c.qemu, "vdc", good[j], 0);
    json_object_set_new (fake_bitmap (&c.qemu, "vdc", "bad", 0), "inconsistent", json_true ());
    know_disk (know (&c, "shrunk"), "vdc", "shrunk", 64 * MIB, NULL);
    know_disk (know (&c, "zigzag"), "vdc", "zigzag", 32 * MIB, NULL);
    know_disk (know (&c, "in-between"), "vdc", "in-between", 16 * MIB, NULL);
    c.input.compress = rows[i].compress;
    c.input.reuse_external = rows[i].reuse;
    case_plan (&c, rows[i].backup, rows[i].checkpoint);
    assert_plan_refused (&c, rows[i].code, rows[i].part, rows[i].disk);
  }
}

/* What is refused next to what is not. */
static void
test_not_refused (void)
{
  static const struct {
    const char *backup;
    bool reuse;
  } rows[] = {
    /* as large as then, or grown since */
    { "<disks><disk name='vdc' incremental='same'/></disks>", false },
    { "<disks><disk name='vdc' incremental='grown'/></disks>", false },
    { "<disks><disk name='vdc' type='file' incremental='same'><driver type='raw'/>" TARGET
      "</disk></disks>",
      true },
    { "<disks><disk name='vdc' type='file'><driver type='vmdk'/>" TARGET "</disk></disks>", false },
  };
  for (size_t i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_auto (Case) c;
    case_init (&c);
    four_disks (&c);
    fake_bitmap (&c.qemu, "vdc", "grown", 0);
    fake_bitmap (&c.qemu, "vdc", "same", 0);
    know_disk (know (&c, "before"), "vdc", "before", 64 * MIB, NULL); /* shrank before these */
    know_disk (know (&c, "grown"), "vdc", "grown", 16 * MIB, NULL);
    know_disk (know (&c, "same"), "vdc", "same", 32 * MIB, NULL);
    know_disk (know (&c, "other"), "vda", "other", MIB, NULL);
    c.input.reuse_external = rows[i].reuse;
    case_plan (&c, rows[i].backup, NULL);
    assert_no_error (c.err);
    g_assert_cmpuint (c.plan->disks->len, ==, 1);
  }
}

/* A name must fit into qcow2. */
static void
test_long_names (void)
{
  for (int longer = 0; longer < 2; longer++)
    for (int own = 0; own < 2; own++) {
      g_auto (Case) c;
      case_init (&c);
      fake_disk (&c.qemu, "vda", 1, "qcow2", MIB);
      g_autofree char *name = g_strnfill ((gsize) 1023 + (gsize) longer, 'b');
      g_autofree char *xml
          = own ? g_strdup_printf ("<name>n</name><disks><disk name='vda' bitmap='%s'/></disks>",
                                   name)
                : g_strdup_printf ("<name>%s</name>", name);
      case_plan (&c, "", xml);
      if (longer)
        assert_plan_refused (&c, TMK_ERR_INVALID, "cannot be a bitmap's name", "vda");
      else
        assert_no_error (c.err);
    }
}

/* --- many disks ------------------------------------------------------------------------------ */

static void
add_once (GHashTable *seen, const char *name, size_t max)
{
  g_assert_cmpuint (strlen (name), <=, max);
  g_assert_true (g_str_has_prefix (name, "tmk-" RUN "-"));
  g_assert_true (g_hash_table_add (seen, (gpointer) name));
}

static void
test_thousand (void)
{
  g_auto (Case) c;
  case_init (&c);
  GString *xml = g_string_new ("<incremental>c1</incremental><disks>");
  for (unsigned i = 0; i < 1000; i++) {
    g_autofree char *id = g_strdup_printf ("vd_with_quite_a_long_name_%u", i);
    fake_disk (&c.qemu, id, 1, "qcow2", MIB);
    json_t *node = json_array_get (c.qemu.nodes, json_array_size (c.qemu.nodes) - 2);
    json_array_append_new (json_object_get (node, "dirty-bitmaps"),
                           json_pack ("{s:s, s:b}", "name", "c1", "recording", 1));
    g_string_append_printf (xml, "<disk name='%s'/>", id);
  }
  g_string_append (xml, "</disks>");
  case_plan (&c, xml->str, "<name>c2</name>");
  g_string_free (xml, TRUE);
  assert_no_error (c.err);
  g_assert_cmpuint (c.plan->disks->len, ==, 1000);
  g_assert_cmpuint (c.plan->bitmaps->len, ==, 1000);

  g_autoptr (GHashTable) nodes = g_hash_table_new (g_str_hash, g_str_equal);
  g_autoptr (GHashTable) others = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < c.plan->disks->len; i++) {
    const JobDisk *disk = g_ptr_array_index (c.plan->disks, i);
    add_once (nodes, disk->file_node, 31);
    add_once (nodes, disk->format_node, 31);
    add_once (others, disk->job, 255);
    add_once (others, disk->bitmap, 255);
    g_autofree char *target = g_strdup_printf ("/images/%s.qcow2.later", disk->name);
    g_assert_cmpstr (disk->target, ==, target); /* SOURCE.SUFFIX */
  }
  TmkBeginOptions none = { 0 };
  g_autoptr (json_t) actions = job_plan_actions (c.plan, &none, true);
  g_assert_cmpuint (json_array_size (actions), ==, 4 * 1000);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/hv-plan/default", test_default);
  g_test_add_func ("/hv-plan/mixed", test_mixed);
  g_test_add_func ("/hv-plan/options", test_options);
  g_test_add_func ("/hv-plan/encrypted", test_encrypted);
  g_test_add_func ("/hv-plan/checkpoint-fewer", test_checkpoint_fewer);
  g_test_add_func ("/hv-plan/checkpoint-more", test_checkpoint_more);
  g_test_add_func ("/hv-plan/own-bitmap-name", test_own_bitmap_name);
  g_test_add_func ("/hv-plan/backing", test_backing);
  g_test_add_func ("/hv-plan/refusals", test_refusals);
  g_test_add_func ("/hv-plan/not-refused", test_not_refused);
  g_test_add_func ("/hv-plan/long-names", test_long_names);
  g_test_add_func ("/hv-plan/thousand", test_thousand);
  return g_test_run ();
}
