/* One cell in one precision, forwards and backwards over a whole sequence.

   Weights are packed into panels: all gates of a few units, k by k, so that one pass over the lanes' states gives
   the complete gates of those units in registers, where the cell's formula is applied at once. The threads share
   either the lanes, and need not wait for each other, or the units, and meet after every step. */

#define UNITS (CELL == RNN ? 2 : 1)         /* vectors of units in a forward panel */
#define WIDE (UNITS * CELL)                 /* vectors in it */
#define TALL (SUMS / WIDE)                    /* lanes that fit the registers beside it */
#define PARTS (CELL == LSTM ? 2 : 1)        /* in which training takes a panel, each of some gates: then more lanes fit */
#define PART_GATES (CELL / PARTS)
#define PART_WIDE (WIDE / PARTS)
#define PART_TALL (SUMS / PART_WIDE)
#define BESIDE 2                            /* panels that a lane that is alone takes at once */
#define BACK_WIDE 2                         /* vectors of units in a backward panel */
#define BACK_TALL (SUMS / BACK_WIDE)
#define TILES 16                            /* of a panel at once, while a block of it is in the first cache */
#define BLOCK ((int64_t)(16384 / sizeof(REAL)))
#define STRIDE ((CELL == GRU ? 4 : CELL))   /* gates_grad is [T, B, STRIDE H] */

INLINE const REAL *C(h_before)(const struct layer *j, int64_t t, int64_t b)
{
    if (j->resets && j->resets[t * j->lanes + b])
        return j->packed;
    return t ? (const REAL *)j->y + ((t - 1) * j->lanes + b) * j->hidden : (const REAL *)j->h0 + b * j->hidden;
}

/* Numbers of K in a product with the state, or with the gradients of all gates: pairs count as one. */
INLINE int64_t C(deep)(const struct layer *j, int64_t numbers) { return j->pairs ? (numbers + 1) / 2 : numbers; }

/* The state before step t, or the gates' gradients of step t, of a lane as pairs: `numbers` of them. */
INLINE float *C(halves)(const struct layer *j, int64_t t, int64_t b, int64_t numbers)
{
    return (float *)j->halves + ((t & 1) * j->lanes + b) * C(deep)(j, numbers);
}

/* The left factor of the product with the state before step t. */
INLINE const REAL *C(left)(const struct layer *j, int64_t t, int64_t b)
{
#if MANTISSA == 23
    if (j->pairs && !(j->resets && j->resets[t * j->lanes + b]))
        return C(halves)(j, t, b, j->hidden);
#endif
    return C(h_before)(j, t, b);
}

/* Keeps numbers u..u+n of a row of pairs. */
INLINE void C(keep)(const struct layer *j, int64_t t, int64_t b, int64_t numbers, int64_t u, VEC x, int64_t n)
{
#if MANTISSA == 23 && defined(BF16)
    if (j->pairs)
        store_bf16((uint16_t *)C(halves)(j, t, b, numbers) + u, x, n);
#else
    (void)j, (void)t, (void)b, (void)numbers, (void)u, (void)x, (void)n;
#endif
}

INLINE int64_t C(extra_row)(const struct layer *j, int64_t t, int64_t b)
{
    return ((j->gates ? t * j->lanes : 0) + b) * j->hidden;
}

#if CELL == LSTM
INLINE const REAL *C(c_before)(const struct layer *j, int64_t t, int64_t b)
{
    if (j->resets && j->resets[t * j->lanes + b])
        return j->packed;
    return t ? (const REAL *)j->extra + C(extra_row)(j, t - 1, b) : (const REAL *)j->c0 + b * j->hidden;
}
#endif

/* A few lanes at one panel: where their rows of the left factor begin, and the sums so far. */
struct C(tile) {
    int64_t b;
    int rows;
    const REAL *from[SUMS / 2];
    VEC acc[PARTS * SUMS];
};

/* Cuts the lanes [from, to) into tiles of at most `most`, as even as they can be, and puts those from number `first` into
   `tiles`, at most TILES of them. Returns how many these are. */
INLINE int64_t C(cut)(struct C(tile) *tiles, int64_t first, int64_t from, int64_t to, const int64_t most)
{
    const int64_t all = (to - from + most - 1) / most, count = all - first < TILES ? all - first : TILES;
    for (int64_t i = 0; i < count; i++) {
        tiles[i].b = from + (to - from) * (first + i) / all;
        tiles[i].rows = (int)(from + (to - from) * (first + i + 1) / all - tiles[i].b);
    }
    return count;
}

