/* SPDX-License-Identifier: Apache-2.0 */
/* 5,000 strings against Hugging Face's tokenizers (tools/golden/make_tokenizer_golden.py). */
#include "fixture.h"

enum { N_STRINGS = 5000 };

static qn_buf read_file(const char *name)
{
    char path[512];
    qn_buf bytes;
    qn_error err = {0};
    qn_buf_init(&bytes, 1 << 20);
    (void)snprintf(path, sizeof path, QN_SOURCE_DIR "/tests/golden/tokenizer/%s", name);
    must(qn_file_read(&bytes, path, &err), &err);
    return bytes;
}

static uint32_t read_u32(const qn_buf *file, size_t at)
{
    uint32_t value;
    assert_true(at + sizeof value <= file->len);
    memcpy(&value, file->ptr + at, sizeof value);
    return value;
}

static uint32_t fnv32(const qn_ids *ids)
{
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < 4 * ids->n_ids; i++) {
        hash = (hash ^ ((const uint8_t *)ids->ids)[i]) * 16777619U;
    }
    return hash;
}

static void expect_hash(const qn_tokenizer *tokenizer, size_t i, qn_str text, uint32_t expected)
{
    qn_ids ids = encode(tokenizer, text, QN_ADDED_MATCH);
    if (fnv32(&ids) != expected) {
        char shown[128];
        (void)snprintf(shown, sizeof shown, "%.*s", (int)text.len, text.ptr);
        qn_text_clean(shown);
        fail_msg("string %zu (\"%s\"): %zu ids with hash %08x, expected %08x", i, shown, ids.n_ids,
                 fnv32(&ids), expected);
    }
    qn_ids_deinit(&ids);
}

/* What the ids decode to is the text, made valid. */
static void expect_round_trip(const qn_tokenizer *tokenizer, qn_str text)
{
    qn_error err = {0};
    qn_utf8_stream stream = {0};
    qn_ids ids = encode(tokenizer, text, QN_ADDED_MATCH);
    char *valid = malloc(QN_UTF8_GROWTH * text.len + 24);
    assert_non_null(valid);
    size_t n = qn_utf8_stream_feed(&stream, text.ptr, text.len, valid);
    n += qn_utf8_stream_end(&stream, valid + n);
    qn_buf back;
    qn_buf_init(&back, 1 << 20);
    for (size_t i = 0; i < ids.n_ids; i++) {
        const qn_str bytes = qn_tokenizer_bytes(tokenizer, ids.ids[i]);
        must(qn_buf_append(&back, bytes.ptr, bytes.len, &err), &err);
    }
    assert_true(qn_str_equal(qn_buf_view(&back), (qn_str){valid, n}));
    qn_buf_deinit(&back);
    qn_ids_deinit(&ids);
    free(valid);
}

static void compare(const char *path, const char *hashes_name)
{
    qn_tokenizer *tokenizer = open_file(path);
    qn_buf strings = read_file("strings.bin");
    qn_buf hashes = read_file(hashes_name);
    size_t at = 0;
    assert_int_equal(hashes.len, 4 * N_STRINGS);
    for (size_t i = 0; i < N_STRINGS; i++) {
        const uint32_t len = read_u32(&strings, at);
        const qn_str text = {strings.ptr + at + 4, len};
        assert_true(at + 4 + len <= strings.len);
        expect_hash(tokenizer, i, text, read_u32(&hashes, 4 * i));
        expect_round_trip(tokenizer, text);
        at += 4 + len;
    }
    assert_int_equal(at, strings.len);
    qn_buf_deinit(&strings);
    qn_buf_deinit(&hashes);
    qn_tokenizer_close(&tokenizer);
}

static void test_nano_equals_hugging_face_on_every_string(void **state)
{
    (void)state;
    compare(NANO, "nano.hashes");
}

/* ignore_merges, and merges written as "a b". */
static void test_another_build_equals_hugging_face_on_every_string(void **state)
{
    (void)state;
    compare(SMALL, "small.hashes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nano_equals_hugging_face_on_every_string),
        cmocka_unit_test(test_another_build_equals_hugging_face_on_every_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
