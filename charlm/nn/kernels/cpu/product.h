/* The product of two matrices, for what a layer can do for all steps at once: its input's part of the gates, the gradients
   of its weights and of its input. Blocks of both factors are packed so that they lie in the caches (Goto and van de Geijn
   2008). The threads share the rows, and each packs what it needs, so that none waits for another. */

#define PANEL (2 * LONG_)                        /* columns in a panel of the right factor */
#define DEEP ((int64_t)(2048 / sizeof(REAL)))    /* of K in a block: a tile's rows fit the first cache beside the sums */
#define BROAD (16 * PANEL)                       /* columns in a block, which lies in the second cache */
#define HIGH (5 * (SUMS / 2))                    /* rows in a block */
#define ROOM (DEEP * (BROAD + HIGH) + 4 * LONG_) /* numbers that a thread packs */

/* A panel of the right factor, [k][column], `wide` columns, with zeros behind the last that is there. */
static void N(pack_right)(const REAL *from, int64_t step, int64_t column, int64_t columns, int64_t depth, int64_t wide,
                          REAL *to)
{
    const int64_t line = 64 / (int64_t)sizeof(REAL); /* a few at a time, so that what is written stays in the cache */
    for (int64_t k = 0; k < depth && step != 1; k++)
        for (int64_t i = 0; i < wide; i += LONG_)
            N(store)(to + k * wide + i, N(load)(from + k * step + i, columns - i), LONG_);
    for (int64_t begin = 0; begin < depth && step == 1; begin += line)
        for (int64_t i = 0; i < wide; i++)
            for (int64_t k = begin; k < begin + line && k < depth; k++)
                to[k * wide + i] = i < columns ? from[i * column + k] : 0;
}

#if MANTISSA == 23 && defined(BF16)
/* The same in pairs of two numbers of a column. */
static void pack_right_pairs(const float *from, int64_t step, int64_t column, int64_t columns, int64_t depth, int64_t wide,
                             float *to)
{
    for (int64_t k = 0; k < depth && step != 1; k += 2)
        for (int64_t i = 0; i < wide; i += LONG_) {
            const VEC first = load_f32(from + k * step + i, columns - i);
            const VEC second = k + 1 < depth ? load_f32(from + (k + 1) * step + i, columns - i) : (VEC){0};
            store_f32(to + k / 2 * wide + i, pairs_of(first, second), LONG_);
        }
    for (int64_t i = 0; i < wide && step == 1; i++) {
        float pairs[DEEP] = {0};
        if (i < columns)
            pair_up(from + i * column, depth, pairs);
        for (int64_t k = 0; k < (depth + 1) / 2; k++)
            to[k * wide + i] = pairs[k];
    }
}
#endif

/* Where tile i of some rows begins when they are cut into so many. */
#define CUT(i) (rows * (i) / tiles)

/* A block of the left factor whose columns lie side by side, in tiles of [k][row]. */
static void N(pack_left)(const struct product *p, int64_t m, int64_t rows, int64_t tiles, int64_t k, int64_t depth, REAL *to)
{
    const REAL *from = (const REAL *)p->left + m * p->left_row + k * p->left_step;
    const int64_t step = p->pairs ? 2 : 1, deep = (depth + step - 1) / step;
    for (int64_t s = 0; s < deep; s++, from += step * p->left_step)
        for (int64_t i = 0; i < tiles; i++) {
            const int64_t count = CUT(i + 1) - CUT(i);
            REAL *place = to + CUT(i) * deep + s * count;
            const REAL *end = to + CUT(i + 1) * deep;
            __builtin_prefetch(from + 16 * step * p->left_step + CUT(i)); /* the processor does not foresee so long strides */
            if (step == 2)
                __builtin_prefetch(from + 33 * p->left_step + CUT(i));
            for (int64_t r = 0; r < count; r += LONG_) {
                VEC x = N(load)(from + CUT(i) + r, count - r);
#if MANTISSA == 23 && defined(BF16)
                if (p->pairs)
                    x = pairs_of(x, 2 * s + 1 < depth ? load_f32(from + p->left_step + CUT(i) + r, count - r) : (VEC){0});
#endif
                N(store)(place + r, x, place + r + LONG_ <= end ? LONG_ : count - r); /* the next rows overwrite it */
            }
        }
}

