/* SPDX-License-Identifier: Apache-2.0 */
#include "model/weights.h"

#include "base/assert.h"
#include "base/try.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Sum of the lengths of all vectors, each begun on 16 bytes, so that they can lie in one block. */
static qn_status count_vectors(void *context, const qn_tensor_spec *spec, qn_error *err)
{
    (void)err;
    size_t *n_floats = context;
    *n_floats += spec->vector != NULL ? qn_vector_floats(spec->n_out) : 0;
    return QN_OK;
}

qn_status qn_weights_init(qn_weights *weights, const qn_config *config, bool has_mtp, qn_error *err)
{
    *weights = (qn_weights){.has_mtp = has_mtp};
    const uint32_t n_layers = config->n_layers + (has_mtp ? 1 : 0);
    size_t n_sparse = 0;
    QN_ASSERT(n_layers > 0);
    for (uint32_t i = 0; i < n_layers; i++) {
        n_sparse += config->is_dense[i] ? 0 : 1;
    }
    qn_status status = QN_OK;
    weights->layers = calloc(n_layers, sizeof *weights->layers);
    weights->experts = calloc(n_sparse * config->n_experts + 1, sizeof *weights->experts);
    weights->heads = calloc((size_t)n_layers * config->n_heads, sizeof *weights->heads);
    if (weights->layers == NULL || weights->experts == NULL || weights->heads == NULL) {
        goto no_memory;
    }
    qn_mlp_weights *next = weights->experts;
    for (uint32_t i = 0; i < n_layers; i++) {
        weights->layers[i].heads = weights->heads + (size_t)i * config->n_heads;
        if (!config->is_dense[i]) {
            weights->layers[i].experts = next;
            next += config->n_experts;
        }
    }
    size_t n_floats = 0;
    QN_TRY(status, qn_tensor_list_walk(config, weights, count_vectors, &n_floats, err), fail);
    weights->n_vector_floats = n_floats;
    weights->vectors = malloc(n_floats * sizeof *weights->vectors);
    if (weights->vectors == NULL) {
        goto no_memory;
    }
    return QN_OK;

no_memory:
    status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "weight tables: no memory");
fail:
    qn_weights_deinit(weights);
    return status;
}

void qn_weights_deinit(qn_weights *weights)
{
    free(weights->layers);
    free(weights->experts);
    free(weights->heads);
    free(weights->vectors);
    if (weights->block != NULL) {
        (void)munmap(weights->block, weights->block_bytes);
    }
    *weights = (qn_weights){0};
}
