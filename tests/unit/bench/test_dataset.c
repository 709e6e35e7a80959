/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/dataset.h"
#include "support/fail_each.h"
#include "support/unit.h"

#include <math.h>

static bench_dataset g_set;
static qn_error g_err;

static qn_status read_text(bench_file_form form, const char *text)
{
    bench_dataset_deinit(&g_set);
    g_err = (qn_error){0};
    return bench_dataset_read(&g_set, form, qn_str_of(text), "F", 0, &g_err);
}

static void assert_text(qn_str seen, const char *expected)
{
    assert_int_equal(seen.len, strlen(expected));
    assert_memory_equal(seen.ptr, expected, seen.len);
}

static void test_lines_in_each_form(void **state)
{
    (void)state;
    assert_int_equal(read_text(BENCH_FILE_LINES,
                               "{\"prompt\": \"a\\u00e9\\n\", \"output_tokens\": 5}\n"
                               "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n"
                               "{\"ids\": [1, 2,3], \"max_tokens\": 7.0, \"other\": {}}\n"
                               "{\"prompt\": [4], \"output_length\": 1}\n"
                               "{\"input_length\": 600, \"output_length\": 2}"),
                     QN_OK);
    const bench_entry *const e = g_set.entries;
    assert_int_equal(g_set.n_entries, 5);
    assert_int_equal(e[0].form, BENCH_PROMPT_TEXT);
    assert_text(e[0].prompt, "\"a\\u00e9\\n\"");
    assert_int_equal(e[0].n_output, 5);
    assert_true(isnan(e[0].at_s));
    assert_int_equal(e[1].form, BENCH_PROMPT_MESSAGES);
    assert_text(e[1].prompt, "[{\"role\": \"user\", \"content\": \"x\"}]");
    assert_int_equal(e[1].n_output, 0);
    assert_int_equal(e[2].form, BENCH_PROMPT_IDS);
    assert_text(e[2].prompt, "[1, 2,3]");
    assert_int_equal(e[2].n_input, 3);
    assert_int_equal(e[2].n_output, 7);
    assert_int_equal(e[3].form, BENCH_PROMPT_IDS);
    assert_int_equal(e[3].line, 4);
    assert_int_equal(e[4].form, BENCH_PROMPT_LENGTH);
    assert_int_equal(e[4].n_input, 600);
    assert_int_equal(e[4].n_hashes, 0);
}

static void test_marks_blank_lines_and_crlf_are_fine(void **state)
{
    (void)state;
    assert_int_equal(read_text(BENCH_FILE_LINES, "\xef\xbb\xbf\r\n \t\n{\"prompt\":\"a\"}\r\n\r\n"
                                                 "  {\"prompt\":\"b\"}  \r\n\n"),
                     QN_OK);
    assert_int_equal(g_set.n_entries, 2);
    assert_int_equal(g_set.entries[0].line, 3);
    assert_int_equal(g_set.entries[1].line, 5);
}

static void test_as_many_as_asked_for(void **state)
{
    static const char text[] = "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\nnot JSON";
    (void)state;
    bench_dataset_deinit(&g_set);
    assert_int_equal(bench_dataset_read(&g_set, BENCH_FILE_LINES, qn_str_of(text), "F", 2, &g_err),
                     QN_OK);
    assert_int_equal(g_set.n_entries, 2);
}

/* A line as large as a shelf of books. */
static void test_a_huge_line(void **state)
{
    enum { N = 3000000 };
    static char word[N + 1];
    static char text[N + 64];
    (void)state;
    memset(word, 'x', N);
    (void)snprintf(text, sizeof text, "{\"prompt\":\"%s\"}", word);
    assert_int_equal(read_text(BENCH_FILE_LINES, text), QN_OK);
    assert_int_equal(g_set.entries[0].prompt.len, N + 2);
    bench_dataset_deinit(&g_set);
}

