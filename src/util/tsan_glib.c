/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util/tsan_glib.c: tells ThreadSanitizer what GLib orders. Only in builds with
 * -Db_sanitize=thread.
 *
 * GLib is not instrumented, and its locks are futexes of its own: ThreadSanitizer would take all
 * that they protect for a race. Each of its functions that the project orders threads with is here
 * again, and found before GLib's: it tells what it does and calls GLib's. Threads need nothing:
 * GLib makes and joins them with pthread's functions, which ThreadSanitizer knows.
 */
#include <dlfcn.h>
#include <glib.h>
#include <sanitizer/tsan_interface.h>

/* GLib's function of the name of the one that this stands in. */
#define NEXT(type)                                                                                 \
  ({                                                                                               \
    static gpointer found;                                                                         \
    gpointer next = __atomic_load_n (&found, __ATOMIC_RELAXED);                                    \
    if (next == NULL) {                                                                            \
      next = dlsym (RTLD_NEXT, __func__);                                                          \
      g_assert (next != NULL);                                                                     \
      __atomic_store_n (&found, next, __ATOMIC_RELAXED);                                           \
    }                                                                                              \
    (type) next;                                                                                   \
  })

typedef void (*MutexFunc) (GMutex *);
typedef gboolean (*TrylockFunc) (GMutex *);
typedef void (*WaitFunc) (GCond *, GMutex *);
typedef gboolean (*WaitUntilFunc) (GCond *, GMutex *, gint64);
typedef gboolean (*DecFunc) (gatomicrefcount *);
typedef gboolean (*EnterFunc) (volatile void *);
typedef void (*LeaveFunc) (volatile void *, gsize);

void
g_mutex_init (GMutex *mutex)
{
  __tsan_mutex_create (mutex, __tsan_mutex_not_static);
  NEXT (MutexFunc) (mutex);
}

void
g_mutex_clear (GMutex *mutex)
{
  NEXT (MutexFunc) (mutex);
  __tsan_mutex_destroy (mutex, 0);
}

void
g_mutex_lock (GMutex *mutex)
{
  __tsan_mutex_pre_lock (mutex, 0);
  NEXT (MutexFunc) (mutex);
  __tsan_mutex_post_lock (mutex, 0, 0);
}

gboolean
g_mutex_trylock (GMutex *mutex)
{
  __tsan_mutex_pre_lock (mutex, __tsan_mutex_try_lock);
  gboolean locked = NEXT (TrylockFunc) (mutex);
  __tsan_mutex_post_lock (mutex,
                          __tsan_mutex_try_lock | (locked ? 0 : __tsan_mutex_try_lock_failed), 0);
  return locked;
}

void
g_mutex_unlock (GMutex *mutex)
{
  __tsan_mutex_pre_unlock (mutex, 0);
  NEXT (MutexFunc) (mutex);
  __tsan_mutex_post_unlock (mutex, 0);
}

void
g_cond_wait (GCond *cond, GMutex *mutex)
{
  __tsan_mutex_pre_unlock (mutex, 0);
  __tsan_mutex_post_unlock (mutex, 0);
  NEXT (WaitFunc) (cond, mutex);
  __tsan_mutex_pre_lock (mutex, 0);
  __tsan_mutex_post_lock (mutex, 0, 0);
}

gboolean
g_cond_wait_until (GCond *cond, GMutex *mutex, gint64 end_time)
{
  __tsan_mutex_pre_unlock (mutex, 0);
  __tsan_mutex_post_unlock (mutex, 0);
  gboolean woken = NEXT (WaitUntilFunc) (cond, mutex, end_time);
  __tsan_mutex_pre_lock (mutex, 0);
  __tsan_mutex_post_lock (mutex, 0, 0);
  return woken;
}

gboolean (g_atomic_ref_count_dec) (gatomicrefcount *count)
{
  __tsan_release (count);
  gboolean last = NEXT (DecFunc) (count);
  if (last)
    __tsan_acquire (count);
  return last;
}

gboolean (g_once_init_enter) (volatile void *location)
{
  gboolean first = NEXT (EnterFunc) (location);
  __tsan_acquire ((void *) location);
  return first;
}

void (g_once_init_leave) (volatile void *location, gsize result)
{
  __tsan_release ((void *) location);
  NEXT (LeaveFunc) (location, result);
}
