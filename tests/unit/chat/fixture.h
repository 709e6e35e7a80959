/* SPDX-License-Identifier: Apache-2.0 */
/** @file fixture.h  glm-nano's tokenizer, open for all tests of a file. */
#ifndef QN_TEST_CHAT_FIXTURE_H
#define QN_TEST_CHAT_FIXTURE_H
#include "support/unit.h"
#include "tokenizer/tokenizer.h"

static qn_tokenizer *g_nano;

static inline int set_up(void **state)
{
    (void)state;
    qn_error err = {0};
    return qn_tokenizer_open_file(&g_nano, QN_SOURCE_DIR "/models/glm-nano/tokenizer.json", &err);
}

static inline int tear_down(void **state)
{
    (void)state;
    qn_tokenizer_close(&g_nano);
    return 0;
}
#endif
