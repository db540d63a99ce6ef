/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/qmp/inspect.c: what a QEMU is, for who wants to know whether a backup would work. */
#include "hv/qmp/machine.h"

bool
machine_inspect (TmkDomain *domain, HvFacts *facts, TmkError **errp)
{
  QmpMachine *machine = (QmpMachine *) domain;
  if (!machine_enter (machine, ENTER_LIVE, errp))
    return false;
  pid_t pid = 0;
  uid_t uid;
  gid_t gid;
  *facts = (HvFacts){ .running = !machine->place->powered_off,
                      .version = qmp_client_version (machine->client),
                      .agent = HV_AGENT_UNKNOWN };
  if (facts->running && qmp_client_peer (machine->client, &pid, &uid, &gid))
    facts->pid = (long) pid;
  machine_leave (machine);
  return true;
}
