/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/look.c: see engine/look.h. */
#include "engine/look.h"

#include "engine/plan_search.h"

#include <sys/stat.h>

#define DOMAIN "engine"

/* The images of a disk, each with what tells it from another of the same name. */
static ManifestImage *
identify_images (const TmkDiskInfo *disk)
{
  ManifestImage *images = g_new0 (ManifestImage, disk->n_images + 1);
  for (size_t i = 0; i < disk->n_images; i++) {
    struct stat st;
    images[i].path = g_strdup (disk->images[i]);
    /* What cannot be looked at (a monitor reached over the network, a folder of another user) is
     * known by its name alone. */
    if (disk->images[i] != NULL && stat (disk->images[i], &st) == 0 && S_ISREG (st.st_mode)) {
      images[i].device = st.st_dev;
      images[i].inode = st.st_ino;
    }
  }
  return images;
}

/* What the points call this domain. Without a name of its own it is called after its uuid. */
static bool
name_domain (Look *look, TmkDomain *domain, const TmkBackupOptions *options, TmkError **errp)
{
  const TmkDomainDef *def = tmk_domain_def (domain);
  const char *name = options->domain_name;
  const char *uuid = tmk_domain_def_uuid (def);
  if (name == NULL)
    name = tmk_domain_def_name (def);
  if (name == NULL || *name == '\0')
    name = uuid;
  if (name == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "the domain has neither a name nor a uuid");
    error_hint (errp,
                "name it with --name, with --domain-xml, or by starting QEMU with -name or -uuid");
    return false;
  }
  look->domain = g_strdup (name);
  look->uuid = g_strdup (uuid);
  return true;
}

static void
forget_disks (Look *look)
{
  for (size_t i = 0; look->images != NULL && look->images[i] != NULL; i++) {
    for (size_t j = 0; j < look->n_images[i]; j++)
      g_free (look->images[i][j].path);
    g_free (look->images[i]);
  }
  g_clear_pointer (&look->images, g_free);
  g_clear_pointer (&look->n_images, g_free);
  g_clear_pointer (&look->disks, tmk_disk_list_free);
}

static bool
look_at_disks (Look *look, TmkDomain *domain, TmkError **errp)
{
  forget_disks (look);
  look->disks = tmk_domain_disks (domain, errp);
  if (look->disks == NULL)
    return false;
  look->images = g_new0 (ManifestImage *, look->disks->n_disks + 1);
  look->n_images = g_new0 (size_t, look->disks->n_disks + 1);
  for (size_t i = 0; i < look->disks->n_disks; i++) {
    look->images[i] = identify_images (look->disks->disks[i]);
    look->n_images[i] = look->disks->disks[i]->n_images;
  }
  return true;
}

static void
free_names (gpointer names)
{
  g_ptr_array_unref (names);
}

/* Checkpoints that disks may have though the domain does not tell of them. */
typedef struct {
  GPtrArray *names;  /* borrowed, the newest first */
  GHashTable *disks; /* of each: an array of the disks' names */
} Untold;

static void
untold_clear (Untold *untold)
{
  g_ptr_array_unref (untold->names);
  g_hash_table_unref (untold->disks);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Untold, untold_clear)

static void
untold_add (Untold *untold, char *name, const char *disk)
{
  GPtrArray *disks = g_hash_table_lookup (untold->disks, name);
  if (disks == NULL) {
    disks = g_ptr_array_new ();
    g_hash_table_insert (untold->disks, name, disks);
    g_ptr_array_add (untold->names, name);
  }
  g_ptr_array_add (disks, (void *) disk);
}

static void
untold_init (Untold *untold, const Look *look)
{
  PlanInput input = { .points = (const Manifest *const *) look->points->manifests->pdata,
                      .n_points = look->points->manifests->len };
  untold->names = g_ptr_array_new ();
  untold->disks = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, free_names);
  for (size_t i = 0; i < look->disks->n_disks; i++) {
    PlanDisk disk = { .disk = look->disks->disks[i],
                      .images = look->images[i],
                      .n_images = look->n_images[i] };
    g_autoptr (GPtrArray) names = g_ptr_array_new ();
    plan_search_untold (&input, &disk, names);
    for (guint j = 0; j < names->len; j++)
      untold_add (untold, names->pdata[j], disk.disk->name);
  }
}

static bool
adopt (TmkDomain *domain, const Untold *untold, TmkError **errp)
{
  for (guint i = 0; i < untold->names->len; i++) {
    const char *name = untold->names->pdata[i];
    GPtrArray *disks = g_hash_table_lookup (untold->disks, name);
    g_ptr_array_add (disks, NULL);
    if (!tmk_domain_checkpoint_adopt (domain, name, (const char *const *) disks->pdata, errp))
      return false;
  }
  return true;
}

/* Bitmaps that were made elsewhere (while the disks were powered off, by another tool) are in the
 * images, and a domain that knows bitmaps by what it was told would not find them. To tell it
 * changes what it remembers: not in a dry run. Then `*untold` says that there may be some. */
static bool
tell_of_bitmaps (Look *look, TmkDomain *domain, bool dry_run, bool *untold, TmkError **errp)
{
  *untold = false;
  if (!domain->driver->adopts)
    return true;
  g_auto (Untold) found;
  untold_init (&found, look);
  if (found.names->len == 0)
    return true;
  if (!dry_run)
    return adopt (domain, &found, errp) && look_at_disks (look, domain, errp);
  HvFacts facts;
  if (!domain->driver->inspect (domain, &facts, errp))
    return false;
  *untold = facts.running; /* the images of one that is shut off were looked at themselves */
  return true;
}

Look *
look_new (TmkDomain *domain, Repo *repo, const TmkBackupOptions *options, TmkError **errp)
{
  g_autoptr (Look) look = g_new0 (Look, 1);
  bool untold;
  if (!look_at_disks (look, domain, errp) || !name_domain (look, domain, options, errp))
    return NULL;
  look->points = points_load (repo, NULL, errp);
  if (look->points == NULL)
    return NULL;
  if (!tell_of_bitmaps (look, domain, options->dry_run, &untold, errp))
    return NULL;
  const Manifest *const *points = (const Manifest *const *) look->points->manifests->pdata;
  if (plan_needs_checkpoints (points, look->points->manifests->len)
      && (look->checkpoints = tmk_domain_checkpoints (domain, errp)) == NULL)
    return NULL;
  look->prefix = plan_checkpoint_prefix (repo_short_id (repo));
  PlanInput input = {
    .disks = look->disks->disks,
    .images = (const ManifestImage *const *) look->images,
    .n_images = look->n_images,
    .n_disks = look->disks->n_disks,
    .points = points,
    .n_points = look->points->manifests->len,
    .domain = look->domain,
    .uuid = look->uuid,
    .chunk_size = repo_config (repo)->chunk_size,
    .prefix = look->prefix,
    .checkpoints = look->checkpoints,
    .untold = untold,
  };
  look->plan = plan_new (&input, options, errp);
  return look->plan != NULL ? g_steal_pointer (&look) : NULL;
}

void
look_free (Look *look)
{
  if (look == NULL)
    return;
  plan_free (look->plan);
  points_free (look->points);
  tmk_checkpoint_list_free (look->checkpoints);
  forget_disks (look);
  g_free (look->prefix);
  g_free (look->domain);
  g_free (look->uuid);
  g_free (look);
}
