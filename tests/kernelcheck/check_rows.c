/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelcheck.h"

#include <string.h>

static const size_t widths[] = {1, 15, 16, 17, 31, 33, 128, 512, 2048, 6144};
enum { N_WIDTHS = sizeof widths / sizeof *widths, ROWS = 3, WIDTH_MAX = 6144 };

/* Where a vector of n elements is cut in two that no kernel would cut it in. */
static size_t cut_of(size_t n)
{
    return n / 2 + (n > 2 ? 1 : 0);
}

static void rmsnorm_oracle(double *want, double *ulp, const float *x, const float *w, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    for (size_t i = 0; i < n; i++) {
        want[i] = (double)x[i] / sqrt(sum / (double)n + (double)1e-5F) * (double)w[i];
        ulp[i] = kc_ulp(want[i]);
    }
}

void check_rmsnorm(kc *run)
{
    static double want[WIDTH_MAX];
    static double ulp[WIDTH_MAX];
    for (size_t i = 0; i < (size_t)N_WIDTHS * KC_N_FILLS; i++) {
        const size_t n = widths[i % N_WIDTHS];
        kc_begin(run, "[%d][%zu] fill %zu", ROWS, n, i / N_WIDTHS);
        const size_t x_stride = n + 3;
        const size_t y_stride = n + 5;
        float *x = kc_in(run, (ROWS - 1) * x_stride + n, (kc_fill_kind)(i / N_WIDTHS));
        float *w = kc_in(run, n, KC_UNIFORM);
        float *y = kc_out(run, (ROWS - 1) * y_stride + n);
        float *alone = kc_out(run, n);
        if (n > 16) {
            x[x_stride + 5] = NAN; /* the middle row */
        }
        kc_seal(run);
        run->k->rmsnorm(y, y_stride, x, x_stride, w, ROWS, n, 1e-5F);
        for (size_t t = 0; t < ROWS; t++) {
            rmsnorm_oracle(want, ulp, x + t * x_stride, w, n);
            kc_close(run, "y", y + t * y_stride, want, ulp, n, kc_bound("rmsnorm"));
            kc_untouched(run, "gap between rows", y + t * y_stride + n, t + 1 < ROWS ? 5 : 0);
        }
        run->k->rmsnorm(alone, n, x + 2 * x_stride, n, w, 1, n, 1e-5F);
        kc_same(run, "a row alone", alone, y + 2 * y_stride, n * sizeof *y);
        memcpy(alone, x + 2 * x_stride, n * sizeof *y);
        run->k->rmsnorm(alone, n, alone, n, w, 1, n, 1e-5F);
        kc_same(run, "a row in place", alone, y + 2 * y_stride, n * sizeof *y);
        run->k->rmsnorm(alone, n, alone, n, w, 0, n, 1e-5F);
        kc_same(run, "no rows", alone, y + 2 * y_stride, n * sizeof *y);
        kc_end(run);
    }
}

void check_layernorm(kc *run)
{
    static double want[WIDTH_MAX];
    static double ulp[WIDTH_MAX];
    for (size_t i = 0; i < (size_t)N_WIDTHS * KC_N_FILLS; i++) {
        const size_t n = widths[i % N_WIDTHS];
        kc_begin(run, "[%zu] fill %zu", n, i / N_WIDTHS);
        float *x = kc_in(run, n, (kc_fill_kind)(i / N_WIDTHS));
        float *w = kc_in(run, n, KC_UNIFORM);
        float *b = kc_in(run, n, KC_UNIFORM);
        float *y = kc_out(run, n);
        float *in_place = kc_out(run, n);
        memcpy(in_place, x, n * sizeof *x);
        kc_seal(run);
        run->k->layernorm(y, x, w, b, n, 1e-6F);
        run->k->layernorm(in_place, in_place, w, b, n, 1e-6F);
        kc_same(run, "in place", in_place, y, n * sizeof *y);
        double mean = 0.0;
        double variance = 0.0;
        double max = 0.0;
        for (size_t k = 0; k < n; k++) {
            mean += (double)x[k];
            max = fmax(max, fabs((double)x[k]));
        }
        mean /= (double)n;
        for (size_t k = 0; k < n; k++) {
            variance += ((double)x[k] - mean) * ((double)x[k] - mean) / (double)n;
        }
        for (size_t k = 0; k < n; k++) {
            want[k] = ((double)x[k] - mean) / sqrt(variance + (double)1e-6F) * (double)w[k] +
                      (double)b[k];
            ulp[k] = kc_ulp(fmax(fabs(want[k]), fabs((double)b[k]))) +
                     (double)n * 0x1p-53 * max * fabs((double)w[k]) /
                         sqrt(variance + (double)1e-6F) / kc_bound("layernorm");
        }
        kc_close(run, "y", y, want, ulp, n, kc_bound("layernorm"));
        kc_end(run);
    }
}

