/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/verify.c: see repo/verify.h.
 *
 * The trees of all points are walked first, each node once, and the chunks they need marked; then
 * the chunks are read, in the order in which they lie in the packs, by a thread a core. Only where
 * damage was found the trees are walked again, to tell which points and ranges it touches.
 *
 * An index file that is damaged, or missing, is no loss: it is made anew from the packs before
 * anything is judged by it.
 *
 * Threads: everything is the calling thread's, but for what verify_chunks.c says.
 */
#include "repo/verify_priv.h"

#define DOMAIN "repo"
#define MESSAGES_MAX 10000
#define MISSING_MAX 100000
#define NOTE_AT_ONCE 4096

/* ---- sets of entries ---------------------------------------------------------------------- */

static uint64_t
words_of (const IndexSet *set, size_t file)
{
  return index_set_file (set, file)->view.n_entries / 64 + 1;
}

void
entry_set_init (EntrySet *entries, const IndexSet *set)
{
  entries->n_files = index_set_files (set);
  entries->bits = g_new (uint64_t *, entries->n_files + 1);
  for (size_t i = 0; i < entries->n_files; i++)
    entries->bits[i] = g_new0 (uint64_t, words_of (set, i));
}

void
entry_set_clear (EntrySet *entries)
{
  for (size_t i = 0; i < entries->n_files; i++)
    g_free (entries->bits[i]);
  g_free (entries->bits);
  *entries = (EntrySet){ 0 };
}

uint64_t
entry_set_count (const EntrySet *entries, const IndexSet *set)
{
  uint64_t count = 0;
  for (size_t i = 0; i < entries->n_files; i++)
    for (uint64_t word = 0; word < words_of (set, i); word++)
      count += (uint64_t) __builtin_popcountll (entries->bits[i][word]);
  return count;
}

/* ---- what the parts share ----------------------------------------------------------------- */

bool
verify_is_cancelled (const Verify *verify, TmkError **errp)
{
  if (verify->options->cancelled == NULL || !verify->options->cancelled (verify->options->data))
    return false;
  error_set (errp, DOMAIN, TMK_ERR_CANCELLED, 0, "the verification was interrupted");
  return true;
}

void
verify_tell_damage (Verify *verify, const VerifyDamage *damage)
{
  verify->result->findings++;
  if (verify->options->damage != NULL)
    verify->options->damage (damage, verify->options->data);
}

void
verify_tell (Verify *verify, const char *point, const char *message)
{
  VerifyDamage damage = { .point = point, .message = message };
  verify_tell_damage (verify, &damage);
}

void
verify_progress (const Verify *verify, uint64_t done, uint64_t total)
{
  if (verify->options->progress != NULL)
    verify->options->progress (done, total, verify->options->data);
}

bool
verify_locate (const Verify *verify, const ObjectId *id, VerifyPlace *place)
{
  bool found = false;
  for (size_t i = 0; i < index_set_files (verify->set); i++) {
    VerifyPlace here = { .file = i };
    if (!index_view_find_number (&index_set_file (verify->set, i)->view, id, &here.entry,
                                 &here.number))
      continue;
    bool counts = index_set_counts (verify->set, i, &here.entry);
    if (counts || !found)
      *place = here;
    found = true;
    if (counts)
      break;
  }
  return found;
}

static guint
hash_id (const void *id)
{
  guint n;
  memcpy (&n, id, sizeof n); /* hashes are good hashes */
  return n;
}

static gboolean
ids_equal (const void *a, const void *b)
{
  return object_id_equal (a, b);
}

void
verify_set_missing (Verify *verify, const ObjectId *id)
{
  verify->damage = true;
  if (g_hash_table_contains (verify->missing, id))
    return;
  verify->result->damaged++;
  if (g_hash_table_size (verify->missing) < MISSING_MAX)
    g_hash_table_add (verify->missing, g_memdup2 (id, sizeof *id));
}

void
verify_set_bad (Verify *verify, const VerifyPlace *place, const char *why)
{
  verify->damage = true;
  if (!entry_set_add (&verify->bad, place))
    return;
  verify->result->damaged++;
  if (g_hash_table_size (verify->messages) < MESSAGES_MAX)
    g_hash_table_insert (verify->messages, g_memdup2 (&place->entry.id, sizeof (ObjectId)),
                         g_strdup (why));
}

static guint
hash_note (const void *note)
{
  return hash_id (&((const DamageNote *) note)->id);
}

static gboolean
notes_equal (const void *a, const void *b)
{
  return memcmp (a, b, sizeof (DamageNote)) == 0;
}

void
verify_add_copies (Verify *verify, GArray *copies)
{
  for (guint i = 0; copies != NULL && i < copies->len; i++) {
    const BadCopy *copy = &g_array_index (copies, BadCopy, i);
    if (g_hash_table_contains (verify->copies, &copy->note))
      continue;
    g_hash_table_add (verify->copies, g_memdup2 (&copy->note, sizeof copy->note));
    g_autofree char *message = g_strdup_printf ("%s; another copy is whole", copy->message);
    verify->result->damaged++;
    verify_tell (verify, NULL, message);
  }
  g_clear_pointer (&copies, g_array_unref);
}

