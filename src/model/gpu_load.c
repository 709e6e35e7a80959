/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights onto a GPU.  Bytes as stored go through two halves of a pinned buffer: while one is
 * uploaded and packed, the threads fill the other.  Tensors that are longer than a half go in
 * pieces of whole rows.  Dummy ones are made where they would be uploaded to, by the device.
 */
#include "base/assert.h"
#include "base/str.h"
#include "base/try.h"
#include "device/gpu_block.h"
#include "kernels/gpu/tiles.h"
#include "model/dummy.h"
#include "model/gpu_glm.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

enum {
    HALF_BYTES = 64 << 20,
    ROWS_UNIT = QN_FP8_BLOCK, /* pieces begin with a block of scales, and with a strip */
};

typedef struct loader {
    qn_gpu_glm *g;
    qn_weights *weights; /* where everything is, by the names of the list */
    const qn_config *config;
    const qn_glm_options *options;
    uint64_t seed;
    uint64_t table_bytes; /* of the embedding */
    size_t n_in_max;
    uint8_t *host, *device;  /* both halves, owned */
    qn_gpu_event *events[2]; /* a half is free again; owned */
    uint32_t i_half;
    size_t half_used;
    size_t half_bytes;
    uint32_t *flags;    /* [n_tensors] of the device: in the block */
    uint32_t n_tensors; /* with matrices */
    uint32_t i_tensor;
    float *temps; /* [n_threads][temp_floats(config)], owned */
} loader;

/* --------------------------------------------------------------------------------------- places
 */

/* Where a matrix goes. */
typedef struct target {
    qn_gpu_weight *w; /* NULL: not of this list */
    uint32_t i_group;
    uint32_t i_part; /* of a pair */
    bool is_pair;
} target;

/* Matrices of one struct of the tables, by their place in it. */
typedef struct place {
    size_t offset;
    uint32_t i_matrix;
    uint32_t i_part;
    bool is_pair;
} place;

static const place layer_places[] = {
    {offsetof(qn_layer_weights, q_a), QN_GPU_Q_A, 0, false},
    {offsetof(qn_layer_weights, q_b), QN_GPU_Q_B, 0, false},
    {offsetof(qn_layer_weights, kv_a), QN_GPU_KV_A, 0, false},
    {offsetof(qn_layer_weights, o), QN_GPU_O, 0, false},
    {offsetof(qn_layer_weights, index_q), QN_GPU_INDEX_Q, 0, false},
    {offsetof(qn_layer_weights, index_k), QN_GPU_INDEX_K, 0, false},
    {offsetof(qn_layer_weights, index_w), QN_GPU_INDEX_W, 0, false},
    {offsetof(qn_layer_weights, mlp.gate), QN_GPU_UP, 0, true},
    {offsetof(qn_layer_weights, mlp.up), QN_GPU_UP, 1, true},
    {offsetof(qn_layer_weights, mlp.down), QN_GPU_DOWN, 0, false},
    {offsetof(qn_layer_weights, router), QN_GPU_ROUTER, 0, false},
};
static const place expert_places[] = {
    {offsetof(qn_mlp_weights, gate), QN_GPU_EXPERT_UP, 0, true},
    {offsetof(qn_mlp_weights, up), QN_GPU_EXPERT_UP, 1, true},
    {offsetof(qn_mlp_weights, down), QN_GPU_EXPERT_DOWN, 0, false},
};

static target take_place(qn_gpu_layer *layer, const place *places, size_t n, size_t offset,
                         uint32_t i_group)
{
    for (size_t i = 0; i < n; i++) {
        if (places[i].offset == offset) {
            return (target){&layer->w[places[i].i_matrix], i_group, places[i].i_part,
                            places[i].is_pair};
        }
    }
    return (target){0};
}

/* A row of kv_b, and as many bytes for it as stored. */
static size_t temp_floats(const qn_config *config)
{
    return 2 * (size_t)config->kv_rank + 16;
}

