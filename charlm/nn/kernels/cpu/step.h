/* One step of a layer for generation, at some panels and lanes; `x` is the layer below, whose product with the packed
   `weights` is added, or NULL where the gates' input part is a table's row. The GRU keeps that part in `gates`. */
static void C(one_step)(const struct layer *j, const REAL *x, const REAL *weights, const REAL *bias, REAL *gates,
                        const int64_t *panels, const int64_t *lanes)
{
    const int64_t H = j->hidden, size = H * WIDE * LONG_;
    const REAL *packed = (const REAL *)j->packed + (H + LONG_ - 1) / LONG_ * LONG_;
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
                C(multiply)(tiles, count, H, weights + p * size, WIDE, 0);
            for (int64_t i = 0; i < count; i++)
                for (int m = 0; m < tiles[i].rows; m++) {
                    tiles[i].from[m] = C(h_before)(j, 0, tiles[i].b + m);
                    if (CELL == GRU) { /* r scales the state's part of the candidate alone */
                        VEC *n = tiles[i].acc + m * WIDE + 2;
                        N(store)(gates + ((tiles[i].b + m) * CELL + 2) * H + u, *n, H - u);
                        *n = j->bias_n ? N(load)((const REAL *)j->bias_n + u, H - u) : (VEC){0};
                    }
                }
            C(multiply)(tiles, count, H, packed + p * size, WIDE, 0);
            for (int64_t i = 0; i < count; i++)
                for (int m = 0; m < tiles[i].rows; m++)
                    for (int v = 0; v < UNITS; v++)
                        C(formula)(j, 0, tiles[i].b + m, u + v * LONG_, H - u - v * LONG_,
                                   gates + (tiles[i].b + m) * CELL * H, tiles[i].acc + m * WIDE + v);
        }
    }
}
