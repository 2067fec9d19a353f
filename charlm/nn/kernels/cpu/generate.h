/* Generation on a CPU: a whole chunk of characters in one call, from the ids to the draws. float32 weights; the
   distribution that is drawn from is computed in double. */

#define FLOATS (VECTOR / 4)      /* numbers in a vector */
#define DOUBLES (VECTOR / 8)
#define HEAD (2 * FLOATS)        /* symbols in a panel of the head */
#define HEAD_TALL (SUMS / 2)     /* lanes that fit the registers beside it */

struct generation {
    int64_t cell, layers, hidden, symbols, lanes, steps;
    int64_t threads, by_units;
    int64_t top_k;                 /* 0 keeps all; 1 takes the most probable */
    int64_t gram_rows, recents;    /* R, and N - 1; 0 where strings have no weights */
    int64_t places, keep, key, width, characters; /* M, or 0 where it does not look back; C, K, E and N of `places_at` */
    double temperature, top_p;  /* temperature 0 takes the most probable */
    const float *rows;          /* [V + 1, G H]: layer 0's part of the gates for each symbol, last for an unknown */
    const struct weights *recurrent; /* of each layer: W_hh */
    const struct weights *below;     /* of each layer: W_ih; the first layer has `rows` instead */
    const float **bias;         /* of each layer but the first: [G H] or NULL */
    const float **bias_n;       /* of each layer of a GRU: [H] or NULL */
    const float *head;          /* [panels of HEAD][H][HEAD]: V rows, then those of the query, the key and the own score */
    const float *head_bias;     /* as many, rounded up to HEAD */
    float **h, **h_next, **c;   /* of each layer: [B, H]; h and h_next change places every step */
    const double *noise;        /* [T, B] */
    int64_t *ids;               /* [B] last read; changes */
    int64_t *drawn;             /* [T, B] out */
    float *logp;                /* [T, B] out */
    float *gates;               /* [B, G H] room */
    float *logits;              /* [B, as many as `head_bias`] room */
    double *weights;            /* [threads, 2 V + 16] room */
    int64_t *heap;              /* [threads, V] room */
    const float *grams;         /* [R + 1, V]: what strings of the last 2 to N symbols add to the logits */
    int64_t *recent;            /* [B, N - 1] the symbols read before `ids`, the last one last; changes */
    const float *query_table;   /* [N, V + 1, E] */
    const float *key_table;     /* [N, E, V + 1 rounded up to a vector] */
    const float *distance;      /* [M]: of place M - d, d steps before */
    float *back_keys;           /* [B, K, C]: of the last places, the last one before `ends`; changes, as do the next two */
    int64_t *back_ids;          /* [B, N - 1 + C]: the characters read there, and before; V is unknown */
    int64_t *ends;              /* [B] */
    float *room;                /* [threads, M + (N + 1) (V + 1 rounded up)], and a vector */
};

/* Numbers in a row of `logits`. */
static int64_t outputs(const struct generation *s)
{
    const int64_t extra = s->places ? 2 * s->key + 1 : 0;
    return (s->symbols + extra + HEAD - 1) / HEAD * HEAD;
}

/* Adds the rows of the strings that end with the symbol just read, hashed as RecentGrams does; that symbol becomes a
   recent one. */
static void add_grams(const struct generation *s, int64_t b)
{
    const int64_t V = s->symbols;
    float *x = s->logits + b * outputs(s);
    int64_t *recent = s->recent + b * s->recents, key = s->ids[b] + 2;
    if (s->ids[b] >= 0)
        for (int64_t back = s->recents; back-- > 0 && recent[back] >= 0;) {
            key = (key * 1000003 + recent[back] + 2) % 2147483647;
            const float *row = s->grams + key % s->gram_rows * V;
            for (int64_t i = 0; i < V; i++)
                x[i] += row[i];
        }
    for (int64_t i = 0; i + 1 < s->recents; i++)
        recent[i] = recent[i + 1];
    recent[s->recents - 1] = s->ids[b];
}

