/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* objstore/faulty.c: a store whose n-th operation fails, for tests. Operations are everything that
 * can fail: each piece that is appended, each read, each list counts. The count is atomic. And one
 * that has bytes which cannot be read, as a disk has bad sectors. */
#include "objstore/objstore.h"
#include "util/testpoint.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define DOMAIN "objstore"

typedef struct {
  ObjStore store;
  ObjStore *below;
  uint64_t fail_at;
  bool after, sticky;
  char *spoiled; /* in the names of objects of which [bad_from, bad_end) cannot be read; or NULL */
  uint64_t bad_from, bad_end;
  atomic_uint_fast64_t count;
} FaultyStore;

typedef struct {
  ObjWriter writer;
  ObjWriter *below;
} FaultyWriter;

typedef struct {
  ObjReader reader;
  ObjReader *below;
} FaultyReader;

/* What is to become of an operation. */
typedef enum {
  FATE_WELL,
  FATE_FAIL,       /* before anything was done */
  FATE_FAIL_AFTER, /* though it was done */
} Fate;

static Fate
next_fate (ObjStore *store)
{
  FaultyStore *self = (FaultyStore *) store;
  uint64_t n = atomic_fetch_add (&self->count, 1) + 1;
  if (self->fail_at == 0 || n < self->fail_at || (n > self->fail_at && !self->sticky))
    return FATE_WELL;
  testpoint ("store-fails");
  return self->after ? FATE_FAIL_AFTER : FATE_FAIL;
}

static bool
failed (const char *what, TmkError **errp)
{
  error_set (errp, DOMAIN, TMK_ERR_IO, EIO, "%s failed, as the test wants it", what);
  return false;
}

/* Carries out `call` or not. */
#define WITH_FATE(store, what, call)                                                               \
  do {                                                                                             \
    Fate fate = next_fate (store);                                                                 \
    if (fate == FATE_FAIL)                                                                         \
      return failed (what, errp);                                                                  \
    if (!(call))                                                                                   \
      return false;                                                                                \
    return fate == FATE_WELL || failed (what, errp);                                               \
  } while (0)

static ObjStore *
below_of (ObjStore *store)
{
  return ((FaultyStore *) store)->below;
}

static ObjWriter *
faulty_put (ObjStore *store, TmkError **errp)
{
  Fate fate = next_fate (store);
  if (fate != FATE_WELL) {
    failed ("put", errp);
    return NULL;
  }
  ObjWriter *below = obj_store_put (below_of (store), errp);
  if (below == NULL)
    return NULL;
  FaultyWriter *writer = g_new0 (FaultyWriter, 1);
  writer->writer.store = store;
  writer->below = below;
  return &writer->writer;
}

static bool
faulty_append (ObjWriter *writer, const void *data, size_t size, TmkError **errp)
{
  ObjWriter *below = ((FaultyWriter *) writer)->below;
  WITH_FATE (writer->store, "append", obj_writer_append (below, data, size, errp));
}

static bool
faulty_commit (ObjWriter *writer, const char *name, TmkError **errp)
{
  ObjWriter *below = ((FaultyWriter *) writer)->below;
  WITH_FATE (writer->store, "commit", obj_writer_commit (below, name, errp));
}

static void
faulty_writer_free (ObjWriter *writer)
{
  obj_writer_free (((FaultyWriter *) writer)->below);
  g_free (writer);
}

static ObjReader *
faulty_open (ObjStore *store, const char *name, TmkError **errp)
{
  if (next_fate (store) != FATE_WELL) {
    failed ("open", errp);
    return NULL;
  }
  ObjReader *below = obj_store_open (below_of (store), name, errp);
  if (below == NULL)
    return NULL;
  FaultyReader *reader = g_new0 (FaultyReader, 1);
  reader->reader.store = store;
  reader->reader.name = g_strdup (name);
  reader->reader.size = below->size;
  reader->below = below;
  return &reader->reader;
}

static bool
is_spoiled (const ObjReader *reader, uint64_t offset, uint64_t size)
{
  const FaultyStore *self = (const FaultyStore *) reader->store;
  return self->spoiled != NULL && strstr (reader->name, self->spoiled) != NULL
         && offset < self->bad_end && self->bad_from < offset + size;
}

static bool
faulty_read (ObjReader *reader, uint64_t offset, void *buffer, size_t size, TmkError **errp)
{
  ObjReader *below = ((FaultyReader *) reader)->below;
  if (is_spoiled (reader, offset, size))
    return failed ("read", errp);
  WITH_FATE (reader->store, "read", obj_reader_read (below, offset, buffer, size, errp));
}

static const void *
faulty_map (ObjReader *reader, TmkError **errp)
{
  if (next_fate (reader->store) == FATE_WELL && !is_spoiled (reader, 0, reader->size))
    return obj_reader_map (((FaultyReader *) reader)->below, errp);
  failed ("map", errp);
  return NULL;
}

static void
faulty_reader_free (ObjReader *reader)
{
  obj_reader_free (((FaultyReader *) reader)->below);
  g_free (reader);
}

static bool
faulty_list (ObjStore *store, const char *folder, ObjVisit visit, void *data, TmkError **errp)
{
  WITH_FATE (store, "list", obj_store_list (below_of (store), folder, visit, data, errp));
}

static bool
faulty_remove (ObjStore *store, const char *name, TmkError **errp)
{
  WITH_FATE (store, "remove", obj_store_remove (below_of (store), name, errp));
}

static bool
faulty_now (ObjStore *store, int64_t *us, TmkError **errp)
{
  WITH_FATE (store, "now", obj_store_now (below_of (store), us, errp));
}

static bool
faulty_room (ObjStore *store, uint64_t *bytes, TmkError **errp)
{
  WITH_FATE (store, "room", obj_store_room (below_of (store), bytes, errp));
}

static void
faulty_free (ObjStore *store)
{
  obj_store_free (below_of (store));
  g_free (((FaultyStore *) store)->spoiled);
  g_free (store);
}

static const ObjStoreKind kind = { .free = faulty_free,
                                   .put = faulty_put,
                                   .writer_append = faulty_append,
                                   .writer_commit = faulty_commit,
                                   .writer_free = faulty_writer_free,
                                   .open = faulty_open,
                                   .reader_read = faulty_read,
                                   .reader_map = faulty_map,
                                   .reader_free = faulty_reader_free,
                                   .list = faulty_list,
                                   .remove = faulty_remove,
                                   .now = faulty_now,
                                   .room = faulty_room };

ObjStore *
obj_store_new_faulty (ObjStore *below, uint64_t fail_at, bool after, bool sticky)
{
  FaultyStore *self = g_new0 (FaultyStore, 1);
  self->store.kind = &kind;
  self->store.location = g_strdup (below->location);
  self->below = below;
  self->fail_at = fail_at;
  self->after = after;
  self->sticky = sticky;
  atomic_init (&self->count, 0);
  return &self->store;
}

uint64_t
obj_store_faulty_count (const ObjStore *store)
{
  return atomic_load (&((FaultyStore *) store)->count);
}

void
obj_store_faulty_arm (ObjStore *store, uint64_t fail_at)
{
  FaultyStore *self = (FaultyStore *) store;
  self->fail_at = fail_at > 0 ? atomic_load (&self->count) + fail_at : 0;
}

void
obj_store_faulty_spoil (ObjStore *store, const char *part, uint64_t from, uint64_t end)
{
  FaultyStore *self = (FaultyStore *) store;
  g_free (self->spoiled);
  self->spoiled = g_strdup (part);
  self->bad_from = from;
  self->bad_end = end;
}
