/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of activations: embedding, norms, rotation, and what goes into the cache.  Rows of the
 * model's width have a block each, those of the cache a warp each.  A launch with few rows lasts as
 * long as the loads that wait for each other: a thread begins all that it can before it stores
 * anything, since no load is moved across a store.
 */
#include "kernels/gpu/cache.h"
#include "kernels/gpu/lang.h"

/* Four values of a bf16 or f32 row, from element 4 i on. */
QN_DEV f32x4 load_4(const void *row, uint32_t dtype, uint32_t i)
{
    if (dtype == QN_GPU_F32) {
        return ((const f32x4 *)row)[i];
    }
    const u32x2 pairs = ((const u32x2 *)row)[i];
    return (f32x4){qn_bf16_low(pairs.x), qn_bf16_high(pairs.x), qn_bf16_low(pairs.y),
                   qn_bf16_high(pairs.y)};
}

QN_DEV u32x2 to_bf16(f32x4 v)
{
    return (u32x2){qn_f32_to_bf16x2(v.x, v.y), qn_f32_to_bf16x2(v.z, v.w)};
}

QN_DEV float sum_4(f32x4 v)
{
    return (v.x + v.y) + (v.z + v.w);
}

QN_DEV float amax_4(f32x4 v)
{
    return qn_max(qn_max(qn_abs(v.x), qn_abs(v.y)), qn_max(qn_abs(v.z), qn_abs(v.w)));
}

/* Two pairs turned; angles are cos and sin of each. */
QN_DEV f32x4 turn_2(f32x4 v, f32x4 angles)
{
    return (f32x4){v.x * angles.x - v.y * angles.y, v.y * angles.x + v.x * angles.y,
                   v.z * angles.z - v.w * angles.w, v.w * angles.z + v.z * angles.w};
}

/* A row of n / 4 vectors, by the whole block: as f32, as bf16, or both.  dtype is a constant. */
QN_DEV void copy_row(f32x4 *y, u32x2 *y_bf16, const void *x, uint32_t dtype, uint32_t n)
{
    enum { N = QN_GPU_embed_THREADS, BATCH = 6 /* 6144 elements are 6 vectors a thread */ };
    QN_UNROLL(1)
    for (uint32_t first = qn_thread(); first < n / 4; first += BATCH * N) {
        f32x4 v[BATCH];
        QN_UNROLL(6)
        for (uint32_t k = 0; k < BATCH; k++) {
            v[k] = load_4(x, dtype, qn_min_u32(first + k * N, n / 4 - 1));
        }
        QN_UNROLL(6)
        for (uint32_t k = 0; k < BATCH; k++) {
            const uint32_t i = first + k * N;
            if (y != 0 && i < n / 4) {
                y[i] = v[k];
            }
            if (y_bf16 != 0 && i < n / 4) {
                y_bf16[i] = to_bf16(v[k]);
            }
        }
    }
}

QN_GPU_KERNEL(embed)
{
    const uint32_t t = qn_block_x();
    const bool is_padding = args->positions[t] < 0;
    const uint32_t token = (uint32_t)args->tokens[t];
    const uint32_t n = args->n_embd;
    const uint64_t first = (uint64_t)token * n;
    f32x4 *x = (f32x4 *)(args->x + (uint64_t)t * args->x_stride);
    if (is_padding) {
        QN_UNROLL(1)
        for (uint32_t i = qn_thread(); i < n / 4; i += QN_GPU_embed_THREADS) {
            x[i] = (f32x4){0, 0, 0, 0};
        }
    } else if (args->table_dtype == QN_GPU_F32) {
        copy_row(x, 0, (const float *)args->table + first, QN_GPU_F32, n);
    } else {
        copy_row(x, 0, (const uint16_t *)args->table + first, QN_GPU_BF16, n);
    }
}

QN_DEV void rmsnorm_store(const qn_gpu_rmsnorm_args *args, uint64_t t, uint32_t i, f32x4 y)
{
    if (args->y_bf16 != 0) {
        ((u32x2 *)(args->y_bf16 + t * args->y_stride))[i] = to_bf16(y);
    }
    if (args->y_f32 != 0) {
        ((f32x4 *)(args->y_f32 + t * args->y_stride))[i] = y;
    }
}

/*
 * The block's row of x, in which a thread keeps n_kept vectors; dtype is that of x.  Both are
 * constants.
 */
