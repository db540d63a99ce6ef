/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/domain.c: the public functions on a domain, handed to its driver; and the lists' memory. */
#include "hv/hv.h"

struct HvArena {
  GPtrArray *blocks;
};

HvArena *
hv_arena_new (void)
{
  HvArena *arena = g_new0 (HvArena, 1);
  arena->blocks = g_ptr_array_new_with_free_func (g_free);
  return arena;
}

void
hv_arena_free (HvArena *arena)
{
  if (arena == NULL)
    return;
  g_ptr_array_unref (arena->blocks);
  g_free (arena);
}

void *
hv_arena_alloc (HvArena *arena, size_t size)
{
  void *block = g_malloc0 (MAX (size, 1));
  g_ptr_array_add (arena->blocks, block);
  return block;
}

const char *
hv_arena_string (HvArena *arena, const char *s)
{
  if (s == NULL)
    return NULL;
  char *copy = g_strdup (s);
  g_ptr_array_add (arena->blocks, copy);
  return copy;
}

void
hv_warn (const TmkBeginOptions *options, const char *format, ...)
{
  if (options->warn == NULL)
    return;
  va_list ap;
  va_start (ap, format);
  g_autofree char *message = g_strdup_vprintf (format, ap);
  va_end (ap);
  options->warn (message, options->warn_data);
}

HvDescription *
hv_description_new (void)
{
  HvDescription *description = g_new0 (HvDescription, 1);
  description->arena = hv_arena_new ();
  return description;
}

void
tmk_domain_description_free (TmkDomainDescription *description)
{
  if (description == NULL)
    return;
  hv_arena_free (((HvDescription *) description)->arena);
  g_free (description);
}

void
tmk_disk_list_free (TmkDiskList *list)
{
  if (list == NULL)
    return;
  tmk_disk_list_free (((HvDiskList *) list)->inner);
  hv_arena_free (((HvDiskList *) list)->arena);
  g_free (list);
}

void
tmk_checkpoint_list_free (TmkCheckpointList *list)
{
  if (list == NULL)
    return;
  hv_arena_free (((HvCheckpointList *) list)->arena);
  g_free (list);
}

void
tmk_job_status_free (TmkJobStatus *status)
{
  if (status == NULL)
    return;
  hv_arena_free (((HvJobStatus *) status)->arena);
  g_free (status);
}

const char *
tmk_job_state_name (TmkJobState state)
{
  switch (state) {
  case TMK_JOB_NONE:
    return "none";
  case TMK_JOB_RUNNING:
    return "running";
  case TMK_JOB_INTERRUPTED:
    return "interrupted";
  case TMK_JOB_DONE:
    return "done";
  case TMK_JOB_FAILED:
    return "failed";
  case TMK_JOB_CANCELLED:
    return "cancelled";
  }
  return "unknown";
}

void
tmk_domain_free (TmkDomain *domain)
{
  if (domain != NULL)
    domain->driver->free (domain);
}

const TmkDomainDef *
tmk_domain_def (TmkDomain *domain)
{
  return domain->driver->def (domain);
}

TmkDomainDescription *
tmk_domain_describe (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->describe (domain, errp);
}

TmkDiskList *
tmk_domain_disks (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->disks (domain, errp);
}

bool
tmk_domain_begin (TmkDomain *domain, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
                  const TmkBeginOptions *options, TmkError **errp)
{
  static const TmkBeginOptions none;
  return domain->driver->begin (domain, def, checkpoint, options != NULL ? options : &none, errp);
}

char *
tmk_domain_job_xml (TmkDomain *domain, unsigned flags, TmkError **errp)
{
  return domain->driver->job_xml (domain, flags, errp);
}

TmkJobStatus *
tmk_domain_job_status (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->job_status (domain, false, errp);
}

TmkJobStatus *
tmk_domain_poll_job (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->job_status (domain, true, errp);
}

TmkBlockSource *
tmk_domain_open_disk (TmkDomain *domain, const char *disk, const TmkNbdOptions *options,
                      TmkError **errp)
{
  static const TmkNbdOptions none;
  return domain->driver->open_disk (domain, disk, options != NULL ? options : &none, errp);
}

bool
tmk_domain_end (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->end (domain, errp);
}

bool
tmk_domain_abort (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->abort (domain, errp);
}

TmkCheckpointList *
tmk_domain_checkpoints (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->checkpoints (domain, errp);
}

bool
tmk_domain_checkpoint_create (TmkDomain *domain, const TmkCheckpointDef *def, unsigned flags,
                              char **name, TmkError **errp)
{
  return domain->driver->checkpoint_create (domain, def, flags, name, errp);
}

char *
tmk_domain_checkpoint_xml (TmkDomain *domain, const char *name, unsigned flags, TmkError **errp)
{
  return domain->driver->checkpoint_xml (domain, name, flags, errp);
}

bool
tmk_domain_checkpoint_delete (TmkDomain *domain, const char *name, bool children, TmkError **errp)
{
  return domain->driver->checkpoint_delete (domain, name, children, errp);
}

bool
tmk_domain_checkpoint_delete_from (TmkDomain *domain, const char *name, const char *const *disks,
                                   TmkError **errp)
{
  return domain->driver->checkpoint_delete_from (domain, name, disks, errp);
}

bool
tmk_domain_checkpoint_adopt (TmkDomain *domain, const char *name, const char *const *disks,
                             TmkError **errp)
{
  return domain->driver->checkpoint_adopt (domain, name, disks, errp);
}

int
hv_reserve (TmkDomain *domain, TmkError **errp)
{
  return domain->driver->reserve (domain, errp);
}
