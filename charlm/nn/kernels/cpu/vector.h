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

/* The first n of a vector's numbers; zeros behind them, and nothing is read there. */
INLINE VEC N(load)(const REAL *from, int64_t n)
{
    if (__builtin_expect(n >= LONG_, 1))
        return *(const N(loose) *)from;
    VEC x = {0};
    if (n > 0)
        __builtin_memcpy(&x, from, (size_t)n * sizeof(REAL));
    return x;
}

INLINE void N(store)(REAL *to, VEC x, int64_t n)
{
    if (__builtin_expect(n >= LONG_, 1))
        *(N(loose) *)to = x;
    else if (n > 0)
        __builtin_memcpy(to, &x, (size_t)n * sizeof(REAL));
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

/* acc[m][v] += sum over k of a[m][k] * panel[k][v]. The counts are constants where this is expanded, so that all
   sums stay in registers; the fewer of the two factors are held there too, the others pass one by one. */
INLINE void N(expanded)(const int rows, const int vectors, int64_t depth, const REAL *panel, const REAL *const *rows_of_a,
                        VEC *sums)
{
    VEC acc[SUMS], held[4];
    const REAL *a[SUMS / 2];
UNROLL(24)
    for (int i = 0; i < rows * vectors; i++)
        acc[i] = sums[i];
UNROLL(12)
    for (int m = 0; m < rows; m++)
        a[m] = rows_of_a[m];
    for (int64_t k = 0; k < depth; k++, panel += vectors * LONG_) {
        if (rows < 3 || vectors == 3) { /* measured: there the speed is bound by how fast the panel comes */
UNROLL(2)
            for (int v = 0; v < vectors; v += 2)
                __builtin_prefetch(panel + AHEAD + v * LONG_);
        }
        if (rows < vectors) {
UNROLL(4)
            for (int m = 0; m < rows; m++)
                held[m] = N(all)(a[m][k]);
UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                VEC w = *(const VEC *)(panel + v * LONG_);
                HOLD(w);
UNROLL(4)
                for (int m = 0; m < rows; m++)
                    acc[m * vectors + v] += held[m] * w;
            }
        } else {
UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                held[v] = *(const VEC *)(panel + v * LONG_);
                HOLD(held[v]);
            }
UNROLL(12)
            for (int m = 0; m < rows; m++) {
                VEC x = N(all)(a[m][k]);
UNROLL(4)
                for (int v = 0; v < vectors; v++)
                    acc[m * vectors + v] += x * held[v];
            }
        }
    }
UNROLL(24)
    for (int i = 0; i < rows * vectors; i++)
        sums[i] = acc[i];
}

#define PRODUCT(rows, vectors)                                                                                  \
    static void N(product_##rows##_##vectors)(int64_t depth, const REAL *panel, const REAL *const *a, VEC *sums) \
    {                                                                                                           \
        N(expanded)(rows, vectors, depth, panel, a, sums);                                                      \
    }
PRODUCT(1, 2)
PRODUCT(2, 2)
PRODUCT(3, 2)
PRODUCT(4, 2)
PRODUCT(5, 2)
PRODUCT(6, 2)
PRODUCT(1, 3)
PRODUCT(2, 3)
PRODUCT(3, 3)
PRODUCT(4, 3)
PRODUCT(1, 4)
PRODUCT(2, 4)
PRODUCT(3, 4)
#if SUMS == 24
PRODUCT(7, 2)
PRODUCT(8, 2)
PRODUCT(9, 2)
PRODUCT(10, 2)
PRODUCT(11, 2)
PRODUCT(12, 2)
PRODUCT(5, 3)
PRODUCT(6, 3)
PRODUCT(7, 3)
PRODUCT(8, 3)
PRODUCT(4, 4)
PRODUCT(5, 4)
PRODUCT(6, 4)
#endif
#undef PRODUCT

/* products[vectors][rows], where they exist. */
#define P(rows, vectors) [rows] = N(product_##rows##_##vectors)
static void (*const N(products)[5][SUMS / 2 + 1])(int64_t, const REAL *, const REAL *const *, VEC *) = {
#if SUMS == 24
    [2] = {P(1, 2), P(2, 2), P(3, 2), P(4, 2), P(5, 2), P(6, 2), P(7, 2), P(8, 2), P(9, 2), P(10, 2), P(11, 2), P(12, 2)},
    [3] = {P(1, 3), P(2, 3), P(3, 3), P(4, 3), P(5, 3), P(6, 3), P(7, 3), P(8, 3)},
    [4] = {P(1, 4), P(2, 4), P(3, 4), P(4, 4), P(5, 4), P(6, 4)},
#else
    [2] = {P(1, 2), P(2, 2), P(3, 2), P(4, 2), P(5, 2), P(6, 2)},
    [3] = {P(1, 3), P(2, 3), P(3, 3), P(4, 3)},
    [4] = {P(1, 4), P(2, 4), P(3, 4)},
#endif
};
#undef P

/* acc[s][v] += sum over k of a[k] * panel[s][k][v], for some panels that lie `stride` numbers apart: the product of a single
   row with one panel has so few sums that each addition would wait for the one before it. */
INLINE void N(expanded_beside)(const int panels, const int vectors, int64_t depth, const REAL *panel, int64_t stride,
                               const REAL *a, VEC *const *sums)
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
                acc[s * vectors + v] += held * *(const VEC *)(panel + s * stride + v * LONG_);
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
#define PRODUCTS(bits)                                                                                                    \
    PRODUCT(bits, 1, 2) PRODUCT(bits, 2, 2) PRODUCT(bits, 1, 3) PRODUCT(bits, 2, 3) PRODUCT(bits, 1, 4) PRODUCT(bits, 2, 4)
PRODUCTS(8)
PRODUCTS(16)
#define P(bits, vectors) [vectors] = {[1] = product_i##bits##_1_##vectors, [2] = product_i##bits##_2_##vectors}
/* products_few[bits == 16][vectors][rows]. */
static void (*const products_few[2][5][FEW + 1])(int64_t, const char *, const float *, const float *const *, vec_f32 *) = {
    {P(8, 2), P(8, 3), P(8, 4)}, {P(16, 2), P(16, 3), P(16, 4)}};
#undef P
#undef PRODUCT
#undef PRODUCTS

/* Some rows of a panel of whole numbers as float32, for products with many lanes. */
static void widen(int64_t bits, int64_t depth, int vectors, const char *panel, const float *scales, float *to)
{
    for (int64_t k = 0; k < depth; k++)
        for (int v = 0; v < vectors; v++, to += LONG_, panel += LONG_ * bits / 8)
            store_f32(to, (bits == 8 ? widened(panel, 8) : widened(panel, 16)) * load_f32(scales + v * LONG_, LONG_), LONG_);
}
#endif
