#pragma once
#include <intel-ipsec-mb.h>

// Swift does not import macros that are more than a literal.

// The version this was compiled against: an older library may lack functions the header has.
static const unsigned CULVERT_IMB_VERSION = IMB_VERSION_NUM;

// What a CPU needs for the library to be faster than OpenSSL.
static const uint64_t CULVERT_IMB_FAST_FEATURES = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_AVX2;

// One packet through AES-GCM, in the pointer types that Swift converts to by itself; the ICV has 16 bytes. The context
// is used within the call only, so all keys share memory for it that is in the cache.
static inline void culvert_gcm(aes_gcm_enc_dec_t function, const void *key, void *target, const void *source,
                               uint64_t count, const void *nonce, const void *data, uint64_t data_count, void *icv) {
  struct gcm_context_data context;
  function((const struct gcm_key_data *)key, &context, (uint8_t *)target, (const uint8_t *)source, count,
           (const uint8_t *)nonce, (const uint8_t *)data, data_count, (uint8_t *)icv, 16);
}

// Fetches what a packet of `count` bytes needs of a key: the rounds' keys at its beginning, and at its end the powers
// of the hash key, the first power last, of which each block takes one. Only a hint: other versions of the library may
// lay them out in another way.
static inline void culvert_gcm_prefetch(const void *key, uint64_t count) {
  const char *bytes = (const char *)key;
  const uint64_t size = sizeof(struct gcm_key_data), powers = 16 * (count / 16 + 4);
  const uint64_t start = powers < size - 192 ? (size - 16 - powers) & ~(uint64_t)63 : 192;
  for (uint64_t offset = 0; offset < 192; offset += 64) __builtin_prefetch(bytes + offset);
  for (uint64_t offset = start; offset < size; offset += 64) __builtin_prefetch(bytes + offset);
}
