/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of task files: what is read, and what is refused by file, line and field. */
#include "eval/task.h"
#include "support/fail_each.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINE "{\"task\": \"t\", \"messages\": [{\"role\": \"user\"}], \"answer\": \"a\"}"

static qn_status add(qn_task_set *set, const char *text, uint32_t n_max, qn_error *err)
{
    return qn_task_set_add(set, "F", qn_str_of(text), n_max, err);
}

static qn_task_set read_text(const char *text)
{
    qn_task_set set = {0};
    qn_error err = {0};
    if (add(&set, text, 0, &err) < 0) {
        fail_msg("%s: %s", text, err.text);
    }
    return set;
}

static void test_fields_are_read(void **state)
{
    (void)state;
    qn_task_set set = read_text(
        "\n" LINE "\r\n  \n{\"task\": \"choice\", \"id\": \"x-1\", \"answer\": \"(B)\", "
        "\"messages\": [1], \"tools\": [{}], \"extra\": 1}\n{\"answer\": 42, \"score\": "
        "\"number\", \"task\": \"\\u0074\", \"messages\": [{}], \"id\": 7, \"tools\": null}");
    assert_int_equal(set.n_problems, 3);
    assert_int_equal(set.n_tasks, 2);
    assert_string_equal(set.tasks[0].name, "t");
    assert_int_equal(set.tasks[0].n_problems, 2);
    assert_string_equal(set.tasks[1].name, "choice");
    const qn_problem *const p = set.problems;
    assert_int_equal(p[0].line, 2);
    assert_int_equal(p[0].score, QN_SCORE_EXACT);
    assert_string_equal(p[0].answer, "a");
    assert_int_equal(p[0].tools.len, 0);
    assert_true(qn_str_equal(p[0].messages, qn_str_of("[{\"role\": \"user\"}]")));
    assert_int_equal(p[1].line, 4);
    assert_int_equal(p[1].i_task, 1);
    assert_int_equal(p[1].score, QN_SCORE_CHOICE);
    assert_true(qn_str_equal(p[1].id, qn_str_of("x-1")));
    assert_true(qn_str_equal(p[1].tools, qn_str_of("[{}]")));
    assert_int_equal(p[2].i_task, 0);
    assert_int_equal(p[2].score, QN_SCORE_NUMBER);
    assert_string_equal(p[2].answer, "42");
    assert_true(qn_str_equal(p[2].id, qn_str_of("7")));
    qn_task_set_deinit(&set);
    assert_int_equal(set.n_problems, 0);
}

static void test_an_object_may_be_the_answer_itself(void **state)
{
    (void)state;
    qn_task_set set = read_text("{\"task\": \"extract\", \"messages\": [{}], \"answer\": "
                                "{\"a\": [1]}}");
    assert_string_equal(set.problems[0].answer, "{\"a\": [1]}");
    qn_task_set_deinit(&set);
}

static void test_a_limit_is_of_each_task(void **state)
{
    (void)state;
    static const char other[] = "{\"task\": \"u\", \"messages\": [{}], \"answer\": \"a\"}\n";
    qn_task_set set = {0};
    char text[1024];
    (void)snprintf(text, sizeof text, LINE "\n" LINE "\n%s" LINE "\n%s%s", other, other, other);
    assert_int_equal(add(&set, text, 2, NULL), QN_OK);
    assert_int_equal(set.n_problems, 4);
    assert_int_equal(add(&set, text, 2, NULL), QN_OK); /* a second file has no place left */
    assert_int_equal(set.n_problems, 4);
    assert_int_equal(set.n_files, 2);
    assert_int_equal(add(&set, "{}\n", 2, NULL), QN_E_FORMAT);
    qn_task_set_deinit(&set);
}

static void test_many_problems_and_tasks(void **state)
{
    (void)state;
    enum { N = QN_TASKS_MAX, LINE_BYTES = 80 };
    static const char last[] = "{\"task\": \"t\", \"messages\": [0], \"answer\": \"a\"}\n";
    char *const text = malloc((size_t)(N + 1) * LINE_BYTES);
    assert_non_null(text);
    size_t len = 0;
    for (int i = 0; i < N; i++) {
        len +=
            (size_t)snprintf(text + len, LINE_BYTES,
                             "{\"task\": \"t%d\", \"messages\": [0], \"answer\": \"%d\"}\n", i, i);
    }
    qn_task_set set = read_text(text);
    assert_int_equal(set.n_problems, N);
    assert_int_equal(set.n_tasks, N);
    assert_string_equal(set.problems[N - 1].answer, "999");
    assert_string_equal(set.tasks[N - 1].name, "t999");
    qn_task_set_deinit(&set);
    qn_error err = {0};
    memcpy(text + len, last, sizeof last);
    assert_int_equal(add(&set, text, 0, &err), QN_E_FORMAT);
    assert_string_equal(err.text, "F: line 1001: task: another than the 1000 before, at most so "
                                  "many expected");
    qn_task_set_deinit(&set);
    free(text);
}

static uint32_t letters_of(const char *fields)
{
    char text[512];
    (void)snprintf(text, sizeof text, "{\"answer\": \"B\", %s}", fields);
    qn_task_set set = read_text(text);
    const uint32_t letters = set.problems[0].letters;
    qn_task_set_deinit(&set);
    return letters;
}

