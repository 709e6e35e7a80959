/* SPDX-License-Identifier: Apache-2.0 */
/** @file numbers.h  Number formats of weights and caches: bf16, e4m3, e2m1 with e8m0 scales. */
#ifndef QN_BASE_NUMBERS_H
#define QN_BASE_NUMBERS_H
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t qn_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float qn_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/** Exact. */
static inline float qn_bf16_to_f32(uint16_t value)
{
    return qn_f32_from_bits((uint32_t)value << 16);
}

/** Round to nearest, ties to even; NaN stays a (quiet) NaN. */
static inline uint16_t qn_f32_to_bf16(float value)
{
    const uint32_t bits = qn_f32_bits(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
        return (uint16_t)((bits >> 16) | 0x40U);
    }
    return (uint16_t)((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

/**
 * OCP FP8 E4M3 ("e4m3fn"): bias 7, no infinity, 0x7f and 0xff are NaN, largest 448.
 * Source   OCP 8-bit Floating Point Specification 1.0, table 1.  Exact.
 */
static inline float qn_e4m3_to_f32(uint8_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x80U) << 24;
    const uint32_t magnitude = code & 0x7fU;
    if (magnitude == 0x7fU) {
        return qn_f32_from_bits(sign | 0x7fc00000U);
    }
    if (magnitude < 8U) { /* subnormal: m * 2^-9 */
        return qn_f32_from_bits(sign | qn_f32_bits((float)magnitude * 0x1p-9F));
    }
    return qn_f32_from_bits(sign | ((magnitude << 20) + (120U << 23)));
}

/** Round to nearest even, saturate at 448; NaN gives 0x7f with the sign. */
uint8_t qn_f32_to_e4m3(float value);

/** Scale byte of a block of 32: 2^(code - 127); 255 is NaN.  OCP MX Specification 1.0, 5.4.1. */
static inline float qn_e8m0_to_f32(uint8_t code)
{
    if (code == 255) {
        return qn_f32_from_bits(0x7fc00000U);
    }
    return code == 0 ? 0x1p-127F : qn_f32_from_bits((uint32_t)code << 23);
}

/** E2M1 values by code 0 .. 15 (bit 3 is the sign).  OCP MX Specification 1.0, 5.3.3. */
extern const float qn_e2m1_values[16];
#endif
