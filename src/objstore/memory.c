/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* objstore/memory.c: objects in memory, for tests. The memory may be that of several stores, as a
 * folder is that of several processes; everything in it is under its lock. Readers hold their own
 * reference and so outlive the removal of their object. */
#include "objstore/objstore.h"

#include <errno.h>
#include <string.h>

#define DOMAIN "objstore"

typedef struct {
  GBytes *bytes;
  int64_t modified_us;
} Object;

typedef struct {
  gatomicrefcount refs;
  GMutex lock;
  GHashTable *objects; /* char * → Object * */
  int64_t ahead_us;    /* of the machine's clock */
} Memory;

typedef struct {
  ObjStore store;
  Memory *memory;
} MemoryStore;

typedef struct {
  ObjWriter writer;
  GByteArray *bytes; /* NULL once published */
} MemoryWriter;

typedef struct {
  ObjReader reader;
  GBytes *bytes;
} MemoryReader;

static void
object_free (void *object)
{
  g_bytes_unref (((Object *) object)->bytes);
  g_free (object);
}

static Memory *
memory_of (ObjStore *store)
{
  return ((MemoryStore *) store)->memory;
}

static ObjWriter *
memory_put (ObjStore *store, TmkError **errp)
{
  MemoryWriter *writer = g_new0 (MemoryWriter, 1);
  writer->writer.store = store;
  writer->bytes = g_byte_array_new ();
  return &writer->writer;
}

static bool
memory_append (ObjWriter *writer, const void *data, size_t size, TmkError **errp)
{
  g_byte_array_append (((MemoryWriter *) writer)->bytes, data, (guint) size);
  return true;
}

static bool
memory_commit (ObjWriter *writer, const char *name, TmkError **errp)
{
  MemoryWriter *self = (MemoryWriter *) writer;
  Memory *store = memory_of (writer->store);
  g_mutex_lock (&store->lock);
  bool ok = !g_hash_table_contains (store->objects, name);
  if (ok) {
    Object *object = g_new0 (Object, 1);
    object->bytes = g_byte_array_free_to_bytes (g_steal_pointer (&self->bytes));
    object->modified_us = g_get_real_time () + store->ahead_us;
    g_hash_table_insert (store->objects, g_strdup (name), object);
  }
  g_mutex_unlock (&store->lock);
  if (!ok)
    error_set (errp, DOMAIN, TMK_ERR_EXISTS, EEXIST, "'%s' has '%s' already",
               writer->store->location, name);
  return ok;
}

static void
memory_writer_free (ObjWriter *writer)
{
  MemoryWriter *self = (MemoryWriter *) writer;
  if (self->bytes != NULL)
    g_byte_array_unref (self->bytes);
  g_free (self);
}

static ObjReader *
memory_open (ObjStore *store, const char *name, TmkError **errp)
{
  Memory *self = memory_of (store);
  g_mutex_lock (&self->lock);
  const Object *object = g_hash_table_lookup (self->objects, name);
  GBytes *bytes = object != NULL ? g_bytes_ref (object->bytes) : NULL;
  g_mutex_unlock (&self->lock);
  if (bytes == NULL) {
    error_set_errno (errp, DOMAIN, ENOENT, "'%s': cannot open '%s'", store->location, name);
    return NULL;
  }
  MemoryReader *reader = g_new0 (MemoryReader, 1);
  reader->reader.store = store;
  reader->reader.name = g_strdup (name);
  reader->reader.size = g_bytes_get_size (bytes);
  reader->bytes = bytes;
  return &reader->reader;
}

static bool
memory_read (ObjReader *reader, uint64_t offset, void *buffer, size_t size, TmkError **errp)
{
  const char *data = g_bytes_get_data (((MemoryReader *) reader)->bytes, NULL);
  memcpy (buffer, data + offset, size);
  return true;
}

static const void *
memory_map (ObjReader *reader, TmkError **errp)
{
  const void *data = g_bytes_get_data (((MemoryReader *) reader)->bytes, NULL);
  return data != NULL ? data : "";
}

