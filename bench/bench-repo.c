/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/bench-repo.c: how fast a packer stores, and how fast the index answers.
 *
 *   bench-repo pack FOLDER [FILE]   stores 64 KiB chunks of FILE (or made up ones: incompressible,
 *                                   then compressible) into a new repository in FOLDER, by one
 *                                   thread; and does the same without a repository: SHA-256 and
 *                                   zstd alone
 *   bench-repo index FOLDER [N]     writes an index file of N made-up ids (10 million), and looks
 * up ids that are there and ids that are not
 */
#include "repo/index_set.h"
#include "repo/index_write.h"
#include "repo/record.h"
#include "repo/writer.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (64u << 10)
#define DATA (512u << 20)

static void
die (const TmkError *err)
{
  fprintf (stderr, "bench-repo: %s\n", err != NULL ? tmk_error_message (err) : "failed");
  exit (1);
}

static double
cpu_seconds (void)
{
  struct timespec t;
  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static double
seconds (void)
{
  return (double) g_get_monotonic_time () / 1e6;
}

static uint64_t
next_random (uint64_t *state)
{
  uint64_t z = (*state += UINT64_C (0x9e3779b97f4a7c15)); /* splitmix64 */
  z = (z ^ z >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C (0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* `text`: words from a small vocabulary, which compress to about a third. */
static unsigned char *
make_data (size_t size, bool text)
{
  unsigned char *data = g_malloc (size);
  uint64_t state = 1;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = next_random (&state);
    if (text) {
      uint64_t seed = word % 5000;
      word = next_random (&seed);
    }
    memcpy (data + i, &word, 8);
  }
  return data;
}

static unsigned char *
read_data (const char *path, size_t *size)
{
  int fd = open (path, O_RDONLY);
  unsigned char *data = g_malloc (DATA);
  size_t n = 0;
  ssize_t got;
  while (fd >= 0 && n < DATA && (got = read (fd, data + n, DATA - n)) > 0)
    n += (size_t) got;
  if (fd >= 0)
    close (fd);
  *size = n / CHUNK * CHUNK;
  return data;
}

static void
report (const char *what, size_t size, uint64_t stored, double wall, double cpu)
{
  double mib = (double) size / (1 << 20);
  printf ("%-28s %7.0f MiB/s  %5.2f cpu-s/GiB  stored %5.1f %%\n", what, mib / wall,
          cpu / (mib / 1024), 100.0 * (double) stored / (double) size);
}

static void
bench_floor (const char *what, const unsigned char *data, size_t size, int hash_log)
{
  g_autoptr (ZSTD_CCtx) zstd = ZSTD_createCCtx ();
  ZSTD_CCtx_setParameter (zstd, ZSTD_c_compressionLevel, 1);
  ZSTD_CCtx_setParameter (zstd, ZSTD_c_hashLog, hash_log);
  EVP_MD *md = EVP_MD_fetch (NULL, "SHA256", NULL);
  EVP_MD_CTX *context = EVP_MD_CTX_new ();
  size_t room = ZSTD_compressBound (CHUNK);
  g_autofree unsigned char *out = g_malloc (room);
  uint64_t stored = 0;
  double wall = seconds (), cpu = cpu_seconds ();
  for (size_t at = 0; at < size; at += CHUNK) {
    unsigned char id[32];
    EVP_DigestInit_ex2 (context, md, NULL);
    EVP_DigestUpdate (context, data + at, CHUNK);
    EVP_DigestFinal_ex (context, id, NULL);
    size_t n = ZSTD_compress2 (zstd, out, room, data + at, CHUNK);
    stored += MIN (n, CHUNK);
  }
  report (what, size, stored, seconds () - wall, cpu_seconds () - cpu);
  EVP_MD_CTX_free (context);
  EVP_MD_free (md);
}

static void
bench_packer (const char *what, const char *folder, const unsigned char *data, size_t size)
{
  TmkError *err = NULL;
  RepoConfig config;
  repo_config_default (&config);
  static int n;
  g_autofree char *path = g_strdup_printf ("%s/repo-%d-%d", folder, getpid (), n++);
  ObjStore *store = obj_store_open_folder (path, true, &err);
  if (store == NULL || !repo_create (store, &config, &err))
    die (err);
  g_autoptr (Repo) repo = repo_open (store, &err);
  g_autoptr (RepoWriter) writer = repo != NULL ? repo_writer_new (repo, &err) : NULL;
  g_autoptr (RepoPacker) packer = writer != NULL ? repo_packer_new (writer, &err) : NULL;
  if (packer == NULL)
    die (err);
  uint64_t total = 0;
  double wall = seconds (), cpu = cpu_seconds ();
  for (size_t at = 0; at < size; at += CHUNK) {
    ObjectId id;
    uint32_t stored;
    repo_packer_hash (packer, OBJECT_CHUNK, data + at, CHUNK, &id);
    if (!repo_packer_store (packer, OBJECT_CHUNK, &id, data + at, CHUNK, &stored, &err))
      die (err);
    total += stored;
  }
  if (!repo_packer_finish (packer, &err) || !repo_writer_publish_index (writer, &err))
    die (err);
  report (what, size, total, seconds () - wall, cpu_seconds () - cpu);
}

static void
bench_pack (const char *folder, const char *file)
{
  for (int text = 0; text < (file != NULL ? 1 : 2); text++) {
    size_t size = DATA;
    g_autofree unsigned char *data
        = file != NULL ? read_data (file, &size) : make_data (size, text);
    printf ("%s, %zu MiB\n",
            file != NULL ? file
            : text       ? "compressible"
                         : "incompressible",
            size >> 20);
    for (int round = 0; round < 2; round++) {
      bench_floor ("  SHA-256, zstd 1 alone", data, size, 0);
      bench_floor ("  … with hashLog 12", data, size, 12);
      bench_packer ("  packer", folder, data, size);
    }
  }
}

/* --- the index */

static void
make_id (uint64_t n, ObjectId *id)
{
  uint64_t state = n * 77;
  for (size_t i = 0; i < sizeof *id; i += 8) {
    uint64_t word = next_random (&state);
    memcpy (id->bytes + i, &word, 8);
  }
}

static void
look_up (const IndexSet *set, const char *what, uint64_t n, uint64_t first, uint64_t step)
{
  uint64_t found = 0, asked = 2000000;
  double wall = seconds ();
  for (uint64_t i = 0; i < asked; i++) {
    ObjectId id;
    make_id (first + i * step % n, &id);
    found += index_set_has (set, &id);
  }
  wall = seconds () - wall;
  printf ("%-28s %7.2f million/s  %5.1f %% found\n", what, (double) asked / wall / 1e6,
          100.0 * (double) found / (double) asked);
}

static void
bench_index (const char *folder, uint64_t n)
{
  TmkError *err = NULL;
  g_autofree char *path = g_strdup_printf ("%s/index-%d", folder, getpid ());
  g_autoptr (ObjStore) store = obj_store_open_folder (path, true, &err);
  if (store == NULL)
    die (err);
  IndexPack pack = { .name = { { 1 } }, .size = 1000000 };
  g_autofree char *pack_name = pack_object_name (&pack.name);
  g_autofree char *bytes = g_malloc0 (pack.size);
  if (!obj_store_put_if_absent (store, pack_name, bytes, pack.size, &err))
    die (err);
  IndexEntry *entries = g_new0 (IndexEntry, n);
  for (uint64_t i = 0; i < n; i++) {
    entries[i] = (IndexEntry){ .length = 1000, .offset = 32, .kind = OBJECT_CHUNK };
    make_id (i, &entries[i].id);
  }
  RepoId repo = { { 0 } };
  uint64_t size;
  g_autofree char *name = NULL;
  double wall = seconds ();
  if (!index_write_array (store, &repo, &pack, 1, entries, n, &name, &size, &err))
    die (err);
  printf ("%.1f million ids sorted and written in %.1f s, %.0f MiB\n", (double) n / 1e6,
          seconds () - wall, (double) size / (1 << 20));
  g_free (entries);
  g_autoptr (IndexSet) set = index_set_load (store, &repo, NULL, &err);
  if (set == NULL)
    die (err);
  for (int round = 0; round < 2; round++) {
    look_up (set, "ids that are there", n, 0, 7919 * 13);
    look_up (set, "ids that are not", n, n, 7919 * 13);
  }
}

int
main (int argc, char **argv)
{
  if (argc >= 3 && g_str_equal (argv[1], "pack"))
    bench_pack (argv[2], argc > 3 ? argv[3] : NULL);
  else if (argc >= 3 && g_str_equal (argv[1], "index"))
    bench_index (argv[2], argc > 3 ? g_ascii_strtoull (argv[3], NULL, 10) : 10000000);
  else {
    fprintf (stderr, "usage: bench-repo pack FOLDER [FILE] | index FOLDER [N]\n");
    return 2;
  }
  return 0;
}
