/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fake_gpu.h  A driver for tests, whose device is the host: it records what is called, fails
 * when told to, and finds what a real driver would not tell of.
 *
 * Device memory is memory of the host that ends at an unreadable page, as far as a start on a
 * multiple of 256 bytes permits; the bytes between are checked when it is freed.  It is filled with
 * 0xff bytes (NaN), freed memory stays unreadable.  Work is done when it is queued; a capture
 * records it and a graph does it then, in which dependent kernels begin before the kernel in front
 * of them.  Not for more than one thread at a time.
 */
#ifndef QN_TEST_FAKE_GPU_H
#define QN_TEST_FAKE_GPU_H
#include "device/gpu_driver.h"

/** What the driver answers with; 0 is done. */
enum {
    FAKE_GPU_INVALID = 1,
    FAKE_GPU_NO_MEMORY = 2,
    FAKE_GPU_OLD = 35,
    FAKE_GPU_NO_DEVICE = 100,
    FAKE_GPU_NOT_FOUND = 500,
    FAKE_GPU_STICKY = 700, /**< From then on of every call, until fake_gpu_reset(). */
    FAKE_GPU_CAPTURE = 900,
    FAKE_GPU_LOST = 999, /**< Likewise. */
};

/** Its library and devices; set after fake_gpu_reset(). */
typedef struct fake_gpu_world {
    bool has_no_library;
    bool is_old;
    uint32_t n_devices;    /**< 1. */
    uint64_t memory_bytes; /**< Of all devices together: 4 GiB. */
    uint32_t n_sms;        /**< 4. */
    const char *arch;      /**< "emulated". */
    bool keeps_calls;      /**< Record what is called; true. */
    /** Runs a kernel; NULL: launches are only recorded. */
    void (*launch)(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                   uint32_t shared_bytes, const void *args);
    /** Begins a dependent kernel; finish() takes what it gives.  NULL: it runs at its turn. */
    uint32_t (*begin)(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                      uint32_t shared_bytes, const void *args);
    void (*finish)(uint32_t begun);
    /** How long a kernel takes by the clock of events; NULL: they have the host's. */
    double (*seconds)(const char *kernel, const void *args);
    /** Is there such a kernel?  NULL: whatever it is called. */
    bool (*has)(const char *kernel);
} fake_gpu_world;
extern fake_gpu_world fake_gpu;

extern const qn_gpu_driver fake_gpu_driver;

/** Forget everything: failures, calls, problems; free what is left.  No GPU of it is open. */
void fake_gpu_reset(void);

/**
 * Let one call fail.  A kernel that fails does so behind its launch: the next call tells.
 *
 * @param call    a field of qn_gpu_driver ("alloc"), "kernel", or "any" (but for releases)
 * @param n_more  calls of it that succeed before; SIZE_MAX: forget it
 */
void fake_gpu_fail(const char *call, size_t n_more, int code);
/** Has that happened? */
bool fake_gpu_has_failed(void);

/** What was called since the last reset, a line each; borrowed until the next call of anything. */
const char *fake_gpu_calls(void);

/**
 * What was done that must not be, the first of it; "" where nothing was: memory or a handle that is
 * used after its end or released twice, bytes outside of memory, bytes written behind it, a call
 * without its context, a kernel of an unloaded module, a capture that is not ended, and what is
 * still there when a device is closed.
 */
const char *fake_gpu_problem(void);

/** Bytes of device memory in use. */
uint64_t fake_gpu_used_bytes(void);
#endif