static void one_layer(const struct generation *s, int l, float **h, float **h_next, const int64_t *panels,
                      const int64_t *lanes)
{
    struct layer j = {.steps = 1, .lanes = s->lanes, .hidden = s->hidden, .rows = s->symbols + 1};
    j.ids = l ? NULL : s->ids;
    j.input = l ? s->gates : s->rows;
    j.bias_n = s->bias_n[l];
    j.h0 = h[l], j.y = h_next[l];
    j.c0 = j.extra = s->cell == 4 ? s->c[l] : NULL;
    const float *x = l ? h_next[l - 1] : NULL;
    if (s->cell == 1)
        one_step_f32_rnn(&j, x, s->below + l, s->recurrent + l, s->bias[l], s->gates, panels, lanes);
    else if (s->cell == 3)
        one_step_f32_gru(&j, x, s->below + l, s->recurrent + l, s->bias[l], s->gates, panels, lanes);
    else
        one_step_f32_lstm(&j, x, s->below + l, s->recurrent + l, s->bias[l], s->gates, panels, lanes);
}

/* Logits of some panels of two vectors and some lanes from the top layer's outputs. */
static void head(const struct generation *s, const float *h, const int64_t *panels, const int64_t *lanes)
{
    const int64_t padded = outputs(s);
    for (int64_t p = panels[0]; p < panels[1]; p++)
        for (int64_t b = lanes[0]; b < lanes[1]; b += HEAD_TALL) {
            const int64_t rows = b + HEAD_TALL < lanes[1] ? HEAD_TALL : lanes[1] - b;
            const float *from[HEAD_TALL];
            vec_f32 acc[SUMS];
            for (int64_t m = 0; m < rows; m++) {
                from[m] = h + (b + m) * s->hidden;
                acc[2 * m] = load_f32(s->head_bias + HEAD * p, FLOATS);
                acc[2 * m + 1] = load_f32(s->head_bias + HEAD * p + FLOATS, FLOATS);
            }
            products_f32[2][rows](s->hidden, s->head + p * HEAD * s->hidden, from, acc);
            for (int64_t i = 0; i < 2 * rows; i++)
                store_f32(s->logits + (b + i / 2) * padded + HEAD * p + i % 2 * FLOATS, acc[i], FLOATS);
        }
}

/* e^((x[i] - most) / temperature) for all symbols into `to`, which has room for a vector more; 0 where no normal number is so
   small. Returns the sum. */
static double exponentials(const float *x, int64_t count, double most, double temperature, double *to)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i += DOUBLES) {
        vec_f64 some;
        for (int k = 0; k < DOUBLES; k++)
            some[k] = i + k < count ? (double)x[i + k] : -1e300;
        some = (some - most) / temperature;
        store_f64(to + i, (vec_f64)((whole_f64)exp_f64(some, 1) & (some > -708.0)), DOUBLES);
    }
    for (int64_t i = 0; i < count; i++)
        sum += to[i];
    return sum;
}

/* Whether symbol a comes before b when the most probable come first and equals in their order. */
static int before(const double *p, int64_t a, int64_t b) { return p[a] > p[b] || (p[a] == p[b] && a < b); }

static void sink(const double *p, int64_t *heap, int64_t count, int64_t at)
{
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        child += child + 1 < count && before(p, heap[child + 1], heap[child]);
        if (!before(p, heap[child], heap[at]))
            return;
        int64_t moved = heap[at];
        heap[at] = heap[child], heap[child] = moved;
    }
}

/* Sets to zero what top-k and top-p leave out of the weights p, which sum to `sum`.
   The most probable are taken from a heap one by one, so that few kept symbols cost little. */
static void leave_out(const struct generation *s, double *p, double sum, int64_t *heap, double *kept)
{
    const int64_t V = s->symbols, most = s->top_k && s->top_k < V ? s->top_k : V;
    for (int64_t i = 0; i < V; i++)
        heap[i] = i, kept[i] = 0;
    for (int64_t i = V / 2; i-- > 0;)
        sink(p, heap, V, i);
    int64_t taken = 0;
    double so_far = 0;
    for (int64_t count = V; taken < most && (most < V || so_far < s->top_p * sum); taken++) {
        int64_t best = heap[0]; /* the taken gather behind the heap, last first */
        heap[0] = heap[--count], heap[count] = best;
        sink(p, heap, count, 0);
        so_far += p[best];
    }
    sum = most < V ? so_far : sum;
    so_far = 0;
    for (int64_t i = 0; i < taken && so_far < s->top_p * sum; i++) {
        int64_t best = heap[V - 1 - i];
        kept[best] = p[best];
        so_far += p[best];
    }
    for (int64_t i = 0; i < V; i++)
        p[i] = kept[i];
}

