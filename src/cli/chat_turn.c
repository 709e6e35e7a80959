/* SPDX-License-Identifier: Apache-2.0 */
/* One turn: the user's message, the answer, the results of its tool calls, the next answer ... */
#include "chat.h"

#include "answer.h"
#include "printer.h"
#include "signals.h"
#include "speed.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An answer in the making. */
typedef struct turn {
    chat *chat;
    cli_printer printer;
    cli_answer answer;
} turn;

QN_PRINTF(2, 0)
static void say(const chat *c, const char *format, va_list args)
{
    (void)fflush(stdout);
    (void)fputs(c->is_dim ? "\033[2m" : "", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputs(c->is_dim ? "\033[0m\n" : "\n", stderr);
}

void chat_say(const chat *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(c, format, args);
    va_end(args);
}

void chat_remark(const chat *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!c->values->common.is_quiet) {
        say(c, format, args);
    }
    va_end(args);
}

void chat_report(chat *c, const qn_error *err)
{
    const int status = cli_report(err);
    if (!line_is_terminal(c->lines)) { /* who types has seen it */
        c->status = status;
    }
}

line_result chat_read(chat *c, const char *prompt, const char **text, size_t *len)
{
    const line_result result = line_read(c->lines, prompt, text, len);
    if (result == LINE_FAILED) {
        c->is_over = true;
        c->status = CLI_NO_RESOURCE;
    } else if (result == LINE_TERMINATE ||
               (result == LINE_INTERRUPT && !line_is_terminal(c->lines))) {
        c->is_over = c->is_interrupted = true;
    }
    return result;
}

/* --------------------------------------------------------------------------------------- prompts
 */

qn_status chat_encode(int32_t **ids, size_t *n_ids, const chat *c, const json_t *messages,
                      qn_error *err)
{
    qn_chat_options options = c->options;
    options.is_effort_high = options.is_effort_high && !options.no_thinking;
    char *const json = json_dumps(messages, JSON_COMPACT);
    if (json == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "conversation: no memory");
    }
    const cli_messages given = {.json = json, .len = strlen(json)};
    const qn_status status =
        cli_talk_encode(ids, n_ids, c->model, &options, &c->values->talk, &given, err);
    free(json);
    return status;
}

qn_status chat_check(size_t *n_ids, const chat *c, json_t *messages, qn_error *err)
{
    int32_t *ids = NULL;
    /* Without a message there is nothing to encode, but tools and options are looked at. */
    const bool is_empty = json_array_size(messages) == 0;
    json_t *const any = is_empty ? json_pack("[{ss, ss}]", "role", "user", "content", "") : NULL;
    const qn_status status = chat_encode(&ids, n_ids, c, is_empty ? any : messages, err);
    *n_ids = is_empty ? 0 : *n_ids;
    json_decref(any);
    qn_free(ids);
    return status;
}

static uint32_t context_tokens(const chat *c)
{
    return c->values->context > 0 ? (uint32_t)c->values->context
                                  : qn_model_get_info(c->model)->n_context_max;
}

static qn_status submit(chat *c, qn_error *err)
{
    cli_asked asked;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_status status = chat_encode(&ids, &n_ids, c, c->messages, err);
    if (status == QN_OK && n_ids >= context_tokens(c)) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         "context: full, the conversation has %zu tokens, expected fewer than %u; "
                         "/clear forgets it, --context gives more room (this model: at most %u)",
                         n_ids, context_tokens(c), qn_model_get_info(c->model)->n_context_max);
    }
    qn_request request = {.ids = ids,
                          .n_ids = n_ids,
                          .tools_json = c->options.tools_json,
                          .tools_len = c->options.tools_len};
    if (status == QN_OK) {
        status = cli_ask_fill(&request, &asked, &c->values->ask, qn_model_get_info(c->model), err);
    }
    if (status == QN_OK) {
        status = qn_session_submit(c->session, &request, err);
    }
    qn_free(ids);
    return status;
}

/* ---------------------------------------------------------------------------------------- answer
 */

