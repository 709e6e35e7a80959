/* SPDX-License-Identifier: Apache-2.0 */
/* Draws from rows of logits, and the log of the sum of their exponentials. */
#include "kernels/gpu/probability.h"

enum {
    N_QUADS = 8, /* loads of 16 bytes that a thread has under way */
    PART = QN_GPU_SAMPLE_PART,
    PART_THREADS = QN_GPU_sample_largest_THREADS,
    N_PARTS_MAX = QN_GPU_VOCAB_MAX / PART,
    N_THREADS = QN_GPU_sample_THREADS,
    N_WARPS = N_THREADS / QN_LANES,
};
_Static_assert(PART == 4 * N_QUADS * PART_THREADS, "a part is one batch of its block");
_Static_assert((int)QN_GPU_sample_soften_THREADS == (int)PART_THREADS, "of all parts");
_Static_assert((int)QN_GPU_sample_count_THREADS == (int)PART_THREADS, "of all parts");
_Static_assert((int)QN_GPU_logsumexp_THREADS == (int)N_THREADS, "both have a row");

/*
 * Elements i .. i + 3 of a row of n, NaN behind its end; strides are multiples of 16 bytes.  The
 * load has no condition: branches would wait for each other's loads.
 */
QN_DEV f32x4 load_quad(const float *row, uint32_t i, uint32_t n)
{
    const float nan = __builtin_nanf("");
    f32x4 x = __builtin_bit_cast(f32x4, qn_load_16(row + (i < n ? i : 0)));
    x.x = i < n ? x.x : nan;
    x.y = i + 1 < n ? x.y : nan;
    x.z = i + 2 < n ? x.z : nan;
    x.w = i + 3 < n ? x.w : nan;
    return x;
}

/* Quads i, i + step, ...; n_quads is a constant. */
QN_DEV void load_batch(f32x4 *x, uint32_t n_quads, const float *row, uint32_t i, uint32_t n,
                       uint32_t step)
{
    QN_UNROLL(N_QUADS)
    for (uint32_t q = 0; q < n_quads; q++) {
        x[q] = load_quad(row, i + q * step, n);
    }
}

/* What of a block's threads goes together: one value a warp. */
typedef union parts {
    uint32_t keys[2][N_WARPS];
    uint64_t sums[N_WARPS];
    double real_sums[N_WARPS];
} parts;

/* Key and id of the first of the largest of elements first .. end - 1, for all threads. */
QN_DEV void find_largest(const float *row, uint32_t first, uint32_t end, uint32_t n_threads,
                         parts *part, uint32_t *key, uint32_t *id)
{
    const uint32_t step = 4 * n_threads;
    uint32_t best = 0;
    uint32_t at = 0;
    QN_UNROLL(1)
    for (uint32_t i = first + 4 * qn_thread(); i < end; i += N_QUADS * step) {
        f32x4 x[N_QUADS];
        load_batch(x, N_QUADS, row, i, end, step);
        QN_UNROLL(4 * N_QUADS)
        for (uint32_t j = 0; j < 4 * N_QUADS; j++) {
            const uint32_t other = qn_order_key(x[j / 4][j % 4]);
            at = other > best ? i + j / 4 * step + j % 4 : at;
            best = qn_max_u32(other, best);
        }
    }
    qn_warp_best(&best, &at);
    if (qn_lane() == 0) {
        part->keys[0][qn_warp()] = best;
        part->keys[1][qn_warp()] = at;
    }
    qn_barrier();
    *key = part->keys[0][0];
    *id = part->keys[1][0];
    for (uint32_t w = 1; w < n_threads / QN_LANES; w++) {
        const uint32_t other = part->keys[0][w];
        const uint32_t other_id = part->keys[1][w];
        const bool is_before = other > *key || (other == *key && other_id < *id);
        *key = is_before ? other : *key;
        *id = is_before ? other_id : *id;
    }
    qn_barrier();
}

/* ---------------------------------------------------------------------------------- sample -- */

/*
 * Four launches: the parts of a row find the largest logit, then weigh their tokens, then count
 * them; at last one block a row looks for the token that is drawn.
 *
 * Tokens have an order: larger logit first, then lower id.  A place in it is found digit by digit:
 * of the probability's bits, then of the logit's (logits differ where f32 probabilities may not),
 * then of the id, with the number and the mass of the tokens that have each digit.  A mass is a
 * whole number of 2^-62, so that sums do not depend on their order.
 */
