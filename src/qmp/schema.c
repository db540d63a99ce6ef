/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/schema.c: query-qmp-schema, looked up by name; see qmp/schema.h. Immutable once made; any
 * thread.
 *
 * The schema is an array of entities that name each other: commands name the type of their
 * arguments, objects the types of their members and variants. It comes from outside, so what is
 * missing or of the wrong kind is taken as "does not have it", and cycles end at STEPS_MAX.
 */
#include "qmp/schema.h"

#include <string.h>

#define DOMAIN "qmp"
#define STEPS_MAX 32 /* arrays and alternates in a row: real schemas have two */

struct QmpSchema {
  json_t *root;
  GHashTable *entities; /* name → entity; both belong to `root` */
};

QmpSchema *
qmp_schema_new (json_t *root, TmkError **errp)
{
  g_autoptr (QmpSchema) schema = g_new0 (QmpSchema, 1);
  schema->root = json_incref (root);
  schema->entities = g_hash_table_new (g_str_hash, g_str_equal);
  size_t i;
  json_t *entity;
  json_array_foreach (root, i, entity) {
    const char *name = json_string_value (json_object_get (entity, "name"));
    if (name != NULL)
      g_hash_table_insert (schema->entities, (char *) name, entity);
  }
  if (g_hash_table_size (schema->entities) == 0) {
    error_set (errp, DOMAIN, TMK_ERR_INVALID, 0, "query-qmp-schema: the reply lists nothing");
    return NULL;
  }
  return g_steal_pointer (&schema);
}

QmpSchema *
qmp_schema_read (QmpClient *client, TmkError **errp)
{
  g_autoptr (json_t) root = qmp_execute (client, "query-qmp-schema", NULL, errp);
  return root != NULL ? qmp_schema_new (root, errp) : NULL;
}

void
qmp_schema_free (QmpSchema *schema)
{
  if (schema == NULL)
    return;
  g_hash_table_unref (schema->entities);
  json_decref (schema->root);
  g_free (schema);
}

/* The string member `key` of `object`, or NULL. */
static const char *
get (json_t *object, const char *key)
{
  return json_string_value (json_object_get (object, key));
}

static json_t *
find_entity (const QmpSchema *schema, const char *name)
{
  return name != NULL ? g_hash_table_lookup (schema->entities, name) : NULL;
}

static json_t *
find_command (const QmpSchema *schema, const char *command)
{
  json_t *entity = find_entity (schema, command);
  return g_strcmp0 (get (entity, "meta-type"), "command") == 0 ? entity : NULL;
}

/* The "type" of the element of `list` whose `key` is the `len` bytes at `name`, or NULL. */
static const char *
find_type (json_t *list, const char *key, const char *name, size_t len)
{
  size_t i;
  json_t *element;
  json_array_foreach (list, i, element) {
    const char *its = get (element, key);
    if (its != NULL && strlen (its) == len && memcmp (its, name, len) == 0)
      return get (element, "type");
  }
  return NULL;
}

/* Has the type `name` what `path` says? An empty path: it exists. */
static bool
type_has (const QmpSchema *schema, const char *name, const char *path, int steps)
{
  json_t *type = find_entity (schema, name);
  if (type == NULL || steps > STEPS_MAX)
    return false;
  if (path[0] == '\0')
    return true;

  const char *meta = get (type, "meta-type");
  if (g_strcmp0 (meta, "array") == 0)
    return type_has (schema, get (type, "element-type"), path, steps + 1);

  json_t *members = json_object_get (type, "members");
  if (g_strcmp0 (meta, "alternate") == 0) {
    size_t i;
    json_t *member;
    json_array_foreach (members, i, member) {
      if (type_has (schema, get (member, "type"), path, steps + 1))
        return true;
    }
    return false;
  }
  if (g_strcmp0 (meta, "object") != 0)
    return false;

  size_t len = strcspn (path, "/");
  const char *rest = path[len] == '/' ? path + len + 1 : path + len;
  const char *next = path[0] == '+'
                         ? find_type (json_object_get (type, "variants"), "case", path + 1, len - 1)
                         : find_type (members, "name", path, len);
  return type_has (schema, next, rest, 0);
}

bool
qmp_schema_has_command (const QmpSchema *schema, const char *command)
{
  return find_command (schema, command) != NULL;
}

bool
qmp_schema_has_argument (const QmpSchema *schema, const char *command, const char *path)
{
  json_t *entity = find_command (schema, command);
  return entity != NULL && type_has (schema, get (entity, "arg-type"), path, 0);
}