static uint32_t count_layers(const loader *l)
{
    return l->config->n_layers + (l->weights->has_mtp ? 1 : 0);
}

static target find_target(const loader *l, const qn_packed *matrix)
{
    const qn_weights *const w = l->weights;
    const uintptr_t at = (uintptr_t)matrix;
    if (matrix == &w->lm_head || matrix == &w->eh_proj) {
        return (target){.w = matrix == &w->lm_head ? &l->g->weights.lm_head
                                                   : &l->g->weights.eh_proj};
    }
    const size_t experts_bytes = l->config->n_experts * sizeof *w->experts;
    for (uint32_t i = 0; i < count_layers(l); i++) {
        qn_gpu_layer *const layer = &l->g->weights.layers[i];
        const size_t in_layer = at - (uintptr_t)&w->layers[i];
        const size_t in_experts = at - (uintptr_t)w->layers[i].experts;
        if (in_layer < sizeof w->layers[i]) {
            return take_place(layer, layer_places, sizeof layer_places / sizeof *layer_places,
                              in_layer, 0);
        }
        if (w->layers[i].experts != NULL && in_experts < experts_bytes) {
            return take_place(layer, expert_places, sizeof expert_places / sizeof *expert_places,
                              in_experts % sizeof *w->experts,
                              (uint32_t)(in_experts / sizeof *w->experts));
        }
    }
    return (target){0};
}

/* The layer whose kv_b goes to these heads. */
static qn_gpu_layer *layer_of_heads(const loader *l, const qn_head_weights *heads)
{
    return &l->g->weights.layers[(size_t)(heads - l->weights->heads) / l->config->n_heads];
}

/* ----------------------------------------------------------------------------------------- plan
 */

static const char *const kind_names[] = {
    [QN_GPU_W_BF16] = "bf16", [QN_GPU_W_FP8] = "fp8", [QN_GPU_W_MXFP4] = "mxfp4"};

static qn_gpu_weight shape(qn_weight_kind kind, uint32_t n_out, uint32_t n_in, bool is_pair)
{
    return (qn_gpu_weight){
        .kind = qn_gpu_weight_kind(kind), .n_out = n_out, .n_in = n_in, .is_pair = is_pair ? 1 : 0};
}

static qn_status plan(void *context, const qn_tensor_spec *spec, qn_weight_kind kind, qn_error *err)
{
    loader *const l = context;
    const qn_config *const c = l->config;
    l->n_tensors++;
    l->n_in_max = spec->n_in > l->n_in_max ? spec->n_in : l->n_in_max;
    if (spec->table != NULL) {
        l->table_bytes = qn_weight_bytes(kind, (size_t)spec->n_out * spec->n_in);
        l->g->weights.embed_dtype = kind == QN_WEIGHT_F32 ? QN_GPU_F32 : QN_GPU_BF16;
        return QN_OK;
    }
    if (spec->heads != NULL) {
        /* Heads cut blocks of scales, so that both halves of quantised ones become bf16. */
        qn_gpu_layer *const layer = layer_of_heads(l, spec->heads);
        layer->w[QN_GPU_KEY] = shape(QN_WEIGHT_BF16, c->kv_rank, c->nope_dim, false);
        layer->w[QN_GPU_VALUE] = shape(QN_WEIGHT_BF16, c->v_dim, c->kv_rank, false);
        for (uint32_t h = 0; h < c->n_heads; h++) {
            spec->heads[h].key.kind = spec->heads[h].value.kind = QN_WEIGHT_BF16;
        }
        return QN_OK;
    }
    const target to = find_target(l, spec->matrix);
    const qn_gpu_weight wanted = shape(kind, spec->n_out, spec->n_in, to.is_pair);
    QN_ASSERT(to.w != NULL);
    if (to.w->n_out > 0 && to.w->kind != wanted.kind) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "tensor %s: stored as %s, %s as its twins of the layer expected on a GPU",
                       spec->name, kind_names[wanted.kind], kind_names[to.w->kind]);
    }
    *to.w = wanted;
    return QN_OK;
}

