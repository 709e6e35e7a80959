/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/adjust.c, against the rules of engine/sampler.c. */
#include "gpucheck.h"

#include <string.h>

/* ----------------------------------------------------------------------------------- adjust -- */

/* The sampler's changes to one row, drafts committed first. */
static void adjust_oracle(float *logits, uint32_t n, const qn_gpu_adjustment *a, uint32_t *counts,
                          uint32_t n_answer)
{
    for (uint32_t i = 0; i < a->n_biases; i++) {
        logits[a->biases[i].token] += a->biases[i].bias;
    }
    for (uint32_t i = 0; i < a->n_stop_ids && n_answer + a->n_drafts < a->min_tokens; i++) {
        logits[a->stop_ids[i]] = -INFINITY;
    }
    for (uint32_t i = 0; i < a->n_drafts && counts != NULL; i++) {
        uint32_t *count = &counts[a->drafts[i]];
        *count = (*count > 0 ? *count : 1) + 1;
    }
    for (uint32_t id = 0; id < n && counts != NULL; id++) {
        if (counts[id] > 0) {
            const uint32_t n_times = counts[id] - 1;
            logits[id] = logits[id] > 0.0F ? logits[id] / a->repetition_penalty
                                           : logits[id] * a->repetition_penalty;
            logits[id] -= a->frequency_penalty * (float)n_times;
            logits[id] -= n_times > 0 ? a->presence_penalty : 0.0F;
        }
    }
}

/* One row's lists, on the host and, in *on_device, where the kernel finds them. */
static qn_gpu_adjustment make_adjustment(gc *run, uint32_t n, uint32_t row, uint32_t **counts,
                                         uint32_t *n_answer, qn_gpu_adjustment *on_device)
{
    const uint32_t n_padded = (n + 3) / 4 * 4;
    qn_gpu_adjustment a = {
        .n_biases = row % 3 == 1 ? 0 : 1 + gc_below(run, 40),
        .n_stop_ids = gc_below(run, 4),
        .n_drafts = row % 4 == 0 ? 0 : gc_below(run, 9),
        .min_tokens = row % 2 == 0 ? 0 : 12,
        .repetition_penalty = 1.25F,
        .presence_penalty = row % 3 == 0 ? 0.5F : -0.3F,
        .frequency_penalty = 0.2F,
    };
    qn_gpu_bias *biases = gc_host(run, a.n_biases * sizeof *biases);
    int32_t *stops = gc_host(run, a.n_stop_ids * sizeof *stops);
    int32_t *drafts = gc_host(run, a.n_drafts * sizeof *drafts);
    *counts = gc_host(run, n_padded * sizeof **counts);
    *n_answer = gc_below(run, 14);
    for (uint32_t i = 0; i < a.n_biases; i++) { /* some tokens twice */
        biases[i] = (qn_gpu_bias){(int32_t)gc_below(run, n < 30 ? n : 30), gc_uniform(run)};
        biases[i].token = i % 2 == 0 ? biases[i].token : (int32_t)n - 1 - biases[i].token;
    }
    const bool is_stopped = *n_answer + a.n_drafts < a.min_tokens;
    for (uint32_t i = 0; i < a.n_stop_ids; i++) {
        stops[i] = (int32_t)gc_below(run, n);
        if (is_stopped && a.n_biases > 0) { /* +Inf before -Inf; a NaN the other way around */
            stops[i] = biases[a.n_biases - 1 - i % a.n_biases].token;
            biases[a.n_biases - 1 - i % a.n_biases].bias = INFINITY;
        }
    }
    for (uint32_t i = 0; i < a.n_drafts; i++) {
        drafts[i] = (int32_t)(i % 2 == 0 ? gc_below(run, n) : gc_below(run, n < 5 ? n : 5));
    }
    for (uint32_t id = 0; id < n; id++) {
        (*counts)[id] = gc_below(run, 3) == 0 ? gc_below(run, 4) : 0;
    }
    a.biases = biases;
    a.stop_ids = stops;
    a.drafts = drafts;
    *on_device = a;
    on_device->biases = gc_in(run, biases, a.n_biases * sizeof *biases);
    on_device->stop_ids = gc_in(run, stops, a.n_stop_ids * sizeof *stops);
    on_device->drafts = gc_in(run, drafts, a.n_drafts * sizeof *drafts);
    on_device->n_answer = gc_in(run, n_answer, sizeof *n_answer);
    on_device->counts = row % 5 == 4 ? NULL : gc_in(run, *counts, n_padded * sizeof **counts);
    *counts = row % 5 == 4 ? NULL : *counts;
    return a;
}

