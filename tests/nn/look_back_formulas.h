/* Attention over the last places and generation that looks back, against their formulas in plain C; a part of formulas.c. */

enum { CHARACTERS = 3, KEY = 5, SOME_SYMBOLS = 21 };

/* What goes into one call, what comes out of it, and the weights of its sum; as in `struct look`, in double. */
struct looking {
    double keys[MOST], query[MOST], table[MOST], own[MOST], bias[MOST], logp[MOST], out[MOST], weight[MOST];
    int64_t ids[MOST], first[MOST];
};

static const int64_t *ids_of_lane(const struct look *s, const struct looking *a, int64_t b)
{
    return a->ids + b * (CHARACTERS - 1 + s->places + s->steps) + CHARACTERS - 1;
}

/* Steps at which the text repeated itself: of layers, and of generation. */
static int64_t loops_met[2];

/* Whether the text that ends with `last` repeats itself, in which nothing is looked back on. */
static int in_a_loop(const int64_t *last, int64_t characters, int64_t unknown)
{
    for (int64_t period = 1; period <= 256; period++) {
        const int64_t needed = period < 12 ? 12 : period;
        int64_t same = 0;
        for (int64_t i = 0; i < needed && needed + period <= characters; i++)
            same += last[-i] != unknown && last[-i] == last[-i - period];
        if (same == needed)
            return 1;
    }
    return 0;
}

static int step_in_a_loop(const struct look *s, const struct looking *a, int64_t b, int64_t t)
{
    const int64_t at = s->places + t, begin = s->first ? a->first[b * s->steps + t] : 1 - CHARACTERS;
    const int64_t known = at - begin + 1, most = s->places + CHARACTERS;
    return in_a_loop(ids_of_lane(s, a, b) + at, known < most ? known : most, -1);
}

/* The score of a place at a step; 0 in `seen` where it is not looked at. */
static double score(const struct look *s, const struct looking *a, int64_t b, int64_t t, int64_t place, int *seen)
{
    const int64_t M = s->places, S = M + s->steps, distance = M + t - place, *ids = ids_of_lane(s, a, b);
    const int64_t forgotten = s->first && place >= M ? a->first[b * s->steps + place - M] : -99;
    double sum = a->bias[distance + s->steps];
    *seen = distance >= 1 && distance <= M && ids[place] >= 0 && ids[place + 1] >= 0;
    *seen = *seen && !(s->first && place < a->first[b * s->steps + t]);
    for (int k = 0; k < KEY; k++)
        sum += a->query[(b * s->steps + t) * KEY + k] * a->keys[(b * S + place) * KEY + k];
    for (int n = 0; n < CHARACTERS; n++) {
        const int64_t id = place - n >= forgotten && ids[place - n] >= 0 ? ids[place - n] : SOME_SYMBOLS;
        sum += a->table[((b * CHARACTERS + n) * (SOME_SYMBOLS + 1) + id) * s->steps + t];
    }
    return sum;
}

/* All log-probabilities; returns their sum with the weights. */
static double looked(const struct look *s, struct looking *a)
{
    double loss = 0;
    for (int64_t b = 0; b < s->lanes; b++)
        for (int64_t t = 0; t < s->steps; t++) {
            double mass[SOME_SYMBOLS] = {0}, own = exp(a->own[b * s->steps + t]), all = own;
            const int alone = step_in_a_loop(s, a, b, t);
            loops_met[0] += alone;
            for (int64_t place = 0; place < s->places + t && !alone; place++) {
                int seen;
                const double e = exp(score(s, a, b, t, place, &seen));
                if (seen)
                    mass[ids_of_lane(s, a, b)[place + 1]] += e, all += e;
            }
            for (int64_t v = 0, at = (t * s->lanes + b) * SOME_SYMBOLS; v < SOME_SYMBOLS; v++) {
                a->out[at + v] = log((own * exp(a->logp[at + v]) + mass[v]) / all + (mass[v] > 0 ? 0 : 1e-30));
                loss += a->out[at + v] * a->weight[at + v];
            }
        }
    return loss;
}

static double number_at(const void *from, int64_t at, int single)
{
    return single ? ((const float *)from)[at] : ((const double *)from)[at];
}

/* Places at random, every fifth character unknown, now and then 30 that repeat those up to 8 before; a reset before every
   tenth step where there are any. */
