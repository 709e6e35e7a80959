/* SPDX-License-Identifier: Apache-2.0 */
/** @file fixture.h  Folders for tests: empty ones, tiny configurations, linked copies of a model.
 */
#ifndef QN_TEST_API_FIXTURE_H
#define QN_TEST_API_FIXTURE_H
#include "quern/quern.h"

#include "support/unit.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NANO QN_SOURCE_DIR "/models/glm-nano"

enum { PATH_BYTES = 512 };

/* A model of two layers that computes a position in microseconds. */
static const char tiny_config[] =
    "{\"architectures\": [\"GlmMoeDsaForCausalLM\"], \"model_type\": \"glm_moe_dsa\","
    " \"num_hidden_layers\": 2, \"num_nextn_predict_layers\": 1, \"hidden_size\": 32,"
    " \"vocab_size\": 97, \"num_attention_heads\": 2, \"q_lora_rank\": 16, \"kv_lora_rank\": 24,"
    " \"qk_nope_head_dim\": 12, \"qk_rope_head_dim\": 8, \"v_head_dim\": 10,"
    " \"index_n_heads\": 2, \"index_head_dim\": 16, \"index_topk\": 8,"
    " \"intermediate_size\": 48, \"moe_intermediate_size\": 16, \"n_routed_experts\": 5,"
    " \"num_experts_per_tok\": 2, \"n_shared_experts\": 1, \"max_position_embeddings\": 256,"
    " \"rms_norm_eps\": 1e-5, \"routed_scaling_factor\": 2.5, \"norm_topk_prob\": true,"
    " \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0},"
    " \"mlp_layer_types\": [\"dense\", \"sparse\"], \"indexer_types\": [\"full\", \"shared\"],"
    " \"eos_token_id\": [96]}";

/* A tool, and a prompt in the published template's form to which glm-nano answers by calling it. */
static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": "
    "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}]";
static const char tool_prompt[] =
    "[gMASK]<sop><|system|>\n# Tools\n\nYou may call one or more functions to assist with the user "
    "query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n"
    "<tools>\n{\"name\": \"get_weather\", \"description\": \"Get the weather of a city\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, "
    "\"required\": [\"city\"]}}\n</tools>\n\nFor each function call, output the function name and "
    "arguments within the following XML format:\n<tool_call>{function-name}<arg_key>{arg-key-1}"
    "</arg_key><arg_value>{arg-value-1}</arg_value><arg_key>{arg-key-2}</arg_key><arg_value>"
    "{arg-value-2}</arg_value>...</tool_call><|system|>Reasoning Effort: Max<|user|>What is the "
    "weather in Oslo?<|assistant|><think>";

/** A new empty folder under /tmp. */
static inline void folder_make(char path[PATH_BYTES])
{
    (void)snprintf(path, PATH_BYTES, "/tmp/qn-api-XXXXXX");
    assert_non_null(mkdtemp(path));
}

static inline int remove_one(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    (void)info;
    (void)kind;
    (void)ftw;
    return remove(path);
}

/** With everything in it. */
static inline void folder_remove(const char *path)
{
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/** Write or replace DIR/NAME. */
static inline void folder_write(const char *dir, const char *name, const char *text)
{
    char path[3 * PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)unlink(path);
    FILE *const file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/** A folder with links to the files of glm-nano. */
static inline void folder_link_nano(char path[PATH_BYTES])
{
    static const char *const names[] = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    };
    folder_make(path);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char from[PATH_BYTES];
        char to[2 * PATH_BYTES];
        (void)snprintf(from, sizeof from, NANO "/%s", names[i]);
        (void)snprintf(to, sizeof to, "%s/%s", path, names[i]);
        assert_int_equal(symlink(from, to), 0);
    }
}

/** A folder with the tiny config.json alone. */
static inline void folder_tiny(char path[PATH_BYTES])
{
    folder_make(path);
    folder_write(path, "config.json", tiny_config);
}

/** Opening must fail like this, say all of @p words, and leave no model. */
static inline void assert_open_fails(const char *name, const qn_model_options *options,
                                     qn_status expected, const char *word, const char *word_2)
{
    qn_model *model = (qn_model *)(uintptr_t)1;
    qn_error err = {0};
    const qn_status status = qn_model_open(&model, name, options, &err);
    if (status != expected || strstr(err.text, word) == NULL || strstr(err.text, word_2) == NULL) {
        fail_msg("%s: %s: '%s', '%s' and '%s' expected", qn_status_name(status), err.text,
                 qn_status_name(expected), word, word_2);
    }
    assert_null(model);
    assert_int_equal(err.status, expected);
}

/** Dummy weights over a tiny config: the folder may go when the model is open. */
static inline qn_model *open_tiny(uint32_t n_threads)
{
    char dir[PATH_BYTES];
    folder_tiny(dir);
    const qn_model_options options = {
        .use_dummy_weights = true, .dummy_seed = 3, .n_threads = n_threads};
    qn_model *model = NULL;
    qn_error err = {0};
    if (qn_model_open(&model, dir, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    folder_remove(dir);
    return model;
}
#endif
