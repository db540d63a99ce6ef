/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine/check_trial.c: a pull that is begun, read a little, and taken back; see engine/check.h.
 *
 * It is begun in the name of a backup, without a checkpoint: should this process be killed, the
 * next backup cleans up behind it.
 */
#include "engine/check.h"

#include "blk/source.h"
#include "engine/definition.h"
#include "util/fsx.h"

#define OWNER "backup"
#define FIRST (64u << 10) /* bytes that are read of each disk */

/* Each disk in full and without a checkpoint: it is not about bitmaps. `*n`: how many take part. */
static TmkBackupDef *
define (Check *self, size_t *n, TmkError **errp)
{
  char id[POINT_ID_DIGITS + 1];
  point_id_new (id);
  g_autofree char *suffix = g_strconcat ("check-", id, NULL);
  TmkBackupDef *def = definition_new (self->look, &self->backup, suffix, errp);
  if (def == NULL)
    return NULL;
  *n = 0;
  for (size_t i = 0; i < self->look->plan->n_disks; i++) {
    const TmkDiskInfo *info = self->look->plan->disks[i].disk;
    BackupDisk *disk = backup_def_find_disk (def, info->name);
    if (disk == NULL || !disk->backup)
      continue;
    disk->mode = BACKUP_MODE_FULL;
    g_clear_pointer (&disk->incremental, g_free);
    disk->backup = !check_is_staged (self, info); /* it would be copied, all of it */
    *n += disk->backup;
  }
  return def;
}

static bool
read_first (TmkBlockSource *source, TmkError **errp)
{
  uint64_t length = MIN (FIRST, tmk_block_source_size (source));
  if (length == 0)
    return true;
  TmkBlockExtents *extents = tmk_block_source_extents (source, 0, length, errp);
  if (extents == NULL)
    return false;
  TmkReadOptions options = { .extents = extents };
  TmkBlockReader *reader = tmk_block_source_reader (source, &options, errp);
  const TmkBlockPiece *piece = NULL;
  bool ok = reader != NULL;
  while (ok && (ok = tmk_block_reader_next (reader, &piece, errp)) && piece != NULL)
    tmk_block_reader_release (reader, piece);
  tmk_block_reader_free (reader);
  tmk_block_extents_free (extents);
  return ok;
}

static bool
read_disks (Check *self, const TmkBackupDef *def)
{
  bool all = true;
  for (guint i = 0; i < def->disks->len; i++) {
    const BackupDisk *disk = g_ptr_array_index (def->disks, i);
    g_autoptr (TmkError) err = NULL;
    if (!disk->backup)
      continue;
    TmkNbdOptions nbd = { .no_reconnect = true };
    g_autoptr (TmkBlockSource) source = tmk_domain_open_disk (self->domain, disk->name, &nbd, &err);
    if (source != NULL && read_first (source, &err))
      continue;
    error_prefix (&err, "disk '%s' cannot be read", disk->name);
    check_say_error (self, TMK_CHECK_PROBLEM, "trial", disk->name, err);
    all = false;
  }
  return all;
}

static void
on_warning (const char *message, void *data)
{
  check_say (data, TMK_CHECK_WARNING, "trial", NULL, NULL, "%s", message);
}

static void
try_pull (Check *self, const TmkBackupDef *def, size_t n)
{
  g_autoptr (TmkError) err = NULL;
  TmkBeginOptions begin = self->backup.begin;
  begin.owner = OWNER;
  begin.agent = NULL;
  begin.warn = on_warning;
  begin.warn_data = self;
  begin.cancelled = self->options->cancelled;
  begin.cancelled_data = self->options->data;
  if (!tmk_domain_begin (self->domain, def, NULL, &begin, &err)) {
    check_say_error (self, TMK_CHECK_PROBLEM, "trial", NULL, err);
    return;
  }
  g_autoptr (TmkJobStatus) status = tmk_domain_job_status (self->domain, NULL);
  bool all = read_disks (self, def);
  if (!tmk_domain_abort (self->domain, &err)) {
    check_say_error (self, TMK_CHECK_PROBLEM, "trial", NULL, err);
    return;
  }
  double pause = status != NULL ? (double) status->pause_us / 1e3 : 0;
  g_autofree char *held
      = pause > 0 ? g_strdup_printf ("; the guest was held for %.1f ms", pause) : g_strdup ("");
  if (all)
    check_say (self, TMK_CHECK_OK, "trial", NULL, NULL,
               "a backup was begun, %zu disk%s read from, and taken back%s", n, n == 1 ? "" : "s",
               held);
}

void
check_trial (Check *self)
{
  g_autoptr (TmkError) err = NULL;
  size_t n;
  if (self->options->no_trial || self->job_runs || self->look == NULL)
    return;
  g_autoptr (TmkBackupDef) def = define (self, &n, &err);
  if (def == NULL) {
    check_say_error (self, TMK_CHECK_PROBLEM, "trial", NULL, err);
    return;
  }
  if (n == 0)
    return;
  int reserved = hv_reserve (self->domain, &err);
  if (reserved < 0) {
    check_say_error (self, TMK_CHECK_WARNING, "trial", NULL, err);
    return;
  }
  try_pull (self, def, n);
  fsx_unlock (reserved);
}
