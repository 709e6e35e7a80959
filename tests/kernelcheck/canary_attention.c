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
static void scores_by(const qn_index_scores_args *args, float (*relu)(float))
{
    const size_t dim = args->keys.latent_dim;
    for (uint32_t t = args->first; t < args->end; t++) {
        qn_kv_read_ref(args->scratch, &args->keys, t);
        float sum = 0.0F;
        for (uint32_t h = 0; h < args->n_heads; h++) {
            float dot = 0.0F;
            for (size_t k = 0; k < dim; k++) {
                dot += args->q[h * dim + k] * args->scratch[k];
            }
            sum += args->w[h] * relu(dot);
        }
        args->scores[t - args->first] = sum;
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

static void index_scores_no_relu(const qn_index_scores_args *args)
{
    scores_by(args, no_relu);
}
CANARY(index_scores, index_scores_no_relu)

/* x > 0 ? x : 0 makes a broken key look like an unimportant one. */
static void index_scores_swallows_nan(const qn_index_scores_args *args)
{
    scores_by(args, relu_without_nan);
}
CANARY(index_scores, index_scores_swallows_nan)

static void index_scores_from_0(const qn_index_scores_args *args)
{
    qn_index_scores_args wrong = *args;
    wrong.first = 0;
    wrong.end = args->end - args->first;
    qn_index_scores_ref(&wrong);
}
CANARY(index_scores, index_scores_from_0)

static void index_scores_ignores_pages(const qn_index_scores_args *args)
{
    qn_index_scores_args wrong = *args;
    wrong.keys.pages = first_pages;
    qn_index_scores_ref(&wrong);
}
CANARY(index_scores, index_scores_ignores_pages)

/* Not every head counts alike. */
static void index_scores_weight_of_head_0(const qn_index_scores_args *args)
{
    float same[64];
    for (uint32_t h = 0; h < args->n_heads; h++) {
        same[h] = args->w[0];
    }
    qn_index_scores_args wrong = *args;
    wrong.w = same;
    qn_index_scores_ref(&wrong);
}
CANARY(index_scores, index_scores_weight_of_head_0)

static void index_scores_drops_last_position(const qn_index_scores_args *args)
{
    qn_index_scores_args wrong = *args;
    wrong.end--;
    qn_index_scores_ref(&wrong);
}
CANARY(index_scores, index_scores_drops_last_position)

static void index_scores_never_rounds(const qn_index_scores_args *args)
{
    qn_index_scores_args wrong = *args;
    wrong.compute = QN_COMPUTE_F32;
    qn_index_scores_ref(&wrong);
}
CANARY(index_scores, index_scores_never_rounds)

static void index_scores_rounds_in_f32(const qn_index_scores_args *args)
{
    qn_index_scores_args wrong = *args;
    wrong.compute = QN_COMPUTE_BF16;
    qn_index_scores_ref(&wrong);
}
CANARY(index_scores, index_scores_rounds_in_f32)

/* Positions behind whole tiles of 16 are added in another order. */
static void index_scores_tail_order(const qn_index_scores_args *args)
{
    qn_index_scores_ref(args);
    const uint32_t n = args->end - args->first;
    for (uint32_t t = n / 16 * 16; t < n; t++) {
        args->scores[t] = nextafterf(args->scores[t], INFINITY);
    }
}
CANARY(index_scores, index_scores_tail_order)

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

/* Some queries rounded to bf16, and then everything in the compute mode f32. */
static void attend_f32_with(const qn_attend_args *args, bool rounds_latent, bool rounds_rope)
{
    static float latents[64 * 512];
    static float ropes[64 * 64];
    const size_t n_rope = args->kv.rope_dim;
    for (size_t i = 0; i < (size_t)args->n_heads * args->kv.latent_dim; i++) {
        latents[i] = rounds_latent ? (float)kc_round_bf16(args->q_latent[i]) : args->q_latent[i];
    }
    for (size_t i = 0; i < args->n_heads * n_rope; i++) {
        const float q = args->q_rope[i / n_rope * args->q_rope_stride + i % n_rope];
        ropes[i] = rounds_rope ? (float)kc_round_bf16(q) : q;
    }
    qn_attend_args wrong = *args;
    wrong.q_latent = latents;
    wrong.q_rope = ropes;
    wrong.q_rope_stride = n_rope;
    wrong.compute = QN_COMPUTE_F32;
    qn_attend_ref(&wrong);
}

static void attend_never_rounds_latents(const qn_attend_args *args)
{
    attend_f32_with(args, false, args->compute != QN_COMPUTE_F32 && args->kv.dtype == QN_KV_BF16);
}
CANARY(attend, attend_never_rounds_latents)

static void attend_never_rounds_rope(const qn_attend_args *args)
{
    attend_f32_with(args, args->compute != QN_COMPUTE_F32 && args->kv.dtype == QN_KV_BF16, false);
}
CANARY(attend, attend_never_rounds_rope)

/* The compute mode alone decides, whatever the rows are. */
static void attend_rounds_beside_f32_rows(const qn_attend_args *args)
{
    if (args->compute == QN_COMPUTE_F32 || args->kv.dtype == QN_KV_BF16) {
        qn_attend_ref(args);
    } else {
        attend_f32_with(args, true, true);
    }
}
CANARY(attend, attend_rounds_beside_f32_rows)

static void attend_rounds_in_f32(const qn_attend_args *args)
{
    qn_attend_args wrong = *args;
    wrong.compute = QN_COMPUTE_BF16;
    qn_attend_ref(&wrong);
}
CANARY(attend, attend_rounds_in_f32)

/* Heads behind whole tiles of four are added in another order. */
static void attend_tail_head_order(const qn_attend_args *args)
{
    qn_attend_ref(args);
    for (size_t h = args->n_heads / 4 * 4; h < args->n_heads && args->n_heads > 4; h++) {
        float *u = args->u + h * args->kv.latent_dim;
        u[0] = nextafterf(u[0], INFINITY);
    }
}
CANARY(attend, attend_tail_head_order)

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
    CANARY_OF(index_scores, index_scores_never_rounds),
    CANARY_OF(index_scores, index_scores_rounds_in_f32),
    CANARY_OF(index_scores, index_scores_tail_order),
    CANARY_OF(attend, attend_wrong_scale),
    CANARY_OF(attend, attend_packs_rope_queries),
    CANARY_OF(attend, attend_query_of_head_0),
    CANARY_OF(attend, attend_drops_last_row),
    CANARY_OF(attend, attend_takes_first_rows),
    CANARY_OF(attend, attend_ignores_pages),
    CANARY_OF(attend, attend_without_rope),
    CANARY_OF(attend, attend_swallows_nan),
    CANARY_OF(attend, attend_batch_order),
    CANARY_OF(attend, attend_never_rounds_latents),
    CANARY_OF(attend, attend_never_rounds_rope),
    CANARY_OF(attend, attend_rounds_beside_f32_rows),
    CANARY_OF(attend, attend_rounds_in_f32),
    CANARY_OF(attend, attend_tail_head_order),
    {NULL, NULL, NULL, false},
};
