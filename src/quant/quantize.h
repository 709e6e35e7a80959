/* SPDX-License-Identifier: Apache-2.0 */
/** @file quantize.h  The whole job: plan, write, report (docs/internals/quant.md). */
#ifndef QN_QUANT_QUANTIZE_H
#define QN_QUANT_QUANTIZE_H
#include "quern/tools.h"

#include "kernels/kernels.h"

/**
 * As qn_quantize(), with the folder of the source and the kernels resolved.
 *
 * @param kernels  borrowed during the call
 */
QN_MUST_CHECK qn_status qn_quant_run(char **report, const char *source, const char *target,
                                     const qn_quantize_options *options, const qn_kernels *kernels,
                                     qn_error *err);
#endif
