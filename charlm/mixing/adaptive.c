/* Prediction by contexts that learn while a text is read; adaptive.py calls it, formulas.py says the same in Python.

   A symbol is a path of binary decisions down a tree. Every context keeps, for every decision, how it went there before;
   their predictions are mixed by weights that learn, twice, and corrected by what really came (Mahoney 2005 and 2013).
   All sums are made in the order that is written here, and without fused multiplication, so that every processor and
   formulas.py give the same numbers. Most of the time would go to waiting for the table, so the slots of all decisions
   of a symbol are asked for before the first is read. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define WIDE __attribute__((target_clones("avx2", "default"))) /* the same numbers, by wider vectors where there are any */
#else
#define WIDE
#endif

enum { CONTEXTS = 32, MATCHES = 2, SETS = 14, SELECTORS = 13, APMS = 2, KNOTS = 33, HISTORIES = 2048, LENGTHS = 32 };
enum { DEEPEST = 32, MOST_INPUTS = 2 * CONTEXTS + MATCHES + 8 + 1, BUCKET = 4 };

/* What a context has seen of one decision. */
struct slot {
    uint16_t check;   /* of the context's hash; 0 where the slot is free */
    uint16_t history; /* zeros seen lately, ones seen lately, the last bit: 5, 5 and 1 bits */
    uint32_t p;       /* probability of a one in 22 bits, and how often it was adjusted in 10 */
};

struct adaptive {
    int64_t symbols, models, depth, table_bits, ring_bits, match_bits, apm_bits, follow_bits;
    int64_t limit;              /* adjustments of a slot after which its rate stays */
    double rate, rate_final;    /* of the weights of the first mixing, and of the second */
    const int32_t *child;       /* [symbols - 1][2]: another decision, or ~symbol */
    const int32_t *path;        /* [symbols][depth]: 2 * decision + bit */
    const int32_t *lengths;     /* [symbols]: decisions on the path */
    const int32_t *kinds;       /* [symbols + 1]: 0 other, 1 letter, 2 digit, 3 space, 4 line end */
    const int32_t *sounds;
    const int32_t *folded;      /* [symbols + 1]: the lower-case letter */
    const double *stretch;      /* [4096]: ln(p / (1 - p)) in the middle of each step of p */
    struct slot *table;         /* [1 << table_bits] */
    double *maps;               /* [CONTEXTS][HISTORIES]: probability of a one after a history */
    double *lucks;              /* [MATCHES][LENGTHS]: that a match of a length is right */
    double *weights;            /* [sets][inputs], the sets of all selectors one after another */
    double *finals;             /* [symbols - 1][SETS] */
    double *apms;               /* [APMS][1 << apm_bits][KNOTS] */
    int32_t *ring;              /* [1 << ring_bits]: the symbols that were read */
    int32_t *followers;         /* [3][1 << follow_bits] */
    int32_t *places;            /* [MATCHES][1 << match_bits]: where a string ended last, plus one */
    int64_t *now;               /* NOW_ numbers, and the hash of each context */
};

enum { NOW_COUNT, NOW_WORD, NOW_WORD1, NOW_WORD2, NOW_LINE, NOW_LINE1, NOW_IN_WORD, NOW_FIRST, NOW_FIRST1, NOW_KINDS,
       NOW_SPEAKER, NOW_LINE_HASH, NOW_WORDS, NOW_SENTENCE, NOW_LINE_WORDS, NOW_AFTER, NOW_SKELETON, NOW_LINE_LENGTH, NOW_LINES,
       NOW_MATCH, NOW_LENGTH = NOW_MATCH + MATCHES, NOW_HASH = NOW_LENGTH + MATCHES };

static const int SHORTEST[MATCHES] = {5, 10};

static uint64_t mixed(uint64_t a, uint64_t b)
{
    uint64_t h = (a + UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xBF58476D1CE4E5B9) ^ (b + 1) * UINT64_C(0x94D049BB133111EB);
    h ^= h >> 29;
    h *= UINT64_C(0xD6E8FEB86659FD93);
    return h ^ h >> 32;
}