static void test_choices_are_those_of_the_last_user_message(void **state)
{
    (void)state;
    static const char several[] =
        "\"task\": \"choice\", \"messages\": [{\"role\": \"user\", \"content\": "
        "\"(A) 1\\n(B) 2\\n(C) 3\"}, {\"role\": \"assistant\", \"content\": \"(A)\"}, "
        "{\"role\": \"user\", \"content\": %s}, {\"role\": \"system\", \"content\": "
        "\"A. x\\nB. y\\nC. z\\nD. 0\"}]";
    static const struct {
        const char *content;
        uint32_t letters;
    } cases[] = {
        {"\"(A) 1\\n(B) 2\"", 3},
        {"[{\"text\": \"A. 1\\n\"}, {\"text\": \"B. 2\"}]", 3},
        {"\"none\"", 0},
        {"[1, {\"text\": 2}]", 0},
        {"3", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char fields[400];
        (void)snprintf(fields, sizeof fields, several, cases[i].content);
        assert_int_equal(letters_of(fields), cases[i].letters);
    }
    assert_int_equal(letters_of("\"task\": \"x\", \"messages\": [{\"role\": \"user\", \"content\": "
                                "\"(A) 1\\n(B) 2\"}]"),
                     0);
}

static void expect_refused(const char *text, const char *message)
{
    qn_task_set set = {0};
    qn_error err = {0};
    assert_int_equal(add(&set, text, 0, &err), QN_E_FORMAT);
    if (strstr(err.text, message) == NULL) {
        fail_msg("%s: \"%s\", \"%s\" expected", text, err.text, message);
    }
    qn_task_set_deinit(&set);
}

static void test_bad_lines_are_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "F: no problem, a JSON object a line expected"},
        {" \n\n", "F: no problem"},
        {LINE "\n{\"task\"", "F: line 2, column 8"},
        {LINE "\n[1]", "F: line 2: a list, an object expected"},
        {LINE LINE, "F: line 1, column 61"},
        {"{\"messages\": [{}], \"answer\": \"a\"}", "line 1: task: nothing, a name"},
        {"{\"task\": 3, \"messages\": [{}], \"answer\": \"a\"}", "task: 3, a name"},
        {"{\"task\": \"\", \"messages\": [{}], \"answer\": \"a\"}", "task: \"\", a name"},
        {"{\"task\": \"\\u001b[2J\", \"messages\": [{}], \"answer\": \"a\"}", "without control"},
        {"{\"task\": \"t\", \"task\": \"t\", \"messages\": [{}], \"answer\": \"a\"}",
         "F: line 1, column 15"},
        {"{\"task\": \"t\", \"answer\": \"a\"}", "messages: nothing, a list of messages expected"},
        {"{\"task\": \"t\", \"messages\": [], \"answer\": \"a\"}", "messages: a list, a list of"},
        {"{\"task\": \"t\", \"messages\": \"x\", \"answer\": \"a\"}", "messages: \"x\", a list"},
        {"{\"task\": \"t\", \"messages\": [{}]}", "answer: nothing, what is right expected"},
        {"{\"task\": \"t\", \"messages\": [{}], \"answer\": null}", "answer: null, what is right"},
        {"{\"task\": \"t\", \"messages\": [{}], \"answer\": \"\"}", "answer: \"\", a text that"},
        {"{\"task\": \"t\", \"messages\": [{}], \"answer\": \"a\", \"tools\": {}}",
         "tools: an obj"},
        {"{\"task\": \"t\", \"messages\": [{}], \"answer\": \"a\", \"id\": []}",
         "id: a list, a st"},
        {"{\"task\": \"t\", \"messages\": [{}], \"answer\": \"a\", \"score\": \"good\"}",
         "score: \"good\", exact, number, choice, json or tool_call expected"},
        {"{\"task\": \"t\", \"messages\": [{}], \"answer\": \"a\", \"score\": \"number\"}",
         "line 1: answer: \"a\", a number expected"},
        {"{\"task\": \"tool_call\", \"messages\": [{}], \"answer\": {\"name\": \"f\"}}",
         "answer: an object, {\"name\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_refused(cases[i][0], cases[i][1]);
    }
    char text[256];
    (void)snprintf(text, sizeof text,
                   "{\"task\": \"%065d\", \"messages\": [{}], \"answer\": \"a\"}", 0);
    expect_refused(text, "a name of 1 to 64 bytes");
}

static void test_a_file_is_read_and_hashed(void **state)
{
    (void)state;
    char path[] = "/tmp/qn-task-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, LINE, strlen(LINE)), strlen(LINE));
    assert_int_equal(close(fd), 0);
    qn_task_set set = {0};
    qn_error err = {0};
    char expected[QN_SHA256_HEX_BYTES];
    qn_sha256_hex(expected, qn_str_of(LINE));
    assert_int_equal(qn_task_set_load(&set, path, 0, &err), QN_OK);
    assert_string_equal(set.files[0].sha256, expected);
    assert_string_equal(set.files[0].path, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(qn_task_set_load(&set, path, 0, &err), QN_E_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
    qn_task_set_deinit(&set);
}

/* As many lines as make every array grow. */
static qn_status read_some(qn_error *err)
{
    qn_task_set set = {0};
    qn_status status = QN_OK;
    for (int i = 0; i < 20 && status == QN_OK; i++) {
        char text[128];
        (void)snprintf(
            text, sizeof text,
            "{\"task\": \"tool_call%d\", \"messages\": [{\"role\": \"user\", \"content\": "
            "\"(A)\"}], \"answer\": \"B\", "
            "\"score\": \"choice\"}\n",
            i);
        status = add(&set, text, 0, err);
    }
    qn_task_set_deinit(&set);
    return status;
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(read_some, 1, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_are_read),
        cmocka_unit_test(test_an_object_may_be_the_answer_itself),
        cmocka_unit_test(test_a_limit_is_of_each_task),
        cmocka_unit_test(test_many_problems_and_tasks),
        cmocka_unit_test(test_choices_are_those_of_the_last_user_message),
        cmocka_unit_test(test_bad_lines_are_named),
        cmocka_unit_test(test_a_file_is_read_and_hashed),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