/* Ctrl-C stops the answer; what ends the program stops it too, and so does a reader that left. */
static void heed_signals(void *context)
{
    chat *const c = ((const turn *)context)->chat;
    for (int number; (number = cli_signals_take()) != 0;) {
        if (number == SIGTSTP) {
            (void)raise(SIGSTOP);
        } else if (number != SIGWINCH) {
            qn_session_cancel(c->session);
            if (number != SIGINT || !line_is_terminal(c->lines)) {
                c->is_over = c->is_interrupted = true;
            }
        }
    }
    if (ferror(stdout) != 0) { /* cli_flush() reports it */
        qn_session_cancel(c->session);
        c->is_over = true;
    }
}

static void see(void *context, const qn_event *event)
{
    turn *const t = context;
    char prefix[48]; /* a call's id is the only one of the conversation */
    (void)snprintf(prefix, sizeof prefix, "call_%zu_", json_array_size(t->chat->messages));
    cli_answer_take(&t->answer, event, prefix);
    cli_printer_show(&t->printer, event);
}

static qn_status generate(turn *t, qn_error *err)
{
    const cli_follower follower = {.context = t, .event = see, .between = heed_signals};
    const qn_status status = submit(t->chat, err);
    return status < 0 ? status
                      : cli_answer_follow(t->chat->session, &follower,
                                          t->chat->values->common.is_quiet, err);
}

static void count(chat *c)
{
    const qn_session_stats s = c->last = qn_session_get_stats(c->session);
    qn_session_stats *const sum = &c->total;
    c->n_answers++;
    sum->n_prompt_tokens += s.n_prompt_tokens;
    sum->n_cached_tokens += s.n_cached_tokens;
    sum->n_computed_tokens += s.n_computed_tokens;
    sum->n_generated_tokens += s.n_generated_tokens;
    sum->n_steps += s.n_steps;
    sum->n_step_tokens += s.n_step_tokens;
    sum->n_drafted += s.n_drafted;
    sum->is_synthetic |= s.is_synthetic;
    for (size_t i = 0; i < QN_DRAFT_TOKENS_MAX; i++) {
        sum->n_accepted_at[i] += s.n_accepted_at[i];
    }
    sum->prefill_s += s.prefill_s;
    sum->decode_s += s.decode_s;
}

static void tell_speed(const chat *c)
{
    const qn_session_stats *const s = &c->last;
    chat_remark(c,
                "%llu token%s, %.1f tokens/s, first token after %.2f s, %llu of %llu prompt "
                "tokens cached%s",
                (unsigned long long)s->n_generated_tokens, cli_plural(s->n_generated_tokens),
                cli_decode_rate(s), s->ttft_s, (unsigned long long)s->n_cached_tokens,
                (unsigned long long)s->n_prompt_tokens,
                s->is_synthetic ? " (synthetic: acceptance pinned)" : "");
}

/* Why the answer is not whole. */
static void tell_finish(const chat *c, const turn *t)
{
    const uint64_t n_max = c->values->ask.max_tokens;
    if (t->answer.finish == QN_FINISH_ABORT) {
        chat_remark(c, "(stopped)");
    } else if (t->answer.finish == QN_FINISH_LENGTH && c->last.n_generated_tokens >= n_max) {
        chat_remark(c, "(stopped after --max-tokens %llu)", (unsigned long long)n_max);
    } else if (t->answer.finish == QN_FINISH_LENGTH) {
        (void)fprintf(stderr,
                      "quern: warning: context: full at %u tokens; /clear forgets the "
                      "conversation, --context gives more room (this model: at most %u)\n",
                      context_tokens(c), qn_model_get_info(c->model)->n_context_max);
    }
}

