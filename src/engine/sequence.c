/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sequence.h"

#include "base/assert.h"
#include "base/minmax.h"
#include "engine/page_pool.h"

#include <errno.h>

struct qn_sequence {
    qn_glm *glm;               /* borrowed */
    const qn_kernels *kernels; /* borrowed */
    qn_page_pool pages;
    uint32_t n_pages; /* of them in use: the first ones */
    uint32_t n_tokens_max;
    uint32_t n_chunk_rows; /* of a step */
    uint32_t n_rows_max;   /* of a pass: that, and at least a verification */
    uint32_t n_tokens;     /* appended */
    uint32_t n_valid;      /* ids[0 .. n_valid) are computed, also those beyond n_tokens */
    uint32_t n_mtp;        /* MTP rows 1 .. n_mtp - 1 are computed for those ids; at least 1 */
    uint32_t first_step;   /* first position of the last step */
    uint32_t n_step_rows;  /* of the last step */
    uint32_t n_logits;     /* of them whose logits are kept: the last ones */
    int32_t *ids;          /* [n_tokens_max] */
    int32_t *page_table;   /* [pages] */
    int32_t *positions;    /* [n_rows_max] of a step */
    int32_t *seqs;         /* [n_rows_max] all 0: this sequence */
    uint32_t *logit_rows;  /* [n_rows_max] 0, 1, 2 ... */
    float *logits;         /* [QN_LOGIT_ROWS_MAX][n_vocab] */
    /* Trunk hidden vectors of positions first_hidden .. end_hidden - 1, for MTP rows one further.
     * Twice the rows of a step: what waits, and a step. */
    float *hidden; /* [2 n_rows_max][n_embd]; NULL without the layer, as the rest */
    uint32_t first_hidden;
    uint32_t end_hidden;
    float *chain_hidden;  /* [n_embd] what a chain's next row is made of */
    float *mtp_logits;    /* [n_vocab] */
    qn_index_sets chosen; /* of a chain's first row */
};

enum { HIDDEN_STEPS = 2 }; /* steps that hidden has room for */

/* Buffers of the MTP layer. */
static qn_status allocate_mtp(qn_sequence *s, const qn_config *config, qn_error *err)
{
    const size_t n_rows = s->n_rows_max;
    s->hidden = calloc(HIDDEN_STEPS * n_rows * config->n_embd, sizeof *s->hidden);
    s->chain_hidden = calloc(config->n_embd, sizeof *s->chain_hidden);
    s->mtp_logits = calloc(config->n_vocab, sizeof *s->mtp_logits);
    s->chosen.sets = calloc(config->index_topk, sizeof *s->chosen.sets);
    s->chosen.n_sets = calloc(1, sizeof *s->chosen.n_sets);
    if (s->hidden == NULL || s->chain_hidden == NULL || s->mtp_logits == NULL ||
        s->chosen.sets == NULL || s->chosen.n_sets == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "sequence: no memory for %zu rows of the MTP layer", n_rows);
    }
    return QN_OK;
}

/* Buffers of @p s; zeroed memory costs nothing until it is used. */
static qn_status allocate(qn_sequence *s, const qn_config *config, qn_error *err)
{
    const size_t n_logits = (size_t)QN_LOGIT_ROWS_MAX * config->n_vocab;
    s->ids = calloc(s->n_tokens_max, sizeof *s->ids);
    s->page_table = calloc(s->pages.kv.n_pages, sizeof *s->page_table);
    s->positions = calloc(s->n_rows_max, sizeof *s->positions);
    s->seqs = calloc(s->n_rows_max, sizeof *s->seqs);
    s->logit_rows = calloc(s->n_rows_max, sizeof *s->logit_rows);
    s->logits = calloc(n_logits, sizeof *s->logits);
    if (s->ids == NULL || s->page_table == NULL || s->positions == NULL || s->seqs == NULL ||
        s->logit_rows == NULL || s->logits == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "sequence: no memory for %u ids and %zu logits", s->n_tokens_max, n_logits);
    }
    for (uint32_t i = 0; i < s->n_rows_max; i++) {
        s->logit_rows[i] = i;
    }
    return qn_glm_has_mtp(s->glm) ? allocate_mtp(s, config, err) : QN_OK;
}

