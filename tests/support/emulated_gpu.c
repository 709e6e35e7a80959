/* SPDX-License-Identifier: Apache-2.0 */
#include "support/emulated_gpu.h"

#include "gpuemu/emu.h"
#include "support/fake_gpu.h"

#include <string.h>

const qn_gpu_module_image emulated_module = {.name = "emulated",
                                             .target = "emulated",
                                             .bytes = (const uint8_t *)"",
                                             .packed_size = 1,
                                             .size = 1};

/* Symbols are names behind a prefix. */
static const char *name_of(const char *symbol)
{
    static const char prefix[] = "qn_gpu_";
    return strncmp(symbol, prefix, strlen(prefix)) == 0 ? symbol + strlen(prefix) : symbol;
}

static bool has(const char *symbol)
{
    return emu_has(name_of(symbol));
}

static void launch(const char *symbol, const uint32_t grid[3], uint32_t n_threads,
                   uint32_t shared_bytes, const void *args)
{
    emu_launch(name_of(symbol), grid, n_threads, shared_bytes, args);
}

static uint32_t begin(const char *symbol, const uint32_t grid[3], uint32_t n_threads,
                      uint32_t shared_bytes, const void *args)
{
    return emu_begin(name_of(symbol), grid, n_threads, shared_bytes, args);
}

qn_status emulated_gpu_open(qn_gpu **out, qn_error *err)
{
    fake_gpu_reset();
    fake_gpu.keeps_calls = false;
    fake_gpu.has = has;
    fake_gpu.launch = launch;
    fake_gpu.begin = begin;
    fake_gpu.finish = emu_finish;
    return qn_gpu_open_driver(out, &fake_gpu_driver, 0, err);
}
