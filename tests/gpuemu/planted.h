/* SPDX-License-Identifier: Apache-2.0 */
/** @file planted.h  Kernels of the emulator's own test: pieces of the language, and faults. */
#ifndef QN_TEST_GPUEMU_PLANTED_H
#define QN_TEST_GPUEMU_PLANTED_H
#include <stdint.h>

/** All of them: arrays in and out, a size where one is needed. */
typedef struct planted_args {
    uint32_t *y;
    const uint32_t *x;
    uint64_t n;
} planted_args;

/** What "awaited" does too early, by n. */
enum hasty { HASTY_NOTHING, HASTY_LOAD, HASTY_COPY, HASTY_STORE, HASTY_END, HASTY_RELEASE };

/* X(NAME, n_threads) */
#define PLANTED_KERNELS(X)                                                                         \
    X(exchange, 64) /* y [64][8]: each way to pass x [64] between lanes */                         \
    X(votes, 48) /* y [48][3]: ballot, any, all of x [48]; the second warp has half its lanes */   \
    X(reverse, 256)     /* y [256]: x [256] from the end, through shared memory of both kinds */   \
    X(unsynced, 256)    /* the same without its barrier */                                         \
    X(overtaken, 256)   /* y [2][256]: x [2][8] of the next warp; n 0: no barrier between both */  \
    X(split, 64)        /* a barrier in each branch */                                             \
    X(left, 64)         /* a lane ends before the shuffle of its warp */                           \
    X(counted, 64)      /* y [5]: atomics of all threads of all blocks */                          \
    X(product_bf16, 32) /* y [16][8] += x: a [16][16], b [8][16] by columns, through ldmatrix */   \
    X(product_e4m3, 32) /* y [16][8] += x: a [16][32], b [8][32] by columns */                     \
    X(transposed, 32)   /* y [32][4]: ldmatrix trans of x, four 8 x 8 one after the other */       \
    X(numbers, 256)     /* y [6][n]: x [n] as floats and as codes, every way of section 4 */       \
    X(copied, 64)       /* y [64][4]: 16, 5 and 0 bytes of x by turns, zeros behind */             \
    X(unwaited, 64)     /* the same without its wait */                                            \
    X(uncommitted, 64)  /* the same without an end of the group that it waits for */               \
    X(awaited, 64)  /* y [blocks][128]: x [64] + 1, and numbers, behind earlier launches; hasty */ \
    X(turns, 1024)  /* n shuffles */                                                               \
    X(sum_f32, 256) /* y [blocks]: sum of each row of x [blocks][n], in f32 */                     \
    X(e4m3_to_f32, 256) /* y [n]: the values of n codes */                                         \
    X(f32_to_bf16, 256) /* y [n] u16: x [n] rounded */
#endif
