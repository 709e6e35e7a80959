/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/x86.h"

void qn_kernels_use_avx512(qn_kernels *table)
{
    table->pack_strip = qn_pack_strip_avx512;
    table->matmul = qn_matmul_avx512;
    table->attend = qn_attend_avx512;
    table->index_scores = qn_index_scores_avx512;
    table->kv_read = qn_kv_read_avx512;
    table->kv_write = qn_kv_write_avx512;
    table->topk = qn_topk_avx512;
    table->dequant_row = qn_dequant_row_avx512;
    table->rmsnorm = qn_rmsnorm_avx512;
    table->layernorm = qn_layernorm_avx512;
    table->rope = qn_rope_avx512;
    table->silu_mul = qn_silu_mul_avx512;
    table->axpy = qn_axpy_avx512;
    table->router = qn_router_avx512;
    table->sample = qn_sample_avx512;
    table->logsumexp = qn_logsumexp_avx512;
    table->mxfp4_encode = qn_mxfp4_encode_avx512;
    table->mxfp4_measure = qn_mxfp4_measure_avx512;
    table->to_bf16 = qn_to_bf16_avx512;
}
