/* SPDX-License-Identifier: Apache-2.0 */
/* Dummy weights against tests/golden/dummy.json, which tools/golden/dummy.py writes. */
#include "base/json.h"
#include "base/sha256.h"
#include "model/dummy.h"
#include "support/unit.h"

#include <math.h>
#include <stdlib.h>

static qn_weight_kind kind_of(const json_t *c)
{
    static const char *const names[] = {"f32", "bf16", "fp8_block", "fp8_channel", "mxfp4"};
    qn_weight_kind kind = QN_WEIGHT_BF16;
    while (strcmp(names[kind], qn_json_text(c, "kind")) != 0) {
        kind++;
    }
    return kind;
}

static qn_tensor_spec spec_of(const json_t *c)
{
    qn_tensor_spec spec = {.n_out = (uint32_t)qn_json_number(c, "n_out"),
                           .n_in = (uint32_t)qn_json_number(c, "n_in")};
    (void)snprintf(spec.name, sizeof spec.name, "%s", qn_json_text(c, "name"));
    spec.role = strstr(spec.name, "mlp.gate.weight") != NULL ? QN_ROLE_ROUTER : QN_ROLE_MATRIX;
    return spec;
}

static void assert_digest(const json_t *c, const char *key, const void *bytes, size_t n)
{
    char hex[QN_SHA256_HEX_BYTES];
    qn_sha256_hex(hex, (qn_str){bytes, n});
    if (strcmp(hex, qn_json_text(c, key)) != 0) {
        fail_msg("%s %s: %s, expected %s", qn_json_text(c, "kind"), key, hex, qn_json_text(c, key));
    }
}

static void test_dummy_weights_are_those_of_the_definition(void **state)
{
    (void)state;
    qn_error err = {0};
    json_t *root = NULL;
    assert_int_equal(qn_json_load(&root, QN_SOURCE_DIR "/tests/golden/dummy.json", 1 << 20, &err),
                     QN_OK);
    const json_t *const cases = json_object_get(root, "cases");
    assert_int_equal(json_array_size(cases), 8);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *const c = json_array_get(cases, i);
        const qn_tensor_spec spec = spec_of(c);
        const qn_dummy matrix = {.spec = &spec,
                                 .kind = kind_of(c),
                                 .seed = (uint64_t)qn_json_number(c, "seed"),
                                 .stream = qn_str_hash(qn_str_of(spec.name))};
        uint8_t *const room = malloc(qn_dummy_rows_bytes(&matrix, spec.n_out));
        assert_non_null(room);
        const qn_weight all = qn_dummy_rows(&matrix, room, 0, spec.n_out);
        const qn_gpu_dummy_args scales = qn_dummy_scales(&matrix, NULL, 0, spec.n_out);
        assert_digest(c, "elements", all.data,
                      qn_weight_bytes(all.kind, (size_t)all.n_out * all.n_in));
        assert_digest(c, "scales", all.scale == NULL ? room : all.scale,
                      scales.n * (scales.kind == QN_GPU_DUMMY_F32 ? 4 : 1));
        free(room);
    }
    json_decref(root);
}

/* Sum of squares of a matrix, whose rows are made one by one. */
static double mean_square(qn_weight_kind kind, qn_role role, uint32_t n_out, uint32_t n_in)
{
    const qn_tensor_spec spec = {.role = role, .n_out = n_out, .n_in = n_in};
    const qn_dummy matrix = {.spec = &spec, .kind = kind, .seed = 1, .stream = 2};
    qn_kernels kernels;
    qn_kernels_init(&kernels, 0);
    float *const values = malloc(n_in * sizeof *values);
    uint8_t *const room = malloc(qn_dummy_rows_bytes(&matrix, 1));
    double sum = 0;
    assert_non_null(values);
    assert_non_null(room);
    for (uint32_t i = 0; i < n_out; i++) {
        const qn_weight row = qn_dummy_rows(&matrix, room, i, 1);
        kernels.dequant_row(values, &row, 0);
        for (uint32_t k = 0; k < n_in; k++) {
            assert_true(isfinite(values[k]));
            sum += (double)values[k] * (double)values[k];
        }
    }
    free(values);
    free(room);
    return sum / ((double)n_out * n_in);
}

static void test_dummy_weights_have_the_same_variance_however_stored(void **state)
{
    static const uint32_t widths[] = {96, 512, 2048, 6144};
    (void)state;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        for (qn_weight_kind kind = QN_WEIGHT_BF16; kind <= QN_WEIGHT_MXFP4; kind++) {
            const double n = widths[i];
            const double plain = mean_square(kind, QN_ROLE_MATRIX, 200, widths[i]) * n;
            const double router = mean_square(kind, QN_ROLE_ROUTER, 200, widths[i]) * n;
            if (fabs(plain - 1.0) > 0.1 || fabs(router - 16.0) > 1.6) {
                fail_msg("storage %d, rows of %u: variance %g and %g, expected 1 and 16", (int)kind,
                         widths[i], plain, router);
            }
        }
    }
}

static void test_dummy_rows_are_those_of_the_whole_matrix(void **state)
{
    (void)state;
    for (qn_weight_kind kind = QN_WEIGHT_BF16; kind <= QN_WEIGHT_MXFP4; kind++) {
        const qn_tensor_spec spec = {.role = QN_ROLE_MATRIX, .n_out = 300, .n_in = 96};
        const qn_dummy matrix = {.spec = &spec, .kind = kind, .seed = 1, .stream = 2};
        qn_kernels kernels;
        qn_kernels_init(&kernels, 0);
        uint8_t *const room = malloc(2 * qn_dummy_rows_bytes(&matrix, spec.n_out));
        assert_non_null(room);
        const qn_weight all = qn_dummy_rows(&matrix, room, 0, spec.n_out);
        for (uint32_t i = 0; i < spec.n_out; i++) {
            float want[96];
            float got[96];
            const qn_weight row =
                qn_dummy_rows(&matrix, room + qn_dummy_rows_bytes(&matrix, spec.n_out), i, 1);
            kernels.dequant_row(want, &all, i);
            kernels.dequant_row(got, &row, 0);
            assert_memory_equal(got, want, sizeof want);
        }
        free(room);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dummy_weights_are_those_of_the_definition),
        cmocka_unit_test(test_dummy_weights_have_the_same_variance_however_stored),
        cmocka_unit_test(test_dummy_rows_are_those_of_the_whole_matrix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
