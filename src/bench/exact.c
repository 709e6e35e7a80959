/* SPDX-License-Identifier: Apache-2.0 */
#include "exact.h"

#include "base/assert.h"
#include "base/rng.h"
#include "base/try.h"
#include "words.h"

#include <errno.h>
#include <stdlib.h>

enum { N_TRIES = 8, N_FIRST_CHECKED = 16, CHECKED_EVERY = 16 };

struct bench_exact {
    bench_tokens *tokens; /* borrowed; NULL: ids without a tokenizer */
    bench_words *words;   /* NULL: ids */
    int32_t *ids;         /* [n_ids] */
    uint32_t n_ids;
    uint64_t seed, salt, shared_salt;
    uint64_t n_texts, n_joined; /* made or seen so far */
    bool is_doubtful;           /* a sum of words was wrong: all are counted */
    uint32_t n_before;          /* tokens of what stands before a text that goes on */
};

/* Stands before a text that goes on, when it is counted: they all end so. */
static const char before[] = "The river.";

qn_status bench_exact_open(bench_exact **out, bench_tokens *tokens, bool sends_ids, uint64_t seed,
                           uint64_t salt, uint64_t shared_salt, qn_error *err)
{
    qn_status status = QN_OK;
    bench_exact *e = calloc(1, sizeof *e);
    *out = NULL;
    QN_ASSERT(tokens != NULL || sends_ids);
    if (e == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "workload: no memory");
    }
    e->tokens = tokens;
    e->seed = seed;
    e->salt = salt;
    e->shared_salt = shared_salt;
    if (sends_ids) {
        QN_TRY(status, bench_tokens_ids(&e->ids, &e->n_ids, tokens, err), fail);
    } else {
        QN_TRY(status, bench_words_open(&e->words, tokens, err), fail);
        QN_TRY(status, bench_tokens_count(&e->n_before, tokens, before, strlen(before), err), fail);
    }
    *out = e;
    return QN_OK;

fail:
    bench_exact_close(&e);
    return status;
}

void bench_exact_close(bench_exact **exact)
{
    bench_exact *const e = *exact;
    if (e != NULL) {
        bench_words_close(&e->words);
        free(e->ids);
        free(e);
        *exact = NULL;
    }
}

/* The first id alone tells texts apart, as far as there are ids. */
static qn_status append_ids(qn_buf *out, const bench_exact *e, uint64_t key, uint64_t i_text,
                            bool is_begun, uint32_t n_tokens, qn_error *err)
{
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < n_tokens && status == QN_OK; i++) {
        const uint64_t at = i == 0 ? key % e->n_ids + i_text : qn_rng_u64(key, i_text, i);
        status = qn_buf_append_printf(out, err, "%s%d", i > 0 || is_begun ? "," : "",
                                      e->ids[at % e->n_ids]);
    }
    return status;
}

static bool is_to_check(const bench_exact *e, uint64_t n_before)
{
    return bench_tokens_is_local(e->tokens) || e->is_doubtful || n_before < N_FIRST_CHECKED ||
           n_before % CHECKED_EVERY == 0;
}

/* Tokens of the text from @p from on; behind @p before where it goes on. */
static qn_status count_text(uint32_t *n, const bench_exact *e, qn_buf *out, size_t from,
                            bool is_begun, qn_error *err)
{
    qn_buf joined;
    qn_status status = QN_OK;
    if (!is_begun) {
        return bench_tokens_count(n, e->tokens, out->ptr + from, out->len - from, err);
    }
    qn_buf_init(&joined, SIZE_MAX / 2);
    QN_TRY(status, qn_buf_append(&joined, before, strlen(before), err), fail);
    QN_TRY(status, qn_buf_append(&joined, out->ptr + from, out->len - from, err), fail);
    QN_TRY(status, bench_tokens_count(n, e->tokens, joined.ptr, joined.len, err), fail);
    *n -= *n < e->n_before ? *n : e->n_before;
fail:
    qn_buf_deinit(&joined);
    return status;
}

/* Forget what was appended from there on. */
static void cut(qn_buf *out, size_t len)
{
    out->len = len;
    if (out->ptr != NULL) {
        out->ptr[len] = '\0';
    }
}

/* One try: words of @p n_words; *n is what they have as a text (NULL: nobody counts). */
static qn_status try_words(uint32_t *n, qn_buf *out, const bench_exact *e, uint64_t key,
                           uint64_t i_text, bool is_begun, uint32_t n_words, qn_error *err)
{
    const size_t from = out->len;
    const qn_status status = bench_words_append(out, e->words, key, i_text, is_begun, n_words, err);
    return status == QN_OK && n != NULL ? count_text(n, e, out, from, is_begun, err) : status;
}

qn_status bench_exact_append(qn_buf *out, bench_exact *exact, bench_exact_use use, uint64_t i_text,
                             bool is_begun, uint32_t n_tokens, qn_error *err)
{
    const uint64_t key =
        qn_rng_u64(exact->seed, use == BENCH_TEXT_SHARED ? exact->shared_salt : exact->salt, use);
    const size_t from = out->len;
    uint64_t n_words = n_tokens;
    qn_status status = QN_OK;
    if (exact->words == NULL) {
        return append_ids(out, exact, key, i_text, is_begun, n_tokens, err);
    }
    const bool is_checked = is_to_check(exact, exact->n_texts++);
    for (int i = 0; i < N_TRIES && n_words > 0 && n_words <= UINT32_MAX; i++) {
        uint32_t n = n_tokens;
        cut(out, from);
        QN_TRY(status,
               try_words(is_checked ? &n : NULL, out, exact, key, i_text, is_begun,
                         (uint32_t)n_words, err),
               fail);
        if (n == n_tokens) {
            return QN_OK;
        }
        exact->is_doubtful = true;
        n_words += n_tokens;
        n_words -= n < n_words ? n : n_words; /* 0: no text is short enough */
    }
    status = qn_fail(err, QN_E_INVAL, 0, __func__,
                     "%s: no text of %u tokens found in %d tries, words that are split at blanks "
                     "expected",
                     bench_tokens_name(exact->tokens), n_tokens, N_TRIES);
fail:
    cut(out, from);
    return status;
}

qn_status bench_exact_check(bench_exact *exact, qn_str joined, uint32_t n_tokens, qn_error *err)
{
    uint32_t n = 0;
    qn_status status = QN_OK;
    if (exact->words == NULL ||
        (exact->n_joined++ >= N_FIRST_CHECKED && exact->n_joined % CHECKED_EVERY != 0)) {
        return QN_OK;
    }
    QN_TRY(status, bench_tokens_count(&n, exact->tokens, joined.ptr, joined.len, err), fail);
    if (n != n_tokens) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         "%s: %u tokens in a prompt put together of %u, as many expected",
                         bench_tokens_name(exact->tokens), n, n_tokens);
    }
fail:
    return status;
}
