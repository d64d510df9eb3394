#pragma once
#include <intel-ipsec-mb.h>

// Swift does not import macros that are more than a literal.

// The version this was compiled against: an older library may lack functions the header has.
static const unsigned CULVERT_IMB_VERSION = IMB_VERSION_NUM;

// What a CPU needs for the library to be faster than OpenSSL.
static const uint64_t CULVERT_IMB_FAST_FEATURES = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_AVX2;

// One packet through AES-GCM, in the pointer types that Swift converts to by itself; the ICV has 16 bytes.
static inline void culvert_gcm(aes_gcm_enc_dec_t function, const void *key, void *context, void *target,
                               const void *source, uint64_t count, const void *nonce, const void *data,
                               uint64_t data_count, void *icv) {
  function((const struct gcm_key_data *)key, (struct gcm_context_data *)context, (uint8_t *)target,
           (const uint8_t *)source, count, (const uint8_t *)nonce, (const uint8_t *)data, data_count,
           (uint8_t *)icv, 16);
}