enum {
    DIGIT_BITS = 10,
    N_BINS = 1 << DIGIT_BITS,
    N_BIN_GROUPS = 32,
    GROUP_BINS = N_BINS / N_BIN_GROUPS,
};

typedef struct histogram {
    uint32_t counts[N_BINS];
    uint32_t lows[N_BINS], highs[N_BINS]; /* of the mass */
    uint32_t ids[N_BINS];                 /* of the token that came first, in no order: read
                                              where it is the only one */
} histogram;

/* What launches tell each other of a row; probabilities follow it in the scratch memory. */
typedef struct notes {
    double sums[N_PARTS_MAX];                          /* of a part's weights */
    uint32_t keys[N_PARTS_MAX], ids[N_PARTS_MAX];      /* of a part's largest logit */
    uint32_t n_weights[N_PARTS_MAX], pad[N_PARTS_MAX]; /* above 0 */
    histogram first;                                   /* of the highest digit */
} notes;
_Static_assert(sizeof(notes) == QN_GPU_SAMPLE_NOTES_BYTES, "host and device agree");

/* What is known of a place: leading bits of the three words, and which these are. */
typedef struct prefix {
    uint32_t p, p_mask;
    uint32_t logit, logit_mask; /* of qn_order_key() */
    uint32_t id, id_mask;       /* of the complement: the lower comes first */
} prefix;

/* Where a sum over the tokens in order reaches its target: in some bin, at last in one token. */
typedef struct place {
    uint64_t mass_before, mass; /* of the tokens before, and of the bin or token itself */
    uint32_t n_before, count;
    uint32_t bin, id;
} place;

/* What a block that draws shares. */
typedef struct search {
    parts part;
    histogram first, work; /* first: of the highest digit, which all searches begin with */
    uint64_t group_masses[N_BIN_GROUPS];
    uint32_t group_counts[N_BIN_GROUPS];
    place found;
} search;

/* A row that is drawn from. */
typedef struct draw {
    const float *logits;
    const float *p;
    uint32_t n;
    search *at;
} draw;

/* p in units of 2^-62, what is below cut off. */
QN_DEV uint64_t mass_of(uint32_t p_bits)
{
    const uint32_t exponent = p_bits >> 23;
    const uint64_t digits = (p_bits & 0x7fffffU) | (exponent > 0 ? 0x800000U : 0);
    const int shift = (int)exponent - 88;
    return shift >= 0 ? digits << shift : shift > -24 ? digits >> -shift : 0;
}

/* Tokens of one bin that a thread has met in a row: equal logits would crowd at one address. */
typedef struct run {
    uint64_t mass;
    uint32_t bin, count, id;
} run;

QN_DEV void add_run(histogram *to, const run *r)
{
    if (r->count == 0) {
        return;
    }
    const uint32_t low = (uint32_t)r->mass;
    const uint32_t carry = qn_atomic_add(&to->lows[r->bin], low) + low < low ? 1 : 0;
    (void)qn_atomic_add(&to->highs[r->bin], (uint32_t)(r->mass >> 32) + carry);
    if (qn_atomic_add(&to->counts[r->bin], r->count) == 0) { /* one thread alone */
        to->ids[r->bin] = r->id;
    }
}

QN_DEV void add_token(histogram *to, run *r, uint32_t bin, uint32_t p_bits, uint32_t id)
{
    if (bin != r->bin) {
        add_run(to, r);
        *r = (run){0, bin, 0, id};
    }
    r->mass += mass_of(p_bits);
    r->count++;
    r->id = id;
}

QN_DEV void clear(histogram *h, uint32_t n_threads)
{
    for (uint32_t i = qn_thread(); i < N_BINS; i += n_threads) {
        h->counts[i] = 0;
        h->lows[i] = 0;
        h->highs[i] = 0;
    }
    qn_barrier();
}

/* Of block y's row. */
QN_DEV notes *notes_of(const qn_gpu_sample_args *args, uint64_t row)
{
    const uint64_t row_bytes = qn_gpu_sample_scratch_bytes(1, args->n_vocab);
    return (notes *)((uint8_t *)args->scratch + row * row_bytes);
}

QN_DEV float *probabilities_of(notes *of_row)
{
    return (float *)(of_row + 1);
}

