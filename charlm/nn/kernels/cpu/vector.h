/* Short vectors of one precision, the functions of the gates on them, and the matrix product they are made for.

   Included once with REAL = float and once with REAL = double, after these macros:
   REAL, WHOLE (a signed integer as wide), SUFFIX, KIND (what x86 calls it), MANTISSA (bits), and the constants of
   `exp`. */

#define N(name) PASTE(name, SUFFIX)
#define LONG_ ((int64_t)(VECTOR / sizeof(REAL))) /* numbers in a vector */
#define AHEAD ((int64_t)(8192 / sizeof(REAL)))   /* how far before its use memory is asked for */

typedef REAL N(vec) __attribute__((vector_size(VECTOR)));
typedef REAL N(loose) __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));
typedef WHOLE N(whole) __attribute__((vector_size(VECTOR)));
#define VEC N(vec)
#define INLINE static inline __attribute__((always_inline))

INLINE VEC N(all)(REAL x) { return x - (VEC){0}; }

#if defined(X86) && VECTOR == 64
/* The mask of a vector's first n numbers. */
INLINE __mmask16 N(first)(int64_t n) { return n >= LONG_ ? 0xffff : n > 0 ? (__mmask16)((1 << n) - 1) : 0; }
#endif

/* The first n of a vector's numbers; zeros behind them, and nothing is read there. */
INLINE VEC N(load)(const REAL *from, int64_t n)
{
    if (__builtin_expect(n >= LONG_, 1))
        return *(const N(loose) *)from;
#if defined(X86) && VECTOR == 64
    return X86(maskz_loadu, KIND)(N(first)(n), from);
#endif
    VEC x = {0};
    if (n > 0)
        __builtin_memcpy(&x, from, (size_t)n * sizeof(REAL));
    return x;
}

INLINE void N(store)(REAL *to, VEC x, int64_t n)
{
    if (__builtin_expect(n >= LONG_, 1))
        *(N(loose) *)to = x;
#if defined(X86) && VECTOR == 64
    else
        X86(mask_storeu, KIND)(to, N(first)(n), x);
#else
    else if (n > 0)
        __builtin_memcpy(to, &x, (size_t)n * sizeof(REAL));
#endif
}

/* x between -most and most; NaN stays NaN. */
INLINE VEC N(clamp)(VEC x, VEC most)
{
#ifdef X86
    return X86(min, KIND)(most, X86(max, KIND)(-most, x)); /* these return their second argument where one is NaN */
#else
    N(whole) above = x > most, below = x < -most;
    N(whole) inside = ~(above | below);
    return (VEC)(((N(whole))x & inside) | ((N(whole))most & above) | ((N(whole))-most & below));
#endif
}

/* e^(factor x), to about one unit in the last place where the result is near 1, for factor x clamped to where it is a
   normal number; NaN stays NaN. With y = factor x / ln 2 = k + f, it is 2^k times a polynomial of 2^f. Adding
   1.5 * 2^MANTISSA and the exponent's bias leaves k, biased, in the low bits; `factor` is a constant. */
INLINE VEC N(exp)(VEC x, const REAL factor)
{
    const REAL scale = factor * (REAL)1.442695040888963407360, least = (REAL)EXP_MOST / (factor < 0 ? -factor : factor);
    const REAL big = (REAL)((3LL << (MANTISSA - 1)) + (1LL << (sizeof(REAL) * 8 - MANTISSA - 2)) - 1);
    x = N(clamp)(x, N(all)(least));
    VEC shifted = x * scale + big;
    VEC f = x * scale - (shifted - big);
    const REAL terms[] = {EXP_TERMS};
    VEC sum = N(all)(terms[0]);
UNROLL(16)
    for (unsigned i = 1; i < sizeof terms / sizeof *terms; i++)
        sum = sum * f + terms[i];
    return sum * (VEC)((N(whole))shifted << MANTISSA);
}

INLINE VEC N(sigmoid)(VEC x) { return (REAL)1 / ((REAL)1 + N(exp)(x, -1)); }

INLINE VEC N(tanh)(VEC x) { return (REAL)1 - (REAL)2 / ((REAL)1 + N(exp)(x, 2)); }

