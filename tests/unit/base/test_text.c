/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/env.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "support/unit.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_error_text_is_one_printable_line(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        const char *clean;
    } cases[] = {
        {"plain \xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80",
         "plain \xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80"},
        {"a\nb\r\x1b[31m\x7f", "a?b??[31m?"},
        {"\xc2\x9b"
         "c1 \xc2\xa0",
         "?c1 \xc2\xa0"},
        {"bad \xff \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80", "bad ? ?? ??? ????"},
        {"cut \xe4\xbd", "cut ??"},
        {"cut \xf0\x9f\x98", "cut ???"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_error err = {0};
        assert_int_equal(qn_fail(&err, QN_E_FORMAT, 7, "here", "%s", cases[i].raw), QN_E_FORMAT);
        assert_string_equal(err.text, cases[i].clean);
        assert_int_equal(err.status, QN_E_FORMAT);
        assert_int_equal(err.sys, 7);
        assert_string_equal(err.where, "here");
    }
    assert_int_equal(qn_fail(NULL, QN_E_IO, 0, "here", "dropped"), QN_E_IO);
}

static void test_error_text_is_cut_between_characters(void **state)
{
    (void)state;
    qn_error err = {0};
    char text[1000];
    memset(text, 'x', sizeof text);
    memcpy(text + 597, "\xe4\xbd\xa0", 4);
    (void)qn_fail(&err, QN_E_IO, 0, "here", "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_string_equal(err.text + 596, "x??");
}

static void test_every_status_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(qn_status_name(QN_OK), "QN_OK");
    assert_string_equal(qn_status_name(QN_AGAIN), "QN_AGAIN");
    for (int status = QN_E_CANCELLED; status < 0; status++) {
        assert_string_not_equal(qn_status_name((qn_status)status), "QN_E_?");
    }
    assert_string_equal(qn_status_name((qn_status)-99), "QN_E_?");
}

static void test_slices_order_bytewise(void **state)
{
    (void)state;
    assert_true(qn_str_compare(qn_str_of("a"), qn_str_of("b")) < 0);
    assert_true(qn_str_compare(qn_str_of("ab"), qn_str_of("a")) > 0);
    assert_true(qn_str_compare(qn_str_of("a\xff"), qn_str_of("ab")) > 0);
    assert_int_equal(qn_str_compare((qn_str){0}, qn_str_of("")), 0);
    assert_true(qn_str_equal((qn_str){0}, qn_str_of("")));
    assert_false(qn_str_equal(qn_str_of("a"), qn_str_of("b")));
}

/* What @p body writes to stderr. */
static void capture(char *out, size_t out_bytes, void (*body)(void))
{
    FILE *const file = tmpfile();
    assert_non_null(file);
    (void)fflush(stderr);
    const int saved = dup(STDERR_FILENO);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    body();
    (void)fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    rewind(file);
    out[fread(out, 1, out_bytes - 1, file)] = '\0';
    (void)fclose(file);
}

static void log_as_text(void)
{
    qn_log_setup(QN_LOG_INFO, false);
    qn_log(QN_LOG_ERROR, "x: %d\n", 1);
    qn_log(QN_LOG_WARN, "careful");
    qn_log(QN_LOG_INFO, "plain");
    qn_log(QN_LOG_DEBUG, "dropped");
}

static void log_as_json(void)
{
    qn_log_setup(QN_LOG_DEBUG, true);
    qn_log(QN_LOG_DEBUG, "say \"a\\b\"\t\xff");
    qn_log_setup(QN_LOG_INFO, false);
}

static void test_log_lines_carry_their_level(void **state)
{
    (void)state;
    char seen[1000];
    capture(seen, sizeof seen, log_as_text);
    assert_string_equal(seen, "quern: error: x: 1?\nquern: warn: careful\nquern: plain\n");
    assert_true(qn_log_enabled(QN_LOG_INFO));
    assert_false(qn_log_enabled(QN_LOG_DEBUG));
}

