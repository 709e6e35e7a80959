/* SPDX-License-Identifier: Apache-2.0 */
/* The device that is checked: one of the machine, or the emulator. */
#include "gpucheck.h"
#include "gpuemu/emu.h"
#include "plain_gpu.h"

#include <string.h>

/* Stands for the kernels that are linked in. */
static const qn_gpu_module_image emulated[] = {
    {.name = "emulated",
     .target = "emulated",
     .bytes = (const uint8_t *)"",
     .packed_size = 1,
     .size = 1},
    {0},
};

qn_status gc_open(gc *run, const char *name, qn_error *err)
{
    run->is_emulated = strcmp(name, "emulated") == 0;
    qn_status status =
        run->is_emulated ? plain_gpu_open(&run->gpu) : qn_gpu_open(&run->gpu, name, err);
    if (status != QN_OK) {
        return status;
    }
    const qn_gpu_module_image *images = run->is_emulated ? emulated : qn_gpu_modules;
    size_t n_images = 0;
    while (images[n_images].name != NULL) {
        n_images++;
    }
    status = qn_gpu_stream_open(&run->stream, run->gpu, err);
    if (status == QN_OK) {
        status = qn_gpu_kernels_open(&run->kernels, run->gpu, images, n_images, err);
    }
    if (status != QN_OK) {
        gc_close_device(run);
        return status;
    }
    run->ops = (qn_gpu_ops){run->kernels, run->stream};
    qn_kernels_init(&run->ref, 0);
    return QN_OK;
}

void gc_close_device(gc *run)
{
    qn_gpu_kernels_close(&run->kernels);
    qn_gpu_stream_close(&run->stream);
    qn_gpu_close(&run->gpu);
}

void gc_seed_order(uint64_t seed)
{
    emu_seed(seed);
}