qn_status qn_sequence_open(qn_sequence **out, qn_glm *glm, const qn_sequence_options *options,
                           qn_error *err)
{
    const qn_config *const config = qn_glm_config(glm);
    QN_ASSERT(options->n_tokens_max > 0 && options->n_tokens_max <= config->n_context_max);
    QN_ASSERT(options->n_rows_max > 0);
    *out = NULL;
    qn_sequence *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "sequence: no memory");
    }
    s->glm = glm;
    s->kernels = options->kernels;
    s->n_tokens_max = options->n_tokens_max;
    s->n_chunk_rows = options->n_rows_max;
    s->n_rows_max =
        options->n_rows_max > QN_LOGIT_ROWS_MAX ? options->n_rows_max : QN_LOGIT_ROWS_MAX;
    s->n_mtp = 1;
    qn_status status =
        qn_page_pool_init(&s->pages, config, qn_glm_kv_place(glm), options->kv_dtype,
                          qn_pages_for(options->n_tokens_max), qn_glm_has_mtp(glm), err);
    if (status == QN_OK) {
        status = allocate(s, config, err);
    }
    if (status < 0) {
        qn_sequence_close(&s);
        return status;
    }
    *out = s;
    return QN_OK;
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
    free(s->hidden);
    free(s->chain_hidden);
    free(s->mtp_logits);
    free(s->chosen.sets);
    free(s->chosen.n_sets);
    free(s);
    *sequence = NULL;
}

/* ----------------------------------------------------------------------------------------- ids */

/* The trunk has to compute positions from @p n on again. */
static void recompute_from(qn_sequence *s, uint32_t n)
{
    const uint32_t end_step = s->first_step + s->n_step_rows;
    s->n_valid = qn_min_u32(s->n_valid, n);
    s->end_hidden = qn_min_u32(s->end_hidden, n);
    s->first_hidden = qn_min_u32(s->first_hidden, s->end_hidden);
    if (end_step > n) { /* rows of the last step that are left */
        const uint32_t n_rows = n > s->first_step ? n - s->first_step : 0;
        const uint32_t n_gone = s->n_step_rows - n_rows;
        s->n_logits -= qn_min_u32(s->n_logits, n_gone);
        s->n_step_rows = n_rows;
    }
}

/* The ids from position @p n on are others now. */
static void invalidate_from(qn_sequence *s, uint32_t n)
{
    recompute_from(s, n);
    s->n_mtp = qn_min_u32(s->n_mtp, n > 0 ? n : 1);
}

void qn_sequence_rewind(qn_sequence *sequence)
{
    sequence->n_tokens = 0;
}

void qn_sequence_append(qn_sequence *sequence, int32_t token)
{
    qn_sequence *const s = sequence;
    QN_ASSERT(s->n_tokens < s->n_tokens_max);
    QN_ASSERT(token >= 0 && (uint32_t)token < qn_glm_config(s->glm)->n_vocab);
    if (s->ids[s->n_tokens] != token || s->n_tokens >= s->n_valid) {
        invalidate_from(s, s->n_tokens);
    }
    s->ids[s->n_tokens++] = token;
}

/* Is the hidden vector there that MTP row n_mtp needs? */
static bool can_follow(const qn_sequence *s)
{
    return s->n_mtp > s->first_hidden && s->n_mtp <= s->end_hidden;
}

void qn_sequence_begin(qn_sequence *sequence, bool with_mtp)
{
    qn_sequence *const s = sequence;
    QN_ASSERT(s->n_tokens > 0);
    QN_ASSERT(!with_mtp || s->hidden != NULL);
    if (qn_sequence_logits(s) == NULL) {
        recompute_from(s, s->n_tokens - 1);
    }
    /* What was computed beyond the prompt must not meet a token by chance in the middle of a step.
     */
    s->n_valid = qn_min_u32(s->n_valid, s->n_tokens);
    s->end_hidden = qn_min_u32(s->end_hidden, s->n_tokens);
    s->n_mtp = qn_min_u32(s->n_mtp, s->n_tokens);
    if (with_mtp && (s->n_mtp <= s->first_hidden || s->end_hidden != s->n_valid)) {
        recompute_from(s, s->n_mtp - 1); /* for hidden vectors that were not kept */
    }
}

void qn_sequence_redo_last(qn_sequence *sequence)
{
    QN_ASSERT(sequence->n_tokens > 0);
    recompute_from(sequence, sequence->n_tokens - 1);
}

void qn_sequence_clear(qn_sequence *sequence)
{
    sequence->n_tokens = 0;
    invalidate_from(sequence, 0);
}

qn_status qn_sequence_take_failure(qn_sequence *sequence, qn_error *err)
{
    const qn_status status = qn_glm_take_failure(sequence->glm, err);
    if (status < 0) {
        qn_sequence_clear(sequence);
    }
    return status;
}

void qn_sequence_drop_pending(qn_sequence *sequence)
{
    sequence->n_tokens = qn_sequence_computed(sequence);
}

uint32_t qn_sequence_count(const qn_sequence *sequence)
{
    return sequence->n_tokens;
}

uint32_t qn_sequence_computed(const qn_sequence *sequence)
{
    return qn_min_u32(sequence->n_valid, sequence->n_tokens);
}

