/* charlm's recurrent layers on a CPU: whole sequences in one call. Plain C with the vector extensions of gcc and clang,
   called through ctypes; see loops.py and generate.py for the calls, sequence.h for the arithmetic.

   This file is compiled once for each target (see setup.py) with these macros:
   TARGET   its name, which ends the name of every function that is called from outside;
   VECTOR   bytes in a vector: as many as a register has;
   SUMS     how many vectors of sums a product keeps in registers: 12 of 16 registers, 24 of 32;
   BF16     for avx512, where the assembler knows AVX512-BF16: products of bfloat16, which the processor may still lack. */

#ifdef __linux__
#define _GNU_SOURCE /* for RTLD_DEFAULT */
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define EXPORTED(name) PASTE(name, TARGET)

/* The instruction for a whole vector where the processor has one: `X86(min, ps)`. */
#if defined(__x86_64__)
#include <immintrin.h>
#if VECTOR == 64 && defined(__AVX512F__)
#define X86(operation, kind) PASTE(_mm512_##operation, kind)
#elif VECTOR == 32 && defined(__AVX__)
#define X86(operation, kind) PASTE(_mm256_##operation, kind)
#elif VECTOR == 16
#define X86(operation, kind) PASTE(_mm_##operation, kind)
#endif
#endif

/* Keeps a value in a register: the compiler would else read it from memory again at every use. */
#if defined(X86)
#define HOLD(x) __asm__("" : "+v"(x))
#elif defined(__aarch64__) && VECTOR == 16
#define HOLD(x) __asm__("" : "+w"(x))
#else
#define HOLD(x) ((void)0)
#endif

/* Unrolls the loop that follows, whose count is a constant of at most n. */
#define PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define UNROLL(n) PRAGMA(unroll)
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif

#include "team.h"

/* One layer over a sequence. Axes: T steps, B lanes, G gates, H units; all row-major and without gaps. */
struct layer {
    int64_t steps, lanes, hidden;
    int64_t threads;
    int64_t pairs;               /* whether products are of bfloat16, with sums of float32 */
    int64_t by_units;            /* whether the threads share the units (1) or the lanes (0) */
    const int64_t *ids;          /* T B: rows of `input`; below 0 for its last row; NULL for row t B + b */
    int64_t rows;                /* of `input` where there are ids */
    const void *input;           /* [rows, G H] W_ih x + b_ih, and b_hh where it can be added beforehand */
    const void *weight;          /* [G H, H] W_hh */
    const void *bias_n;          /* [H] b_hn of the GRU */
    const void *h0, *c0;         /* [B, H] */
    const unsigned char *resets; /* [T, B] or NULL */
    void *packed;                /* room for H zeros and the weights in panels */
    void *halves;                /* where `pairs`: room for [2, B, G (H + 1) / 2] pairs, the left factors of two steps */
    void *y;                     /* [T, B, H] out */
    void *gates;                 /* [T, B, G H] out: the gates' values; may be `input`; NULL where not wanted */
    void *extra;                 /* [T, B, H], or [B, H] without `gates`: c of the LSTM, W_hn h + b_hn of the GRU */
    /* the way back */
    const void *y_grad;      /* [T, B, H] */
    void *carry;             /* [B, H]: in the LSTM the gradient of the last c; the GRU's must be zero */
    void *gates_grad;        /* [T, B, D]: H; 3 H + H of the GRU, in the order n_h, r, z, n_x; 4 H of the LSTM */
    void *h0_grad, *c0_grad; /* [B, H], or NULL where not wanted */
};

/* A product of two matrices, left [M, K] and right [K, N], by their strides; one stride of each is 1. */
struct product {
    int64_t rows, columns, depth; /* M, N, K */
    int64_t threads, pairs;
    int64_t adding; /* whether `out` is added to */
    const void *left;
    int64_t left_row, left_step; /* from a row to the next, from k to k + 1 */
    const void *right;
    int64_t right_step, right_column;
    const void *bias; /* [N] that every row begins with, or NULL */
    void *out;        /* [M, N] without gaps */
    void *room;       /* for each thread, as many numbers as `room` says */
};

#define MOST_CHARACTERS 16
#define MOST_PERIOD 256
#define LOOP 12 /* characters at least that a loop has repeated */

/* Whether the text that ends with `last` repeats itself: its last max(p, LOOP) characters also stand p places before, for a
   period p. It looks at `there` characters at most, the last one included; a character that is `unknown` equals none. */
static int repeats(const int64_t *last, int64_t there, int64_t unknown)
{
    for (int64_t p = 1; p <= MOST_PERIOD; p++) {
        const int64_t needed = p > LOOP ? p : LOOP;
        int64_t same = 0;
        if (needed + p > there)
            return 0;
        while (same < needed && last[-same] == last[-same - p] && last[-same] != unknown)
            same++;
        if (same == needed)
            return 1;
    }
    return 0;
}

/* Attention over the last places; see look_back.h. Axes: T steps, B lanes, M places kept, S = M + T, K numbers of a key,
   N last characters, V symbols. */
