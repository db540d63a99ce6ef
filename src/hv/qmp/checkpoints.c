/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/checkpoints.c: see hv/qmp/checkpoints.h. */
#include "hv/qmp/checkpoints.h"

#include "hv/qmp/bitmaps.h"
#include "hv/qmp/job.h"
#include "hv/qmp/plan.h"
#include "qmp/commands.h"

#include <string.h>

#define DOMAIN "hv"

/* --- collecting ------------------------------------------------------------------------------ */

/* The bitmap by which `def` is kept on `disk`, or NULL where it does not cover it. */
const char *
checkpoint_bitmap_on (const TmkCheckpointDef *def, const char *disk)
{
  const CheckpointDisk *entry = checkpoint_def_find_disk (def, disk);
  return entry != NULL && entry->covered ? entry->bitmap : NULL;
}

static guint64
total_dirty (const QmpMachine *machine, const TmkCheckpointDef *def)
{
  guint64 sum = 0;
  for (guint i = 0; i < machine->disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (machine->disks, i);
    const char *name = checkpoint_bitmap_on (def, disk->name);
    if (name == NULL || disk->empty)
      continue;
    g_autoptr (BitmapChain) chain = bitmap_chain_look (disk, name);
    sum += chain->dirty;
  }
  return sum;
}

typedef struct {
  TmkCheckpointDef *def;
  guint64 dirty;
} Rebuilt;

static gint
compare_rebuilt (gconstpointer a, gconstpointer b)
{
  const Rebuilt *x = a, *y = b;
  if (x->dirty != y->dirty)
    return x->dirty > y->dirty ? -1 : 1;
  if (x->def->creation_time != y->def->creation_time)
    return x->def->creation_time < y->def->creation_time ? -1 : 1;
  return strcmp (x->def->name, y->def->name);
}

/* Is there a description that explains bitmap `name` of `disk`? */
static bool
is_described (GPtrArray *known, const char *disk, const char *name)
{
  for (guint i = 0; i < known->len; i++)
    if (g_strcmp0 (checkpoint_bitmap_on (g_ptr_array_index (known, i), disk), name) == 0)
      return true;
  return false;
}

static TmkCheckpointDef *
rebuilt_def (GHashTable *by_name, const char *name)
{
  TmkCheckpointDef *def = g_hash_table_lookup (by_name, name);
  if (def != NULL)
    return def;
  def = tmk_checkpoint_def_new (name, NULL);
  if (def == NULL)
    return NULL; /* a bitmap that cannot be a checkpoint */
  /* libvirt's default names are the time of creation. */
  char *end;
  gint64 seconds = g_ascii_strtoll (name, &end, 10);
  def->creation_time = *end == '\0' && seconds > 0 ? seconds : 0;
  g_hash_table_insert (by_name, def->name, def);
  return def;
}

static void
add_covered_disk (TmkCheckpointDef *def, const char *disk, const char *bitmap)
{
  CheckpointDisk *entry = checkpoint_def_add_disk (def, disk);
  entry->covered = TRUE;
  entry->bitmap = g_strdup (bitmap);
}

/* Appends to `all` a chain of what only the bitmaps tell of. */
static void
rebuild (QmpMachine *machine, GPtrArray *all, GHashTable *names)
{
  g_autoptr (GHashTable) by_name = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < machine->disks->len; i++) {
    const QmpDisk *disk = g_ptr_array_index (machine->disks, i);
    g_autoptr (GPtrArray) bitmaps = bitmap_names (disk);
    for (guint j = 0; j < bitmaps->len; j++) {
      const char *name = g_ptr_array_index (bitmaps, j);
      if (is_described (all, disk->name, name) || plan_known_checkpoint (all, name) != NULL)
        continue;
      TmkCheckpointDef *def = rebuilt_def (by_name, name);
      if (def != NULL)
        add_covered_disk (def, disk->name, name);
    }
  }
  g_autoptr (GArray) sorted = g_array_new (FALSE, FALSE, sizeof (Rebuilt));
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init (&iter, by_name);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    Rebuilt entry = { value, total_dirty (machine, value) };
    g_array_append_val (sorted, entry);
  }
  g_array_sort (sorted, compare_rebuilt);
  for (guint i = 0; i < sorted->len; i++) {
    TmkCheckpointDef *def = g_array_index (sorted, Rebuilt, i).def;
    if (i > 0)
      def->parent = g_strdup (g_array_index (sorted, Rebuilt, i - 1).def->name);
    g_ptr_array_add (all, def);
    g_hash_table_add (names, def->name);
  }
}