const int32_t *qn_sequence_ids(const qn_sequence *sequence)
{
    return sequence->ids;
}

uint32_t qn_sequence_room(const qn_sequence *sequence)
{
    return sequence->n_tokens_max - sequence->n_tokens;
}

/* --------------------------------------------------------------------------------------- steps */

/* Take pages until every position below @p n_tokens has one. */
static void cover(qn_sequence *s, uint32_t n_tokens)
{
    while (s->n_pages * QN_PAGE_TOKENS < n_tokens) {
        QN_ASSERT(s->n_pages < s->pages.kv.n_pages);
        s->page_table[s->n_pages] = (int32_t)s->n_pages;
        s->n_pages++;
    }
}

/* A batch of @p n_rows ids from @p first on; logits of the last @p n_logits of them. */
static qn_batch make_batch(qn_sequence *s, uint32_t first, uint32_t n_rows, uint32_t n_logits)
{
    cover(s, first + n_rows);
    for (uint32_t i = 0; i < n_rows; i++) {
        s->positions[i] = (int32_t)(first + i);
    }
    return (qn_batch){
        .n_rows = n_rows,
        .tokens = s->ids + first,
        .positions = s->positions,
        .seqs = s->seqs,
        .page_tables = s->page_table,
        .n_seqs = 1,
        .n_table_pages = s->pages.kv.n_pages,
        .logit_rows = s->logit_rows + (n_rows - n_logits),
        .n_logit_rows = n_logits,
    };
}

/*
 * Let the MTP layer follow over the rows before position @p end whose id and hidden vector are
 * there, in passes of at most n_rows_max.
 */
static void follow(qn_sequence *s, uint32_t end)
{
    const size_t n_embd = qn_glm_config(s->glm)->n_embd;
    end = qn_min_u32(end, qn_min_u32(s->end_hidden + 1, s->n_tokens));
    while (s->n_mtp < end && can_follow(s)) {
        const uint32_t n_rows = qn_min_u32(end - s->n_mtp, s->n_rows_max);
        const qn_batch batch = make_batch(s, s->n_mtp, n_rows, 0);
        qn_glm_mtp_cache(s->glm, &s->pages.kv, &batch,
                         s->hidden + (s->n_mtp - 1 - s->first_hidden) * n_embd);
        s->n_mtp += n_rows;
    }
}

/* Room in hidden for @p n_rows from position @p first on: drop what no MTP row waits for. */
static float *make_hidden_room(qn_sequence *s, uint32_t first, uint32_t n_rows)
{
    const size_t n_embd = qn_glm_config(s->glm)->n_embd;
    if (s->end_hidden != first) { /* those before were computed without; none is waited for */
        QN_ASSERT(s->n_mtp > first);
        s->first_hidden = s->end_hidden = first;
    }
    if (s->end_hidden - s->first_hidden + n_rows > HIDDEN_STEPS * s->n_rows_max) {
        follow(s, s->n_tokens);
        const uint32_t keep = qn_min_u32(s->n_mtp - 1, s->end_hidden);
        QN_ASSERT(keep >= s->first_hidden);
        memmove(s->hidden, s->hidden + (keep - s->first_hidden) * n_embd,
                (s->end_hidden - keep) * n_embd * sizeof *s->hidden);
        s->first_hidden = keep;
    }
    QN_ASSERT(s->end_hidden - s->first_hidden + n_rows <= HIDDEN_STEPS * s->n_rows_max);
    return s->hidden + (s->end_hidden - s->first_hidden) * n_embd;
}

/* One pass of the trunk over @p n_rows ids that are not computed yet. */
static void compute(qn_sequence *s, uint32_t n_rows, uint32_t n_logits, bool with_mtp,
                    const qn_probe *probe)
{
    const uint32_t first = qn_sequence_computed(s);
    QN_ASSERT(s->n_valid == first);
    QN_ASSERT(!with_mtp || s->hidden != NULL);
    float *const hidden = with_mtp ? make_hidden_room(s, first, n_rows) : NULL;
    const qn_batch batch = make_batch(s, first, n_rows, n_logits);
    qn_glm_forward(s->glm, &s->pages.kv, &batch, hidden, s->logits, probe);
    s->n_valid = first + n_rows;
    s->end_hidden = with_mtp ? s->n_valid : s->end_hidden;
    s->first_step = first;
    s->n_step_rows = n_rows;
    s->n_logits = n_logits;
}

uint32_t qn_sequence_next_rows(const qn_sequence *sequence, bool wants_all_logits)
{
    const uint32_t n_pending = sequence->n_tokens - qn_sequence_computed(sequence);
    const uint32_t n_rows = qn_min_u32(n_pending, sequence->n_chunk_rows);
    return wants_all_logits ? qn_min_u32(n_rows, QN_LOGIT_ROWS_MAX) : n_rows;
}

