/* SPDX-License-Identifier: Apache-2.0 */
/** @file tiny.h  A tiny model that all tests of a file ask, and what they ask it. */
#ifndef QN_TEST_API_TINY_H
#define QN_TEST_API_TINY_H
#include "transcript.h"

enum { VOCAB = 97, CONTEXT = 256 };

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

static qn_model *g_model;
static int32_t prompt[CONTEXT];

/** For all tests of the file. */
static inline int open_model(void **state)
{
    (void)state;
    for (int32_t i = 0; i < CONTEXT; i++) {
        prompt[i] = i * 37 % (VOCAB - 1);
    }
    g_model = open_tiny(1);
    return 0;
}

static inline int close_model(void **state)
{
    (void)state;
    qn_model_close(&g_model);
    return 0;
}
#endif
