/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json files that are refused, and forms that are read. */
#include "fixture.h"

typedef struct change {
    const char *path;
    const char *value; /* JSON; NULL deletes */
    const char *message;
} change;

#define ADDED(more) "[{\"id\": 902, \"content\": \"<x>\"" more "}]"
#define SPLIT       "pre_tokenizer.pretokenizers.0."
#define LEVEL       "pre_tokenizer.pretokenizers.1."
#define REGEX       SPLIT "pattern.Regex"

static void expect_refused(const change *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        qn_tokenizer *tokenizer = NULL;
        qn_error err = {0};
        json_t *root = load_small();
        set_at(root, cases[i].path, cases[i].value);
        const qn_status status = open_json(&tokenizer, root, &err);
        assert_null(tokenizer);
        if (status != QN_E_FORMAT || strstr(err.text, cases[i].message) == NULL) {
            fail_msg("%s: seen: %s, expected: %s", cases[i].path, err.text, cases[i].message);
        }
    }
}

static void test_pipelines_that_would_tokenize_otherwise_are_refused_by_name(void **state)
{
    (void)state;
    static const change cases[] = {
        {"normalizer", "{\"type\": \"NFC\"}", "F: normalizer: \"NFC\", expected null"},
        {"decoder", "{\"type\": \"WordPiece\"}", "decoder: \"WordPiece\", expected ByteLevel"},
        {"pre_tokenizer", NULL, "pre_tokenizer: nothing, expected a Sequence"},
        {"pre_tokenizer", "{\"type\": \"ByteLevel\"}",
         "pre_tokenizer: \"ByteLevel\", expected a S"},
        {SPLIT "behavior", "\"Removed\"", "Split.behavior: \"Removed\", expected \"Isolated\""},
        {SPLIT "invert", "true", "Split.invert: true, expected false"},
        {SPLIT "pattern", "{\"String\": \"a\"}", "Split.pattern: nothing, expected a Regex"},
        {LEVEL "use_regex", "true", "ByteLevel.use_regex: true, expected false"},
        {LEVEL "use_regex", NULL, "ByteLevel.use_regex: nothing, expected false"},
        {LEVEL "add_prefix_space", "true", "ByteLevel.add_prefix_space: true, expected false"},
        {"model.type", "\"WordPiece\"", "model.type: \"WordPiece\", expected \"BPE\""},
        {"model.dropout", "0.1", "model.dropout: 0.1, expected null"},
        {"model.unk_token", "\"<unk>\"", "model.unk_token: \"<unk>\", expected null"},
        {"model.continuing_subword_prefix", "\"##\"", "model.continuing_subword_prefix: \"##\""},
        {"model.end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix: \"</w>\""},
        {"model.byte_fallback", "true", "model.byte_fallback: true, expected false"},
        {"model.ignore_merges", "1", "model.ignore_merges: 1, expected true or false"},
    };
    expect_refused(cases, sizeof cases / sizeof *cases);
}

static void test_wrong_vocabularies_and_merges_name_the_place(void **state)
{
    (void)state;
    static const change cases[] = {
        {"model", "[]", "model.type: nothing"},
        {"model.vocab", "[]", "model.vocab: a list, expected an object"},
        {"model.vocab.a", "0", "model.vocab: id 0 twice"},
        {"model.vocab.a", "-1",
         "model.vocab[\"a\"]: -1, expected tokens with text and with ids below"},
        {"model.vocab.a", "1e4", "model.vocab[\"a\"]: 10000.0, expected"},
        {"model.vocab.a", "\"1\"", "model.vocab[\"a\"]: \"1\", expected"},
        {"model.vocab.a", "100000", "model.vocab[\"a\"]: 100000, expected"},
        {"model.vocab.Ā", NULL, "no token for byte 0x00, expected one for each byte"},
        {"model.merges", "{}", "model.merges: an object, expected a list"},
        {"model.merges.3", "\"ab\"", "model.merges[3]: \"ab\", expected a pair"},
        {"model.merges.3", "[\"a\"]", "model.merges[3]: a list, expected a pair"},
        {"model.merges.3", "[\"a\", 1]", "model.merges[3]: a list, expected a pair"},
        {"model.merges.3", "\"a nonsense\"",
         "model.merges[3]: \"a\" and \"nonsense\", expected both"},
        {"model.merges.3", "\"nonsense a\"", "model.merges[3]: \"nonsense\" and \"a\", expected"},
        {"model.merges.3", "\"Q Q\"", "model.merges[3]: \"Q\" and \"Q\", expected both"},
    };
    expect_refused(cases, sizeof cases / sizeof *cases);
}

