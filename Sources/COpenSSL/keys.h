// Key pairs, signatures and keyed hashes of host identities. In C because OpenSSL wants parameters as lists of untyped,
// unconst pointers, calls with any number of arguments, and macros. All return 1, a length or a key when they did what
// they say, and else leave no error behind in the thread's queue.
#pragma once
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <string.h>

static inline int culvert_digest(const EVP_MD *algorithm, int extendable, const void *bytes, size_t count,
                                 unsigned char *output, size_t output_count) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int done = context != NULL && EVP_DigestInit_ex2(context, algorithm, NULL) == 1 &&
             EVP_DigestUpdate(context, bytes, count) == 1 &&
             (extendable ? EVP_DigestFinalXOF(context, output, output_count)
                         : EVP_DigestFinal_ex(context, output, NULL)) == 1;
  EVP_MD_CTX_free(context);
  return done;
}

static inline int culvert_hmac(const char *digest, const void *key, size_t key_count, const void *bytes, size_t count,
                               unsigned char *output, size_t output_count) {
  size_t written = 0;
  return EVP_Q_mac(NULL, "HMAC", NULL, digest, NULL, key, key_count, (const unsigned char *)bytes, count, output,
                   output_count, &written) != NULL &&
         written == output_count;
}

// KMAC128 (SP 800-185 §4) of three pieces, so that a secret in the middle needs no copy.
static inline int culvert_kmac128(const void *key, size_t key_count, const void *first, size_t first_count,
                                  const void *second, size_t second_count, const void *third, size_t third_count,
                                  const void *custom, size_t custom_count, unsigned char *output,
                                  size_t output_count) {
  OSSL_PARAM parameters[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_CUSTOM, (void *)custom, custom_count),
                             OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &output_count),
                             OSSL_PARAM_construct_end()};
  EVP_MAC *algorithm = EVP_MAC_fetch(NULL, "KMAC-128", NULL);
  EVP_MAC_CTX *context = EVP_MAC_CTX_new(algorithm);
  size_t written = 0;
  int done = context != NULL && EVP_MAC_init(context, (const unsigned char *)key, key_count, parameters) == 1 &&
             EVP_MAC_update(context, (const unsigned char *)first, first_count) == 1 &&
             EVP_MAC_update(context, (const unsigned char *)second, second_count) == 1 &&
             EVP_MAC_update(context, (const unsigned char *)third, third_count) == 1 &&
             EVP_MAC_final(context, output, &written, output_count) == 1 && written == output_count;
  EVP_MAC_CTX_free(context);
  EVP_MAC_free(algorithm);
  return done;
}

static inline EVP_PKEY *culvert_key_from(const char *type, int selection, OSSL_PARAM *parameters) {
  EVP_PKEY *key = NULL;
  EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
  if (context != NULL && EVP_PKEY_fromdata_init(context) == 1) EVP_PKEY_fromdata(context, &key, selection, parameters);
  EVP_PKEY_CTX_free(context);
  ERR_clear_error();
  return key;
}

// From an uncompressed point (SEC 1 §2.3.3); NULL where it is not on the curve.
static inline EVP_PKEY *culvert_public_ec(int curve, const unsigned char *point, size_t count) {
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)OBJ_nid2sn(curve), 0),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)point, count), OSSL_PARAM_construct_end()};
  return culvert_key_from("EC", EVP_PKEY_PUBLIC_KEY, parameters);
}

// A scalar of the curve from any number: as it is where it is one and `always` is zero, else 1 + (number mod (n - 1)).
static inline int culvert_ec_scalar(int curve, int always, const unsigned char *bytes, size_t count,
                                    unsigned char *scalar, size_t scalar_count) {
  EC_GROUP *group = EC_GROUP_new_by_curve_name(curve);
  BN_CTX *context = BN_CTX_new();
  BIGNUM *number = BN_bin2bn(bytes, (int)count, NULL);
  BIGNUM *limit = group != NULL ? BN_dup(EC_GROUP_get0_order(group)) : NULL;
  int done = context != NULL && number != NULL && limit != NULL;
  if (done && (always || BN_is_zero(number) || BN_cmp(number, limit) >= 0))
    done = BN_sub_word(limit, 1) == 1 && BN_mod(number, number, limit, context) == 1 && BN_add_word(number, 1) == 1;
  done = done && BN_bn2binpad(number, scalar, (int)scalar_count) == (int)scalar_count;
  BN_clear_free(number);
  BN_free(limit);
  BN_CTX_free(context);
  EC_GROUP_free(group);
  return done;
}

