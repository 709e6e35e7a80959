/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/adjust.c, against the rules of engine/sampler.c. */
#include "device/gpu_block.h"
#include "gpucheck.h"

#include <string.h>

enum {
    N_SLOTS = 6,
    N_CHAIN = 3,                    /* rows of a sequence, one behind the other */
    N_ROWS = N_SLOTS * N_CHAIN + 1, /* of the pass; the last is padding */
    N_TOKENS_MAX = 5000,
    PAGE = 64,
};

/* Sequences, and rows of a pass of them. */
typedef struct pass {
    qn_gpu_slot slots[N_SLOTS];
    qn_gpu_bias biases[N_SLOTS * QN_GPU_SLOT_BIASES];
    uint32_t n_table_pages;
    int32_t *tables;      /* [N_SLOTS][n_table_pages] */
    int32_t *page_tokens; /* [N_SLOTS * n_table_pages][PAGE] */
    size_t tables_bytes, tokens_bytes;
    int32_t positions[N_ROWS], slots_of[N_ROWS];
} pass;

/* Token at a position of a slot's sequence. */
static int32_t *token_at(const pass *p, uint32_t i_slot, uint32_t position)
{
    const int32_t page = p->tables[i_slot * p->n_table_pages + position / PAGE];
    return &p->page_tokens[(size_t)page * PAGE + position % PAGE];
}

/* Slot 0 changes nothing; the others biases, stop ids, penalties, or several of these. */
static void make_slot(gc *run, pass *p, uint32_t n, uint32_t i)
{
    qn_gpu_slot *const slot = &p->slots[i];
    qn_gpu_bias *const biases = &p->biases[i * QN_GPU_SLOT_BIASES];
    *slot = (qn_gpu_slot){.n_prompt = 1 + gc_below(run, 2 * PAGE),
                          .n_stop_ids = gc_below(run, QN_GPU_SLOT_STOPS + 1),
                          .repetition_penalty = 1.0F};
    slot->n_biases = i % 2 == 0 ? 0 : i == 3 ? QN_GPU_SLOT_BIASES : 1 + gc_below(run, 40);
    slot->min_tokens = i == 2 || i >= 4 ? gc_below(run, 2 * PAGE) : 0;
    if (i >= 3) {
        slot->is_penalised = 1;
        slot->repetition_penalty = i == 5 ? 0.8F : 1.25F;
        slot->presence_penalty = i == 3 ? 0.0F : -0.3F;
        slot->frequency_penalty = 0.2F;
    }
    for (uint32_t k = 0; k < slot->n_biases; k++) { /* some tokens twice */
        biases[k] = (qn_gpu_bias){(int32_t)gc_below(run, n < 30 ? n : 30), gc_uniform(run)};
        biases[k].token = k % 2 == 0 ? biases[k].token : (int32_t)n - 1 - biases[k].token;
    }
    for (uint32_t k = 0; k < slot->n_stop_ids; k++) {
        slot->stop_ids[k] = (int32_t)gc_below(run, n);
        if (slot->n_biases > 0) { /* +Inf before -Inf; a NaN the other way around */
            slot->stop_ids[k] = biases[k % slot->n_biases].token;
            biases[k % slot->n_biases].bias = INFINITY;
        }
    }
}

/* Half of the tokens are few, and pages have others behind the last row. */
static pass *make_pass(gc *run, uint32_t n, uint32_t n_tokens)
{
    pass *const p = gc_host(run, sizeof *p);
    p->n_table_pages = n_tokens / PAGE + 1;
    const uint32_t n_pages = N_SLOTS * p->n_table_pages;
    p->tables_bytes = n_pages * sizeof *p->tables;
    p->tokens_bytes = (size_t)n_pages * PAGE * sizeof *p->page_tokens;
    p->tables = gc_host(run, p->tables_bytes);
    p->page_tokens = gc_host(run, p->tokens_bytes);
    for (uint32_t i = 0; i < n_pages; i++) {
        p->tables[i] = (int32_t)(n_pages - 1 - i);
    }
    for (size_t i = 0; i < (size_t)n_pages * PAGE; i++) {
        p->page_tokens[i] = (int32_t)gc_below(run, i % 2 == 0 || n < 5 ? n : 5);
    }
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        make_slot(run, p, n, i);
        const uint32_t n_first =
            p->slots[i].n_prompt + gc_below(run, n_tokens - 2 * PAGE - N_CHAIN);
        for (uint32_t j = 0; j < N_CHAIN; j++) { /* a prompt's last row, or of an answer */
            p->positions[i * N_CHAIN + j] = (int32_t)(n_first + j) - 1;
            p->slots_of[i * N_CHAIN + j] = (int32_t)i;
        }
    }
    p->positions[N_ROWS - 1] = -1;
    return p;
}

