/* SPDX-License-Identifier: Apache-2.0 */
/** @file fail_alloc.h  malloc() and its kin that fail when told to: include in one file of a test.
 */
#ifndef QN_TEST_FAIL_ALLOC_H
#define QN_TEST_FAIL_ALLOC_H
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/** clang's AddressSanitizer is linked statically and finds no allocator behind this one; that of
 * ThreadSanitizer asks for memory before there is one. */
#if defined(__SANITIZE_THREAD__)
#define QN_CANNOT_FAIL_ALLOCATIONS 1
#elif defined(__clang__) && defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define QN_CANNOT_FAIL_ALLOCATIONS 1
#endif
#endif

/** The n-th allocation from now fails (0: the next); SIZE_MAX: none does. */
static size_t g_allocations_left = SIZE_MAX;

/** Every later one fails too; otherwise only that one. */
static int g_fails_from_then_on = 0;

/** Allocations that have failed. */
static size_t g_n_failed = 0;

static inline int allocation_fails(void)
{
    if (g_allocations_left == SIZE_MAX) {
        return 0;
    }
    if (g_allocations_left > 0) {
        g_allocations_left--;
        return 0;
    }
    if (!g_fails_from_then_on) {
        g_allocations_left = SIZE_MAX;
    }
    g_n_failed++;
    errno = ENOMEM;
    return 1;
}

#ifndef QN_CANNOT_FAIL_ALLOCATIONS
/** Seen by shared libraries too, so that their allocations fail as well. */
#define QN_EVERYWHERE __attribute__((visibility("default")))

/** The function of that name behind this one: libc's, or the sanitizer's. */
static inline void next_symbol(const char *name, void *function, size_t n_bytes)
{
    void *const symbol = dlsym(RTLD_NEXT, name);
    memcpy(function, &symbol, n_bytes);
}

QN_EVERYWHERE void *malloc(size_t n_bytes) /* NOLINT: libc names its parameters its own way */
{
    static void *(*next)(size_t);
    if (next == NULL) {
        next_symbol("malloc", &next, sizeof next);
    }
    return allocation_fails() ? NULL : next(n_bytes);
}

QN_EVERYWHERE void *calloc(size_t n, size_t n_bytes) /* NOLINT */
{
    static void *(*next)(size_t, size_t);
    if (next == NULL) {
        next_symbol("calloc", &next, sizeof next);
    }
    return allocation_fails() ? NULL : next(n, n_bytes);
}

QN_EVERYWHERE void *realloc(void *before, size_t n_bytes) /* NOLINT */
{
    static void *(*next)(void *, size_t);
    if (next == NULL) {
        next_symbol("realloc", &next, sizeof next);
    }
    return allocation_fails() ? NULL : next(before, n_bytes);
}

QN_EVERYWHERE void *aligned_alloc(size_t align, size_t n_bytes) /* NOLINT */
{
    static void *(*next)(size_t, size_t);
    if (next == NULL) {
        next_symbol("aligned_alloc", &next, sizeof next);
    }
    return allocation_fails() ? NULL : next(align, n_bytes);
}
#endif
#endif
