/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products on any device, without instructions for matrices: a block has a strip, or a pair's two,
 * of one group. Eight teams of 32 threads take every eighth tile each, a thread what tiles.h gives
 * its lane: two outputs and some of the inputs, for a few rows at a time.
 */
#include "kernels/gpu/epilogue.h"
#include "kernels/gpu/expand.h"

enum {
    N_TEAMS = QN_GPU_matmul_plain_THREADS / 32,
    N_ROWS = 2, /* at a time */
};

/* Inputs k and k + 1 of a row, zeros behind its end. */
QN_DEV f32x2 load_pair(const uint16_t *x, uint32_t k, uint32_t n_in)
{
    if (k + 1 < n_in) {
        const uint32_t pair = *(const uint32_t *)(x + k);
        return (f32x2){qn_bf16_low(pair), qn_bf16_high(pair)};
    }
    return (f32x2){k < n_in ? qn_bf16_to_f32(x[k]) : 0.0F, 0.0F};
}

/* What a tile adds to the sums of outputs g and g + 8. */
QN_DEV void add_tile(float sums[][2], const qn_gpu_weight *w, uint32_t kind, const uint8_t *data,
                     const uint8_t *scales, uint32_t tile, const uint16_t *const x[N_ROWS])
{
    const uint32_t lane = qn_thread() % 32;
    const uint32_t g = lane / 4;
    uint32_t a[4][4];
    f32x2 factors = {1, 1};
    uint32_t word = 0;
    if (kind == QN_GPU_W_MXFP4) {
        word = ((const uint32_t *)(scales + tile * QN_TILE_SCALE_BYTES))[g];
    } else if (kind == QN_GPU_W_FP8) {
        factors = ((const f32x2 *)(scales + tile * 32 / QN_TILE_FP8_BLOCK * 64))[g];
    }
    qn_expand_tile(a, kind, qn_load_16(data + tile * QN_TILE_BYTES + lane * 16), word);
    QN_UNROLL(4)
    for (uint32_t r = 0; r < N_ROWS; r++) {
        float part[2] = {0, 0};
        QN_UNROLL(4)
        for (uint32_t s = 0; s < qn_tile_steps(kind); s++) {
            QN_UNROLL(4)
            for (uint32_t i = 0; i < 4; i++) {
                const uint32_t k = tile * qn_tile_in(kind) + 16 * s + 2 * (lane % 4) + i / 2 * 8;
                const f32x2 v = load_pair(x[r], k, w->n_in);
                part[i % 2] = qn_fma(qn_bf16_low(a[s][i]), v.x, part[i % 2]);
                part[i % 2] = qn_fma(qn_bf16_high(a[s][i]), v.y, part[i % 2]);
            }
        }
        sums[r][0] = qn_fma(factors.x, part[0], sums[r][0]);
        sums[r][1] = qn_fma(factors.y, part[1], sums[r][1]);
    }
}

/* The product of up to N_ROWS slots with a strip: every team's sums to shared [N_ROWS][16]. */
QN_DEV void multiply_strip(float *shared, const qn_gpu_matmul_args *args, uint32_t kind,
                           uint32_t group, uint32_t strip, const uint16_t *const x[N_ROWS])
{
    const qn_gpu_weight *w = &args->w;
    const uint8_t *data =
        w->data + group * w->data_stride + strip * qn_tile_strip_bytes(kind, w->n_in);
    const uint8_t *scales =
        w->scales + group * w->scales_stride + strip * qn_tile_strip_scale_bytes(kind, w->n_in);
    const uint32_t lane = qn_thread() % 32;
    const uint32_t team = qn_thread() / 32;
    float sums[N_ROWS][2] = {0};
    QN_UNROLL(1)
    for (uint32_t tile = team; tile < qn_tile_pad(w->n_in) / qn_tile_in(kind); tile += N_TEAMS) {
        add_tile(sums, w, kind, data, scales, tile, x);
    }
    QN_UNROLL(4)
    for (uint32_t r = 0; r < N_ROWS; r++) {
        QN_UNROLL(2)
        for (uint32_t i = 0; i < 2; i++) {
            float sum = sums[r][i] + qn_shuffle_xor_f32(sums[r][i], 1);
            sum += qn_shuffle_xor_f32(sum, 2);
            if (lane % 4 == 0) {
                shared[(team * N_ROWS + r) * 16 + lane / 4 + 8 * i] = sum;
            }
        }
    }
}

QN_DEV float sum_teams(const float *shared, uint32_t i)
{
    float sum = 0;
    QN_UNROLL(1)
    for (uint32_t team = 0; team < N_TEAMS; team++) {
        sum += shared[team * N_ROWS * 16 + i];
    }
    return sum;
}

QN_DEV void multiply(const qn_gpu_matmul_args *args, uint32_t kind, float *shared)
{
    const uint32_t n_matrices = args->w.is_pair != 0 ? 2 : 1;
    const uint32_t group = args->active != NULL ? args->active[qn_block_y()] : qn_block_y();
    const uint32_t first = args->first_of != NULL ? args->first_of[group] : 0;
    const uint32_t end = args->first_of != NULL ? args->first_of[group + 1] : args->n_rows;
    const uint32_t strip = qn_block_x();
    QN_UNROLL(1)
    for (uint32_t slot = first; slot < end; slot += N_ROWS) {
        const uint16_t *x[N_ROWS];
        QN_UNROLL(4)
        for (uint32_t r = 0; r < N_ROWS; r++) { /* the last row stands for those behind it */
            const uint32_t s = qn_min_u32(slot + r, end - 1);
            x[r] = args->x + group * args->x_group_stride +
                   (args->row_of != NULL ? args->row_of[s] : s) * args->x_stride;
        }
        for (uint32_t m = 0; m < n_matrices; m++) {
            multiply_strip(shared + m * N_TEAMS * N_ROWS * 16, args, kind, group,
                           strip * n_matrices + m, x);
        }
        qn_barrier();
        const uint32_t i = qn_thread();
        if (i < N_ROWS * 16 && slot + i / 16 < end) {
            const float up = n_matrices == 2 ? sum_teams(shared + N_TEAMS * N_ROWS * 16, i) : 0;
            qn_put(args, group, slot + i / 16, strip * 16 + i % 16, sum_teams(shared, i), up);
        }
        qn_barrier();
    }
}

QN_GPU_KERNEL(matmul_plain)
{
    QN_SHARED(float, sums, 2 * N_TEAMS * N_ROWS * 16);
    if (args->n_active != NULL && qn_block_y() >= args->n_active[0]) {
        return;
    }
    if (args->w.kind == QN_GPU_W_MXFP4) {
        multiply(args, QN_GPU_W_MXFP4, sums);
    } else if (args->w.kind == QN_GPU_W_FP8) {
        multiply(args, QN_GPU_W_FP8, sums);
    } else {
        multiply(args, QN_GPU_W_BF16, sums);
    }
}
