/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cli/progress.c: see cli/progress.h. */
#include "cli/progress.h"

#include "cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_MAX 20
#define BAR_MIN 4
#define COLUMNS 80 /* of a terminal that does not tell */
#define DRAW_EVERY_US (G_USEC_PER_SEC / 8)
#define SAY_EVERY_US (5 * G_USEC_PER_SEC)
#define SPEED_OVER_US (3 * G_USEC_PER_SEC)  /* how much of the past the speed shown is of */
#define SPEED_FROM_US (G_USEC_PER_SEC / 20) /* nothing is said of what took less */

typedef struct {
  char *name, *note;
  guint64 done, total;
  bool finished;
  gint64 began_us, seen_us; /* monotonic */
  guint64 seen_done;
  double speed; /* bytes/s; of a finished part over all */
} Part;

struct Progress {
  bool quiet, terminal;
  GPtrArray *parts; /* of Part, in the order in which they came */
  gint64 heard_us;  /* when something was last heard of a part: then the next began */
  gint64 drawn_us;  /* when something was last shown */
  unsigned lines;   /* that are drawn now, above the cursor */
  glong name_width;
  glong bar_width; /* only ever shrinks, so that nothing dances */
};

static void
part_free (gpointer data)
{
  Part *part = data;
  g_free (part->name);
  g_free (part->note);
  g_free (part);
}

static bool
is_terminal (void)
{
  return isatty (STDERR_FILENO) && g_strcmp0 (g_getenv ("TERM"), "dumb") != 0;
}

Progress *
progress_new (bool quiet)
{
  Progress *progress = g_new0 (Progress, 1);
  progress->quiet = quiet;
  progress->terminal = is_terminal ();
  progress->bar_width = BAR_MAX;
  progress->parts = g_ptr_array_new_with_free_func (part_free);
  progress->heard_us = progress->drawn_us = g_get_monotonic_time ();
  return progress;
}

/* ---- one part ------------------------------------------------------------------------------ */

static Part *
find_part (Progress *progress, const char *name)
{
  for (guint i = 0; i < progress->parts->len; i++) {
    Part *part = g_ptr_array_index (progress->parts, i);
    if (g_str_equal (part->name, name))
      return part;
  }
  Part *part = g_new0 (Part, 1);
  part->name = g_strdup (name);
  part->began_us = part->seen_us = progress->heard_us;
  g_ptr_array_add (progress->parts, part);
  progress->name_width = MAX (progress->name_width, g_utf8_strlen (name, -1));
  return part;
}

/* The speed is that of the last seconds, so that it shows when something is stuck; older ones count
 * the less the longer ago they were. */
static void
update_part (Part *part, const ProgressPart *now)
{
  gint64 time = g_get_monotonic_time ();
  gint64 elapsed = time - part->seen_us;
  if (elapsed >= DRAW_EVERY_US && now->done >= part->seen_done) {
    double speed = (double) (now->done - part->seen_done) * G_USEC_PER_SEC / (double) elapsed;
    double weight = part->speed > 0 ? MIN (1.0, (double) elapsed / SPEED_OVER_US) : 1;
    part->speed += (speed - part->speed) * weight;
    part->seen_us = time;
    part->seen_done = now->done;
  }
  gint64 all = time - part->began_us;
  if (now->finished && !part->finished)
    part->speed = all < SPEED_FROM_US ? 0 : (double) now->done * G_USEC_PER_SEC / (double) all;
  part->done = now->done;
  part->total = now->total;
  part->finished = now->finished;
  g_free (part->note);
  part->note = g_strdup (now->note);
}

char *
progress_duration (guint64 seconds)
{
  guint64 minutes = seconds / 60;
  if (minutes < 60)
    return g_strdup_printf ("%u:%02u", (unsigned) minutes, (unsigned) (seconds % 60));
  return g_strdup_printf ("%" G_GUINT64_FORMAT ":%02u:%02u", minutes / 60,
                          (unsigned) (minutes % 60), (unsigned) (seconds % 60));
}

