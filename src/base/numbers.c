/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"

const float qn_e2m1_values[16] = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                  -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

uint8_t qn_f32_to_e4m3(float value)
{
    const uint32_t bits = qn_f32_bits(value);
    const uint32_t sign = (bits >> 24) & 0x80U;
    const uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) {
        return (uint8_t)(sign | 0x7fU);
    }
    if (magnitude >= qn_f32_bits(448.0F)) {
        return (uint8_t)(sign | 0x7eU);
    }
    if (magnitude < qn_f32_bits(0x1p-6F)) { /* subnormal: adding 2^14 leaves a unit of 2^-9 */
        const float rounded = qn_f32_from_bits(magnitude) + 0x1p14F;
        return (uint8_t)(sign | (qn_f32_bits(rounded) - qn_f32_bits(0x1p14F)));
    }
    const uint32_t even = magnitude + 0x7ffffU + ((magnitude >> 20) & 1U);
    return (uint8_t)(sign | ((even >> 20) - (120U << 3)));
}