/* The products of some tiles with one panel of so many vectors. Many tiles take it a block at a time, so that it comes from
   the first cache for every tile but one; meanwhile the next block is asked for. */
INLINE void C(multiply)(struct C(tile) *tiles, int64_t count, int64_t depth, const REAL *panel, const int vectors,
                       const int part, const int64_t pairs)
{
    (void)pairs;
    const int64_t wide = vectors * LONG_, block = count > 4 ? BLOCK / wide : depth, line = 64 / (int64_t)sizeof(REAL);
    for (int64_t k = 0; k < depth; k += block) {
        const int64_t some = depth - k < block ? depth - k : block;
        for (int64_t i = 0; i < count; i++) {
            for (int64_t ask = BLOCK * i / count; ask < BLOCK * (i + 1) / count && count > 4; ask += line)
                __builtin_prefetch(panel + (k + some) * wide + ask, 0, 2);
            PRODUCTS(pairs)[vectors][tiles[i].rows](some, panel + k * wide, tiles[i].from, tiles[i].acc + part * SUMS);
            for (int m = 0; m < tiles[i].rows; m++)
                tiles[i].from[m] += some;
        }
    }
}

/* The formula of the cell at units u..u+n of one lane, from the sums in `acc`. */
INLINE void C(formula)(const struct layer *j, int64_t t, int64_t b, int64_t u, int64_t n, const REAL *input, const VEC *acc)
{
    const int64_t H = j->hidden, row = t * j->lanes + b;
    REAL *y = (REAL *)j->y + row * H + u;
#if CELL == RNN
    (void)input;
    const VEC h_new = N(tanh)(acc[0]);
#else
    REAL *gates = j->gates ? (REAL *)j->gates + row * CELL * H + u : NULL;
    REAL *extra = j->extra ? (REAL *)j->extra + C(extra_row)(j, t, b) + u : NULL;
#if CELL == GRU
    VEC r = N(sigmoid)(acc[0]), z = N(sigmoid)(acc[1]);
    VEC n_x = N(load)(input + 2 * H + u, n);
    VEC fresh = N(tanh)(n_x + r * acc[2]);
    VEC h = N(load)(C(h_before)(j, t, b) + u, n);
    const VEC h_new = fresh + z * (h - fresh);
    if (gates) {
        N(store)(gates, r, n);
        N(store)(gates + H, z, n);
        N(store)(gates + 2 * H, fresh, n);
        N(store)(extra, acc[2], n);
    }
#else
    (void)input;
    VEC i = N(sigmoid)(acc[0]), f = N(sigmoid)(acc[1]), g = N(tanh)(acc[2]), o = N(sigmoid)(acc[3]);
    VEC c = f * N(load)(C(c_before)(j, t, b) + u, n) + i * g;
    N(store)(extra, c, n);
    const VEC h_new = o * N(tanh)(c);
    if (gates) {
        N(store)(gates, i, n);
        N(store)(gates + H, f, n);
        N(store)(gates + 2 * H, g, n);
        N(store)(gates + 3 * H, o, n);
    }
#endif
#endif
    N(store)(y, h_new, n);
    C(keep)(j, t + 1, b, H, u, h_new, n);
}

INLINE const REAL *C(input_row)(const struct layer *j, int64_t t, int64_t b)
{
    int64_t row = t * j->lanes + b;
    if (j->ids)
        row = j->ids[row] < 0 ? j->rows - 1 : j->ids[row];
    return (const REAL *)j->input + row * CELL * j->hidden;
}

/* Where the sums of lane m of a tile begin: the input's part, and for the GRU's candidate b_hn. */
INLINE void C(begin)(const struct layer *j, int64_t u, const REAL *input, struct C(tile) *tile, int m)
{
    const int64_t H = j->hidden;
UNROLL(4)
    for (int g = 0; g < CELL; g++)
UNROLL(2)
        for (int v = 0; v < UNITS; v++) {
            int64_t at = u + v * LONG_;
            VEC *acc = tile->acc + g / PART_GATES * SUMS + m * PART_WIDE;
            if (CELL == GRU && g == 2)
                acc[g * UNITS + v] = j->bias_n ? N(load)((const REAL *)j->bias_n + at, H - at) : (VEC){0};
            else
                acc[g % PART_GATES * UNITS + v] = N(load)(input + g * H + at, H - at);
        }
}

