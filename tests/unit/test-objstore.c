/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proves: each kind of store publishes whole objects under names that never come twice, and shows
 * nothing of what was not published; folders do so with and without O_TMPFILE, and leave nothing
 * behind; the faulty one fails exactly where it should; a mapped file that is lost kills nobody. */
#include "objstore/folder.h"
#include "objstore/mapping.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *dir;

typedef enum { KIND_MEMORY, KIND_FOLDER, KIND_FOLDER_PLAIN, KIND_FAULTY } Kind;

static ObjStore *
store_new (Kind kind)
{
  if (kind == KIND_MEMORY)
    return obj_store_new_memory ();
  if (kind == KIND_FAULTY)
    return obj_store_new_faulty (obj_store_new_memory (), 0, false, false);
  static int n;
  g_autofree char *path = g_strdup_printf ("%s/a/store-%d", dir, n++);
  g_autoptr (TmkError) err = NULL;
  ObjStore *store = obj_store_open_folder (path, true, &err);
  g_assert_nonnull (store);
  if (kind == KIND_FOLDER_PLAIN)
    folder_store_avoid_tmpfile (store);
  return store;
}

static bool
count (const ObjInfo *info, void *data)
{
  ++*(int *) data;
  return true;
}

static int
count_in (ObjStore *store, const char *folder)
{
  int n = 0;
  g_assert_true (obj_store_list (store, folder, count, &n, NULL));
  return n;
}

static void
assert_code (TmkError **err, TmkErrorCode code)
{
  g_assert_nonnull (*err);
  g_assert_cmpint (tmk_error_code (*err), ==, code);
  g_clear_pointer (err, tmk_error_free);
}

static void
assert_holds (ObjStore *store, const char *name, const char *text)
{
  size_t size;
  g_autofree unsigned char *data = obj_store_get (store, name, 1000, &size, NULL);
  g_assert_nonnull (data);
  g_assert_cmpmem (data, size, text, strlen (text));
}

static void
test_publish (gconstpointer kind)
{
  g_autoptr (ObjStore) store = store_new ((Kind) GPOINTER_TO_INT (kind));
  TmkError *err = NULL;
  g_assert_cmpint (count_in (store, "packs"), ==, 0);
  g_assert_true (obj_store_put_if_absent (store, "packs/3f/one", "first", 5, &err));
  g_assert_false (obj_store_put_if_absent (store, "packs/3f/one", "second", 6, &err));
  assert_code (&err, TMK_ERR_EXISTS);
  assert_holds (store, "packs/3f/one", "first");
  g_assert_true (obj_store_put_if_absent (store, "packs/40/two", "", 0, &err));
  g_assert_true (obj_store_put_if_absent (store, "config", "c", 1, &err));
  assert_holds (store, "packs/40/two", "");
  g_assert_cmpint (count_in (store, "packs"), ==, 2);
  g_assert_cmpint (count_in (store, "packs/3f"), ==, 1);
  g_assert_cmpint (count_in (store, "pack"), ==, 0);

  size_t size;
  g_assert_null (obj_store_get (store, "packs/3f/one", 4, &size, &err));
  assert_code (&err, TMK_ERR_DAMAGED);
  g_assert_null (obj_store_get (store, "packs/3f/none", 4, &size, &err));
  assert_code (&err, TMK_ERR_NOT_FOUND);
  g_assert_null (obj_store_open (store, "nowhere/none", &err));
  assert_code (&err, TMK_ERR_NOT_FOUND);

  g_assert_true (obj_store_remove (store, "packs/3f/one", &err));
  g_assert_true (obj_store_remove (store, "packs/3f/one", &err));
  g_assert_true (obj_store_remove (store, "no/such", &err));
  g_assert_cmpint (count_in (store, "packs"), ==, 1);
  uint64_t room = 0;
  g_assert_true (obj_store_room (store, &room, &err));
  g_assert_cmpuint (room, >, 0);
}