static char *
format_amounts (const Part *part)
{
  GString *text = g_string_new (NULL);
  g_autofree char *done = cli_size (part->done);
  g_autofree char *total = cli_size (part->total);
  g_autofree char *speed = cli_size ((guint64) part->speed);
  double share = part->total > 0 ? MIN (1.0, (double) part->done / (double) part->total) : 0;
  if (part->total > 0 || part->finished)
    g_string_append_printf (text, "%3d%%  ", part->finished ? 100 : (int) (share * 100));
  g_string_append (text, done);
  if (part->total > 0)
    g_string_append_printf (text, " of %s", total);
  if (part->speed >= 1)
    g_string_append_printf (text, "  %s/s", speed);
  if (part->note != NULL)
    g_string_append_printf (text, "  %s", part->note);
  if (!part->finished && part->total > part->done && part->speed >= 1) {
    g_autofree char *left
        = progress_duration ((guint64) ((double) (part->total - part->done) / part->speed + 0.5));
    g_string_append_printf (text, "  %s left", left);
  }
  return g_string_free (text, FALSE);
}

static void
append_bar (GString *line, const Part *part, glong width)
{
  double share = part->total > 0 ? MIN (1.0, (double) part->done / (double) part->total) : 0;
  glong full = part->finished ? width : (glong) (share * (double) width);
  g_string_append_c (line, '[');
  for (glong i = 0; i < width; i++)
    g_string_append_c (line, i < full ? '#' : '.');
  g_string_append (line, "]  ");
}

/* ---- the terminal -------------------------------------------------------------------------- */

static glong
columns (void)
{
  struct winsize size = { 0 };
  if (ioctl (STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return size.ws_col;
  return COLUMNS;
}

static void
erase (Progress *progress)
{
  if (progress->lines > 0)
    fprintf (stderr, "\033[%uA\033[J", progress->lines);
  progress->lines = 0;
}

/* One that is wider than the terminal would take two lines, and the next drawing begin too low. The
 * bar has what the rest leaves. */
static void
draw_part (Progress *progress, const Part *part, glong width)
{
  g_autoptr (GString) line = g_string_new (part->name);
  g_autofree char *amounts = format_amounts (part);
  glong name = g_utf8_strlen (part->name, -1);
  glong bar
      = width - progress->name_width - g_utf8_strlen (amounts, -1) - (glong) strlen ("  []  ");
  for (; name < progress->name_width + 2; name++)
    g_string_append_c (line, ' ');
  progress->bar_width = MIN (progress->bar_width, bar);
  if (progress->bar_width >= BAR_MIN)
    append_bar (line, part, progress->bar_width);
  g_string_append (line, amounts);
  g_autofree char *valid = g_utf8_make_valid (line->str, (gssize) line->len);
  g_autofree char *shown = g_utf8_substring (valid, 0, MIN (width, g_utf8_strlen (valid, -1)));
  fprintf (stderr, "%s\n", shown);
}

static void
draw (Progress *progress)
{
  glong width = MAX (columns () - 1, 1);
  erase (progress);
  for (guint i = 0; i < progress->parts->len; i++)
    draw_part (progress, g_ptr_array_index (progress->parts, i), width);
  progress->lines = progress->parts->len;
  fflush (stderr);
}

/* ---- showing ------------------------------------------------------------------------------- */

void
progress_update (Progress *progress, const ProgressPart *now)
{
  if (progress->quiet)
    return;
  guint before = progress->parts->len;
  Part *part = find_part (progress, now->name);
  bool news = before != progress->parts->len || (now->finished && !part->finished);
  update_part (part, now);
  gint64 time = progress->heard_us = g_get_monotonic_time ();
  gint64 since = time - progress->drawn_us;
  if (progress->terminal ? !news && since < DRAW_EVERY_US : since < SAY_EVERY_US)
    return;
  progress->drawn_us = time;
  if (progress->terminal) {
    draw (progress);
    return;
  }
  for (guint i = 0; i < progress->parts->len; i++) {
    part = g_ptr_array_index (progress->parts, i);
    g_autofree char *amounts = format_amounts (part);
    if (!part->finished)
      fprintf (stderr, "tidemark: %s  %s\n", part->name, amounts);
  }
}

void
progress_say (Progress *progress, const char *format, ...)
{
  va_list ap;
  va_start (ap, format);
  g_autofree char *text = g_strdup_vprintf (format, ap);
  va_end (ap);
  bool drawn = progress != NULL && progress->lines > 0;
  if (drawn)
    erase (progress);
  fprintf (stderr, "%s\n", text);
  if (drawn)
    draw (progress);
}

void
progress_free (Progress *progress)
{
  if (progress == NULL)
    return;
  if (progress->terminal && !progress->quiet && progress->parts->len > 0)
    draw (progress);
  g_ptr_array_unref (progress->parts);
  g_free (progress);
}