static void test_a_trace(void **state)
{
    (void)state;
    assert_int_equal(
        read_text(BENCH_FILE_TRACE,
                  "{\"timestamp\": 27000, \"input_length\": 1025, \"output_length\": 52, "
                  "\"hash_ids\": [46, 47, 123456789012345678901234567890]}\n"
                  "{\"timestamp\": 27000, \"input_length\": 512, \"output_length\": 1, "
                  "\"hash_ids\": [46]}\n"
                  "{\"timestamp\": 30500.5, \"prompt\": \"a\", \"output_length\": 3}\n"),
        QN_OK);
    const bench_entry *const e = g_set.entries;
    assert_int_equal(g_set.n_entries, 3);
    assert_true(e[0].at_s == 0.0 && e[1].at_s == 0.0);
    assert_true(fabs(e[2].at_s - 3.5005) < 1e-12);
    assert_int_equal(e[0].n_hashes, 3);
    assert_int_equal(e[1].n_hashes, 1);
    assert_true(g_set.hashes[e[0].first_hash] == g_set.hashes[e[1].first_hash]);
    assert_true(g_set.hashes[0] != g_set.hashes[1]);
    assert_int_equal(e[2].form, BENCH_PROMPT_TEXT);
}

static void test_sharegpt_takes_the_first_question_and_its_answer(void **state)
{
    (void)state;
    assert_int_equal(
        read_text(BENCH_FILE_SHAREGPT,
                  "[\n {\"id\": \"a\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"0\"},\n"
                  "  {\"from\": \"human\", \"value\": \"q]\\\"},{\"},\n"
                  "  {\"from\": \"gpt\", \"value\": \"r\"}]},\n"
                  " {\"conversations\": []},\n"
                  " {\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}]},\n"
                  " {\"conversations\": [{\"from\": \"user\", \"value\": \"s\"}, "
                  "{\"from\": \"x\", \"value\": \"t\"}]}\n]\n"),
        QN_OK);
    assert_int_equal(g_set.n_entries, 2);
    assert_int_equal(g_set.n_skipped, 2);
    assert_text(g_set.entries[0].prompt, "\"q]\\\"},{\"");
    assert_text(g_set.entries[0].answer, "\"r\"");
    assert_int_equal(g_set.entries[0].line, 2);
    assert_text(g_set.entries[1].prompt, "\"s\"");
    assert_int_equal(g_set.entries[1].line, 7);
    assert_int_equal(read_text(BENCH_FILE_SHAREGPT,
                               "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, "
                               "{\"from\": \"gpt\", \"value\": \"r\"}]}\n"),
                     QN_OK); /* one a line */
}

