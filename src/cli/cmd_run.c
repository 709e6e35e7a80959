/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"
#include "ask.h"
#include "commands.h"
#include "printer.h"
#include "progress.h"
#include "report.h"
#include "speed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct run_values {
    cli_common common;
    cli_model model;
    cli_ask ask;
    cli_talk talk;
    const char *prompt, *file, *ids, *messages, *logits, *trace;
    uint64_t context, prompt_tokens;
    uint64_t logprobs, prompt_logprobs; /* UINT64_MAX: not given */
    bool is_raw, as_json;
} run_values;

#define RUN(field) offsetof(run_values, field)

static const cli_option prompt_options[] = {
    {"prompt", 'p', CLI_TEXT, "TEXT", RUN(prompt), 0, 0, "The prompt: a user message"},
    {"file", 'f', CLI_TEXT, "FILE", RUN(file), 0, 0, "Read the prompt from a file (- for stdin)"},
    {"ids", 0, CLI_TEXT, "LIST", RUN(ids), 0, 0, "The prompt as token ids, separated by commas"},
    {"prompt-tokens", 0, CLI_COUNT, "N", RUN(prompt_tokens), 1, 1 << 24,
     "A prompt of N pseudo-random ids (for dummy weights)"},
    {"raw", 0, CLI_FLAG, NULL, RUN(is_raw), 0, 0,
     "The text is the prompt itself, control tokens included, not a user message"},
    {"messages", 0, CLI_TEXT, "FILE.json", RUN(messages), 0, 0,
     "A conversation as a JSON array of messages in OpenAI form"},
};

static const cli_option output_options[] = {
    {"context", 0, CLI_COUNT, "N", RUN(context), 1, 1 << 24,
     "Positions to keep room for (default: the model's maximum)"},
    {"logprobs", 0, CLI_COUNT, "N", RUN(logprobs), 0, QN_TOP_LOGPROBS_MAX,
     "With --json: the log-probability of each token drawn, and of the N likeliest ones"},
    {"prompt-logprobs", 0, CLI_COUNT, "N", RUN(prompt_logprobs), 0, QN_TOP_LOGPROBS_MAX,
     "With --json: the same for the tokens of the prompt"},
    {"logits", 0, CLI_TEXT, "FILE", RUN(logits), 0, 0,
     "Write logits and ids of every position computed (safetensors)"},
    {"trace", 0, CLI_TEXT, "FILE", RUN(trace), 0, 0,
     "Write hidden states, router choices and index sets of the prompt (safetensors)"},
    {"json", 0, CLI_FLAG, NULL, RUN(as_json), 0, 0, "Print one JSON object"},
};

static void init(void *values)
{
    run_values *v = values;
    cli_ask_init(&v->ask);
    v->logprobs = v->prompt_logprobs = UINT64_MAX;
}

/* One run: what it holds, and what --json will print. */
typedef struct run_state {
    const run_values *v;
    qn_model *model;
    qn_session *session;
    cli_printer printer;
    cli_answer answer;
    cli_asked asked;
    qn_request request;
    qn_chat_options chat;
    char *tools; /* owned */
    int32_t *prompt;
    size_t n_prompt;
    json_t *ids, *warnings, *logprobs, *prompt_logprobs; /* owned; the last two may be NULL */
    bool has_lost;                                       /* no memory for a part of the JSON */
} run_state;

/* ------------------------------------------------------------------------------------- prompt --
 */

/* The text of -p, -f or standard input; owned by the caller. */
static qn_status read_prompt(char **text, size_t *len, const run_values *v, qn_error *err)
{
    if (v->prompt != NULL) {
        *len = strlen(v->prompt);
        *text = strdup(v->prompt);
        return *text != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "prompt: no memory");
    }
    if (v->file == NULL && isatty(STDIN_FILENO) && !v->common.is_quiet) {
        (void)fprintf(stderr, "Type the prompt, then Ctrl-D.\n");
    }
    const qn_status status = cli_read_text(text, len, v->file, err);
    /* A line break at the end belongs to the terminal or editor, not to the question. */
    if (status == QN_OK && !v->is_raw && *len > 0 && (*text)[*len - 1] == '\n') {
        *len -= *len > 1 && (*text)[*len - 2] == '\r' ? 2 : 1;
        (*text)[*len] = '\0';
    }
    return status;
}