static void adjust_case(gc *run, uint32_t n, gc_fill fill)
{
    enum { N_ROWS = 8 };
    gc_begin(run, "n %u, fill %d", n, (int)fill);
    const uint32_t stride = (n + 3) / 4 * 4 + 4;
    float *logits = gc_floats(run, (size_t)N_ROWS * stride, fill);
    float *const on_device = gc_inout(run, logits, (size_t)N_ROWS * stride * sizeof *logits);
    qn_gpu_adjustment of_row[N_ROWS];
    for (uint32_t t = 0; t < N_ROWS; t++) {
        uint32_t *counts = NULL;
        uint32_t n_answer = 0;
        const qn_gpu_adjustment a = make_adjustment(run, n, t, &counts, &n_answer, &of_row[t]);
        adjust_oracle(logits + (size_t)t * stride, n, &a, counts, n_answer);
    }
    const qn_gpu_adjust_args args = {
        .logits = on_device,
        .of_row = gc_in(run, of_row, sizeof of_row),
        .logits_stride = stride,
        .n_rows = N_ROWS,
        .n_vocab = n,
    };
    qn_gpu_adjust(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    gc_same(run, "logits", gc_got(run, on_device), logits,
            (size_t)N_ROWS * stride * sizeof *logits);
    gc_end(run);
}

static void check_adjust(gc *run)
{
    static const uint32_t sizes[] = {1, 7, 1030, 20003, 154880};
    for (size_t i = 0; i < (run->is_emulated ? 4 : 5); i++) {
        adjust_case(run, sizes[i], GC_NORMAL);
        adjust_case(run, sizes[i], GC_INF);
    }
}

static void adjust_misses_last_row(void *args)
{
    ((qn_gpu_adjust_args *)args)->n_rows--;
}

static void adjust_misses_last_token(void *args)
{
    ((qn_gpu_adjust_args *)args)->n_vocab--;
}

/* ----------------------------------------------------------------------------------- commit -- */

static void commit_case(gc *run, uint32_t n_seqs)
{
    enum { N = 20, N_MAX = 5 };
    gc_begin(run, "%u sequences", n_seqs);
    int32_t *drawn = gc_host(run, (size_t)n_seqs * N_MAX * sizeof *drawn);
    uint32_t *n_answers = gc_host(run, n_seqs * sizeof *n_answers);
    uint32_t *first_row = gc_host(run, n_seqs * sizeof *first_row);
    uint32_t *n_tokens = gc_host(run, n_seqs * sizeof *n_tokens);
    uint32_t *counts = gc_host(run, (size_t)n_seqs * N * sizeof *counts);
    uint32_t **tables = gc_host(run, n_seqs * sizeof *tables);
    for (size_t i = 0; i < (size_t)n_seqs * N; i++) {
        counts[i] = gc_below(run, 3);
    }
    uint32_t *const on_device = gc_inout(run, counts, (size_t)n_seqs * N * sizeof *counts);
    uint32_t *const answers = gc_inout(run, n_answers, n_seqs * sizeof *n_answers);
    for (uint32_t s = 0; s < n_seqs; s++) {
        first_row[s] = s * N_MAX;
        n_tokens[s] = gc_below(run, N_MAX + 1);
        tables[s] = s % 7 == 6 ? NULL : on_device + (size_t)s * N;
        n_answers[s] += n_tokens[s];
        for (uint32_t i = 0; i < N_MAX; i++) {
            drawn[s * N_MAX + i] = i < n_tokens[s] ? (int32_t)gc_below(run, N) : -1;
        }
        for (uint32_t i = 0; i < n_tokens[s] && tables[s] != NULL; i++) {
            uint32_t *count = &counts[s * N + (uint32_t)drawn[s * N_MAX + i]];
            *count = (*count > 0 ? *count : 1) + 1;
        }
    }
    const qn_gpu_commit_args args = {
        .counts = gc_in(run, tables, n_seqs * sizeof *tables),
        .n_answers = answers,
        .drawn = gc_in(run, drawn, (size_t)n_seqs * N_MAX * sizeof *drawn),
        .first_row = gc_in(run, first_row, n_seqs * sizeof *first_row),
        .n_tokens = gc_in(run, n_tokens, n_seqs * sizeof *n_tokens),
        .n_seqs = n_seqs,
    };
    qn_gpu_commit(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    gc_same(run, "counts", gc_got(run, on_device), counts, (size_t)n_seqs * N * sizeof *counts);
    gc_same(run, "n_answers", gc_got(run, answers), n_answers, n_seqs * sizeof *n_answers);
    gc_end(run);
}

static void check_commit(gc *run)
{
    commit_case(run, 1);
    commit_case(run, 70);
}

static void commit_misses_last(void *args)
{
    ((qn_gpu_commit_args *)args)->n_seqs--;
}

/* -------------------------------------------------------------------------------- benchmarks -- */

/* A set: logits, counts, the rows' adjustments. */
static void fill_adjust(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_adjust_args *a = bench->context;
    const size_t n_row = (size_t)a->n_vocab * sizeof(float);
    qn_gpu_adjustment *of_row = gc_host(run, a->n_rows * sizeof *of_row);
    uint32_t *counts = gc_host(run, n_row);
    for (uint32_t i = 0; i < a->n_vocab; i++) {
        counts[i] = gc_below(run, 40) == 0 ? 2 : 0;
    }
    for (uint32_t t = 0; t < a->n_rows; t++) {
        uint8_t *const at = set + ((size_t)a->n_rows + t) * n_row;
        gc_put(run, at, counts, n_row);
        of_row[t].counts = (const uint32_t *)(const void *)at;
        of_row[t].repetition_penalty = 1.1F;
    }
    gc_put(run, set + 2 * (size_t)a->n_rows * n_row, of_row, a->n_rows * sizeof *of_row);
}

static void queue_adjust(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_adjust_args args = *(const qn_gpu_adjust_args *)bench->context;
    args.logits = (float *)(void *)set;
    args.of_row =
        (const qn_gpu_adjustment *)(const void *)(set + 2 * (size_t)args.n_rows * args.n_vocab * 4);
    qn_gpu_adjust(&run->ops, &args);
}

static void bench_adjust(gc *run, uint32_t n_rows, const char *shape)
{
    const uint32_t n = run->is_emulated ? 512 : 154880;
    const qn_gpu_adjust_args args = {.logits_stride = n, .n_rows = n_rows, .n_vocab = n};
    gc_time(run, &(gc_bench){.op = "adjust",
                             .shape = shape,
                             .n_bytes = 4.0 * n_rows * n,
                             .set_bytes = (size_t)n_rows * (8 * (size_t)n + 72),
                             .fill = fill_adjust,
                             .queue = queue_adjust,
                             .context = &args});
}

static void bench(gc *run)
{
    bench_adjust(run, 1, "1 row, penalties");
    bench_adjust(run, 64, "64 rows, penalties");
}

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"adjust", check_adjust, "exact: engine/sampler.c"},
    {"commit", check_commit, "exact: engine/sampler.c"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"adjust_misses_last_row", "adjust", adjust_misses_last_row},
    {"adjust_misses_last_token", "adjust", adjust_misses_last_token},
    {"commit_misses_last", "commit", commit_misses_last},
    {NULL, NULL, NULL},
};

const gc_group gc_adjust = {checks, wrongs, bench};
