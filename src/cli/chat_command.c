/* SPDX-License-Identifier: Apache-2.0 */
/* The lines that begin with a slash. */
#include "chat.h"

#include "speed.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A command gets what stands behind its name, without blanks around. */
typedef struct command {
    const char *name;
    const char *arguments; /* as /help shows them; "": it takes none */
    const char *help;
    void (*run)(chat *c, char *argument);
} command;

static void help(chat *c, char *argument);

static void forget_counts(chat *c)
{
    c->last = c->total = (qn_session_stats){0};
    c->n_answers = 0;
}

static void clear(chat *c, char *argument)
{
    (void)argument;
    conversation_clear(c->messages);
    qn_session_clear(c->session);
    forget_counts(c);
    chat_remark(c, "The conversation is forgotten%s.",
                conversation_system(c->messages) != NULL ? "; the system message stays" : "");
}

static void thinking(chat *c, char *argument)
{
    const bool was[] = {c->options.no_thinking, c->options.is_effort_high};
    size_t n_ids = 0;
    qn_error err = {0};
    if (strcmp(argument, "on") == 0 || strcmp(argument, "off") == 0) {
        c->options.no_thinking = argument[1] == 'f';
    } else if (strcmp(argument, "max") == 0 || strcmp(argument, "high") == 0) {
        c->options.no_thinking = false;
        c->options.is_effort_high = argument[0] == 'h';
    } else if (argument[0] != '\0') {
        (void)qn_fail(&err, QN_E_INVAL, 0, __func__,
                      "/thinking: \"%.32s\", expected on, off, max or high", argument);
        chat_report(c, &err);
        return;
    }
    if (chat_check(&n_ids, c, c->messages, &err) < 0) { /* not every chat format has the effort */
        c->options.no_thinking = was[0];
        c->options.is_effort_high = was[1];
        chat_report(c, &err);
        return;
    }
    chat_say(c, "Thinking is %s.",
             c->options.no_thinking      ? "off"
             : c->options.is_effort_high ? "on, effort high"
                                         : "on, effort max");
}

static void set_system(chat *c, char *argument)
{
    qn_error err = {0};
    const char *const now = conversation_system(c->messages);
    if (argument[0] == '\0') {
        chat_say(c, now != NULL ? "The system message: %s" : "There is no system message%s.",
                 now != NULL ? now : "");
        return;
    }
    const char *const text = strcmp(argument, "\"\"") == 0 ? NULL : argument;
    if (conversation_set_system(c->messages, text, &err) < 0) {
        chat_report(c, &err);
        return;
    }
    chat_remark(c, text != NULL ? "The system message is set." : "The system message is empty.");
}

static void remember_file(chat *c, const char *path)
{
    free(c->file);
    c->file = strdup(path); /* without memory /save asks for another name, that is all */
}

static void save(chat *c, char *argument)
{
    qn_error err = {0};
    qn_status status = QN_OK;
    const bool is_ours = c->file != NULL && strcmp(c->file, argument) == 0;
    const size_t n = json_array_size(c->messages);
    if (argument[0] == '\0') {
        status = qn_fail(&err, QN_E_INVAL, 0, __func__, "/save: no name, expected a file");
    } else if (n == 0) {
        status =
            qn_fail(&err, QN_E_INVAL, 0, __func__, "/save: no messages, expected a conversation");
    } else if (!is_ours && access(argument, F_OK) == 0) {
        status = qn_fail(&err, QN_E_INVAL, 0, __func__,
                         "%s: exists, expected a new file or the one that this conversation was "
                         "saved to or loaded from",
                         argument);
    } else {
        status = conversation_save(c->messages, argument, &err);
    }
    if (status < 0) {
        chat_report(c, &err);
        return;
    }
    remember_file(c, argument);
    chat_remark(c, "%s: %zu message%s %s.", argument, n, cli_plural(n),
                is_ours ? "saved in place of the earlier ones" : "saved");
}

qn_status chat_load(chat *c, const char *path, size_t *n_ids, qn_error *err)
{
    qn_error why = {0};
    json_t *messages = NULL;
    qn_status status = conversation_load(&messages, path, err);
    if (status == QN_OK && (status = chat_check(n_ids, c, messages, &why)) < 0) {
        (void)qn_fail(err, status, why.sys, why.where, "%s: %s", path, why.text);
    }
    if (status < 0) {
        json_decref(messages);
        return status;
    }
    json_decref(c->messages);
    c->messages = messages;
    remember_file(c, path);
    forget_counts(c);
    return QN_OK;
}

static void load(chat *c, char *argument)
{
    qn_error err = {0};
    size_t n_ids = 0;
    const qn_status status = argument[0] != '\0' ? chat_load(c, argument, &n_ids, &err)
                                                 : qn_fail(&err, QN_E_INVAL, 0, __func__,
                                                           "/load: no name, expected a file");
    if (status < 0) {
        chat_report(c, &err);
        return;
    }
    const size_t n = json_array_size(c->messages);
    chat_remark(c, "%s: %zu message%s loaded, %zu tokens.", argument, n, cli_plural(n), n_ids);
}

