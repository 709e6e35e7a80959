/* SPDX-License-Identifier: Apache-2.0 */
/* What a tool's schema permits, and what the text of an argument means under it. */
#include "chat/schema.h"
#include "support/fail_each.h"

/* A tool "f" whose argument "x" has this schema; @p more stands beside "properties". */
static qn_chat_tools *open_with(const char *schema, const char *more)
{
    static char json[32768];
    qn_chat_tools *tools = NULL;
    qn_error err = {0};
    const int len = snprintf(json, sizeof json,
                             "[{\"type\": \"function\", \"function\": {\"name\": \"f\", "
                             "\"parameters\": {\"properties\": {\"x\": %s}%s}}}]",
                             schema, more);
    assert_true(len > 0 && (size_t)len < sizeof json);
    const qn_status status = qn_chat_tools_open(&tools, (qn_str){json, (size_t)len}, &err);
    if (status != QN_OK) {
        fail_msg("%s: %s", schema, err.text);
    }
    return tools;
}

static uint32_t kinds_with(const char *schema, const char *more)
{
    qn_chat_tools *tools = open_with(schema, more);
    const qn_json_node *const tool = qn_chat_tools_find(tools, qn_str_of("f"));
    assert_non_null(tool);
    const uint32_t kinds = qn_chat_tool_kinds(tool, qn_str_of("x"));
    qn_chat_tools_close(&tools);
    return kinds;
}

static void test_each_keyword_narrows_the_kinds(void **state)
{
    (void)state;
    enum { S = QN_CHAT_STRING, I = QN_CHAT_INTEGER, B = QN_CHAT_BOOLEAN, NUL = QN_CHAT_NULL };
    const struct {
        const char *schema;
        uint32_t kinds;
    } cases[] = {
        {"{\"type\": \"string\"}", S},
        {"{\"type\": \"integer\"}", I},
        {"{\"type\": \"number\"}", QN_CHAT_NUMBER},
        {"{\"type\": \"boolean\"}", B},
        {"{\"type\": \"array\"}", QN_CHAT_ARRAY},
        {"{\"type\": \"object\"}", QN_CHAT_OBJECT},
        {"{\"type\": \"null\"}", NUL},
        {"{\"type\": [\"string\", \"null\"]}", S | NUL},
        {"{\"type\": \"string\", \"nullable\": true}", S | NUL},
        {"{\"type\": \"string\", \"nullable\": false}", S},
        {"{\"enum\": [\"a\", 1, 1.5, true, null, [], {}]}", QN_CHAT_ANY},
        {"{\"enum\": [\"a\", 2.0]}", S | I},
        {"{\"enum\": [2.5]}", QN_CHAT_FRACTION},
        {"{\"const\": false}", B},
        {"{\"type\": \"number\", \"enum\": [1, 2]}", I},
        {"{\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}", S | NUL},
        {"{\"oneOf\": [{\"type\": \"integer\"}, {\"enum\": [\"auto\"]}]}", S | I},
        {"{\"allOf\": [{\"type\": [\"string\", \"integer\"]}, {\"type\": \"number\"}]}", I},
        {"{\"$ref\": \"#/$defs/a~1b~0\"}", B},
        {"{\"$ref\": \"#/$defs/again\"}", B},
        {"{\"anyOf\": [{\"$ref\": \"#/$defs/again\"}, {\"type\": \"string\"}]}", S | B},
    };
    static const char defs[] = ", \"$defs\": {\"a/b~\": {\"type\": \"boolean\"}, "
                               "\"again\": {\"$ref\": \"#/$defs/a~1b~0\"}}";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint32_t kinds = kinds_with(cases[i].schema, defs);
        if (kinds != cases[i].kinds) {
            fail_msg("%s: kinds %#x, %#x expected", cases[i].schema, kinds, cases[i].kinds);
        }
    }
}