QN_DEV void rmsnorm_row(const qn_gpu_rmsnorm_args *args, void *row, uint32_t dtype, uint32_t n_kept,
                        float *part)
{
    enum { N = QN_GPU_rmsnorm_THREADS, KEPT_MAX = 6 };
    const uint64_t t = qn_block_x();
    const uint32_t n = args->n / 4;
    const f32x4 *weight = (const f32x4 *)args->weight;
    const f32x4 *add = (const f32x4 *)(args->add + t * args->x_stride);
    const bool with_add = dtype == QN_GPU_F32 && args->add != 0;
    const f32x4 zeros = {0, 0, 0, 0};
    f32x4 kept[KEPT_MAX], weights[KEPT_MAX];
    f32x4 squares = zeros;
    QN_UNROLL(6)
    for (uint32_t k = 0; k < n_kept; k++) {
        const uint32_t i = qn_thread() + k * N;
        kept[k] = i < n ? load_4(row, dtype, i) : zeros;
        weights[k] = i < n ? weight[i] : zeros;
    }
    if (with_add) {
        f32x4 more[KEPT_MAX];
        QN_UNROLL(6)
        for (uint32_t k = 0; k < n_kept; k++) {
            more[k] = qn_thread() + k * N < n ? add[qn_thread() + k * N] : zeros;
        }
        QN_UNROLL(6)
        for (uint32_t k = 0; k < n_kept; k++) {
            kept[k] += more[k];
            if (qn_thread() + k * N < n) {
                ((f32x4 *)row)[qn_thread() + k * N] = kept[k];
            }
        }
    }
    QN_UNROLL(6)
    for (uint32_t k = 0; k < n_kept; k++) {
        squares += kept[k] * kept[k];
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_thread() + n_kept * N; i < n; i += N) {
        f32x4 v = load_4(row, dtype, i);
        if (with_add) {
            v += add[i];
            ((f32x4 *)row)[i] = v;
        }
        squares += v * v;
    }
    const float sum = qn_block_sum(sum_4(squares), part, N);
    const float scale = 1.0F / qn_sqrt(sum / (float)args->n + args->eps);
    QN_UNROLL(6)
    for (uint32_t k = 0; k < n_kept; k++) {
        if (qn_thread() + k * N < n) {
            rmsnorm_store(args, t, qn_thread() + k * N, kept[k] * scale * weights[k]);
        }
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_thread() + n_kept * N; i < n; i += N) { /* x holds the sum by now */
        rmsnorm_store(args, t, i, load_4(row, dtype, i) * scale * weight[i]);
    }
}

/* 6144 elements are 6 vectors a thread. */
QN_GPU_KERNEL(rmsnorm)
{
    QN_SHARED(float, part, QN_GPU_rmsnorm_THREADS / QN_LANES);
    const uint64_t first = (uint64_t)qn_block_x() * args->x_stride;
    qn_release_later(); /* a product behind may ask for its weights meanwhile */
    if (args->x_dtype == QN_GPU_F32) {
        rmsnorm_row(args, (float *)args->x + first, QN_GPU_F32, 6, part);
    } else {
        rmsnorm_row(args, (uint16_t *)args->x + first, QN_GPU_BF16, 6, part);
    }
}

/* 2048 are 2: with fewer registers more rows are under way. */
QN_GPU_KERNEL(rmsnorm_narrow)
{
    QN_SHARED(float, part, QN_GPU_rmsnorm_narrow_THREADS / QN_LANES);
    const uint64_t first = (uint64_t)qn_block_x() * args->x_stride;
    qn_release_later();
    if (args->x_dtype == QN_GPU_F32) {
        rmsnorm_row(args, (float *)args->x + first, QN_GPU_F32, 2, part);
    } else {
        rmsnorm_row(args, (uint16_t *)args->x + first, QN_GPU_BF16, 2, part);
    }
}
_Static_assert((int)QN_GPU_rmsnorm_narrow_THREADS == (int)QN_GPU_rmsnorm_THREADS, "one body");

/*
 * The angle's quarter turns are taken off in f64, which is exact enough for any position; what is
 * left, at most pi / 4, goes into the Taylor series, whose next term is below 2^-33.
 */