#if MANTISSA == 23 && defined(BF16)
/* What bfloat16 needs: numbers of 16 bits, the upper half of a float32, always in pairs. A pair takes the place of one
   float32, in the left factor and in the panels, so that the same code reads both. */

/* Pairs of each number of one vector with that of another, rounded to the nearest bfloat16; NaN stays NaN. */
INLINE VEC pairs_of(VEC first, VEC second)
{
    static const uint16_t places[32] __attribute__((aligned(64))) = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i both;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(first), "v"(second));
    return (VEC)_mm512_permutexvar_epi16(_mm512_load_si512(places), both);
}

/* The first n of a vector's numbers as bfloat16, side by side. */
INLINE void store_bf16(uint16_t *to, VEC x, int64_t n)
{
    __m256i halves;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(x));
    if (n >= LONG_)
        _mm256_storeu_si256((__m256i *)to, halves);
    else
        _mm256_mask_storeu_epi16(to, first_f32(n), halves);
}

/* n numbers that lie side by side as (n + 1) / 2 pairs; the last second number is 0 where n is odd. */
static void pair_up(const float *from, int64_t n, float *to)
{
    uint16_t *halves = (uint16_t *)to;
    for (int64_t i = 0; i < n; i += LONG_)
        store_bf16(halves + i, load_f32(from + i, n - i), n - i);
    if (n % 2)
        halves[n] = 0;
}

/* acc + a * b, where these are pairs: both products are added. */
INLINE VEC added_pairs(VEC acc, VEC a, VEC b)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

#define MULTIPLIED(acc, a, b, pairs) ((pairs) ? added_pairs(acc, a, b) : (acc) + (a) * (b))
#else
#undef MULTIPLIED
#define MULTIPLIED(acc, a, b, pairs) ((acc) + (a) * (b))
#endif

/* acc[m][v] += sum over k of a[m][k] * panel[k][v]. The counts are constants where this is expanded, so that all
   sums stay in registers; the fewer of the two factors are held there too, the others pass one by one. Numbers are pairs of
   bfloat16 where `pairs` is 1. The left factor lies [k][m] where `packed` is 1. */
INLINE void N(expanded)(const int pairs, const int packed, const int rows, const int vectors, int64_t depth,
                        const REAL *panel, const REAL *const *rows_of_a, VEC *sums)
{
    VEC acc[SUMS], held[4];
    const REAL *a[SUMS / 2];
UNROLL(24)
    for (int i = 0; i < rows * vectors; i++)
        acc[i] = sums[i];
UNROLL(12)
    for (int m = 0; m < rows; m++)
        a[m] = packed ? *rows_of_a + m : rows_of_a[m];
    const int64_t step = packed ? rows : 1;
    for (int64_t k = 0; k < depth; k++, panel += vectors * LONG_) {
        if (rows < 3 || vectors == 3) { /* measured: there the speed is bound by how fast the panel comes */
UNROLL(2)
            for (int v = 0; v < vectors; v += 2)
                __builtin_prefetch(panel + AHEAD + v * LONG_);
        }
        if (rows < vectors) {
UNROLL(4)
            for (int m = 0; m < rows; m++)
                held[m] = N(all)(a[m][k * step]);
UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                VEC w = *(const VEC *)(panel + v * LONG_);
                HOLD(w);
UNROLL(4)
                for (int m = 0; m < rows; m++)
                    acc[m * vectors + v] = MULTIPLIED(acc[m * vectors + v], held[m], w, pairs);
            }
        } else {
UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                held[v] = *(const VEC *)(panel + v * LONG_);
                HOLD(held[v]);
            }
UNROLL(12)
            for (int m = 0; m < rows; m++) {
                VEC x = N(all)(a[m][k * step]);
UNROLL(4)
                for (int v = 0; v < vectors; v++)
                    acc[m * vectors + v] = MULTIPLIED(acc[m * vectors + v], x, held[v], pairs);
            }
        }
    }
UNROLL(24)
    for (int i = 0; i < rows * vectors; i++)
        sums[i] = acc[i];
}

