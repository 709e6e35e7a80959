/* SPDX-License-Identifier: Apache-2.0 */
/* Results of a row depend on nothing but its own sequence: not on how the prompt is cut, on
 * neighbours, on where its pages lie, on threads. */
#include "fixture.h"
#include "model/internal.h"
#include "support/packed.h"

#include <math.h>

enum { TABLE_PAGES = 4 };
static const int32_t pages_in_order[TABLE_PAGES] = {0, 1, 2, 3};
static const int32_t pages_scattered[TABLE_PAGES] = {9, 2, 15, 4};

/* Logits and hidden states [POSITIONS] of one sequence, run alone in chunks. */
static void run_alone(tiny *t, int32_t i_seq, const int32_t *pages, uint32_t chunk, float *hidden,
                      float *logits)
{
    int32_t tokens[64];
    int32_t positions[64];
    int32_t seqs[64] = {0};
    uint32_t rows[64];
    for (uint32_t at = 0; at < POSITIONS; at += chunk) {
        const uint32_t n = POSITIONS - at < chunk ? POSITIONS - at : chunk;
        for (uint32_t i = 0; i < n; i++) {
            positions[i] = (int32_t)(at + i);
            tokens[i] = tiny_token(i_seq, positions[i]);
            rows[i] = i;
        }
        const qn_batch batch = {n, tokens, positions, seqs, pages, 1, TABLE_PAGES, rows, n};
        qn_glm_forward(t->glm, &t->kv, &batch, hidden + (size_t)at * t->config.n_embd,
                       logits + (size_t)at * VOCAB, NULL);
    }
}

typedef struct result {
    float hidden[POSITIONS][64];
    float logits[POSITIONS][VOCAB];
} result;

static result *reference(qn_kv_dtype dtype)
{
    tiny t;
    tiny_open(&t, 1, 64, dtype);
    result *r = calloc(1, sizeof *r);
    assert_non_null(r);
    run_alone(&t, 1, pages_in_order, 64, r->hidden[0], r->logits[0]);
    for (size_t i = 0; i < (size_t)POSITIONS * VOCAB; i++) {
        const float logit = r->logits[i / VOCAB][i % VOCAB];
        assert_true(logit == logit); /* no NaN: no stale row was read */
    }
    tiny_close(&t);
    return r;
}

static void same_whatever_the_chunk_threads_and_pages(qn_kv_dtype dtype)
{
    static const uint32_t chunks[] = {1, 7, 33, 64};
    result *want = reference(dtype);
    result *got = calloc(1, sizeof *got);
    assert_non_null(got);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        tiny t;
        tiny_open(&t, (uint32_t)i + 1, 64, dtype);
        run_alone(&t, 1, i % 2 == 0 ? pages_scattered : pages_in_order, chunks[i], got->hidden[0],
                  got->logits[0]);
        assert_memory_equal(got, want, sizeof *got);
        tiny_close(&t);
    }
    free(got);
    free(want);
}

static void test_bits_do_not_depend_on_chunk_threads_or_pages_bf16(void **state)
{
    (void)state;
    same_whatever_the_chunk_threads_and_pages(QN_KV_BF16);
}

static void test_bits_do_not_depend_on_chunk_threads_or_pages_f32(void **state)
{
    (void)state;
    same_whatever_the_chunk_threads_and_pages(QN_KV_F32);
}

static void test_bits_do_not_depend_on_chunk_threads_or_pages_fp8(void **state)
{
    (void)state;
    same_whatever_the_chunk_threads_and_pages(QN_KV_FP8);
}

