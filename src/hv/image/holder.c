/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/image/holder.c: who has an image; see hv/image/images.h.
 *
 * QEMU's processes tell each other by locks on bytes of the image what they do with it and what
 * they do not want others to do (source: QEMU, block/file-posix.c). A raw image that is only
 * exported read-only is not protected by QEMU itself, so we hold those locks for it.
 */
#include "hv/image/images.h"

#include "util/fsx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DOMAIN "hv"

/* Bytes of QEMU's protocol: 100 and on, what a process does; 200 and on, what it cannot bear. */
enum {
  DOES_READ = 100,
  DOES_WRITE = 101,
  DOES_RESIZE = 103,
  NOBODY_READS = 200,
  NOBODY_WRITES = 201,
  NOBODY_RESIZES = 203,
};

/* --- who ------------------------------------------------------------------------------------- */

/* A device may have several names. */
static bool
is_same (const struct stat *a, const struct stat *b)
{
  if (S_ISBLK (a->st_mode) && S_ISBLK (b->st_mode))
    return a->st_rdev == b->st_rdev;
  return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

static bool
has_open (const char *pid, const struct stat *image)
{
  g_autofree char *folder = g_build_filename ("/proc", pid, "fd", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    struct stat st;
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (stat (path, &st) == 0 && is_same (&st, image))
      return true;
  }
  return false;
}

/* The command line of process `pid`, its words one after the other, each with its NUL; `*end` gets
 * where they end. NULL where it cannot be read. Free with g_free(). */
static char *
command_line (const char *pid, const char **end)
{
  size_t len;
  g_autofree char *path = g_build_filename ("/proc", pid, "cmdline", NULL);
  char *line = fsx_read_file (path, 1 << 20, &len, NULL);
  *end = line + (line != NULL ? len : 0);
  return line;
}

/* "web" of "-name guest=web,…" or "-name web" in the process's command line, or NULL. */
static char *
guest_name (const char *pid)
{
  const char *end;
  g_autofree char *line = command_line (pid, &end);
  bool named = false;
  for (const char *word = line; word < end; word += strlen (word) + 1) {
    if (named) {
      const char *name = g_str_has_prefix (word, "guest=") ? word + strlen ("guest=") : word;
      return g_strndup (name, strcspn (name, ","));
    }
    named = g_str_equal (word, "-name");
  }
  return NULL;
}

/* What is run by a loader that was called by name: the first word that is a program of QEMU's. */
static char *
loaded_program (const char *pid)
{
  const char *end;
  g_autofree char *line = command_line (pid, &end);
  for (const char *word = line; word < end; word += strlen (word) + 1) {
    const char *slash = strrchr (word, '/');
    if (slash != NULL && g_str_has_prefix (slash, "/qemu-"))
      return g_strdup (slash + 1);
  }
  return NULL;
}

/* What process `pid` is called. Free with g_free(). */
static char *
program_of (const char *pid)
{
  size_t len;
  g_autofree char *path = g_build_filename ("/proc", pid, "comm", NULL);
  g_autofree char *comm = fsx_read_file (path, 4096, &len, NULL);
  char *loaded = comm != NULL && g_str_has_prefix (comm, "ld-") ? loaded_program (pid) : NULL;
  if (loaded != NULL)
    return loaded;
  return g_strdup (comm != NULL ? g_strchomp (comm) : "?");
}

/* The process that has `image` open, one of QEMU's if there is any, and not `ours`; or NULL. Free
 * with g_free(). */
static char *
find_process (const struct stat *image, pid_t ours)
{
  const char *pid;
  char *found = NULL;
  g_autoptr (GDir) dir = g_dir_open ("/proc", 0, NULL);
  while (dir != NULL && (pid = g_dir_read_name (dir)) != NULL) {
    long number = atol (pid);
    if (number <= 0 || number == getpid () || number == ours || !has_open (pid, image))
      continue;
    g_autofree char *program = program_of (pid);
    g_free (found);
    found = g_strdup (pid);
    if (g_str_has_prefix (program, "qemu"))
      break;
  }
  return found;
}

/* Where the device `image` is mounted, or NULL. Free with g_free(). */
static char *
find_mount (const struct stat *image)
{
  size_t len;
  g_autofree char *text = fsx_read_file ("/proc/self/mountinfo", 1 << 24, &len, NULL);
  g_auto (GStrv) lines = g_strsplit (text != NULL ? text : "", "\n", -1);
  g_autofree char *number
      = g_strdup_printf ("%u:%u", major (image->st_rdev), minor (image->st_rdev));
  for (char **line = lines; *line != NULL; line++) {
    g_auto (GStrv) fields = g_strsplit (*line, " ", 6); /* id, parent, device, root, mount point */
    if (g_strv_length (fields) == 6 && g_str_equal (fields[2], number))
      return g_strcompress (fields[4]);
  }
  return NULL;
}

/* "'qemu-system-x86' (process 12, virtual machine 'web')", or what can be told. Free with g_free().
 */
static char *
find_holder (const char *image, pid_t ours)
{
  struct stat st;
  if (stat (image, &st) != 0)
    return g_strdup ("another process");
  g_autofree char *mount = S_ISBLK (st.st_mode) ? find_mount (&st) : NULL;
  if (mount != NULL)
    return g_strdup_printf ("the file system at '%s'", mount);
  g_autofree char *pid = find_process (&st, ours);
  if (pid == NULL)
    return g_strdup (S_ISBLK (st.st_mode) ? "another process or the system" : "another process");
  g_autofree char *program = program_of (pid);
  g_autofree char *guest = guest_name (pid);
  if (guest != NULL)
    return g_strdup_printf ("'%s' (process %s, virtual machine '%s')", program, pid, guest);
  return g_strdup_printf ("'%s' (process %s)", program, pid);
}

void
image_set_in_use (const char *target, const char *path, pid_t ours, TmkError **errp)
{
  g_autofree char *holder = find_holder (path, ours);
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "disk '%s': the image '%s' is in use by %s", target,
             path, holder);
  error_hint (errp, "back a virtual machine that runs up by its monitor (--qmp ADDR), or end what"
                    " uses the image first");
}

/* --- keeping it ------------------------------------------------------------------------------ */

static bool
take (int fd, off_t byte)
{
  struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
  return fcntl (fd, F_OFD_SETLK, &lock) == 0;
}

static bool
is_taken (int fd, off_t byte)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
  return fcntl (fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int
image_lock (const char *target, const char *path, TmkError **errp)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    error_set_errno (errp, DOMAIN, errno, "disk '%s': cannot open the image '%s'", target, path);
    return -1;
  }
  /* First taken, then looked, as QEMU does: of two that come at once both may lose, never none. */
  bool locked = take (fd, DOES_READ) && take (fd, NOBODY_WRITES) && take (fd, NOBODY_RESIZES);
  int saved = errno;
  bool used
      = is_taken (fd, DOES_WRITE) || is_taken (fd, DOES_RESIZE) || is_taken (fd, NOBODY_READS);
  if (locked && !used)
    return fd;
  close (fd);
  if (used || saved == EAGAIN || saved == EACCES)
    image_set_in_use (target, path, 0, errp);
  return -1; /* else the file system has no such locks, and QEMU itself does without */
}

int
image_hold_device (const char *target, const char *path, TmkError **errp)
{
  int fd = open (path, O_RDONLY | O_EXCL | O_CLOEXEC);
  if (fd >= 0)
    return fd;
  if (errno == EBUSY)
    image_set_in_use (target, path, 0, errp);
  else
    error_set_errno (errp, DOMAIN, errno, "disk '%s': cannot open the image '%s'", target, path);
  return -1;
}
