/* SPDX-License-Identifier: Apache-2.0 */
/** @file fake_nvml.h  What the library tests/support/fake_nvml.c is told and asked. */
#ifndef QN_TEST_FAKE_NVML_H
#define QN_TEST_FAKE_NVML_H
#include "support/unit.h"

#include <dlfcn.h>
#include <string.h>

#define FAKE_NVML QN_BINARY_DIR "/tests/libfake_nvml.so"

/** Stays loaded from fake_nvml_load() to fake_nvml_unload(). */
static void *fake_nvml_handle;

static inline void fake_nvml_load(void)
{
    fake_nvml_handle = dlopen(FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(fake_nvml_handle);
}

static inline void fake_nvml_unload(void)
{
    assert_int_equal(dlclose(fake_nvml_handle), 0);
}

static inline void fake_nvml_find(const char *name, void *function)
{
    void *const found = dlsym(fake_nvml_handle, name);
    assert_non_null(found);
    memcpy(function, &found, sizeof found);
}

/** What a device says; 0 mW: it cannot be read. */
static inline void fake_nvml_tell(unsigned i_device, unsigned milliwatts,
                                  unsigned long long millijoules)
{
    void (*set)(unsigned, unsigned, unsigned long long) = NULL;
    fake_nvml_find("fake_nvml_set", &set);
    set(i_device, milliwatts, millijoules);
}

/** What begins with it gets this code. */
static inline void fake_nvml_refuse(int code)
{
    void (*fail_init)(int) = NULL;
    fake_nvml_find("fake_nvml_fail", &fail_init);
    fail_init(code);
}

/** "fake_nvml_open_count" or "fake_nvml_read_count". */
static inline int fake_nvml_count(const char *name)
{
    int (*count)(void) = NULL;
    fake_nvml_find(name, &count);
    return count();
}
#endif
