"""The C that every program starts with: vectors, the barrier, dropout's random bits."""

INCLUDES = r"""
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* Eight floats at once. The unaligned types may be read from and written to any float's address. */
typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef float v8u __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i8u __attribute__((vector_size(32), aligned(4), may_alias));

INLINE v8 load(const float *p) { return *(const v8u *)p; }
INLINE void store(float *p, v8 x) { *(v8u *)p = x; }
INLINE i8 load_i(const int32_t *p) { return *(const i8u *)p; }
INLINE void store_i(int32_t *p, i8 x) { *(i8u *)p = x; }
INLINE v8 all(float x) { return (v8){x, x, x, x, x, x, x, x}; }
INLINE i8 all_i(int32_t x) { return (i8){x, x, x, x, x, x, x, x}; }
INLINE v8 choose(i8 mask, v8 a, v8 b) { return (v8)((mask & (i8)a) | (~mask & (i8)b)); }
INLINE i8 choose_i(i8 mask, i8 a, i8 b) { return (mask & a) | (~mask & b); }

/* a * b + c, rounded once, wherever the machine can: left to itself gcc rounds twice in loops of a
   single sum, and two tiles of the same product would end in different bits. */
INLINE v8 fma8(v8 a, v8 b, v8 c) {
#ifdef __FMA__
    return (v8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* g where x is above zero, else zero. By bits, so that g is read whatever x is: gcc 12 with AVX2
   makes wrong code of a read under a condition in a short row (its masked loads take the masks of
   other elements once it has unrolled the row and vectorizes the loop over rows). */
INLINE float where_positive(float x, float g) {
    int32_t bits;
    memcpy(&bits, &g, 4);
    bits &= -(int32_t)(x > 0);
    memcpy(&g, &bits, 4);
    return g;
}

/* Keep a vector in a register: gcc would read it from memory again at each use. */
#ifdef __x86_64__
#define HOLD(v) __asm__("" : "+x"(v))
#else
#define HOLD(v) (void)0
#endif

/* Lanes chosen from two vectors; gcc before 12 has not clang's name for it. */
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (i8){__VA_ARGS__})
#endif

/* The sum of each of eight vectors, as one vector: a tree of pairwise additions. */
INLINE v8 pairs(v8 a, v8 b) {
    return SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
}
INLINE v8 sums(v8 a, v8 b, v8 c, v8 d, v8 e, v8 f, v8 g, v8 h) {
    v8 low = pairs(pairs(a, b), pairs(c, d)), high = pairs(pairs(e, f), pairs(g, h));
    return SHUFFLE(low, high, 0, 1, 2, 3, 8, 9, 10, 11)
         + SHUFFLE(low, high, 4, 5, 6, 7, 12, 13, 14, 15);
}

/* All threads wait for each other: spin for a while, then let others run. */
typedef struct {
    _Alignas(64) atomic_int waiting;
    _Alignas(64) atomic_int round;
} Barrier;

static void barrier(Barrier *b, int threads) {
    if (threads == 1) return;
    int round = atomic_load_explicit(&b->round, memory_order_acquire);
    if (atomic_fetch_add_explicit(&b->waiting, 1, memory_order_acq_rel) == threads - 1) {
        atomic_store_explicit(&b->waiting, 0, memory_order_relaxed);
        atomic_store_explicit(&b->round, round + 1, memory_order_release);
        return;
    }
    for (int tries = 0; atomic_load_explicit(&b->round, memory_order_acquire) == round; tries++) {
        if (tries > SPINS) { sched_yield(); continue; }
#ifdef __SSE__
        _mm_pause();
#endif
    }
}

/* hydrofoil.randomness.uniform_bits: number i of the draw whose key has these two halves. */
INLINE uint32_t hashed(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}
INLINE int32_t random_bits(uint32_t low, uint32_t high, uint32_t i) {
    return (int32_t)(hashed(hashed(i ^ low) ^ high) >> 8);
}
"""
