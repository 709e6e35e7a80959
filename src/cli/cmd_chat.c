/* SPDX-License-Identifier: Apache-2.0 */
#include "chat.h"
#include "commands.h"
#include "progress.h"
#include "signals.h"

#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHAT(field) offsetof(chat_values, field)

static const cli_option chat_options[] = {
    {"load", 0, CLI_TEXT, "FILE", CHAT(load), 0, 0, "Go on with a conversation that /save wrote"},
    {"context", 0, CLI_COUNT, "N", CHAT(context), 1, 1 << 24,
     "Positions to keep room for (default: the model's maximum)"},
    {"history", 0, CLI_TEXT, "FILE", CHAT(history), 0, 0,
     "Where typed lines are remembered (default ~/.quern_history)"},
    {"no-history", 0, CLI_FLAG, NULL, CHAT(has_no_history), 0, 0, "Remember them in memory only"},
};

static void init(void *values)
{
    chat_values *v = values;
    cli_ask_init(&v->ask);
}

/* The home of the account, whatever the environment says. */
static qn_status open_lines(chat *c, qn_error *err)
{
    char path[PATH_MAX];
    const struct passwd *const account = getpwuid(getuid());
    const chat_values *const v = c->values;
    const char *history = v->history;
    if (history == NULL && account != NULL &&
        (size_t)snprintf(path, sizeof path, "%s/.quern_history", account->pw_dir) < sizeof path) {
        history = path;
    }
    return line_open(&c->lines, v->has_no_history ? NULL : history,
                     cli_is_colored(STDOUT_FILENO, v->common.color), err);
}

/* The conversation that is loaded, or an empty one, with the system message that was given. */
static qn_status open_messages(chat *c, qn_error *err)
{
    const chat_values *const v = c->values;
    qn_status status = QN_OK;
    size_t n_ids = 0;
    c->messages = json_array();
    status = cli_talk_fill(&c->options, &c->tools, &v->talk, err);
    if (status == QN_OK) { /* what is wrong with tools and settings shows before a question */
        status = chat_check(&n_ids, c, c->messages, err);
    }
    if (status == QN_OK && v->load != NULL) {
        status = chat_load(c, v->load, &n_ids, err);
    }
    if (status == QN_OK && v->talk.system != NULL) {
        status = conversation_set_system(c->messages, v->talk.system, err);
    }
    return status;
}

static qn_status open_chat(chat *c, const char *model_name, qn_error *err)
{
    const qn_session_options options = {.context_tokens = (uint32_t)c->values->context};
    cli_asked asked;
    qn_request request = {0};
    qn_status status = cli_open_model(&c->model, model_name, &c->values->model, false,
                                      c->values->common.is_quiet, err);
    if (status == QN_OK) {
        status = open_messages(c, err);
    }
    if (status == QN_OK) { /* as the options are */
        status = cli_ask_fill(&request, &asked, &c->values->ask, qn_model_get_info(c->model), err);
    }
    if (status == QN_OK) {
        status = qn_session_open(&c->session, c->model, &options, err);
    }
    if (status == QN_OK) {
        status = cli_signals_open(err);
    }
    if (status == QN_OK && cli_is_interrupted()) {
        status = qn_fail(err, QN_E_CANCELLED, 0, __func__, "chat: interrupted, expected to begin");
    }
    return status == QN_OK ? open_lines(c, err) : status;
}

static void greet(const chat *c)
{
    cli_ask_warn(&c->values->ask);
    const qn_model_info *const info = qn_model_get_info(c->model);
    chat_remark(c,
                "%s: %.1f M parameters, %s weights, chat format %s.  /help helps, Ctrl-D leaves.",
                info->name, (double)info->n_parameters / 1e6,
                strcmp(info->quantization, "none") == 0 ? info->weights : info->quantization,
                info->chat_format);
}

