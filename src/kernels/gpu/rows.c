/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of activations: embedding, norms, rotation, and what goes into the cache.  Rows of the
 * model's width have a block each, those of the cache a warp each; what a thread has read of its
 * row it keeps for the second pass, as far as its registers go.
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

QN_GPU_KERNEL(embed)
{
    const uint32_t t = qn_block_x();
    const bool is_padding = args->positions[t] < 0;
    const uint64_t element_bytes = args->table_dtype == QN_GPU_F32 ? 4 : 2;
    const uint64_t token = is_padding ? 0 : (uint64_t)(uint32_t)args->tokens[t];
    const uint8_t *row = (const uint8_t *)args->table + token * args->n_embd * element_bytes;
    f32x4 *x = (f32x4 *)(args->x + (uint64_t)t * args->x_stride);
    QN_UNROLL(2)
    for (uint32_t i = qn_thread(); i < args->n_embd / 4; i += QN_GPU_embed_THREADS) {
        x[i] = is_padding ? (f32x4){0, 0, 0, 0} : load_4(row, args->table_dtype, i);
    }
}

/* Four elements of x; with add the sum, which is stored at once. */
QN_DEV f32x4 rmsnorm_load(const qn_gpu_rmsnorm_args *args, uint64_t t, uint32_t i)
{
    const uint64_t element_bytes = args->x_dtype == QN_GPU_F32 ? 4 : 2;
    uint8_t *row = (uint8_t *)args->x + t * args->x_stride * element_bytes;
    f32x4 v = load_4(row, args->x_dtype, i);
    if (args->add != 0) {
        v += ((const f32x4 *)(args->add + t * args->x_stride))[i];
        ((f32x4 *)row)[i] = v;
    }
    return v;
}

QN_DEV void rmsnorm_store(const qn_gpu_rmsnorm_args *args, uint64_t t, uint32_t i, f32x4 v)
{
    const f32x4 y = v * ((const f32x4 *)args->weight)[i];
    if (args->y_bf16 != 0) {
        ((u32x2 *)(args->y_bf16 + t * args->y_stride))[i] = to_bf16(y);
    }
    if (args->y_f32 != 0) {
        ((f32x4 *)(args->y_f32 + t * args->y_stride))[i] = y;
    }
}

QN_GPU_KERNEL(rmsnorm)
{
    enum { N = QN_GPU_rmsnorm_THREADS, KEPT = 6 /* 6144 elements are 6 vectors a thread */ };
    QN_SHARED(float, part, N / QN_LANES);
    const uint64_t t = qn_block_x();
    const uint32_t n = args->n / 4;
    f32x4 kept[KEPT];
    f32x4 squares = {0, 0, 0, 0};
    QN_UNROLL(6)
    for (uint32_t k = 0; k < KEPT; k++) {
        const uint32_t i = qn_thread() + k * N;
        kept[k] = i < n ? rmsnorm_load(args, t, i) : (f32x4){0, 0, 0, 0};
        squares += kept[k] * kept[k];
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_thread() + KEPT * N; i < n; i += N) {
        const f32x4 v = rmsnorm_load(args, t, i);
        squares += v * v;
    }
    const float sum = qn_block_sum(sum_4(squares), part, N);
    const float scale = 1.0F / qn_sqrt(sum / (float)args->n + args->eps);
    QN_UNROLL(6)
    for (uint32_t k = 0; k < KEPT; k++) {
        const uint32_t i = qn_thread() + k * N;
        if (i < n) {
            rmsnorm_store(args, t, i, kept[k] * scale);
        }
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_thread() + KEPT * N; i < n; i += N) { /* x holds the sum by now */
        const uint64_t element_bytes = args->x_dtype == QN_GPU_F32 ? 4 : 2;
        const uint8_t *row = (const uint8_t *)args->x + t * args->x_stride * element_bytes;
        rmsnorm_store(args, t, i, load_4(row, args->x_dtype, i) * scale);
    }
}

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

/* Row of the cache that belongs to row t; rows are on multiples of 4 bytes only. */
QN_DEV uint32_t *cache_row_of(const qn_gpu_cache *cache, const int32_t *positions,
                              const int32_t *seqs, uint32_t t)
{
    const int32_t *pages = qn_cache_pages(cache, (uint32_t)seqs[t]);
    return (uint32_t *)qn_cache_row(cache, pages, (uint32_t)positions[t]);
}

