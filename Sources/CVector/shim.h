#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Loops over wide registers. Swift compiles for the oldest processor of the architecture, and only C can have a single
// function compiled for a newer one.

#if defined(__x86_64__)

typedef uint64_t culvert_lanes __attribute__((vector_size(32), aligned(1)));

static inline int culvert_has_wide_sum(void) { return __builtin_cpu_supports("avx2"); }

// The sum of the 32-bit words of `count` bytes, a multiple of 32, 1 MiB at most. The sum of the 64-bit words, which
// overflows, and the sum of their upper halves, which does not, tell the sum of the lower halves.
__attribute__((target("avx2"))) static inline uint64_t culvert_wide_sum(const void *bytes, size_t count) {
  // Written out: four independent chains hide the latency of the additions, and arrays would go to memory.
  culvert_lanes a = {0}, b = {0}, c = {0}, d = {0}, upper_a = {0}, upper_b = {0}, upper_c = {0}, upper_d = {0};
  const culvert_lanes *next = (const culvert_lanes *)bytes;
  for (size_t left = count / 128; left > 0; left--, next += 4) {
    culvert_lanes w = next[0], x = next[1], y = next[2], z = next[3];
    a += w;
    b += x;
    c += y;
    d += z;
    upper_a += w >> 32;
    upper_b += x >> 32;
    upper_c += y >> 32;
    upper_d += z >> 32;
  }
  for (size_t left = count % 128 / 32; left > 0; left--, next++) {
    a += next[0];
    upper_a += next[0] >> 32;
  }
  culvert_lanes upper = upper_a + upper_b + upper_c + upper_d;
  culvert_lanes sum = a + b + c + d - (upper << 32) + upper;
  return sum[0] + sum[1] + sum[2] + sum[3];
}

typedef uint64_t culvert_wider_lanes __attribute__((vector_size(64), aligned(1)));

// Processors before Ice Lake have these registers too, but slow down when they are used.
static inline int culvert_has_wider_sum(void) { return __builtin_cpu_supports("avx512vbmi2"); }

// The same for an even count of 64 bytes or more, right only as a sum of 16-bit words modulo 65535: the last bytes are
// added as the end of a block that may begin between two 32-bit words.
__attribute__((target("avx512f"))) static inline uint64_t culvert_wider_sum(const void *bytes, size_t count) {
  static const uint32_t masks[32] = {[16 ... 31] = 0xFFFFFFFF};
  const culvert_wider_lanes *next = (const culvert_wider_lanes *)bytes;
  const culvert_wider_lanes *last = (const culvert_wider_lanes *)((const char *)bytes + count - 64);
  // Of the last block, what lies behind the whole ones before it.
  culvert_wider_lanes a = *last & *(const culvert_wider_lanes *)((const char *)masks + count % 64), b = {0};
  culvert_wider_lanes upper_a = a >> 32, upper_b = {0};
  for (size_t left = count / 128; left > 0; left--, next += 2) {
    culvert_wider_lanes w = next[0], x = next[1];
    a += w;
    b += x;
    upper_a += w >> 32;
    upper_b += x >> 32;
  }
  if (count & 64) {
    b += *next;
    upper_b += *next >> 32;
  }
  culvert_wider_lanes upper = upper_a + upper_b;
  culvert_wider_lanes sum = a + b - (upper << 32) + upper;
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

#else

static inline int culvert_has_wider_sum(void) { return 0; }
static inline uint64_t culvert_wider_sum(const void *bytes, size_t count) { (void)bytes, (void)count; return 0; }
static inline int culvert_has_wide_sum(void) { return 0; }
static inline uint64_t culvert_wide_sum(const void *bytes, size_t count) { (void)bytes, (void)count; return 0; }

#endif