static void
test_pieces (gconstpointer kind)
{
  g_autoptr (ObjStore) store = store_new ((Kind) GPOINTER_TO_INT (kind));
  TmkError *err = NULL;
  ObjWriter *given_up = obj_store_put (store, &err);
  g_assert_true (obj_writer_append (given_up, "gone", 4, &err));
  g_autoptr (ObjWriter) writer = obj_store_put (store, &err);
  for (int i = 0; i < 1000; i++)
    g_assert_true (obj_writer_append (writer, "0123456789", 10, &err));
  g_assert_cmpint (count_in (store, "packs"), ==, 0);
  obj_writer_free (given_up);
  g_assert_true (obj_writer_commit (writer, "packs/x", &err));
  g_assert_cmpint (count_in (store, "packs"), ==, 1);

  g_autoptr (ObjReader) reader = obj_store_open (store, "packs/x", &err);
  g_assert_cmpuint (obj_reader_size (reader), ==, 10000);
  char buffer[7];
  g_assert_true (obj_reader_read (reader, 9993, buffer, 7, &err));
  g_assert_cmpmem (buffer, 7, "3456789", 7);
  g_assert_false (obj_reader_read (reader, 9994, buffer, 7, &err));
  assert_code (&err, TMK_ERR_DAMAGED);
  g_assert_false (obj_reader_read (reader, UINT64_MAX, buffer, 7, &err));
  assert_code (&err, TMK_ERR_DAMAGED);
  const char *map = obj_reader_map (reader, &err);
  g_assert_cmpmem (map + 5, 5, "56789", 5);
  g_assert_true (obj_store_remove (store, "packs/x", &err));
  g_assert_true (obj_reader_read (reader, 0, buffer, 7, &err)); /* still open */
  g_assert_cmpmem (map + 9990, 10, "0123456789", 10);
}

static bool
note_time (const ObjInfo *info, void *data)
{
  *(int64_t *) data = info->modified_us;
  return true;
}

static void
test_clock (gconstpointer kind)
{
  g_autoptr (ObjStore) store = store_new ((Kind) GPOINTER_TO_INT (kind));
  int64_t before = 0, at = 0, after = 0;
  g_assert_true (obj_store_now (store, &before, NULL));
  g_assert_true (obj_store_put_if_absent (store, "x/y", "z", 1, NULL));
  g_assert_true (obj_store_list (store, "x", note_time, &at, NULL));
  g_assert_true (obj_store_now (store, &after, NULL));
  g_assert_cmpint (before, <=, at);
  g_assert_cmpint (at, <=, after);
  g_assert_cmpint (ABS (after - g_get_real_time ()), <, 60 * G_TIME_SPAN_SECOND);
  g_assert_cmpint (count_in (store, "x"), ==, 1);
}

static void
test_names (void)
{
  static const char *const bad[] = { "",  "/x",  "x/", "x//y",    "../x", "x/../y", ".",  "x/.y",
                                     "X", "x y", "é",  "tmp/abc", "tmp",  "x\n",    "x_y" };
  static const char *const good[] = { "x", "packs/3f/3f09", "a-b.c/1", "tmp2/x", "0" };
  g_autoptr (ObjStore) store = store_new (KIND_FOLDER);
  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    TmkError *err = NULL;
    size_t size;
    g_assert_false (obj_store_put_if_absent (store, bad[i], "", 0, &err));
    assert_code (&err, TMK_ERR_INVALID);
    g_assert_null (obj_store_get (store, bad[i], 1, &size, &err));
    assert_code (&err, TMK_ERR_INVALID);
    g_assert_false (obj_store_remove (store, bad[i], &err));
    assert_code (&err, TMK_ERR_INVALID);
    g_autoptr (ObjWriter) writer = obj_store_put (store, &err);
    g_assert_false (obj_writer_commit (writer, bad[i], &err));
    assert_code (&err, TMK_ERR_INVALID);
  }
  for (size_t i = 0; i < G_N_ELEMENTS (good); i++)
    g_assert_true (obj_store_put_if_absent (store, good[i], "", 0, NULL));
  g_autofree char *longest = g_strnfill (129, 'a');
  TmkError *err = NULL;
  g_assert_false (obj_store_put_if_absent (store, longest, "", 0, &err));
  assert_code (&err, TMK_ERR_INVALID);
}

