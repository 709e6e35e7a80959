/* SPDX-License-Identifier: Apache-2.0 */
#include "api/bench_kernels.h"
#include "base/assert.h"
#include "base/huge.h"
#include "base/numbers.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

/* ------------------------------------------------------------------------------------ operands */

static bool take(qn_bench_call *c, void *out, size_t n_bytes)
{
    void *const block = qn_huge_alloc(n_bytes + 64);
    QN_ASSERT(c->n_blocks < QN_BENCH_BLOCKS_MAX);
    if (block == NULL) {
        return false;
    }
    memset(block, 0, n_bytes + 64); /* its pages are there before the clock starts */
    c->blocks[c->n_blocks++] = block;
    memcpy(out, &block, sizeof block);
    return true;
}

static float uniform(uint64_t i)
{
    return (float)(2 * qn_rng_unit(1, 2, i) - 1);
}

/* [n_rows] rows of n floats, all alike: what they hold does not matter, where they lie does. */
static bool take_rows(qn_bench_call *c, float **out, size_t n_rows, size_t n)
{
    if (!take(c, out, n_rows * n * sizeof **out)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        (*out)[i] = uniform(i);
    }
    for (size_t t = 1; t < n_rows; t++) {
        memcpy(*out + t * n, *out, n * sizeof **out);
    }
    return true;
}

static bool take_scratch(qn_bench_call *c, size_t n_floats)
{
    c->scratch_floats = (n_floats + 15) / 16 * 16;
    return take(c, &c->scratch,
                qn_pool_threads(c->machine->pool) * c->scratch_floats * sizeof *c->scratch);
}

static float *scratch_of(const qn_bench_call *c, uint32_t i_thread)
{
    return c->scratch + i_thread * c->scratch_floats;
}

/* A cache of rows behind each other, written. */
static bool take_cache(qn_bench_call *c, uint32_t latent, uint32_t rope, uint32_t n)
{
    const qn_model *const m = c->machine->model;
    const size_t n_pages = (n + QN_PAGE_TOKENS - 1) / QN_PAGE_TOKENS;
    const uint32_t row_bytes = qn_kv_row_bytes(m->kv_dtype, latent, rope);
    uint8_t *base = NULL;
    int32_t *pages = NULL;
    float *values = NULL;
    if (!take(c, &base, n_pages * QN_PAGE_TOKENS * row_bytes) ||
        !take(c, &pages, n_pages * sizeof *pages) || !take_rows(c, &values, 1, latent + rope)) {
        return false;
    }
    for (size_t i = 0; i < n_pages; i++) {
        pages[i] = (int32_t)i;
    }
    c->view = (qn_kv_view){base, pages, row_bytes, m->kv_dtype, latent, rope};
    for (uint32_t t = 0; t < n; t++) {
        m->kernels.kv_write(&c->view, t, values, values + latent);
    }
    return true;
}

/* ------------------------------------------------------------------------------------ products */

/* A few outputs of a kind, as a checkpoint stores them; elements and scales are ordinary. */
static bool take_weight(qn_bench_call *c, qn_weight *out, uint32_t n_out)
{
    const size_t n = (size_t)n_out * c->n_in;
    const size_t n_bytes = qn_weight_bytes(c->kind, n);
    const size_t n_scales = (size_t)n_out * qn_strips(c->n_in);
    uint8_t *data = NULL;
    uint8_t *scale = NULL;
    if (!take(c, &data, n_bytes) || !take(c, &scale, n_scales * sizeof(float))) {
        return false;
    }
    for (size_t i = 0; i < n && c->kind <= QN_WEIGHT_BF16; i++) {
        const float value = uniform(i);
        const uint16_t half = qn_f32_to_bf16(value);
        c->kind == QN_WEIGHT_F32 ? memcpy(data + 4 * i, &value, sizeof value)
                                 : memcpy(data + 2 * i, &half, sizeof half);
    }
    for (size_t i = 0; i < n_bytes && c->kind > QN_WEIGHT_BF16; i++) {
        const uint8_t code = (uint8_t)qn_rng_u64(1, 3, i);
        data[i] = c->kind == QN_WEIGHT_MXFP4 ? code : code & 0xbf; /* far from NaN */
    }
    for (size_t i = 0; i < n_scales; i++) {
        const float one = 1.0F;
        c->kind == QN_WEIGHT_MXFP4 ? memset(scale + i, 127, 1)
                                   : memcpy(scale + i * sizeof one, &one, sizeof one);
    }
    *out =
        (qn_weight){.kind = c->kind, .n_out = n_out, .n_in = c->n_in, .data = data, .scale = scale};
    return true;
}