static void rope_case(kc *run, uint32_t dim, size_t stride, size_t n, uint32_t position)
{
    kc_begin(run, "dim %u, %zu vectors %zu apart, position %u", dim, n, stride, position);
    /* The last vector ends where its rope part does. */
    const size_t n_all = (n - 1) * stride + dim;
    float *x = kc_out(run, n_all);
    float *alone = kc_out(run, dim);
    float *before = kc_in(run, n_all, KC_UNIFORM);
    float *inv = kc_in(run, dim / 2, KC_UNIFORM);
    for (uint32_t j = 0; j < dim / 2; j++) {
        inv[j] = 1.0F / powf(8e6F, (float)(2 * j) / (float)dim);
    }
    for (size_t k = 0; k < n_all; k++) {
        x[k] = before[k];
    }
    kc_seal(run);
    run->k->rope(x, n, stride, dim, position, inv);
    for (size_t v = 0; v < n; v++) {
        for (size_t k = 0; k < stride && v * stride + k < n_all; k++) {
            const size_t at = v * stride + k;
            const size_t pair = at - k % 2;
            double want = (double)before[at];
            double size = 0.0;
            if (k < dim) {
                const double angle = (double)((float)position * inv[k / 2]);
                const double a = (double)before[pair];
                const double b = (double)before[pair + 1];
                want =
                    k % 2 == 0 ? a * cos(angle) - b * sin(angle) : b * cos(angle) + a * sin(angle);
                size = 0x1p-24 * (fabs(a) + fabs(b));
            }
            kc_close(run, "x", x + at, &want, &size, 1, kc_bound("rope"));
        }
    }
    memcpy(alone, before + (n - 1) * stride, dim * sizeof *alone);
    run->k->rope(alone, 1, dim, dim, position, inv);
    kc_same(run, "a vector alone", alone, x + (n - 1) * stride, dim * sizeof *alone);
    kc_end(run);
}

/* NaN stays in its pair: neither its vector nor its neighbours catch it. */
static void rope_nan_case(kc *run)
{
    enum { DIM = 8, STRIDE = 11, N = 3, BAD = STRIDE + 2 }; /* first of pair 1 of vector 1 */
    kc_begin(run, "NaN");
    float *x = kc_out(run, 2 * STRIDE + DIM);
    float *inv = kc_in(run, DIM / 2, KC_UNIFORM);
    for (int i = 0; i < 2 * STRIDE + DIM; i++) {
        x[i] = i == BAD ? NAN : kc_uniform(run);
    }
    kc_seal(run);
    run->k->rope(x, N, STRIDE, DIM, 5, inv);
    for (int i = 0; i < 2 * STRIDE + DIM; i++) {
        if (isnan(x[i]) != (i == BAD || i == BAD + 1)) {
            kc_fail(run, "x[%d] is %g", i, (double)x[i]);
        }
    }
    kc_end(run);
}

void check_rope(kc *run)
{
    static const uint32_t positions[] = {0, 1, 63, 4096, 1048575};
    static const uint32_t dims[][3] = {{64, 64, 1}, {64, 256, 4}, {8, 20, 3},
                                       {2, 2, 5},   {10, 11, 9},  {36, 40, 17}};
    for (size_t i = 0; i < 30; i++) {
        rope_case(run, dims[i / 5][0], dims[i / 5][1], dims[i / 5][2], positions[i % 5]);
    }
    rope_nan_case(run);
}

static void expect_silu(double *want, double *size, const float *gate, const float *up, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const double z = (double)gate[k];
        want[k] = isinf(z) && z < 0.0 ? 0.0 : z / (1.0 + exp(-z)) * (double)up[k];
        size[k] = fmax(kc_ulp(want[k]), 1e-36 * fabs((double)up[k]) / kc_bound("silu_mul"));
    }
}

