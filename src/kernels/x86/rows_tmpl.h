/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rows_tmpl.h  What is done to whole rows of floats: norms, rotation, gate, sum, rounding.
 * Included once by a file of each level.
 *
 * All of them read and write each element once or twice and do little between: first-level cache
 * and memory bound them, not arithmetic, so f64 is used wherever it makes a bound easy to hold.
 * Sums of the norms: element i goes to partial sum i % (2 QN_LANES) in f64, those left behind the
 * last whole group are added one after the other at the end.  Everything else has no sum.
 */
#include "kernels/x86/lanes.h"
#include "kernels/x86/x86.h"

#include <float.h>
#include <math.h>

/* Sum of x[i] - centre, or of its square. */
QN_INLINE double moment(const float *x, size_t n, double centre, bool is_squared)
{
    enum { GROUP = 2 * QN_LANES }; /* four chains of additions: one alone waits for itself */
    qn_vd sums[4] = {{0}, {0}, {0}, {0}};
    const qn_vf none = {0};
    const qn_vd one = qn_vd_set(1.0);
    const size_t n_whole = n / GROUP * GROUP;
    for (size_t i = 0; i < n_whole; i += GROUP) {
        for (size_t k = 0; k < 2; k++) {
            const qn_vf v = qn_vf_load(x + i + k * QN_LANES, QN_LANES, none);
            const qn_vd low = qn_vd_low(v) - qn_vd_set(centre);
            const qn_vd high = qn_vd_high(v) - qn_vd_set(centre);
            sums[2 * k] = qn_vd_fma(low, is_squared ? low : one, sums[2 * k]);
            sums[2 * k + 1] = qn_vd_fma(high, is_squared ? high : one, sums[2 * k + 1]);
        }
    }
    double sum = qn_vd_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (size_t i = n_whole; i < n; i++) {
        const double d = (double)x[i] - centre;
        sum += is_squared ? d * d : d;
    }
    return sum;
}

/* y = (x - centre) * scale * weight + bias, in f64 since scale may be below the floats. */
QN_INLINE void scale_row(float *y, const float *x, const float *weight, const float *bias, size_t n,
                         double centre, double scale)
{
    const qn_vf none = {0};
    for (size_t i = 0; i < n; i += QN_LANES) {
        const qn_vf v = qn_vf_load(x + i, n - i, none);
        const qn_vf w = qn_vf_load(weight + i, n - i, none);
        qn_vd low = (qn_vd_low(v) - qn_vd_set(centre)) * qn_vd_set(scale) * qn_vd_low(w);
        qn_vd high = (qn_vd_high(v) - qn_vd_set(centre)) * qn_vd_set(scale) * qn_vd_high(w);
        if (bias != NULL) {
            const qn_vf b = qn_vf_load(bias + i, n - i, none);
            low += qn_vd_low(b);
            high += qn_vd_high(b);
        }
        qn_vf_store(y + i, qn_vf_narrow(low, high), n - i);
    }
}

void QN_LEVEL(qn_rmsnorm)(float *y, size_t y_stride, const float *x, size_t x_stride,
                          const float *weight, size_t n_rows, size_t n, float eps)
{
    for (size_t t = 0; t < n_rows; t++) {
        const float *from = x + t * x_stride;
        const double mean = moment(from, n, 0.0, true) / (double)n;
        scale_row(y + t * y_stride, from, weight, NULL, n, 0.0, 1.0 / sqrt(mean + (double)eps));
    }
}

void QN_LEVEL(qn_layernorm)(float *y, const float *x, const float *weight, const float *bias,
                            size_t n, float eps)
{
    const double mean = moment(x, n, 0.0, false) / (double)n;
    const double variance = moment(x, n, mean, true) / (double)n;
    scale_row(y, x, weight, bias, n, mean, 1.0 / sqrt(variance + (double)eps));
}

/*
 * cos and sin of angles below 2^51: x = k pi/2 + r with |r| <= pi/4, which two fused steps take off
 * without loss, and Taylor's series of r.  What they leave out is below 1e-10, so that the f64
 * results become the floats nearest to cos and sin, but for one in hundreds.
 */