/* Messages of a file, or one of a user, put to the model. */
static qn_status encode_chat(run_state *a, const char *text, size_t len, qn_error *err)
{
    const run_values *const v = a->v;
    const cli_messages messages = {.json = text, .len = len, .path = v->messages};
    return v->messages != NULL ? cli_talk_encode(&a->prompt, &a->n_prompt, a->model, &a->chat,
                                                 &v->talk, &messages, err)
                               : cli_talk_encode_text(&a->prompt, &a->n_prompt, a->model, &a->chat,
                                                      &v->talk, text, len, err);
}

static qn_status random_prompt(run_state *a, qn_error *err)
{
    const uint32_t n_vocab = qn_model_get_info(a->model)->n_vocab;
    a->n_prompt = (size_t)a->v->prompt_tokens;
    a->prompt = malloc(a->n_prompt * sizeof *a->prompt);
    if (a->prompt == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "--prompt-tokens: no memory");
    }
    uint64_t state = 1; /* Knuth's MMIX generator; the ids only have to vary */
    for (size_t i = 0; i < a->n_prompt; i++) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        a->prompt[i] = (int32_t)((state >> 33) % n_vocab);
    }
    return QN_OK;
}

static qn_status make_prompt(run_state *a, qn_error *err)
{
    const run_values *v = a->v;
    char *text = NULL;
    size_t len = 0;
    if (v->ids != NULL) {
        return cli_parse_ids(&a->prompt, &a->n_prompt, v->ids, err);
    }
    if (v->prompt_tokens > 0) {
        return random_prompt(a, err);
    }
    qn_status status = v->messages != NULL ? cli_read_text(&text, &len, v->messages, err)
                                           : read_prompt(&text, &len, v, err);
    if (status == QN_OK) {
        status = v->is_raw ? qn_encode(&a->prompt, &a->n_prompt, a->model, text, len,
                                       QN_CONTROL_MATCH, err)
                           : encode_chat(a, text, len, err);
    }
    free(text);
    return status;
}

/* Ways to give a prompt that contradict each other. */
static int check_usage(const run_values *v)
{
    const int n_prompts = (v->prompt != NULL) + (v->file != NULL) + (v->ids != NULL) +
                          (v->messages != NULL) + (v->prompt_tokens > 0);
    if (n_prompts > 1) {
        return cli_fail(QN_E_INVAL,
                        "prompt: given %d times, expected one of --prompt, --file, "
                        "--ids, --messages, --prompt-tokens",
                        n_prompts);
    }
    if (v->talk.system != NULL && (v->is_raw || v->ids != NULL || v->messages != NULL)) {
        return cli_fail(QN_E_INVAL, "--system: given with %s, expected a prompt of plain text",
                        v->is_raw        ? "--raw"
                        : v->ids != NULL ? "--ids"
                                         : "--messages");
    }
    if (v->talk.tools != NULL && (v->is_raw || v->ids != NULL || v->prompt_tokens > 0)) {
        return cli_fail(QN_E_INVAL, "--tools: given with %s, expected a message or a conversation",
                        v->is_raw        ? "--raw"
                        : v->ids != NULL ? "--ids"
                                         : "--prompt-tokens");
    }
    if (!v->as_json && (v->logprobs != UINT64_MAX || v->prompt_logprobs != UINT64_MAX)) {
        return cli_fail(QN_E_INVAL, "--%s: given without --json, expected with it",
                        v->logprobs != UINT64_MAX ? "logprobs" : "prompt-logprobs");
    }
    if (v->is_raw && (v->ids != NULL || v->messages != NULL)) {
        return cli_fail(QN_E_INVAL, "--raw: given with %s, expected a prompt of plain text",
                        v->ids != NULL ? "--ids" : "--messages");
    }
    return CLI_DONE;
}

/* ------------------------------------------------------------------------------------- output --
 */

static void collect_into(run_state *a, json_t *list, json_t *value)
{
    a->has_lost |= json_array_append_new(list, value) != 0;
}

/* {"id", "token", "logprob"}; an impossible token's logprob is null, as JSON has no infinity. */
static json_t *show_logprob(run_state *a, const qn_token_logprob *p)
{
    char *text = NULL;
    size_t len = 0;
    qn_error err = {0};
    if (qn_decode(&text, &len, a->model, &p->token, 1, &err) < 0) {
        return NULL;
    }
    json_t *const logprob = isfinite(p->logprob) ? json_real((double)p->logprob) : json_null();
    json_t *const object = json_pack("{si, so, so}", "id", (int)p->token, "token",
                                     json_stringn(text, len), "logprob", logprob);
    qn_free(text);
    return object;
}

