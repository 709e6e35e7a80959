/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of kernels is what runs. */
#include "base/cpu.h"
#include "base/numbers.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "support/unit.h"

enum { N_IN = 256, N_OUT = 32, N_ROWS = 8 };

static const char *const level_names[] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};
enum { N_LEVELS = sizeof level_names / sizeof level_names[0] };

/* Flags of this CPU up to a level; false where it does not have it. */
static bool flags_up_to(uint32_t *flags, const char *level)
{
    qn_error err = {0};
    const bool is_vnni = strcmp(level, "avxvnni") == 0;
    assert_int_equal(qn_cpu_mask_parse(flags, is_vnni ? "avx2" : level, &err), QN_OK);
    *flags &= qn_cpu_flags();
    *flags = is_vnni ? *flags : *flags & ~(uint32_t)QN_CPU_AVXVNNI;
    return strcmp(qn_kernels_level(*flags), is_vnni ? "avx2" : level) == 0;
}

/* A product of weights of a kind on the kernels of some flags. */
static void multiply(float y[N_ROWS * N_OUT], uint32_t flags, qn_weight_kind kind, qn_act act)
{
    _Alignas(64) static uint8_t data[N_OUT * N_IN * 4];
    _Alignas(64) static uint8_t prepared[N_ROWS * N_IN * 4];
    static float x[N_ROWS * N_IN];
    qn_kernels k;
    qn_kernels_init(&k, flags);
    assert_true(qn_packed_bytes(kind, N_OUT, N_IN) <= sizeof data);
    for (size_t i = 0; i < sizeof data; i += 4) {
        const float value = (float)(qn_rng_u64(1, 0, i) % 1000) * 0.001F - 0.5F;
        const uint32_t bf16 = qn_f32_to_bf16(value);
        const uint32_t pair = bf16 << 16 | bf16;
        memcpy(data + i, kind == QN_WEIGHT_F32 ? (const void *)&value : (const void *)&pair, 4);
    }
    if (kind == QN_WEIGHT_MXFP4) {
        const size_t words = qn_strip_word_bytes(kind, N_IN);
        for (size_t i = 0; i < qn_packed_bytes(kind, N_OUT, N_IN); i++) {
            data[i] = i % qn_strip_bytes(kind, N_IN) < words ? (uint8_t)qn_rng_u64(2, 0, i) : 127;
        }
    }
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++) {
        x[i] = (float)(qn_rng_u64(3, 0, i) % 1000) * 0.003F - 1.5F;
    }
    const size_t row_bytes = qn_act_row_bytes(act, N_IN);
    for (size_t i = 0; i < N_ROWS; i++) {
        qn_prepare_ref(prepared + i * row_bytes, act, x + i * N_IN, N_IN, 0, N_IN);
    }
    const qn_packed w = {.kind = kind, .n_out = N_OUT, .n_in = N_IN, .data = data};
    k.matmul(&(qn_matmul_args){.y = y,
                               .y_stride = N_OUT,
                               .x = prepared,
                               .x_stride = row_bytes,
                               .w = &w,
                               .act = act,
                               .n_rows = N_ROWS,
                               .out_end = N_OUT});
}

/* With the flags up to the level that is said to serve a product has the same bits as with all. */
static void test_products_run_on_the_level_that_is_told(void **state)
{
    (void)state;
    static const struct {
        qn_weight_kind kind;
        qn_act act;
        qn_kernel_class class;
    } cases[] = {
        {QN_WEIGHT_F32, QN_ACT_F32, QN_KERNEL_MATMUL_F32},
        {QN_WEIGHT_BF16, QN_ACT_F32, QN_KERNEL_MATMUL_F32},
        {QN_WEIGHT_BF16, QN_ACT_BF16, QN_KERNEL_MATMUL_BF16},
        {QN_WEIGHT_MXFP4, QN_ACT_BF16, QN_KERNEL_MATMUL_BF16},
        {QN_WEIGHT_MXFP4, QN_ACT_INT8, QN_KERNEL_MATMUL_INT8},
    };
    for (size_t i_level = 0; i_level < N_LEVELS; i_level++) {
        uint32_t all = 0;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            float with_all[N_ROWS * N_OUT];
            float with_told[N_ROWS * N_OUT];
            uint32_t told = 0;
            if (!flags_up_to(&all, level_names[i_level])) {
                break; /* not of this CPU */
            }
            assert_true(flags_up_to(&told, qn_kernels_level_of(cases[i].class, all)));
            multiply(with_all, all, cases[i].kind, cases[i].act);
            multiply(with_told, told, cases[i].kind, cases[i].act);
            assert_memory_equal(with_all, with_told, sizeof with_all);
        }
    }
}

/* Have two tables the same kernels of a class? */
static bool has_same(qn_kernel_class class, uint32_t flags, uint32_t other_flags)
{
    qn_kernels a;
    qn_kernels b;
    qn_kernels_init(&a, flags);
    qn_kernels_init(&b, other_flags);
    if (class == QN_KERNEL_PREPARE) {
        return a.prepare == b.prepare;
    }
    if (class == QN_KERNEL_ROUNDED_ROWS) {
        return a.attend == b.attend && a.index_scores == b.index_scores;
    }
    return a.topk == b.topk && a.rmsnorm == b.rmsnorm && a.router == b.router &&
           a.sample == b.sample;
}

/* A table's entry is that of the level that is told, and not that of the one below. */
static void test_entries_are_those_of_the_level_that_is_told(void **state)
{
    (void)state;
    static const qn_kernel_class classes[] = {QN_KERNEL_OTHER, QN_KERNEL_PREPARE,
                                              QN_KERNEL_ROUNDED_ROWS};
    for (size_t i = 0; i < N_LEVELS * sizeof classes / sizeof classes[0]; i++) {
        const qn_kernel_class class = classes[i / N_LEVELS];
        uint32_t all = 0;
        uint32_t told = 0;
        uint32_t below = 0;
        if (!flags_up_to(&all, level_names[i % N_LEVELS]) || all == 0) {
            continue;
        }
        const char *const level = qn_kernels_level_of(class, all);
        const char *const *at = level_names + 1;
        while (at < level_names + N_LEVELS - 1 && strcmp(*at, level) != 0) {
            at++;
        }
        assert_true(flags_up_to(&told, level));
        assert_true(flags_up_to(&below, at[-1]));
        assert_true(has_same(class, all, told));
        assert_false(has_same(class, told, below));
    }
    assert_string_equal(qn_kernels_level_of(QN_KERNEL_MATMUL_INT8, 0), "ref");
    const uint32_t with_vnni = QN_CPU_AVX2 | QN_CPU_AVXVNNI;
    assert_string_equal(qn_kernels_level_of(QN_KERNEL_MATMUL_INT8, with_vnni), "avxvnni");
    assert_string_equal(qn_kernels_level_of(QN_KERNEL_MATMUL_BF16, with_vnni), "avx2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_run_on_the_level_that_is_told),
        cmocka_unit_test(test_entries_are_those_of_the_level_that_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
