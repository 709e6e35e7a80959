/* SPDX-License-Identifier: Apache-2.0 */
/* Number formats against their definitions in double, written independently of numbers.h. */
#include "base/numbers.h"
#include "base/rng.h"
#include "support/unit.h"

#include <math.h>

/* sign, exponent and mantissa of a small float format without infinities */
static double decode(uint32_t code, int exponent_bits, int mantissa_bits, int bias)
{
    const uint32_t mantissa = code & ((1U << mantissa_bits) - 1U);
    const uint32_t exponent = code >> mantissa_bits & ((1U << exponent_bits) - 1U);
    const double sign = code >> (mantissa_bits + exponent_bits) != 0 ? -1.0 : 1.0;
    const double fraction = ldexp((double)mantissa, -mantissa_bits);
    return exponent == 0 ? sign * ldexp(fraction, 1 - bias)
                         : sign * ldexp(1.0 + fraction, (int)exponent - bias);
}

static void test_every_e4m3_code_has_its_value(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 256; code++) {
        const float value = qn_e4m3_to_f32((uint8_t)code);
        if ((code & 0x7fU) == 0x7fU) {
            assert_true(isnan(value));
        } else {
            assert_true((double)value == decode(code, 4, 3, 7));
        }
        assert_int_equal(signbit(value) != 0, code >> 7);
    }
}

static void test_every_e2m1_code_has_its_value(void **state)
{
    (void)state;
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t code = byte >> 4 * i & 15U;
            assert_true((double)qn_e2m1_pairs[byte][i] == decode(code, 2, 1, 1));
            assert_int_equal(signbit(qn_e2m1_pairs[byte][i]) != 0, code >> 3);
        }
    }
}

static void test_every_e8m0_code_has_its_value(void **state)
{
    (void)state;
    for (int code = 0; code < 255; code++) {
        assert_true((double)qn_e8m0_to_f32((uint8_t)code) == ldexp(1.0, code - 127));
    }
    assert_true(isnan(qn_e8m0_to_f32(255)));
}

static void test_every_bf16_code_survives_both_ways(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 65536; code++) {
        const float value = qn_bf16_to_f32((uint16_t)code);
        if (isnan(value)) {
            assert_true(isnan(qn_bf16_to_f32(qn_f32_to_bf16(value))));
            continue;
        }
        if (!isinf(value)) {
            assert_true((double)value == decode(code, 8, 7, 127));
        }
        assert_int_equal(qn_f32_to_bf16(value), code);
    }
}

/* Nearest of both neighbours, the even one where they are equally far. */
static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 400000; i++) {
        uint32_t bits = (uint32_t)qn_rng_u64(1, 0, i) & 0x7fffffffU;
        if (i % 4 == 0) {
            bits = (bits & 0x7fff0000U) | 0x8000U; /* a tie */
        }
        const double value = (double)qn_f32_from_bits(bits);
        const uint32_t below = bits >> 16;
        if (below >= 0x7f7fU) {
            continue; /* the last step goes to infinity: next test */
        }
        const double down = value - decode(below, 8, 7, 127);
        const double up = decode(below + 1, 8, 7, 127) - value;
        const uint32_t expected = down < up ? below : up < down ? below + 1 : below + (below & 1U);
        assert_int_equal(qn_f32_to_bf16(qn_f32_from_bits(bits)), expected);
        assert_int_equal(qn_f32_to_bf16(qn_f32_from_bits(bits | 0x80000000U)), expected | 0x8000U);
    }
}

static void test_bf16_of_the_largest_and_of_nan(void **state)
{
    (void)state;
    assert_int_equal(qn_f32_to_bf16(3.4028234e38F), 0x7f80);
    assert_int_equal(qn_f32_to_bf16(INFINITY), 0x7f80);
    assert_int_equal(qn_f32_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(qn_bf16_to_f32(qn_f32_to_bf16(qn_f32_from_bits(0x7f800001U)))));
}

/* The nearest of all codes; of two equally near the even one. */
static uint8_t nearest_e4m3(double magnitude)
{
    uint32_t best = 0;
    double best_distance = 1e30;
    for (uint32_t code = 0; code < 0x7f; code++) {
        const double distance = fabs(decode(code, 4, 3, 7) - magnitude);
        if (distance < best_distance || (distance == best_distance && code % 2 == 0)) {
            best = code;
            best_distance = distance;
        }
    }
    return (uint8_t)best;
}

static void check_e4m3(float magnitude)
{
    const uint8_t expected = nearest_e4m3((double)magnitude);
    assert_int_equal(qn_f32_to_e4m3(magnitude), expected);
    assert_int_equal(qn_f32_to_e4m3(-magnitude), expected | 0x80);
}

static void test_e4m3_rounds_to_the_nearest_code(void **state)
{
    (void)state;
    for (uint32_t bits = qn_f32_bits(0x1p-14F); bits < qn_f32_bits(1024.0F); bits += 7919) {
        check_e4m3(qn_f32_from_bits(bits));
    }
    for (uint32_t code = 0; code < 0x7e; code++) { /* each value, each tie and its neighbours */
        const float value = qn_e4m3_to_f32((uint8_t)code);
        const float tie = 0.5F * (value + qn_e4m3_to_f32((uint8_t)(code + 1)));
        check_e4m3(value);
        check_e4m3(tie);
        check_e4m3(nextafterf(tie, 0.0F));
        check_e4m3(nextafterf(tie, 1e9F));
    }
}

static void test_e4m3_saturates_and_keeps_nan(void **state)
{
    (void)state;
    assert_int_equal(qn_f32_to_e4m3(448.0F), 0x7e);
    assert_int_equal(qn_f32_to_e4m3(1e30F), 0x7e);
    assert_int_equal(qn_f32_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(qn_f32_to_e4m3(NAN) & 0x7f, 0x7f);
    assert_int_equal(qn_f32_to_e4m3(qn_f32_from_bits(0xffc00000U)), 0xff);
    assert_int_equal(qn_f32_to_e4m3(-0.0F), 0x80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_e4m3_code_has_its_value),
        cmocka_unit_test(test_every_e2m1_code_has_its_value),
        cmocka_unit_test(test_every_e8m0_code_has_its_value),
        cmocka_unit_test(test_every_bf16_code_survives_both_ways),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_bf16_of_the_largest_and_of_nan),
        cmocka_unit_test(test_e4m3_rounds_to_the_nearest_code),
        cmocka_unit_test(test_e4m3_saturates_and_keeps_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