/* With the first @p n_top of the alternatives: prompt and answer may want different numbers. */
static void collect_logprob(run_state *a, json_t *list, const qn_event *event, uint64_t n_top)
{
    json_t *const object = show_logprob(a, &event->token);
    json_t *const top = json_array();
    for (uint32_t i = 0; i < event->n_top && i < n_top; i++) {
        collect_into(a, top, show_logprob(a, &event->top[i]));
    }
    a->has_lost |= json_object_set_new(object, "top", top) != 0;
    collect_into(a, list, object);
}

static void collect(run_state *a, const qn_event *event)
{
    cli_answer_take(&a->answer, event, "call_");
    switch (event->kind) {
    case QN_EVENT_WARNING:
        collect_into(a, a->warnings, json_stringn(event->text, event->len));
        break;
    case QN_EVENT_CALL_BEGIN:
    case QN_EVENT_CALL_PIECE: break;
    case QN_EVENT_PROMPT_TOKEN:
        if (event->position == 0) {
            collect_into(a, a->prompt_logprobs, json_null());
        } else {
            collect_logprob(a, a->prompt_logprobs, event, a->v->prompt_logprobs);
        }
        break;
    case QN_EVENT_TOKEN:
        collect_into(a, a->ids, json_integer(event->token.token));
        if (a->logprobs != NULL) {
            collect_logprob(a, a->logprobs, event, a->v->logprobs);
        }
        break;
    case QN_EVENT_REASONING:
    case QN_EVENT_TEXT:
    case QN_EVENT_TOOL_CALL:
    case QN_EVENT_END: break;
    }
}

static void see(void *context, const qn_event *event)
{
    run_state *const a = context;
    collect(a, event);
    if (!a->v->as_json) {
        cli_printer_show(&a->printer, event);
    }
}

static void look_up(void *context)
{
    const run_state *const a = context;
    if (cli_is_interrupted() || ferror(stdout)) { /* nobody reads; cli_flush reports it */
        qn_session_cancel(a->session);
    }
}

/* Tokens until the end; Ctrl-C ends it with what there is. */
static qn_status generate(run_state *a, qn_error *err)
{
    const cli_follower follower = {.context = a, .event = see, .between = look_up};
    qn_status status = qn_session_submit(a->session, &a->request, err);
    if (status == QN_OK) {
        cli_ask_warn(&a->v->ask);
        status = cli_answer_follow(a->session, &follower, a->v->common.is_quiet, err);
    }
    if (!a->v->as_json) {
        cli_printer_end(&a->printer);
    }
    const qn_session_stats stats = qn_session_get_stats(a->session);
    if (status == QN_OK && stats.n_computed_tokens < stats.n_prompt_tokens) {
        return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                       "prompt: interrupted after %llu of %llu tokens, all expected",
                       (unsigned long long)stats.n_computed_tokens,
                       (unsigned long long)stats.n_prompt_tokens);
    }
    return status == QN_OK ? cli_answer_finish(&a->answer, err) : status;
}

static void print_stats(const run_state *a)
{
    const qn_session_stats s = qn_session_get_stats(a->session);
    if (a->v->common.is_quiet) {
        return;
    }
    (void)fprintf(stderr, "%llu token%s", (unsigned long long)s.n_generated_tokens,
                  cli_plural(s.n_generated_tokens));
    if (s.n_generated_tokens > 1) {
        (void)fprintf(stderr, ", %.1f tokens/s", cli_decode_rate(&s));
    }
    if (s.n_drafted > 0) {
        (void)fprintf(stderr, ", %.2f a step%s",
                      cli_rate((double)s.n_step_tokens, (double)s.n_steps),
                      s.is_synthetic ? " (synthetic: pinned)" : "");
    }
    if (s.n_generated_tokens > 0) {
        (void)fprintf(stderr, ", first token after %.2f s", s.ttft_s);
    }
    (void)fprintf(stderr, " (prompt %llu token%s, %.1f tokens/s)%s\n",
                  (unsigned long long)s.n_prompt_tokens, cli_plural(s.n_prompt_tokens),
                  cli_prefill_rate(&s),
                  qn_model_get_info(a->model)->weights[0] == 'd' ? ", dummy weights" : "");
}

