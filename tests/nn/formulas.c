/* The kernels of one target against the cells' formulas written out in plain C, without Python: for a processor that is
   emulated. Prints the largest errors: of float32 outputs, of float64 outputs, and of float64 gradients against central
   differences, of products with weights of 8 and 16 bits, and of products of two matrices; of attention float32 and float64
   outputs, float64 gradients against central differences, and float32 gradients; and of generation that looks back.
   test_targets.py compiles it and judges what it prints. */

#include "../../charlm/nn/kernels/cpu/kernels.c"
#include <stdio.h>
#include <stdlib.h>

enum { RNN = 1, GRU = 3, LSTM = 4 };

#define MOST 70000
static double drawn[MOST];

static double random_number(void) { return rand() / (double)RAND_MAX - 0.5; }

static double squash(double x) { return 1 / (1 + exp(-x)); }

/* One step of one lane; h and c are replaced. */
static void step(int cell, int H, const double *input, const double *weight, const double *bias_n, double *h, double *c)
{
    double sums[4 * 64], fresh[64];
    for (int g = 0; g < cell * H; g++) {
        sums[g] = 0;
        for (int k = 0; k < H; k++)
            sums[g] += weight[g * H + k] * h[k];
    }
    for (int u = 0; u < H; u++) {
        const double *x = input + u, *s = sums + u;
        if (cell == RNN)
            fresh[u] = tanh(x[0] + s[0]);
        else if (cell == GRU) {
            double r = squash(x[0] + s[0]), z = squash(x[H] + s[H]);
            fresh[u] = (1 - z) * tanh(x[2 * H] + r * (s[2 * H] + bias_n[u])) + z * h[u];
        } else {
            c[u] = squash(x[H] + s[H]) * c[u] + squash(x[0] + s[0]) * tanh(x[2 * H] + s[2 * H]);
            fresh[u] = squash(x[3 * H] + s[3 * H]) * tanh(c[u]);
        }
    }
    memcpy(h, fresh, (size_t)H * sizeof *h);
}

struct arrays {
    double input[MOST], weight[4 * 64 * 64], bias_n[64], h0[MOST], c0[MOST], y[MOST];
};

/* All steps and lanes; returns the sum of outputs times `drawn`. */
static double formulas(int cell, int T, int B, int H, struct arrays *a, const unsigned char *resets)
{
    double loss = 0;
    for (int b = 0; b < B; b++) {
        double h[64], c[64];
        memcpy(h, a->h0 + b * H, sizeof(double) * (size_t)H), memcpy(c, a->c0 + b * H, sizeof(double) * (size_t)H);
        for (int t = 0; t < T; t++) {
            if (resets[t * B + b])
                memset(h, 0, sizeof h), memset(c, 0, sizeof c);
            step(cell, H, a->input + (t * B + b) * cell * H, a->weight, a->bias_n, h, c);
            for (int u = 0; u < H; u++)
                loss += (a->y[(t * B + b) * H + u] = h[u]) * drawn[(t * B + b) * H + u];
        }
    }
    return loss;
}

static void *room_of(const double *from, int64_t count, int single)
{
    char *to = aligned_alloc(64, (size_t)(count + 7) / 8 * 64);
    for (int64_t i = 0; i < count; i++) {
        if (single)
            ((float *)to)[i] = from ? (float)from[i] : 0;
        else
            ((double *)to)[i] = from ? from[i] : 0;
    }
    return to;
}

static void *room(const double *from, int single) { return room_of(from, MOST, single); }

