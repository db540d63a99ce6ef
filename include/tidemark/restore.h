/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidemark/restore.h: disks of a recovery point, back as images.
 */
#ifndef TIDEMARK_RESTORE_H
#define TIDEMARK_RESTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tidemark/repository.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  const char *disk, *target;
  uint64_t done, total; /* bytes of the disk that are not zero */
  bool finished;
} TmkRestoreProgress;

/* Zero every field that is not set. */
typedef struct {
  /* The one disk to restore; `to` is then a new file, a block device, or an NBD URI. NULL: all, and
   * `to` is a folder (made where missing), which gets TARGET.qcow2 or TARGET.raw of each, beside
   * domain.xml where the point has it, and the domain's files: NAME of an "nvram", ROLE/NAME of
   * others. */
  const char *disk;
  const char *to;
  const char
      *format;      /* "qcow2" or "raw"; NULL: qcow2 in a folder and for a name ending in .qcow2 */
  bool verify;      /* compute every chunk's id anew */
  unsigned threads; /* 0: one a core */
  /* Of all disks: in the end libvirt is to have the domain, with these disks and files. As it was,
   * or with a name of its own beside the one that was backed up; then it has another uuid and other
   * MAC addresses. Only the disks restored are its own: see `warn`. */
  bool define;
  const char *connect;     /* which libvirt: as in <tidemark/libvirt.h> */
  const char *define_name; /* NULL: as the domain was called */
  void (*progress) (const TmkRestoreProgress *progress, void *data); /* from the calling thread */
  /* A range of a disk is damaged: nothing is left behind, but the user may want to know where. */
  void (*damage) (const TmkDamage *damage, void *data);
  /* Something about the domain defined that the user should know. */
  void (*warn) (const char *message, void *data);
  bool (*cancelled) (void *data);
  void *data;
} TmkRestoreOptions;

typedef struct {
  uint64_t size;    /* bytes of the disks */
  uint64_t written; /* bytes written: what is not zero */
  uint64_t elapsed_us;
  size_t n_targets;
  const char *const *disks, *const *targets; /* which disk went where */
  size_t n_files;
  const char *const *files; /* the domain's files: where they are */
  const char *domain;       /* that was defined, or NULL */
} TmkRestoreResult;

void tmk_restore_result_free (TmkRestoreResult *result);

/* Restores the point that `spec` names. Existing files are never overwritten: TMK_ERR_EXISTS. A
 * device or export that is too small: TMK_ERR_MISMATCH; larger ones are filled up with zeroes.
 * TMK_ERR_DAMAGED where a chunk is damaged; then files made are removed. With `define`:
 * TMK_ERR_EXISTS where libvirt has such a domain, TMK_ERR_NOT_FOUND where the point has no document
 * of it, before anything is restored; where libvirt does not take it in the end, what was restored
 * stays. */
TmkRestoreResult *tmk_restore (TmkRepository *repository, const char *spec,
                               const TmkRestoreOptions *options, TmkError **errp);

#ifdef __cplusplus
}
#endif
#endif
