/* Attention over the last places, as charlm/nn/look_back.py defines it: shares of the places by the softmax of their
   scores, the mass that they give to the symbols that followed them, and the way back. Scores lie [place][step], so that
   one vector has a place's scores at many steps: all have one follower, and the same characters before them, so that
   nothing is gathered or scattered number by number. */

#define LEAST ((REAL)1e-30) /* a probability that float32 still holds */

/* Room of a thread: for the product, the scores of one lane, and rows of T numbers for each symbol and a few more. */
static int64_t N(look_room)(const struct look *s)
{
    const int64_t scores = s->shares ? 0 : (s->places + s->steps) * s->steps;
    return (N(product_room)() + scores + (2 * s->symbols + 6) * s->steps + 4 * LONG_ + 15) / 16 * 16;
}

/* Where the character at place 0 of a lane stands; N - 1 stand before it. */
INLINE const int64_t *N(ids_of)(const struct look *s, int64_t b)
{
    return s->ids + b * (s->places + s->steps + s->characters - 1) + s->characters - 1;
}

/* The follower of a place where both are known characters, else -1. `ids` points at that of place 0. */
INLINE int64_t N(follower)(const int64_t *ids, int64_t place) { return ids[place] < 0 ? -1 : ids[place + 1]; }

/* Where the last N characters at a place begin in a table [N, V + 1, T]: rows[n] is that of the character n places
   before, row V where none is known since the last reset. */
INLINE void N(rows_at)(const struct look *s, const int64_t *ids, const int64_t *first, int64_t place, int64_t *rows)
{
    const int64_t begin = first && place >= s->places ? first[place - s->places] : 1 - s->characters;
    for (int64_t n = 0; n < s->characters; n++) {
        const int64_t id = place - n >= begin ? ids[place - n] : -1;
        rows[n] = (n * (s->symbols + 1) + (id < 0 ? s->symbols : id)) * s->steps;
    }
}

/* The first place that each of some steps can see: after the last reset, and none where the text repeats itself. Returns
   `first`, or NULL where all can be seen. */
static const int64_t *N(first_seen)(const struct look *s, int64_t b, int64_t from, int64_t to, int64_t *first)
{
    const int64_t *ids = N(ids_of)(s, b), most = s->places + s->characters;
    int some = 0;
    for (int64_t t = from; t < to; t++) {
        const int64_t at = s->places + t, begin = s->first ? s->first[b * s->steps + t] : 0;
        const int64_t there = at - begin + (begin ? 1 : s->characters);
        first[t - from] = repeats(ids + at, there < most ? there : most, -1) ? at : begin;
        some |= first[t - from] != 0;
    }
    return some ? first : NULL;
}

/* Scores of places before the first one that is seen are replaced. */
INLINE VEC N(seen)(VEC x, const int64_t *first, int64_t place, int64_t n)
{
    for (int64_t i = 0; i < LONG_ && i < n; i++)
        if (place < first[i])
            x[i] = (REAL)-1e9;
    return x;
}

