/* SPDX-License-Identifier: Apache-2.0 */
/* JSON that keeps its text.  What is refused is tested with base/json.h, which reads it so. */
#include "base/json_doc.h"
#include "support/fail_each.h"

static qn_json_doc open_doc(const char *text)
{
    qn_json_doc doc;
    qn_error err = {0};
    if (qn_json_doc_open(&doc, qn_str_of(text), "F", &err) != QN_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return doc;
}

static void expect_python(const char *text, const char *expected)
{
    qn_json_doc doc = open_doc(text);
    qn_buf out;
    qn_buf_init(&out, 1 << 20);
    assert_int_equal(qn_json_python_append(&out, doc.nodes, NULL), QN_OK);
    assert_string_equal(out.ptr, expected);
    qn_buf_deinit(&out);
    qn_json_doc_close(&doc);
}

static void test_nodes_lie_in_the_order_of_the_text(void **state)
{
    (void)state;
    qn_json_doc doc = open_doc(" {\"a\": [1, [], {\"x\": null}], \"b\" : \"s\"} ");
    static const struct {
        const char *text;
        qn_json_kind kind;
        uint32_t n_children;
        uint32_t n_nodes;
    } expected[] = {
        {"{\"a\": [1, [], {\"x\": null}], \"b\" : \"s\"}", QN_JSON_OBJECT, 2, 10},
        {"\"a\"", QN_JSON_STRING, 0, 1},
        {"[1, [], {\"x\": null}]", QN_JSON_ARRAY, 3, 6},
        {"1", QN_JSON_NUMBER, 0, 1},
        {"[]", QN_JSON_ARRAY, 0, 1},
        {"{\"x\": null}", QN_JSON_OBJECT, 1, 3},
        {"\"x\"", QN_JSON_STRING, 0, 1},
        {"null", QN_JSON_NULL, 0, 1},
        {"\"b\"", QN_JSON_STRING, 0, 1},
        {"\"s\"", QN_JSON_STRING, 0, 1},
    };
    assert_int_equal(doc.n_nodes, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < doc.n_nodes; i++) {
        assert_true(qn_str_equal(doc.nodes[i].text, qn_str_of(expected[i].text)));
        assert_int_equal(doc.nodes[i].kind, expected[i].kind);
        assert_int_equal(doc.nodes[i].n_children, expected[i].n_children);
        assert_int_equal(doc.nodes[i].n_nodes, expected[i].n_nodes);
    }
    assert_ptr_equal(qn_json_after(doc.nodes + 2), doc.nodes + 8);
    qn_json_doc_close(&doc);
    assert_null(doc.nodes);
    qn_json_doc_close(&doc);
}

static void test_numbers_of_any_size_keep_their_text(void **state)
{
    (void)state;
    static char long_number[400];
    memset(long_number, '7', sizeof long_number - 1);
    const char *const numbers[] = {
        "0.1",  "1e400",    "18446744073709551615", "0.10", "1E5", "-0", "0", "-0.0e0",
        "1e-5", long_number};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        expect_python(numbers[i], numbers[i]);
    }
}

/* Checked against Python 3.11: json.dumps(json.loads(text), ensure_ascii=False). */
static void test_values_print_as_python_prints_them(void **state)
{
    (void)state;
    expect_python("[ ]", "[]");
    expect_python("{ }", "{}");
    expect_python("\"\"", "\"\"");
    expect_python("{\"b\":[true,false,null],\"a\":{\"\":1,\"x\":[[2]]}}",
                  "{\"b\": [true, false, null], \"a\": {\"\": 1, \"x\": [[2]]}}");
    expect_python("\"\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\\\/\\u007f\\u0041\\u2028\"",
                  "\"\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\x7f"
                  "A\xe2\x80\xa8\"");
    expect_python("\"\\u6771\\u4eac \\ud83d\\ude00 \xf0\x9f\x98\x80\"",
                  "\"東京 \xf0\x9f\x98\x80 \xf0\x9f\x98\x80\"");
}

static void test_keys_compare_once_their_escapes_are_undone(void **state)
{
    (void)state;
    qn_json_doc doc = open_doc("{\"ab\": 1, \"\\u0061\": 2, \"\": 3, \"\\n\\ud83d\\ude00x\": 4}");
    static const struct {
        const char *key;
        const char *value; /* NULL: none */
    } cases[] = {
        {"a", "2"},  {"ab", "1"},   {"", "3"},         {"\n\xf0\x9f\x98\x80x", "4"},
        {"b", NULL}, {"abc", NULL}, {"\\u0061", NULL}, {"\n\xf0\x9f\x98\x80", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qn_json_node *const value = qn_json_member(doc.nodes, cases[i].key);
        assert_int_equal(value != NULL, cases[i].value != NULL);
        assert_true(value == NULL || qn_str_equal(value->text, qn_str_of(cases[i].value)));
    }
    assert_null(qn_json_member(NULL, "a"));
    assert_null(qn_json_member(doc.nodes + 1, "a"));
    assert_false(qn_json_string_is(doc.nodes, qn_str_of("a")));
    assert_false(qn_json_string_is(NULL, qn_str_of("")));
    qn_json_doc_close(&doc);
}

static void test_a_key_written_in_two_ways_is_a_duplicate(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"{\"ab\": 1, \"\\u0061b\": 2}", "column 11: '\"', a key that is not in the object"},
        {"{\"a\\/\": 1, \"c\": {}, \"\\u0061/\": 2}", "column 21: "},
        {"[{\"x\": {\"y\": 1, \"z\": 2, \"y\": 3}}]", "column 25: "},
        {"{\"\": 1, \"\": 2}", "column 9: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_json_doc doc;
        qn_error err = {0};
        assert_int_equal(qn_json_doc_open(&doc, qn_str_of(cases[i].text), "F", &err), QN_E_FORMAT);
        assert_null(doc.nodes);
        if (strstr(err.text, cases[i].message) == NULL) {
            fail_msg("seen: %s, expected: %s", err.text, cases[i].message);
        }
    }
    qn_json_doc doc = open_doc("[{\"a\": 1, \"b\": {\"a\": 2}, \"aa\": 3}, {\"a\": 4}]");
    qn_json_doc_close(&doc);
}

