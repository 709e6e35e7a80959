/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "support/unit.h"

#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

static void test_buf_holds_what_was_appended(void **state)
{
    (void)state;
    qn_buf buf;
    qn_error err = {0};
    qn_buf_init(&buf, 100000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(qn_buf_append(&buf, "ab", 2, &err), QN_OK);
        assert_int_equal(qn_buf_append_printf(&buf, &err, "%03d", i), QN_OK);
    }
    assert_int_equal(buf.len, 5000);
    assert_memory_equal(buf.ptr + 4990, "ab998ab999\0", 11);
    qn_buf_clear(&buf);
    assert_int_equal(qn_buf_view(&buf).len, 0);
    qn_buf_deinit(&buf);
    assert_null(buf.ptr);
    assert_int_equal(buf.bytes_max, 100000);
}

static void test_buf_beyond_its_maximum_keeps_its_contents(void **state)
{
    (void)state;
    qn_buf buf;
    qn_error err = {0};
    qn_buf_init(&buf, 5);
    assert_int_equal(qn_buf_append(&buf, "1234", 4, &err), QN_OK);
    assert_int_equal(qn_buf_append(&buf, "56", 2, &err), QN_E_NOMEM);
    assert_string_equal(err.text, "buffer: 4 + 2 bytes, at most 5 expected");
    assert_int_equal(qn_buf_append_printf(&buf, &err, "%d", 56), QN_E_NOMEM);
    assert_string_equal(buf.ptr, "1234");
    assert_int_equal(qn_buf_append(&buf, "5", 1, &err), QN_OK);
    assert_int_equal(qn_buf_reserve(&buf, SIZE_MAX, &err), QN_E_NOMEM);
    assert_string_equal(buf.ptr, "12345");
    qn_buf_deinit(&buf);
}

static void test_arena_gives_aligned_memory_until_spent(void **state)
{
    (void)state;
    _Alignas(64) static uint8_t block[1024];
    qn_arena arena;
    qn_arena_init(&arena, NULL, SIZE_MAX);
    assert_null(qn_arena_alloc(&arena, 3, 1));
    assert_null(qn_arena_alloc(&arena, 64, 64));
    const size_t measured_bytes = arena.used_bytes;
    qn_arena_deinit(&arena);
    qn_arena_init(&arena, block, sizeof block);
    uint8_t *const first = qn_arena_alloc(&arena, 3, 1);
    uint8_t *const second = qn_arena_alloc(&arena, 64, 64);
    assert_non_null(first);
    assert_non_null(second);
    assert_int_equal((uintptr_t)second % 64, 0);
    assert_int_equal(arena.used_bytes, measured_bytes);
    assert_null(qn_arena_alloc(&arena, sizeof block, 1));
    assert_null(qn_arena_alloc(&arena, SIZE_MAX, 8));
    const size_t used_bytes = arena.used_bytes;
    qn_arena_reset(&arena);
    assert_int_equal(arena.used_bytes, 0);
    assert_int_equal(arena.used_bytes_max, used_bytes);
    assert_non_null(qn_arena_alloc(&arena, sizeof block - qn_arena_redzone_bytes, 1));
    qn_arena_deinit(&arena);
    block[1023] = 1; /* plain memory again */
}

static void test_arena_bytes_around_an_allocation_are_poisoned(void **state)
{
#ifdef __SANITIZE_ADDRESS__
    (void)state;
    static uint8_t block[1024];
    qn_arena arena;
    qn_arena_init(&arena, block, sizeof block);
    uint8_t *const first = qn_arena_alloc(&arena, 16, 8);
    uint8_t *const second = qn_arena_alloc(&arena, 16, 8);
    assert_false(__asan_address_is_poisoned(first + 15));
    assert_true(__asan_address_is_poisoned(first + 16));
    assert_true(__asan_address_is_poisoned(second - 1));
    assert_true(__asan_address_is_poisoned(second + 16));
    qn_arena_reset(&arena);
    assert_true(__asan_address_is_poisoned(first));
    qn_arena_deinit(&arena);
    assert_false(__asan_address_is_poisoned(block));
#else
    (void)state;
    skip();
#endif
}

