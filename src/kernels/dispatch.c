/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

void qn_kernels_init(qn_kernels *table, uint32_t cpu_flags)
{
    (void)cpu_flags; /* the reference is the only set so far */
    *table = (qn_kernels){
        .dequant_row = qn_dequant_row_ref,
        .matmul = qn_matmul_ref,
        .matmul_t = qn_matmul_t_ref,
        .rmsnorm = qn_rmsnorm_ref,
        .layernorm = qn_layernorm_ref,
        .rope = qn_rope_ref,
        .silu_mul = qn_silu_mul_ref,
        .axpy = qn_axpy_ref,
        .router = qn_router_ref,
        .index_scores = qn_index_scores_ref,
        .topk = qn_topk_ref,
        .attend = qn_attend_ref,
        .kv_write = qn_kv_write_ref,
        .kv_read = qn_kv_read_ref,
        .sample = qn_sample_ref,
        .logsumexp = qn_logsumexp_ref,
    };
}
