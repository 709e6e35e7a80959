/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_roof.h  What timings of GPU kernels are measured against: what the device can at
 * most. */
#ifndef QN_KERNELS_GPU_ARGS_ROOF_H
#define QN_KERNELS_GPU_ARGS_ROOF_H
#include <stdint.h>

/** Reads memory, all blocks together, 16 bytes a thread at a time. */
typedef struct qn_gpu_roof_read_args {
    uint32_t *sink; /**< [1] written where the bytes have one certain sum: keeps them read. */
    const uint8_t *x;
    uint64_t n_bytes; /**< A multiple of 16. */
} qn_gpu_roof_read_args;
_Static_assert(sizeof(qn_gpu_roof_read_args) == 24, "host and device agree");
#endif