static gint
compare_age (gconstpointer a, gconstpointer b)
{
  const TmkCheckpointDef *x = *(TmkCheckpointDef *const *) a, *y = *(TmkCheckpointDef *const *) b;
  if (x->creation_time != y->creation_time)
    return x->creation_time < y->creation_time ? -1 : 1;
  return strcmp (x->name, y->name);
}

/* Parents before children, and of equals the older first. */
static GPtrArray *
in_order (GPtrArray *all)
{
  GPtrArray *ordered = g_ptr_array_new_with_free_func ((GDestroyNotify) tmk_checkpoint_def_free);
  g_autoptr (GHashTable) placed = g_hash_table_new (g_str_hash, g_str_equal);
  g_ptr_array_sort (all, compare_age);
  while (all->len > 0) {
    guint pick = 0; /* where parents form a ring, just the first */
    for (guint i = 0; i < all->len; i++) {
      const TmkCheckpointDef *def = g_ptr_array_index (all, i);
      if (def->parent == NULL || g_hash_table_contains (placed, def->parent)
          || plan_known_checkpoint (all, def->parent) == NULL) {
        pick = i;
        break;
      }
    }
    TmkCheckpointDef *def = g_ptr_array_steal_index (all, pick);
    g_hash_table_add (placed, def->name);
    g_ptr_array_add (ordered, def);
  }
  return ordered;
}

/* The checkpoint of a job that runs is described only in the job's record as yet. */
static void
add_running (QmpMachine *machine, GPtrArray *all)
{
  g_autoptr (json_t) record = state_read (machine->state, "job", NULL);
  const char *xml = record != NULL && record_in_phase (record, "running")
                        ? jsonx_string (record, "checkpoint")
                        : NULL;
  if (xml == NULL)
    return;
  TmkCheckpointDef *def = tmk_checkpoint_def_parse (
      xml, strlen (xml), "the job's record", TMK_XML_INTERNAL | TMK_CHECKPOINT_REDEFINE, NULL);
  if (def != NULL)
    g_ptr_array_add (all, def);
}

GPtrArray *
checkpoints_collect (QmpMachine *machine, GHashTable **rebuilt, TmkError **errp)
{
  g_autoptr (GPtrArray) all = state_checkpoints (machine->state, errp);
  if (all == NULL)
    return NULL;
  add_running (machine, all);
  g_autoptr (GHashTable) names = g_hash_table_new (g_str_hash, g_str_equal);
  rebuild (machine, all, names);
  if (rebuilt != NULL)
    *rebuilt = g_steal_pointer (&names);
  return in_order (all);
}

static bool
has_child (GPtrArray *checkpoints, const char *name)
{
  for (guint i = 0; i < checkpoints->len; i++) {
    const TmkCheckpointDef *def = g_ptr_array_index (checkpoints, i);
    if (g_strcmp0 (def->parent, name) == 0)
      return true;
  }
  return false;
}

const char *
checkpoints_current (GPtrArray *checkpoints)
{
  for (guint i = checkpoints->len; i-- > 0;) {
    const TmkCheckpointDef *def = g_ptr_array_index (checkpoints, i);
    if (!has_child (checkpoints, def->name))
      return def->name;
  }
  return NULL;
}

/* --- listing --------------------------------------------------------------------------------- */

