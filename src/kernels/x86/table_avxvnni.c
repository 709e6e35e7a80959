/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/x86.h"

static void matmul(const qn_matmul_args *args)
{
    if (args->act == QN_ACT_INT8) {
        qn_matmul_int8_avxvnni(args);
    } else {
        qn_matmul_avx2(args);
    }
}

void qn_kernels_use_avxvnni(qn_kernels *table)
{
    table->matmul = matmul;
}
