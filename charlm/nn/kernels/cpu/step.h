/* One step of a layer for generation, at some panels and lanes. */

/* The products of some tiles with panel p of packed weights, whatever their bits. */
INLINE void C(multiply_packed)(struct C(tile) *tiles, int64_t count, int64_t depth, const struct weights *weights, int64_t p)
{
    const int64_t wide = WIDE * LONG_, size = depth * wide, bits = weights->bits, some = BLOCK / wide;
    if (bits == 32) {
        C(multiply)(tiles, count, depth, (const REAL *)weights->panels + p * size, WIDE, 0, 0);
        return;
    }
    const char *panel = (const char *)weights->panels + p * size * bits / 8;
    const float *scales = weights->scales + p * wide;
    if (count == 1 && tiles->rows <= FEW) {
        products_few[bits == 16][WIDE][tiles->rows](depth, panel, scales, tiles->from, tiles->acc);
        return;
    }
    float block[BLOCK] __attribute__((aligned(64)));
    for (int64_t k = 0; k < depth; k += some) {
        const int64_t now = depth - k < some ? depth - k : some;
        widen(bits, now, WIDE, panel + k * wide * bits / 8, scales, block);
        for (int64_t i = 0; i < count; i++) {
            N(products)[WIDE][tiles[i].rows](now, block, tiles[i].from, tiles[i].acc);
            for (int m = 0; m < tiles[i].rows; m++)
                tiles[i].from[m] += now;
        }
    }
}

/* `x` is the layer below, whose product with the weights `below` is added, or NULL where the gates' input part is a table's
   row. The GRU keeps that part in `gates`. */
static void C(one_step)(const struct layer *j, const REAL *x, const struct weights *below, const struct weights *recurrent,
                        const REAL *bias, REAL *gates, const int64_t *panels, const int64_t *lanes)
{
    const int64_t H = j->hidden;
    struct C(tile) tiles[TILES];
    for (int64_t p = panels[0]; p < panels[1]; p++) {
        const int64_t u = p * UNITS * LONG_;
        for (int64_t first = 0, count; (count = C(cut)(tiles, first, lanes[0], lanes[1], TALL)) > 0; first += count) {
            for (int64_t i = 0; i < count; i++)
                for (int m = 0; m < tiles[i].rows; m++) {
                    const REAL *start = x ? bias : C(input_row)(j, 0, tiles[i].b + m);
                    for (int k = 0; k < WIDE; k++) {
                        const int64_t at = u + k % UNITS * LONG_;
                        tiles[i].acc[m * WIDE + k] = start ? N(load)(start + k / UNITS * H + at, H - at) : (VEC){0};
                    }
                    tiles[i].from[m] = x ? x + (tiles[i].b + m) * H : NULL;
                }
            if (x)
                C(multiply_packed)(tiles, count, H, below, p);
            for (int64_t i = 0; i < count; i++)
                for (int m = 0; m < tiles[i].rows; m++) {
                    tiles[i].from[m] = C(h_before)(j, 0, tiles[i].b + m);
                    if (CELL == GRU) { /* r scales the state's part of the candidate alone */
                        VEC *n = tiles[i].acc + m * WIDE + 2;
                        N(store)(gates + ((tiles[i].b + m) * CELL + 2) * H + u, *n, H - u);
                        *n = j->bias_n ? N(load)((const REAL *)j->bias_n + u, H - u) : (VEC){0};
                    }
                }
            C(multiply_packed)(tiles, count, H, recurrent, p);
            for (int64_t i = 0; i < count; i++)
                for (int m = 0; m < tiles[i].rows; m++)
                    for (int v = 0; v < UNITS; v++)
                        C(formula)(j, 0, tiles[i].b + m, u + v * LONG_, H - u - v * LONG_,
                                   gates + (tiles[i].b + m) * CELL * H, tiles[i].acc + m * WIDE + v);
        }
    }
}