/* The scores of one lane's steps `from` to `to` become shares; adds them to their followers. [S, T'] in `shares`. */
static void N(look_shares)(const struct look *s, int64_t b, int64_t from, int64_t to, REAL *shares, REAL *mass, REAL *most,
                           REAL *sum, const int64_t *first)
{
    const int64_t T = to - from, S = s->places + s->steps;
    const int64_t *ids = N(ids_of)(s, b), *begins = s->first ? s->first + b * s->steps : NULL;
    const REAL *table = (const REAL *)s->table + b * s->characters * (s->symbols + 1) * s->steps + from;
    const REAL *own = (const REAL *)s->own + b * s->steps + from;
    for (int64_t t = 0; t < T; t++)
        most[t] = own[t];
    for (int64_t place = 0; place + 1 < S; place++) {
        if (N(follower)(ids, place) < 0)
            continue;
        REAL *row = shares + place * T;
        const REAL *bias = (const REAL *)s->bias + (S - place + from);
        int64_t rows[MOST_CHARACTERS];
        N(rows_at)(s, ids, begins, place, rows);
        for (int64_t t = 0; t < T; t += LONG_) {
            VEC x = N(load)(row + t, T - t) + N(load)(bias + t, T - t);
            for (int64_t n = 0; n < s->characters; n++)
                x += N(load)(table + rows[n] + t, T - t);
            if (first)
                x = N(seen)(x, first + t, place, T - t);
            VEC old = N(load)(most + t, T - t);
            N(whole) above = x > old;
            N(store)(most + t, (VEC)(((N(whole))x & above) | ((N(whole))old & ~above)), T - t);
            N(store)(row + t, x, T - t);
        }
    }
    for (int64_t t = 0; t < T; t += LONG_) {
        VEC e = N(exp)(N(load)(own + t, T - t) - N(load)(most + t, T - t), 1);
        N(store)(sum + t, e, T - t);
        N(store)(mass + s->symbols * T + t, e, T - t);
    }
    for (int64_t i = 0; i < s->symbols * T; i++)
        mass[i] = 0;
    for (int64_t place = 0; place < S; place++) {
        const int64_t next = place + 1 < S ? N(follower)(ids, place) : -1;
        REAL *row = shares + place * T, *to_mass = mass + next * T;
        for (int64_t t = 0; t < T; t += LONG_) {
            VEC e = {0};
            if (next >= 0) {
                const VEC x = N(load)(row + t, T - t) - N(load)(most + t, T - t);
                e = (VEC)((N(whole))N(exp)(x, 1) & ~(x <= (REAL)-EXP_MOST)) ; /* NaN stays NaN */
                N(store)(to_mass + t, N(load)(to_mass + t, T - t) + e, T - t);
                N(store)(sum + t, N(load)(sum + t, T - t) + e, T - t);
            }
            N(store)(row + t, e, T - t);
        }
    }
    for (int64_t t = 0; t < T; t++)
        sum[t] = 1 / sum[t];
    for (int64_t i = 0; i < s->symbols + 1; i++)
        for (int64_t t = 0; t < T; t += LONG_)
            N(store)(mass + i * T + t, N(load)(mass + i * T + t, T - t) * N(load)(sum + t, T - t), T - t);
}

static void N(look_product)(int64_t rows, int64_t columns, int64_t depth, const REAL *left, int64_t left_row,
                            int64_t left_step, const REAL *right, int64_t right_step, int64_t right_column, REAL *out,
                            REAL *room)
{
    struct team one = {.size = 1};
    struct product p = {.rows = rows, .columns = columns, .depth = depth, .left = left, .left_row = left_row,
                        .left_step = left_step, .right = right, .right_step = right_step, .right_column = right_column,
                        .out = out, .room = room};
    N(product_part)(&p, 0, &one);
}

/* Some steps of one lane: out = ln(own share * e^logp + mass). The mass and the own share stay in `mass`, [V + 1, T']. */
static void N(look_lane)(const struct look *s, int64_t b, int64_t from, int64_t to, REAL *room)
{
    const int64_t T = to - from, S = s->places + s->steps, K = s->width, V = s->symbols;
    REAL *more = room + N(product_room)();
    int64_t *first = (int64_t *)more; /* before the numbers, for its alignment */
    more += 2 * s->steps;
    REAL *mass = more, *most = more + (V + 1) * T, *sum = most + T, *shares = more + (2 * V + 4) * s->steps;
    if (s->shares) {
        shares = (REAL *)s->shares + b * S * T;
        mass = (REAL *)s->mass + b * (V + 1) * T;
    }
    const REAL *keys = (const REAL *)s->keys + b * S * K, *query = (const REAL *)s->query + (b * s->steps + from) * K;
    N(look_product)(S, T, K, keys, K, 1, query, 1, K, shares, room);
    N(look_shares)(s, b, from, to, shares, mass, most, sum, N(first_seen)(s, b, from, to, first));
    if (s->shares)
        for (int64_t place = 0; place < S; place++)
            for (int64_t t = 0; t < T; t += LONG_)
                N(store)(shares + place * T + t, N(load)(shares + place * T + t, T - t) * N(load)(sum + t, T - t), T - t);
    for (int64_t t = 0; t < T; t++) {
        const REAL *logp = (const REAL *)s->logp + ((from + t) * s->lanes + b) * V, own = mass[V * T + t];
        REAL *out = (REAL *)s->out + ((from + t) * s->lanes + b) * V;
        for (int64_t v = 0; v < V; v += LONG_)
            N(store)(out + v, own * N(exp)(N(load)(logp + v, V - v), 1), V - v);
        for (int64_t v = 0; v < V; v++) {
            const REAL copied = mass[v * T + t];
            out[v] = (REAL)log(out[v] + (copied > LEAST ? copied : LEAST));
        }
    }
}

static void N(look_part)(void *data, int me, struct team *team)
{
    const struct look *s = data;
    REAL *room = (REAL *)s->room + me * N(look_room)(s);
    const int64_t parts = s->shares || !s->lanes || s->lanes >= team->size ? 1 : (team->size + s->lanes - 1) / s->lanes;
    int64_t from, to;
    share(s->lanes * parts, me, team->size, &from, &to);
    for (; from < to; from++) {
        int64_t begin, end;
        share(s->steps, (int)(from % parts), (int)parts, &begin, &end);
        if (begin < end)
            N(look_lane)(s, from / parts, begin, end, room);
    }
}

