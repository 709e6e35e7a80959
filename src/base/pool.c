/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/try.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    SPIN_NS = 50 * 1000,      /* between two loops of one forward pass lie a few microseconds */
    SPIN_ALONE_NS = 5 * 1000, /* after that others on this CPU may run */
    SPINS_PER_CLOCK = 32,
    THREADS_MAX = 4096,
};

typedef struct worker {
    qn_pool *pool;
    uint32_t i_thread; /* 1 .. n_threads-1 */
    pthread_t thread;
} worker;

struct qn_pool {
    uint32_t n_threads; /* the caller's included */
    uint32_t n_started; /* workers to join */
    bool may_spin;      /* every thread has a CPU of its own */
    bool is_pinned;     /* and there is no other CPU */
    int caller_cpu;     /* the one that no worker is pinned to; -1: not pinned */
    qn_pool_fn *fn;     /* the loop: written by the caller before i_loop moves on, NULL: leave */
    void *context;      /* as fn */
    size_t n_items;     /* as fn */
    _Atomic uint64_t i_loop;    /* a worker runs each value once */
    _Atomic uint32_t n_running; /* workers that have not finished the loop */
    /*
     * Threads that sleep, or are about to.  Whoever changes what they wait for looks here after it,
     * and they look at that after they have counted themselves: in one order for all of them, so
     * that one of the two sees the other.  While nobody sleeps no lock is taken.
     */
    _Atomic uint32_t n_asleep;
    pthread_mutex_t mutex;   /* for sleeping only */
    pthread_cond_t has_loop; /* i_loop has grown */
    pthread_cond_t is_done;  /* n_running is 0 */
    worker workers[];        /* n_threads - 1 */
};

static inline void relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static void run_share(const qn_pool *pool, uint32_t i_thread)
{
    const size_t len = pool->n_items / pool->n_threads;
    const size_t n_longer = pool->n_items % pool->n_threads; /* the first ones take one more */
    const size_t first = i_thread * len + (i_thread < n_longer ? i_thread : n_longer);
    const size_t end = first + len + (i_thread < n_longer ? 1 : 0);
    if (first < end) {
        pool->fn(pool->context, first, end, i_thread);
    }
}

/* What a thread waits for. */
typedef bool ready_fn(const qn_pool *pool, uint64_t i_seen);

static bool has_new_loop(const qn_pool *pool, uint64_t i_seen)
{
    return atomic_load(&pool->i_loop) != i_seen;
}

static bool is_loop_done(const qn_pool *pool, uint64_t i_seen)
{
    (void)i_seen;
    return atomic_load(&pool->n_running) == 0;
}

/* Ready within SPIN_NS? */
static bool spin(const qn_pool *pool, ready_fn *is_ready, uint64_t i_seen)
{
    const uint64_t start_ns = qn_clock_ns();
    uint64_t now_ns;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (is_ready(pool, i_seen)) {
                return true;
            }
            relax();
        }
        now_ns = qn_clock_ns();
        if (now_ns - start_ns > SPIN_ALONE_NS) {
            (void)sched_yield();
        }
    } while (now_ns - start_ns < SPIN_NS);
    return false;
}

static void await(qn_pool *pool, ready_fn *is_ready, uint64_t i_seen, pthread_cond_t *condition)
{
    if (pool->may_spin && spin(pool, is_ready, i_seen)) {
        return;
    }
    (void)pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->n_asleep, 1);
    while (!is_ready(pool, i_seen)) {
        (void)pthread_cond_wait(condition, &pool->mutex);
    }
    atomic_fetch_sub(&pool->n_asleep, 1);
    (void)pthread_mutex_unlock(&pool->mutex);
}

/* After a change of what threads wait for. */
static void wake(qn_pool *pool, pthread_cond_t *condition)
{
    if (atomic_load(&pool->n_asleep) > 0) {
        (void)pthread_mutex_lock(&pool->mutex);
        (void)pthread_cond_broadcast(condition);
        (void)pthread_mutex_unlock(&pool->mutex);
    }
}

/* Publish the loop that the pool's fields describe and wake the workers. */
static void start_loop(qn_pool *pool)
{
    atomic_store_explicit(&pool->n_running, pool->n_started, memory_order_relaxed);
    atomic_fetch_add(&pool->i_loop, 1);
    wake(pool, &pool->has_loop);
}

/* The i-th CPU that this thread may run on; -1 where that cannot be known. */
static int granted_cpu(uint32_t i_cpu)
{
    cpu_set_t granted;
    if (sched_getaffinity(0, sizeof granted, &granted) != 0) {
        return -1; /* more CPUs than the set has room for: the scheduler will do */
    }
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &granted) && i_cpu-- == 0) {
            return (int)cpu;
        }
    }
    return -1;
}