static void draw_places(const struct look *s, struct looking *a)
{
    double *all[] = {a->keys, a->query, a->table, a->own, a->bias, a->logp, a->weight};
    for (int k = 0; k < 7; k++)
        for (int i = 0; i < MOST; i++)
            all[k][i] = random_number();
    for (int i = 0; i < MOST; i++)
        a->logp[i] -= 3, a->ids[i] = rand() % 5 ? rand() % SOME_SYMBOLS : -1;
    for (int begin = 8; begin + 30 <= MOST; begin += 31 + rand() % 30)
        for (int i = 0, period = 1 + rand() % 8; i < 30; i++)
            a->ids[begin + i] = a->ids[begin + i - period];
    for (int64_t b = 0; b < s->lanes; b++)
        for (int64_t t = 0, first = 1 - CHARACTERS; t < s->steps; t++) {
            first = rand() % 10 ? first : s->places + t;
            a->first[b * s->steps + t] = first;
        }
    for (int64_t i = 0; i < s->places + 2 * s->steps; i++) /* distances that no step looks at */
        if (i <= s->steps || i > s->steps + s->places)
            a->bias[i] = -1e9;
}

/* The largest differences of one shape: of outputs in both precisions, with and without shares; of float64 gradients from
   central differences; of float32 gradients from those in float64. */
static void test_looking(int64_t T, int64_t B, int64_t M, int resets, int64_t threads, double *worst)
{
    static struct looking a;
    struct look s = {.steps = T, .lanes = B, .places = M, .width = KEY, .characters = CHARACTERS, .symbols = SOME_SYMBOLS,
                     .threads = threads, .old_keys = resets, .ids = a.ids, .first = resets ? a.first : NULL};
    draw_places(&s, &a);
    looked(&s, &a);
    const int64_t S = M + T, outputs = T * B * SOME_SYMBOLS, table = B * CHARACTERS * (SOME_SYMBOLS + 1) * T;
    const int64_t counts[] = {outputs, B * T, B * T * KEY, table, S + T, B * (s.old_keys ? S : T) * KEY};
    void *found[2][6], **grads[] = {&s.logp_grad, &s.own_grad, &s.query_grad, &s.table_grad, &s.bias_grad, &s.keys_grad};
    for (int single = 1; single >= 0; single--) {
        s.keys = room_of(a.keys, B * S * KEY, single), s.query = room_of(a.query, B * T * KEY, single);
        s.table = room_of(a.table, table, single), s.own = room_of(a.own, B * T, single);
        s.bias = room_of(a.bias, S + T, single), s.logp = room_of(a.logp, outputs, single);
        s.out = room_of(NULL, outputs, single), s.grad = room_of(a.weight, outputs, single);
        for (int keep = 0; keep < 2; keep++) {
            s.shares = keep ? room_of(NULL, B * S * T, single) : NULL;
            s.mass = keep ? room_of(NULL, B * (SOME_SYMBOLS + 1) * T, single) : NULL;
            s.room = room_of(NULL, threads * (single ? look_room_f32(&s) : look_room_f64(&s)), single);
            single ? EXPORTED(look_f32)(&s) : EXPORTED(look_f64)(&s);
            for (int64_t i = 0; i < outputs; i++)
                worst[1 - single] = fmax(worst[1 - single], fabs(number_at(s.out, i, single) - a.out[i]));
        }
        for (int k = 0; k < 6; k++)
            found[single][k] = *grads[k] = room_of(NULL, counts[k] * (k == 4 ? B : 1), single);
        single ? EXPORTED(look_grad_f32)(&s) : EXPORTED(look_grad_f64)(&s);
    }
    double *into[] = {a.logp, a.own, a.query, a.table, a.bias, a.keys};
    for (int k = 0; k < 6; k++) {
        for (int64_t i = 0; i < counts[k] * (k == 4 ? B : 1); i++)
            worst[3] = fmax(worst[3], fabs(number_at(found[1][k], i, 1) - number_at(found[0][k], i, 0)));
        for (int times = 0; times < 20; times++) {
            const int64_t at = rand() % counts[k], row = at / (T * KEY); /* of the keys of these steps alone: of lane `row` */
            double *place = into[k] + (k == 5 && !s.old_keys ? at + (row + 1) * M * KEY : at), sides[2], sum = 0;
            const double before = *place;
            for (int side = 0; side < 2; side++) {
                *place = before + (side ? -1e-5 : 1e-5);
                sides[side] = looked(&s, &a);
            }
            *place = before;
            for (int64_t b = 0; b < (k == 4 ? B : 1); b++)
                sum += number_at(found[0][k], at + b * counts[k], 0);
            worst[2] = fmax(worst[2], fabs((sides[0] - sides[1]) / 2e-5 - sum));
        }
    }
}

