/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-blk-server.h: an NBD server in a thread that can be told to lie, which no real one can
 * (source: the NBD project, doc/proto.md). It speaks fixed newstyle with structured replies and
 * meta contexts; the test's own functions answer reads and block status.
 */
#pragma once

#include "test-blk.h"

#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CONTEXT "qemu:dirty-bitmap:b"

typedef struct Server Server;

typedef struct {
  Server *server;
  int fd;
  unsigned serial; /* of the connection: 1 … */
  bool structured;
  unsigned contexts; /* negotiated: 1 base:allocation, 2 CONTEXT */
  uint64_t cookie, offset;
  uint32_t length;
} Request;

/* Answers; false: hang up. */
typedef bool (*Answer) (Request *r);

struct Server {
  /* set by the test */
  uint64_t size;
  bool writable, multi_conn, no_structured, no_allocation, no_dirty;
  Answer on_read, on_status; /* NULL: honestly, all data, nothing dirty */
  Answer on_connect;         /* before a byte is sent */
  /* counts */
  atomic_uint connections, reads, asks;
  /* the rest */
  char *folder, *socket, *uri;
  int listener;
  pthread_t thread;
  pthread_mutex_t lock;
  GArray *threads; /* of pthread_t; under lock */
  GArray *fds;     /* of int, open ones; under lock */
};

