/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights into the layout of the kernels.  A first walk over the list of tensors checks all of them
 * and adds up what memory they take; a second one reads, packs and lets go of one after the other,
 * so that the memory of a checkpoint is not needed twice.
 */
#include "base/assert.h"
#include "base/cpu.h"
#include "base/numbers.h"
#include "base/str.h"
#include "base/try.h"
#include "model/dummy.h"
#include "model/weights.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct loader {
    qn_weights *weights;
    const qn_config *config;
    const qn_glm_options *options;
    const qn_weight_sink *sink;      /* NULL: matrices are packed here */
    const qn_checkpoint *checkpoint; /* NULL: dummy weights */
    uint64_t seed;                   /* of those */
    qn_binder binder;
    uint8_t *next_matrix; /* between weights->block and its end */
    float *next_vector;
    float *temps; /* [n_threads][temp_floats], owned */
    size_t temp_floats;
    uint64_t done_bytes; /* as stored */
} loader;

/* Memory of a packed matrix: whole cache lines. */
static size_t packed_bytes(const qn_packed *w)
{
    return qn_packed_bytes(w->kind, w->n_out, w->n_in);
}

/* Do both halves of every head in kv_b begin with a strip? */
static bool has_whole_strips(const qn_config *c)
{
    return c->nope_dim % QN_STRIP == 0 && c->v_dim % QN_STRIP == 0;
}

/*
 * How a half of kv_b is kept.  The transposed one survives no block of scales, so quantised ones
 * become bf16: as exact as the activations they meet, and f32 where those are f32.
 */
static qn_weight_kind head_kind(const loader *l, qn_weight_kind stored, bool is_transposed)
{
    if (stored == QN_WEIGHT_BF16 || stored == QN_WEIGHT_F32 ||
        (!is_transposed && has_whole_strips(l->config))) {
        return stored;
    }
    return l->options->compute == QN_COMPUTE_F32 ? QN_WEIGHT_F32 : QN_WEIGHT_BF16;
}

/* Where the matrices of a tensor go, with shapes and kinds but no bytes yet. */
static void shape_matrices(const loader *l, const qn_tensor_spec *spec, qn_weight_kind kind)
{
    const qn_config *c = l->config;
    if (spec->matrix != NULL) {
        *spec->matrix = (qn_packed){.kind = kind, .n_out = spec->n_out, .n_in = spec->n_in};
    }
    for (uint32_t h = 0; spec->heads != NULL && h < c->n_heads; h++) {
        spec->heads[h].key =
            (qn_packed){.kind = head_kind(l, kind, true), .n_out = c->kv_rank, .n_in = c->nope_dim};
        spec->heads[h].value =
            (qn_packed){.kind = head_kind(l, kind, false), .n_out = c->v_dim, .n_in = c->kv_rank};
    }
}

static size_t spec_bytes(const loader *l, const qn_tensor_spec *spec, qn_weight_kind kind)
{
    if (spec->matrix != NULL) {
        return packed_bytes(spec->matrix);
    }
    if (spec->heads != NULL) {
        return l->config->n_heads *
               (packed_bytes(&spec->heads[0].key) + packed_bytes(&spec->heads[0].value));
    }
    const size_t n = (size_t)spec->n_out * spec->n_in;
    return (qn_weight_bytes(kind, n) + 63) / 64 * 64; /* a table */
}

qn_status qn_choose_dummy(qn_weight_kind *out, const qn_quant_rules *rules,
                          const qn_tensor_spec *spec, qn_error *err)
{
    static const qn_weight_kind kinds[] = {[QN_QUANT_AS_PLAIN] = QN_WEIGHT_BF16,
                                           [QN_QUANT_AS_FP8_BLOCK] = QN_WEIGHT_FP8_BLOCK,
                                           [QN_QUANT_AS_FP8_CHANNEL] = QN_WEIGHT_FP8_CHANNEL,
                                           [QN_QUANT_AS_MXFP4] = QN_WEIGHT_MXFP4};
    qn_str module = qn_str_of(spec->name);
    qn_weight_kind kind = QN_WEIGHT_BF16;
    if (spec->vector == NULL && spec->role != QN_ROLE_EMBEDDING && rules != NULL) {
        module.len -= strlen(".weight");
        kind = kinds[qn_quant_rules_find(rules, module)];
    }
    if (kind == QN_WEIGHT_MXFP4 && spec->n_in % QN_MXFP4_BLOCK != 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "tensor %s: MXFP4 with rows of %u by quantization_config, a multiple of %d "
                       "expected",
                       spec->name, spec->n_in, (int)QN_MXFP4_BLOCK);
    }
    *out = kind;
    return QN_OK;
}