/* A simple recurrent layer that looks back; all in double, and per lane the outputs and characters since the beginning. */
enum { UNITS_HERE = 11, EMBEDDED = 4, LOOKED = 13, STEPS_HERE = 60, LANES_HERE = 7, OUTPUTS = SOME_SYMBOLS + 2 * KEY + 1 };

struct talker {
    double rows[SOME_SYMBOLS + 1][UNITS_HERE], recurrent[UNITS_HERE][UNITS_HERE], head[OUTPUTS][UNITS_HERE], bias[OUTPUTS];
    double query[CHARACTERS][SOME_SYMBOLS + 1][EMBEDDED], key[CHARACTERS][SOME_SYMBOLS + 1][EMBEDDED], distance[LOOKED];
    double keys[LANES_HERE][LOOKED + STEPS_HERE][KEY], h[LANES_HERE][UNITS_HERE];
    int64_t ids[LANES_HERE][CHARACTERS - 1 + LOOKED + STEPS_HERE + 1];
};

/* One step of one lane, whose character is read at place M + t: log-probabilities of the next one. */
static void talk(struct talker *a, int64_t b, int64_t t, double *logp)
{
    double fresh[UNITS_HERE], x[OUTPUTS], mass[SOME_SYMBOLS] = {0}, sum = 0;
    const int64_t *ids = a->ids[b] + CHARACTERS - 1, now = LOOKED + t;
    for (int u = 0; u < UNITS_HERE; u++) {
        fresh[u] = a->rows[ids[now]][u];
        for (int k = 0; k < UNITS_HERE; k++)
            fresh[u] += a->recurrent[u][k] * a->h[b][k];
        fresh[u] = tanh(fresh[u]);
    }
    memcpy(a->h[b], fresh, sizeof fresh);
    for (int o = 0; o < OUTPUTS; o++) {
        x[o] = a->bias[o];
        for (int u = 0; u < UNITS_HERE; u++)
            x[o] += a->head[o][u] * fresh[u];
    }
    memcpy(a->keys[b][now], x + SOME_SYMBOLS + KEY, sizeof a->keys[b][now]);
    const double own = exp(x[OUTPUTS - 1]);
    double all = own;
    const int alone = in_a_loop(ids + now, LOOKED + CHARACTERS, SOME_SYMBOLS);
    loops_met[1] += alone;
    for (int64_t i = t; i < now && !alone; i++) {
        double score = a->distance[i - t];
        for (int k = 0; k < KEY; k++)
            score += x[SOME_SYMBOLS + k] * a->keys[b][i][k];
        for (int n = 0; n < CHARACTERS; n++)
            for (int e = 0; e < EMBEDDED; e++)
                score += a->query[n][ids[now - n]][e] * a->key[n][ids[i - n]][e];
        if (ids[i] < SOME_SYMBOLS && ids[i + 1] < SOME_SYMBOLS)
            mass[ids[i + 1]] += exp(score), all += exp(score);
    }
    for (int v = 0; v < SOME_SYMBOLS; v++)
        sum += exp(x[v]);
    for (int v = 0; v < SOME_SYMBOLS; v++)
        logp[v] = log((own * exp(x[v]) / sum + mass[v]) / all);
}

/* Rows of a matrix in panels of `wide`, [panel][column][row], as float32. */
static float *panels_of(const double *rows, int64_t count, int64_t columns, int64_t wide)
{
    float *to = room_of(NULL, (count + wide - 1) / wide * wide * columns, 1);
    for (int64_t r = 0; r < count; r++)
        for (int64_t k = 0; k < columns; k++)
            to[(r / wide * columns + k) * wide + r % wide] = (float)rows[r * columns + k];
    return to;
}

/* The largest error of the log-probabilities of the most probable characters, which are read in turn, and of the keys that
   are kept; 1 where another character was drawn. There is room for a few places more than are kept, and for a thread as
   much as it needs. */
