/* SPDX-License-Identifier: Apache-2.0 */
/* The device that is checked: one of the machine, or the emulator. */
#include "gpucheck.h"
#include "gpuemu/emu.h"
#include "support/emulated_gpu.h"
#include "support/fake_gpu.h"

#include <stdio.h>
#include <string.h>

qn_status gc_open(gc *run, const char *name, qn_error *err)
{
    run->is_emulated = strcmp(name, "emulated") == 0;
    qn_status status =
        run->is_emulated ? emulated_gpu_open(&run->gpu, err) : qn_gpu_open(&run->gpu, name, err);
    if (status == QN_OK) {
        status = qn_gpu_stream_open(&run->stream, run->gpu, err);
    }
    if (status == QN_OK) {
        status = run->is_emulated
                     ? qn_gpu_kernels_open(&run->kernels, run->gpu, &emulated_module, 1, err)
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