static void test_wrong_added_tokens_name_the_place(void **state)
{
    (void)state;
    static const change cases[] = {
        {"added_tokens", "{}", "added_tokens: an object, expected a list"},
        {"added_tokens", "[7]", "added_tokens[0]: id nothing, content \"\", expected a text and"},
        {"added_tokens", "[{\"id\": 902}]",
         "added_tokens[0]: id 902, content \"\", expected a text"},
        {"added_tokens", "[{\"id\": 902, \"content\": \"\"}]", "added_tokens[0]: id 902,"},
        {"added_tokens", "[{\"content\": \"<x>\"}]",
         "added_tokens[0]: id nothing, content \"<x>\""},
        {"added_tokens", "[{\"id\": 16777216, \"content\": \"<x>\"}]", "added_tokens[0]"},
        {"added_tokens", "[{\"id\": 5, \"content\": \"<x>\"}]", "id 5 of \"<x>\" is another"},
        {"added_tokens", "[{\"id\": 902, \"content\": \"a\"}]", "id 902 of \"a\" is another"},
        {"added_tokens", ADDED(", \"lstrip\": true"), "added_tokens[0].lstrip: true, expected f"},
        {"added_tokens", ADDED(", \"rstrip\": true"), "added_tokens[0].rstrip: true, expected f"},
        {"added_tokens", ADDED(", \"single_word\": true"), "added_tokens[0].single_word: true"},
        {"added_tokens", ADDED(", \"special\": 1"), "added_tokens[0].special: 1, expected true"},
        {"added_tokens", ADDED(", \"normalized\": 1"), "added_tokens[0].normalized: 1, expected"},
        {"added_tokens",
         "[{\"id\": 902, \"content\": \"<x>\"}, {\"id\": 902, \"content\": \"<y>\"}]",
         "added_tokens[1]: id 902 of \"<y>\" is another token's"},
    };
    expect_refused(cases, sizeof cases / sizeof *cases);
}

static void test_patterns_that_pcre2_would_read_otherwise_are_refused(void **state)
{
    (void)state;
    static const change cases[] = {
        {REGEX, "\"\"", "pattern: 0 bytes, expected 1 to 1024"},
        {REGEX, "\"\\\\h+\"", "pattern: \"\\h+\" at byte 0, expected only"},
        {REGEX, "\"a\\\\\"", "pattern: \"\\\" at byte 1"},
        {REGEX, "\"\\\\p{Lu}\"", "pattern: \"\\p{Lu}\" at byte 0"},
        {REGEX, "\"[a\\\\S]\"", "pattern: \"\\S]\" at byte 2"},
        {REGEX, "\"\\\\C\"", "pattern: \"\\C\" at byte 0"},
        {REGEX, "\"a\\\\Kb\"", "pattern: \"\\Kb\" at byte 1"},
        {REGEX, "\"a{,3}\"", "pattern: \"{,3}\" at byte 1"},
        {REGEX, "\"[[:alpha:]]\"", "pattern: \"[:alpha:\" at byte 1"},
        {REGEX, "\"[]a]\"", "pattern: \"[]a]\" at byte 0"},
        {REGEX, "\"[^]a]\"", "pattern: \"[^]a]\" at byte 0"},
        {REGEX, "\"[a&&b]\"", "pattern: \"&&b]\" at byte 2"},
        {REGEX, "\"^a\"", "pattern: \"^a\" at byte 0"},
        {REGEX, "\"a$\"", "pattern: \"$\" at byte 1"},
        {REGEX, "\"a{2}+\"", "pattern: \"}+\" at byte 3"},
        {REGEX, "\"(?m:a)\"", "pattern: \"(?m:a)\" at byte 0"},
        {REGEX, "\"(?i:'sT)\"", "pattern: \"(?i:'sT)\" at byte 0"},
        {REGEX, "\"(?i:fl)\"", "pattern: \"(?i:fl)\" at byte 0"},
        {REGEX, "\"(?i:é)\"", "pattern: \"(?i:é)\" at byte 0"},
        {REGEX, "\"(?i:a+)\"", "pattern: \"(?i:a+)\" at byte 0"},
        {REGEX, "\"(?i:a\"", "pattern: \"(?i:a\" at byte 0"},
        {REGEX, "\"(*ACCEPT)\"", "pattern: \"(*ACCEPT\" at byte 0"},
        {REGEX, "\"(a\"", "missing closing parenthesis"},
    };
    expect_refused(cases, sizeof cases / sizeof *cases);
}

