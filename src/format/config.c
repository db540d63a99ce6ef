/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format/config.c: see format/config.h. Pure; any thread. */
#include "format/config.h"

#include "format/jsonfmt.h"
#include "util/bytes.h"

#define DOMAIN "format"
#define WHAT "repository's configuration"
#define HASH "sha-256"

static json_t *
format_compression (const RepoConfig *config)
{
  if (config->codec == CODEC_PLAIN)
    return json_pack ("{s:s}", "codec", "none");
  return json_pack ("{s:s, s:i}", "codec", "zstd", "level", config->level);
}

char *
repo_config_format (const RepoConfig *config)
{
  char id[2 * REPO_ID_SIZE + 1];
  bytes_to_hex (config->id.bytes, REPO_ID_SIZE, id);
  return jsonfmt_dump (json_pack (
      "{s:i, s:[], s:s, s:o, s:s, s:I, s:I, s:o, s:n}", "format", FORMAT_VERSION, "requires", "id",
      id, "created", jsonfmt_time (config->created_us), "hash", HASH, "chunk_size",
      (json_int_t) config->chunk_size, "pack_size", (json_int_t) config->pack_size, "compression",
      format_compression (config), "encryption"));
}

/* A newer version made it so. */
static bool
unknown (TmkError **errp, const char *what, const char *name)
{
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "the repository %s '%.40s'", what, name);
  error_hint (errp, "use a newer version of tidemark");
  return false;
}

static bool
refuse (TmkError **errp, const char *key, const char *why)
{
  error_set (errp, DOMAIN, TMK_ERR_DAMAGED, 0, "'%s' %s", key, why);
  return false;
}

static bool
check_requires (const json_t *document, TmkError **errp)
{
  const json_t *words = json_object_get (document, "requires");
  if (words != NULL && !json_is_array (words))
    return refuse (errp, "requires", "is no list");
  size_t i;
  json_t *word;
  json_array_foreach (words, i, word) {
    if (!json_is_string (word))
      return refuse (errp, "requires", "has something else than words in it");
    return unknown (errp, "asks its readers for", json_string_value (word));
  }
  const json_t *encryption = json_object_get (document, "encryption");
  if (encryption != NULL && !json_is_null (encryption))
    return unknown (errp, "has an", "encryption");
  return true;
}

static bool
parse_compression (const json_t *document, RepoConfig *config, TmkError **errp)
{
  const json_t *compression = json_object_get (document, "compression");
  const char *codec = jsonx_string (compression, "codec");
  if (codec == NULL)
    return refuse (errp, "compression", "has no 'codec'");
  if (g_str_equal (codec, "none")) {
    config->codec = CODEC_PLAIN;
    config->level = 0;
    return true;
  }
  if (!g_str_equal (codec, "zstd"))
    return unknown (errp, "is compressed with", codec);
  const json_t *level = json_object_get (compression, "level");
  json_int_t n = json_integer_value (level);
  if (!json_is_integer (level) || n < ZSTD_LEVEL_MIN || n > ZSTD_LEVEL_MAX || n == 0)
    return refuse (errp, "compression", "has no sensible 'level'");
  config->codec = CODEC_ZSTD;
  config->level = (int) n;
  return true;
}

static bool
parse_sizes (const json_t *document, RepoConfig *config, TmkError **errp)
{
  uint64_t chunk, pack;
  if (!jsonfmt_get_size (document, "chunk_size", true, &chunk, errp)
      || !jsonfmt_get_size (document, "pack_size", true, &pack, errp))
    return false;
  if (!chunk_size_is_valid (chunk))
    return refuse (errp, "chunk_size", "is no power of two from 64 KiB to 4 MiB");
  if (pack == 0 || pack > PACK_SIZE_MAX)
    return refuse (errp, "pack_size", "is not from 1 byte to 1 GiB");
  config->chunk_size = (uint32_t) chunk;
  config->pack_size = (uint32_t) pack;
  return true;
}

static bool
parse (const json_t *document, RepoConfig *config, TmkError **errp)
{
  if (!jsonfmt_check_version (document, FORMAT_VERSION, WHAT, errp)
      || !check_requires (document, errp))
    return false;
  const char *id = jsonx_string (document, "id");
  if (id == NULL || !bytes_from_hex (id, config->id.bytes, REPO_ID_SIZE))
    return refuse (errp, "id", "is not 32 hexadecimal digits");
  const char *hash = jsonx_string (document, "hash");
  if (hash == NULL)
    return refuse (errp, "hash", "is missing");
  if (!g_str_equal (hash, HASH))
    return unknown (errp, "names its objects by", hash);
  return jsonfmt_get_time (document, "created", true, &config->created_us, errp)
         && parse_sizes (document, config, errp) && parse_compression (document, config, errp);
}

bool
repo_config_parse (const char *json, size_t len, RepoConfig *config, TmkError **errp)
{
  g_autoptr (json_t) document = jsonfmt_load (json, len, WHAT, errp);
  if (document == NULL)
    return false;
  RepoConfig c = { 0 };
  if (!parse (document, &c, errp)) {
    error_prefix (errp, "the " WHAT);
    return false;
  }
  *config = c;
  return true;
}