/* The formula at all lanes of a tile. */
INLINE void C(finish)(const struct layer *j, int64_t t, int64_t u, const struct C(tile) *tile)
{
    for (int m = 0; m < tile->rows; m++) {
        const int64_t b = tile->b + m, H = j->hidden;
        const VEC *acc = tile->acc + m * PART_WIDE;
#if CELL == LSTM
        const VEC sums[] = {acc[0], acc[1], acc[SUMS], acc[SUMS + 1]};
        acc = sums;
#endif
        const REAL *input = CELL == GRU ? C(input_row)(j, t, b) : NULL;
UNROLL(2)
        for (int v = 0; v < UNITS; v++)
            C(formula)(j, t, b, u + v * LONG_, H - u - v * LONG_, input, acc + v);
    }
}

/* Step t of the lanes [from, to) at one panel of units, packed in parts. */
static void C(forward_lanes)(const struct layer *j, int64_t t, int64_t from, int64_t to, int64_t u, const REAL *panel)
{
    const int64_t depth = C(deep)(j, j->hidden);
    struct C(tile) tiles[TILES];
    for (int64_t first = 0, count; (count = C(cut)(tiles, first, from, to, PART_TALL)) > 0; first += count) {
        for (int64_t i = 0; i < count; i++)
            for (int m = 0; m < tiles[i].rows; m++)
                C(begin)(j, u, C(input_row)(j, t, tiles[i].b + m), tiles + i, m);
        for (int part = 0; part < PARTS; part++) {
            for (int64_t i = 0; i < count; i++)
                for (int m = 0; m < tiles[i].rows; m++)
                    tiles[i].from[m] = C(left)(j, t, tiles[i].b + m);
            C(multiply)(tiles, count, depth, panel + part * depth * PART_WIDE * LONG_, PART_WIDE, part, j->pairs);
        }
        for (int64_t i = 0; i < count; i++)
            C(finish)(j, t, u, tiles + i);
    }
}

/* Step t of lane b alone at BESIDE panels of units at once. */
static void C(forward_alone)(const struct layer *j, int64_t t, int64_t b, int64_t u, const REAL *panel)
{
    const int64_t depth = C(deep)(j, j->hidden), wide = UNITS * LONG_, stride = depth * PART_WIDE * LONG_;
    struct C(tile) tiles[BESIDE];
    VEC *sums[BESIDE * PARTS];
UNROLL(2)
    for (int i = 0; i < BESIDE; i++) {
        tiles[i].b = b, tiles[i].rows = 1;
        C(begin)(j, u + i * wide, C(input_row)(j, t, b), tiles + i, 0);
        for (int part = 0; part < PARTS; part++)
            sums[i * PARTS + part] = tiles[i].acc + part * SUMS;
    }
#if MANTISSA == 23 && defined(BF16)
    if (j->pairs)
        expanded_beside_f32(1, BESIDE * PARTS, PART_WIDE, depth, panel, stride, C(left)(j, t, b), sums);
    else
#endif
        N(expanded_beside)(0, BESIDE * PARTS, PART_WIDE, depth, panel, stride, C(left)(j, t, b), sums);
UNROLL(2)
    for (int i = 0; i < BESIDE; i++)
        C(finish)(j, t, u + i * wide, tiles + i);
}

/* What the gradient of h_t, `dh`, does at step t to units u..u+n of one lane. */
INLINE void C(formula_back)(const struct layer *j, int64_t t, int64_t b, int64_t u, int64_t n, VEC dh)
{
    const int64_t H = j->hidden, row = t * j->lanes + b;
    REAL *grad = (REAL *)j->gates_grad + row * STRIDE * H + u;
#if CELL == RNN
    VEC y = N(load)((const REAL *)j->y + row * H + u, n);
    const VEC dy = dh - dh * y * y;
    N(store)(grad, dy, n);
    C(keep)(j, t, b, H, u, dy, n);
#else
    const REAL *gates = (const REAL *)j->gates + row * CELL * H + u;
    REAL *carry = (REAL *)j->carry + b * H + u;
#if CELL == GRU
    VEC r = N(load)(gates, n), z = N(load)(gates + H, n), fresh = N(load)(gates + 2 * H, n);
    VEC n_h = N(load)((const REAL *)j->extra + row * H + u, n), h = N(load)(C(h_before)(j, t, b) + u, n);
    VEC dn = (dh - dh * z) * ((REAL)1 - fresh * fresh);
    const VEC slopes[] = {dn * r, dn * n_h * r * ((REAL)1 - r), dh * (h - fresh) * z * ((REAL)1 - z)};
    N(store)(grad + 3 * H, dn, n);
    N(store)(carry, dh * z, n);
#else
    VEC i = N(load)(gates, n), f = N(load)(gates + H, n), g = N(load)(gates + 2 * H, n), o = N(load)(gates + 3 * H, n);
    VEC y = N(load)((const REAL *)j->y + row * H + u, n), c_before = N(load)(C(c_before)(j, t, b) + u, n);
    VEC dc = N(load)(carry, n) + dh * (o - y * (y / o)); /* y / o is tanh(c), and o cannot be zero */
    const VEC slopes[] = {dc * g * i * ((REAL)1 - i), dc * c_before * f * ((REAL)1 - f), dc * i * ((REAL)1 - g * g),
                          dh * y * ((REAL)1 - o)};
    N(store)(carry, dc * f, n);
#endif
UNROLL(4)
    for (int k = 0; k < CELL; k++) {
        N(store)(grad + k * H, slopes[k], n);
        C(keep)(j, t, b, CELL * H, k * H + u, slopes[k], n);
    }
#endif
}

