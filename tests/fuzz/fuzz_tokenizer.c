/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a tokenizer.json: what opens encodes a text to ids of its own, and none are lost. */
#include "base/assert.h"
#include "tokenizer/tokenizer.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static const char text[] =
    "It's 12345 <|user|> naïve\u00a0東京 \xf0\x9f\x98\x80 \xff\r\n\n  aaaa bb.";

/* As text, the bytes of the ids are those of the text, made valid. */
static void check(const qn_tokenizer *tokenizer, qn_added_tokens added)
{
    qn_ids ids = {0};
    qn_error err = {0};
    char valid[QN_UTF8_GROWTH * sizeof text + 24];
    qn_utf8_stream stream = {0};
    size_t n_valid = qn_utf8_stream_feed(&stream, text, strlen(text), valid);
    n_valid += qn_utf8_stream_end(&stream, valid + n_valid);
    const qn_status status =
        qn_tokenizer_encode(tokenizer, (qn_str){text, strlen(text)}, added, &ids, &err);
    size_t at = 0;
    for (size_t i = 0; i < ids.n_ids && status == QN_OK; i++) {
        const qn_str bytes = qn_tokenizer_bytes(tokenizer, ids.ids[i]);
        QN_ASSERT(ids.ids[i] >= 0 && (uint32_t)ids.ids[i] < qn_tokenizer_size(tokenizer));
        QN_ASSERT(at + bytes.len <= n_valid && memcmp(valid + at, bytes.ptr, bytes.len) == 0);
        at += bytes.len;
    }
    QN_ASSERT(status == QN_OK ? at == n_valid : err.text[0] != '\0');
    qn_ids_deinit(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {0};
    const qn_status status = qn_tokenizer_open(&tokenizer, (qn_str){exact, n_bytes}, "F", &err);
    free(exact); /* nothing of it is kept */
    QN_ASSERT((tokenizer != NULL) == (status == QN_OK));
    if (status == QN_OK) {
        check(tokenizer, QN_ADDED_MATCH);
        check(tokenizer, QN_ADDED_AS_TEXT);
    } else {
        QN_ASSERT(err.text[0] != '\0');
    }
    qn_tokenizer_close(&tokenizer);
    return 0;
}
