/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of measured choices: how they are read, and what is chosen by them. */
#include "base/file.h"
#include "kernels/gpu_tuning.h"
#include "kernels/gpu_tuning_shipped.h"
#include "support/fail_each.h"
#include "support/fake_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "op,kind,n_out,n_in,pair,groups,rows,variant,strips,splits,us\n"
#define NOTE "# device: NVIDIA H100 80GB HBM3\n"

static const char table[] = NOTE HEAD "matmul,bf16,256,512,0,1,8,sm90_mma,4,3,7.5\r\n"
                                      "matmul,bf16,256,512,0,1,1,plain,0,0,6\n"
                                      "\n# a note\n"
                                      "matmul,bf16,256,512,0,1,64,sm100_new,0,0,9\n"
                                      "moe,mxfp4,128,512,1,16,64,plain,0,0,40\n"
                                      "attend,bf16,64,576,0,1,1,sm90_mma64/splits,0,0,11\n"
                                      "attend,bf16,64,576,0,1,256,sm90_mma64/whole,0,0,90\n"
                                      "index,bf16,32,128,0,1,16,portable,0,0,90\n";

static qn_gpu_tuning *parse(const char *text)
{
    qn_gpu_tuning *tuning = NULL;
    qn_error err = {0};
    if (qn_gpu_tuning_parse(&tuning, qn_str_of(text), "t.csv", &err) < 0) {
        fail_msg("%s", err.text);
    }
    return tuning;
}

/* Rows between take the next that is not below; above the last it says nothing of products. */
static void test_gpu_tuning_finds_the_nearest_rows(void **state)
{
    (void)state;
    qn_gpu_tuning *t = parse(table);
    const qn_gpu_tuning_key key = {QN_GPU_TUNED_MATMUL, QN_GPU_W_BF16, 256, 512, 0, 1};
    const uint32_t cases[][2] = {{1, 1}, {2, 8}, {8, 8}, {9, 64}, {64, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(qn_gpu_tuning_find(t, &key, cases[i][0])->n_rows, cases[i][1]);
    }
    assert_null(qn_gpu_tuning_find(t, &key, 65));
    qn_gpu_tuning_key other = key;
    other.kind = QN_GPU_W_FP8;
    assert_null(qn_gpu_tuning_find(t, &other, 1));
    other = key;
    other.n_groups = 2;
    assert_null(qn_gpu_tuning_find(t, &other, 1));
    assert_null(qn_gpu_tuning_find(NULL, &key, 1));
    const qn_gpu_tuning_row *row = qn_gpu_tuning_find(t, &key, 8);
    assert_int_equal(row->n_strips, 4);
    assert_int_equal(row->n_splits, 3);
    assert_int_equal(row->line, 3);
    assert_true(row->us == 7.5F);
    assert_int_equal(qn_gpu_tuning_find(t, &key, 64)->i_variant, UINT32_MAX);
    assert_false(qn_gpu_tuning_is_untuned(t));
    qn_gpu_tuning_close(&t);
    assert_null(t);
}

static void assert_contains(const char *text, const char *part)
{
    if (part != NULL && strstr(text, part) == NULL) {
        fail_msg("%s: no %s", text, part);
    }
}

static void test_gpu_tuning_names_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected[3];
    } cases[] = {
        {"", {"line 0", "op,kind"}},
        {"op,kind\n", {"line 1", "fields"}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,0,0\n", {"line 2", "fields"}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,0,0,1,1\n", {"line 2", "0,0,1,1"}},
        {HEAD "gemm,bf16,1,1,0,1,1,plain,0,0,1\n", {"line 2", "op \"gemm\"", "moe"}},
        {HEAD "matmul,int4,1,1,0,1,1,plain,0,0,1\n", {"kind \"int4\"", "mxfp4"}},
        {HEAD "attend,mxfp4,1,1,0,1,1,portable,0,0,1\n", {"kind \"mxfp4\"", "bf16 or fp8"}},
        {HEAD "matmul,bf16,0,1,0,1,1,plain,0,0,1\n", {"n_out \"0\""}},
        {HEAD "matmul,bf16,1,-1,0,1,1,plain,0,0,1\n", {"n_in \"-1\""}},
        {HEAD "matmul,bf16,1,1,2,1,1,plain,0,0,1\n", {"pair \"2\""}},
        {HEAD "matmul,bf16,1,1,0,,1,plain,0,0,1\n", {"groups \"\""}},
        {HEAD "matmul,bf16,1,1,0,1,3,plain,0,0,1\n", {"rows \"3\"", "power of two"}},
        {HEAD "matmul,bf16,1,1,0,1,1,,0,0,1\n", {"variant \"\""}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,3,1,1\n", {"strips \"3\""}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,2,0,1\n", {"splits \"0\""}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,0,17,1\n", {"splits \"17\""}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,0,0,nan\n", {"us \"nan\""}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,0,0,0\n", {"us \"0\""}},
        {HEAD "matmul,bf16,1,1,0,1,1,plain,0,0,1\nmatmul,bf16,1,1,0,1,1,plain,0,0,1\n",
         {"line 3", "rows \"1\"", "once"}},
        {HEAD "index,bf16,1,1,0,1,1,portable,0,0,1\nindex,bf16,1,1,0,1,2,sm90_mma,0,0,1\n",
         {"line 3", "one variant"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_gpu_tuning *t = NULL;
        qn_error err = {0};
        const qn_str text = qn_str_of(cases[i].text);
        assert_int_equal(qn_gpu_tuning_parse(&t, text, "t.csv", &err), QN_E_FORMAT);
        assert_null(t);
        assert_contains(err.text, "t.csv");
        for (size_t k = 0; k < 3; k++) {
            assert_contains(err.text, cases[i].expected[k]);
        }
    }
}

