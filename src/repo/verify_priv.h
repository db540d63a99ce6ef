/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/verify_priv.h: what the parts of a verification share; see repo/verify.h.
 *
 * What is known of an object is a bit for its entry in the index, in several sets of entries: so
 * memory is that of some bits an object, whatever the number of points. An object that the index
 * does not have is missing; it has no bit.
 */
#pragma once

#include "repo/repo_priv.h"
#include "repo/tree.h"
#include "repo/verify.h"

/* Where an object stands in the index: of several copies the one that counts, if any does. */
typedef struct {
  size_t file;
  uint64_t number;
  IndexEntry entry;
} VerifyPlace;

/* A bit for each entry of each index file. */
typedef struct {
  uint64_t **bits; /* of each file */
  size_t n_files;
} EntrySet;

typedef struct {
  Repo *repo;
  const VerifyOptions *options;
  VerifyResult *result;
  IndexSet *set;        /* entries are numbered by it; it does not change */
  RepoReader *reader;   /* of the calling thread */
  EntrySet counted;     /* nodes that `result` has */
  EntrySet walked;      /* nodes below which all is marked */
  EntrySet needed;      /* chunks to be read */
  EntrySet bad;         /* that cannot be read, or are not what they were */
  GHashTable *missing;  /* of ObjectId: not in the index; no more than MISSING_MAX */
  GHashTable *copies;   /* of DamageNote: damaged, but another copy is whole */
  GHashTable *messages; /* ObjectId → char *: why an object is bad; of the first ones */
  bool damage;          /* some was found, of chunks or nodes */
} Verify;

bool verify_is_cancelled (const Verify *verify, TmkError **errp);

/* A finding; only in the calling thread. */
void verify_tell_damage (Verify *verify, const VerifyDamage *damage);
/* One of no disk; `point` may be NULL. */
void verify_tell (Verify *verify, const char *point, const char *message);
void verify_progress (const Verify *verify, uint64_t done, uint64_t total);

bool verify_locate (const Verify *verify, const ObjectId *id, VerifyPlace *place);
void verify_set_missing (Verify *verify, const ObjectId *id);
/* Copies that a reader found damaged, where another one is whole; may be NULL. Takes it. Not
 * thread-safe. */
void verify_add_copies (Verify *verify, GArray *copies);
/* Not thread-safe. */
void verify_set_bad (Verify *verify, const VerifyPlace *place, const char *why);

void entry_set_init (EntrySet *entries, const IndexSet *set);
void entry_set_clear (EntrySet *entries);
uint64_t entry_set_count (const EntrySet *entries, const IndexSet *set);

/* Adds it. True: it was not in there. */
static inline bool
entry_set_add (EntrySet *entries, const VerifyPlace *place)
{
  uint64_t *word = &entries->bits[place->file][place->number / 64];
  uint64_t bit = UINT64_C (1) << place->number % 64;
  bool is_new = (*word & bit) == 0;
  *word |= bit;
  return is_new;
}

static inline bool
entry_set_has (const EntrySet *entries, const VerifyPlace *place)
{
  return (entries->bits[place->file][place->number / 64] >> place->number % 64 & 1) != 0;
}

/* verify_tree.c: reads the trees of a point and marks the chunks that they need. */
bool verify_mark_point (Verify *verify, const Manifest *manifest, TmkError **errp);
/* Tells which ranges of a point's disks the damage found touches. `clean` (at first empty): nodes
 * below which there is none. */
bool verify_map_point (Verify *verify, const Manifest *manifest, EntrySet *clean, TmkError **errp);

/* verify_chunks.c: reads all chunks marked, or a sample of them. */
bool verify_chunks (Verify *verify, TmkError **errp);

/* verify_packs.c: index files, and what is in packs beside the records. `*unsound`: an index file
 * is. */
bool verify_index_files (Verify *verify, bool contents, bool *unsound, TmkError **errp);
/* Tells of those that could be read in the beginning only. */
void verify_index_vanished (Verify *verify);
bool verify_packs (Verify *verify, TmkError **errp);