QN_DEV f32x2 cos_sin(float angle)
{
    const double turns = __builtin_rint((double)angle * 0x1.45f306dc9c883p-1); /* 2 / pi */
    double left = __builtin_fma(-turns, 0x1.921fb54442d18p0, (double)angle);   /* pi / 2 ... */
    left = __builtin_fma(-turns, 0x1.1a62633145c07p-54, left); /* and what it lacks */
    const float r = (float)left;
    const float q = r * r;
    const float sin_left =
        r + r * q *
                (-1.0F / 6 +
                 q * (1.0F / 120 + q * (-1.0F / 5040 + q * (1.0F / 362880 - q / 39916800))));
    const float cos_left =
        1 - q * (0.5F - q * (1.0F / 24 - q * (1.0F / 720 - q * (1.0F / 40320 - q / 3628800))));
    const uint32_t quarter = (uint32_t)(int64_t)turns & 3U;
    const float c = quarter % 2 == 0 ? cos_left : sin_left;
    const float s = quarter % 2 == 0 ? sin_left : cos_left;
    return (f32x2){quarter == 1 || quarter == 2 ? -c : c, quarter >= 2 ? -s : s};
}

QN_GPU_KERNEL(rope_angles)
{
    const uint64_t i = (uint64_t)qn_block_x() * QN_GPU_rope_angles_THREADS + qn_thread();
    if (i < (uint64_t)args->n_rows * args->n_pairs) {
        const uint64_t t = i / args->n_pairs;
        const float angle = (float)args->positions[t] * args->inv_freq[i % args->n_pairs];
        ((f32x2 *)args->angles)[i] = cos_sin(angle);
    }
}

/* Four pairs a thread. */
QN_GPU_KERNEL(rope)
{
    const uint64_t t = qn_block_x();
    const uint32_t n_parts = args->n_pairs / 4;
    const uint32_t i = qn_block_y() * QN_GPU_rope_THREADS + qn_thread();
    qn_release_later();
    if (i >= args->n_vectors * n_parts) {
        return;
    }
    const uint64_t vector = (uint64_t)(i / n_parts) * args->vector_stride;
    uint16_t *x = args->x + t * args->row_stride + vector + 8 * (i % n_parts);
    const f32x4 *angles = (const f32x4 *)(args->angles + t * 2 * args->n_pairs) + 2 * (i % n_parts);
    const u32x4 pairs = qn_load_16(x);
    const f32x4 a = {qn_bf16_low(pairs.x), qn_bf16_high(pairs.x), qn_bf16_low(pairs.y),
                     qn_bf16_high(pairs.y)};
    const f32x4 b = {qn_bf16_low(pairs.z), qn_bf16_high(pairs.z), qn_bf16_low(pairs.w),
                     qn_bf16_high(pairs.w)};
    const u32x2 first = to_bf16(turn_2(a, angles[0]));
    const u32x2 last = to_bf16(turn_2(b, angles[1]));
    qn_store_16(x, (u32x4){first.x, first.y, last.x, last.y});
}

/* Row of this warp in kernels that have one each. */
QN_DEV uint32_t row_of_warp(uint32_t n_threads)
{
    return qn_block_x() * (n_threads / QN_LANES) + qn_warp();
}

/* Row of the cache at a place; rows are on multiples of 4 bytes only. */
QN_DEV uint32_t *cache_row_of(const qn_gpu_cache *cache, int32_t position, int32_t seq)
{
    const int32_t *pages = qn_cache_pages(cache, (uint32_t)seq);
    return (uint32_t *)qn_cache_row(cache, pages, (uint32_t)position);
}

/*
 * v / scale, correctly rounded, where r is 1 / scale.  In the range of scales below, and for
 * quotients whose codes are no zeros, two steps from the product lead there (Markstein 1990,
 * "Computation of elementary functions on the IBM RISC System/6000 processor"), and in less time
 * than a division.
 */
QN_DEV float divided(float v, float scale, float r)
{
    const float q = v * r;
    return __builtin_copysignf(qn_fma(qn_fma(-q, scale, v), r, q), v); /* -0 stays so */
}

QN_DEV f32x4 divided_4(f32x4 v, float scale)
{
    if (!(scale >= 0x1p-60F && scale <= 0x1p60F)) {
        return v / scale;
    }
    const float r = 1.0F / scale;
    return (f32x4){divided(v.x, scale, r), divided(v.y, scale, r), divided(v.z, scale, r),
                   divided(v.w, scale, r)};
}

/*
 * Codes and scales of n_vectors vectors of each lane, the first one's number being i, each further
 * one QN_LANES on: 128 elements that share a scale are those of 32 lanes.  n is that of the latent.
 */