static json_t *show_speculation(const run_state *a, const qn_session_stats *s)
{
    const bool is_auto = a->request.draft_tokens == QN_DRAFT_AUTO;
    size_t n_positions = 0;
    json_t *const list = json_array();
    for (size_t i = 0; i < QN_DRAFT_TOKENS_MAX; i++) {
        n_positions = s->n_accepted_at[i] > 0 ? i + 1 : n_positions;
    }
    n_positions = n_positions > s->n_draft_tokens ? n_positions : s->n_draft_tokens;
    for (size_t i = 0; i < n_positions; i++) {
        const double share = cli_rate((double)s->n_accepted_at[i], (double)s->n_steps);
        (void)json_array_append_new(list, json_real(share));
    }
    return json_pack("{si, sI, sI, sI, sf, so, sb, sb}", "draft_tokens", (int)s->n_draft_tokens,
                     "steps", (json_int_t)s->n_steps, "drafted_tokens", (json_int_t)s->n_drafted,
                     "accepted_tokens", (json_int_t)s->n_accepted, "acceptance_length",
                     cli_rate((double)s->n_step_tokens, (double)s->n_steps), "per_position", list,
                     "auto", (int)is_auto, "synthetic", (int)s->is_synthetic);
}

static int print_json(run_state *a)
{
    const qn_model_info *info = qn_model_get_info(a->model);
    const qn_session_stats s = qn_session_get_stats(a->session);
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    json_t *object = json_pack(
        "{so, ss, ss, ss, ss, ss, so, sO, so, so, sO, ss, s{sI, sI, sI, sI}, "
        "s{sf, sf, sf, sf}, so, sI, sI, sO, sO, sO}",
        "model", cli_json_text(info->name), "quantization", info->quantization, "weights",
        info->weights, "device", info->device, "compute", info->compute, "kv_dtype", info->kv_dtype,
        "prompt_ids", cli_json_ids(a->prompt, a->n_prompt), "ids", a->ids, "text",
        json_stringn(a->answer.texts[CLI_TEXT_PART], a->answer.lens[CLI_TEXT_PART]), "reasoning",
        json_stringn(a->answer.texts[CLI_REASONING], a->answer.lens[CLI_REASONING]), "tool_calls",
        a->answer.calls, "finish_reason", qn_finish_name(a->answer.finish), "usage",
        "prompt_tokens", (json_int_t)s.n_prompt_tokens, "cached_tokens",
        (json_int_t)s.n_cached_tokens, "completion_tokens", (json_int_t)s.n_generated_tokens,
        "reasoning_tokens", (json_int_t)s.n_reasoning_tokens, "timing", "load_s", info->load_s,
        "ttft_s", s.ttft_s, "prefill_tokens_per_s", cli_prefill_rate(&s), "decode_tokens_per_s",
        cli_decode_rate(&s), "speculation", show_speculation(a, &s), "seed",
        (json_int_t)a->asked.sampling.seed, "peak_rss_bytes", (json_int_t)usage.ru_maxrss * 1024,
        "logprobs", a->logprobs != NULL ? a->logprobs : json_null(), "prompt_logprobs",
        a->prompt_logprobs != NULL ? a->prompt_logprobs : json_null(), "warnings", a->warnings);
    if (object == NULL || a->has_lost) {
        json_decref(object);
        return cli_fail(QN_E_NOMEM, "JSON output: no memory");
    }
    return cli_print_json(object);
}

/* ---------------------------------------------------------------------------------------- run --
 */

static qn_status make_request(run_state *a, qn_error *err)
{
    const run_values *v = a->v;
    qn_request *const r = &a->request;
    *r = (qn_request){
        .ids = a->prompt,
        .n_ids = a->n_prompt,
        .tools_json = a->chat.tools_json,
        .tools_len = a->chat.tools_len,
        .wants_logprobs = v->logprobs != UINT64_MAX,
        .wants_prompt_logprobs = v->prompt_logprobs != UINT64_MAX,
    };
    r->n_top_logprobs = r->wants_logprobs ? (uint32_t)v->logprobs : 0;
    if (r->wants_prompt_logprobs && v->prompt_logprobs > r->n_top_logprobs) {
        r->n_top_logprobs = (uint32_t)v->prompt_logprobs;
    }
    return cli_ask_fill(r, &a->asked, &v->ask, qn_model_get_info(a->model), err);
}

