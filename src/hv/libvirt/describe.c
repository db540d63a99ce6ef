/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/describe.c: what a domain is besides its disks: its description, the variables of its
 * firmware, the state of its TPM.
 *
 * Where libvirt keeps them is not told where it is the default (of the variables: where the domain
 * is shut off); see places_of() (source: libvirt, docs/formatdomain, src/qemu/qemu_conf.c,
 * qemu_tpm.c and qemu_domain.c).
 */
#include "hv/libvirt/lv.h"

#include "conf/xml_doc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 4

typedef struct {
  HvArena *arena;
  GPtrArray *files;    /* of TmkDomainFile* */
  GPtrArray *left_out; /* of strings of the arena */
} Found;

static void
leave_out (Found *found, const char *role, const char *path, const char *why)
{
  g_autofree char *text = g_strdup_printf ("%s '%s': %s", role, path, why);
  g_ptr_array_add (found->left_out, (char *) hv_arena_string (found->arena, text));
}

static void
add_file (Found *found, const char *role, const char *name, const char *path)
{
  if (access (path, R_OK) != 0) {
    leave_out (found, role, path, g_strerror (errno));
    return;
  }
  TmkDomainFile *file = hv_arena_alloc (found->arena, sizeof *file);
  file->role = role;
  file->name = hv_arena_string (found->arena, name);
  file->path = hv_arena_string (found->arena, path);
  g_ptr_array_add (found->files, file);
}

/* All files below `path`, called by their way from there. */
static void
add_folder (Found *found, const char *role, const char *path, const char *name, unsigned depth)
{
  GError *gerror = NULL;
  g_autoptr (GDir) dir = g_dir_open (path, 0, &gerror);
  if (dir == NULL) {
    leave_out (found, role, path, gerror->message);
    g_error_free (gerror);
    return;
  }
  for (const char *entry = g_dir_read_name (dir); entry != NULL; entry = g_dir_read_name (dir)) {
    g_autofree char *below = g_build_filename (path, entry, NULL);
    g_autofree char *called
        = name != NULL ? g_build_filename (name, entry, NULL) : g_strdup (entry);
    struct stat st;
    if (lstat (below, &st) != 0 || g_str_equal (entry, ".lock"))
      continue;
    if (S_ISDIR (st.st_mode) && depth < MAX_DEPTH)
      add_folder (found, role, below, called, depth + 1);
    else if (S_ISREG (st.st_mode))
      add_file (found, role, called, below);
  }
}

/* --- libvirt's own places -------------------------------------------------------------------- */

typedef struct {
  char *nvram, *tpm, *logs; /* folders */
} Places;

static void
places_clear (Places *places)
{
  g_free (places->nvram);
  g_free (places->tpm);
  g_free (places->logs);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Places, places_clear)

static Places
places_of (const LvDomain *lv)
{
  const char *conf = g_get_user_config_dir (), *cache = g_get_user_cache_dir ();
  if (connection_is_session (lv->connection))
    return (Places){ .nvram = g_build_filename (conf, "libvirt/qemu/nvram", NULL),
                     .tpm = g_build_filename (conf, "libvirt/qemu/swtpm", NULL),
                     .logs = g_build_filename (cache, "libvirt/qemu/log", NULL) };
  return (Places){ .nvram = g_strdup ("/var/lib/libvirt/qemu/nvram"),
                   .tpm = g_strdup ("/var/lib/libvirt/swtpm"),
                   .logs = g_strdup ("/var/log/libvirt/qemu") };
}

/* One that was never started has no log, nor has it variables or a TPM's state. Where the logs
 * cannot be seen, the rest may be elsewhere too. */
static bool
never_started (const LvDomain *lv, const Places *places)
{
  g_autofree char *name = g_strconcat (lv->name, ".log", NULL);
  g_autofree char *log = g_build_filename (places->logs, name, NULL);
  struct stat st;
  return !lv->active && stat (places->logs, &st) == 0 && stat (log, &st) != 0 && errno == ENOENT;
}

/* --- the firmware's variables ---------------------------------------------------------------- */

/* Has the firmware variables in a file apart from it, when it runs? */
static bool
has_nvram (const xmlNode *os)
{
  const xmlNode *loader = xml_child (os, "loader");
  g_autofree char *firmware = xml_attr_full (os, "firmware");
  g_autofree char *type = loader != NULL ? xml_attr_full (loader, "type") : NULL;
  g_autofree char *stateless = loader != NULL ? xml_attr_full (loader, "stateless") : NULL;
  if (g_strcmp0 (stateless, "yes") == 0)
    return false;
  return type != NULL ? g_str_equal (type, "pflash") : g_strcmp0 (firmware, "efi") == 0;
}

/* Where libvirt makes the variables if it is not told otherwise. It chooses that when the domain
 * starts, and older releases do not say so afterwards. */
static void
find_default_nvram (Found *found, const LvDomain *lv, const Places *places)
{
  static const char *const endings[] = { "_VARS.fd", "_VARS.qcow2" };
  for (size_t i = 0; i < G_N_ELEMENTS (endings); i++) {
    g_autofree char *name = g_strconcat (lv->name, endings[i], NULL);
    g_autofree char *path = g_build_filename (places->nvram, name, NULL);
    struct stat st;
    if (stat (path, &st) != 0 && errno == ENOENT)
      continue;
    add_file (found, "nvram", name, path);
    return;
  }
  g_autofree char *name = g_strconcat (lv->name, endings[0], NULL);
  g_autofree char *path = g_build_filename (places->nvram, name, NULL);
  if (!never_started (lv, places))
    leave_out (found, "nvram", path, g_strerror (ENOENT));
}

