/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blk/nbd_link.c: see blk/nbd_link.h. */
#include "blk/nbd_link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define DOMAIN "blk"
#define REQUEST_MIN 4096u
#define REQUEST_MAX (32u << 20)
#define REQUEST_DEFAULT (512u << 10)
#define GOODBYE_MS 300

/* --- targets */

NbdTarget *
nbd_target_new (const char *uri, const TmkNbdOptions *options, bool reading, TmkError **errp)
{
  static const TmkNbdOptions none = { 0 };
  if (options == NULL)
    options = &none;
  unsigned request = options->request_size != 0 ? options->request_size : REQUEST_DEFAULT;
  if (request < REQUEST_MIN || request > REQUEST_MAX || (request & (request - 1)) != 0) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "request size %u is no power of two from %u to %u bytes", request, REQUEST_MIN,
               REQUEST_MAX);
    return NULL;
  }
  if (options->connections > 16 || options->depth > 64) {
    error_set (errp, DOMAIN, TMK_ERR_USAGE, 0,
               "%u connections of %u requests are more than the 16 of 64 there may be",
               options->connections, options->depth);
    return NULL;
  }
  NbdTarget *target = g_new0 (NbdTarget, 1);
  target->uri = g_strdup (uri);
  target->dirty = reading ? g_strdup (options->dirty_context) : NULL;
  target->tls_certificates = g_strdup (options->tls_certificates);
  target->tls_psk_file = g_strdup (options->tls_psk_file);
  target->tls_user = g_strdup (options->tls_user);
  target->connect_ms = options->connect_timeout_ms != 0 ? options->connect_timeout_ms : 10000;
  target->reply_ms = options->reply_timeout_ms != 0 ? options->reply_timeout_ms : 120000;
  target->reconnect_ms = options->reconnect_ms != 0 ? options->reconnect_ms : 30000;
  if (options->no_reconnect || !reading)
    target->reconnect_ms = 0;
  target->connections = options->connections != 0 ? options->connections : 2;
  target->depth = options->depth != 0 ? options->depth : 4;
  target->request_size = request;
  target->cancel_fd = options->cancel_fd > 0 ? options->cancel_fd : -1;
  return target;
}

void
nbd_target_free (NbdTarget *target)
{
  if (target == NULL)
    return;
  g_free (target->uri);
  g_free (target->dirty);
  g_free (target->tls_certificates);
  g_free (target->tls_psk_file);
  g_free (target->tls_user);
  g_free (target);
}

bool
nbd_target_is_cancelled (const NbdTarget *target, TmkError **errp)
{
  struct pollfd pfd = { .fd = target->cancel_fd, .events = POLLIN };
  if (target->cancel_fd < 0 || poll (&pfd, 1, 0) <= 0)
    return false;
  error_set (errp, DOMAIN, TMK_ERR_CANCELLED, ECANCELED, "'%s': cancelled", target->uri);
  return true;
}

/* --- errors */

static TmkErrorCode
code_of (int err_no)
{
  switch (err_no) {
  case ENOENT:
    return TMK_ERR_NOT_FOUND;
  case EACCES:
  case EPERM:
  case EROFS:
    return TMK_ERR_DENIED;
  case EINVAL:
  case EPROTO:
    return TMK_ERR_INVALID;
  case ENOSPC:
  case EDQUOT:
    return TMK_ERR_NO_SPACE;
  case ETIMEDOUT:
    return TMK_ERR_TIMEOUT;
  case ENOTSUP:
    return TMK_ERR_UNSUPPORTED;
  case EIO:
  case ENOMEM:
    return TMK_ERR_IO;
  default:
    return TMK_ERR_GONE; /* ECONNREFUSED, ECONNRESET, EPIPE, ENOTCONN, ESHUTDOWN, end of stream … */
  }
}

/* libnbd gives no errno where the stream ended, was refused by TLS, or made no sense: only its
 * words tell them apart. What is not known is taken for nonsense, which is not tried again. */
static TmkErrorCode
code_of_words (const char *why)
{
  if (strstr (why, "unexpectedly") != NULL || strstr (why, "gnutls_record") != NULL)
    return TMK_ERR_GONE;
  if (strstr (why, "gnutls") != NULL || strstr (why, "TLS") != NULL)
    return TMK_ERR_DENIED;
  return TMK_ERR_INVALID;
}

