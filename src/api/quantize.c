/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/quantize.h"

#include "quern/tools.h"

#include "api/locate.h"
#include "base/cpu.h"
#include "base/env.h"
#include "base/try.h"
#include "kernels/kernels.h"

#include <stdlib.h>

qn_status qn_quantize(char **report, const char *source, const char *target,
                      const qn_quantize_options *options, qn_error *err)
{
    static const qn_quantize_options defaults = {0};
    const qn_quantize_options *const o = options != NULL ? options : &defaults;
    const char *const level = o->cpu_mask != NULL ? o->cpu_mask : qn_env_get(QN_ENV_CPU_MASK);
    uint32_t cpu_flags = qn_cpu_flags();
    uint32_t cpu_mask = UINT32_MAX;
    char *path = NULL;
    qn_kernels kernels;
    qn_status status = QN_OK;
    *report = NULL;
    if (source == NULL || target == NULL || target[0] == '\0') {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "quantize: no %s, the folder to %s expected",
                       source == NULL ? "source" : "target", source == NULL ? "read" : "write");
    }
    if (level != NULL) {
        QN_TRY(status, qn_cpu_mask_parse(&cpu_mask, level, err), fail);
        cpu_flags &= cpu_mask;
    }
    qn_kernels_init(&kernels, cpu_flags);
    QN_TRY(status, qn_locate_model(&path, source, err), fail);
    QN_TRY(status, qn_quant_run(report, path, target, o, &kernels, err), fail);
fail:
    free(path);
    return status;
}
