/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/verify_packs.c: what points do not hang on: index files, and the headers, tables and
 * trailers of packs, from which an index can be made anew. See repo/verify_priv.h. Calling thread
 * only.
 */
#include "repo/verify_priv.h"

#include "repo/hash.h"

#define DOMAIN "repo"

static void
tell (Verify *verify, const char *what, const char *name, const char *why)
{
  g_autofree char *message = g_strdup_printf ("%s '%s': %s", what, name, why);
  verify->result->damaged++;
  verify_tell (verify, NULL, message);
}

/* ---- index files -------------------------------------------------------------------------- */

bool
verify_index_files (Verify *verify, bool contents, bool *unsound, TmkError **errp)
{
  const char *skipped = index_set_skipped (verify->set);
  if (skipped != NULL) {
    *unsound = true;
    tell (verify, "index", repo_location (verify->repo), skipped);
  }
  for (size_t i = 0; contents && i < index_set_files (verify->set); i++) {
    g_autoptr (TmkError) err = NULL;
    const IndexFile *file = index_set_file (verify->set, i);
    if (verify_is_cancelled (verify, errp))
      return false;
    if (index_view_check (&file->view, &err))
      continue;
    *unsound = true;
    tell (verify, "index file", file->name, tmk_error_message (err));
  }
  return true;
}

/* What it alone knew may not have been looked at. */
void
verify_index_vanished (Verify *verify)
{
  for (size_t i = 0; i < index_set_files (verify->set); i++) {
    const IndexFile *file = index_set_file (verify->set, i);
    if (!index_view_is_there (&file->view))
      tell (verify, "index file", file->name,
            "it cannot be read any more, and not all was verified: verify again");
  }
}

/* ---- packs -------------------------------------------------------------------------------- */

static bool
damaged (TmkError **errp, const char *why)
{
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "%s", why);
  return false;
}

/* Entries follow each other as their records do, without gaps. */
static bool
check_entries (const PackTrailer *trailer, const unsigned char *table, TmkError **errp)
{
  uint64_t end = PACK_HEADER_SIZE;
  for (uint32_t i = 0; i < trailer->entries; i++) {
    PackEntry entry;
    if (!pack_entry_parse (table + (size_t) i * PACK_ENTRY_SIZE, trailer->table, &entry, errp))
      return false;
    if (entry.offset != end)
      return damaged (errp, "there is a gap between its records");
    end += entry.length;
  }
  return end == trailer->table || damaged (errp, "there is a gap behind its records");
}

static bool
check_name (const char *name, const unsigned char *table, size_t size, TmkError **errp)
{
  PackName pack;
  Hash hash;
  unsigned char sum[OBJECT_ID_SIZE];
  if (!pack_object_parse (name, &pack))
    return damaged (errp, "that is no name of a pack");
  if (!hash_init (&hash, errp))
    return false;
  hash_bytes (&hash, table, size, sum);
  hash_clear (&hash);
  return memcmp (&pack, sum, PACK_NAME_SUM) == 0
         || damaged (errp, "it is not the pack of this name");
}

static bool
check_pack (Verify *verify, const char *name, TmkError **errp)
{
  const RepoId *repo = &repo_config (verify->repo)->id;
  unsigned char header[PACK_HEADER_SIZE], end[PACK_TRAILER_SIZE];
  RepoId id;
  PackTrailer trailer;
  g_autoptr (ObjReader) pack = obj_store_open (repo_store (verify->repo), name, errp);
  uint64_t size = pack != NULL ? obj_reader_size (pack) : 0;
  if (pack == NULL)
    return false;
  if (size < sizeof header + sizeof end)
    return damaged (errp, "it is too short for a pack");
  if (!obj_reader_read (pack, 0, header, sizeof header, errp)
      || !pack_header_parse (header, &id, errp)
      || !obj_reader_read (pack, size - sizeof end, end, sizeof end, errp)
      || !pack_trailer_parse (end, size, &trailer, errp))
    return false;
  if (memcmp (&id, repo, sizeof id) != 0 || memcmp (&trailer.repo, repo, sizeof id) != 0)
    return damaged (errp, "it is of another repository");
  size_t length = (size_t) trailer.entries * PACK_ENTRY_SIZE;
  g_autofree unsigned char *table = g_malloc (length);
  if (!obj_reader_read (pack, trailer.table, table, length, errp))
    return false;
  if (pack_table_checksum (table, length) != trailer.table_checksum)
    return damaged (errp, "the checksum of its table does not match");
  return check_entries (&trailer, table, errp) && check_name (name, table, length, errp);
}

static bool
visit_name (const ObjInfo *info, void *data)
{
  g_ptr_array_add (data, g_strdup (info->name));
  return true;
}

bool
verify_packs (Verify *verify, TmkError **errp)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  if (!obj_store_list (repo_store (verify->repo), "packs", visit_name, names, errp))
    return false;
  for (guint i = 0; i < names->len; i++) {
    g_autoptr (TmkError) err = NULL;
    if (verify_is_cancelled (verify, errp))
      return false;
    if (check_pack (verify, names->pdata[i], &err)
        || tmk_error_code (err) == TMK_ERR_NOT_FOUND) /* removed meanwhile */
      continue;
    if (tmk_error_code (err) != TMK_ERR_DAMAGED && tmk_error_code (err) != TMK_ERR_IO) {
      error_propagate (errp, g_steal_pointer (&err));
      return false;
    }
    tell (verify, "pack", names->pdata[i], tmk_error_message (err));
  }
  return true;
}
