/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * objstore/objstore.h: a store of immutable objects by name.
 *
 * Names are lower-case words of [a-z0-9.-] joined by '/', "packs/3f/3f09…". An object is published
 * whole or not at all, never changed, and may be removed. All functions may be called by any number
 * of threads at once unless said otherwise; writers and readers belong to one thread each, but
 * obj_reader_read() may be called by many.
 *
 * A kind of store embeds ObjStore and fills in `kind`; the functions below are what callers use.
 */
#pragma once

#include "util/error.h"
#include <stddef.h>
#include <stdint.h>

typedef struct ObjStore ObjStore;
typedef struct ObjWriter ObjWriter;
typedef struct ObjReader ObjReader;

typedef struct {
  const char *name;
  uint64_t size;
  int64_t modified_us; /* when it was published, by the store's clock */
} ObjInfo;

/* Returns false to stop the listing, without an error. */
typedef bool (*ObjVisit) (const ObjInfo *info, void *data);

/* What each function of a kind has to do is said at the function that calls it. None is NULL. */
typedef struct {
  void (*free) (ObjStore *store);
  ObjWriter *(*put) (ObjStore *store, TmkError **errp);
  bool (*writer_append) (ObjWriter *writer, const void *data, size_t size, TmkError **errp);
  bool (*writer_commit) (ObjWriter *writer, const char *name, TmkError **errp);
  void (*writer_free) (ObjWriter *writer);
  ObjReader *(*open) (ObjStore *store, const char *name, TmkError **errp);
  bool (*reader_read) (ObjReader *reader, uint64_t offset, void *buffer, size_t size,
                       TmkError **errp);
  const void *(*reader_map) (ObjReader *reader, TmkError **errp);
  void (*reader_free) (ObjReader *reader);
  bool (*list) (ObjStore *store, const char *folder, ObjVisit visit, void *data, TmkError **errp);
  bool (*remove) (ObjStore *store, const char *name, TmkError **errp);
  bool (*now) (ObjStore *store, int64_t *us, TmkError **errp);
  bool (*room) (ObjStore *store, uint64_t *bytes, TmkError **errp);
} ObjStoreKind;

/* First members of the kinds' own structs. */
struct ObjStore {
  const ObjStoreKind *kind;
  char *location; /* as messages call it; freed with the store */
};
struct ObjWriter {
  ObjStore *store;
};
struct ObjReader {
  ObjStore *store;
  char *name; /* freed with the reader */
  uint64_t size;
};

/* ---- kinds -------------------------------------------------------------------------------- */

/* A folder of a local file system. `create`: make it; TMK_ERR_EXISTS where it has something in it.
 * Else TMK_ERR_NOT_FOUND where there is none. Objects being written are files without a name where
 * the file system can do that (O_TMPFILE), else in tmp/, where old ones are removed on opening. */
ObjStore *obj_store_open_folder (const char *path, bool create, TmkError **errp);

/* Memory, for tests. Another store may share it, as another process shares a folder. Its clock can
 * be moved on. */
ObjStore *obj_store_new_memory (void);
ObjStore *obj_store_share_memory (ObjStore *store);
void obj_store_memory_advance (ObjStore *store, int64_t us);

/* `below` (taken) with failures: operation number `fail_at` (counted from 1) fails; 0: none. With
 * `after` it is carried out before it fails; with `sticky` all later ones fail, too. */
ObjStore *obj_store_new_faulty (ObjStore *below, uint64_t fail_at, bool after, bool sticky);
/* How many operations there were so far. */
uint64_t obj_store_faulty_count (const ObjStore *store);
/* From now on operation `fail_at`, counted from the next one, is to fail. */
void obj_store_faulty_arm (ObjStore *store, uint64_t fail_at);

/* From now on bytes [from, end) of objects in whose names `part` is cannot be read, nor mapped. */
void obj_store_faulty_spoil (ObjStore *store, const char *part, uint64_t from, uint64_t end);

/* ---- use ---------------------------------------------------------------------------------- */

/* Is it the medium that fails, or the file system's own structures? Then the object is damaged; any
 * other failure to read it says nothing about it. */
bool obj_errno_is_damage (int err_no);

/* NULL is allowed. */
void obj_store_free (ObjStore *store);
const char *obj_store_location (const ObjStore *store);

/* Publishes `size` bytes durably. TMK_ERR_EXISTS where there is an object of that name (which stays
 * as it is); TMK_ERR_NO_SPACE, TMK_ERR_DENIED, TMK_ERR_IO. */
bool obj_store_put_if_absent (ObjStore *store, const char *name, const void *data, size_t size,
                              TmkError **errp);

/* The same piece by piece. Nothing is to be seen of it before the commit; that makes it durable and
 * may be called once. Errors as above. Free in any case. */
ObjWriter *obj_store_put (ObjStore *store, TmkError **errp);
bool obj_writer_append (ObjWriter *writer, const void *data, size_t size, TmkError **errp);
bool obj_writer_commit (ObjWriter *writer, const char *name, TmkError **errp);
void obj_writer_free (ObjWriter *writer);

/* TMK_ERR_NOT_FOUND. An object that is removed while open may be read on, or give
 * TMK_ERR_NOT_FOUND. */
ObjReader *obj_store_open (ObjStore *store, const char *name, TmkError **errp);
uint64_t obj_reader_size (const ObjReader *reader);
/* Exactly `size` bytes; TMK_ERR_DAMAGED beyond the end, TMK_ERR_IO. */
bool obj_reader_read (ObjReader *reader, uint64_t offset, void *buffer, size_t size,
                      TmkError **errp);
/* All of it in memory, until the reader is freed. Where it cannot be read any more all of its bytes
 * become zero, at any moment. */
const void *obj_reader_map (ObjReader *reader, TmkError **errp);
void obj_reader_free (ObjReader *reader);

/* A whole small object. TMK_ERR_DAMAGED where it is longer than `max`. Free with g_free(). */
unsigned char *obj_store_get (ObjStore *store, const char *name, size_t max, size_t *size,
                              TmkError **errp);

/* The objects below `folder` ("packs"), in no particular order; none where there is no such
 * folder. What is being published or removed meanwhile may be missing. What the medium does not let
 * be looked at, be it a folder in there, is listed as an object of no length: opening it says why.
 */
bool obj_store_list (ObjStore *store, const char *folder, ObjVisit visit, void *data,
                     TmkError **errp);

/* Removes an object. That there is none is no error. */
bool obj_store_remove (ObjStore *store, const char *name, TmkError **errp);

/* The store's clock, microseconds since the epoch: the one by which `modified_us` goes. */
bool obj_store_now (ObjStore *store, int64_t *us, TmkError **errp);

/* Bytes that may still be written; UINT64_MAX where nobody knows. */
bool obj_store_room (ObjStore *store, uint64_t *bytes, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (ObjStore, obj_store_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ObjWriter, obj_writer_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ObjReader, obj_reader_free)