static void test_what_is_wrong_is_named(void **state)
{
    static const struct {
        bench_file_form form;
        const char *text, *why;
    } cases[] = {
        {BENCH_FILE_LINES, "", "F: no request, a JSON object a line expected"},
        {BENCH_FILE_LINES, " \n\xef\xbb\xbf", "F: line 2, column 1: "},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\"}\n[1]\n", "F: line 2: a list, an object expected"},
        {BENCH_FILE_LINES, "\n{\"prompt\":\"a\"", "F: line 2, column 14: the end, "},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\xff\"}", "F: line 1, column 13: "},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\"} x", "F: line 1, column 16: 'x', "},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\",\"prompt\":\"b\"}", "F: line 1, column 15: "},
        {BENCH_FILE_LINES, "{\"Prompt\":\"a\"}",
         "F: line 1: prompt, messages, ids, input_length: none"},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\",\"ids\":[1]}",
         "F: line 1: prompt, messages, ids, input_length: several"},
        {BENCH_FILE_LINES, "{\"prompt\":\"\"}",
         "F: line 1: prompt: \"\", a text that is not empty"},
        {BENCH_FILE_LINES, "{\"prompt\":1}", "F: line 1: prompt: 1, a text or a list of token ids"},
        {BENCH_FILE_LINES, "{\"prompt\":[]}", "F: line 1: prompt: a list, a list of token ids"},
        {BENCH_FILE_LINES, "{\"prompt\":[1,-2]}", "F: line 1: prompt: -2, a token id"},
        {BENCH_FILE_LINES, "{\"ids\":[1,2.5]}", "F: line 1: ids: 2.5, a token id"},
        {BENCH_FILE_LINES, "{\"ids\":[2147483648]}", "F: line 1: ids: 2147483648, a token id"},
        {BENCH_FILE_LINES, "{\"ids\":\"1\"}", "F: line 1: ids: \"1\", a list of token ids"},
        {BENCH_FILE_LINES, "{\"messages\":{}}", "F: line 1: messages: an object, a list of"},
        {BENCH_FILE_LINES, "{\"messages\":[]}", "F: line 1: messages: a list, a list of messages"},
        {BENCH_FILE_LINES, "{\"messages\":[\"a\"]}", "F: line 1: messages: \"a\", a message"},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\",\"max_tokens\":0}",
         "F: line 1: max_tokens: 0, a number of tokens, 1 to 10000000, expected"},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\",\"output_tokens\":1e99}",
         "F: line 1: output_tokens: 1e99"},
        {BENCH_FILE_LINES, "{\"prompt\":\"a\",\"output_tokens\":\"5\"}",
         "F: line 1: output_tokens: \"5\""},
        {BENCH_FILE_LINES, "{\"input_length\":-1}", "F: line 1: input_length: -1, "},
        {BENCH_FILE_LINES, "{\"input_length\":512,\"hash_ids\":[1,2]}",
         "F: line 1: hash_ids: 2 blocks of 512, at most the 1 of input_length 512 expected"},
        {BENCH_FILE_LINES, "{\"input_length\":512,\"hash_ids\":7}",
         "F: line 1: hash_ids: 7, a list"},
        {BENCH_FILE_LINES, "{\"input_length\":512,\"hash_ids\":[null]}",
         "F: line 1: hash_ids: null, an id expected"},
        {BENCH_FILE_TRACE, "{\"prompt\":\"a\"}", "F: line 1: timestamp: nothing, milliseconds"},
        {BENCH_FILE_TRACE,
         "{\"prompt\":\"a\",\"timestamp\":5}\n{\"prompt\":\"a\",\"timestamp\":1e300}",
         "F: line 2: timestamp: 1e300, at most 1e9 s behind the first expected"},
        {BENCH_FILE_TRACE, "{\"prompt\":\"a\",\"timestamp\":1e999}", "F: line 1: timestamp: 1e999"},
        {BENCH_FILE_TRACE, "{\"prompt\":\"a\",\"timestamp\":5}\n{\"prompt\":\"a\",\"timestamp\":4}",
         "F: line 2: timestamp: 4, at least the 5 before it expected"},
        {BENCH_FILE_SHAREGPT, "[]", "F: no request, conversations with an answer expected"},
        {BENCH_FILE_SHAREGPT, "[", "F: no request, "},
        {BENCH_FILE_SHAREGPT, "[{\"conversations\":[]}", "F: line 1: the end, ',' or ']'"},
        {BENCH_FILE_SHAREGPT, "[\n{\"a\":\n1},\n2]", "F: line 2: conversations: nothing, a list"},
        {BENCH_FILE_SHAREGPT, "[{\"conversations\":[]},\n\n,]",
         "F: line 3, column 1: the end, a value"},
        {BENCH_FILE_SHAREGPT, "[{\"conversations\":\n[},\n]", "F: line 2, column 2: '}', "},
        {BENCH_FILE_SHAREGPT, "[{\"conversations\":[]}] x", "F: line 1: more, the end behind ']'"},
        {BENCH_FILE_SHAREGPT, "[{\"conversations\":[{\"from\":\"human\"}]}]",
         "F: line 1: conversations: value: nothing, a text expected"},
        {BENCH_FILE_SHAREGPT, "[{\"conversations\":[3]}]",
         "F: line 1: conversations: value: nothing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(read_text(cases[i].form, cases[i].text), QN_E_FORMAT);
        if (strncmp(g_err.text, cases[i].why, strlen(cases[i].why)) != 0) {
            fail_msg("%s\nsaid  %s\nnot   %s", cases[i].text, g_err.text, cases[i].why);
        }
    }
}

static qn_status read_all(qn_error *err)
{
    static const char lines[] = "{\"timestamp\":1,\"input_length\":1024,\"hash_ids\":[1,2]}\n"
                                "{\"timestamp\":1,\"prompt\":\"a\"}\n";
    bench_dataset set = {0};
    const qn_status status =
        bench_dataset_read(&set, BENCH_FILE_TRACE, qn_str_of(lines), "F", 0, err);
    bench_dataset_deinit(&set);
    return status;
}

static void test_no_memory_is_an_error(void **state)
{
    (void)state;
    fail_each(read_all, 1, 4);
}

static int close_set(void **state)
{
    (void)state;
    bench_dataset_deinit(&g_set);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_in_each_form),
        cmocka_unit_test(test_marks_blank_lines_and_crlf_are_fine),
        cmocka_unit_test(test_as_many_as_asked_for),
        cmocka_unit_test(test_a_huge_line),
        cmocka_unit_test(test_a_trace),
        cmocka_unit_test(test_sharegpt_takes_the_first_question_and_its_answer),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, close_set);
}
