/* SPDX-License-Identifier: Apache-2.0 */
#include "server/thread.h"

#include "base/assert.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>

qn_status thread_start(pthread_t *thread, thread_fn *fn, void *argument, const char *name,
                       qn_error *err)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    const int result = pthread_create(thread, NULL, fn, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result != 0) {
        return qn_fail(err, QN_E_IO, result, __func__, "thread %s: not started, expected: %s", name,
                       strerror(result));
    }
    (void)pthread_setname_np(*thread, name);
    return QN_OK;
}

void thread_wake(int event_fd)
{
    int result;
    do {
        result = eventfd_write(event_fd, 1);
    } while (result < 0 && errno == EINTR);
    /* A counter that is full (EAGAIN) wakes as well. */
    QN_ASSERT(result == 0 || errno == EAGAIN);
}