/* Print, count and keep an answer, part of one where it was stopped. */
static qn_status answer(chat *c, turn *t, qn_error *err)
{
    qn_error why = {0};
    const cli_answer *const a = &t->answer;
    cli_printer_init(&t->printer, &c->values->common);
    cli_answer_open(&t->answer);
    qn_status status = generate(t, err);
    cli_printer_end(&t->printer);
    qn_status kept = cli_answer_finish(&t->answer, &why);
    if (kept == QN_OK &&
        a->lens[CLI_REASONING] + a->lens[CLI_TEXT_PART] + json_array_size(a->calls) > 0) {
        kept = conversation_add_answer(c->messages, a->texts[CLI_REASONING],
                                       a->texts[CLI_TEXT_PART], a->calls, &why);
    }
    if (kept < 0 && status == QN_OK) {
        status = kept;
        *err = why;
    }
    if (status == QN_OK) {
        count(c);
        tell_finish(c, t);
        tell_speed(c);
    }
    return status;
}

/* ------------------------------------------------------------------------------------ tool calls
 */

/* NAME ARGUMENTS on one line of at most half the screen. */
static void show_call(char *out, size_t out_bytes, const json_t *call)
{
    const json_t *const function = json_object_get(call, "function");
    const size_t n_columns = (size_t)cli_columns(STDOUT_FILENO, 40) / 2;
    const size_t n_max = n_columns < out_bytes - 8 ? n_columns : out_bytes - 8;
    char *text = NULL;
    size_t len = 0;
    FILE *const stream = open_memstream(&text, &len);
    const char *const parts[] = {json_string_value(json_object_get(function, "name")), " ",
                                 json_string_value(json_object_get(function, "arguments"))};
    for (size_t i = 0; stream != NULL && i < 3; i++) {
        cli_print_clean(stream, parts[i], strlen(parts[i]));
    }
    if (stream == NULL || fclose(stream) != 0) {
        len = 0;
    }
    size_t n = len < n_max ? len : n_max;
    while (n < len && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) { /* whole characters */
        n--;
    }
    for (size_t i = 0; i < n; i++) { /* on one line */
        text[i] = (char)(text[i] == '\n' || text[i] == '\t' ? ' ' : text[i]);
    }
    (void)snprintf(out, out_bytes, "%.*s%s = ", (int)n, n > 0 ? text : "", n < len ? "..." : "");
    free(text);
}

/* Ask for the result of every call.  False: the user would not; the calls then have a result that
 * says so, as each needs one. */
static bool ask_results(chat *c, const json_t *calls, bool goes_on)
{
    static const char cancelled[] = "cancelled by the user";
    const bool was_asked = goes_on;
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *const call = json_array_get(calls, i);
        const char *text = NULL;
        size_t len = 0;
        char prompt[160];
        qn_error err = {0};
        show_call(prompt, sizeof prompt, call);
        goes_on = goes_on && chat_read(c, prompt, &text, &len) == LINE_TEXT;
        if (goes_on && conversation_add_result(c->messages, call, text, len, &err) < 0) {
            chat_report(c, &err);
            goes_on = false;
        }
        if (!goes_on &&
            conversation_add_result(c->messages, call, cancelled, sizeof cancelled - 1, &err) < 0) {
            chat_report(c, &err);
        }
    }
    if (was_asked && !goes_on) {
        chat_remark(c, "(tool calls cancelled)");
    }
    return goes_on;
}

/* One answer.  True: results of tool calls wait for the next one. */
static bool answer_once(chat *c)
{
    turn t = {.chat = c};
    qn_error err = {0};
    bool goes_on = false;
    const qn_status status = answer(c, &t, &err);
    if (status < 0) {
        chat_report(c, &err);
    }
    if (json_array_size(t.answer.calls) > 0) {
        const bool is_whole = status == QN_OK && t.answer.finish != QN_FINISH_ABORT && !c->is_over;
        goes_on = ask_results(c, t.answer.calls, is_whole);
    }
    cli_answer_close(&t.answer);
    return goes_on;
}

void chat_send(chat *c, const char *text, size_t len)
{
    qn_error err = {0};
    if (cli_append_message(c->messages, "user", "message", text, len, &err) < 0) {
        chat_report(c, &err);
        return;
    }
    while (answer_once(c)) {
    }
    if (conversation_drop_unanswered(c->messages)) {
        chat_remark(c, "(the message has no answer and is not kept)");
    }
}
