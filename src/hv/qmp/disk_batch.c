/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/disk_batch.c: see hv/qmp/disk_batch.h. */
#include "hv/qmp/disk_batch.h"

DiskBatch *
disk_batch_new (void)
{
  DiskBatch *batch = g_new (DiskBatch, 1);
  *batch = (DiskBatch){ .commands = json_array (), .disks = g_ptr_array_new () };
  return batch;
}

void
disk_batch_free (DiskBatch *batch)
{
  if (batch == NULL)
    return;
  json_decref (batch->commands);
  g_ptr_array_unref (batch->disks);
  g_free (batch);
}

void
disk_batch_add (DiskBatch *batch, const JobDisk *disk, const char *command, json_t *arguments)
{
  qmp_batch_add (batch->commands, command, arguments);
  g_ptr_array_add (batch->disks, (gpointer) disk);
}

bool
disk_batch_run (QmpMachine *machine, DiskBatch *batch, const JobDisk **failed, TmkError **errp)
{
  size_t at = 0;
  if (batch->disks->len == 0)
    return true;
  g_autoptr (json_t) results = qmp_execute_all (machine->client, batch->commands, &at, errp);
  if (results == NULL)
    *failed = g_ptr_array_index (batch->disks, at);
  json_array_clear (batch->commands);
  g_ptr_array_set_size (batch->disks, 0);
  return results != NULL;
}
