/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/state.c: see hv/state.h. One thread at a time per State. */
#include "hv/state.h"

#include "util/fsx.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define DOMAIN "state"
#define MAX_FILE (64 * 1024 * 1024)
#define MAX_NAME_IN_PATH 200

struct State {
  char *dir;
  int lock_fd;
};

char *
state_default_root (void)
{
  const char *env = g_getenv ("TIDEMARK_STATE_DIR");
  if (env != NULL && *env != '\0')
    return g_strdup (env);
  if (geteuid () == 0)
    return g_strdup ("/var/lib/tidemark");
  const char *xdg = g_getenv ("XDG_STATE_HOME");
  if (xdg != NULL && g_path_is_absolute (xdg))
    return g_build_filename (xdg, "tidemark", NULL);
  return g_build_filename (g_get_home_dir (), ".local", "state", "tidemark", NULL);
}

char *
state_key (const char *uuid, const char *address)
{
  if (uuid != NULL && strspn (uuid, "0-") != strlen (uuid))
    return g_ascii_strdown (uuid, -1);
  g_autofree char *hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, address, -1);
  return g_strdup_printf ("at-%.16s", hash);
}

static char *
address_file (const char *root, const char *address)
{
  g_autofree char *hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, address, -1);
  return g_strdup_printf ("%s/addresses/%.32s", root, hash);
}

char *
state_key_at_address (const char *root, const char *address)
{
  g_autofree char *path = address_file (root, address);
  size_t len;
  char *key = fsx_read_file (path, 4096, &len, NULL);
  if (key == NULL)
    return NULL;
  g_strstrip (key);
  if (*key == '\0' || *key == '.' || strchr (key, '/') != NULL) {
    g_free (key);
    return NULL;
  }
  return key;
}

State *
state_open (const char *root, const char *key, const char *address, TmkError **errp)
{
  g_autoptr (State) state = g_new0 (State, 1);
  state->lock_fd = -1;
  state->dir = g_build_filename (root, "domains", key, NULL);
  g_autofree char *checkpoints = g_build_filename (state->dir, "checkpoints", NULL);
  g_autofree char *addresses = g_build_filename (root, "addresses", NULL);
  if (!fsx_make_dirs (checkpoints, 0700, errp) || !fsx_make_dirs (addresses, 0700, errp)) {
    error_prefix (errp, "cannot keep state");
    error_hint (errp, "name a folder that can be written with --state-dir or $TIDEMARK_STATE_DIR");
    return NULL;
  }

  g_autofree char *before = state_key_at_address (root, address);
  if (g_strcmp0 (before, key) != 0) {
    g_autofree char *path = address_file (root, address);
    if (!fsx_publish (path, key, strlen (key), 0600, errp))
      return NULL;
  }
  return g_steal_pointer (&state);
}

void
state_free (State *state)
{
  if (state == NULL)
    return;
  state_unlock (state);
  g_free (state->dir);
  g_free (state);
}

/* What killed processes left half written; nobody writes now but who holds the lock. */
static void
remove_temporaries (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  for (const char *name = dir != NULL ? g_dir_read_name (dir) : NULL; name != NULL;
       name = g_dir_read_name (dir)) {
    if (strstr (name, FSX_TEMPORARY) == NULL)
      continue;
    g_autofree char *path = g_build_filename (folder, name, NULL);
    (void) unlink (path); /* it is only a little room */
  }
}

bool
state_lock (State *state, unsigned timeout_ms, TmkError **errp)
{
  g_assert (state->lock_fd < 0);
  g_autofree char *path = g_build_filename (state->dir, "lock", NULL);
  state->lock_fd = fsx_lock (path, timeout_ms, errp);
  if (state->lock_fd < 0) {
    error_hint (errp, "another tidemark is at work on this domain: wait for it to end");
    return false;
  }
  g_autofree char *checkpoints = g_build_filename (state->dir, "checkpoints", NULL);
  remove_temporaries (state->dir);
  remove_temporaries (checkpoints);
  return true;
}

void
state_unlock (State *state)
{
  fsx_unlock (state->lock_fd);
  state->lock_fd = -1;
}

int
state_reserve (State *state, TmkError **errp)
{
  g_autofree char *path = state_file (state, "reserved");
  TmkError *err = NULL;
  int fd = fsx_lock (path, 0, &err);
  if (fd < 0 && tmk_error_code (err) == TMK_ERR_BUSY) {
    tmk_error_free (g_steal_pointer (&err));
    error_set (errp, "hv", TMK_ERR_BUSY, 0, "another backup of this domain is under way");
    error_hint (errp, "try again when it has ended; see 'tidemark status'");
  }
  error_propagate (errp, err);
  return fd;
}

