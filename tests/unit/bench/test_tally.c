/* SPDX-License-Identifier: Apache-2.0 */
/* Runs whose figures are known: requests at a steady rate that take a known time. */
#include "bench/tally.h"
#include "support/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double no_limits[BENCH_N_METRICS] = {(double)NAN, (double)NAN, (double)NAN,
                                                  (double)NAN};

static void near(double seen, double expected, double share)
{
    if (!(fabs(seen - expected) <= share * fabs(expected) + 1e-12)) {
        fail_msg("%.9g, expected %.9g", seen, expected);
    }
}

enum { N_CHUNKS = 5 };

/* A request: first token after ttft_s, then N_CHUNKS - 1 chunks of two tokens, gap_s apart. */
static void add(bench_tally *tally, double due_s, double ttft_s, double gap_s, bench_end end)
{
    double chunks[N_CHUNKS];
    for (int i = 0; i < N_CHUNKS; i++) {
        chunks[i] = due_s + ttft_s + gap_s * i;
    }
    const bool is_whole = end == BENCH_DONE;
    bench_record record = {.due_s = due_s,
                           .sent_s = due_s,
                           .first_s = is_whole ? chunks[0] : (double)NAN,
                           .last_s = is_whole ? chunks[N_CHUNKS - 1] : (double)NAN,
                           .end_s = chunks[N_CHUNKS - 1],
                           .n_chunks = is_whole ? N_CHUNKS : 0,
                           .chunk_s = chunks,
                           .has_usage = true,
                           .has_cached = true,
                           .n_prompt = 100,
                           .n_output = 9,
                           .n_cached = 60,
                           .end = end};
    (void)snprintf(record.finish, sizeof record.finish, "length");
    (void)snprintf(record.message, sizeof record.message, "request of %.1f s", due_s);
    bench_tally_add(tally, &record);
}

static void test_latencies_are_those_of_the_requests(void **state)
{
    bench_tally tally;
    size_t n = 0;
    (void)state;
    bench_tally_begin(&tally, 250.0);
    for (int i = 0; i < 10; i++) {
        add(&tally, i, i == 9 ? 0.3 : 0.2, 0.04, BENCH_DONE);
    }
    double *const ttfts = bench_tally_values(&tally, BENCH_TTFT, &n);
    assert_int_equal(n, 10);
    near(ttfts[0], 200.0, 1e-9);
    near(ttfts[9], 300.0, 1e-9);
    free(ttfts);
    double *const tpots = bench_tally_values(&tally, BENCH_TPOT, &n);
    near(tpots[5], 160.0 / 8.0, 1e-9);                               /* of tokens, */
    near(bench_histogram_percentile(&tally.itl, 50.0), 40.0, 0.002); /* not of chunks */
    free(tpots);
    assert_int_equal(tally.n_over, 1);
    assert_int_equal(tally.finishes[0].n, 10);
    bench_tally_end(&tally);
}

static void test_what_failed_is_counted_and_not_measured(void **state)
{
    bench_tally tally;
    size_t n = 0;
    (void)state;
    bench_tally_begin(&tally, (double)INFINITY);
    add(&tally, 0.0, 0.2, 0.04, BENCH_DONE);
    add(&tally, 1.0, 0.2, 0.04, BENCH_RATE_LIMITED);
    add(&tally, 2.0, 0.2, 0.04, BENCH_RATE_LIMITED);
    add(&tally, 3.0, 0.2, 0.04, BENCH_CANCELLED);
    const bench_sums sums = bench_tally_sums(&tally, no_limits);
    assert_int_equal(sums.n_done, 1);
    assert_int_equal(sums.n_failed, 2);
    assert_int_equal(sums.n_cancelled, 1);
    near(sums.success_rate, 1.0 / 3.0, 1e-12);
    assert_int_equal(sums.n_input, 100);
    assert_int_equal(tally.n_ends[BENCH_RATE_LIMITED], 2);
    assert_string_equal(tally.messages[BENCH_RATE_LIMITED], "request of 1.0 s");
    free(bench_tally_values(&tally, BENCH_E2EL, &n));
    assert_int_equal(n, 1);
    bench_tally_end(&tally);
}

static void test_goodput_is_within_all_limits(void **state)
{
    const double limits[BENCH_N_METRICS] = {[BENCH_TTFT] = 250.0,
                                            [BENCH_TPOT] = 30.0,
                                            [BENCH_E2EL] = (double)NAN,
                                            [BENCH_ITL] = (double)NAN};
    bench_tally tally;
    (void)state;
    bench_tally_begin(&tally, (double)INFINITY);
    add(&tally, 0.0, 0.2, 0.04, BENCH_DONE);
    add(&tally, 1.0, 0.3, 0.04, BENCH_DONE); /* TTFT */
    add(&tally, 2.0, 0.2, 0.08, BENCH_DONE); /* TPOT */
    add(&tally, 3.0, 0.2, 0.04, BENCH_EMPTY);
    assert_int_equal(bench_tally_sums(&tally, limits).n_good, 1);
    assert_int_equal(bench_tally_sums(&tally, no_limits).n_good, 3);
    bench_tally_end(&tally);
}

/* Ten a second, each of them 2 s: 20 under way once it is steady, 90 tokens a second. */
static void test_steady_window_is_behind_the_ramp(void **state)
{
    bench_tally tally;
    (void)state;
    bench_tally_begin(&tally, (double)INFINITY);
    for (int i = 0; i < 200; i++) {
        add(&tally, i / 10.0, 0.4, 0.4, BENCH_DONE);
    }
    const bench_steady steady = bench_steady_of(&tally);
    assert_string_equal(steady.why, "");
    assert_true(steady.is_found);
    near(steady.from_s, 2.0, 0.06);
    near(steady.to_s, 19.9, 0.01);
    near(steady.output_per_s, 90.0, 0.02);
    near(steady.requests_per_s, 10.0, 0.02);
    near(bench_tally_in_flight(&tally, 5.0, 15.0), 20.0, 0.02);
    bench_tally_end(&tally);
}

static void test_no_steady_window_says_why(void **state)
{
    bench_tally tally;
    (void)state;
    bench_tally_begin(&tally, (double)INFINITY);
    assert_non_null(strstr(bench_steady_of(&tally).why, "no request"));
    for (int i = 0; i < 30; i++) {
        add(&tally, i / 100.0, 0.4, 0.4, BENCH_DONE);
    }
    assert_non_null(strstr(bench_steady_of(&tally).why, "too short"));
    bench_tally_end(&tally);
    bench_tally_begin(&tally, (double)INFINITY);
    for (int i = 0; i < 400; i++) { /* each waits longer than the one before it */
        add(&tally, i / 10.0, 0.4 + i / 40.0, 0.1, BENCH_DONE);
    }
    assert_non_null(strstr(bench_steady_of(&tally).why, "does not keep up"));
    assert_false(bench_steady_of(&tally).is_found);
    bench_tally_end(&tally);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latencies_are_those_of_the_requests),
        cmocka_unit_test(test_what_failed_is_counted_and_not_measured),
        cmocka_unit_test(test_goodput_is_within_all_limits),
        cmocka_unit_test(test_steady_window_is_behind_the_ramp),
        cmocka_unit_test(test_no_steady_window_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