/* Modes, what stays in the folder, what else is in it, and opening it again. */
static void
test_folder (void)
{
  g_autoptr (ObjStore) store = store_new (KIND_FOLDER_PLAIN);
  g_autofree char *path = g_strdup (obj_store_location (store));
  g_assert_true (obj_store_put_if_absent (store, "packs/aa/x", "x", 1, NULL));
  g_autoptr (ObjWriter) unfinished = obj_store_put (store, NULL);
  g_assert_nonnull (unfinished);
  g_autofree char *file = g_build_filename (path, "packs/aa/x", NULL);
  g_autofree char *folder = g_build_filename (path, "packs", NULL);
  g_autofree char *tmp = g_build_filename (path, "tmp", NULL);
  struct stat st;
  g_assert_cmpint (stat (file, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 07777, ==, 0600);
  g_assert_cmpuint (st.st_nlink, ==, 1);
  g_assert_cmpint (stat (folder, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 07777, ==, 0700);

  /* Opening removes old unfinished files and no new ones. */
  g_autofree char *old = g_build_filename (tmp, "old", NULL);
  g_assert_true (g_file_set_contents (old, "x", 1, NULL));
  struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
  g_assert_cmpint (utimensat (AT_FDCWD, old, times, 0), ==, 0);
  g_autoptr (ObjStore) again = obj_store_open_folder (path, false, NULL);
  g_assert_nonnull (again);
  g_assert_cmpint (access (old, F_OK), !=, 0);
  g_autoptr (GDir) listing = g_dir_open (tmp, 0, NULL);
  g_assert_nonnull (g_dir_read_name (listing)); /* the unfinished one */
  g_assert_null (g_dir_read_name (listing));
  assert_holds (again, "packs/aa/x", "x");

  /* What no object can be is not listed. */
  g_autofree char *odd = g_build_filename (folder, "Odd File", NULL);
  g_autofree char *link = g_build_filename (folder, "link", NULL);
  g_assert_true (g_file_set_contents (odd, "x", 1, NULL));
  g_assert_cmpint (symlink ("/etc", link), ==, 0);
  g_assert_cmpint (count_in (again, "packs"), ==, 1);

  TmkError *err = NULL;
  g_assert_null (obj_store_open_folder (path, true, &err));
  assert_code (&err, TMK_ERR_EXISTS);
  g_autofree char *none = g_build_filename (path, "none", NULL);
  g_assert_null (obj_store_open_folder (none, false, &err));
  assert_code (&err, TMK_ERR_NOT_FOUND);
  g_assert_null (obj_store_open_folder (file, false, &err));
  assert_code (&err, TMK_ERR_NOT_FOUND);
}

/* The C library's, but for files whose inodes the medium withholds: nothing else can be made to say
 * so. */
static const char *withheld;

int
fstatat (int folder, const char *name, struct stat *st, int flags)
{
  static int (*real) (int, const char *, struct stat *, int);
  if (real == NULL)
    *(void **) &real = dlsym (RTLD_NEXT, sizeof (long) == 8 ? "fstatat" : "fstatat64");
  if (withheld == NULL || !g_str_equal (name, withheld))
    return real (folder, name, st, flags);
  errno = EUCLEAN;
  return -1;
}

static bool
note_bad (const ObjInfo *info, void *data)
{
  if (info->size == 0)
    g_string_append_printf (data, "%s ", info->name);
  return true;
}

/* A file, or a folder, that cannot be looked at is listed with the others. */
static void
test_bad_inode (void)
{
  g_autoptr (ObjStore) store = store_new (KIND_FOLDER);
  g_assert_true (obj_store_put_if_absent (store, "packs/aa/x", "x", 1, NULL));
  g_assert_true (obj_store_put_if_absent (store, "packs/aa/y", "y", 1, NULL));
  g_assert_true (obj_store_put_if_absent (store, "packs/bb/z", "z", 1, NULL));
  static const struct {
    const char *word, *listed;
    int n;
  } cases[] = { { "x", "packs/aa/x ", 3 }, { "aa", "packs/aa ", 2 }, { "none", "", 3 } };
  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GString) bad = g_string_new (NULL);
    withheld = cases[i].word;
    g_assert_cmpint (count_in (store, "packs"), ==, cases[i].n);
    g_assert_true (obj_store_list (store, "packs", note_bad, bad, NULL));
    withheld = NULL;
    g_assert_cmpstr (bad->str, ==, cases[i].listed);
  }
}

static bool
is_zero (const char *data, size_t size)
{
  for (size_t i = 0; i < size; i++)
    if (data[i] != 0)
      return false;
  return true;
}