QN_INLINE void cos_sin(qn_vd x, qn_vd *cosine, qn_vd *sine)
{
    const double shift = 0x1.8p52; /* added to a small number, leaves its integer in the low bits */
    const qn_vd shifted = qn_vd_fma(x, qn_vd_set(0x1.45f306dc9c883p-1), qn_vd_set(shift));
    const qn_vd k = shifted - qn_vd_set(shift);
    qn_vd r = qn_vd_fma(k, qn_vd_set(-0x1.921fb54442d18p+0), x);
    r = qn_vd_fma(k, qn_vd_set(-0x1.1a62633145c07p-54), r);
    const qn_vd square = r * r;
    qn_vd s = qn_vd_set(-1.0 / 39916800.0);
    s = qn_vd_fma(s, square, qn_vd_set(1.0 / 362880.0));
    s = qn_vd_fma(s, square, qn_vd_set(-1.0 / 5040.0));
    s = qn_vd_fma(s, square, qn_vd_set(1.0 / 120.0));
    s = qn_vd_fma(s, square, qn_vd_set(-1.0 / 6.0));
    s = qn_vd_fma(s * square, r, r);
    qn_vd c = qn_vd_set(-1.0 / 3628800.0);
    c = qn_vd_fma(c, square, qn_vd_set(1.0 / 40320.0));
    c = qn_vd_fma(c, square, qn_vd_set(-1.0 / 720.0));
    c = qn_vd_fma(c, square, qn_vd_set(1.0 / 24.0));
    c = qn_vd_fma(c, square, qn_vd_set(-0.5));
    c = qn_vd_fma(c, square, qn_vd_set(1.0));
    /* By quarter turns: cos is c, -s, -c, s and sin is s, c, -s, -c. */
    const qn_vi quarter = (qn_vi)shifted;
    const qn_vi odd = -(quarter & 1);
    const qn_vi sine_sign = (quarter & 2) << 62;
    const qn_vi cosine_sign = ((quarter + 1) & 2) << 62;
    *sine = (qn_vd)((((qn_vi)c & odd) | ((qn_vi)s & ~odd)) ^ sine_sign);
    *cosine = (qn_vd)((((qn_vi)s & odd) | ((qn_vi)c & ~odd)) ^ cosine_sign);
}

/* Lane pairs get c of their angle, and -s and s: (a, b) * cosines + (b, a) * sines is the turn. */
static void turn_factors(float *cosines, float *sines, size_t n_pairs, float position,
                         const float *inv_freq)
{
    for (size_t j = 0; j < n_pairs; j += QN_LANES) {
        const qn_vf none = {0};
        const qn_vf angle = qn_vf_set(position) * qn_vf_load(inv_freq + j, n_pairs - j, none);
        qn_vd c[2];
        qn_vd s[2];
        cos_sin(qn_vd_low(angle), &c[0], &s[0]);
        cos_sin(qn_vd_high(angle), &c[1], &s[1]);
        const qn_vf cosine = qn_vf_narrow(c[0], c[1]);
        const qn_vf sine = qn_vf_narrow(s[0], s[1]);
        for (size_t i = 0; i < QN_LANES; i++) {
            cosines[2 * (j + i)] = cosine[i];
            cosines[2 * (j + i) + 1] = cosine[i];
            sines[2 * (j + i)] = -sine[i];
            sines[2 * (j + i) + 1] = sine[i];
        }
    }
}

void QN_LEVEL(qn_rope)(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                       uint32_t position, const float *inv_freq)
{
    enum { N_MAX = 64 }; /* elements whose factors are kept at a time */
    float cosines[N_MAX];
    float sines[N_MAX];
    const qn_vf none = {0};
    for (size_t first = 0; first < rope_dim; first += N_MAX) {
        const size_t n = rope_dim - first < N_MAX ? rope_dim - first : N_MAX;
        turn_factors(cosines, sines, n / 2, (float)position, inv_freq + first / 2);
        for (size_t v = 0; v < n_vectors; v++) {
            float *at = x + v * stride + first;
            for (size_t i = 0; i < n; i += QN_LANES) {
                const qn_vf pairs = qn_vf_load(at + i, n - i, none);
                const qn_vf c = qn_vf_load(cosines + i, QN_LANES, none);
                const qn_vf s = qn_vf_load(sines + i, QN_LANES, none);
                qn_vf_store(at + i, qn_vf_fma(pairs, c, qn_vf_swap(pairs) * s), n - i);
            }
        }
    }
}

void QN_LEVEL(qn_silu_mul)(float *y, const float *gate, const float *up, size_t n)
{
    const qn_vf none = {0};
    for (size_t i = 0; i < n; i += QN_LANES) {
        /* -Inf as the least float: its quotient by exp's Inf is -0, that of -Inf would be NaN. */
        const qn_vf z = qn_vf_max(qn_vf_set(-FLT_MAX), qn_vf_load(gate + i, n - i, none));
        const qn_vf u = qn_vf_load(up + i, n - i, none);
        qn_vf_store(y + i, z / (qn_vf_set(1.0F) + qn_vf_exp(-z)) * u, n - i);
    }
}

void QN_LEVEL(qn_axpy)(float *y, const float *x, float scale, size_t n)
{
    const qn_vf none = {0};
    for (size_t i = 0; i < n; i += QN_LANES) {
        const qn_vf sum = qn_vf_load(y + i, n - i, none);
        qn_vf_store(y + i, qn_vf_fma(qn_vf_set(scale), qn_vf_load(x + i, n - i, none), sum), n - i);
    }
}

void QN_LEVEL(qn_to_bf16)(uint8_t *y, const float *x, size_t n)
{
    const size_t n_whole = n / QN_LANES * QN_LANES;
    for (size_t i = 0; i < n_whole; i += QN_LANES) {
        qn_vi_store_u16(y + 2 * i, qn_vi_bf16(V(loadu_ps)(x + i)));
    }
    qn_to_bf16_ref(y + 2 * n_whole, x + n_whole, n - n_whole);
}