static void cut_weight(void *context, qn_gpu_weight *w, uint32_t n_groups, bool is_grouped)
{
    (void)is_grouped;
    qn_gpu_block *const c = context;
    w->data_stride = qn_gpu_weight_data_bytes(w->kind, w->n_out, w->n_in, w->is_pair != 0);
    w->scales_stride = qn_gpu_weight_scale_bytes(w->kind, w->n_out, w->n_in, w->is_pair != 0);
    w->data = qn_gpu_cut(c, w->data_stride * n_groups);
    w->scales = w->scales_stride > 0 ? qn_gpu_cut(c, w->scales_stride * n_groups) : NULL;
}

/* Everything in the block; returns the place of vectors, inv_freq behind them. */
static float *lay_out(loader *l, qn_gpu_block *c)
{
    const size_t n_floats = l->weights->n_vector_floats + l->config->rope_dim / 2;
    qn_gpu_glm_each(l->g, cut_weight, c);
    l->g->weights.embed = qn_gpu_cut(c, l->table_bytes);
    l->flags = qn_gpu_cut(c, l->n_tensors * sizeof *l->flags);
    return qn_gpu_cut(c, n_floats * sizeof(float));
}

static qn_status check_room(const loader *l, uint64_t block_bytes, qn_error *err)
{
    qn_gpu *const gpu = l->g->gpu;
    const uint64_t workspace_bytes = qn_gpu_glm_workspace_bytes(l->g, l->options->n_rows_max);
    const uint64_t other_bytes =
        workspace_bytes > 2 * l->half_bytes ? workspace_bytes : 2 * l->half_bytes;
    const uint64_t free_bytes = qn_gpu_free_bytes(gpu);
    if (block_bytes + other_bytes <= free_bytes) {
        return QN_OK;
    }
    return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                   "weights: %s and %s to compute with are needed, expected at most the %s that "
                   "are free on %s",
                   qn_show_size(block_bytes).text, qn_show_size(other_bytes).text,
                   qn_show_size(free_bytes).text, qn_gpu_get_info(gpu)->name);
}

static qn_status reserve(void *context, qn_error *err)
{
    loader *const l = context;
    qn_gpu_glm *const g = l->g;
    qn_status status = QN_OK;
    qn_gpu_block sizes = {0};
    (void)lay_out(l, &sizes);
    const uint32_t head_rows = l->config->nope_dim + l->config->v_dim;
    const size_t unit_rows = head_rows > ROWS_UNIT ? head_rows : ROWS_UNIT;
    const size_t least_bytes = unit_rows * l->n_in_max * sizeof(float);
    l->half_bytes = HALF_BYTES > least_bytes ? HALF_BYTES : least_bytes;
    QN_TRY(status, check_room(l, sizes.n_bytes, err), fail);
    void *block = NULL;
    QN_TRY(status, qn_gpu_alloc(&block, g->gpu, sizes.n_bytes, "weights", err), fail);
    g->weights.block = block;
    g->weights.block_bytes = sizes.n_bytes;
    qn_gpu_block at = {.base = block};
    g->weights.inv_freq = lay_out(l, &at) + l->weights->n_vector_floats;
    void *host = NULL;
    void *device = NULL;
    QN_TRY(status, qn_gpu_alloc_host(&host, g->gpu, 2 * l->half_bytes, "loading", err), fail);
    l->host = host;
    QN_TRY(status, qn_gpu_alloc(&device, g->gpu, 2 * l->half_bytes, "loading", err), fail);
    l->device = device;
    QN_TRY(status, qn_gpu_event_open(&l->events[0], g->gpu, err), fail);
    QN_TRY(status, qn_gpu_event_open(&l->events[1], g->gpu, err), fail);
    qn_gpu_event_record(l->events[1], g->stream); /* nothing is in the other half yet */
    l->temps = malloc((size_t)qn_pool_threads(l->options->pool) * temp_floats(l->config) *
                      sizeof *l->temps);
    if (l->temps == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "weights: no memory to unpack them");
        goto fail;
    }
    qn_gpu_fill(g->stream, l->flags, 0, l->n_tensors * sizeof *l->flags);
