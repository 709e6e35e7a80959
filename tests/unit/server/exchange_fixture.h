/* SPDX-License-Identifier: Apache-2.0 */
/** @file exchange_fixture.h  Exchanges over glm-nano. */
#ifndef QN_TEST_SERVER_EXCHANGE_FIXTURE_H
#define QN_TEST_SERVER_EXCHANGE_FIXTURE_H
#include "server/exchange.h"
#include "support/unit.h"

#include <stdlib.h>
#include <string.h>

/** What every body is read with, once model_open() has run. */
static exchange_settings g_settings;

/** A group's set-up. */
static inline int model_open(void **state)
{
    const qn_model_options options = {.tokenizer_only = true};
    qn_model *model = NULL;
    qn_error err = {0};
    (void)state;
    if (qn_model_open(&model, QN_SOURCE_DIR "/models/glm-nano", &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    g_settings.model = model;
    return 0;
}

/** A group's end. */
static inline int model_close(void **state)
{
    qn_model *model = (qn_model *)(uintptr_t)g_settings.model;
    (void)state;
    qn_model_close(&model);
    return 0;
}

/** Must be accepted. */
static inline server_exchange *open_body(server_api api, const char *body)
{
    server_exchange *x = NULL;
    server_error error = {0};
    if (!exchange_open(&x, &g_settings, api, body, strlen(body), "7", &error)) {
        fail_msg("%s\n%s", error.message, body);
    }
    return x;
}
#endif
