/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured and what wins, on a device whose kernels take the time that the test says. */
#include "kernels/gpu_tune.h"
#include "support/fake_kernels.h"

#include <stdio.h>

/* What kernels do: all write the same, but for one. */
static struct {
    const char *wrong;   /* part of a name; NULL: none */
    uint32_t n_launches; /* until progress cancels */
} world;

static bool is_like(const char *kernel, const char *part)
{
    return part != NULL && strstr(kernel, part) != NULL;
}

static bool has(const char *symbol)
{
    return strstr(symbol, "wgmma") == NULL;
}

static qn_gpu_matmul_args product_of(const char *kernel, const void *args)
{
    qn_gpu_few_args few;
    qn_gpu_matmul_args product;
    if (is_like(kernel, "few_")) {
        memcpy(&few, args, sizeof few); /* the copy is not on a multiple of 64 */
        return few.product;
    }
    memcpy(&product, args, sizeof product);
    return product;
}

static void launch(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                   uint32_t shared_bytes, const void *args)
{
    (void)grid, (void)n_threads, (void)shared_bytes;
    const float one = is_like(kernel, world.wrong) ? 1.5F : 1.0F;
    if (is_like(kernel, "join")) {
        return; /* what it would join is there */
    }
    if (is_like(kernel, "attend")) {
        const qn_gpu_attend_args *const a = args;
        const size_t n = (size_t)a->n_rows * a->n_heads * a->kv.latent_dim;
        for (size_t i = 0; i < n; i++) {
            a->u[i] = one == 1.0F ? 0x3f80 : 0x3fc0;
        }
    } else if (is_like(kernel, "index")) {
        const qn_gpu_index_scores_args *const a = args;
        for (size_t i = 0; i < a->n_rows * a->scores_stride; i++) {
            a->scores[i] = one;
        }
    } else {
        const qn_gpu_matmul_args a = product_of(kernel, args);
        for (size_t i = 0; i < a.n_rows * a.y_stride; i++) {
            if (a.y_dtype == QN_GPU_F32) {
                ((float *)a.y)[i] = one;
            } else {
                ((uint16_t *)a.y)[i] = one == 1.0F ? 0x3f80 : 0x3fc0;
            }
        }
    }
}

/* Tensor cores win from 4 rows on, best cut into 4 strips and 3 splits; whole rows of attention,
 * and products that begin early, from 16 on. */
static double seconds(const char *kernel, const void *args)
{
    if (is_like(kernel, "join")) {
        return 1e-6;
    }
    if (is_like(kernel, "attend")) {
        const qn_gpu_attend_args *const a = args;
        const bool is_best = (a->is_whole != 0) == (a->n_rows >= 16);
        return is_like(kernel, "mma64") ? (is_best ? 20e-6 : 30e-6) : 60e-6;
    }
    if (is_like(kernel, "index")) {
        const qn_gpu_index_scores_args *const a = args;
        return is_like(kernel, "mma") != (a->n_rows < 4) ? 10e-6 : 50e-6;
    }
    const qn_gpu_matmul_args a = product_of(kernel, args);
    if (!is_like(kernel, "mma")) {
        return a.n_rows < 4 ? 10e-6 : 100e-6;
    }
    const double gained = a.is_dependent != 0 && a.n_rows >= 16 ? 2e-6 : 0;
    return (a.log_strips == 1 && a.n_splits == 3 ? 20e-6 : 25e-6) - gained;
}

static bool count_down(void *context, uint32_t i_rows)
{
    (void)context, (void)i_rows;
    return --world.n_launches > 0;
}

static const qn_gpu_tuning_key dense = {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 64, 256, 0, 1};
static const qn_gpu_tuning_key heads = {QN_GPU_TUNED_MATMUL, QN_GPU_W_FP8, 64, 128, 0, 5};
static const qn_gpu_tuning_key experts = {QN_GPU_TUNED_MOE, QN_GPU_W_MXFP4, 64, 128, 1, 6};
static const qn_gpu_tuning_key attend = {QN_GPU_TUNED_ATTEND, QN_GPU_KV_BF16, 64, 576, 0, 1};
static const qn_gpu_tuning_key index_scores = {QN_GPU_TUNED_INDEX, QN_GPU_KV_BF16, 4, 128, 0, 1};

/* One shape with 1, 4 and 16 rows; a device with nothing left on it afterwards. */
static qn_status tune(qn_gpu_tuning_row out[3], uint32_t *n, uint32_t *n_wrong,
                      const qn_gpu_tuning_key *key, bool is_quick, qn_error *err)
{
    static const uint32_t rows[] = {1, 4, 16};
    qn_gpu *gpu = NULL;
    qn_gpu_stream *stream = NULL;
    qn_gpu_kernels *kernels = NULL;
    fake_gpu.keeps_calls = false;
    fake_gpu.arch = "sm_90";
    fake_gpu.launch = launch;
    fake_gpu.seconds = seconds;
    fake_gpu.has = has;
    qn_status status = qn_gpu_open_driver(&gpu, &fake_gpu_driver, 0, err);
    status = status < 0 ? status : qn_gpu_stream_open(&stream, gpu, err);
    status = status < 0 ? status : qn_gpu_kernels_open(&kernels, gpu, &fake_image, 1, err);
    if (status == QN_OK) {
        const qn_gpu_tuner tuner = {.gpu = gpu,
                                    .ops = {.kernels = kernels, .stream = stream},
                                    .cold_bytes = 1 << 16,
                                    .n_launches = 2,
                                    .is_quick = is_quick,
                                    .n_experts_used = 2,
                                    .n_positions = 128,
                                    .n_topk = 64,
                                    .rope_dim = 64,
                                    .row_bytes = 1152,
                                    .progress = count_down};
        status = qn_gpu_tune(out, n, n_wrong, &tuner, key, rows, 3, err);
    }
    qn_gpu_kernels_close(&kernels);
    qn_gpu_stream_close(&stream);
    qn_gpu_close(&gpu);
    assert_string_equal(fake_gpu_problem(), "");
    assert_int_equal(fake_gpu_used_bytes(), 0);
    return status;
}