/* Codes and scale of the 128 elements that 32 lanes have of the latent, four each. */
QN_DEV void store_fp8(uint32_t *row, uint32_t n, uint32_t i, f32x4 v)
{
    float amax = i < n / 4 ? amax_4(v) : 0.0F;
    for (uint32_t mask = 16; mask > 0; mask /= 2) {
        amax = qn_max(amax, qn_shuffle_xor_f32(amax, mask));
    }
    /* Below this amax the quotient is 0, and 0 / 0 would put NaN into the cache. */
    const float scale = amax / 448.0F > 0.0F ? amax / 448.0F : 1.0F;
    if (i < n / 4) {
        row[i] = qn_f32_to_e4m3x4(v / scale);
        if (i % 32 == 0) {
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

/* Vector i of the latent, before its weight; all lanes of the warp. */
QN_DEV void store_latent(const qn_gpu_kv_rows_args *args, uint32_t *row, uint32_t i, f32x4 v)
{
    const uint32_t n = args->cache.latent_dim;
    v = i < n / 4 ? v * ((const f32x4 *)args->weight)[i] : v;
    if (args->cache.dtype == QN_GPU_KV_FP8) {
        store_fp8(row, n, i, v);
    } else if (i < n / 4) {
        store_bf16(row, i, v);
    }
}

QN_GPU_KERNEL(kv_rows)
{
    enum { KEPT = 4 };
    const uint32_t t = row_of_warp(QN_GPU_kv_rows_THREADS);
    if (t >= args->n_rows || args->positions[t] < 0) {
        return;
    }
    const qn_gpu_cache *cache = &args->cache;
    const uint32_t n = cache->latent_dim;
    const f32x4 *kv = (const f32x4 *)(args->kv + (uint64_t)t * args->kv_stride);
    uint32_t *row = cache_row_of(cache, args->positions, args->seqs, t);
    f32x4 kept[KEPT];
    f32x4 squares = {0, 0, 0, 0};
    QN_UNROLL(4)
    for (uint32_t k = 0; k < KEPT; k++) {
        const uint32_t i = qn_lane() + k * QN_LANES;
        kept[k] = i < n / 4 ? kv[i] : (f32x4){0, 0, 0, 0};
        squares += kept[k] * kept[k];
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_lane() + KEPT * QN_LANES; i < n / 4; i += QN_LANES) {
        squares += kv[i] * kv[i];
    }
    const float sum = qn_warp_sum(sum_4(squares));
    const float scale = 1.0F / qn_sqrt(sum / (float)n + args->eps);
    const bool is_fp8 = cache->dtype == QN_GPU_KV_FP8;
    QN_UNROLL(4)
    for (uint32_t k = 0; k < KEPT; k++) {
        if (k * QN_LANES < n / 4) { /* all lanes: store_fp8() exchanges */
            store_latent(args, row, qn_lane() + k * QN_LANES, kept[k] * scale);
        }
    }
    QN_UNROLL(1)
    for (uint32_t first = KEPT * QN_LANES; first < n / 4; first += QN_LANES) {
        const uint32_t i = first + qn_lane();
        const f32x4 v = i < n / 4 ? kv[i] : (f32x4){0, 0, 0, 0};
        store_latent(args, row, i, v * scale);
    }
    uint32_t *key = row + (is_fp8 ? n / 4 + (n + 127) / 128 : n / 2);
    const f32x4 *angles = (const f32x4 *)(args->angles + (uint64_t)t * cache->rope_dim);
    QN_UNROLL(1)
    for (uint32_t i = qn_lane(); i < cache->rope_dim / 4; i += QN_LANES) {
        store_bf16(key, i, turn_2(kv[n / 4 + i], angles[i]));
    }
}

QN_GPU_KERNEL(index_rows)
{
    const uint32_t t = row_of_warp(QN_GPU_index_rows_THREADS);
    if (t >= args->n_rows || args->positions[t] < 0) {
        return;
    }
    const uint32_t n = args->cache.latent_dim;
    const f32x4 *key = (const f32x4 *)(args->key + (uint64_t)t * args->key_stride);
    uint32_t *row = cache_row_of(&args->cache, args->positions, args->seqs, t);
    f32x4 sums = {0, 0, 0, 0};
    QN_UNROLL(1)
    for (uint32_t i = qn_lane(); i < n / 4; i += QN_LANES) {
        sums += key[i];
    }
    const float mean = qn_warp_sum(sum_4(sums)) / (float)n;
    f32x4 squares = {0, 0, 0, 0};
    QN_UNROLL(1)
    for (uint32_t i = qn_lane(); i < n / 4; i += QN_LANES) {
        squares += (key[i] - mean) * (key[i] - mean);
    }
    const float variance = qn_warp_sum(sum_4(squares)) / (float)n;
    const float scale = 1.0F / qn_sqrt(variance + args->eps);
    const f32x4 *angles = (const f32x4 *)(args->angles + (uint64_t)t * 2 * args->n_pairs);
    QN_UNROLL(1)
    for (uint32_t i = qn_lane(); i < n / 4; i += QN_LANES) {
        const f32x4 weight = ((const f32x4 *)args->weight)[i];
        const f32x4 bias = ((const f32x4 *)args->bias)[i];
        const f32x4 v = (key[i] - mean) * scale * weight + bias;
        store_bf16(row, i, i < args->n_pairs / 2 ? turn_2(v, angles[i]) : v);
    }
    QN_UNROLL(1)
    for (uint32_t i = qn_lane(); args->w != 0 && i < args->n_heads; i += QN_LANES) {
        args->w[(uint64_t)t * args->n_heads + i] *= args->scale;
    }
}

QN_GPU_KERNEL(gather)
{
    const uint64_t t = qn_block_x();
    const uint64_t from = args->rows != 0 ? args->rows[t] : t;
    const f32x4 *x = (const f32x4 *)(args->x + from * args->x_stride);
    QN_UNROLL(1)
    for (uint32_t i = qn_thread(); i < args->n / 4; i += QN_GPU_gather_THREADS) {
        const f32x4 v = x[i];
        if (args->y != 0) {
            ((f32x4 *)(args->y + t * args->n))[i] = v;
        }
        if (args->y_bf16 != 0) {
            ((u32x2 *)(args->y_bf16 + t * args->n))[i] = to_bf16(v);
        }
    }
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
    const f32x4 *x = (const f32x4 *)(args->x + t * args->n_embd);
    f32x4 *y = (f32x4 *)(args->hidden + page * args->page_stride);
    QN_UNROLL(2)
    for (uint32_t i = qn_thread(); i < args->n_embd / 4; i += QN_GPU_page_ends_THREADS) {
        y[i] = x[i];
    }
}
