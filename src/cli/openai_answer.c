/* SPDX-License-Identifier: Apache-2.0 */
#include "openai_answer.h"

#include <math.h>
#include <string.h>
#include <time.h>

/* What OpenAI writes for a probability of nothing, as JSON has no infinity. */
static const double logprob_of_none = -9999.0;

void openai_choice_open(openai_choice *choice, const openai_request *request, size_t index)
{
    *choice = (openai_choice){.index = index};
    cli_answer_open(&choice->answer);
    if (request->request.wants_logprobs) {
        choice->logprobs = request->endpoint == OPENAI_CHAT
                               ? json_pack("{s[], sn}", "content", "refusal")
                               : json_pack("{s[], s[], s[], s[]}", "tokens", "token_logprobs",
                                           "top_logprobs", "text_offset");
        choice->answer.has_lost |= choice->logprobs == NULL;
    }
}

void openai_choice_close(openai_choice *choice)
{
    cli_answer_close(&choice->answer);
    json_decref(choice->logprobs);
    choice->logprobs = NULL;
}

/* ------------------------------------------------------------------------------------ logprobs */

static json_t *show_number(float logprob)
{
    return json_real(isfinite(logprob) ? (double)logprob : logprob_of_none);
}

/* The text of a token; a part of a character is U+FFFD. */
static json_t *show_token(const qn_model *model, int32_t token)
{
    char *text = NULL;
    size_t len = 0;
    qn_error err = {0};
    if (qn_decode(&text, &len, model, &token, 1, &err) < 0) {
        return NULL;
    }
    json_t *const string = json_stringn(text, len);
    qn_free(text);
    return string;
}

/* null where the token is no whole text. */
static json_t *show_bytes(const json_t *token)
{
    const char *const text = json_string_value(token);
    if (text == NULL || strstr(text, "\xef\xbf\xbd") != NULL) {
        return json_null();
    }
    json_t *const list = json_array();
    for (size_t i = 0; i < json_string_length(token); i++) {
        (void)json_array_append_new(list, json_integer((unsigned char)text[i]));
    }
    return list;
}

/* {"token", "logprob", "bytes"} */
static json_t *show_logprob(const qn_model *model, const qn_token_logprob *p)
{
    json_t *const token = show_token(model, p->token);
    return json_pack("{so, so, so}", "token", token, "logprob", show_number(p->logprob), "bytes",
                     show_bytes(token));
}

static bool take_chat_logprob(openai_choice *choice, const qn_model *model, const qn_event *event)
{
    json_t *const top = json_array();
    bool is_kept = true;
    for (uint32_t i = 0; i < event->n_top; i++) {
        is_kept &= json_array_append_new(top, show_logprob(model, &event->top[i])) == 0;
    }
    json_t *const entry = show_logprob(model, &event->token);
    is_kept &= json_object_set_new(entry, "top_logprobs", top) == 0;
    return json_array_append_new(json_object_get(choice->logprobs, "content"), entry) == 0 &&
           is_kept;
}

static uint64_t count_characters(const json_t *token)
{
    uint64_t n = 0;
    for (const char *at = json_string_value(token); at != NULL && *at != '\0'; at++) {
        n += ((unsigned char)*at & 0xc0) != 0x80;
    }
    return n;
}

/* Beside the likeliest tokens always the one that was drawn. */
static bool take_completion_logprob(openai_choice *choice, const qn_model *model,
                                    const qn_event *event)
{
    json_t *const lists = choice->logprobs;
    json_t *const token = show_token(model, event->token.token);
    json_t *const top = json_object();
    bool is_kept = token != NULL;
    for (uint32_t i = 0; i < event->n_top; i++) {
        json_t *const name = show_token(model, event->top[i].token);
        is_kept &= name != NULL && json_object_set_new(top, json_string_value(name),
                                                       show_number(event->top[i].logprob)) == 0;
        json_decref(name);
    }
    is_kept &= token != NULL && json_object_set_new(top, json_string_value(token),
                                                    show_number(event->token.logprob)) == 0;
    const json_int_t offset = (json_int_t)choice->n_characters;
    choice->n_characters += count_characters(token);
    is_kept &= json_array_append_new(json_object_get(lists, "tokens"), token) == 0;
    is_kept &= json_array_append_new(json_object_get(lists, "token_logprobs"),
                                     show_number(event->token.logprob)) == 0;
    is_kept &= json_array_append_new(json_object_get(lists, "top_logprobs"), top) == 0;
    return is_kept &&
           json_array_append_new(json_object_get(lists, "text_offset"), json_integer(offset)) == 0;
}

/* -------------------------------------------------------------------------------------- events */

static void add_text(openai_choice *choice, const char *text, size_t len)
{
    const qn_event piece = {.kind = QN_EVENT_TEXT, .text = text, .len = len};
    if (len > 0) {
        cli_answer_take(&choice->answer, &piece, "");
    }
}

static void add_word(openai_choice *choice, const char *word)
{
    add_text(choice, word, strlen(word));
}

/* Marks stand where the model wrote them; of a prompt that ends in <think> only the closing one. */
static void take_plain(openai_choice *choice, const qn_event *event)
{
    const bool is_thinking = event->kind == QN_EVENT_REASONING;
    if (is_thinking != choice->is_thinking && (!is_thinking || choice->has_opened)) {
        add_word(choice, is_thinking ? "<think>" : "</think>");
    }
    choice->is_thinking = is_thinking;
    if (event->kind == QN_EVENT_TOOL_CALL) {
        add_word(choice, "<tool_call>");
        add_text(choice, event->name, event->name_len);
        add_text(choice, event->text, event->len);
        add_word(choice, "</tool_call>");
    } else {
        add_text(choice, event->text, event->len);
    }
}

