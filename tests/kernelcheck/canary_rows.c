/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels for check_rows.c. */
#include "canary.h"

#include <string.h>

/* -------------------------------------------------------------------------------- rmsnorm -- */

static void rmsnorm_wrong_eps(float *y, size_t y_stride, const float *x, size_t x_stride,
                              const float *weight, size_t n_rows, size_t n, float eps)
{
    qn_rmsnorm_ref(y, y_stride, x, x_stride, weight, n_rows, n, 0.1F * eps);
}
CANARY(rmsnorm, rmsnorm_wrong_eps)

static void rmsnorm_reads_neighbour(float *y, size_t y_stride, const float *x, size_t x_stride,
                                    const float *weight, size_t n_rows, size_t n, float eps)
{
    qn_rmsnorm_ref(y, y_stride, x, x_stride, weight, n_rows, n, n_rows > 1 ? eps : 1.01F * eps);
}
CANARY(rmsnorm, rmsnorm_reads_neighbour)

static void rmsnorm_ignores_stride(float *y, size_t y_stride, const float *x, size_t x_stride,
                                   const float *weight, size_t n_rows, size_t n, float eps)
{
    (void)x_stride;
    qn_rmsnorm_ref(y, y_stride, x, n, weight, n_rows, n, eps);
}
CANARY(rmsnorm, rmsnorm_ignores_stride)

/* Clears the output before it reads the input, which may be the same. */
static void rmsnorm_not_in_place(float *y, size_t y_stride, const float *x, size_t x_stride,
                                 const float *weight, size_t n_rows, size_t n, float eps)
{
    for (size_t t = 0; t < n_rows; t++) {
        memset(y + t * y_stride, 0, n * sizeof *y);
    }
    qn_rmsnorm_ref(y, y_stride, x, x_stride, weight, n_rows, n, eps);
}
CANARY(rmsnorm, rmsnorm_not_in_place)

/* ------------------------------------------------------------------------------ layernorm -- */

static void layernorm_sample_variance(float *y, const float *x, const float *weight,
                                      const float *bias, size_t n, float eps)
{
    qn_layernorm_ref(y, x, weight, bias, n, eps);
    for (size_t i = 0; i < n && n > 1; i++) {
        y[i] = (y[i] - bias[i]) * sqrtf((float)(n - 1) / (float)n) + bias[i];
    }
}
CANARY(layernorm, layernorm_sample_variance)

static void layernorm_wrong_eps(float *y, const float *x, const float *weight, const float *bias,
                                size_t n, float eps)
{
    (void)eps;
    qn_layernorm_ref(y, x, weight, bias, n, 1e-5F);
}
CANARY(layernorm, layernorm_wrong_eps)

static void layernorm_keeps_mean(float *y, const float *x, const float *weight, const float *bias,
                                 size_t n, float eps)
{
    qn_rmsnorm_ref(y, n, x, n, weight, 1, n, eps);
    qn_axpy_ref(y, bias, 1.0F, n);
}
CANARY(layernorm, layernorm_keeps_mean)

/* E[x^2] - E[x]^2 in f32 loses everything where the mean is large. */
static void layernorm_one_pass(float *y, const float *x, const float *weight, const float *bias,
                               size_t n, float eps)
{
    float sum = 0.0F;
    float squares = 0.0F;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        squares += x[i] * x[i];
    }
    const float mean = sum / (float)n;
    const float scale = 1.0F / sqrtf(squares / (float)n - mean * mean + eps);
    for (size_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
    }
}
CANARY(layernorm, layernorm_one_pass)

static void layernorm_not_in_place(float *y, const float *x, const float *weight, const float *bias,
                                   size_t n, float eps)
{
    memset(y, 0, n * sizeof *y);
    qn_layernorm_ref(y, x, weight, bias, n, eps);
}
CANARY(layernorm, layernorm_not_in_place)

/* ----------------------------------------------------------------------------------- rope -- */

