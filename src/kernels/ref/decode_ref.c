/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/decode.h"

#include "base/numbers.h"

void qn_bf16_decode(float *y, const uint8_t *from, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * (size_t)i, sizeof bits);
        y[i] = qn_bf16_to_f32(bits);
    }
}

void qn_fp8_decode(float *y, const uint8_t *codes, const uint8_t *scales, uint32_t n,
                   uint32_t n_per_scale)
{
    for (uint32_t first = 0; first < n; first += n_per_scale) {
        const uint32_t end = n - first > n_per_scale ? first + n_per_scale : n;
        float scale;
        memcpy(&scale, scales + 4 * (size_t)(first / n_per_scale), sizeof scale);
        for (uint32_t i = first; i < end; i++) {
            y[i] = qn_e4m3_to_f32(codes[i]) * scale;
        }
    }
}
