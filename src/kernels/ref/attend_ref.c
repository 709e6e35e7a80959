/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"
#include "kernels/ref/dot.h"

#include <math.h>

/* Are products with rows of this view made of bf16 values on both sides? */
static bool is_bf16(const qn_kv_view *view, qn_compute compute)
{
    return compute != QN_COMPUTE_F32 && view->dtype == QN_KV_BF16;
}

static float dot(const float *q, const float *row, size_t n, bool is_rounded)
{
    return is_rounded ? qn_dot_bf16(q, row, n) : qn_dot(q, row, n);
}

void qn_index_scores_ref(const qn_index_scores_args *args)
{
    const size_t dim = args->keys.latent_dim;
    const bool is_rounded = is_bf16(&args->keys, args->compute);
    float *key = args->scratch;
    for (uint32_t t = args->first; t < args->end; t++) {
        qn_kv_read_ref(key, &args->keys, t);
        float sum = 0.0F;
        for (uint32_t h = 0; h < args->n_heads; h++) {
            const float score = dot(args->q + h * dim, key, dim, is_rounded);
            /* relu that keeps NaN: a broken key must show, not vanish. */
            sum += args->w[h] * (score < 0.0F ? 0.0F : score);
        }
        args->scores[t - args->first] = sum;
    }
}

/* Scores to exp(s - max s), in place; returns their sum. */
static float exponentials(float *s, uint32_t n, bool is_rounded)
{
    float max = s[0];
    for (uint32_t i = 1; i < n; i++) {
        max = s[i] > max ? s[i] : max;
    }
    float sum = 0.0F;
    for (uint32_t i = 0; i < n; i++) {
        s[i] = expf(s[i] - max);
        sum += s[i];
        s[i] = is_rounded ? qn_round_bf16(s[i]) : s[i];
    }
    return sum;
}

void qn_attend_ref(const qn_attend_args *args)
{
    const size_t n_latent = args->kv.latent_dim;
    const size_t n_rope = args->kv.rope_dim;
    const size_t n_set = args->n_set;
    const bool is_rounded = is_bf16(&args->kv, args->compute);
    float *row = args->scratch;                   /* [n_latent + n_rope] one cache row */
    float *p = args->scratch + n_latent + n_rope; /* [n_heads][n_set] */
    for (size_t i = 0; i < n_set; i++) {
        qn_kv_read_ref(row, &args->kv, (uint32_t)args->set[i]);
        for (size_t h = 0; h < args->n_heads; h++) {
            const float latent = dot(args->q_latent + h * n_latent, row, n_latent, is_rounded);
            const float rope =
                dot(args->q_rope + h * args->q_rope_stride, row + n_latent, n_rope, is_rounded);
            p[h * n_set + i] = args->scale * (latent + rope);
        }
    }
    memset(args->u, 0, args->n_heads * n_latent * sizeof *args->u);
    float *sums = p + args->n_heads * n_set; /* [n_heads] */
    for (size_t h = 0; h < args->n_heads; h++) {
        sums[h] = exponentials(p + h * n_set, args->n_set, is_rounded);
    }
    for (size_t i = 0; i < n_set; i++) {
        qn_kv_read_ref(row, &args->kv, (uint32_t)args->set[i]);
        for (size_t h = 0; h < args->n_heads; h++) {
            qn_axpy_ref(args->u + h * n_latent, row, p[h * n_set + i], n_latent);
        }
    }
    for (size_t i = 0; i < args->n_heads * n_latent; i++) {
        args->u[i] /= sums[i / n_latent];
    }
}