static void talk(chat *c)
{
    int n_interrupts = 0; /* in a row */
    while (!c->is_over) {
        const char *text = NULL;
        size_t len = 0;
        const line_result result = chat_read(c, "> ", &text, &len);
        n_interrupts = result == LINE_INTERRUPT ? n_interrupts + 1 : 0;
        if (n_interrupts == 2) {
            chat_remark(c, "(Ctrl-D or /quit leaves)");
        }
        if (result == LINE_END) {
            return;
        }
        if (result != LINE_TEXT || len == 0) {
            continue;
        }
        const bool is_one_line = strchr(text, '\n') == NULL;
        const size_t n_slashes = strspn(text, "/");
        if (n_slashes == 1 && is_one_line) {
            chat_command(c, text);
        } else if (n_slashes == 2 && is_one_line) {
            chat_send(c, text + 1, len - 1);
        } else {
            chat_send(c, text, len);
        }
    }
}

static int close_chat(chat *c)
{
    qn_error err = {0};
    if (line_close(&c->lines, &err) < 0 && !c->values->common.is_quiet) {
        (void)fprintf(stderr, "quern: warning: %s\n", err.text);
    }
    qn_session_close(&c->session);
    qn_model_close(&c->model);
    json_decref(c->messages);
    free(c->tools);
    free(c->file);
    return cli_flush(c->status);
}

static int run(void *values, int n_arguments, char **arguments)
{
    const chat_values *const v = values;
    qn_error err = {0};
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "chat: no model, expected a folder or owner/name, such as the "
                                    "small models/glm-nano that comes with the source");
    }
    chat c = {
        .values = v,
        .is_dim = cli_is_colored(STDERR_FILENO, v->common.color),
    };
    if (open_chat(&c, arguments[0], &err) < 0) {
        c.status = cli_report(&err);
    } else {
        greet(&c);
        talk(&c);
    }
    if (c.is_interrupted) {
        c.status = cli_fail(QN_E_CANCELLED, "chat: interrupted, expected to go on");
    }
    return close_chat(&c);
}

const cli_command cmd_chat = {
    .name = "chat",
    .summary = "Talk with a model",
    .synopsis = "MODEL [options]",
    .description =
        "Loads a model and holds a conversation with it. MODEL is a folder in Hugging Face layout, "
        "or an owner/name found in the local Hugging Face cache.\n\n"
        "Each line is a message. A line that ends in a backslash goes on with the next one; the "
        "lines between two lines of three double quotes are one message, and so is a text of "
        "several lines that is pasted. Lines that begin with a slash are commands: /help lists "
        "them. //TEXT sends /TEXT.\n\n"
        "Ctrl-C stops an answer, which stays in the conversation as far as it came, or clears the "
        "line; Ctrl-D on an empty line leaves. Where the model calls a function of --tools, you "
        "type what it returns.\n\n"
        "Where standard input is no terminal, it is read line by line without prompts, until its "
        "end. Answers go to standard output, everything else to standard error.",
    .examples = "quern chat models/glm-nano\n"
                "quern chat models/glm-nano --thinking off --system \"Answer briefly.\"\n"
                "quern chat models/glm-nano --tools tools.json\n"
                "printf 'What is 12 + 30?\\nWhat is 42 - 2?\\n' | quern chat models/glm-nano -q\n",
    .groups = {{"Conversation", cli_talk_options, CLI_N_TALK_OPTIONS, CHAT(talk)},
               {"Terminal", chat_options, sizeof chat_options / sizeof *chat_options, 0},
               {"Answer", cli_ask_options, CLI_N_ASK_OPTIONS, CHAT(ask)},
               {"Model", cli_model_options, CLI_N_MODEL_OPTIONS, CHAT(model)},
               CLI_COMMON_GROUP},
    .n_groups = 5,
    .n_arguments_max = 1,
    .init = init,
    .run = run,
};
_Static_assert(sizeof(chat_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");
