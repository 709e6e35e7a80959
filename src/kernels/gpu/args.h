/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file args.h  What every GPU kernel takes: one struct by value, the same lines for the compiler
 * of the kernels and for that of the host.  Pointers are to device memory.
 *
 * Common to all:
 *   rows        n_rows is that of the launch.  A row whose position is negative is padding (a graph
 *               has the rows of its bucket): nothing of it reaches the cache or other rows; its own
 *               outputs are not said, but finite.
 *   bf16        u16; rounded to nearest even, sums are f32.
 *   alignment   every pointer on 16 bytes, every row stride of bf16 and f32 arrays a multiple of 16
 *               bytes, unless said otherwise.
 *   determinism a row's result depends on that row alone unless said otherwise.
 * The reference of each is the CPU operation of the same name (kernels/kernels.h).
 */
#ifndef QN_KERNELS_GPU_ARGS_H
#define QN_KERNELS_GPU_ARGS_H
#include "kernels/gpu/args_attention.h"
#include "kernels/gpu/args_choice.h"
#include "kernels/gpu/args_dummy.h"
#include "kernels/gpu/args_matmul.h"
#include "kernels/gpu/args_roof.h"
#include "kernels/gpu/args_rows.h"
#include "kernels/gpu/args_step.h"
#endif