/* The way back of one lane. With g the gradient of out, p = e^out and a = g / p, a share's gradient is the a of its
   follower, and a score's is share * (a - the mean of all a by their shares). */
static void N(look_lane_back)(const struct look *s, int64_t b, REAL *room)
{
    const int64_t T = s->steps, S = s->places + T, K = s->width, V = s->symbols, line = S + T;
    REAL *a = room + N(product_room)(), *mean = a + V * T, *down = mean + T;
    REAL *shares = (REAL *)s->shares + b * S * T, *bias_grad = (REAL *)s->bias_grad + b * line;
    const REAL *mass = (const REAL *)s->mass + b * (V + 1) * T, *own = mass + V * T;
    for (int64_t t = 0; t < T; t++) {
        const int64_t at = (t * s->lanes + b) * V;
        const REAL *out = (const REAL *)s->out + at, *logp = (const REAL *)s->logp + at, *grad = (const REAL *)s->grad + at;
        REAL *logp_grad = (REAL *)s->logp_grad + at, to_own = 0, all = 0;
        for (int64_t v = 0; v < V; v += LONG_) {
            const VEC x = N(load)(grad + v, V - v) * N(exp)(N(load)(out + v, V - v), -1);
            const VEC p = N(exp)(N(load)(logp + v, V - v), 1);
            N(store)(logp_grad + v, x * p * own[t], V - v);
            for (int64_t i = 0; i < LONG_ && v + i < V; i++) {
                const REAL copied = mass[(v + i) * T + t];
                a[(v + i) * T + t] = copied > LEAST ? x[i] : 0;
                to_own += x[i] * p[i];
                all += a[(v + i) * T + t] * copied;
            }
        }
        down[t] = to_own;
        mean[t] = all + own[t] * to_own;
        ((REAL *)s->own_grad)[b * T + t] = own[t] * (to_own - mean[t]);
    }
    for (int64_t i = 0; i < line; i++)
        bias_grad[i] = 0;
    const int64_t *ids = N(ids_of)(s, b), *first = s->first ? s->first + b * T : NULL;
    REAL *table_grad = (REAL *)s->table_grad + b * s->characters * (V + 1) * T;
    for (int64_t i = 0; i < s->characters * (V + 1) * T; i++)
        table_grad[i] = 0;
    for (int64_t place = 0; place + 1 < S; place++) {
        const int64_t next = N(follower)(ids, place);
        if (next < 0)
            continue; /* its shares are zeros */
        REAL *row = shares + place * T, *bias = bias_grad + (S - place);
        int64_t rows[MOST_CHARACTERS];
        N(rows_at)(s, ids, first, place, rows);
        for (int64_t t = 0; t < T; t += LONG_) {
            const VEC x = N(load)(row + t, T - t) * (N(load)(a + next * T + t, T - t) - N(load)(mean + t, T - t));
            N(store)(row + t, x, T - t);
            N(store)(bias + t, N(load)(bias + t, T - t) + x, T - t);
            for (int64_t n = 0; n < s->characters; n++) {
                REAL *to = table_grad + rows[n] + t;
                N(store)(to, N(load)(to, T - t) + x, T - t);
            }
        }
    }
    const REAL *keys = (const REAL *)s->keys + b * S * K, *query = (const REAL *)s->query + b * T * K;
    const int64_t old = s->old_keys ? 0 : s->places, rows = S - old;
    N(look_product)(T, K, S, shares, 1, T, keys, K, 1, (REAL *)s->query_grad + b * T * K, room);
    N(look_product)(rows, K, T, shares + old * T, T, 1, query, K, 1, (REAL *)s->keys_grad + b * rows * K, room);
}

static void N(look_back_part)(void *data, int me, struct team *team)
{
    const struct look *s = data;
    int64_t from, to;
    share(s->lanes, me, team->size, &from, &to);
    for (; from < to; from++)
        N(look_lane_back)(s, from, (REAL *)s->room + me * N(look_room)(s));
}

EXPORT void EXPORTED(N(look))(struct look *s) { together(N(look_part), s, s->threads); }

EXPORT void EXPORTED(N(look_grad))(struct look *s) { together(N(look_back_part), s, s->threads); }

/* Numbers of room that a thread needs. */
EXPORT int64_t EXPORTED(N(look_room))(const struct look *s) { return N(look_room)(s); }
