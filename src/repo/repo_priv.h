/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/repo_priv.h: what the parts of this folder want of a repository, see repo/repo.h.
 */
#pragma once

#include "repo/index_set.h"
#include "repo/repo.h"

/* What the repository holds, loaded at first need. Unref it. */
IndexSet *repo_index (Repo *repo, TmkError **errp);

/* An index file was published by this process: from now on it counts. */
bool repo_index_add (Repo *repo, const char *name, TmkError **errp);

/* As repo_note_damage(), of copies: others of the same object still count. */
bool repo_note_copies (Repo *repo, const DamageNote *notes, size_t n, TmkError **errp);

/* A copy of an object that is damaged, where another one could be read. */
typedef struct {
  DamageNote note;
  char *message;
} BadCopy;

/* Those that a verifying reader met since the last call: of BadCopy, some more than once. NULL:
 * none. Unref it. */
GArray *repo_reader_take_bad_copies (RepoReader *reader);

/* Makes the index anew from the packs: what no index file knows is found in the packs' tables or,
 * where one is damaged, by looking for records one after the other. TMK_ERR_DAMAGED where packs
 * cannot be read: all the others are in the index then. `wanted` (a set of ObjectId, or NULL): of
 * these, copies of which no index file knows are looked for in the tables of all packs. */
bool repo_rebuild_index (Repo *repo, GHashTable *wanted, TmkError **errp);

/* Where there are too many index files, makes one out of small ones. */
bool repo_merge_index (Repo *repo, TmkError **errp);