static void take_token(openai_choice *choice, const openai_request *request, const qn_model *model,
                       const qn_event *event)
{
    if (choice->logprobs != NULL) {
        choice->answer.has_lost |= request->endpoint == OPENAI_CHAT
                                       ? !take_chat_logprob(choice, model, event)
                                       : !take_completion_logprob(choice, model, event);
    }
    if (request->endpoint == OPENAI_COMPLETION && !choice->has_opened) {
        json_t *const token = show_token(model, event->token.token);
        choice->has_opened = token != NULL && strcmp(json_string_value(token), "<think>") == 0;
        json_decref(token);
    }
}

void openai_choice_take(openai_choice *choice, const openai_request *request, const qn_model *model,
                        const qn_event *event, const char *id)
{
    char prefix[96];
    switch (event->kind) {
    case QN_EVENT_REASONING:
    case QN_EVENT_TEXT:
    case QN_EVENT_TOOL_CALL:
        if (request->endpoint == OPENAI_COMPLETION) {
            take_plain(choice, event);
        } else {
            (void)snprintf(prefix, sizeof prefix, "call_%s_%zu_", id, choice->index);
            cli_answer_take(&choice->answer, event, prefix);
        }
        break;
    case QN_EVENT_TOKEN: take_token(choice, request, model, event); break;
    case QN_EVENT_END:
        cli_answer_take(&choice->answer, event, "");
        choice->stats = event->stats != NULL ? *event->stats : choice->stats;
        break;
    case QN_EVENT_WARNING:
    case QN_EVENT_CALL_BEGIN:
    case QN_EVENT_CALL_PIECE:
    case QN_EVENT_PROMPT_TOKEN: break;
    }
}

/* ------------------------------------------------------------------------------------ response */

/* "content" is null, and so is "reasoning_content", where there is none but calls. */
static json_t *show_message(const cli_answer *answer)
{
    const bool has_calls = json_array_size(answer->calls) > 0;
    const size_t len = answer->lens[CLI_TEXT_PART];
    const size_t reasoning_len = answer->lens[CLI_REASONING];
    json_t *const message = json_pack(
        "{ss, so, so, sn}", "role", "assistant", "content",
        len == 0 && has_calls ? json_null() : json_stringn(answer->texts[CLI_TEXT_PART], len),
        "reasoning_content",
        reasoning_len == 0 ? json_null()
                           : json_stringn(answer->texts[CLI_REASONING], reasoning_len),
        "refusal");
    if (has_calls && json_object_set(message, "tool_calls", answer->calls) != 0) {
        json_decref(message);
        return NULL;
    }
    return message;
}

static json_t *show_choice(openai_choice *choice, const openai_request *request)
{
    qn_error err = {0};
    cli_answer *const answer = &choice->answer;
    if (cli_answer_finish(answer, &err) < 0) {
        return NULL;
    }
    const bool is_chat = request->endpoint == OPENAI_CHAT;
    const bool is_length = answer->finish == QN_FINISH_LENGTH;
    return json_pack("{si, so, sO?, ss}", "index", (int)choice->index, is_chat ? "message" : "text",
                     is_chat
                         ? show_message(answer)
                         : json_stringn(answer->texts[CLI_TEXT_PART], answer->lens[CLI_TEXT_PART]),
                     "logprobs", choice->logprobs, "finish_reason",
                     is_length || is_chat ? qn_finish_name(answer->finish) : "stop");
}

/* A prompt counts once, whatever n; cached is what its first choice found. */
static json_t *show_usage(const openai_choice *choices, const openai_request *request)
{
    json_int_t n_prompt = 0;
    json_int_t n_cached = 0;
    json_int_t n_generated = 0;
    json_int_t n_reasoning = 0;
    for (size_t i = 0; i < openai_n_choices(request); i++) {
        const qn_session_stats *const s = &choices[i].stats;
        const bool is_first = i % request->n == 0;
        n_prompt += is_first ? (json_int_t)s->n_prompt_tokens : 0;
        n_cached += is_first ? (json_int_t)s->n_cached_tokens : 0;
        n_generated += (json_int_t)s->n_generated_tokens;
        n_reasoning += (json_int_t)s->n_reasoning_tokens;
    }
    return json_pack("{sI, sI, sI, s{sI}, s{sI}}", "prompt_tokens", n_prompt, "completion_tokens",
                     n_generated, "total_tokens", n_prompt + n_generated, "prompt_tokens_details",
                     "cached_tokens", n_cached, "completion_tokens_details", "reasoning_tokens",
                     n_reasoning);
}

json_t *openai_response(openai_choice *choices, const openai_request *request,
                        const qn_model *model, const char *id)
{
    const qn_model_info *const info = qn_model_get_info(model);
    const bool is_chat = request->endpoint == OPENAI_CHAT;
    json_t *const list = json_array();
    json_t *const response = json_pack(
        "{ss+, ss, sI, so, sO, so}", "id", is_chat ? "chatcmpl-" : "cmpl-", id, "object",
        is_chat ? "chat.completion" : "text_completion", "created", (json_int_t)time(NULL), "model",
        cli_json_text(info->name), "choices", list, "usage", show_usage(choices, request));
    bool is_whole = response != NULL;
    for (size_t i = 0; is_whole && i < openai_n_choices(request); i++) {
        is_whole = json_array_append_new(list, show_choice(&choices[i], request)) == 0;
    }
    if (is_whole && strcmp(info->weights, "dummy") == 0) {
        is_whole = json_object_set_new(response, "weights", json_string("dummy")) == 0;
    }
    json_decref(list);
    if (!is_whole) {
        json_decref(response);
    }
    return is_whole ? response : NULL;
}
