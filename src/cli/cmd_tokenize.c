/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_values {
    cli_common common;
    const char *prompt, *file, *tokenizer_dir, *chat_format;
    int thinking, effort;
    bool is_chat, as_json;
} tokenize_values;

#define FIELD(field) offsetof(tokenize_values, field)

static const cli_option options[] = {
    {"prompt", 'p', CLI_TEXT, "TEXT", FIELD(prompt), 0, 0, "The text"},
    {"file", 'f', CLI_TEXT, "FILE", FIELD(file), 0, 0, "Read the text from a file (- for stdin)"},
    {"chat", 0, CLI_FLAG, NULL, FIELD(is_chat), 0, 0,
     "The text is a user message: show the whole prompt in the model's chat format"},
    {"chat-format", 0, CLI_TEXT, "auto|glm5|glm5.1|glm5.2", FIELD(chat_format), 0, 0,
     "Prompt format of --chat (default auto: by the template beside the model, then by "
     "config.json)"},
    {"thinking", 0, CLI_CHOICE, "on|off", FIELD(thinking), 0, 0,
     "Prompt of --chat that lets the model think (default on)"},
    {"reasoning-effort", 0, CLI_CHOICE, "max|high", FIELD(effort), 0, 0,
     "How long it is to think (default max)"},
    {"tokenizer", 0, CLI_TEXT, "DIR", FIELD(tokenizer_dir), 0, 0,
     "Take tokenizer.json from this folder"},
    {"json", 0, CLI_FLAG, NULL, FIELD(as_json), 0, 0, "Print {\"n_tokens\", \"ids\", \"tokens\"}"},
};

static qn_status encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                        const tokenize_values *v, const char *text, size_t len, qn_error *err)
{
    if (!v->is_chat) {
        return qn_encode(ids, n_ids, model, text, len, QN_CONTROL_MATCH, err);
    }
    char *json = NULL;
    qn_status status = cli_user_message(&json, NULL, text, len, err);
    if (status == QN_OK) {
        const qn_chat_options chat = {.no_thinking = v->thinking == 1,
                                      .is_effort_high = v->effort == 1};
        status = qn_chat_encode(ids, n_ids, model, &chat, json, strlen(json), err);
    }
    free(json);
    return status;
}

static int print_ids(const qn_model *model, const int32_t *ids, size_t n_ids, bool as_json,
                     qn_error *err)
{
    if (!as_json) {
        for (size_t i = 0; i < n_ids; i++) {
            (void)printf("%s%d", i > 0 ? " " : "", ids[i]);
        }
        (void)printf("\n");
        return cli_flush(CLI_DONE);
    }
    json_t *tokens = json_array();
    for (size_t i = 0; i < n_ids; i++) {
        char *text = NULL;
        size_t len = 0;
        if (qn_decode(&text, &len, model, &ids[i], 1, err) != QN_OK) {
            json_decref(tokens);
            return cli_report(err);
        }
        (void)json_array_append_new(tokens, json_stringn(text, len));
        qn_free(text);
    }
    return cli_print_json(json_pack("{sI, so, so}", "n_tokens", (json_int_t)n_ids, "ids",
                                    cli_json_ids(ids, n_ids), "tokens", tokens));
}

static int run(void *values, int n_arguments, char **arguments)
{
    const tokenize_values *v = values;
    qn_error err = {0};
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "tokenize: no model, expected a folder or owner/name");
    }
    if (v->prompt != NULL && v->file != NULL) {
        return cli_fail(QN_E_INVAL, "--file: given with --prompt, expected one of them");
    }
    const qn_model_options model_options = {
        .tokenizer_only = true, .tokenizer_dir = v->tokenizer_dir, .chat_format = v->chat_format};
    qn_model *model = NULL;
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_status status = qn_model_open(&model, arguments[0], &model_options, &err);
    if (status == QN_OK && v->prompt == NULL) {
        status = cli_read_text(&text, &len, v->file, &err);
    }
    if (status == QN_OK) {
        const char *from = v->prompt != NULL ? v->prompt : text;
        status = encode(&ids, &n_ids, model, v, from, v->prompt != NULL ? strlen(from) : len, &err);
    }
    const int result =
        status == QN_OK ? print_ids(model, ids, n_ids, v->as_json, &err) : cli_report(&err);
    qn_free(ids);
    free(text);
    qn_model_close(&model);
    return result;
}

const cli_command cmd_tokenize = {
    .name = "tokenize",
    .summary = "Turn text into token ids",
    .synopsis = "MODEL [-p TEXT | -f FILE] [--chat] [--json]",
    .description = "Prints the token ids of a text on one line. The names of control tokens in it "
                   "become those tokens, as in Hugging Face's tokenizers; with --chat the text is "
                   "a user's message, and they stay text. Without -p or -f the text is read from "
                   "standard input.",
    .examples = "quern tokenize models/glm-nano -p \"Hello there\"\n"
                "quern tokenize models/glm-nano --chat --json -p \"Hello there\"\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 1,
    .run = run,
};
