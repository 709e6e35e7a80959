/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/x86.h"

void qn_kernels_use_avx512bf16(qn_kernels *table)
{
    table->matmul = qn_matmul_avx512bf16;
    table->attend = qn_attend_avx512bf16;
    table->index_scores = qn_index_scores_avx512bf16;
}
