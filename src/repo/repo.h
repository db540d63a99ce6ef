/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/repo.h: a repository: its configuration, what it holds, and reading from it.
 *
 * In the store (source: docs/format/repository.rst):
 *   config             points/ID        index/NAME        packs/NN/NAME
 *   leases/NAME        damaged/NAME
 * Data are published first, then the index, then the point: only a point makes data count.
 *
 * What the repository holds is what the index files say that were there when it was opened or
 * refreshed, and those its own writers added. An entry counts only while its pack is in the store,
 * with the length that the index expects, and the object is not noted as damaged: so a writer never
 * relies on something that is known to be gone, and stores it again.
 *
 * A Repo may be used by any number of threads; a RepoReader by one.
 */
#pragma once

#include "format/config.h"
#include "format/manifest.h"
#include "objstore/objstore.h"

typedef struct Repo Repo;

/* Makes a repository in an empty store. Of `config` chunk_size, pack_size, codec and level count
 * (see repo_config_default()); its id and time are made here. TMK_ERR_EXISTS where there is one
 * already; TMK_ERR_USAGE for values that format 1 has no room for. */
void repo_config_default (RepoConfig *config);
bool repo_create (ObjStore *store, RepoConfig *config, TmkError **errp);

/* Opens one. Takes `store`, also on failure. TMK_ERR_NOT_FOUND where it is none; else as
 * repo_config_parse(). The index is not read before it is needed. */
Repo *repo_open (ObjStore *store, TmkError **errp);
void repo_free (Repo *repo);

const RepoConfig *repo_config (const Repo *repo);
const char *repo_location (const Repo *repo);
ObjStore *repo_store (Repo *repo); /* owned by the repository */
/* The first 8 hex digits of its id: part of the names of its checkpoints. */
const char *repo_short_id (const Repo *repo);

/* Looks again at which packs, index files and notes of damage there are. */
bool repo_refresh (Repo *repo, TmkError **errp);

/* Is the object there, as far as the index knows? Any thread. `*found` only on success. */
bool repo_has (Repo *repo, const ObjectId *id, bool *found, TmkError **errp);

/* ---- reading objects ---------------------------------------------------------------------- */

typedef struct RepoReader RepoReader;

/* `verify`: every id is computed anew; else the record's checksum must do. */
RepoReader *repo_reader_new (Repo *repo, bool verify);
void repo_reader_free (RepoReader *reader);

/* Reads the object `id` of kind `kind` into `buffer` of `room` bytes, and stores its length.
 * TMK_ERR_DAMAGED where it is missing, longer, of another kind, or not what it was: the message
 * says which object, in which pack. */
bool repo_reader_read (RepoReader *reader, const ObjectId *id, ObjectKind kind, void *buffer,
                       size_t room, size_t *length, TmkError **errp);

/* As repo_reader_read(), for a node in either form; says which it is: OBJECT_NODE or OBJECT_DELTA.
 */
bool repo_reader_read_node (RepoReader *reader, const ObjectId *id, void *buffer, size_t room,
                            size_t *length, ObjectKind *kind, TmkError **errp);

/* ---- damage ------------------------------------------------------------------------------- */

/* Writes down that these objects are damaged: they count as missing from now on, for other
 * processes when they open it or refresh, until a new copy has been stored. */
bool repo_note_damage (Repo *repo, const ObjectId *ids, size_t n, TmkError **errp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Repo, repo_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (RepoReader, repo_reader_free)