/* The end of step t of the way back at one lane and a vector of units: `dh` is the product with W_hh. */
INLINE void C(end_back)(const struct layer *j, int64_t t, int64_t b, int64_t u, VEC dh)
{
    const int64_t H = j->hidden, next = (t + 1) * j->lanes + b, n = H - u;
    REAL *carry = (REAL *)j->carry + b * H + u;
    if (t + 1 < j->steps && j->resets && j->resets[next]) {
        dh = (VEC){0};
        if (CELL != RNN)
            N(store)(carry, dh, n);
    }
    if (CELL == GRU)
        dh += N(load)(carry, n);
    if (t < 0) {
        N(store)((REAL *)j->h0_grad + b * H + u, dh, n);
        if (CELL == LSTM)
            N(store)((REAL *)j->c0_grad + b * H + u, N(load)(carry, n), n);
    } else {
        dh += N(load)((const REAL *)j->y_grad + (next - j->lanes) * H + u, n);
        C(formula_back)(j, t, b, u, n, dh);
    }
}

/* Step t of the way back of the lanes [from, to) at one panel of units; t = -1 leaves the gradient of the state before
   the first. */
static void C(backward_lanes)(const struct layer *j, int64_t t, int64_t from, int64_t to, int64_t u, const REAL *panel)
{
    const int64_t H = j->hidden;
    struct C(tile) tiles[TILES];
    for (int64_t first = 0, count; (count = C(cut)(tiles, first, from, to, BACK_TALL)) > 0; first += count) {
        for (int64_t i = 0; i < count; i++)
            for (int m = 0; m < tiles[i].rows; m++) {
                const int64_t b = tiles[i].b + m;
                tiles[i].from[m] = (const REAL *)j->gates_grad + ((t + 1) * j->lanes + b) * STRIDE * H;
#if MANTISSA == 23
                if (j->pairs)
                    tiles[i].from[m] = C(halves)(j, t + 1, b, CELL * H);
#endif
UNROLL(4)
                for (int v = 0; v < BACK_WIDE; v++)
                    tiles[i].acc[m * BACK_WIDE + v] = (VEC){0};
            }
        if (t + 1 < j->steps)
            C(multiply)(tiles, count, C(deep)(j, CELL * H), panel, BACK_WIDE, 0, j->pairs);
        for (int64_t i = 0; i < count; i++)
            for (int m = 0; m < tiles[i].rows; m++)
UNROLL(4)
                for (int v = 0; v < BACK_WIDE; v++)
                    C(end_back)(j, t, tiles[i].b + m, u + v * LONG_, tiles[i].acc[m * BACK_WIDE + v]);
    }
}

/* Row k of W_hh for the way back: of the GRU the candidate's come first, as in `gates_grad`. */
INLINE const REAL *C(row_back)(const struct layer *j, int64_t k)
{
    const int64_t H = j->hidden;
    return (const REAL *)j->weight + (CELL == GRU ? (k < H ? 2 * H + k : k - H) : k) * H;
}

/* Panel p of W_hh for the way back: [gate unit][unit]. */
static void C(pack_back)(const struct layer *j, int64_t p, REAL *to)
{
    const int64_t H = j->hidden, wide = BACK_WIDE * LONG_, u = p * wide, step = j->pairs ? 2 : 1;
    for (int64_t k = 0; k < CELL * H; k += step, to += wide)
        for (int64_t i = 0; i < wide; i += LONG_) {
            VEC x = N(load)(C(row_back)(j, k) + u + i, H - u - i);
#if MANTISSA == 23 && defined(BF16)
            if (j->pairs)
                x = pairs_of(x, k + 1 < CELL * H ? load_f32(C(row_back)(j, k + 1) + u + i, H - u - i) : (VEC){0});
#endif
            N(store)(to + i, x, LONG_);
        }
}

