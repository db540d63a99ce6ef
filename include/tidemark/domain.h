/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/domain.h: one virtual machine, its disks, its checkpoints and its backup job.
 *
 * A domain is opened where it runs (a QEMU's QMP monitor). The monitor is held only while a call
 * needs it, so that several processes can look after one domain in turn. What must outlive the
 * process (the running job, the checkpoints) is kept in a state folder; see TmkDomainOptions.
 *
 * Not thread-safe: one thread at a time per domain. Results that are arrays of pointers are owned
 * as one block: free the list with its own function.
 */
#ifndef TIDEMARK_DOMAIN_H
#define TIDEMARK_DOMAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tidemark/backup_def.h>
#include <tidemark/block_source.h>
#include <tidemark/checkpoint_def.h>
#include <tidemark/domain_def.h>
#include <tidemark/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TmkDomain TmkDomain;

/* Zero every field that is not set (`TmkDomainOptions o = { 0 };`). */
typedef struct {
  /* Where jobs and checkpoints are remembered, across reboots. NULL: $TIDEMARK_STATE_DIR, else
   * /var/lib/tidemark for root and $XDG_STATE_HOME/tidemark for others. */
  const char *state_dir;
  /* The domain's own description, which names its disks; may be NULL. Borrowed during the call. */
  const TmkDomainDef *domain;
  /* How long to wait for the monitor when another client holds it; 0: 5 seconds. */
  unsigned monitor_timeout_ms;
} TmkDomainOptions;

/* Opens the domain of a running QEMU: `addr` is "/path", "unix:/path" or "tcp:host:port".
 * `options` may be NULL. TMK_ERR_GONE where nothing listens, TMK_ERR_BUSY where another client
 * holds the monitor. Free with tmk_domain_free(). */
TmkDomain *tmk_domain_open_qmp (const char *addr, const TmkDomainOptions *options, TmkError **errp);

/* One disk of a domain that is powered off. */
typedef struct {
  const char *target; /* what the disk is called: "vda" */
  const char *path;   /* its image: a file or a block device */
  /* "qcow2", "raw", …; NULL: what the domain's description says, else what the name and the
   * contents agree on. */
  const char *format;
  /* The file that holds the passphrase of an image encrypted with LUKS (it, and images below it);
   * one newline at its end is not part of it. NULL: none. */
  const char *secret;
  /* Instead of a file, the passphrase itself; a copy is kept until tmk_domain_free(). */
  const void *passphrase;
  size_t passphrase_len;
} TmkImage;

/* Opens the disks of a domain that is powered off, `n_images` (at least one) of them, by way of a
 * qemu-storage-daemon that is started when it is needed and ended by tmk_domain_free(); a job that
 * was begun without an owner has one that goes on until the job has ended. It ends with the thread
 * that made the call that started it, so use one thread. Checkpoints are
 * kept in the images: a raw one can have none. Which domain this is says `options->domain`, else
 * the paths of the images. TMK_ERR_NOT_FOUND and the like for an image that cannot be opened,
 * TMK_ERR_BUSY for one that is in use: then, or where it is damaged, each call may say so. */
TmkDomain *tmk_domain_open_images (const TmkImage *images, size_t n_images,
                                   const TmkDomainOptions *options, TmkError **errp);

void tmk_domain_free (TmkDomain *domain);

/* The domain as it is now; owned by `domain`, valid until the next call on it. */
const TmkDomainDef *tmk_domain_def (TmkDomain *domain);

/* ---- what it is besides its disks ---------------------------------------------------------- */

/* A file that belongs to the domain. */
typedef struct {
  const char *role; /* "nvram": variables of its firmware; "tpm": state of its TPM */
  const char *name; /* within the role, a relative path: "OVMF_VARS.fd", "tpm2/tpm2-00.permall" */
  const char *path; /* on this host */
} TmkDomainFile;

typedef struct {
  const char *xml; /* libvirt's `<domain>`, with which it would start next; NULL: not known */
  size_t n_files;
  const TmkDomainFile *const *files;
  size_t n_left_out;
  const char *const *left_out; /* what belongs to it but cannot be read: "nvram '/x': why" */
} TmkDomainDescription;

TmkDomainDescription *tmk_domain_describe (TmkDomain *domain, TmkError **errp);
void tmk_domain_description_free (TmkDomainDescription *description);

/* ---- disks ------------------------------------------------------------------------------- */

/* One dirty bitmap of a disk. */
typedef struct {
  const char *name;
  uint64_t dirty_bytes; /* merged over the backing chain */
  uint64_t granularity; /* bytes a bit stands for */
  bool persistent, recording, inconsistent, busy;
  unsigned images;     /* in how many images of the chain, from the top without a gap */
  bool usable;         /* may an incremental start from it? */
  const char *why_not; /* if not, why; else NULL */
} TmkBitmapInfo;

typedef struct {
  const char *name;   /* the target: what definitions call the disk */
  const char *qdev;   /* id or QOM path of QEMU's device, or NULL */
  const char *node;   /* the top format node, or NULL for an empty drive */
  const char *format; /* "qcow2", … or NULL */
  const char *source; /* file or device, or QEMU's description of it; or NULL */
  uint64_t size;      /* bytes the guest sees; 0 for an empty drive */
  bool read_only, removable, empty, firmware, iothread;
  bool eligible;       /* can it be backed up? */
  const char *why_not; /* if not, why; else NULL */
  bool aside;          /* nobody misses it then: an empty drive, a CD, firmware, … */
  unsigned chain;      /* images in the backing chain */
  /* Their paths, top first: those of files and devices, absolute; NULL for what is neither. */
  size_t n_images;
  const char *const *images;
  size_t n_bitmaps;
  const TmkBitmapInfo *const *bitmaps;
  const char *no_checkpoint; /* why no checkpoint can be made of it now; NULL where one can */
} TmkDiskInfo;

typedef struct {
  size_t n_disks;
  const TmkDiskInfo *const *disks;
} TmkDiskList;

TmkDiskList *tmk_domain_disks (TmkDomain *domain, TmkError **errp);
void tmk_disk_list_free (TmkDiskList *list);

/* ---- backup jobs -------------------------------------------------------------------------- */

typedef enum {
  TMK_JOB_NONE = 0, /* no job, and none remembered */
  TMK_JOB_RUNNING,
  TMK_JOB_INTERRUPTED, /* a begin was cut off; abort cleans up */
  TMK_JOB_DONE,        /* the last job, ended well */
  TMK_JOB_FAILED,      /* the last job, failed and undone */
  TMK_JOB_CANCELLED,   /* the last job, aborted */
} TmkJobState;

const char *tmk_job_state_name (TmkJobState state); /* "running", … */

typedef struct {
  const char *name;
  const char *mode;        /* "full", "incremental" */
  const char *incremental; /* the checkpoint it starts from, or NULL */
  const char *target;      /* the image written */
  const char *format;
  const char *backing;       /* the image named as backing file of the target, or NULL */
  const char *state;         /* "running", "complete", "failed", "cancelled" */
  uint64_t done, total;      /* bytes: copied of a push, used and most of a pull's scratch */
  const char *error;         /* QEMU's words, or NULL */
  const char *export_name;   /* pull: by which clients find it */
  uint64_t dirty;            /* pull: bytes that the guest changed since (not of a staged one) */
  uint64_t room;             /* pull: bytes that the scratch may still grow by */
  const char *export_bitmap; /* pull, incremental: the map of what changed */
} TmkJobDisk;

typedef struct {
  TmkJobState state;
  const char *id;    /* of the run; NULL for NONE */
  const char *owner; /* TmkBeginOptions.owner; or NULL */
  bool pull;
  const char *checkpoint;       /* the new checkpoint, or NULL */
  int64_t started_us, ended_us; /* since the epoch; ended is 0 while it runs */
  uint64_t done, total;         /* bytes, all disks */
  uint64_t speed;               /* bytes/s since the last look of this process (or the start) */
  uint64_t pause_us;            /* how long the disks were held still at the job's instant */
  bool powered_off;             /* there was no guest */
  bool quiesced;                /* the guest's file systems were frozen at the job's instant … */
  uint64_t frozen_us;           /* … for how long */
  const char *error, *hint; /* of a failed job, or a running pull that cannot end well; or NULL */
  int clients;              /* pull: connected to the exports; -1 where that cannot be told */
  size_t n_disks;
  const TmkJobDisk *const *disks;
} TmkJobStatus;

void tmk_job_status_free (TmkJobStatus *status);

/* Zero every field that is not set. */
typedef struct {
  /* Who begins the job, if it is not the user: a backup, say, that a later one cleans up behind. */
  const char *owner;
  bool no_space_check;          /* begin even where the targets' file systems look too small */
  bool reuse_external;          /* targets exist already and are used as they are */
  bool compress;                /* push: write compressed clusters (qcow2 without encryption) */
  const char *compression_type; /* "zlib" or "zstd" for new qcow2 targets; NULL: QEMU's default */
  uint64_t bandwidth;           /* bytes/s a disk, 0: no limit */
  unsigned scratch_timeout;     /* pull: seconds that a scratch may stall a guest write; 0: 45 */
  /* A folder of secrets, or a file of them, for encrypted targets; see tidemark-begin(1). */
  const char *secrets;
  /* For a pull's <server tls='yes'>, one of them: a folder with ca-cert.pem, server-cert.pem and
   * server-key.pem (clients need a certificate of that authority); or a file called keys.psk, or
   * its folder. QEMU reads them, as its own user. Without tls='yes' they are refused. */
  const char *tls_x509, *tls_psk;
  /* The unix socket of the guest's agent, by which its file systems are frozen for the instant;
   * NULL: they are not. Of a domain of libvirt's it is any string: libvirt has the agent. Where the
   * agent refuses, or does not answer in time (0: 5 s), that is a warning; see
   * TmkJobStatus.quiesced. They are thawed whatever happens, also should this process be killed: a
   * child process watches. */
  const char *agent;
  unsigned agent_timeout_ms;
  /* Things that the user should know but that stop nothing, a line each. May be NULL. */
  void (*warn) (const char *message, void *data);
  void *warn_data;
  /* Asked now and then while begin takes long (disks are copied first, see tidemark-begin(1)): true
   * cancels it. May be NULL. */
  bool (*cancelled) (void *data);
  void *cancelled_data;
} TmkBeginOptions;

/* Starts a job exactly as `def` (aligned here if it is not yet) says. `checkpoint` (may be NULL)
 * is created at the job's instant. Returns once the job runs; from then on somebody must call
 * tmk_domain_poll_job() until it has ended: a process of tidemark(1) does so. On failure nothing
 * has changed: files made were removed, no node, bitmap or checkpoint stays. */
bool tmk_domain_begin (TmkDomain *domain, const TmkBackupDef *def,
                       const TmkCheckpointDef *checkpoint, const TmkBeginOptions *options,
                       TmkError **errp);

/* The running job's (or, if none runs, the last one's) aligned definition in `flags`' form, or
 * NULL with TMK_ERR_NOT_FOUND. Free with tmk_free(). */
char *tmk_domain_job_xml (TmkDomain *domain, unsigned flags, TmkError **errp);

/* The state of the running or last job. Only looks. */
TmkJobStatus *tmk_domain_job_status (TmkDomain *domain, TmkError **errp);

/* As tmk_domain_job_status(), but also does what is due: resumes a guest that the job stopped,
 * cancels a job whose target runs full, and when a push job has ended settles it: tidies QEMU up,
 * and where a disk failed undoes everything. Call it some times a second while a job runs. */
TmkJobStatus *tmk_domain_poll_job (TmkDomain *domain, TmkError **errp);

/* Finishes a pull job: if all its disks are whole the checkpoint is kept, and in any case exports,
 * filters and scratch images go. False (and everything as before begin) where a snapshot broke.
 * Done once more, it gives the same answer. A push job ends by itself: TMK_ERR_UNSUPPORTED. */
bool tmk_domain_end (TmkDomain *domain, TmkError **errp);

/* Opens one disk of the running pull job as of the job's instant, over the job's NBD server. Of an
 * incremental disk the source knows what is dirty since its checkpoint; `options->dirty_context`
 * is ignored. `options` (may be NULL) has the client's credentials where the definition asks for
 * TLS. TMK_ERR_NOT_FOUND where no pull job runs or `disk` does not take part; else as
 * tmk_block_source_open_nbd(). The source is no part of the domain, and must be gone before
 * tmk_domain_end(). */
TmkBlockSource *tmk_domain_open_disk (TmkDomain *domain, const char *disk,
                                      const TmkNbdOptions *options, TmkError **errp);

/* Cancels the running job, or cleans up behind one that was cut off; everything is as before
 * begin. TMK_ERR_NOT_FOUND where there is no job. */
bool tmk_domain_abort (TmkDomain *domain, TmkError **errp);

/* ---- checkpoints -------------------------------------------------------------------------- */

typedef struct {
  const char *name;
  const char *parent;      /* or NULL */
  int64_t created;         /* seconds since the epoch; 0 unknown */
  const char *description; /* or NULL */
  bool known;              /* false: rebuilt from the bitmaps found on the disks */
  bool current;            /* the newest: parent of the next one */
  uint64_t size;           /* bytes changed since, all disks */
  size_t n_disks;
  const char *const *disks;    /* targets covered */
  const char *const *problems; /* for each: why an incremental cannot start there, or NULL */
} TmkCheckpointInfo;

typedef struct {
  size_t n_checkpoints;
  const TmkCheckpointInfo *const *checkpoints; /* parents before children */
} TmkCheckpointList;

TmkCheckpointList *tmk_domain_checkpoints (TmkDomain *domain, TmkError **errp);
void tmk_checkpoint_list_free (TmkCheckpointList *list);

/* Creates `def` (aligned here) on all its disks at one instant, or, with TMK_CHECKPOINT_REDEFINE
 * in `flags`, takes over a description of one whose bitmaps exist already. `*name` (if not NULL)
 * gets its name, free with tmk_free(). */
bool tmk_domain_checkpoint_create (TmkDomain *domain, const TmkCheckpointDef *def, unsigned flags,
                                   char **name, TmkError **errp);

/* The description of a checkpoint. `flags`: TMK_CHECKPOINT_SIZE, TMK_CHECKPOINT_NO_DOMAIN. Free
 * with tmk_free(). */
char *tmk_domain_checkpoint_xml (TmkDomain *domain, const char *name, unsigned flags,
                                 TmkError **errp);

/* Deletes a checkpoint: its bitmaps and its description; children move to its parent. With
 * `children` they are deleted too. */
bool tmk_domain_checkpoint_delete (TmkDomain *domain, const char *name, bool children,
                                   TmkError **errp);

/* Removes the checkpoint from these disks only (`disks` ends in NULL), whatever the state of its
 * bitmaps. A disk that does not have it, or is not there, is no error. When no disk has it any more
 * its description goes too, and its children move to its parent. TMK_ERR_BUSY where a job runs. */
bool tmk_domain_checkpoint_delete_from (TmkDomain *domain, const char *name,
                                        const char *const *disks, TmkError **errp);

/* Tells the domain that bitmaps of a checkpoint may be on these disks (`disks` ends in NULL) though
 * nobody told it: they were made elsewhere. Where they are, and can be used, it is a checkpoint of
 * the domain from now on. That there are none is no error. */
bool tmk_domain_checkpoint_adopt (TmkDomain *domain, const char *name, const char *const *disks,
                                  TmkError **errp);

#ifdef __cplusplus
}
#endif
#endif
