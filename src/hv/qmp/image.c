/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/image.c: see hv/qmp/image.h. A passphrase goes by an anonymous file on standard input. */
#include "hv/qmp/image.h"

#include "util/testpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOMAIN "hv"

#define ITER_TIME_MS 100

/* Where the kernel counts CPU time in ticks, QEMU's measurement fails now and then. */
#define ATTEMPTS 20
#define MEASUREMENT_FAILED "accurate CPU usage"

/* By a name that qemu-img cannot remove: where it fails it removes what it was to format, and the
 * next attempt would make another file, which is not the one that we made. */
#define TARGET_FD 3
#define TARGET_PATH "/proc/self/fd/3"

const char *
image_driver_of (const JobDisk *disk)
{
  return disk->encryption != NULL && g_str_equal (disk->format, "raw") ? "luks" : disk->format;
}

/* Appends ",PREFIXname=value", commas in the value doubled; nothing where it is NULL. */
static void
add_option (GString *options, const char *prefix, const char *name, const char *value)
{
  if (value == NULL)
    return;
  g_autofree char *copy = g_strdup (value);
  g_auto (GStrv) parts = g_strsplit (copy, ",", -1);
  g_autofree char *escaped = g_strjoinv (",,", parts);
  g_string_append_printf (options, "%s%s%s=%s", options->len > 0 ? "," : "", prefix, name, escaped);
}

/* `<cipher>` and `<ivgen>` as QEMU's LUKS driver names them. */
static void
add_encryption (GString *options, const JobDisk *disk)
{
  const EncryptionDef *encryption = disk->encryption;
  bool in_qcow2 = g_str_equal (disk->format, "qcow2");
  const char *prefix = in_qcow2 ? "encrypt." : "";
  g_autofree char *iter_time = g_strdup_printf ("%d", ITER_TIME_MS);

  if (in_qcow2)
    add_option (options, prefix, "format", "luks");
  add_option (options, prefix, "key-secret", "passphrase");
  add_option (options, prefix, "iter-time", iter_time);
  if (encryption->cipher_name != NULL) {
    g_autofree char *algorithm
        = g_strdup_printf ("%s-%u", encryption->cipher_name, encryption->cipher_size);
    add_option (options, prefix, "cipher-alg", algorithm);
    add_option (options, prefix, "cipher-mode", encryption->cipher_mode);
    add_option (options, prefix, "hash-alg", encryption->cipher_hash);
  }
  if (encryption->ivgen_name != NULL) {
    add_option (options, prefix, "ivgen-alg", encryption->ivgen_name);
    add_option (options, prefix, "ivgen-hash-alg", encryption->ivgen_hash);
  }
}

static char *
make_options (const JobDisk *disk, const char *backing_name, const char *compression_type)
{
  GString *options = g_string_new (NULL);
  if (g_str_equal (disk->format, "qcow2")) {
    add_option (options, "", "compat", "1.1");
    add_option (options, "", "backing_file", backing_name);
    if (backing_name != NULL)
      add_option (options, "", "backing_fmt", disk->backing_format);
    add_option (options, "", "compression_type", compression_type);
  }
  if (disk->encryption != NULL)
    add_encryption (options, disk);
  return g_string_free (options, FALSE);
}