static const TmkCheckpointInfo *
show (QmpMachine *machine, HvArena *arena, const TmkCheckpointDef *def, bool known, bool current)
{
  TmkCheckpointInfo *info = hv_arena_alloc (arena, sizeof *info);
  const char **disks = hv_arena_alloc (arena, def->disks->len * sizeof *disks);
  const char **problems = hv_arena_alloc (arena, def->disks->len * sizeof *problems);
  info->name = hv_arena_string (arena, def->name);
  info->parent = hv_arena_string (arena, def->parent);
  info->description = hv_arena_string (arena, def->description);
  info->created = def->creation_time;
  info->known = known;
  info->current = current;
  info->size = total_dirty (machine, def);
  for (guint i = 0; i < def->disks->len; i++) {
    const CheckpointDisk *entry = g_ptr_array_index (def->disks, i);
    if (!entry->covered)
      continue;
    const QmpDisk *disk = qmp_disks_find (machine->disks, entry->name);
    const char *problem = "the domain has no such disk now";
    g_autoptr (BitmapChain) chain = NULL;
    if (disk != NULL && disk->empty) {
      problem = "the drive is empty";
    } else if (disk != NULL) {
      chain = bitmap_chain_look (disk, entry->bitmap);
      problem = chain->why_not;
    }
    disks[info->n_disks] = hv_arena_string (arena, entry->name);
    problems[info->n_disks++] = hv_arena_string (arena, problem);
  }
  info->disks = disks;
  info->problems = problems;
  return info;
}

TmkCheckpointList *
machine_checkpoints (TmkDomain *domain, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_LIVE, errp))
    return NULL;
  g_autoptr (GHashTable) rebuilt = NULL;
  g_autoptr (GPtrArray) all = checkpoints_collect (machine, &rebuilt, errp);
  HvCheckpointList *list = NULL;
  if (all != NULL) {
    list = g_new0 (HvCheckpointList, 1);
    list->arena = hv_arena_new ();
    const char *current = checkpoints_current (all);
    const TmkCheckpointInfo **shown = hv_arena_alloc (list->arena, all->len * sizeof *shown);
    for (guint i = 0; i < all->len; i++) {
      const TmkCheckpointDef *def = g_ptr_array_index (all, i);
      shown[i] = show (machine, list->arena, def, !g_hash_table_contains (rebuilt, def->name),
                       g_strcmp0 (def->name, current) == 0);
    }
    list->public_part.n_checkpoints = all->len;
    list->public_part.checkpoints = shown;
  }
  machine_leave (machine);
  return list != NULL ? &list->public_part : NULL;
}

/* `name` among `all`, or an error. */
TmkCheckpointDef *
checkpoints_must_find (GPtrArray *all, const char *name, TmkError **errp)
{
  TmkCheckpointDef *def = plan_known_checkpoint (all, name);
  if (def == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "there is no checkpoint '%s'", name);
    error_hint (errp, "'tidemark checkpoint list' shows what there is");
  }
  return def;
}

char *
machine_checkpoint_xml (TmkDomain *domain, const char *name, unsigned flags, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_LIVE, errp))
    return NULL;
  g_autoptr (GPtrArray) all = checkpoints_collect (machine, NULL, errp);
  TmkCheckpointDef *def = all != NULL ? checkpoints_must_find (all, name, errp) : NULL;
  char *xml = NULL;
  if (def != NULL) {
    for (guint i = 0; i < def->disks->len; i++) {
      CheckpointDisk *entry = g_ptr_array_index (def->disks, i);
      const QmpDisk *disk = qmp_disks_find (machine->disks, entry->name);
      if (!entry->covered || disk == NULL || disk->empty)
        continue;
      g_autoptr (BitmapChain) chain = bitmap_chain_look (disk, entry->bitmap);
      entry->has_size = chain->images > 0;
      entry->size = chain->dirty;
    }
    xml = tmk_checkpoint_def_format (def, flags & ~(unsigned) TMK_XML_INTERNAL);
  }
  machine_leave (machine);
  return xml;
}

/* --- making ---------------------------------------------------------------------------------- */