/* Fill the cold memory with strips of the kind and length, unless it has such already. */
static bool fill_cold(qn_bench_call *c)
{
    enum { N_STRIPS = 4 };
    qn_bench_machine *const m = c->machine;
    qn_weight w;
    if (m->cold_n_in == c->n_in && m->cold_kind == c->kind) {
        return true;
    }
    if (!take_weight(c, &w, N_STRIPS * QN_STRIP)) {
        return false;
    }
    for (size_t i = 0; i < c->n_cold_strips; i++) {
        uint8_t *const to = m->cold + i * c->strip_bytes;
        if (i < N_STRIPS) {
            m->model->kernels.pack_strip(to, &w, (uint32_t)i);
        } else {
            memcpy(to, to - N_STRIPS * c->strip_bytes, c->strip_bytes);
        }
    }
    m->cold_kind = c->kind;
    m->cold_n_in = c->n_in;
    return true;
}

/* Strips first .. end - 1, which lie in the cold memory behind those of the call before. */
static void product_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    (void)i_thread;
    while (first < end) {
        const size_t at = (c->next_strip + first) % c->n_cold_strips;
        const size_t n = end - first < c->n_cold_strips - at ? end - first : c->n_cold_strips - at;
        const size_t n_left = c->n_out - first * QN_STRIP;
        const qn_packed w = {
            .kind = c->kind,
            .n_out = (uint32_t)(n * QN_STRIP < n_left ? n * QN_STRIP : n_left),
            .n_in = c->n_in,
            .data = c->machine->cold + at * c->strip_bytes,
        };
        const qn_matmul_args args = {
            .y = c->out + first * QN_STRIP,
            .y_stride = c->n_out,
            .x = c->x,
            .x_stride = c->x_stride,
            .w = &w,
            .act = c->act,
            .n_rows = c->n_rows,
            .out_end = w.n_out,
        };
        c->machine->model->kernels.matmul(&args);
        first += n;
    }
}

static bool open_product(qn_bench_call *c, const qn_glm_product *p)
{
    const qn_model *const m = c->machine->model;
    float *row = NULL;
    c->kind = p->kind;
    c->act = qn_act_of(p->kind, m->compute);
    c->strip_bytes = qn_strip_bytes(p->kind, p->n_in);
    c->n_cold_strips = c->machine->n_cold / c->strip_bytes;
    c->x_stride = qn_act_row_bytes(c->act, p->n_in);
    if (!fill_cold(c) || !take_rows(c, &row, 1, p->n_in) ||
        !take(c, &c->x, c->n_rows * c->x_stride) ||
        !take(c, &c->out, (size_t)c->n_rows * c->n_out * sizeof *c->out)) {
        return false;
    }
    for (size_t t = 0; t < c->n_rows; t++) {
        m->kernels.prepare(c->x + t * c->x_stride, c->act, row, p->n_in, 0, p->n_in);
    }
    c->range = product_range;
    c->n_items = qn_strips(p->n_out);
    c->bytes = (double)qn_packed_bytes(p->kind, p->n_out, p->n_in);
    c->ops = 2.0 * c->n_rows * p->n_out * p->n_in;
    c->is_cold = c->has_act = true;
    return true;
}

/* -------------------------------------------------------------------------- attention, indexer */

/* Arithmetic on cache rows: rounded to bf16 where both are. */
static qn_act act_of_rows(const qn_model *m)
{
    return m->compute != QN_COMPUTE_F32 && m->kv_dtype == QN_KV_BF16 ? QN_ACT_BF16 : QN_ACT_F32;
}

/* Items are heads of rows: a range may begin and end within a row. */
static void attend_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    const qn_model *const m = c->machine->model;
    const qn_config *const config = &m->config;
    const uint32_t n_heads = config->n_heads;
    while (first < end) {
        const size_t left_of_row = n_heads - first % n_heads;
        const size_t n = end - first < left_of_row ? end - first : left_of_row;
        const qn_attend_args args = {
            .u = c->out + first * config->kv_rank,
            .q_latent = c->in + first % n_heads * config->kv_rank,
            .q_rope = c->more + first % n_heads * config->rope_dim,
            .q_rope_stride = config->rope_dim,
            .kv = c->view,
            .set = c->ints,
            .n_set = c->n_out,
            .n_heads = (uint32_t)n,
            .scale = 0.0625F,
            .compute = m->compute,
            .scratch = scratch_of(c, i_thread),
        };
        m->kernels.attend(&args);
        first += n;
    }
}