/* All that `fd` gives until its end, as text, without the newlines at the end. */
static char *
read_to_end (int fd)
{
  GString *text = g_string_new (NULL);
  char buf[4096];
  ssize_t n;
  while ((n = read (fd, buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR))
    if (n > 0)
      g_string_append_len (text, buf, n);
  g_strchomp (text->str);
  return g_string_free (text, FALSE);
}

/* "qemu-img: /the/target: why" → "why": the rest is said already. */
static const char *
why_of (const char *said, const char *target)
{
  const char *const prefixes[] = { "qemu-img", target };
  for (size_t i = 0; i < G_N_ELEMENTS (prefixes); i++)
    if (g_str_has_prefix (said, prefixes[i])
        && g_str_has_prefix (said + strlen (prefixes[i]), ": "))
      said += strlen (prefixes[i]) + 2;
  return *said != '\0' ? said : "qemu-img failed";
}

/* Runs `argv` with `input` as its standard input. False where it could not be run; else `*ok` tells
 * whether it did what it should, and `*said` gets what it wrote to its standard error. */
static bool
run (const char *const *argv, int input, int target, bool *ok, char **said, TmkError **errp)
{
  g_autoptr (GError) gerror = NULL;
  GPid pid;
  int err_fd, as = TARGET_FD;
  if (!g_spawn_async_with_pipes_and_fds (
          NULL, argv, NULL,
          G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL,
          input, -1, -1, &target, &as, 1, &pid, NULL, NULL, &err_fd, &gerror)) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "cannot format it: %s", gerror->message);
    error_hint (errp, "it is QEMU's qemu-img that formats it: install that");
    *said = NULL;
    return false;
  }
  *said = read_to_end (err_fd);
  close (err_fd);
  int status = 0;
  while (waitpid (pid, &status, 0) < 0 && errno == EINTR)
    ;
  *ok = WIFEXITED (status) && WEXITSTATUS (status) == 0;
  return true;
}

static int
passphrase_file (GBytes *passphrase, TmkError **errp)
{
  gsize len;
  const char *data = g_bytes_get_data (passphrase, &len);
  int fd = memfd_create ("passphrase", MFD_CLOEXEC);
  if (fd >= 0 && write (fd, data, len) == (ssize_t) len)
    return fd;
  error_set_errno (errp, DOMAIN, errno, "cannot hand the passphrase to qemu-img");
  if (fd >= 0)
    close (fd);
  return -1;
}

bool
image_can_format (void)
{
  g_autofree char *found = g_find_program_in_path ("qemu-img");
  return found != NULL;
}

/* Formats what `target` is open on, with what `input` gives as passphrase (-1: none). */
static bool
format (const JobDisk *disk, const char *options, int input, int target, TmkError **errp)
{
  g_autofree char *size = g_strdup_printf ("%" G_GUINT64_FORMAT, disk->size);
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  const char *const begin[] = { "qemu-img", "create", "-q", "-u" };
  const char *const end[]
      = { "-f", image_driver_of (disk), "-o", options, TARGET_PATH, size, NULL };
  /* -u: the backing file is only named, never opened. */
  for (size_t i = 0; i < G_N_ELEMENTS (begin); i++)
    g_ptr_array_add (argv, (char *) begin[i]);
  if (input >= 0) {
    g_ptr_array_add (argv, (char *) "--object");
    g_ptr_array_add (argv, (char *) "secret,id=passphrase,file=/dev/stdin");
  }
  for (size_t i = 0; i < G_N_ELEMENTS (end); i++)
    g_ptr_array_add (argv, (char *) end[i]);
  g_autofree char *said = g_strdup (MEASUREMENT_FAILED);
  bool ran = true, ok = false;
  for (int i = 0; i < ATTEMPTS && ran && !ok && strstr (said, MEASUREMENT_FAILED) != NULL; i++) {
    g_free (said);
    ran = run ((const char *const *) argv->pdata, input, target, &ok, &said, errp);
  }
  if (ran && !ok)
    error_set (errp, DOMAIN, TMK_ERR_IO, 0, "%s", why_of (said, TARGET_PATH));
  return ok;
}

bool
image_format (const JobDisk *disk, const char *backing_name, const char *compression_type,
              GBytes *passphrase, TmkError **errp)
{
  g_autofree char *options = make_options (disk, backing_name, compression_type);
  int input = -1;
  if (passphrase != NULL && (input = passphrase_file (passphrase, errp)) < 0)
    return false;
  int target = open (disk->target, O_RDWR | O_CLOEXEC);
  bool ok = false;
  if (target < 0) {
    error_set_errno (errp, DOMAIN, errno, "cannot open it");
  } else {
    testpoint ("image-format");
    ok = format (disk, options, input, target, errp);
    testpoint ("image-formatted");
    close (target);
  }
  if (input >= 0)
    close (input);
  return ok;
}
