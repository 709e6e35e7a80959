/* SPDX-License-Identifier: Apache-2.0 */
/* The report: what is appended is read again, half a line is cut off, another run's is refused. */
#include "base/file.h"
#include "eval/report.h"
#include "support/fail_each.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER "{\"quern_eval\": 1, \"model\": \"m\", \"limit\": 3}"

enum { N_PROBLEMS = 3, PATH_BYTES = 128 };

static char g_dir[] = "/tmp/qn-report-XXXXXX";
static char g_path[PATH_BYTES];
static qn_task_set g_set;

static int make_folder(void **state)
{
    static const char text[] =
        "{\"task\": \"t\", \"messages\": [{}], \"answer\": \"a\\n\\\"\"}\n"
        "{\"task\": \"u\", \"messages\": [{}], \"answer\": \"b\", \"id\": \"\\u00e4\\\"1\"}\n"
        "{\"task\": \"t\", \"messages\": [{}], \"answer\": \"c\", \"id\": 1e999}\n";
    (void)state;
    assert_non_null(mkdtemp(g_dir));
    (void)snprintf(g_path, sizeof g_path, "%s/report.jsonl", g_dir);
    return qn_task_set_add(&g_set, "tasks.jsonl", qn_str_of(text), 0, NULL);
}

static int remove_folder(void **state)
{
    (void)state;
    qn_task_set_deinit(&g_set);
    (void)unlink(g_path);
    return rmdir(g_dir);
}