fail:
    return status;
}

/* --------------------------------------------------------------------------------------- pieces
 */

/* A piece of the present half: where it is filled and where it is uploaded to. */
typedef struct piece {
    uint8_t *host, *device;
} piece;

/* Take @p n_bytes of a half; of the other one where this is full, once that is free. */
static qn_status take_piece(loader *l, piece *out, size_t n_bytes, qn_error *err)
{
    QN_ASSERT(n_bytes <= l->half_bytes);
    if (l->half_used + n_bytes > l->half_bytes) {
        qn_gpu_event_record(l->events[l->i_half], l->g->stream);
        l->i_half ^= 1;
        l->half_used = 0;
        const qn_status status = qn_gpu_event_wait(l->events[l->i_half], err);
        if (status < 0) {
            return status;
        }
    }
    const size_t at = l->i_half * l->half_bytes + l->half_used;
    *out = (piece){l->host + at, l->device + at};
    l->half_used += qn_gpu_align(n_bytes);
    l->half_used = l->half_used < l->half_bytes ? l->half_used : l->half_bytes;
    return QN_OK;
}

/* Rows of a tensor on their way into a piece, for the threads that fill it. */
typedef struct filling {
    const loader *l;
    const qn_tensor_spec *spec;
    const qn_weight *stored; /* data NULL: made up */
    uint64_t stream;         /* of dummy weights */
    uint32_t first;          /* row */
    uint8_t *to;
    bool to_bf16; /* whatever it is stored as */
} filling;

static qn_dummy dummy_of(const filling *f)
{
    return (qn_dummy){
        .spec = f->spec, .kind = f->stored->kind, .seed = f->l->seed, .stream = f->stream};
}

/* Row i of a tensor that is to be bf16 whatever it is stored as. */
static void fill_bf16(const filling *f, uint8_t *to, uint32_t i, float *values)
{
    const uint32_t n_in = f->stored->n_in;
    if (f->stored->data != NULL) {
        f->l->options->kernels->dequant_row(values, f->stored, i);
    } else {
        const qn_dummy matrix = dummy_of(f);
        const qn_weight row = qn_dummy_rows(&matrix, (uint8_t *)(values + n_in), i, 1);
        f->l->options->kernels->dequant_row(values, &row, 0);
    }
    f->l->options->kernels->to_bf16(to, values, n_in);
}

static void fill_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const filling *const f = context;
    const qn_weight *const stored = f->stored;
    const size_t row_bytes =
        qn_weight_bytes(f->to_bf16 ? QN_WEIGHT_BF16 : stored->kind, stored->n_in);
    uint8_t *const to = f->to + first * row_bytes;
    const uint32_t row = f->first + (uint32_t)first;
    if (!f->to_bf16) {
        memcpy(to, stored->data + row * row_bytes, (end - first) * row_bytes);
        return;
    }
    float *const values = f->l->temps + i_thread * temp_floats(f->l->config);
    for (size_t i = 0; i < end - first; i++) {
        fill_bf16(f, to + i * row_bytes, row + (uint32_t)i, values);
    }
}