void qn_sequence_step(qn_sequence *sequence, const qn_sequence_step_options *options)
{
    qn_sequence *const s = sequence;
    const uint32_t n_rows = qn_sequence_next_rows(s, options->wants_all_logits);
    QN_ASSERT(n_rows > 0);
    /* The head costs most of a short step, so only a prompt's last row gets logits. */
    const uint32_t n_last = qn_sequence_computed(s) + n_rows == s->n_tokens ? 1 : 0;
    compute(s, n_rows, options->wants_all_logits ? n_rows : n_last, options->with_mtp,
            options->probe);
    if (options->with_mtp) {
        follow(s, s->n_tokens);
    }
}

/* ------------------------------------------------------------------------------------ drafting */

/* The most likely id by the MTP layer's logits; -1 where they are no numbers. */
static int32_t most_likely(const qn_sequence *s)
{
    const qn_sample_args args = {.logits = s->mtp_logits,
                                 .n_vocab = qn_glm_config(s->glm)->n_vocab,
                                 .temperature = 0.0F,
                                 .top_p = 1.0F};
    return s->kernels->sample(&args);
}

uint32_t qn_sequence_mtp_backlog(const qn_sequence *sequence)
{
    return sequence->n_tokens - qn_min_u32(sequence->n_mtp, sequence->n_tokens);
}

uint32_t qn_sequence_draft(qn_sequence *sequence, int32_t *drafts, uint32_t n)
{
    qn_sequence *const s = sequence;
    const qn_config *const config = qn_glm_config(s->glm);
    QN_ASSERT(n > 0 && n <= QN_DRAFT_TOKENS_MAX);
    QN_ASSERT(s->n_mtp < s->n_tokens);
    QN_ASSERT(qn_sequence_computed(s) == s->n_tokens - 1);
    QN_ASSERT(qn_sequence_room(s) >= n);
    follow(s, s->n_tokens - 1);
    QN_ASSERT(s->n_mtp == s->n_tokens - 1 && can_follow(s));
    memcpy(s->chain_hidden, s->hidden + (size_t)(s->n_mtp - 1 - s->first_hidden) * config->n_embd,
           config->n_embd * sizeof *s->chain_hidden);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0) {
            invalidate_from(s, s->n_tokens + i - 1); /* the id is written over */
            s->ids[s->n_tokens + i - 1] = drafts[i - 1];
        }
        const qn_batch batch = make_batch(s, s->n_tokens + i - 1, 1, 1);
        /* docs/model.md, MTP: a chain attends to the set of its first row, of the last token. */
        const qn_mtp_io io = {
            .hidden_prev = s->chain_hidden,
            .reuse = i > 0 && config->index_share_for_mtp ? &s->chosen : NULL,
            .keep = i == 0 ? &s->chosen : NULL,
            .hidden = s->chain_hidden,
            .logits = s->mtp_logits,
        };
        qn_glm_mtp(s->glm, &s->pages.kv, &batch, &io, NULL);
        s->n_mtp = s->n_tokens;
        drafts[i] = most_likely(s);
        if (drafts[i] < 0) {
            return i;
        }
    }
    return n;
}

void qn_sequence_verify(qn_sequence *sequence, const int32_t *drafts, uint32_t n_drafts,
                        bool with_mtp)
{
    qn_sequence *const s = sequence;
    QN_ASSERT(n_drafts <= QN_DRAFT_TOKENS_MAX);
    QN_ASSERT(qn_sequence_computed(s) == s->n_tokens - 1);
    QN_ASSERT(qn_sequence_room(s) >= n_drafts);
    if (n_drafts > 0) {
        memcpy(s->ids + s->n_tokens, drafts, n_drafts * sizeof *drafts);
    }
    compute(s, n_drafts + 1, n_drafts + 1, with_mtp, NULL);
}

const float *qn_sequence_logits(const qn_sequence *sequence)
{
    const qn_sequence *const s = sequence;
    const uint32_t n_computed = qn_sequence_computed(s);
    const uint32_t end = s->first_step + s->n_step_rows;
    if (n_computed == 0 || n_computed > end || end - n_computed >= s->n_logits) {
        return NULL;
    }
    const size_t i_row = s->n_logits - 1 - (end - n_computed);
    return s->logits + i_row * qn_glm_config(s->glm)->n_vocab;
}

const float *qn_sequence_step_logits(const qn_sequence *sequence)
{
    return sequence->n_logits == sequence->n_step_rows ? sequence->logits : NULL;
}

uint64_t qn_sequence_cache_bytes(const qn_sequence *sequence)
{
    return (uint64_t)sequence->n_pages * sequence->pages.layout.page_bytes;
}