/* What a tensor is stored as. */
static qn_status find(loader *l, const qn_tensor_spec *spec, qn_stored *out, qn_error *err)
{
    if (l->checkpoint != NULL) {
        return qn_binder_find(&l->binder, spec, out, err);
    }
    *out = (qn_stored){.weight = {.n_out = spec->n_out, .n_in = spec->n_in}};
    return qn_choose_dummy(&out->weight.kind, l->options->rules, spec, err);
}

static uint64_t stored_bytes(const qn_tensor_spec *spec, const qn_stored *stored)
{
    if (stored->tensor != NULL) {
        return stored->tensor->size_bytes + (stored->scale != NULL ? stored->scale->size_bytes : 0);
    }
    if (spec->vector != NULL) {
        return (uint64_t)spec->n_out * (spec->role == QN_ROLE_ROUTER_BIAS ? 4 : 2);
    }
    const qn_dummy matrix = {.spec = spec, .kind = stored->weight.kind};
    return qn_dummy_rows_bytes(&matrix, spec->n_out);
}

/* First walk: check and count. */
static qn_status plan_tensor(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    loader *l = context;
    qn_stored stored;
    const qn_status status = find(l, spec, &stored, err);
    if (status < 0) {
        return status;
    }
    qn_weights *weights = l->weights;
    weights->n_parameters += (uint64_t)spec->n_out * (spec->n_in > 0 ? spec->n_in : 1);
    weights->weight_bytes += stored_bytes(spec, &stored);
    if (spec->vector == NULL) {
        const size_t strip_floats = (size_t)QN_STRIP * spec->n_in;
        weights->n_of_kind[stored.weight.kind]++;
        shape_matrices(l, spec, stored.weight.kind);
        if (l->sink != NULL) {
            return l->sink->plan(l->sink->context, spec, stored.weight.kind, err);
        }
        weights->block_bytes += spec_bytes(l, spec, stored.weight.kind);
        l->temp_floats = strip_floats > l->temp_floats ? strip_floats : l->temp_floats;
    }
    return QN_OK;
}

/* A tensor on its way, for the threads that pack it. */
typedef struct packing {
    const loader *l;
    const qn_tensor_spec *spec;
    qn_weight stored; /* data NULL: made up row by row */
    uint64_t stream;  /* of dummy weights */
} packing;

static float *temp_of(const loader *l, uint32_t i_thread)
{
    return l->temps + i_thread * l->temp_floats;
}

static qn_dummy dummy_of(const packing *p)
{
    return (qn_dummy){
        .spec = p->spec, .kind = p->stored.kind, .seed = p->l->seed, .stream = p->stream};
}

static void pack_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const packing *p = context;
    const qn_packed *to = p->spec->matrix;
    const size_t strip_bytes = qn_strip_bytes(to->kind, to->n_in);
    for (size_t i = first; i < end; i++) {
        uint8_t *const strip = (uint8_t *)(uintptr_t)to->data + i * strip_bytes;
        if (p->stored.data != NULL) {
            p->l->options->kernels->pack_strip(strip, &p->stored, (uint32_t)i);
            continue;
        }
        const uint32_t row = (uint32_t)i * QN_STRIP;
        const uint32_t n = to->n_out - row < QN_STRIP ? to->n_out - row : QN_STRIP;
        const qn_dummy matrix = dummy_of(p);
        const qn_weight rows = qn_dummy_rows(&matrix, (uint8_t *)temp_of(p->l, i_thread), row, n);
        p->l->options->kernels->pack_strip(strip, &rows, 0);
    }
}

/* to = row-major [n_out][n_in] of @p kind from f32 columns: element (o, k) is at from[o * o_stride
 * + k * k_stride]. */
static void store(uint8_t *to, const qn_packed *as, const float *from, size_t o_stride,
                  size_t k_stride)
{
    for (size_t o = 0; o < as->n_out; o++) {
        for (size_t k = 0; k < as->n_in; k++) {
            const float value = from[o * o_stride + k * k_stride];
            const uint16_t bits = qn_f32_to_bf16(value);
            const size_t at = o * as->n_in + k;
            if (as->kind == QN_WEIGHT_F32) {
                memcpy(to + 4 * at, &value, sizeof value);
            } else {
                memcpy(to + 2 * at, &bits, sizeof bits);
            }
        }
    }
}

/* A whole packed matrix from strips of another, the first of which is @p i_strip. */
static void pack_from(const loader *l, const qn_packed *to, const qn_weight *w, uint32_t i_strip)
{
    const size_t strip_bytes = qn_strip_bytes(to->kind, to->n_in);
    for (uint32_t i = 0; i < qn_strips(to->n_out); i++) {
        l->options->kernels->pack_strip((uint8_t *)(uintptr_t)to->data + i * strip_bytes, w,
                                        i_strip + i);
    }
}

