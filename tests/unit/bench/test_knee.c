/* SPDX-License-Identifier: Apache-2.0 */
/* The search against servers that are queues: requests come as Poisson has it, so many places serve
 * each its time, the knee is known beforehand from long runs of the same model. */
#include "base/rng.h"
#include "bench/knee.h"
#include "bench/stats.h"
#include "support/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES_MAX = 16, N_SEEDS = 12 };

/* A server: a request waits for a place, is served, and its first token comes at once. */
typedef struct queue {
    int n_places;
    double serve_s;
    double jitter; /* share of serve_s by which it varies */
    double limit_s;
} queue;

/* 95th percentile of the wait at a rate, over so many requests, which come at that rate on the
 * whole, as those of a run do. */
static double wait_p95(const queue *q, double rate, uint64_t n, uint64_t seed)
{
    double free_s[PLACES_MAX] = {0};
    double *const waits = malloc(n * sizeof *waits);
    double gaps = 0.0;
    double now_s = 0.0;
    assert_non_null(waits);
    for (uint64_t i = 0; i < n; i++) {
        gaps -= log(1.0 - qn_rng_unit(seed, 1, i));
    }
    for (uint64_t i = 0; i < n; i++) {
        int i_best = 0;
        now_s -= log(1.0 - qn_rng_unit(seed, 1, i)) / rate * ((double)n / gaps);
        for (int k = 1; k < q->n_places; k++) {
            i_best = free_s[k] < free_s[i_best] ? k : i_best;
        }
        const double begin_s = fmax(now_s, free_s[i_best]);
        const double varies = 1.0 + q->jitter * (2.0 * qn_rng_unit(seed, 2, i) - 1.0);
        free_s[i_best] = begin_s + q->serve_s * varies;
        waits[i] = begin_s - now_s;
    }
    bench_sort(waits, n);
    const double p95 = bench_percentile(waits, n, 95.0);
    free(waits);
    return p95;
}

static bench_knee search(const queue *q, double first_rate, uint64_t seed)
{
    const bench_knee_options options = {
        .first_rate = first_rate, .limit_s = q->limit_s, .alone_s = q->serve_s};
    bench_knee knee;
    double rate = 0.0;
    double seconds = 0.0;
    bool is_confirmation = false;
    bench_knee_begin(&knee, &options);
    while (bench_knee_next(&knee, &rate, &seconds, &is_confirmation)) {
        const uint64_t n = (uint64_t)ceil(rate * seconds);
        assert_true(n >= BENCH_KNEE_REQUESTS);
        seed = qn_rng_mix(seed + 1);
        bench_knee_tell(&knee, wait_p95(q, rate, n, seed) <= q->limit_s);
    }
    return knee;
}

/* The knee itself, by runs so long that their noise is small. */
static double true_knee(const queue *q)
{
    enum { N_LONG = 300000 };
    double low = 0.5 * q->n_places / q->serve_s;
    double high = 1.1 * q->n_places / q->serve_s;
    while (high / low > 1.001) {
        const double rate = sqrt(low * high);
        *(wait_p95(q, rate, N_LONG, 1) <= q->limit_s ? &low : &high) = rate;
    }
    return low;
}

static void test_known_knees_are_found(void **state)
{
    /* The last two have limits near their service: chance decides, and 5,000 requests settle it. */
    static const queue queues[] = {{1, 0.02, 0.0, 5.0}, {4, 0.1, 0.5, 2.0},   {16, 0.25, 0.9, 5.0},
                                   {8, 1.0, 0.2, 10.0}, {4, 0.074, 0.0, 0.1}, {8, 0.1, 0.0, 0.05}};
    enum { N_QUEUES = sizeof queues / sizeof *queues };
    int n_within = 0;
    (void)state;
    for (size_t i = 0; i < N_QUEUES; i++) {
        const double knee = true_knee(&queues[i]);
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            const double first = knee * pow(2.0, 6.0 * qn_rng_unit(seed, 3, i) - 3.0);
            const bench_knee found = search(&queues[i], first, seed * 7919);
            print_message("%zu.%d: %.3f of it by %d trials\n", i, (int)seed, found.confirmed / knee,
                          found.n_trials);
            assert_true(found.is_found);
            const double error = fabs(found.confirmed / knee - 1.0);
            assert_true(error < 0.03 + bench_knee_error(BENCH_KNEE_REQUESTS_FULL) / 2.0);
            n_within += error < 0.03;
            assert_true(found.failed <= found.confirmed * 1.0203);
        }
    }
    assert_true(n_within >= N_QUEUES * N_SEEDS * 9 / 10);
}

