/* SPDX-License-Identifier: Apache-2.0 */
#include "ask.h"
#include "commands.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_values {
    cli_common common;
    cli_talk talk;
    const char *prompt, *file, *messages, *tokenizer_dir, *chat_format;
    bool is_chat, as_json;
} tokenize_values;

#define FIELD(field) offsetof(tokenize_values, field)

static const cli_option options[] = {
    {"prompt", 'p', CLI_TEXT, "TEXT", FIELD(prompt), 0, 0, "The text"},
    {"file", 'f', CLI_TEXT, "FILE", FIELD(file), 0, 0, "Read the text from a file (- for stdin)"},
    {"chat", 0, CLI_FLAG, NULL, FIELD(is_chat), 0, 0,
     "The text is a user message: show the whole prompt in the model's chat format"},
    {"messages", 0, CLI_TEXT, "FILE.json", FIELD(messages), 0, 0,
     "Show the whole prompt of a conversation, a JSON array of messages in OpenAI form"},
    {"chat-format", 0, CLI_TEXT, "auto|glm5|glm5.1|glm5.2", FIELD(chat_format), 0, 0,
     "Prompt format of a conversation (default auto: by the template beside the model, then by "
     "config.json)"},
    {"tokenizer", 0, CLI_TEXT, "DIR", FIELD(tokenizer_dir), 0, 0,
     "Take tokenizer.json from this folder"},
    {"json", 0, CLI_FLAG, NULL, FIELD(as_json), 0, 0, "Print {\"n_tokens\", \"ids\", \"tokens\"}"},
};

/* The prompt of a conversation: the text is its messages, or the one message of a user. */
static qn_status encode_chat(int32_t **ids, size_t *n_ids, const qn_model *model,
                             const tokenize_values *v, const char *text, size_t len, qn_error *err)
{
    qn_chat_options chat;
    char *tools = NULL;
    const cli_messages messages = {.json = text, .len = len, .path = v->messages};
    qn_status status = cli_talk_fill(&chat, &tools, &v->talk, err);
    if (status == QN_OK && v->messages != NULL) {
        status = cli_talk_encode(ids, n_ids, model, &chat, &v->talk, &messages, err);
    } else if (status == QN_OK) {
        status = cli_talk_encode_text(ids, n_ids, model, &chat, &v->talk, text, len, err);
    }
    free(tools);
    return status;
}

static qn_status encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                        const tokenize_values *v, const char *text, size_t len, qn_error *err)
{
    return v->is_chat || v->messages != NULL
               ? encode_chat(ids, n_ids, model, v, text, len, err)
               : qn_encode(ids, n_ids, model, text, len, QN_CONTROL_MATCH, err);
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
    if ((v->prompt != NULL) + (v->file != NULL) + (v->messages != NULL) > 1) {
        return cli_fail(QN_E_INVAL, "--%s: given with --%s, expected one of them",
                        v->file != NULL ? "file" : "messages",
                        v->prompt != NULL ? "prompt" : "messages");
    }
    if (v->messages != NULL && v->talk.system != NULL) {
        return cli_fail(QN_E_INVAL, "--system: given with --messages, expected a text of --chat");
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
        status = cli_read_text(&text, &len, v->messages != NULL ? v->messages : v->file, &err);
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
    .synopsis = "MODEL [-p TEXT | -f FILE | --messages FILE.json] [--chat] [--json]",
    .description = "Prints the token ids of a text on one line. The names of control tokens in it "
                   "become those tokens, as in Hugging Face's tokenizers; with --chat the text is "
                   "a user's message, and they stay text, as they do in --messages. Without -p or "
                   "-f the text is read from "
                   "standard input.",
    .examples = "quern tokenize models/glm-nano -p \"Hello there\"\n"
                "quern tokenize models/glm-nano --chat --json -p \"Hello there\"\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0},
               {"Conversation", cli_talk_options, CLI_N_TALK_OPTIONS, FIELD(talk)},
               CLI_COMMON_GROUP},
    .n_groups = 3,
    .n_arguments_max = 1,
    .run = run,
};
