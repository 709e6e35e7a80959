/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_block.h  One block of memory that is cut up, as each allocation of a driver costs. */
#ifndef QN_DEVICE_GPU_BLOCK_H
#define QN_DEVICE_GPU_BLOCK_H
#include <stddef.h>
#include <stdint.h>

/** What qn_gpu_alloc() and every part of a block begin on a multiple of, in bytes. */
enum { QN_GPU_ALIGN = 256 };

static inline uint64_t qn_gpu_align(uint64_t n_bytes)
{
    return (n_bytes + QN_GPU_ALIGN - 1) / QN_GPU_ALIGN * QN_GPU_ALIGN;
}

/** A block of device memory, or of the host's; zeros to begin to measure one. */
typedef struct qn_gpu_block {
    uint8_t *base;    /**< Borrowed; NULL: it is only measured. */
    uint64_t n_bytes; /**< Cut off so far, padding included. */
} qn_gpu_block;

/** The next @p n_bytes of it; NULL where it is only measured.  The block is long enough. */
static inline void *qn_gpu_cut(qn_gpu_block *block, uint64_t n_bytes)
{
    void *const at = block->base != NULL ? block->base + block->n_bytes : NULL;
    block->n_bytes += qn_gpu_align(n_bytes);
    return at;
}
#endif