/* Is there something to draw?  The token then is not known yet; key and id are of the largest. */
QN_DEV bool is_open(const qn_gpu_sample_args *args, const notes *of_row, uint64_t row,
                    uint32_t *key, uint32_t *id)
{
    const uint32_t n_parts = (args->n_vocab + PART - 1) / PART;
    *key = 0;
    *id = 0;
    for (uint32_t i = qn_lane(); i < n_parts; i += QN_LANES) {
        *id = of_row->keys[i] > *key ? of_row->ids[i] : *id;
        *key = qn_max_u32(of_row->keys[i], *key);
    }
    qn_warp_best(key, id);
    return *key > QN_KEY_MINUS_INF && *key < QN_KEY_INF && args->settings[row].temperature != 0.0F;
}

/* A block a part: x says which, y is the row; so for the next two. */
QN_GPU_KERNEL(sample_largest)
{
    QN_SHARED(parts, part, 1);
    const uint64_t row = qn_block_y();
    notes *of_row = notes_of(args, row);
    const uint32_t first = qn_block_x() * PART;
    const uint32_t end = qn_min_u32(first + PART, args->n_vocab);
    uint32_t key = 0;
    uint32_t id = 0;
    find_largest(args->logits + row * args->logits_stride, first, end, PART_THREADS, part, &key,
                 &id);
    if (qn_thread() == 0) {
        of_row->keys[qn_block_x()] = key;
        of_row->ids[qn_block_x()] = id;
    }
    for (uint32_t i = qn_block_x() * PART_THREADS + qn_thread(); i < N_BINS;
         i += qn_blocks_x() * PART_THREADS) {
        of_row->first.counts[i] = 0;
        of_row->first.lows[i] = 0;
        of_row->first.highs[i] = 0;
    }
}

/* Weights e^((logit - max) / temperature) instead of probabilities, and their sum. */
QN_GPU_KERNEL(sample_soften)
{
    QN_SHARED(parts, part, 1);
    const uint64_t row = qn_block_y();
    const float *logits = args->logits + row * args->logits_stride;
    notes *of_row = notes_of(args, row);
    uint32_t key = 0;
    uint32_t id = 0;
    if (!is_open(args, of_row, row, &key, &id)) {
        return;
    }
    const float max = logits[id];
    const float temperature = args->settings[row].temperature;
    const uint32_t first = qn_block_x() * PART + 4 * qn_thread();
    f32x4 x[N_QUADS];
    load_batch(x, N_QUADS, logits, first, args->n_vocab, 4 * PART_THREADS);
    double sum = 0;
    uint64_t n = 0;
    QN_UNROLL(N_QUADS)
    for (uint32_t q = 0; q < N_QUADS; q++) {
        const uint32_t at = first + q * 4 * PART_THREADS;
        f32x4 e;
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            const float z = (x[q][j] - max) / temperature;
            e[j] = z <= 0.0F ? qn_exp_f32(z) : 0.0F; /* NaN gets no weight */
            sum += (double)e[j];
            n += e[j] > 0.0F ? 1 : 0;
        }
        if (at < args->n_vocab) {
            qn_store_16(probabilities_of(of_row) + at, __builtin_bit_cast(u32x4, e));
        }
    }
    sum = qn_block_sum_f64(sum, part->real_sums, PART_THREADS);
    qn_barrier();
    n = qn_block_sum_u64(n, part->sums, PART_THREADS);
    if (qn_thread() == 0) {
        of_row->sums[qn_block_x()] = sum;
        of_row->n_weights[qn_block_x()] = (uint32_t)n;
    }
}

/* Sum of the parts' weights, and how many are above 0, for all lanes. */
QN_DEV double sum_parts(const notes *of_row, uint32_t n_vocab, uint32_t *n_weights)
{
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t i = qn_lane(); i < (n_vocab + PART - 1) / PART; i += QN_LANES) {
        sum += of_row->sums[i];
        n += of_row->n_weights[i];
    }
    *n_weights = qn_warp_sum_u32(n);
    return qn_warp_sum_f64(sum);
}