static qn_status parse_table(qn_error *err)
{
    qn_gpu_tuning *t = NULL;
    const qn_status status = qn_gpu_tuning_parse(&t, qn_str_of(table), "t.csv", err);
    qn_gpu_tuning_close(&t);
    return status;
}

static void test_gpu_tuning_survives_without_memory(void **state)
{
    (void)state;
    fail_each(parse_table, 1, 2);
}

/* ------------------------------------------------------------------------------------ files -- */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* A file has to be of the device; a folder need not have it, and then the library may. */
static void test_gpu_tuning_is_the_devices(void **state)
{
    (void)state;
    const qn_gpu_info h100 = {.name = "NVIDIA H100 80GB HBM3", .arch = "sm_90"};
    const qn_gpu_info other = {.name = "NVIDIA L4", .arch = "sm_89"};
    const qn_gpu_info mi355 = {.name = "AMD Instinct MI355X", .arch = "gfx950"};
    char folder[] = "/tmp/qn_tuning_XXXXXX";
    qn_gpu_tuning *t = NULL;
    qn_error err = {0};
    assert_non_null(mkdtemp(folder));
    char *const path = qn_path_join(folder, "NVIDIA_H100_80GB_HBM3.csv");
    write_file(path, table);
    assert_int_equal(qn_gpu_tuning_load(&t, folder, &h100, &err), QN_OK);
    assert_string_equal(qn_gpu_tuning_name(t), path);
    qn_gpu_tuning_close(&t);
    assert_int_equal(qn_gpu_tuning_load(&t, path, &h100, &err), QN_OK);
    qn_gpu_tuning_close(&t);
    assert_int_equal(qn_gpu_tuning_load(&t, path, &other, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "NVIDIA L4"));
    assert_int_equal(qn_gpu_tuning_load(&t, folder, &other, &err), QN_OK);
    assert_null(t);
    assert_int_equal(qn_gpu_tuning_load(&t, folder, &mi355, &err), QN_OK);
    assert_string_equal(qn_gpu_tuning_name(t), "built in: gfx950.csv");
    assert_true(qn_gpu_tuning_is_untuned(t));
    qn_gpu_tuning_close(&t);
    write_file(path, HEAD "bad\n");
    assert_int_equal(qn_gpu_tuning_load(&t, folder, &h100, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "HBM3.csv: line 2"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(qn_gpu_tuning_load(&t, path, &h100, &err), QN_E_NOT_FOUND);
    assert_int_equal(rmdir(folder), 0);
    free(path);
}

/* What is built in can be read, is of the device that its name says, and knows all it names. */
static void test_gpu_tuning_built_in(void **state)
{
    (void)state;
    size_t n_tables = 0;
    for (const qn_gpu_tuning_shipped *at = qn_gpu_tunings_shipped; at->file != NULL; at++) {
        qn_gpu_info device = {0};
        (void)snprintf(device.name, sizeof device.name, "%.*s", (int)strcspn(at->file, "."),
                       at->file);
        for (char *c = device.name; *c != '\0'; c++) {
            *c = *c == '_' ? ' ' : *c;
        }
        qn_gpu_tuning *t = parse(at->text);
        char line[96];
        (void)snprintf(line, sizeof line, "# device: %s\n", device.name);
        assert_non_null(strstr(at->text, line));
        uint32_t n = 0;
        const qn_gpu_tuning_row *rows = qn_gpu_tuning_rows(t, &n);
        assert_true((n == 0) == qn_gpu_tuning_is_untuned(t));
        for (uint32_t i = 0; i < n; i++) {
            assert_int_not_equal(rows[i].i_variant, UINT32_MAX);
        }
        qn_gpu_tuning_close(&t);
        n_tables++;
    }
    assert_true(n_tables >= 2);
}

/* ---------------------------------------------------------------------------------- choices -- */

static bool has_portable(const char *symbol)
{
    return strstr(symbol, "mma") == NULL && strstr(symbol, "few") == NULL;
}

/* A device with all kernels, or with the portable ones. */
static qn_gpu_kernels *open_kernels(qn_gpu **gpu, bool is_portable)
{
    return fake_open_kernels(gpu, is_portable ? has_portable : NULL);
}

static void close_kernels(qn_gpu *gpu, qn_gpu_kernels *kernels)
{
    qn_gpu_kernels_close(&kernels);
    qn_gpu_close(&gpu);
    assert_string_equal(fake_gpu_problem(), "");
}

static qn_gpu_choice choose(const qn_gpu_kernels *kernels, uint32_t n_rows, bool is_deterministic)
{
    return qn_gpu_matmul_choose(kernels,
                                &(qn_gpu_matmul_shape){.kind = QN_GPU_W_BF16,
                                                       .n_out = 256,
                                                       .n_in = 512,
                                                       .n_groups = 1,
                                                       .n_rows = n_rows,
                                                       .is_deterministic = is_deterministic});
}

static void assert_choice(qn_gpu_choice c, const char *name, qn_gpu_source source)
{
    assert_string_equal(qn_gpu_matmul_variants[c.i_variant].name, name);
    assert_int_equal(c.source, source);
}

static void test_gpu_tuning_decides_where_it_has_the_shape(void **state)
{
    (void)state;
    qn_gpu *gpu = NULL;
    qn_gpu_kernels *kernels = open_kernels(&gpu, false);
    assert_choice(choose(kernels, 1, false), "sm90_few", QN_GPU_DEFAULT);
    qn_gpu_kernels_tune(kernels, parse(table));
    /* The portable one is a fallback, measured or not. */
    assert_choice(choose(kernels, 1, false), "plain", QN_GPU_FALLBACK);
    const qn_gpu_choice c = choose(kernels, 5, false);
    assert_choice(c, "sm90_mma", QN_GPU_TUNED);
    assert_int_equal(c.n_strips, 4);
    assert_int_equal(c.n_splits, 3);
    /* The table's variant is not there: a rule takes its place, and that is told. */
    assert_int_equal(choose(kernels, 64, false).source, QN_GPU_FALLBACK);
    /* One for all rows. */
    for (uint32_t n_rows = 1; n_rows < 5000; n_rows *= 3) {
        const qn_gpu_choice same = choose(kernels, n_rows, true);
        assert_memory_equal(&same, &c, sizeof c);
    }
    qn_gpu_kernels_tune(kernels, NULL);
    assert_choice(choose(kernels, 1, false), "sm90_few", QN_GPU_DEFAULT);
    assert_choice(choose(kernels, 1, true), "sm90_mma", QN_GPU_DEFAULT);
    assert_choice(choose(kernels, 64, false), "sm90_few", QN_GPU_DEFAULT);
    assert_choice(choose(kernels, 65, false), "sm90_wgmma", QN_GPU_DEFAULT);
    close_kernels(gpu, kernels);
}

/* A row that names what has no fixed order of sums is no fault of who wants one. */
static void test_gpu_tuning_has_another_choice_where_sums_are_fixed(void **state)
{
    (void)state;
    qn_gpu *gpu = NULL;
    qn_gpu_kernels *kernels = open_kernels(&gpu, false);
    qn_gpu_kernels_tune(kernels, parse(HEAD "matmul,bf16,256,512,0,1,8,sm90_few,0,0,7\n"
                                            "matmul,bf16,256,512,0,1,128,sm90_few,0,0,7\n"));
    assert_choice(choose(kernels, 8, false), "sm90_few", QN_GPU_TUNED);
    assert_choice(choose(kernels, 8, true), "sm90_mma", QN_GPU_DEFAULT);
    assert_choice(choose(kernels, 100, true), "sm90_mma", QN_GPU_DEFAULT);
    assert_choice(choose(kernels, 100, false), "sm90_wgmma", QN_GPU_FALLBACK); /* too many rows */
    close_kernels(gpu, kernels);
}

/* One product by what is chosen: is its launch a dependent one? */
static bool is_dependent(qn_gpu *gpu, const qn_gpu_kernels *kernels, bool is_grouped)
{
    static const uint32_t none[1];
    qn_gpu_stream *stream = NULL;
    qn_error err = {0};
    assert_int_equal(qn_gpu_stream_open(&stream, gpu, &err), QN_OK);
    qn_gpu_matmul_args args = {.w = {.kind = QN_GPU_W_BF16, .n_out = 256, .n_in = 512},
                               .partial = (float *)(uintptr_t)none,
                               .n_groups = 1,
                               .n_rows = 4};
    if (is_grouped) {
        args.first_of = args.active = args.n_active = none;
    }
    qn_gpu_matmul(&(qn_gpu_ops){kernels, stream}, &args, false);
    const char *const call = strstr(fake_gpu_calls(), "launch ");
    assert_non_null(call);
    const bool is_it = strstr(call, " dependent\n") != NULL;
    qn_gpu_stream_close(&stream);
    return is_it;
}

static void test_gpu_tuning_makes_launches_dependent(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        qn_gpu *gpu = NULL;
        qn_gpu_kernels *kernels = open_kernels(&gpu, false);
        const char *const name = i > 0 ? "sm90_mma/early" : "sm90_mma";
        char text[256];
        (void)snprintf(text, sizeof text,
                       HEAD "matmul,bf16,256,512,0,1,8,%s,4,3,7\nmoe,bf16,256,512,0,1,8,%s,4,3,7\n",
                       name, name);
        qn_gpu_kernels_tune(kernels, parse(text));
        assert_choice(choose(kernels, 4, false), name, QN_GPU_TUNED);
        /* Which weights experts need is not known early, whatever the table says. */
        assert_int_equal(is_dependent(gpu, kernels, i == 2), i == 1);
        close_kernels(gpu, kernels);
    }
}

static void test_gpu_tuning_tells_of_fallbacks(void **state)
{
    (void)state;
    qn_gpu *gpu = NULL;
    qn_gpu_kernels *kernels = open_kernels(&gpu, true);
    assert_choice(choose(kernels, 8, false), "plain", QN_GPU_FALLBACK);
    qn_gpu_kernels_tune(kernels, parse(table));
    assert_choice(choose(kernels, 8, false), "plain", QN_GPU_FALLBACK);
    assert_choice(choose(kernels, 1, false), "plain", QN_GPU_FALLBACK);
    const qn_gpu_index_scores_args index = {
        .keys = {.latent_dim = 128, .row_bytes = 256}, .n_heads = 32, .n_rows = 4};
    assert_int_equal(qn_gpu_index_scores_choose(kernels, &index).source, QN_GPU_FALLBACK);
    const qn_gpu_attend_args attend = {
        .kv = {.latent_dim = 512, .rope_dim = 64, .row_bytes = 1152}, .n_heads = 64, .n_rows = 4};
    assert_int_equal(qn_gpu_attend_choose(kernels, &attend).source, QN_GPU_FALLBACK);
    close_kernels(gpu, kernels);
}

/* Room for partial sums is that of the worst number of rows up to the one that is asked for. */
static void test_gpu_tuning_room_is_enough_for_fewer_rows(void **state)
{
    (void)state;
    qn_gpu *gpu = NULL;
    qn_gpu_kernels *kernels = open_kernels(&gpu, false);
    qn_gpu_kernels_tune(kernels, parse(table));
    qn_gpu_attend_args args = {
        .kv = {.latent_dim = 512, .rope_dim = 64, .row_bytes = 1152}, .n_heads = 64, .n_splits = 8};
    uint64_t before = 0;
    for (uint32_t n = 1; n <= 512; n *= 2) {
        args.n_rows = n;
        const qn_gpu_choice c = qn_gpu_attend_choose(kernels, &args);
        assert_int_equal(c.source, QN_GPU_TUNED);
        assert_string_equal(qn_gpu_attend_variants[c.i_variant].name,
                            n == 1 ? "sm90_mma64/splits" : "sm90_mma64/whole");
        const uint64_t now = qn_gpu_attend_partial_floats(kernels, &args);
        assert_true(now >= before && now <= (uint64_t)n * 8 * 64 * 512);
        before = now;
    }
    qn_gpu_matmul_shape shape = {
        .kind = QN_GPU_W_BF16, .n_out = 256, .n_in = 512, .n_groups = 1, .n_rows = 8};
    const uint64_t few = qn_gpu_matmul_partial_bytes(kernels, &shape);
    assert_true(few >= QN_GPU_COUNTERS_BYTES + sizeof(float) * 3 * 8 * 256);
    shape.n_rows = 64;
    assert_true(qn_gpu_matmul_partial_bytes(kernels, &shape) >= few);
    close_kernels(gpu, kernels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpu_tuning_finds_the_nearest_rows),
        cmocka_unit_test(test_gpu_tuning_names_what_is_wrong),
        cmocka_unit_test(test_gpu_tuning_survives_without_memory),
        cmocka_unit_test(test_gpu_tuning_is_the_devices),
        cmocka_unit_test(test_gpu_tuning_built_in),
        cmocka_unit_test(test_gpu_tuning_decides_where_it_has_the_shape),
        cmocka_unit_test(test_gpu_tuning_has_another_choice_where_sums_are_fixed),
        cmocka_unit_test(test_gpu_tuning_makes_launches_dependent),
        cmocka_unit_test(test_gpu_tuning_tells_of_fallbacks),
        cmocka_unit_test(test_gpu_tuning_room_is_enough_for_fewer_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
