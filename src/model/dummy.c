/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"
#include "base/numbers.h"
#include "base/rng.h"
#include "base/try.h"
#include "model/weights.h"

#include <errno.h>
#include <math.h>
#include <sys/mman.h>

typedef struct filler {
    qn_weights *weights;
    const qn_glm_options *options;
    uint64_t seed;
    uint8_t *next_matrix; /* between weights->dummy and its end */
    float *next_vector;
} filler;

/* Uniform in [-1, 1) with 24 bits: exact in f32. */
static float draw(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (float)(qn_rng_u64(seed, stream, counter) >> 40) * 0x1p-23F - 1.0F;
}

typedef struct fill_args {
    uint8_t *to;
    uint64_t seed, stream;
    float factor;
} fill_args;

static void fill_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const fill_args *a = context;
    for (size_t i = first; i < end; i++) {
        const uint16_t bits = qn_f32_to_bf16(draw(a->seed, a->stream, i) * a->factor);
        memcpy(a->to + 2 * i, &bits, sizeof bits);
    }
}

static void fill_vector(float *to, const qn_tensor_spec *spec, uint64_t seed, uint64_t stream)
{
    for (uint32_t i = 0; i < spec->n_out; i++) {
        const float v = draw(seed, stream, i);
        switch (spec->role) {
        case QN_ROLE_NORM: to[i] = qn_bf16_to_f32(qn_f32_to_bf16(1.0F + 0.25F * v)); break;
        case QN_ROLE_NORM_BIAS: to[i] = qn_bf16_to_f32(qn_f32_to_bf16(0.25F * v)); break;
        default: to[i] = 0.1F * v; break; /* the router's bias stays f32 */
        }
    }
}

static qn_status fill_tensor(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    filler *f = context;
    /* Values depend on the name, so that they do not depend on the order of tensors. */
    const uint64_t stream = qn_str_hash(qn_str_of(spec->name));
    qn_weights *weights = f->weights;
    if (spec->vector != NULL) {
        fill_vector(f->next_vector, spec, f->seed, stream);
        *spec->vector = f->next_vector;
        f->next_vector += spec->n_out;
        weights->n_parameters += spec->n_out;
        weights->weight_bytes += spec->n_out * (spec->role == QN_ROLE_ROUTER_BIAS ? 4ULL : 2ULL);
        return QN_OK;
    }
    /* Uniform noise of variance gain^2 / n_in keeps activations near one; the router's is larger,
     * so that experts differ. */
    const double gain = spec->role == QN_ROLE_ROUTER ? 4.0 : 1.0;
    const float factor = spec->role == QN_ROLE_EMBEDDING
                             ? 1.0F
                             : (float)(sqrt(3.0) * gain / sqrt((double)spec->n_in));
    const size_t n = (size_t)spec->n_out * spec->n_in;
    fill_args args = {f->next_matrix, f->seed, stream, factor};
    qn_pool_run(f->options->pool, n, fill_range, &args);
    *spec->matrix = (qn_weight){
        .kind = QN_WEIGHT_BF16, .n_out = spec->n_out, .n_in = spec->n_in, .data = f->next_matrix};
    f->next_matrix += 2 * n;
    weights->n_parameters += n;
    weights->weight_bytes += 2 * n;
    weights->n_of_kind[QN_WEIGHT_BF16]++;
    if (f->options->progress != NULL &&
        !f->options->progress(f->options->progress_context,
                              (uint64_t)(f->next_matrix - weights->dummy), weights->dummy_bytes)) {
        return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                       "dummy weights: cancelled at %s, all of them expected", spec->name);
    }
    return QN_OK;
}

static qn_status count_matrix_bytes(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    (void)err;
    uint64_t *n_bytes = context;
    *n_bytes += spec->matrix != NULL ? 2 * (uint64_t)spec->n_out * spec->n_in : 0;
    return QN_OK;
}

qn_status qn_weights_fill_dummy(qn_weights *weights, const qn_config *config, uint64_t seed,
                                const qn_glm_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    uint64_t n_bytes = 0;
    QN_TRY(status, qn_tensor_list_walk(config, weights, count_matrix_bytes, &n_bytes, err), fail);
    const uint64_t memory_bytes = qn_cpu_ram_bytes();
    if (n_bytes > memory_bytes) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "dummy weights: %.1f GB are needed, expected at most the %.1f GB that this "
                       "process may use",
                       (double)n_bytes * 1e-9, (double)memory_bytes * 1e-9);
    }
    void *const block =
        mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) {
        return qn_fail(err, QN_E_NOMEM, errno, __func__,
                       "dummy weights: no memory for %llu bytes, expected it",
                       (unsigned long long)n_bytes);
    }
    weights->dummy = block;
    weights->dummy_bytes = n_bytes;
    filler f = {.weights = weights,
                .options = options,
                .seed = seed,
                .next_matrix = block,
                .next_vector = weights->vectors};
    QN_TRY(status, qn_tensor_list_walk(config, weights, fill_tensor, &f, err), fail);
fail:
    return status;
}
