/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-blk.h: what the tests of block sources share: patterns, reading into an image with every
 * promise of a reader checked, folders and processes.
 */
#pragma once

#include "util/error.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <tidemark/block_source.h>
#include <unistd.h>

/* --- a folder */

static inline char *
make_folder (void)
{
  char *folder = g_dir_make_tmp ("tmk-blk-XXXXXX", NULL);
  g_assert_nonnull (folder);
  return folder;
}

static inline void
remove_folder (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (g_unlink (path) != 0)
      remove_folder (path);
  }
  g_rmdir (folder);
}

/* --- a process */

static inline void
die_with_parent (gpointer unused)
{
  (void) unused;
  prctl (PR_SET_PDEATHSIG, SIGKILL);
}

/* Skips the test where `program` is not there. */
static inline bool
have_program (const char *program)
{
  g_autofree char *found = g_find_program_in_path (program);
  if (found == NULL) {
    g_autofree char *why = g_strdup_printf ("%s is not installed", program);
    g_test_skip (why);
  }
  return found != NULL;
}

/* `command` is split as a shell does. */
static inline GPid
start_process (const char *command)
{
  g_auto (GStrv) argv = NULL;
  g_autoptr (GError) err = NULL;
  GPid pid = 0;
  g_assert_true (g_shell_parse_argv (command, NULL, &argv, NULL));
  g_spawn_async (NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, die_with_parent,
                 NULL, &pid, &err);
  g_assert_no_error (err);
  return pid;
}

static inline void
end_process (GPid pid)
{
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
}

/* Runs `command` and returns what it prints; it must succeed. */
static inline char *
run_process (const char *command)
{
  char *out = NULL;
  g_autofree char *complaint = NULL;
  g_autoptr (GError) err = NULL;
  int status = 0;
  g_spawn_command_line_sync (command, &out, &complaint, &status, &err);
  g_assert_no_error (err);
  if (status != 0)
    g_error ("%s: %s", command, complaint);
  return out;
}

/* How much longer things may take here (sanitizers, many at once). */
static inline int
slowness (void)
{
  const char *slow = getenv ("TMK_TEST_SLOW");
  return slow != NULL ? CLAMP (atoi (slow), 1, 100) : 1;
}

/* Waits until somebody listens on the unix socket `path`: it is there a moment before that. */
static inline void
wait_for_server (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  for (int i = 0; i < 1000 * slowness (); i++) {
    int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool up = fd >= 0 && connect (fd, (struct sockaddr *) &address, sizeof address) == 0;
    close (fd);
    if (up)
      return;
    g_usleep (10000);
  }
  g_error ("nobody listens on '%s'", path);
}

/* --- errors */

/* Expects an error, and frees it. */
static inline void
assert_error (TmkError **err, TmkErrorCode code, const char *part)
{
  g_assert_nonnull (*err);
  if (tmk_error_code (*err) != code || strstr (tmk_error_message (*err), part) == NULL)
    g_error ("expected %s with '%s', got %s: %s", tmk_error_code_name (code), part,
             tmk_error_code_name (tmk_error_code (*err)), tmk_error_message (*err));
  g_clear_pointer (err, tmk_error_free);
}

static inline void
assert_ok (const TmkError *err)
{
  if (err != NULL)
    g_error ("%s", tmk_error_message (err));
}

/* --- content */

/* What stands at each offset: never zero, different in each KiB and each 256 KiB. */
static inline guint8
pattern_at (uint64_t offset)
{
  return (guint8) (1 + (offset + (offset >> 10) * 7 + (offset >> 18) * 31) % 255);
}

static inline void
fill_pattern (guint8 *to, uint64_t offset, uint64_t length)
{
  for (uint64_t i = 0; i < length; i++)
    to[i] = pattern_at (offset + i);
}

/* Exactly the range, ascending, neighbours different. */
static inline void
assert_covers (const TmkBlockExtents *extents, uint64_t offset, uint64_t length)
{
  uint64_t end = offset;
  for (size_t i = 0; i < extents->n_extents; i++) {
    const TmkBlockExtent *e = &extents->extents[i];
    g_assert_cmpuint (e->offset, ==, end);
    g_assert_cmpuint (e->length, >, 0);
    if (i > 0)
      g_assert_cmpuint (e->flags, !=, e[-1].flags);
    end += e->length;
  }
  g_assert_cmpuint (end, ==, offset + length);
}

/* Takes in what a reader delivers; `image` (NULL: nobody looks) is the whole source, what was not
 * delivered is 0xee. Fails the test for a byte that comes twice. */
static inline bool
drain (TmkBlockSource *source, TmkBlockReader *reader, guint8 *image, TmkReadStats *stats,
       TmkError **errp)
{
  const uint64_t size = tmk_block_source_size (source);
  g_autofree guint8 *seen = image != NULL ? g_malloc0 (size) : NULL;
  TmkReadStats sum = { 0 };
  const TmkBlockPiece *piece;
  bool ok;
  if (image != NULL)
    memset (image, 0xee, size);
  while ((ok = tmk_block_reader_next (reader, &piece, errp)) && piece != NULL) {
    g_assert_cmpuint (piece->length, >, 0);
    g_assert_cmpuint (piece->offset, <=, size);
    g_assert_cmpuint (piece->length, <=, size - piece->offset);
    *(piece->data != NULL ? &sum.read : &sum.zero) += piece->length;
    if (image != NULL) {
      g_assert_null (memchr (seen + piece->offset, 1, piece->length));
      memset (seen + piece->offset, 1, piece->length);
      if (piece->data != NULL)
        memcpy (image + piece->offset, piece->data, piece->length);
      else
        memset (image + piece->offset, 0, piece->length);
    }
    tmk_block_reader_release (reader, piece);
  }
  tmk_block_reader_stats (reader, stats);
  if (ok) {
    g_assert_cmpuint (stats->read, ==, sum.read);
    g_assert_cmpuint (stats->zero, ==, sum.zero);
    g_assert_true (tmk_block_reader_next (reader, &piece, errp)); /* the end stays the end */
    g_assert_null (piece);
  } else { /* and an error an error */
    g_autoptr (TmkError) again = NULL;
    g_assert_false (tmk_block_reader_next (reader, &piece, &again));
  }
  return ok;
}

static inline bool
read_image (TmkBlockSource *source, const TmkReadOptions *options, guint8 *image,
            TmkReadStats *stats, TmkError **errp)
{
  TmkBlockReader *reader = tmk_block_source_reader (source, options, errp);
  if (reader == NULL)
    return false;
  bool ok = drain (source, reader, image, stats, errp);
  tmk_block_reader_free (reader);
  return ok;
}
