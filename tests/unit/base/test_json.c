/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"
#include "support/unit.h"

#include <math.h>

static void refuse(const char *text, size_t len, const char *message)
{
    json_t *value = NULL;
    qn_error err = {0};
    const qn_str slice = {.ptr = text, .len = len};
    assert_int_equal(qn_json_parse(&value, slice, "F", &err), QN_E_FORMAT);
    assert_null(value);
    if (strstr(err.text, message) == NULL) {
        fail_msg("seen: %s, expected: %s", err.text, message);
    }
}

static void test_bad_json_is_refused_with_line_and_column(void **state)
{
    (void)state;
    static char deep[6000];
    memset(deep, '[', sizeof deep);
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"{\"a\": 1,\n \"b\": }", "F: line 2, column 7: '}', a value expected"},
        {"{\"a\": 1, \"a\": 2}", "F: line 1, column 10: '\"', a key that is not in the object"},
        {"{} x", "column 4: 'x', nothing behind the value expected"},
        {"", "F: line 1, column 1: the end, a value expected"},
        {"  ", "column 3: the end, a value"},
        {"{\"a\" 1}", "column 6: '1', ':' expected"},
        {"{\"a\": 1 2}", "column 9: '2', ',' or '}' expected"},
        {"{\"a\": 1,}", "column 9: '}', a string expected"},
        {"{1: 2}", "column 2: '1', a string expected"},
        {"[1 2]", "',' or ']' expected"},
        {"[1,]", "column 4: ']', a value expected"},
        {"[1", "column 3: the end, ',' or ']' expected"},
        {"\"abc", "the end, \" behind the string expected"},
        {"\"a\nb\"", "UTF-8 without control characters"},
        {"\"\xff\"", "UTF-8 without control characters"},
        {"\"\xe4\xbd", "UTF-8 without control characters"},
        {"\"\\x\"", "'x', one of \"\\/bfnrtu expected"},
        {"\"\\", "the end, one of"},
        {"\"\\u00g0\"", "'g', a hexadecimal digit"},
        {"\"\\u0000\"", "other than NUL"},
        {"\"\\ud800\"", "second half"},
        {"\"\\ud800\\u0041\"", "second half"},
        {"\"\\udc00\"", "half a pair"},
        {"tru", "a value expected"},
        {"nul", "a value expected"},
        {"falsy", "a value expected"},
        {"-", "a digit"},
        {"01", "column 2: '1', a digit"},
        {"1.", "a digit"},
        {"1e+", "a digit"},
        {"99999999999999999999", "a number within range"},
        {"1e999", "a number within range"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        refuse(cases[i].text, strlen(cases[i].text), cases[i].message);
    }
    refuse(NULL, 0, "F: line 1");
    refuse("1\0", 2, "nothing behind");
    refuse("\"a\0\"", 4, "control");
    refuse(deep, sizeof deep, "column 513: '[', fewer levels of nesting expected");
    static char digits[300];
    memset(digits, '1', sizeof digits);
    refuse(digits, sizeof digits, "at most 127 characters");
}

static void test_parsed_values_are_those_written(void **state)
{
    (void)state;
    static const char text[] =
        " {\"\\u00e9\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\xe4\xbd\xa0\": [-0, 1e2, -12.5E-1,"
        " 9223372036854775807, -9223372036854775808, true, false, null, {}, [], \"\"],\r\n\t\"\": "
        "0}";
    json_t *value = NULL;
    qn_error err = {0};
    assert_int_equal(qn_json_parse(&value, qn_str_of(text), "F", &err), QN_OK);
    const json_t *const list =
        json_object_get(value, "\xc3\xa9\xf0\x9f\x98\x80\"\\/\b\f\n\r\t\xe4\xbd\xa0");
    assert_int_equal(json_array_size(list), 11);
    assert_true(json_is_integer(json_array_get(list, 0)));
    assert_true(json_real_value(json_array_get(list, 1)) == 100.0);
    assert_true(json_real_value(json_array_get(list, 2)) == -1.25);
    assert_true(json_integer_value(json_array_get(list, 3)) == INT64_MAX);
    assert_true(json_integer_value(json_array_get(list, 4)) == INT64_MIN);
    assert_true(json_is_true(json_array_get(list, 5)));
    assert_true(json_is_false(json_array_get(list, 6)));
    assert_true(json_is_null(json_array_get(list, 7)));
    assert_int_equal(json_object_size(json_array_get(list, 8)), 0);
    assert_true(json_is_array(json_array_get(list, 9)));
    assert_int_equal(json_string_length(json_array_get(list, 10)), 0);
    assert_true(json_is_integer(json_object_get(value, "")));
    json_decref(value);
}

