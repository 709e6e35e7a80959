/* SPDX-License-Identifier: Apache-2.0 */
/* Replies that are right, and replies that look so. */
#include "eval/score.h"
#include "support/fail_each.h"

#include <stdio.h>

typedef struct example {
    const char *answer;
    const char *said;
    bool is_right;
} example;

static void judge(qn_score score, const example *e)
{
    const bool is_call = score == QN_SCORE_TOOL_CALL;
    const qn_said said = {.text = is_call ? (qn_str){0} : qn_str_of(e->said),
                          .calls = is_call ? qn_str_of(e->said) : (qn_str){0}};
    bool is_right = !e->is_right;
    qn_error err = {0};
    if (qn_score_check(score, qn_str_of(e->answer), "answer", &err) < 0 ||
        qn_score_reply(&is_right, score, qn_str_of(e->answer), &said, &err) < 0) {
        fail_msg("%s: %s: %s", qn_score_names[score], e->answer, err.text);
    }
    if (is_right != e->is_right) {
        fail_msg("%s: answer \"%s\", said \"%s\": %s expected", qn_score_names[score], e->answer,
                 e->said, e->is_right ? "right" : "wrong");
    }
}

#define JUDGE(score, examples)                                                                     \
    for (size_t i = 0; i < sizeof(examples) / sizeof((examples)[0]); i++) {                        \
        judge(score, &(examples)[i]);                                                              \
    }

static void test_exact_forgives_white_space_and_one_block_of_code(void **state)
{
    (void)state;
    static const example examples[] = {
        {"a, b", "a, b", true},
        {"a, b", "  a, b\r\n", true},
        {" a ", "a", true},
        {"a, b", "a,b", false},
        {"a, b", "A, b", false},
        {"a, b", "a, b.", false},
        {"a", "", false},
        {"int x;", "```c\nint x;\n```", true},
        {"int x;", "Here it is:\n\n```\nint x;\n```\nDone.", true},
        {"int x;", "```c\nint x;\n```\n```c\nint y;\n```", false},
        {"int x;", "```int x;", false},
        {"int x;", "```c\nint x;", false},
        {"int x;", "```c\nint y;\n```", false},
        {"```c\nint x;", "```c\nint x;", true},
    };
    JUDGE(QN_SCORE_EXACT, examples)
}

static void test_numbers_go_by_the_last(void **state)
{
    (void)state;
    static const example examples[] = {
        {"1234.5", "the answer is 1,234.50.", true},
        {"5 + 5 = 10 apples\n#### 10", "The answer is 10.", true},
        {"10", "The answer is 10, not 11.", false},
        {"10", "ten", false},
        {"10", "", false},
        {"-3",
         "It is \xe2\x88\x92"
         "3 degrees.",
         true},
        {"3", "It is -3 degrees.", false},
    };
    JUDGE(QN_SCORE_NUMBER, examples)
}

static void test_the_letter_that_a_reply_settles_on(void **state)
{
    (void)state;
    static const example examples[] = {
        {"B", "B", true},
        {"(B)", "B.", true},
        {"B", "(B)", true},
        {"B", "B) 42", true},
        {"B", "**B**", true},
        {"B", "Answer: B.", true},
        {"B", "**Answer:** B", true},
        {"B", "ANSWER: (B) Paris", true},
        {"B", "Answer:\n\nB", true},
        {"B", "The correct answer is (B).", true},
        {"B", "The correct answer is therefore option B: Vitamin C.", true},
        {"B", "The answer is $\\boxed{\\text{B}}$.", true},
        {"B", "so \\boxed{B}", true},
        {"B", "(A) is too large and (C) too small, so it is (B).", true},
        {"B", "Answer: B. (A) and (D) are wrong.", true},
        {"B", "First I thought the answer is A, but the answer is B.", true},
        {"B", "It must be B", true},
        {"B", "B. A is wrong", true},
        {"C", "B: Vitamin C", false},
        {"B", "B: Vitamin C", true},
        {"A", "A", true},
        {"A", "A dog", false},
        {"I", "I think so", false},
        {"B", "I say A or B", true},
        {"B", "The answer is b", false},
        {"B", "Both", false},
        {"B", "Vitamin B12", false},
        {"B", "The answer is not clear.", false},
        {"B", "A", false},
        {"B", "", false},
        {"B",
         "\xc3\x84"
         "B",
         false},
        {"B", "B's", false},
        {"B", "B is the correct answer. A common mistake is to forget the sign.", true},
        {"B", "The answer is B.\n\nIn this answer I used the chain rule.", true},
    };
    JUDGE(QN_SCORE_CHOICE, examples)
}

