/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blk/qcow2_sink.c: a new qcow2 image as a block sink. See <tidemark/block_sink.h>.
 *
 * Source of the format: QEMU's docs/interop/qcow2.txt. All integers in the file are big-endian.
 *
 *   cluster 0      the header, written last: without it nobody takes the file for an image
 *   from 1         the L1 table, for the whole disk
 *   then           data clusters and L2 tables, in the order in which they are written
 *   last           refcount blocks, refcount table: one for each cluster up to the end, all 1
 *
 * An L2 table gets its place when its first cluster is written. Its entries are put in place by
 * small writes, which the page cache gathers: to keep tables here would take 128 MiB a TiB, or a
 * cache that writes them out and reads them back. So memory is the L1 table, 16 KiB a TiB. What was
 * never written of the file reads as zero, which in every table means 'not allocated'.
 *
 * Threading: the lock is held to give out clusters, never over I/O. That an entry is written before
 * or after its data does not matter as long as there is no header.
 */
#include "blk/new_file.h"
#include "blk/sink.h"

#include "util/fsx.h"
#include "util/testpoint.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define DOMAIN "blk"

#define CLUSTER_BITS 16
#define CLUSTER (UINT64_C (1) << CLUSTER_BITS)
#define SECTOR 512u
#define TABLE_ENTRIES (CLUSTER / 8) /* of an L2 table, or of a cluster of L1 or refcount table */
#define BLOCK_ENTRIES (CLUSTER / 2) /* of a refcount block: they have 16 bits */
#define REFCOUNT_ORDER 4            /* … which are 1 << 4 */
#define COPIED (UINT64_C (1) << 63) /* in an entry: the refcount is exactly one */
/* QEMU's own limit of 32 MiB of L1 and 8 MiB of refcount table is at 2 PiB. */
#define MAX_SIZE (UINT64_C (1) << 50)
/* Clusters that are placed in one go; entries are gathered on the stack. */
#define MAX_RUN 256u

#define HEADER_SIZE 104u

typedef struct {
  TmkBlockSink sink;
  int fd;
  bool created; /* to be removed unless it is finished */
  uint64_t l1_entries;
  pthread_mutex_t lock;
  uint64_t *l1;  /* under lock: where each L2 table is, 0: nowhere */
  uint64_t next; /* under lock: the first cluster of the file that is not used */
} Qcow2Sink;

static uint64_t
divide_up (uint64_t n, uint64_t by)
{
  return n / by + (n % by != 0);
}

static void
put_be16 (unsigned char *at, uint16_t n)
{
  n = htobe16 (n);
  memcpy (at, &n, sizeof n);
}

static void
put_be32 (unsigned char *at, uint32_t n)
{
  n = htobe32 (n);
  memcpy (at, &n, sizeof n);
}

static void
put_be64 (unsigned char *at, uint64_t n)
{
  n = htobe64 (n);
  memcpy (at, &n, sizeof n);
}

static bool
write_at (Qcow2Sink *self, uint64_t offset, const void *data, size_t length, TmkError **errp)
{
  return new_file_write (self->fd, self->sink.name, offset, data, length, errp);
}

/* ---- data ------------------------------------------------------------------------------------ */

/* Gives out `n` clusters that follow each other to clusters of L2 table `table`. */
static void
place (Qcow2Sink *self, uint64_t table, uint64_t n, uint64_t *l2, uint64_t *first)
{
  pthread_mutex_lock (&self->lock);
  if (self->l1[table] == 0)
    self->l1[table] = self->next++ << CLUSTER_BITS;
  *l2 = self->l1[table];
  *first = self->next;
  self->next += n;
  pthread_mutex_unlock (&self->lock);
}

static bool
qcow2_write (TmkBlockSink *sink, uint64_t offset, const void *data, size_t length, TmkError **errp)
{
  Qcow2Sink *self = (Qcow2Sink *) sink;
  if (offset % CLUSTER != 0 || (length % CLUSTER != 0 && offset + length != sink->size)) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "'%s': %zu bytes at %" G_GUINT64_FORMAT " are not whole clusters of %u", sink->name,
               length, offset, (unsigned) CLUSTER);
    return false;
  }
  const char *p = data;
  while (length > 0) {
    uint64_t cluster = offset >> CLUSTER_BITS;
    uint64_t slot = cluster % TABLE_ENTRIES;
    uint64_t n = MIN (divide_up (length, CLUSTER), MIN (MAX_RUN, TABLE_ENTRIES - slot));
    uint64_t l2, first;
    place (self, cluster / TABLE_ENTRIES, n, &l2, &first);
    size_t bytes = MIN (length, n << CLUSTER_BITS);
    if (!write_at (self, first << CLUSTER_BITS, p, bytes, errp))
      return false;
    unsigned char entries[MAX_RUN * 8];
    for (uint64_t i = 0; i < n; i++)
      put_be64 (entries + i * 8, (first + i) << CLUSTER_BITS | COPIED);
    if (!write_at (self, l2 + slot * 8, entries, n * 8, errp))
      return false;
    p += bytes;
    offset += bytes;
    length -= bytes;
  }
  return true;
}

/* No byte comes twice, so what is to be zero was not written, and is. */
static bool
qcow2_zero (TmkBlockSink *sink, uint64_t offset, uint64_t length, TmkError **errp)
{
  return true;
}

static bool
qcow2_flush (TmkBlockSink *sink, TmkError **errp)
{
  return new_file_sync (((Qcow2Sink *) sink)->fd, sink->name, errp);
}

/* ---- the end --------------------------------------------------------------------------------- */

typedef struct {
  uint64_t blocks, first_block; /* how many, and the cluster where they begin */
  uint64_t table, first_table;  /* clusters of the table */
} Refcounts;