/* Weights to probabilities, counted by their highest digit. */
QN_GPU_KERNEL(sample_count)
{
    QN_SHARED(histogram, own, 1);
    const uint64_t row = qn_block_y();
    notes *of_row = notes_of(args, row);
    uint32_t key = 0;
    uint32_t id = 0;
    uint32_t n_weights = 0;
    if (!is_open(args, of_row, row, &key, &id)) {
        return;
    }
    const double scale = 1.0 / sum_parts(of_row, args->n_vocab, &n_weights);
    float *p = probabilities_of(of_row);
    const uint32_t first = qn_block_x() * PART + 4 * qn_thread();
    f32x4 e[N_QUADS];
    load_batch(e, N_QUADS, p, first, args->n_vocab, 4 * PART_THREADS);
    clear(own, PART_THREADS);
    run r = {0, 0, 0, 0};
    QN_UNROLL(N_QUADS)
    for (uint32_t q = 0; q < N_QUADS; q++) {
        const uint32_t at = first + q * 4 * PART_THREADS;
        u32x4 bits = {0, 0, 0, 0};
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            bits[j] = at + j < args->n_vocab ? qn_f32_bits((float)((double)e[q][j] * scale)) : 0;
            if (bits[j] != 0) {
                add_token(own, &r, bits[j] >> 2 * DIGIT_BITS, bits[j], at + j);
            }
        }
        if (at < args->n_vocab) {
            qn_store_16(p + at, bits);
        }
    }
    add_run(own, &r);
    qn_barrier();
    for (uint32_t i = qn_thread(); i < N_BINS; i += PART_THREADS) {
        const uint64_t mass = (uint64_t)own->highs[i] << 32 | own->lows[i];
        add_run(&of_row->first, &(run){mass, i, own->counts[i], own->ids[i]});
    }
}

/* The row's first histogram where it is quick to read; its mass. */
QN_DEV uint64_t take_first(const draw *d, const histogram *from)
{
    uint64_t mass = 0;
    for (uint32_t i = qn_thread(); i < N_BINS; i += N_THREADS) {
        d->at->first.counts[i] = from->counts[i];
        d->at->first.lows[i] = from->lows[i];
        d->at->first.highs[i] = from->highs[i];
        d->at->first.ids[i] = from->ids[i];
        mass += (uint64_t)from->highs[i] << 32 | from->lows[i];
    }
    mass = qn_block_sum_u64(mass, d->at->part.sums, N_THREADS);
    qn_barrier();
    return mass;
}

/*
 * The bin, from the highest, in which the sum of counts or masses reaches the target, which is at
 * least 1: into found, on top of what that says of the tokens before.  Beyond the sum of all, the
 * last bin that adds something.
 */
QN_DEV void find_bin(const draw *d, const histogram *h, uint64_t target, bool by_count)
{
    const uint32_t group = qn_thread();
    if (group < N_BIN_GROUPS) {
        uint64_t mass = 0;
        uint32_t count = 0;
        for (uint32_t i = 0; i < GROUP_BINS; i++) {
            /* Each thread begins at another bank. */
            const uint32_t bin = group * GROUP_BINS + (i + group) % GROUP_BINS;
            mass += (uint64_t)h->highs[bin] << 32 | h->lows[bin];
            count += h->counts[bin];
        }
        d->at->group_masses[group] = mass;
        d->at->group_counts[group] = count;
    }
    qn_barrier();
    if (qn_thread() == 0) {
        place at = d->at->found;
        uint64_t all = by_count ? at.n_before : at.mass_before;
        QN_UNROLL(8)
        for (uint32_t i = 0; i < N_BIN_GROUPS; i++) {
            all += by_count ? d->at->group_counts[i] : d->at->group_masses[i];
        }
        target = target < all ? target : all;
        uint32_t i = N_BIN_GROUPS - 1;
        QN_UNROLL(1)
        while (i > 0 && (by_count ? at.n_before + d->at->group_counts[i]
                                  : at.mass_before + d->at->group_masses[i]) < target) {
            at.mass_before += d->at->group_masses[i];
            at.n_before += d->at->group_counts[i--];
        }
        const uint32_t last = i * GROUP_BINS;
        QN_UNROLL(1)
        for (at.bin = last + GROUP_BINS - 1;; at.bin--) {
            at.mass = (uint64_t)h->highs[at.bin] << 32 | h->lows[at.bin];
            at.count = h->counts[at.bin];
            if (at.bin == last ||
                (by_count ? at.n_before + at.count : at.mass_before + at.mass) >= target) {
                break;
            }
            at.mass_before += at.mass;
            at.n_before += at.count;
        }
        at.id = h->ids[at.bin];
        d->at->found = at;
    }
    qn_barrier();
}

enum { QUAD_STEP = 4 * N_THREADS, REFINE_QUADS = 4 };

