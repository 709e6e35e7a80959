/* SPDX-License-Identifier: Apache-2.0 */
#include "model/glm.h"

#include "base/assert.h"
#include "base/try.h"
#include "model/internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* n elements of 4 bytes on a cache line of their own. */
static void *carve(qn_arena *arena, size_t n)
{
    return qn_arena_alloc(arena, n * 4, 64);
}

/* Room for prepared rows of at most n_in columns, of every kind. */
static void carve_rows(qn_arena *arena, uint8_t **to, size_t n_rows, size_t n_in)
{
    for (int act = 0; act < QN_N_ACTS; act++) {
        to[act] = carve(arena, n_rows * qn_act_row_bytes((qn_act)act, (uint32_t)n_in) / 4);
    }
}

/* Lay out the workspace; done first on an arena that measures. */
static void lay_out(qn_glm *m)
{
    qn_arena *const at = &m->arena;
    const qn_config *c = &m->config;
    qn_workspace *ws = &m->ws;
    const size_t rows = m->n_rows_max;
    const size_t heads = c->n_heads;
    const size_t used = c->n_experts_used;
    const size_t n_ff = max_size(c->n_ff_dense, (size_t)c->n_experts_shared * c->n_ff_expert);
    const size_t n_threads = qn_pool_threads(m->pool);
    m->inv_freq = carve(at, c->rope_dim / 2);
    ws->x = carve(at, rows * c->n_embd);
    ws->xn = carve(at, rows * c->n_embd);
    ws->y = carve(at, rows * c->n_embd);
    ws->concat = carve(at, m->weights.has_mtp ? rows * 2 * c->n_embd : 0);
    ws->qr = carve(at, rows * c->q_rank);
    ws->q = carve(at, rows * heads * (c->nope_dim + c->rope_dim));
    ws->kv = carve(at, rows * (c->kv_rank + c->rope_dim));
    ws->ql = carve(at, rows * heads * c->kv_rank);
    ws->u = carve(at, rows * heads * c->kv_rank);
    ws->o = carve(at, rows * heads * c->v_dim);
    ws->qi = carve(at, rows * c->n_index_heads * c->index_dim);
    ws->ki = carve(at, rows * c->index_dim);
    ws->wi = carve(at, rows * c->n_index_heads);
    ws->index_scores = carve(at, n_threads * c->n_context_max);
    ws->sets = carve(at, rows * c->index_topk);
    ws->n_sets = carve(at, rows);
    ws->router_logits = carve(at, rows * c->n_experts);
    ws->router_scores = carve(at, n_threads * c->n_experts);
    ws->experts = carve(at, rows * used);
    ws->expert_weights = carve(at, rows * used);
    ws->slot_of = carve(at, rows * used);
    ws->row_of = carve(at, rows * used);
    ws->first_of = carve(at, (size_t)c->n_experts + 1);
    ws->gate = carve(at, rows * n_ff + rows * used * c->n_ff_expert);
    ws->up = carve(at, rows * n_ff + rows * used * c->n_ff_expert);
    ws->down = carve(at, (rows * qn_act_row_bytes(QN_ACT_F32, (uint32_t)n_ff) +
                          rows * used * qn_act_row_bytes(QN_ACT_F32, c->n_ff_expert)) /
                             4);
    ws->moe_y = carve(at, rows * used * c->n_embd);
    ws->jobs = qn_arena_alloc(at, ((size_t)c->n_experts + 1) * sizeof *ws->jobs, 64);
    carve_rows(at, ws->wide.rows, rows, (m->weights.has_mtp ? 2 : 1) * (size_t)c->n_embd);
    carve_rows(at, ws->inner.rows, rows, max_size(c->q_rank, heads * c->v_dim));
    carve_rows(at, ws->key_rows, rows * heads, c->nope_dim);
    carve_rows(at, ws->value_rows, rows * heads, c->kv_rank);
    ws->scratch_floats =
        max_size(qn_attend_scratch_floats(c->n_heads, c->index_topk, c->kv_rank, c->rope_dim),
                 qn_index_scratch_floats(c->n_index_heads, c->index_dim));
    ws->scratch_floats = (ws->scratch_floats + 15) / 16 * 16;
    ws->scratch = carve(at, n_threads * ws->scratch_floats);
}