static int64_t symbol(const struct adaptive *a, int64_t back) /* the symbol read `back` steps ago, 1 the last */
{
    int64_t place = a->now[NOW_COUNT] - back;
    return place < 0 ? a->symbols : a->ring[place & ((INT64_C(1) << a->ring_bits) - 1)];
}

static double squash(double x)
{
    if (x > 20) x = 20;
    if (x < -20) x = -20;
    return 1 / (1 + exp(-x));
}

static double stretched(const struct adaptive *a, double p)
{
    int64_t i = (int64_t)(p * 4096);
    return a->stretch[i < 0 ? 0 : i > 4095 ? 4095 : i];
}

static struct slot *bucket_of(const struct adaptive *a, uint64_t h)
{
    return a->table + ((h >> (64 - a->table_bits)) & ~(uint64_t)(BUCKET - 1));
}

/* The hashes of all contexts at a decision; asks the memory for their slots. */
static void aim(const struct adaptive *a, int64_t decision, uint64_t *hash)
{
    for (int64_t c = 0; c < CONTEXTS; c++) {
        hash[c] = mixed((uint64_t)a->now[NOW_HASH + c], (uint64_t)decision);
        __builtin_prefetch(bucket_of(a, hash[c]));
    }
}

/* The slot of a hash; a free or the least used one of its bucket instead where `make`, else NULL. */
static struct slot *find(const struct adaptive *a, uint64_t h, int make)
{
    uint16_t check = (uint16_t)(h & 0xFFFF) ? (uint16_t)(h & 0xFFFF) : 1;
    struct slot *bucket = bucket_of(a, h), *least = bucket;
    for (int i = 0; i < BUCKET; i++) {
        if (bucket[i].check == check)
            return bucket + i;
        if (bucket[i].check == 0 ? least->check != 0 : least->check && (bucket[i].p & 1023) < (least->p & 1023))
            least = bucket + i;
    }
    if (!make)
        return NULL;
    *least = (struct slot){check, 0, UINT32_C(1) << 31};
    return least;
}

/* What is known at one decision. */
struct view {
    int64_t inputs;
    uint64_t hash[CONTEXTS];
    double x[MOST_INPUTS];
    int64_t set[SELECTORS];
    double p_set[SETS], x_set[SETS], p, p_apm[APMS], final;
    int64_t knot[APMS];
    double share[APMS];
    int expected[MATCHES]; /* 0 or 1; -1: no opinion */
    struct slot *slot[CONTEXTS]; /* NULL: not seen */
    uint16_t check[CONTEXTS];
};

/* The symbol that a match expects; `symbols` where there is none. */
static int64_t awaited(const struct adaptive *a, int m)
{
    return a->now[NOW_LENGTH + m] ? a->ring[a->now[NOW_MATCH + m] & ((INT64_C(1) << a->ring_bits) - 1)] : a->symbols;
}

static int expects(const struct adaptive *a, int m, int64_t decision)
{
    int64_t expected = awaited(a, m);
    if (expected >= a->symbols)
        return -1;
    for (int64_t d = 0; d < a->lengths[expected]; d++)
        if (a->path[expected * a->depth + d] >> 1 == decision)
            return a->path[expected * a->depth + d] & 1;
    return -1;
}

static int64_t bounded(int64_t x, int64_t most) { return x < most ? x : most; }

typedef double four __attribute__((vector_size(32), aligned(8)));