struct look {
    int64_t steps, lanes, places, width, characters, symbols, threads;
    int64_t old_keys;     /* whether the gradient of the keys of the M places kept before is wanted */
    const void *keys;     /* [B, S, K] */
    const void *query;    /* [B, T, K] */
    const void *table;    /* [B, N, V + 1, T]: what a character n places before a place adds to its score */
    const void *own;      /* [B, T] the network's own score */
    const void *bias;     /* [S + T]: of the distance d at d + T; very small where d is not from 1 to M */
    const void *logp;     /* [T, B, V] by the network alone */
    const int64_t *ids;   /* [B, N - 1 + S]: the characters read at the places; -1 is unknown */
    const int64_t *first; /* [B, T]: the first place that a step can see, or NULL where all can be seen */
    void *shares;         /* [B, S, T] out, or NULL where there is no way back; that turns them into gradients of scores */
    void *mass;           /* [B, V + 1, T] out with `shares`: of each symbol, and the network's own share */
    void *out;            /* [T, B, V] out */
    void *room;           /* for each thread, as many numbers as `look_room` says */
    const void *grad;     /* [T, B, V], of `out` */
    void *query_grad, *table_grad, *own_grad, *bias_grad, *logp_grad; /* bias_grad is [B, S + T] */
    void *keys_grad;      /* [B, S, K], or without `old_keys` [B, T, K] */
};

/* Sums rows that belong together: sums[ids[r]] += rows[r]. Threads share the columns. */
struct scatter {
    int64_t count, width, stride, threads;
    const int64_t *ids; /* NULL: all rows belong together */
    int64_t groups;     /* ids below 0 belong to the last */
    const void *rows;
    void *sums;
};

/* A hash of memory by which a change of weights is seen. A change of one number always changes it: each of the 64
   hashes of a thread passes through steps that can be undone, exclusive or and multiplication by an odd number. */
struct memory {
    int64_t count, threads; /* of 32-bit words */
    const void *words;
    uint32_t *hashes; /* [threads, 64] out */
};

static void hash_part(void *data, int me, struct team *team)
{
    const struct memory *m = data;
    int64_t from, to;
    share(m->count / 64, me, team->size, &from, &to);
    uint32_t hashes[64], words[64];
    memset(hashes, me + 1, sizeof hashes);
    for (const char *block = (const char *)m->words + from * 256; from < to; from++, block += 256) {
        memcpy(words, block, 256);
        for (int i = 0; i < 64; i++)
            hashes[i] = (hashes[i] ^ words[i]) * 0x9E3779B1u;
    }
    uint32_t *out = m->hashes + 64 * me;
    memcpy(out, hashes, sizeof hashes);
    for (int64_t i = m->count / 64 * 64; me == 0 && i < m->count; i++) {
        uint32_t word;
        memcpy(&word, (const char *)m->words + 4 * i, 4);
        out[i % 64] = (out[i % 64] ^ word) * 0x9E3779B1u;
    }
}

EXPORT void EXPORTED(hash)(struct memory *m) { together(hash_part, m, m->threads); }

#define REAL float
#define WHOLE int32_t
#define SUFFIX f32
#define MANTISSA 23
#define KIND ps
#define EXP_MOST 87.0
#define EXP_TERMS 1.53458121587e-4f, 1.33999312095e-3f, 9.61848895652e-3f, 5.550328777e-2f, 2.40226468906e-1f, \
    6.93147205737e-1f, 1.00000000055f /* minimax, -0.5 to 0.5, relative error 2e-9 */
#include "precision.h"
#undef REAL
#undef WHOLE
#undef SUFFIX
#undef MANTISSA
#undef KIND
#undef EXP_MOST
#undef EXP_TERMS

#define REAL double
#define WHOLE int64_t
#define SUFFIX f64
#define MANTISSA 52
#define KIND pd
#define EXP_MOST 708.0
#define EXP_TERMS 1.3691488853904128881e-12, 2.5678435993488205142e-11, 4.4455382718708114976e-10, 7.0549116208011233299e-9, \
    1.0178086009239699727e-7, 1.3215486790144309488e-6, 0.00001525273380405984028, 0.00015403530393381609954, \
    0.0013333558146428443423, 0.009618129107628477162, 0.055504108664821579953, 0.24022650695910071233, \
    0.69314718055994530942, 1.0 /* ln(2)^n / n! */
#include "precision.h"

#include "generate.h"

/* Bytes in a vector, and the sizes of the structures, by which the caller sees that it was written for this library. */
EXPORT int EXPORTED(vector)(void) { return VECTOR; }

/* Whether products of bfloat16 are compiled. */
EXPORT int EXPORTED(bf16)(void)
{
#ifdef BF16
    return 1;
#else
    return 0;
#endif
}

EXPORT int64_t EXPORTED(sizes)(void)
{
    const size_t sizes[] = {sizeof(struct weights), sizeof(struct product), sizeof(struct memory), sizeof(struct look),
                            sizeof(struct generation), sizeof(struct scatter), sizeof(struct layer)};
    int64_t all = 0;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        all = 512 * all + (int64_t)sizes[i];
    return all;
}
