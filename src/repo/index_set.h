/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/index_set.h: what a repository holds, as of one moment: its index files, the packs that are
 * in the store, and the notes of damage. Immutable and counted, so that any number of threads may
 * look while another one makes the next.
 *
 * A copy of an object counts while its pack is in the store with the length that the index expects
 * and no note says that this copy, the one in this pack, is damaged. A copy stored later lies in
 * another pack, so it counts whatever the notes say.
 */
#pragma once

#include "format/index.h"
#include "objstore/objstore.h"

/* An index file that is open; shared by sets. */
typedef struct {
  gatomicrefcount refs;
  char *name;
  int64_t modified_us;
  ObjReader *reader;
  IndexView view;
} IndexFile;

/* A note: the copy of `id` in `pack` is damaged. A pack of zeroes: there was no copy. */
typedef struct {
  ObjectId id;
  PackName pack;
} DamageNote;

/* A copy of an object. */
typedef struct {
  PackName pack;
  uint64_t pack_size;
  uint64_t offset;
  uint32_t length;
  ObjectKind kind;
  bool counts;
} ObjectPlace;

#define MAX_PLACES 8

typedef struct IndexSet IndexSet;

/* Looks at the store. Files that `old` (may be NULL) has open are not opened again. Index files
 * that make no sense are left out, see index_set_skipped(). */
IndexSet *index_set_load (ObjStore *store, const RepoId *repo, IndexSet *old, TmkError **errp);

/* `old` with an index file more, whose packs are known to be there. */
IndexSet *index_set_add (IndexSet *old, ObjStore *store, const RepoId *repo, const char *name,
                         TmkError **errp);

/* `old` with more notes of damage. */
IndexSet *index_set_add_notes (IndexSet *old, const DamageNote *notes, size_t n);

IndexSet *index_set_ref (IndexSet *set);
void index_set_unref (IndexSet *set);

/* Is there a copy that counts? */
bool index_set_has (const IndexSet *set, const ObjectId *id);

/* All copies, at most MAX_PLACES, those that count first. */
size_t index_set_find (const IndexSet *set, const ObjectId *id, ObjectPlace places[MAX_PLACES]);

/* Is there a note about any copy of it? */
bool index_set_is_noted (const IndexSet *set, const ObjectId *id);

/* Could all index files be read, and is every pack that they name in the store, as long as it
 * should be? Else objects may be missing of which there is no note. */
bool index_set_is_whole (const IndexSet *set);

/* Index files, the newest first. Borrowed. */
size_t index_set_files (const IndexSet *set);
const IndexFile *index_set_file (const IndexSet *set, size_t i);

/* Does the `i`-th file's entry count? */
bool index_set_counts (const IndexSet *set, size_t i, const IndexEntry *entry);

/* Why index files were left out, or NULL: all could be read. */
const char *index_set_skipped (const IndexSet *set);

/* The name of one that was read, and cannot be any more; or NULL. */
const char *index_set_vanished (const IndexSet *set);

/* Packs in the store, by name. `*size` may be NULL. */
bool index_set_has_pack (const IndexSet *set, const PackName *pack, uint64_t *size);

/* packs/NN/NAME */
char *pack_object_name (const PackName *pack);
bool pack_object_parse (const char *object, PackName *pack);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (IndexSet, index_set_unref)
