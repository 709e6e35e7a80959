/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD: one allocation of a program fails, when a test says so while it runs.
 *
 * QN_FAIL_FILE names a file that begins with a 64-bit number, which both map: it is counted down by
 * every allocation of every thread, and the one that makes it 0 fails.  At 0 none does.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define QN_EVERYWHERE __attribute__((visibility("default")))

static _Atomic uint64_t *g_left; /* NULL: no file */

static __attribute__((constructor)) void map_file(void)
{
    const char *const path = getenv("QN_FAIL_FILE");
    const int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *const memory = mmap(NULL, sizeof *g_left, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    g_left = memory != MAP_FAILED ? memory : NULL;
}

static bool fails(void)
{
    uint64_t left = g_left != NULL ? atomic_load(g_left) : 0;
    while (left > 0 && !atomic_compare_exchange_weak(g_left, &left, left - 1)) {
    }
    if (left == 1) {
        errno = ENOMEM;
    }
    return left == 1;
}

static void next_symbol(const char *name, void *function, size_t n_bytes)
{
    void *const symbol = dlsym(RTLD_NEXT, name);
    memcpy(function, &symbol, n_bytes);
}

QN_EVERYWHERE void *malloc(size_t n_bytes)
{
    static void *(*next)(size_t);
    if (next == NULL) {
        next_symbol("malloc", &next, sizeof next);
    }
    return fails() ? NULL : next(n_bytes);
}

QN_EVERYWHERE void *calloc(size_t n, size_t n_bytes)
{
    static void *(*next)(size_t, size_t);
    if (next == NULL) {
        next_symbol("calloc", &next, sizeof next);
    }
    return fails() ? NULL : next(n, n_bytes);
}

QN_EVERYWHERE void *realloc(void *before, size_t n_bytes)
{
    static void *(*next)(void *, size_t);
    if (next == NULL) {
        next_symbol("realloc", &next, sizeof next);
    }
    return fails() ? NULL : next(before, n_bytes);
}
