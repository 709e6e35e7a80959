/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the library's modules a device gets, and what is said where there is none. */
#include "kernels/gpu/list.h"
#include "kernels/gpu_ops.h"
#include "support/fail_alloc.h"
#include "support/fake_gpu.h"
#include "support/unit.h"

#define STORED(NAME, TARGET, BYTES)                                                                \
    {                                                                                              \
        .name = (NAME), .target = (TARGET), .bytes = (const uint8_t *)(BYTES),                     \
        .packed_size = sizeof(BYTES) - 1, .size = sizeof(BYTES) - 1                                \
    }

static const qn_gpu_module_image images[] = {
    STORED("rows", "sm_90a ptx", "ptx of rows"),
    STORED("rows", "sm_90a", "cubin of rows"),
    STORED("rows", "gfx950", "code of rows"),
    STORED("sm90/only", "sm_90a ptx", "ptx of the other"),
};
enum { N_IMAGES = sizeof images / sizeof *images };

static bool has_portable(const char *symbol)
{
    return strncmp(symbol, "qn_gpu_mma_", 11) != 0;
}

static bool has_no_rmsnorm(const char *symbol)
{
    return strcmp(symbol, "qn_gpu_rmsnorm") != 0;
}

static qn_gpu *open_gpu(const char *arch)
{
    qn_gpu *gpu = NULL;
    qn_error err = {0};
    fake_gpu_reset();
    fake_gpu.arch = arch;
    fake_gpu.has = has_portable;
    assert_int_equal(qn_gpu_open_driver(&gpu, &fake_gpu_driver, 0, &err), QN_OK);
    return gpu;
}

static void close_gpu(qn_gpu *gpu, qn_gpu_kernels *kernels)
{
    qn_gpu_kernels_close(&kernels);
    assert_null(kernels);
    qn_gpu_close(&gpu);
    assert_string_equal(fake_gpu_problem(), "");
}

static size_t n_calls(const char *call)
{
    size_t n = 0;
    for (const char *at = strstr(fake_gpu_calls(), call); at != NULL; at = strstr(at + 1, call)) {
        n++;
    }
    return n;
}

static void test_gpu_kernels_takes_what_serves_the_device(void **state)
{
    (void)state;
    static const struct {
        const char *arch;
        size_t n_modules;
    } cases[] = {{"sm_90", 2}, {"gfx950", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_gpu *gpu = open_gpu(cases[i].arch);
        qn_gpu_kernels *kernels = NULL;
        qn_error err = {0};
        assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, images, N_IMAGES, &err), QN_OK);
        assert_int_equal(n_calls("module_load"), cases[i].n_modules);
        assert_true(qn_gpu_kernels_has(kernels, QN_GPU_KERNEL_rmsnorm));
        assert_false(qn_gpu_kernels_has(kernels, QN_GPU_KERNEL_mma_bf16));
        assert_false(qn_gpu_kernels_has(kernels, QN_GPU_N_KERNELS));
        assert_string_equal(qn_gpu_kernels_info(kernels)->arch, cases[i].arch);
        close_gpu(gpu, kernels);
    }
}

static void test_gpu_kernels_compiles_what_the_driver_refuses(void **state)
{
    (void)state;
    qn_gpu *gpu = open_gpu("sm_90");
    qn_gpu_kernels *kernels = NULL;
    qn_error err = {0};
    fake_gpu_fail("module_load", 0, FAKE_GPU_INVALID); /* the cubin, which comes first */
    assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, images, N_IMAGES, &err), QN_OK);
    assert_int_equal(n_calls("module_load"), 3);
    assert_int_equal(err.status, QN_OK); /* nobody is told of it */
    qn_gpu_kernels_close(&kernels);
    fake_gpu_fail("module_load", 1, FAKE_GPU_INVALID); /* PTX that has no other form */
    assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, images, N_IMAGES, &err), QN_E_DEVICE);
    assert_null(kernels);
    assert_non_null(strstr(err.text, "sm90/only"));
    close_gpu(gpu, kernels);
}

static void test_gpu_kernels_says_why_there_are_none(void **state)
{
    (void)state;
    static const qn_gpu_module_image broken = {.name = "rows",
                                               .target = "gfx950",
                                               .bytes = (const uint8_t *)"no frame",
                                               .packed_size = 8,
                                               .size = 100};
    qn_gpu *gpu = open_gpu("gfx950");
    qn_gpu_kernels *kernels = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, images, 0, &err), QN_E_DEVICE);
    assert_non_null(strstr(err.text, "without clang-22"));
    assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, images, 2, &err), QN_E_DEVICE);
    assert_string_equal(err.text, "gfx950: this build has no kernels for this architecture");
    assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, &broken, 1, &err), QN_E_FORMAT);
    assert_string_equal(err.text, "rows: kernels that do not unpack to 100 bytes");
    close_gpu(gpu, kernels);
}

