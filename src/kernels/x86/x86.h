/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file x86.h  The kernels of x86 CPUs by bundle of features (base/cpu.h).  A file NAME_LEVEL.c is
 * compiled for its level and may be called only where that is granted; kernels.h says what each
 * kernel does.
 */
#ifndef QN_KERNELS_X86_X86_H
#define QN_KERNELS_X86_X86_H
#include "kernels/kernels.h"

/** Replace what a level has faster kernels for. */
void qn_kernels_use_avx2(qn_kernels *table);
void qn_kernels_use_avxvnni(qn_kernels *table);
void qn_kernels_use_avx512(qn_kernels *table);
void qn_kernels_use_avx512bf16(qn_kernels *table);
void qn_kernels_use_amx(qn_kernels *table);

qn_matmul_fn qn_matmul_avx512;
qn_pack_strip_fn qn_pack_strip_avx512;
qn_matmul_fn qn_matmul_avx512bf16;
qn_matmul_fn qn_matmul_amx;
qn_matmul_fn qn_matmul_avx2;
qn_matmul_fn qn_matmul_int8_avx2; /* MXFP4 with QN_ACT_INT8 only; a part of the one above */
qn_matmul_fn qn_matmul_int8_avxvnni;
qn_pack_strip_fn qn_pack_strip_avx2;
qn_prepare_fn qn_prepare_avx2;
qn_attend_fn qn_attend_avx2;
qn_index_scores_fn qn_index_scores_avx2;
qn_kv_read_fn qn_kv_read_avx2;
qn_kv_write_fn qn_kv_write_avx2;
qn_topk_fn qn_topk_avx2;
qn_dequant_row_fn qn_dequant_row_avx2;
qn_rmsnorm_fn qn_rmsnorm_avx2;
qn_layernorm_fn qn_layernorm_avx2;
qn_rope_fn qn_rope_avx2;
qn_silu_mul_fn qn_silu_mul_avx2;
qn_axpy_fn qn_axpy_avx2;
qn_router_fn qn_router_avx2;
qn_sample_fn qn_sample_avx2;
qn_logsumexp_fn qn_logsumexp_avx2;
qn_mxfp4_encode_fn qn_mxfp4_encode_avx2;
qn_mxfp4_measure_fn qn_mxfp4_measure_avx2;
qn_to_bf16_fn qn_to_bf16_avx2;

qn_attend_fn qn_attend_avx512;
qn_index_scores_fn qn_index_scores_avx512;
qn_kv_read_fn qn_kv_read_avx512;
qn_kv_write_fn qn_kv_write_avx512;
qn_topk_fn qn_topk_avx512;
qn_dequant_row_fn qn_dequant_row_avx512;
qn_rmsnorm_fn qn_rmsnorm_avx512;
qn_layernorm_fn qn_layernorm_avx512;
qn_rope_fn qn_rope_avx512;
qn_silu_mul_fn qn_silu_mul_avx512;
qn_axpy_fn qn_axpy_avx512;
qn_router_fn qn_router_avx512;
qn_sample_fn qn_sample_avx512;
qn_logsumexp_fn qn_logsumexp_avx512;
qn_mxfp4_encode_fn qn_mxfp4_encode_avx512;
qn_mxfp4_measure_fn qn_mxfp4_measure_avx512;
qn_to_bf16_fn qn_to_bf16_avx512;

qn_attend_fn qn_attend_avx512bf16;
qn_index_scores_fn qn_index_scores_avx512bf16;
#endif