static bool
verify_init (Verify *verify, Repo *repo, const VerifyOptions *options, VerifyResult *result,
             TmkError **errp)
{
  *verify = (Verify){ .repo = repo, .options = options, .result = result };
  verify->set = repo_index (repo, errp);
  if (verify->set == NULL)
    return false;
  verify->reader = repo_reader_new (repo, true);
  verify->missing = g_hash_table_new_full (hash_id, ids_equal, g_free, NULL);
  verify->copies = g_hash_table_new_full (hash_note, notes_equal, g_free, NULL);
  verify->messages = g_hash_table_new_full (hash_id, ids_equal, g_free, g_free);
  entry_set_init (&verify->counted, verify->set);
  entry_set_init (&verify->walked, verify->set);
  entry_set_init (&verify->needed, verify->set);
  entry_set_init (&verify->bad, verify->set);
  return true;
}

static void
verify_clear (Verify *verify)
{
  if (verify->set == NULL)
    return;
  entry_set_clear (&verify->counted);
  entry_set_clear (&verify->walked);
  entry_set_clear (&verify->needed);
  entry_set_clear (&verify->bad);
  g_hash_table_unref (verify->missing);
  g_hash_table_unref (verify->copies);
  g_hash_table_unref (verify->messages);
  repo_reader_free (verify->reader);
  index_set_unref (verify->set);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Verify, verify_clear)

/* ---- notes -------------------------------------------------------------------------------- */

/* That the damage cannot be written down (a repository that is mounted read-only) makes it no less
 * found. */
static void
tell_unnoted (Verify *verify, const TmkError *why)
{
  g_autofree char *message
      = g_strdup_printf ("the damage cannot be noted: %s", tmk_error_message (why));
  verify_tell (verify, NULL, message);
}

static void
note (Verify *verify, GArray *ids)
{
  g_autoptr (TmkError) err = NULL;
  if (ids->len > 0
      && !repo_note_damage (verify->repo, (const ObjectId *) (void *) ids->data, ids->len, &err))
    tell_unnoted (verify, err);
  g_array_set_size (ids, 0);
}

/* So that the copies that are whole are those that stay in the index when it is merged. */
static void
note_copies (Verify *verify)
{
  g_autoptr (TmkError) err = NULL;
  g_autoptr (GArray) notes = g_array_new (FALSE, FALSE, sizeof (DamageNote));
  GHashTableIter iter;
  void *copy;
  g_hash_table_iter_init (&iter, verify->copies);
  while (g_hash_table_iter_next (&iter, &copy, NULL))
    g_array_append_vals (notes, copy, 1);
  if (!repo_note_copies (verify->repo, (const DamageNote *) (void *) notes->data, notes->len, &err))
    tell_unnoted (verify, err);
}

/* What is damaged or missing, or much of it. */
static GHashTable *
collect_lost (const Verify *verify)
{
  GHashTable *const from[] = { verify->missing, verify->messages };
  GHashTable *lost = g_hash_table_new_full (hash_id, ids_equal, g_free, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (from); i++) {
    GHashTableIter iter;
    void *id;
    g_hash_table_iter_init (&iter, from[i]);
    while (g_hash_table_iter_next (&iter, &id, NULL))
      g_hash_table_add (lost, g_memdup2 (id, sizeof (ObjectId)));
  }
  return lost;
}

/* How many of `ids` there are, as far as the index knows. */
static guint
count_there (Verify *verify, GHashTable *ids)
{
  g_autoptr (IndexSet) set = repo_index (verify->repo, NULL); /* it was loaded before */
  GHashTableIter iter;
  void *id;
  guint n = 0;
  g_hash_table_iter_init (&iter, ids);
  while (set != NULL && g_hash_table_iter_next (&iter, &id, NULL))
    n += index_set_has (set, id);
  return n;
}

/* Looks for copies that no index file names, for one that is damaged was newer when they were
 * merged. After the damage was noted, which is not about these. That the index cannot be changed
 * was told where it matters, and else is no harm. */
static void
find_copies (Verify *verify)
{
  g_autoptr (GHashTable) lost = collect_lost (verify);
  guint before = count_there (verify, lost);
  (void) repo_rebuild_index (verify->repo, lost, NULL);
  guint after = count_there (verify, lost);
  if (after <= before)
    return;
  guint n = after - before;
  g_autofree char *message = g_strdup_printf ("other copies of %u damaged object%s were found: "
                                              "verify again to see whether they are whole",
                                              n, n == 1 ? "" : "s");
  verify_tell (verify, NULL, message);
}

