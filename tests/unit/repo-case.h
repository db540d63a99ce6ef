/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/repo-case.h: repositories with points whose disks are known: each chunk of a disk is a
 * number, 0 for zeroes, from which its bytes are made.
 */
#pragma once

#include "repo/points.h"
#include "repo/tree.h"
#include "repo/writer.h"

#define CASE_CHUNK CHUNK_SIZE_MIN

typedef struct {
  const char *name;
  uint64_t size;
  uint32_t chunk_size;
  const unsigned *values; /* one a chunk */
  const unsigned *base;   /* those of `base_root`, or NULL */
  ObjectId base_root;
  ObjectId root; /* set when it has been stored */
} CaseDisk;

static inline void
case_no_error (const TmkError *err)
{
  if (err != NULL)
    g_error ("%s", tmk_error_message (err));
}

/* The bytes of a chunk. Every third number compresses well. */
static inline void
case_fill (unsigned value, unsigned char *out, size_t size)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (value);
  memset (out, 0, size);
  for (size_t i = 0; value != 0 && i + 4 <= size; i += value % 3 == 0 ? 64 : 4) {
    guint32 word = g_rand_int (rand) | 1;
    memcpy (out + i, &word, 4);
  }
}

static inline uint64_t
case_chunk_length (const CaseDisk *disk, uint64_t chunk)
{
  return MIN (disk->chunk_size, disk->size - chunk * disk->chunk_size);
}

static inline void
case_store_disk (Repo *repo, RepoWriter *writer, CaseDisk *disk)
{
  g_autoptr (TmkError) err = NULL;
  uint64_t chunks = tree_chunks (disk->size, disk->chunk_size);
  g_autofree unsigned char *plain = g_malloc (disk->chunk_size);
  g_autoptr (RepoPacker) packer = repo_packer_new (writer, &err);
  case_no_error (err);
  g_autoptr (TreeBuilder) builder
      = tree_builder_new (repo, writer, packer, &disk->base_root, chunks);
  case_no_error (err);
  for (uint64_t i = 0; i < chunks; i++) {
    ObjectId id, before;
    uint32_t stored;
    if (disk->base != NULL && disk->base[i] == disk->values[i])
      continue;
    case_fill (disk->values[i], plain, case_chunk_length (disk, i));
    repo_packer_hash (packer, OBJECT_CHUNK, plain, case_chunk_length (disk, i), &id);
    if (!object_id_is_zero (&id))
      repo_packer_store (packer, OBJECT_CHUNK, &id, plain, case_chunk_length (disk, i), &stored,
                         &err);
    case_no_error (err);
    tree_builder_exchange (builder, i, &id, &before, &err);
    case_no_error (err);
  }
  tree_builder_finish (builder, &disk->root, &err);
  case_no_error (err);
  repo_packer_finish (packer, &err);
  case_no_error (err);
}

static inline void
case_describe_disk (const CaseDisk *disk, ManifestDisk *out)
{
  out->name = g_strdup (disk->name);
  out->size = disk->size;
  out->chunk_size = disk->chunk_size;
  out->root = disk->root;
  out->mode = g_strdup (disk->base != NULL ? "incremental" : "full");
  for (uint64_t i = 0; i < tree_chunks (disk->size, disk->chunk_size); i++)
    out->used += disk->values[i] != 0 ? disk->chunk_size : 0;
}

/* Makes a point. */
static inline void
case_commit (Repo *repo, const char *id, const char *domain, int64_t time_us, CaseDisk *disks,
             size_t n)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (RepoWriter) writer = repo_writer_new (repo, &err);
  case_no_error (err);
  g_autoptr (Manifest) manifest = manifest_new (n);
  g_strlcpy (manifest->id, id, sizeof manifest->id);
  manifest->domain = g_strdup (domain);
  manifest->time_us = time_us;
  for (size_t i = 0; i < n; i++) {
    case_store_disk (repo, writer, &disks[i]);
    case_describe_disk (&disks[i], &manifest->disks[i]);
  }
  repo_writer_commit (writer, manifest, &err);
  case_no_error (err);
}

/* ---- the store ---------------------------------------------------------------------------- */

static inline bool
case_visit_name (const ObjInfo *info, void *data)
{
  g_ptr_array_add (data, g_strdup (info->name));
  return true;
}

static inline int
case_compare_names (const void *a, const void *b)
{
  return strcmp (*(char *const *) a, *(char *const *) b);
}

/* Names of the objects in a folder, sorted. */
static inline GPtrArray *
case_names (ObjStore *store, const char *folder)
{
  GPtrArray *names = g_ptr_array_new_with_free_func (g_free);
  g_assert_true (obj_store_list (store, folder, case_visit_name, names, NULL));
  g_ptr_array_sort (names, case_compare_names);
  return names;
}

static inline unsigned char *
case_get (ObjStore *store, const char *name, size_t *size)
{
  g_autoptr (TmkError) err = NULL;
  unsigned char *data = obj_store_get (store, name, 1u << 30, size, &err);
  case_no_error (err);
  return data;
}

/* Puts other bytes in the place of an object, which no repository ever does. */
static inline void
case_replace (ObjStore *store, const char *name, const void *data, size_t size)
{
  g_autoptr (TmkError) err = NULL;
  obj_store_remove (store, name, &err);
  case_no_error (err);
  obj_store_put_if_absent (store, name, data, size, &err);
  case_no_error (err);
}

static inline void
case_flip (ObjStore *store, const char *name, size_t at, unsigned bit)
{
  size_t size;
  g_autofree unsigned char *data = case_get (store, name, &size);
  g_assert_cmpuint (at, <, size);
  data[at] ^= 1u << bit;
  case_replace (store, name, data, size);
}
