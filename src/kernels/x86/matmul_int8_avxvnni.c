/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MXFP4 weights with int8 activations where AVX-VNNI multiplies bytes and adds four of them in one
 * instruction: the bits of AVX2, as sums of a block are exact.  Never run on hardware; its
 * instruction is the one that AVX-512 VNNI has in its 256-bit form, with which it was tested.
 */
#include "kernels/x86/matmul_int8_tmpl.h"

void qn_matmul_int8_avxvnni(const qn_matmul_args *args)
{
    matmul_int8(args);
}
