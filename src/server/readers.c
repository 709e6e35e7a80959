/* SPDX-License-Identifier: Apache-2.0 */
#include "server/readers.h"

#include "base/assert.h"
#include "server/thread.h"

#include <errno.h>

/* First in, first out. */
typedef struct job_queue {
    reader_job *first;
    reader_job **end; /* where the next one is linked */
} job_queue;

struct server_readers {
    int wake_fd; /* borrowed */
    pthread_mutex_t mutex;
    pthread_cond_t has_jobs;
    job_queue to_do; /* under the lock, as the next two */
    job_queue done;
    bool must_stop;
    uint32_t n_threads; /* that were started */
    pthread_t threads[];
};

static void push(job_queue *queue, reader_job *job)
{
    job->next = NULL;
    *queue->end = job;
    queue->end = &job->next;
}

static reader_job *pop(job_queue *queue)
{
    reader_job *const first = queue->first;
    if (first != NULL) {
        queue->first = first->next;
        queue->end = queue->first != NULL ? queue->end : &queue->first;
    }
    return first;
}

/* The next job; NULL: leave. */
static reader_job *await_job(server_readers *r, reader_job *done)
{
    (void)pthread_mutex_lock(&r->mutex);
    if (done != NULL) {
        push(&r->done, done);
        thread_wake(r->wake_fd);
    }
    while (!r->must_stop && r->to_do.first == NULL) {
        (void)pthread_cond_wait(&r->has_jobs, &r->mutex);
    }
    reader_job *const next = r->must_stop ? NULL : pop(&r->to_do);
    (void)pthread_mutex_unlock(&r->mutex);
    return next;
}

static void *work(void *argument)
{
    server_readers *const r = argument;
    for (reader_job *job = await_job(r, NULL); job != NULL; job = await_job(r, job)) {
        job->run(job);
    }
    return NULL;
}

qn_status readers_open(server_readers **out, uint32_t n_threads, int wake_fd, qn_error *err)
{
    qn_status status = QN_OK;
    QN_ASSERT(n_threads > 0);
    *out = NULL;
    server_readers *r = calloc(1, sizeof *r + n_threads * sizeof r->threads[0]);
    if (r == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "readers: no memory for %u", n_threads);
    }
    r->wake_fd = wake_fd;
    r->to_do.end = &r->to_do.first;
    r->done.end = &r->done.first;
    (void)pthread_mutex_init(&r->mutex, NULL); /* cannot fail with default attributes */
    (void)pthread_cond_init(&r->has_jobs, NULL);
    while (status == QN_OK && r->n_threads < n_threads) {
        status = thread_start(&r->threads[r->n_threads], work, r, "quern-reader", err);
        r->n_threads += status == QN_OK ? 1 : 0;
    }
    if (status < 0) {
        readers_close(&r);
    }
    *out = r;
    return status;
}

void readers_close(server_readers **readers)
{
    server_readers *const r = *readers;
    if (r == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&r->mutex);
    r->must_stop = true;
    (void)pthread_cond_broadcast(&r->has_jobs);
    (void)pthread_mutex_unlock(&r->mutex);
    for (uint32_t i = 0; i < r->n_threads; i++) {
        (void)pthread_join(r->threads[i], NULL);
    }
    (void)pthread_cond_destroy(&r->has_jobs);
    (void)pthread_mutex_destroy(&r->mutex);
    free(r);
    *readers = NULL;
}

void readers_submit(server_readers *readers, reader_job *job)
{
    QN_ASSERT(job->run != NULL);
    (void)pthread_mutex_lock(&readers->mutex);
    push(&readers->to_do, job);
    (void)pthread_cond_signal(&readers->has_jobs);
    (void)pthread_mutex_unlock(&readers->mutex);
}

reader_job *readers_poll(server_readers *readers)
{
    (void)pthread_mutex_lock(&readers->mutex);
    reader_job *const job = pop(&readers->done);
    (void)pthread_mutex_unlock(&readers->mutex);
    return job;
}