static char *
document_path (State *state, const char *name)
{
  return g_strdup_printf ("%s/%s.json", state->dir, name);
}

json_t *
state_read (State *state, const char *name, TmkError **errp)
{
  g_autofree char *path = document_path (state, name);
  size_t len;
  g_autoptr (TmkError) err = NULL;
  g_autofree char *text = fsx_read_file (path, MAX_FILE, &len, &err);
  if (text == NULL) {
    if (tmk_error_errno (err) != ENOENT)
      error_propagate (errp, g_steal_pointer (&err));
    return NULL;
  }
  json_error_t fault;
  json_t *value = json_loadb (text, len, JSON_REJECT_DUPLICATES, &fault);
  if (value == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s' line %d: %s", path, fault.line, fault.text);
    error_hint (errp, "the file is not one of tidemark's: move it away and try again");
  }
  return value;
}

bool
state_write (State *state, const char *name, json_t *value, TmkError **errp)
{
  g_autofree char *path = document_path (state, name);
  char *text = json_dumps (value, JSON_INDENT (1));
  bool ok = fsx_publish (path, text, strlen (text), 0600, errp);
  free (text); /* jansson's, from malloc */
  return ok;
}

bool
state_remove (State *state, const char *name, TmkError **errp)
{
  g_autofree char *path = document_path (state, name);
  return fsx_remove (path, errp);
}

char *
state_file (State *state, const char *name)
{
  g_autofree char *path = g_build_filename (state->dir, name, NULL);
  return g_canonicalize_filename (path, NULL);
}

/* A file's name has at most 255 bytes, and what is published needs some for a suffix; the name of a
 * checkpoint may be longer. It stands in the document too, so it can be cut here. */
static char *
checkpoint_path (State *state, const char *name)
{
  if (strlen (name) > MAX_NAME_IN_PATH) {
    g_autofree char *hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, name, -1);
    return g_strdup_printf ("%s/checkpoints/%.*s-%.16s.xml", state->dir, MAX_NAME_IN_PATH, name,
                            hash);
  }
  return g_strdup_printf ("%s/checkpoints/%s.xml", state->dir, name);
}

GPtrArray *
state_checkpoints (State *state, TmkError **errp)
{
  g_autofree char *dir_path = g_build_filename (state->dir, "checkpoints", NULL);
  g_autoptr (GDir) dir = g_dir_open (dir_path, 0, NULL);
  if (dir == NULL) {
    error_set (errp, DOMAIN, TMK_ERR_IO, 0, "cannot list '%s'", dir_path);
    return NULL;
  }
  GPtrArray *defs = g_ptr_array_new_with_free_func ((GDestroyNotify) tmk_checkpoint_def_free);
  for (const char *name = g_dir_read_name (dir); name != NULL; name = g_dir_read_name (dir)) {
    if (!g_str_has_suffix (name, ".xml"))
      continue;
    g_autofree char *path = g_build_filename (dir_path, name, NULL);
    size_t len;
    g_autofree char *text = fsx_read_file (path, MAX_FILE, &len, NULL);
    TmkCheckpointDef *def = NULL;
    if (text != NULL)
      def = tmk_checkpoint_def_parse (text, len, path, TMK_XML_INTERNAL | TMK_CHECKPOINT_REDEFINE,
                                      NULL);
    if (def != NULL)
      g_ptr_array_add (defs, def);
  }
  return defs;
}

bool
state_write_checkpoint (State *state, const TmkCheckpointDef *def, TmkError **errp)
{
  if (!checkpoint_name_is_valid (def->name)) { /* "../x" would not even lie in the folder */
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "'%.40s' cannot be a checkpoint's name",
               def->name);
    error_hint (errp, "use letters, digits, '_', '-' and '.' alone");
    return false;
  }
  g_autofree char *path = checkpoint_path (state, def->name);
  g_autofree char *text = tmk_checkpoint_def_format (def, TMK_XML_INTERNAL);
  return fsx_publish (path, text, strlen (text), 0600, errp);
}

bool
state_remove_checkpoint (State *state, const char *name, TmkError **errp)
{
  if (!checkpoint_name_is_valid (name))
    return true; /* there cannot be one */
  g_autofree char *path = checkpoint_path (state, name);
  return fsx_remove (path, errp);
}