/* Every part of the range in which exp(-gate) is neither 0 nor Inf. */
static void silu_sweep_case(kc *run)
{
    static double want[WIDTH_MAX];
    static double size[WIDTH_MAX];
    kc_begin(run, "gates from -110 to 110");
    float *gate = kc_in(run, WIDTH_MAX, KC_UNIFORM);
    float *up = kc_in(run, WIDTH_MAX, KC_EQUAL);
    float *y = kc_out(run, WIDTH_MAX);
    for (int k = 0; k < WIDTH_MAX; k++) {
        gate[k] += 220.0F * (float)k / WIDTH_MAX - 110.0F;
    }
    kc_seal(run);
    run->k->silu_mul(y, gate, up, WIDTH_MAX);
    expect_silu(want, size, gate, up, WIDTH_MAX);
    kc_close(run, "y", y, want, size, WIDTH_MAX, kc_bound("silu_mul"));
    kc_end(run);
}

void check_silu_mul(kc *run)
{
    static const float special[] = {0.0F,  -0.0F,  100.0F,   -100.0F,   88.0F, -88.0F,
                                    1e30F, -1e30F, INFINITY, -INFINITY, NAN};
    static double want[WIDTH_MAX];
    static double size[WIDTH_MAX];
    for (size_t i = 0; i <= N_WIDTHS; i++) {
        const size_t n = i < N_WIDTHS ? widths[i] : 0;
        kc_begin(run, "[%zu]", n);
        float *gate = kc_in(run, n, KC_UNIFORM);
        float *up = kc_in(run, n, KC_UNIFORM);
        float *y = kc_out(run, n);
        float *on_gate = kc_out(run, n);
        float *on_up = kc_out(run, n);
        for (size_t k = 0; k < n; k++) {
            gate[k] *= k % 3 == 0 ? 20.0F : 1.0F;
        }
        for (size_t k = 0; k < sizeof special / sizeof *special && k < n; k++) {
            gate[n - 1 - k] = special[k];
            up[n - 1 - k] = 0.5F;
        }
        if (n > 16) {
            up[0] = NAN;
            up[2] = INFINITY;
        }
        kc_seal(run);
        run->k->silu_mul(y, gate, up, n);
        expect_silu(want, size, gate, up, n);
        kc_close(run, "y", y, want, size, n, kc_bound("silu_mul"));
        memcpy(on_gate, gate, n * sizeof *gate);
        run->k->silu_mul(on_gate, on_gate, up, n);
        kc_same(run, "y is gate", on_gate, y, n * sizeof *y);
        memcpy(on_up, up, n * sizeof *up);
        run->k->silu_mul(on_up, gate, on_up, n);
        kc_same(run, "y is up", on_up, y, n * sizeof *y);
        const size_t cut = cut_of(n);
        run->k->silu_mul(on_up, gate, up, cut);
        run->k->silu_mul(on_up + cut, gate + cut, up + cut, n - cut);
        kc_same(run, "in two parts", on_up, y, n * sizeof *y);
        kc_end(run);
    }
    silu_sweep_case(run);
}

void check_axpy(kc *run)
{
    static double want[WIDTH_MAX];
    static double size[WIDTH_MAX];
    for (size_t i = 0; i < (size_t)(N_WIDTHS + 1) * KC_N_FILLS; i++) {
        const size_t n = i % (N_WIDTHS + 1) < N_WIDTHS ? widths[i % (N_WIDTHS + 1)] : 0;
        const kc_fill_kind fill = (kc_fill_kind)(i / (N_WIDTHS + 1));
        kc_begin(run, "[%zu] fill %d", n, fill);
        float *x = kc_in(run, n, fill);
        float *before = kc_in(run, n, KC_UNIFORM);
        float *y = kc_out(run, n);
        float *parts = kc_out(run, n);
        const float scale = kc_uniform(run);
        for (size_t k = 0; k < n; k++) {
            y[k] = before[k];
            parts[k] = before[k];
            want[k] = (double)before[k] + (double)scale * (double)x[k];
            size[k] = 0x1p-24 * (fabs((double)before[k]) + fabs((double)scale * (double)x[k]));
        }
        kc_seal(run);
        run->k->axpy(y, x, scale, n);
        kc_close(run, "y", y, want, size, n, kc_bound("axpy"));
        const size_t cut = cut_of(n);
        run->k->axpy(parts, x, scale, cut);
        run->k->axpy(parts + cut, x + cut, scale, n - cut);
        kc_same(run, "in two parts", parts, y, n * sizeof *y);
        kc_end(run);
    }
}