void
nbd_link_set_error (const NbdLink *link, const char *what, TmkError **errp)
{
  const NbdTarget *target = link->target;
  const char *why = nbd_get_error ();
  int err_no = nbd_get_errno ();
  if (why == NULL)
    why = "the connection ended";
  /* "nbd_aio_connect_uri: what happened": the function is nothing to a user. */
  if (g_str_has_prefix (why, "nbd_")) {
    const char *colon = strstr (why, ": ");
    if (colon != NULL)
      why = colon + 2;
  }
  bool ended = link->ready && err_no == EINVAL /* "the handle is not connected" */
               && (nbd_aio_is_dead (link->nbd) > 0 || nbd_aio_is_closed (link->nbd) > 0);
  if (ended) {
    why = "the connection ended";
    err_no = ENOTCONN;
  }
  bool tls = !link->ready && strstr (why, "TLS") != NULL;
  TmkErrorCode code = err_no != 0 && !tls ? code_of (err_no) : code_of_words (why);
  error_set (errp, DOMAIN, code, err_no, "'%s': %s: %s", target->uri, what, why);
  if (err_no == ECONNREFUSED)
    error_hint (errp, "start the server, or check the address");
  else if (tls && target->tls_certificates == NULL && target->tls_psk_file == NULL)
    error_hint (errp, "give the TLS certificates or the pre-shared key that the server wants");
}

void
nbd_link_set_reply_error (const NbdTarget *target, int err_no, const char *what, TmkError **errp)
{
  TmkErrorCode code = err_no == EINVAL || err_no == ENOENT ? TMK_ERR_IO : code_of (err_no);
  error_set (errp, DOMAIN, code, err_no, "'%s': the server refused %s: %s", target->uri, what,
             g_strerror (err_no));
}

/* --- opening */

static bool
configure (NbdLink *link)
{
  const NbdTarget *target = link->target;
  struct nbd_handle *nbd = link->nbd;
  bool tls = target->tls_certificates != NULL || target->tls_psk_file != NULL;
  /* Buffers are not cleared before a read: the reader checks that replies cover all of them. */
  return nbd_set_pread_initialize (nbd, false) == 0
         && (!tls || nbd_set_tls (nbd, LIBNBD_TLS_REQUIRE) == 0)
         && (target->tls_certificates == NULL
             || nbd_set_tls_certificates (nbd, target->tls_certificates) == 0)
         && (target->tls_psk_file == NULL || nbd_set_tls_psk_file (nbd, target->tls_psk_file) == 0)
         && (target->tls_user == NULL || nbd_set_tls_username (nbd, target->tls_user) == 0)
         && nbd_add_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0
         && (target->dirty == NULL || nbd_add_meta_context (nbd, target->dirty) == 0);
}

NbdLink *
nbd_link_start (const NbdTarget *target, TmkError **errp)
{
  g_autoptr (NbdLink) link = g_new0 (NbdLink, 1);
  link->target = target;
  link->nbd = nbd_create ();
  if (link->nbd == NULL || !configure (link) || nbd_aio_connect_uri (link->nbd, target->uri) != 0) {
    nbd_link_set_error (link, "cannot connect", errp);
    return NULL;
  }
  return g_steal_pointer (&link);
}

static uint32_t
block_size (struct nbd_handle *nbd, int type, uint32_t fallback)
{
  int64_t size = nbd_get_block_size (nbd, type);
  return size > 0 ? (uint32_t) MIN (size, UINT32_MAX) : fallback;
}

/* What the server offers, once it is known. False: not what was asked for. */
static bool
take_facts (NbdLink *link, TmkError **errp)
{
  struct nbd_handle *nbd = link->nbd;
  const NbdTarget *target = link->target;
  int64_t size = nbd_get_size (nbd);
  if (size < 0) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, EPROTO, "'%s': the server tells no possible size",
               target->uri);
    return false;
  }
  NbdFacts facts = {
    .size = (uint64_t) size,
    .read_only = nbd_is_read_only (nbd) > 0,
    .multi_conn = nbd_can_multi_conn (nbd) > 0,
    .allocation = nbd_can_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0,
    .dirty = target->dirty != NULL && nbd_can_meta_context (nbd, target->dirty) > 0,
    .flush = nbd_can_flush (nbd) > 0,
    .zero = nbd_can_zero (nbd) > 0,
    .min_block = block_size (nbd, LIBNBD_SIZE_MINIMUM, 1),
    .max_block = block_size (nbd, LIBNBD_SIZE_MAXIMUM, REQUEST_MAX),
  };
  if ((facts.min_block & (facts.min_block - 1)) != 0 || facts.min_block > 65536
      || facts.max_block < MAX (facts.min_block, REQUEST_MIN)) {
    error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0,
               "'%s': the server's block sizes, %u to %u bytes, make no sense", target->uri,
               facts.min_block, facts.max_block);
    return false;
  }
  facts.max_block = MIN (facts.max_block, REQUEST_MAX);
  if (target->dirty != NULL && !facts.dirty) {
    error_set (errp, DOMAIN, TMK_ERR_NOT_FOUND, 0, "'%s': the server has no meta context '%s'",
               target->uri, target->dirty);
    error_hint (errp, "export it with that bitmap, or check the name: nbdinfo '%s'", target->uri);
    return false;
  }
  link->facts = facts;
  return true;
}

