/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels for check_attention.c. */
#include "canary.h"

#include <string.h>

static const int32_t first_pages[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                        11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21};

/* ------------------------------------------------------------------------------- kv_write -- */

static void kv_write_ignores_pages(const qn_kv_view *view, uint32_t position, const float *latent,
                                   const float *rope)
{
    qn_kv_view wrong = *view;
    wrong.pages = first_pages;
    qn_kv_write_ref(&wrong, position, latent, rope);
}
CANARY(kv_write, kv_write_ignores_pages)

static void kv_write_next_row(const qn_kv_view *view, uint32_t position, const float *latent,
                              const float *rope)
{
    qn_kv_write_ref(view, position, latent, rope);
    if (position % QN_PAGE_TOKENS == 0) {
        qn_kv_row(view, position + 1)[0] = 0;
    }
}
CANARY(kv_write, kv_write_next_row)

/* Cuts the low bits off instead of rounding them. */
static void kv_write_truncates_bf16(const qn_kv_view *view, uint32_t position, const float *latent,
                                    const float *rope)
{
    qn_kv_write_ref(view, position, latent, rope);
    for (uint32_t i = 0; i < view->latent_dim && view->dtype == QN_KV_BF16; i++) {
        const uint16_t bits = (uint16_t)(qn_f32_bits(latent[i]) >> 16);
        memcpy(qn_kv_row(view, position) + 2 * (size_t)i, &bits, sizeof bits);
    }
}
CANARY(kv_write, kv_write_truncates_bf16)

/* Bytes of the codes of an FP8 row: the scales follow. */
static uint32_t code_bytes(const qn_kv_view *view)
{
    return (view->latent_dim + 3) / 4 * 4;
}

static void kv_write_scale_of_group_0(const qn_kv_view *view, uint32_t position,
                                      const float *latent, const float *rope)
{
    qn_kv_write_ref(view, position, latent, rope);
    uint8_t *scales = qn_kv_row(view, position) + code_bytes(view);
    if (view->dtype == QN_KV_FP8 && view->latent_dim > 128) {
        memcpy(scales + 4, scales, 4);
    }
}
CANARY(kv_write, kv_write_scale_of_group_0)

/* A row of zeros, or of denormals, gets a scale of 0: 0 / 0 lies ahead. */
static void kv_write_zero_scale(const qn_kv_view *view, uint32_t position, const float *latent,
                                const float *rope)
{
    qn_kv_write_ref(view, position, latent, rope);
    uint8_t *row = qn_kv_row(view, position);
    float scale = 1.0F;
    if (view->dtype == QN_KV_FP8) {
        memcpy(&scale, row + code_bytes(view), sizeof scale);
        bool is_zero = scale == 1.0F;
        for (uint32_t i = 0; i < view->latent_dim; i++) {
            is_zero = is_zero && latent[i] == 0.0F;
        }
        if (is_zero) {
            memset(row, 0x7f, view->latent_dim);
        }
    }
}
CANARY(kv_write, kv_write_zero_scale)

static void kv_write_swaps_parts(const qn_kv_view *view, uint32_t position, const float *latent,
                                 const float *rope)
{
    float row[1024];
    const uint32_t n = view->rope_dim;
    if (n == 0 || n > view->latent_dim) {
        qn_kv_write_ref(view, position, latent, rope);
        return;
    }
    memcpy(row, latent, view->latent_dim * sizeof *row);
    memcpy(row, rope, n * sizeof *row);
    qn_kv_write_ref(view, position, row, latent);
}
CANARY(kv_write, kv_write_swaps_parts)

static void kv_write_swallows_nan(const qn_kv_view *view, uint32_t position, const float *latent,
                                  const float *rope)
{
    float row[1024];
    for (uint32_t i = 0; i < view->latent_dim; i++) {
        row[i] = isnan(latent[i]) ? 0.0F : latent[i];
    }
    qn_kv_write_ref(view, position, row, rope);
}
CANARY(kv_write, kv_write_swallows_nan)

/* -------------------------------------------------------------------------------- kv_read -- */

static void kv_read_ignores_pages(float *y, const qn_kv_view *view, uint32_t position)
{
    qn_kv_view wrong = *view;
    wrong.pages = first_pages;
    qn_kv_read_ref(y, &wrong, position);
}
CANARY(kv_read, kv_read_ignores_pages)

