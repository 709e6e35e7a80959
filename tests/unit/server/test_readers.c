/* SPDX-License-Identifier: Apache-2.0 */
#include "server/readers.h"
#include "support/fail_alloc.h"
#include "support/unit.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { N_JOBS = 300, WAIT_MS = 120 * 1000 };

/* A job that counts its runs, and may wait for a word. */
typedef struct test_job {
    reader_job job;
    uint32_t n_runs;
    size_t i_begun; /* when it began among others */
    bool waits;
} test_job;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static size_t n_begun;
static bool may_go;

static void run(reader_job *job)
{
    test_job *const self = (test_job *)(void *)job;
    (void)pthread_mutex_lock(&mutex);
    self->i_begun = n_begun++;
    (void)pthread_cond_broadcast(&changed);
    while (self->waits && !may_go) {
        (void)pthread_cond_wait(&changed, &mutex);
    }
    (void)pthread_mutex_unlock(&mutex);
    self->n_runs++;
}

static void await_begun(size_t n)
{
    (void)pthread_mutex_lock(&mutex);
    while (n_begun < n) {
        (void)pthread_cond_wait(&changed, &mutex);
    }
    (void)pthread_mutex_unlock(&mutex);
}

static void let_go(bool may)
{
    (void)pthread_mutex_lock(&mutex);
    may_go = may;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

static int wake_fd;
static test_job jobs[N_JOBS];

static server_readers *begin(uint32_t n_threads)
{
    server_readers *readers = NULL;
    qn_error err = {0};
    memset(jobs, 0, sizeof jobs);
    n_begun = 0;
    may_go = false;
    for (size_t i = 0; i < N_JOBS; i++) {
        jobs[i].job.run = run;
    }
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(wake_fd >= 0);
    assert_int_equal(readers_open(&readers, n_threads, wake_fd, &err), QN_OK);
    assert_null(readers_poll(readers));
    return readers;
}

/* The next job that is done, however long it takes. */
static test_job *await_job(server_readers *readers)
{
    for (;;) {
        reader_job *const done = readers_poll(readers);
        struct pollfd descriptor = {.fd = wake_fd, .events = POLLIN};
        eventfd_t value = 0;
        if (done != NULL) {
            return (test_job *)(void *)done;
        }
        assert_int_equal(poll(&descriptor, 1, WAIT_MS), 1);
        assert_int_equal(eventfd_read(wake_fd, &value), 0);
    }
}

static void end(server_readers *readers)
{
    readers_close(&readers);
    assert_null(readers);
    (void)close(wake_fd);
}

static void test_each_job_runs_once(void **state)
{
    (void)state;
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads++) {
        server_readers *const readers = begin(n_threads);
        for (size_t i = 0; i < N_JOBS; i++) {
            readers_submit(readers, &jobs[i].job);
        }
        for (size_t i = 0; i < N_JOBS; i++) {
            const test_job *const done = await_job(readers);
            assert_int_equal(done->n_runs, 1);
            assert_true(n_threads > 1 || done == &jobs[i]);
        }
        assert_null(readers_poll(readers));
        end(readers);
        for (size_t i = 0; i < N_JOBS; i++) {
            assert_int_equal(jobs[i].n_runs, 1);
        }
    }
}

/* A long job holds one thread only, and what comes later is told first. */
static void test_first_come_first_served(void **state)
{
    (void)state;
    server_readers *const readers = begin(2);
    jobs[0].waits = true;
    for (size_t i = 0; i < 20; i++) {
        readers_submit(readers, &jobs[i].job);
    }
    for (size_t i = 1; i < 20; i++) {
        assert_ptr_equal(await_job(readers), &jobs[i]);
    }
    for (size_t i = 2; i < 20; i++) {
        assert_true(jobs[i].i_begun > jobs[i - 1].i_begun);
    }
    let_go(true);
    assert_ptr_equal(await_job(readers), &jobs[0]);
    end(readers);
}

/* A job can be given again from the moment that it was polled. */
static void test_jobs_again(void **state)
{
    (void)state;
    server_readers *const readers = begin(3);
    for (size_t i = 0; i < 8; i++) {
        readers_submit(readers, &jobs[i].job);
    }
    for (size_t i = 0; i < 1000; i++) {
        readers_submit(readers, &await_job(readers)->job);
    }
    for (size_t i = 0; i < 8; i++) {
        assert_true(await_job(readers)->n_runs > 0);
    }
    end(readers);
}

static void *close_readers(void *argument)
{
    server_readers *readers = argument;
    readers_close(&readers);
    return NULL;
}

/* Closing waits for the job at hand; the others never run. */
static void test_close_with_jobs(void **state)
{
    (void)state;
    server_readers *const readers = begin(1);
    jobs[0].waits = true;
    for (size_t i = 0; i < N_JOBS; i++) {
        readers_submit(readers, &jobs[i].job);
    }
    await_begun(1);
    pthread_t closer;
    assert_int_equal(pthread_create(&closer, NULL, close_readers, readers), 0);
    let_go(true);
    assert_int_equal(pthread_join(closer, NULL), 0);
    assert_int_equal(jobs[0].n_runs, 1);
    (void)close(wake_fd);

    server_readers *const idle = begin(4);
    end(idle);
}

static void test_no_memory(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    server_readers *readers = NULL;
    qn_error err = {0};
    g_allocations_left = 0;
    assert_int_equal(readers_open(&readers, 2, 0, &err), QN_E_NOMEM);
    g_allocations_left = SIZE_MAX;
    assert_null(readers);
    assert_string_equal(err.text, "readers: no memory for 2");

    server_readers *const others = begin(1); /* once it runs nothing is allocated */
    readers_submit(others, &jobs[0].job);
    (void)await_job(others);
    g_allocations_left = SIZE_MAX / 2;
    for (size_t i = 0; i < N_JOBS; i++) {
        readers_submit(others, &jobs[i].job);
    }
    for (size_t i = 0; i < N_JOBS; i++) {
        (void)await_job(others);
    }
    assert_true(g_allocations_left == SIZE_MAX / 2);
    g_allocations_left = SIZE_MAX;
    end(others);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_job_runs_once), cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_jobs_again),         cmocka_unit_test(test_close_with_jobs),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
