/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/hv.h: what a place where disks are must be able to do: the inside of TmkDomain.
 *
 * A driver embeds TmkDomain as its first member and fills in `driver`. Each function implements
 * the public function of the same name (<tidemark/domain.h>), whose comment is the contract;
 * arguments have been checked for NULL. One thread at a time per domain. None may be NULL.
 */
#pragma once

#include "conf/backup_def.h"
#include "conf/checkpoint_def.h"
#include "util/error.h"
#include <tidemark/domain.h>

typedef enum {
  HV_AGENT_UNKNOWN,
  HV_AGENT_NONE,
  HV_AGENT_SILENT,
  HV_AGENT_CONNECTED,
} HvAgent;

/* What a domain runs on. */
typedef struct {
  bool running;     /* there is a guest */
  unsigned version; /* of QEMU, major*10000 + minor*100 + micro; 0: not known */
  long pid;         /* of the guest's QEMU; 0: not known */
  HvAgent agent;    /* where the domain's manager has it */
} HvFacts;

typedef struct {
  const char *name; /* "qmp" */
  /* While disks of a pull are read, tmk_domain_poll_job() has to be called some times a second. */
  bool watch_pulls;
  /* It knows bitmaps by what it was told alone: tmk_domain_checkpoint_adopt() matters. */
  bool adopts;
  void (*free) (TmkDomain *domain);
  /* For hv_reserve(). */
  int (*reserve) (TmkDomain *domain, TmkError **errp);
  const TmkDomainDef *(*def) (TmkDomain *domain);
  TmkDomainDescription *(*describe) (TmkDomain *domain, TmkError **errp);
  bool (*inspect) (TmkDomain *domain, HvFacts *facts, TmkError **errp);
  TmkDiskList *(*disks) (TmkDomain *domain, TmkError **errp);
  /* `def` is the caller's: align a copy. `options` is never NULL. */
  bool (*begin) (TmkDomain *domain, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
                 const TmkBeginOptions *options, TmkError **errp);
  char *(*job_xml) (TmkDomain *domain, unsigned flags, TmkError **errp);
  /* With `act` the due work is done too: tmk_domain_poll_job(). */
  TmkJobStatus *(*job_status) (TmkDomain *domain, bool act, TmkError **errp);
  TmkBlockSource *(*open_disk) (TmkDomain *domain, const char *disk, const TmkNbdOptions *options,
                                TmkError **errp);
  bool (*end) (TmkDomain *domain, TmkError **errp);
  bool (*abort) (TmkDomain *domain, TmkError **errp);
  TmkCheckpointList *(*checkpoints) (TmkDomain *domain, TmkError **errp);
  bool (*checkpoint_create) (TmkDomain *domain, const TmkCheckpointDef *def, unsigned flags,
                             char **name, TmkError **errp);
  char *(*checkpoint_xml) (TmkDomain *domain, const char *name, unsigned flags, TmkError **errp);
  bool (*checkpoint_delete) (TmkDomain *domain, const char *name, bool children, TmkError **errp);
  bool (*checkpoint_delete_from) (TmkDomain *domain, const char *name, const char *const *disks,
                                  TmkError **errp);
  bool (*checkpoint_adopt) (TmkDomain *domain, const char *name, const char *const *disks,
                            TmkError **errp);
} HvDriver;

struct TmkDomain {
  const HvDriver *driver;
};

/* The domain is the caller's, among those that reserve it, until the descriptor returned is given
 * to fsx_unlock() or the process ends. -1 with TMK_ERR_BUSY where another process has it. So one
 * backup can tell what another one is doing from what one that was killed has left. */
int hv_reserve (TmkDomain *domain, TmkError **errp);

/* Tells the caller of begin something that stops nothing; nowhere if it does not listen. */
void hv_warn (const TmkBeginOptions *options, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Lists that are handed out hold their strings in one arena. */
typedef struct HvArena HvArena;
HvArena *hv_arena_new (void);
void hv_arena_free (HvArena *arena);
/* Zeroed memory and copied strings (NULL gives NULL) that live as long as the arena. */
void *hv_arena_alloc (HvArena *arena, size_t size);
const char *hv_arena_string (HvArena *arena, const char *s);

/* A list that remembers its arena; `public_part` comes first, so a pointer to either is both. */
typedef struct {
  TmkDiskList public_part;
  HvArena *arena;
  TmkDiskList *inner; /* owned: another list, some of whose disks are in this one; or NULL */
} HvDiskList;
typedef struct {
  TmkCheckpointList public_part;
  HvArena *arena;
} HvCheckpointList;
typedef struct {
  TmkJobStatus public_part;
  HvArena *arena;
} HvJobStatus;
typedef struct {
  TmkDomainDescription public_part;
  HvArena *arena;
} HvDescription;
/* One that says nothing yet. */
HvDescription *hv_description_new (void);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkDomain, tmk_domain_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkDomainDescription, tmk_domain_description_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkDiskList, tmk_disk_list_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkJobStatus, tmk_job_status_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TmkCheckpointList, tmk_checkpoint_list_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HvArena, hv_arena_free)