static void test_log_lines_as_json_parse(void **state)
{
    (void)state;
    char seen[1000];
    json_t *line = NULL;
    qn_error err = {0};
    capture(seen, sizeof seen, log_as_json);
    assert_int_equal(qn_json_parse(&line, qn_str_of(seen), "log", &err), QN_OK);
    assert_string_equal(json_string_value(json_object_get(line, "level")), "debug");
    assert_string_equal(json_string_value(json_object_get(line, "msg")), "say \"a\\b\"??");
    assert_true(json_number_value(json_object_get(line, "ts")) > 1.7e9);
    json_decref(line);
}

static void fail_assertion(void)
{
    const pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        QN_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result));
    assert_int_equal(WTERMSIG(result), SIGABRT);
}

static void test_a_false_assertion_names_itself_and_aborts(void **state)
{
    (void)state;
    char seen[1000];
    capture(seen, sizeof seen, fail_assertion);
    assert_non_null(strstr(seen, "test_text.c:"));
    assert_non_null(strstr(seen, "assertion failed: 1 + 1 == 3"));
}

static void test_clocks_move_forward(void **state)
{
    (void)state;
    const uint64_t before = qn_clock_ns();
    assert_true(qn_clock_ns() >= before);
    assert_true(qn_clock_wall_ns() > 1700000000U * (uint64_t)1000000000U);
}

static void test_empty_environment_variable_is_unset(void **state)
{
    (void)state;
    assert_int_equal(setenv("QN_CPU_MASK", "avx2", 1), 0);
    assert_string_equal(qn_env_get(QN_ENV_CPU_MASK), "avx2");
    assert_int_equal(setenv("QN_CPU_MASK", "", 1), 0);
    assert_null(qn_env_get(QN_ENV_CPU_MASK));
    assert_int_equal(unsetenv("QN_CPU_MASK"), 0);
    assert_null(qn_env_get(QN_ENV_CPU_MASK));
}

static void test_cpu_mask_keeps_a_level_and_those_below(void **state)
{
    (void)state;
    uint32_t mask = 99;
    qn_error err = {0};
    assert_int_equal(qn_cpu_mask_parse(&mask, "ref", &err), QN_OK);
    assert_int_equal(mask, 0);
    assert_int_equal(qn_cpu_mask_parse(&mask, "avx512", &err), QN_OK);
    assert_int_equal(mask, QN_CPU_AVX2 | QN_CPU_AVXVNNI | QN_CPU_AVX512);
    assert_int_equal(qn_cpu_mask_parse(&mask, "amx", &err), QN_OK);
    assert_int_equal(mask,
                     QN_CPU_AVX2 | QN_CPU_AVXVNNI | QN_CPU_AVX512 | QN_CPU_AVX512BF16 | QN_CPU_AMX);
    assert_int_equal(qn_cpu_mask_parse(&mask, "sse9", &err), QN_E_INVAL);
    assert_string_equal(
        err.text,
        "--cpu-mask or QN_CPU_MASK: 'sse9', one of ref, avx2, avx512, avx512bf16, amx expected");
}

static void test_cpu_levels_are_nested_and_named(void **state)
{
    (void)state;
    uint32_t mask = 0;
    qn_error err = {0};
    const uint32_t flags = qn_cpu_flags();
    const uint32_t levels = flags & ~(uint32_t)QN_CPU_AVXVNNI;
    assert_int_equal(levels & (levels + 1), 0); /* ones from bit 0 on */
    assert_int_equal(qn_cpu_mask_parse(&mask, qn_cpu_level_name(flags), &err), QN_OK);
    assert_int_equal(mask & ~(uint32_t)QN_CPU_AVXVNNI, levels);
    assert_int_equal(flags & ~mask, 0);
    assert_string_equal(qn_cpu_level_name(0), "ref");
#ifdef __AVX2__
    assert_true((flags & QN_CPU_AVX2) != 0);
#endif
}

static void test_machine_has_a_name_cpus_and_memory(void **state)
{
    (void)state;
    char name[64];
    qn_cpu_model_name(name, sizeof name);
    assert_true(strlen(name) > 0);
    assert_true(qn_cpu_count() >= 1);
    assert_true(qn_cpu_ram_bytes() > 1 << 20);
}

