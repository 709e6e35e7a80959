/* SPDX-License-Identifier: Apache-2.0 */
/** @file fixture.h  Tokenizers and texts that the tests of this folder share. */
#ifndef QN_TEST_TOKENIZER_FIXTURE_H
#define QN_TEST_TOKENIZER_FIXTURE_H
#include "base/file.h"
#include "base/json.h"
#include "support/unit.h"
#include "tokenizer/tokenizer.h"

#define NANO  QN_SOURCE_DIR "/models/glm-nano/tokenizer.json"
#define SMALL QN_SOURCE_DIR "/tests/golden/tokenizer/small.json"

static inline void must(qn_status status, const qn_error *err)
{
    if (status != QN_OK) {
        fail_msg("%s", err->text);
    }
}

static inline qn_tokenizer *open_file(const char *path)
{
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {0};
    must(qn_tokenizer_open_file(&tokenizer, path, &err), &err);
    return tokenizer;
}

/** Open the JSON of @p root, which is released. */
static inline qn_status open_json(qn_tokenizer **out, json_t *root, qn_error *err)
{
    char *text = json_dumps(root, JSON_COMPACT);
    assert_non_null(text);
    const qn_status status = qn_tokenizer_open(out, qn_str_of(text), "F", err);
    free(text);
    json_decref(root);
    return status;
}

static inline json_t *load_small(void)
{
    json_t *root = NULL;
    qn_error err = {0};
    must(qn_json_load(&root, SMALL, 1 << 20, &err), &err);
    return root;
}

/**
 * Set or, with NULL, delete the value at a path such as "model.merges.0"; a list grows by one when
 * the place is its end.
 */
static inline void set_at(json_t *root, const char *path, const char *text)
{
    char copy[128];
    char *rest = NULL;
    json_t *value = text == NULL ? NULL : json_loads(text, JSON_DECODE_ANY, NULL);
    assert_true((text == NULL) == (value == NULL));
    (void)snprintf(copy, sizeof copy, "%s", path);
    char *key = strtok_r(copy, ".", &rest);
    for (char *next; (next = strtok_r(NULL, ".", &rest)) != NULL; key = next) {
        root = json_is_array(root) ? json_array_get(root, strtoul(key, NULL, 10))
                                   : json_object_get(root, key);
    }
    if (json_is_array(root)) {
        const size_t i = strtoul(key, NULL, 10);
        assert_int_equal(i == json_array_size(root) ? json_array_append_new(root, value)
                                                    : json_array_set_new(root, i, value),
                         0);
    } else if (value == NULL) {
        assert_int_equal(json_object_del(root, key), 0);
    } else {
        assert_int_equal(json_object_set_new(root, key, value), 0);
    }
}

static inline qn_ids encode(const qn_tokenizer *tokenizer, qn_str text, qn_added_tokens added)
{
    qn_ids ids = {0};
    qn_error err = {0};
    must(qn_tokenizer_encode(tokenizer, text, added, &ids, &err), &err);
    return ids;
}

/** The tokens of a text, joined by '|'; owned by the caller. */
static inline char *pieces(const qn_tokenizer *tokenizer, const char *text, qn_added_tokens added)
{
    qn_buf out;
    qn_error err = {0};
    qn_ids ids = encode(tokenizer, qn_str_of(text), added);
    qn_buf_init(&out, 1 << 20);
    for (size_t i = 0; i < ids.n_ids; i++) {
        const qn_str bytes = qn_tokenizer_bytes(tokenizer, ids.ids[i]);
        must(qn_buf_append(&out, "|", i > 0 ? 1 : 0, &err), &err);
        must(qn_buf_append(&out, bytes.ptr, bytes.len, &err), &err);
    }
    must(qn_buf_append(&out, "", 0, &err), &err);
    qn_ids_deinit(&ids);
    return out.ptr;
}

static inline void expect_pieces(const qn_tokenizer *tokenizer, const char *text,
                                 qn_added_tokens added, const char *expected)
{
    char *seen = pieces(tokenizer, text, added);
    assert_string_equal(seen, expected);
    free(seen);
}
#endif
