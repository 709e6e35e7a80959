/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/try.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    SPIN_NS = 50 * 1000, /* between two loops of one forward pass lie a few microseconds */
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
    qn_pool_fn *fn;     /* the loop: written by the caller before i_loop moves on, NULL: leave */
    void *context;      /* as fn */
    size_t n_items;     /* as fn */
    _Atomic uint64_t i_loop;    /* grows under the mutex; a worker runs each value once */
    _Atomic uint32_t n_running; /* workers that have not finished the loop */
    pthread_mutex_t mutex;      /* for sleeping only */
    pthread_cond_t has_loop;    /* i_loop has grown */
    pthread_cond_t is_done;     /* n_running is 0 */
    worker workers[];           /* n_threads - 1 */
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
    return atomic_load_explicit(&pool->i_loop, memory_order_acquire) != i_seen;
}

static bool is_loop_done(const qn_pool *pool, uint64_t i_seen)
{
    (void)i_seen;
    return atomic_load_explicit(&pool->n_running, memory_order_acquire) == 0;
}

/* Ready within SPIN_NS? */
static bool spin(const qn_pool *pool, ready_fn *is_ready, uint64_t i_seen)
{
    const uint64_t end_ns = qn_clock_ns() + SPIN_NS;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (is_ready(pool, i_seen)) {
                return true;
            }
            relax();
        }
    } while (qn_clock_ns() < end_ns);
    return false;
}

static void await(qn_pool *pool, ready_fn *is_ready, uint64_t i_seen, pthread_cond_t *condition)
{
    if (pool->may_spin && spin(pool, is_ready, i_seen)) {
        return;
    }
    (void)pthread_mutex_lock(&pool->mutex);
    while (!is_ready(pool, i_seen)) {
        (void)pthread_cond_wait(condition, &pool->mutex);
    }
    (void)pthread_mutex_unlock(&pool->mutex);
}

/* Publish the loop that the pool's fields describe and wake the workers. */
static void start_loop(qn_pool *pool)
{
    atomic_store_explicit(&pool->n_running, pool->n_started, memory_order_relaxed);
    (void)pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->i_loop, 1, memory_order_release);
    (void)pthread_cond_broadcast(&pool->has_loop);
    (void)pthread_mutex_unlock(&pool->mutex);
}

static void *work(void *argument)
{
    const worker *const self = argument;
    qn_pool *const pool = self->pool;
    for (uint64_t i_seen = 0;; i_seen++) {
        await(pool, has_new_loop, i_seen, &pool->has_loop);
        if (pool->fn == NULL) {
            return NULL;
        }
        run_share(pool, self->i_thread);
        if (atomic_fetch_sub_explicit(&pool->n_running, 1, memory_order_acq_rel) == 1) {
            (void)pthread_mutex_lock(&pool->mutex); /* so that the caller cannot miss the signal */
            (void)pthread_cond_signal(&pool->is_done);
            (void)pthread_mutex_unlock(&pool->mutex);
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
    pool->fn = fn;
    pool->context = context;
    pool->n_items = n_items;
    start_loop(pool);
    run_share(pool, 0);
    await(pool, is_loop_done, 0, &pool->is_done);
}
