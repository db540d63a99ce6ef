/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/machine.h: a bare QEMU: the TmkDomain behind tmk_domain_open_qmp().
 *
 * Every operation enters the machine first: it takes the domain's lock, connects to the monitor,
 * and looks at the disks; and leaves it last, so that nobody is kept waiting between operations.
 * A machine whose QEMU is gone can be entered too where a job was left behind: then `client` is
 * NULL and only what lies on the host can be tidied up.
 */
#pragma once

#include "hv/hv.h"
#include "hv/job_record.h"
#include "hv/qmp/disks.h"
#include "hv/state.h"
#include "qmp/client.h"

typedef struct QmpMachine QmpMachine;

typedef enum {
  ENTER_LIVE,     /* QEMU must answer */
  ENTER_CHANGE,   /* the same, and images or bitmaps are going to be changed */
  ENTER_GONE_TOO, /* or have left a state behind */
  ENTER_LOOK,     /* the same, and QEMU is not asked for its disks */
  ENTER_RECORD,   /* what is written down is enough: QEMU is not asked anything */
} EnterMode;

/* Where the disks are open: in a virtual machine that runs, or, powered off, in a daemon of ours.
 */
typedef struct {
  /* Nothing writes to the disks but us, there is no guest to hold still, and what stands for a
   * disk is its top image: there are no devices. */
  bool powered_off;
  /* Sets machine->client, and key, name, uuid and the locked state where they were not known. */
  bool (*connect) (QmpMachine *machine, EnterMode mode, TmkError **errp);
  /* Of QmpDisk*, each with its final name. */
  GPtrArray *(*disks) (QmpMachine *machine, TmkError **errp);
  /* Opens `image`, one below the active image of `disk`, for writing, or read-only again. Whether
   * it worked shows in what is done next. */
  void (*reopen) (QmpMachine *machine, const QmpDisk *disk, const DiskImage *image, bool writable);
  /* Opens the active images read-only, so that they are whole in their files whatever ends who has
   * them open; or, those that were to be written, for writing again. Whether it worked shows in
   * what is done next. May be NULL. */
  void (*set_writable) (QmpMachine *machine, bool writable);
  /* Lets go of what belongs to the place; the machine is being freed. May be NULL. */
  void (*leave_for_good) (QmpMachine *machine);
} QmpPlace;

struct QmpMachine {
  TmkDomain base;

  /* fixed */
  const QmpPlace *place;
  void *place_data;
  char *address; /* normalized */
  char *root;    /* the state folder */
  unsigned monitor_timeout_ms;
  TmkDomainDef *given; /* the user's own description, or NULL */

  /* known since the last enter */
  char *key, *name, *uuid;
  State *state;
  GPtrArray *disks;  /* of QmpDisk*; NULL where QEMU is gone or was not asked */
  TmkDomainDef *def; /* the same for alignment; NULL until QEMU was asked */

  /* while entered */
  QmpClient *client; /* NULL where QEMU is gone */
  bool entered;

  JobSeen seen;
  bool outlives; /* what is being begun goes on when this process has ended */
};

/* The machine as a domain that is in `place`, with what `options` say; `address` is stolen. */
QmpMachine *machine_new (const QmpPlace *place, char *address, const TmkDomainOptions *options);

bool machine_enter (QmpMachine *machine, EnterMode mode, TmkError **errp);
void machine_leave (QmpMachine *machine);

/* Asks QEMU for its disks again. */
bool machine_refresh (QmpMachine *machine, TmkError **errp);

/* The disk called `name`, which must be one to back up; else an error with a way out. */
QmpDisk *machine_disk (QmpMachine *machine, const char *name, TmkError **errp);

/* Which run of QEMU is this? "PID:START" of the process behind the monitor, or NULL where that
 * cannot be told (TCP). Free with g_free(). */
char *machine_instance (QmpMachine *machine);

/* Is the run of QEMU that machine_instance() named still there? False where it cannot be told. */
bool machine_instance_lives (const char *instance);

/* "PID:START" of process `pid`, or NULL where it has ended. Free with g_free(). */
char *machine_process (long pid);

/* Does an iothread serve the device at `qom_path` (NULL: no)? */
bool machine_in_iothread (QmpMachine *machine, const char *qom_path);

/* May others write to the disk of the device at `qom_path` (NULL: no) while it does? */
bool machine_is_shared (QmpMachine *machine, const char *qom_path);

/* --- the driver's parts, one file each; see HvDriver --------------------------------------- */
bool machine_inspect (TmkDomain *domain, HvFacts *facts, TmkError **errp);
TmkDiskList *machine_disks (TmkDomain *domain, TmkError **errp);
bool machine_begin (TmkDomain *domain, const TmkBackupDef *def, const TmkCheckpointDef *checkpoint,
                    const TmkBeginOptions *options, TmkError **errp);
char *machine_job_xml (TmkDomain *domain, unsigned flags, TmkError **errp);
TmkJobStatus *machine_job_status (TmkDomain *domain, bool act, TmkError **errp);
TmkBlockSource *machine_open_disk (TmkDomain *domain, const char *disk,
                                   const TmkNbdOptions *options, TmkError **errp);
bool machine_end (TmkDomain *domain, TmkError **errp);
bool machine_abort (TmkDomain *domain, TmkError **errp);
TmkCheckpointList *machine_checkpoints (TmkDomain *domain, TmkError **errp);
bool machine_checkpoint_create (TmkDomain *domain, const TmkCheckpointDef *def, unsigned flags,
                                char **name, TmkError **errp);
char *machine_checkpoint_xml (TmkDomain *domain, const char *name, unsigned flags, TmkError **errp);
bool machine_checkpoint_delete (TmkDomain *domain, const char *name, bool children,
                                TmkError **errp);
bool machine_checkpoint_delete_from (TmkDomain *domain, const char *name, const char *const *disks,
                                     TmkError **errp);