static void test_what_says_nothing_permits_anything(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{}",
        "true",
        "{\"description\": \"no type\"}",
        "{\"type\": \"text\"}",
        "{\"type\": 5}",
        "{\"type\": []}",
        "{\"enum\": \"a\"}",
        "{\"anyOf\": {}}",
        "{\"allOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}",
        "{\"$ref\": \"https://example.org/schema\"}",
        "{\"$ref\": \"#/$defs/missing\"}",
        "{\"$ref\": \"#name\"}",
        "{\"$ref\": \"#\\/$defs\"}",
        "{\"$ref\": 1}",
        "{\"$ref\": \"\"}",
    };
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        if (kinds_with(schemas[i], "") != QN_CHAT_ANY) {
            fail_msg("%s: anything expected", schemas[i]);
        }
    }
    qn_chat_tools *tools = open_with("{\"type\": \"string\"}", "");
    const qn_json_node *const tool = qn_chat_tools_find(tools, qn_str_of("f"));
    assert_int_equal(qn_chat_tool_kinds(tool, qn_str_of("y")), QN_CHAT_ANY);
    assert_int_equal(qn_chat_tool_kinds(tool, (qn_str){0}), QN_CHAT_ANY);
    assert_int_equal(qn_chat_tool_kinds(NULL, qn_str_of("x")), QN_CHAT_ANY);
    qn_chat_tools_close(&tools);
}

static void append(qn_buf *out, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(qn_buf_append(out, text, strlen(text), NULL), QN_OK);
    }
}

/* @p n times @p before, @p middle, @p n times @p after. */
static uint32_t kinds_repeated(size_t n, const char *before, const char *middle, const char *after)
{
    qn_buf schema;
    qn_buf_init(&schema, SIZE_MAX / 2);
    append(&schema, n, before);
    append(&schema, 1, middle);
    append(&schema, n, after);
    const uint32_t kinds = kinds_with(schema.ptr, "");
    qn_buf_deinit(&schema);
    return kinds;
}

/* A list of @p n times @p each behind @p first. */
static uint32_t kinds_listed(const char *keyword, const char *first, size_t n, const char *each)
{
    qn_buf schema;
    qn_buf_init(&schema, SIZE_MAX / 2);
    assert_int_equal(qn_buf_append_printf(&schema, NULL, "{\"%s\": [%s", keyword, first), QN_OK);
    append(&schema, n, each);
    append(&schema, 1, "]}");
    const uint32_t kinds = kinds_with(schema.ptr, "");
    qn_buf_deinit(&schema);
    return kinds;
}

static void test_beyond_its_limits_a_schema_permits_anything(void **state)
{
    (void)state;
    static const char string[] = "{\"type\": \"string\"}";
    enum { BOTH = QN_CHAT_STRING | QN_CHAT_INTEGER };
    assert_int_equal(kinds_repeated(60, "{\"anyOf\": [", string, "]}"), QN_CHAT_STRING);
    assert_int_equal(kinds_repeated(70, "{\"anyOf\": [", string, "]}"), QN_CHAT_ANY);
    assert_int_equal(kinds_listed("enum", "\"\"", 9000, ",1"), BOTH);
    assert_int_equal(kinds_listed("enum", "\"\"", 11000, ",1"), QN_CHAT_ANY);
}

static void test_schemas_beside_each_other_are_no_nesting(void **state)
{
    (void)state;
    assert_int_equal(kinds_listed("anyOf", "{\"const\": 1}", 100, ", {\"const\": 1}"),
                     QN_CHAT_INTEGER);
}

static void test_a_reference_has_a_longest_key(void **state)
{
    (void)state;
    for (int n = 255; n <= 256; n++) {
        char ref[600];
        char defs[600];
        (void)snprintf(ref, sizeof ref, "{\"$ref\": \"#/$defs/%0*d\"}", n, 5);
        (void)snprintf(defs, sizeof defs, ", \"$defs\": {\"%0*d\": {\"type\": \"null\"}}", n, 5);
        assert_int_equal(kinds_with(ref, defs), n == 255 ? QN_CHAT_NULL : QN_CHAT_ANY);
    }
}