/* Places of the digits after the highest: in p, in the logit's key, in the id's complement. */
enum { N_DIGITS = 8, P_DIGITS = 2, LOGIT_DIGITS = 4 };
QN_DEV uint32_t shift_of(uint32_t i_digit)
{
    const uint64_t shifts = 0x000a00020c16000aULL; /* 10, 0; 22, 12, 2, 0; 10, 0: a byte each */
    return (uint32_t)(shifts >> 8 * i_digit) & 0xffU;
}

/* Count the tokens whose place begins so by their next digit. */
QN_DEV void refine(const draw *d, const prefix *known, uint32_t i_digit)
{
    const uint32_t shift = shift_of(i_digit);
    run r = {0, 0, 0, 0};
    clear(&d->at->work, N_THREADS);
    QN_UNROLL(1)
    for (uint32_t i = 4 * qn_thread(); i < d->n; i += REFINE_QUADS * QUAD_STEP) {
        f32x4 p[REFINE_QUADS];
        load_batch(p, REFINE_QUADS, d->p, i, d->n, QUAD_STEP);
        QN_UNROLL(4 * REFINE_QUADS)
        for (uint32_t j = 0; j < 4 * REFINE_QUADS; j++) {
            const uint32_t id = i + j / 4 * QUAD_STEP + j % 4;
            const uint32_t bits = qn_f32_bits(p[j / 4][j % 4]);
            if (id >= d->n || bits == 0 || ((bits ^ known->p) & known->p_mask) != 0) {
                continue;
            }
            uint32_t digits = bits;
            if (i_digit >= P_DIGITS) {
                const uint32_t key = qn_order_key(d->logits[id]);
                digits = i_digit < P_DIGITS + LOGIT_DIGITS ? key : ~id;
                if (((key ^ known->logit) & known->logit_mask) != 0 ||
                    ((~id ^ known->id) & known->id_mask) != 0) {
                    continue;
                }
            }
            add_token(&d->at->work, &r, digits >> shift & (N_BINS - 1), bits, id);
        }
    }
    add_run(&d->at->work, &r);
    qn_barrier();
}

/* The token in which the sum of counts or masses reaches the target, for all threads. */
QN_DEV place find_token(const draw *d, uint64_t target, bool by_count)
{
    qn_barrier(); /* found was read by all */
    if (qn_thread() == 0) {
        d->at->found = (place){0, 0, 0, 0, 0, 0};
    }
    find_bin(d, &d->at->first, target, by_count);
    prefix known = {d->at->found.bin << 2 * DIGIT_BITS, ~0U << 2 * DIGIT_BITS, 0, 0, 0, 0};
    QN_UNROLL(1)
    for (uint32_t i = 0; i < N_DIGITS && d->at->found.count > 1; i++) {
        refine(d, &known, i);
        find_bin(d, &d->at->work, target, by_count);
        const uint32_t digit = d->at->found.bin << shift_of(i);
        const uint32_t mask = (N_BINS - 1U) << shift_of(i);
        if (i < P_DIGITS) {
            known.p |= digit;
            known.p_mask |= mask;
        } else if (i < P_DIGITS + LOGIT_DIGITS) {
            known.logit |= digit;
            known.logit_mask |= mask;
        } else {
            known.id |= digit;
            known.id_mask |= mask;
        }
    }
    return d->at->found;
}

/* The mass of those before or at the cut, where there is one, whose probability is at least floor.
 */
QN_DEV uint64_t mass_above(const draw *d, double floor, const place *cut, bool is_cut)
{
    const float last = is_cut ? d->logits[cut->id] : 0;
    uint64_t mass = 0;
    for (uint32_t i = 4 * qn_thread(); i < d->n; i += QUAD_STEP) {
        const f32x4 x = load_quad(d->logits, i, d->n);
        const f32x4 p = load_quad(d->p, i, d->n);
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            const bool is_in = !is_cut || x[j] > last || (x[j] == last && i + j <= cut->id);
            mass += is_in && (double)p[j] >= floor ? mass_of(qn_f32_bits(p[j])) : 0;
        }
    }
    mass = qn_block_sum_u64(mass, d->at->part.sums, N_THREADS);
    qn_barrier();
    return mass;
}

/* The filters cut the order of tokens one after the other; the draw is a search like theirs. */
enum { STAGE_TOP_K, STAGE_TOP_P, STAGE_DRAW, N_STAGES };

/* Draw one token; n have a weight, kept is the mass of all, best the first of the largest logits.
 */