static void pack_rows(const loader *l, const qn_packed *to, const uint8_t *rows)
{
    const qn_weight w = {.kind = to->kind, .n_out = to->n_out, .n_in = to->n_in, .data = rows};
    pack_from(l, to, &w, 0);
}

/* Heads first .. end - 1 of kv_b: rows [nope | v] of each. */
static void pack_heads(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const packing *p = context;
    const loader *l = p->l;
    const qn_config *c = l->config;
    const bool is_dummy = p->stored.data == NULL;
    const qn_dummy matrix = dummy_of(p);
    const uint32_t n_rows = c->nope_dim + c->v_dim;
    float *const values = temp_of(l, i_thread); /* of one head, then room for it as stored */
    uint8_t *const rows = (uint8_t *)(values + (size_t)n_rows * c->kv_rank);
    for (size_t h = first; h < end; h++) {
        const qn_head_weights *to = &p->spec->heads[h];
        const uint32_t row = (uint32_t)h * n_rows;
        const uint32_t begin = row / QN_FP8_BLOCK * QN_FP8_BLOCK; /* of a block: dummy ones */
        const uint32_t at = is_dummy ? row - begin : row;         /* of the head in w */
        const qn_weight w = is_dummy ? qn_dummy_rows(&matrix, rows, begin, at + n_rows) : p->stored;
        for (uint32_t i = 0; i < n_rows; i++) {
            l->options->kernels->dequant_row(values + (size_t)i * c->kv_rank, &w, at + i);
        }
        if (has_whole_strips(c)) {
            pack_from(l, &to->value, &w, (at + c->nope_dim) / QN_STRIP);
        } else {
            store(rows, &to->value, values + (size_t)c->nope_dim * c->kv_rank, c->kv_rank, 1);
            pack_rows(l, &to->value, rows);
        }
        store(rows, &to->key, values, 1, c->kv_rank);
        pack_rows(l, &to->key, rows);
    }
}

static void copy_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const packing *p = context;
    const qn_weight *table = p->spec->table;
    const size_t row_bytes = qn_weight_bytes(table->kind, table->n_in);
    uint8_t *const to = (uint8_t *)(uintptr_t)table->data + first * row_bytes;
    if (p->stored.data != NULL) {
        memcpy(to, p->stored.data + first * row_bytes, (end - first) * row_bytes);
    } else {
        const qn_dummy matrix = dummy_of(p);
        (void)qn_dummy_rows(&matrix, to, (uint32_t)first, (uint32_t)(end - first));
    }
}

static const uint8_t *take_bytes(loader *l, size_t n_bytes)
{
    const uint8_t *const at = l->next_matrix;
    l->next_matrix += n_bytes;
    QN_ASSERT(l->next_matrix <= l->weights->block + l->weights->block_bytes);
    return at;
}

static void load_matrix(loader *l, packing *p)
{
    const qn_tensor_spec *spec = p->spec;
    qn_pool *pool = l->options->pool;
    if (spec->matrix != NULL) {
        spec->matrix->data = take_bytes(l, packed_bytes(spec->matrix));
        qn_pool_run(pool, qn_strips(spec->n_out), pack_range, p);
    } else if (spec->heads != NULL) {
        for (uint32_t h = 0; h < l->config->n_heads; h++) {
            spec->heads[h].key.data = take_bytes(l, packed_bytes(&spec->heads[h].key));
            spec->heads[h].value.data = take_bytes(l, packed_bytes(&spec->heads[h].value));
        }
        qn_pool_run(pool, l->config->n_heads, pack_heads, p);
    } else {
        const qn_weight_kind kind = p->stored.kind;
        *spec->table = (qn_weight){.kind = kind,
                                   .n_out = spec->n_out,
                                   .n_in = spec->n_in,
                                   .data = take_bytes(l, spec_bytes(l, spec, kind))};
        qn_pool_run(pool, spec->n_out, copy_range, p);
    }
}

/* Vectors are small: they become f32 once. */
static void load_vector(loader *l, const qn_tensor_spec *spec, const qn_stored *stored,
                        uint64_t stream)
{
    const qn_tensor *tensor = stored->tensor;
    float *const to = l->next_vector;
    if (tensor == NULL) {
        qn_dummy_vector(to, spec, l->seed, stream);
    } else {
        const qn_weight row = {.kind =
                                   tensor->dtype == QN_DTYPE_F32 ? QN_WEIGHT_F32 : QN_WEIGHT_BF16,
                               .n_out = 1,
                               .n_in = spec->n_out,
                               .data = tensor->data};
        l->options->kernels->dequant_row(to, &row, 0);
    }
    *spec->vector = to;
    l->next_vector += qn_vector_floats(spec->n_out);
}

