/* SPDX-License-Identifier: Apache-2.0 */
/** @file list.h  Every GPU kernel with its block size and its budget. */
#ifndef QN_KERNELS_GPU_LIST_H
#define QN_KERNELS_GPU_LIST_H

/**
 * X(NAME, n_threads, blocks_per_sm_min, n_registers_max), one kernel a line, by name: those of this
 * folder, which every target has, then those of sm90/.
 *
 * - n_threads: threads of a block, exactly; a launch with others is an error;
 * - blocks_per_sm_min: blocks that a multiprocessor must hold at once, with their shared memory;
 * - n_registers_max: 32-bit registers of a thread on each target; none may spill.
 *
 * The build and a test read these lines as text: numbers, one space after each comma.
 */
#define QN_GPU_KERNELS_PORTABLE(X)                                                                 \
    X(adjust, 256, 2, 96)                                                                          \
    X(attend, 256, 2, 128)                                                                         \
    X(attend_join, 128, 8, 64)                                                                     \
    X(combine, 256, 3, 80)                                                                         \
    X(dummy, 256, 4, 72)                                                                           \
    X(embed, 256, 4, 64)                                                                           \
    X(gather, 256, 4, 64)                                                                          \
    X(group, 1024, 1, 96)                                                                          \
    X(index_rows, 128, 8, 48)                                                                      \
    X(index_scores, 256, 2, 128)                                                                   \
    X(kv_rows, 128, 6, 80)                                                                         \
    X(logsumexp, 512, 2, 96)                                                                       \
    X(matmul_plain, 256, 2, 128)                                                                   \
    X(pack, 256, 4, 64)                                                                            \
    X(page_ends, 256, 4, 64)                                                                       \
    X(rmsnorm, 256, 2, 128)                                                                        \
    X(rmsnorm_narrow, 256, 4, 64)                                                                  \
    X(roof_read, 256, 4, 64)                                                                       \
    X(rope, 256, 4, 40)                                                                            \
    X(rope_angles, 128, 8, 48)                                                                     \
    X(router, 128, 4, 80)                                                                          \
    X(sample, 512, 1, 176)                                                                         \
    X(sample_count, 256, 2, 128)                                                                   \
    X(sample_largest, 256, 2, 96)                                                                  \
    X(sample_soften, 256, 2, 128)                                                                  \
    X(step_chain, 256, 4, 40)                                                                      \
    X(step_follow, 256, 4, 40)                                                                     \
    X(step_keep, 256, 4, 40)                                                                       \
    X(step_pages, 128, 4, 32)                                                                      \
    X(step_rows, 128, 4, 64)                                                                       \
    X(step_settle, 128, 4, 64)                                                                     \
    X(topk, 1024, 1, 64)
#define QN_GPU_KERNELS_SM90(X)                                                                     \
    X(attend_mma16, 256, 1, 192)                                                                   \
    X(attend_mma64, 256, 1, 255)                                                                   \
    X(attend_wgmma64, 256, 1, 255)                                                                 \
    X(few_bf16, 288, 2, 96)                                                                        \
    X(few_fp8, 288, 2, 96)                                                                         \
    X(few_mxfp4, 288, 2, 96)                                                                       \
    X(index_scores_mma, 128, 3, 168)                                                               \
    X(mma_bf16, 256, 2, 128)                                                                       \
    X(mma_bf16_full, 256, 1, 192)                                                                  \
    X(mma_bf16_wide, 256, 2, 128)                                                                  \
    X(mma_fp8, 256, 2, 128)                                                                        \
    X(mma_fp8_wide, 256, 2, 128)                                                                   \
    X(mma_mxfp4, 256, 2, 128)                                                                      \
    X(mma_mxfp4_wide, 256, 2, 128)                                                                 \
    X(roof_matmul, 256, 1, 168)                                                                    \
    X(wgmma_bf16, 384, 1, 168)                                                                     \
    X(wgmma_fp8, 384, 1, 168)                                                                      \
    X(wgmma_mxfp4, 384, 1, 168)

/** All of them: the portable ones come first. */
#define QN_GPU_KERNELS(X) QN_GPU_KERNELS_PORTABLE(X) QN_GPU_KERNELS_SM90(X)

/** QN_GPU_KERNEL_NAME: a kernel's place in the list. */
enum {
#define QN_GPU_PLACE(NAME, ...) QN_GPU_KERNEL_##NAME,
    QN_GPU_KERNELS_PORTABLE(QN_GPU_PLACE) QN_GPU_N_PORTABLE, /**< Places below are theirs. */
    QN_GPU_BEFORE_SM90 = QN_GPU_N_PORTABLE - 1,
    QN_GPU_KERNELS_SM90(QN_GPU_PLACE)
#undef QN_GPU_PLACE
        QN_GPU_N_KERNELS
};

/** QN_GPU_NAME_THREADS: threads of a block of kernel NAME. */
enum {
#define QN_GPU_THREADS(NAME, n_threads, ...) QN_GPU_##NAME##_THREADS = (n_threads),
    QN_GPU_KERNELS(QN_GPU_THREADS)
#undef QN_GPU_THREADS
};
#endif