/* What a server without noise holds, exactly. */
static void test_answer_is_confirmed_and_the_next_step_is_not(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        const double knee = 0.3 * pow(3.7, i);
        const bench_knee_options options = {.first_rate = 5.0, .limit_s = 1.0, .n_min = 1};
        bench_knee search_state;
        double rate = 0.0;
        double seconds = 0.0;
        bool is_confirmation = false;
        double best = 0.0;
        int n_confirmations = 0; /* of the answer */
        bench_knee_begin(&search_state, &options);
        while (bench_knee_next(&search_state, &rate, &seconds, &is_confirmation)) {
            if (is_confirmation && rate <= knee && rate >= best) {
                n_confirmations = rate > best ? 1 : n_confirmations + 1;
                best = rate;
            }
            bench_knee_tell(&search_state, rate <= knee);
        }
        assert_true(search_state.is_found);
        assert_true(search_state.confirmed <= knee && search_state.confirmed > knee / 1.0201);
        assert_int_equal(n_confirmations, BENCH_KNEE_CONFIRMATIONS);
    }
}

static void test_no_knee_says_why(void **state)
{
    (void)state;
    for (int holds = 0; holds < 2; holds++) {
        const bench_knee_options options = {.first_rate = 5.0, .limit_s = 1.0, .n_min = 1};
        bench_knee knee;
        double rate = 0.0;
        double seconds = 0.0;
        bool is_confirmation = false;
        bench_knee_begin(&knee, &options);
        while (bench_knee_next(&knee, &rate, &seconds, &is_confirmation)) {
            bench_knee_tell(&knee, holds == 1);
        }
        assert_false(knee.is_found);
        assert_non_null(strstr(knee.why, holds == 1 ? "at every rate" : "at any rate"));
    }
}

/* A server that never holds the limit by chance of its own was asked at ever lower rates, each
 * trial longer than the last, for days. */
static void test_search_ends_where_requests_do_not_meet(void **state)
{
    (void)state;
    for (int knows = 0; knows < 2; knows++) {
        const bench_knee_options options = {
            .first_rate = 700.0, .limit_s = 0.04, .alone_s = knows == 1 ? 0.02 : 0.0};
        bench_knee knee;
        double rate = 0.0;
        double seconds = 0.0;
        double all_s = 0.0;
        bool is_full = false;
        bench_knee_begin(&knee, &options);
        while (bench_knee_next(&knee, &rate, &seconds, &is_full)) {
            all_s += seconds;
            bench_knee_tell(&knee, false);
        }
        assert_non_null(strstr(knee.why, "hardly meet"));
        assert_true(all_s < (knows == 1 ? 300.0 : 4000.0));
    }
}

/* Short trials that lie are found out by full ones. */
static void test_short_trials_may_be_wrong(void **state)
{
    (void)state;
    for (int lie = 0; lie < 2; lie++) { /* all hold up to 12, or none above 8 */
        const double told = lie == 0 ? 12.0 : 8.0;
        const bench_knee_options options = {.first_rate = 5.0, .limit_s = 1.0, .n_min = 1};
        bench_knee knee;
        double rate = 0.0;
        double seconds = 0.0;
        bool is_full = false;
        bench_knee_begin(&knee, &options);
        while (bench_knee_next(&knee, &rate, &seconds, &is_full)) {
            bench_knee_tell(&knee, rate <= (is_full ? 10.0 : told));
        }
        assert_true(knee.is_found);
        assert_true(knee.confirmed <= 10.0 && knee.confirmed > 9.7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_knees_are_found),
        cmocka_unit_test(test_answer_is_confirmed_and_the_next_step_is_not),
        cmocka_unit_test(test_no_knee_says_why),
        cmocka_unit_test(test_search_ends_where_requests_do_not_meet),
        cmocka_unit_test(test_short_trials_may_be_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