/* The shapes that are compiled: of 1 to 4 vectors with every number of rows whose sums fit the registers. */
#if SUMS == 24
#define TALLER(PRODUCT, kind, pairs, packed) \
    PRODUCT(kind, pairs, packed, 7, 2) PRODUCT(kind, pairs, packed, 8, 2) PRODUCT(kind, pairs, packed, 9, 2) \
    PRODUCT(kind, pairs, packed, 10, 2) PRODUCT(kind, pairs, packed, 11, 2) PRODUCT(kind, pairs, packed, 12, 2)
#define TALLER_ONE(PRODUCT, kind, pairs, packed) \
    PRODUCT(kind, pairs, packed, 7, 1) PRODUCT(kind, pairs, packed, 8, 1) PRODUCT(kind, pairs, packed, 9, 1) \
    PRODUCT(kind, pairs, packed, 10, 1) PRODUCT(kind, pairs, packed, 11, 1) PRODUCT(kind, pairs, packed, 12, 1)
#define TALLER_THREE(PRODUCT, kind, pairs) \
    PRODUCT(kind, pairs, 0, 5, 3) PRODUCT(kind, pairs, 0, 6, 3) PRODUCT(kind, pairs, 0, 7, 3) PRODUCT(kind, pairs, 0, 8, 3)
#define TALLER_FOUR(PRODUCT) PRODUCT(, 0, 0, 4, 4) PRODUCT(, 0, 0, 5, 4) PRODUCT(, 0, 0, 6, 4)
#else
#define TALLER(PRODUCT, kind, pairs, packed)
#define TALLER_ONE(PRODUCT, kind, pairs, packed)
#define TALLER_THREE(PRODUCT, kind, pairs)
#define TALLER_FOUR(PRODUCT)
#endif
#define OF_TWO(PRODUCT, kind, pairs, packed) \
    PRODUCT(kind, pairs, packed, 1, 2) PRODUCT(kind, pairs, packed, 2, 2) PRODUCT(kind, pairs, packed, 3, 2) \
    PRODUCT(kind, pairs, packed, 4, 2) PRODUCT(kind, pairs, packed, 5, 2) PRODUCT(kind, pairs, packed, 6, 2) \
    TALLER(PRODUCT, kind, pairs, packed)
#define OF_ONE(PRODUCT, kind, pairs, packed) \
    PRODUCT(kind, pairs, packed, 1, 1) PRODUCT(kind, pairs, packed, 2, 1) PRODUCT(kind, pairs, packed, 3, 1) \
    PRODUCT(kind, pairs, packed, 4, 1) PRODUCT(kind, pairs, packed, 5, 1) PRODUCT(kind, pairs, packed, 6, 1) \
    TALLER_ONE(PRODUCT, kind, pairs, packed)
#define OF_THREE(PRODUCT, kind, pairs) \
    PRODUCT(kind, pairs, 0, 1, 3) PRODUCT(kind, pairs, 0, 2, 3) PRODUCT(kind, pairs, 0, 3, 3) PRODUCT(kind, pairs, 0, 4, 3) \
    TALLER_THREE(PRODUCT, kind, pairs)
#define OF_FOUR(PRODUCT) PRODUCT(, 0, 0, 1, 4) PRODUCT(, 0, 0, 2, 4) PRODUCT(, 0, 0, 3, 4) TALLER_FOUR(PRODUCT)

