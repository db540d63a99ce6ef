/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/define.c: see engine/define.h. */
#include "engine/define.h"

#include "conf/domain_def.h"
#include "conf/domain_rewrite.h"

#include <string.h>
#include <tidemark/libvirt.h>

#define DOMAIN "engine"
#define ORIGIN "the point's <domain>"

/* ---- before ------------------------------------------------------------------------------- */

static bool
check_new (const TmkDomainDef *def, const TmkRestoreOptions *options, TmkError **errp)
{
  bool renamed = options->define_name != NULL;
  const char *name = renamed ? options->define_name : tmk_domain_def_name (def);
  const char *uuid = renamed ? NULL : tmk_domain_def_uuid (def);
  TmkDomainEntries *entries = tmk_libvirt_list (options->connect, errp);
  if (entries == NULL)
    return false;
  bool ok = true;
  for (size_t i = 0; ok && i < entries->n_domains; i++) {
    const TmkDomainEntry *entry = entries->domains[i];
    bool same_name = g_strcmp0 (entry->name, name) == 0;
    ok = !same_name && (uuid == NULL || g_strcmp0 (entry->uuid, uuid) != 0);
    if (!ok) {
      error_set (errp, DOMAIN, TMK_ERR_EXISTS, 0, "libvirt has a domain '%s' %s", entry->name,
                 same_name ? "already" : "of the same uuid");
      error_hint (errp, "nothing was restored; define it beside that one with --name NAME, or"
                        " 'virsh undefine' that one");
    }
  }
  tmk_domain_entries_free (entries);
  return ok;
}

bool
define_check (const Manifest *manifest, const TmkRestoreOptions *options, TmkError **errp)
{
  const char *xml = manifest->domain_xml;
  if (options->disk != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0, "a domain is defined with all its disks");
    error_hint (errp, "restore all disks of the point to a folder");
    return false;
  }
  if (xml == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "point '%s' has no <domain> document",
               manifest->id);
    error_hint (errp, "restore it without defining; points of libvirt's domains have one, and"
                      " those made with --domain-xml");
    return false;
  }
  g_autoptr (TmkDomainDef) def = tmk_domain_def_parse (xml, strlen (xml), ORIGIN, errp);
  return def != NULL && check_new (def, options, errp);
}

/* ---- after -------------------------------------------------------------------------------- */

typedef struct {
  DomainRewrite how;
  GPtrArray *paths; /* owned */
  DomainRewriteDisk *disks;
} Request;

static void
request_clear (Request *request)
{
  g_ptr_array_unref (request->paths);
  g_free (request->disks);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Request, request_clear)

/* libvirt takes no other than absolute paths. */
static const char *
keep_path (Request *request, const char *path)
{
  char *absolute = g_canonicalize_filename (path, NULL);
  g_ptr_array_add (request->paths, absolute);
  return absolute;
}

static void
request_init (Request *request, const Destinations *destinations, const TmkRestoreOptions *options)
{
  *request = (Request){ .paths = g_ptr_array_new_with_free_func (g_free),
                        .disks = g_new0 (DomainRewriteDisk, destinations->n + 1) };
  DomainRewrite *how = &request->how;
  bool raw = g_strcmp0 (options->format, "raw") == 0;
  how->name = options->define_name;
  how->disks = request->disks;
  for (size_t i = 0; i < destinations->n; i++) {
    const Destination *item = &destinations->items[i];
    const char *path = keep_path (request, item->name);
    if (item->file == NULL) {
      request->disks[how->n_disks++]
          = (DomainRewriteDisk){ item->disk->name, path, raw ? "raw" : "qcow2" };
    } else if (g_str_equal (item->file->role, "nvram")) {
      how->nvram = path;
    } else if (g_str_equal (item->file->role, "tpm") && how->tpm == NULL) {
      g_autofree char *folder = g_path_get_dirname (path);
      how->tpm = keep_path (request, folder);
    }
  }
}

static bool
define (const char *xml, const DomainRewrite *how, const TmkRestoreOptions *options, char **name,
        TmkError **errp)
{
  g_autoptr (GPtrArray) notes = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *rewritten = domain_rewrite (xml, strlen (xml), ORIGIN, how, notes, errp);
  if (rewritten == NULL || !tmk_libvirt_define (options->connect, rewritten, name, errp))
    return false;
  for (guint i = 0; i < notes->len && options->warn != NULL; i++)
    options->warn (notes->pdata[i], options->data);
  return true;
}

/* An older libvirt keeps the state of a TPM where it likes. */
static void
tell_of_tpm (const char *folder, const char *name, const TmkRestoreOptions *options)
{
  TmkDomainEntries *entries = tmk_libvirt_list (options->connect, NULL);
  const char *uuid = "UUID";
  for (size_t i = 0; entries != NULL && i < entries->n_domains; i++)
    if (g_strcmp0 (entries->domains[i]->name, name) == 0)
      uuid = entries->domains[i]->uuid;
  g_autofree char *last = g_path_get_basename (folder);
  g_autofree char *text = g_strdup_printf (
      "this libvirt cannot be told where the state of the TPM is: before the domain starts, copy"
      " '%s' to '/var/lib/libvirt/swtpm/%s/%s', for the user that swtpm runs as",
      folder, uuid, last);
  if (options->warn != NULL)
    options->warn (text, options->data);
  tmk_domain_entries_free (entries);
}

bool
define_run (const Manifest *manifest, const Destinations *destinations,
            const TmkRestoreOptions *options, char **name, TmkError **errp)
{
  g_auto (Request) request;
  request_init (&request, destinations, options);
  DomainRewrite how = request.how;
  TmkError *err = NULL;
  bool ok = define (manifest->domain_xml, &how, options, name, &err);
  if (!ok && how.tpm != NULL) {
    how.tpm = NULL;
    ok = define (manifest->domain_xml, &how, options, name, NULL);
    if (ok) {
      g_clear_pointer (&err, tmk_error_free);
      tell_of_tpm (request.how.tpm, *name, options);
    }
  }
  if (ok)
    return true;
  error_propagate (errp, err);
  error_prefix (errp, "the disks are restored, but the domain is not defined");
  error_hint (errp, "make '%s/domain.xml' fit, and 'virsh define' it", options->to);
  return false;
}