// `scalar` lies in 1..<n.
static inline EVP_PKEY *culvert_private_ec(int curve, const unsigned char *scalar, size_t count) {
  unsigned char point[1 + 2 * 48], native[48];
  EVP_PKEY *key = NULL;
  EC_GROUP *group = EC_GROUP_new_by_curve_name(curve);
  EC_POINT *product = group != NULL ? EC_POINT_new(group) : NULL;
  BIGNUM *number = BN_bin2bn(scalar, (int)count, NULL);
  if (product != NULL && number != NULL && count <= sizeof native) {
    BN_set_flags(number, BN_FLG_CONSTTIME);
    if (EC_POINT_mul(group, product, number, NULL, NULL, NULL) == 1 &&
        EC_POINT_point2oct(group, product, POINT_CONVERSION_UNCOMPRESSED, point, 1 + 2 * count, NULL) ==
            1 + 2 * count &&
        BN_bn2nativepad(number, native, (int)count) == (int)count) {
      OSSL_PARAM parameters[] = {
          OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)OBJ_nid2sn(curve), 0),
          OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * count),
          OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_PRIV_KEY, native, count), OSSL_PARAM_construct_end()};
      key = culvert_key_from("EC", EVP_PKEY_KEYPAIR, parameters);
    }
  }
  OPENSSL_cleanse(native, sizeof native);
  BN_clear_free(number);
  EC_POINT_free(product);
  EC_GROUP_free(group);
  return key;
}

static inline EVP_PKEY *culvert_public_rsa(const unsigned char *exponent, size_t exponent_count,
                                           const unsigned char *modulus, size_t modulus_count) {
  unsigned char e[8], n[384];
  EVP_PKEY *key = NULL;
  BIGNUM *first = BN_bin2bn(exponent, (int)exponent_count, NULL);
  BIGNUM *second = BN_bin2bn(modulus, (int)modulus_count, NULL);
  if (first != NULL && second != NULL && BN_bn2nativepad(first, e, sizeof e) > 0 &&
      BN_bn2nativepad(second, n, sizeof n) > 0) {
    OSSL_PARAM parameters[] = {OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_E, e, sizeof e),
                               OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, n, sizeof n),
                               OSSL_PARAM_construct_end()};
    key = culvert_key_from("RSA", EVP_PKEY_PUBLIC_KEY, parameters);
  }
  BN_free(first);
  BN_free(second);
  return key;
}

static inline EVP_PKEY *culvert_generate_ec(int curve) {
  EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", OBJ_nid2sn(curve));
  ERR_clear_error();
  return key;
}

static inline EVP_PKEY *culvert_generate_ed25519(void) {
  EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
  ERR_clear_error();
  return key;
}

static inline EVP_PKEY *culvert_generate_rsa(size_t bits) {
  EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", bits);
  ERR_clear_error();
  return key;
}

// The curve's number, 0 for a key that is on none, or on one without a name.
static inline int culvert_curve(const EVP_PKEY *key) {
  char name[64];
  if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
      EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, name, sizeof name, NULL) != 1) {
    ERR_clear_error();
    return 0;
  }
  return OBJ_txt2nid(name);
}

static inline int culvert_key_type(const EVP_PKEY *key) { return EVP_PKEY_get_base_id(key); }

static inline int culvert_key_bits(const EVP_PKEY *key) { return EVP_PKEY_get_bits(key); }

// A number of the key, `count` bytes with leading zeros; with `count` zero only the number of bytes that it needs.
static inline size_t culvert_key_number(const EVP_PKEY *key, const char *name, unsigned char *output, size_t count) {
  BIGNUM *number = NULL;
  size_t written = 0;
  if (EVP_PKEY_get_bn_param(key, name, &number) == 1) {
    if (count == 0)
      written = (size_t)BN_num_bytes(number);
    else if (BN_bn2binpad(number, output, (int)count) == (int)count)
      written = count;
  }
  BN_clear_free(number);
  ERR_clear_error();
  return written;
}