#define CALL(direction, kind)                                       \
    (cell == RNN   ? EXPORTED(direction##_##kind##_rnn)(&job)  \
     : cell == GRU ? EXPORTED(direction##_##kind##_gru)(&job)  \
                        : EXPORTED(direction##_##kind##_lstm)(&job))

static void test(int cell, int T, int B, int H, int threads, int by_units, double *worst)
{
    static struct arrays a;
    static unsigned char resets[1000];
    double *all[] = {a.input, a.h0, a.c0, drawn};
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < MOST; i++)
            all[k][i] = random_number();
    for (int i = 0; i < 4 * 64 * 64; i++)
        a.weight[i] = random_number();
    for (int i = 0; i < 64; i++)
        a.bias_n[i] = random_number();
    for (int i = 0; i < T * B; i++)
        resets[i] = rand() % 4 == 0;
    formulas(cell, T, B, H, &a, resets);
    struct layer job = {.steps = T, .lanes = B, .hidden = H, .threads = threads, .by_units = by_units, .resets = resets};
    for (int single = 1; single >= 0; single--) {
        job.input = job.gates = room(a.input, single), job.weight = room(a.weight, single);
        job.bias_n = room(a.bias_n, single), job.h0 = room(a.h0, single), job.c0 = room(a.c0, single);
        job.packed = room(NULL, single), job.y = room(NULL, single), job.extra = room(NULL, single);
        single ? CALL(forward, f32) : CALL(forward, f64);
        for (int i = 0; i < T * B * H; i++) {
            double found = single ? ((float *)job.y)[i] : ((double *)job.y)[i];
            worst[1 - single] = fmax(worst[1 - single], fabs(found - a.y[i]));
        }
    }
    job.y_grad = room(drawn, 0), job.carry = room(NULL, 0), job.gates_grad = room(NULL, 0);
    job.h0_grad = room(NULL, 0), job.c0_grad = room(NULL, 0);
    CALL(backward, f64);
    for (int i = 0; i < 60; i++) { /* of the GRU's gradients n_h, r, z and n_x the last three are the input's */
        const int at = rand() % (T * B * cell * H), row = at / (cell * H), wide = (cell == GRU ? 4 : cell) * H;
        const double *grad = (const double *)job.gates_grad + row * wide + (cell == GRU) * H, before = a.input[at];
        double sides[2];
        for (int k = 0; k < 2; k++) {
            a.input[at] = before + (k ? -1e-5 : 1e-5);
            sides[k] = formulas(cell, T, B, H, &a, resets);
        }
        a.input[at] = before;
        worst[2] = fmax(worst[2], fabs((sides[0] - sides[1]) / 2e-5 - grad[at % (cell * H)]));
    }
}

/* The largest error of products of two rows with a panel of whole numbers; 1 where the products of the widened panel are
   not the same to the last bit. */
static double few_bits(int bits)
{
    enum { DEPTH = 37 };
    const int floats = VECTOR / 4;
    static float a[2][DEPTH], scales[4 * VECTOR / 4], wide[DEPTH * VECTOR] __attribute__((aligned(64)));
    static int16_t panel[DEPTH * VECTOR];
    double worst = 0;
    for (int vectors = 2; vectors <= 4; vectors++) {
        vec_f32 sums[8] = {0}, same[8] = {0};
        const float *from[] = {a[0], a[1]};
        const int columns = vectors * floats;
        for (int i = 0; i < DEPTH * columns; i++) {
            const int whole = rand() % (bits == 8 ? 255 : 65535) - (bits == 8 ? 127 : 32767);
            bits == 8 ? (void)(((int8_t *)panel)[i] = (int8_t)whole) : (void)(panel[i] = (int16_t)whole);
        }
        for (int i = 0; i < 2 * DEPTH; i++)
            a[i / DEPTH][i % DEPTH] = (float)random_number();
        for (int i = 0; i < columns; i++)
            scales[i] = (float)(fabs(random_number()) / (bits == 8 ? 127 : 32767));
        products_few[bits == 16][vectors][2](DEPTH, (const char *)panel, scales, from, sums);
        widen(bits, DEPTH, vectors, (const char *)panel, scales, wide);
        products_f32[vectors][2](DEPTH, wide, from, same);
        worst = memcmp(sums, same, sizeof(vec_f32) * 2 * (size_t)vectors) ? 1 : worst;
        for (int m = 0; m < 2; m++)
            for (int i = 0; i < columns; i++) {
                double sum = 0;
                for (int k = 0; k < DEPTH; k++)
                    sum += (double)a[m][k] * scales[i] *
                           (bits == 8 ? ((int8_t *)panel)[k * columns + i] : panel[k * columns + i]);
                worst = fmax(worst, fabs(sum - ((float *)sums)[m * columns + i]));
            }
    }
    return worst;
}

/* The largest error of a float32 and a float64 product of matrices, of every layout, in several blocks and tiles. */
static double products(int single)
{
    enum { M = 67, K = 1100, N = 83 };
    static double left[M * K], right[K * N], bias[N];
    double worst = 0;
    for (int i = 0; i < M * K; i++)
        left[i] = random_number();
    for (int i = 0; i < K * N; i++)
        right[i] = random_number();
    for (int i = 0; i < N; i++)
        bias[i] = random_number();
    for (int layout = 0; layout < 4; layout++) {
        const int by_left = layout & 1, by_right = layout >> 1;
        struct product job = {.rows = M, .columns = N, .depth = K, .threads = 2};
        job.left = room_of(left, M * K, single), job.right = room_of(right, K * N, single), job.bias = room_of(bias, N, single);
        job.left_row = by_left ? 1 : K, job.left_step = by_left ? M : 1;
        job.right_step = by_right ? 1 : N, job.right_column = by_right ? K : 1;
        job.out = room_of(NULL, M * N, single);
        job.room = room_of(NULL, 2 * (single ? EXPORTED(room_f32)() : EXPORTED(room_f64)()), single);
        single ? EXPORTED(product_f32)(&job) : EXPORTED(product_f64)(&job);
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                double sum = bias[n], found = single ? ((float *)job.out)[m * N + n] : ((double *)job.out)[m * N + n];
                for (int k = 0; k < K; k++)
                    sum += left[m * job.left_row + k * job.left_step] * right[k * job.right_step + n * job.right_column];
                worst = fmax(worst, fabs(sum - found));
            }
    }
    return worst;
}

#include "look_back_formulas.h"

int main(void)
{
    const int cells[] = {RNN, GRU, LSTM}, hidden[] = {1, 19, 40};
    double worst[3] = {0};
    for (int c = 0; c < 3; c++)
        for (int h = 0; h < 3; h++) {
            test(cells[c], 3, 1, hidden[h], 1, 1, worst);
            test(cells[c], 3, 29, hidden[h], 2, 0, worst);
            test(cells[c], 2, 5, hidden[h], 3, 1, worst);
        }
    printf("%g %g %g %g ", worst[0], worst[1], worst[2], fmax(few_bits(8), few_bits(16)));
    printf("%g %g ", products(1), products(0));
    double looking[4] = {0}, talked = 0;
    for (int64_t steps = 1; steps < 40; steps += steps < 5 ? 1 : 7)
        for (int64_t threads = 1; threads <= 3; threads++) {
            test_looking(steps, threads == 1 ? 5 : 1, 17, threads > 1, threads, looking);
            test_looking(steps, 2, 9, threads == 1, threads, looking);
        }
    for (int64_t threads = 1; threads <= 3; threads++)
        for (int64_t spare = 1; spare <= STEPS_HERE; spare += 20)
            talked = fmax(talked, talking(threads, threads == 3, spare - 1 + (spare == 1)));
    printf("%g %g %g %g %g\n", looking[0], looking[1], looking[2], looking[3], talked);
    return loops_met[0] && loops_met[1] ? 0 : 1; /* or some of the formulas were not judged */
}