static double talking(int64_t threads, int64_t by_units, int64_t spare)
{
    enum { KEEP = LOOKED + STEPS_HERE };
    static struct talker a;
    const int64_t V = SOME_SYMBOLS, C = LOOKED + spare, wide = (V + FLOATS) / FLOATS * FLOATS;
    double *all = (double *)&a, worst = 0;
    for (size_t i = 0; i < offsetof(struct talker, ids) / sizeof *all; i++)
        all[i] = 2 * random_number();
    for (int u = 0; u < UNITS_HERE; u++) /* smaller, or what rounding changes would grow from step to step */
        for (int k = 0; k < UNITS_HERE; k++)
            a.recurrent[u][k] /= 4;
    struct generation s = {.cell = RNN, .layers = 1, .hidden = UNITS_HERE, .symbols = V, .lanes = LANES_HERE,
                           .steps = STEPS_HERE, .threads = threads, .by_units = by_units, .top_k = 1, .temperature = 1,
                           .top_p = 1, .places = LOOKED, .keep = C, .key = KEY, .width = EMBEDDED, .characters = CHARACTERS};
    s.back_keys = room_of(NULL, LANES_HERE * KEY * C, 1), s.back_ids = room_of(NULL, LANES_HERE * (CHARACTERS - 1 + C), 1);
    s.ids = room_of(NULL, LANES_HERE, 0), s.ends = room_of(NULL, LANES_HERE, 0);
    for (int64_t b = 0; b < LANES_HERE; b++) {
        for (int64_t i = 0; i < CHARACTERS + LOOKED; i++)
            a.ids[b][i] = b % 2 && i > 4 ? a.ids[b][i - 1 - b / 2] : rand() % 5 ? rand() % V : V;
        for (int64_t i = 0; i < CHARACTERS - 1 + LOOKED; i++)
            s.back_ids[b * (CHARACTERS - 1 + C) + i] = (int32_t)a.ids[b][i];
        for (int64_t i = 0; i < LOOKED * KEY; i++)
            s.back_keys[(b * KEY + i % KEY) * C + i / KEY] = (float)a.keys[b][i / KEY][i % KEY];
        s.ids[b] = a.ids[b][CHARACTERS - 1 + LOOKED] < V ? a.ids[b][CHARACTERS - 1 + LOOKED] : -1;
        s.ends[b] = LOOKED;
    }
    double padded[OUTPUTS + HEAD] = {0};
    memcpy(padded, a.bias, sizeof a.bias);
    struct weights recurrent = {panels_of(a.recurrent[0], UNITS_HERE, UNITS_HERE, 2 * FLOATS), NULL, 32}, below = {0};
    float *h = room_of(a.h[0], LANES_HERE * UNITS_HERE, 1), *h_next = room_of(NULL, LANES_HERE * UNITS_HERE, 1);
    float *key_table = room_of(NULL, CHARACTERS * EMBEDDED * wide, 1);
    for (int64_t n = 0; n < CHARACTERS; n++)
        for (int64_t v = 0; v <= V; v++)
            for (int64_t e = 0; e < EMBEDDED; e++)
                key_table[(n * EMBEDDED + e) * wide + v] = (float)a.key[n][v][e];
    const float *none = NULL;
    s.rows = room_of(a.rows[0], (V + 1) * UNITS_HERE, 1), s.recurrent = &recurrent, s.below = &below;
    s.bias = s.bias_n = &none, s.h = &h, s.h_next = &h_next;
    s.head = panels_of(a.head[0], OUTPUTS, UNITS_HERE, HEAD), s.head_bias = room_of(padded, OUTPUTS + HEAD, 1);
    s.query_table = room_of(a.query[0][0], CHARACTERS * (V + 1) * EMBEDDED, 1), s.key_table = key_table;
    s.distance = room_of(a.distance, LOOKED, 1), s.drawn = room_of(NULL, STEPS_HERE * LANES_HERE, 0);
    s.logp = room_of(NULL, STEPS_HERE * LANES_HERE, 1), s.gates = room_of(NULL, LANES_HERE * UNITS_HERE, 1);
    s.logits = room_of(NULL, LANES_HERE * (OUTPUTS + HEAD), 1), s.weights = room_of(NULL, threads * (2 * V + 16), 0);
    s.heap = room_of(NULL, threads * V, 0);
    s.room = room_of(NULL, threads * (LOOKED + (CHARACTERS + 1) * wide + FLOATS), 1);
    EXPORTED(generate)(&s);
    for (int64_t b = 0; b < LANES_HERE; b++)
        for (int64_t t = 0; t < STEPS_HERE; t++) {
            double logp[SOME_SYMBOLS];
            const int64_t drawn = s.drawn[t * LANES_HERE + b], at = s.ends[b] - (KEEP - t - LOOKED);
            talk(&a, b, t, logp);
            worst = fmax(worst, fabs(logp[drawn] - s.logp[t * LANES_HERE + b]));
            for (int64_t v = 0; v < V; v++)
                worst = logp[v] > logp[drawn] + 1e-5 ? 1 : worst;
            for (int64_t k = 0; k < KEY && t >= STEPS_HERE - LOOKED; k++)
                worst = fmax(worst, fabs(a.keys[b][LOOKED + t][k] - s.back_keys[(b * KEY + k) * C + at]));
            a.ids[b][CHARACTERS - 1 + LOOKED + t + 1] = drawn;
        }
    return worst;
}
