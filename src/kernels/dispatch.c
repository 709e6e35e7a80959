/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "kernels/x86/x86.h"

#ifdef __x86_64__
enum { LEVELS = QN_CPU_AVX2 | QN_CPU_AVX512 | QN_CPU_AVX512BF16 | QN_CPU_AMX };
const char qn_kernels_levels[] = "ref avx2 avx512 avx512bf16 amx";
#else
enum { LEVELS = 0 };
const char qn_kernels_levels[] = "ref";
#endif

const char *qn_kernels_level(uint32_t cpu_flags)
{
    return qn_cpu_level_name(cpu_flags & LEVELS);
}

const char *qn_kernels_level_of(qn_kernel_class class, uint32_t cpu_flags)
{
    enum { ALL = QN_CPU_AVX2 | QN_CPU_AVX512, WITH_BF16 = ALL | QN_CPU_AVX512BF16 };
    static const uint32_t levels_of[] = {
        [QN_KERNEL_MATMUL_F32] = ALL,
        [QN_KERNEL_MATMUL_BF16] = WITH_BF16 | QN_CPU_AMX,
        [QN_KERNEL_MATMUL_INT8] = WITH_BF16 | QN_CPU_AMX | QN_CPU_AVXVNNI,
        [QN_KERNEL_ROUNDED_ROWS] = WITH_BF16,
        [QN_KERNEL_PREPARE] = QN_CPU_AVX2,
        [QN_KERNEL_OTHER] = ALL,
    };
    const uint32_t flags = cpu_flags & levels_of[class];
    const bool is_vnni = (flags & QN_CPU_AVXVNNI) != 0 && (flags & QN_CPU_AVX512) == 0;
    return is_vnni ? "avxvnni" : qn_cpu_level_name(flags & ~(uint32_t)QN_CPU_AVXVNNI);
}

void qn_kernels_init(qn_kernels *table, uint32_t cpu_flags)
{
    *table = (qn_kernels){
        .dequant_row = qn_dequant_row_ref,
        .pack_strip = qn_pack_strip_ref,
        .prepare = qn_prepare_ref,
        .matmul = qn_matmul_ref,
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
        .mxfp4_encode = qn_mxfp4_encode_ref,
        .mxfp4_measure = qn_mxfp4_measure_ref,
        .to_bf16 = qn_to_bf16_ref,
    };
#ifdef __x86_64__
    if ((cpu_flags & QN_CPU_AVX2) != 0) {
        qn_kernels_use_avx2(table);
    }
    if ((cpu_flags & QN_CPU_AVXVNNI) != 0) {
        qn_kernels_use_avxvnni(table);
    }
    if ((cpu_flags & QN_CPU_AVX512) != 0) {
        qn_kernels_use_avx512(table);
    }
    if ((cpu_flags & QN_CPU_AVX512BF16) != 0) {
        qn_kernels_use_avx512bf16(table);
    }
    if ((cpu_flags & QN_CPU_AMX) != 0) {
        qn_kernels_use_amx(table);
    }
#else
    (void)cpu_flags;
#endif
}
