/* SPDX-License-Identifier: Apache-2.0 */
/* The whole job on a small checkpoint, each call into the system and each allocation failing. */
#include "quant/piece.h"
#include "quant/quantize.h"
#include "source.h"
#include "support/fail_each.h"
#include "support/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

/* ------------------------------------------------------------- calls that fail when told to -- */

static size_t g_calls_left = SIZE_MAX; /* the n-th from now fails */
static int g_call_errno;
static size_t g_n_calls_failed;

#ifndef QN_CANNOT_FAIL_ALLOCATIONS
static bool call_fails(void)
{
    if (g_calls_left == SIZE_MAX || g_calls_left-- > 0) {
        return false;
    }
    g_calls_left = SIZE_MAX;
    g_n_calls_failed++;
    errno = g_call_errno;
    return true;
}

/* These stand before libc's.  Nothing waits for the disk here. */
#define FAKE(result, name, parameters, arguments)                                                  \
    QN_EVERYWHERE result name parameters; /* NOLINT */                                             \
    QN_EVERYWHERE result name parameters  /* NOLINT */                                             \
    {                                                                                              \
        static result(*next) parameters; /* NOLINT */                                              \
        if (next == NULL) {                                                                        \
            next_symbol(#name, &next, sizeof next);                                                \
        }                                                                                          \
        return call_fails() ? -1 : next arguments;                                                 \
    }

FAKE(ssize_t, pread, (int fd, void *bytes, size_t n, off_t at), (fd, bytes, n, at))
FAKE(ssize_t, pwrite, (int fd, const void *bytes, size_t n, off_t at), (fd, bytes, n, at))
FAKE(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
FAKE(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
FAKE(int, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
FAKE(int, mkdir, (const char *path, mode_t mode), (path, mode))
FAKE(int, unlink, (const char *path), (path))
FAKE(int, openat, (int fd, const char *path, int flags, ...), (fd, path, flags, 0666))

QN_EVERYWHERE struct dirent *readdir(DIR *folder); /* NOLINT */
QN_EVERYWHERE struct dirent *readdir(DIR *folder)  /* NOLINT */
{
    static struct dirent *(*next)(DIR *);
    if (next == NULL) {
        next_symbol("readdir", &next, sizeof next);
    }
    return call_fails() ? NULL : next(folder);
}

/* Beside failing, something may happen before it looks, or behind. */
static void (*g_at_stat)(const char *path, bool is_before);

QN_EVERYWHERE int stat(const char *path, struct stat *info); /* NOLINT */
QN_EVERYWHERE int stat(const char *path, struct stat *info)  /* NOLINT */
{
    static int (*next)(const char *, struct stat *);
    if (next == NULL) {
        next_symbol("stat", &next, sizeof next);
    }
    if (g_at_stat != NULL) {
        g_at_stat(path, true);
    }
    const int result = call_fails() ? -1 : next(path, info);
    if (g_at_stat != NULL) {
        g_at_stat(path, false);
    }
    return result;
}

QN_EVERYWHERE int fdatasync(int fd); /* NOLINT */
QN_EVERYWHERE int fdatasync(int fd)  /* NOLINT */
{
    (void)fd;
    return call_fails() ? -1 : 0;
}

QN_EVERYWHERE int fsync(int fd); /* NOLINT */
QN_EVERYWHERE int fsync(int fd)  /* NOLINT */
{
    (void)fd;
    return call_fails() ? -1 : 0;
}
#endif

/* ------------------------------------------------------------------------------- the source -- */

static char *g_source; /* folder of two shards, one with FP8 whose scale is in the other */
static char *g_single; /* folder of one shard */
static char *g_target; /* not there yet */
static qn_kernels g_kernels;

static int set_up(void **state)
{
    (void)state;
    qn_kernels_init(&g_kernels, 0);
    g_source = source_make_folder();
    g_single = source_make_folder();
    g_target = source_make_folder();
    source_write(g_source);
    source_write_single(g_single);
    source_remove(g_target);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    source_remove(g_source);
    source_remove(g_single);
    source_remove(g_target);
    free(g_source);
    free(g_single);
    free(g_target);
    return 0;
}

static qn_status quantize(const qn_quantize_options *options, qn_error *err)
{
    char *report = NULL;
    const qn_status status = qn_quant_run(&report, g_source, g_target, options, &g_kernels, err);
    assert_int_equal(report != NULL, status == QN_OK);
    free(report);
    return status;
}

static size_t count_parts(void)
{
    size_t n = 0;
    DIR *const folder = opendir(g_target);
    for (const struct dirent *item = NULL; folder != NULL && (item = readdir(folder)) != NULL;) {
        n += strstr(item->d_name, ".quern-part") != NULL ? 1 : 0;
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return n;
}

/* ------------------------------------------------------------------------------------ tests -- */

/* The output without its manifest, which knows when the source was written; the caller's. */
static char *weights(void)
{
    char *const all = source_contents(g_target);
    char *const manifest = strstr(all, QN_MANIFEST_NAME);
    const char *const rest = strchr(manifest, '\n') + 1;
    memmove(manifest, rest, strlen(rest) + 1);
    return all;
}

static bool has_source(void)
{
    char *const path = qn_path_join(g_source, "a.safetensors");
    const bool is_there = access(path, F_OK) == 0;
    free(path);
    return is_there;
}

/* Fail one call after the other, and go on after each; how many there were. */
static size_t fail_calls(const qn_quantize_options *plain, int reason, const char *expected)
{
    qn_quantize_options resume = *plain;
    qn_error err = {0};
    resume.resumes = true;
    for (size_t n = 0;; n++) {
        g_n_calls_failed = 0;
        g_call_errno = reason;
        g_calls_left = n;
        const qn_status status = quantize(plain, &err);
        g_calls_left = SIZE_MAX;
        assert_int_equal(status, g_n_calls_failed == 0 ? QN_OK : QN_E_IO);
        if (status < 0) {
            assert_non_null(strstr(err.text, strerror(reason)));
            assert_int_equal(count_parts(), 0);
            assert_int_equal(quantize(&resume, &err), QN_OK);
        }
        char *const found = weights();
        assert_string_equal(found, expected);
        free(found);
        assert_int_equal(has_source(), !plain->deletes_source);
        source_remove(g_target);
        if (plain->deletes_source) {
            source_remove(g_source);
            assert_int_equal(mkdir(g_source, 0777), 0);
            source_write(g_source);
        }
        if (status == QN_OK) {
            return n;
        }
    }
}

static void every_call_may_fail_and_the_run_goes_on(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    const qn_quantize_options plain = {.n_threads = 1};
    const qn_quantize_options deletes = {.n_threads = 1, .deletes_source = true};
    qn_error err = {0};
    assert_int_equal(quantize(&plain, &err), QN_OK);
    char *const expected = weights();
    source_remove(g_target);
    assert_true(fail_calls(&plain, EIO, expected) > 100);
    assert_true(fail_calls(&plain, ENOSPC, expected) > 100);
    assert_true(fail_calls(&deletes, EIO, expected) > 100);
    free(expected);
}

#ifndef QN_CANNOT_FAIL_ALLOCATIONS
static bool g_replaces_before;
static char *g_shard;

/* Another file takes the place of the shard when somebody looks at it for the first time. */
static void replace_shard(const char *path, bool is_before)
{
    static const source_tensor other[] = {
        {"model.layers.1.mlp.experts.0.up_proj.weight", "BF16", "[4,64]", 512},
    };
    if (strcmp(path, g_shard) == 0 && is_before == g_replaces_before) {
        g_at_stat = NULL;
        source_write_shard(g_source, "other", other, 1);
        char *const from = qn_path_join(g_source, "other");
        assert_int_equal(rename(from, g_shard), 0);
        free(from);
    }
}

/* A header and what the file is known by from then on have to be of one file. */
static void a_shard_replaced_while_it_is_planned_is_noticed(void **state)
{
    (void)state;
    const qn_quantize_options dry = {.n_threads = 1, .is_dry_run = true};
    char *report = NULL;
    qn_error err = {0};
    g_shard = qn_path_join(g_source, "a.safetensors");
    for (int i = 0; i < 2; i++) {
        g_replaces_before = i == 0;
        g_at_stat = replace_shard;
        const qn_status status = qn_quant_run(&report, g_source, g_target, &dry, &g_kernels, &err);
        assert_null(g_at_stat);
        if (g_replaces_before) { /* then it is the other one, whole */
            assert_int_equal(status, QN_OK);
            assert_non_null(strstr(report, "\"tensors\":2,\"quantized_tensors\":1,"));
            free(report);
        } else {
            assert_int_equal(status, QN_E_IO);
            assert_non_null(strstr(err.text, "another file"));
        }
        source_remove(g_source);
        assert_int_equal(mkdir(g_source, 0777), 0);
        source_write(g_source);
    }
    free(g_shard);
}
#endif

static qn_status quantize_for_failure(qn_error *err)
{
    char *report = NULL;
    const size_t left = g_allocations_left;
    g_allocations_left = SIZE_MAX; /* not for what is only the test's */
    source_remove(g_target);
    g_allocations_left = left;
    qn_quantize_options options = {.n_threads = 1, .fp8 = QN_FP8_KEEP};
    const qn_status status = qn_quant_run(&report, g_single, g_target, &options, &g_kernels, err);
    free(report);
    if (status < 0) { /* what was left is something to go on with */
        qn_error ignored = {0};
        g_allocations_left = SIZE_MAX;
        options.resumes = true;
        assert_int_equal(qn_quant_run(&report, g_single, g_target, &options, &g_kernels, &ignored),
                         QN_OK);
        free(report);
    }
    return status;
}

/* Of one shard, so that all is done by one thread. */
static void failing_allocations_are_errors(void **state)
{
    (void)state;
    fail_each(quantize_for_failure, 1, 150);
    source_remove(g_target);
}

static void pieces_tile_their_tensor(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0, 1, 31, 32, 33, 6144, 1 << 20};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const qn_plan_tensor scale = {.rank = 2, .shape = {8, lengths[i] / 128 + 1}};
        qn_plan_tensor tensor = {.rank = 2, .shape = {1000, lengths[i]}};
        for (int kind = 0; kind < 3; kind++) {
            tensor.action = kind == 0 ? QN_PLAN_COPY : QN_PLAN_ENCODE;
            tensor.dtype = kind == 2 ? QN_DTYPE_F8_E4M3 : QN_DTYPE_BF16;
            tensor.scale = kind == 2 ? &scale : NULL;
            tensor.size_bytes = 1000 * lengths[i] * qn_dtype_bytes(tensor.dtype);
            uint64_t n_bytes = 0;
            uint64_t next = 0;
            for (uint64_t k = 0; k < qn_piece_count(&tensor); k++) {
                const qn_piece piece = qn_piece_get(&tensor, k);
                assert_true(piece.first == next && piece.n > 0);
                next += piece.n;
                n_bytes += qn_piece_source_bytes(&piece);
            }
            /* Blocks are whole: others were refused before. */
            assert_true(n_bytes == tensor.size_bytes / (kind == 1 ? 64 : 1) * (kind == 1 ? 64 : 1));
        }
    }
}

static bool cancel(void *context, uint64_t done, uint64_t total)
{
    uint64_t *const n_calls = context;
    assert_true(done <= total);
    return ++*n_calls < 4;
}

static void who_cancels_leaves_nothing_half_done(void **state)
{
    (void)state;
    uint64_t n_calls = 0;
    qn_error err = {0};
    const qn_quantize_options options = {
        .n_threads = 1,
        .progress = cancel,
        .progress_context = &n_calls,
    };
    assert_int_equal(quantize(&options, &err), QN_E_CANCELLED);
    assert_int_equal(n_calls, 4);
    assert_int_equal(count_parts(), 0);
    assert_int_equal(access(g_target, F_OK), -1);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    qn_error err = {0};
    assert_int_equal(quantize(&(qn_quantize_options){.scale = (qn_scale_rule)7}, &err), QN_E_INVAL);
    assert_int_equal(quantize(&(qn_quantize_options){.fp8 = (qn_fp8_rest)7}, &err), QN_E_INVAL);
    assert_int_equal(access(g_target, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_may_fail_and_the_run_goes_on),
#ifndef QN_CANNOT_FAIL_ALLOCATIONS
        cmocka_unit_test(a_shard_replaced_while_it_is_planned_is_noticed),
#endif
        cmocka_unit_test(failing_allocations_are_errors),
        cmocka_unit_test(pieces_tile_their_tensor),
        cmocka_unit_test(who_cancels_leaves_nothing_half_done),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