QN_DEV void store_fp8(uint32_t *row, uint32_t n, uint32_t i, const f32x4 *v, uint32_t n_vectors)
{
    float amax[4];
    QN_UNROLL(4)
    for (uint32_t k = 0; k < n_vectors; k++) {
        amax[k] = amax_4(v[k]);
    }
    QN_UNROLL(5)
    for (uint32_t mask = 16; mask > 0; mask /= 2) {
        QN_UNROLL(4)
        for (uint32_t k = 0; k < n_vectors; k++) {
            amax[k] = qn_max(amax[k], qn_shuffle_xor_f32(amax[k], mask));
        }
    }
    QN_UNROLL(4)
    for (uint32_t k = 0; k < n_vectors; k++, i += QN_LANES) {
        /* Below this amax the quotient is 0, and 0 / 0 would put NaN into the cache. */
        const float scale = amax[k] / 448.0F > 0.0F ? amax[k] / 448.0F : 1.0F;
        if (i < n / 4) {
            row[i] = qn_f32_to_e4m3x4(divided_4(v[k], scale));
        }
        if (i < n / 4 && i % 32 == 0) {
            row[n / 4 + i / 32] = qn_f32_bits(scale);
        }
    }
}

QN_DEV void store_bf16(uint32_t *to, uint32_t i, f32x4 v)
{
    const u32x2 pairs = to_bf16(v);
    to[2 * i] = pairs.x;
    to[2 * i + 1] = pairs.y;
}

/* Vectors of the latent as store_fp8() has them, in either format. */
QN_DEV void store_latent(const qn_gpu_cache *cache, uint32_t *row, uint32_t i, const f32x4 *v,
                         uint32_t n_vectors)
{
    if (cache->dtype == QN_GPU_KV_FP8) {
        store_fp8(row, cache->latent_dim, i, v, n_vectors);
        return;
    }
    QN_UNROLL(4)
    for (uint32_t k = 0; k < n_vectors; k++, i += QN_LANES) {
        if (i < cache->latent_dim / 4) {
            store_bf16(row, i, v[k]);
        }
    }
}

QN_GPU_KERNEL(kv_rows)
{
    enum { KEPT = 4 /* with 32 lanes all of 512 */ };
    const uint32_t t = row_of_warp(QN_GPU_kv_rows_THREADS);
    if (t >= args->n_rows) {
        return;
    }
    const qn_gpu_cache *cache = &args->cache;
    const uint32_t n = cache->latent_dim / 4;
    const uint32_t n_key = cache->rope_dim / 4;
    const f32x4 *kv = (const f32x4 *)(args->kv + (uint64_t)t * args->kv_stride);
    const f32x4 *weight = (const f32x4 *)args->weight;
    const f32x4 *angles = (const f32x4 *)(args->angles + (uint64_t)t * cache->rope_dim);
    const f32x4 zeros = {0, 0, 0, 0};
    f32x4 kept[KEPT], weights[KEPT];
    f32x4 squares = zeros;
    const int32_t position = args->positions[t];
    const int32_t seq = args->seqs[t];
    QN_UNROLL(4)
    for (uint32_t k = 0; k < KEPT; k++) {
        const uint32_t i = qn_lane() + k * QN_LANES;
        kept[k] = i < n ? kv[i] : zeros;
        weights[k] = i < n ? weight[i] : zeros;
    }
    const f32x4 key = qn_lane() < n_key ? kv[n + qn_lane()] : zeros;
    const f32x4 angle = qn_lane() < n_key ? angles[qn_lane()] : zeros;
    if (position < 0) {
        return;
    }
    uint32_t *row = cache_row_of(cache, position, seq);
    QN_UNROLL(4)
    for (uint32_t k = 0; k < KEPT; k++) {
        squares += kept[k] * kept[k];
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_lane() + KEPT * QN_LANES; i < n; i += QN_LANES) {
        squares += kv[i] * kv[i];
    }
    const float sum = qn_warp_sum(sum_4(squares));
    const float scale = 1.0F / qn_sqrt(sum / (float)cache->latent_dim + args->eps);
    QN_UNROLL(4)
    for (uint32_t k = 0; k < KEPT; k++) {
        kept[k] = kept[k] * scale * weights[k];
    }
    store_latent(cache, row, qn_lane(), kept, KEPT);
    QN_UNROLL(1)
    for (uint32_t first = KEPT * QN_LANES; first < n; first += QN_LANES) {
        const uint32_t i = first + qn_lane();
        const f32x4 v = i < n ? kv[i] * scale * weight[i] : zeros;
        store_latent(cache, row, i, &v, 1);
    }
    uint32_t *to = row + (cache->dtype == QN_GPU_KV_FP8 ? n + (n + 31) / 32 : 2 * n);
    if (qn_lane() < n_key) {
        store_bf16(to, qn_lane(), turn_2(key, angle));
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_lane() + QN_LANES; i < n_key; i += QN_LANES) {
        store_bf16(to, i, turn_2(kv[n + i], angles[i]));
    }
}