/* The sum of w[i] * x[i], made of the sums over every fourth i. */
static inline double weighed(const double *w, const double *x, int64_t n)
{
    four sums = {0, 0, 0, 0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        sums += *(const four *)(w + i) * *(const four *)(x + i);
    for (int k = 0; i < n; i++, k++)
        sums[k] += w[i] * x[i];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/* Adds step * x[i] to w[i]. */
static inline void adjust(double *w, const double *x, double step, int64_t n)
{
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        *(four *)(w + i) += step * *(const four *)(x + i);
    for (; i < n; i++)
        w[i] += step * x[i];
}

/* Everything up to the probability of a one at a decision that `aim` was called for; `ones` are the other models'
   probabilities of it. */
WIDE static void look(struct adaptive *a, int64_t decision, int64_t depth, const double *ones, struct view *v)
{
    int64_t n = 0, seen = 0;
    for (int64_t c = 0; c < CONTEXTS; c++) {
        struct slot *s = v->slot[c] = find(a, v->hash[c], 0);
        v->check[c] = s ? s->check : 0;
        if (s && (s->p & 1023)) {
            v->x[n++] = a->stretch[s->p >> 20];
            v->x[n++] = stretched(a, a->maps[c * HISTORIES + s->history]);
            seen += c > 0 && c < 8;
        } else {
            v->x[n++] = 0;
            v->x[n++] = 0;
        }
    }
    for (int m = 0; m < MATCHES; m++) {
        int bit = v->expected[m] = expects(a, m, decision);
        double x = bit < 0 ? 0 : stretched(a, a->lucks[m * LENGTHS + bounded(a->now[NOW_LENGTH + m], LENGTHS - 1)]);
        v->x[n++] = bit == 0 ? -x : x;
    }
    for (int64_t e = 0; e < a->models; e++)
        v->x[n++] = log(ones[e] / (1 - ones[e]));
    v->x[n++] = 0.3;
    v->inputs = n;
    const int64_t before = symbol(a, 1), length = a->now[NOW_LENGTH + 1] ? a->now[NOW_LENGTH + 1] : a->now[NOW_LENGTH];
    const int64_t known = bounded(length == 0 ? 0 : 1 + length / 4, 7);
    const int64_t trust = a->models ? bounded((int64_t)fabs(v->x[n - 1 - a->models]), 7) : bounded(depth, 7);
    const int64_t ends = a->symbols + 1, column = a->now[NOW_COUNT] - a->now[NOW_LINE], words = bounded(a->now[NOW_WORDS], 15);
    const int64_t in_word = bounded(a->now[NOW_IN_WORD], 7), shallow = bounded(depth, 7);
    int64_t set = 0;
    v->set[0] = set + decision, set += a->symbols - 1;
    v->set[1] = set + words * 8 + in_word, set += 128;
    v->set[2] = set + (known * 8 + trust) * 3 + v->expected[0] + 1, set += 192;
    v->set[3] = set + (int64_t)(mixed((uint64_t)(before * ends + decision), 9) >> 53), set += 2048;
    v->set[4] = set + (a->kinds[before] * 8 + in_word) * 8 + seen, set += 320;
    v->set[5] = set + bounded(a->now[NOW_LINE_LENGTH] / 4, 15) * 16 + bounded(column / 4, 15), set += 256;
    v->set[6] = set + (int64_t)(mixed((uint64_t)a->now[NOW_WORD], 4) >> 54), set += 1024;
    v->set[7] = set + (words * 8 + shallow) * 8 + in_word, set += 1024;
    v->set[8] = set + bounded(column, 63) * 8 + shallow, set += 512;
    v->set[9] = set + (int64_t)(mixed((uint64_t)(before * ends + symbol(a, 2)), 9) >> 54), set += 1024;
    v->set[10] = set + (int64_t)(mixed((uint64_t)a->now[NOW_WORD1], 9) >> 54), set += 1024;
    v->set[11] = set + (int64_t)(mixed((uint64_t)a->now[NOW_SKELETON] & 0xFFFF, 9) >> 53), set += 2048;
    v->set[12] = set + bounded(a->now[NOW_LINE_WORDS], 15) * 8 + in_word;
    for (int s = 0; s < SELECTORS; s++) {
        const double sum = weighed(a->weights + v->set[s] * n, v->x, n);
        v->p_set[s] = squash(sum);
        v->x_set[s] = sum > 20 ? 20 : sum < -20 ? -20 : sum;
    }
    v->x_set[SELECTORS] = 0.3;
    double sum = 0;
    for (int s = 0; s < SETS; s++)
        sum += a->finals[decision * SETS + s] * v->x_set[s];
    v->p = squash(sum);
    double position = (sum > 7.999 ? 7.999 : sum < -7.999 ? -7.999 : sum) * 2 + 16;
    int64_t knot = (int64_t)position;
    double share = position - (double)knot, final = 2 * v->p;
    for (int k = 0; k < APMS; k++) {
        uint64_t h = mixed(k ? (uint64_t)(symbol(a, 1) * ends + symbol(a, 2)) : (uint64_t)before, (uint64_t)(decision * 2 + k));
        v->knot[k] = (k * (INT64_C(1) << a->apm_bits) + (int64_t)(h >> (64 - a->apm_bits))) * KNOTS + knot;
        v->share[k] = share;
        v->p_apm[k] = a->apms[v->knot[k]] * (1 - share) + a->apms[v->knot[k] + 1] * share;
        final += v->p_apm[k];
    }
    final /= 2 + APMS;
    v->final = final < 1e-6 ? 1e-6 : final > 1 - 1e-6 ? 1 - 1e-6 : final;
}

/* Learns how a decision went. */
WIDE static void learn(struct adaptive *a, int64_t decision, int bit, const struct view *v)
{
    for (int s = 0; s < SELECTORS; s++)
        adjust(a->weights + v->set[s] * v->inputs, v->x, a->rate * (bit - (v->p_set[s] + 9 * v->p) / 10), v->inputs);
    const double step = a->rate_final * (bit - v->p);
    for (int s = 0; s < SETS; s++)
        a->finals[decision * SETS + s] += step * v->x_set[s];
    for (int k = 0; k < APMS; k++) {
        double *p = a->apms + v->knot[k];
        p[0] += 0.02 * (1 - v->share[k]) * (bit - p[0]);
        p[1] += 0.02 * v->share[k] * (bit - p[1]);
    }
    for (int m = 0; m < MATCHES; m++)
        if (v->expected[m] >= 0) {
            double *p = a->lucks + m * LENGTHS + bounded(a->now[NOW_LENGTH + m], LENGTHS - 1);
            *p += 0.01 * ((bit == v->expected[m]) - *p);
        }
    for (int64_t c = 0; c < CONTEXTS; c++) {
        struct slot *s = v->slot[c] && v->slot[c]->check == v->check[c] ? v->slot[c] : find(a, v->hash[c], 1);
        double *p = a->maps + c * HISTORIES + s->history;
        *p += 0.006 * (bit - *p);
        const int64_t times = s->p & 1023, old = s->p >> 10, aim = bit ? (1 << 22) - 1 : 0;
        s->p = (uint32_t)(old + (aim - old) * 2 / (2 * times + 3)) << 10 | (uint32_t)bounded(times + 1, a->limit);
        int64_t n[2] = {s->history >> 6, s->history >> 1 & 31};
        n[bit] = bounded(n[bit] + 1, 31);
        if (n[!bit] > 2)
            n[!bit] = 2 + (n[!bit] - 2) / 4;
        s->history = (uint16_t)(n[0] << 6 | n[1] << 1 | bit);
    }
}

/* Puts a symbol behind those that were read, and finds the contexts of the next one. */
static void move(struct adaptive *a, int64_t id)
{
    const int64_t ring = (INT64_C(1) << a->ring_bits) - 1, kind = a->kinds[id];
    int64_t *now = a->now;
    for (int m = 0; m < MATCHES; m++)
        if (now[NOW_LENGTH + m] && id < a->symbols && (a->ring[now[NOW_MATCH + m] & ring] == id)) {
            now[NOW_LENGTH + m]++;
            now[NOW_MATCH + m]++;
        } else
            now[NOW_LENGTH + m] = 0;
    a->ring[now[NOW_COUNT] & ring] = (int32_t)id;
    now[NOW_COUNT]++;
    if (kind == 1 || kind == 2) {
        now[NOW_WORD] = (int64_t)mixed((uint64_t)now[NOW_WORD], (uint64_t)a->folded[id]);
        now[NOW_IN_WORD]++;
    } else if (now[NOW_IN_WORD]) {
        int32_t *after = a->followers + (mixed((uint64_t)now[NOW_WORD1], 77) >> (64 - a->follow_bits));
        *after = (int32_t)mixed((uint64_t)now[NOW_WORD], 5);
        now[NOW_WORD2] = now[NOW_WORD1];
        now[NOW_WORD1] = now[NOW_WORD];
        now[NOW_AFTER] = a->followers[mixed((uint64_t)now[NOW_WORD1], 77) >> (64 - a->follow_bits)];
        now[NOW_WORD] = 0;
        now[NOW_IN_WORD] = 0;
        now[NOW_LINE_WORDS]++;
        if (!now[NOW_WORDS]++)
            now[NOW_SENTENCE] = now[NOW_WORD1];
    }
    if (kind == 0 && symbol(a, 1) == id) /* punctuation */
        now[NOW_WORDS] = 0;
    now[NOW_LINE_HASH] = kind == 4 ? 0 : (int64_t)mixed((uint64_t)now[NOW_LINE_HASH], (uint64_t)id);
    now[NOW_SKELETON] = (int64_t)(((uint64_t)now[NOW_SKELETON] << 4 | (uint64_t)(kind == 1 ? 8 + a->sounds[id] : kind)) & 0xFFFFFFFF);
    if (kind == 4) {
        int64_t last = symbol(a, 2), before = symbol(a, 3);
        if (a->kinds[last] == 0 && before != id && now[NOW_COUNT] - now[NOW_LINE] < 40)
            now[NOW_SPEAKER] = (int64_t)mixed((uint64_t)now[NOW_WORD1], (uint64_t)last);
    }
    for (int k = 1; k <= 2; k++) { /* what followed the last one and two symbols the last times */
        uint64_t h = k == 1 ? (uint64_t)symbol(a, 2) : mixed((uint64_t)symbol(a, 2), (uint64_t)symbol(a, 3));
        uint32_t *list = (uint32_t *)a->followers + ((k << a->follow_bits) + (int64_t)(mixed(h, (uint64_t)k) >> (64 - a->follow_bits)));
        *list = *list << 8 | ((uint32_t)id & 255);
    }
    if (now[NOW_COUNT] == now[NOW_LINE] + 1)
        now[NOW_FIRST1] = now[NOW_FIRST], now[NOW_FIRST] = id;
    if (kind == 4) {
        now[NOW_LINE_WORDS] = 0;
        now[NOW_LINE_LENGTH] = now[NOW_COUNT] - now[NOW_LINE];
        now[NOW_LINES] = now[NOW_LINE_LENGTH] <= 1 ? 0 : now[NOW_LINES] + 1; /* since an empty one */
        now[NOW_LINE1] = now[NOW_LINE];
        now[NOW_LINE] = now[NOW_COUNT];
    }
    now[NOW_KINDS] = (int64_t)(((uint64_t)now[NOW_KINDS] << 3 | (uint64_t)(kind ? kind : 5 + (id & 1))) & 0xFFFFFFFFF);
    for (int m = 0; m < MATCHES; m++) {
        uint64_t h = 0;
        for (int k = 1; k <= SHORTEST[m]; k++)
            h = mixed(h, (uint64_t)symbol(a, k));
        int32_t *place = a->places + (m * (INT64_C(1) << a->match_bits)) + (int64_t)(h >> (64 - a->match_bits));
        if (!now[NOW_LENGTH + m] && *place && now[NOW_COUNT] - *place < ring) {
            int64_t from = *place, length = 0;
            while (length < LENGTHS && from - length > 0 && a->ring[(from - 1 - length) & ring] == symbol(a, length + 1))
                length++;
            if (length >= SHORTEST[m]) {
                now[NOW_LENGTH + m] = length;
                now[NOW_MATCH + m] = from;
            }
        }
        *place = (int32_t)now[NOW_COUNT];
    }
    const int64_t column = now[NOW_COUNT] - now[NOW_LINE];
    const int64_t above = now[NOW_LINE1] + column < now[NOW_LINE] ? symbol(a, now[NOW_COUNT] - now[NOW_LINE1] - column) : a->symbols;
    uint64_t h[CONTEXTS] = {0}, order = 0;
    for (int k = 1; k <= 8; k++) {
        order = mixed(order, (uint64_t)symbol(a, k));
        if (k < 7)
            h[k] = order;
    }
    h[7] = order;
    const uint64_t word = (uint64_t)now[NOW_WORD], s1 = (uint64_t)symbol(a, 1), s2 = (uint64_t)symbol(a, 2);
    const uint64_t s3 = (uint64_t)symbol(a, 3), s4 = (uint64_t)symbol(a, 4), plain = now[NOW_IN_WORD] ? 0 : s1 + 1;
    h[8] = mixed(word, plain);
    h[9] = mixed(mixed(word, plain), (uint64_t)now[NOW_WORD1]);
    h[10] = mixed(mixed(word, plain), (uint64_t)now[NOW_WORD2]);
    h[11] = mixed(mixed(mixed(word, plain), (uint64_t)now[NOW_WORD1]), (uint64_t)now[NOW_WORD2]);
    h[12] = mixed(mixed(s1, s2), (uint64_t)now[NOW_WORD1]);
    h[13] = mixed((uint64_t)bounded(column, 255), (uint64_t)now[NOW_LINE_LENGTH]);
    h[14] = mixed(mixed(s2, s3), s4);
    h[15] = mixed(mixed((uint64_t)above, s1), (uint64_t)bounded(column, 3));
    h[16] = mixed(mixed((uint64_t)bounded(column, 255), (uint64_t)now[NOW_FIRST]), s1);
    h[17] = mixed((uint64_t)now[NOW_KINDS], s1);
    h[18] = mixed(mixed(word, plain), (uint64_t)now[NOW_SPEAKER]);
    h[19] = mixed((uint64_t)now[NOW_LINE_HASH], 3);
    h[20] = mixed(mixed(word, plain), (uint64_t)now[NOW_SENTENCE]);
    h[21] = mixed(mixed(word, plain), (uint64_t)bounded(now[NOW_LINE_WORDS], 15));
    h[22] = mixed(mixed(word, plain), (uint64_t)now[NOW_AFTER]);
    h[23] = mixed(mixed((uint64_t)bounded(column, 255), (uint64_t)bounded(now[NOW_LINES], 3)), (uint64_t)kind);
    const uint32_t *f = (const uint32_t *)a->followers;
    const uint32_t f1 = f[(1 << a->follow_bits) + (int64_t)(mixed(s1, 1) >> (64 - a->follow_bits))];
    const uint32_t f2 = f[(2 << a->follow_bits) + (int64_t)(mixed(mixed(s1, s2), 2) >> (64 - a->follow_bits))];
    h[24] = mixed(mixed(f1 & 0xFFFF, s1), 9);
    h[25] = mixed(mixed(f2 & 0xFFFFFF, s1), 10);
    h[26] = mixed(mixed(f2 & 0xFF, s1), s2);
    h[27] = mixed(mixed(s1, s4), (uint64_t)symbol(a, 5));
    h[28] = mixed(mixed((uint64_t)bounded(now[NOW_IN_WORD], 15), plain), (uint64_t)now[NOW_WORD1]);
    h[29] = mixed(mixed((uint64_t)bounded(column / 4, 15), word), plain);
    for (int c = 0; c < CONTEXTS - 2; c++)
        now[NOW_HASH + c] = (int64_t)mixed(h[c], (uint64_t)c);
}

/* The models' probabilities of a one at every decision: [symbols - 1][models], from rows of log-probabilities. */
static void ones_of(const struct adaptive *a, const double *rows, double *ones, double *sums)
{
    const int64_t decisions = a->symbols - 1, M = a->models;
    for (int64_t e = 0; e < M; e++) {
        const double *row = rows + e * a->symbols;
        const int uniform = row[0] != row[0];
        for (int64_t d = decisions - 1; d >= 0; d--) { /* children have larger numbers than their decision */
            double part[2];
            for (int bit = 0; bit < 2; bit++) {
                const int32_t child = a->child[d * 2 + bit];
                part[bit] = child >= 0 ? sums[child] : uniform ? 1 : exp(row[~child]);
            }
            sums[d] = part[0] + part[1];
            double p = sums[d] > 0 ? part[1] / sums[d] : 0.5;
            ones[d * M + e] = p < 1e-6 ? 1e-6 : p > 1 - 1e-6 ? 1 - 1e-6 : p;
        }
    }
}

/* The contexts of what the first model expects most. */
static void expect(struct adaptive *a, const double *row)
{
    int64_t top = a->symbols, second = a->symbols;
    for (int64_t i = 0; row && i < a->symbols; i++)
        if (top == a->symbols || row[i] > row[top])
            second = top, top = i;
        else if (second == a->symbols || row[i] > row[second])
            second = i;
    a->now[NOW_HASH + CONTEXTS - 2] = (int64_t)mixed(mixed((uint64_t)top, (uint64_t)symbol(a, 1)), CONTEXTS - 2);
    a->now[NOW_HASH + CONTEXTS - 1] = (int64_t)mixed(mixed((uint64_t)top, (uint64_t)second), CONTEXTS - 1);
}

/* Whether no symbol is more probable than this one, and none before it equally so. The tree is searched from the more
   probable branches on; a branch is left where it is less probable than the symbol. `views` are those of its own path. */
static uint8_t is_top(struct adaptive *a, int64_t id, double logp, const double *ones, const struct view *views)
{
    struct { int64_t decision, depth; double logp; } open[2 * DEEPEST];
    struct view own;
    const int32_t *path = a->path + id * a->depth;
    int64_t n = 0;
    open[n].decision = 0, open[n].depth = 0, open[n++].logp = 0;
    while (n && a->symbols > 1) {
        const int64_t decision = open[--n].decision, depth = open[n].depth;
        const double sum = open[n].logp;
        const int on_path = depth < a->lengths[id] && path[depth] >> 1 == decision;
        if (!on_path) {
            aim(a, decision, own.hash);
            look(a, decision, depth, ones + decision * a->models, &own);
        }
        const double final = on_path ? views[depth].final : own.final;
        const int likely = final >= 0.5;
        for (int k = 0; k < 2; k++) {
            const int bit = k ? likely : !likely;
            const int32_t child = a->child[decision * 2 + bit];
            const double both = sum + log(bit ? final : 1 - final);
            if (child >= 0 && both >= logp)
                open[n].decision = child, open[n].depth = depth + 1, open[n++].logp = both;
            else if (child < 0 && (both > logp || (both == logp && ~child < id)))
                return 0;
        }
    }
    return 1;
}

/* The log-probability of a symbol, and whether it is the most probable one; then learns from it. */
static double along(struct adaptive *a, int64_t id, const double *ones, int learning, uint8_t *top)
{
    struct view views[DEEPEST];
    const int32_t *path = a->path + id * a->depth;
    double logp = 0;
    for (int64_t d = 0; d < a->lengths[id]; d++)
        aim(a, path[d] >> 1, views[d].hash);
    for (int64_t d = 0; d < a->lengths[id]; d++) {
        look(a, path[d] >> 1, d, ones + (path[d] >> 1) * a->models, views + d);
        logp += log(path[d] & 1 ? views[d].final : 1 - views[d].final);
    }
    if (top)
        *top = is_top(a, id, logp, ones, views);
    for (int64_t d = 0; learning && d < a->lengths[id]; d++) /* after all were foreseen, as in a row */
        learn(a, path[d] >> 1, path[d] & 1, views + d);
    return logp;
}

static void row_of(struct adaptive *a, const double *ones, double *row, double *sums, int64_t *depths)
{
    struct view views[2];
    sums[0] = 0;
    depths[0] = 0;
    aim(a, 0, views[0].hash);
    for (int64_t d = 0; d < a->symbols - 1; d++) {
        struct view *v = views + (d & 1);
        aim(a, d + 1, views[!(d & 1)].hash);
        look(a, d, depths[d], ones + d * a->models, v);
        for (int bit = 0; bit < 2; bit++) {
            const int32_t child = a->child[d * 2 + bit];
            const double logp = sums[d] + log(bit ? v->final : 1 - v->final);
            if (child >= 0)
                sums[child] = logp, depths[child] = depths[d] + 1;
            else
                row[~child] = logp;
        }
    }
    if (a->symbols == 1)
        row[0] = 0;
}

/* Reads n ids, -1 for unknown ones. `models` [n + 1][models][symbols]: row i of the other models foresaw id i, the
   last one foresees what comes next (NULL: they say nothing); `foreseen`: whether id 0 was. Writes the row after each
   id [n][symbols], or the log-probability of each target [n] after each id and whether it is the most probable symbol
   [n], where there is a place for them. `room`: [symbols][models + 3]. */
EXPORT void charlm_adaptive_read(struct adaptive *a, int64_t n, const int64_t *ids, const double *models, int64_t foreseen,
                                 const int64_t *targets, double *logp, uint8_t *tops, double *rows, double *room)
{
    double *ones = room, *sums = room + a->symbols * a->models;
    int64_t *depths = (int64_t *)(sums + a->symbols);
    const int64_t row = a->models * a->symbols;
    for (int64_t i = 0; i < (a->symbols - 1) * a->models; i++)
        ones[i] = 0.5; /* no opinion */
    if (models)
        ones_of(a, models, ones, sums);
    for (int64_t i = 0; i < n; i++) {
        const int64_t id = ids[i] < 0 ? a->symbols : ids[i];
        if (id < a->symbols && (foreseen || i)) {
            const int asked = targets && i && targets[i - 1] == id;
            const double found = along(a, id, ones, 1, asked && tops ? tops + i - 1 : 0);
            if (asked)
                logp[i - 1] = found;
        }
        move(a, id);
        if (models)
            ones_of(a, models + (i + 1) * row, ones, sums);
        expect(a, models ? models + (i + 1) * row : 0);
        if (rows)
            row_of(a, ones, rows + i * a->symbols, sums, depths);
        if (targets && targets[i] >= 0 && (i + 1 == n || ids[i + 1] != targets[i]))
            logp[i] = along(a, targets[i], ones, 0, tops ? tops + i : 0);
    }
}

/* The probability of a one at a decision that `depth` others come before, of the symbol after the last one; `room` as
   charlm_adaptive_read left it, or full of 0.5 before that. */
EXPORT double charlm_adaptive_one(struct adaptive *a, int64_t decision, int64_t depth, const double *room)
{
    struct view v;
    aim(a, decision, v.hash);
    look(a, decision, depth, room + decision * a->models, &v);
    return v.final;
}

/* The numbers that contexts.py must agree with; a library of another version is not used. */
EXPORT void charlm_adaptive_sizes(int64_t *sizes)
{
    const int64_t all[] = {CONTEXTS, MATCHES, SETS, APMS, KNOTS, HISTORIES, LENGTHS, NOW_HASH + CONTEXTS, sizeof(struct adaptive)};
    memcpy(sizes, all, sizeof all);
}