/* Panel p of W_hh for the way forward: [part][k][gate][unit]. */
static void C(pack)(const struct layer *j, int64_t p, REAL *to)
{
    const int64_t H = j->hidden, depth = C(deep)(j, H), wide = UNITS * LONG_, u = p * wide;
    const int64_t some = 64 / (int64_t)sizeof(REAL), numbers = j->pairs ? 2 * some : some; /* columns in a cache line */
    for (int64_t first = 0; first < depth; first += some) { /* a few at a time, so that what is written stays in the cache */
        const int64_t count = depth - first < some ? depth - first : some, at = first * (numbers / some);
        for (int64_t g = 0; g < CELL; g++) {
            REAL *part = to + (g / PART_GATES * depth + first) * PART_WIDE * LONG_ + g % PART_GATES * wide;
            for (int64_t i = 0; i < wide; i++) {
                const REAL *row = (const REAL *)j->weight + (g * H + u + i) * H + at;
#if MANTISSA == 23 && defined(BF16)
                float pairs[16];
                if (j->pairs && u + i < H) {
                    pair_up(row, H - at < numbers ? H - at : numbers, pairs);
                    row = pairs;
                }
#endif
                for (int64_t k = 0; k < count; k++)
                    part[k * PART_WIDE * LONG_ + i] = u + i < H ? row[k] : 0;
            }
        }
    }
}

#if MANTISSA == 23 /* generation is computed in float32 alone */
#include "step.h"
#endif

INLINE void C(run)(const struct layer *j, int me, struct team *team, const int back)
{
    const int64_t H = j->hidden, wide = (back ? BACK_WIDE : UNITS) * LONG_, panels = (H + wide - 1) / wide;
    const int64_t size = back ? C(deep)(j, CELL * H) * wide : C(deep)(j, H) * WIDE * LONG_;
    REAL *packed = (REAL *)j->packed + (H + LONG_ - 1) / LONG_ * LONG_;
    int64_t p_from, p_to, b_from = 0, b_to = j->lanes;
    share(panels, me, team->size, &p_from, &p_to);
    for (int64_t p = p_from; p < p_to; p++)
        (back ? C(pack_back) : C(pack))(j, p, packed + p * size);
#if MANTISSA == 23 && defined(BF16)
    if (j->pairs && me == 0) {
        const int64_t numbers = back ? CELL * H : H; /* zeros where a row's last pair has no second number */
        memset(j->halves, 0, (size_t)(2 * j->lanes * C(deep)(j, numbers)) * sizeof(float));
        for (int64_t b = 0; b < j->lanes && !back; b++)
            pair_up((const float *)j->h0 + b * H, H, C(halves)(j, 0, b, H));
    }
    if (j->by_units && j->pairs)
        meet(team);
#endif
    if (!j->by_units) {
        meet(team);
        p_from = 0, p_to = panels;
        share(j->lanes, me, team->size, &b_from, &b_to);
    }
    const int64_t first = back ? j->steps - 1 : 0, last = back ? (j->h0_grad ? -1 : 0) : j->steps - 1;
    for (int64_t t = first; back ? t >= last : t <= last; t += back ? -1 : 1) {
        int64_t p = p_from;
        for (; !back && b_to - b_from == 1 && p + BESIDE <= p_to; p += BESIDE)
            C(forward_alone)(j, t, b_from, p * wide, packed + p * size);
        for (; p < p_to; p++)
            (back ? C(backward_lanes) : C(forward_lanes))(j, t, b_from, b_to, p * wide, packed + p * size);
        if (j->by_units)
            meet(team);
    }
}

static void C(forward_part)(void *data, int me, struct team *team) { C(run)(data, me, team, 0); }
static void C(backward_part)(void *data, int me, struct team *team) { C(run)(data, me, team, 1); }

EXPORT void EXPORTED(C(forward))(struct layer *j)
{
    memset(j->packed, 0, (size_t)j->hidden * sizeof(REAL));
    together(C(forward_part), j, j->threads);
}

EXPORT void EXPORTED(C(backward))(struct layer *j)
{
    memset(j->packed, 0, (size_t)j->hidden * sizeof(REAL));
    together(C(backward_part), j, j->threads);
}

#undef UNITS
#undef WIDE
#undef TALL
#undef PARTS
#undef PART_GATES
#undef PART_WIDE
#undef PART_TALL
#undef BESIDE
#undef BACK_WIDE
#undef BACK_TALL
#undef STRIDE
#undef TILES
#undef BLOCK
