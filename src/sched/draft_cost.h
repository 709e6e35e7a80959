/* SPDX-License-Identifier: Apache-2.0 */
/** @file draft_cost.h  What both policies of drafting believe of costs before they have seen any.
 */
#ifndef QN_SCHED_DRAFT_COST_H
#define QN_SCHED_DRAFT_COST_H

/* A time is off by 14 %, as on a machine with other work. */
static const double noise_variance = 0.02;
/* Verification of r rows costs r^0.3, between a GPU (r^0) and plain C on a CPU (r^1) ... */
static const double slope_mean = 0.3;
static const double slope_variance = 0.09;
/* ... with bends, where another kernel takes over: some 10 % from one row count to the next. */
static const double bend_variance = 0.04;
/* All costs rise and fall together, with the context and the machine: faded, by 1 % a step. */
static const double scale_variance = 0.25;
/* When they do so suddenly, by a factor of 3. */
static const double sudden_variance = 1;
/* An MTP pass is 1/20 of the trunk's. */
static const double log_mtp_pass = -3;
/* What is known of costs fades over 2,000 steps: contexts grow slowly. */
static const double costs_kept = 0.9995;
/* Depths are taken for faster than known by so many standard deviations, so that they get known. */
static const double optimism = 0.7;
/* Times outside are errors of the clock or of the caller. */
static const double step_s_min = 1e-9;
static const double step_s_max = 1e6;
/* While drafts do not pay, probes may lose this share of the time. */
static const double probe_share = 0.02;

/* Covariance of what passes over two numbers of rows cost, by the logarithms of these. */
static inline double rows_covariance(double log_a, double log_b)
{
    return scale_variance + slope_variance * log_a * log_b +
           bend_variance * (log_a < log_b ? log_a : log_b);
}
#endif