/* Tokens, speed and speculation of one answer or of several. */
static void show_counts(const chat *c, const qn_session_stats *s, uint64_t n_answers)
{
    char shares[QN_DRAFT_TOKENS_MAX * 8 + 1] = "";
    size_t len = 0;
    for (size_t i = 0; i < QN_DRAFT_TOKENS_MAX && s->n_accepted_at[i] > 0; i++) {
        len += (size_t)snprintf(shares + len, sizeof shares - len, " %.2f",
                                cli_rate((double)s->n_accepted_at[i], (double)s->n_steps));
    }
    chat_say(c, "  prompts   %llu tokens, %llu cached, %llu computed at %.1f tokens/s",
             (unsigned long long)s->n_prompt_tokens, (unsigned long long)s->n_cached_tokens,
             (unsigned long long)(s->n_computed_tokens - s->n_cached_tokens), cli_prefill_rate(s));
    chat_say(c, "  answers   %llu tokens, %.1f tokens/s", (unsigned long long)s->n_generated_tokens,
             cli_rate((double)s->n_generated_tokens - (double)n_answers, s->decode_s));
    if (s->n_drafted > 0) {
        chat_say(c, "  drafts    %.2f tokens a step%s; accepted by position:%s",
                 cli_rate((double)s->n_step_tokens, (double)s->n_steps),
                 s->is_synthetic ? " (synthetic: pinned)" : "", len > 0 ? shares : " none");
    }
}

static void stats(chat *c, char *argument)
{
    (void)argument;
    if (c->n_answers == 0) {
        chat_say(c, "No answers yet.");
        return;
    }
    chat_say(c, "The last answer, its first token after %.2f s:", c->last.ttft_s);
    show_counts(c, &c->last, 1);
    chat_say(c, "The conversation, %llu answer%s:", (unsigned long long)c->n_answers,
             cli_plural(c->n_answers));
    show_counts(c, &c->total, c->n_answers);
    chat_say(c, "The cache has %.1f MB.", (double)c->last.kv_bytes / 1e6);
}

static void quit(chat *c, char *argument)
{
    (void)argument;
    c->is_over = true;
}

static const command commands[] = {
    {"help", "", "this list", help},
    {"clear", "", "forget the conversation; system message and tools stay", clear},
    {"thinking", "[on|off|max|high]", "show or set whether the model thinks, and how much",
     thinking},
    {"system", "[TEXT]", "show or set the system message; \"\" takes it away", set_system},
    {"save", "FILE", "write the conversation as JSON", save},
    {"load", "FILE", "go on with a saved conversation", load},
    {"stats", "", "tokens, speed, cache", stats},
    {"quit", "", "leave, as Ctrl-D and /exit do", quit},
    {"exit", "", NULL, quit},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void help(chat *c, char *argument)
{
    (void)argument;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (commands[i].help != NULL) {
            const int used = (int)(strlen(commands[i].name) + strlen(commands[i].arguments));
            chat_say(c, "/%s %s%*s %s", commands[i].name, commands[i].arguments,
                     used < 26 ? 26 - used : 0, "", commands[i].help);
        }
    }
    chat_say(c, "A line that ends in \\ goes on with the next; lines between two lines of \"\"\" "
                "are one message; //TEXT sends /TEXT.\n"
                "Ctrl-C stops an answer or clears the line, Ctrl-D leaves.");
}

static const char *command_name(const void *list, size_t i)
{
    (void)list;
    return commands[i].name;
}

static const command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void refuse_unknown(chat *c, const char *name)
{
    qn_error err = {0};
    const char *const near = cli_nearest(name, command_name, NULL, N_COMMANDS);
    if (near != NULL) {
        (void)qn_fail(&err, QN_E_INVAL, 0, __func__, "/%.64s: no such command, did you mean /%s?",
                      name, near);
    } else {
        (void)qn_fail(&err, QN_E_INVAL, 0, __func__,
                      "/%.64s: no such command, expected one that /help lists; //TEXT sends /TEXT",
                      name);
    }
    chat_report(c, &err);
}

void chat_command(chat *c, const char *line)
{
    static const char blanks[] = " \t";
    qn_error err = {0};
    char *const copy = strdup(line + 1);
    if (copy == NULL) {
        (void)qn_fail(&err, QN_E_NOMEM, 0, __func__, "%.64s: no memory", line);
        chat_report(c, &err);
        return;
    }
    char *argument = copy + strcspn(copy, blanks);
    if (*argument != '\0') {
        *argument++ = '\0';
        argument += strspn(argument, blanks);
    }
    for (size_t len = strlen(argument); len > 0 && strchr(blanks, argument[len - 1]) != NULL;) {
        argument[--len] = '\0';
    }
    const command *const found = find(copy);
    if (found == NULL) {
        refuse_unknown(c, copy);
    } else if (found->arguments[0] == '\0' && argument[0] != '\0') {
        (void)qn_fail(&err, QN_E_INVAL, 0, __func__, "/%s: \"%.64s\", expected nothing behind it",
                      copy, argument);
        chat_report(c, &err);
    } else {
        found->run(c, argument);
    }
    free(copy);
}
