/* SPDX-License-Identifier: Apache-2.0 */
/** @file few_case.h  Products that sm90_few cuts as a test wants it to, for all of a device. */
#ifndef QN_TEST_FEW_CASE_H
#define QN_TEST_FEW_CASE_H
#include "kernels/gpu/args_matmul.h"

#include <stdbool.h>

/** A product, and what its plan has to be. */
typedef struct few_case {
    uint32_t n_out, n_in; /**< Of 8 stages; neither is a multiple of a tile's. */
    uint32_t n_items, n_grid;
} few_case;

/**
 * In so many parts an item: 1 for more items than blocks, which take turns, one a multiprocessor
 * or, where expanding binds it (not of bf16), two; 2, 4 or 8 for a block a multiprocessor.
 * @param kind  QN_GPU_W_
 */
static inline few_case few_case_of(uint32_t kind, uint32_t n_parts, bool is_pair, uint32_t n_sms)
{
    const uint32_t n_items = n_parts == 1 ? 5 * n_sms + 1 : n_sms / n_parts;
    const uint32_t n_each = kind == QN_GPU_W_BF16 ? 1 : 2;
    return (few_case){.n_out = n_items * (is_pair ? 64 : 128) - 8,
                      .n_in = 8 * (64U << kind) - 32,
                      .n_items = n_items,
                      .n_grid = n_parts == 1 ? n_each * n_sms : n_items * n_parts};
}
#endif