static void write_file(const char *text)
{
    FILE *const file = fopen(g_path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static qn_buf read_report(void)
{
    qn_buf text;
    qn_buf_init(&text, 1 << 20);
    assert_int_equal(qn_file_read(&text, g_path, NULL), QN_OK);
    return text;
}

/* Two sides' answers with room for all; static, so that nothing is allocated. */
typedef struct room {
    qn_outcome outcomes[QN_SIDES_MAX][N_PROBLEMS];
    qn_answers answers;
} room;

static void room_init(room *r)
{
    memset(r, 0, sizeof *r);
    r->answers = (qn_answers){.set = &g_set,
                              .n_sides = 2,
                              .models = {"m", "n"},
                              .outcomes = {r->outcomes[0], r->outcomes[1]}};
}

static qn_status open_report(qn_report *report, room *r, bool resumes, qn_error *err)
{
    return qn_report_open(report, g_path, qn_str_of(HEADER), resumes, &r->answers, err);
}

static const qn_outcome an_outcome = {
    .n_prompt_tokens = 30,
    .n_tokens = 9007199254740992,
    .n_reasoning_tokens = 5,
    .n_steps = 3,
    .n_step_tokens = 7,
    .ids_hash = 0xfedcba9876543210,
    .seconds = 0.25,
    .is_done = true,
    .is_right = true,
};

static qn_status append(qn_report *report, room *r, uint32_t i_side, uint32_t i_problem,
                        qn_error *err)
{
    qn_reply reply;
    qn_reply_init(&reply);
    reply.finish = QN_FINISH_STOP;
    qn_status status = qn_buf_append(&reply.text, "x\n\"\0y", 5, err);
    if (status == QN_OK) {
        static const char calls[] = "[{\"name\": \"f\", \"arguments\": {\"a\": 1e999, \"a\": 2}}]";
        status = qn_buf_append(&reply.calls, calls, strlen(calls), err);
    }
    r->outcomes[i_side][i_problem] = an_outcome;
    r->answers.infos[i_side] = (qn_side_info){"mxfp4", "trained", "cuda:0", "int8", "bf16", 5};
    if (status == QN_OK) {
        status = qn_report_append(report, &r->answers, i_side, i_problem, &reply, err);
    }
    qn_reply_deinit(&reply);
    return status;
}

/* A report with problems 0 and 2 of side 0 and problem 1 of side 1. */
static void make_report(void)
{
    static room r;
    qn_report report;
    qn_error err = {0};
    room_init(&r);
    (void)unlink(g_path);
    assert_int_equal(open_report(&report, &r, false, &err), QN_OK);
    assert_int_equal(append(&report, &r, 0, 0, &err), QN_OK);
    assert_int_equal(append(&report, &r, 0, 2, &err), QN_OK);
    assert_int_equal(append(&report, &r, 1, 1, &err), QN_OK);
    qn_report_close(&report);
}

static void expect_read(bool has_last)
{
    static room r;
    qn_report report;
    qn_error err = {0};
    room_init(&r);
    if (open_report(&report, &r, true, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_memory_equal(&r.outcomes[0][0], &an_outcome, sizeof an_outcome);
    assert_memory_equal(&r.outcomes[0][2], &an_outcome, sizeof an_outcome);
    assert_false(r.outcomes[0][1].is_done);
    assert_int_equal(r.outcomes[1][1].is_done, has_last);
    assert_string_equal(r.answers.infos[0].quantization, "mxfp4");
    assert_string_equal(r.answers.infos[0].device, "cuda:0");
    assert_string_equal(r.answers.infos[0].compute, "int8");
    assert_int_equal(r.answers.infos[0].draft_tokens, 5);
    qn_report_close(&report);
}

static void test_answers_are_read_again(void **state)
{
    (void)state;
    make_report();
    expect_read(true);
    expect_read(true);
}

/* Wherever a line is torn, what was whole stays, and the next one begins at a line's start. */
static void test_half_a_line_is_cut_off(void **state)
{
    (void)state;
    make_report();
    const qn_buf whole = read_report();
    const char *const last =
        (const char *)memrchr(whole.ptr, '\n', whole.len - 1) + 1; /* the last line */
    for (size_t n = (size_t)(last - whole.ptr); n < whole.len; n += 7) {
        make_report();
        assert_int_equal(truncate(g_path, (off_t)n), 0);
        expect_read(false);
        const qn_buf now = read_report();
        assert_int_equal(now.len, last - whole.ptr);
        free(now.ptr);
    }
    const size_t header_bytes = strlen(HEADER);
    for (size_t n = 0; n <= header_bytes; n += 5) { /* of the header too */
        static room r;
        qn_report report;
        room_init(&r);
        make_report();
        assert_int_equal(truncate(g_path, (off_t)n), 0);
        assert_int_equal(open_report(&report, &r, true, NULL), QN_OK);
        qn_report_close(&report);
        const qn_buf now = read_report();
        assert_string_equal(now.ptr, HEADER "\n");
        free(now.ptr);
    }
    free(whole.ptr);
}

static void expect_refused(const char *text, qn_status expected, const char *message)
{
    static room r;
    qn_report report;
    qn_error err = {0};
    room_init(&r);
    write_file(text);
    const qn_status status = open_report(&report, &r, true, &err);
    if (status != expected || strstr(err.text, message) == NULL ||
        strstr(err.text, g_path) == NULL) {
        fail_msg("%s: \"%s\", \"%s\" expected", qn_status_name(status), err.text, message);
    }
    const qn_buf now = read_report(); /* and left alone */
    assert_string_equal(now.ptr != NULL ? now.ptr : "", text);
    free(now.ptr);
}

#define LINE(side, problem)                                                                        \
    "{\"side\": " side ", \"problem\": " problem ", \"right\": true, \"cut\": false, "             \
    "\"prompt_tokens\": 1, \"completion_tokens\": 1, \"reasoning_tokens\": 0, \"steps\": 0, "      \
    "\"step_tokens\": 0, \"ids_hash\": \"0000000000000000\", \"time_s\": 0.5}\n"

static void test_another_file_is_refused_and_left_alone(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"quern_eval\": 1, \"model\": \"n\", \"limit\": 3}\n",
         "another run: model: \"n\", \"m\" expected"},
        {"{\"quern_eval\": 1, \"model\": \"m\"}\n", "another run: limit: nothing, 3 expected"},
        {"{\"quern_eval\": 1, \"model\": \"m\", \"limit\": 3, \"more\": 1}\n", "another version"},
        {"notes\n", "line 1, column 1"},
        {"notes without an end", "no report, one of this run expected"},
        {HEADER "and more", "no report"},
        {HEADER "\n{\n", "line 2"},
        {HEADER "\n" LINE("2", "0"), "line 2: side: 2, an integer 0 to 1 expected"},
        {HEADER "\n" LINE("0", "3"), "line 2: problem: 3, an integer 0 to 2 expected"},
        {HEADER "\n" LINE("0", "1") LINE("0", "1"), "line 3: problem 1 a second time"},
        {HEADER "\n{\"side\": 0, \"problem\": 0}\n", "line 2: prompt_tokens: nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_refused(cases[i][0], QN_E_FORMAT, cases[i][1]);
    }
}

static void test_a_report_is_not_replaced(void **state)
{
    (void)state;
    static room r;
    qn_report report;
    qn_error err = {0};
    make_report();
    room_init(&r);
    assert_int_equal(open_report(&report, &r, false, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "exists, a new name expected, or --resume"));
    expect_read(true);
}

static void test_one_process_writes_at_a_time(void **state)
{
    (void)state;
    static room r;
    static room other;
    qn_report report;
    qn_report second;
    qn_error err = {0};
    make_report();
    room_init(&r);
    room_init(&other);
    assert_int_equal(open_report(&report, &r, true, &err), QN_OK);
    assert_int_equal(open_report(&second, &other, true, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "in use by another process"));
    qn_report_close(&report);
}

/* A disk that is full in the middle of a line: the line before is the last. */
static void test_a_line_that_cannot_be_written_is_taken_back(void **state)
{
    (void)state;
    static room r;
    qn_report report;
    qn_error err = {0};
    struct rlimit before;
    struct stat info;
    make_report();
    room_init(&r);
    assert_int_equal(stat(g_path, &info), 0);
    assert_int_equal(open_report(&report, &r, true, &err), QN_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    const struct rlimit small = {(rlim_t)info.st_size + 40, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const qn_status status = append(&report, &r, 0, 1, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, QN_E_IO);
    assert_non_null(strstr(err.text, g_path));
    qn_report_close(&report);
    const off_t size = info.st_size;
    assert_int_equal(stat(g_path, &info), 0);
    assert_int_equal(info.st_size, size);
    expect_read(true);
}

static void test_without_a_path_nothing_is_kept(void **state)
{
    (void)state;
    static room r;
    qn_report report = {0};
    room_init(&r);
    assert_int_equal(append(&report, &r, 0, 0, NULL), QN_OK);
    qn_report_close(&report);
}

static qn_status write_and_read(qn_error *err)
{
    static room r;
    qn_report report = {0};
    room_init(&r);
    (void)unlink(g_path);
    qn_status status = open_report(&report, &r, false, err);
    if (status == QN_OK) {
        status = append(&report, &r, 1, 2, err);
    }
    qn_report_close(&report);
    room_init(&r);
    if (status == QN_OK) {
        status = open_report(&report, &r, true, err);
        qn_report_close(&report);
    }
    return status;
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(write_and_read, 1, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_read_again),
        cmocka_unit_test(test_half_a_line_is_cut_off),
        cmocka_unit_test(test_another_file_is_refused_and_left_alone),
        cmocka_unit_test(test_a_report_is_not_replaced),
        cmocka_unit_test(test_one_process_writes_at_a_time),
        cmocka_unit_test(test_a_line_that_cannot_be_written_is_taken_back),
        cmocka_unit_test(test_without_a_path_nothing_is_kept),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