/* The first symbol at which the cumulative weight exceeds the noise's share of the sum. */
static int64_t invert(const double *p, int64_t count, double noise)
{
    double total = 0, cumulative = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < count; i++) {
        total += p[i];
        last = p[i] > 0 ? i : last;
    }
    for (int64_t i = 0; i < last; i++)
        if ((cumulative += p[i]) > noise * total)
            return i;
    return last;
}

static void draw(struct generation *s, int64_t step, int64_t b, int me)
{
    const int64_t V = s->symbols;
    const float *x = s->logits + b * outputs(s);
    double *p = s->weights + me * (2 * V + 16), most;
    int64_t best = 0;
    for (int64_t i = 1; i < V; i++)
        best = x[i] > x[best] ? i : best;
    most = x[best];
    double sum = exponentials(x, V, most, 1, p);
    const double all = most + log(sum);
    if (s->temperature > 0 && s->top_k != 1) {
        if (s->temperature != 1)
            sum = exponentials(x, V, most, s->temperature, p);
        if (s->top_p < 1 || (s->top_k && s->top_k < V))
            leave_out(s, p, sum, s->heap + me * V, p + V + 8);
        best = invert(p, V, s->noise[step * s->lanes + b]);
    }
    s->ids[b] = s->drawn[step * s->lanes + b] = best;
    s->logp[step * s->lanes + b] = (float)(x[best] - all);
}

/* Takes the symbol just read into the places of a lane; they are moved to the front where no room is left. Returns where
   it now stands. */
static int64_t append_place(struct generation *s, int64_t b, const float *key)
{
    const int64_t C = s->keep, before = s->characters - 1;
    float *keys = s->back_keys + b * s->key * C;
    int64_t *ids = s->back_ids + b * (before + C);
    int64_t end = s->ends[b];
    if (end == C) {
        for (int64_t k = 0; k < s->key; k++)
            memmove(keys + k * C, keys + k * C + C - s->places, (size_t)s->places * sizeof *keys);
        memmove(ids, ids + C - s->places, (size_t)(before + s->places) * sizeof *ids);
        end = s->places;
    }
    for (int64_t k = 0; k < s->key; k++)
        keys[k * C + end] = key[k];
    ids[before + end] = s->ids[b] < 0 ? s->symbols : s->ids[b];
    s->ends[b] = end + 1;
    return end;
}

#define USUAL_CHARACTERS 6

/* Adds to each score what the last characters at the place add. The count is a constant where this is expanded. */
static inline __attribute__((always_inline)) void add_matches(const int characters, const int64_t *ids, int64_t places,
                                                              const float *table, int64_t wide, float *scores)
{
    for (int64_t i = 0; i < places; i++) {
        float sum = scores[i];
UNROLL(16)
        for (int n = 0; n < characters; n++)
            sum += table[n * wide + ids[i - n]];
        scores[i] = sum;
    }
}

/* The scores of the M places before `end`. */
static void place_scores(const struct generation *s, const float *keys, const int64_t *ids, const float *query,
                         float *table, float *scores)
{
    const int64_t wide = (s->symbols + FLOATS) / FLOATS * FLOATS;
    for (int64_t n = 0; n < s->characters; n++) {
        const float *now = s->query_table + (n * (s->symbols + 1) + ids[s->places - n]) * s->width;
        for (int64_t v = 0; v < wide; v += FLOATS) {
            vec_f32 sum = {0};
            for (int64_t e = 0; e < s->width; e++)
                sum += now[e] * load_f32(s->key_table + (n * s->width + e) * wide + v, FLOATS);
            store_f32(table + n * wide + v, sum, FLOATS);
        }
    }
    for (int64_t i = 0; i < s->places; i += 4 * FLOATS) {
        vec_f32 sum[4];
        for (int v = 0; v < 4; v++)
            sum[v] = load_f32(s->distance + i + v * FLOATS, s->places - i - v * FLOATS);
        for (int64_t k = 0; k < s->key; k++)
            for (int v = 0; v < 4; v++)
                sum[v] += query[k] * load_f32(keys + k * s->keep + i + v * FLOATS, s->places - i - v * FLOATS);
        for (int v = 0; v < 4; v++)
            store_f32(scores + i + v * FLOATS, sum[v], s->places - i - v * FLOATS);
    }
    if (s->characters == USUAL_CHARACTERS)
        add_matches(USUAL_CHARACTERS, ids, s->places, table, wide, scores);
    else
        add_matches((int)s->characters, ids, s->places, table, wide, scores);
}