/* A file with @p text; the caller unlinks @p path (a template). */
static void make_file(char *path, const char *text)
{
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

static void test_file_is_read_whole_behind_what_was_there(void **state)
{
    (void)state;
    char path[] = "/tmp/quern-test-XXXXXX";
    make_file(path, "contents");
    qn_buf buf;
    qn_error err = {0};
    qn_buf_init(&buf, 10);
    assert_int_equal(qn_buf_append(&buf, "> ", 2, &err), QN_OK);
    assert_int_equal(qn_file_read(&buf, path, &err), QN_OK);
    assert_string_equal(buf.ptr, "> contents");
    assert_int_equal(unlink(path), 0);
    qn_buf_deinit(&buf);
}

static void test_file_errors_name_the_path_and_keep_the_buffer(void **state)
{
    (void)state;
    char path[] = "/tmp/quern-test-XXXXXX";
    make_file(path, "contents");
    qn_buf buf;
    qn_error err = {0};
    qn_buf_init(&buf, 7);
    assert_int_equal(qn_file_read(&buf, path, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "longer than 7 bytes"));
    assert_int_equal(buf.len, 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(qn_file_read(&buf, path, &err), QN_E_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(qn_file_read(&buf, "/tmp", &err), QN_E_FORMAT);
    assert_string_equal(err.text, "/tmp: a folder, a regular file expected");
    assert_int_equal(qn_file_read(&buf, "/dev/zero", &err), QN_E_FORMAT);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes to it: nobody may wait */
    assert_int_equal(qn_file_read(&buf, path, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "a pipe, a regular file expected"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(path, path), 0);
    assert_int_equal(qn_file_read(&buf, path, &err), QN_E_FORMAT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(buf.len, 0);
    qn_buf_deinit(&buf);
}

static void test_path_ends_in_a_name_after_its_parent(void **state)
{
    (void)state;
    const char *const rows[][3] = {
        {"x", ".", "x"}, {"/x", "/", "x"},        {"a/x", "a", "x"},
        {"", ".", ""},   {"/a/b/x", "/a/b", "x"}, {"a/", "a", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *name = NULL;
        assert_true(qn_str_equal(qn_path_parent(rows[i][0], &name), qn_str_of(rows[i][1])));
        assert_string_equal(name, rows[i][2]);
        assert_true(qn_str_equal(qn_path_parent(rows[i][0], NULL), qn_str_of(rows[i][1])));
    }
}

static void test_a_number_is_json_in_any_locale(void **state)
{
    (void)state;
    qn_buf buf;
    qn_buf_init(&buf, 200);
    (void)setlocale(LC_NUMERIC,
                    "de_DE.UTF-8"); /* where there is none, the first digits tell less */
    assert_int_equal(qn_buf_append_real(&buf, 0.25, 17, NULL), QN_OK);
    (void)setlocale(LC_NUMERIC, "C");
    assert_int_equal(qn_buf_append(&buf, " ", 1, NULL), QN_OK);
    assert_int_equal(qn_buf_append_real(&buf, -1234567.891, 3, NULL), QN_OK);
    assert_int_equal(qn_buf_append(&buf, " ", 1, NULL), QN_OK);
    assert_int_equal(qn_buf_append_real(&buf, (double)INFINITY, 3, NULL), QN_OK);
    assert_int_equal(qn_buf_append(&buf, " ", 1, NULL), QN_OK);
    assert_int_equal(qn_buf_append_real(&buf, (double)NAN, 3, NULL), QN_OK);
    assert_string_equal(buf.ptr, "0.25 -1.23e+06 null null");
    qn_buf_deinit(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_holds_what_was_appended),
        cmocka_unit_test(test_buf_beyond_its_maximum_keeps_its_contents),
        cmocka_unit_test(test_arena_gives_aligned_memory_until_spent),
        cmocka_unit_test(test_arena_bytes_around_an_allocation_are_poisoned),
        cmocka_unit_test(test_file_is_read_whole_behind_what_was_there),
        cmocka_unit_test(test_file_errors_name_the_path_and_keep_the_buffer),
        cmocka_unit_test(test_path_ends_in_a_name_after_its_parent),
        cmocka_unit_test(test_a_number_is_json_in_any_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
