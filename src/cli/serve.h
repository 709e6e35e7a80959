/* SPDX-License-Identifier: Apache-2.0 */
/** @file serve.h  The options of `quern serve`, and what they say. */
#ifndef QN_CLI_SERVE_H
#define QN_CLI_SERVE_H
#include "engine_options.h"
#include "server/server.h"

enum {
    SERVE_N_WORDS = 4,          /**< Options of other servers that change nothing here: of words, */
    SERVE_N_IGNORED = 25,       /**< and all of them. */
    SERVE_N_PARALLEL = 4,       /**< Kinds of parallelism. */
    SERVE_API_KEYS_MAX = 1024,  /**< Of command line and file together. */
    SERVE_QUEUE_DEFAULT = 1024, /**< Requests that wait. */
};

/** How errors name the share of the memory. */
#define SERVE_MEMORY_SHARE "--gpu-memory-utilization, --mem-fraction-static"

/** What stands on the command line or in the configuration file. */
typedef struct serve_values {
    cli_common common;
    cli_model model;
    cli_engine engine;
    const char *model_name, *config;
    const char *host, *api_key_file, *admin_key, *certificate, *key, *origin;
    cli_list names, api_keys;
    uint64_t port;
    const char *body_size, *stream_size;
    uint64_t n_queue, n_prompt_tokens, n_connections, n_connections_address, n_readers;
    double header_s, body_s, idle_s, write_s, silence_s, shutdown_s, watchdog_s;
    bool logs_prompts;
    const char *speculation; /* vLLM's JSON */
    int algorithm;           /* SGLang's four */
    uint64_t n_draft_steps, draft_top_k, n_draft_tokens;
    double memory_share;      /* 0: not given, as the next */
    double acceptance_length; /* pinned */
    uint64_t n_parallel[SERVE_N_PARALLEL];
    int words[SERVE_N_WORDS];
    bool flags[SERVE_N_IGNORED - SERVE_N_WORDS];
} serve_values;

/** What the values say, ready for the server and the engine. */
typedef struct serve_plan {
    server_options server;    /**< But for ready and ready_context. */
    qn_engine_options engine; /**< context_tokens 0: the model's. */
    const char *api_keys[SERVE_API_KEYS_MAX];
    char *key_file, *certificate, *key, *origin; /**< Texts that the options point to. */
} serve_plan;

/** cmd_serve.run. */
int serve_run(void *values, int n_arguments, char **arguments);

/**
 * Check the values against each other and read the files that they name.
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_FORMAT naming the file; QN_E_NOT_FOUND;
 *          QN_E_IO; QN_E_NOMEM.  serve_unplan() in any case.
 */
QN_MUST_CHECK qn_status serve_fill(serve_plan *plan, const serve_values *values, qn_error *err);

/** Release what the plan holds. */
void serve_unplan(serve_plan *plan);

/**
 * Depth of speculation by the options of vLLM and SGLang.
 *
 * @param[in,out] draft_tokens  by --draft-tokens, where that is given
 * Returns  QN_OK; QN_E_INVAL naming the option, also where two of them contradict each other
 */
QN_MUST_CHECK qn_status serve_speculation(int *draft_tokens, const serve_values *values,
                                          qn_error *err);

/** Tell of the options that were given and change nothing: one warning. */
void serve_tell_ignored(const serve_values *values);
#endif