static void reset(const char *wrong)
{
    fake_gpu_reset();
    world.wrong = wrong;
    world.n_launches = UINT32_MAX;
}

static void check(const qn_gpu_tuning_key *key, const char *wrong, bool is_quick,
                  const char *const expected[3])
{
    qn_gpu_tuning_row out[3] = {0};
    uint32_t n = 0;
    uint32_t n_wrong = 0;
    qn_error err = {0};
    reset(wrong);
    if (tune(out, &n, &n_wrong, key, is_quick, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(n, 3);
    assert_true((n_wrong > 0) == (wrong != NULL));
    for (uint32_t i = 0; i < 3; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "%u %s %u/%u %.0f", out[i].n_rows, out[i].variant,
                       out[i].n_strips, out[i].n_splits, (double)out[i].us);
        assert_string_equal(text, expected[i]);
    }
}

static void test_gpu_tune_takes_the_fastest(void **state)
{
    (void)state;
    static const char *const all[] = {"1 sm90_few 0/0 10", "4 sm90_mma 4/3 20",
                                      "16 sm90_mma/early 4/3 18"};
    /* The portable one would be faster with 1 row, and is a fallback. */
    static const char *const late[] = {"1 sm90_mma 4/3 20", "4 sm90_mma 4/3 20",
                                       "16 sm90_mma 4/3 20"};
    static const char *const quick[] = {"1 sm90_few 0/0 10", "4 sm90_mma 0/0 25",
                                        "16 sm90_mma/early 0/0 23"};
    static const char *const splits[] = {"1 sm90_mma64/splits 0/0 21", "4 sm90_mma64/splits 0/0 21",
                                         "16 sm90_mma64/whole 0/0 20"};
    static const char *const one[] = {"1 sm90_mma 0/0 50", "4 sm90_mma 0/0 10",
                                      "16 sm90_mma 0/0 10"};
    check(&dense, NULL, false, all);
    check(&heads, NULL, false, all);
    check(&experts, NULL, false, late); /* whose weights are not known early */
    check(&dense, NULL, true, quick);
    check(&attend, NULL, false, splits);
    check(&index_scores, NULL, false, one);
}

static void test_gpu_tune_leaves_out_what_is_wrong(void **state)
{
    (void)state;
    static const char *const few[] = {"1 sm90_few 0/0 10", "4 sm90_few 0/0 100",
                                      "16 sm90_few 0/0 100"};
    static const char *const plain[] = {"1 plain 0/0 10", "4 plain 0/0 100", "16 plain 0/0 100"};
    static const char *const portable[] = {"1 portable/splits 0/0 61", "4 portable/splits 0/0 61",
                                           "16 portable/splits 0/0 61"};
    check(&dense, "mma", false, few);
    check(&experts, "mma", false, plain);
    check(&attend, "mma", false, portable);
}

static void test_gpu_tune_can_be_cancelled(void **state)
{
    (void)state;
    qn_gpu_tuning_row out[3];
    uint32_t n = 0;
    uint32_t n_wrong = 0;
    qn_error err = {0};
    reset(NULL);
    world.n_launches = 5;
    assert_int_equal(tune(out, &n, &n_wrong, &dense, true, &err), QN_E_CANCELLED);
}

/* Any call of the driver may fail; nothing is left on the device, which tune() looks for. */
static void test_gpu_tune_survives_a_driver_that_fails(void **state)
{
    (void)state;
    static const qn_gpu_tuning_key *const keys[] = {&experts, &attend};
    for (size_t k = 0; k < 2; k++) {
        bool has_failed = true;
        for (size_t i = 0; has_failed; i += 1 + i / 8) {
            qn_gpu_tuning_row out[3];
            uint32_t n = 0;
            uint32_t n_wrong = 0;
            qn_error err = {0};
            reset(NULL);
            fake_gpu_fail("any", i, FAKE_GPU_NO_MEMORY);
            const qn_status status = tune(out, &n, &n_wrong, keys[k], true, &err);
            has_failed = fake_gpu_has_failed();
            assert_true(has_failed || status == QN_OK);
            assert_true(status == QN_OK || err.text[0] != '\0');
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpu_tune_takes_the_fastest),
        cmocka_unit_test(test_gpu_tune_leaves_out_what_is_wrong),
        cmocka_unit_test(test_gpu_tune_can_be_cancelled),
        cmocka_unit_test(test_gpu_tune_survives_a_driver_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