/* What the driver cannot do now is no kernel that is not there. */
static void test_gpu_kernels_tells_failures_from_missing_kernels(void **state)
{
    (void)state;
    static const struct {
        const char *call;
        int code;
        qn_status status;
        const char *text;
    } cases[] = {
        {"module_find", FAKE_GPU_STICKY, QN_E_DEVICE, "FAKE_STICKY"},
        {"module_find", FAKE_GPU_INVALID, QN_E_DEVICE, "FAKE_INVALID"},
        {"module_find", FAKE_GPU_NO_MEMORY, QN_E_NOMEM, "FAKE_NO_MEMORY"},
        {"allow_shared", FAKE_GPU_INVALID, QN_E_DEVICE, "bytes of shared memory, a block has"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_gpu *gpu = open_gpu("sm_90");
        qn_gpu_kernels *kernels = NULL;
        qn_error err = {0};
        fake_gpu_fail(cases[i].call, 0, cases[i].code);
        assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, images, N_IMAGES, &err),
                         cases[i].status);
        assert_null(kernels);
        assert_non_null(strstr(err.text, cases[i].text));
        close_gpu(gpu, kernels);
    }
}

static void test_gpu_kernels_needs_all_that_are_portable(void **state)
{
    (void)state;
    qn_gpu *gpu = open_gpu("gfx950");
    qn_gpu_kernels *kernels = NULL;
    qn_error err = {0};
    fake_gpu.has = has_no_rmsnorm;
    assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, images, N_IMAGES, &err), QN_E_DEVICE);
    assert_null(kernels);
    assert_non_null(strstr(err.text, "gfx950: no kernel rmsnorm in the 1 modules"));
    close_gpu(gpu, kernels);
}

static void test_gpu_kernels_carried_by_the_library_unpack(void **state)
{
    (void)state;
    qn_gpu *gpu = open_gpu("sm_90");
    qn_gpu_kernels *kernels = NULL;
    qn_error err = {0};
    if (qn_gpu_n_modules > 0) {
        assert_int_equal(qn_gpu_kernels_open(&kernels, gpu, qn_gpu_modules, qn_gpu_n_modules, &err),
                         QN_OK);
    }
    close_gpu(gpu, kernels);
}

/* All kernels, on a device with so many multiprocessors. */
static qn_gpu *open_with_all(qn_gpu_kernels **kernels, uint32_t n_sms)
{
    qn_gpu *gpu = NULL;
    qn_error err = {0};
    fake_gpu_reset();
    fake_gpu.arch = "sm_90";
    fake_gpu.n_sms = n_sms;
    assert_int_equal(qn_gpu_open_driver(&gpu, &fake_gpu_driver, 0, &err), QN_OK);
    assert_int_equal(qn_gpu_kernels_open(kernels, gpu, images, N_IMAGES, &err), QN_OK);
    return gpu;
}

/* Room for the most rows is room for any. */
static void test_gpu_matmul_has_room_for_fewer_rows(void **state)
{
    (void)state;
    static const qn_gpu_matmul_shape shapes[] = {
        {QN_GPU_W_BF16, 64, 2048, 0, 8, 128, true, false, 0, 0}, /* wgmma from 64 rows on */
        {QN_GPU_W_BF16, 64, 2048, 0, 8, 300, false, false, 0, 0},
        {QN_GPU_W_FP8, 768, 12288, 0, 128, 2048, true, false, 0, 0},
        {QN_GPU_W_FP8, 6144, 16384, 0, 1, 200, false, false, 0, 0},
        {QN_GPU_W_MXFP4, 2048, 6144, 1, 256, 2500, true, false, 0, 0},
        {QN_GPU_W_MXFP4, 512, 6144, 1, 256, 2500, true, true, 0, 0},
        {QN_GPU_W_BF16, 2048, 6144, 0, 1, 100, false, true, 0, 0},
        {QN_GPU_W_BF16, 2048, 6144, 0, 1, 0, false, false, 0, 0},
    };
    qn_gpu_kernels *kernels = NULL;
    qn_gpu *gpu = open_with_all(&kernels, 132);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const uint64_t has = qn_gpu_matmul_partial_bytes(kernels, &shapes[i]);
        for (uint32_t n = 1; n <= shapes[i].n_rows; n++) {
            qn_gpu_matmul_shape at = shapes[i];
            at.n_rows = n;
            const qn_gpu_choice chosen = qn_gpu_matmul_choose(kernels, &at);
            at.n_strips = chosen.n_strips;
            at.n_splits = chosen.n_splits;
            assert_true(qn_gpu_matmul_variants[chosen.i_variant].partial_bytes(kernels, &at) <=
                        has);
        }
    }
    close_gpu(gpu, kernels);
}

