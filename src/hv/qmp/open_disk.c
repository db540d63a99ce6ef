/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/open_disk.c: reading one disk of a pull, over the job's own NBD server.
 *
 * All it needs is in the job's record, which is replaced as a whole, so neither the domain's lock
 * nor the monitor is taken: a job has many disks, and each is opened by itself.
 */
#include "hv/qmp/job.h"

#include "hv/export_uri.h"

#include <string.h>

#define DOMAIN "hv"

/* The record of the pull that is exported now, or NULL with an error. */
static json_t *
exported_job (QmpMachine *machine, TmkError **errp)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (json_t) record
      = machine->state != NULL ? state_read (machine->state, "job", &err) : NULL;
  if (err != NULL) {
    error_propagate (errp, g_steal_pointer (&err));
    return NULL;
  }
  if (record != NULL && record_in_phase (record, "running") && job_is_exported (record))
    return g_steal_pointer (&record);
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "no pull job runs whose disks could be read");
  error_hint (errp, "start one with 'tidemark begin'");
  return NULL;
}

static const json_t *
disk_of_job (const json_t *record, const char *name, TmkError **errp)
{
  const json_t *disks = json_object_get (record, "disks");
  const json_t *found = jsonx_find (disks, "name", name);
  if (found != NULL && jsonx_string (found, "export") != NULL)
    return found;
  g_autoptr (GString) names = g_string_new (NULL);
  size_t i;
  json_t *disk;
  json_array_foreach (disks, i, disk)
    g_string_append_printf (names, "%s%s", i > 0 ? ", " : "", jsonx_string (disk, "name"));
  error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "the pull job has no disk '%s'", name);
  error_hint (errp, "its disks are: %s", names->str);
  return NULL;
}

TmkBlockSource *
machine_open_disk (TmkDomain *domain, const char *name, const TmkNbdOptions *options,
                   TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  g_autoptr (json_t) record = exported_job (machine, errp);
  const json_t *disk = record != NULL ? disk_of_job (record, name, errp) : NULL;
  if (disk == NULL)
    return NULL;
  const char *xml = jsonx_string (record, "definition");
  g_autoptr (TmkBackupDef) def
      = tmk_backup_def_parse (xml != NULL ? xml : "", xml != NULL ? strlen (xml) : 0,
                              "the job's record", TMK_XML_INTERNAL, errp);
  if (def == NULL)
    return NULL;
  if (def->server == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "the job's record names no server");
    return NULL;
  }
  const char *bitmap = jsonx_string (disk, "exportbitmap");
  g_autofree char *context
      = bitmap != NULL ? g_strconcat ("qemu:dirty-bitmap:", bitmap, NULL) : NULL;
  g_autofree char *uri = hv_export_uri (def->server, jsonx_string (disk, "export"));
  TmkNbdOptions own = *options;
  own.dirty_context = context;
  TmkBlockSource *source = tmk_block_source_open_nbd (uri, &own, errp);
  if (source == NULL)
    error_prefix (errp, "disk '%s'", name);
  return source;
}