static void judge_of(uint32_t letters, const char *answer, const char *text, bool expected)
{
    const qn_said said = {.text = qn_str_of(text), .letters = letters};
    bool is_right = !expected;
    qn_error err = {0};
    assert_int_equal(qn_score_reply(&is_right, QN_SCORE_CHOICE, qn_str_of(answer), &said, &err),
                     QN_OK);
    assert_int_equal(is_right, expected);
}

static void test_letters_that_are_not_offered_do_not_count(void **state)
{
    (void)state;
    judge_of(0, "B", "It is B, said I", false);
    judge_of(3, "B", "It is B, said I", true);
    judge_of(3, "E", "It is E", true); /* those were no choices */
}

static void test_json_goes_by_value(void **state)
{
    (void)state;
    static const example examples[] = {
        {"{\"a\": 1, \"b\": [1, 2]}", "{\"b\":[1.0,2e0],\"a\":1.00}", true},
        {"{\"a\": 1}", "```json\n{\"a\": 1}\n```", true},
        {"{\"a\": 1}", " {\"a\": 1}\n", true},
        {"{\"\\u0061\": \"\\u00e4\"}", "{\"a\": \"\xc3\xa4\"}", true},
        {"[]", "[]", true},
        {"null", "null", true},
        {"[null, true, false]", "[null,true,false]", true},
        {"{\"a\": 1}", "{\"a\": 1, \"b\": 2}", false},
        {"{\"a\": 1, \"b\": 2}", "{\"a\": 1}", false},
        {"{\"a\": 1, \"b\": 2}", "{\"a\": 1, \"a\": 1}", false},
        {"{\"a\": 1}", "{\"a\": \"1\"}", false},
        {"{\"a\": 1}", "{\"A\": 1}", false},
        {"[1, 2]", "[2, 1]", false},
        {"[1, 2]", "[1, 2, 2]", false},
        {"true", "false", false},
        {"null", "false", false},
        {"{}", "[]", false},
        {"{\"a\": 1}", "{\"a\": 1", false},
        {"{\"a\": 1}", "{\"a\": 1} indeed", false},
        {"{\"a\": 1}", "", false},
        {"12345678901234567890", "12345678901234567891", false},
        {"{\"a\": {\"b\": {\"c\": [1, {\"d\": -0.5}]}}}",
         "{\"a\": {\"b\": {\"c\": [1, {\"d\": -5e-1}]}}}", true},
    };
    JUDGE(QN_SCORE_JSON, examples)
}

static void test_calls_go_by_name_and_value_of_arguments(void **state)
{
    (void)state;
    static const char f[] = "{\"name\": \"f\", \"arguments\": {\"x\": 1, \"y\": \"z\"}}";
    static const example examples[] = {
        {f, "[{\"name\": \"f\", \"arguments\": {\"y\": \"z\", \"x\": 1.0}}]", true},
        {"[{\"name\": \"f\", \"arguments\": {}}]", "[{\"name\": \"f\", \"arguments\": {}}]", true},
        {"[]", "", true},
        {"[]", "[{\"name\": \"f\", \"arguments\": {}}]", false},
        {f, "", false},
        {f, "[{\"name\": \"g\", \"arguments\": {\"x\": 1, \"y\": \"z\"}}]", false},
        {f, "[{\"name\": \"f\", \"arguments\": {\"x\": \"1\", \"y\": \"z\"}}]", false},
        {f, "[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]", false},
        {f,
         "[{\"name\": \"f\", \"arguments\": {\"x\": 1, \"y\": \"z\"}}, {\"name\": \"f\", "
         "\"arguments\": {\"x\": 1, \"y\": \"z\"}}]",
         false},
        {"[{\"name\": \"a\", \"arguments\": {}}, {\"name\": \"b\", \"arguments\": {}}]",
         "[{\"name\": \"b\", \"arguments\": {}}, {\"name\": \"a\", \"arguments\": {}}]", false},
    };
    JUDGE(QN_SCORE_TOOL_CALL, examples)
}

