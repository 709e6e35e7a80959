/* SPDX-License-Identifier: Apache-2.0 */
/* The whole of tuning on an emulated GPU: every shape of a model, and the table that comes of it.
 */
#include "api/tune.h"
#include "support/emulated_gpu.h"
#include "support/fake_gpu.h"
#include "support/unit.h"

#include <stdlib.h>
#include <string.h>

/* Small, since an emulated thread is slow; the second layer has experts. */
static qn_config config_of(void)
{
    qn_config c = {.n_layers = 2,
                   .n_embd = 64,
                   .n_vocab = 96,
                   .n_heads = 2,
                   .q_rank = 32,
                   .kv_rank = 32,
                   .nope_dim = 24,
                   .rope_dim = 8,
                   .v_dim = 16,
                   .n_index_heads = 2,
                   .index_dim = 16,
                   .index_topk = 24,
                   .n_ff_dense = 96,
                   .n_ff_expert = 32,
                   .n_experts = 5,
                   .n_experts_used = 2,
                   .n_experts_shared = 1,
                   .n_context_max = 128,
                   .rms_eps = 1e-5F,
                   .rope_theta = 10000.0,
                   .routed_scale = 2.5F,
                   .pad_id = -1};
    c.is_dense[0] = true;
    c.is_index_full[0] = true;
    return c;
}

static bool count(void *context, uint64_t done, uint64_t total)
{
    uint64_t *const most = context;
    assert_true(done < total && done >= *most);
    *most = done;
    return true;
}

static char *tune(qn_gpu *gpu, const qn_gpu_kernels *kernels, const qn_gpu_tuning *before,
                  const uint32_t *rows, size_t n_rows)
{
    const qn_config config = config_of();
    uint64_t most = 0;
    const qn_tune_options options = {.rows = rows,
                                     .n_rows = n_rows,
                                     .command = "quern tune tiny",
                                     .progress = count,
                                     .progress_context = &most,
                                     .is_quick = true};
    const qn_tune_job job = {.options = &options,
                             .config = &config,
                             .expert_kind = QN_WEIGHT_MXFP4,
                             .gpu = gpu,
                             .kernels = kernels,
                             .cold_bytes = 1024,
                             .before = before};
    char *table = NULL;
    qn_error err = {0};
    if (qn_tune_on(&table, &job, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_true(most > 0);
    return table;
}

static double second(const char *kernel, const void *args)
{
    (void)kernel, (void)args;
    return 1e-6;
}

static void test_gputune_measures_every_shape(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1, 16};
    static const char before_text[] =
        "op,kind,n_out,n_in,pair,groups,rows,variant,strips,splits,us\n"
        "matmul,bf16,64,32,0,1,8,plain,0,0,2\n"        /* a shape that is measured */
        "matmul,bf16,12345,64,0,1,8,sm90_mma,4,2,3\n"; /* one of another model */
    qn_gpu *gpu = NULL;
    qn_gpu_kernels *kernels = NULL;
    qn_gpu_tuning *before = NULL;
    qn_gpu_tuning *after = NULL;
    qn_error err = {0};
    assert_int_equal(emulated_gpu_open(&gpu, &err), QN_OK);
    fake_gpu.seconds = second;
    assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, &emulated_module, 1, &err), QN_OK);
    assert_int_equal(qn_gpu_tuning_parse(&before, qn_str_of(before_text), "before", &err), QN_OK);
    char *const table = tune(gpu, kernels, before, rows, 2);
    assert_non_null(strstr(table, "# command: quern tune tiny\n"));
    assert_non_null(strstr(table, "# device: "));
    assert_int_equal(qn_gpu_tuning_parse(&after, qn_str_of(table), "after", &err), QN_OK);
    const qn_gpu_tuning_key keys[] = {
        {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 32, 64, 0, 1},  /* q_a */
        {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 64, 32, 0, 1},  /* q_b, o */
        {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 32, 24, 0, 2},  /* keys by head */
        {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 96, 64, 1, 1},  /* gate and up */
        {QN_GPU_TUNED_MATMUL, QN_GPU_W_MXFP4, 32, 64, 1, 1}, /* of the shared expert */
        {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 5, 64, 0, 1},   /* router */
        {QN_GPU_TUNED_MOE, QN_GPU_W_MXFP4, 32, 64, 1, 5},
        {QN_GPU_TUNED_MOE, QN_GPU_W_MXFP4, 64, 32, 0, 5},
        {QN_GPU_TUNED_ATTEND, QN_GPU_KV_BF16, 2, 40, 0, 1},
        {QN_GPU_TUNED_ATTEND, QN_GPU_KV_FP8, 2, 40, 0, 1},
        {QN_GPU_TUNED_INDEX, QN_GPU_KV_BF16, 2, 16, 0, 1},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const uint32_t n_each = keys[i].op == QN_GPU_TUNED_MOE ? 2 : 1;
        const qn_gpu_tuning_row *const row = qn_gpu_tuning_find(after, &keys[i], 16 * n_each);
        if (row == NULL || row->n_rows != 16 * n_each) {
            fail_msg("no row of key %zu in:\n%s", i, table);
        }
        assert_true(row->us > 0 && row->i_variant != UINT32_MAX);
    }
    const qn_gpu_tuning_key other = {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 12345, 64, 0, 1};
    assert_int_equal(qn_gpu_tuning_find(after, &other, 8)->n_splits, 2);
    assert_int_equal(qn_gpu_tuning_find(after, &keys[1], 2)->n_rows, 16); /* measured anew */
    free(table);
    qn_gpu_tuning_close(&before);
    qn_gpu_tuning_close(&after);
    qn_gpu_kernels_close(&kernels);
    qn_gpu_close(&gpu);
    assert_string_equal(fake_gpu_problem(), "");
    assert_int_equal(fake_gpu_used_bytes(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gputune_measures_every_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
