/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

#include <math.h>

static float sigmoid(float z)
{
    return 1.0F / (1.0F + expf(-z));
}

static bool is_taken(const int32_t *experts, uint32_t n, uint32_t e)
{
    for (uint32_t i = 0; i < n; i++) {
        if (experts[i] == (int32_t)e) {
            return true;
        }
    }
    return false;
}

/* The best expert not among the first n of the list: larger score, then lower index; NaN last. */
static uint32_t best_left(const float *scores, uint32_t n_experts, const int32_t *experts,
                          uint32_t n)
{
    uint32_t best = n_experts;
    for (uint32_t e = 0; e < n_experts; e++) {
        if (is_taken(experts, n, e)) {
            continue;
        }
        if (best == n_experts || scores[e] > scores[best] ||
            (isnan(scores[best]) && !isnan(scores[e]))) {
            best = e;
        }
    }
    return best;
}

void qn_router_ref(const qn_router_args *args)
{
    for (uint32_t e = 0; e < args->n_experts; e++) {
        args->scratch[e] = sigmoid(args->logits[e]) + args->bias[e];
    }
    float sum = 0.0F;
    for (uint32_t i = 0; i < args->n_used; i++) {
        if (!args->keep_experts) {
            args->experts[i] = (int32_t)best_left(args->scratch, args->n_experts, args->experts, i);
        }
        args->weights[i] = sigmoid(args->logits[args->experts[i]]);
        sum += args->weights[i];
    }
    for (uint32_t i = 0; i < args->n_used; i++) {
        if (args->norm_topk) {
            args->weights[i] /= sum + 1e-20F;
        }
        args->weights[i] *= args->routed_scale;
    }
}