/* Pairs (j, j + dim/2), as Llama and half of the world have them. */
static void rope_half_split(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                            uint32_t position, const float *inv_freq)
{
    const uint32_t half = rope_dim / 2;
    for (size_t v = 0; v < n_vectors; v++) {
        for (uint32_t j = 0; j < half; j++) {
            const float angle = (float)position * inv_freq[j];
            float *a = x + v * stride + j;
            const float turned = a[0] * cosf(angle) - a[half] * sinf(angle);
            a[half] = a[half] * cosf(angle) + a[0] * sinf(angle);
            a[0] = turned;
        }
    }
}
CANARY(rope, rope_half_split)

static void rope_turns_back(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                            uint32_t position, const float *inv_freq)
{
    float back[512];
    for (uint32_t j = 0; j < rope_dim / 2; j++) {
        back[j] = -inv_freq[j];
    }
    qn_rope_ref(x, n_vectors, stride, rope_dim, position, back);
}
CANARY(rope, rope_turns_back)

static void rope_at_the_end(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                            uint32_t position, const float *inv_freq)
{
    qn_rope_ref(x + (stride - rope_dim), n_vectors, stride, rope_dim, position, inv_freq);
}
CANARY(rope, rope_at_the_end)

static void rope_first_vector_only(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                                   uint32_t position, const float *inv_freq)
{
    qn_rope_ref(x, n_vectors > 0 ? 1 : 0, stride, rope_dim, position, inv_freq);
}
CANARY(rope, rope_first_vector_only)

/* Positions in half precision are the classic way to lose long contexts. */
static void rope_rounds_position(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                                 uint32_t position, const float *inv_freq)
{
    const float rounded = qn_bf16_to_f32(qn_f32_to_bf16((float)position));
    qn_rope_ref(x, n_vectors, stride, rope_dim, (uint32_t)rounded, inv_freq);
}
CANARY(rope, rope_rounds_position)

/* -------------------------------------------------------------------------- silu_mul, axpy -- */

static void silu_skips_last(float *y, const float *gate, const float *up, size_t n)
{
    qn_silu_mul_ref(y, gate, up, n > 0 ? n - 1 : 0);
}
CANARY(silu_mul, silu_skips_last)

static void silu_swallows_nan(float *y, const float *gate, const float *up, size_t n)
{
    qn_silu_mul_ref(y, gate, up, n);
    for (size_t i = 0; i < n; i++) {
        y[i] = isnan(y[i]) ? 0.0F : y[i];
    }
}
CANARY(silu_mul, silu_swallows_nan)

static void silu_swaps_gate_and_up(float *y, const float *gate, const float *up, size_t n)
{
    qn_silu_mul_ref(y, up, gate, n);
}
CANARY(silu_mul, silu_swaps_gate_and_up)

static void silu_of_minus_inf_is_nan(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = gate[i] / (1.0F + expf(-gate[i])) * up[i];
    }
}
CANARY(silu_mul, silu_of_minus_inf_is_nan)

static void silu_not_in_place(float *y, const float *gate, const float *up, size_t n)
{
    float *copy = malloc((n + 1) * sizeof *copy);
    if (copy == NULL) {
        abort();
    }
    memcpy(copy, gate, n * sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        y[i] = 0.0F; /* up may be y */
    }
    qn_silu_mul_ref(y, copy, up, n);
    free(copy);
}
CANARY(silu_mul, silu_not_in_place)

/* Elements behind whole vectors by another formula: bits depend on where threads cut. */
static void silu_tail_order(float *y, const float *gate, const float *up, size_t n)
{
    qn_silu_mul_ref(y, gate, up, n);
    for (size_t i = n / 16 * 16; i < n; i++) {
        y[i] = nextafterf(y[i], INFINITY);
    }
}
CANARY(silu_mul, silu_tail_order)