static bool open_attention(qn_bench_call *c)
{
    const qn_config *const config = &c->machine->model->config;
    const uint32_t n = c->machine->context_tokens;
    const uint32_t n_set = n < config->index_topk ? n : config->index_topk;
    const size_t n_heads = config->n_heads;
    if (!take_cache(c, config->kv_rank, config->rope_dim, n) ||
        !take_rows(c, &c->in, 1, n_heads * config->kv_rank) ||
        !take_rows(c, &c->more, 1, n_heads * config->rope_dim) ||
        !take(c, &c->out, c->n_rows * n_heads * config->kv_rank * sizeof *c->out) ||
        !take(c, &c->ints, n_set * sizeof *c->ints) ||
        !take_scratch(c, qn_attend_scratch_floats(config->n_heads, n_set, config->kv_rank,
                                                  config->rope_dim))) {
        return false;
    }
    for (uint32_t i = 0; i < n_set; i++) {
        c->ints[i] = (int32_t)((uint64_t)i * n / n_set); /* spread over the context */
    }
    c->n_out = n_set;
    c->range = attend_range;
    c->n_items = c->n_rows * n_heads;
    c->act = act_of_rows(c->machine->model);
    c->has_act = true;
    c->bytes = (double)c->n_rows * n_set * c->view.row_bytes;
    c->ops = 2.0 * c->n_rows * n_set * (double)n_heads * (2 * config->kv_rank + config->rope_dim);
    return true;
}

/* Items are positions of rows. */
static void score_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    const qn_model *const m = c->machine->model;
    const size_t n = c->machine->context_tokens;
    while (first < end) {
        const size_t at = first % n;
        const size_t here = end - first < n - at ? end - first : n - at;
        const qn_index_scores_args args = {
            .scores = c->out + first,
            .q = c->in,
            .w = c->more,
            .keys = c->view,
            .n_heads = m->config.n_index_heads,
            .first = (uint32_t)at,
            .end = (uint32_t)(at + here),
            .compute = m->compute,
            .scratch = scratch_of(c, i_thread),
        };
        m->kernels.index_scores(&args);
        first += here;
    }
}

static bool open_indexer(qn_bench_call *c)
{
    const qn_config *const config = &c->machine->model->config;
    const uint32_t n = c->machine->context_tokens;
    const size_t n_items = (size_t)c->n_rows * n;
    c->range = score_range;
    c->n_items = n_items;
    c->act = act_of_rows(c->machine->model);
    c->has_act = true;
    c->ops = 2.0 * (double)n_items * config->n_index_heads * config->index_dim;
    const bool is_ok =
        take_cache(c, config->index_dim, 0, n) &&
        take_rows(c, &c->in, 1, (size_t)config->n_index_heads * config->index_dim) &&
        take_rows(c, &c->more, 1, config->n_index_heads) &&
        take(c, &c->out, n_items * sizeof *c->out) &&
        take_scratch(c, qn_index_scratch_floats(config->n_index_heads, config->index_dim));
    c->bytes = (double)n_items * c->view.row_bytes;
    return is_ok;
}

/* -------------------------------------------------------------------------------- row by row -- */

static void topk_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    (void)i_thread;
    for (size_t t = first; t < end; t++) {
        (void)c->machine->model->kernels.topk(c->ints + t * c->n_out, c->in + t * c->n_in, c->n_in,
                                              c->n_out);
    }
}

static bool open_topk(qn_bench_call *c)
{
    c->n_in = c->machine->context_tokens;
    c->range = topk_range;
    return take_rows(c, &c->in, c->n_rows, c->n_in) &&
           take(c, &c->ints, (size_t)c->n_rows * c->n_out * sizeof *c->ints);
}

static void router_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    const qn_config *const config = &c->machine->model->config;
    for (size_t t = first; t < end; t++) {
        const qn_router_args args = {
            .experts = c->ints + t * c->n_out,
            .weights = c->out + t * c->n_out,
            .logits = c->in + t * c->n_in,
            .bias = c->more,
            .scratch = scratch_of(c, i_thread),
            .n_experts = config->n_experts,
            .n_used = config->n_experts_used,
            .norm_topk = true,
            .routed_scale = 1.0F,
        };
        c->machine->model->kernels.router(&args);
    }
}

