/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/quern.h"

#include "api/internal.h"
#include "base/cpu.h"
#include "base/log.h"
#include "device/device.h"
#include "kernels/kernels.h"
#include "quern_build.h"

#include <stdio.h>
#include <stdlib.h>

const qn_build *qn_build_get(void)
{
    static const qn_build build = {
        .version = QN_BUILD_VERSION,
        .commit = QN_BUILD_COMMIT,
        .compiler = QN_BUILD_COMPILER,
        .kernels = qn_kernels_levels,
        .gpu_kernels = QN_BUILD_GPU_KERNELS,
    };
    return &build;
}

int qn_abi_version(void)
{
    return QN_ABI_VERSION;
}

void qn_log_configure(qn_log_level level, bool as_json)
{
    qn_log_setup(level, as_json);
}

void qn_free(void *memory)
{
    free(memory);
}

size_t qn_devices(qn_device *out, size_t n_max)
{
    const size_t n = out == NULL ? 0 : qn_device_list(out, n_max, "/dev", NULL, 0);
    if (n > 0) {
        (void)snprintf(out[0].kernels, sizeof out[0].kernels, "%s",
                       qn_kernels_level(qn_cpu_flags()));
    }
    return n;
}
