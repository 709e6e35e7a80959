/* SPDX-License-Identifier: Apache-2.0 */
/** @file modules.h  GPU kernels as the library carries them: one module a source file and target.
 */
#ifndef QN_KERNELS_GPU_MODULES_H
#define QN_KERNELS_GPU_MODULES_H
#include <stddef.h>
#include <stdint.h>

/** One file of kernels, compiled and compressed. */
typedef struct qn_gpu_module_image {
    const char *name;     /**< Of the source: "sum", "sm90/moe". */
    const char *target;   /**< "sm_90a" a cubin, "sm_90a ptx" PTX without an end, "gfx950" ELF. */
    const uint8_t *bytes; /**< [packed_size] one zstd frame. */
    size_t packed_size;
    size_t size; /**< Bytes when unpacked. */
} qn_gpu_module_image;

/** Ends with a module whose name is NULL; holds no other in a build without the GPU compiler. */
extern const qn_gpu_module_image qn_gpu_modules[];
/** Those before the end. */
extern const size_t qn_gpu_n_modules;
#endif