QN_DEV uint32_t draw_token(const draw *d, const qn_gpu_sampling *set, uint32_t n, uint64_t kept,
                           uint32_t best)
{
    double share_of = 0x1p62; /* what top_p is a share of: without top_k, of all */
    place cut = {0, 0, 0, 0, 0, 0};
    bool is_cut = false;
    QN_UNROLL(1)
    for (uint32_t stage = 0; stage < N_STAGES; stage++) {
        uint64_t target = 0; /* none: nothing to cut */
        if (stage == STAGE_TOP_K) {
            target = set->top_k < n ? set->top_k : 0;
        } else if (stage == STAGE_TOP_P) {
            const double share = (double)set->top_p * share_of;
            const uint64_t whole = (uint64_t)share;
            target = set->top_p < 1.0F ? whole + ((double)whole < share ? 1 : 0) : 0;
        } else {
            const double floor = (double)set->min_p * (double)d->p[best];
            kept = set->min_p > 0.0F ? mass_above(d, floor, &cut, is_cut) : kept;
            target = (uint64_t)(set->unit * (double)kept) + 1;
            target = target < kept ? target : kept;
        }
        if (target > 0) {
            cut = find_token(d, target, stage == STAGE_TOP_K);
            is_cut = true;
            kept = cut.mass_before + cut.mass;
            share_of = stage == STAGE_TOP_K ? (double)kept : share_of;
        }
    }
    return cut.id;
}

/* A block a row. */
QN_GPU_KERNEL(sample)
{
    QN_SHARED(search, at, 1);
    const uint64_t row = qn_block_x();
    notes *of_row = notes_of(args, row);
    const draw d = {
        .logits = args->logits + row * args->logits_stride,
        .p = probabilities_of(of_row),
        .n = args->n_vocab,
        .at = at,
    };
    uint32_t key = 0;
    uint32_t id = 0;
    if (is_open(args, of_row, row, &key, &id)) {
        uint32_t n = 0;
        (void)sum_parts(of_row, args->n_vocab, &n);
        const uint64_t mass = take_first(&d, &of_row->first);
        id = draw_token(&d, args->settings + row, n, mass, id);
    }
    if (qn_thread() == 0) {
        args->tokens[row] = key > QN_KEY_MINUS_INF ? (int32_t)id : -1;
    }
}

/* ------------------------------------------------------------------------------ log-sum-exp -- */

/*
 * e^z for z <= 0: the product with log2(e) keeps its rounding error, which otherwise would be felt
 * where many small terms make up the sum.
 */
QN_DEV float exp_below(float z)
{
    const float held = z < -200.0F ? -200.0F : z;
    const float t = held * 0x1.715476p0F;
    const float rest = qn_fma(held, 0x1.4ae0cp-26F, qn_fma(held, 0x1.715476p0F, -t));
    const float power = qn_fast_exp2(t);
    return qn_fma(power, rest * 0x1.62e43p-1F, power);
}

QN_GPU_KERNEL(logsumexp)
{
    QN_SHARED(parts, part, 1);
    const float *logits = args->logits + qn_block_x() * args->logits_stride;
    uint32_t key = 0;
    uint32_t id = 0;
    find_largest(logits, 0, args->n_vocab, N_THREADS, part, &key, &id);
    const float max = key > QN_KEY_MINUS_INF ? logits[id] : -__builtin_inff();
    double y = (double)max;
    if (qn_abs(max) < __builtin_inff()) {
        double sum = 0;
        QN_UNROLL(1)
        for (uint32_t i = 4 * qn_thread(); i < args->n_vocab; i += N_QUADS * QUAD_STEP) {
            f32x4 x[N_QUADS];
            load_batch(x, N_QUADS, logits, i, args->n_vocab, QUAD_STEP);
            QN_UNROLL(N_QUADS)
            for (uint32_t q = 0; q < N_QUADS; q++) {
                f32x4 e;
                QN_UNROLL(4)
                for (uint32_t j = 0; j < 4; j++) {
                    e[j] = x[q][j] <= max ? exp_below(x[q][j] - max) : 0;
                }
                sum += (double)((e.x + e.y) + (e.z + e.w));
            }
        }
        y += qn_log_f64(qn_block_sum_f64(sum, part->real_sums, N_THREADS));
    }
    if (qn_thread() == 0) {
        args->y[qn_block_x()] = y;
    }
}