/* Time is bounded: without a limit the second one would take 2^64 steps. */
static void test_circles_of_references_end(void **state)
{
    (void)state;
    static const char *const defs[] = {
        ", \"$defs\": {\"a\": {\"$ref\": \"#/$defs/a\"}}",
        ", \"$defs\": {\"a\": {\"allOf\": [{\"$ref\": \"#/$defs/a\"}, {\"$ref\": \"#/$defs/a\"}]}}",
        ", \"$defs\": {\"a\": {\"$ref\": \"#\"}}, \"anyOf\": [{\"$ref\": \"#/$defs/a\"}]",
    };
    for (size_t i = 0; i < sizeof defs / sizeof *defs; i++) {
        assert_int_equal(kinds_with("{\"$ref\": \"#/$defs/a\"}", defs[i]), QN_CHAT_ANY);
    }
}

enum {
    S = QN_CHAT_STRING,
    I = QN_CHAT_INTEGER,
    N = QN_CHAT_NUMBER,
    B = QN_CHAT_BOOLEAN,
    NUL = QN_CHAT_NULL,
    A = QN_CHAT_ARRAY,
    O = QN_CHAT_OBJECT,
    ANY = QN_CHAT_ANY,
};
enum { JSON, STRING, BAD_JSON, BAD_STRING };
static const struct {
    const char *written;
    uint32_t kinds;
    int expected;
    const char *text;
} values[] = {
    {"5", S, STRING, "5"},
    {" 5 ", S, STRING, " 5 "},
    {"null", S, STRING, "null"},
    {"5", I, JSON, "5"},
    {"\n 5\t", I, JSON, "5"},
    {"5.0", I, JSON, "5.0"},
    {"-50e-1", I, JSON, "-50e-1"},
    {"0.000e5", I, JSON, "0.000e5"},
    {"0.000e-5", I, JSON, "0.000e-5"},
    {"1.5E+1", I, JSON, "1.5E+1"},
    {"1e400", I, JSON, "1e400"},
    {"1e99999999999999999999", I, JSON, "1e99999999999999999999"},
    {"1e-99999999999999999999", N, JSON, "1e-99999999999999999999"},
    {"1e-99999999999999999999", I, BAD_JSON, "1e-99999999999999999999"},
    {"5.5", I, BAD_JSON, "5.5"},
    {"1.25e1", I, BAD_JSON, "1.25e1"},
    {"55e-1", I, BAD_JSON, "55e-1"},
    {"0.1", N, JSON, "0.1"},
    {"18446744073709551616", N, JSON, "18446744073709551616"},
    {"05", N, BAD_STRING, "05"},
    {"five", N, BAD_STRING, "five"},
    {"\"5\"", N, BAD_JSON, "\"5\""},
    {"", N, BAD_STRING, ""},
    {"true", B, JSON, "true"},
    {"True", B, JSON, "true"},
    {" False", B, JSON, "false"},
    {"None", NUL, JSON, "null"},
    {"None", B, BAD_STRING, "None"},
    {"None", S | NUL, STRING, "None"},
    {"null", S | NUL, JSON, "null"},
    {"True", S | NUL, STRING, "True"},
    {"TRUE", B, BAD_STRING, "TRUE"},
    {"[1, {\"a\": 0.10}]", A, JSON, "[1, {\"a\": 0.10}]"},
    {"[1, 2", A, BAD_STRING, "[1, 2"},
    {"[1] [2]", A, BAD_STRING, "[1] [2]"},
    {"{}", O, JSON, "{}"},
    {"{}", A, BAD_JSON, "{}"},
    {"{}", A | S, STRING, "{}"},
    {"{'a': 1}", ANY, STRING, "{'a': 1}"},
    {"[1]", ANY, JSON, "[1]"},
    {"\"quoted\"", ANY, STRING, "\"quoted\""},
    {"plain words", ANY, STRING, "plain words"},
    {"5", S | I, JSON, "5"},
    {"5.5", S | I, STRING, "5.5"},
    {"[\"\n\"]", A, BAD_STRING, "[\"\n\"]"},
};