/* A mapped file whose pages cannot be had any more is zeroes; others are what they were. */
static void
test_map_lost (void)
{
  enum { SIZE = 5 * 65536 + 100 };
  g_autoptr (ObjStore) store = store_new (KIND_FOLDER);
  g_autofree char *data = g_strnfill (SIZE, 'x');
  g_assert_true (obj_store_put_if_absent (store, "index/a", data, SIZE, NULL));
  g_assert_true (obj_store_put_if_absent (store, "index/b", data, SIZE, NULL));
  g_autoptr (ObjReader) a = obj_store_open (store, "index/a", NULL);
  g_autoptr (ObjReader) b = obj_store_open (store, "index/b", NULL);
  const char *lost = obj_reader_map (a, NULL), *well = obj_reader_map (b, NULL);
  g_assert_cmpint (lost[0], ==, 'x');
  g_autofree char *path = g_build_filename (obj_store_location (store), "index/a", NULL);
  g_assert_cmpint (truncate (path, 65536), ==, 0);
  errno = 123;
  g_assert_cmpint (((const volatile char *) lost)[SIZE - 1], ==, 0);
  g_assert_cmpint (errno, ==, 123);
  g_assert_true (is_zero (lost, SIZE)); /* also what is still there: half a file is none */
  g_assert_cmpmem (well, SIZE, data, SIZE);
  g_assert_true (obj_reader_map (a, NULL) == lost);
  mapping_free (NULL);
}

typedef enum { BUS_SENT, BUS_STRANGE, BUS_CAUGHT } Bus;

static void
catch_bus (int number)
{
  _exit (77);
}

/* What SIGBUS is not about a mapping of ours does what it did. In a process of its own. */
static void
meet_sigbus (Bus bus)
{
  struct sigaction action = { .sa_handler = bus == BUS_CAUGHT ? catch_bus : SIG_DFL };
  g_assert_cmpint (sigaction (SIGBUS, &action, NULL), ==, 0);
  g_autofree char *path = g_build_filename (dir, "empty", NULL);
  int fd = open (path, O_RDWR | O_CREAT, 0600);
  Mapping *mapping = mapping_new (fd, 1);
  g_assert_nonnull (mapping);
  const volatile char *strange = mmap (NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
  g_assert_true (strange != MAP_FAILED);
  g_assert_cmpint (*(const volatile char *) mapping_data (mapping), ==, 0);
  if (bus == BUS_SENT)
    raise (SIGBUS);
  _exit (*strange);
}

static void
test_sigbus (void)
{
  for (Bus bus = BUS_SENT; bus <= BUS_CAUGHT; bus++) {
    int status = -1;
    pid_t pid = fork ();
    if (pid == 0)
      meet_sigbus (bus);
    g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
    if (bus == BUS_CAUGHT)
      g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 77);
    else
      g_assert_true (WIFSIGNALED (status) && WTERMSIG (status) == SIGBUS);
  }
}

/* Eight threads publish the same hundred names: each is won once, and holds what its winner put. */
#define NAMES 100
typedef struct {
  ObjStore *store;
  char letter;
  unsigned won;
} Racer;

static void *
race (void *data)
{
  Racer *racer = data;
  for (int i = 0; i < NAMES; i++) {
    g_autofree char *name = g_strdup_printf ("race/%d/x", i);
    g_autoptr (TmkError) err = NULL;
    char text[64];
    memset (text, racer->letter, sizeof text);
    if (obj_store_put_if_absent (racer->store, name, text, sizeof text, &err))
      racer->won++;
    else
      g_assert_cmpint (tmk_error_code (err), ==, TMK_ERR_EXISTS);
  }
  return NULL;
}

static void
test_race (gconstpointer kind)
{
  g_autoptr (ObjStore) store = store_new ((Kind) GPOINTER_TO_INT (kind));
  Racer racers[8];
  GThread *threads[8];
  for (int i = 0; i < 8; i++) {
    racers[i] = (Racer){ store, (char) ('a' + i), 0 };
    threads[i] = g_thread_new ("racer", race, &racers[i]);
  }
  unsigned won = 0;
  for (int i = 0; i < 8; i++) {
    g_thread_join (threads[i]);
    won += racers[i].won;
  }
  g_assert_cmpuint (won, ==, NAMES);
  for (int i = 0; i < NAMES; i++) {
    g_autofree char *name = g_strdup_printf ("race/%d/x", i);
    size_t size;
    g_autofree unsigned char *data = obj_store_get (store, name, 64, &size, NULL);
    g_assert_cmpuint (size, ==, 64);
    for (int k = 1; k < 64; k++)
      g_assert_cmpuint (data[k], ==, data[0]);
  }
}

/* A full file system, /dev/full's way, cannot be had without being root; a read-only folder is
 * denied to all but root. */
