/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/damage.c: see repo/damage.h, and repo_note_damage() of repo/repo.h. No state; any thread. */
#include "repo/damage.h"

#include "repo/record.h"

#define PUBLISH_AT_ONCE (OBJECT_MAX_PLAIN / DAMAGE_NOTE_SIZE)

G_STATIC_ASSERT (sizeof (DamageNote) == DAMAGE_NOTE_SIZE); /* bytes only: as it is stored */

bool
is_damage (const TmkError *err)
{
  TmkErrorCode code = tmk_error_code (err);
  return code == TMK_ERR_DAMAGED || code == TMK_ERR_NOT_FOUND
         || (code == TMK_ERR_IO && obj_errno_is_damage (tmk_error_errno (err)));
}

static bool
visit_name (const ObjInfo *info, void *data)
{
  g_ptr_array_add (data, g_strdup (info->name));
  return true;
}

bool
damage_load (ObjStore *store, GArray *notes, TmkError **errp)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  if (!obj_store_list (store, "damaged", visit_name, names, errp))
    return false;
  for (guint i = 0; i < names->len; i++) {
    g_autoptr (TmkError) err = NULL;
    size_t size;
    g_autofree unsigned char *plain
        = record_load (store, names->pdata[i], OBJECT_DAMAGE, &size, &err);
    if (plain != NULL) {
      g_array_append_vals (notes, plain, (guint) (size / DAMAGE_NOTE_SIZE));
    } else if (!is_damage (err)) {
      error_propagate (errp, g_steal_pointer (&err));
      return false;
    }
  }
  return true;
}

bool
damage_publish (ObjStore *store, const DamageNote *notes, size_t n, TmkError **errp)
{
  for (size_t done = 0; done < n;) {
    size_t some = MIN (n - done, PUBLISH_AT_ONCE);
    g_autofree char *name = record_new_name ("damaged", errp);
    if (name == NULL
        || !record_publish (store, name, OBJECT_DAMAGE, CODEC_PLAIN, 0, notes + done,
                            some * DAMAGE_NOTE_SIZE, errp))
      return false;
    done += some;
  }
  return true;
}
