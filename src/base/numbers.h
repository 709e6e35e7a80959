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
extern const float qn_e4m3_values[256];

/** Value of an E4M3 code: a table, since decoding is most of a reference matmul. */
static inline float qn_e4m3_to_f32(uint8_t code)
{
    return qn_e4m3_values[code];
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

/**
 * Both E2M1 values of a byte, the low nibble's first (bit 3 of a nibble is the sign).
 * Source   OCP MX Specification 1.0, 5.3.3
 */
extern const float qn_e2m1_pairs[256][2];
#endif
