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

static bool
has_open (const char *pid, const struct stat *image)
{
  g_autofree char *folder = g_build_filename ("/proc", pid, "fd", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    struct stat st;
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (stat (path, &st) == 0 && st.st_ino == image->st_ino && st.st_dev == image->st_dev)
      return true;
  }
  return false;
}

/* "web" of "-name guest=web,…" or "-name web" in the process's command line, or NULL. */
static char *
guest_name (const char *pid)
{
  size_t len;
  g_autofree char *path = g_build_filename ("/proc", pid, "cmdline", NULL);
  g_autofree char *line = fsx_read_file (path, 1 << 20, &len, NULL);
  bool named = false;
  for (const char *word = line; word != NULL && word < line + len; word += strlen (word) + 1) {
    if (named) {
      const char *name = g_str_has_prefix (word, "guest=") ? word + strlen ("guest=") : word;
      return g_strndup (name, strcspn (name, ","));
    }
    named = g_str_equal (word, "-name");
  }
  return NULL;
}

static char *
comm_of (const char *pid)
{
  size_t len;
  g_autofree char *path = g_build_filename ("/proc", pid, "comm", NULL);
  char *comm = fsx_read_file (path, 4096, &len, NULL);
  return comm != NULL ? g_strchomp (comm) : g_strdup ("?");
}

/* The process that has `image` open, one of QEMU's if there is any; or NULL. Free with g_free(). */
static char *
find_process (const char *image)
{
  struct stat st;
  const char *pid;
  char *found = NULL;
  g_autoptr (GDir) dir = stat (image, &st) == 0 ? g_dir_open ("/proc", 0, NULL) : NULL;
  while (dir != NULL && (pid = g_dir_read_name (dir)) != NULL) {
    if (!g_ascii_isdigit (*pid) || atol (pid) == (long) getpid () || !has_open (pid, &st))
      continue;
    g_autofree char *comm = comm_of (pid);
    g_free (found);
    found = g_strdup (pid);
    if (g_str_has_prefix (comm, "qemu"))
      break;
  }
  return found;
}

/* "'qemu-system-x86' (process 12, virtual machine 'web')", or NULL. */
static char *
find_holder (const char *image)
{
  g_autofree char *pid = find_process (image);
  if (pid == NULL)
    return NULL;
  g_autofree char *comm = comm_of (pid);
  g_autofree char *guest = guest_name (pid);
  if (guest != NULL)
    return g_strdup_printf ("'%s' (process %s, virtual machine '%s')", comm, pid, guest);
  return g_strdup_printf ("'%s' (process %s)", comm, pid);
}

void
image_set_in_use (const char *target, const char *path, TmkError **errp)
{
  g_autofree char *holder = find_holder (path);
  error_set (errp, DOMAIN, TMK_ERR_BUSY, 0, "disk '%s': the image '%s' is in use by %s", target,
             path, holder != NULL ? holder : "another process");
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
    image_set_in_use (target, path, errp);
  return -1; /* else the file system has no such locks, and QEMU itself does without */
}