void qn_rope_frequencies(float *inv_freq, uint32_t rope_dim, double theta)
{
    /* f32 steps in the order of the reference, so that angles agree to the last bit nearly always
     * (transformers, _compute_default_rope_parameters). */
    for (uint32_t j = 0; j < rope_dim / 2; j++) {
        const float exponent = (float)(2 * j) / (float)rope_dim;
        inv_freq[j] = 1.0F / powf((float)theta, exponent);
    }
}

/* Give the workspace back. */
static void close_workspace(qn_arena *arena)
{
    void *const block = arena->base;
    const size_t n_bytes = arena->capacity_bytes;
    qn_arena_deinit(arena);
    if (block != NULL) {
        (void)munmap(block, n_bytes);
    }
}

/* Everything but the weights, for n_rows_max rows. */
static qn_status open_workspace(qn_glm *m, qn_error *err)
{
    qn_arena_init(&m->arena, NULL, SIZE_MAX);
    lay_out(m);
    const size_t n_bytes = m->arena.used_bytes;
    void *const block =
        mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    qn_arena_deinit(&m->arena);
    if (block == MAP_FAILED) {
        return qn_fail(err, QN_E_NOMEM, errno, __func__,
                       "workspace: %zu bytes for %u rows, no memory", n_bytes, m->n_rows_max);
    }
    qn_arena_init(&m->arena, block, n_bytes);
    lay_out(m);
    QN_ASSERT(m->arena.used_bytes == n_bytes);
    qn_rope_frequencies(m->inv_freq, m->config.rope_dim, m->config.rope_theta);
    return QN_OK;
}

qn_status qn_glm_reserve(qn_glm *model, uint32_t n_rows, qn_error *err)
{
    if (n_rows <= model->n_rows_max) {
        return QN_OK;
    }
    if (model->gpu != NULL) {
        const qn_status status = qn_gpu_glm_reserve(model->gpu, n_rows, err);
        model->n_rows_max = status < 0 ? model->n_rows_max : n_rows;
        return status;
    }
    qn_glm before = *model; /* its workspace is a block with pointers into it */
    model->n_rows_max = n_rows;
    const qn_status status = open_workspace(model, err);
    if (status < 0) {
        *model = before;
        return status;
    }
    close_workspace(&before.arena);
    return QN_OK;
}

uint64_t qn_glm_workspace_bytes(const qn_glm *model)
{
    return model->gpu != NULL ? model->gpu->ws.block_bytes : model->arena.capacity_bytes;
}

qn_gpu_glm *qn_glm_gpu(const qn_glm *model)
{
    return model->gpu;
}

const qn_kv_place *qn_glm_kv_place(const qn_glm *model)
{
    return &model->kv_place;
}

static qn_status allocate(qn_glm **out, const qn_config *config, const qn_glm_options *options,
                          qn_error *err)
{
    QN_ASSERT(options->n_rows_max > 0);
    QN_ASSERT(options->compute != QN_COMPUTE_AUTO);
    QN_ASSERT(options->gpu == NULL || options->compute == QN_COMPUTE_BF16);
    qn_glm *m = calloc(1, sizeof *m);
    if (m == NULL) {
        (void)qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "model: no memory");
        return QN_E_NOMEM; /* spelled out: the analyser does not see through qn_fail() */
    }
    m->config = *config;
    m->k = options->kernels;
    m->pool = options->pool;
    m->compute = options->compute;
    m->n_rows_max = options->n_rows_max;
    *out = m;
    return QN_OK;
}