/* The sampler's changes to the logits of one row. */
static void adjust_oracle(float *logits, uint32_t n, const pass *p, uint32_t row, uint32_t *counts)
{
    const uint32_t i_slot = (uint32_t)p->slots_of[row];
    const qn_gpu_slot *const slot = &p->slots[i_slot];
    const uint32_t n_tokens = (uint32_t)(p->positions[row] + 1);
    const uint32_t n_answer = n_tokens > 0 ? n_tokens - slot->n_prompt : 0;
    memset(counts, 0, n * sizeof *counts);
    for (uint32_t i = 0; i < slot->n_biases && n_tokens > 0; i++) {
        const qn_gpu_bias *const bias = &p->biases[i_slot * QN_GPU_SLOT_BIASES + i];
        logits[bias->token] += bias->bias;
    }
    for (uint32_t i = 0; i < slot->n_stop_ids && n_tokens > 0; i++) {
        if (n_answer < slot->min_tokens) {
            logits[slot->stop_ids[i]] = -INFINITY;
        }
    }
    for (uint32_t i = 0; i < n_tokens; i++) { /* 0: not seen; else 1 + occurrences in the answer */
        uint32_t *const count = &counts[*token_at(p, i_slot, i)];
        *count = (*count > 0 ? *count : 1) + (i < slot->n_prompt ? 0 : 1);
    }
    for (uint32_t id = 0; id < n && slot->is_penalised; id++) {
        if (counts[id] > 0) {
            const uint32_t n_times = counts[id] - 1;
            logits[id] = logits[id] > 0.0F ? logits[id] / slot->repetition_penalty
                                           : logits[id] * slot->repetition_penalty;
            logits[id] -= slot->frequency_penalty * (float)n_times;
            logits[id] -= n_times > 0 ? slot->presence_penalty : 0.0F;
        }
    }
}