#define WRITTEN(kind, pairs, packed, rows, vectors)                                                            \
    static void N(product##kind##_##rows##_##vectors)(int64_t depth, const REAL *panel, const REAL *const *a, VEC *sums) \
    {                                                                                                           \
        N(expanded)(pairs, packed, rows, vectors, depth, panel, a, sums);                                       \
    }
#define LISTED(kind, pairs, packed, rows, vectors) [rows] = N(product##kind##_##rows##_##vectors),

typedef void (*N(product_of))(int64_t depth, const REAL *panel, const REAL *const *a, VEC *sums);

/* products[vectors][rows], where they exist; of a left factor packed [k][m]; and both of pairs of bfloat16. */
OF_ONE(WRITTEN, , 0, 0)
OF_TWO(WRITTEN, , 0, 0)
OF_THREE(WRITTEN, , 0)
OF_FOUR(WRITTEN)
OF_ONE(WRITTEN, _packed, 0, 1)
OF_TWO(WRITTEN, _packed, 0, 1)
static const N(product_of) N(products)[5][SUMS / 2 + 1] = {
    [1] = {OF_ONE(LISTED, , 0, 0)}, [2] = {OF_TWO(LISTED, , 0, 0)}, [3] = {OF_THREE(LISTED, , 0)}, [4] = {OF_FOUR(LISTED)}};
static const N(product_of) N(products_packed)[3][SUMS / 2 + 1] = {
    [1] = {OF_ONE(LISTED, _packed, 0, 1)}, [2] = {OF_TWO(LISTED, _packed, 0, 1)}};
#if MANTISSA == 23 && defined(BF16)
OF_ONE(WRITTEN, _pairs, 1, 0)
OF_TWO(WRITTEN, _pairs, 1, 0)
OF_THREE(WRITTEN, _pairs, 1)
OF_ONE(WRITTEN, _packed_pairs, 1, 1)
OF_TWO(WRITTEN, _packed_pairs, 1, 1)
static const product_of_f32 products_of_pairs[4][SUMS / 2 + 1] = {
    [1] = {OF_ONE(LISTED, _pairs, 1, 0)}, [2] = {OF_TWO(LISTED, _pairs, 1, 0)}, [3] = {OF_THREE(LISTED, _pairs, 1)}};
static const product_of_f32 products_of_packed_pairs[3][SUMS / 2 + 1] = {
    [1] = {OF_ONE(LISTED, _packed_pairs, 1, 1)}, [2] = {OF_TWO(LISTED, _packed_pairs, 1, 1)}};
#define PRODUCTS(pairs) ((pairs) ? products_of_pairs : products_f32)
#define PRODUCTS_PACKED(pairs) ((pairs) ? products_of_packed_pairs : products_packed_f32)
#else
#undef PRODUCTS
#undef PRODUCTS_PACKED
#define PRODUCTS(pairs) N(products)
#define PRODUCTS_PACKED(pairs) N(products_packed)
#endif
#undef WRITTEN
#undef LISTED
#undef OF_ONE
#undef OF_TWO
#undef OF_THREE
#undef OF_FOUR
#undef TALLER
#undef TALLER_ONE
#undef TALLER_THREE
#undef TALLER_FOUR

/* acc[s][v] += sum over k of a[k] * panel[s][k][v], for some panels that lie `stride` numbers apart: the product of a single
   row with one panel has so few sums that each addition would wait for the one before it. */
INLINE void N(expanded_beside)(const int pairs, const int panels, const int vectors, int64_t depth, const REAL *panel,
                               int64_t stride, const REAL *a, VEC *const *sums)
{
    VEC acc[SUMS];
UNROLL(24)
    for (int i = 0; i < panels * vectors; i++)
        acc[i] = sums[i / vectors][i % vectors];
    for (int64_t k = 0; k < depth; k++, panel += vectors * LONG_) {
        const VEC held = N(all)(a[k]);
UNROLL(4)
        for (int s = 0; s < panels; s++)
UNROLL(4)
            for (int v = 0; v < vectors; v++)
                acc[s * vectors + v] =
                    MULTIPLIED(acc[s * vectors + v], held, *(const VEC *)(panel + s * stride + v * LONG_), pairs);
    }
UNROLL(24)
    for (int i = 0; i < panels * vectors; i++)
        sums[i / vectors][i % vectors] = acc[i];
}

#if MANTISSA == 23
/* Weights of 16 or 8 bits, for generation alone: whole numbers, and one scale for each row of the matrix. A weight is
   number * scale, rounded to float32, so that every product is that of the float32 weights to the last bit. */

/* A matrix in panels: of float32 where `bits` is 32, else of whole numbers, and the scales of the panels' columns. */
struct weights {
    const void *panels;
    const float *scales;
    int64_t bits;
};

/* A vector's worth of whole numbers of so many bits as float32. */
INLINE vec_f32 widened(const void *from, const int bits)
{
#if defined(X86) && VECTOR == 64
    return _mm512_cvtepi32_ps(bits == 8 ? _mm512_cvtepi8_epi32(_mm_loadu_si128(from))
                                        : _mm512_cvtepi16_epi32(_mm256_loadu_si256(from)));
#elif defined(X86) && VECTOR == 32
    return _mm256_cvtepi32_ps(bits == 8 ? _mm256_cvtepi8_epi32(_mm_loadl_epi64(from))
                                        : _mm256_cvtepi16_epi32(_mm_loadu_si128(from)));
#elif defined(X86)
    const __m128i none = _mm_setzero_si128(); /* each number into the highest bits of 32, then moved down with its sign */
    int32_t four;
    memcpy(&four, from, sizeof four);
    return _mm_cvtepi32_ps(
        bits == 8 ? _mm_srai_epi32(_mm_unpacklo_epi16(none, _mm_unpacklo_epi8(none, _mm_cvtsi32_si128(four))), 24)
                  : _mm_srai_epi32(_mm_unpacklo_epi16(none, _mm_loadl_epi64(from)), 16));
#else
    int8_t bytes __attribute__((vector_size(VECTOR / 4)));
    int16_t pairs __attribute__((vector_size(VECTOR / 2)));
    if (bits == 8) {
        memcpy(&bytes, from, sizeof bytes);
        return __builtin_convertvector(bytes, vec_f32);
    }
    memcpy(&pairs, from, sizeof pairs);
    return __builtin_convertvector(pairs, vec_f32);
#endif
}

#define FEW 2 /* lanes whose sums and the scales fit the registers together */

/* `expanded` for a panel of whole numbers and at most FEW rows. */
INLINE void expanded_few(const int bits, const int rows, const int vectors, int64_t depth, const char *panel,
                         const float *scales, const float *const *a, vec_f32 *sums)
{
    vec_f32 acc[4 * FEW], scale[4], held[FEW];
UNROLL(8)
    for (int i = 0; i < rows * vectors; i++)
        acc[i] = sums[i];
UNROLL(4)
    for (int v = 0; v < vectors; v++)
        scale[v] = load_f32(scales + v * LONG_, LONG_);
    for (int64_t k = 0; k < depth; k++, panel += vectors * LONG_ * bits / 8) {
        __builtin_prefetch(panel + 2048);
UNROLL(2)
        for (int m = 0; m < rows; m++)
            held[m] = all_f32(a[m][k]);
UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            vec_f32 w = widened(panel + v * LONG_ * bits / 8, bits) * scale[v];
UNROLL(2)
            for (int m = 0; m < rows; m++)
                acc[m * vectors + v] += held[m] * w;
        }
    }
UNROLL(8)
    for (int i = 0; i < rows * vectors; i++)
        sums[i] = acc[i];
}

