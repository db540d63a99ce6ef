/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-nbd.c: what a block source delivers. bench-nbd.py compares it with nbdcopy.
 *
 * Usage: bench-nbd read URI [CONNECTIONS [DEPTH [REQUEST [CONTEXT]]]]
 *        bench-nbd map URI [CONTEXT]
 *
 * `read` reads everything (with a CONTEXT: what is dirty) and throws it away; it prints seconds
 * from before connecting, bytes delivered as data, requests. `map` asks for all extents; it prints
 * seconds and their number.
 */
#include "util/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tidemark/block_source.h>

static bool
read_all (TmkBlockSource *source, bool only_dirty, TmkReadStats *stats, TmkError **errp)
{
  TmkReadOptions options = { .only_dirty = only_dirty };
  TmkBlockReader *reader = tmk_block_source_reader (source, &options, errp);
  if (reader == NULL)
    return false;
  const TmkBlockPiece *piece;
  bool ok;
  while ((ok = tmk_block_reader_next (reader, &piece, errp)) && piece != NULL)
    tmk_block_reader_release (reader, piece);
  tmk_block_reader_stats (reader, stats);
  tmk_block_reader_free (reader);
  return ok;
}

int
main (int argc, char **argv)
{
  bool map = argc > 1 && strcmp (argv[1], "map") == 0;
  if (argc < 3 || (!map && strcmp (argv[1], "read") != 0)) {
    fprintf (stderr, "usage: bench-nbd read URI [CONNECTIONS [DEPTH [REQUEST [CONTEXT]]]]\n"
                     "       bench-nbd map URI [CONTEXT]\n");
    return 2;
  }
  TmkNbdOptions options = { .connections = argc > 3 ? (unsigned) atoi (argv[3]) : 0,
                            .depth = argc > 4 ? (unsigned) atoi (argv[4]) : 0,
                            .request_size = argc > 5 ? (unsigned) atoi (argv[5]) : 0,
                            .dirty_context = argc > 6 ? argv[6] : NULL };
  if (map)
    options = (TmkNbdOptions){ .dirty_context = argc > 3 ? argv[3] : NULL };
  g_autoptr (TmkError) err = NULL;
  gint64 begin = g_get_monotonic_time ();
  TmkBlockSource *source = tmk_block_source_open_nbd (argv[2], &options, &err);
  TmkReadStats stats = { 0 };
  TmkBlockExtents *extents = NULL;
  bool ok = source != NULL;
  if (ok && map)
    ok = (extents = tmk_block_source_extents (source, 0, tmk_block_source_size (source), &err))
         != NULL;
  else if (ok)
    ok = read_all (source, options.dirty_context != NULL, &stats, &err);
  double seconds = (double) (g_get_monotonic_time () - begin) / 1e6;
  if (!ok)
    fprintf (stderr, "bench-nbd: %s\n", tmk_error_message (err));
  else if (map)
    printf ("%.4f %zu\n", seconds, extents->n_extents);
  else
    printf ("%.4f %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT "\n", seconds, stats.read,
            stats.requests);
  tmk_block_extents_free (extents);
  tmk_block_source_free (source);
  return ok ? 0 : 1;
}