static void adjust_case(gc *run, uint32_t n, uint32_t n_tokens, bool has_rows, gc_fill fill)
{
    gc_begin(run, "n %u, %u tokens, rows %d, fill %d", n, n_tokens, (int)has_rows, (int)fill);
    const pass *const p = make_pass(run, n, n_tokens);
    const uint32_t stride = (n + 3) / 4 * 4 + 4;
    const size_t n_bytes = (size_t)N_ROWS * stride * sizeof(float);
    float *const logits = gc_floats(run, (size_t)N_ROWS * stride, fill);
    float *const on_device = gc_inout(run, logits, n_bytes);
    uint32_t *const counts = gc_host(run, n * sizeof *counts);
    uint32_t logit_rows[N_ROWS];
    for (uint32_t i = 0; i < N_ROWS; i++) {
        logit_rows[i] = has_rows ? i * 4 % N_ROWS : i; /* each once */
        adjust_oracle(logits + (size_t)i * stride, n, p, logit_rows[i], counts);
    }
    const qn_gpu_adjust_args args = {
        .logits = on_device,
        .logit_rows = has_rows ? gc_in(run, logit_rows, sizeof logit_rows) : NULL,
        .positions = gc_in(run, p->positions, sizeof p->positions),
        .slots_of = gc_in(run, p->slots_of, sizeof p->slots_of),
        .slots = gc_in(run, p->slots, sizeof p->slots),
        .biases = gc_in(run, p->biases, sizeof p->biases),
        .page_tables = gc_in(run, p->tables, p->tables_bytes),
        .page_tokens = gc_in(run, p->page_tokens, p->tokens_bytes),
        .logits_stride = stride,
        .n_rows = N_ROWS,
        .n_vocab = n,
        .n_table_pages = p->n_table_pages,
    };
    qn_gpu_adjust(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    gc_same(run, "logits", gc_got(run, on_device), logits, n_bytes);
    gc_end(run);
}

static void check_adjust(gc *run)
{
    static const uint32_t sizes[] = {1, 7, 1030, 20003, 154880};
    for (size_t i = 0; i < (run->is_emulated ? 4 : 5); i++) {
        adjust_case(run, sizes[i], 4 * PAGE + 1, false, GC_NORMAL);
        adjust_case(run, sizes[i], run->is_emulated ? 1100 : N_TOKENS_MAX, true, GC_INF);
    }
}

static void adjust_misses_last_row(void *args)
{
    ((qn_gpu_adjust_args *)args)->n_rows -= 2; /* the last is padding */
}

static void adjust_misses_last_token(void *args)
{
    ((qn_gpu_adjust_args *)args)->n_vocab--;
}

static void adjust_wrong_pages(void *args)
{
    ((qn_gpu_adjust_args *)args)->n_table_pages--;
}

/* -------------------------------------------------------------------------------- benchmarks -- */

/* Rows that follow each other in one sequence of so many tokens. */
typedef struct shape {
    qn_gpu_adjust_args args;
    uint32_t n_tokens;
} shape;

/* Arguments in a set, whose length is returned; of NULL that is all. */
static size_t lay_out(qn_gpu_adjust_args *args, const shape *s, uint8_t *set)
{
    qn_gpu_block at = {.base = set};
    const size_t row_bytes = s->args.n_rows * sizeof(int32_t);
    *args = s->args;
    args->logits = qn_gpu_cut(&at, (size_t)s->args.n_rows * s->args.n_vocab * sizeof(float));
    args->page_tokens = qn_gpu_cut(&at, s->n_tokens * sizeof(int32_t));
    args->page_tables = qn_gpu_cut(&at, s->args.n_table_pages * sizeof(int32_t));
    args->positions = qn_gpu_cut(&at, row_bytes);
    args->slots_of = qn_gpu_cut(&at, row_bytes);
    args->slots = qn_gpu_cut(&at, sizeof(qn_gpu_slot));
    return at.n_bytes;
}

static void fill_adjust(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *const s = bench->context;
    const size_t row_bytes = s->args.n_rows * sizeof(int32_t);
    const size_t table_bytes = s->args.n_table_pages * sizeof(int32_t);
    int32_t *const tokens = gc_host(run, s->n_tokens * sizeof *tokens);
    int32_t *const table = gc_host(run, table_bytes);
    int32_t *const positions = gc_host(run, row_bytes);
    int32_t *const slots_of = gc_host(run, row_bytes);
    const qn_gpu_slot slot = {.n_prompt = s->n_tokens / 2,
                              .is_penalised = 1,
                              .repetition_penalty = 1.1F,
                              .frequency_penalty = 0.1F};
    for (uint32_t i = 0; i < s->n_tokens; i++) { /* half of a text are few words */
        tokens[i] = (int32_t)gc_below(run, i % 2 == 0 ? 100 : s->args.n_vocab);
    }
    for (uint32_t i = 0; i < s->args.n_table_pages; i++) {
        table[i] = (int32_t)i;
    }
    for (uint32_t t = 0; t < s->args.n_rows; t++) {
        positions[t] = (int32_t)s->n_tokens - 1;
        slots_of[t] = 0;
    }
    qn_gpu_adjust_args args;
    (void)lay_out(&args, s, set);
    gc_put(run, (void *)(uintptr_t)args.page_tokens, tokens, s->n_tokens * sizeof *tokens);
    gc_put(run, (void *)(uintptr_t)args.page_tables, table, table_bytes);
    gc_put(run, (void *)(uintptr_t)args.positions, positions, row_bytes);
    gc_put(run, (void *)(uintptr_t)args.slots_of, slots_of, row_bytes);
    gc_put(run, (void *)(uintptr_t)args.slots, &slot, sizeof slot);
}

static void queue_adjust(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_adjust_args args;
    (void)lay_out(&args, bench->context, set);
    qn_gpu_adjust(&run->ops, &args);
}

static void bench_adjust(gc *run, uint32_t n_rows, uint32_t n_tokens, const char *name)
{
    const uint32_t n = run->is_emulated ? 512 : 154880;
    const shape s = {.args = {.logits_stride = n,
                              .n_rows = n_rows,
                              .n_vocab = n,
                              .n_table_pages = n_tokens / PAGE},
                     .n_tokens = n_tokens};
    qn_gpu_adjust_args args;
    gc_time(run, &(gc_bench){.op = "adjust",
                             .shape = name,
                             .n_bytes = 4.0 * n_tokens *
                                        (1 + n_rows), /* tokens, and logits of half of them */
                             .set_bytes = lay_out(&args, &s, NULL),
                             .fill = fill_adjust,
                             .queue = queue_adjust,
                             .context = &s});
}

static void bench(gc *run)
{
    bench_adjust(run, 1, 8192, "1 row behind 8192 tokens, penalties");
    bench_adjust(run, 64, 8192, "64 rows behind 8192 tokens, penalties");
    bench_adjust(run, 1, 131072, "1 row behind 131072 tokens, penalties");
}

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"adjust", check_adjust, "exact: engine/sampler.c"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"adjust_misses_last_row", "adjust", adjust_misses_last_row},
    {"adjust_misses_last_token", "adjust", adjust_misses_last_token},
    {"adjust_wrong_pages", "adjust", adjust_wrong_pages},
    {NULL, NULL, NULL},
};

const gc_group gc_adjust = {checks, wrongs, bench};
