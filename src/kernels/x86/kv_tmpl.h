/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file kv_tmpl.h  kv_write and kv_read of a level: registers of QN_LANES elements.  What is left
 * at the end goes one by one or by way of a buffer, since a row ends where its elements do.
 */
#include "kernels/x86/decode.h"
#include "kernels/x86/lanes.h"
#include "kernels/x86/x86.h"

/* Codes of a group, n of them; returns their scale. */
static float encode_group(uint8_t *codes, const float *x, uint32_t n)
{
    float padded[QN_FP8_BLOCK] = {0.0F};
    uint8_t all[QN_FP8_BLOCK];
    if (n < QN_FP8_BLOCK) {
        memcpy(padded, x, n * sizeof *x);
        x = padded;
    }
    qn_vf amax = qn_vf_set(0.0F);
    for (uint32_t i = 0; i < QN_FP8_BLOCK; i += QN_LANES) {
        const qn_vi magnitude = qn_vi_of(V(loadu_ps)(x + i)) & V(set1_epi32)(0x7fffffff);
        amax = qn_vf_max(qn_vf_of(magnitude), amax); /* of a NaN and a number: the number */
    }
    /* An amax of a few denormals underflows here, and 0 / 0 would put NaN into the cache. */
    const float least = qn_vf_greatest(amax) / 448.0F;
    const float scale = least > 0.0F ? least : 1.0F;
    for (uint32_t i = 0; i < QN_FP8_BLOCK; i += QN_LANES) {
        qn_vi_store_u8(all + i, qn_vi_e4m3(V(loadu_ps)(x + i) / qn_vf_set(scale)));
    }
    memcpy(codes, all, n);
    return scale;
}

static uint32_t group_size(const qn_kv_view *view, uint32_t first)
{
    return view->latent_dim - first < QN_FP8_BLOCK ? view->latent_dim - first : QN_FP8_BLOCK;
}

void QN_LEVEL(qn_kv_write)(const qn_kv_view *view, uint32_t position, const float *latent,
                           const float *rope)
{
    uint8_t *row = qn_kv_row(view, position);
    const uint32_t n = view->latent_dim;
    if (view->dtype == QN_KV_F32) {
        qn_kv_write_ref(view, position, latent, rope);
    } else if (view->dtype == QN_KV_BF16) {
        QN_LEVEL(qn_to_bf16)(row, latent, n);
        QN_LEVEL(qn_to_bf16)(row + 2 * (size_t)n, rope, view->rope_dim);
    } else {
        for (uint32_t first = 0; first < n; first += QN_FP8_BLOCK) {
            const float scale = encode_group(row + first, latent + first, group_size(view, first));
            memcpy(row + qn_kv_fp8_scales_at(n) + first / QN_FP8_BLOCK * sizeof scale, &scale,
                   sizeof scale);
        }
        QN_LEVEL(qn_to_bf16)(row + qn_kv_fp8_rope_at(n), rope, view->rope_dim);
    }
}

void QN_LEVEL(qn_kv_read)(float *y, const qn_kv_view *view, uint32_t position)
{
    const uint8_t *row = qn_kv_row(view, position);
    const uint32_t n = view->latent_dim;
    if (view->dtype == QN_KV_F32) {
        memcpy(y, row, (n + view->rope_dim) * sizeof *y);
    } else if (view->dtype == QN_KV_BF16) {
        qn_bf16_row(y, row, n + view->rope_dim);
    } else {
        qn_fp8_row(y, row, row + qn_kv_fp8_scales_at(n), n, QN_FP8_BLOCK);
        qn_bf16_row(y + n, row + qn_kv_fp8_rope_at(n), view->rope_dim);
    }
}