static void
memory_reader_free (ObjReader *reader)
{
  g_bytes_unref (((MemoryReader *) reader)->bytes);
  g_free (reader);
}

/* Names and sizes first, so that the visitor may use the store. */
static bool
memory_list (ObjStore *store, const char *folder, ObjVisit visit, void *data, TmkError **errp)
{
  Memory *self = memory_of (store);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GArray) infos = g_array_new (FALSE, FALSE, sizeof (ObjInfo));
  g_autofree char *prefix = g_strconcat (folder, "/", NULL);
  GHashTableIter iter;
  void *key, *value;
  g_mutex_lock (&self->lock);
  g_hash_table_iter_init (&iter, self->objects);
  while (g_hash_table_iter_next (&iter, &key, &value)) {
    const Object *object = value;
    if (!g_str_has_prefix (key, prefix))
      continue;
    ObjInfo info = { .name = g_strdup (key),
                     .size = g_bytes_get_size (object->bytes),
                     .modified_us = object->modified_us };
    g_ptr_array_add (names, (char *) info.name);
    g_array_append_val (infos, info);
  }
  g_mutex_unlock (&self->lock);
  for (guint i = 0; i < infos->len; i++)
    if (!visit (&g_array_index (infos, ObjInfo, i), data))
      break;
  return true;
}

static bool
memory_remove (ObjStore *store, const char *name, TmkError **errp)
{
  Memory *self = memory_of (store);
  g_mutex_lock (&self->lock);
  g_hash_table_remove (self->objects, name);
  g_mutex_unlock (&self->lock);
  return true;
}

static bool
memory_now (ObjStore *store, int64_t *us, TmkError **errp)
{
  Memory *self = memory_of (store);
  g_mutex_lock (&self->lock);
  *us = g_get_real_time () + self->ahead_us;
  g_mutex_unlock (&self->lock);
  return true;
}

static bool
memory_room (ObjStore *store, uint64_t *bytes, TmkError **errp)
{
  *bytes = UINT64_MAX;
  return true;
}

static void
memory_free (ObjStore *store)
{
  Memory *self = memory_of (store);
  if (g_atomic_ref_count_dec (&self->refs)) {
    g_hash_table_unref (self->objects);
    g_mutex_clear (&self->lock);
    g_free (self);
  }
  g_free (store);
}

static const ObjStoreKind kind = { .free = memory_free,
                                   .put = memory_put,
                                   .writer_append = memory_append,
                                   .writer_commit = memory_commit,
                                   .writer_free = memory_writer_free,
                                   .open = memory_open,
                                   .reader_read = memory_read,
                                   .reader_map = memory_map,
                                   .reader_free = memory_reader_free,
                                   .list = memory_list,
                                   .remove = memory_remove,
                                   .now = memory_now,
                                   .room = memory_room };

static ObjStore *
store_of (Memory *memory)
{
  MemoryStore *self = g_new0 (MemoryStore, 1);
  self->store.kind = &kind;
  self->store.location = g_strdup ("memory");
  self->memory = memory;
  return &self->store;
}

ObjStore *
obj_store_new_memory (void)
{
  Memory *memory = g_new0 (Memory, 1);
  g_atomic_ref_count_init (&memory->refs);
  g_mutex_init (&memory->lock);
  memory->objects = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, object_free);
  return store_of (memory);
}

ObjStore *
obj_store_share_memory (ObjStore *store)
{
  g_assert (store->kind == &kind);
  g_atomic_ref_count_inc (&memory_of (store)->refs);
  return store_of (memory_of (store));
}

void
obj_store_memory_advance (ObjStore *store, int64_t us)
{
  g_assert (store->kind == &kind);
  Memory *self = memory_of (store);
  g_mutex_lock (&self->lock);
  self->ahead_us += us;
  g_mutex_unlock (&self->lock);
}
