/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/nbd_status.c: see blk/nbd_status.h. */
#include "blk/nbd_status.h"

#include <errno.h>
#include <string.h>

#define DOMAIN "blk"
/* A request's length has 32 bits; every server takes this one. */
#define ASK_MAX (UINT64_C (2) << 30)
/* With extended headers it has 64; yet a reply should not take for ever. */
#define ASK_MAX_EXTENDED (UINT64_C (1) << 40)

void
nbd_status_init (NbdStatus *status, const NbdTarget *target, const NbdFacts *facts)
{
  *status = (NbdStatus){ .target = target, .facts = *facts, .done = true };
  extent_list_init (&status->allocation);
  extent_list_init (&status->dirty);
}

void
nbd_status_clear (NbdStatus *status)
{
  extent_list_clear (&status->allocation);
  extent_list_clear (&status->dirty);
}

void
nbd_status_set_range (NbdStatus *status, uint64_t begin, uint64_t end)
{
  extent_list_reset (&status->allocation);
  extent_list_reset (&status->dirty);
  status->begin = begin;
  status->end = end;
}

uint64_t
nbd_status_known (const NbdStatus *status)
{
  uint64_t known = status->end;
  if (status->facts.allocation)
    known = MIN (known, extent_list_end (&status->allocation, status->begin));
  if (status->facts.dirty)
    known = MIN (known, extent_list_end (&status->dirty, status->begin));
  return known;
}

/* One extent of a reply. The last one may reach beyond what was asked for, not beyond the disk. */
static const char *
take_extent (NbdStatus *status, ExtentList *list, uint64_t offset, uint64_t length, unsigned flags)
{
  if (length == 0)
    return "it has an empty extent";
  if (offset >= status->asked_end)
    return "it goes on after what was asked for";
  if (length > status->facts.size - offset)
    return "it reaches beyond the end of the export";
  uint64_t known = extent_list_end (list, status->begin);
  uint64_t end = MIN (offset + length, status->end);
  if (end > known)
    extent_list_append (list, known, end - known, flags);
  return NULL;
}

static ExtentList *
find_context (NbdStatus *status, const char *context)
{
  if (status->facts.allocation && strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
    return &status->allocation;
  if (status->facts.dirty && strcmp (context, status->target->dirty) == 0)
    return &status->dirty;
  return NULL;
}

static unsigned
flags_of (const NbdStatus *status, const ExtentList *list, uint64_t bits)
{
  if (list == &status->dirty)
    return (bits & 1) != 0 ? TMK_EXTENT_DIRTY : 0;
  unsigned flags = 0;
  if ((bits & LIBNBD_STATE_HOLE) != 0)
    flags |= TMK_EXTENT_HOLE;
  if ((bits & LIBNBD_STATE_ZERO) != 0)
    flags |= TMK_EXTENT_ZERO;
  return flags;
}

#ifdef LIBNBD_HAVE_NBD_BLOCK_STATUS_64
typedef nbd_extent Entry;
#  define ENTRIES(n) (n)
#  define LENGTH(entries, i) ((entries)[i].length)
#  define BITS(entries, i) ((entries)[i].flags)
#else
typedef uint32_t Entry; /* in pairs: length, flags */
#  define ENTRIES(n) ((n) / 2)
#  define LENGTH(entries, i) ((entries)[2 * (i)])
#  define BITS(entries, i) ((entries)[2 * (i) + 1])
#endif

static int
on_extents (void *data, const char *context, uint64_t offset, Entry *entries, size_t n, int *error)
{
  NbdStatus *status = data;
  ExtentList *list = find_context (status, context);
  if (list == NULL || status->fault != NULL)
    return 0;
  if (offset != status->asked)
    status->fault = "it is about another place";
  for (size_t i = 0; i < ENTRIES (n) && status->fault == NULL; i++) {
    uint64_t length = LENGTH (entries, i);
    status->fault
        = take_extent (status, list, offset, length, flags_of (status, list, BITS (entries, i)));
    offset += length;
  }
  return 0;
}

static int
on_done (void *data, int *error)
{
  NbdStatus *status = data;
  status->err_no = *error;
  status->done = true;
  return 1; /* libnbd forgets the command */
}

static int64_t
send_request (NbdStatus *status, NbdLink *link)
{
  nbd_completion_callback done = { .callback = on_done, .user_data = status };
  uint64_t length = status->asked_end - status->asked;
#ifdef LIBNBD_HAVE_NBD_BLOCK_STATUS_64
  nbd_extent64_callback extents = { .callback = on_extents, .user_data = status };
  return nbd_aio_block_status_64 (link->nbd, length, status->asked, extents, done, 0);
#else
  nbd_extent_callback extents = { .callback = on_extents, .user_data = status };
  return nbd_aio_block_status (link->nbd, length, status->asked, extents, done, 0);
#endif
}

static uint64_t
longest (NbdLink *link)
{
#ifdef LIBNBD_HAVE_NBD_GET_EXTENDED_HEADERS_NEGOTIATED
  if (nbd_get_extended_headers_negotiated (link->nbd) > 0)
    return ASK_MAX_EXTENDED;
#endif
  return ASK_MAX;
}

bool
nbd_status_send (NbdStatus *status, NbdLink *link, TmkError **errp)
{
  uint64_t block = status->facts.min_block;
  status->known_before = nbd_status_known (status);
  status->asked = status->known_before & ~(block - 1);
  uint64_t length = MIN (status->end - status->asked, longest (link));
  /* Up to a whole block, where there is that much. */
  length = MIN ((length + block - 1) & ~(block - 1), status->facts.size - status->asked);
  status->asked_end = status->asked + length;
  status->fault = NULL;
  status->err_no = 0;
  status->link = link;
  status->since = g_get_monotonic_time ();
  status->done = false; /* the reply may be in before the call returns */
  if (send_request (status, link) >= 0)
    return true;
  nbd_status_drop (status);
  nbd_link_set_error (link, "cannot ask for extents", errp);
  return false;
}

bool
nbd_status_check (NbdStatus *status, TmkError **errp)
{
  status->link = NULL;
  if (status->fault == NULL && status->err_no == 0
      && nbd_status_known (status) <= status->known_before)
    status->fault = "it does not cover the beginning of what was asked for";
  if (status->fault != NULL) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, EPROTO,
               "'%s': the server's block status from %" G_GUINT64_FORMAT " makes no sense: %s",
               status->target->uri, status->asked, status->fault);
    return false;
  }
  if (status->err_no != 0) {
    g_autofree char *what = g_strdup_printf ("to tell the block status of %" G_GUINT64_FORMAT
                                             " bytes at %" G_GUINT64_FORMAT,
                                             status->asked_end - status->asked, status->asked);
    nbd_link_set_reply_error (status->target, status->err_no, what, errp);
    return false;
  }
  return true;
}

void
nbd_status_drop (NbdStatus *status)
{
  status->done = true;
  status->link = NULL;
}

void
nbd_status_merge (const NbdStatus *status, uint64_t end, ExtentList *out)
{
  extent_list_merge (&status->allocation, &status->dirty, status->begin, end, out);
}
