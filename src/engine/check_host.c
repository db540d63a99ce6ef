/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine/check_host.c: what a domain runs on, and what there is room for; see engine/check.h. */
#include "engine/check.h"

#include "hv/agent.h"
#include "hv/state.h"
#include "util/fsx.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OLDEST_TRIED 70200 /* QEMU, as in HvFacts */
#define AGENT_TIMEOUT_MS 5000
#define LITTLE (64u << 20)
/* Of a disk: what a guest may well overwrite while it is read is one of so many. */
#define SHARE 10

void
check_qemu (Check *self)
{
  if (self->facts.version != 0 && self->facts.version < OLDEST_TRIED)
    check_say (self, TMK_CHECK_WARNING, "qemu", NULL, "7.2 and 10.0 are tested",
               "QEMU is older than any that was tried");
}

/* ---- confinement --------------------------------------------------------------------------- */

/* As AppArmor or SELinux call it, or NULL: nothing confines the process, or that cannot be seen. */
static char *
read_confinement (long pid)
{
  g_autofree char *path = g_strdup_printf ("/proc/%ld/attr/current", pid);
  g_autofree char *text = NULL;
  if (!g_file_get_contents (path, &text, NULL, NULL))
    return NULL;
  g_strstrip (text);
  if (*text == '\0' || g_str_has_prefix (text, "unconfined")
      || g_str_has_suffix (text, "(complain)") || strstr (text, ":unconfined_t:") != NULL
      || g_str_equal (text, "kernel"))
    return NULL;
  return g_steal_pointer (&text);
}

void
check_confinement (Check *self)
{
  g_autofree char *label = self->facts.pid > 0 ? read_confinement (self->facts.pid) : NULL;
  if (label == NULL)
    return;
  bool untried = self->options->no_trial || self->job_runs;
  check_say (self, untried ? TMK_CHECK_WARNING : TMK_CHECK_OK, "confinement", NULL,
             untried ? "check with a trial, or allow it to open what is in the scratch folder"
                     : NULL,
             "QEMU is confined by '%s'%s", label,
             untried ? ": it may not be let open its scratch images"
                     : ": the trial shows whether it may open its scratch images");
}

/* ---- the agent ----------------------------------------------------------------------------- */

static void
check_socket (Check *self, const char *path)
{
  g_autoptr (TmkError) err = NULL;
  unsigned timeout = self->backup.begin.agent_timeout_ms;
  g_autoptr (Agent) agent = agent_open (path, timeout != 0 ? timeout : AGENT_TIMEOUT_MS, &err);
  if (agent != NULL)
    check_say (self, TMK_CHECK_OK, "agent", NULL, NULL, "the guest's agent answers");
  else
    check_say (self, TMK_CHECK_WARNING, "agent", NULL,
               "install and start qemu-guest-agent in the guest, and let nobody else connect to its"
               " socket",
               "the guest's file systems cannot be frozen: %s", tmk_error_message (err));
}

void
check_agent (Check *self)
{
  const char *agent = self->backup.begin.agent;
  if (agent == NULL || !self->facts.running)
    return;
  if (*agent != '\0') {
    check_socket (self, agent);
    return;
  }
  if (self->facts.agent == HV_AGENT_CONNECTED)
    check_say (self, TMK_CHECK_OK, "agent", NULL, NULL,
               "libvirt is connected to the guest's agent");
  else
    check_say (self, TMK_CHECK_WARNING, "agent", NULL,
               self->facts.agent == HV_AGENT_NONE
                   ? "add a channel called org.qemu.guest_agent.0 to the domain"
                   : "install and start qemu-guest-agent in the guest",
               "the guest's file systems cannot be frozen: %s",
               self->facts.agent == HV_AGENT_NONE ? "the domain has no channel for an agent"
                                                  : "no agent answers in the guest");
}

/* ---- folders ------------------------------------------------------------------------------- */

/* The folder itself, or the nearest above it that is there. */
static char *
nearest (const char *folder)
{
  g_autofree char *at = g_strdup (folder);
  struct stat st;
  while (stat (at, &st) != 0 && !g_str_equal (at, "/") && !g_str_equal (at, ".")) {
    char *up = g_path_get_dirname (at);
    g_free (at);
    at = up;
  }
  return g_steal_pointer (&at);
}

