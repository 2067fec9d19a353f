/* charlm's recurrent layers on a CPU: whole sequences in one call. Plain C with the vector extensions of gcc and
   clang, called through ctypes; see native.py for the calls, sequence.h for the arithmetic. */

#include "team.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Whether this machine has the instructions that the file was compiled for. */
int charlm_runs_here(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
#ifdef __AVX2__
    if (!__builtin_cpu_supports("avx2"))
        return 0;
#endif
#ifdef __FMA__
    if (!__builtin_cpu_supports("fma"))
        return 0;
#endif
#ifdef __AVX512F__
    if (!__builtin_cpu_supports("avx512f"))
        return 0;
#endif
#endif
    return 1;
}

/* One layer over a sequence. Axes: T steps, B lanes, G gates, H units; all row-major and without gaps. */
struct layer {
    long steps, lanes, hidden;
    long threads;
    long by_units;               /* whether the threads share the units (1) or the lanes (0) */
    const int64_t *ids;          /* T B: rows of `input`; below 0 for its last row; NULL for row t B + b */
    long rows;                   /* of `input` where there are ids */
    const void *input;           /* [rows, G H] W_ih x + b_ih, and b_hh where it can be added beforehand */
    const void *weight;          /* [G H, H] W_hh */
    const void *bias_n;          /* [H] b_hn of the GRU */
    const void *h0, *c0;         /* [B, H] */
    const unsigned char *resets; /* [T, B] or NULL */
    void *packed;                /* room for H zeros and the weights in panels */
    void *y;                     /* [T, B, H] out */
    void *gates;                 /* [T, B, G H] out: the gates' values; may be `input`; NULL where not wanted */
    void *extra;                 /* [T, B, H], or [B, H] without `gates`: c of the LSTM, W_hn h + b_hn of the GRU */
    /* the way back */
    const void *y_grad;      /* [T, B, H] */
    void *carry;             /* [B, H]: in the LSTM the gradient of the last c; the GRU's must be zero */
    void *gates_grad;        /* [T, B, D]: H; 3 H + H of the GRU, in the order n_h, r, z, n_x; 4 H of the LSTM */
    void *h0_grad, *c0_grad; /* [B, H], or NULL where not wanted */
};

/* Sums rows that belong together: sums[ids[r]] += rows[r]. Threads share the columns. */
struct scatter {
    long count, width, stride, threads;
    const int64_t *ids; /* NULL: all rows belong together */
    long groups;        /* ids below 0 belong to the last */
    const void *rows;
    void *sums;
};

/* A hash of memory by which a change of weights is seen. A change of one number always changes it: each of the 64
   hashes of a thread passes through steps that can be undone, exclusive or and multiplication by an odd number. */
struct memory {
    long count, threads; /* of 32-bit words */
    const void *words;
    uint32_t *hashes; /* [threads, 64] out */
};

typedef uint32_t hash_vec __attribute__((vector_size(32)));

static void hash_part(void *data, int me, struct team *team)
{
    const struct memory *m = data;
    long from, to, i = 0;
    share(m->count / 64, me, team->size, &from, &to);
    hash_vec hashes[8];
    memset(hashes, me + 1, sizeof hashes);
    for (const char *block = (const char *)m->words + from * 256; from < to; from++, block += 256)
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) {
            hash_vec words;
            memcpy(&words, block + 32 * v, 32);
            hashes[v] = (hashes[v] ^ words) * 0x9E3779B1u;
        }
    uint32_t *out = m->hashes + 64 * me;
    memcpy(out, hashes, sizeof hashes);
    for (i = m->count / 64 * 64; me == 0 && i < m->count; i++) {
        uint32_t word;
        memcpy(&word, (const char *)m->words + 4 * i, 4);
        out[i % 64] = (out[i % 64] ^ word) * 0x9E3779B1u;
    }
}

void hash(struct memory *m) { together(hash_part, m, m->threads); }

#define REAL float
#define WHOLE int32_t
#define SUFFIX f32
#define MANTISSA 23
#define LESSER __builtin_ia32_minps256
#define GREATER __builtin_ia32_maxps256
#define EXP_MOST 87.0
#define LN2_HIGH 0.693359375
#define LN2_LOW -2.12194440e-4
#define EXP_TERMS 1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, \
    5.0000001201e-1f, 1.0f, 1.0f
#include "precision.h"
#undef REAL
#undef WHOLE
#undef SUFFIX
#undef MANTISSA
#undef LESSER
#undef GREATER
#undef EXP_MOST
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_TERMS

#define REAL double
#define WHOLE int64_t
#define SUFFIX f64
#define MANTISSA 52
#define LESSER __builtin_ia32_minpd256
#define GREATER __builtin_ia32_maxpd256
#define EXP_MOST 708.0
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define EXP_TERMS 1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, \
    1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0
#include "precision.h"

#include "generate.h"

/* The sizes of the structures, by which the caller sees that it was written for this library. */
long charlm_sizes(void)
{
    const size_t last = sizeof(struct generation) + 1000 * sizeof(struct memory);
    return (long)(sizeof(struct layer) + 1000 * (sizeof(struct scatter) + 1000 * last));
}
