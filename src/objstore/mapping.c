/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * objstore/mapping.c: see objstore/mapping.h.
 *
 * Index files are used as they lie, for they may be larger than memory should be, and reading all
 * of one before it is used would take long each time; so a handler it is. It is for the process, as
 * the signal is, and there is no other way to reach the mappings from it than a global list.
 *
 * Threads: the list is under its lock. The handler takes it, too: nobody who holds it touches a
 * mapping, and signals that were sent, and may come at any time, are passed on before.
 */
#include "objstore/mapping.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

struct Mapping {
  void *data;
  size_t size; /* whole pages */
  Mapping *next;
};

static struct {
  GMutex lock;
  Mapping *first;
  struct sigaction before; /* who had the signal; fixed when the first mapping was made */
} all;

/* --- the signal */

/* Puts zeroes in the place of the mapping that has `address`. */
static bool
clear_at (const void *address)
{
  bool done = false;
  g_mutex_lock (&all.lock);
  for (const Mapping *m = all.first; m != NULL && !done; m = m->next)
    if ((uintptr_t) address - (uintptr_t) m->data < m->size)
      done = mmap (m->data, m->size, PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0)
             != MAP_FAILED;
  g_mutex_unlock (&all.lock);
  return done;
}

/* To whoever had it before. */
static void
pass_on (int number, siginfo_t *info, void *context)
{
  if ((all.before.sa_flags & SA_SIGINFO) != 0) {
    all.before.sa_sigaction (number, info, context);
  } else if (all.before.sa_handler != SIG_DFL && all.before.sa_handler != SIG_IGN) {
    all.before.sa_handler (number);
  } else {
    /* What failed will fail again, and what was sent is sent again. */
    sigaction (number, &all.before, NULL);
    if (info->si_code <= 0)
      raise (number);
  }
}

static void
on_sigbus (int number, siginfo_t *info, void *context)
{
  int before = errno;
  bool sent = info->si_code <= 0; /* by a process; else by the kernel, for what this thread did */
  if (sent || !clear_at (info->si_addr))
    pass_on (number, info, context);
  errno = before;
}

static void
install (void)
{
  static gsize done;
  if (!g_once_init_enter (&done))
    return;
  struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK };
  sigemptyset (&action.sa_mask);
  (void) sigaction (SIGBUS, NULL, &all.before); /* both fail for wrong arguments only */
  (void) sigaction (SIGBUS, &action, NULL);
  g_once_init_leave (&done, 1);
}

/* --- mappings */

Mapping *
mapping_new (int fd, size_t size)
{
  size_t page = (size_t) sysconf (_SC_PAGESIZE);
  install ();
  void *data = mmap (NULL, size, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED)
    return NULL;
  Mapping *mapping = g_new (Mapping, 1);
  mapping->data = data;
  mapping->size = (size + page - 1) / page * page;
  g_mutex_lock (&all.lock);
  mapping->next = all.first;
  all.first = mapping;
  g_mutex_unlock (&all.lock);
  return mapping;
}

void
mapping_free (Mapping *mapping)
{
  if (mapping == NULL)
    return;
  g_mutex_lock (&all.lock);
  Mapping **at = &all.first;
  while (*at != mapping)
    at = &(*at)->next;
  *at = mapping->next;
  g_mutex_unlock (&all.lock);
  munmap (mapping->data, mapping->size);
  g_free (mapping);
}

const void *
mapping_data (const Mapping *mapping)
{
  return mapping->data;
}