/* They count themselves, too. */
static Refcounts
plan_refcounts (uint64_t used)
{
  Refcounts plan = { .first_block = used };
  uint64_t blocks, table;
  do {
    blocks = plan.blocks;
    table = plan.table;
    plan.blocks = divide_up (used + blocks + table, BLOCK_ENTRIES);
    plan.table = divide_up (plan.blocks, TABLE_ENTRIES);
  } while (plan.blocks != blocks || plan.table != table);
  plan.first_table = used + plan.blocks;
  return plan;
}

static bool
write_refcounts (Qcow2Sink *self, const Refcounts *plan, TmkError **errp)
{
  g_autofree unsigned char *cluster = g_malloc (CLUSTER);
  uint64_t used = plan->first_table + plan->table;
  for (uint64_t i = 0; i < BLOCK_ENTRIES; i++)
    put_be16 (cluster + i * 2, 1);
  for (uint64_t i = 0; i < plan->blocks; i++) {
    uint64_t n = MIN (BLOCK_ENTRIES, used - i * BLOCK_ENTRIES);
    memset (cluster + n * 2, 0, CLUSTER - n * 2); /* only the last one has less */
    if (!write_at (self, (plan->first_block + i) << CLUSTER_BITS, cluster, CLUSTER, errp))
      return false;
  }
  for (uint64_t i = 0; i < plan->table; i++) {
    memset (cluster, 0, CLUSTER);
    uint64_t n = MIN (TABLE_ENTRIES, plan->blocks - i * TABLE_ENTRIES);
    for (uint64_t k = 0; k < n; k++)
      put_be64 (cluster + k * 8, (plan->first_block + i * TABLE_ENTRIES + k) << CLUSTER_BITS);
    if (!write_at (self, (plan->first_table + i) << CLUSTER_BITS, cluster, CLUSTER, errp))
      return false;
  }
  return true;
}

static bool
write_l1 (Qcow2Sink *self, TmkError **errp)
{
  g_autofree unsigned char *cluster = g_malloc (CLUSTER);
  for (uint64_t i = 0; i < self->l1_entries; i += TABLE_ENTRIES) {
    memset (cluster, 0, CLUSTER);
    for (uint64_t k = 0; k < MIN (TABLE_ENTRIES, self->l1_entries - i); k++)
      if (self->l1[i + k] != 0)
        put_be64 (cluster + k * 8, self->l1[i + k] | COPIED);
    if (!write_at (self, CLUSTER + i * 8, cluster, CLUSTER, errp))
      return false;
  }
  return true;
}

static bool
write_header (Qcow2Sink *self, const Refcounts *refcounts, TmkError **errp)
{
  /* Fields that are not set are zero: no backing file, encryption, snapshots or features; and after
   * the header comes the extension that ends the extensions. */
  unsigned char header[HEADER_SIZE + 8] = "QFI\xfb";
  put_be32 (header + 4, 3);
  put_be32 (header + 20, CLUSTER_BITS);
  put_be64 (header + 24, divide_up (self->sink.size, SECTOR) * SECTOR);
  put_be32 (header + 36, (uint32_t) self->l1_entries);
  put_be64 (header + 40, CLUSTER);
  put_be64 (header + 48, refcounts->first_table << CLUSTER_BITS);
  put_be32 (header + 56, (uint32_t) refcounts->table);
  put_be32 (header + 96, REFCOUNT_ORDER);
  put_be32 (header + 100, HEADER_SIZE);
  return write_at (self, 0, header, sizeof header, errp);
}

static bool
qcow2_finish (TmkBlockSink *sink, TmkError **errp)
{
  Qcow2Sink *self = (Qcow2Sink *) sink;
  Refcounts refcounts = plan_refcounts (self->next);
  if (!write_refcounts (self, &refcounts, errp) || !write_l1 (self, errp)
      || !new_file_sync (self->fd, sink->name, errp))
    return false;
  testpoint ("sink-header");
  if (!write_header (self, &refcounts, errp) || !new_file_sync (self->fd, sink->name, errp)
      || !fsx_sync_parent (sink->name, errp))
    return false;
  self->created = false;
  testpoint ("sink-finished");
  return true;
}

static void
qcow2_free (TmkBlockSink *sink)
{
  Qcow2Sink *self = (Qcow2Sink *) sink;
  if (self->fd >= 0) {
    if (self->created)
      new_file_remove (self->fd, sink->name);
    close (self->fd);
  }
  pthread_mutex_destroy (&self->lock);
  g_free (self->l1);
  g_free (self);
}

static const SinkKind kind = { .write = qcow2_write,
                               .zero = qcow2_zero,
                               .flush = qcow2_flush,
                               .finish = qcow2_finish,
                               .free = qcow2_free };

TmkBlockSink *
tmk_block_sink_create_qcow2 (const char *path, uint64_t size, TmkError **errp)
{
  if (size > MAX_SIZE) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "'%s': %" G_GUINT64_FORMAT " bytes are too many for a qcow2 image of ours", path,
               size);
    error_hint (errp, "restore to a raw file or a block device");
    return NULL;
  }
  int fd = new_file_create (path, errp);
  if (fd < 0)
    return NULL;
  Qcow2Sink *self = g_new0 (Qcow2Sink, 1);
  self->sink
      = (TmkBlockSink){ .kind = &kind, .name = g_strdup (path), .size = size, .is_zero = true };
  self->fd = fd;
  self->created = true;
  self->l1_entries = MAX (1, divide_up (divide_up (size, CLUSTER), TABLE_ENTRIES));
  self->l1 = g_new0 (uint64_t, self->l1_entries);
  self->next = 1 + divide_up (self->l1_entries, TABLE_ENTRIES);
  pthread_mutex_init (&self->lock, NULL);
  return &self->sink;
}