static inline bool
put (int fd, const void *data, size_t length)
{
  while (length > 0) {
    ssize_t n = send (fd, data, length, MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    data = (const char *) data + n;
    length -= (size_t) n;
  }
  return true;
}

static inline bool
get (int fd, void *data, size_t length)
{
  while (length > 0) {
    ssize_t n = recv (fd, data, length, 0);
    if (n <= 0)
      return false;
    data = (char *) data + n;
    length -= (size_t) n;
  }
  return true;
}

static inline void
add16 (GByteArray *to, unsigned n)
{
  guint16 be = htobe16 ((guint16) n);
  g_byte_array_append (to, (const guint8 *) &be, 2);
}

static inline void
add32 (GByteArray *to, uint32_t n)
{
  guint32 be = htobe32 (n);
  g_byte_array_append (to, (const guint8 *) &be, 4);
}

static inline void
add64 (GByteArray *to, uint64_t n)
{
  guint64 be = htobe64 (n);
  g_byte_array_append (to, (const guint8 *) &be, 8);
}

static inline bool
put_bytes (int fd, GByteArray *bytes /* freed */)
{
  bool ok = put (fd, bytes->data, bytes->len);
  g_byte_array_free (bytes, TRUE);
  return ok;
}

/* --- negotiation */

static inline bool
put_option_reply (int fd, uint32_t option, uint32_t type, const void *data, uint32_t length)
{
  GByteArray *b = g_byte_array_new ();
  add64 (b, 0x3e889045565a9);
  add32 (b, option);
  add32 (b, type);
  add32 (b, length);
  if (length > 0)
    g_byte_array_append (b, data, length);
  return put_bytes (fd, b);
}

static inline bool
put_context (int fd, uint32_t id, const char *name)
{
  GByteArray *b = g_byte_array_new ();
  add32 (b, id);
  g_byte_array_append (b, (const guint8 *) name, (guint) strlen (name));
  bool ok = put_option_reply (fd, 10, 4, b->data, b->len);
  g_byte_array_free (b, TRUE);
  return ok;
}

static inline bool
has_text (const char *data, size_t length, const char *text)
{
  return memmem (data, length, text, strlen (text)) != NULL;
}

/* True once the client goes on to the transmission phase. */
static inline bool
negotiate (Request *r)
{
  Server *s = r->server;
  GByteArray *hello = g_byte_array_new ();
  add64 (hello, 0x4e42444d41474943);
  add64 (hello, 0x49484156454f5054);
  add16 (hello, 3);
  guint32 flags;
  if (!put_bytes (r->fd, hello) || !get (r->fd, &flags, 4))
    return false;
  for (;;) {
    struct {
      guint64 magic;
      guint32 option, length;
    } head;
    if (!get (r->fd, &head, 16))
      return false;
    uint32_t option = be32toh (head.option), length = be32toh (head.length);
    g_autofree char *data = g_malloc0 (length + 1);
    if (!get (r->fd, data, length))
      return false;
    if (option == 8 && !s->no_structured) {
      r->structured = true;
      if (!put_option_reply (r->fd, option, 1, NULL, 0))
        return false;
    } else if (option == 10 && r->structured) {
      if (!s->no_allocation && has_text (data, length, "base:allocation")) {
        r->contexts |= 1;
        put_context (r->fd, 1, "base:allocation");
      }
      if (!s->no_dirty && has_text (data, length, CONTEXT)) {
        r->contexts |= 2;
        put_context (r->fd, 2, CONTEXT);
      }
      if (!put_option_reply (r->fd, option, 1, NULL, 0))
        return false;
    } else if (option == 7) {
      GByteArray *info = g_byte_array_new ();
      add16 (info, 0);
      add64 (info, s->size);
      add16 (info, 1 | (s->writable ? 0 : 2) | (s->multi_conn ? 1 << 8 : 0));
      bool ok = put_option_reply (r->fd, option, 3, info->data, info->len);
      g_byte_array_free (info, TRUE);
      return ok && put_option_reply (r->fd, option, 1, NULL, 0);
    } else if (option == 2) {
      return false;
    } else if (!put_option_reply (r->fd, option, 0x80000001, NULL, 0)) {
      return false;
    }
  }
}

/* --- answers */

/* A chunk of a structured reply. */
static inline GByteArray *
begin_chunk (Request *r, bool last, unsigned type, uint32_t length)
{
  GByteArray *b = g_byte_array_new ();
  add32 (b, 0x668e33ef);
  add16 (b, last);
  add16 (b, type);
  add64 (b, r->cookie);
  add32 (b, length);
  return b;
}

static inline bool
put_data (Request *r, uint64_t offset, uint32_t length, bool last)
{
  GByteArray *b = begin_chunk (r, last, 1, length + 8);
  add64 (b, offset);
  guint at = b->len;
  g_byte_array_set_size (b, at + length);
  fill_pattern (b->data + at, offset, length);
  return put_bytes (r->fd, b);
}

static inline bool
put_hole (Request *r, uint64_t offset, uint32_t length, bool last)
{
  GByteArray *b = begin_chunk (r, last, 2, 12);
  add64 (b, offset);
  add32 (b, length);
  return put_bytes (r->fd, b);
}

static inline bool
put_nothing (Request *r)
{
  return put_bytes (r->fd, begin_chunk (r, true, 0, 0));
}

static inline bool
put_error (Request *r, uint32_t err)
{
  GByteArray *b = begin_chunk (r, true, 0x8001, 6);
  add32 (b, err);
  add16 (b, 0);
  return put_bytes (r->fd, b);
}

static inline bool
put_simple (Request *r, uint32_t err, const void *data, uint32_t length)
{
  GByteArray *b = g_byte_array_new ();
  add32 (b, 0x67446698);
  add32 (b, err);
  add64 (b, r->cookie);
  if (length > 0)
    g_byte_array_append (b, data, length);
  return put_bytes (r->fd, b);
}

/* `n` pairs of length and flags. */
static inline bool
put_status (Request *r, uint32_t context, const uint32_t *entries, unsigned n, bool last)
{
  GByteArray *b = begin_chunk (r, last, 5, 4 + 8 * n);
  add32 (b, context);
  for (unsigned i = 0; i < 2 * n; i++)
    add32 (b, entries[i]);
  return put_bytes (r->fd, b);
}

static inline bool
answer_honestly (Request *r)
{
  if (r->structured)
    return put_data (r, r->offset, r->length, true);
  g_autofree guint8 *data = g_malloc (r->length);
  fill_pattern (data, r->offset, r->length);
  return put_simple (r, 0, data, r->length);
}

static inline bool
status_honestly (Request *r)
{
  const uint32_t all[2] = { r->length, 0 };
  if ((r->contexts & 1) != 0 && !put_status (r, 1, all, 1, r->contexts == 1))
    return false;
  return (r->contexts & 2) == 0 || put_status (r, 2, all, 1, true);
}

/* --- connections */

static inline void
answer_requests (Request *r)
{
  Server *s = r->server;
  for (;;) {
    struct {
      guint32 magic;
      guint16 flags, type;
      guint64 cookie, offset;
      guint32 length;
    } __attribute__ ((packed)) head;
    if (!get (r->fd, &head, sizeof head))
      return;
    r->cookie = be64toh (head.cookie);
    r->offset = be64toh (head.offset);
    r->length = be32toh (head.length);
    bool ok = false;
    if (be16toh (head.type) == 0) {
      s->reads++;
      ok = s->on_read != NULL ? s->on_read (r) : answer_honestly (r);
    } else if (be16toh (head.type) == 7) {
      s->asks++;
      ok = s->on_status != NULL ? s->on_status (r) : status_honestly (r);
    }
    if (!ok)
      return;
  }
}

static inline void
forget_fd (Server *s, int fd)
{
  pthread_mutex_lock (&s->lock);
  for (guint i = 0; i < s->fds->len; i++)
    if (g_array_index (s->fds, int, i) == fd) {
      g_array_remove_index_fast (s->fds, i);
      break;
    }
  close (fd);
  pthread_mutex_unlock (&s->lock);
}

static inline void *
serve_one (void *data)
{
  Request *r = data;
  Server *s = r->server;
  if ((s->on_connect == NULL || s->on_connect (r)) && negotiate (r))
    answer_requests (r);
  forget_fd (s, r->fd);
  g_free (r);
  return NULL;
}

static inline void *
serve (void *data)
{
  Server *s = data;
  for (;;) {
    int fd = accept4 (s->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
      return NULL; /* shut down */
    Request *r = g_new0 (Request, 1);
    r->server = s;
    r->fd = fd;
    r->serial = ++s->connections;
    pthread_mutex_lock (&s->lock);
    pthread_t thread;
    g_assert_cmpint (pthread_create (&thread, NULL, serve_one, r), ==, 0);
    g_array_append_val (s->threads, thread);
    g_array_append_val (s->fds, fd);
    pthread_mutex_unlock (&s->lock);
  }
}

static inline void
start_server (Server *s)
{
  struct sockaddr_un sun = { .sun_family = AF_UNIX };
  s->folder = make_folder ();
  s->socket = g_build_filename (s->folder, "nbd", NULL);
  s->uri = g_strdup_printf ("nbd+unix:///disk?socket=%s", s->socket);
  s->threads = g_array_new (FALSE, FALSE, sizeof (pthread_t));
  s->fds = g_array_new (FALSE, FALSE, sizeof (int));
  pthread_mutex_init (&s->lock, NULL);
  s->listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_strlcpy (sun.sun_path, s->socket, sizeof sun.sun_path);
  g_assert_cmpint (bind (s->listener, (struct sockaddr *) &sun, sizeof sun), ==, 0);
  g_assert_cmpint (listen (s->listener, 8), ==, 0);
  g_assert_cmpint (pthread_create (&s->thread, NULL, serve, s), ==, 0);
}

static inline void
end_server (Server *s)
{
  shutdown (s->listener, SHUT_RDWR);
  pthread_join (s->thread, NULL);
  close (s->listener);
  pthread_mutex_lock (&s->lock);
  for (guint i = 0; i < s->fds->len; i++)
    shutdown (g_array_index (s->fds, int, i), SHUT_RDWR);
  pthread_mutex_unlock (&s->lock);
  for (guint i = 0; i < s->threads->len; i++)
    pthread_join (g_array_index (s->threads, pthread_t, i), NULL);
  g_array_free (s->threads, TRUE);
  g_array_free (s->fds, TRUE);
  pthread_mutex_destroy (&s->lock);
  remove_folder (s->folder);
  g_free (s->folder);
  g_free (s->socket);
  g_free (s->uri);
}