static void axpy_tail_order(float *y, const float *x, float scale, size_t n)
{
    qn_axpy_ref(y, x, scale, n / 16 * 16);
    for (size_t i = n / 16 * 16; i < n; i++) {
        y[i] = fmaf(scale, x[i], y[i]);
    }
}
CANARY(axpy, axpy_tail_order)

static void rope_batch_order(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                             uint32_t position, const float *inv_freq)
{
    qn_rope_ref(x, n_vectors, stride, rope_dim, position, inv_freq);
    for (size_t v = 0; v < n_vectors && n_vectors > 1; v++) {
        x[v * stride] = nextafterf(x[v * stride], INFINITY);
    }
}
CANARY(rope, rope_batch_order)

/* Reads a whole vector of 16 where fewer elements are left. */
static void axpy_overreads(float *y, const float *x, float scale, size_t n)
{
    volatile float sink = 0.0F;
    for (size_t i = n / 16 * 16; i < n / 16 * 16 + 16; i++) {
        sink += x[i];
    }
    (void)sink;
    qn_axpy_ref(y, x, scale, n);
}
CANARY(axpy, axpy_overreads)

static void axpy_writes_before(float *y, const float *x, float scale, size_t n)
{
    qn_axpy_ref(y, x, scale, n);
    y[-1] = 0.0F;
}
CANARY(axpy, axpy_writes_before)

static void axpy_changes_input(float *y, const float *x, float scale, size_t n)
{
    qn_axpy_ref(y, x, scale, n);
    ((float *)(uintptr_t)x)[0] += 1.0F;
}
CANARY(axpy, axpy_changes_input)

static void axpy_overwrites(float *y, const float *x, float scale, size_t n)
{
    memset(y, 0, n * sizeof *y);
    qn_axpy_ref(y, x, scale, n);
}
CANARY(axpy, axpy_overwrites)

/* Takes 0 for 0 * x, so that NaN and Inf of a zero weight vanish. */
static void axpy_skips_special(float *y, const float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] += isfinite(x[i]) ? scale * x[i] : 0.0F;
    }
}
CANARY(axpy, axpy_skips_special)

const kc_canary kc_canaries_rows[] = {
    CANARY_OF(rmsnorm, rmsnorm_wrong_eps),
    CANARY_OF(rmsnorm, rmsnorm_reads_neighbour),
    CANARY_OF(rmsnorm, rmsnorm_ignores_stride),
    CANARY_OF(rmsnorm, rmsnorm_not_in_place),
    CANARY_OF(layernorm, layernorm_sample_variance),
    CANARY_OF(layernorm, layernorm_wrong_eps),
    CANARY_OF(layernorm, layernorm_keeps_mean),
    CANARY_OF(layernorm, layernorm_one_pass),
    CANARY_OF(layernorm, layernorm_not_in_place),
    CANARY_OF(rope, rope_half_split),
    CANARY_OF(rope, rope_turns_back),
    CANARY_OF(rope, rope_at_the_end),
    CANARY_OF(rope, rope_first_vector_only),
    CANARY_OF(rope, rope_rounds_position),
    CANARY_OF(rope, rope_batch_order),
    CANARY_OF(silu_mul, silu_tail_order),
    CANARY_OF(silu_mul, silu_skips_last),
    CANARY_OF(silu_mul, silu_swallows_nan),
    CANARY_OF(silu_mul, silu_swaps_gate_and_up),
    CANARY_OF(silu_mul, silu_of_minus_inf_is_nan),
    CANARY_OF(silu_mul, silu_not_in_place),
    {"axpy_overreads", "axpy", put_axpy_overreads, true},
    CANARY_OF(axpy, axpy_tail_order),
    CANARY_OF(axpy, axpy_writes_before),
    CANARY_OF(axpy, axpy_changes_input),
    CANARY_OF(axpy, axpy_overwrites),
    CANARY_OF(axpy, axpy_skips_special),
    {NULL, NULL, NULL, false},
};