static void
note_damage (Verify *verify)
{
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (ObjectId));
  for (size_t file = 0; file < verify->bad.n_files; file++) {
    const IndexView *view = &index_set_file (verify->set, file)->view;
    for (uint64_t i = 0; i < view->n_entries; i++) {
      VerifyPlace place = { .file = file, .number = i };
      if (!entry_set_has (&verify->bad, &place) || !index_view_entry (view, i, &place.entry))
        continue;
      g_array_append_val (ids, place.entry.id);
      if (ids->len >= NOTE_AT_ONCE)
        note (verify, ids);
    }
  }
  GHashTableIter iter;
  void *id;
  g_hash_table_iter_init (&iter, verify->missing);
  while (g_hash_table_iter_next (&iter, &id, NULL))
    g_array_append_vals (ids, id, 1);
  note (verify, ids);
}

/* ---- the whole ---------------------------------------------------------------------------- */

static bool
mark (Verify *verify, const Manifest *const *points, size_t n, TmkError **errp)
{
  for (size_t i = 0; i < n; i++)
    if (!verify_mark_point (verify, points[i], errp))
      return false;
  return true;
}

/* Which points the damage touches. */
static bool
map (Verify *verify, const Manifest *const *points, size_t n, TmkError **errp)
{
  EntrySet clean;
  bool ok = true;
  entry_set_init (&clean, verify->set);
  for (size_t i = 0; ok && i < n; i++)
    ok = verify_map_point (verify, points[i], &clean, errp);
  entry_set_clear (&clean);
  return ok;
}

/* The index is made whole; where that cannot be done (the repository may be read-only), what it
 * does not know is missing. */
static void
mend_index (Verify *verify)
{
  g_autoptr (TmkError) err = NULL;
  if (repo_rebuild_index (verify->repo, NULL, &err))
    return;
  g_autofree char *message
      = g_strdup_printf ("the index cannot be made whole: %s", tmk_error_message (err));
  verify_tell (verify, NULL, message);
}

/* Marks what is needed. If something is missing that the index should know, the index is completed
 * from the packs, and all is marked anew. */
static bool
prepare (Verify *verify, Repo *repo, const Manifest *const *points, size_t n, bool all,
         TmkError **errp)
{
  const VerifyOptions *options = verify->options;
  VerifyResult *result = verify->result, before = *result;
  bool unsound = false;
  if (!verify_index_files (verify, all, &unsound, errp))
    return false;
  before = *result;
  if (!unsound) {
    if (!mark (verify, points, n, errp))
      return false;
    if (g_hash_table_size (verify->missing) == 0)
      return true;
  }
  mend_index (verify);
  before.findings = result->findings;
  *result = before;
  verify_clear (verify);
  return verify_init (verify, repo, options, result, errp) && mark (verify, points, n, errp);
}

static bool
run (Verify *verify, Repo *repo, const Manifest *const *points, size_t n, bool all, TmkError **errp)
{
  if (!prepare (verify, repo, points, n, all, errp) || (all && !verify_packs (verify, errp))
      || !verify_chunks (verify, errp))
    return false;
  verify->result->points = n;
  for (size_t i = 0; i < n; i++)
    verify->result->disks += points[i]->n_disks;
  verify_index_vanished (verify);
  verify_add_copies (verify, repo_reader_take_bad_copies (verify->reader));
  note_copies (verify);
  if (!verify->damage)
    return true;
  if (!map (verify, points, n, errp))
    return false;
  note_damage (verify);
  if (all)
    find_copies (verify);
  return true;
}

/* A manifest that cannot be read is a point that is lost. */
static void
tell_damaged_points (Verify *verify, const PointSet *points)
{
  for (guint i = 0; i < points->damaged->len; i++) {
    const char *text = points->damaged->pdata[i]; /* "ID: why" */
    g_autofree char *id = g_strndup (text, strcspn (text, ":"));
    const char *why = text + strlen (id);
    verify->result->damaged++;
    verify_tell (verify, id, *why != '\0' ? why + strlen (": ") : text);
  }
}

bool
repo_verify (Repo *repo, const Manifest *const *points, size_t n, const VerifyOptions *options,
             VerifyResult *result, TmkError **errp)
{
  static const VerifyOptions none;
  g_auto (Verify) verify = { 0 };
  g_autoptr (PointSet) all = NULL;
  VerifyResult found = { 0 };
  if (!repo_refresh (repo, errp))
    return false;
  if (points == NULL && (all = points_load (repo, NULL, errp)) == NULL)
    return false;
  if (!verify_init (&verify, repo, options != NULL ? options : &none, &found, errp))
    return false;
  if (all != NULL) {
    tell_damaged_points (&verify, all);
    points = (const Manifest *const *) all->manifests->pdata;
    n = all->manifests->len;
  }
  if (!run (&verify, repo, points, n, all != NULL, errp))
    return false;
  *result = found;
  return true;
}
