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

INLINE int64_t C(extra_row)(const struct layer *j, int64_t t, int64_t b) { return ((j->gates ? t * j->lanes : 0) + b) * j->hidden; }

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
                       const int part)
{
    const int64_t wide = vectors * LONG_, block = count > 4 ? BLOCK / wide : depth, line = 64 / (int64_t)sizeof(REAL);
    for (int64_t k = 0; k < depth; k += block) {
        const int64_t some = depth - k < block ? depth - k : block;
        for (int64_t i = 0; i < count; i++) {
            for (int64_t ask = BLOCK * i / count; ask < BLOCK * (i + 1) / count && count > 4; ask += line)
                __builtin_prefetch(panel + (k + some) * wide + ask, 0, 2);
            N(products)[vectors][tiles[i].rows](some, panel + k * wide, tiles[i].from,
                                                tiles[i].acc + part * SUMS);
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
    N(store)(y, N(tanh)(acc[0]), n);
#else
    REAL *gates = j->gates ? (REAL *)j->gates + row * CELL * H + u : NULL;
    REAL *extra = j->extra ? (REAL *)j->extra + C(extra_row)(j, t, b) + u : NULL;
#if CELL == GRU
    VEC r = N(sigmoid)(acc[0]), z = N(sigmoid)(acc[1]);
    VEC n_x = N(load)(input + 2 * H + u, n);
    VEC fresh = N(tanh)(n_x + r * acc[2]);
    VEC h = N(load)(C(h_before)(j, t, b) + u, n);
    N(store)(y, fresh + z * (h - fresh), n);
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
    N(store)(y, o * N(tanh)(c), n);
    if (gates) {
        N(store)(gates, i, n);
        N(store)(gates + H, f, n);
        N(store)(gates + 2 * H, g, n);
        N(store)(gates + 3 * H, o, n);
    }
#endif
#endif
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
    const int64_t H = j->hidden;
    struct C(tile) tiles[TILES];
    for (int64_t first = 0, count; (count = C(cut)(tiles, first, from, to, PART_TALL)) > 0; first += count) {
        for (int64_t i = 0; i < count; i++)
            for (int m = 0; m < tiles[i].rows; m++)
                C(begin)(j, u, C(input_row)(j, t, tiles[i].b + m), tiles + i, m);
        for (int part = 0; part < PARTS; part++) {
            for (int64_t i = 0; i < count; i++)
                for (int m = 0; m < tiles[i].rows; m++)
                    tiles[i].from[m] = C(h_before)(j, t, tiles[i].b + m);
            C(multiply)(tiles, count, H, panel + part * H * PART_WIDE * LONG_, PART_WIDE, part);
        }
        for (int64_t i = 0; i < count; i++)
            C(finish)(j, t, u, tiles + i);
    }
}

/* Step t of lane b alone at BESIDE panels of units at once. */
static void C(forward_alone)(const struct layer *j, int64_t t, int64_t b, int64_t u, const REAL *panel)
{
    const int64_t H = j->hidden, wide = UNITS * LONG_;
    struct C(tile) tiles[BESIDE];
    VEC *sums[BESIDE * PARTS];
UNROLL(2)
    for (int i = 0; i < BESIDE; i++) {
        tiles[i].b = b, tiles[i].rows = 1;
        C(begin)(j, u + i * wide, C(input_row)(j, t, b), tiles + i, 0);
        for (int part = 0; part < PARTS; part++)
            sums[i * PARTS + part] = tiles[i].acc + part * SUMS;
    }
    N(expanded_beside)(BESIDE * PARTS, PART_WIDE, H, panel, H * PART_WIDE * LONG_, C(h_before)(j, t, b), sums);
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
    N(store)(grad, dh - dh * y * y, n);
#else
    const REAL *gates = (const REAL *)j->gates + row * CELL * H + u;
    REAL *carry = (REAL *)j->carry + b * H + u;
#if CELL == GRU
    VEC r = N(load)(gates, n), z = N(load)(gates + H, n), fresh = N(load)(gates + 2 * H, n);
    VEC n_h = N(load)((const REAL *)j->extra + row * H + u, n), h = N(load)(C(h_before)(j, t, b) + u, n);
    VEC dn = (dh - dh * z) * ((REAL)1 - fresh * fresh);
    N(store)(grad, dn * r, n);
    N(store)(grad + H, dn * n_h * r * ((REAL)1 - r), n);
    N(store)(grad + 2 * H, dh * (h - fresh) * z * ((REAL)1 - z), n);
    N(store)(grad + 3 * H, dn, n);
    N(store)(carry, dh * z, n);
#else
    VEC i = N(load)(gates, n), f = N(load)(gates + H, n), g = N(load)(gates + 2 * H, n), o = N(load)(gates + 3 * H, n);
    VEC y = N(load)((const REAL *)j->y + row * H + u, n), c_before = N(load)(C(c_before)(j, t, b) + u, n);
    VEC dc = N(load)(carry, n) + dh * (o - y * (y / o)); /* y / o is tanh(c), and o cannot be zero */
    N(store)(grad, dc * g * i * ((REAL)1 - i), n);
    N(store)(grad + H, dc * c_before * f * ((REAL)1 - f), n);
    N(store)(grad + 2 * H, dc * i * ((REAL)1 - g * g), n);
    N(store)(grad + 3 * H, dh * y * ((REAL)1 - o), n);
    N(store)(carry, dc * f, n);
#endif
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
                tiles[i].from[m] = (const REAL *)j->gates_grad + ((t + 1) * j->lanes + tiles[i].b + m) * STRIDE * H;
UNROLL(4)
                for (int v = 0; v < BACK_WIDE; v++)
                    tiles[i].acc[m * BACK_WIDE + v] = (VEC){0};
            }
        if (t + 1 < j->steps)
            C(multiply)(tiles, count, CELL * H, panel, BACK_WIDE, 0);
        for (int64_t i = 0; i < count; i++)
            for (int m = 0; m < tiles[i].rows; m++)
UNROLL(4)
                for (int v = 0; v < BACK_WIDE; v++)
                    C(end_back)(j, t, tiles[i].b + m, u + v * LONG_, tiles[i].acc[m * BACK_WIDE + v]);
    }
}