/* Adds the product of a tile with one panel to `out`, or begins it with the bias. */
INLINE void N(multiply_tile)(const struct product *p, int64_t m, int64_t rows, int64_t n, int64_t depth, int begins,
                             const REAL *left, int64_t left_row, int packed, const REAL *panel, const int vectors)
{
    VEC acc[SUMS];
    const REAL *from[SUMS / 2];
    REAL *out = (REAL *)p->out + m * p->columns + n;
    const int64_t some = p->columns - n;
    for (int64_t i = 0; i < rows; i++) {
        from[i] = left + i * left_row;
        for (int v = 0; v < vectors; v++)
            acc[vectors * i + v] = (VEC){0}; /* a sum of its own for each block: a long one is rounded more */
    }
    (packed ? PRODUCTS_PACKED(p->pairs) : PRODUCTS(p->pairs))[vectors][rows](depth, panel, from, acc);
    for (int64_t i = 0; i < rows; i++, out += p->columns) {
        const REAL *start = !begins ? out : p->bias ? (const REAL *)p->bias + n : NULL;
        for (int v = 0; v < vectors; v++) {
            VEC x = acc[vectors * i + v];
            x += start ? N(load)(start + v * LONG_, some - v * LONG_) : (VEC){0};
            N(store)(out + v * LONG_, x, some - v * LONG_);
        }
    }
}

/* The product of a block of rows with a packed block of the right factor. */
static void N(multiply_block)(const struct product *p, int64_t m, int64_t rows, int64_t n, int64_t columns, int64_t k,
                              int64_t depth, const REAL *right, REAL *room)
{
    const int64_t deep = p->pairs ? (depth + 1) / 2 : depth, tiles = (rows + SUMS / 2 - 1) / (SUMS / 2);
    const int packed = p->left_step != 1, direct = !packed && !p->pairs, begins = k == 0 && !p->adding;
    if (packed)
        N(pack_left)(p, m, rows, tiles, k, depth, room);
#if MANTISSA == 23 && defined(BF16)
    for (int64_t i = 0; i < rows && !packed && p->pairs; i++)
        pair_up((const float *)p->left + (m + i) * p->left_row + k, depth, room + i * deep);
#endif
    for (int64_t c = 0; c < columns; c += PANEL)
        for (int64_t i = 0; i < tiles; i++) {
            const int64_t first = CUT(i), count = CUT(i + 1) - first;
            const int64_t left_row = direct ? p->left_row : deep;
            const REAL *left = direct ? (const REAL *)p->left + (m + first) * p->left_row + k : room + first * deep;
            if (columns - c > LONG_)
                N(multiply_tile)(p, m + first, count, n + c, deep, begins, left, left_row, packed, right + c * deep, 2);
            else
                N(multiply_tile)(p, m + first, count, n + c, deep, begins, left, left_row, packed, right + c * deep, 1);
        }
}

/* A block of the right factor in panels; the last has one vector where that is enough. */
static void N(pack_block)(const struct product *p, int64_t n, int64_t columns, int64_t k, int64_t depth, REAL *to)
{
    for (int64_t c = 0; c < columns; c += PANEL) {
        const REAL *from = (const REAL *)p->right + k * p->right_step + (n + c) * p->right_column;
        const int64_t wide = columns - c > LONG_ ? PANEL : LONG_;
#if MANTISSA == 23 && defined(BF16)
        if (p->pairs) {
            pack_right_pairs(from, p->right_step, p->right_column, columns - c, depth, wide, to + c * ((depth + 1) / 2));
            continue;
        }
#endif
        N(pack_right)(from, p->right_step, p->right_column, columns - c, depth, wide, to + c * depth);
    }
}

static void N(product_part)(void *data, int me, struct team *team)
{
    const struct product *p = data;
    const int64_t deepest = p->pairs ? 2 * DEEP : DEEP;
    REAL *right = (REAL *)p->room + me * ROOM;
    int64_t from, to;
    share(p->rows, me, team->size, &from, &to);
    for (int64_t n = 0; n < p->columns && from < to; n += BROAD) {
        const int64_t columns = p->columns - n < BROAD ? p->columns - n : BROAD;
        for (int64_t k = 0; k < p->depth; k += deepest) {
            const int64_t depth = p->depth - k < deepest ? p->depth - k : deepest;
            N(pack_block)(p, n, columns, k, depth, right);
            for (int64_t m = from; m < to; m += HIGH)
                N(multiply_block)(p, m, to - m < HIGH ? to - m : HIGH, n, columns, k, depth, right, right + DEEP * BROAD);
        }
    }
}

EXPORT void EXPORTED(N(product))(struct product *p) { together(N(product_part), p, p->threads); }

/* Numbers of room that a thread needs for a product. */
static int64_t N(product_room)(void) { return ROOM; }

EXPORT int64_t EXPORTED(N(room))(void) { return N(product_room)(); }

#undef PANEL
#undef DEEP
#undef BROAD
#undef HIGH
#undef CUT
#undef ROOM
