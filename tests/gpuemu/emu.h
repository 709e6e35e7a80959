/* SPDX-License-Identifier: Apache-2.0 */
/** @file emu.h  Runs GPU kernels on the CPU, and watches what a GPU leaves undefined. */
#ifndef QN_TEST_GPUEMU_EMU_H
#define QN_TEST_GPUEMU_EMU_H
#include <stdbool.h>
#include <stdint.h>

/*
 * A block's threads are fibers, 32 a warp; blocks run one after the other, so a kernel in which one
 * block waits for another hangs. Shared memory, static and dynamic, is 0xCD before each block, and
 * an unreadable page follows the dynamic one.
 *
 * Where threads wait for each other, all must come, to the same place: the lanes of a warp to its
 * operations and to barriers, the warps that have not ended to barriers. Else a line on stderr
 * names kernel, block and threads, with addresses for addr2line, and the process exits with 1.
 *
 * Copies to shared memory (qn_copy_16()) are made when their thread waits for them; until then
 * their target is 0xCD, so that a missing wait or commit shows.
 *
 * A dependent launch (gpu.h) can be begun before the one in front of it runs: some of its blocks go
 * as far as qn_await_earlier(), and copies that they begin are read then, so that whatever must not
 * come before shows in the results.  A thread that ends, or calls qn_release_later(), without
 * having waited is an error.
 *
 * What does not show: a missing qn_fence(), as threads see each other's stores in the order in
 * which they were made; what blocks that run at the same time do to each other; two threads that
 * store to one place at once; and whatever kernels do that are for hardware alone (wgmma,
 * mbarriers).
 */

/** Is kernel NAME of kernels/gpu/list.h emulated? */
bool emu_has(const char *kernel);

/**
 * Runs a kernel to its end.  One launch at a time: others wait.
 *
 * kernel        its name in kernels/gpu/list.h; one that emu_has() denies is an error
 * n_threads     threads of a block: what list.h says, anything else is an error
 * shared_bytes  dynamic shared memory of a block, 228 KiB at most
 * args          the kernel's struct of kernels/gpu/args.h, borrowed; pointers are the CPU's
 */
void emu_launch(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                uint32_t shared_bytes, const void *args);

/**
 * The same in two parts: what comes before it waits for earlier launches, and the rest.  Between,
 * the launch in front of it runs to its end, and one behind it may begin.
 * @param args  borrowed until the end
 * Returns  what emu_finish() takes; one that is never ended is forgotten
 */
uint32_t emu_begin(const char *kernel, const uint32_t grid[3], uint32_t n_threads,
                   uint32_t shared_bytes, const void *args);
void emu_finish(uint32_t handle);

/**
 * Order of the launches to come: 0 (from the start) runs warp after warp and lane after lane; other
 * seeds run blocks, warps and lanes in an order of their own, at times one warp as far as it can,
 * so that a missing barrier shows.
 */
void emu_seed(uint64_t seed);
#endif
