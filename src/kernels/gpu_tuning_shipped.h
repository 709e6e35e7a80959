/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_tuning_shipped.h  The tables of data/tuning, as cmake/embed.cmake puts them in. */
#ifndef QN_KERNELS_GPU_TUNING_SHIPPED_H
#define QN_KERNELS_GPU_TUNING_SHIPPED_H

/** One file. */
typedef struct qn_gpu_tuning_shipped {
    const char *file; /**< "NVIDIA_H200.csv" */
    const char *text;
} qn_gpu_tuning_shipped;
extern const qn_gpu_tuning_shipped qn_gpu_tunings_shipped[]; /**< Ending in a NULL file. */
#endif