static void expect_refused(qn_score score, const char *answer, const char *word)
{
    qn_error err = {0};
    assert_int_equal(qn_score_check(score, qn_str_of(answer), "F: line 3: answer", &err),
                     QN_E_FORMAT);
    if (strstr(err.text, "F: line 3: answer: ") == NULL || strstr(err.text, word) == NULL) {
        fail_msg("\"%s\": %s", answer, err.text);
    }
}

static void test_answers_that_judge_nothing_are_refused(void **state)
{
    (void)state;
    expect_refused(QN_SCORE_NUMBER, "many", "\"many\", a number expected");
    expect_refused(QN_SCORE_CHOICE, "b", "\"b\", a letter A to Z expected");
    expect_refused(QN_SCORE_CHOICE, "42", "a letter");
    expect_refused(QN_SCORE_JSON, "{\"a\"", "column");
    expect_refused(QN_SCORE_JSON, "{\"a\": 1, \"a\": 2}", "a");
    expect_refused(QN_SCORE_TOOL_CALL, "{}", "an object, {\"name\"");
    expect_refused(QN_SCORE_TOOL_CALL, "3", "3, {\"name\"");
    expect_refused(QN_SCORE_TOOL_CALL, "[{\"name\": \"f\", \"arguments\": \"{}\"}]", "OBJECT");
    expect_refused(QN_SCORE_TOOL_CALL, "{\"name\": 1, \"arguments\": {}}", "TEXT");
    expect_refused(QN_SCORE_TOOL_CALL, "{\"name\": \"f\", \"arguments\": {}, \"id\": 1}", "list");
}

static void test_names_of_tasks_tell_how_to_judge(void **state)
{
    (void)state;
    assert_int_equal(qn_score_of_task(qn_str_of("arithmetic")), QN_SCORE_NUMBER);
    assert_int_equal(qn_score_of_task(qn_str_of("word_problem")), QN_SCORE_NUMBER);
    assert_int_equal(qn_score_of_task(qn_str_of("needle")), QN_SCORE_NUMBER);
    assert_int_equal(qn_score_of_task(qn_str_of("choice")), QN_SCORE_CHOICE);
    assert_int_equal(qn_score_of_task(qn_str_of("extract")), QN_SCORE_JSON);
    assert_int_equal(qn_score_of_task(qn_str_of("tool_call")), QN_SCORE_TOOL_CALL);
    assert_int_equal(qn_score_of_task(qn_str_of("code")), QN_SCORE_EXACT);
    assert_int_equal(qn_score_of_task(qn_str_of("transform")), QN_SCORE_EXACT);
    assert_int_equal(qn_score_of_task(qn_str_of("anything")), QN_SCORE_EXACT);
}

static qn_status judge_json(qn_error *err)
{
    const qn_str answer = qn_str_of("{\"a\": 1}");
    const qn_said said = {.text = answer};
    bool is_right = false;
    const qn_status status = qn_score_check(QN_SCORE_JSON, answer, "answer", err);
    return status < 0 ? status : qn_score_reply(&is_right, QN_SCORE_JSON, answer, &said, err);
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(judge_json, 1, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_forgives_white_space_and_one_block_of_code),
        cmocka_unit_test(test_numbers_go_by_the_last),
        cmocka_unit_test(test_the_letter_that_a_reply_settles_on),
        cmocka_unit_test(test_letters_that_are_not_offered_do_not_count),
        cmocka_unit_test(test_json_goes_by_value),
        cmocka_unit_test(test_calls_go_by_name_and_value_of_arguments),
        cmocka_unit_test(test_answers_that_judge_nothing_are_refused),
        cmocka_unit_test(test_names_of_tasks_tell_how_to_judge),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