/* The library's own reader is the judge of texts that both accept. */
static void test_a_real_file_parses_as_jansson_parses_it(void **state)
{
    (void)state;
    static const char path[] = QN_SOURCE_DIR "/models/glm-nano/tokenizer.json";
    json_t *ours = NULL;
    qn_error err = {0};
    assert_int_equal(qn_json_load(&ours, path, 1 << 20, &err), QN_OK);
    json_t *const theirs = json_load_file(path, 0, NULL);
    assert_non_null(theirs);
    assert_true(json_equal(ours, theirs));
    json_decref(theirs);
    json_decref(ours);
}

static size_t g_allocations_left; /* of jansson, that still succeed */

static void *count_down(size_t n_bytes)
{
    if (g_allocations_left == 0) {
        return NULL;
    }
    g_allocations_left--;
    return malloc(n_bytes);
}

static void test_no_memory_is_not_bad_syntax(void **state)
{
    (void)state;
    json_t *value = NULL;
    qn_error err = {0};
    json_malloc_t malloc_fn;
    json_free_t free_fn;
    json_get_alloc_funcs(&malloc_fn, &free_fn);
    json_set_alloc_funcs(count_down, free_fn);
    qn_status status = QN_E_NOMEM;
    size_t n = 0;
    for (; status == QN_E_NOMEM; n++) {
        g_allocations_left = n;
        err = (qn_error){0};
        status = qn_json_parse(
            &value, qn_str_of("{\"some key\": [1, 2.5, \"text\", {\"k\": null}]}"), "F", &err);
        if (status != QN_OK) {
            assert_string_equal(err.text, "F: no memory to parse it");
            assert_null(value);
        }
    }
    json_decref(value);
    json_set_alloc_funcs(malloc_fn, free_fn);
    assert_int_equal(status, QN_OK);
    assert_true(n > 8);
}

static void test_missing_file_is_not_found(void **state)
{
    (void)state;
    json_t *value = NULL;
    qn_error err = {0};
    assert_int_equal(qn_json_load(&value, "/nonexistent.json", 100, &err), QN_E_NOT_FOUND);
    assert_null(value);
    assert_non_null(strstr(err.text, "/nonexistent.json"));
    assert_int_equal(qn_json_load(&value, QN_SOURCE_DIR "/models/glm-nano/config.json", 10, &err),
                     QN_E_FORMAT);
    assert_int_equal(
        qn_json_load(&value, QN_SOURCE_DIR "/models/glm-nano/config.json", 1 << 20, &err), QN_OK);
    json_decref(value);
}