/* Rows first .. first + n - 1 in device memory: made there, or filled here and uploaded. */
static qn_status stage_rows(loader *l, piece *out, filling f, uint32_t n, qn_error *err)
{
    const qn_weight_kind kind = f.to_bf16 ? QN_WEIGHT_BF16 : f.stored->kind;
    const size_t n_bytes = n * qn_weight_bytes(kind, f.stored->n_in);
    const qn_status status = take_piece(l, out, n_bytes, err);
    if (status < 0) {
        return status;
    }
    if (f.stored->data == NULL && !f.to_bf16) {
        const qn_dummy matrix = dummy_of(&f);
        const qn_gpu_dummy_args args = qn_dummy_elements(&matrix, out->device, f.first, n);
        qn_gpu_dummy(&l->g->ops, &args);
        return QN_OK;
    }
    f.to = out->host;
    qn_pool_run(l->options->pool, n, fill_range, &f);
    qn_gpu_upload(l->g->stream, out->device, out->host, n_bytes);
    return QN_OK;
}

/* The scales that rows from f->first on use, where a matrix is made up. */
static qn_status stage_dummy_scales(loader *l, piece *out, const filling *f, uint32_t n,
                                    qn_error *err)
{
    const qn_dummy matrix = dummy_of(f);
    qn_gpu_dummy_args args = qn_dummy_scales(&matrix, NULL, f->first, n);
    *out = (piece){0};
    if (args.n == 0) {
        return QN_OK;
    }
    const qn_status status =
        take_piece(l, out, args.n * (args.kind == QN_GPU_DUMMY_F32 ? sizeof(float) : 1), err);
    if (status == QN_OK) {
        args.y = out->device;
        qn_gpu_dummy(&l->g->ops, &args);
    }
    return status;
}