/* Three sequences share every pass, with different row counts each; sequence 1 must not notice. */
static void test_bits_do_not_depend_on_neighbours(void **state)
{
    (void)state;
    static const int32_t tables[3][TABLE_PAGES] = {{0, 1, 3, 5}, {9, 2, 15, 4}, {6, 7, 8, 10}};
    result *want = reference(QN_KV_BF16);
    tiny t;
    tiny_open(&t, 2, 64, QN_KV_BF16);
    int32_t next[3] = {0, 0, 0};
    float *hidden = calloc((size_t)64 * 64, sizeof *hidden);
    float *logits = calloc((size_t)64 * VOCAB, sizeof *logits);
    assert_non_null(hidden);
    assert_non_null(logits);
    for (int pass = 0; next[1] < POSITIONS; pass++) {
        int32_t tokens[64];
        int32_t positions[64];
        int32_t seqs[64];
        uint32_t rows[64];
        uint32_t n = 0;
        for (int s = 0; s < 3; s++) {
            const int want_rows = 1 + (pass * 5 + s * 3) % 11;
            for (int i = 0; i < want_rows && next[s] < POSITIONS; i++, n++) {
                tokens[n] = tiny_token(s, next[s]);
                positions[n] = next[s]++;
                seqs[n] = s;
                rows[n] = n;
            }
        }
        const qn_batch batch = {n, tokens, positions, seqs, tables[0], 3, TABLE_PAGES, rows, n};
        qn_glm_forward(t.glm, &t.kv, &batch, hidden, logits, NULL);
        for (uint32_t i = 0; i < n; i++) {
            if (seqs[i] == 1) {
                assert_memory_equal(logits + (size_t)i * VOCAB, want->logits[positions[i]],
                                    sizeof want->logits[0]);
                assert_memory_equal(hidden + (size_t)i * 64, want->hidden[positions[i]],
                                    sizeof want->hidden[0]);
            }
        }
    }
    free(hidden);
    free(logits);
    tiny_close(&t);
    free(want);
}

/* What the first MTP row of the next page needs when this page comes from a cache. */
static void test_pages_keep_the_hidden_vector_of_their_last_token(void **state)
{
    (void)state;
    result *r = calloc(1, sizeof *r);
    assert_non_null(r);
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_FP8);
    run_alone(&t, 1, pages_scattered, 33, r->hidden[0], r->logits[0]);
    for (int32_t i_page = 0; i_page < POSITIONS / QN_PAGE_TOKENS; i_page++) {
        assert_memory_equal(qn_kv_page_hidden(&t.kv, pages_scattered[i_page]),
                            r->hidden[(i_page + 1) * QN_PAGE_TOKENS - 1], sizeof r->hidden[0]);
    }
    const uint32_t *unfinished = (const uint32_t *)(const void *)qn_kv_page_hidden(
        &t.kv, pages_scattered[POSITIONS / QN_PAGE_TOKENS]);
    assert_int_equal(unfinished[0], UINT32_MAX); /* as it was before */
    tiny_close(&t);
    free(r);
}

/*
 * The index key of position 0, where the rotation does nothing, against f64.  The golden files hold
 * sets, not scores, and do not see whether the norm's eps is 1e-6 or the 1e-5 of all the others.
 */
static void test_index_keys_are_layer_normed_with_an_eps_of_1e_6(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    const qn_config *c = &t.config;
    const qn_layer_weights *l = &t.glm->weights.layers[0];
    const int32_t token = tiny_token(1, 0);
    const int32_t zero = 0;
    const qn_batch batch = {1, &token, &zero, &zero, pages_in_order, 1, TABLE_PAGES, NULL, 0};
    qn_glm_forward(t.glm, &t.kv, &batch, NULL, NULL, NULL);
    const qn_kv_view keys = qn_kv_get_view(&t.kv, t.layout.index_of[0], pages_in_order);
    float row[64];
    float got[64];
    double x[64];
    double key[64];
    double squares = 0.0;
    double mean = 0.0;
    double variance = 0.0;
    assert_int_equal(c->n_embd, 64);
    assert_true(c->index_dim <= 64);
    t.kernels.dequant_row(row, &t.glm->weights.embed, (uint32_t)token);
    for (uint32_t k = 0; k < 64; k++) {
        squares += (double)row[k] * (double)row[k] / 64.0;
    }
    for (uint32_t k = 0; k < 64; k++) {
        x[k] = (double)row[k] / sqrt(squares + (double)c->rms_eps) * (double)l->input_norm[k];
    }
    for (uint32_t i = 0; i < c->index_dim; i++) {
        unpack_row(row, &l->index_k, i);
        key[i] = 0.0;
        for (uint32_t k = 0; k < 64; k++) {
            key[i] += x[k] * (double)row[k];
        }
        mean += key[i] / c->index_dim;
    }
    for (uint32_t i = 0; i < c->index_dim; i++) {
        variance += (key[i] - mean) * (key[i] - mean) / c->index_dim;
    }
    t.kernels.kv_read(got, &keys, 0);
    for (uint32_t i = 0; i < c->index_dim; i++) {
        const double want = (key[i] - mean) / sqrt(variance + 1e-6) * (double)l->index_norm[i] +
                            (double)l->index_norm_bias[i];
        assert_true(fabs((double)got[i] - want) <= 1e-6); /* another eps: some 5e-6 */
    }
    tiny_close(&t);
}

