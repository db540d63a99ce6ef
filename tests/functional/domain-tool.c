/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * domain-tool QMP begin BACKUP.xml [CHECKPOINT] | read DISK FILE | images | delete-from NAME DISK…
 *
 * What the API can do with a domain and the command line cannot, for tests. `begin` takes the
 * internal form, which may be a pull without <server>, and ends no job. `read` writes to FILE (of
 * the disk's size) what the source says is dirty, or everything, and prints how many bytes it was
 * told are dirty, or "full".
 */
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <tidemark/tidemark.h>
#include <unistd.h>

static int
fail (TmkError *err)
{
  fprintf (stderr, "%s: %s\nhint: %s\n", tmk_error_code_name (tmk_error_code (err)),
           tmk_error_message (err), tmk_error_hint (err));
  tmk_error_free (err);
  return 1;
}

static int
begin (TmkDomain *domain, char **argv, int argc)
{
  TmkError *err = NULL;
  g_autofree char *xml = NULL;
  if (!g_file_get_contents (argv[0], &xml, NULL, NULL))
    return 2;
  TmkBackupDef *def = tmk_backup_def_parse (xml, strlen (xml), argv[0], TMK_XML_INTERNAL, &err);
  TmkCheckpointDef *checkpoint = argc > 1 ? tmk_checkpoint_def_new (argv[1], &err) : NULL;
  bool ok = err == NULL && tmk_domain_begin (domain, def, checkpoint, NULL, &err);
  tmk_checkpoint_def_free (checkpoint);
  tmk_backup_def_free (def);
  return ok ? 0 : fail (err);
}

static int
read_disk (TmkDomain *domain, const char *disk, const char *file)
{
  TmkError *err = NULL;
  TmkBlockSource *source = tmk_domain_open_disk (domain, disk, NULL, &err);
  if (source == NULL)
    return fail (err);
  int fd = open (file, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate (fd, (off_t) tmk_block_source_size (source)) != 0)
    return 2;
  bool incremental = tmk_block_source_has_dirty (source);
  TmkReadOptions options = { .only_dirty = incremental };
  TmkBlockReader *reader = tmk_block_source_reader (source, &options, &err);
  const TmkBlockPiece *piece = NULL;
  unsigned long long bytes = 0;
  while (reader != NULL && tmk_block_reader_next (reader, &piece, &err) && piece != NULL) {
    g_autofree char *zeroes = piece->data == NULL ? g_malloc0 (piece->length) : NULL;
    const void *data = piece->data != NULL ? piece->data : zeroes;
    if (pwrite (fd, data, piece->length, (off_t) piece->offset) != (ssize_t) piece->length)
      return 2;
    bytes += piece->length;
    tmk_block_reader_release (reader, piece);
  }
  tmk_block_reader_free (reader);
  tmk_block_source_free (source);
  close (fd);
  if (err != NULL)
    return fail (err);
  if (incremental)
    printf ("%llu\n", bytes);
  else
    puts ("full");
  return 0;
}

static int
show_images (TmkDomain *domain)
{
  TmkError *err = NULL;
  TmkDiskList *list = tmk_domain_disks (domain, &err);
  if (list == NULL)
    return fail (err);
  for (size_t i = 0; i < list->n_disks; i++) {
    const TmkDiskInfo *disk = list->disks[i];
    printf ("%s", disk->name);
    for (size_t j = 0; j < disk->n_images; j++)
      printf (" %s", disk->images[j] != NULL ? disk->images[j] : "-");
    putchar ('\n');
  }
  tmk_disk_list_free (list);
  return 0;
}

int
main (int argc, char **argv)
{
  TmkError *err = NULL;
  if (argc < 3)
    return 2;
  TmkDomain *domain = tmk_domain_open_qmp (argv[1], NULL, &err);
  if (domain == NULL)
    return fail (err);
  const char *verb = argv[2];
  int rc = 2;
  if (strcmp (verb, "begin") == 0 && argc > 3)
    rc = begin (domain, argv + 3, argc - 3);
  else if (strcmp (verb, "read") == 0 && argc > 4)
    rc = read_disk (domain, argv[3], argv[4]);
  else if (strcmp (verb, "images") == 0)
    rc = show_images (domain);
  else if (strcmp (verb, "delete-from") == 0 && argc > 3)
    rc = tmk_domain_checkpoint_delete_from (domain, argv[3], (const char *const *) argv + 4, &err)
             ? 0
             : fail (err);
  tmk_domain_free (domain);
  return rc;
}