/* The scales that rows first .. first + n - 1 use, where a matrix has them. */
static qn_status stage_scales(loader *l, piece *out, const filling *f, uint32_t n, qn_error *err)
{
    const qn_weight *const stored = f->stored;
    size_t unit_rows = 1;
    size_t unit_bytes = sizeof(float);
    *out = (piece){0};
    if (stored->data == NULL) {
        return stage_dummy_scales(l, out, f, n, err);
    }
    if (stored->scale == NULL) {
        return QN_OK;
    }
    if (stored->kind == QN_WEIGHT_MXFP4) {
        unit_bytes = stored->n_in / QN_MXFP4_BLOCK;
    } else if (stored->kind == QN_WEIGHT_FP8_BLOCK) {
        unit_rows = QN_FP8_BLOCK;
        unit_bytes = (stored->n_in + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK * sizeof(float);
    }
    const size_t n_bytes = (n + unit_rows - 1) / unit_rows * unit_bytes;
    const qn_status status = take_piece(l, out, n_bytes, err);
    if (status == QN_OK) {
        memcpy(out->host, stored->scale + f->first / unit_rows * unit_bytes, n_bytes);
        qn_gpu_upload(l->g->stream, out->device, out->host, n_bytes);
    }
    return status;
}

/* One matrix of a weight, outputs from @p first_out on, which begins a strip. */
static qn_gpu_weight part_of(const qn_gpu_weight *w, uint32_t i_group, uint32_t first_out,
                             uint32_t n_out)
{
    const uint64_t i_strip = (uint64_t)first_out / QN_TILE_OUT * (w->is_pair ? 2 : 1);
    qn_gpu_weight part = *w;
    part.data += i_group * w->data_stride + i_strip * qn_tile_strip_bytes(w->kind, w->n_in);
    if (w->scales != NULL) {
        part.scales +=
            i_group * w->scales_stride + i_strip * qn_tile_strip_scale_bytes(w->kind, w->n_in);
    }
    part.n_out = n_out;
    return part;
}

/* Rows that fit into a half with their scales, in whole units. */
static uint32_t rows_that_fit(const loader *l, const qn_weight *stored, uint32_t unit)
{
    const size_t row_bytes = qn_weight_bytes(stored->kind, stored->n_in);
    const size_t n = l->half_bytes / row_bytes / unit * unit;
    QN_ASSERT(n > 0);
    return n < stored->n_out ? (uint32_t)n : stored->n_out;
}

static qn_status take_matrix(loader *l, const filling *f, qn_error *err)
{
    const qn_weight *const stored = f->stored;
    const target to = find_target(l, f->spec->matrix);
    QN_ASSERT(to.w != NULL);
    const uint32_t n_chunk = rows_that_fit(l, stored, ROWS_UNIT);
    qn_status status = QN_OK;
    for (uint32_t first = 0; first < stored->n_out; first += n_chunk) {
        const uint32_t n = stored->n_out - first < n_chunk ? stored->n_out - first : n_chunk;
        filling rows = *f;
        piece data;
        piece scales;
        rows.first = first;
        QN_TRY(status, stage_rows(l, &data, rows, n, err), fail);
        QN_TRY(status, stage_scales(l, &scales, &rows, n, err), fail);
        qn_gpu_pack(&l->g->ops, &(qn_gpu_pack_args){.to = part_of(to.w, to.i_group, first, n),
                                                    .from = data.device,
                                                    .from_scales = scales.device,
                                                    .from_kind = stored->kind,
                                                    .i_part = to.i_part,
                                                    .from_stride = stored->n_in,
                                                    .flags = l->flags + l->i_tensor});
    }
    f->spec->matrix->data = part_of(to.w, to.i_group, 0, 0).data;
fail:
    return status;
}

/* One head of kv_b, whose rows [nope | v] are in device memory. */
static void pack_head(loader *l, const qn_tensor_spec *spec, uint32_t i_head, qn_weight_kind kind,
                      const uint8_t *rows)
{
    const qn_config *const c = l->config;
    const qn_gpu_layer *const layer = layer_of_heads(l, spec->heads);
    const qn_gpu_weight key = part_of(&layer->w[QN_GPU_KEY], i_head, 0, c->kv_rank);
    const qn_gpu_weight value = part_of(&layer->w[QN_GPU_VALUE], i_head, 0, c->v_dim);
    qn_gpu_pack(&l->g->ops, &(qn_gpu_pack_args){.to = key,
                                                .from = rows,
                                                .from_kind = kind,
                                                .is_transposed = 1,
                                                .from_stride = c->kv_rank,
                                                .flags = l->flags + l->i_tensor});
    qn_gpu_pack(&l->g->ops,
                &(qn_gpu_pack_args){.to = value,
                                    .from = rows + c->nope_dim * qn_weight_bytes(kind, c->kv_rank),
                                    .from_kind = kind,
                                    .from_stride = c->kv_rank,
                                    .flags = l->flags + l->i_tensor});
    spec->heads[i_head].key.data = key.data;
    spec->heads[i_head].value.data = value.data;
}

static qn_status take_heads(loader *l, const filling *f, qn_error *err)
{
    const qn_config *const c = l->config;
    const uint32_t head_rows = c->nope_dim + c->v_dim;
    filling rows = *f;
    rows.to_bf16 = f->stored->kind != QN_WEIGHT_F32 && f->stored->kind != QN_WEIGHT_BF16;
    const qn_weight_kind kind = rows.to_bf16 ? QN_WEIGHT_BF16 : f->stored->kind;
    qn_weight staged = *f->stored;
    staged.kind = kind;
    const uint32_t n_chunk = rows_that_fit(l, &staged, head_rows);
    qn_status status = QN_OK;
    for (; rows.first < f->stored->n_out; rows.first += n_chunk) {
        const uint32_t n_left = f->stored->n_out - rows.first;
        const uint32_t n = n_left < n_chunk ? n_left : n_chunk;
        piece data;
        QN_TRY(status, stage_rows(l, &data, rows, n, err), fail);
        for (uint32_t i = 0; i < n; i += head_rows) {
            pack_head(l, f->spec, (rows.first + i) / head_rows, kind,
                      data.device + i * qn_weight_bytes(kind, c->kv_rank));
        }
    }
fail:
    return status;
}

static qn_status take_table(loader *l, const filling *f, qn_error *err)
{
    const qn_weight *const stored = f->stored;
    const size_t row_bytes = qn_weight_bytes(stored->kind, stored->n_in);
    const uint32_t n_chunk = rows_that_fit(l, stored, ROWS_UNIT);
    uint8_t *const table = (uint8_t *)(uintptr_t)l->g->weights.embed;
    qn_status status = QN_OK;
    filling rows = *f;
    for (; rows.first < stored->n_out; rows.first += n_chunk) {
        const uint32_t n_left = stored->n_out - rows.first;
        const uint32_t n = n_left < n_chunk ? n_left : n_chunk;
        piece data;
        QN_TRY(status, stage_rows(l, &data, rows, n, err), fail);
        qn_gpu_copy(l->g->stream, table + rows.first * row_bytes, data.device, n * row_bytes);
    }
    *f->spec->table = *stored;
    f->spec->table->data = table;
    f->spec->table->scale = NULL;
fail:
    return status;
}

static qn_status take(void *context, const qn_tensor_spec *spec, const qn_weight *stored,
                      uint64_t stream, qn_error *err)
{
    loader *const l = context;
    const filling f = {.l = l, .spec = spec, .stored = stored, .stream = stream};
    const qn_status status = spec->heads != NULL   ? take_heads(l, &f, err)
                             : spec->table != NULL ? take_table(l, &f, err)
                                                   : take_matrix(l, &f, err);
    l->i_tensor++;
    return status == QN_OK ? qn_gpu_check(l->g->stream, err) : status;
}

/* ------------------------------------------------------------------------------------------ end
 */

static const float *on_device(const loader *l, const float *block, const float *vector)
{
    return vector != NULL ? block + (vector - l->weights->vectors) : NULL;
}

static void place_vectors(loader *l, const float *block)
{
    const qn_weights *const w = l->weights;
    qn_gpu_weights *const to = &l->g->weights;
    to->norm = on_device(l, block, w->norm);
    to->enorm = on_device(l, block, w->enorm);
    to->hnorm = on_device(l, block, w->hnorm);
    to->mtp_norm = on_device(l, block, w->mtp_norm);
    for (uint32_t i = 0; i < count_layers(l); i++) {
        const qn_layer_weights *const from = &w->layers[i];
        qn_gpu_layer *const layer = &to->layers[i];
        layer->input_norm = on_device(l, block, from->input_norm);
        layer->post_norm = on_device(l, block, from->post_norm);
        layer->q_a_norm = on_device(l, block, from->q_a_norm);
        layer->kv_a_norm = on_device(l, block, from->kv_a_norm);
        layer->index_norm = on_device(l, block, from->index_norm);
        layer->index_norm_bias = on_device(l, block, from->index_norm_bias);
        layer->router_bias = on_device(l, block, from->router_bias);
    }
}

/* The flags of the tensors, walked once more for their names. */
typedef struct flag_walk {
    const uint32_t *flags;
    uint32_t i_tensor;
} flag_walk;

static qn_status check_flags(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    flag_walk *const walk = context;
    const uint32_t flags = spec->vector == NULL ? walk->flags[walk->i_tensor++] : 0;
    if (flags == 0) {
        return QN_OK;
    }
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "tensor %s: %s", spec->name,
                   (flags & 1U) != 0
                       ? "a scale that is NaN or too large, others expected (MXFP4: at most 2^1)"
                       : "an e4m3 code that is NaN, numbers expected");
}

