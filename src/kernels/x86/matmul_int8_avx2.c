/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/x86/matmul_int8_tmpl.h"

void qn_matmul_int8_avx2(const qn_matmul_args *args)
{
    matmul_int8(args);
}