static bool open_router(qn_bench_call *c)
{
    c->range = router_range;
    return take_rows(c, &c->in, c->n_rows, c->n_in) && take_rows(c, &c->more, 1, c->n_in) &&
           take(c, &c->ints, (size_t)c->n_rows * c->n_out * sizeof *c->ints) &&
           take(c, &c->out, (size_t)c->n_rows * c->n_out * sizeof *c->out) &&
           take_scratch(c, c->n_in);
}

static void norm_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    const size_t n = c->n_in;
    (void)i_thread;
    c->machine->model->kernels.rmsnorm(c->out + first * n, n, c->in + first * n, n, c->more,
                                       end - first, n, 1e-5F);
}

static bool open_norm(qn_bench_call *c)
{
    c->range = norm_range;
    return take_rows(c, &c->in, c->n_rows, c->n_in) && take_rows(c, &c->more, 1, c->n_in) &&
           take(c, &c->out, (size_t)c->n_rows * c->n_in * sizeof *c->out);
}

static void prepare_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    (void)i_thread;
    for (size_t t = first; t < end; t++) {
        c->machine->model->kernels.prepare(c->x + t * c->x_stride, c->act, c->in + t * c->n_in,
                                           c->n_in, 0, c->n_in);
    }
}

static bool open_prepare(qn_bench_call *c)
{
    c->range = prepare_range;
    c->act = qn_act_of(QN_WEIGHT_BF16, c->machine->model->compute);
    c->x_stride = qn_act_row_bytes(c->act, c->n_in);
    return take_rows(c, &c->in, c->n_rows, c->n_in) && take(c, &c->x, c->n_rows * c->x_stride);
}

static void sample_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_bench_call *const c = context;
    float *const scratch = scratch_of(c, i_thread);
    for (size_t t = first; t < end; t++) {
        const qn_sample_args args = {
            .logits = c->in + t * c->n_in,
            .n_vocab = c->n_in,
            .temperature = 1.0F, /* as the published models are run */
            .top_p = 0.95F,
            .unit = 0.5,
            .scratch_p = scratch,
            .scratch_i = (int32_t *)(void *)(scratch + c->n_in),
        };
        c->ints[t] = c->machine->model->kernels.sample(&args);
    }
}

static bool open_sample(qn_bench_call *c)
{
    c->range = sample_range;
    return take_rows(c, &c->in, c->n_rows, c->n_in) &&
           take(c, &c->ints, c->n_rows * sizeof *c->ints) && take_scratch(c, 2 * (size_t)c->n_in);
}

/* ----------------------------------------------------------------------------------------- all */

/* What has no weights.  bytes: those of the rows that it reads. */
static bool open_other(qn_bench_call *c, const char *operation)
{
    static const struct {
        const char *operation;
        bool (*open)(qn_bench_call *c);
    } others[] = {{"mla", open_attention}, {"indexer", open_indexer},     {"top-k", open_topk},
                  {"router", open_router}, {"activations", open_prepare}, {"norm", open_norm},
                  {"sample", open_sample}};
    size_t i = 0;
    while (strcmp(others[i].operation, operation) != 0) {
        i++;
        QN_ASSERT(i < sizeof others / sizeof *others);
    }
    c->n_items = c->n_rows;
    const bool is_ok = others[i].open(c);
    if (c->bytes == 0) {
        c->bytes = 4.0 * c->n_rows * c->n_in;
    }
    return is_ok;
}

qn_status qn_bench_call_open(qn_bench_call *out, qn_bench_machine *machine,
                             const qn_kernel_choice *kernel, const qn_glm_product *product,
                             uint32_t n_rows, qn_error *err)
{
    *out = (qn_bench_call){
        .machine = machine, .n_rows = n_rows, .n_in = kernel->n_in, .n_out = kernel->n_out};
    const bool is_ok =
        product != NULL ? open_product(out, product) : open_other(out, kernel->operation);
    return is_ok ? QN_OK
                 : qn_fail(err, QN_E_NOMEM, 0, __func__, "%s %u x %u, %u rows: no memory",
                           kernel->operation, kernel->n_out, kernel->n_in, n_rows);
}

void qn_bench_call_close(qn_bench_call *call)
{
    for (size_t i = 0; i < call->n_blocks; i++) {
        free(call->blocks[i]);
    }
    call->n_blocks = 0;
}

void qn_bench_call_run(void *call)
{
    qn_bench_call *const c = call;
    qn_pool_run(c->machine->pool, c->n_items, c->range, c);
    if (c->n_cold_strips > 0) {
        c->next_strip = (c->next_strip + c->n_items) % c->n_cold_strips;
    }
}