static qn_status finish(void *context, qn_error *err)
{
    loader *const l = context;
    qn_gpu_glm *const g = l->g;
    const size_t n_floats = l->weights->n_vector_floats;
    const size_t flags_bytes = l->n_tensors * sizeof *l->flags;
    float *const block = (float *)(uintptr_t)(g->weights.inv_freq - n_floats);
    float *const inv_freq = (float *)(uintptr_t)g->weights.inv_freq;
    QN_ASSERT(l->i_tensor == l->n_tensors);
    flag_walk walk = {.flags = (const uint32_t *)(const void *)l->host};
    qn_status status = qn_gpu_wait(g->stream, err); /* the halves are free */
    if (status < 0) {
        return status;
    }
    float *const freqs = (float *)(void *)(l->host + l->half_bytes);
    qn_rope_frequencies(freqs, l->config->rope_dim, l->config->rope_theta);
    qn_gpu_upload(g->stream, block, l->weights->vectors, n_floats * sizeof *block);
    qn_gpu_upload(g->stream, inv_freq, freqs, l->config->rope_dim / 2 * sizeof *freqs);
    qn_gpu_download(g->stream, l->host, l->flags, flags_bytes);
    place_vectors(l, block);
    QN_ASSERT(flags_bytes <= l->half_bytes);
    QN_TRY(status, qn_gpu_wait(g->stream, err), fail);
    status = qn_tensor_list_walk(l->config, l->weights, check_flags, &walk, err);
fail:
    return status;
}

