/* SPDX-License-Identifier: Apache-2.0 */
/* The device that is checked: one of the machine, or the emulator. */
#include "gpucheck.h"
#include "gpuemu/emu.h"
#include "support/fake_gpu.h"

#include <stdio.h>
#include <string.h>

/* Stands for the kernels that are linked in. */
static const qn_gpu_module_image emulated = {.name = "emulated",
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

static qn_status open_emulated(qn_gpu **out, qn_error *err)
{
    fake_gpu_reset();
    fake_gpu.keeps_calls = false;
    fake_gpu.has = has;
    fake_gpu.launch = launch;
    return qn_gpu_open_driver(out, &fake_gpu_driver, 0, err);
}

qn_status gc_open(gc *run, const char *name, qn_error *err)
{
    run->is_emulated = strcmp(name, "emulated") == 0;
    qn_status status =
        run->is_emulated ? open_emulated(&run->gpu, err) : qn_gpu_open(&run->gpu, name, err);
    if (status == QN_OK) {
        status = qn_gpu_stream_open(&run->stream, run->gpu, err);
    }
    if (status == QN_OK) {
        status = run->is_emulated ? qn_gpu_kernels_open(&run->kernels, run->gpu, &emulated, 1, err)
                                  : qn_gpu_kernels_open(&run->kernels, run->gpu, qn_gpu_modules,
                                                        qn_gpu_n_modules, err);
    }
    if (status != QN_OK) {
        (void)gc_close_device(run);
        return status;
    }
    run->ops = (qn_gpu_ops){run->kernels, run->stream};
    qn_kernels_init(&run->ref, 0);
    return QN_OK;
}

bool gc_close_device(gc *run)
{
    qn_gpu_kernels_close(&run->kernels);
    qn_gpu_stream_close(&run->stream);
    qn_gpu_close(&run->gpu);
    const char *problem = run->is_emulated ? fake_gpu_problem() : "";
    if (problem[0] != '\0') {
        (void)printf("FAIL %s\n", problem);
    }
    return problem[0] == '\0';
}

void gc_seed_order(uint64_t seed)
{
    emu_seed(seed);
}