static void
find_nvram (Found *found, const LvDomain *lv, const Places *places, const xmlNode *domain)
{
  const xmlNode *os = xml_child (domain, "os");
  const xmlNode *nvram = os != NULL ? xml_child (os, "nvram") : NULL;
  const xmlNode *source = nvram != NULL ? xml_child (nvram, "source") : NULL;
  g_autofree char *type = nvram != NULL ? xml_attr_full (nvram, "type") : NULL;
  g_autofree char *path = source != NULL ? xml_attr_full (source, "file") : xml_text (nvram);
  if (path != NULL && *g_strstrip (path) == '/') {
    g_autofree char *name = g_path_get_basename (path);
    add_file (found, "nvram", name, path);
  } else if (source != NULL && type != NULL && !g_str_equal (type, "file")) {
    g_autofree char *dev = xml_attr_full (source, "dev"), *name = xml_attr_full (source, "name");
    g_autofree char *why = g_strdup_printf ("it is no file (type='%s')", type);
    leave_out (found, "nvram", dev != NULL ? dev : name != NULL ? name : lv->name, why);
  } else if (os != NULL && has_nvram (os)) {
    find_default_nvram (found, lv, places);
  }
}

/* --- the TPM's state ------------------------------------------------------------------------- */

static void
find_tpm (Found *found, const LvDomain *lv, const Places *places, const xmlNode *domain)
{
  const xmlNode *devices = xml_child (domain, "devices");
  const xmlNode *tpm = devices != NULL ? xml_child (devices, "tpm") : NULL;
  const xmlNode *backend = tpm != NULL ? xml_child (tpm, "backend") : NULL;
  g_autofree char *type = backend != NULL ? xml_attr_full (backend, "type") : NULL;
  if (g_strcmp0 (type, "emulator") != 0)
    return;
  const xmlNode *source = xml_child (backend, "source");
  g_autofree char *path = source != NULL ? xml_attr_full (source, "path") : NULL;
  g_autofree char *folder
      = path != NULL ? g_steal_pointer (&path) : g_build_filename (places->tpm, lv->uuid, NULL);
  struct stat st;
  if (stat (folder, &st) != 0) {
    int why = errno;
    if (why != ENOENT || !never_started (lv, places))
      leave_out (found, "tpm", folder, g_strerror (why));
  } else if (S_ISDIR (st.st_mode)) {
    add_folder (found, "tpm", folder, NULL, 0);
  } else {
    g_autofree char *name = g_path_get_basename (folder);
    add_file (found, "tpm", name, folder);
  }
}

/* --- all of it ------------------------------------------------------------------------------- */

static bool
find_files (Found *found, const LvDomain *lv, const char *xml, TmkError **errp)
{
  g_autoptr (xmlDoc) doc = xml_doc_parse (xml, strlen (xml), "the domain", "domain", errp);
  if (doc == NULL)
    return false;
  g_auto (Places) places = places_of (lv);
  find_nvram (found, lv, &places, xmlDocGetRootElement (doc));
  find_tpm (found, lv, &places, xmlDocGetRootElement (doc));
  return true;
}

/* As it would start next; a transient domain never will, and is described as it is. */
static char *
next_xml (LvDomain *lv, TmkError **errp)
{
  bool persistent = virDomainIsPersistent (lv->dom) == 1;
  char *xml = virDomainGetXMLDesc (lv->dom, persistent ? VIR_DOMAIN_XML_INACTIVE : 0);
  if (xml == NULL)
    connection_set_error (errp, "domain '%s': cannot get its description", lv->name);
  return xml;
}

TmkDomainDescription *
lv_describe (LvDomain *lv, TmkError **errp)
{
  char *xml = next_xml (lv, errp);
  if (xml == NULL)
    return NULL;
  HvDescription *description = hv_description_new ();
  g_autoptr (TmkDomainDescription) shown = &description->public_part;
  Found found = { .arena = description->arena,
                  .files = g_ptr_array_new (),
                  .left_out = g_ptr_array_new () };
  shown->xml = hv_arena_string (found.arena, xml);
  free (xml); /* libvirt's, from malloc */
  /* What runs may know better where the variables are. */
  bool ok = find_files (&found, lv, lv->active ? lv->xml : shown->xml, errp);
  const TmkDomainFile **files = hv_arena_alloc (found.arena, found.files->len * sizeof *files);
  const char **left_out = hv_arena_alloc (found.arena, found.left_out->len * sizeof *left_out);
  for (guint i = 0; i < found.files->len; i++)
    files[i] = g_ptr_array_index (found.files, i);
  for (guint i = 0; i < found.left_out->len; i++)
    left_out[i] = g_ptr_array_index (found.left_out, i);
  shown->files = files;
  shown->n_files = found.files->len;
  shown->left_out = left_out;
  shown->n_left_out = found.left_out->len;
  g_ptr_array_unref (found.files);
  g_ptr_array_unref (found.left_out);
  return ok ? g_steal_pointer (&shown) : NULL;
}
