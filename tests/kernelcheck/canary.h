/* SPDX-License-Identifier: Apache-2.0 */
/** @file canary.h  Wrong kernels, a table for each file of checks; canary.c runs them all. */
#ifndef QN_KERNELCHECK_CANARY_H
#define QN_KERNELCHECK_CANARY_H
#include "kernelcheck.h"

/** One plausible mistake. */
typedef struct kc_canary {
    const char *name, *op;
    void (*put)(qn_kernels *k); /**< Replaces the right kernel. */
    bool must_die;              /**< At a guard page: no comparison would see it. */
} kc_canary;

/** A wrong kernel with the function that puts it into its place, which checks its type. */
#define CANARY(field, wrong)                                                                       \
    static void put_##wrong(qn_kernels *k)                                                         \
    {                                                                                              \
        k->field = wrong;                                                                          \
    }
/** Its line in a table. */
#define CANARY_OF(field, wrong)                                                                    \
    {                                                                                              \
#wrong, #field, put_##wrong, false                                                         \
    }

/** Tables, each ending in a NULL name. */
extern const kc_canary kc_canaries_weights[];
extern const kc_canary kc_canaries_matmul[];
extern const kc_canary kc_canaries_rows[];
extern const kc_canary kc_canaries_choice[];
extern const kc_canary kc_canaries_attention[];
extern const kc_canary kc_canaries_quantize[];
#endif