NbdLink *
nbd_link_open (const NbdTarget *target, TmkError **errp)
{
  g_autoptr (NbdLink) link = nbd_link_start (target, errp);
  if (link == NULL || !nbd_link_await (link, &link->ready, target->connect_ms, errp))
    return NULL;
  return g_steal_pointer (&link);
}

/* --- running */

bool
nbd_link_is_idle (const NbdLink *link)
{
  return link->nbd != NULL && link->ready && nbd_aio_is_ready (link->nbd) > 0
         && nbd_aio_in_flight (link->nbd) == 0;
}

void
nbd_link_pollfd (NbdLink *link, struct pollfd *pfd)
{
  unsigned direction = nbd_aio_get_direction (link->nbd);
  pfd->fd = nbd_aio_get_fd (link->nbd);
  pfd->revents = 0;
  pfd->events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0)
    pfd->events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0)
    pfd->events |= POLLOUT;
}

bool
nbd_link_pump (NbdLink *link, short revents, TmkError **errp)
{
  /* One notification a time: the first may change what the second would mean. */
  unsigned direction = nbd_aio_get_direction (link->nbd);
  const short trouble = POLLHUP | POLLERR | POLLNVAL;
  int result = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 && (revents & (POLLIN | trouble)) != 0)
    result = nbd_aio_notify_read (link->nbd);
  else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 && (revents & (POLLOUT | trouble)) != 0)
    result = nbd_aio_notify_write (link->nbd);
  if (result != 0) {
    nbd_link_set_error (link, link->ready ? "connection lost" : "cannot connect", errp);
    return false;
  }
  if (nbd_aio_is_dead (link->nbd) > 0 || nbd_aio_is_closed (link->nbd) > 0) {
    error_set (errp, DOMAIN, TMK_ERR_GONE, ECONNRESET, "'%s': the server closed the connection",
               link->target->uri);
    return false;
  }
  if (!link->ready && nbd_aio_is_ready (link->nbd) > 0) {
    if (!take_facts (link, errp))
      return false;
    link->ready = true;
  }
  return true;
}

bool
nbd_link_await (NbdLink *link, const bool *done, unsigned timeout_ms, TmkError **errp)
{
  gint64 deadline = g_get_monotonic_time () + (gint64) timeout_ms * 1000;
  /* It may be there already: connecting to a unix socket can take no wait at all. */
  if (!nbd_link_pump (link, 0, errp))
    return false;
  while (!*done) {
    gint64 left = deadline - g_get_monotonic_time ();
    if (left <= 0) {
      error_set (errp, DOMAIN, TMK_ERR_TIMEOUT, ETIMEDOUT, "'%s': the server did not %s in %g s",
                 link->target->uri, link->ready ? "answer" : "let us in", timeout_ms / 1000.0);
      if (!link->ready)
        error_hint (errp, "check whether it serves as many clients as there are");
      return false;
    }
    struct pollfd pfd[2] = { { .fd = -1 }, { .fd = link->target->cancel_fd, .events = POLLIN } };
    nbd_link_pollfd (link, &pfd[0]);
    int n = poll (pfd, 2, (int) MIN ((left + 999) / 1000, G_MAXINT));
    if (n < 0 && errno != EINTR) {
      error_set_errno (errp, DOMAIN, errno, "'%s': poll", link->target->uri);
      return false;
    }
    if (n <= 0)
      continue;
    if (pfd[1].revents != 0) {
      (void) nbd_target_is_cancelled (link->target, errp); /* it is: this sets the error */
      return false;
    }
    if (!nbd_link_pump (link, pfd[0].revents, errp))
      return false;
  }
  return true;
}

/* --- closing */

static void
say_goodbye (NbdLink *link)
{
  if (!nbd_link_is_idle (link) || nbd_aio_disconnect (link->nbd, 0) != 0)
    return;
  gint64 deadline = g_get_monotonic_time () + GOODBYE_MS * 1000;
  for (;;) {
    gint64 left = deadline - g_get_monotonic_time ();
    struct pollfd pfd;
    nbd_link_pollfd (link, &pfd);
    if (left <= 0 || pfd.fd < 0 || poll (&pfd, 1, (int) (left / 1000) + 1) <= 0
        || !nbd_link_pump (link, pfd.revents, NULL))
      return;
  }
}

void
nbd_link_hang_up (NbdLink *link)
{
  nbd_close (link->nbd);
  link->nbd = NULL;
}

void
nbd_link_free (NbdLink *link)
{
  if (link == NULL)
    return;
  if (link->nbd != NULL) {
    say_goodbye (link);
    nbd_close (link->nbd);
  }
  g_free (link);
}