static void test_a_pattern_that_is_too_long_is_refused(void **state)
{
    (void)state;
    char text[1100];
    const change longer = {REGEX, text, "pattern: 1097 bytes, expected 1 to 1024"};
    memset(text, 'a', sizeof text);
    text[0] = '"';
    text[sizeof text - 2] = '"';
    text[sizeof text - 1] = '\0';
    expect_refused(&longer, 1);
}

static void test_what_is_no_tokenizer_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"", "F: line 1"},
        {"[]", "F: file: a list, expected an object"},
        {"{}", "F: model.type: nothing, expected \"BPE\""},
    };
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(qn_tokenizer_open(&tokenizer, qn_str_of(cases[i].text), "F", &err),
                         QN_E_FORMAT);
        assert_null(tokenizer);
        assert_non_null(strstr(err.text, cases[i].message));
    }
    assert_int_equal(qn_tokenizer_open_file(&tokenizer, "/nowhere/tokenizer.json", &err),
                     QN_E_NOT_FOUND);
    assert_null(tokenizer);
    qn_tokenizer_close(&tokenizer); /* nothing: allowed */
}

/* Both forms of merges, and settings without influence on prompts. */
static void test_equal_forms_give_equal_ids(void **state)
{
    (void)state;
    static const char text[] = "The Paris of Parisxyz and then some straße!";
    qn_error err = {0};
    json_t *root = load_small();
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *pair = json_string_value(json_array_get(merges, i));
        const char *blank = strchr(pair, ' ');
        assert_int_equal(
            json_array_set_new(merges, i, json_pack("[s%s]", pair, (int)(blank - pair), blank + 1)),
            0);
    }
    set_at(root, "truncation", "{\"max_length\": 2}");
    set_at(root, "post_processor", "{\"type\": \"TemplateProcessing\"}");
    set_at(root, "added_tokens", "null");
    set_at(root, "decoder", "null");
    qn_tokenizer *pairs = NULL;
    must(open_json(&pairs, root, &err), &err);
    qn_tokenizer *small = open_file(SMALL);
    qn_ids a = encode(pairs, qn_str_of(text), QN_ADDED_MATCH);
    qn_ids b = encode(small, qn_str_of(text), QN_ADDED_MATCH);
    assert_int_equal(a.n_ids, b.n_ids);
    assert_memory_equal(a.ids, b.ids, 4 * a.n_ids);
    qn_ids_deinit(&a);
    qn_ids_deinit(&b);
    qn_tokenizer_close(&pairs);
    qn_tokenizer_close(&small);
}

static void test_ids_have_bytes_and_flags(void **state)
{
    (void)state;
    qn_tokenizer *nano = open_file(NANO);
    const int32_t user = qn_tokenizer_added_id(nano, qn_str_of("<|user|>"));
    assert_int_equal(qn_tokenizer_size(nano), 6132);
    assert_int_equal(user, 6119);
    assert_true(qn_tokenizer_is_added(nano, user) && qn_tokenizer_is_special(nano, user));
    assert_true(qn_str_equal(qn_tokenizer_bytes(nano, user), qn_str_of("<|user|>")));
    assert_int_equal(qn_tokenizer_added_id(nano, qn_str_of("<|nobody|>")), -1);
    for (int32_t id = 0; id < 6112; id++) {
        assert_true(qn_tokenizer_bytes(nano, id).len > 0);
        assert_false(qn_tokenizer_is_added(nano, id) || qn_tokenizer_is_special(nano, id));
    }
    for (size_t i = 0; i < 3; i++) {
        const int32_t none = (const int32_t[]){-1, 6132, INT32_MAX}[i];
        assert_int_equal(qn_tokenizer_bytes(nano, none).len, 0);
        assert_false(qn_tokenizer_is_added(nano, none) || qn_tokenizer_is_special(nano, none));
    }
    qn_tokenizer_close(&nano);
    assert_null(nano);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipelines_that_would_tokenize_otherwise_are_refused_by_name),
        cmocka_unit_test(test_wrong_vocabularies_and_merges_name_the_place),
        cmocka_unit_test(test_wrong_added_tokens_name_the_place),
        cmocka_unit_test(test_patterns_that_pcre2_would_read_otherwise_are_refused),
        cmocka_unit_test(test_a_pattern_that_is_too_long_is_refused),
        cmocka_unit_test(test_what_is_no_tokenizer_is_refused),
        cmocka_unit_test(test_equal_forms_give_equal_ids),
        cmocka_unit_test(test_ids_have_bytes_and_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
