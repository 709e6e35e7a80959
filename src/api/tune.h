/* SPDX-License-Identifier: Apache-2.0 */
/** @file tune.h  Tuning on a GPU that is open, of a config or a checkpoint. */
#ifndef QN_API_TUNE_H
#define QN_API_TUNE_H
#include "quern/tools.h"

#include "format/checkpoint.h"
#include "format/config.h"
#include "format/quant_rules.h"
#include "kernels/gpu_tuning.h"
#include "kernels/weight.h"

/** What qn_tune() works with. */
typedef struct qn_tune_job {
    const qn_tune_options *options; /**< rows are there. */
    const qn_config *config;
    const qn_checkpoint *checkpoint; /**< NULL: dummy weights. */
    const qn_quant_rules *rules;     /**< Of these; NULL: bf16. */
    const qn_weight_kind *experts;   /**< Of their experts; NULL: as the rules say. */
    qn_gpu *gpu;
    const qn_gpu_kernels *kernels;
    uint64_t cold_bytes;         /**< That no cache of the device keeps. */
    const qn_gpu_tuning *before; /**< Rows to take over; NULL: none. */
} qn_tune_job;

/** The table, owned by the caller (free); statuses of qn_tune(). */
QN_MUST_CHECK qn_status qn_tune_on(char **table, const qn_tune_job *job, qn_error *err);

/** Storage of experts by its name, NULL: bf16; QN_E_INVAL naming the option. */
QN_MUST_CHECK qn_status qn_parse_expert_kind(qn_weight_kind *out, const char *name, bool is_dummy,
                                             qn_error *err);
#endif