/* The logits become log-probabilities of the network and of what followed the places; see look_back.h. */
static void look_back(struct generation *s, int64_t b, int me)
{
    const int64_t V = s->symbols, M = s->places, wide = (V + FLOATS) / FLOATS * FLOATS;
    float *x = s->logits + b * outputs(s), *scores = s->room + me * (M + (s->characters + 1) * wide + FLOATS);
    float *table = scores + M, *mass = table + s->characters * wide;
    const float *query = x + V;
    const int64_t end = append_place(s, b, query + s->key);
    const int64_t *ids = s->back_ids + b * (s->characters - 1 + s->keep) + s->characters - 1 + end - M;
    const int repeated = repeats(ids + M, M + s->characters, V);
    place_scores(s, s->back_keys + b * s->key * s->keep + end - M, ids, query, table, scores);
    const float own = query[2 * s->key];
    float most = own;
    for (int64_t i = 0; i < M; i++) {
        if (repeated || ids[i] == V || ids[i + 1] == V)
            scores[i] = -1e9f;
        most = scores[i] > most ? scores[i] : most;
    }
    for (int64_t v = 0; v <= V; v++)
        mass[v] = 0;
    for (int64_t i = 0; i < M; i += FLOATS) {
        const vec_f32 from = load_f32(scores + i, M - i) - most;
        const vec_f32 e = (vec_f32)((whole_f32)exp_f32(from, 1) & ~(from <= -87.0f));
        for (int64_t k = 0; k < FLOATS && i + k < M; k++)
            mass[ids[i + k + 1]] += e[k];
    }
    double all = 0, first = x[0], *p = s->weights + me * (2 * V + 16);
    const double alone = exp((double)own - most);
    for (int64_t v = 0; v < V; v++) {
        all += mass[v];
        first = x[v] > first ? x[v] : first;
    }
    const double sum = exponentials(x, V, first, 1, p);
    for (int64_t v = 0; v < V; v++) {
        const double copied = mass[v] / (all + alone);
        x[v] = (float)log(alone / (all + alone) * (p[v] / sum) + (copied > 1e-30 ? copied : 1e-30));
    }
}

static void generate_part(void *data, int me, struct team *team)
{
    struct generation *s = data;
    const int64_t wide = s->cell == 1 ? 2 * FLOATS : FLOATS;
    int64_t panels[2] = {0, (s->hidden + wide - 1) / wide}, head_panels[2] = {0, outputs(s) / HEAD};
    int64_t lanes[2] = {0, s->lanes}, own_lanes[2];
    share(s->lanes, me, team->size, own_lanes, own_lanes + 1);
    if (s->by_units) {
        share(panels[1], me, team->size, panels, panels + 1);
        share(head_panels[1], me, team->size, head_panels, head_panels + 1);
    } else {
        lanes[0] = own_lanes[0], lanes[1] = own_lanes[1];
    }
    for (int64_t step = 0; step < s->steps; step++) {
        float **h = step % 2 ? s->h_next : s->h, **h_next = step % 2 ? s->h : s->h_next;
        for (int l = 0; l < s->layers; l++) {
            one_layer(s, l, h, h_next, panels, lanes);
            if (s->by_units)
                meet(team);
        }
        head(s, h_next[s->layers - 1], head_panels, lanes);
        if (s->by_units)
            meet(team);
        for (int64_t b = own_lanes[0]; b < own_lanes[1]; b++) {
            if (s->recents)
                add_grams(s, b);
            if (s->places)
                look_back(s, b, me);
            draw(s, step, b, me);
        }
        if (s->by_units)
            meet(team);
    }
}

EXPORT void EXPORTED(generate)(struct generation *s) { together(generate_part, s, s->threads); }