/* Panel p of W_hh for the way forward: [part][k][gate][unit]; for the way back: [gate unit][unit]. */
static void C(pack)(const struct layer *j, int64_t p, REAL *to, int back)
{
    const int64_t H = j->hidden;
    const REAL *weight = j->weight;
    if (back) {
        const int64_t wide = BACK_WIDE * LONG_, u = p * wide;
        for (int64_t k = 0; k < CELL * H; k++, to += wide) {
            const REAL *row = weight + (CELL == GRU ? (k < H ? 2 * H + k : k - H) : k) * H + u;
            for (int64_t i = 0; i < wide; i++)
                to[i] = u + i < H ? row[i] : 0;
        }
        return;
    }
    const int64_t wide = UNITS * LONG_, u = p * wide, some = 64 / (int64_t)sizeof(REAL); /* columns in a cache line */
    for (int64_t first = 0; first < H; first += some) { /* a few at a time, so that what is written stays in the cache */
        const int64_t last = first + some < H ? first + some : H;
        for (int64_t g = 0; g < CELL; g++) {
            REAL *part = to + g / PART_GATES * H * PART_WIDE * LONG_ + g % PART_GATES * wide;
            for (int64_t i = 0; i < wide; i++) {
                const REAL *row = weight + (g * H + u + i) * H;
                for (int64_t k = first; k < last; k++)
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
    const int64_t size = back ? CELL * H * wide : H * WIDE * LONG_;
    REAL *packed = (REAL *)j->packed + (H + LONG_ - 1) / LONG_ * LONG_;
    int64_t p_from, p_to, b_from = 0, b_to = j->lanes;
    share(panels, me, team->size, &p_from, &p_to);
    for (int64_t p = p_from; p < p_to; p++)
        C(pack)(j, p, packed + p * size, back);
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
