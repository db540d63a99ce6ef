/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* objstore/objstore.c: what all kinds of stores share: names are checked here, before any kind sees
 * them, and whole objects are read and written piece by piece. No state; any thread. */
#include "objstore/objstore.h"

#include <errno.h>
#include <string.h>

#define DOMAIN "objstore"
#define NAME_MAX_WORD 128
#define NAME_MAX_LENGTH 512

static bool
word_is_sound (const char *word, size_t length)
{
  if (length == 0 || length > NAME_MAX_WORD || word[0] == '.')
    return false;
  for (size_t i = 0; i < length; i++)
    if (!g_ascii_islower (word[i]) && !g_ascii_isdigit (word[i]) && word[i] != '.'
        && word[i] != '-')
      return false;
  return true;
}

/* "tmp" is what folders call their unfinished objects. */
static bool
name_is_sound (const char *name)
{
  if (strlen (name) > NAME_MAX_LENGTH || g_str_equal (name, "tmp")
      || g_str_has_prefix (name, "tmp/"))
    return false;
  for (;;) {
    const char *end = strchrnul (name, '/');
    if (!word_is_sound (name, (size_t) (end - name)))
      return false;
    if (*end == '\0')
      return true;
    name = end + 1;
  }
}

static bool
check_name (const ObjStore *store, const char *name, TmkError **errp)
{
  if (name_is_sound (name))
    return true;
  error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "'%s': '%s' cannot be the name of an object",
             store->location, name);
  return false;
}

bool
obj_errno_is_damage (int err_no)
{
  /* ext4 and XFS say EUCLEAN and EBADMSG of inodes and folders that make no sense. */
  return err_no == EIO || err_no == EUCLEAN || err_no == EBADMSG;
}

void
obj_store_free (ObjStore *store)
{
  if (store == NULL)
    return;
  char *location = store->location;
  store->kind->free (store);
  g_free (location);
}

const char *
obj_store_location (const ObjStore *store)
{
  return store->location;
}

ObjWriter *
obj_store_put (ObjStore *store, TmkError **errp)
{
  return store->kind->put (store, errp);
}

bool
obj_writer_append (ObjWriter *writer, const void *data, size_t size, TmkError **errp)
{
  return size == 0 || writer->store->kind->writer_append (writer, data, size, errp);
}

bool
obj_writer_commit (ObjWriter *writer, const char *name, TmkError **errp)
{
  return check_name (writer->store, name, errp)
         && writer->store->kind->writer_commit (writer, name, errp);
}

void
obj_writer_free (ObjWriter *writer)
{
  if (writer != NULL)
    writer->store->kind->writer_free (writer);
}

bool
obj_store_put_if_absent (ObjStore *store, const char *name, const void *data, size_t size,
                         TmkError **errp)
{
  if (!check_name (store, name, errp))
    return false;
  g_autoptr (ObjWriter) writer = obj_store_put (store, errp);
  return writer != NULL && obj_writer_append (writer, data, size, errp)
         && obj_writer_commit (writer, name, errp);
}

ObjReader *
obj_store_open (ObjStore *store, const char *name, TmkError **errp)
{
  return check_name (store, name, errp) ? store->kind->open (store, name, errp) : NULL;
}

uint64_t
obj_reader_size (const ObjReader *reader)
{
  return reader->size;
}

bool
obj_reader_read (ObjReader *reader, uint64_t offset, void *buffer, size_t size, TmkError **errp)
{
  if (offset > reader->size || size > reader->size - offset) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0,
               "'%s' in '%s' ends at %" G_GUINT64_FORMAT ", before %zu bytes at %" G_GUINT64_FORMAT,
               reader->name, reader->store->location, reader->size, size, offset);
    return false;
  }
  return size == 0 || reader->store->kind->reader_read (reader, offset, buffer, size, errp);
}

const void *
obj_reader_map (ObjReader *reader, TmkError **errp)
{
  return reader->store->kind->reader_map (reader, errp);
}

void
obj_reader_free (ObjReader *reader)
{
  if (reader == NULL)
    return;
  char *name = reader->name;
  reader->store->kind->reader_free (reader);
  g_free (name);
}

unsigned char *
obj_store_get (ObjStore *store, const char *name, size_t max, size_t *size, TmkError **errp)
{
  g_autoptr (ObjReader) reader = obj_store_open (store, name, errp);
  if (reader == NULL)
    return NULL;
  if (reader->size > max) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0,
               "'%s' in '%s' has %" G_GUINT64_FORMAT " bytes, more than the %zu it can have", name,
               store->location, reader->size, max);
    return NULL;
  }
  size_t length = (size_t) reader->size;
  g_autofree unsigned char *data = g_malloc (length + 1);
  if (!obj_reader_read (reader, 0, data, length, errp))
    return NULL;
  data[length] = 0;
  *size = length;
  return g_steal_pointer (&data);
}

/* A kind lists all it finds; what no object can be called is not one. */
typedef struct {
  ObjVisit visit;
  void *data;
} Listing;

static bool
visit_sound (const ObjInfo *info, void *data)
{
  const Listing *listing = data;
  return !name_is_sound (info->name) || listing->visit (info, listing->data);
}

bool
obj_store_list (ObjStore *store, const char *folder, ObjVisit visit, void *data, TmkError **errp)
{
  Listing listing = { visit, data };
  return check_name (store, folder, errp)
         && store->kind->list (store, folder, visit_sound, &listing, errp);
}

bool
obj_store_remove (ObjStore *store, const char *name, TmkError **errp)
{
  return check_name (store, name, errp) && store->kind->remove (store, name, errp);
}

bool
obj_store_now (ObjStore *store, int64_t *us, TmkError **errp)
{
  return store->kind->now (store, us, errp);
}

bool
obj_store_room (ObjStore *store, uint64_t *bytes, TmkError **errp)
{
  return store->kind->room (store, bytes, errp);
}
