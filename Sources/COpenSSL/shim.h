#pragma once
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/err.h>

// HKDF (RFC 5869) with the digest of a name; 1 when `output` holds the result. In C because OpenSSL wants its parameters as a list
// of untyped, unconst pointers.
static inline int culvert_hkdf(const char *digest, const void *secret, size_t secret_count, const void *salt,
                               size_t salt_count, const void *info, size_t info_count, unsigned char *output,
                               size_t output_count) {
  OSSL_PARAM parameters[5], *next = parameters;
  *next++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0);
  *next++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)secret, secret_count);
  if (salt_count > 0)
    *next++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_count);
  if (info_count > 0)
    *next++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_count);
  *next = OSSL_PARAM_construct_end();
  EVP_KDF *algorithm = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_HKDF, NULL);
  EVP_KDF_CTX *context = EVP_KDF_CTX_new(algorithm);
  int done = context != NULL ? EVP_KDF_derive(context, output, output_count, parameters) : 0;
  EVP_KDF_CTX_free(context);
  EVP_KDF_free(algorithm);
  return done;
}