static void
test_denied (void)
{
  if (geteuid () == 0) {
    g_test_skip ("root may write everywhere");
    return;
  }
  g_autoptr (ObjStore) store = store_new (KIND_FOLDER);
  g_assert_cmpint (chmod (obj_store_location (store), 0500), ==, 0);
  TmkError *err = NULL;
  g_assert_false (obj_store_put_if_absent (store, "x", "", 0, &err));
  g_assert_nonnull (tmk_error_hint (err));
  assert_code (&err, TMK_ERR_DENIED);
  g_assert_cmpint (chmod (obj_store_location (store), 0700), ==, 0);
}

/* Ten operations of all sorts; returns how many went well. */
static unsigned
ten_operations (ObjStore *store)
{
  unsigned ok = 0;
  int64_t us;
  char c;
  int n = 0;
  g_autoptr (ObjWriter) writer = obj_store_put (store, NULL); /* 1 */
  ok += writer != NULL;
  ok += writer != NULL && obj_writer_append (writer, "x", 1, NULL);   /* 2 */
  ok += writer != NULL && obj_writer_commit (writer, "x/a", NULL);    /* 3 */
  ok += obj_store_now (store, &us, NULL);                             /* 4 */
  ok += obj_store_list (store, "x", count, &n, NULL);                 /* 5 */
  g_autoptr (ObjReader) reader = obj_store_open (store, "x/a", NULL); /* 6 */
  ok += reader != NULL;
  ok += reader != NULL && obj_reader_read (reader, 0, &c, 1, NULL); /* 7 */
  ok += reader != NULL && obj_reader_map (reader, NULL) != NULL;    /* 8 */
  ok += obj_store_remove (store, "x/a", NULL);                      /* 9 */
  ok += obj_store_remove (store, "x/b", NULL);                      /* 10 */
  return ok;
}

static void
test_faulty (void)
{
  for (uint64_t at = 3; at <= 10; at++) {
    g_autoptr (ObjStore) once = obj_store_new_faulty (obj_store_new_memory (), at, true, false);
    unsigned lost = at == 6 ? 3 : 1; /* without a reader nothing is read */
    g_assert_cmpuint (ten_operations (once), ==, 10 - lost);
    g_assert_cmpuint (obj_store_faulty_count (once), ==, 11 - lost);
    g_assert_cmpint (count_in (once, "x"), ==, 0);

    g_autoptr (ObjStore) sticky = obj_store_new_faulty (obj_store_new_memory (), at, false, true);
    g_assert_cmpuint (ten_operations (sticky), ==, at - 1);
  }
  /* A commit that fails before is not there; after, it is. */
  for (int after = 0; after < 2; after++) {
    g_autoptr (ObjStore) store = obj_store_new_faulty (obj_store_new_memory (), 3, after, false);
    g_assert_false (obj_store_put_if_absent (store, "x/a", "x", 1, NULL));
    g_assert_cmpint (count_in (store, "x"), ==, after);
  }
}

int
main (int argc, char **argv)
{
  static const struct {
    Kind kind;
    const char *name;
  } kinds[] = { { KIND_MEMORY, "memory" },
                { KIND_FOLDER, "folder" },
                { KIND_FOLDER_PLAIN, "folder-without-tmpfile" },
                { KIND_FAULTY, "faulty" } };
  static const struct {
    const char *name;
    GTestDataFunc test;
  } tests[] = { { "publish", test_publish },
                { "pieces", test_pieces },
                { "clock", test_clock },
                { "race", test_race } };
  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("tmk-objstore-XXXXXX", NULL);
  /* First: whose the signal was is seen when the first mapping of a process is made. */
  g_test_add_func ("/mapping/sigbus", test_sigbus);
  g_test_add_func ("/mapping/lost", test_map_lost);
  for (size_t k = 0; k < G_N_ELEMENTS (kinds); k++)
    for (size_t t = 0; t < G_N_ELEMENTS (tests); t++) {
      g_autofree char *path = g_strdup_printf ("/objstore/%s/%s", kinds[k].name, tests[t].name);
      g_test_add_data_func (path, GINT_TO_POINTER (kinds[k].kind), tests[t].test);
    }
  g_test_add_func ("/objstore/names", test_names);
  g_test_add_func ("/objstore/folder/layout", test_folder);
  g_test_add_func ("/objstore/folder/bad-inode", test_bad_inode);
  g_test_add_func ("/objstore/folder/denied", test_denied);
  g_test_add_func ("/objstore/faulty/at", test_faulty);
  int status = g_test_run ();
  g_autofree char *command = g_strdup_printf ("rm -rf '%s'", dir);
  g_assert_cmpint (system (command), ==, 0);
  g_free (dir);
  return status;
}