static void test_values_come_with_type_and_range_checked(void **state)
{
    (void)state;
    static const char text[] =
        "{\"i\": 8, \"r\": 8.0, \"e\": 8e0, \"h\": 8.5, \"n\": -1, \"b\": true,"
        " \"s\": \"word\", \"z\": null, \"o\": {}, \"big\": 1e300}";
    json_t *object = NULL;
    qn_error err = {0};
    uint64_t u = 0;
    double d = 0.0;
    bool b = false;
    assert_int_equal(qn_json_parse(&object, qn_str_of(text), "F", &err), QN_OK);
    static const char *const eights[] = {"i", "r", "e"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(qn_json_get_u64(&u, object, eights[i], 8, 8, "F", &err), QN_OK);
        assert_int_equal(u, 8);
    }
    static const struct {
        const char *key;
        const char *message;
    } bad[] = {
        {"h", "F: h: 8.5, an integer 1 to 9 expected"},
        {"n", "F: n: -1, an integer 1 to 9 expected"},
        {"s", "F: s: \"word\", an integer 1 to 9 expected"},
        {"z", "F: z: null, an integer 1 to 9 expected"},
        {"o", "F: o: an object, an integer 1 to 9 expected"},
        {"b", "F: b: true, an integer 1 to 9 expected"},
        {"absent", "F: absent: nothing, an integer 1 to 9 expected"},
        {"big", "F: big: 1e+300, an integer 1 to 9 expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(qn_json_get_u64(&u, object, bad[i].key, 1, 9, "F", &err), QN_E_FORMAT);
        assert_string_equal(err.text, bad[i].message);
    }
    assert_int_equal(qn_json_get_u64(&u, object, "i", 9, 20, "F", &err), QN_E_FORMAT);
    assert_int_equal(qn_json_get_u64(&u, object, "i", 1, 7, "F", &err), QN_E_FORMAT);
    assert_int_equal(qn_json_get_f64(&d, object, "h", 8.5, 8.5, "F", &err), QN_OK);
    assert_true(d == 8.5);
    assert_int_equal(qn_json_get_f64(&d, object, "i", 0, 10, "F", &err), QN_OK);
    assert_int_equal(qn_json_get_f64(&d, object, "i", 9, 10, "F", &err), QN_E_FORMAT);
    assert_int_equal(qn_json_get_f64(&d, object, "s", 9, 10, "F", &err), QN_E_FORMAT);
    assert_string_equal(err.text, "F: s: \"word\", a number 9 to 10 expected");
    assert_int_equal(qn_json_get_bool(&b, object, "b", "F", &err), QN_OK);
    assert_true(b);
    assert_int_equal(qn_json_get_bool(&b, object, "i", "F", &err), QN_E_FORMAT);
    assert_string_equal(err.text, "F: i: 8, true or false expected");
    json_decref(object);
}

static void test_what_is_none_is_no_figure_and_no_text(void **state)
{
    (void)state;
    json_t *const object = json_pack("{si, sf, ss, sn}", "i", 8, "f", 0.5, "s", "a", "n");
    assert_true(qn_json_number(object, "i") == 8.0);
    assert_true(qn_json_number(object, "f") == 0.5);
    assert_string_equal(qn_json_text(object, "s"), "a");
    static const char *const others[] = {"n", "nothing"};
    for (size_t i = 0; i < 2; i++) {
        assert_true(isnan(qn_json_number(object, others[i])));
        assert_string_equal(qn_json_text(object, others[i]), "");
    }
    assert_true(isnan(qn_json_number(object, "s")));
    assert_string_equal(qn_json_text(object, "i"), "");
    assert_true(isnan(qn_json_number(NULL, "i")));
    assert_string_equal(qn_json_text(NULL, "s"), "");
    json_decref(object);
}

/* Work is bounded by what real files need, not by the bytes that someone sends. */
static void test_too_many_values_are_refused(void **state)
{
    (void)state;
    const size_t n_bytes = 2 * ((size_t)QN_JSON_VALUES_MAX + 10);
    char *const text = malloc(n_bytes);
    assert_non_null(text);
    for (size_t i = 0; i < n_bytes; i += 2) {
        text[i] = i == 0 ? '[' : ',';
        text[i + 1] = '0';
    }
    json_t *value = NULL;
    qn_error err = {0};
    assert_int_equal(qn_json_parse(&value, (qn_str){text, n_bytes}, "F", &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "at most 1500000 values expected"));
    assert_null(value);
    const size_t n_good = 2 * ((size_t)QN_JSON_VALUES_MAX - 1); /* the list is one */
    text[n_good] = ']';
    assert_int_equal(qn_json_parse(&value, (qn_str){text, n_good + 1}, "F", &err), QN_OK);
    json_decref(value);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_json_is_refused_with_line_and_column),
        cmocka_unit_test(test_parsed_values_are_those_written),
        cmocka_unit_test(test_a_real_file_parses_as_jansson_parses_it),
        cmocka_unit_test(test_no_memory_is_not_bad_syntax),
        cmocka_unit_test(test_missing_file_is_not_found),
        cmocka_unit_test(test_values_come_with_type_and_range_checked),
        cmocka_unit_test(test_what_is_none_is_no_figure_and_no_text),
        cmocka_unit_test(test_too_many_values_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