static void kv_read_scale_of_group_0(float *y, const qn_kv_view *view, uint32_t position)
{
    qn_kv_read_ref(y, view, position);
    const uint8_t *row = qn_kv_row(view, position);
    float scale;
    memcpy(&scale, row + code_bytes(view) % view->row_bytes, sizeof scale);
    for (uint32_t i = 128; i < view->latent_dim && view->dtype == QN_KV_FP8; i++) {
        y[i] = (float)kc_e4m3(row[i]) * scale;
    }
}
CANARY(kv_read, kv_read_scale_of_group_0)

/* The rope part right behind the codes, over the scales. */
static void kv_read_rope_over_scales(float *y, const qn_kv_view *view, uint32_t position)
{
    qn_kv_read_ref(y, view, position);
    const uint8_t *row = qn_kv_row(view, position) + code_bytes(view);
    for (uint32_t i = 0; i < view->rope_dim && view->dtype == QN_KV_FP8; i++) {
        y[view->latent_dim + i] = (float)kc_bf16(row + 2 * (size_t)i);
    }
}
CANARY(kv_read, kv_read_rope_over_scales)

static void kv_read_swallows_nan(float *y, const qn_kv_view *view, uint32_t position)
{
    qn_kv_read_ref(y, view, position);
    for (uint32_t i = 0; i < view->latent_dim; i++) {
        y[i] = isnan(y[i]) ? 0.0F : y[i];
    }
}
CANARY(kv_read, kv_read_swallows_nan)

/* --------------------------------------------------------------------------- index_scores -- */

/* The definition with a hole for each mistake. */
static void scores_by(float *scores, const float *q, const float *w, uint32_t n_heads,
                      const qn_kv_view *keys, const uint32_t range[2], float *scratch,
                      float (*relu)(float))
{
    const size_t dim = keys->latent_dim;
    for (uint32_t t = range[0]; t < range[1]; t++) {
        qn_kv_read_ref(scratch, keys, t);
        float sum = 0.0F;
        for (uint32_t h = 0; h < n_heads; h++) {
            float dot = 0.0F;
            for (size_t k = 0; k < dim; k++) {
                dot += q[h * dim + k] * scratch[k];
            }
            sum += w[h] * relu(dot);
        }
        scores[t - range[0]] = sum;
    }
}

static float no_relu(float x)
{
    return x;
}

static float relu_without_nan(float x)
{
    return x > 0.0F ? x : 0.0F;
}

static void index_scores_no_relu(float *scores, const float *q, const float *w, uint32_t n_heads,
                                 const qn_kv_view *keys, uint32_t first, uint32_t end,
                                 float *scratch)
{
    const uint32_t range[2] = {first, end};
    scores_by(scores, q, w, n_heads, keys, range, scratch, no_relu);
}
CANARY(index_scores, index_scores_no_relu)

/* x > 0 ? x : 0 makes a broken key look like an unimportant one. */
static void index_scores_swallows_nan(float *scores, const float *q, const float *w,
                                      uint32_t n_heads, const qn_kv_view *keys, uint32_t first,
                                      uint32_t end, float *scratch)
{
    const uint32_t range[2] = {first, end};
    scores_by(scores, q, w, n_heads, keys, range, scratch, relu_without_nan);
}
CANARY(index_scores, index_scores_swallows_nan)

static void index_scores_from_0(float *scores, const float *q, const float *w, uint32_t n_heads,
                                const qn_kv_view *keys, uint32_t first, uint32_t end,
                                float *scratch)
{
    qn_index_scores_ref(scores, q, w, n_heads, keys, 0, end - first, scratch);
}
CANARY(index_scores, index_scores_from_0)

static void index_scores_ignores_pages(float *scores, const float *q, const float *w,
                                       uint32_t n_heads, const qn_kv_view *keys, uint32_t first,
                                       uint32_t end, float *scratch)
{
    qn_kv_view wrong = *keys;
    wrong.pages = first_pages;
    qn_index_scores_ref(scores, q, w, n_heads, &wrong, first, end, scratch);
}
CANARY(index_scores, index_scores_ignores_pages)

/* Not every head counts alike. */
static void index_scores_weight_of_head_0(float *scores, const float *q, const float *w,
                                          uint32_t n_heads, const qn_kv_view *keys, uint32_t first,
                                          uint32_t end, float *scratch)
{
    float same[64];
    for (uint32_t h = 0; h < n_heads; h++) {
        same[h] = w[0];
    }
    qn_index_scores_ref(scores, q, same, n_heads, keys, first, end, scratch);
}
CANARY(index_scores, index_scores_weight_of_head_0)

