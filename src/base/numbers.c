/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"

/* The formats' definitions as constant expressions; a table of all codes is built from them. */
#define SIGNED(MAGNITUDE, code, n)                                                                 \
    ((code) < (n) ? MAGNITUDE((code) % (n)) : -MAGNITUDE((code) % (n)))
#define E4M3_MAGNITUDE(m)                                                                          \
    ((m) == 127 ? NAN                                                                              \
     : (m) < 8  ? (float)(m)*0x1p-9F                                                               \
                : (float)(8 + (m) % 8) * (float)(1 << (m) / 8) * 0x1p-10F)
#define E4M3(code)        SIGNED(E4M3_MAGNITUDE, code, 128)
#define E2M1_MAGNITUDE(m) (0.5F * (float)((m) < 2 ? (m) : (2 + (m) % 2) << (m) / 2 >> 1))
#define E2M1(code)        SIGNED(E2M1_MAGNITUDE, code, 8)
#define E2M1_PAIR(byte)                                                                            \
    {                                                                                              \
        E2M1((byte) % 16), E2M1((byte) / 16)                                                       \
    }
#define ROW_4(X, i)   X(i), X((i) + 1), X((i) + 2), X((i) + 3)
#define ROW_16(X, i)  ROW_4(X, i), ROW_4(X, (i) + 4), ROW_4(X, (i) + 8), ROW_4(X, (i) + 12)
#define ROW_64(X, i)  ROW_16(X, i), ROW_16(X, (i) + 16), ROW_16(X, (i) + 32), ROW_16(X, (i) + 48)
#define ROW_256(X, i) ROW_64(X, i), ROW_64(X, (i) + 64), ROW_64(X, (i) + 128), ROW_64(X, (i) + 192)

const float qn_e4m3_values[256] = {ROW_256(E4M3, 0)};
const float qn_e2m1_pairs[256][2] = {ROW_256(E2M1_PAIR, 0)};

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
