/* SPDX-License-Identifier: Apache-2.0 */
/** @file fixture.h  A tiny model with seeded weights, its cache, and runs over chosen batches. */
#ifndef QN_TEST_MODEL_FIXTURE_H
#define QN_TEST_MODEL_FIXTURE_H
#include "base/cpu.h"
#include "base/env.h"
#include "model/glm.h"
#include "support/unit.h"

#include <stdlib.h>
#include <string.h>

enum { PAGES = 16, POSITIONS = 200, VOCAB = 97 };

/** Odd sizes everywhere; top-k far below the prompt, so that sparse attention is active. */
static inline qn_config tiny_config(void)
{
    qn_config c = {.n_layers = 4,
                   .n_mtp_layers = 1,
                   .n_embd = 64,
                   .n_vocab = VOCAB,
                   .n_heads = 3,
                   .q_rank = 40,
                   .kv_rank = 136,
                   .nope_dim = 24,
                   .rope_dim = 8,
                   .v_dim = 20,
                   .n_index_heads = 3,
                   .index_dim = 16,
                   .index_topk = 24,
                   .n_ff_dense = 96,
                   .n_ff_expert = 32,
                   .n_experts = 7,
                   .n_experts_used = 3,
                   .n_experts_shared = 1,
                   .n_context_max = PAGES * QN_PAGE_TOKENS,
                   .rms_eps = 1e-5F,
                   .rope_theta = 10000.0,
                   .routed_scale = 2.5F,
                   .norm_topk = true,
                   .index_share_for_mtp = true,
                   .pad_id = -1};
    c.is_dense[0] = true;
    c.is_index_full[0] = c.is_index_full[2] = c.is_index_full[4] = true;
    return c;
}

typedef struct tiny {
    qn_config config;
    qn_kernels kernels;
    qn_pool *pool;
    qn_checkpoint *checkpoint; /* NULL: dummy weights */
    qn_glm *glm;
    qn_kv_layout layout;
    qn_kv kv;
} tiny;

/** Everything but the model. */
static inline qn_glm_options tiny_prepare(tiny *t, const qn_config *config, uint32_t n_threads,
                                          uint32_t n_rows_max, qn_kv_dtype dtype)
{
    qn_error err = {0};
    *t = (tiny){.config = *config};
    /* The machine's own, or fewer: the same tests run with QN_CPU_MASK too. */
    uint32_t mask = UINT32_MAX;
    if (qn_env_get(QN_ENV_CPU_MASK) != NULL) {
        assert_int_equal(qn_cpu_mask_parse(&mask, qn_env_get(QN_ENV_CPU_MASK), &err), QN_OK);
    }
    qn_kernels_init(&t->kernels, qn_cpu_flags() & mask);
    assert_int_equal(qn_pool_open(&t->pool, n_threads, &err), QN_OK);
    qn_kv_layout_init(&t->layout, &t->config, dtype, config->n_mtp_layers > 0);
    /* Stale bytes (NaN patterns) show every row that is read before it is written. */
    uint8_t *base = malloc(PAGES * t->layout.page_bytes);
    assert_non_null(base);
    memset(base, 0xff, PAGES * t->layout.page_bytes);
    t->kv = (qn_kv){.layout = &t->layout, .base = base, .n_pages = PAGES};
    return (qn_glm_options){.kernels = &t->kernels,
                            .pool = t->pool,
                            .compute = QN_COMPUTE_F32,
                            .n_rows_max = n_rows_max};
}

static inline void tiny_open(tiny *t, uint32_t n_threads, uint32_t n_rows_max, qn_kv_dtype dtype)
{
    qn_error err = {0};
    const qn_config config = tiny_config();
    const qn_glm_options options = tiny_prepare(t, &config, n_threads, n_rows_max, dtype);
    assert_int_equal(qn_glm_open_dummy(&t->glm, &t->config, 7, &options, &err), QN_OK);
}

static inline void tiny_close(tiny *t)
{
    free(t->kv.base);
    qn_glm_close(&t->glm);
    qn_checkpoint_close(&t->checkpoint);
    qn_pool_close(&t->pool);
}

/** Token at a position of sequence i_seq: any fixed pattern. */
static inline int32_t tiny_token(int32_t i_seq, int32_t position)
{
    return (position * 31 + i_seq * 17 + position * position % 13) % VOCAB;
}
#endif