static void index_scores_drops_last_position(float *scores, const float *q, const float *w,
                                             uint32_t n_heads, const qn_kv_view *keys,
                                             uint32_t first, uint32_t end, float *scratch)
{
    qn_index_scores_ref(scores, q, w, n_heads, keys, first, end - 1, scratch);
}
CANARY(index_scores, index_scores_drops_last_position)

/* --------------------------------------------------------------------------------- attend -- */

static void attend_wrong_scale(const qn_attend_args *args)
{
    qn_attend_args wrong = *args;
    wrong.scale *= 1.001F;
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_wrong_scale)

static void attend_packs_rope_queries(const qn_attend_args *args)
{
    qn_attend_args wrong = *args;
    wrong.q_rope_stride = args->kv.rope_dim;
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_packs_rope_queries)

/* Every head with the query of the first. */
static void attend_query_of_head_0(const qn_attend_args *args)
{
    qn_attend_args one = *args;
    one.n_heads = 1;
    for (uint32_t h = 0; h < args->n_heads; h++) {
        one.u = args->u + (size_t)h * args->kv.latent_dim;
        qn_attend_ref(&one);
    }
}
CANARY(attend, attend_query_of_head_0)

static void attend_drops_last_row(const qn_attend_args *args)
{
    qn_attend_args wrong = *args;
    wrong.n_set -= args->n_set > 1 ? 1 : 0;
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_drops_last_row)

/* Rows 0 .. n_set - 1 instead of those of the set. */
static void attend_takes_first_rows(const qn_attend_args *args)
{
    int32_t rows[2048];
    for (uint32_t i = 0; i < args->n_set; i++) {
        rows[i] = (int32_t)i;
    }
    qn_attend_args wrong = *args;
    wrong.set = rows;
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_takes_first_rows)

static void attend_ignores_pages(const qn_attend_args *args)
{
    qn_attend_args wrong = *args;
    wrong.kv.pages = first_pages;
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_ignores_pages)

static void attend_without_rope(const qn_attend_args *args)
{
    float zeros[64 * 64] = {0};
    qn_attend_args wrong = *args;
    wrong.q_rope = zeros;
    wrong.q_rope_stride = args->kv.rope_dim;
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_without_rope)

static void attend_swallows_nan(const qn_attend_args *args)
{
    qn_attend_ref(args);
    for (size_t i = 0; i < (size_t)args->n_heads * args->kv.latent_dim; i++) {
        args->u[i] = isnan(args->u[i]) ? 0.0F : args->u[i];
    }
}
CANARY(attend, attend_swallows_nan)

/* A head's bits depend on how many heads the call has. */
static void attend_batch_order(const qn_attend_args *args)
{
    qn_attend_args wrong = *args;
    wrong.scale = args->n_heads > 1 ? args->scale : args->scale * (1.0F + 0x1p-22F);
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_batch_order)

const kc_canary kc_canaries_attention[] = {
    CANARY_OF(kv_write, kv_write_ignores_pages),
    CANARY_OF(kv_write, kv_write_next_row),
    CANARY_OF(kv_write, kv_write_truncates_bf16),
    CANARY_OF(kv_write, kv_write_scale_of_group_0),
    CANARY_OF(kv_write, kv_write_zero_scale),
    CANARY_OF(kv_write, kv_write_swaps_parts),
    CANARY_OF(kv_write, kv_write_swallows_nan),
    CANARY_OF(kv_read, kv_read_ignores_pages),
    CANARY_OF(kv_read, kv_read_scale_of_group_0),
    CANARY_OF(kv_read, kv_read_rope_over_scales),
    CANARY_OF(kv_read, kv_read_swallows_nan),
    CANARY_OF(index_scores, index_scores_no_relu),
    CANARY_OF(index_scores, index_scores_swallows_nan),
    CANARY_OF(index_scores, index_scores_from_0),
    CANARY_OF(index_scores, index_scores_ignores_pages),
    CANARY_OF(index_scores, index_scores_weight_of_head_0),
    CANARY_OF(index_scores, index_scores_drops_last_position),
    CANARY_OF(attend, attend_wrong_scale),
    CANARY_OF(attend, attend_packs_rope_queries),
    CANARY_OF(attend, attend_query_of_head_0),
    CANARY_OF(attend, attend_drops_last_row),
    CANARY_OF(attend, attend_takes_first_rows),
    CANARY_OF(attend, attend_ignores_pages),
    CANARY_OF(attend, attend_without_rope),
    CANARY_OF(attend, attend_swallows_nan),
    CANARY_OF(attend, attend_batch_order),
    {NULL, NULL, NULL, false},
};
