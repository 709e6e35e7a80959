/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"
#include "kernels/kernels.h"
#include "kernels/ref/decode.h"

#include <math.h>

static void write_fp8(uint8_t *row, const float *latent, uint32_t n)
{
    uint8_t *scales = row + qn_kv_fp8_scales_at(n);
    for (uint32_t first = 0; first < n; first += QN_FP8_BLOCK) {
        const uint32_t end = first + QN_FP8_BLOCK < n ? first + QN_FP8_BLOCK : n;
        float amax = 0.0F;
        for (uint32_t i = first; i < end; i++) {
            amax = fabsf(latent[i]) > amax ? fabsf(latent[i]) : amax;
        }
        /* An amax of a few denormals underflows here, and 0 / 0 would put NaN into the cache. */
        const float scale = amax / 448.0F > 0.0F ? amax / 448.0F : 1.0F;
        for (uint32_t i = first; i < end; i++) {
            row[i] = qn_f32_to_e4m3(latent[i] / scale);
        }
        memcpy(scales + 4 * (size_t)(first / QN_FP8_BLOCK), &scale, sizeof scale);
    }
}

void qn_kv_write_ref(const qn_kv_view *view, uint32_t position, const float *latent,
                     const float *rope)
{
    uint8_t *row = qn_kv_row(view, position);
    const uint32_t n = view->latent_dim;
    switch (view->dtype) {
    case QN_KV_AUTO: break;
    case QN_KV_F32:
        memcpy(row, latent, n * sizeof *latent);
        if (view->rope_dim > 0) {
            memcpy(row + n * sizeof *latent, rope, view->rope_dim * sizeof *rope);
        }
        break;
    case QN_KV_BF16:
        qn_to_bf16_ref(row, latent, n);
        qn_to_bf16_ref(row + 2 * (size_t)n, rope, view->rope_dim);
        break;
    case QN_KV_FP8:
        write_fp8(row, latent, n);
        qn_to_bf16_ref(row + qn_kv_fp8_rope_at(n), rope, view->rope_dim);
        break;
    }
}

void qn_kv_read_ref(float *y, const qn_kv_view *view, uint32_t position)
{
    const uint8_t *row = qn_kv_row(view, position);
    const uint32_t n = view->latent_dim;
    switch (view->dtype) {
    case QN_KV_AUTO: break;
    case QN_KV_F32: memcpy(y, row, (n + view->rope_dim) * sizeof *y); break;
    case QN_KV_BF16: qn_bf16_decode(y, row, n + view->rope_dim); break;
    case QN_KV_FP8:
        qn_fp8_decode(y, row, row + qn_kv_fp8_scales_at(n), n, QN_FP8_BLOCK);
        qn_bf16_decode(y + n, row + qn_kv_fp8_rope_at(n), view->rope_dim);
        break;
    }
}
