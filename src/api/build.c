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

size_t qn_list_archs(const char *out[QN_ARCHS_MAX])
{
    static const char *const archs[QN_ARCHS_MAX] = {"sm_90", "gfx950"};
    size_t n = 0;
    for (size_t i = 0; i < QN_ARCHS_MAX; i++) {
        bool is_there = false;
        for (size_t k = 0; k < qn_gpu_n_modules && !is_there; k++) {
            is_there = strncmp(qn_gpu_modules[k].target, archs[i], strlen(archs[i])) == 0;
        }
        if (is_there) {
            out[n++] = archs[i];
        }
    }
    return n;
}

size_t qn_devices(qn_device *out, size_t n_max)
{
    const char *archs[QN_ARCHS_MAX];
    const size_t n_archs = qn_list_archs(archs);
    const size_t n = out == NULL ? 0 : qn_device_list(out, n_max, "/dev", archs, n_archs);
    if (n > 0) {
        (void)snprintf(out[0].kernels, sizeof out[0].kernels, "%s",
                       qn_kernels_level(qn_cpu_flags()));
    }
    return n;
}