// A signature of `half` > 0 is ECDSA's r ‖ s, each so long; `salt` > 0 is that of PSS. `digest` NULL: EdDSA.
static inline size_t culvert_sign(EVP_PKEY *key, const char *digest, int half, int salt, const unsigned char *bytes,
                                  size_t count, unsigned char *signature, size_t capacity) {
  unsigned char der[160];
  size_t written = half > 0 ? sizeof der : capacity;
  EVP_PKEY_CTX *inner = NULL;
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int done = context != NULL && EVP_DigestSignInit_ex(context, &inner, digest, NULL, NULL, key, NULL) == 1 &&
             (salt == 0 || (EVP_PKEY_CTX_set_rsa_padding(inner, RSA_PKCS1_PSS_PADDING) == 1 &&
                            EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, salt) == 1)) &&
             EVP_DigestSign(context, half > 0 ? der : signature, &written, bytes, count) == 1;
  EVP_MD_CTX_free(context);
  if (done && half > 0) {
    const unsigned char *next = der;
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &next, (long)written);
    done = pair != NULL && capacity >= 2 * (size_t)half &&
           BN_bn2binpad(ECDSA_SIG_get0_r(pair), signature, half) == half &&
           BN_bn2binpad(ECDSA_SIG_get0_s(pair), signature + half, half) == half;
    written = 2 * (size_t)half;
    ECDSA_SIG_free(pair);
  }
  ERR_clear_error();
  return done ? written : 0;
}

static inline int culvert_verify(EVP_PKEY *key, const char *digest, int half, int salt, const unsigned char *bytes,
                                 size_t count, const unsigned char *signature, size_t signature_count) {
  unsigned char *der = NULL;
  if (half > 0) {
    BIGNUM *r = BN_bin2bn(signature, half, NULL), *s = BN_bin2bn(signature + half, half, NULL);
    ECDSA_SIG *pair = ECDSA_SIG_new();
    if (r == NULL || s == NULL || pair == NULL || signature_count != 2 * (size_t)half ||
        ECDSA_SIG_set0(pair, r, s) != 1) {
      BN_free(r);
      BN_free(s);
      ECDSA_SIG_free(pair);
      return 0;
    }
    int der_count = i2d_ECDSA_SIG(pair, &der);
    ECDSA_SIG_free(pair);
    if (der_count <= 0) return 0;
    signature = der;
    signature_count = (size_t)der_count;
  }
  EVP_PKEY_CTX *inner = NULL;
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int done = context != NULL && EVP_DigestVerifyInit_ex(context, &inner, digest, NULL, NULL, key, NULL) == 1 &&
             (salt == 0 || (EVP_PKEY_CTX_set_rsa_padding(inner, RSA_PKCS1_PSS_PADDING) == 1 &&
                            EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, salt) == 1)) &&
             EVP_DigestVerify(context, signature, signature_count, bytes, count) == 1;
  EVP_MD_CTX_free(context);
  OPENSSL_free(der);
  ERR_clear_error();
  return done;
}

