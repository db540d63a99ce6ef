/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/api.c: see hv/libvirt/api.h. */
#define LV_API_DECLARATIONS_ONLY
#include "hv/libvirt/api.h"

#include <dlfcn.h>

#define DOMAIN "libvirt"
#define LIBRARY "libvirt.so.0"

LvApi lv_api;

/* What is missing, or NULL. */
static const char *
find_functions (void *library)
{
#define LV_API_FIND(name)                                                                          \
  *(void **) &lv_api.name##_ = dlsym (library, #name);                                             \
  if (lv_api.name##_ == NULL)                                                                      \
    return #name;
  LV_API_FUNCTIONS (LV_API_FIND)
#undef LV_API_FIND
#define LV_API_FIND(name) *(void **) &lv_api.name##_ = dlsym (library, #name);
  LV_API_NEW_FUNCTIONS (LV_API_FIND)
#undef LV_API_FIND
  *(void **) &lv_api.auth_default = dlsym (library, "virConnectAuthPtrDefault");
  return lv_api.auth_default != NULL ? NULL : "virConnectAuthPtrDefault";
}

bool
lv_api_load (TmkError **errp)
{
  static GMutex lock;
  static bool loaded;
  g_mutex_lock (&lock);
  if (!loaded) {
    /* It stays: it has threads and handlers of its own. */
    void *library = dlopen (LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    const char *missing = library != NULL ? find_functions (library) : NULL;
    if (library == NULL)
      error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "libvirt is not installed: %s", dlerror ());
    else if (missing != NULL)
      error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "libvirt is too old: it has no %s", missing);
    error_hint (errp, "install libvirt 7.2 or later (Debian: libvirt0)");
    loaded = library != NULL && missing == NULL;
  }
  bool ok = loaded;
  g_mutex_unlock (&lock);
  return ok;
}