static void test_a_scan_finds_exactly_one_value(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        qn_json_kind kind;
    } good[] = {
        {"null", QN_JSON_NULL},
        {" false\n", QN_JSON_FALSE},
        {"true", QN_JSON_TRUE},
        {"-1e999", QN_JSON_NUMBER},
        {"0", QN_JSON_NUMBER},
        {"\"\\u00e9\"", QN_JSON_STRING},
        {"[1, {}]", QN_JSON_ARRAY},
        {"\t{\"a\": [2]} ", QN_JSON_OBJECT},
        {"{\"a\": 1, \"a\": 2}", QN_JSON_OBJECT},
    };
    static const char *const bad[] = {
        "",         " ",   "nul", "1 2", "01",  "{\"a\"}",     "[1,]",  "\"a",        "NaN",
        "\"\xff\"", "'a'", "+1",  "1.",  "{}}", "\"\\ud800\"", "Paris", "\"\\u0000\""};
    qn_json_kind kind = QN_JSON_NULL;
    g_allocations_left = 0;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(qn_json_scan(qn_str_of(good[i].text), &kind));
        assert_int_equal(kind, good[i].kind);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(qn_json_scan(qn_str_of(bad[i]), &kind));
    }
    assert_true(qn_json_scan(qn_str_of("1"), NULL));
    assert_false(qn_json_scan((qn_str){0}, &kind));
    g_allocations_left = SIZE_MAX;
    assert_int_equal(g_n_failed, 0);
}

static void test_a_string_appends_the_bytes_it_stands_for(void **state)
{
    (void)state;
    qn_json_doc doc = open_doc("\"a\\n\\u00e9\\ud83d\\ude00\\\\\"");
    qn_buf out;
    qn_buf_init(&out, 100);
    assert_int_equal(qn_json_string_append(&out, doc.nodes, NULL), QN_OK);
    assert_string_equal(out.ptr, "a\né\xf0\x9f\x98\x80\\");
    assert_true(qn_json_string_is(doc.nodes, qn_buf_view(&out)));
    qn_buf_deinit(&out);
    qn_json_doc_close(&doc);
}

static void test_any_bytes_become_a_string(void **state)
{
    (void)state;
    static const char bytes[] = "a\"\\\n\x01\xc3\xa9\xff\xf0\x9f\x98\x80\0z"; /* and its NUL */
    qn_buf out;
    qn_buf_init(&out, 100);
    assert_int_equal(qn_json_quote_append(&out, (qn_str){bytes, sizeof bytes}, NULL), QN_OK);
    assert_string_equal(out.ptr, "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\xf0\x9f\x98\x80"
                                 "\xef\xbf\xbdz\xef\xbf\xbd\"");
    qn_json_doc doc = open_doc(out.ptr);
    qn_json_doc_close(&doc);
    qn_buf_clear(&out);
    assert_int_equal(qn_json_quote_append(&out, (qn_str){0}, NULL), QN_OK);
    assert_string_equal(out.ptr, "\"\"");
    qn_buf_deinit(&out);
}

static void test_values_are_shown_in_a_few_words(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"{\"a\": 1}", "an object"},
        {"[1]", "a list"},
        {"1.50", "1.50"},
        {"null", "null"},
        {"\"word\"", "\"word\""},
        {"12345678901234567890123456789012345678901234567890",
         "123456789012345678901234567890123456789012"},
    };
    char shown[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_json_doc doc = open_doc(cases[i].text);
        qn_json_node_show(shown, sizeof shown, doc.nodes);
        assert_string_equal(shown, cases[i].expected);
        qn_json_doc_close(&doc);
    }
    qn_json_node_show(shown, sizeof shown, NULL);
    assert_string_equal(shown, "nothing");
}

static qn_status open_and_print(qn_error *err)
{
    static const char text[] =
        "{\"c\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], \"b\": {\"x\": 1, \"y\": \"\\n\", \"z\": 3},"
        " \"a\": \"text that is longer than what a small buffer holds from the beginning\"}";
    qn_json_doc doc;
    qn_buf out;
    qn_buf_init(&out, 1 << 20);
    qn_status status = qn_json_doc_open(&doc, qn_str_of(text), "F", err);
    if (status == QN_OK) {
        status = qn_json_python_append(&out, doc.nodes, err);
    }
    qn_buf_deinit(&out);
    qn_json_doc_close(&doc);
    return status;
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(open_and_print, 1, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes_lie_in_the_order_of_the_text),
        cmocka_unit_test(test_numbers_of_any_size_keep_their_text),
        cmocka_unit_test(test_values_print_as_python_prints_them),
        cmocka_unit_test(test_keys_compare_once_their_escapes_are_undone),
        cmocka_unit_test(test_a_key_written_in_two_ways_is_a_duplicate),
        cmocka_unit_test(test_a_scan_finds_exactly_one_value),
        cmocka_unit_test(test_a_string_appends_the_bytes_it_stands_for),
        cmocka_unit_test(test_any_bytes_become_a_string),
        cmocka_unit_test(test_values_are_shown_in_a_few_words),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