static void write_text(const char *path, const char *text)
{
    FILE *const file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_limits_are_the_least_of_a_control_group_and_those_above(void **state)
{
    (void)state;
    char root[] = "/tmp/quern-test-XXXXXX";
    char paths[5][64];
    assert_non_null(mkdtemp(root));
    (void)snprintf(paths[0], sizeof paths[0], "%s/a", root);
    (void)snprintf(paths[1], sizeof paths[1], "%s/a/b", root);
    (void)snprintf(paths[2], sizeof paths[2], "%s/a/cpu.max", root);
    (void)snprintf(paths[3], sizeof paths[3], "%s/a/b/cpu.max", root);
    (void)snprintf(paths[4], sizeof paths[4], "%s/a/memory.max", root);
    assert_int_equal(mkdir(paths[0], 0700), 0);
    assert_int_equal(mkdir(paths[1], 0700), 0);
    assert_int_equal(qn_cpu_group_cpus(root, "/a/b"), UINT64_MAX); /* no such file */
    write_text(paths[3], "max 100000\n");
    assert_int_equal(qn_cpu_group_cpus(root, "/a/b"), UINT64_MAX);
    write_text(paths[2], "250000 100000\n");
    assert_int_equal(qn_cpu_group_cpus(root, "/a/b"), 3); /* 2.5 */
    assert_int_equal(qn_cpu_group_cpus(root, "/"), UINT64_MAX);
    write_text(paths[3], "50000 100000\n");
    assert_int_equal(qn_cpu_group_cpus(root, "/a/b"), 1);
    assert_int_equal(qn_cpu_group_cpus(root, "/a"), 3);
    assert_int_equal(qn_cpu_group_memory_bytes(root, "/a/b"), UINT64_MAX);
    write_text(paths[4], "12345678\n");
    assert_int_equal(qn_cpu_group_memory_bytes(root, "/a/b"), 12345678);
    write_text(paths[4], "max\n");
    assert_int_equal(qn_cpu_group_memory_bytes(root, "/a/b"), UINT64_MAX);
    write_text(paths[3], "0 0\n");
    assert_int_equal(qn_cpu_group_cpus(root, "/a/b/"), 3);
    assert_int_equal(unlink(paths[2]) | unlink(paths[3]) | unlink(paths[4]), 0);
    assert_int_equal(rmdir(paths[1]) | rmdir(paths[0]) | rmdir(root), 0);
}

static void test_a_date_has_milliseconds(void **state)
{
    (void)state;
    char iso[QN_CLOCK_ISO_BYTES];
    qn_clock_iso(iso, 1782907200123999999U);
    assert_string_equal(iso, "2026-07-01T12:00:00.123Z");
    qn_clock_iso(iso, UINT64_MAX);
    assert_string_equal(iso, "2554-07-21T23:34:33.709Z");
}

static void test_a_size_is_in_mb_below_one_gb(void **state)
{
    (void)state;
    assert_string_equal(qn_show_size(0).text, "0.0 MB");
    assert_string_equal(qn_show_size(60123456).text, "60.1 MB");
    assert_string_equal(qn_show_size(999999999).text, "1000.0 MB");
    assert_string_equal(qn_show_size(1000000000).text, "1.0 GB");
    assert_string_equal(qn_show_size(UINT64_MAX).text, "18446744073.7 GB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_date_has_milliseconds),
        cmocka_unit_test(test_a_size_is_in_mb_below_one_gb),
        cmocka_unit_test(test_error_text_is_one_printable_line),
        cmocka_unit_test(test_error_text_is_cut_between_characters),
        cmocka_unit_test(test_every_status_has_a_name),
        cmocka_unit_test(test_slices_order_bytewise),
        cmocka_unit_test(test_log_lines_carry_their_level),
        cmocka_unit_test(test_log_lines_as_json_parse),
        cmocka_unit_test(test_a_false_assertion_names_itself_and_aborts),
        cmocka_unit_test(test_clocks_move_forward),
        cmocka_unit_test(test_empty_environment_variable_is_unset),
        cmocka_unit_test(test_cpu_mask_keeps_a_level_and_those_below),
        cmocka_unit_test(test_cpu_levels_are_nested_and_named),
        cmocka_unit_test(test_machine_has_a_name_cpus_and_memory),
        cmocka_unit_test(test_limits_are_the_least_of_a_control_group_and_those_above),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