static qn_status fetch(const loader *l, const qn_tensor *tensor, qn_error *err)
{
    return tensor == NULL ? QN_OK
                          : qn_checkpoint_fetch(l->checkpoint, tensor, l->options->pool, err);
}

static void release(const loader *l, const qn_tensor *tensor)
{
    if (tensor != NULL) {
        qn_checkpoint_release(l->checkpoint, tensor);
    }
}

/* Second walk: read, pack, let go. */
static qn_status load_tensor(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    loader *l = context;
    qn_status status = QN_OK;
    qn_stored stored;
    /* Dummy values depend on the name, so that they do not depend on the order of tensors. */
    const uint64_t stream = qn_str_hash(qn_str_of(spec->name));
    QN_TRY(status, find(l, spec, &stored, err), fail);
    QN_TRY(status, fetch(l, stored.tensor, err), fail);
    QN_TRY(status, fetch(l, stored.scale, err), fail);
    if (spec->vector != NULL) {
        load_vector(l, spec, &stored, stream);
    } else if (l->sink != NULL) {
        QN_TRY(status, l->sink->take(l->sink->context, spec, &stored.weight, stream, err), fail);
    } else {
        packing p = {.l = l, .spec = spec, .stored = stored.weight, .stream = stream};
        load_matrix(l, &p);
    }
    release(l, stored.tensor);
    release(l, stored.scale);
    l->done_bytes += stored_bytes(spec, &stored);
    if (l->options->progress != NULL &&
        !l->options->progress(l->options->progress_context, l->done_bytes,
                              l->weights->weight_bytes)) {
        status = qn_fail(err, QN_E_CANCELLED, 0, __func__,
                         "weights: cancelled at %s, all of them expected", spec->name);
    }
fail:
    return status;
}

static qn_status reserve(loader *l, qn_error *err)
{
    qn_weights *weights = l->weights;
    const uint64_t memory_bytes = qn_cpu_ram_bytes();
    if (weights->block_bytes > memory_bytes) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "weights: %s are needed, expected at most the %s that this process may use",
                       qn_show_size(weights->block_bytes).text, qn_show_size(memory_bytes).text);
    }
    /* A head's values, and as many of it as stored; dummy ones begin a block of scales before it.
     */
    const size_t head_rows = l->config->nope_dim + l->config->v_dim;
    const size_t head_floats = (2 * head_rows + QN_FP8_BLOCK) * l->config->kv_rank;
    l->temp_floats = head_floats > l->temp_floats ? head_floats : l->temp_floats;
    void *const block = mmap(NULL, weights->block_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) {
        return qn_fail(err, QN_E_NOMEM, errno, __func__,
                       "weights: no memory for %zu bytes, expected it", weights->block_bytes);
    }
    weights->block = block;
    l->temps = malloc(qn_pool_threads(l->options->pool) * l->temp_floats * sizeof *l->temps);
    if (l->temps == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "weights: no memory to pack them");
    }
    /* Every step reads all of it: pages of 2 MB save most of the address translations. */
    (void)madvise(block, weights->block_bytes, MADV_HUGEPAGE);
    l->next_matrix = block;
    return QN_OK;
}

qn_status qn_weights_load(qn_weights *weights, const qn_config *config,
                          const qn_checkpoint *checkpoint, uint64_t seed,
                          const qn_glm_options *options, const qn_weight_sink *sink, qn_error *err)
{
    qn_status status = QN_OK;
    loader l = {.weights = weights,
                .config = config,
                .options = options,
                .sink = sink,
                .checkpoint = checkpoint,
                .seed = seed,
                .next_vector = weights->vectors};
    if (checkpoint != NULL) {
        const qn_tensor_source source = qn_tensor_source_of(checkpoint);
        QN_TRY(status, qn_binder_init(&l.binder, &source, err), fail);
    }
    QN_TRY(status, qn_tensor_list_walk(config, weights, plan_tensor, &l, err), fail);
    if (checkpoint != NULL) {
        QN_TRY(status, qn_binder_refuse_unknown(&l.binder, checkpoint, config, err), fail);
    }
    QN_TRY(status, sink != NULL ? sink->reserve(sink->context, err) : reserve(&l, err), fail);
    QN_TRY(status, qn_tensor_list_walk(config, weights, load_tensor, &l, err), fail);
    if (sink != NULL) {
        status = sink->finish(sink->context, err);
    }
fail:
    qn_binder_deinit(&l.binder);
    free(l.temps);
    return status;
}