bool
checkpoints_refuse_running_job (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (json_t) running = NULL;
  if (!job_recover (machine, &running, errp))
    return false;
  if (running == NULL)
    return true;
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "a backup job runs");
  error_hint (errp, "wait for it with 'tidemark wait'");
  return false;
}

static bool
create_bitmaps (QmpMachine *machine, GPtrArray *bitmaps, TmkError **errp)
{
  json_t *actions = json_array ();
  for (guint i = 0; i < bitmaps->len; i++) {
    const PlanBitmap *bitmap = g_ptr_array_index (bitmaps, i);
    json_array_append_new (
        actions, qmp_action_bitmap_add (bitmap->node, bitmap->bitmap, bitmap->persistent, false));
  }
  return qmp_transaction (machine->client, actions, errp);
}

static bool
create (QmpMachine *machine, TmkCheckpointDef *def, TmkError **errp)
{
  g_autoptr (GPtrArray) all = checkpoints_collect (machine, NULL, errp);
  if (all == NULL || !tmk_checkpoint_def_align (def, machine->def, errp))
    return false;
  g_autoptr (GPtrArray) bitmaps = plan_checkpoint_bitmaps (machine->disks, def, all, errp);
  if (bitmaps == NULL)
    return false;
  def->creation_time = g_get_real_time () / G_USEC_PER_SEC;
  g_free (def->parent);
  def->parent = g_strdup (checkpoints_current (all));
  /* A kill in between leaves bitmaps without a description, which is then made up from them. */
  if (!create_bitmaps (machine, bitmaps, errp))
    return false;
  if (state_write_checkpoint (machine->state, def, errp))
    return true;
  for (guint i = 0; i < bitmaps->len; i++) {
    const PlanBitmap *bitmap = g_ptr_array_index (bitmaps, i);
    /* One that stays is listed, as rebuilt from the disks. */
    (void) qmp_bitmap_remove (machine->client, bitmap->node, bitmap->bitmap, NULL);
  }
  return false;
}

static bool
redefine (QmpMachine *machine, TmkCheckpointDef *def, TmkError **errp)
{
  g_autoptr (GPtrArray) known = state_checkpoints (machine->state, errp);
  if (known == NULL)
    return false;
  if (def->parent != NULL && plan_known_checkpoint (known, def->parent) == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "checkpoint '%s': its parent '%s' is not known",
               def->name, def->parent);
    error_hint (errp, "redefine the parent first");
    return false;
  }
  for (guint i = 0; i < def->disks->len; i++) {
    CheckpointDisk *entry = g_ptr_array_index (def->disks, i);
    const QmpDisk *disk = qmp_disks_find (machine->disks, entry->name);
    if (!entry->covered || disk == NULL || disk->empty)
      continue;
    if (entry->bitmap == NULL)
      entry->bitmap = g_strdup (def->name);
    g_autoptr (BitmapChain) chain = bitmap_chain_look (disk, entry->bitmap);
    if (chain->why_not != NULL) {
      error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "checkpoint '%s', disk '%s': %s", def->name,
                 disk->name, chain->why_not);
      error_hint (errp, "leave the disk out: <disk name='%s' checkpoint='no'/>", disk->name);
      return false;
    }
  }
  return state_write_checkpoint (machine->state, def, errp);
}

bool
machine_checkpoint_create (TmkDomain *domain, const TmkCheckpointDef *given, unsigned flags,
                           char **name, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  g_autoptr (TmkCheckpointDef) def = tmk_checkpoint_def_copy (given);
  if (!machine_enter (machine, ENTER_CHANGE, errp))
    return false;
  bool ok = checkpoints_refuse_running_job (machine, errp);
  if (ok)
    ok = (flags & TMK_CHECKPOINT_REDEFINE) != 0 ? redefine (machine, def, errp)
                                                : create (machine, def, errp);
  machine_leave (machine);
  if (ok && name != NULL)
    *name = g_strdup (def->name);
  return ok;
}