/* A block that takes rows as a whole keeps sums of a tile, for which one row may have no room. */
static void test_gpu_attend_takes_rows_whole_where_sums_have_room(void **state)
{
    (void)state;
    qn_gpu_kernels *kernels = NULL;
    qn_gpu *gpu = open_with_all(&kernels, 4);
    for (uint32_t n_heads = 1; n_heads <= 64; n_heads *= 4) {
        for (uint32_t n_rows = 1; n_rows <= 16; n_rows++) {
            for (uint32_t n_splits = 1; n_splits <= 2; n_splits++) {
                const qn_gpu_attend_args args = {
                    .kv = {.latent_dim = 512, .rope_dim = 64, .row_bytes = 1152},
                    .n_rows = n_rows,
                    .n_heads = n_heads,
                    .n_splits = n_splits,
                };
                for (uint32_t v = 0; v < qn_gpu_n_attend_variants; v++) {
                    const qn_gpu_attend_variant *variant = &qn_gpu_attend_variants[v];
                    const uint32_t n_tile = strstr(variant->name, "16") != NULL ? 16 : 64;
                    const bool is_whole = strstr(variant->name, "/whole") != NULL;
                    assert_int_equal(variant->supports(kernels, &args),
                                     !is_whole || n_splits == 1 ||
                                         n_rows * n_splits * n_heads >= n_tile);
                }
                const uint32_t chosen = qn_gpu_attend_choose(kernels, &args).i_variant;
                assert_true(qn_gpu_attend_variants[chosen].supports(kernels, &args));
            }
        }
    }
    close_gpu(gpu, kernels);
}

static void test_gpu_attention_says_which_dimensions_it_takes(void **state)
{
    (void)state;
    static const struct {
        uint32_t latent_dim, rope_dim, row_bytes;
        bool attends, scores;
    } cases[] = {
        {64, 16, 160, true, true}, {36, 2, 76, true, false},    {38, 2, 80, false, false},
        {40, 3, 96, false, true},  {40, 16, 110, false, false}, {48, 0, 104, true, false},
    };
    qn_gpu_kernels *kernels = NULL;
    qn_gpu *gpu = open_with_all(&kernels, 132);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qn_gpu_cache cache = {.latent_dim = cases[i].latent_dim,
                                    .rope_dim = cases[i].rope_dim,
                                    .row_bytes = cases[i].row_bytes};
        const qn_gpu_attend_args attend = {.kv = cache, .n_rows = 1, .n_heads = 4, .n_splits = 1};
        const qn_gpu_index_scores_args index = {.keys = cache, .n_rows = 1, .n_heads = 4};
        const uint32_t a = qn_gpu_attend_choose(kernels, &attend).i_variant;
        const uint32_t s = qn_gpu_index_scores_choose(kernels, &index).i_variant;
        assert_string_equal(qn_gpu_attend_variants[a].name, "portable/splits");
        assert_string_equal(qn_gpu_index_scores_variants[s].name, "portable");
        assert_int_equal(qn_gpu_attend_variants[a].supports(kernels, &attend), cases[i].attends);
        assert_int_equal(qn_gpu_index_scores_variants[s].supports(kernels, &index),
                         cases[i].scores);
    }
    close_gpu(gpu, kernels);
}

/* Every allocation in its turn. */
static void test_gpu_kernels_without_memory(void **state)
{
    (void)state;
#ifndef QN_CANNOT_FAIL_ALLOCATIONS
    qn_status status = QN_E_NOMEM;
    for (size_t n = 0; status != QN_OK; n++) {
        qn_gpu *gpu = open_gpu("sm_90");
        qn_gpu_kernels *kernels = NULL;
        qn_error err = {0};
        fake_gpu.keeps_calls = false;
        g_allocations_left = n;
        status = qn_gpu_kernels_open(&kernels, gpu, images, N_IMAGES, &err);
        g_allocations_left = SIZE_MAX;
        assert_true(status == QN_OK || status == QN_E_NOMEM);
        close_gpu(gpu, kernels);
    }
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpu_kernels_takes_what_serves_the_device),
        cmocka_unit_test(test_gpu_kernels_compiles_what_the_driver_refuses),
        cmocka_unit_test(test_gpu_kernels_says_why_there_are_none),
        cmocka_unit_test(test_gpu_kernels_tells_failures_from_missing_kernels),
        cmocka_unit_test(test_gpu_kernels_needs_all_that_are_portable),
        cmocka_unit_test(test_gpu_kernels_carried_by_the_library_unpack),
        cmocka_unit_test(test_gpu_kernels_without_memory),
        cmocka_unit_test(test_gpu_matmul_has_room_for_fewer_rows),
        cmocka_unit_test(test_gpu_attend_takes_rows_whole_where_sums_have_room),
        cmocka_unit_test(test_gpu_attention_says_which_dimensions_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
