/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/tls.c: see hv/qmp/tls.h (source: QEMU, docs/system/tls). No state; any thread. */
#include "hv/qmp/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOMAIN "hv"

static const char *const x509_files[] = { "ca-cert.pem", "server-cert.pem", "server-key.pem" };
static const char psk_file[] = "keys.psk";

static bool
check_file (const char *folder, const char *name, TmkError **errp)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  struct stat st;
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  bool ok = fd >= 0 && fstat (fd, &st) == 0 && S_ISREG (st.st_mode) && st.st_size > 0;
  if (fd < 0)
    error_set_errno (errp, DOMAIN, errno, "TLS credentials: cannot read '%s'", path);
  else if (!ok)
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
               "TLS credentials: '%s' is empty, or not a regular file", path);
  if (fd >= 0)
    close (fd);
  return ok;
}

/* The folder itself, or that of the file keys.psk. NULL: neither. */
static char *
psk_folder (const char *path, TmkError **errp)
{
  g_autofree char *absolute = g_canonicalize_filename (path, NULL);
  if (g_file_test (absolute, G_FILE_TEST_IS_DIR))
    return g_steal_pointer (&absolute);
  g_autofree char *name = g_path_get_basename (absolute);
  if (g_str_equal (name, psk_file))
    return g_path_get_dirname (absolute);
  error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
             "TLS credentials: '%s' is neither a folder nor a file called '%s'", path, psk_file);
  error_hint (errp, "QEMU knows the file by its name: make one with 'psktool -p DIR/%s -u USER'",
              psk_file);
  return NULL;
}

static bool
plan_x509 (JobPlan *plan, const char *path, TmkError **errp)
{
  plan->tls_folder = g_canonicalize_filename (path, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (x509_files); i++)
    if (!check_file (plan->tls_folder, x509_files[i], errp)) {
      error_hint (errp, "the folder needs ca-cert.pem, server-cert.pem and server-key.pem");
      return false;
    }
  /* The internal form has a word for certificates, but none for pre-shared keys. */
  plan->def->tls_alias = g_strdup (plan->tls);
  return true;
}

static bool
plan_psk (JobPlan *plan, const char *path, TmkError **errp)
{
  plan->tls_psk = true;
  plan->tls_folder = psk_folder (path, errp);
  if (plan->tls_folder == NULL)
    return false;
  if (check_file (plan->tls_folder, psk_file, errp))
    return true;
  error_hint (errp, "make the file with 'psktool -p %s/%s -u USER'", plan->tls_folder, psk_file);
  return false;
}

bool
tls_plan (JobPlan *plan, const TmkBeginOptions *options, TmkError **errp)
{
  const BackupServer *server = plan->def->server;
  bool wanted = server != NULL && server->tls == 1;
  bool given = options->tls_x509 != NULL || options->tls_psk != NULL;
  if (options->tls_x509 != NULL && options->tls_psk != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
               "an NBD server has certificates or pre-shared"
               " keys, not both");
    error_hint (errp, "give one of --tls-x509 and --tls-psk");
    return false;
  }
  if (given && !wanted) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
               "there are TLS credentials, but the definition does not ask for TLS");
    error_hint (errp, plan->def->pull ? "write <server tls='yes' …>, or leave the credentials out"
                                      : "only a pull has a server to use them: leave them out");
    return false;
  }
  if (wanted && !given) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0,
               "the definition asks for TLS (tls='yes'), but there are no credentials");
    error_hint (errp, "give --tls-x509 DIR or --tls-psk FILE; see 'man tidemark-begin'");
    return false;
  }
  if (!wanted)
    return true;
  plan->tls = g_strdup_printf ("tmk-%s-tls", plan->run);
  return options->tls_x509 != NULL ? plan_x509 (plan, options->tls_x509, errp)
                                   : plan_psk (plan, options->tls_psk, errp);
}

bool
tls_has_dh_params (const JobPlan *plan)
{
  g_autofree char *path = g_build_filename (plan->tls_folder, "dh-params.pem", NULL);
  return access (path, F_OK) == 0;
}

bool
tls_start (QmpMachine *machine, const JobPlan *plan, TmkError **errp)
{
  if (plan->tls == NULL)
    return true;
  json_t *object = json_object ();
  json_object_set_new (object, "qom-type",
                       json_string (plan->tls_psk ? "tls-creds-psk" : "tls-creds-x509"));
  json_object_set_new (object, "id", json_string (plan->tls));
  json_object_set_new (object, "endpoint", json_string ("server"));
  json_object_set_new (object, "dir", jsonx_string_or_null (plan->tls_folder));
  json_object_set_new (object, "verify-peer", json_true ());
  if (qmp_run (machine->client, "object-add", object, errp))
    return true;
  error_prefix (errp, "TLS credentials");
  error_hint (errp, "QEMU reads them itself: its user must be able to read '%s' and what is in it",
              plan->tls_folder);
  return false;
}
