/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"
#include "kernels/kernels.h"

#include <math.h>

void qn_rope_ref(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim, uint32_t position,
                 const float *inv_freq)
{
    for (size_t j = 0; j < rope_dim / 2; j++) {
        const float angle = (float)position * inv_freq[j];
        const float c = cosf(angle);
        const float s = sinf(angle);
        for (size_t v = 0; v < n_vectors; v++) {
            float *pair = x + v * stride + 2 * j;
            const float a = pair[0];
            const float b = pair[1];
            pair[0] = a * c - b * s;
            pair[1] = b * c + a * s;
        }
    }
}

void qn_silu_mul_ref(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        /* exp overflows to Inf for gate below -88: the quotient is then the limit, -0. */
        y[i] = gate[i] == -INFINITY ? -0.0F * up[i] : gate[i] / (1.0F + expf(-gate[i])) * up[i];
    }
}

void qn_axpy_ref(float *y, const float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] += scale * x[i];
    }
}

void qn_to_bf16_ref(uint8_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint16_t bits = qn_f32_to_bf16(x[i]);
        memcpy(y + 2 * i, &bits, sizeof bits);
    }
}
