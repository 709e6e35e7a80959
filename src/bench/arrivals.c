/* SPDX-License-Identifier: Apache-2.0 */
#include "arrivals.h"

#include "base/assert.h"
#include "base/rng.h"

#include <math.h>

/* Draws of one interval: a stream of their own, so that a rejection moves no other interval. */
typedef struct draw {
    uint64_t seed;
    uint64_t stream;
    uint64_t counter;
} draw;

/* In (0, 1]: a logarithm is taken of it. */
static double draw_unit(draw *d)
{
    return 1.0 - qn_rng_unit(d->seed, d->stream, d->counter++);
}

/* Box & Muller 1958. */
static double draw_normal(draw *d)
{
    const double radius = sqrt(-2.0 * log(draw_unit(d)));
    return radius * cos(2.0 * M_PI * draw_unit(d));
}

/* Gamma of mean @p shape and scale 1.  Below shape 1 as U^(1/shape) times one of shape + 1. */
static double draw_gamma(draw *d, double shape)
{
    const double boost = shape < 1.0 ? pow(draw_unit(d), 1.0 / shape) : 1.0;
    const double third = (shape < 1.0 ? shape + 1.0 : shape) - 1.0 / 3.0;
    const double c = 1.0 / sqrt(9.0 * third);
    for (;;) {
        const double x = draw_normal(d);
        const double v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        if (v > 0.0 && log(draw_unit(d)) < 0.5 * x * x + third * (1.0 - v + log(v))) {
            return boost * third * v;
        }
    }
}

/* An interval, up to a factor that all have. */
static double draw_interval(const bench_arrival_options *o, uint64_t i)
{
    draw d = {.seed = o->seed, .stream = i};
    switch (o->kind) {
    case BENCH_CONSTANT:
    case BENCH_RECORDED: return 1.0;
    case BENCH_POISSON: return -log(draw_unit(&d));
    case BENCH_GAMMA: return draw_gamma(&d, o->burstiness);
    }
    return 1.0;
}

void bench_arrivals(double *due_s, uint64_t n, const bench_arrival_options *options)
{
    if (options->kind == BENCH_RECORDED) {
        QN_ASSERT(options->speed > 0.0);
        for (uint64_t i = 0; i < n; i++) {
            due_s[i] = options->recorded[i] / options->speed;
        }
        return;
    }
    QN_ASSERT(options->rate > 0.0);
    QN_ASSERT(options->kind != BENCH_GAMMA || options->burstiness > 0.0);
    double sum = 0.0;
    for (uint64_t i = 0; i < n; i++) {
        sum += i > 0 ? draw_interval(options, i) : 0.0;
        due_s[i] = sum;
    }
    /* With a tiny shape all may have come out as 0; then they stay together. */
    const double stretch = sum > 0.0 ? (double)(n - 1) / options->rate / sum : 0.0;
    for (uint64_t i = 0; i < n; i++) {
        due_s[i] *= stretch;
    }
}
