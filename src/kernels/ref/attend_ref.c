/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"
#include "kernels/ref/dot.h"

#include <math.h>

void qn_index_scores_ref(float *scores, const float *q, const float *w, uint32_t n_heads,
                         const qn_kv_view *keys, uint32_t first, uint32_t end, float *scratch)
{
    const size_t dim = keys->latent_dim;
    for (uint32_t t = first; t < end; t++) {
        qn_kv_read_ref(scratch, keys, t);
        float sum = 0.0F;
        for (uint32_t h = 0; h < n_heads; h++) {
            const float dot = qn_dot(q + h * dim, scratch, dim);
            /* relu that keeps NaN: a broken key must show, not vanish. */
            sum += w[h] * (dot < 0.0F ? 0.0F : dot);
        }
        scores[t - first] = sum;
    }
}

/* Scores to probabilities, in place. */
static void softmax(float *s, uint32_t n)
{
    float max = s[0];
    for (uint32_t i = 1; i < n; i++) {
        max = s[i] > max ? s[i] : max;
    }
    float sum = 0.0F;
    for (uint32_t i = 0; i < n; i++) {
        s[i] = expf(s[i] - max);
        sum += s[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        s[i] /= sum;
    }
}

void qn_attend_ref(const qn_attend_args *args)
{
    const size_t n_latent = args->kv.latent_dim;
    const size_t n_rope = args->kv.rope_dim;
    const size_t n_set = args->n_set;
    float *row = args->scratch;                   /* [n_latent + n_rope] one cache row */
    float *p = args->scratch + n_latent + n_rope; /* [n_heads][n_set] */
    for (size_t i = 0; i < n_set; i++) {
        qn_kv_read_ref(row, &args->kv, (uint32_t)args->set[i]);
        for (size_t h = 0; h < args->n_heads; h++) {
            const float latent = qn_dot(args->q_latent + h * n_latent, row, n_latent);
            const float rope =
                qn_dot(args->q_rope + h * args->q_rope_stride, row + n_latent, n_rope);
            p[h * n_set + i] = args->scale * (latent + rope);
        }
    }
    for (size_t h = 0; h < args->n_heads; h++) {
        softmax(p + h * n_set, args->n_set);
    }
    memset(args->u, 0, args->n_heads * n_latent * sizeof *args->u);
    for (size_t i = 0; i < n_set; i++) {
        qn_kv_read_ref(row, &args->kv, (uint32_t)args->set[i]);
        for (size_t h = 0; h < args->n_heads; h++) {
            qn_axpy_ref(args->u + h * n_latent, row, p[h * n_set + i], n_latent);
        }
    }
}