static bool move_to(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
}

/*
 * The caller's thread is not ours to pin, but the scheduler may have left it on the CPU of a
 * worker, where two threads wait for each other by turns.  So it is moved, and may go where it
 * could before.
 */
static void seat_caller(const qn_pool *pool)
{
    cpu_set_t granted;
    if (pool->caller_cpu >= 0 && sched_getcpu() != pool->caller_cpu &&
        sched_getaffinity(0, sizeof granted, &granted) == 0 &&
        CPU_ISSET((size_t)pool->caller_cpu, &granted) && move_to(pool->caller_cpu)) {
        (void)sched_setaffinity(0, sizeof granted, &granted);
    }
}

static void *work(void *argument)
{
    const worker *const self = argument;
    qn_pool *const pool = self->pool;
    const int cpu = pool->is_pinned ? granted_cpu(self->i_thread) : -1;
    if (cpu >= 0) {
        (void)move_to(cpu);
    }
    for (uint64_t i_seen = 0;; i_seen++) {
        await(pool, has_new_loop, i_seen, &pool->has_loop);
        if (pool->fn == NULL) {
            return NULL;
        }
        run_share(pool, self->i_thread);
        if (atomic_fetch_sub(&pool->n_running, 1) == 1) {
            wake(pool, &pool->is_done);
        }
    }
}

/* Workers take no signals: Ctrl-C is the main thread's. */
static qn_status start_workers(qn_pool *pool, qn_error *err)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = 0;
    while (result == 0 && pool->n_started + 1 < pool->n_threads) {
        worker *const next = &pool->workers[pool->n_started];
        *next = (worker){.pool = pool, .i_thread = pool->n_started + 1};
        result = pthread_create(&next->thread, NULL, work, next);
        pool->n_started += result == 0 ? 1 : 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result != 0) {
        return qn_fail(err, QN_E_NOMEM, result, __func__, "threads: %u started, %u expected: %s",
                       pool->n_started + 1, pool->n_threads, strerror(result));
    }
    return QN_OK;
}

qn_status qn_pool_open(qn_pool **out, uint32_t n_threads, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    const uint32_t n_cpus = qn_cpu_count();
    if (n_threads == 0) {
        n_threads = n_cpus;
    }
    if (n_threads > THREADS_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "threads: %u, at most %d expected", n_threads,
                       THREADS_MAX);
    }
    qn_pool *pool = calloc(1, sizeof *pool + (n_threads - 1) * sizeof pool->workers[0]);
    if (pool == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "threads: no memory for %u", n_threads);
    }
    pool->n_threads = n_threads;
    pool->may_spin = n_threads <= n_cpus;
    /* With fewer threads any CPU might be the one that another process is on. */
    pool->is_pinned = n_threads == n_cpus && n_cpus == qn_cpu_affinity_count();
    pool->caller_cpu = pool->is_pinned ? granted_cpu(0) : -1;
    (void)pthread_mutex_init(&pool->mutex, NULL); /* cannot fail with default attributes */
    (void)pthread_cond_init(&pool->has_loop, NULL);
    (void)pthread_cond_init(&pool->is_done, NULL);
    QN_TRY(status, start_workers(pool, err), fail);
    *out = pool;
    return QN_OK;

fail:
    qn_pool_close(&pool);
    return status;
}

void qn_pool_close(qn_pool **pool)
{
    qn_pool *const p = *pool;
    if (p == NULL) {
        return;
    }
    p->fn = NULL;
    start_loop(p);
    for (uint32_t i = 0; i < p->n_started; i++) {
        (void)pthread_join(p->workers[i].thread, NULL);
    }
    (void)pthread_cond_destroy(&p->is_done);
    (void)pthread_cond_destroy(&p->has_loop);
    (void)pthread_mutex_destroy(&p->mutex);
    free(p);
    *pool = NULL;
}

uint32_t qn_pool_threads(const qn_pool *pool)
{
    return pool->n_threads;
}

void qn_pool_run(qn_pool *pool, size_t n_items, qn_pool_fn *fn, void *context)
{
    QN_ASSERT(fn != NULL);
    if (pool->n_threads == 1 || n_items <= 1) {
        if (n_items > 0) {
            fn(context, 0, n_items, 0);
        }
        return;
    }
    seat_caller(pool);
    pool->fn = fn;
    pool->context = context;
    pool->n_items = n_items;
    start_loop(pool);
    run_share(pool, 0);
    await(pool, is_loop_done, 0, &pool->is_done);
}
