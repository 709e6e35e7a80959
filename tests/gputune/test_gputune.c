/* SPDX-License-Identifier: Apache-2.0 */
/* The whole of tuning on an emulated GPU: every shape of a model, and the table that comes of it.
 */
#include "api/internal.h"
#include "api/tune.h"
#include "model/gpu_products.h"
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
    static const qn_weight_kind experts = QN_WEIGHT_MXFP4;
    const qn_tune_job job = {.options = &options,
                             .config = &config,
                             .experts = &experts,
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
            return; /* for the analyser */
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

/* --------------------------------------------------------------------------- what is told -- */

/* A model of dummy weights on the emulated GPU. */
static void open_model(qn_model *m, uint32_t n_experts_used)
{
    qn_error err = {0};
    *m = (qn_model){.config = config_of(),
                    .compute = QN_COMPUTE_BF16,
                    .kv_dtype = QN_KV_BF16,
                    .info = {.kernels = "emulated", .kv_dtype = "bf16"}};
    m->config.n_experts_used = n_experts_used;
    qn_kernels_init(&m->kernels, 0);
    assert_int_equal(qn_pool_open(&m->pool, 1, &err), QN_OK);
    assert_int_equal(emulated_gpu_open(&m->gpu, &err), QN_OK);
    assert_int_equal(qn_gpu_kernels_open(&m->gpu_kernels, m->gpu, &emulated_module, 1, &err),
                     QN_OK);
    const qn_glm_options options = {.kernels = &m->kernels,
                                    .pool = m->pool,
                                    .compute = QN_COMPUTE_BF16,
                                    .n_rows_max = 4,
                                    .gpu = m->gpu,
                                    .gpu_kernels = m->gpu_kernels};
    assert_int_equal(qn_glm_open_dummy(&m->glm, &m->config, 1, &options, &err), QN_OK);
}

static void close_model(qn_model *m)
{
    qn_glm_close(&m->glm);
    qn_gpu_kernels_close(&m->gpu_kernels);
    qn_gpu_close(&m->gpu);
    qn_pool_close(&m->pool);
    assert_string_equal(fake_gpu_problem(), "");
}

/* Entry @p i of an operation and shape; an empty one where there are not so many. */
static qn_kernel_choice find(const qn_kernel_choice *list, size_t n, const char *operation,
                             uint32_t n_out, uint32_t n_in, size_t i)
{
    for (size_t k = 0; k < n; k++) {
        const bool is_it = strcmp(list[k].operation, operation) == 0 && list[k].n_out == n_out &&
                           list[k].n_in == n_in;
        if (is_it && i-- == 0) {
            return list[k];
        }
    }
    return (qn_kernel_choice){0};
}

static void assert_choice(qn_kernel_choice c, const char *variant, const char *source,
                          uint32_t n_rows)
{
    assert_string_equal(c.variant, variant);
    assert_string_equal(c.source, source);
    assert_int_equal(c.n_rows, n_rows);
}

static void test_gputune_choices_are_told(void **state)
{
    (void)state;
    static const char text[] = "op,kind,n_out,n_in,pair,groups,rows,variant,strips,splits,us\n"
                               "matmul,bf16,32,64,0,1,4,sm90_mma,0,0,2\n"
                               "matmul,bf16,32,64,0,1,8,sm100_new,0,0,2\n"
                               "moe,bf16,32,64,1,5,16,sm90_mma,0,0,2\n"
                               "attend,bf16,2,40,0,1,1,portable/splits,0,0,2\n";
    enum { N = 128 };
    static qn_kernel_choice list[N];
    qn_model m;
    qn_gpu_tuning *tuning = NULL;
    qn_error err = {0};
    open_model(&m, 2);
    size_t n = qn_model_kernels(list, N, &m);
    assert_in_range(n, 15, N);
    assert_string_equal(find(list, n, "matmul", 32, 64, 0).variant, "sm90_mma");
    assert_string_equal(find(list, n, "matmul", 32, 64, 0).source, "default");
    assert_choice(find(list, n, "mla", 2, 40, 0), "portable/splits", "fallback", 0);
    assert_choice(find(list, n, "norm", 0, 64, 0), "emulated", "default", 0);
    assert_int_equal(qn_gpu_tuning_parse(&tuning, qn_str_of(text), "t.csv", &err), QN_OK);
    qn_gpu_kernels_tune(m.gpu_kernels, tuning);
    n = qn_model_kernels(list, N, &m);
    assert_choice(find(list, n, "matmul", 32, 64, 0), "sm90_mma", "tuned", 4);
    assert_string_equal(find(list, n, "matmul", 32, 64, 1).source, "fallback");
    const qn_kernel_choice experts = find(list, n, "moe", 32, 64, 0);
    assert_choice(experts, "sm90_mma", "tuned", 8); /* tokens of 16 slots */
    assert_string_equal(find(list, n, "moe", 32, 64, 1).source, "default");
    assert_true(experts.is_pair);
    assert_int_equal(experts.n_groups, 5);
    assert_int_equal(experts.n_uses, 1);
    /* Measured, and still made for no device. */
    assert_choice(find(list, n, "mla", 2, 40, 0), "portable/splits", "fallback", 0);
    close_model(&m);
    /* A choice that ends between two powers of two is told to its last row. */
    open_model(&m, 3);
    assert_int_equal(qn_gpu_tuning_parse(&tuning, qn_str_of(text), "t.csv", &err), QN_OK);
    qn_gpu_kernels_tune(m.gpu_kernels, tuning);
    n = qn_model_kernels(list, N, &m);
    assert_choice(find(list, n, "moe", 32, 64, 0), "sm90_mma", "tuned", 16 / 3);
    close_model(&m);
}

/* Of a checkpoint the shapes are known without reading a weight: those of the model loaded. */
static void test_gputune_shapes_of_a_checkpoint(void **state)
{
    (void)state;
    static const char nano[] = QN_SOURCE_DIR "/models/glm-nano";
    qn_model m = {0};
    qn_checkpoint *checkpoint = NULL;
    static qn_gpu_product stored[QN_GPU_PRODUCTS_MAX];
    static qn_gpu_product loaded[QN_GPU_PRODUCTS_MAX];
    uint32_t n = 0;
    qn_error err = {0};
    open_model(&m, 2);
    qn_glm_close(&m.glm);
    assert_int_equal(qn_config_load(&m.config, QN_SOURCE_DIR "/models/glm-nano/config.json", &err),
                     QN_OK);
    assert_int_equal(qn_checkpoint_open(&checkpoint, nano, &err), QN_OK);
    const qn_glm_options options = {.kernels = &m.kernels,
                                    .pool = m.pool,
                                    .compute = QN_COMPUTE_BF16,
                                    .n_rows_max = 4,
                                    .gpu = m.gpu,
                                    .gpu_kernels = m.gpu_kernels};
    assert_int_equal(
        qn_gpu_list_stored_products(stored, &n, &m.config, checkpoint, NULL, &options, &err),
        QN_OK);
    assert_int_equal(qn_glm_open(&m.glm, &m.config, checkpoint, &options, &err), QN_OK);
    assert_int_equal(qn_gpu_list_products(loaded, m.glm), n);
    assert_memory_equal(stored, loaded, n * sizeof *stored);
    qn_checkpoint_close(&checkpoint);
    close_model(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gputune_measures_every_shape),
                                       cmocka_unit_test(test_gputune_choices_are_told),
                                       cmocka_unit_test(test_gputune_shapes_of_a_checkpoint)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
