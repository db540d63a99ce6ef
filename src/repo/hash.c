/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* repo/hash.c: see repo/hash.h. */
#include "repo/hash.h"

#define DOMAIN "repo"

bool
hash_init (Hash *hash, TmkError **errp)
{
  hash->md = EVP_MD_fetch (NULL, "SHA256", NULL);
  hash->context = EVP_MD_CTX_new ();
  if (hash->md != NULL && hash->context != NULL)
    return true;
  hash_clear (hash);
  error_set (errp, DOMAIN, TMK_ERR_UNSUPPORTED, 0, "OpenSSL has no SHA-256");
  error_hint (errp, "enable its default provider in openssl.cnf");
  return false;
}

void
hash_clear (Hash *hash)
{
  EVP_MD_CTX_free (hash->context);
  EVP_MD_free (hash->md);
  *hash = (Hash){ 0 };
}

void
hash_bytes (Hash *hash, const void *data, size_t size, unsigned char out[OBJECT_ID_SIZE])
{
  /* With a context that was used before none of these can fail but for want of memory. */
  bool ok = EVP_DigestInit_ex2 (hash->context, hash->md, NULL) == 1
            && EVP_DigestUpdate (hash->context, data, size) == 1
            && EVP_DigestFinal_ex (hash->context, out, NULL) == 1;
  g_assert (ok);
}

void
hash_object (Hash *hash, ObjectKind kind, const void *plain, size_t size, ObjectId *id)
{
  if (kind == OBJECT_CHUNK) {
    if (is_all_zero (plain, size))
      *id = (ObjectId){ 0 };
    else
      hash_bytes (hash, plain, size, id->bytes);
    return;
  }
  unsigned char inner[OBJECT_ID_SIZE + 1];
  hash_bytes (hash, plain, size, inner);
  inner[OBJECT_ID_SIZE] = kind;
  hash_bytes (hash, inner, sizeof inner, id->bytes);
}