#define PRODUCT(bits, rows, vectors)                                                                                      \
    static void product_i##bits##_##rows##_##vectors(int64_t depth, const char *panel, const float *scales,               \
                                                     const float *const *a, vec_f32 *sums)                                \
    {                                                                                                                     \
        expanded_few(bits, rows, vectors, depth, panel, scales, a, sums);                                                 \
    }
#define FEW_PRODUCTS(bits)                                                                                                    \
    PRODUCT(bits, 1, 2) PRODUCT(bits, 2, 2) PRODUCT(bits, 1, 3) PRODUCT(bits, 2, 3) PRODUCT(bits, 1, 4) PRODUCT(bits, 2, 4)
FEW_PRODUCTS(8)
FEW_PRODUCTS(16)
#define P(bits, vectors) [vectors] = {[1] = product_i##bits##_1_##vectors, [2] = product_i##bits##_2_##vectors}
/* products_few[bits == 16][vectors][rows]. */
static void (*const products_few[2][5][FEW + 1])(int64_t, const char *, const float *, const float *const *, vec_f32 *) = {
    {P(8, 2), P(8, 3), P(8, 4)}, {P(16, 2), P(16, 3), P(16, 4)}};
#undef P
#undef PRODUCT
#undef FEW_PRODUCTS

/* Some rows of a panel of whole numbers as float32, for products with many lanes. */
static void widen(int64_t bits, int64_t depth, int vectors, const char *panel, const float *scales, float *to)
{
    for (int64_t k = 0; k < depth; k++)
        for (int v = 0; v < vectors; v++, to += LONG_, panel += LONG_ * bits / 8)
            store_f32(to, (bits == 8 ? widened(panel, 8) : widened(panel, 16)) * load_f32(scales + v * LONG_, LONG_), LONG_);
}
#endif