// ECDSA with SHA-384 and the nonce of RFC 6979 §3.2, which OpenSSL has from 3.2 on only. Its time depends on the key:
// for test vectors and simulations.
static inline int culvert_sign_deterministic(int curve, const unsigned char *scalar, size_t count,
                                             const unsigned char hash[48], unsigned char *signature) {
  unsigned char v[48], k[48], material[48 + 1 + 48 + 48];
  int done = 0;
  EC_GROUP *group = EC_GROUP_new_by_curve_name(curve);
  EC_POINT *point = group != NULL ? EC_POINT_new(group) : NULL;
  const BIGNUM *order = group != NULL ? EC_GROUP_get0_order(group) : NULL;
  BN_CTX *context = BN_CTX_new();
  BIGNUM *d = BN_bin2bn(scalar, (int)count, NULL), *z = BN_bin2bn(hash, (int)count, NULL);
  BIGNUM *nonce = BN_new(), *r = BN_new(), *s = BN_new();
  if (point == NULL || context == NULL || d == NULL || z == NULL || nonce == NULL || r == NULL || s == NULL) goto end;
  memset(v, 1, sizeof v);
  memset(k, 0, sizeof k);
  for (unsigned char round = 0; round < 2; round++) {
    memcpy(material, v, sizeof v);
    material[48] = round;
    memcpy(material + 49, scalar, count);
    if (BN_nnmod(r, z, order, context) != 1 || BN_bn2binpad(r, material + 49 + count, (int)count) != (int)count ||
        culvert_hmac("SHA384", k, 48, material, 49 + 2 * count, k, 48) != 1 ||
        culvert_hmac("SHA384", k, 48, v, 48, v, 48) != 1)
      goto end;
  }
  // `count` is not more than the hash has, so that one block of V is enough.
  for (int tries = 0; tries < 100 && !done; tries++) {
    if (culvert_hmac("SHA384", k, 48, v, 48, v, 48) != 1 || BN_bin2bn(v, (int)count, nonce) == NULL) goto end;
    if (!BN_is_zero(nonce) && BN_cmp(nonce, order) < 0) {
      if (EC_POINT_mul(group, point, nonce, NULL, NULL, context) != 1 ||
          EC_POINT_get_affine_coordinates(group, point, r, NULL, context) != 1 ||
          BN_nnmod(r, r, order, context) != 1 || BN_mod_mul(s, r, d, order, context) != 1 ||
          BN_mod_add(s, s, z, order, context) != 1 || BN_mod_inverse(nonce, nonce, order, context) == NULL ||
          BN_mod_mul(s, s, nonce, order, context) != 1)
        goto end;
      done = !BN_is_zero(r) && !BN_is_zero(s) && BN_bn2binpad(r, signature, (int)count) == (int)count &&
             BN_bn2binpad(s, signature + count, (int)count) == (int)count;
    }
    memcpy(material, v, sizeof v);
    material[48] = 0;
    if (culvert_hmac("SHA384", k, 48, material, 49, k, 48) != 1 || culvert_hmac("SHA384", k, 48, v, 48, v, 48) != 1)
      goto end;
  }
end:
  OPENSSL_cleanse(v, sizeof v);
  OPENSSL_cleanse(k, sizeof k);
  OPENSSL_cleanse(material, sizeof material);
  BN_clear_free(d);
  BN_clear_free(nonce);
  BN_free(z);
  BN_free(r);
  BN_free(s);
  BN_CTX_free(context);
  EC_POINT_free(point);
  EC_GROUP_free(group);
  ERR_clear_error();
  return done;
}

// The peer's key is known to be a point of the curve, and our NIST curves have the cofactor one: so it is not validated
// again. X25519's all-zero secret fails (RFC 7748 §6.1).
static inline int culvert_agree(EVP_PKEY *key, EVP_PKEY *peer, unsigned char *secret, size_t count) {
  size_t written = count;
  EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
  int done = context != NULL && EVP_PKEY_derive_init(context) == 1 &&
             EVP_PKEY_derive_set_peer_ex(context, peer, 0) == 1 &&
             EVP_PKEY_derive(context, secret, &written) == 1 && written == count;
  EVP_PKEY_CTX_free(context);
  ERR_clear_error();
  return done;
}

static inline int culvert_refuse_password(char *buffer, int size, int writing, void *asked) {
  (void)buffer;
  (void)size;
  (void)writing;
  *(int *)asked = 1;
  return -1;
}

// `encrypted` becomes 1 where a password would be needed; nobody is asked for one.
static inline EVP_PKEY *culvert_read_pem(int is_private, const void *bytes, size_t count, int *encrypted) {
  if (count > 1 << 20) return NULL;
  BIO *memory = BIO_new_mem_buf(bytes, (int)count);
  EVP_PKEY *key = NULL;
  if (memory != NULL)
    key = is_private ? PEM_read_bio_PrivateKey(memory, NULL, culvert_refuse_password, encrypted)
                     : PEM_read_bio_PUBKEY(memory, NULL, culvert_refuse_password, encrypted);
  BIO_free(memory);
  ERR_clear_error();
  return key;
}

// PKCS#8 or SubjectPublicKeyInfo; the length, 0 where it has no room.
static inline size_t culvert_write_pem(int is_private, EVP_PKEY *key, unsigned char *output, size_t capacity) {
  BIO *memory = BIO_new(is_private ? BIO_s_secmem() : BIO_s_mem());
  char *bytes = NULL;
  size_t written = 0;
  if (memory != NULL && (is_private ? PEM_write_bio_PKCS8PrivateKey(memory, key, NULL, NULL, 0, NULL, NULL)
                                    : PEM_write_bio_PUBKEY(memory, key)) == 1) {
    long count = BIO_get_mem_data(memory, &bytes);
    if (count > 0 && (size_t)count <= capacity) {
      memcpy(output, bytes, (size_t)count);
      written = (size_t)count;
    }
  }
  BIO_free(memory);
  ERR_clear_error();
  return written;
}
