/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"
#include "base/pool.h"
#include "base/rng.h"
#include "support/unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 1000 };

static int g_creations_left = -1; /* thread creations that still succeed; -1: all */

/* Stands before libc's: fails when told to.
 * NOLINTNEXTLINE: libc names its parameters its own way */
__attribute__((visibility("default"))) int pthread_create(pthread_t *restrict thread,
                                                          const pthread_attr_t *restrict attr,
                                                          void *(*start)(void *),
                                                          void *restrict argument)
{
    typedef int create_fn(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (g_creations_left == 0) {
        return EAGAIN;
    }
    g_creations_left -= g_creations_left > 0 ? 1 : 0;
    create_fn *create = NULL;
    void *const symbol = dlsym(RTLD_NEXT, "pthread_create");
    memcpy(&create, &symbol, sizeof create);
    return create(thread, attr, start, argument);
}

typedef struct visits {
    uint32_t n_visits[ITEMS_MAX];
    uint32_t n_ranges[64];
} visits;

static void visit(void *context, size_t first, size_t end, uint32_t i_thread)
{
    visits *const v = context;
    for (size_t i = first; i < end; i++) {
        v->n_visits[i]++;
    }
    v->n_ranges[i_thread]++;
}

static void check_loops(uint32_t n_threads)
{
    static const size_t lengths[] = {0, 1, 2, 3, 7, 8, 63, 64, 65, ITEMS_MAX};
    qn_pool *pool = NULL;
    qn_error err = {0};
    assert_int_equal(qn_pool_open(&pool, n_threads, &err), QN_OK);
    assert_int_equal(qn_pool_threads(pool), n_threads);
    for (size_t i_run = 0; i_run < 200; i_run++) {
        static visits v;
        const size_t n_items = lengths[i_run % (sizeof lengths / sizeof lengths[0])];
        v = (visits){0};
        qn_pool_run(pool, n_items, visit, &v);
        for (size_t i = 0; i < ITEMS_MAX; i++) {
            assert_int_equal(v.n_visits[i], i < n_items ? 1 : 0);
        }
        for (uint32_t i = 0; i < 64; i++) {
            assert_true(v.n_ranges[i] <= 1); /* contiguous: one range a thread */
        }
    }
    qn_pool_close(&pool);
    assert_null(pool);
    qn_pool_close(&pool);
}

static void test_every_item_runs_once(void **state)
{
    (void)state;
    check_loops(1);
    check_loops(2);
    check_loops(3);
    check_loops(16); /* more than most machines have: sleeps, never spins */
}

static void test_zero_threads_means_one_per_cpu(void **state)
{
    (void)state;
    qn_pool *pool = NULL;
    qn_error err = {0};
    assert_int_equal(qn_pool_open(&pool, 0, &err), QN_OK);
    assert_int_equal(qn_pool_threads(pool), qn_cpu_count());
    qn_pool_close(&pool);
}

static void test_one_thread_starts_no_other(void **state)
{
    (void)state;
    qn_pool *pool = NULL;
    qn_error err = {0};
    g_creations_left = 0;
    assert_int_equal(qn_pool_open(&pool, 1, &err), QN_OK);
    g_creations_left = -1;
    qn_pool_close(&pool);
}

static void test_failed_thread_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int n_good = 0; n_good < 3; n_good++) {
        qn_pool *pool = NULL;
        qn_error err = {0};
        g_creations_left = n_good;
        assert_int_equal(qn_pool_open(&pool, 4, &err), QN_E_NOMEM);
        g_creations_left = -1;
        assert_null(pool);
        assert_int_equal(err.sys, EAGAIN);
        assert_non_null(strstr(err.text, "4 expected"));
    }
}

static void test_absurd_thread_count_is_refused(void **state)
{
    (void)state;
    qn_pool *pool = NULL;
    qn_error err = {0};
    assert_int_equal(qn_pool_open(&pool, 1000000, &err), QN_E_INVAL);
    assert_string_equal(err.text, "threads: 1000000, at most 4096 expected");
}

/* The generator is part of the format of seeded weights: these bits may never change.  They were
 * computed from the formula in rng.h with Python's integers. */
static void test_random_bits_are_fixed(void **state)
{
    (void)state;
    assert_true(qn_rng_u64(0, 0, 0) == 0xFBE988335F36C931U);
    assert_true(qn_rng_u64(1, 2, 3) == 0xB19F667B2781FDF0U);
    assert_true(qn_rng_u64(UINT64_MAX, 7, UINT64_MAX) == 0x8640ABB44EBDDBC7U);
    for (uint64_t i = 0; i < 1000; i++) {
        const double unit = qn_rng_unit(5, 6, i);
        assert_true(unit >= 0.0 && unit < 1.0);
    }
}

/* Counts the loops that thread 0 ran on CPU @p context[0]. */
static void note_cpu(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)first;
    (void)end;
    int *const cpu_and_count = context;
    if (i_thread == 0 && sched_getcpu() == cpu_and_count[0]) {
        cpu_and_count[1]++;
    }
}

/* A caller that the scheduler left on a worker's CPU took 100 us a loop: each spun while the other
 * had work. */
static void test_caller_leaves_the_cpu_of_a_worker(void **state)
{
    (void)state;
    qn_pool *pool = NULL;
    qn_error err = {0};
    cpu_set_t granted;
    int cpus[2];
    size_t n_cpus = 0;
    assert_int_equal(sched_getaffinity(0, sizeof granted, &granted), 0);
    for (size_t i = 0; i < CPU_SETSIZE && n_cpus < 2; i++) {
        if (CPU_ISSET(i, &granted)) {
            cpus[n_cpus++] = (int)i;
        }
    }
    if (n_cpus < 2 || qn_cpu_count() != qn_cpu_affinity_count()) {
        skip(); /* workers are not pinned */
    }
    assert_int_equal(qn_pool_open(&pool, 0, &err), QN_OK);
    int on_first[2] = {cpus[0], 0};
    for (int i = 0; i < 20; i++) {
        cpu_set_t of_worker;
        CPU_ZERO(&of_worker);
        CPU_SET((size_t)cpus[1], &of_worker);
        assert_int_equal(sched_setaffinity(0, sizeof of_worker, &of_worker), 0);
        assert_int_equal(sched_setaffinity(0, sizeof granted, &granted), 0);
        qn_pool_run(pool, ITEMS_MAX, note_cpu, on_first);
    }
    assert_in_range(on_first[1], 10, 20); /* another program may push it back now and then */
    cpu_set_t after;
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&after, &granted));
    qn_pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_runs_once),
        cmocka_unit_test(test_zero_threads_means_one_per_cpu),
        cmocka_unit_test(test_one_thread_starts_no_other),
        cmocka_unit_test(test_failed_thread_leaves_nothing_behind),
        cmocka_unit_test(test_absurd_thread_count_is_refused),
        cmocka_unit_test(test_caller_leaves_the_cpu_of_a_worker),
        cmocka_unit_test(test_random_bits_are_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
