/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sequence.h"

#include "base/assert.h"
#include "base/rng.h"
#include "base/try.h"
#include "engine/page_pool.h"

#include <errno.h>

/* Purposes of random numbers: streams of base/rng.h.  A number here is part of what a seed means.
 */
enum { STREAM_TARGET_TOKEN = 1 };

struct qn_sequence {
    qn_glm *glm;               /* borrowed */
    const qn_kernels *kernels; /* borrowed */
    qn_page_pool pages;
    uint32_t n_tokens_max;
    uint32_t n_rows_max;
    bool wants_all_logits;
    uint32_t n_tokens;    /* appended */
    uint32_t n_computed;  /* of them */
    uint32_t n_step_rows; /* of the last step */
    bool has_logits;      /* of the last position computed */
    int32_t *ids;         /* [n_tokens_max] */
    int32_t *page_table;  /* [pages] */
    int32_t *positions;   /* [n_rows_max] of a step */
    int32_t *seqs;        /* [n_rows_max] all 0: this sequence */
    uint32_t *logit_rows; /* [n_rows_max] */
    float *logits;        /* [1 or n_rows_max][n_vocab] */
    float *sample_p;      /* [n_vocab] */
    int32_t *sample_i;    /* [n_vocab] */
};

/* Buffers of @p s; zeroed memory costs nothing until it is used. */
static qn_status allocate(qn_sequence *s, size_t n_vocab, qn_error *err)
{
    const size_t n_logits = (s->wants_all_logits ? s->n_rows_max : 1) * n_vocab;
    s->ids = calloc(s->n_tokens_max, sizeof *s->ids);
    s->page_table = calloc(s->pages.kv.n_pages, sizeof *s->page_table);
    s->positions = calloc(s->n_rows_max, sizeof *s->positions);
    s->seqs = calloc(s->n_rows_max, sizeof *s->seqs);
    s->logit_rows = calloc(s->n_rows_max, sizeof *s->logit_rows);
    s->logits = calloc(n_logits, sizeof *s->logits);
    s->sample_p = calloc(n_vocab, sizeof *s->sample_p);
    s->sample_i = calloc(n_vocab, sizeof *s->sample_i);
    if (s->ids == NULL || s->page_table == NULL || s->positions == NULL || s->seqs == NULL ||
        s->logit_rows == NULL || s->logits == NULL || s->sample_p == NULL || s->sample_i == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "sequence: no memory for %u ids and %zu logits", s->n_tokens_max, n_logits);
    }
    return QN_OK;
}

qn_status qn_sequence_open(qn_sequence **out, qn_glm *glm, const qn_sequence_options *options,
                           qn_error *err)
{
    const qn_config *const config = qn_glm_config(glm);
    QN_ASSERT(options->n_tokens_max > 0 && options->n_tokens_max <= config->n_context_max);
    QN_ASSERT(options->n_rows_max > 0);
    qn_status status = QN_OK;
    *out = NULL;
    qn_sequence *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "sequence: no memory");
    }
    s->glm = glm;
    s->kernels = options->kernels;
    s->n_tokens_max = options->n_tokens_max;
    s->n_rows_max = options->n_rows_max;
    s->wants_all_logits = options->wants_all_logits;
    QN_TRY(status,
           qn_page_pool_init(&s->pages, config, options->kv_dtype, options->n_tokens_max, err),
           fail);
    QN_TRY(status, allocate(s, config->n_vocab, err), fail);
    *out = s;
    return QN_OK;

fail:
    qn_sequence_close(&s);
    return status;
}

void qn_sequence_close(qn_sequence **sequence)
{
    qn_sequence *const s = *sequence;
    if (s == NULL) {
        return;
    }
    qn_page_pool_deinit(&s->pages);
    free(s->ids);
    free(s->page_table);
    free(s->positions);
    free(s->seqs);
    free(s->logit_rows);
    free(s->logits);
    free(s->sample_p);
    free(s->sample_i);
    free(s);
    *sequence = NULL;
}

void qn_sequence_append(qn_sequence *sequence, int32_t token)
{
    QN_ASSERT(sequence->n_tokens < sequence->n_tokens_max);
    QN_ASSERT(token >= 0 && (uint32_t)token < qn_glm_config(sequence->glm)->n_vocab);
    sequence->ids[sequence->n_tokens++] = token;
}