bool qn_finds_mtp(const qn_config *config, const qn_checkpoint *checkpoint)
{
    char prefix[48];
    const int len = snprintf(prefix, sizeof prefix, "model.layers.%u.", config->n_layers);
    const size_t n_tensors = qn_checkpoint_count(checkpoint);
    for (size_t i = 0; config->n_mtp_layers > 0 && i < n_tensors; i++) {
        const qn_str name = qn_checkpoint_get(checkpoint, i)->name;
        if (name.len > (size_t)len && memcmp(name.ptr, prefix, (size_t)len) == 0 &&
            !qn_is_trunk_copy(config, name)) {
            return true;
        }
    }
    return false;
}

/* Weights and workspace; checkpoint NULL: dummy ones. */
static qn_status load(qn_glm *m, bool has_mtp, const qn_checkpoint *checkpoint, uint64_t seed,
                      const qn_glm_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_weights_init(&m->weights, &m->config, has_mtp, err), fail);
    if (options->gpu == NULL) {
        QN_TRY(status,
               qn_weights_load(&m->weights, &m->config, checkpoint, seed, options, NULL, err),
               fail);
        return open_workspace(m, err);
    }
    QN_TRY(status, qn_gpu_glm_open(&m->gpu, &m->config, options, has_mtp, err), fail);
    QN_TRY(status, qn_gpu_glm_load(m->gpu, &m->weights, checkpoint, seed, options, err), fail);
    QN_TRY(status, qn_gpu_glm_reserve(m->gpu, m->n_rows_max, err), fail);
    m->kv_place = (qn_kv_place){.gpu = options->gpu, .stream = m->gpu->stream};
fail:
    return status;
}

qn_status qn_glm_open(qn_glm **out, const qn_config *config, const qn_checkpoint *checkpoint,
                      const qn_glm_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    qn_glm *m = NULL;
    *out = NULL;
    QN_TRY(status, allocate(&m, config, options, err), fail);
    QN_TRY(status, load(m, qn_finds_mtp(config, checkpoint), checkpoint, 0, options, err), fail);
    *out = m;
    return QN_OK;

fail:
    qn_glm_close(&m);
    return status;
}

qn_status qn_glm_open_dummy(qn_glm **out, const qn_config *config, uint64_t seed,
                            const qn_glm_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    qn_glm *m = NULL;
    *out = NULL;
    QN_TRY(status, allocate(&m, config, options, err), fail);
    QN_TRY(status, load(m, config->n_mtp_layers > 0, NULL, seed, options, err), fail);
    *out = m;
    return QN_OK;

fail:
    qn_glm_close(&m);
    return status;
}

void qn_glm_close(qn_glm **model)
{
    qn_glm *m = *model;
    if (m == NULL) {
        return;
    }
    qn_gpu_glm_close(&m->gpu);
    qn_weights_deinit(&m->weights);
    close_workspace(&m->arena);
    free(m);
    *model = NULL;
}

qn_status qn_glm_take_failure(qn_glm *model, qn_error *err)
{
    return model->gpu != NULL ? qn_gpu_host_take_failure(model->gpu, err) : QN_OK;
}

const qn_config *qn_glm_config(const qn_glm *model)
{
    return &model->config;
}

bool qn_glm_has_mtp(const qn_glm *model)
{
    return model->weights.has_mtp;
}

uint64_t qn_glm_parameters(const qn_glm *model)
{
    return model->weights.n_parameters;
}

uint64_t qn_glm_weight_bytes(const qn_glm *model)
{
    return model->weights.weight_bytes;
}

const char *qn_glm_quantization(const qn_glm *model)
{
    const uint32_t *n_of_kind = model->weights.n_of_kind;
    if (n_of_kind[QN_WEIGHT_MXFP4] > 0) {
        return "mxfp4";
    }
    return n_of_kind[QN_WEIGHT_FP8_BLOCK] + n_of_kind[QN_WEIGHT_FP8_CHANNEL] > 0 ? "fp8" : "none";
}