/* MTP rows 1 .. POSITIONS - 1 in chunks: row i holds (token i, hidden i - 1). */
static void run_mtp(tiny *t, uint32_t chunk, const float *trunk_hidden, float *g)
{
    int32_t tokens[64];
    int32_t positions[64];
    int32_t seqs[64] = {0};
    for (uint32_t at = 1; at < POSITIONS; at += chunk) {
        const uint32_t n = POSITIONS - at < chunk ? POSITIONS - at : chunk;
        for (uint32_t i = 0; i < n; i++) {
            positions[i] = (int32_t)(at + i);
            tokens[i] = tiny_token(1, positions[i]);
        }
        const qn_batch batch = {n, tokens,      positions, seqs, pages_scattered,
                                1, TABLE_PAGES, NULL,      0};
        const qn_mtp_io io = {.hidden_prev = trunk_hidden + (size_t)(at - 1) * 64,
                              .hidden = g + (size_t)at * 64};
        qn_glm_mtp(t->glm, &t->kv, &batch, &io, NULL);
    }
}

static void test_mtp_bits_do_not_depend_on_chunk_or_threads(void **state)
{
    (void)state;
    result *trunk = reference(QN_KV_BF16);
    float *want = calloc((size_t)POSITIONS * 64, sizeof *want);
    float *got = calloc((size_t)POSITIONS * 64, sizeof *got);
    assert_non_null(want);
    assert_non_null(got);
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_BF16);
    run_mtp(&t, 64, trunk->hidden[0], want);
    tiny_close(&t);
    tiny_open(&t, 2, 64, QN_KV_BF16);
    run_mtp(&t, 5, trunk->hidden[0], got);
    assert_memory_equal(got, want, (size_t)POSITIONS * 64 * sizeof *got);
    for (size_t i = 64; i < (size_t)POSITIONS * 64; i++) {
        assert_true(got[i] == got[i]);
    }
    tiny_close(&t);
    free(want);
    free(got);
    free(trunk);
}

/* Bytes of the MTP layer's rows of all positions but 0, which has none. */
static void read_mtp_rows(const tiny *t, uint8_t *out)
{
    const uint32_t i_layer = t->config.n_layers;
    const int16_t components[] = {t->layout.latent_of[i_layer], t->layout.index_of[i_layer]};
    for (size_t i = 0; i < 2; i++) {
        const qn_kv_view view = qn_kv_get_view(&t->kv, components[i], pages_scattered);
        for (uint32_t p = 1; p < POSITIONS; p++, out += view.row_bytes) {
            memcpy(out, qn_kv_row(&view, p), view.row_bytes);
        }
    }
}

static void test_mtp_cache_rows_alone_are_those_of_whole_rows(void **state)
{
    (void)state;
    enum { ROWS_BYTES = POSITIONS * (656 + 256) };
    static uint8_t want[ROWS_BYTES];
    static uint8_t got[ROWS_BYTES];
    static float g[POSITIONS][64];
    result *trunk = reference(QN_KV_BF16);
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_BF16);
    run_mtp(&t, 64, trunk->hidden[0], g[0]);
    read_mtp_rows(&t, want);
    tiny_close(&t);
    tiny_open(&t, 2, 64, QN_KV_BF16);
    read_mtp_rows(&t, got);
    assert_memory_not_equal(got, want, sizeof got);
    for (int32_t at = 1; at < POSITIONS; at += 23) {
        int32_t tokens[23];
        int32_t positions[23];
        const int32_t seqs[23] = {0};
        const uint32_t n = POSITIONS - at < 23 ? (uint32_t)(POSITIONS - at) : 23;
        for (uint32_t i = 0; i < n; i++) {
            positions[i] = at + (int32_t)i;
            tokens[i] = tiny_token(1, positions[i]);
        }
        const qn_batch batch = {n, tokens,      positions, seqs, pages_scattered,
                                1, TABLE_PAGES, NULL,      0};
        qn_glm_mtp_cache(t.glm, &t.kv, &batch, trunk->hidden[at - 1]);
    }
    read_mtp_rows(&t, got);
    assert_memory_equal(got, want, sizeof got);
    tiny_close(&t);
    free(trunk);
}

/* MTP row @p position alone, after the hidden state @p previous. */
static void run_mtp_row(tiny *t, int32_t position, const float *previous, float *g,
                        const qn_index_sets *keep, const qn_index_sets *reuse)
{
    const int32_t token = tiny_token(1, position);
    const int32_t seq = 0;
    const qn_batch batch = {1, &token, &position, &seq, pages_scattered, 1, TABLE_PAGES, NULL, 0};
    const qn_mtp_io io = {.hidden_prev = previous, .hidden = g, .keep = keep, .reuse = reuse};
    qn_glm_mtp(t->glm, &t->kv, &batch, &io, NULL);
}

