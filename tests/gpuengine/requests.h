/* SPDX-License-Identifier: Apache-2.0 */
/** @file requests.h  Requests of the tiny model by a runner or alone, and what was told of each. */
#ifndef QN_TEST_GPUENGINE_REQUESTS_H
#define QN_TEST_GPUENGINE_REQUESTS_H
#include "engine/generator.h"
#include "engine/runner.h"
#include "gpuengine/fixture.h"

enum { N_IDS_MAX = 128, N_SLOTS = 4, N_TOLD = 9 };

/** What was told of one request. */
typedef struct seen {
    int32_t ids[N_IDS_MAX];
    uint32_t n_ids;
    uint32_t n_ends;
    qn_sched_end_reason reason;
    qn_session_stats stats;
    float logit_sum;               /**< Of the tokens, where logits are wanted. */
    float logits[N_TOLD][N_VOCAB]; /**< Likewise: those of the first tokens. */
} seen;

/* ----------------------------------------------------------------------------------- by a runner
 */

static inline void see_logits(seen *s, const float *logits, int32_t token)
{
    if (logits != NULL && s->n_ids < N_TOLD) {
        memcpy(s->logits[s->n_ids], logits, sizeof s->logits[0]);
    }
    s->logit_sum += logits != NULL ? logits[token] : 0.0F;
}

static inline bool see_token(void *context, void *user, int32_t token, uint32_t position,
                             const float *logits, const qn_sampler *sampler, bool is_stop)
{
    seen *const s = user;
    (void)context;
    (void)position;
    (void)sampler;
    (void)is_stop;
    assert_true(s->n_ids < N_IDS_MAX);
    see_logits(s, logits, token);
    s->ids[s->n_ids++] = token;
    return true;
}

static inline void see_rows(void *context, void *user, uint32_t position, uint32_t n_rows,
                            const int32_t *ids, const float *logits, const qn_sampler *sampler)
{
    seen *const s = user;
    (void)context;
    (void)position;
    (void)sampler;
    for (uint32_t i = 0; i < n_rows; i++) {
        s->logit_sum += logits[i * N_VOCAB + (uint32_t)ids[i]];
    }
}

static inline void see_end(void *context, void *user, qn_sched_end_reason reason,
                           const qn_session_stats *stats, const qn_error *error)
{
    seen *const s = user;
    (void)context;
    (void)error;
    s->n_ends++;
    s->reason = reason;
    s->stats = *stats;
}

static const qn_runner_sink sink = {.rows = see_rows, .token = see_token, .end = see_end};

static inline qn_runner *open_runner_of(const qn_runner_options *options)
{
    qn_runner *runner = NULL;
    qn_error err = {0};
    if (qn_runner_open(&runner, g_t.glm, options, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return runner;
}

/** Of few pages, and fewer slots; pages are checked without lag. */
static inline qn_runner_options runner_options(uint32_t lag, bool without_graphs)
{
    return (qn_runner_options){.executor = {.kernels = &g_t.kernels,
                                            .pool = g_t.pool,
                                            .kv_dtype = QN_KV_BF16,
                                            .n_slots = N_SLOTS,
                                            .n_pages = 8,
                                            .n_step_rows = N_ROWS,
                                            .n_context = N_IDS_MAX,
                                            .lag = lag,
                                            .with_mtp = true,
                                            .without_graphs = without_graphs,
                                            .checks_pages = lag == 0},
                               .n_queue = 4,
                               .hash_seed = 1,
                               .has_prefix_tree = true};
}

/** Calls of the driver since it keeps them. */
static inline uint32_t count_calls(const char *call)
{
    uint32_t n = 0;
    const size_t len = strlen(call);
    for (const char *at = fake_gpu_calls(); (at = strstr(at, call)) != NULL; at += len) {
        n++;
    }
    return n;
}

/* -------------------------------------------------------------------------------------- alone */

static inline bool hear_token(void *context, int32_t token, uint32_t position, const float *logits,
                              bool is_stop)
{
    seen *const s = context;
    (void)position;
    (void)is_stop;
    see_logits(s, logits, token);
    s->ids[s->n_ids++] = token;
    return true;
}

/** What a sequence of its own says, one row after the other. */
static inline void answer(seen *out, const qn_runner_request *request)
{
    const qn_sequence_options options = {.kernels = &g_t.kernels,
                                         .kv_dtype = QN_KV_BF16,
                                         .n_tokens_max = N_IDS_MAX,
                                         .n_rows_max = N_ROWS};
    const qn_generator_request inner = {
        .ids = request->ids,
        .n_ids = request->n_ids,
        .sampling = request->sampling,
        .stop_ids = request->stop_ids,
        .n_stop_ids = request->n_stop_ids,
        .min_tokens = request->min_tokens,
        .max_tokens = request->max_tokens,
        .draft_tokens = request->acceptance_length > 0.0F ? request->draft_tokens : 0,
        .acceptance_length = request->acceptance_length};
    const qn_generator_sink ears = {.context = out, .token = hear_token};
    qn_generator *generator = NULL;
    qn_error err = {0};
    *out = (seen){0};
    assert_int_equal(qn_generator_open(&generator, g_t.glm, &options, &err), QN_OK);
    qn_generator_begin(generator, &inner);
    while (qn_generator_state_of(generator) != QN_GENERATOR_IDLE) {
        assert_int_equal(qn_generator_step(generator, &ears, &err), QN_OK);
    }
    qn_generator_close(&generator);
}
#endif