qn_status qn_gpu_glm_load(qn_gpu_glm *g, qn_weights *weights, const qn_checkpoint *checkpoint,
                          uint64_t seed, const qn_glm_options *options, qn_error *err)
{
    loader l = {.g = g, .weights = weights, .config = g->config, .options = options, .seed = seed};
    const qn_weight_sink sink = {
        .context = &l, .plan = plan, .reserve = reserve, .take = take, .finish = finish};
    const qn_status status =
        qn_weights_load(weights, g->config, checkpoint, seed, options, &sink, err);
    /* What is queued reads the halves. */
    const qn_status drained = qn_gpu_wait(g->stream, status < 0 ? NULL : err);
    qn_gpu_event_close(&l.events[0]);
    qn_gpu_event_close(&l.events[1]);
    qn_gpu_free(g->gpu, l.device);
    qn_gpu_free_host(g->gpu, l.host);
    free(l.temps);
    return status < 0 ? status : drained;
}

/* --------------------------------------------------------------------------------- shapes alone
 */

/* A loader that does not load. */
typedef struct planner {
    loader l;
    qn_binder *binder; /* NULL: nothing is stored */
    const qn_quant_rules *rules;
    const qn_weight_kind *experts;
} planner;

static qn_status plan_stored(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    planner *const p = context;
    if (spec->vector != NULL) {
        return QN_OK;
    }
    const bool is_of_expert =
        strstr(spec->name, ".experts.") != NULL || strstr(spec->name, ".shared_experts.") != NULL;
    qn_stored stored = {0};
    qn_status status = QN_OK;
    if (p->binder != NULL) {
        status = qn_binder_find(p->binder, spec, &stored, err);
    } else if (p->experts != NULL && is_of_expert) {
        stored.weight.kind = *p->experts;
    } else {
        status = qn_choose_dummy(&stored.weight.kind, p->rules, spec, err);
    }
    return status == QN_OK ? plan(&p->l, spec, stored.weight.kind, err) : status;
}

qn_status qn_gpu_glm_plan(qn_gpu_glm *g, const qn_checkpoint *checkpoint,
                          const qn_quant_rules *rules, const qn_weight_kind *experts, qn_error *err)
{
    qn_weights weights = {0};
    qn_binder binder = {0};
    planner p = {.l = {.g = g, .weights = &weights, .config = g->config},
                 .rules = rules,
                 .experts = experts};
    qn_status status = QN_OK;
    QN_TRY(status, qn_weights_init(&weights, g->config, g->has_mtp, err), fail);
    if (checkpoint != NULL) {
        const qn_tensor_source source = qn_tensor_source_of(checkpoint);
        QN_TRY(status, qn_binder_init(&binder, &source, err), fail);
        p.binder = &binder;
    }
    status = qn_tensor_list_walk(g->config, &weights, plan_stored, &p, err);
fail:
    qn_binder_deinit(&binder);
    qn_weights_deinit(&weights);
    return status;
}
