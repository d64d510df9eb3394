#pragma once
#include <intel-ipsec-mb.h>
#include <stddef.h>

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

// Where the powers of the hash key begin, behind the rounds' keys.
static const uint64_t CULVERT_GCM_POWERS = offsetof(struct gcm_key_data, ghash_keys);

// Where the powers of a hash key end, for a key that was expanded into zeroed memory: processors differ in how many they
// use.
static inline uint64_t culvert_gcm_powers_end(const void *key) {
  const unsigned char *bytes = (const unsigned char *)key;
  uint64_t end = sizeof(struct gcm_key_data);
  while (end > CULVERT_GCM_POWERS && bytes[end - 1] == 0) end--;
  return (end + 15) & ~(uint64_t)15;
}

// Fetches what a packet of `count` bytes needs of a key: the rounds' keys at its beginning, and the powers of the hash
// key up to `end`, the first power last, of which each block takes one. Only a hint: other versions of the library may
// lay them out in another way.
static inline void culvert_gcm_prefetch(const void *key, uint64_t count, uint64_t end) {
  const char *bytes = (const char *)key;
  const uint64_t powers = 16 * (count / 16 + 2);
  const uint64_t start = (end > CULVERT_GCM_POWERS + powers ? end - powers : CULVERT_GCM_POWERS) & ~(uint64_t)63;
  for (uint64_t offset = 0; offset < 192; offset += 64) __builtin_prefetch(bytes + offset);
  for (uint64_t offset = start; offset < end; offset += 64) __builtin_prefetch(bytes + offset);
}