/* Overwrite one position of the MTP layer's latents: every value becomes a NaN. */
static void spoil_mtp_row(tiny *t, uint32_t position)
{
    const qn_kv_view rows =
        qn_kv_get_view(&t->kv, t->layout.latent_of[t->config.n_layers], pages_scattered);
    memset(qn_kv_row(&rows, position), 0xff, rows.row_bytes);
}

/* A chain that reuses the last verified row's set attends to nothing of its own: row 21 stays the
 * same when row 20 of the cache is garbage.  With a set of its own, which is all positions while
 * they are fewer than top-k, it does not. */
static void test_reused_sets_do_not_see_chained_rows(void **state)
{
    (void)state;
    enum { FIRST = 20 };
    result *trunk = reference(QN_KV_BF16);
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_BF16);
    int32_t set[24];
    uint32_t n_set = 0;
    const qn_index_sets verified = {set, &n_set};
    float g[64];
    float first[64];
    float second[64];
    float again[64];
    for (int32_t p = 1; p < FIRST; p++) {
        run_mtp_row(&t, p, trunk->hidden[p - 1], g, &verified, NULL);
    }
    assert_int_equal(n_set, FIRST - 1);
    for (int round = 0; round < 2; round++) {
        const qn_index_sets *reuse = round == 0 ? &verified : NULL;
        run_mtp_row(&t, FIRST, g, first, NULL, reuse);
        run_mtp_row(&t, FIRST + 1, first, second, NULL, reuse);
        for (int i = 0; i < 64; i++) {
            assert_true(first[i] == first[i] && second[i] == second[i]);
        }
        spoil_mtp_row(&t, FIRST);
        run_mtp_row(&t, FIRST + 1, first, again, NULL, reuse);
        if (reuse != NULL) {
            assert_memory_equal(again, second, sizeof again);
        } else {
            assert_memory_not_equal(again, second, sizeof again);
        }
    }
    tiny_close(&t);
    free(trunk);
}

/* A probe that hands back the model's own choices changes nothing; one that changes them does. */
typedef struct chooser {
    int rotate;
    uint32_t n_calls;
} chooser;

static void choose_experts(void *context, int32_t i_layer, uint32_t i_row, int32_t *experts,
                           const float *scores)
{
    (void)i_layer;
    (void)i_row;
    chooser *c = context;
    assert_true(scores[experts[0]] >= scores[experts[1]]);
    c->n_calls++;
    for (int i = 0; i < 3; i++) {
        experts[i] = (experts[i] + c->rotate) % 7;
    }
}

static void test_probe_replaces_experts(void **state)
{
    (void)state;
    result *want = reference(QN_KV_BF16);
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_BF16);
    const int32_t token = tiny_token(1, 0);
    const int32_t zero = 0;
    const uint32_t row = 0;
    const qn_batch batch = {1, &token, &zero, &zero, pages_in_order, 1, TABLE_PAGES, &row, 1};
    float logits[VOCAB];
    chooser c = {0};
    const qn_probe probe = {.context = &c, .router = choose_experts};
    qn_glm_forward(t.glm, &t.kv, &batch, NULL, logits, &probe);
    assert_int_equal(c.n_calls, 3);
    assert_memory_equal(logits, want->logits[0], sizeof logits);
    c.rotate = 1;
    qn_glm_forward(t.glm, &t.kv, &batch, NULL, logits, &probe);
    assert_memory_not_equal(logits, want->logits[0], sizeof logits);
    tiny_close(&t);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_do_not_depend_on_chunk_threads_or_pages_bf16),
        cmocka_unit_test(test_bits_do_not_depend_on_chunk_threads_or_pages_f32),
        cmocka_unit_test(test_bits_do_not_depend_on_chunk_threads_or_pages_fp8),
        cmocka_unit_test(test_bits_do_not_depend_on_neighbours),
        cmocka_unit_test(test_pages_keep_the_hidden_vector_of_their_last_token),
        cmocka_unit_test(test_index_keys_are_layer_normed_with_an_eps_of_1e_6),
        cmocka_unit_test(test_mtp_bits_do_not_depend_on_chunk_or_threads),
        cmocka_unit_test(test_mtp_cache_rows_alone_are_those_of_whole_rows),
        cmocka_unit_test(test_reused_sets_do_not_see_chained_rows),
        cmocka_unit_test(test_probe_replaces_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
