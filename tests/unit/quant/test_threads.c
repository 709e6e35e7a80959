/* SPDX-License-Identifier: Apache-2.0 */
/* Threads change no byte; with ThreadSanitizer: nor do they meet. */
#include "quant/quantize.h"
#include "source.h"
#include "support/unit.h"

static bool go_on(void *context, uint64_t done, uint64_t total)
{
    *(uint64_t *)context += done <= total ? 1 : 0;
    return true;
}

/* What a run with so many threads writes; owned by the caller. */
static char *quantize(const char *source, uint32_t n_threads, bool deletes)
{
    uint64_t n_calls = 0;
    char *report = NULL;
    char *const target = source_make_folder();
    qn_error err = {0};
    qn_kernels kernels;
    const qn_quantize_options options = {
        .n_threads = n_threads,
        .progress = go_on,
        .progress_context = &n_calls,
        .deletes_source = deletes,
    };
    qn_kernels_init(&kernels, 0);
    assert_int_equal(qn_quant_run(&report, source, target, &options, &kernels, &err), QN_OK);
    assert_true(n_calls > 0);
    char *const found = source_contents(target);
    source_remove(target);
    free(target);
    free(report);
    return found;
}

static void threads_change_no_byte(void **state)
{
    (void)state;
    static const uint32_t counts[] = {2, 5, 5};
    char *const source = source_make_folder();
    source_write(source);
    char *const expected = quantize(source, 1, false);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char *const found = quantize(source, counts[i], i == 2);
        assert_string_equal(found, expected);
        free(found);
    }
    free(expected);
    source_remove(source);
    free(source);
}

/* Flip a byte of the output. */
static void damage(const char *target, const char *name)
{
    char *const path = qn_path_join(target, name);
    FILE *const file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
    free(path);
}

static bool note_done(void *context, uint64_t done, uint64_t total)
{
    uint64_t *const most = context;
    assert_true(done <= total);
    *most = done > *most ? done : *most;
    return true;
}

static bool stop(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    (void)total;
    return done == 0;
}

static void what_is_done_is_checked_by_all_threads(void **state)
{
    (void)state;
    char *const source = source_make_folder();
    char *const target = source_make_folder();
    char *report = NULL;
    uint64_t most = 0;
    qn_error err = {0};
    qn_kernels kernels;
    qn_quantize_options options = {.n_threads = 3, .deletes_source = true, .resumes = true};
    qn_kernels_init(&kernels, 0);
    source_write(source);
    assert_int_equal(qn_quant_run(&report, source, target, &options, &kernels, &err), QN_OK);
    free(report);
    options.n_threads = 1; /* the first of several need not get to any */
    options.progress = note_done;
    options.progress_context = &most;
    assert_int_equal(qn_quant_run(&report, source, target, &options, &kernels, &err), QN_OK);
    assert_non_null(strstr(report, "\"resumed_shards\":2"));
    assert_true(most > 0); /* while it reads them */
    free(report);
    options.progress = stop;
    assert_int_equal(qn_quant_run(&report, source, target, &options, &kernels, &err),
                     QN_E_CANCELLED);
    assert_non_null(strstr(err.text, "interrupted"));
    options.progress = NULL;
    options.n_threads = 3;
    damage(target, "b.safetensors");
    damage(target, "a.safetensors");
    assert_int_equal(qn_quant_run(&report, source, target, &options, &kernels, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "a.safetensors")); /* the first of them, whoever is faster */
    source_remove(source);
    source_remove(target);
    free(source);
    free(target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_change_no_byte),
        cmocka_unit_test(what_is_done_is_checked_by_all_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
