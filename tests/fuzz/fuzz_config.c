/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a config.json: what is accepted keeps every promise of config.h. */
#include "base/assert.h"
#include "base/log.h"
#include "format/config.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static void check(const qn_config *config)
{
    QN_ASSERT(config->n_layers + config->n_mtp_layers <= QN_LAYERS_MAX);
    QN_ASSERT(config->n_experts_used <= config->n_experts);
    QN_ASSERT(config->rope_dim % 2 == 0 && config->index_dim >= config->rope_dim);
    QN_ASSERT(config->is_index_full[0] && config->rope_theta >= 1.0);
    for (uint32_t i = 0; i < config->n_stop_ids; i++) {
        QN_ASSERT(config->stop_ids[i] >= 0 && (uint32_t)config->stop_ids[i] < config->n_vocab);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    qn_log_setup(QN_LOG_ERROR, false);
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    qn_config config;
    qn_error err = {0};
    if (qn_config_parse(&config, (qn_str){.ptr = exact, .len = n_bytes}, "input", &err) == QN_OK) {
        check(&config);
    } else {
        QN_ASSERT(config.n_layers == 0 && err.text[0] != '\0');
    }
    free(exact);
    return 0;
}
