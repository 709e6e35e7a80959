/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/x86.h"

void qn_kernels_use_amx(qn_kernels *table)
{
    table->matmul = qn_matmul_amx;
}
