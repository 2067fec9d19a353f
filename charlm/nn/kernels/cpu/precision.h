/* Everything of one precision: the vectors, products, attention, the three cells, and the sum of rows. */

#include "vector.h"
#include "product.h"
#include "look_back.h"

#define RNN 1
#define GRU 3
#define LSTM 4

#define CELL RNN
#define C(name) PASTE(N(name), rnn)
#include "sequence.h"
#undef CELL
#undef C
#define CELL GRU
#define C(name) PASTE(N(name), gru)
#include "sequence.h"
#undef CELL
#undef C
#define CELL LSTM
#define C(name) PASTE(N(name), lstm)
#include "sequence.h"
#undef CELL
#undef C

static void N(scatter_part)(void *data, int me, struct team *team)
{
    const struct scatter *s = data;
    int64_t from, to;
    share((s->width + LONG_ - 1) / LONG_, me, team->size, &from, &to);
    from *= LONG_;
    to = to * LONG_ < s->width ? to * LONG_ : s->width;
    REAL *sums = s->sums;
    for (int64_t g = 0; g < s->groups; g++)
        for (int64_t i = from; i < to; i++)
            sums[g * s->width + i] = 0;
    for (int64_t r = 0; r < s->count; r++) {
        int64_t group = !s->ids ? 0 : s->ids[r] < 0 ? s->groups - 1 : (int64_t)s->ids[r];
        const REAL *row = (const REAL *)s->rows + r * s->stride;
        REAL *sum = sums + group * s->width;
        for (int64_t i = from; i < to; i += LONG_)
            N(store)(sum + i, N(load)(sum + i, to - i) + N(load)(row + i, to - i), to - i);
    }
}

EXPORT void EXPORTED(N(scatter))(struct scatter *s) { together(N(scatter_part), s, s->threads); }

#undef N
#undef LONG_
#undef LEAST
#undef AHEAD
#undef VEC
#undef INLINE
#undef RNN
#undef GRU
#undef LSTM
