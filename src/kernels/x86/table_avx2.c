/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/x86.h"

void qn_kernels_use_avx2(qn_kernels *table)
{
    table->pack_strip = qn_pack_strip_avx2;
    table->prepare = qn_prepare_avx2;
    table->matmul = qn_matmul_avx2;
    table->attend = qn_attend_avx2;
    table->index_scores = qn_index_scores_avx2;
    table->kv_read = qn_kv_read_avx2;
    table->kv_write = qn_kv_write_avx2;
    table->topk = qn_topk_avx2;
    table->dequant_row = qn_dequant_row_avx2;
    table->rmsnorm = qn_rmsnorm_avx2;
    table->layernorm = qn_layernorm_avx2;
    table->rope = qn_rope_avx2;
    table->silu_mul = qn_silu_mul_avx2;
    table->axpy = qn_axpy_avx2;
    table->router = qn_router_avx2;
    table->sample = qn_sample_avx2;
    table->logsumexp = qn_logsumexp_avx2;
    table->mxfp4_encode = qn_mxfp4_encode_avx2;
    table->mxfp4_measure = qn_mxfp4_measure_avx2;
    table->to_bf16 = qn_to_bf16_avx2;
}