uint32_t qn_sequence_count(const qn_sequence *sequence)
{
    return sequence->n_tokens;
}

uint32_t qn_sequence_computed(const qn_sequence *sequence)
{
    return sequence->n_computed;
}

const int32_t *qn_sequence_ids(const qn_sequence *sequence)
{
    return sequence->ids;
}

void qn_sequence_drop_pending(qn_sequence *sequence)
{
    sequence->n_tokens = sequence->n_computed;
    if (!sequence->has_logits && sequence->n_computed > 0) {
        sequence->n_computed--;
    }
}

/* Take pages until every position below @p n_tokens has one. */
static void cover(qn_sequence *s, uint32_t n_tokens)
{
    while (s->pages.n_used * QN_PAGE_TOKENS < n_tokens) {
        const uint32_t i_page = s->pages.n_used;
        s->page_table[i_page] = qn_page_pool_take(&s->pages);
    }
}

uint32_t qn_sequence_room(const qn_sequence *sequence)
{
    return sequence->n_tokens_max - sequence->n_tokens;
}

uint32_t qn_sequence_next_rows(const qn_sequence *sequence)
{
    const uint32_t n_pending = sequence->n_tokens - sequence->n_computed;
    return n_pending < sequence->n_rows_max ? n_pending : sequence->n_rows_max;
}

void qn_sequence_step(qn_sequence *sequence, const qn_probe *probe)
{
    qn_sequence *const s = sequence;
    const uint32_t n_rows = qn_sequence_next_rows(s);
    QN_ASSERT(n_rows > 0);
    cover(s, s->n_computed + n_rows);
    for (uint32_t i = 0; i < n_rows; i++) {
        s->positions[i] = (int32_t)(s->n_computed + i);
        s->logit_rows[i] = i;
    }
    s->has_logits = s->wants_all_logits || s->n_computed + n_rows == s->n_tokens;
    const uint32_t n_last = s->has_logits ? 1 : 0; /* the head costs most of a short step */
    const qn_batch batch = {
        .n_rows = n_rows,
        .tokens = s->ids + s->n_computed,
        .positions = s->positions,
        .seqs = s->seqs,
        .page_tables = s->page_table,
        .n_seqs = 1,
        .n_table_pages = s->pages.kv.n_pages,
        .logit_rows = s->wants_all_logits ? s->logit_rows : &s->logit_rows[n_rows - 1],
        .n_logit_rows = s->wants_all_logits ? n_rows : n_last,
    };
    qn_glm_forward(s->glm, &s->pages.kv, &batch, NULL, s->logits, probe);
    s->n_computed += n_rows;
    s->n_step_rows = n_rows;
}

const float *qn_sequence_logits(const qn_sequence *sequence)
{
    const qn_sequence *const s = sequence;
    if (!s->has_logits) {
        return NULL;
    }
    const size_t i_row = s->wants_all_logits ? s->n_step_rows - 1 : 0;
    return s->logits + i_row * qn_glm_config(s->glm)->n_vocab;
}

const float *qn_sequence_step_logits(const qn_sequence *sequence)
{
    return sequence->wants_all_logits ? sequence->logits : NULL;
}

qn_status qn_sequence_draw(int32_t *token, qn_sequence *sequence, const qn_sampling *sampling,
                           qn_error *err)
{
    qn_sequence *const s = sequence;
    QN_ASSERT(s->n_computed > 0);
    QN_ASSERT(s->n_computed == s->n_tokens);
    const qn_sample_args args = {
        .logits = qn_sequence_logits(s),
        .n_vocab = qn_glm_config(s->glm)->n_vocab,
        .temperature = sampling->temperature,
        .top_p = sampling->top_p,
        .top_k = sampling->top_k,
        .min_p = sampling->min_p,
        .unit = qn_rng_unit(sampling->seed, STREAM_TARGET_TOKEN, s->n_tokens),
        .scratch_p = s->sample_p,
        .scratch_i = s->sample_i,
    };
    *token = s->kernels->sample(&args);
    if (*token < 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "logits of position %u: none above -Inf, numbers expected of sound weights",
                       s->n_computed - 1);
    }
    return QN_OK;
}

uint64_t qn_sequence_cache_bytes(const qn_sequence *sequence)
{
    return qn_page_pool_used_bytes(&sequence->pages);
}