void
check_state (Check *self)
{
  const char *given = self->options->state_dir;
  g_autofree char *folder = given != NULL ? g_strdup (given) : state_default_root ();
  g_autofree char *there = nearest (folder);
  if (access (there, W_OK | X_OK) == 0)
    check_say (self, TMK_CHECK_OK, "state", NULL, NULL, "state folder '%s' can be written to",
               folder);
  else
    check_say (
        self, TMK_CHECK_PROBLEM, "state", NULL,
        "run tidemark as its owner, or name another one with --state-dir, the same each time",
        "state folder '%s' cannot be written to", folder);
}

/* ---- room ---------------------------------------------------------------------------------- */

void
check_space (Check *self)
{
  const char *location = self->repository != NULL ? tmk_repository_location (self->repository) : "";
  uint64_t room, expected = 0;
  if (self->look == NULL || *location != '/' || !fsx_free_space (location, &room, NULL))
    return;
  for (size_t i = 0; i < self->look->plan->n_disks; i++) {
    const PlanDisk *plan = &self->look->plan->disks[i];
    if (plan->selected)
      expected
          += plan->incremental ? plan->expected : MIN (plan->expected, check_used (plan->disk));
  }
  g_autofree char *needed = check_size (expected), *free_bytes = check_size (room);
  TmkCheckLevel level = room < LITTLE     ? TMK_CHECK_PROBLEM
                        : room < expected ? TMK_CHECK_WARNING
                                          : TMK_CHECK_OK;
  check_say (self, level, "space", NULL,
             level == TMK_CHECK_OK ? NULL : "free some space there, or use another repository",
             "%s are free for the repository, and up to %s will be read", free_bytes, needed);
}

/* What the scratch images on one file system may take. */
typedef struct {
  char *folder; /* of the first */
  dev_t device;
  uint64_t sum;
} Need;

static void
need_clear (void *need)
{
  g_free (((Need *) need)->folder);
}

static void
add_need (GArray *needs, const char *folder, uint64_t bytes)
{
  struct stat st;
  if (stat (folder, &st) != 0)
    st.st_dev = 0;
  for (guint i = 0; i < needs->len; i++) {
    Need *need = &g_array_index (needs, Need, i);
    if (need->device == st.st_dev && st.st_dev != 0) {
      need->sum += bytes;
      return;
    }
  }
  Need need = { g_strdup (folder), st.st_dev, bytes };
  g_array_append_val (needs, need);
}

static void
say_room (Check *self, const Need *need)
{
  uint64_t room;
  g_autoptr (TmkError) err = NULL;
  if (need->device == 0 || !fsx_free_space (need->folder, &room, &err)) {
    check_say (self, TMK_CHECK_PROBLEM, "scratch", NULL, "make the folder, or choose another one",
               "folder '%s' for scratch images is not there", need->folder);
    return;
  }
  g_autofree char *wanted = check_size (need->sum), *free_bytes = check_size (room);
  TmkCheckLevel level = room < LITTLE      ? TMK_CHECK_PROBLEM
                        : room < need->sum ? TMK_CHECK_WARNING
                                           : TMK_CHECK_OK;
  check_say (self, level, "scratch", NULL,
             level == TMK_CHECK_OK
                 ? NULL
                 : "free some space there, or choose another folder with --scratch-dir",
             "%s are free in '%s' for what the guest overwrites meanwhile; %s would be plenty",
             free_bytes, need->folder, wanted);
}

/* What is shut off needs no scratch. */
void
check_scratch (Check *self)
{
  if (self->look == NULL || !self->facts.running)
    return;
  g_autoptr (GArray) needs = g_array_new (FALSE, TRUE, sizeof (Need));
  g_array_set_clear_func (needs, need_clear);
  for (size_t i = 0; i < self->look->plan->n_disks; i++) {
    const PlanDisk *plan = &self->look->plan->disks[i];
    const char *image = plan->n_images > 0 ? plan->images[0].path : NULL;
    if (!plan->selected || (image == NULL && self->backup.scratch_dir == NULL))
      continue;
    g_autofree char *folder = self->backup.scratch_dir != NULL ? g_strdup (self->backup.scratch_dir)
                                                               : g_path_get_dirname (image);
    uint64_t used = check_used (plan->disk);
    if (check_is_staged (self, plan->disk))
      add_need (needs, folder, plan->incremental ? plan->expected : used);
    else
      add_need (needs, folder, MAX (used / SHARE, MIN (plan->disk->size, LITTLE)));
  }
  for (guint i = 0; i < needs->len; i++)
    say_room (self, &g_array_index (needs, Need, i));
}