static void test_text_means_what_the_kinds_permit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const qn_chat_value value =
            qn_chat_value_read(qn_str_of(values[i].written), values[i].kinds);
        const int seen = (value.is_json ? JSON : STRING) + (value.fits ? 0 : BAD_JSON);
        if (seen != values[i].expected || !qn_str_equal(value.text, qn_str_of(values[i].text))) {
            fail_msg("'%s' under %#x: %d '%.*s', %d '%s' expected", values[i].written,
                     values[i].kinds, seen, (int)value.text.len, value.text.ptr, values[i].expected,
                     values[i].text);
        }
    }
}

static void test_kinds_are_listed_for_a_message(void **state)
{
    (void)state;
    const struct {
        uint32_t kinds;
        const char *text;
    } cases[] = {
        {QN_CHAT_INTEGER, "integer"},
        {QN_CHAT_NUMBER, "number"},
        {QN_CHAT_FRACTION, "number"},
        {QN_CHAT_NUMBER | QN_CHAT_NULL, "number or null"},
        {QN_CHAT_ANY, "string or number or boolean or array or object or null"},
    };
    char text[96];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_kinds_show(text, sizeof text, cases[i].kinds);
        assert_string_equal(text, cases[i].text);
    }
    char little[8];
    qn_chat_kinds_show(little, sizeof little, QN_CHAT_ANY);
    assert_string_equal(little, "string ");
}

static void test_a_tool_is_found_in_each_form(void **state)
{
    (void)state;
    static const char json[] = "[{\"name\": \"flat\"}, {\"function\": {\"name\": \"caf\\u00e9\", "
                               "\"parameters\": null}}]";
    qn_chat_tools *tools = NULL;
    qn_error err = {0};
    assert_int_equal(qn_chat_tools_open(&tools, qn_str_of(json), &err), QN_OK);
    assert_non_null(qn_chat_tools_find(tools, qn_str_of("flat")));
    assert_non_null(qn_chat_tools_find(tools, qn_str_of("café")));
    assert_null(qn_chat_tools_find(tools, qn_str_of("fla")));
    assert_null(qn_chat_tools_find(tools, (qn_str){0}));
    qn_chat_tools_close(&tools);
    assert_null(tools);
    qn_chat_tools_close(&tools);
    qn_chat_tools_close(NULL);
    assert_int_equal(qn_chat_tools_open(&tools, qn_str_of("[]"), &err), QN_OK);
    assert_null(qn_chat_tools_find(tools, qn_str_of("flat")));
    qn_chat_tools_close(&tools);
}

static void test_an_error_names_the_tool_and_the_field(void **state)
{
    (void)state;
    const struct {
        const char *json;
        const char *expected;
    } cases[] = {
        {"", "tools: line 1, column 1: the end, a value expected"},
        {"[{\"name\": \"f\"}, {}]", "tools[1].name: nothing, expected the name of a function"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_tools *tools = (qn_chat_tools *)(uintptr_t)1;
        qn_error err = {0};
        assert_int_equal(qn_chat_tools_open(&tools, qn_str_of(cases[i].json), &err), QN_E_FORMAT);
        assert_string_equal(err.text, cases[i].expected);
        assert_null(tools);
    }
}

static qn_status open_once(qn_error *err)
{
    qn_chat_tools *tools = NULL;
    const qn_status status = qn_chat_tools_open(
        &tools, qn_str_of("[{\"name\": \"f\", \"parameters\": {\"properties\": {}}}]"), err);
    qn_chat_tools_close(&tools);
    return status;
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(open_once, 1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_keyword_narrows_the_kinds),
        cmocka_unit_test(test_what_says_nothing_permits_anything),
        cmocka_unit_test(test_beyond_its_limits_a_schema_permits_anything),
        cmocka_unit_test(test_schemas_beside_each_other_are_no_nesting),
        cmocka_unit_test(test_a_reference_has_a_longest_key),
        cmocka_unit_test(test_circles_of_references_end),
        cmocka_unit_test(test_text_means_what_the_kinds_permit),
        cmocka_unit_test(test_kinds_are_listed_for_a_message),
        cmocka_unit_test(test_a_tool_is_found_in_each_form),
        cmocka_unit_test(test_an_error_names_the_tool_and_the_field),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