static qn_status answer_once(run_state *a, const char *model_name, qn_error *err)
{
    const run_values *v = a->v;
    const bool needs_no_tokenizer = v->ids != NULL || v->prompt_tokens > 0;
    qn_status status = cli_open_model(&a->model, model_name, &v->model, needs_no_tokenizer,
                                      v->common.is_quiet, err);
    if (status == QN_OK) {
        status = cli_talk_fill(&a->chat, &a->tools, &v->talk, err);
    }
    if (status != QN_OK || (status = make_prompt(a, err)) != QN_OK) {
        return status;
    }
    const qn_session_options options = {
        .logits_path = v->logits, .trace_path = v->trace, .context_tokens = (uint32_t)v->context};
    status = make_request(a, err);
    if (status == QN_OK) {
        status = qn_session_open(&a->session, a->model, &options, err);
    }
    if (status == QN_OK) {
        status = generate(a, err);
    }
    if (status == QN_OK && (v->logits != NULL || v->trace != NULL)) {
        status = qn_session_finish_files(a->session, err);
    }
    return status;
}

static int finish(run_state *a)
{
    int status = a->v->as_json ? print_json(a) : cli_flush(CLI_DONE);
    print_stats(a);
    if (status == CLI_DONE && a->answer.finish == QN_FINISH_ABORT) {
        status =
            cli_fail(QN_E_CANCELLED, "answer: interrupted after %llu tokens, expected to go on",
                     (unsigned long long)qn_session_get_stats(a->session).n_generated_tokens);
    }
    return status;
}

static void open_state(run_state *a)
{
    cli_printer_init(&a->printer, &a->v->common);
    cli_answer_open(&a->answer);
    a->ids = json_array();
    a->warnings = json_array();
    a->logprobs = a->v->logprobs != UINT64_MAX ? json_array() : NULL;
    a->prompt_logprobs = a->v->prompt_logprobs != UINT64_MAX ? json_array() : NULL;
}

static void close_state(run_state *a)
{
    qn_session_close(&a->session);
    qn_model_close(&a->model);
    cli_answer_close(&a->answer);
    json_decref(a->ids);
    json_decref(a->warnings);
    json_decref(a->logprobs);
    json_decref(a->prompt_logprobs);
    qn_free(a->prompt);
    free(a->tools);
}

static int run(void *values, int n_arguments, char **arguments)
{
    const run_values *v = values;
    qn_error err = {0};
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "run: no model, expected a folder or owner/name, such as the "
                                    "small models/glm-nano that comes with the source");
    }
    int status = check_usage(v);
    if (status != CLI_DONE) {
        return status;
    }
    run_state a = {.v = v};
    open_state(&a);
    status = answer_once(&a, arguments[0], &err) == QN_OK ? finish(&a) : cli_report(&err);
    close_state(&a);
    return status;
}

const cli_command cmd_run = {
    .name = "run",
    .summary = "Answer one prompt",
    .synopsis = "MODEL [-p TEXT | -f FILE | --ids LIST | --messages FILE.json] [options]",
    .description =
        "Loads a model and prints its answer to one prompt, token by token. MODEL is a folder in "
        "Hugging Face layout, or an owner/name found in the local Hugging Face cache. Without a "
        "prompt option the prompt is read from standard input.\n\n"
        "The answer goes to standard output. What the model thinks first goes there too on a "
        "terminal, dimmed, and else to standard error, whose last line tells the speed.",
    .examples = "quern run models/glm-nano -p \"What is 12 + 30?\"\n"
                "quern run models/glm-nano --thinking off --temperature 0 -f question.txt\n"
                "quern run models/glm-nano --tools tools.json -p \"What time is it in Oslo?\"\n"
                "quern run models/glm-nano --raw -p \"Once upon a time\" --max-tokens 50\n"
                "quern run models/glm-nano --load-format dummy --prompt-tokens 8 --max-tokens 4\n",
    .groups = {{"Prompt", prompt_options, sizeof prompt_options / sizeof *prompt_options, 0},
               {"Conversation", cli_talk_options, CLI_N_TALK_OPTIONS, RUN(talk)},
               {"Answer", cli_ask_options, CLI_N_ASK_OPTIONS, RUN(ask)},
               {"Output", output_options, sizeof output_options / sizeof *output_options, 0},
               {"Model", cli_model_options, CLI_N_MODEL_OPTIONS, RUN(model)},
               CLI_COMMON_GROUP},
    .n_groups = 6,
    .n_arguments_max = 1,
    .init = init,
    .run = run,
};
_Static_assert(sizeof(run_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");