QN_GPU_KERNEL(index_rows)
{
    const uint32_t t = row_of_warp(QN_GPU_index_rows_THREADS);
    if (t >= args->n_rows) {
        return;
    }
    const uint32_t n = args->cache.latent_dim;
    const uint32_t n_turned = args->n_pairs / 2;
    const f32x4 *key = (const f32x4 *)(args->key + (uint64_t)t * args->key_stride);
    const f32x4 *weight = (const f32x4 *)args->weight;
    const f32x4 *bias = (const f32x4 *)args->bias;
    const f32x4 *angles = (const f32x4 *)(args->angles + (uint64_t)t * 2 * args->n_pairs);
    const f32x4 zeros = {0, 0, 0, 0};
    const uint32_t n_heads = args->w != 0 ? args->n_heads : 0;
    float *w = args->w + (uint64_t)t * n_heads;
    const int32_t position = args->positions[t];
    const int32_t seq = args->seqs[t];
    const bool has_first = qn_lane() < n / 4; /* with 32 lanes all of 128 */
    const float first_w = qn_lane() < n_heads ? w[qn_lane()] : 0.0F;
    f32x4 first = has_first ? key[qn_lane()] : zeros;
    const f32x4 first_weight = has_first ? weight[qn_lane()] : zeros;
    const f32x4 first_bias = has_first ? bias[qn_lane()] : zeros;
    const f32x4 first_angle = qn_lane() < n_turned ? angles[qn_lane()] : zeros;
    if (position < 0) {
        return;
    }
    uint32_t *row = cache_row_of(&args->cache, position, seq);
    QN_UNROLL(1)
    for (uint32_t i = qn_lane(); i < n_heads; i += QN_LANES) {
        w[i] = (i < QN_LANES ? first_w : w[i]) * args->scale;
    }
    f32x4 sums = first;
    QN_UNROLL(1)
    for (uint32_t i = qn_lane() + QN_LANES; i < n / 4; i += QN_LANES) {
        sums += key[i];
    }
    const float mean = qn_warp_sum(sum_4(sums)) / (float)n;
    first = has_first ? first - mean : zeros;
    f32x4 squares = first * first;
    QN_UNROLL(1)
    for (uint32_t i = qn_lane() + QN_LANES; i < n / 4; i += QN_LANES) {
        squares += (key[i] - mean) * (key[i] - mean);
    }
    const float variance = qn_warp_sum(sum_4(squares)) / (float)n;
    const float scale = 1.0F / qn_sqrt(variance + args->eps);
    first = first * scale * first_weight + first_bias;
    if (has_first) {
        store_bf16(row, qn_lane(), qn_lane() < n_turned ? turn_2(first, first_angle) : first);
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_lane() + QN_LANES; i < n / 4; i += QN_LANES) {
        const f32x4 v = (key[i] - mean) * scale * weight[i] + bias[i];
        store_bf16(row, i, i < n_turned ? turn_2(v, angles[i]) : v);
    }
}

QN_GPU_KERNEL(gather)
{
    const uint64_t t = qn_block_x();
    const uint64_t from = args->rows != 0 ? args->rows[t] : t;
    float *y = args->y != 0 ? args->y + t * args->n : 0;
    uint16_t *y_bf16 = args->y_bf16 != 0 ? args->y_bf16 + t * args->n : 0;
    copy_row((f32x4 *)y, (u32x2 *)y_bf16, args->x + from * args->x_stride, QN_GPU_F32, args->n);
}

QN_GPU_KERNEL(page_ends)
{
    const uint64_t t = qn_block_x();
    const int32_t position = args->positions[t];
    if (position < 0 || position % QN_GPU_PAGE_TOKENS != QN_GPU_PAGE_TOKENS - 1) {
        return;
    }
    const uint64_t entry = (uint64_t)(uint32_t)args->seqs[t] * args->n_table_pages +
                           (uint32_t)position / QN_GPU_PAGE_TOKENS;
    const uint64_t page = (uint64_t)(uint32_t)args->page_tables[entry];
    f32x4 *y = (f32x4 *)(args->hidden + page * args->page_stride);
    copy_row(y, 0, args->x + t * args->n_embd, QN_GPU_F32, args->n_embd);
}
